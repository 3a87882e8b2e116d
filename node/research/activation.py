"""Changing the model that scores patients: checked, compared on reference patients, recorded, reversible."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from config.catalog import load_model_card, load_radiomics_settings_text
from config.phrases import in_english
from config.settings import Settings
from node.pipeline.engine import resolve_engine
from node.pipeline.result_basis import active_model
from node.pipeline.study_run import StudyImages
from node.reference.spec import DEFAULT_BMD_MG_CM3, StudySpec
from node.reference.study import write_reference_study
from node.research.extraction import study_features
from node.store.activations import (
    Activation,
    ActivationsUnreadable,
    activation_count,
    activation_history,
    active_activation,
)
from node.store.store import open_store
from scoring.calibration import Mineral
from scoring.errors import ModelCardInvalid
from scoring.models.applicability import ModelComparison, ReferencePatient, compare_models
from scoring.models.card import ModelCard, parse_model_card
from scoring.radiomics import feature_names, parse_settings


class NotActivated(Exception):
    """A card that was not activated; the message gives the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A card beside the active one, and the effect of the change on the reference patients.

    Attributes
    ----------
    in_force : the active card; None where there is none, or it cannot be used.
    comparison : one entry for each reference patient.
    after : number of activations recorded when this was proposed.
    """

    card: ModelCard
    in_force: ModelCard | None
    comparison: tuple[ModelComparison, ...]
    after: int


def find_card(named: str, settings: Settings) -> ModelCard:
    """A card by its name in the catalogue, by the path of its file, or, of those activated before, by the
    first digits of its sha256 (eight at least).

    Raises
    ------
    NotActivated
        If it cannot be read or is no card.
    CatalogEntryMissing, CatalogEntryInvalid, StoreError
    """
    path = Path(named)
    if path.suffix == ".json":
        try:
            return parse_model_card(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, ModelCardInvalid) as error:
            raise NotActivated(f"{named}: {error}") from error
    if len(named) >= 8:
        known = _recorded(activation_history(settings.storage))
        matching = [card for sha256, card in known.items() if sha256.startswith(named.lower())]
        if len(matching) == 1:
            return matching[0]
    return load_model_card(named, settings.node.site_folder)[0]


def previous_card(settings: Settings) -> ModelCard:
    """The card that the one in force took the place of.

    Raises
    ------
    NotActivated
        If there is none that the record holds or `scoring.model` names.
    CatalogEntryMissing, CatalogEntryInvalid, StoreError
    """
    history = activation_history(settings.storage)
    if not history or history[-1].previous_sha256 is None:
        raise NotActivated("the record names no model before the active one")
    wanted = history[-1].previous_sha256
    known = _recorded(history)
    if wanted in known:
        return known[wanted]
    named = load_model_card(settings.scoring.model, settings.node.site_folder)[0]
    if named.sha256 == wanted:
        return named
    raise NotActivated(f"the model {wanted[:12]} before the active one is kept nowhere: name its file")


def _recorded(history: Sequence[Activation]) -> dict[str, ModelCard]:
    """Every card that was in force at an activation, by its sha256."""
    cards = [card for one in history for card in (one.previous, one.card) if card is not None]
    return {card.sha256: card for card in cards}


def require_change(card: ModelCard, settings: Settings) -> None:
    """Make sure that a card is not the activated one already.

    The card that `scoring.model` names may be activated: so it is pinned. Any may where the record's last
    activation is damaged.

    Raises
    ------
    NotActivated
    StoreError
    """
    try:
        standing = active_activation(settings.storage)
    except ActivationsUnreadable:
        return
    if standing is not None and standing.card.sha256 == card.sha256:
        raise NotActivated(f"{card.name} is the active model already")


def require_usable(card: ModelCard, settings: Settings) -> None:
    """Make sure that this node can use a card at all.

    Raises
    ------
    NotActivated
    """
    if not settings.scoring.model:
        raise NotActivated("scoring.model is empty: this node gives no rad-score, whatever is activated")
    text, radiomics_sha256 = load_radiomics_settings_text(settings.node.site_folder)
    if card.radiomics_settings_sha256 != radiomics_sha256:
        raise NotActivated(f"{card.name}: its features were computed with other settings (radiomics.yaml)")
    unknown = {one.name for one in card.features} - set(feature_names(parse_settings(text)))
    if unknown:
        raise NotActivated(f"{card.name}: no such features: {', '.join(sorted(unknown))}")


def propose(card: ModelCard, settings: Settings, patients: Iterable[ReferencePatient]) -> Proposal:
    """Compare a card with the one in force.

    Parameters
    ----------
    patients : of `node.research.activation`, measured under the same settings.

    Raises
    ------
    CatalogEntryMissing, CatalogEntryInvalid, StoreError
    """
    after = activation_count(settings.storage)
    in_force = active_model(settings).card
    same_features = in_force is not None and (
        in_force.radiomics_settings_sha256 == card.radiomics_settings_sha256
    )
    return Proposal(
        card=card,
        in_force=in_force,
        comparison=compare_models(in_force if same_features else None, card, tuple(patients), in_english),
        after=after,
    )


def activate(proposal: Proposal, settings: Settings, *, at: datetime, by: str, reason: str) -> None:
    """Make a proposed card the active one.

    Raises
    ------
    StoreError
        If another was activated since the comparison, or the record cannot be written.
    """
    activation = Activation(
        card=proposal.card,
        activated_at=at,
        activated_by=by,
        reason=reason,
        previous_sha256=proposal.in_force.sha256 if proposal.in_force else None,
        previous=proposal.in_force,
        comparison=proposal.comparison,
    )
    store = open_store(settings.storage)
    try:
        store.activations.record(activation, after=proposal.after)
    finally:
        store.close()


def class_changes(comparison: Sequence[ModelComparison]) -> int:
    """How many reference patients change their likelier class."""
    return sum(one.class_changes for one in comparison)


# Invented patients that any two models can be compared on: digital reference studies, measured as the node
# measures, with invented laboratory values.


_MASK = "truth_mask.nii.gz"
_PHANTOM = "siemens-osteo"


class ReferenceUnmeasured(Exception):
    """A reference study gave no features, so models cannot be compared; the message gives the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCase:
    """One invented patient: the density of L3, and laboratory values.

    Attributes
    ----------
    l3_mg_cm3 : cancellous density of L3, HA equivalent.
    alp_u_l : alkaline phosphatase [U/L].
    homocysteine_umol_l : homocysteine [umol/L].
    seed : of the invented images.
    """

    l3_mg_cm3: float
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
    engine = resolve_engine(settings.segmentation, folder / _MASK)
    images = StudyImages(tuple(sorted(folder.glob("*.dcm"))), settings)
    found = study_features(images, settings, lambda: engine)
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
