"""`osteonode studies`: what the node holds and why it stands where it stands."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from config.settings import ConfigurationError, load_settings
from node.pipeline.ports import Step
from node.store.errors import NoSuchStudy, StoreError
from node.store.overview import StudyDetail, StudySummary
from node.store.store import Store, open_store

app = typer.Typer(help="What the node holds, and why it stands where it stands.", no_args_is_help=False)

Config = Annotated[Path | None, typer.Option("--config", help="Settings (TOML).", dir_okay=False)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Uid = Annotated[str, typer.Argument(help="Study Instance UID.")]


@app.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_studies()


@app.command("list")
def list_studies(config: Config = None, as_json: AsJson = False) -> None:
    """All studies, the latest first."""
    with _store(config) as store:
        found = store.overview.list()
    if as_json:
        _print_json([dataclasses.asdict(one) for one in found])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("study", "state", "step", "images", "received", "why"):
        table.add_column(heading, overflow="fold")
    for one in found:
        table.add_row(*_cells(one))
    Console().print(table if found else "no studies")


@app.command("show")
def show(uid: Uid, config: Config = None, as_json: AsJson = False) -> None:
    """One study: its jobs, artefacts, reports and deliveries."""
    with _store(config) as store:
        detail = store.overview.show(uid)
    if as_json:
        _print_json(dataclasses.asdict(detail))
        return
    _print_detail(Console(), detail)


@app.command("retry")
def retry(uid: Uid, config: Config = None) -> None:
    """Give a study that was set aside, or not delivered, another chance: a running node takes it up."""
    with _store(config) as store:
        due = store.studies.retry(uid, first_step=Step.SELECT)
    Console().print(f"will be tried again from step {due.step}", highlight=False)


@contextmanager
def _store(config: Path | None) -> Iterator[Store]:
    """The store of the configured node. What is wrong with it is said in one line, with exit status 1."""
    storage = load_settings(config).storage
    if not storage.database_url and not storage.root.is_dir():  # looking must not make one
        raise ConfigurationError(f"no node has kept anything under {storage.root.resolve()}")
    try:
        store = open_store(storage)
        try:
            yield store
        finally:
            store.close()
    except StoreError as error:
        said = f"no such study: {error}" if isinstance(error, NoSuchStudy) else str(error)
        Console(stderr=True).print(said, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _cells(one: StudySummary) -> tuple[str, ...]:
    received = f"{one.last_received_at:%Y-%m-%d %H:%M:%S}Z" if one.last_received_at else ""
    return (
        one.study_instance_uid,
        one.state,
        one.step or "",
        str(one.images),
        received,
        one.last_error or one.reason,
    )


def _print_detail(console: Console, detail: StudyDetail) -> None:
    for name, value in dataclasses.asdict(detail.summary).items():
        if value not in (None, ""):
            console.print(f"[bold]{name:<20}[/bold]{value}", highlight=False, soft_wrap=True)
    if detail.quarantined:
        console.print(f"[yellow]{detail.quarantined} instance(s) in quarantine[/yellow]")
    for title, rows in (
        ("jobs", detail.jobs),
        ("reports", detail.reports),
        ("deliveries", detail.deliveries),
        ("artefacts", detail.artefacts),
    ):
        if not rows:
            continue
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for field in dataclasses.fields(rows[0]):
            table.add_column(field.name, overflow="fold")
        for row in rows:
            table.add_row(
                *("" if value is None else str(value) for value in dataclasses.asdict(row).values())
            )
        console.print(table)


def _print_json(value: object) -> None:
    def plain(other: Any) -> str:
        if isinstance(other, datetime):
            return other.isoformat()
        raise TypeError(f"{type(other).__name__} has no JSON form")

    typer.echo(json.dumps(value, indent=2, default=plain))
