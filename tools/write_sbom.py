"""The software bill of materials: what the node runs on, out of the hashed lock, as CycloneDX JSON.

The same lock always gives the same bytes: there is no time and no serial number in it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from node import __version__

LOCK = Path(__file__).parents[1] / "requirements/runtime.txt"
_PIN = re.compile(
    r"(?P<name>[\w.-]+)(\[[^\]]*\])?==(?P<version>[^\s;]+)(\s*;\s*(?P<marker>.*?))?\s+(?=--hash)", re.ASCII
)
_HASH = re.compile(r"--hash=sha256:(?P<digest>[0-9a-f]{64})")


def components(lock: str) -> Iterator[dict[str, Any]]:
    """One component for each pin of a lock as `uv pip compile --generate-hashes` writes it.

    Raises
    ------
    ValueError
        If a line is neither a pin, a hash nor a comment, or a pin has no hash.
    """
    joined = re.sub(r"\\\n\s*", " ", lock)
    for line in joined.splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        pin = _PIN.match(text)
        digests = sorted({one["digest"] for one in _HASH.finditer(text)})
        if pin is None or not digests:
            raise ValueError(f"no pin with hashes: {text[:80]}")
        name, version = pin["name"].lower().replace("_", "-"), pin["version"]
        component: dict[str, Any] = {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "hashes": [{"alg": "SHA-256", "content": digest} for digest in digests],
        }
        if pin["marker"]:
            component["properties"] = [{"name": "python:marker", "value": pin["marker"].strip()}]
        yield component


def document(lock: str) -> dict[str, Any]:
    """The whole bill, CycloneDX 1.5."""
    node = {"type": "application", "bom-ref": "osteonode", "name": "osteonode", "version": __version__}
    parts = sorted(components(lock), key=lambda one: str(one["bom-ref"]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": node},
        "components": parts,
        "dependencies": [{"ref": "osteonode", "dependsOn": [one["bom-ref"] for one in parts]}],
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("var/sbom.cdx.json"))
    out: Path = options.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    found = document(LOCK.read_text("utf-8"))
    out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    print(f"{len(found['components'])} components: {out}")


if __name__ == "__main__":
    main()
