"""The sections of a site's configuration: each setting stated once, with its default, bounds and meaning.

A comment that begins with `#:` is the setting's text in config/default.toml, which `make defaults` writes
from this module; one that begins with `#` says why. `Site` marks what a site decides; the rest is for
experts. (R) marks a value that no source states: a proposal, to be confirmed. Tables of limits are the
dataclasses of the rooms that obey them (`segmentation.settings`, `scoring.settings`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from annotated_types import Ge, Le, MinLen
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    StringConstraints,
    field_validator,
    model_validator,
)

from scoring.settings import (
    NOISE_WINDOW_MM,
    ChartSettings,
    InternalCalibrationSettings,
    PriorScanSettings,
    TrunkSettings,
)
from segmentation.settings import (
    GateSettings,
    GeometricSettings,
    IdentitySettings,
    ImageSettings,
    NotNegative,
    Positive,
    RegionSettings,
    Site,
    SliceSettings,
)

Count = Annotated[int, Ge(0)]
AtLeastOne = Annotated[int, Ge(1)]
Port = Annotated[int, Ge(0), Le(65535)]  # 0: any free port
PeerPort = Annotated[int, Ge(1), Le(65535)]
AeTitle = Annotated[str, StringConstraints(min_length=1, max_length=16)]
Words = tuple[str, ...]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NodeSettings(_Section):
    """How the node is called and reached, and what language it speaks."""

    ae_title: Site[
        Annotated[AeTitle, StringConstraints(pattern=r"^[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]*$")]
    ] = "OSTEONODE"  #: that the listener answers to
    #: the address the DICOM listener binds; "0.0.0.0" admits other machines
    host: Site[str] = "127.0.0.1"
    port: Site[Port] = 11112  #: of DICOM
    #: processes that receive; 0: as many as processors, at most four
    listeners: Annotated[int, Ge(0), Le(64)] = 0
    #: of the pictures: "en", or "zh" for simplified Chinese; SR and result.json are English
    language: Site[Literal["en", "zh"]] = "en"
    #: for Chinese (Debian: fonts-wqy-microhei); need not exist for "en"
    wide_font: Site[str] = "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"
    site: Site[str] = ""  #: overlays config/: findings.toml, phrases/, phantoms/, references/, models/

    @property
    def site_folder(self) -> Path | None:
        return Path(self.site) if self.site else None


class AccessSettings(_Section):
    """Who may have an association, and how many."""

    #: addresses that may connect, such as ["10.1.0.0/16"]; []: any that reaches node.host
    networks: Site[tuple[IPvAnyNetwork, ...]] = ()
    known_peers_only: Site[bool] = False  #: calling AE titles are those of [[peers]] and [[destinations]]
    #: associations for another AE title than node.ae_title, qct_ae_titles and these are refused
    called_ae_titles_only: Site[bool] = False
    called_ae_titles: Site[Words] = ()  #: further AE titles that are answered
    max_associations: Annotated[int, Ge(1), Le(1000)] = 100  #: at once, all peers together
    max_associations_per_peer: AtLeastOne = 25  #: from one address
    #: from one address, those that ask for no association among them
    max_connections_per_peer: AtLeastOne = 50
    max_pdu_bytes: Annotated[int, Ge(4096), Le(1 << 20)] = 131072  #: of one P-DATA-TF PDU
    idle_s: Positive = 60.0  #: a peer that says nothing for so long is gone
    association_s: Positive = 14400.0  #: the longest that an association may last
    #: false: pynetdicom's own loops serve associations, slower, and for fewer peers
    event_driven: bool = True


class LimitSettings(_Section):
    """The largest that is taken in and decoded."""

    #: 1 GiB: of one data set as sent, and as inflated; twice as much is held by each listening process
    instance_bytes: Annotated[int, Ge(1 << 20)] = 1073741824
    matrix: Annotated[int, Ge(16), Le(8192)] = 4096  #: rows and columns of a CT image
    frames: AtLeastOne = 5000  #: of a CT instance
    slices: AtLeastOne = 5000  #: images of a series that is to be measured


class TlsSettings(_Section):
    """Certificates of the node and of whoever talks to it."""

    certificate: Site[str] = ""  #: PEM; the node's own, with its chain
    key: Site[str] = ""  #: PEM, without password; empty: in the file of the certificate
    ca: Site[str] = ""  #: PEM; whoever signs the certificates of peers
    require_peer_certificate: Site[bool] = True  #: false: whoever connects need not show one

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.certificate and self.require_peer_certificate and not self.ca:
            raise ValueError("a peer's certificate is verified by a ca: name one")
        return self


class StorageSettings(_Section):
    """Where the node keeps what it has, and for how long."""

    root: Site[Path] = Path("var")  #: everything the node keeps lies under it; a local disk
    database_url: Site[str] = ""  #: empty: SQLite under root; or postgresql+psycopg://...
    #: 2 GiB: with less left on the disk of root, nothing more is received until there is space again
    min_free_bytes: Count = 2147483648
    #: received CT images of finished studies are removed after so many days; 0: never for their age
    retention_days: Site[NotNegative] = 0.0
    #: and artefacts (masks, result.json, DICOM objects, pictures) of delivered studies after so many, but
    #: never before clinical.max_age_days is over; rows of reports stay; 0: never
    retention_results_days: Site[NotNegative] = 0.0
    #: likewise all that names or finds the patient: every received file, artefacts, densities for follow-up
    retention_identity_days: Site[NotNegative] = 0.0
    #: and when the disk of root is fuller than this, the longest finished first; 0: never for space
    purge_above_percent: Site[Annotated[float, Ge(0), Le(100)]] = 0.0
    #: files that could not be decoded and are kept for a person to look at; the oldest make room
    quarantine_undecodable: Count = 100
    quarantine_undecodable_bytes: Count = 1073741824  #: 1 GiB: of all of them together
    #: files that a sender was told are safe, of other content or identity: none is ever dropped; beyond,
    #: 0xA700
    quarantine_acknowledged: Count = 50000
    quarantine_acknowledged_bytes: Count = 26843545600  #: 25 GiB: of all of them together

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.root.resolve() / 'osteonode.sqlite3'}"


class BrokerSettings(_Section):
    """Where Celery's messages go."""

    #: empty: an embedded redis-server, as a child of `serve`; or redis://..., rediss://..., redis+socket://...
    url: Site[str] = ""


