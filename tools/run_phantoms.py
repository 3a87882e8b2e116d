"""Measures the 300 studies of tests/unit/phantom_matrix.py and prints error and coverage by factor.

tools/run_phantoms.py [NUMBER ...]

Exit status 1 where more than 5 % of the studies are refused, where thin slices are biased by more than
1 mg/cm3 at any level of any factor (Mindways: by what its constant makes besides), or where less than 92 % of
the stated 95 % intervals hold the truth: fewer than chance leaves of 240 studies.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from scoring.bmd import RegionKind
from tests.unit.phantom_matrix import FACTORS, MINDWAYS, STUDIES, MatrixStudy, allowed_bias_mg_cm3, run

MIN_HELD = 0.92
MAX_REFUSED = 0.05  # a refusal is no wrong number; each is printed


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("number", type=int, nargs="*")
    studies = [run(number) for number in options.parse_args().number or range(STUDIES)]
    refused = [one for one in studies if one.refused]
    for one in refused:
        print(f"REFUSED {one.number}: {', '.join(one.refused)} {dict(one.levels)}")
    measured = [one for one in studies if not one.refused]
    others = [one for one in measured if one.phantom != MINDWAYS]
    sound = len(refused) <= MAX_REFUSED * len(studies)
    heads = ("phantoms of HA", "studies", "error", "error, thin", "SD, thin", "hold", "ellipse, thin", "hold")
    print(f"| {' | '.join(heads)} |")
    print("|---|---|---|---|---|---|---|---|")
    sound &= _row("all", others)
    for name, levels in FACTORS.items():
        for level in levels:
            sound &= _row(f"{name} {level}", [one for one in others if one.levels[name] == level])
    print(f"{MINDWAYS}:")
    for name in ("phantom", "density, mg/cm3", "tube voltage, kV"):
        for level in FACTORS[name]:
            own = [one for one in measured if one.phantom == MINDWAYS and one.levels[name] == level]
            sound &= _row(f"{name} {level}", own, intervals=False)
    return 0 if sound else 1


def _row(name: str, studies: Sequence[MatrixStudy], *, intervals: bool = True) -> bool:
    """Print a group; whether bias and coverage are as they must be."""
    if not studies:
        return True
    thin = [one for one in studies if one.thin]
    error = np.array([one.error_mg_cm3() for one in studies])
    thin_error = np.array([one.error_mg_cm3() for one in thin])
    in_ellipse = np.array([one.error_mg_cm3(RegionKind.ELLIPSE) for one in thin])
    held = np.mean([one.holds() for one in studies])
    held_ellipse = np.mean([one.holds(RegionKind.ELLIPSE) for one in studies])
    cells = (
        name,
        f"{len(studies)}",
        f"{error.mean():+.2f}",
        f"{thin_error.mean():+.2f}" if thin else "-",
        f"{thin_error.std():.2f}" if thin else "-",
        f"{100 * held:.1f} %",
        f"{in_ellipse.mean():+.2f}" if thin else "-",
        f"{100 * held_ellipse:.1f} %",
    )
    print(f"| {' | '.join(cells)} |", flush=True)
    allowed = np.mean([allowed_bias_mg_cm3(one) for one in studies])
    unbiased = not thin or bool(abs(thin_error.mean()) <= allowed)
    return unbiased and (not intervals or name != "all" or bool(held >= MIN_HELD))


if __name__ == "__main__":
    sys.exit(main())
