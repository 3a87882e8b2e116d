"""Where the relative paths of a configuration file count from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
