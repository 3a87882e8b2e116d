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
from pathlib import Path
from typing import Any, Self, get_type_hints

from pydantic import ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from config.sections import (
    AccessSettings,
    AlertSettings,
    BrokerSettings,
    CalibrationSettings,
    ClinicalSettings,
    CompletenessSettings,
    Destination,
    FollowUpSettings,
    LimitSettings,
    LogSettings,
    NodeSettings,
    Peer,
    QualitySettings,
    ScoringSettings,
    SegmentationSettings,
    SelectionSettings,
    StorageSettings,
    TlsSettings,
    WebSettings,
    WorkerSettings,
)

# Settings that name a file or a folder: relative ones count from the folder of the configuration file.
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


class Settings(BaseSettings):
    """Everything a site can set. `make defaults` writes config/default.toml from it."""

    model_config = SettingsConfigDict(
        env_prefix="OSTEONODE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    node: NodeSettings = NodeSettings()  #: how the node is called and reached
    access: AccessSettings = AccessSettings()  #: who may have an association
    limits: LimitSettings = LimitSettings()  #: what is larger is refused, and said to be
    #: of the port, if it has a certificate, and of destinations and peers that say tls = true
    tls: TlsSettings = TlsSettings()
    storage: StorageSettings = StorageSettings()  #: where the node keeps what it has, and for how long
    broker: BrokerSettings = BrokerSettings()  #: where messages of the workers go
    completeness: CompletenessSettings = CompletenessSettings()  #: when a study is whole
    selection: SelectionSettings = SelectionSettings()  #: which studies are QCT
    segmentation: SegmentationSettings = SegmentationSettings()  #: how vertebrae are found
    calibration: CalibrationSettings = CalibrationSettings()  #: what turns HU into density
    scoring: ScoringSettings = ScoringSettings()  #: what densities are compared with
    quality: QualitySettings = QualitySettings()  #: control charts of each scanner, of what its phantom reads
    followup: FollowUpSettings = FollowUpSettings()  #: comparison with earlier studies of the same patient
    clinical: ClinicalSettings = ClinicalSettings()  #: laboratory values
    worker: WorkerSettings = WorkerSettings()  #: how steps are given to workers, tried again and delivered
    web: WebSettings = WebSettings()  #: the operator's page
    alerts: AlertSettings = AlertSettings()  #: when the page, /metrics and /api/alerts call for a person
    log: LogSettings = LogSettings()  #: what is logged
    destinations: tuple[Destination, ...] = ()  #: where results go: an entry for each PACS
    #: who sends to this node and is no destination, and where it is told of storage commitment
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
                    f"completeness.ask: {', '.join(sorted(strangers))} is not the name of a destination "
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
            defaults = InitSettingsSource(settings_cls, anchored(_default_paths(), folder))
            return init_settings, Environment(settings_cls), file, peers, defaults

    return Layered


def _default_paths() -> dict[str, Any]:
    """The defaults of settings that name a file or a folder: these depend on where a file stands."""
    sections = {section: Settings.model_fields[section].default for section in PATHS}
    return {
        section: {name: str(getattr(sections[section], name)) for name in names}
        for section, names in PATHS.items()
    }


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
        raise ConfigurationError(f"SOURCE_DATE_EPOCH is not a whole number: {text!r}") from error
