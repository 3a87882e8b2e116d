"""A warm worker against TotalSegmentator's command line, with the same weights, on the same CT, in one run.

    python bench/segmentation.py [--full-size] [--rounds N] [--json]

Needs the extra (make setup-totalsegmentator) and OSTEONODE_TEST_DATA. The command runs with `--roi_subset` on
the processor and its usage posts off. What is compared is the same work, from an image to a mask of whole
vertebrae on the image's own grid. Told apart: our loading of weights, their start (their function called
again in a process that called it before), and what a study needs beyond. `ratios`: ours over theirs.
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
from statistics import median
from typing import Any

import numpy as np
import SimpleITK

sys.path[0] = str(Path(__file__).parents[1])  # this file's own folder would hide the package of the same name

from segmentation.ct_volume import CtVolume, Grid, LabelMap, canonical  # noqa: E402
from segmentation.engines.geometric import GeometricEngine  # noqa: E402
from segmentation.engines.name_checks import cross_check  # noqa: E402
from segmentation.engines.nnunet import Compute  # noqa: E402
from segmentation.engines.totalsegmentator import NEEDED, TotalSegmentatorEngine  # noqa: E402
from segmentation.engines.totalsegmentator_weights import Mode, class_map, find_weights, totalsegmentator_home  # noqa: E402
from segmentation.vertebrae import LABELS  # noqa: E402

COMMAND = Path(sys.executable).with_name("TotalSegmentator")
CALL = """
import json, sys, time
from totalsegmentator.python_api import totalsegmentator
if __name__ == "__main__":
    for _ in range(2):
        began = time.perf_counter()
        task = json.loads(sys.argv[3])
        totalsegmentator(sys.argv[1], sys.argv[2], ml=True, device="cpu", quiet=True, **task)
        taken_s = time.perf_counter() - began
    print(taken_s)
"""
# The published networks: 31 million parameters, tiles of 128 voxels (plans.json of dataset 292).
FEATURES, TILE = [32, 64, 128, 256, 320, 320], 128


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument(
        "--full-size", action="store_true", help="random weights of the real architecture too"
    )
    arguments.add_argument("--rounds", type=int, default=3, help="of which the medians are taken")
    arguments.add_argument("--json", action="store_true")
    chosen = arguments.parse_args()
    data = Path(os.environ["OSTEONODE_TEST_DATA"])
    example = SimpleITK.ReadImage(str(data / "ts_example_ct" / "example_ct.nii.gz"))
    middle = example[30:94, 20:84, 20:84]  # 192 mm: one tile of the full size at 1.5 mm
    fixture = data / "fixture_model"
    with tempfile.TemporaryDirectory() as scratch:
        # The networks that answer "L3" everywhere run locating, cropping and naming; those that know this CT
        # show that names and borders agree as well.
        runs = {
            "fixture": compared(
                middle, fixture / "weights_constant", Mode.STANDARD, Path(scratch), chosen.rounds
            ),
            "fast": compared(example, fixture / "weights_mini", Mode.FAST, Path(scratch), chosen.rounds),
        }
        if chosen.full_size:
            weights = full_size(fixture / "weights_constant", Path(scratch) / "weights")
            runs["full_size"] = compared(middle, weights, Mode.STANDARD, Path(scratch), chosen.rounds)
    named = {"fixture": "warm_vs_cli", "fast": "fast_vs_cli", "full_size": "full_size_vs_cli"}
    ratios = {name: runs[run]["ratio"] for run, name in named.items() if run in runs}
    result = {
        "ratios": ratios,
        "runs": runs,
        "cores": len(os.sched_getaffinity(0)),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
    }
    print(json.dumps(result) if chosen.json else json.dumps(result, indent=1))


def compared(image: Any, weights: Path, mode: Mode, scratch: Path, rounds: int) -> dict[str, float]:
    """Medians of seconds, and the smallest Dice of any vertebra.

    Both sides take turns, so that what else the machine does hits them alike. `warm_s` is the work that the
    command does too; `warm_study_s` is all that a study needs: the bodies of dataset 305 and the cross-check
    as well.
    """
    volume = as_volume(image)
    began = time.perf_counter()
    engine = TotalSegmentatorEngine(weights, mode, Compute(device="cpu", threads=0, mixed_precision=False))
    engine.load()
    load_s = time.perf_counter() - began
    _, first_s = by_engine(engine, volume)
    command_s, ours_s, study_s = [], [], []
    for _ in range(rounds):
        theirs, taken_s = by_command(image, weights, mode, scratch)
        command_s.append(taken_s)
        ours, taken_s = by_engine(engine, volume)
        ours_s.append(taken_s)
        study_s.append(whole_study(engine, volume))
    called_s = by_their_call(weights, mode, scratch)
    cli_s, warm_s, whole_s = median(command_s), median(ours_s), median(study_s)
    return {
        "cli_s": cli_s,
        "cli_without_start_s": called_s,
        "warm_s": warm_s,
        "warm_study_s": whole_s,
        "load_once_s": load_s,
        "first_s": first_s,
        "ratio": warm_s / cli_s,
        "ratio_without_start": warm_s / called_s,
        "ratio_whole_study": whole_s / cli_s,
        "least_dice": least_dice(ours, theirs),
    }


def their_options(mode: Mode) -> list[str]:
    return ["--fast"] if mode is Mode.FAST else ["--roi_subset", *(f"vertebrae_{name}" for name in NEEDED)]


def by_command(image: Any, weights: Path, mode: Mode, scratch: Path) -> tuple[LabelMap, float]:
    source, target = scratch / "in.nii.gz", scratch / "out.nii.gz"
    SimpleITK.WriteImage(image, str(source))
    with totalsegmentator_home(scratch, weights=weights):
        began = time.perf_counter()
        subprocess.run(
            [COMMAND, "-i", source, "-o", target, "--ml", "-d", "cpu", "-q", *their_options(mode)],
            check=True,
            stdout=subprocess.DEVNULL,
            env=dict(os.environ),
        )
        taken_s = time.perf_counter() - began
    mask: LabelMap = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(target)))
    return mask, taken_s


def by_their_call(weights: Path, mode: Mode, scratch: Path) -> float:
    """Seconds of TotalSegmentator's own function, called again in a process that has called it before."""
    task = {"fast": True} if mode is Mode.FAST else {"roi_subset": their_options(mode)[1:]}
    with totalsegmentator_home(scratch, weights=weights):
        told = subprocess.run(
            [sys.executable, "-c", CALL, scratch / "in.nii.gz", scratch / "called.nii.gz", json.dumps(task)],
            check=True,
            capture_output=True,
            text=True,
            env=dict(os.environ),
        )
    return float(told.stdout.splitlines()[-1])