class CompletenessSettings(_Section):
    """When a study is whole."""

    #: who is asked by C-FIND how many images each CT series has: all destinations, or
    #: ["name of a destination or AE title of a peer", ...]; []: nobody
    ask: Site[Literal["destinations"] | Words] = "destinations"
    ask_timeout_s: Positive = 5.0  #: (R) for the connection, and for each answer
    confirm_s: Positive = 2.0  #: (R) the counts must stay the same for so long
    all_series: Site[bool] = True  #: false: series of which nothing came are not waited for
    wait_max_s: Positive = 900.0  #: (R) how long images that an archive has are waited for
    fetch: Site[bool] = False  #: true: the archive is asked to send their series again (C-MOVE)
    fetch_after_s: Positive = 30.0  #: (R) after so long, and again after ever longer silence
    #: (R) without counts: quiet time where no slice is missing between the first and the last
    quiet_whole_s: Positive = 5.0
    quiet_s: Positive = 10.0  #: (R) quiet time where nothing tells
    #: (R) both become this many times the longest pause between two images of the study,
    quiet_pauses: NotNegative = 5.0
    quiet_max_s: Positive = 120.0  #: (R) but not more than this on that account
    poll_s: Positive = 1.0  #: how often it is looked at


class SelectionSettings(_Section):
    """Which studies are QCT, and which series can be measured."""

    qct_ae_titles: Site[Words] = ()  #: called AE titles whose studies are QCT by declaration
    #: "CODE^SCHEME" of ProcedureCodeSequence or RequestedProcedureCodeSequence
    qct_procedure_codes: Site[Words] = ()
    # GantryDetectorTilt is a nominal value (PS3.3 C.8.2.1).
    #: (R) by how much GantryDetectorTilt may contradict the tilt that the images show
    gantry_tilt_degrees: Annotated[float, Ge(0), Le(10)] = 1.0

    @field_validator("qct_procedure_codes")
    @classmethod
    def _code_and_scheme(cls, codes: Words) -> Words:
        for code in codes:
            if len(code.split("^")) != 2:
                raise ValueError(f"{code!r} is not CODE^SCHEME")
        return codes


