"""Settings: the sole reader of configuration files and of the environment."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import is_dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from config.calibration_rules import AsynchronousRules, InternalRules, PatientRules
from segmentation.settings import (
    GateSettings,
    GeometricSettings,
    IdentitySettings,
    ImageSettings,
    RegionSettings,
    SliceSettings,
)

# Where the relative paths of a configuration file count from.


# Settings that name a file or a folder.
PATHS: Mapping[str, tuple[str, ...]] = {
    "node": ("site", "wide_font"),
    "storage": ("root",),
    "segmentation": ("weights", "nnunet_model"),
    "clinical": ("csv",),
    "tls": ("certificate", "key", "ca"),
}
_SQLITE_FILE = re.compile(r"(sqlite(?:\+\w+)?:///)([^/:].*)")


def anchored(given: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """Settings whose relative paths are taken from a folder, if there is one; "" stays none."""
    if folder is None:
        return given
    placed = dict(given)
    for section, names in PATHS.items():
        values = given.get(section)
        if isinstance(values, dict):
            named = {name: values[name] for name in names if isinstance(values.get(name), str)}
            placed[section] = values | {name: str(folder / value) for name, value in named.items() if value}
    storage = placed.get("storage")
    url = storage.get("database_url") if isinstance(storage, dict) else None
    if isinstance(url, str) and (found := _SQLITE_FILE.fullmatch(url)):
        placed["storage"] = {**placed["storage"], "database_url": f"{found[1]}{folder / found[2]}"}
    return placed


Port = Field(ge=0, le=65535)  # 0: any free port
Positive = Field(gt=0)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NodeSettings(_Section):
    ae_title: str = Field(min_length=1, max_length=16, pattern=r"^[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]*$")
    host: str
    port: int = Port
    listeners: int = Field(ge=0, le=64)
    language: Literal["en", "zh"]
    wide_font: str
    site: str

    @property
    def site_folder(self) -> Path | None:
        return Path(self.site) if self.site else None


class StorageSettings(_Section):
    root: Path
    database_url: str
    min_free_bytes: int = Field(ge=0)
    retention_days: float = Field(ge=0)
    retention_results_days: float = Field(ge=0)
    retention_identity_days: float = Field(ge=0)
    purge_above_percent: float = Field(ge=0, le=100)
    quarantine_undecodable: int = Field(ge=0)
    quarantine_undecodable_bytes: int = Field(ge=0)
    quarantine_acknowledged: int = Field(ge=0)
    quarantine_acknowledged_bytes: int = Field(ge=0)

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.root.resolve() / 'osteonode.sqlite3'}"


class BrokerSettings(_Section):
    url: str


class AccessSettings(_Section):
    networks: tuple[IPvAnyNetwork, ...]
    known_peers_only: bool
    called_ae_titles_only: bool
    called_ae_titles: tuple[str, ...]
    max_associations: int = Field(ge=1, le=1000)
    max_associations_per_peer: int = Field(ge=1)
    max_connections_per_peer: int = Field(ge=1)
    max_pdu_bytes: int = Field(ge=4096, le=1 << 20)
    idle_s: float = Positive
    association_s: float = Positive


class LimitSettings(_Section):
    """The largest that is taken in and decoded."""

    instance_bytes: int = Field(ge=1 << 20)
    matrix: int = Field(ge=16, le=8192)
    frames: int = Field(ge=1)
    slices: int = Field(ge=1)


class TlsSettings(_Section):
    certificate: str
    key: str
    ca: str
    require_peer_certificate: bool

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.certificate and self.require_peer_certificate and not self.ca:
            raise ValueError("a peer's certificate is verified by a ca: name one")
        return self


class CompletenessSettings(_Section):
    ask: Literal["destinations"] | tuple[str, ...]
    ask_timeout_s: float = Positive
    confirm_s: float = Positive
    all_series: bool
    wait_max_s: float = Positive
    fetch: bool
    fetch_after_s: float = Positive
    quiet_whole_s: float = Positive
    quiet_s: float = Positive
    quiet_pauses: float = Field(ge=0)
    quiet_max_s: float = Positive
    poll_s: float = Positive


class SelectionSettings(_Section):
    qct_ae_titles: tuple[str, ...]
    qct_procedure_codes: tuple[str, ...]
    gantry_tilt_degrees: float = Field(ge=0, le=10)

    @field_validator("qct_procedure_codes")
    @classmethod
    def _code_and_scheme(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        for code in codes:
            if len(code.split("^")) != 2:
                raise ValueError(f"{code!r} is not CODE^SCHEME")
        return codes


class SegmentationSettings(_Section):
    engine: Literal["auto", "geometric", "totalsegmentator", "nnunet", "mask"]
    mask_labels: Literal["auto", "totalsegmentator", "verse"]
    mask_from: Mapping[Literal["manufacturer", "model", "software", "series_description"], str]
    mask_segments: Mapping[str, Literal["T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1", "sacrum"]]
    cross_check: bool
    geometric_max_step_mm: float = Positive
    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    mixed_precision: bool
    threads: int = Field(ge=0)
    weights: Path
    totalsegmentator_mode: Literal["standard", "robust", "fast"]
    nnunet_model: str
    nnunet_levels: dict[str, str]
    nnunet_orientation: str = Field(pattern=r"^[LR][AP][SI]$")
    geometric: GeometricSettings
    identity: IdentitySettings
    regions: RegionSettings
    quality: GateSettings
    image: ImageSettings
    single_slice: SliceSettings


class CalibrationSettings(_Section):
    phantom: str = Field(min_length=1)
    candidates: tuple[str, ...]
    serial: str = Field(pattern=r"^[\w-]*$")
    method: Literal["phantom", "internal"]
    asynchronous: AsynchronousRules
    internal: InternalRules

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.phantom == "auto" and self.serial:
            raise ValueError('a serial number belongs to a named phantom, not to "auto"')
        if self.phantom != "auto" and self.candidates:
            raise ValueError('candidates are what phantom = "auto" chooses among')
        return self


class ScoringSettings(_Section):
    reference: str
    model: str
    accept_unstated: Mapping[str, tuple[Literal["kvp", "roi", "levels"], ...]]  # by reference
    k2hpo4_from_ha: tuple[float, float] | tuple[()]  # slope and intercept in mg/cm3; () for none
    noise_window_mm: float = Positive

    @field_validator("k2hpo4_from_ha")
    @classmethod
    def _rises(cls, pair: tuple[float, ...]) -> tuple[float, ...]:
        if pair and not pair[0] > 0:
            raise ValueError("the slope must be above 0")
        return pair


class QualitySettings(_Section):
    baseline_readings: int = Field(ge=2)
    limit_sigmas: float = Positive
    cusum_k: float = Positive
    cusum_h: float = Positive
    minimum_slope_cv: float = Positive
    minimum_water_sd_hu: float = Positive
    baseline_from: Mapping[str, date]
    phantom_patient_ids: tuple[str, ...]
    patient: PatientRules

    @field_validator("phantom_patient_ids")
    @classmethod
    def _name_somebody(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not re.sub(r"\[.*?\]|[*?]", "", pattern).strip():
                raise ValueError(f"{pattern!r} would take every patient for a phantom: name what is theirs")
        return patterns


class FollowUpSettings(_Section):
    lsc_mg_cm3: float = Field(ge=0)
    # Only what many headers never state: scanner, tube voltage and kernel are never taken for equal unseen.
    accept_unstated: tuple[Literal["spectral_filter", "reconstruction"], ...]


class ClinicalSettings(_Section):
    csv: str
    max_age_days: int = Field(ge=0)

    @property
    def csv_path(self) -> Path | None:
        return Path(self.csv) if self.csv else None


class WorkerSettings(_Section):
    lease_s: float = Positive
    max_attempts: int = Field(ge=1)
    backoff_s: tuple[float, ...] = Field(min_length=1)
    send_backoff_s: tuple[float, ...] = Field(min_length=1)
    send_give_up_after_s: float = Positive
    commitment_wait_s: float = Field(ge=0)
    commitment_patience_s: float = Positive
    reconcile_s: float = Positive
    begin_again_s: float = Positive
    urgent_ae_titles: tuple[str, ...]
    time_limit_s: float = Positive


class AlertSettings(_Section):
    destination_away_s: float = Positive
    due_s: float = Positive
    due_jobs: int = Field(ge=1)
    publish_silence_s: float = Positive
    thread_silence_s: float = Positive
    died_s: float = Positive
    certificate_days: float = Field(ge=0)


class WebSettings(_Section):
    host: str
    port: int = Port


class LogSettings(_Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"]
    format: Literal["auto", "console", "json"]


class Destination(_Section):
    """A PACS that results are sent to."""

    name: str = Field(min_length=1)
    ae_title: str = Field(min_length=1, max_length=16)
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    proof: Literal["auto", "commitment", "find", "sent"] = "auto"
    sr_class: Literal["auto", "comprehensive3d", "comprehensive", "enhanced"] = "auto"
    rejection_note: bool = False
    tls: bool = False


class Peer(_Section):
    """Whoever sends to this node, and where it is told of storage commitment."""

    ae_title: str = Field(min_length=1, max_length=16)
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    networks: tuple[IPvAnyNetwork, ...] = ()  # none: its title is believed from any address
    tls: bool = False


class Settings(BaseSettings):
    """Everything a site can set. Defaults stand in config/default.toml alone."""

    model_config = SettingsConfigDict(
        env_prefix="OSTEONODE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    node: NodeSettings
    access: AccessSettings
    limits: LimitSettings
    tls: TlsSettings
    storage: StorageSettings
    broker: BrokerSettings
    completeness: CompletenessSettings
    selection: SelectionSettings
    segmentation: SegmentationSettings
    calibration: CalibrationSettings
    scoring: ScoringSettings
    quality: QualitySettings
    followup: FollowUpSettings
    clinical: ClinicalSettings
    worker: WorkerSettings
    web: WebSettings
    alerts: AlertSettings
    log: LogSettings
    destinations: tuple[Destination, ...] = ()
    peers: tuple[Peer, ...] = ()

    @field_validator("destinations")
    @classmethod
    def _names_differ(cls, destinations: tuple[Destination, ...]) -> tuple[Destination, ...]:
        if len({d.name for d in destinations}) != len(destinations):
            raise ValueError("destinations must have different names")
        return destinations

    @field_validator("peers")
    @classmethod
    def _titles_differ(cls, peers: tuple[Peer, ...]) -> tuple[Peer, ...]:
        if len({peer.ae_title for peer in peers}) != len(peers):
            raise ValueError("peers must have different AE titles")
        return peers

    @model_validator(mode="after")
    def _knows_whom_it_asks(self) -> Self:
        if isinstance(self.completeness.ask, tuple):
            known = {one.name for one in self.destinations} | {one.ae_title for one in self.peers}
            if strangers := set(self.completeness.ask) - known:
                raise ValueError(
                    f"completeness.ask: {', '.join(sorted(strangers))} is no destination's name "
                    "and no peer's AE title"
                )
        return self

    @property
    def archives(self) -> Mapping[str, Peer | Destination]:
        """Whom the node asks what a study consists of, by name, in the order of asking."""
        by_name: dict[str, Peer | Destination] = {one.ae_title: one for one in self.peers}
        by_name |= {one.name: one for one in self.destinations}
        ask = self.completeness.ask
        names = [one.name for one in self.destinations] if ask == "destinations" else ask
        return {name: by_name[name] for name in names}

    def address_of(self, ae_title: str) -> Peer | Destination | None:
        """Where a peer listens: as `peers` say, else as a destination of the same AE title."""
        known: tuple[Peer | Destination, ...] = (*self.peers, *self.destinations)
        return next((one for one in known if one.ae_title == ae_title), None)

    @property
    def sha256(self) -> str:
        """Hash of every setting that can change what a report says (addresses, paths and limits left out).

        Of files that settings name it has the names; `config.catalog.configuration_sha256` has their content.

        The least significant change and what follow-up accepts are among them. Whether an earlier study may
        be compared is not decided by this hash but by `measurement_sha256`.
        """
        content = self.model_dump(
            mode="json",
            include={
                "selection",
                "segmentation",
                "calibration",
                "scoring",
                "quality",
                "followup",
                "clinical",
            },
        )
        content["clinical"].pop("csv")
        # An engine names its weights by their hash, and where it computed: machines may differ in that.
        for place in ("weights", "nnunet_model", "threads", "device", "mixed_precision"):
            content["segmentation"].pop(place)
        content["language"] = self.node.language
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def measurement_sha256(self) -> str:
        """Hash of the rules of engine, regions and calibration: equal where two studies may be compared.

        Left out is what judges a density once it is read: references, rules, gates, the least significant
        change. The rules of every engine are in it, whichever drew: an engine is settled only at start.
        """
        regions = self.segmentation.model_dump(mode="json", include={"regions"})["regions"]
        if regions.pop("bmd") != "ellipse":  # the core leads, and leading densities are compared
            del regions["ellipse"]
        content = {
            "engines": self.segmentation.model_dump(
                mode="json", include={"geometric", "totalsegmentator_mode", "nnunet_orientation"}
            ),
            "regions": regions,
            # Which earlier scan may lend is not how anything is measured; the method says that it was lent.
            "calibration": self.calibration.model_dump(
                mode="json",
                exclude={"asynchronous"}
                if self.calibration.method == "internal"
                else {"asynchronous", "internal"},
            ),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class ConfigurationError(Exception):
    """A configuration file that cannot be read or holds something that is not a setting."""


def default_toml() -> str:
    """The shipped config/default.toml."""
    return files("config").joinpath("default.toml").read_text("utf-8")


def load_settings(path: Path | None = None, **overrides: Any) -> Settings:
    """Defaults, overlaid by the file at `path`, then by the environment, then by `overrides`.

    A relative path in the file, or among the defaults beneath it, counts from the file's folder, wherever a
    command is run: two commands with one file use one database. In the environment, in `overrides` and where
    no file is named it counts from the working directory.

    Parameters
    ----------
    overrides : sections or parts of them, as a command line's options give them.

    Raises
    ------
    ConfigurationError
        If the file is missing, is not TOML, or holds an unknown or invalid setting.
    """
    try:
        given = tomllib.loads(path.read_text("utf-8")) if path is not None else {}
        return _layered(given, path.resolve().parent if path is not None else None)(**overrides)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {_words_of(one)}" for one in error.errors())
        raise ConfigurationError(f"{path or 'settings'}: {wrong}") from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise ConfigurationError(f"{path or 'settings'}: {error}") from error


def _words_of(error: ErrorDetails) -> str:
    """An unknown key is told alike, whether its table is a model or a dataclass."""
    unknown = error["type"] == "unexpected_keyword_argument"
    return "Extra inputs are not permitted" if unknown else error["msg"]


class Environment(EnvSettingsSource):
    """Variables of the environment, those of tables that are dataclasses among them."""

    def next_field(
        self, field: FieldInfo | Any | None, key: str, case_sensitive: bool | None = None
    ) -> FieldInfo | None:
        table = field.annotation if isinstance(field, FieldInfo) else field
        if is_dataclass(table) and isinstance(table, type):
            hint = get_type_hints(table, include_extras=True).get(key)
            return None if hint is None else FieldInfo.from_annotation(hint)
        return super().next_field(field, key, case_sensitive)


def _layered(given: dict[str, Any], folder: Path | None) -> type[Settings]:
    """`Settings` that reads the content of a file in `folder` between the environment and the defaults."""

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            file = InitSettingsSource(settings_cls, anchored(given, folder))
            peers = InitSettingsSource(settings_cls, _named_by_peers())
            defaults = InitSettingsSource(settings_cls, anchored(tomllib.loads(default_toml()), folder))
            return init_settings, Environment(settings_cls), file, peers, defaults

    return Layered


def _named_by_peers() -> dict[str, Any]:
    """What other programs' variables say: where TotalSegmentator has its weights on this machine."""
    weights = os.environ.get("TOTALSEG_WEIGHTS_PATH")
    return {"segmentation": {"weights": weights}} if weights else {}


_CONFIGURATION_FILE = "OSTEONODE_CONFIGURATION_FILE"


def remember_file(path: Path | None) -> None:
    """Keep for this process and its children which file configures them, to name it in hints."""
    if path is None:
        os.environ.pop(_CONFIGURATION_FILE, None)
    else:
        os.environ[_CONFIGURATION_FILE] = str(path.resolve())


def command_line(*words: str) -> str:
    """An `osteonode` command with the file that configures this process, to be pasted into a shell."""
    file = os.environ.get(_CONFIGURATION_FILE)
    return shlex.join(["osteonode", *words, *(["--config", file] if file else [])])


def source_date_epoch() -> int | None:
    """SOURCE_DATE_EPOCH of reproducible builds, None where it is not set.

    Raises
    ------
    ConfigurationError
        If it is set and is no whole number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ConfigurationError(f"SOURCE_DATE_EPOCH is no whole number: {text!r}") from error
