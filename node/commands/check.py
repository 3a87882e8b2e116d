"""`osteonode check`: everything the node needs, tried. One line each; exit status 1 if anything fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from importlib.metadata import distributions, packages_distributions, version
from pathlib import Path
from typing import Annotated

import redis
import typer
from rich.console import Console
from rich.text import Text

from config.catalog import (
    CatalogEntryInvalid,
    CatalogEntryMissing,
    configured_phantoms,
    load_radiomics_settings_text,
    load_reference,
)
from config.findings import load_findings
from config.phrases import in_english, wide_font
from config.sections import SegmentationSettings
from config.settings import ConfigurationError, Settings, load_settings
from node import logs
from node.commands.console import terminal
from node.net.access import listener_context
from node.net.query import make_archive
from node.net.sender import DicomSender, Requestor
from node.pipeline.engine import resolve_engine
from node.pipeline.result_basis import active_model
from node.processes.supervisor import BrokerNotStarted, EmbeddedRedis
from node.store.errors import StoreError
from node.store.store import open_store
from scoring.density.scores import unstated_phrase
from scoring.errors import RadiomicsSettingsInvalid
from segmentation.engines.nnunet import NnunetEngine
from segmentation.engines.totalsegmentator import TotalSegmentatorEngine
from segmentation.engines.totalsegmentator_weights import Mode, download_weights, missing_requirements
from segmentation.errors import EngineUnavailable

_PACKAGES = (
    "pydicom",
    "pynetdicom",
    "highdicom",
    "SimpleITK",
    "radiomics",
    "sklearn",
    "xraylib",
    "celery",
    "redis",
    "sqlalchemy",
)
_OWN_PACKAGES = ("node", "segmentation", "scoring", "config")
_DISTRIBUTION = "osteonode"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_NO_STUDY = "2.25.0"  # UUID 0
_FREE_BYTES_WANTED = 5 * 1024**3  # a few dozen studies


class CheckStatus(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was tried."""

    what: str
    standing: CheckStatus
    detail: str


def check(
    config: Annotated[Path | None, typer.Option(help="Settings (TOML).", dir_okay=False)] = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="First fetch TotalSegmentator's weights where they are missing."),
    ] = False,
) -> None:
    """Try everything the node needs and say how each stands. Exit status 1 if anything fails."""
    settings = load_settings(config)
    logs.configure(settings.log.model_copy(update={"level": "WARNING"}))
    console = terminal()
    if download:
        _download(settings.segmentation, console)
    colours = {CheckStatus.OK: "green", CheckStatus.WARNING: "yellow", CheckStatus.FAILED: "red"}
    failed = False
    for line in examine(settings):
        failed |= line.standing is CheckStatus.FAILED
        colour = colours[line.standing]
        console.print(
            Text.assemble((f"{line.standing.value:<8}", colour), f"{line.what:<16}{line.detail}"),
            soft_wrap=True,
        )
    if failed:
        raise typer.Exit(1)


def _download(settings: SegmentationSettings, console: Console) -> None:
    try:
        new = download_weights(settings.weights, Mode(settings.totalsegmentator_mode))
    except EngineUnavailable as error:
        console.print(str(error), style="red")
        raise typer.Exit(1) from error
    console.print(f"downloaded: {', '.join(new) or 'nothing'}. All weights are in {settings.weights}")


def examine(settings: Settings) -> Iterator[Line]:
    """Every check, in the order of the journey of a study."""
    for what, trial in (
        ("packages", _packages),
        ("own packages", _own_packages),
        ("findings", lambda: _findings(settings)),
        ("pictures", lambda: _pictures(settings)),
        ("phantom", lambda: _phantom(settings)),
        ("reference", lambda: _reference(settings)),
        ("model", lambda: _model(settings)),
        ("features", lambda: _features(settings)),
        ("engine", lambda: _engine(settings)),
        ("laboratory", lambda: _laboratory(settings)),
        ("storage", lambda: _storage(settings)),
        ("disk", lambda: _disk(settings)),
        ("broker", lambda: _broker(settings)),
        ("access", lambda: _access(settings)),
    ):
        yield _tried(what, trial)
    if not settings.destinations:
        yield Line(
            what="destination",
            standing=CheckStatus.WARNING,
            detail="none configured: results stay in the node",
        )
    for destination in settings.destinations:
        answer = DicomSender(Requestor(settings.node.ae_title, tls=settings.tls)).echo(destination)
        yield Line(
            what="destination",
            standing=CheckStatus.OK if answer.answered else CheckStatus.FAILED,
            detail=f"{destination.name} ({destination.ae_title} at {destination.host}:{destination.port}): "
            f"{answer.detail}",
        )
    yield from examine_archives(settings)