MaskOrigin = Literal["manufacturer", "model", "software", "series_description"]
MaskLevel = Literal["T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1", "sacrum"]


class SegmentationSettings(_Section):
    """Which engine finds the vertebrae, and the limits of segmentation and its gates."""

    #: auto | geometric | totalsegmentator | nnunet | mask (process --mask FILE, or mask_from)
    engine: Site[Literal["auto", "geometric", "totalsegmentator", "nnunet", "mask"]] = "auto"
    #: numbers in a NIfTI mask drawn elsewhere: auto | totalsegmentator | verse
    mask_labels: Site[Literal["auto", "totalsegmentator", "verse"]] = "auto"
    #: whose DICOM SEG in the study is measured, such as
    #: { manufacturer = "Acme*", series_description = "*vertebra*" }
    mask_from: Site[Mapping[MaskOrigin, str]] = {}
    #: of a SEG without codes: label = level, such as { "lumbar 3" = "L3" }
    mask_segments: Site[Mapping[str, MaskLevel]] = {}
    #: names from a mask or a network are compared with the geometric engine's: some seconds
    cross_check: Site[bool] = True
    #: (R) thickness or distance of slices, the larger: above, the geometric engine is not asked
    geometric_max_step_mm: Positive = 6.0
    #: of a trained network: auto (a CUDA GPU where there is one) | cpu | cuda | cuda:N
    device: Site[Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]] = "auto"
    #: on a processor, bfloat16 where it is safe: about half the time; on a GPU always
    mixed_precision: Site[bool] = False
    threads: Site[Count] = 0  #: processor threads of a trained network; 0: as many as torch finds best
    #: TotalSegmentator's Dataset folders; TOTALSEG_WEIGHTS_PATH goes before this line
    weights: Site[Path] = Path("var/weights")
    #: standard | robust (slower) | fast (coarse)
    totalsegmentator_mode: Site[Literal["standard", "robust", "fast"]] = "standard"
    nnunet_model: Site[str] = ""  #: a folder with plans.json, dataset.json and fold_*/
    #: class (its name or number) = level, such as { vertebra_20 = "L1" }; {}: classes are named like levels
    nnunet_levels: Site[dict[str, str]] = {}
    #: where the model's axes x, y, z run
    nnunet_orientation: Site[Annotated[str, StringConstraints(pattern=r"^[LR][AP][SI]$")]] = "RAS"
    #: limits of the model-free engine; these and the next tables hold proposals (R), for a site to confirm
    geometric: GeometricSettings = GeometricSettings()
    identity: IdentitySettings = IdentitySettings()  #: when a row of names is not believed, whoever gave them
    regions: RegionSettings = RegionSettings()  #: how the measured regions are cut from a body
    quality: GateSettings = GateSettings()  #: limits of the gates on a body and its regions
    image: ImageSettings = ImageSettings()  #: limits of the gates on the image around the spine
    #: one thick slice for each vertebra; HU hold at 80 kV, bone's part is scaled elsewhere
    single_slice: SliceSettings = SliceSettings()


