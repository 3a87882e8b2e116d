"""Training of three models from a cohort and its features, and their evaluation, as in Xie et al. 2022."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from config.findings import FindingTable
from node.research.cohort_tables import (
    FeatureTable,
    Matrix,
    Measured,
    Variable,
    clinical_values,
    first_of,
    measured,
    outside,
    read_features,
    repeated,
    table1,
    technique_of,
)
from scoring.density.bmd import StudyClass
from scoring.errors import CohortUnusable, FitImpossible
from scoring.models.applicability import input_observations, score_observations
from scoring.models.card import Applicability, CardTerm
from scoring.training.cohort import (
    CLINICAL,
    PLAUSIBLE,
    Cohort,
    Patient,
    Split,
    stratified_folds,
    stratified_split,
)
from scoring.training.cohort import require_enough as require_enough_to_split
from scoring.training.discrimination import Auc, Labels, Optimism, optimism_of_auc
from scoring.training.feature_selection import Icc, icc
from scoring.training.fitting import Folds, LogisticModel, ModelFits, PenaltyChoice, fit_models, fit_rad_score
from scoring.training.validation import Validation, subgroup_aucs, validate, youden_cutoff
from segmentation.vertebrae import Observation

# Patients on whom a model may be judged: those to whom a node would report its numbers.


FEWEST_OF_A_CLASS = 2  # that an AUC and its interval need


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Limits of a card besides its technique, and the wording of their findings.

    Attributes
    ----------
    model : the card's name.
    terms : of the card's combined model.
    """

    model: str
    terms: Sequence[CardTerm]
    findings: FindingTable

    def why_not_scored(self, score: float) -> str:
        """Why there is no rad-score; "" where there is."""
        (term,) = [one for one in self.terms if one.name == "rad_score"]
        return self._words(score_observations(term, score, model=self.model))

    def why_no_probability(self, score: float, patient: Patient) -> str:
        """Why the nomogram gives none; "" where it does."""
        age, alp, homocysteine = (patient.values[name] for name in CLINICAL)
        return self._words(
            input_observations(self.terms, rad_score=score, age=age, alp=alp, homocysteine=homocysteine)
        )

    def _words(self, observations: Iterable[Observation]) -> str:
        return " ".join(self.findings.describe(one).text for one in observations)


def osteoporosis_of(patients: Measured) -> Labels:
    """True for the positive class."""
    return np.array([one.label is StudyClass.OSTEOPOROSIS for one in patients.patients], dtype=bool)


def require_enough(judged: Measured, left_out: Mapping[str, str]) -> None:
    """Make sure that both classes have patients enough for an AUC.

    Parameters
    ----------
    left_out : who is not judged, and why.

    Raises
    ------
    CohortUnusable
    """
    ill = int(osteoporosis_of(judged).sum())
    counts = {"osteoporosis": ill, "osteopenia": len(judged.patients) - ill}
    if min(counts.values()) >= FEWEST_OF_A_CLASS:
        return
    left = " and ".join(f"{count} with {name}" for name, count in counts.items())
    told = [f"{name}: {why}" for name, why in left_out.items()]
    raise CohortUnusable(
        f"{left} can be judged by this model; {FEWEST_OF_A_CLASS} of each are needed"
        + (f". Left out: {first_of(told)}" if told else "")
    )


# The predictors of a new card: how much each counts, and which values the training patients had.


# Card name, label and UCUM unit of each clinical value.
_TERMS = {
    "age": ("age", "Age", "a"),
    "alp_u_l": ("alp", "ALP", "U/L"),
    "homocysteine_umol_l": ("homocysteine", "Homocysteine", "umol/L"),
}


def card_terms(combined: LogisticModel, scores: Matrix, clinical: Matrix) -> tuple[CardTerm, ...]:
    """The combined model's terms, each with its axis.

    Parameters
    ----------
    combined : fitted to `scores`, then the columns of `CLINICAL`.
    scores : rad-scores of all who trained, shape (patients,).
    clinical : of the same, shape (patients, values); NaN where a value is missing. As for the fit
        (`scoring.training.fitting.fit_models`), whoever lacks a value counts for none of these axes.
    """
    lowest, highest = _outward(scores)
    fitted = clinical[np.isfinite(clinical).all(axis=1)]
    rad_score, *others = combined.terms
    terms = [
        CardTerm(
            name="rad_score",
            label="Rad-score",
            unit="1",
            coefficient=rad_score.value,
            axis=(lowest, highest),
            plausible=(2 * lowest - highest, 2 * highest - lowest),
        )
    ]
    for column, values, coefficient in zip(CLINICAL, fitted.T, others, strict=True):
        name, label, unit = _TERMS[column]
        terms.append(
            CardTerm(
                name=name,
                label=label,
                unit=unit,
                coefficient=coefficient.value,
                axis=(float(values.min()), float(values.max())),
                plausible=PLAUSIBLE[column],
            )
        )
    return tuple(terms)


