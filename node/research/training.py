"""From a cohort and its features to three models, judged: what Xie et al. 2022 did with several programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from node.research.agreement import agreements
from node.research.feature_table import FeatureTable
from node.research.rows import first_of
from node.research.tables import Matrix, Measured, clinical_values, measured
from node.research.technique import outside, technique_of
from scoring.bmd import StudyClass
from scoring.modelcard import Applicability
from scoring.training.agreement import Icc
from scoring.training.classification import youden_cutoff
from scoring.training.cohort import CLINICAL, Cohort, Patient, Split
from scoring.training.discrimination import Auc, Labels
from scoring.training.errors import CohortUnusable, FitImpossible
from scoring.training.fitting import Folds, ModelFits, PenaltyChoice, fit_models, fit_rad_score
from scoring.training.groups import GroupTest, compare_counted, compare_measured
from scoring.training.optimism import Optimism, optimism_of_auc
from scoring.training.splitting import require_enough, stratified_folds, stratified_split
from scoring.training.validation import Validation, subgroup_aucs, validate

AGREEMENT = 0.81  # least ICC of a feature that is kept: "almost perfect" in Xie et al. 2022
RADIOMICS, CLINIC, COMBINED = "radiomics", "clinical", "combined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a training is asked to do."""

    seed: int
    penalty: PenaltyChoice
    resamples: int  # of the bootstrap; 0: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One row of Table 1: a variable in the two classes of some patients."""

    name: str
    of_osteoporosis: str
    of_osteopenia: str
    test: GroupTest | None  # None where it cannot be tested


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Everything that came out."""

    cohort: Cohort
    left_out: Mapping[str, str]  # patient -> reason
    technique: Applicability  # of the studies that train, which limits what the model covers
    studies: tuple[str, ...]  # StudyInstanceUIDs of those that train, where known
    own_split: bool  # the table's own, not a drawn one
    own_folds: bool
    agreement: Mapping[str, Mapping[str, Icc]]  # repeat -> feature -> ICC
    kept: tuple[str, ...]  # features with agreement enough
    splits: Mapping[Split, tuple[Patient, ...]]  # with osteoporosis or osteopenia
    table1: Mapping[Split, tuple[Variable, ...]]
    fits: ModelFits
    cutoffs: Mapping[str, float]
    validations: Mapping[Split, Validation]  # on patients whose clinical values are all known
    subgroups: Mapping[tuple[str, str], Auc]  # of the rad-score, on all patients that did not train
    rad_scores: Mapping[str, tuple[float, ...]]  # by class, all patients that the model covers
    trained_range: tuple[float, float]  # of the training patients' rad-scores
    optimism: Mapping[str, Optimism]  # of the training patients' AUC


def train(
    cohort: Cohort,
    folder: Path,
    table: FeatureTable,
    repeats: Mapping[str, FeatureTable],
    *,
    plan: Plan,
    progress: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Split, agreement, selection, fits, validation and optimism, in this order.

    Those who do not train are judged as far as the model covers their studies: outside the technique of the
    studies that train, they are left out.

    Parameters
    ----------
    folder : of the cohort's table, from which it names studies.
    repeats : features of the same studies by repeated masks, by name ("intra-observer").

    Raises
    ------
    CohortUnusable, FitImpossible
    """
    everyone = measured(cohort, folder, table)
    training = _training_patients(everyone, plan.seed)
    rows_trained_on = [
        row for one, row in zip(everyone.patients, everyone.rows, strict=True) if one.name in training
    ]
    technique = technique_of(rows_trained_on)
    covered = everyone.without(lambda one, row: "" if one.name in training else outside(row, technique))
    patients, values = covered.patients, covered.values
    low = [at for at, one in enumerate(patients) if one.label is not StudyClass.NORMAL]
    if len(low) == len(training):
        told = [f"{name}: {why}" for name, why in covered.left_out.items() if name not in everyone.left_out]
        raise CohortUnusable(f"studies to test are none that the model covers: {first_of(told)}")
    labels = np.array([patients[at].label is StudyClass.OSTEOPOROSIS for at in low], dtype=bool)
    progress("agreement")
    agreement = {name: agreements(table, other) for name, other in repeats.items()}
    kept = tuple(
        name for name in table.names if all(found[name].value >= AGREEMENT for found in agreement.values())
    )
    if not kept:
        raise CohortUnusable(f"no feature agrees between repeated masks (ICC of at least {AGREEMENT})")
    columns = [table.names.index(name) for name in kept]
    all_values, chosen = values[:, columns], [patients[at] for at in low]
    low_values, clinical = all_values[low], clinical_values(chosen, CLINICAL)

    own_split = chosen[0].split is not None
    train_rows = np.array([one.name in training for one in chosen])
    trained_on = [one for one, inside in zip(chosen, train_rows, strict=True) if inside]
    own_folds = trained_on[0].fold is not None
    folds = (
        np.array([one.fold for one in trained_on], dtype=np.int64)
        if own_folds
        else stratified_folds(labels[train_rows], plan.seed)
    )
    progress("selection and fits")
    rad = fit_rad_score(low_values[train_rows], kept, labels[train_rows], folds, plan.penalty)
    scores = rad.score(low_values, kept)
    fits = fit_models(rad, scores[train_rows], clinical[train_rows], CLINICAL, labels[train_rows])

    progress("validation")
    known = np.isfinite(clinical).all(axis=1)
    risks = probabilities(fits, scores, clinical)
    at_train = train_rows & known
    cutoffs = {name: youden_cutoff(risk[at_train], labels[at_train]) for name, risk in risks.items()}
    validations = {
        split: validate(
            {name: risk[rows] for name, risk in risks.items()},
            labels[rows],
            cutoffs,
            development=split is Split.TRAIN,
        )
        for split, rows in ((Split.TRAIN, at_train), (Split.TEST, ~train_rows & known))
    }
    everybody = rad.score(all_values, kept)
    fresh = np.array([one.name not in training for one in patients])
    classes = np.array([one.label.value for one in patients])
    progress("optimism")
    return Trained(
        cohort=cohort,
        left_out=covered.left_out,
        technique=technique,
        studies=tuple(uid for row in rows_trained_on if (uid := row["study_instance_uid"])),
        own_split=own_split,
        own_folds=own_folds,
        agreement=agreement,
        kept=kept,
        splits={
            split: tuple(one for one, inside in zip(chosen, rows, strict=True) if inside)
            for split, rows in ((Split.TRAIN, train_rows), (Split.TEST, ~train_rows))
        },
        table1={
            split: table1([one for one, inside in zip(chosen, rows, strict=True) if inside], cohort.variables)
            for split, rows in ((Split.TRAIN, train_rows), (Split.TEST, ~train_rows))
        },
        fits=fits,
        cutoffs=cutoffs,
        validations=validations,
        subgroups=subgroup_aucs(everybody[fresh], classes[fresh]),
        rad_scores={
            name: tuple(float(one) for one in everybody[classes == name])
            for name in ("normal", "osteopenia", "osteoporosis")
            if (classes == name).any()
        },
        trained_range=(float(scores[train_rows].min()), float(scores[train_rows].max())),
        optimism=_optimism(
            low_values[train_rows],
            kept,
            clinical[train_rows],
            labels=labels[train_rows],
            folds=folds,
            plan=plan,
        ),
    )