class CalibrationSettings(_Section):
    """What turns HU into density."""

    #: a file of config/phantoms/ or of the site's phantoms/; "auto" to recognise the model in the image
    phantom: Site[Annotated[str, StringConstraints(min_length=1)]] = "siemens-osteo"
    candidates: Site[Words] = ()  #: models that "auto" chooses among; [] for all there are
    #: phantom | internal: by the patient's own tissues, whatever is in view. SCREENING: no score, no category
    method: Site[Literal["phantom", "internal"]] = "phantom"
    #: of the phantom whose own certificate, the site's phantoms/MODEL.SERIAL.toml, states the densities
    serial: Site[Annotated[str, StringConstraints(pattern=r"^[\w-]*$")]] = ""
    #: a study without a phantom in view, calibrated by one scanned earlier on the same scanner
    asynchronous: PriorScanSettings = PriorScanSettings()
    #: what tissues are taken to be, and when a fit of them is refused
    internal: InternalCalibrationSettings = InternalCalibrationSettings()

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.phantom == "auto" and self.serial:
            raise ValueError('a serial number belongs to a named phantom, not to "auto"')
        if self.phantom != "auto" and self.candidates:
            raise ValueError('candidates are what phantom = "auto" chooses among')
        return self


class ScoringSettings(_Section):
    """What densities are compared with."""

    #: a file of references/; "" for none, and then no T-score. The shipped one is invented:
    #: NOT FOR CLINICAL USE
    reference: Site[str] = "demonstration"
    #: a file of models/; "" for none, and then no rad-score. The shipped one is invented:
    #: NOT FOR CLINICAL USE
    model: Site[str] = "demonstration"
    #: reference = what its source may leave unstated: kvp | roi | levels; anything else withholds T and Z
    accept_unstated: Site[Mapping[str, tuple[Literal["kvp", "roi", "levels"], ...]]] = {}
    #: [slope, intercept in mg/cm3]: lets the density rule, made for K2HPO4, judge HA; [] for none
    k2hpo4_from_ha: Site[tuple[float, float] | tuple[()]] = ()
    #: (R) voxels further apart are taken for uncorrelated; a soft kernel's noise must fit into it
    noise_window_mm: Positive = NOISE_WINDOW_MM

    @field_validator("k2hpo4_from_ha")
    @classmethod
    def _rises(cls, pair: tuple[float, ...]) -> tuple[float, ...]:
        if pair and not pair[0] > 0:
            raise ValueError("the slope must be above 0")
        return pair


def _name_somebody(patterns: Words) -> Words:
    for pattern in patterns:
        if not re.sub(r"\[.*?\]|[*?]", "", pattern).strip():
            raise ValueError(f"{pattern!r} would take every patient for a phantom: name what is theirs")
    return patterns


@dataclass(frozen=True, slots=True, kw_only=True)
class QualitySettings(ChartSettings):
    """Control charts of each scanner, of what its phantom reads."""

    #: after service: serial number = first day of a new baseline, such as { "12345" = "2026-03-01" }
    baseline_from: Site[Mapping[str, date]] = field(default_factory=dict)
    #: patterns of Patient IDs that phantoms are scanned under, such as "QA*": never a patient's report
    phantom_patient_ids: Site[Annotated[Words, AfterValidator(_name_somebody)]] = ()
    #: a phantom in less matter than this lies alone: no patient's study
    patient: TrunkSettings = field(default_factory=TrunkSettings)


class FollowUpSettings(_Section):
    """Comparison with earlier studies of the same patient."""

    #: the site's least significant change (2.77 times its precision error); 0: not known
    lsc_mg_cm3: Site[NotNegative] = 0.0
    # Only what many headers never state: scanner, tube voltage and kernel are never taken for equal unseen.
    #: taken for equal where neither study's header states it: spectral_filter | reconstruction
    accept_unstated: Site[tuple[Literal["spectral_filter", "reconstruction"], ...]] = ()


class ClinicalSettings(_Section):
    """Laboratory values."""

    csv: Site[str] = ""  #: laboratory values: patient_id, issuer, date, alp_u_l, homocysteine_umol_l
    #: (R) a laboratory value older or newer than this, against the study date, is not used
    max_age_days: Site[Count] = 180

    @property
    def csv_path(self) -> Path | None:
        return Path(self.csv) if self.csv else None