def _outward(scores: Matrix) -> tuple[float, float]:
    """The range of rad-scores with the digits that a report gives, its ends included."""
    return floor(float(scores.min()) * 100) / 100, ceil(float(scores.max()) * 100) / 100


# Features of repeated masks: checks that they belong to the training studies, and their agreement.


FEWEST = 3  # studies masked twice


def read_repeats(paths: Sequence[Path], first: Path) -> dict[str, FeatureTable]:
    """Tables by their files' names, which name what is written about them.

    Parameters
    ----------
    first : the table to train on.

    Raises
    ------
    CohortUnusable
        If a table is unusable, is the one to train on, or shares its name with another.
    """
    if first.resolve() in [path.resolve() for path in paths]:
        raise CohortUnusable(f"{first} cannot be its own repeat")
    if twice := repeated([path.stem for path in paths]):
        raise CohortUnusable(
            f"repeats are distinguished by their file names; more than one is named {', '.join(twice)}"
        )
    return {path.stem: read_features(path) for path in paths}


def agreements(first: FeatureTable, second: FeatureTable) -> dict[str, Icc]:
    """ICC of each feature over the studies that both tables have.

    Raises
    ------
    CohortUnusable
        If the tables hold other features or such of other settings, other studies under the same paths, fewer
        than three studies in common, features that are all the same, or one that is the same in all of these.
    """
    if first.names != second.names:
        raise CohortUnusable("repeated masks must have the same features")
    if first.made_with.radiomics_settings_sha256 != second.made_with.radiomics_settings_sha256:
        raise CohortUnusable("features of repeated masks were made with other radiomics settings")
    both = [
        (one, other)
        for key, one in first.rows.items()
        if (other := second.rows.get(key)) is not None and not one["reason"] and not other["reason"]
    ]
    changed = [
        one["study"] for one, other in both if one["study_instance_uid"] != other["study_instance_uid"]
    ]
    if changed:
        raise CohortUnusable(f"repeated masks are of other studies than these: {first_of(changed)}")
    if len(both) < FEWEST:
        raise CohortUnusable(f"{len(both)} studies were masked twice; agreement needs {FEWEST}")
    ratings = {
        name: np.array([[float(one[name]), float(other[name])] for one, other in both])
        for name in first.names
    }
    if all((values[:, 0] == values[:, 1]).all() for values in ratings.values()):
        raise CohortUnusable(
            "the repeat has the same features in all studies: its masks are not repeated ones"
        )
    if same := [name for name, values in ratings.items() if np.ptp(values) == 0.0]:
        raise CohortUnusable(f"features that are the same in all studies masked twice: {', '.join(same)}")
    return {name: icc(values) for name, values in ratings.items()}


AGREEMENT = 0.81  # least ICC of a feature that is kept: "almost perfect" in Xie et al. 2022
RADIOMICS, CLINIC, COMBINED = "radiomics", "clinical", "combined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Options of a training.

    Attributes
    ----------
    name : of the model.
    version : of the model.
    seed : of every random draw.
    resamples : of the bootstrap; 0: none.
    """

    name: str
    version: str
    seed: int
    penalty: PenaltyChoice
    resamples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Everything that came out.

    Attributes
    ----------
    left_out : patient -> why there is no rad-score of this model.
    without_probability : patient to test -> why the nomogram gives none: not judged.
    technique : of the studies that train, which limits what the model covers.
    studies : StudyInstanceUIDs of those that train, where known.
    own_split : the table's own, not a drawn one.
    agreement : repeat -> feature -> ICC.
    kept : features with agreement enough.
    splits : with osteoporosis or osteopenia.
    terms : of the card's combined model.
    validations : on patients to whom the nomogram gives a probability.
    subgroups : of the rad-score, on all patients that did not train.
    rad_scores : by class, all patients that the model covers.
    optimism : of the training patients' AUC.
    """

    cohort: Cohort
    left_out: Mapping[str, str]
    without_probability: Mapping[str, str]
    technique: Applicability
    studies: tuple[str, ...]
    own_split: bool
    own_folds: bool
    agreement: Mapping[str, Mapping[str, Icc]]
    kept: tuple[str, ...]
    splits: Mapping[Split, tuple[Patient, ...]]
    table1: Mapping[Split, tuple[Variable, ...]]
    fits: ModelFits
    terms: tuple[CardTerm, ...]
    cutoffs: Mapping[str, float]
    validations: Mapping[Split, Validation]
    subgroups: Mapping[tuple[str, str], Auc]
    rad_scores: Mapping[str, tuple[float, ...]]
    optimism: Mapping[str, Optimism]


