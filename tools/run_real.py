"""Runs the variants of real CTs of tests/unit/real_variants.py on the model-free engine and prints counts.

    tools/run_real.py FOLDER [--seed N] [--source NAME] [NUMBER ...]

FOLDER holds the real data (see docs/segmentation.md). Exit status 1 where a half body is printed or a name is
wrong without a doubt.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from config.findings import load_findings
from tests.unit.real_variants import Judgement, run, variants

NEAR_MG_CM3 = 10.0
BELIEVED_MM = 3.2  # slices up to which heights are believed (`FractureSettings.max_step_mm`)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--seed", type=int, default=20)
    options.add_argument("--source")
    options.add_argument("number", type=int, nargs="*")
    given = options.parse_args()
    table = load_findings()
    judged = []
    for variant in variants(given.seed):
        if given.number and variant.number not in given.number:
            continue
        if given.source and variant.source != given.source:
            continue
        judged.append(run(given.folder, variant, table))
        _print_one(judged[-1])
    for source in dict.fromkeys(one.variant.source for one in judged):
        _print_counts(source, [one for one in judged if one.variant.source == source])
    _print_counts("all", judged)
    return 1 if any(one.halves or one.misnamed for one in judged) else 0


def _print_one(one: Judgement) -> None:
    kept = " ".join(f"{name} {error:+.0f}" for name, error in sorted(one.kept.items()))
    wrong = [
        f"{what} {','.join(names)}"
        for what, names in (
            ("HALF", one.halves),
            ("half withheld", one.withheld_halves),
            ("MISNAMED", one.misnamed),
            ("FRACTURE", one.fractures),
            ("METAL", one.metal),
        )
        if names
    ]
    lost = ",".join(name for name in one.measurable if name not in one.kept) or "-"
    print(f"{one.variant.number:3d} {one.variant}: {kept}; lost {lost}; {'; '.join(wrong)}", flush=True)
    print(f"      {' '.join(one.findings)}", flush=True)


def _print_counts(source: str, judged: list[Judgement]) -> None:
    whole = sum(len(one.whole) for one in judged)
    measurable = [(one, name) for one in judged for name in one.measurable]
    kept = sum(name in one.kept for one, name in measurable)
    errors = np.abs([error for one in judged for error in one.kept.values()])
    near = int((errors <= NEAR_MG_CM3).sum())
    fine = [one for one in judged if (one.variant.thickness_mm or 0.0) <= BELIEVED_MM]
    fractures = ", ".join(
        f"{sum(len(one.fractures) for one in part)} of {sum(len(one.whole) for one in part)} {where}"
        for part, where in (
            (fine, f"up to {BELIEVED_MM:g} mm"),
            ([one for one in judged if one not in fine], "above"),
        )
    )
    print(
        f"{source}: {len(judged)} runs, {whole} whole bodies;"
        f" half bodies printed {sum(len(one.halves) for one in judged)} in"
        f" {sum(bool(one.halves) for one in judged)} runs, withheld"
        f" {sum(len(one.withheld_halves) for one in judged)};"
        f" wrong names undoubted {sum(len(one.misnamed) for one in judged)};"
        f" fractures {fractures};"
        f" metal {sum(len(one.metal) for one in judged)};"
        f" a density for {len(errors)}, and for {kept} of {len(measurable)}"
        f" ({kept / max(1, len(measurable)):.0%}) that no gate withholds on the expert's mask;"
        f" within {NEAR_MG_CM3:g} mg/cm3 {near} of {len(errors)},"
        f" median {np.median(errors) if len(errors) else np.nan:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