def by_engine(engine: TotalSegmentatorEngine, volume: CtVolume) -> tuple[LabelMap, float]:
    began = time.perf_counter()
    turned, turn = canonical(volume)
    mask: LabelMap = np.zeros(turned.grid.shape, np.uint8)
    named = engine.name(turned)
    if named is not None:
        mask[named[0]] = named[1]
    mask = turn.backward(mask)
    return mask, time.perf_counter() - began


def whole_study(engine: TotalSegmentatorEngine, volume: CtVolume) -> float:
    began = time.perf_counter()
    cross_check(volume, engine.segment(volume), GeometricEngine())
    return time.perf_counter() - began


def least_dice(ours: LabelMap, theirs: LabelMap) -> float:
    scores = [1.0]
    for name in NEEDED:
        one, other = ours == LABELS[name], theirs == LABELS[name]
        if one.any() or other.any():
            scores.append(2 * float((one & other).sum()) / float(one.sum() + other.sum()))
    return min(scores)


def as_volume(image: Any) -> CtVolume:
    hu = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    axes = [tuple(float(one) for one in axis) for axis in np.reshape(image.GetDirection(), (3, 3)).T[::-1]]
    x, y, z = image.GetSpacing()
    return CtVolume(
        hu=hu,
        grid=Grid(
            shape=hu.shape,
            spacing_mm=(z, y, x),
            origin_mm=tuple(image.GetOrigin()),
            direction=(axes[0], axes[1], axes[2]),
        ),
    )


def full_size(like: Path, folder: Path) -> Path:
    """Random weights of the published architecture, in the layout of `like`.

    The last layer leans to L3, or chance would leave no vertebra to crop to.
    """
    import torch  # noqa: PLC0415 - seconds
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans  # noqa: PLC0415

    torch.manual_seed(1)
    for model, found in find_weights(like, Mode.STANDARD).items():
        target = folder / found.path.relative_to(like)
        (target / "fold_0").mkdir(parents=True)
        plans = json.loads((found.path / "plans.json").read_text())
        configuration = plans["configurations"]["3d_fullres"]
        configuration["patch_size"] = [TILE] * 3
        stages = len(FEATURES)
        wanted = configuration["architecture"]["arch_kwargs"]
        wanted |= {
            "n_stages": stages,
            "features_per_stage": FEATURES,
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
        }
        (target / "plans.json").write_text(json.dumps(plans))
        (target / "dataset.json").write_text((found.path / "dataset.json").read_text())
        network = get_network_from_plans(
            configuration["architecture"]["network_class_name"],
            wanted,
            configuration["architecture"]["_kw_requires_import"],
            1,
            len(found.classes) + 1,
            allow_init=True,
            deep_supervision=False,
        )
        third = next((v for v, name in class_map(model).items() if name == "vertebrae_L3"), None)
        if third is not None:
            with torch.no_grad():
                network.decoder.seg_layers[-1].bias[third] += 0.5
        checkpoint = torch.load(found.path / "fold_0" / "checkpoint_final.pth", weights_only=False)
        checkpoint["network_weights"] = network.state_dict()
        torch.save(checkpoint, target / "fold_0" / "checkpoint_final.pth")
    for empty in (291, 293, 294, 295):  # the command looks for every part of `total`, asked or not
        (folder / next(like.glob(f"Dataset{empty}_*")).name).mkdir()
    return folder


if __name__ == "__main__":
    main()
