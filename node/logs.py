"""Logs as events with fields. No patient name, id or date of birth may enter one; a test greps for them."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import MutableMapping
from typing import Any

import structlog

from config.phrases import error_in_words
from config.sections import LogSettings

# The least level at which a library is heard. The DICOM libraries can quote what they read, and the events of
# node.net say what became of each association; the others report every statement, task and request.
_LIBRARIES = {
    "pydicom": logging.CRITICAL,
    "pynetdicom": logging.CRITICAL,
    "openjpeg": logging.CRITICAL,  # a line for each tile
    "alembic": logging.WARNING,
    "highdicom": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "celery": logging.WARNING,
    "kombu": logging.WARNING,
    "uvicorn": logging.WARNING,
}


_process = ""


def name_process(name: str) -> None:
    """What this process is, for every event of any of its threads from now on."""
    global _process  # noqa: PLW0603 - a process has one name
    _process = name


def _with_process(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _process:
        event.setdefault("process", _process)
    return event


def configure(settings: LogSettings) -> None:
    """Send structlog's events, and the standard library's warnings and errors, to standard error."""
    as_console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if as_console else structlog.processors.JSONRenderer()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _with_process,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level)
    for name, level in _LIBRARIES.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    # pydicom's warnings quote the offending value, which may be a name or a date of birth.
    warnings.filterwarnings("ignore", module=r"(pydicom|pynetdicom)\b")


# How an error is told to logs and operators: without patient data.
#
# Apart from the policy, because the listener needs this and none of the rooms whose errors the policy knows.


_OWN_PACKAGES = frozenset({"node", "config", "scoring", "segmentation"})


def describe(error: BaseException) -> str:
    """An error in one line.

    Messages of this project's own errors are written to be shown. Those of libraries may quote what they
    read (pydicom quotes values), so only their type and the place where they arose are told.
    """
    name = type(error).__name__
    if _is_own(type(error).__module__):
        return f"{name}: {error_in_words(error)}"
    told = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return f"{name}{told}{_place(error)}"


def _is_own(module: str) -> bool:
    return module.partition(".")[0] in _OWN_PACKAGES


def _place(error: BaseException) -> str:
    """Where in this project's code the error passed last, else where it arose."""
    places = [
        (str(frame.f_globals.get("__name__", "")), line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    own = [place for place in places if _is_own(place[0])]
    if not places:
        return ""
    module, line = (own or places)[-1]
    return f" at {module}:{line}"
