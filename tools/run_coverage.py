"""Counts how often the stated 95 % intervals hold the truth; the studies are fixed by their numbers.

tools/run_coverage.py [--studies 1200]

Exit status 1 where fewer than 93 % or more than 97 % do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.unit.calibration_coverage import RegionStudy, run

GROUPS: dict[str, Callable[[RegionStudy], str]] = {
    "phantom": lambda study: study.kind,
    "noise, HU": lambda study: f"{study.spec.noise_hu:g}",
    "trabecular pattern, HU": lambda study: f"{study.spec.texture_hu:g}",
    "pixel, mm": lambda study: f"{study.spec.pixel_spacing_mm[0]:g}",
    "slice, mm": lambda study: f"{study.spec.slice_spacing_mm:g}",
    "tube voltage, kV": lambda study: f"{study.spec.kvp}",
}


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--studies", type=int, default=1200)
    studies = [run(number) for number in range(options.parse_args().studies)]
    for name, group in GROUPS.items():
        for value in sorted({group(study) for study in studies}):
            _print(f"{name} {value}", [study for study in studies if group(study) == value])
    held = _print("all", studies)
    return 0 if 0.93 <= held <= 0.97 else 1


def _print(name: str, studies: Sequence[RegionStudy]) -> float:
    held = float(np.mean([study.holds for study in studies]))
    error = np.array([study.measured.bmd_mg_cm3 - study.truth_mg_cm3 for study in studies])
    stated = np.median([study.measured.bmd_uncertainty_mg_cm3 for study in studies])
    spread = np.std([study.deviation for study in studies])
    print(
        f"{name:32s} {len(studies):5d} studies  held {100 * held:5.1f} %  bias {error.mean():+.2f} mg/cm3  "
        f"median uncertainty {stated:.2f}  error / uncertainty: SD {spread:.2f}"
    )
    return held


if __name__ == "__main__":
    sys.exit(main())