def train(
    cohort: Cohort,
    folder: Path,
    table: FeatureTable,
    repeats: Mapping[str, FeatureTable],
    *,
    plan: Plan,
    findings: FindingTable,
    progress: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Split, agreement, selection, fits, validation and optimism, in this order.

    Those who do not train are judged as `node.research.evaluation` would judge them: as far as the model
    covers their studies, their rad-scores are plausible to it, and its nomogram gives a probability.

    Parameters
    ----------
    folder : of the cohort's table, from which it names studies.
    repeats : features of the same studies by repeated masks, by name ("intra-observer").
    findings : words for what a node would say.

    Raises
    ------
    CohortUnusable, FitImpossible
    """
    everyone = measured(cohort, folder, table)
    training = _training_patients(everyone, plan.seed)
    learnt = everyone.where(lambda one: one.name in training)
    technique = technique_of(learnt.rows)
    covered = everyone.without(lambda one, row: "" if one.name in training else outside(row, technique))
    _require_any_to_test(covered, training, everyone)
    progress("agreement")
    agreement = {name: agreements(table, other) for name, other in repeats.items()}
    kept = _agreeing(table.names, agreement)

    progress("selection and fits")
    columns = [table.names.index(name) for name in kept]
    values, labels = learnt.values[:, columns], osteoporosis_of(learnt)
    clinical = clinical_values(learnt.patients, CLINICAL)
    folds = _folds(learnt, labels, plan.seed)
    rad = fit_rad_score(values, kept, labels, folds, plan.penalty)
    scores = rad.score(values, kept)
    fits = fit_models(rad, scores, clinical, CLINICAL, labels)
    terms = card_terms(fits.combined, scores, clinical)

    progress("validation")
    score_of = dict(
        zip((one.name for one in covered.patients), rad.score(covered.values[:, columns], kept), strict=True)
    )
    reach = Range(model=plan.name, terms=terms, findings=findings)
    scored, judged = _in_reach(covered, training, score_of, reach)
    fresh = scored.where(lambda one: one.name not in training)
    tested = fresh.where(lambda one: one.label is not StudyClass.NORMAL)
    fitted = learnt.where(lambda one: all(one.values[name] is not None for name in CLINICAL))
    parts = {Split.TRAIN: fitted, Split.TEST: judged}
    risks = {
        split: probabilities(
            fits,
            np.array([score_of[one.name] for one in part.patients]),
            clinical_values(part.patients, CLINICAL),
        )
        for split, part in parts.items()
    }
    cutoffs = {
        name: youden_cutoff(risk, osteoporosis_of(fitted)) for name, risk in risks[Split.TRAIN].items()
    }
    validations = {
        split: validate(risks[split], osteoporosis_of(part), cutoffs, development=split is Split.TRAIN)
        for split, part in parts.items()
    }
    progress("optimism")
    return Trained(
        cohort=cohort,
        left_out=scored.left_out,
        without_probability={
            name: why for name, why in judged.left_out.items() if name not in scored.left_out
        },
        technique=technique,
        studies=tuple(uid for row in learnt.rows if (uid := row["study_instance_uid"])),
        own_split=learnt.patients[0].split is not None,
        own_folds=learnt.patients[0].fold is not None,
        agreement=agreement,
        kept=kept,
        splits={Split.TRAIN: learnt.patients, Split.TEST: tested.patients},
        table1={
            split: table1(part.patients, cohort.variables)
            for split, part in ((Split.TRAIN, learnt), (Split.TEST, tested))
        },
        fits=fits,
        terms=terms,
        cutoffs=cutoffs,
        validations=validations,
        subgroups=subgroup_aucs(
            np.array([score_of[one.name] for one in fresh.patients]),
            np.array([one.label.value for one in fresh.patients]),
        ),
        rad_scores={
            name.value: tuple(found)
            for name in StudyClass
            if (found := [float(score_of[one.name]) for one in scored.patients if one.label is name])
        },
        optimism=_optimism(values, kept, clinical, labels=labels, folds=folds, plan=plan),
    )


def _agreeing(names: tuple[str, ...], agreement: Mapping[str, Mapping[str, Icc]]) -> tuple[str, ...]:
    kept = tuple(
        name for name in names if all(found[name].value >= AGREEMENT for found in agreement.values())
    )
    if not kept:
        raise CohortUnusable(f"no feature agrees between repeated masks (ICC of at least {AGREEMENT})")
    return kept


def _folds(learnt: Measured, labels: Labels, seed: int) -> Folds:
    """The table's own, or drawn."""
    given = [one.fold for one in learnt.patients if one.fold is not None]
    return np.array(given, dtype=np.int64) if given else stratified_folds(labels, seed)


def _in_reach(
    covered: Measured, training: frozenset[str], score_of: Mapping[str, float], reach: Range
) -> tuple[Measured, Measured]:
    """Who has a rad-score, and who of those to test has a probability too.

    Raises
    ------
    CohortUnusable
        If a class has too few to test.
    """
    scored = covered.without(
        lambda one, _: "" if one.name in training else reach.why_not_scored(score_of[one.name])
    )
    tested = scored.where(lambda one: one.name not in training and one.label is not StudyClass.NORMAL)
    judged = tested.without(lambda one, _: reach.why_no_probability(score_of[one.name], one))
    require_enough(judged, judged.left_out)
    return scored, judged


def _require_any_to_test(covered: Measured, training: frozenset[str], everyone: Measured) -> None:
    low = [one.name for one in covered.patients if one.label is not StudyClass.NORMAL]
    if len(low) == len(training):
        told = [f"{name}: {why}" for name, why in covered.left_out.items() if name not in everyone.left_out]
        raise CohortUnusable(f"the model covers none of the studies to test: {first_of(told)}")


def probabilities(fits: ModelFits, scores: Matrix, clinical: Matrix) -> dict[str, Matrix]:
    """Probability of osteoporosis by each model; the rad-score is a log-odds itself.

    Parameters
    ----------
    scores : rad-scores, shape (patients,).
    clinical : shape (patients, variables); the columns of `CLINICAL`.

    Returns
    -------
    By model name, shape (patients,); NaN where a value is missing.
    """
    return {
        RADIOMICS: np.asarray(expit(scores)),
        CLINIC: fits.clinical.probability(clinical),
        COMBINED: fits.combined.probability(np.column_stack([scores, clinical])),
    }


def _training_patients(everyone: Measured, seed: int) -> frozenset[str]:
    """Names of those to train on: as the table says, or seven of ten of each class.

    Raises
    ------
    CohortUnusable
        If a class has too few patients, or the table's split leaves no patients to train on, or none to test.
    """
    low = [one for one in everyone.patients if one.label is not StudyClass.NORMAL]
    labels = np.array([one.label is StudyClass.OSTEOPOROSIS for one in low], dtype=bool)
    require_enough_to_split(labels)
    if low[0].split is None:
        inside = stratified_split(labels, seed)
    else:
        inside = np.array([one.split is Split.TRAIN for one in low])
    if not (0 < inside.sum() < len(inside)):
        raise CohortUnusable("the table's split leaves no patients to train on, or none to test")
    return frozenset(one.name for one, chosen in zip(low, inside, strict=True) if chosen)


def _optimism(
    values: Matrix,
    names: tuple[str, ...],
    clinical: Matrix,
    *,
    labels: Labels,
    folds: Folds,
    plan: Plan,
) -> Mapping[str, Optimism]:
    """Of rad-score and combined model, all steps repeated; nothing without resamples."""
    if plan.resamples == 0:
        return {}

    def refit(rows: npt.NDArray[np.intp]) -> dict[str, Matrix]:
        fit = fit_rad_score(values[rows], names, labels[rows], folds[rows], plan.penalty)
        scores = fit.score(values, names)
        try:
            fits = fit_models(fit, scores[rows], clinical[rows], CLINICAL, labels[rows])
        except FitImpossible:
            return {RADIOMICS: scores}
        return {
            RADIOMICS: scores,
            COMBINED: fits.combined.linear_predictor(np.column_stack([scores, clinical])),
        }

    return optimism_of_auc(refit, labels, resamples=plan.resamples, seed=plan.seed)