class WorkerSettings(_Section):
    """How steps are given to workers, tried again and delivered."""

    lease_s: Positive = 120.0  #: a step whose worker falls silent for this long is given to another
    max_attempts: AtLeastOne = 3  #: real failures of one step before the study is set aside
    #: wait after the first, second, ... failure; the last one repeats
    backoff_s: Annotated[tuple[float, ...], MinLen(1)] = (5.0, 60.0, 600.0)
    #: wait after a failed delivery; the last one repeats
    send_backoff_s: Annotated[tuple[float, ...], MinLen(1)] = (5.0, 30.0, 300.0, 3600.0)
    #: a delivery that failed, or was not proven, for so long is a dead letter (3 days)
    send_give_up_after_s: Positive = 259200.0
    #: how long the association stays open on which a PACS was asked to commit
    commitment_wait_s: NotNegative = 2.0
    #: a storage commitment without an answer for so long is asked for again, or C-FIND is
    commitment_patience_s: Positive = 600.0
    reconcile_s: Positive = 2.0  #: how often work is published again from the database
    #: a study half-way that no worker's configuration and software fit for so long begins again
    begin_again_s: Positive = 300.0
    urgent_ae_titles: Site[Words] = ()  #: called AE titles whose studies go before all others
    time_limit_s: Positive = 1800.0  #: hard limit of one step


class WebSettings(_Section):
    """The operator's page."""

    host: Site[str] = "127.0.0.1"  #: the address of the page; without authentication keep it on loopback
    port: Site[Port] = 8080  #: of the page


class AlertSettings(_Section):
    """When the page, /metrics and /api/alerts call for a person."""

    destination_away_s: Positive = 3600.0  #: a destination took nothing for so long, though it was tried
    due_s: Positive = 300.0  #: a step waited for so long for a worker
    due_jobs: AtLeastOne = 100  #: so many steps wait for a worker
    publish_silence_s: Positive = 120.0  #: no study was closed and no work published for so long
    thread_silence_s: Positive = 900.0  #: housekeeping or commitment reports did not come round for so long
    died_s: Positive = 3600.0  #: a process that ended unexpectedly is told for so long
    certificate_days: NotNegative = 30.0  #: the node's own TLS certificate expires within so many days


class LogSettings(_Section):
    """What is logged, and how."""

    level: Site[Literal["DEBUG", "INFO", "WARNING", "ERROR"]] = "INFO"  #: DEBUG | INFO | WARNING | ERROR
    #: auto (console on a terminal, else json) | console | json
    format: Site[Literal["auto", "console", "json"]] = "auto"


class Destination(_Section):
    """A PACS that results are sent to."""

    name: Site[Annotated[str, Field(min_length=1, examples=["pacs"])]]  #: what the node calls it
    ae_title: Site[Annotated[AeTitle, Field(examples=["ORTHANC"])]]  #: its AE title
    host: Site[Annotated[str, Field(min_length=1, examples=["192.0.2.10"])]]  #: its address
    port: Site[Annotated[PeerPort, Field(examples=[4242])]]  #: its port
    #: what shows that results are there: auto | commitment | find | sent
    proof: Site[Literal["auto", "commitment", "find", "sent"]] = "auto"
    #: of the report: auto | comprehensive3d | comprehensive | enhanced
    sr_class: Site[Literal["auto", "comprehensive3d", "comprehensive", "enhanced"]] = "auto"
    rejection_note: Site[bool] = False  #: whether what an amended report replaces is rejected by IOCM
    tls: Site[bool] = False  #: by TLS, as [tls] says


class Peer(_Section):
    """Whoever sends to this node, and where it is told of storage commitment."""

    ae_title: Site[Annotated[AeTitle, Field(examples=["CTSTATION"])]]  #: under which it calls
    host: Site[Annotated[str, Field(min_length=1, examples=["192.0.2.11"])]]  #: its address
    port: Site[Annotated[PeerPort, Field(examples=[104])]]  #: its port
    networks: Site[tuple[IPvAnyNetwork, ...]] = ()  #: from which its AE title is believed; []: from any
    tls: Site[bool] = False  #: it is told by TLS
