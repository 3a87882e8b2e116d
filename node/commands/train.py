"""`osteonode features`, `train` and `evaluate`: features of many studies, and a model made from them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from config.catalog import CatalogEntryInvalid, CatalogEntryMissing, load_model_card, require_configured
from config.findings import load_findings
from config.settings import ConfigurationError, Settings, load_settings
from node.commands.console import require_outside, terminal
from node.logs import configure
from node.pipeline.ports import StepMessage
from node.research.cohort_tables import FeatureTable, read_features, read_rows
from node.research.evaluation import CIRCULARITY, LABELS, card_of, evaluate_card, tells_its_studies
from node.research.extraction import ABOUT, Extraction, RowsOf, WorkersSilent, by_workers, extract_features
from node.research.model_training import COMBINED, Plan, read_repeats
from node.research.model_training import train as train_models
from node.research.outputs import (
    left_out_table,
    require_fresh,
    subgroup_table,
    training_figures,
    training_tables,
    tripod_items,
    tripod_text,
    validation_figures,
    validation_tables,
    write_outputs,
)
from node.worker import BrokerAway, CeleryBroker, create_app
from scoring.errors import CohortUnusable, FitImpossible, ModelCardInvalid
from scoring.models.card import ModelCard, card_document, parse_model_card
from scoring.training.cohort import Cohort, read_cohort
from scoring.training.figures import rad_score_figure
from scoring.training.fitting import PenaltyChoice

_LONGEST_HEAD = 1 << 20  # characters: 851 names take 40,000
REFUSED = 3
DEFAULT_JOBS = max(1, (os.cpu_count() or 1) // 2)


def features(
    study_dirs: Annotated[
        list[Path],
        typer.Argument(metavar="STUDY_DIR...", help="Folders, one study each.", exists=True, file_okay=False),
    ],
    out: Annotated[
        Path,
        typer.Option(help="CSV; rows of a run with equal settings are kept.", dir_okay=False),
    ],
    config: Annotated[Path | None, typer.Option(help="Settings (TOML).", dir_okay=False)] = None,
    engine: Annotated[str | None, typer.Option(help="Segmentation engine, as for process.")] = None,
    mask: Annotated[
        str | None,
        typer.Option(help="Name of a mask (NIfTI or DICOM SEG) in each study's folder, to use as drawn."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Studies at a time.", min=1)] = DEFAULT_JOBS,
    workers: Annotated[
        bool,
        typer.Option(
            "--workers",
            help="Use workers (`osteonode worker --queues features`) that share broker, disk and settings.",
        ),
    ] = False,
) -> None:
    """Compute all features of L3 for each study: OUT, with settings and versions in OUT.json beside it."""
    settings = load_settings(config, **({"segmentation": {"engine": engine}} if engine else {}))
    configure(settings.log)
    require_configured(settings)
    console = terminal(stderr=True)
    require_outside(out.parent, study_dirs)
    require_table_of_features(out)
    how = Extraction(settings=settings, mask=mask, jobs=jobs)
    rows_of = _by_workers(settings, out) if workers else None
    try:
        rows = extract_features(study_dirs, out, how, console, rows_of)
    except (BrokerAway, WorkersSilent) as error:
        console.print(f"{error}; run again to continue", style="red", soft_wrap=True)
        raise typer.Exit(1) from error
    without = [row for row in rows if row["reason"]]
    for row in without:
        told = f"no features: {row['study']}: {row['reason']}"
        console.print(told, style="yellow", soft_wrap=True)
    console.print(f"{len(rows) - len(without)} of {len(rows)} studies have features: {out}")
    if len(without) == len(rows):
        raise typer.Exit(REFUSED)


def require_table_of_features(out: Path, *, option: str = "--out") -> None:
    """Refuse to replace a file that is no table of features: a cohort's, say, or an image.

    Raises
    ------
    typer.BadParameter
    """
    if not out.is_file() or not out.stat().st_size:
        return
    try:
        with out.open(encoding="utf-8-sig", errors="replace") as file:
            head = file.readline(_LONGEST_HEAD)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {out}: {error.strerror}", param_hint=option) from error
    if not head.startswith(",".join(ABOUT)):
        raise typer.BadParameter(
            f"{out} exists and is not a table of features: name another file", param_hint=option
        )


def _by_workers(settings: Settings, out: Path) -> RowsOf:
    if not settings.broker.url:
        raise ConfigurationError("--workers needs broker.url: the Redis that the workers use")
    broker = CeleryBroker(create_app(settings, _refuse))
    # A study that a worker lost is handed to another after its time limit.
    return by_workers(broker.request_features, out, silence_s=2 * settings.worker.time_limit_s)


def _refuse(message: StepMessage) -> None:
    raise AssertionError(f"this command asks and does not work: {message}")


_STUDIES_UNKNOWN = (
    "The card does not state which studies trained it; only the split of the table excludes any."
)
_REASONS = 3  # told of, the commonest ones
_POSITIVE = "Positive class throughout: osteoporosis."

CohortFile = Annotated[
    Path, typer.Argument(metavar="COHORT.csv", help="One row a patient.", exists=True, dir_okay=False)
]
Out = Annotated[
    Path,
    typer.Option(
        help="Output folder without outputs of an earlier run; created if missing.", file_okay=False
    ),
]
Config = Annotated[Path | None, typer.Option(help="Settings (TOML).", dir_okay=False)]
Features = Annotated[
    Path | None,
    typer.Option(
        help="Table written by `features`. Default: computed from the studies of the table.",
        exists=True,
        dir_okay=False,
    ),
]
MaskName = Annotated[str | None, typer.Option(help="Name of a mask in each study's folder, as for features.")]
Jobs = Annotated[int, typer.Option(help="Studies at a time.", min=1)]


def _not_blank(given: str) -> str:
    if not given.strip():
        raise typer.BadParameter("must not be empty: it identifies the card")
    return given


def train(
    cohort_csv: CohortFile,
    out: Out,
    features: Features = None,
    repeat: Annotated[
        list[Path] | None,
        typer.Option(
            help="Features by a repeated mask, for agreement; may come more than once.", exists=True
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the model.", callback=_not_blank)] = "trained",
    version: Annotated[str, typer.Option(help="Of the model.", callback=_not_blank)] = "1",
    seed: Annotated[int, typer.Option(help="Of split, folds and bootstrap.", min=0)] = 1,
    penalty: Annotated[
        PenaltyChoice, typer.Option(help="Which penalty of the cross-validation is used.")
    ] = PenaltyChoice.ONE_ERROR,
    bootstrap: Annotated[int, typer.Option(help="Resamples for optimism; 0: none.", min=0)] = 100,
    config: Config = None,
    mask: MaskName = None,
    jobs: Jobs = DEFAULT_JOBS,
) -> None:
    """Fit rad-score, clinical and combined model; write OUT/model.json, tables, figures and index.html."""
    console = terminal(stderr=True)
    settings = _settings(config)
    try:
        require_fresh(out)
        cohort = read_cohort(read_rows(cohort_csv))
        how = Extraction(settings=settings, mask=mask, jobs=jobs)
        made = features or _features(cohort, cohort_csv.parent, out, how, console)
        table = read_features(made)
        repeats = read_repeats(repeat or (), made)
        plan = Plan(name=name, version=version, seed=seed, penalty=penalty, resamples=bootstrap)
        with console.status("") as status:
            trained = train_models(
                cohort,
                cohort_csv.parent,
                table,
                repeats,
                plan=plan,
                findings=load_findings(settings.node.site_folder),
                progress=status.update,
            )
        card = card_of(trained, table, plan)
    except (CohortUnusable, FitImpossible, ModelCardInvalid) as error:
        raise _refusal(error, console) from error
    out.mkdir(parents=True, exist_ok=True)
    _write_card(out / "model.json", card)
    about = tripod_items(trained, card, plan)
    left_out = [*_silent(table), *_all_left_out(trained.left_out, trained.without_probability)]
    (out / "model_card.md").write_text(tripod_text(about), "utf-8")
    write_outputs(
        out,
        title=f"Model {name} {version}: training",
        notes=[
            *_about_labels(cohort),
            *left_out,
            *(
                []
                if trained.agreement
                else ["Agreement between observers was not assessed: no repeated masks."]
            ),
            *([] if trained.optimism else ["Optimism was not estimated."]),
        ],
        about=about,
        tables=training_tables(trained),
        figures=training_figures(trained, card),
    )
    _tell(console, left_out)
    console.print(_POSITIVE)
    for split, validation in trained.validations.items():
        console.print(f"{split}: combined AUC {validation.models[COMBINED].auc.summary}")
    console.print(f"{len(card.features)} features; card {card.sha256}: {out / 'model.json'}")


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A card's file, or a name in models/.")],
    cohort_csv: CohortFile,
    out: Out,
    features: Features = None,
    cutoff: Annotated[
        float | None, typer.Option(help="Probability of osteoporosis; else the card's own.", min=0, max=1)
    ] = None,
    config: Config = None,
    mask: MaskName = None,
    jobs: Jobs = DEFAULT_JOBS,
) -> None:
    """Judge a model on patients it was not made from; write tables, figures and OUT/index.html."""
    console = terminal(stderr=True)
    settings = _settings(config)
    card = _card(model, settings)
    try:
        require_fresh(out)
        cohort = read_cohort(read_rows(cohort_csv))
        how = Extraction(settings=settings, mask=mask, jobs=jobs)
        table = read_features(features or _features(cohort, cohort_csv.parent, out, how, console))
        found = evaluate_card(
            card,
            cohort,
            cohort_csv.parent,
            table,
            cutoff=cutoff,
            findings=load_findings(settings.node.site_folder),
        )
    except (CohortUnusable, FitImpossible) as error:
        raise _refusal(error, console) from error
    left_out = [
        *([] if tells_its_studies(card) else [_STUDIES_UNKNOWN]),
        *_silent(table),
        *_all_left_out(found.left_out, found.without_probability),
    ]
    write_outputs(
        out,
        title=f"Model {card.name} {card.version}: evaluation",
        notes=[card.notice, f"The model's own labels: {card.label}.", *_about_labels(cohort), *left_out],
        tables=validation_tables(found.validation, "evaluation")
        | {
            "subgroups": subgroup_table(found.subgroups),
            "left_out": left_out_table({**found.left_out, **found.without_probability}),
        },
        figures=validation_figures(found.validation, "evaluation")
        | {"rad_score": rad_score_figure(found.rad_scores, "Rad-score by class")},
    )
    _tell(console, left_out)
    console.print(_POSITIVE)
    for name, one in found.validation.models.items():
        console.print(f"{name}: AUC {one.auc.summary}")
    console.print(str(out / "index.html"))


def _settings(config: Path | None) -> Settings:
    settings = load_settings(config)
    configure(settings.log)
    require_configured(settings)
    return settings


def _features(cohort: Cohort, folder: Path, out: Path, how: Extraction, console: Console) -> Path:
    """The table of the cohort's features, computed as far as it is not there yet."""
    missing = [one.name for one in cohort.patients if not one.study]
    if missing:
        raise CohortUnusable(f"no study and no --features for: {', '.join(missing)}")
    made = out / "features.csv"
    studies = [folder / one.study for one in cohort.patients]
    require_outside(out, studies)
    require_table_of_features(made)
    extract_features(studies, made, how, console)
    return made


