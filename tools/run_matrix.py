"""Runs the sixty digital reference studies of tests/unit/segmentation_matrix.py and prints counts.

tools/run_matrix.py [--mixed-otherwise | --mixed-anew | --at-other-voltages | --worn | --crisp] [NUMBER ...]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.unit.segmentation_matrix import at_other_voltages, crisp, matrix, mixed_anew, mixed_otherwise, worn
from tests.unit.segmentation_matrix_run import Outcome, run


def main() -> int:
    outcomes = []
    options = argparse.ArgumentParser()
    series = options.add_mutually_exclusive_group()
    for mixing in (mixed_otherwise, mixed_anew, at_other_voltages, worn, crisp):
        option = f"--{mixing.__name__.replace('_', '-')}"
        series.add_argument(option, dest="series", action="store_const", const=mixing, default=matrix)
    options.add_argument("number", type=int, nargs="*")
    given = options.parse_args()
    wanted = set(given.number)
    for entry in given.series():
        if wanted and entry.number not in wanted:
            continue
        outcome = run(entry)
        outcomes.append(outcome)
        _print_one(outcome)
    return _print_counts(outcomes)


def _print_one(outcome: Outcome) -> None:
    spec = outcome.entry.spec
    said = " ".join(f"{code}@{level}" if level else code for code, level in outcome.findings)
    print(
        f"{outcome.entry.number:2d} {'ok ' if outcome.as_expected else 'BAD'} {spec.view[0]}-{spec.view[1]}"
        f" {spec.slice_spacing_mm:g} mm, {spec.bmd_mg_cm3['L3']:g} mg, {spec.scoliosis_degrees:g} deg,"
        f" noise {spec.noise_hu:g}; volume {_range(outcome.volume_ratio)}, core {_range(outcome.core_ratio)};"
        f" misnamed {','.join(outcome.misnamed) or '-'}; missing {','.join(outcome.missing) or '-'};"
        f" barred {','.join(outcome.barred) or '-'}; {said}",
        flush=True,
    )


def _range(ratios) -> str:  # type: ignore[no-untyped-def]
    return f"{min(ratios.values()):.2f}-{max(ratios.values()):.2f}" if ratios else "-"


def _print_counts(outcomes: list[Outcome]) -> int:
    wrong = [one.entry.number for one in outcomes if one.wrong_level]
    marked = [one.entry.number for one in outcomes if one.misnamed and one.doubted]
    clean = [one for one in outcomes if one.entry.anchored and not one.entry.faulted]
    measured = [one for one in clean if one.measured]
    print(f"wrong levels, unmarked: {len(wrong)} {wrong}; misnamed but marked: {len(marked)} {marked}")
    print(f"unfaulted with sacrum or last rib in view: {len(measured)} of {len(clean)} measured")
    print(f"as expected: {sum(one.as_expected for one in outcomes)} of {len(outcomes)}")
    for what in ("volume_ratio", "core_ratio"):
        ratios = [ratio for one in clean for ratio in getattr(one, what).values()]
        if ratios:
            error = np.abs(np.asarray(ratios) - 1)
            limits = ", ".join(f"{(error <= limit).mean():.0%} within {limit:.0%}" for limit in (0.05, 0.10))
            print(
                f"{what} of {len(error)} unfaulted bodies: {np.mean(ratios):.3f} on average, {limits},"
                f" worst {error.max():.0%}"
            )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