def examine_archives(settings: Settings) -> Iterator[Line]:
    """Whether archives take the question that studies are closed by, here about a study that nobody has."""
    for name, peer in settings.archives.items():
        answer = make_archive(settings).count_ct_images(peer, _NO_STUDY)
        standing, detail = CheckStatus.OK, f"{name} answers queries"
        if answer.matches is None:
            standing = CheckStatus.WARNING
            detail = (
                f"{name}: {answer.problem}. Slice geometry and quiet time close studies instead of its counts"
            )
        yield Line(what="archive", standing=standing, detail=detail)


_Trial = Callable[[], tuple[CheckStatus, str]]
_EXPECTED = (
    BrokerNotStarted,
    CatalogEntryInvalid,
    CatalogEntryMissing,
    ConfigurationError,
    EngineUnavailable,
    ImportError,
    OSError,
    RadiomicsSettingsInvalid,
    StoreError,
    ValueError,
    redis.RedisError,
)


def _tried(what: str, trial: _Trial) -> Line:
    try:
        standing, detail = trial()
    except _EXPECTED as error:
        standing, detail = CheckStatus.FAILED, str(error) or type(error).__name__
    return Line(what=what, standing=standing, detail=detail)


def _packages() -> tuple[CheckStatus, str]:
    owners = packages_distributions()
    for name in _PACKAGES:
        import_module(name)
    return CheckStatus.OK, ", ".join(f"{name} {version(owners[name][0])}" for name in _PACKAGES)


def _own_packages() -> tuple[CheckStatus, str]:
    """`config` and `node` are also the names of other people's distributions, which would overwrite ours."""
    intruders = sorted(
        {
            f"{distribution.name} also installs {file.parts[0]}"
            for distribution in distributions()
            if distribution.name != _DISTRIBUTION
            for file in distribution.files or ()
            if file.parts[0] in _OWN_PACKAGES
        }
    )
    places = {Path(import_module(name).__file__ or "").parents[1] for name in _OWN_PACKAGES}
    if len(places) != 1:
        intruders.append(f"they are installed in {len(places)} different places")
    if intruders:
        return CheckStatus.FAILED, "; ".join(intruders)
    return CheckStatus.OK, f"{_DISTRIBUTION} {version(_DISTRIBUTION)} alone owns {', '.join(_OWN_PACKAGES)}"


def _findings(settings: Settings) -> tuple[CheckStatus, str]:
    site = settings.node.site_folder
    if site is not None and not site.is_dir():
        return CheckStatus.FAILED, f"node.site: {site} is not a folder"
    return CheckStatus.OK, f"{len(load_findings(site).rows)} rows"


def _pictures(settings: Settings) -> tuple[CheckStatus, str]:
    font = wide_font(settings.node)
    named = (
        f"{font} for characters missing in DejaVu Sans"
        if font
        else "no font for characters missing in DejaVu Sans"
    )
    return CheckStatus.OK, f"language {settings.node.language}, {named}"


def _phantom(settings: Settings) -> tuple[CheckStatus, str]:
    models = configured_phantoms(settings).values()
    told = [
        f"{model.name} {model.serial}".strip()
        + f": {len(model.rods)} rods, {model.equivalent}, {model.method}"
        for model in models
    ]
    return CheckStatus.OK, told[0] if len(told) == 1 else f"recognised among {'; '.join(told)}"


def _reference(settings: Settings) -> tuple[CheckStatus, str]:
    if not settings.scoring.reference:
        return CheckStatus.WARNING, "none: T-score and dependent scores are not reported"
    reference, _ = load_reference(settings.scoring.reference, settings.node.site_folder)
    if reference.demonstration:
        return CheckStatus.WARNING, f"{reference.name}: invented, NOT FOR CLINICAL USE"
    accepted = settings.scoring.accept_unstated.get(reference.name, ())
    if unknown := [name for name in reference.unstated if name not in accepted]:
        unstated = in_english(unstated_phrase(reference, unknown))
        return (
            CheckStatus.WARNING,
            f"{reference.name} does not state its {unstated}: T-scores are not reported",
        )
    return CheckStatus.OK, f"{reference.name}: {reference.population} ({reference.source})"


