"""The paper's whole method on patients who do not exist: DICOM, features, model card, a new patient's score.

    .venv/bin/python tools/run_cohort.py [--patients 120] [--out var/cohort] [--jobs N]

Writes a digital reference study for each patient and a cohort's table, trains with `osteonode train`, puts
the card into a site's folder and has `osteonode process` score a patient whom the model never saw. Exit
status 1 where a command fails or the new patient gets no rad-score. Every patient is invented: classes come
from a T-score of a simulated second reading, age and laboratory values from distributions of no cohort.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from pydicom import dcmread

from config.catalog import load_reference
from node.reference.spec import BODIES, StudySpec
from node.reference.study import write_reference_study

OSTEONODE = Path(sys.executable).with_name("osteonode")
MASK = "truth_mask.nii.gz"
SECOND_READING_SD = 14.0  # mg/cm3: without it the image would give the label away


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path("var/cohort"))
    parser.add_argument("--seed", type=int, default=2022)
    parser.add_argument("--bootstrap", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1)))
    asked = parser.parse_args()
    cohort = write_cohort(asked.out, asked.patients, asked.seed)
    model = asked.out / "model"
    osteonode(
        "train", cohort, "--out", model, "--mask", MASK, "--name", "cohort", "--jobs", asked.jobs,
        "--bootstrap", asked.bootstrap, "--penalty", "lambda.min",
    )  # fmt: skip
    site = asked.out / "site"
    (site / "models").mkdir(parents=True, exist_ok=True)
    (site / "models" / "cohort.json").write_bytes((model / "model.json").read_bytes())
    settings = asked.out / "node.toml"
    settings.write_text(f'[node]\nsite = "{site.resolve()}"\n[scoring]\nmodel = "cohort"\n', "utf-8")
    new = asked.out / "new"
    if not new.exists():
        write_reference_study(new, study(90.0, seed=asked.seed + asked.patients + 1, age=68))
    header = dcmread(next(new.glob("*.dcm")), stop_before_pixels=True)
    laboratory = asked.out / "laboratory.csv"
    laboratory.write_text(
        "patient_id,issuer,date,alp_u_l,homocysteine_umol_l\n"
        f"{header.PatientID},,{header.StudyDate[:4]}-{header.StudyDate[4:6]}-{header.StudyDate[6:]},88,15\n",
        "utf-8",
    )
    result = asked.out / "result"
    osteonode(
        "process", new, "--out", result, "--config", settings, "--mask", new / MASK, "--clinical", laboratory
    )
    found = json.loads((result / "result.json").read_text("utf-8"))
    print(f"a new patient: rad-score {found['rad_score']}, nomogram {found['nomogram'] is not None}")
    return 0 if found["rad_score"] is not None and found["nomogram"] is not None else 1


def write_cohort(out: Path, patients: int, seed: int) -> Path:
    """Studies and cohort.csv; studies that are there already are kept."""
    rng = np.random.default_rng(seed)
    young = load_reference("demonstration")[0].young
    rows = []
    for number in range(patients):
        density = float(rng.uniform(45.0, 150.0))
        t_score = (density + rng.normal(0.0, SECOND_READING_SD) - young.mean_mg_cm3) / young.sd_mg_cm3
        age = int(np.clip(rng.normal(68.0 if t_score <= -2.5 else 60.0, 8.0), 50, 90))
        rows.append(
            {
                "patient": f"patient-{number:03d}",
                "study": f"study-{number:03d}",
                "t_score": f"{t_score:.3f}",
                "age": age,
                "sex": "F" if rng.random() < 0.7 else "M",
                "alp_u_l": f"{np.clip(rng.normal(84.0, 20.0), 30.0, 200.0):.0f}",
                "homocysteine_umol_l": f"{np.clip(rng.normal(14.0, 4.0), 5.0, 40.0):.1f}",
            }
        )
        folder = out / f"study-{number:03d}"
        if not (folder / MASK).exists():
            write_reference_study(folder, study(density, seed=seed + number, age=age))
    table = out / "cohort.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table


def study(density: float, *, seed: int, age: int) -> StudySpec:
    """L2 to L4 on small slices; pixels and curvature differ, for equal shapes would be constant features."""
    rng = np.random.default_rng([seed, 1])
    return StudySpec.reduced(
        view=("L2", "L4"),
        seed=seed,
        age_years=age,
        bmd_mg_cm3=dict.fromkeys(BODIES, density),
        pixel_spacing_mm=(pixel := round(float(rng.uniform(1.5, 1.75)), 2), pixel),
        scoliosis_degrees=round(float(rng.uniform(0.0, 12.0)), 1),
    )


def osteonode(*arguments: object) -> None:
    command = [str(OSTEONODE), *(str(one) for one in arguments)]
    print("$ osteonode", *command[1:], flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
