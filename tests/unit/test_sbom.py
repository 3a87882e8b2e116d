"""The bill of materials names what the lock pins, with the lock's hashes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.output import OutputFormat
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation import make_schemabased_validator

from tools.write_sbom import LOCK, components, document

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_every_pin_of_the_lock_is_a_component_with_its_hashes(tmp_path: Path) -> None:
    out = tmp_path / "sbom.json"
    subprocess.run([sys.executable, ROOT / "tools/write_sbom.py", "--out", out], check=True, cwd=ROOT)
    bill = json.loads(out.read_text("utf-8"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    lock = LOCK.read_text("utf-8")
    pinned = re.findall(r"^([a-zA-Z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock, re.MULTILINE)
    assert len(pinned) > 40
    named = {(one["name"], one["version"]) for one in bill["components"]}
    assert named == {(name.lower().replace("_", "-"), version) for name, version in pinned}
    assert {"pydicom", "pynetdicom", "highdicom", "pyradiomics", "celery"} <= {name for name, _ in named}
    hashes = {one["content"] for component in bill["components"] for one in component["hashes"]}
    assert hashes == set(re.findall(r"sha256:([0-9a-f]{64})", lock))
    assert set(bill["dependencies"][0]["dependsOn"]) == {one["bom-ref"] for one in bill["components"]}


def test_the_bill_keeps_to_the_schema_of_its_format() -> None:
    held_to = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_5)
    bill = document(LOCK.read_text("utf-8"))
    assert held_to.validate_str(json.dumps(bill)) is None
    bill["components"][0]["hashes"][0]["alg"] = "SHA-255"
    assert held_to.validate_str(json.dumps(bill)) is not None


def test_the_same_lock_gives_the_same_bill() -> None:
    lock = LOCK.read_text("utf-8")
    assert document(lock) == document(lock)


def test_a_marker_is_kept_and_a_pin_without_hash_is_refused() -> None:
    (one,) = components(
        f"a_b[x]==1.0 ; python_version < '3.12' \\\n    --hash=sha256:{'0' * 64}\n    # via c\n"
    )
    assert (one["purl"], one["properties"][0]["value"]) == ("pkg:pypi/a-b@1.0", "python_version < '3.12'")
    with pytest.raises(ValueError, match="no pin with hashes"):
        list(components("a==1.0\n"))
