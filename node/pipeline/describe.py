"""How an error is told to logs and operators: without patient data.

Apart from the policy, because the listener needs this and none of the rooms whose errors the policy knows.
"""

from __future__ import annotations

import traceback

_OWN_PACKAGES = frozenset({"node", "config", "scoring", "segmentation"})


def describe(error: BaseException) -> str:
    """An error in one line.

    Messages of this project's own errors are written to be shown. Those of libraries may quote what they
    read (pydicom quotes values), so only their type and the place where they arose are told.
    """
    name = type(error).__name__
    if _is_own(type(error).__module__):
        return f"{name}: {error}"
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
