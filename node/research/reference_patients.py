"""Invented patients that any two models can be compared on: digital reference studies, measured as the node
measures, with invented laboratory values."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings
from node.clinical.csv import NoLaboratory
from node.pipeline.artefacts import MemoryArtefacts
from node.pipeline.context import StepContext
from node.pipeline.engine import settle_engine
from node.pipeline.features import study_features
from node.pipeline.ports import Issue
from node.reference.spec import DEFAULT_BMD_MG_CM3, StudySpec
from node.reference.study import write_reference_study
from scoring.calibration import Mineral
from scoring.comparison import ReferencePatient

_MASK = "truth_mask.nii.gz"
_PHANTOM = "siemens-osteo"


class ReferenceUnmeasured(Exception):
    """A reference study gave no features, so that nothing can be compared; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCase:
    """One invented patient: the density of L3, and what the laboratory says."""

    l3_mg_cm3: float  # HA equivalent
    age_years: int
    alp_u_l: float
    homocysteine_umol_l: float
    seed: int

    @property
    def name(self) -> str:
        return f"L3 {self.l3_mg_cm3:g} mg/cm3, age {self.age_years}"

    @property
    def spec(self) -> StudySpec:
        share = self.l3_mg_cm3 / DEFAULT_BMD_MG_CM3["L3"]
        return StudySpec.reduced(
            bmd_mg_cm3={level: share * bmd for level, bmd in DEFAULT_BMD_MG_CM3.items()},
            age_years=self.age_years,
            phantom=_PHANTOM,
            seed=self.seed,
            view=("L2", "L4"),
        )


# From osteopenia to osteoporosis, laboratory values from low to high: what a model says should rise.
CASES = (
    ReferenceCase(l3_mg_cm3=130.0, age_years=56, alp_u_l=60.0, homocysteine_umol_l=9.0, seed=61),
    ReferenceCase(l3_mg_cm3=115.0, age_years=61, alp_u_l=70.0, homocysteine_umol_l=11.0, seed=62),
    ReferenceCase(l3_mg_cm3=100.0, age_years=66, alp_u_l=80.0, homocysteine_umol_l=13.0, seed=63),
    ReferenceCase(l3_mg_cm3=85.0, age_years=71, alp_u_l=90.0, homocysteine_umol_l=15.0, seed=64),
    ReferenceCase(l3_mg_cm3=70.0, age_years=76, alp_u_l=105.0, homocysteine_umol_l=18.0, seed=65),
    ReferenceCase(l3_mg_cm3=55.0, age_years=81, alp_u_l=120.0, homocysteine_umol_l=22.0, seed=66),
)


def measure_patients(
    settings: Settings, cases: tuple[ReferenceCase, ...] = CASES
) -> Iterator[ReferencePatient]:
    """Render and measure each case: every feature that the settings name, of L3 as it was drawn.

    The site's regions and feature settings are used; its engine and phantom are not, for the studies bring
    their own mask and rods.

    Raises
    ------
    ReferenceUnmeasured
        If a study has no features.
    """
    sections = settings.model_dump(mode="json")
    sections["segmentation"] |= {"engine": "mask", "mask_labels": "auto", "cross_check": False}
    sections["calibration"] |= {"method": "phantom", "phantom": _PHANTOM, "serial": "", "candidates": []}
    used = Settings.model_validate(sections)
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="osteonode-reference-") as folder:
            yield _measure(case, Path(folder), used)


def _measure(case: ReferenceCase, folder: Path, settings: Settings) -> ReferencePatient:
    write_reference_study(folder, case.spec)
    engine = settle_engine(settings.segmentation, folder / _MASK)
    found = study_features(
        StepContext(
            settings=settings,
            instances=tuple(sorted(folder.glob("*.dcm"))),
            artefacts=MemoryArtefacts(),
            engine=lambda: engine,
            clinical=NoLaboratory(),
            issue=_never,
            declared_qct=True,
        )
    )
    if found.values is None or found.series is None:
        raise ReferenceUnmeasured(f"{case.name}: {found.reason}")
    return ReferencePatient(
        name=case.name,
        features=found.values,
        kvp=found.series.kvp,
        spectrum=found.series.spectrum,
        slice_spacing_mm=found.series.slice_spacing_mm,
        pixel_spacing_mm=found.series.pixel_spacing_mm,
        equivalent=Mineral(found.equivalent) if found.equivalent else None,
        age=case.age_years,
        alp=case.alp_u_l,
        homocysteine=case.homocysteine_umol_l,
    )


def _never() -> Issue:
    raise AssertionError("measuring issues no report")
