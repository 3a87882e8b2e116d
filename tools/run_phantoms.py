"""Measures the 300 studies of tests/unit/phantom_matrix.py and prints error and coverage by factor.

tools/run_phantoms.py [NUMBER ...]

Exit status 1, with a line for each reason, where

- more than 5 % of the studies are refused;
- thin slices are biased by more than 1 mg/cm3 at any level of any factor, the phantom among them;
- fewer or more of all 95 % intervals hold the truth than chance leaves of so many studies.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from segmentation.vertebrae import RegionKind
from tests.unit.phantom_matrix import (
    FACTORS,
    MOST_REFUSED,
    STUDIES,
    MatrixStudy,
    fewest_and_most_held,
    is_unbiased,
    run,
)

HEADS = ("studies", "error", "error, thin", "SD, thin", "hold", "ellipse, thin", "hold")


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("number", type=int, nargs="*")
    studies = [run(number) for number in options.parse_args().number or range(STUDIES)]
    refused = [one for one in studies if one.refused]
    for one in refused:
        print(f"REFUSED {one.number}: {', '.join(one.refused)} {dict(one.levels)}")
    measured = [one for one in studies if not one.refused]
    missed = _table(measured)
    if len(refused) > MOST_REFUSED * len(studies):
        missed.append(f"{len(refused)} of {len(studies)} studies are refused")
    for reason in missed:
        print(f"MISSED {reason}")
    return 1 if missed else 0


def _table(studies: Sequence[MatrixStudy]) -> list[str]:
    """Print the studies, all and by factor; the targets that they miss."""
    print(f"\n| {' | '.join(('five phantoms', *HEADS))} |\n|{'---|' * (len(HEADS) + 1)}")
    groups = {"all": studies} | {
        f"{name} {level}": [one for one in studies if one.levels[name] == level]
        for name, levels in FACTORS.items()
        for level in levels
    }
    missed = []
    for name, group in groups.items():
        if group:
            print(f"| {' | '.join((name, *_cells(group)))} |", flush=True)
        if group and not is_unbiased(group):
            missed.append(f"{name}: thin slices are biased")
    held = sum(one.holds() for one in studies)
    fewest, most = fewest_and_most_held(len(studies))
    if studies and not fewest <= held <= most:
        missed.append(f"{held} of {len(studies)} intervals hold; {fewest} to {most} are expected")
    return missed


def _cells(studies: Sequence[MatrixStudy]) -> tuple[str, ...]:
    thin = [one for one in studies if one.thin]
    thin_error = np.array([one.error_mg_cm3() for one in thin])
    in_ellipse = np.array([one.error_mg_cm3(RegionKind.ELLIPSE) for one in thin])
    return (
        f"{len(studies)}",
        f"{np.mean([one.error_mg_cm3() for one in studies]):+.2f}",
        f"{thin_error.mean():+.2f}" if thin else "-",
        f"{thin_error.std():.2f}" if thin else "-",
        f"{100 * np.mean([one.holds() for one in studies]):.1f} %",
        f"{in_ellipse.mean():+.2f}" if thin else "-",
        f"{100 * np.mean([one.holds(RegionKind.ELLIPSE) for one in studies]):.1f} %",
    )


if __name__ == "__main__":
    sys.exit(main())