def _model(settings: Settings) -> tuple[CheckStatus, str]:
    if not settings.scoring.model:
        return CheckStatus.WARNING, "none: rad-score and nomogram are not reported"
    found = active_model(settings)
    if found.card is None:
        return CheckStatus.FAILED, str(found.refusal.values["reason"]) if found.refusal else "none"
    card = found.card
    _, radiomics_sha256 = load_radiomics_settings_text(settings.node.site_folder)
    if card.radiomics_settings_sha256 != radiomics_sha256:
        return CheckStatus.FAILED, f"{card.name}: its features were computed with other settings"
    told = f"{card.name} {card.version}, sha256 {card.sha256[:12]}"
    if found.activation is not None:
        told += f", activated {found.activation.activated_at:%Y-%m-%d} by {found.activation.activated_by}"
    if card.demonstration:
        return CheckStatus.WARNING, f"{told}: fitted to synthetic data, NOT FOR CLINICAL USE"
    if found.activation is None:
        return (
            CheckStatus.WARNING,
            f"{told}: not activated: an edit of its file takes effect immediately",
        )
    return CheckStatus.OK, told


def _features(settings: Settings) -> tuple[CheckStatus, str]:
    from node.pipeline.result_basis import installed_feature_drift  # noqa: PLC0415 - imports pyradiomics
    from scoring.radiomics import feature_names, parse_settings  # noqa: PLC0415 - likewise

    text, sha256 = load_radiomics_settings_text(settings.node.site_folder)
    drift = installed_feature_drift()
    if drift.drifted:
        return CheckStatus.FAILED, f"{len(drift.drifted)} of {drift.checked} drifted: {drift.example}"
    told = f"{len(feature_names(parse_settings(text)))} features, settings {sha256[:12]}"
    return CheckStatus.OK, f"{told}; {drift.checked} features of a known image match"


def _engine(settings: Settings) -> tuple[CheckStatus, str]:
    wanted = settings.segmentation
    engine = resolve_engine(wanted)
    told = f"{engine.info.name} {engine.info.version}, configured as {wanted.engine!r}"
    if isinstance(engine, TotalSegmentatorEngine | NnunetEngine):
        engine.load()
        parameters = ", ".join(f"{name} {value}" for name, value in engine.info.parameters.items())
        return CheckStatus.OK, f"{told}; weights {str(engine.info.weights_sha256)[:12]} loaded; {parameters}"
    if wanted.engine == "auto":
        reason = missing_requirements(wanted.weights, Mode(wanted.totalsegmentator_mode))
        told += f"; TotalSegmentator is not used: {reason}"
    return CheckStatus.OK, told


def _access(settings: Settings) -> tuple[CheckStatus, str]:
    """Whether whoever reaches the port may send. Certificates are read, as the listener will."""
    encrypted = listener_context(settings.tls) is not None
    told = f"{settings.node.host}:{settings.node.port}, {'TLS' if encrypted else 'plain DICOM'}"
    rules = settings.access
    if rules.networks:
        told += f", from {', '.join(map(str, rules.networks))}"
    if rules.known_peers_only:
        known = {one.ae_title for one in settings.peers} | {one.ae_title for one in settings.destinations}
        told += f", for {', '.join(sorted(known)) or 'no one: no peer is configured'}"
    guarded = rules.networks or rules.known_peers_only
    certified = encrypted and settings.tls.require_peer_certificate
    if guarded or certified or settings.node.host in _LOOPBACK:
        return CheckStatus.OK, told
    return CheckStatus.WARNING, f"{told}: anyone who reaches it may send; see [access] and [tls]"


def _laboratory(settings: Settings) -> tuple[CheckStatus, str]:
    if not settings.clinical.csv:
        return CheckStatus.WARNING, "no source: the nomogram is not computed"
    with Path(settings.clinical.csv).open("rb"):
        return CheckStatus.OK, settings.clinical.csv


def _storage(settings: Settings) -> tuple[CheckStatus, str]:
    store = open_store(settings.storage)
    try:
        studies = sum(store.census.take().studies.values())
    finally:
        store.close()
    return CheckStatus.OK, f"{settings.storage.root.resolve()}: {studies} studies"


def _disk(settings: Settings) -> tuple[CheckStatus, str]:
    free = shutil.disk_usage(settings.storage.root.resolve()).free
    told = f"{free / 1024**3:.1f} GiB free"
    if free < settings.storage.min_free_bytes:
        return CheckStatus.FAILED, f"{told}, less than storage.min_free_bytes: nothing is received"
    return CheckStatus.OK if free >= _FREE_BYTES_WANTED else CheckStatus.WARNING, told


def _broker(settings: Settings) -> tuple[CheckStatus, str]:
    if settings.broker.url:
        with redis.Redis.from_url(_plain_redis(settings.broker.url), socket_timeout=5.0) as client:
            client.ping()
        return CheckStatus.OK, "answers"
    embedded = EmbeddedRedis()
    try:
        embedded.start()
    finally:
        embedded.close()
    return CheckStatus.OK, "the embedded redis-server starts and answers"


def _plain_redis(url: str) -> str:
    """Celery and redis-py name Unix sockets differently."""
    return url.replace("redis+socket://", "unix://", 1)
