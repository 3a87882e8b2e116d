"""The paper's whole method on patients who do not exist: DICOM, features, model card, new patients' scores.

    .venv/bin/python tools/run_cohort.py [--patients 120] [--fresh 24] [--out var/cohort] [--jobs N]

Writes a digital reference study for each patient, reads the features of twenty of them by a second mask,
trains with `osteonode train`, judges the card with `osteonode evaluate` on patients it was not made from,
puts it into a site's folder and has `osteonode process` score two more. Prints what came out against what
must; exit status 1 where a command fails or a claim does not hold. Every patient is invented: the class comes
from the T-score of a simulated second reading, age and laboratory values from distributions of no cohort.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import SimpleITK

from config.catalog import load_reference
from node.reference.spec import BODIES, StudySpec
from node.reference.study import write_reference_study
from node.result_document import ResultDocument, read_result
from scoring.models.card import parse_model_card

OSTEONODE = Path(sys.executable).with_name("osteonode")
MASK, SECOND_MASK = "truth_mask.nii.gz", "second_mask.nii.gz"
MASKED_TWICE = 20  # as many as Xie et al. 2022
DENSITY_MG_CM3 = (60.0, 150.0)
SECOND_READING_SD = 16.0  # mg/cm3: without it the image would give the label away
NEW_PATIENTS = {"denser": 115.0, "sparser": 70.0}  # mg/cm3: T about -1.9 and -3.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Invented:
    """A patient: the study's specification and a row of the cohort's table."""

    spec: StudySpec
    row: dict[str, str]


def clear(folder: Path) -> None:
    """Remove what `train` and `evaluate` left, so that they take the folder again."""
    for name in ("tables", "figures"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("model.json", "model_card.md", "index.html"):
        (folder / name).unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=120)
    parser.add_argument("--fresh", type=int, default=24, help="patients for `evaluate` alone")
    parser.add_argument("--out", type=Path, default=Path("var/cohort"))
    parser.add_argument("--seed", type=int, default=2022)
    parser.add_argument("--bootstrap", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=max(1, min(4, os.cpu_count() or 1)))
    asked = parser.parse_args()
    out: Path = asked.out
    started = time.monotonic()
    cohort = list(invent(asked.patients, asked.seed, "study"))
    fresh = list(invent(asked.fresh, asked.seed + 1, "fresh"))
    new = {name: reduced(name, density, asked.seed, 68) for name, density in NEW_PATIENTS.items()}
    write_studies(
        out,
        {one.row["study"]: one.spec for one in (*cohort, *fresh)}
        | {f"new-{name}": spec for name, spec in new.items()},
        asked.jobs,
    )
    tables = {"cohort": cohort, "fresh": fresh}
    for name, patients in tables.items():
        write_table(out / f"{name}.csv", [one.row for one in patients])
    twice = [out / one.row["study"] for one in cohort[:MASKED_TWICE]]
    for folder in twice:
        write_second_mask(folder)

    drawn = out / "drawn.toml"
    drawn.write_text("[segmentation]\ncross_check = false\n", "utf-8")  # the masks' names are right
    how = ("--config", drawn, "--jobs", asked.jobs)
    second = out / "second-mask.csv"
    osteonode("features", *twice, "--out", second, "--mask", SECOND_MASK, *how)
    model, again = out / "model", out / "again"
    for folder in (model, again, out / "fresh"):  # of an earlier run here; its features stay
        clear(folder)
    asked_of_training = (
        "--repeat", second, "--name", "cohort", "--seed", asked.seed, "--bootstrap", asked.bootstrap
    )  # fmt: skip
    osteonode("train", out / "cohort.csv", "--out", model, "--mask", MASK, *asked_of_training, *how)
    made = model / "features.csv"
    osteonode("train", out / "cohort.csv", "--out", again, "--features", made, *asked_of_training)
    card = model / "model.json"
    osteonode("evaluate", card, out / "fresh.csv", "--out", out / "fresh", "--mask", MASK, *how)
    results = score(out, card, new)
    held = [*claims(out, results)]
    for claim, holds in held:
        print(f"{'yes' if holds else 'NO '}  {claim}")
    print(f"{time.monotonic() - started:.0f} s; page: {model / 'index.html'}")
    return 0 if all(holds for _, holds in held) else 1


def claims(out: Path, results: dict[str, ResultDocument]) -> Iterator[tuple[str, bool]]:
    """What must hold of everything that the commands left, each with its numbers."""
    card = parse_model_card((out / "model" / "model.json").read_text("utf-8"))
    icc = [float(row["icc"]) for row in rows_of(out / "model" / "tables" / "agreement_second-mask.csv")]
    kept = int(card.training["features_kept"])
    yield f"{kept} of {len(icc)} features agree between two masks, not all and not none", 0 < kept < len(icc)
    for folder, part, least in (("model", "test", 0.7), ("fresh", "evaluation", 0.7)):
        for row in rows_of(out / folder / "tables" / f"performance_{part}.csv"):
            if row["model"] != "clinical":
                area = float(row["auc"])
                yield (
                    f"{part}: {row['model']} AUC {area:.3f} ({row['auc_95']}) is above {least}",
                    area > least,
                )
    yield "training again on the same features gives the same bytes", same_bytes(out / "model", out / "again")
    for name, result in results.items():
        scored = result.rad_score is not None and result.nomogram is not None
        score = f"{result.rad_score:.3f}" if scored else f"none ({codes(result)})"
        yield f"the {name} new patient has a nomogram; rad-score {score}", scored
        applied = result.provenance.model_sha256 == card.sha256
        yield f"the {name} new patient was scored with this card", applied
    risk = {name: result.nomogram.probability for name, result in results.items() if result.nomogram}
    if len(risk) == len(results):
        told = ", ".join(f"{name} {value:.3f}" for name, value in risk.items())
        yield f"less bone, more risk: {told}", risk["sparser"] > risk["denser"]


def score(out: Path, card: Path, new: dict[str, StudySpec]) -> dict[str, ResultDocument]:
    """`result.json` of each new patient, by a node whose site folder holds the card."""
    models = out / "site" / "models"
    models.mkdir(parents=True, exist_ok=True)
    (models / "cohort.json").write_bytes(card.read_bytes())
    settings = out / "node.toml"
    settings.write_text(f'[node]\nsite = "{models.parent.resolve()}"\n[scoring]\nmodel = "cohort"\n', "utf-8")
    laboratory = out / "laboratory.csv"
    write_table(
        laboratory,
        [
            {"patient_id": spec.patient_id, "issuer": "", "date": spec.study_date.isoformat()}
            | {"alp_u_l": "88", "homocysteine_umol_l": "15"}
            for spec in new.values()
        ],
    )
    results = {}
    for name in new:
        study, result = out / f"new-{name}", out / f"result-{name}"
        options = ("--config", settings, "--mask", study / MASK, "--clinical", laboratory)
        osteonode("process", study, "--out", result, *options)
        results[name] = read_result((result / "result.json").read_bytes())
    return results


def invent(patients: int, seed: int, prefix: str) -> Iterator[Invented]:
    rng = np.random.default_rng(seed)
    young = load_reference("demonstration")[0].young
    for number in range(patients):
        density = float(rng.uniform(*DENSITY_MG_CM3))
        second_reading = density + rng.normal(0.0, SECOND_READING_SD)
        t_score = (second_reading - young.mean_mg_cm3) / young.sd_mg_cm3
        age = int(np.clip(rng.normal(67.0 if t_score <= -2.5 else 62.0, 8.0), 50, 90))
        name = f"{prefix}-{number:03d}"
        yield Invented(
            spec=reduced(name, density, seed + number, age),
            row={
                "patient": name,
                "study": name,
                "t_score": f"{t_score:.3f}",
                "age": str(age),
                "sex": "F" if rng.random() < 0.7 else "M",
                "alp_u_l": f"{np.clip(rng.normal(84.0, 20.0), 30.0, 200.0):.0f}",
                "homocysteine_umol_l": f"{np.clip(rng.normal(14.0, 4.0), 5.0, 40.0):.1f}",
            },
        )


def reduced(name: str, density_mg_cm3: float, seed: int, age: int) -> StudySpec:
    """L2 to L4 on small slices; pixels and curvature differ, for equal shapes would be constant features."""
    rng = np.random.default_rng([seed, 1])
    return StudySpec.reduced(
        view=("L2", "L4"),
        seed=seed,
        patient_id=name,
        age_years=age,
        bmd_mg_cm3=dict.fromkeys(BODIES, density_mg_cm3),
        pixel_spacing_mm=(pixel := round(float(rng.uniform(1.5, 1.75)), 2), pixel),
        scoliosis_degrees=round(float(rng.uniform(0.0, 12.0)), 1),
    )


def write_studies(out: Path, specs: dict[str, StudySpec], jobs: int) -> None:
    """A folder each; one that holds the same study already is kept."""
    todo = {name: spec for name, spec in specs.items() if not is_there(out / name, spec)}
    print(f"{len(todo)} of {len(specs)} studies to write", flush=True)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        written = pool.map(write_reference_study, [out / name for name in todo], todo.values())
        for _ in written:  # each result is asked for, so that an error in one of them is raised
            pass


def is_there(folder: Path, spec: StudySpec) -> bool:
    """`truth.json` is written last."""
    truth = folder / "truth.json"
    return truth.is_file() and json.loads(truth.read_text("utf-8"))["spec"] == json.loads(
        json.dumps(spec.content, default=str)
    )


def write_second_mask(folder: Path) -> None:
    """As another hand may draw: every vertebra a pixel to the side."""
    mask = SimpleITK.ReadImage(folder / MASK)
    moved = SimpleITK.GetImageFromArray(np.roll(SimpleITK.GetArrayFromImage(mask), 1, axis=2))
    moved.CopyInformation(mask)
    SimpleITK.WriteImage(moved, folder / SECOND_MASK)


def write_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def rows_of(path: Path) -> Iterable[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def same_bytes(first: Path, second: Path) -> bool:
    """Whether two trainings left equal files; the features stand beside the first alone."""

    def files(folder: Path) -> dict[Path, bytes]:
        return {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith("features.csv")
        }

    return files(first) == files(second)


def codes(result: ResultDocument) -> str:
    return " ".join(sorted({finding.code for finding in result.findings}))


def osteonode(*arguments: object) -> None:
    """Run a command; its failure ends this one."""
    command = [str(OSTEONODE), *(str(one) for one in arguments)]
    shown = command if len(command) < 15 else [*command[:4], "...", *command[-8:]]
    print("$ osteonode", *shown[1:], flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(f"osteonode {arguments[0]} ended with {status}")


if __name__ == "__main__":
    sys.exit(main())
