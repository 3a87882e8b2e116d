"""What a reader of a new model must know of it, in the order of the TRIPOD statement.

Source: Collins, Reitsma, Altman and Moons, Ann Intern Med 2015;162:55. What only the site knows
(setting, dates, who was eligible) is named as missing, never supposed.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.research.card import CIRCULARITY
from node.research.training import AGREEMENT, COMBINED, Plan, Trained
from scoring.modelcard import ModelCard
from scoring.spectrum import energy_in_words
from scoring.training.agreement import FORM
from scoring.training.cohort import MOST_MISSING, PLAUSIBLE, Split
from scoring.training.fitting import RELEVANT
from scoring.training.optimism import Optimism

Item = tuple[str, str]

_SITE = "The site states this; the table of the cohort does not."


def tripod_items(trained: Trained, card: ModelCard, plan: Plan) -> Sequence[Item]:
    """Headings and texts, by what was done and what came out."""
    return (
        (
            "Title",
            f"{card.name} {card.version}: prediction of {card.positive_class} against {card.negative_class} "
            "from radiomic features of L3, age, ALP and homocysteine; development, with a test on patients "
            "of the same cohort.",
        ),
        ("Intended use", _use(card)),
        ("Source of data, setting, dates", _SITE),
        ("Participants", _participants(trained)),
        ("Outcome", f"{card.positive_class} (positive) or {card.negative_class}: {card.label}."),
        ("Circularity", CIRCULARITY[0].upper() + CIRCULARITY[1:] + "."),
        ("Predictors", _predictors(trained)),
        ("Missing data", _missing(trained)),
        ("Split and folds", _split(trained, plan)),
        (
            "Statistical method",
            f"Scaled by the training patients; mRMR to {RELEVANT}, LASSO logistic regression with "
            f"{plan.penalty} of the cross-validation, then logistic regression (Xie et al., BMC Med Imaging "
            "2022;22:140).",
        ),
        ("Model", _equation(card)),
        ("Performance", _performance(trained)),
        ("Optimism", _optimism(trained, plan)),
        (
            "Limitations",
            "One cohort: a test on other patients, scanners and hospitals is still to be made (osteonode "
            "evaluate). The cut-offs are Youden's, of the training part.",
        ),
        ("Made with", _made_with(card)),
    )


def tripod_text(items: Sequence[Item]) -> str:
    """As Markdown."""
    title, *rest = items
    return "\n".join([f"# {title[1]}", "", *(f"**{name}.** {text}\n" for name, text in rest)])


def _use(card: ModelCard) -> str:
    limits = card.applicability
    return (
        f"{card.notice}. For patients with a T-score below -1; refused outside {_range(limits.kvp)} kV, "
        f"energy type {energy_in_words(limits.spectrum.energy)}, "
        f"spectral filter {limits.spectrum.beam_filter}, "
        f"slices {_range(limits.slice_spacing_mm)} mm apart, pixels of {_range(limits.pixel_spacing_mm)} mm, "
        f"{limits.equivalent}."
    )


def _split(trained: Trained, plan: Plan) -> str:
    parts = "as the table says" if trained.own_split else f"drawn 7:3 of each class, seed {plan.seed}"
    folds = "as the table says" if trained.own_folds else "drawn"
    return f"Parts: {parts}. Folds: {folds}."


def _made_with(card: ModelCard) -> str:
    software = ", ".join(f"{name} {version}" for name, version in sorted(card.software.items()))
    return (
        f"{software}; radiomics settings sha256 {card.radiomics_settings_sha256}; card sha256 {card.sha256}."
    )


def _participants(trained: Trained) -> str:
    counted = [
        f"{split}: {sum(one.label == 'osteoporosis' for one in patients)} with osteoporosis, "
        f"{sum(one.label == 'osteopenia' for one in patients)} with osteopenia"
        for split, patients in trained.splits.items()
    ]
    normal = len(trained.rad_scores.get("normal", ()))
    return (
        f"{'; '.join(counted)}. {normal} with normal bone train and test nothing; their rad-scores are "
        f"compared. {len(trained.left_out)} were left out (tables/left_out.csv). Eligibility: {_SITE}"
    )


def _predictors(trained: Trained) -> str:
    agreement = (
        f"{len(trained.kept)} agree between repeated masks ({FORM}; at least {AGREEMENT})"
        if trained.agreement
        else "agreement between observers was not assessed"
    )
    asked = {*trained.cohort.variables, trained.cohort.label_kind.value}
    ranges = ", ".join(f"{name} {_range(PLAUSIBLE[name])}" for name in PLAUSIBLE if name in asked)
    return f"Radiomic features of L3's cancellous bone: {agreement}. Accepted: {ranges}."


def _missing(trained: Trained) -> str:
    gaps = ", ".join(f"{name} {count}" for name, count in trained.cohort.missing.items() if count) or "none"
    return (
        f"Patients without a value: {gaps}. More than {MOST_MISSING} missing values exclude a patient; "
        "clinical and combined model take patients whose values are all known. Nothing is imputed."
    )


def _equation(card: ModelCard) -> str:
    score = " ".join(f"{one.coefficient:+.4g} x {one.name}" for one in card.features)
    clinical = " ".join(f"{one.coefficient:+.4g} x {one.name}" for one in card.terms)
    return (
        f"Rad-score = {card.rad_score.intercept:.4g} {score}, features in standard deviations from their "
        f"means (tables/rad_score.csv). Log-odds of {card.positive_class} = {card.clinical.intercept:.4g} "
        f"{clinical}."
    )


def _performance(trained: Trained) -> str:
    parts = []
    for split, validation in trained.validations.items():
        areas = ", ".join(f"{name} {model.auc.told}" for name, model in validation.models.items())
        combined = validation.models[COMBINED]
        fit = f", Hosmer-Lemeshow p {combined.calibration.p_told}" if combined.calibration else ""
        parts.append(
            f"{split} ({validation.patients} patients): AUC {areas}; Brier {combined.brier:.3f}{fit}"
        )
    sizes = {split: len(patients) for split, patients in trained.splits.items()}
    small = (
        f" The test part has {sizes[Split.TEST]} patients: mind the intervals."
        if sizes[Split.TEST] < 100
        else ""
    )
    beyond = len(trained.without_probability)
    unjudged = (
        f" {beyond} of the test part have no probability, as the node would give none (a value is missing or "
        "beyond the card's axes), and are not judged."
        if beyond
        else ""
    )
    return ". ".join(parts) + "." + unjudged + small


def _optimism(trained: Trained, plan: Plan) -> str:
    if not trained.optimism:
        return "Not estimated."
    told = [_of_model(name, one) for name, one in trained.optimism.items()]
    return f"Bootstrap of {plan.resamples} resamples, every step repeated. {' '.join(told)}"


def _of_model(name: str, one: Optimism) -> str:
    return f"{name}: AUC {one.apparent:.3f}, less optimism {one.told}."


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"
