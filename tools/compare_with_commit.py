"""Measures twelve varied studies with an earlier commit and with this tree, and compares every number.

tools/compare_with_commit.py COMMIT [--study NAME ...] [--keep DIR]

The earlier commit is set up in an environment of its own, and its `osteonode phantom` writes the studies.
Compared are the exit status, every number of result.json (but `timings_s`), which of its keys are null, the
codes of findings, every voxel of the segmentation, and every number of the structured report with the codes
that lead to it. Texts, versions, hashes and UIDs may differ, and a key that is new may be null. What the
earlier commit made is kept with --keep and not made again. Exit status 1 where a number differs, with a line
for each difference.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread

ROOT = Path(__file__).parents[1]
ISSUED_AT = "2026-02-01T08:00:00+00:00"
LABORATORY = """patient_id,issuer,date,alp_u_l,homocysteine_umol_l
REFERENCE-1,,2026-01-10,92,16.5
"""
_FREE_KEYS = frozenset({"timings_s", "provenance", "schema_version", "text"})
_MOST_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Case:
    """One study: how `osteonode phantom` makes it, and how it is measured."""

    name: str
    made_with: tuple[str, ...] = ()
    reduced: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)  # environment variables
    options: tuple[str, ...] = ()  # of `process`
    masked: bool = False  # measured in the mask of the truth


CASES = (
    Case(name="full", reduced=False),
    Case(name="reduced"),
    Case(name="mindways", made_with=("--phantom", "mindways-3", "--kvp", "100", "--seed", "2"),
         settings={"OSTEONODE_CALIBRATION__PHANTOM": "mindways-3"}),
    Case(name="qrm", made_with=("--phantom", "qrm-bdc-3", "--kvp", "80", "--seed", "3", "--bmd", "L3=150"),
         settings={"OSTEONODE_CALIBRATION__PHANTOM": "auto"}),
    Case(name="b-mas", made_with=("--phantom", "b-mas-200", "--kvp", "140", "--seed", "4", "--sex", "M"),
         settings={"OSTEONODE_CALIBRATION__PHANTOM": "b-mas-200"}),
    Case(name="unnamed", made_with=("--view", "L1-L3", "--seed", "5")),
    Case(name="thick", made_with=("--thickness", "5", "--seed", "6")),
    Case(name="scoliosis", made_with=("--scoliosis", "18", "--age", "45", "--seed", "7")),
    Case(name="without-phantom", made_with=("--phantom", "none", "--seed", "8")),
    Case(name="noisy", made_with=("--noise", "45", "--seed", "9")),
    Case(name="mask", made_with=("--seed", "10", "--kvp", "80"), masked=True),
    Case(name="no-identity", made_with=("--patient-id", "", "--seed", "11")),
)  # fmt: skip


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("commit")
    options.add_argument("--study", action="append", choices=[case.name for case in CASES])
    options.add_argument("--keep", type=Path, help="a folder for what is made")
    given = options.parse_args()
    cases = [case for case in CASES if not given.study or case.name in given.study]
    with tempfile.TemporaryDirectory(prefix="osteonode-compare-") as scratch:
        folder = (given.keep or Path(scratch)).resolve()
        earlier = _set_up(given.commit, folder / "earlier")
        differing = [case.name for case in cases if _differs(case, earlier, folder / case.name)]
    print(f"{len(cases) - len(differing)} of {len(cases)} studies give the same numbers")
    return 1 if differing else 0


def _set_up(commit: str, folder: Path) -> Path:
    """The command `osteonode` of an earlier commit."""
    command = folder / ".venv" / "bin" / "osteonode"
    if not command.exists():
        folder.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True)
        subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
        subprocess.run(["make", "--no-print-directory", "setup"], cwd=folder, check=True)
    return command


def _differs(case: Case, earlier: Path, folder: Path) -> bool:
    study = folder / "study"
    if not study.exists():
        reduced = ("--reduced",) if case.reduced else ()
        _run(earlier, "phantom", study, *reduced, *case.made_with)
    laboratory = folder / "laboratory.csv"
    laboratory.write_text(LABORATORY)
    mask = ("--mask", study / "truth_mask.nii.gz") if case.masked else ()
    told = {}
    for name, command in (("before", earlier), ("now", Path(sys.executable).with_name("osteonode"))):
        out = folder / name
        known = out.with_suffix(".status")
        if name == "before" and known.exists():
            status = int(known.read_text())
        else:
            status = _run(
                command, "process", study, "--out", out, "--clinical", laboratory, "--issued-at", ISSUED_AT,
                *mask, *case.options, settings=case.settings, may_refuse=True,
            )  # fmt: skip
            known.write_text(str(status))
        told[name] = {"exit status": status, **_numbers_of(out)}
    lines = list(_differences(told["before"], told["now"]))
    print(f"{case.name}: {len(told['before'])} values, {'equal' if not lines else f'{len(lines)} differ'}")
    for line in lines[:_MOST_LINES]:
        print(f"  {line}")
    return bool(lines)


def _run(
    command: Path, *arguments: object, settings: Mapping[str, str] | None = None, may_refuse: bool = False
) -> int:
    done = subprocess.run(
        [command, *map(str, arguments)],
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **(settings or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in ((0, 3) if may_refuse else (0,)):
        raise SystemExit(
            f"{command} {arguments[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.returncode


def _numbers_of(out: Path) -> dict[str, Any]:
    """What can be compared of a run's results: one value under each path."""
    found = dict(_leaves(json.loads((out / "result.json").read_text("utf-8")), "result"))
    for name, read in (("segmentation.dcm", _voxels), ("report.dcm", _report_numbers)):
        if (out / name).exists():
            found |= dict(read(dcmread(out / name)))
    return found


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    match value:
        case dict():
            for key, one in value.items():
                if key not in _FREE_KEYS:
                    yield from _leaves(one, f"{path}.{key}")
        case list():
            yield f"{path}.length", len(value)
            for place, one in enumerate(value):
                yield from _leaves(one, f"{path}[{place}]")
        case bool() | int() | float() | None:
            yield path, value
        case str() if path.endswith((".code", ".level", ".severity", ".name", ".unit", ".equivalent")):
            yield path, value


def _voxels(segmentation: Dataset) -> Iterator[tuple[str, Any]]:
    """How many voxels each frame has, and a hash of which, by segment and place."""
    frames = np.atleast_3d(segmentation.pixel_array)
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        place = groups.PlanePositionSequence[0].ImagePositionPatient[2]
        yield f"segment {segment} at {float(place):.3f}", (int(frame.sum()), hash(frame.tobytes()))


def _report_numbers(item: Dataset, path: str = "report") -> Iterator[tuple[str, Any]]:
    for place, one in enumerate(item.get("ContentSequence") or ()):
        name = one.get("ConceptNameCodeSequence")
        inside = f"{path}/{name[0].CodeValue if name else '-'}[{place}]"
        if one.get("ValueType") == "NUM" and one.MeasuredValueSequence:
            measured = one.MeasuredValueSequence[0]
            unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
            yield inside, (str(measured.NumericValue), unit)
        elif one.get("ValueType") == "CODE":
            yield inside, str(one.ConceptCodeSequence[0].CodeValue)
        yield from _report_numbers(one, inside)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for path in sorted({*before, *now}):
        if path not in before and now[path] is None:
            continue
        if before.get(path, "absent") != now.get(path, "absent"):
            yield f"{path}: {before.get(path, 'absent')} -> {now.get(path, 'absent')}"


if __name__ == "__main__":
    sys.exit(main())
