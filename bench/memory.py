"""Peak memory of a large study: 512 x 512 x 600 voxels, as processes of their own measure it.

    python bench/memory.py [--slices 600] [--what segment,totalsegmentator,process] [--json]

`segment` is segment, regions and quality gates with the model-free engine on a volume in memory;
`totalsegmentator` the same with that engine (needs its extra and OSTEONODE_TEST_DATA: the small networks of
tests, which have the real tiling); `process` is `osteonode process` from DICOM files to SEG, SR and pictures.
The anatomy is that of a digital reference study at 0.74 x 0.74 x 0.6 mm, its ends repeated where its spine is
shorter than the scan. `ratios`: peak over the 6 GB that a study of this size may take.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import generate_uid

sys.path[0] = str(Path(__file__).parents[1])  # this file's own folder would hide the package of the same name

from node.reference.spec import StudySpec  # noqa: E402
from node.reference.study import write_reference_study  # noqa: E402

LIMIT_GIB = 6e9 / 2**30
SPEC = StudySpec(slice_spacing_mm=0.6, slice_thickness_mm=0.6, view=("T11", "S1"))
OSTEONODE = (sys.executable, "-c", "from node.cli import main; main()")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--slices", type=int, default=600)
    arguments.add_argument("--what", default="segment,process")
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--child", nargs=2, metavar=("WHAT", "STUDY"), help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.child:
        print(json.dumps(measured(chosen.child[0], Path(chosen.child[1]))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        study = Path(scratch) / "study"
        subprocess.run(
            [sys.executable, __file__, "--child", f"write:{chosen.slices}", study], check=True, stdout=2
        )
        runs = {what: child(what, study) for what in chosen.what.split(",")}
    result = {
        "ratios": {f"{what}_peak_vs_limit": run["peak_gib"] / LIMIT_GIB for what, run in runs.items()},
        "peak_gib": max(run["peak_gib"] for run in runs.values()),
        "runs": runs,
    }
    print(json.dumps(result) if chosen.json else json.dumps(result, indent=1))


def child(what: str, study: Path) -> dict[str, float]:
    """Peak and time of one piece of work in a process of its own."""
    run = subprocess.run(
        [sys.executable, __file__, "--child", what, study], check=True, stdout=subprocess.PIPE, text=True
    )
    print(f"{what}: {run.stdout.splitlines()[-1]}", file=sys.stderr)
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def measured(what: str, study: Path) -> dict[str, float]:
    began = time.perf_counter()
    who = resource.RUSAGE_SELF
    if what.startswith("write:"):
        write(study, slices=int(what.partition(":")[2]))
    elif what == "process":
        who = resource.RUSAGE_CHILDREN
        subprocess.run([*OSTEONODE, "process", study, "--out", study.parent / "out"], check=True, stdout=2)
    else:
        segment(study, what)
    return {
        "peak_gib": resource.getrusage(who).ru_maxrss / 1024**2,
        "seconds": time.perf_counter() - began,
    }


def write(study: Path, *, slices: int) -> None:
    """A digital reference study whose first and last slice are repeated until it has so many."""
    write_reference_study(study, SPEC)
    paths = sorted(study.glob("*.dcm"))
    first, last = dcmread(paths[0]), dcmread(paths[-1])
    missing = max(0, slices - len(paths))
    for number in range(1, missing + 1):
        below = number <= missing // 2
        source, step = (first, -number) if below else (last, number - missing // 2)
        x, y, z = (float(value) for value in source.ImagePositionPatient)
        repeated = dcmread(paths[0] if below else paths[-1])
        repeated.SOPInstanceUID = repeated.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        repeated.ImagePositionPatient = [x, y, round(z + step * SPEC.slice_spacing_mm, 3)]
        repeated.save_as(study / f"R{number:04d}.dcm")


def segment(study: Path, engine_name: str) -> None:
    """From a volume in memory to what the quality gates say."""
    from config.settings import load_settings  # noqa: PLC0415 - not in the process that writes or starts others
    from node.dicom.ct.headers import group_series, read_headers  # noqa: PLC0415
    from node.dicom.ct.reading import read_series  # noqa: PLC0415
    from node.pipeline.engine import resolve_engine  # noqa: PLC0415
    from segmentation.gates.bodies import quality_observations  # noqa: PLC0415
    from segmentation.regions.cancellous import cut_regions  # noqa: PLC0415
    from segmentation.vertebrae import LUMBAR  # noqa: PLC0415

    name = "geometric" if engine_name == "segment" else engine_name
    weights = Path(os.environ.get("OSTEONODE_TEST_DATA", "")) / "fixture_model" / "weights_constant"
    engine = resolve_engine(
        load_settings(segmentation={"engine": name, "weights": str(weights)}).segmentation
    )
    volume = read_series(group_series(read_headers(study.glob("*.dcm")))[0]).volume
    vertebrae = engine.segment(volume)  # type: ignore[union-attr] - of these engines none needs a study
    regions = {
        level.name: cut_regions(volume, vertebrae, level.name)
        for level in vertebrae.levels
        if level.complete and level.name in LUMBAR
    }
    observations = quality_observations(volume, vertebrae, regions)
    print(
        volume.hu.shape,
        [level.name for level in vertebrae.levels],
        len(regions),
        len(observations),
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
