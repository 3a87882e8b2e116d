"""`osteonode model`: which model scores patients, and changing it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from config.catalog import CatalogEntryInvalid, CatalogEntryMissing, list_models, load_model_card
from config.settings import Settings, load_settings
from node import logs
from node.commands.console import Config, hand_down, terminal
from node.pipeline.result_basis import active_model
from node.research.activation import (
    CASES,
    NotActivated,
    Proposal,
    ReferenceUnmeasured,
    class_changes,
    find_card,
    measure_patients,
    previous_card,
    propose,
    require_change,
    require_usable,
)
from node.research.activation import activate as record_activation
from node.store.activations import activation_history
from node.store.errors import StoreError
from scoring.models.applicability import ModelComparison, ModelScore
from scoring.models.card import ModelCard

app = typer.Typer(help="Show and change the model that scores patients.", no_args_is_help=True)

Card = Annotated[
    str,
    typer.Argument(
        metavar="CARD",
        help="A name in the catalogue, a card's file (.json), or the first digits of the sha256 of a card "
        "activated before.",
    ),
]
By = Annotated[str, typer.Option("--by", help="Who decides. Default: the user of the operating system.")]
Reason = Annotated[str, typer.Option("--reason", help="Reason, stored with the record.")]


@app.callback()
def _before(context: typer.Context, config: Config = None) -> None:
    hand_down(context, config)


@app.command("list")
def list_cards(config: Config = None) -> None:
    """The cards of the catalogue; an asterisk marks the one in force."""
    settings = load_settings(config)
    with _told():
        in_force = active_model(settings).card
        names = list_models(settings.node.site_folder)
        cards = [load_model_card(name, settings.node.site_folder)[0] for name in names]
    table = Table(box=None, pad_edge=False)
    for heading in ("", "name", "version", "sha256", "positive class", "notice"):
        table.add_column(heading, overflow="fold")
    known = {card.sha256 for card in cards}
    others = [in_force] if in_force is not None and in_force.sha256 not in known else []
    for card in (*cards, *others):
        mark = "*" if in_force is not None and card.sha256 == in_force.sha256 else ""
        table.add_row(mark, card.name, card.version, card.sha256[:12], card.positive_class, card.notice)
    terminal().print(table)


@app.command()
def history(config: Config = None) -> None:
    """Every activation: when, by whom, why, and how many reference patients changed their class."""
    settings = load_settings(config)
    with _told():
        found = activation_history(settings.storage)
    if not found:
        terminal().print(f"none: scoring.model names the model ({settings.scoring.model or 'none'})")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("activated", "by", "model", "sha256", "in place of", "classes changed", "why"):
        table.add_column(heading, overflow="fold")
    for one in found:
        table.add_row(
            f"{one.activated_at:%Y-%m-%d %H:%M:%S}Z",
            one.activated_by,
            f"{one.card.name} {one.card.version}",
            one.card.sha256[:12],
            (one.previous_sha256 or "")[:12],
            f"{class_changes(one.comparison)} of {len(one.comparison)}",
            one.reason,
        )
    terminal().print(table)


@app.command()
def compare(card: Card, config: Config = None) -> None:
    """What a card would change: the reference patients by it and by the one in force. Changes nothing."""
    settings = _settings(config)
    with _told():
        _compared(find_card(card, settings), settings)


@app.command()
def activate(card: Card, config: Config = None, by: By = "", reason: Reason = "") -> None:
    """Compare a card with the one in force, and make it the one that scores patients from now on."""
    settings = _settings(config)
    with _told():
        _switch(find_card(card, settings), settings, by=by, reason=reason)


@app.command()
def rollback(config: Config = None, by: By = "", reason: Reason = "") -> None:
    """Go back to the card before the active one: an activation like any other, recorded as one."""
    settings = _settings(config)
    with _told():
        _switch(previous_card(settings), settings, by=by, reason=reason)


def _settings(config: Path | None) -> Settings:
    settings = load_settings(config)
    logs.configure(settings.log.model_copy(update={"level": "ERROR"}))
    return settings


def _switch(card: ModelCard, settings: Settings, *, by: str, reason: str) -> None:
    require_change(card, settings)
    proposal = _compared(card, settings)
    record_activation(proposal, settings, at=datetime.now(UTC), by=by or _user(), reason=reason)
    terminal().print(
        f"now active: {card.name} {card.version}, sha256 {card.sha256}",
        soft_wrap=True,
    )


def _compared(card: ModelCard, settings: Settings) -> Proposal:
    require_usable(card, settings)
    console = terminal(stderr=True)
    with console.status("measuring the reference patients"):
        proposal = propose(card, settings, measure_patients(settings, CASES))
    _print_comparison(proposal)
    return proposal


def _print_comparison(proposal: Proposal) -> None:
    console = terminal()
    before = proposal.in_force
    table = Table(box=None, pad_edge=False)
    old = f"{before.name} {before.version} ({before.sha256[:8]})" if before else "no model"
    new = f"{proposal.card.name} {proposal.card.version} ({proposal.card.sha256[:8]})"
    for heading in ("reference patient", old, new, ""):
        table.add_column(heading, overflow="fold")
    for one in proposal.comparison:
        table.add_row(one.patient, _words(one.before), _words(one.after), _change(one))
    console.print(table)
    for line in _outside(proposal.comparison):
        console.print(line, style="yellow", soft_wrap=True)
    unanswered = sum(one.after.reported_class is None for one in proposal.comparison)
    console.print(
        f"{class_changes(proposal.comparison)} of {len(proposal.comparison)} reference patients change their "
        f"likelier class, lose it or gain one; {unanswered} have none by {proposal.card.name}. The patients "
        "are invented: they show change, not accuracy.",
        soft_wrap=True,
    )


def _words(scored: ModelScore | None) -> str:
    if scored is None:
        return "-"
    if scored.reported_class is None:
        return "none: outside its range"
    return f"rad-score {scored.rad_score:+.2f}, {scored.probability:.0%} {scored.reported_class}"


def _change(one: ModelComparison) -> str:
    if not one.class_changes:
        return ""
    return "CLASS LOST" if one.after.reported_class is None else "CLASS CHANGES"


def _outside(comparison: Sequence[ModelComparison]) -> Iterator[str]:
    """One line a reason, with the patients whom it keeps the node from giving a class."""
    patients: dict[str, list[str]] = {}
    for one in comparison:
        if one.after.outside:
            patients.setdefault(one.after.outside, []).append(one.patient)
    for reason, names in patients.items():
        yield f"outside the model's range, a node reports no probability: {reason} ({'; '.join(names)})"


def _user() -> str:
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user without an entry
        return f"uid {uid}"


@contextmanager
def _told() -> Iterator[None]:
    """What stands in the way is said in one line, with exit status 1."""
    try:
        yield
    except (CatalogEntryInvalid, CatalogEntryMissing, NotActivated, ReferenceUnmeasured, StoreError) as error:
        terminal(stderr=True).print(str(error), style="red", soft_wrap=True)
        raise typer.Exit(1) from error