def probabilities(fits: ModelFits, scores: Matrix, clinical: Matrix) -> dict[str, Matrix]:
    """Of osteoporosis by each model; NaN where a value is missing. The rad-score is a log-odds by itself."""
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
        If a class has too few patients, or the table's split leaves nobody to train on, or nobody to test.
    """
    low = [one for one in everyone.patients if one.label is not StudyClass.NORMAL]
    labels = np.array([one.label is StudyClass.OSTEOPOROSIS for one in low], dtype=bool)
    require_enough(labels)
    if low[0].split is None:
        inside = stratified_split(labels, seed)
    else:
        inside = np.array([one.split is Split.TRAIN for one in low])
    if not (0 < inside.sum() < len(inside)):
        raise CohortUnusable("the table's split leaves nobody to train on, or nobody to test")
    return frozenset(one.name for one, chosen in zip(low, inside, strict=True) if chosen)


def table1(patients: Sequence[Patient], variables: Sequence[str]) -> tuple[Variable, ...]:
    """Sex and every variable in both classes: mean and SD (or counts) and the test between them."""
    ill = [one.label is StudyClass.OSTEOPOROSIS for one in patients]
    rows = [_sexes(patients, np.array(ill))]
    for name, column in zip(variables, clinical_values(patients, variables).T, strict=True):
        groups = [column[np.array(ill) & np.isfinite(column)], column[~np.array(ill) & np.isfinite(column)]]
        try:
            test: GroupTest | None = compare_measured(*groups)
        except CohortUnusable:
            test = None
        rows.append(
            Variable(
                name=name, of_osteoporosis=_mean_sd(groups[0]), of_osteopenia=_mean_sd(groups[1]), test=test
            )
        )
    return tuple(rows)


def _sexes(patients: Sequence[Patient], ill: Labels) -> Variable:
    sexes = np.array([one.sex for one in patients])
    counts = np.array([[(sexes[group] == sex).sum() for sex in "FM"] for group in (ill, ~ill)], np.int64)
    try:
        test: GroupTest | None = compare_counted(counts)
    except CohortUnusable:
        test = None
    told = [f"{women} F, {men} M" for women, men in counts]
    return Variable(name="sex", of_osteoporosis=told[0], of_osteopenia=told[1], test=test)


def _mean_sd(values: Matrix) -> str:
    if len(values) < 2:
        return f"n = {len(values)}"
    return f"{values.mean():.2f} (SD {values.std(ddof=1):.2f}), n = {len(values)}"


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