def _card(model: str, settings: Settings) -> ModelCard:
    try:
        if Path(model).is_file():
            return parse_model_card(Path(model).read_text("utf-8"))
        return load_model_card(model, settings.node.site_folder)[0]
    except (CatalogEntryMissing, CatalogEntryInvalid, ModelCardInvalid, UnicodeDecodeError) as error:
        raise typer.BadParameter(str(error), param_hint="MODEL") from error


def _write_card(path: Path, card: ModelCard) -> None:
    path.write_text(json.dumps(card_document(card), indent=2, ensure_ascii=False) + "\n", "utf-8")


def _about_labels(cohort: Cohort) -> list[str]:
    """What a reader must know of the classes before any AUC."""
    return [
        _POSITIVE,
        f"This cohort's labels: {LABELS[cohort.label_kind]}.",
        CIRCULARITY[0].upper() + CIRCULARITY[1:] + ".",
    ]


def _silent(table: FeatureTable) -> list[str]:
    """What a table of an earlier version cannot tell."""
    if not table.silent:
        return []
    return [
        f"{table.silent} studies of the table state no energy type: they count as conventional images. Have "
        "osteonode features make the table again where spectral images may be among them."
    ]


def _all_left_out(left_out: Mapping[str, str], without_probability: Mapping[str, str]) -> list[str]:
    return [
        *_left_out("left out", left_out),
        *_left_out("not judged: the nomogram gives no probability", without_probability),
    ]


def _left_out(what: str, patients: Mapping[str, str]) -> list[str]:
    """How many, and the commonest reasons; nothing where nobody is. Names stand in the table."""
    if not patients:
        return []
    counted = Counter(patients.values()).most_common()
    reasons = "; ".join(
        f"{f'{count} x ' if count > 1 else ''}{reason.removesuffix('.')}"
        for reason, count in counted[:_REASONS]
    )
    more = "; ..." if len(counted) > _REASONS else ""
    return [f"{len(patients)} patients are {what} (table left_out): {reasons}{more}"]


def _tell(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        console.print(note, style="yellow", soft_wrap=True)


def _refusal(error: Exception, console: Console) -> typer.Exit:
    console.print(str(error), style="red", soft_wrap=True)
    return typer.Exit(2)
