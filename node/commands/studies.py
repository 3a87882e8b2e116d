"""`osteonode studies`: what the node holds and why it stands where it stands."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from config.settings import ConfigurationError, load_settings
from node.commands.console import Config, hand_down, terminal
from node.dicom.content_comparison import identity_values
from node.dicom.deidentification import IdentityLeft
from node.pipeline.policy import in_words
from node.pipeline.ports import Step
from node.store.errors import NoSuchStudy, StoreError
from node.store.overview import StudyDetail, StudySummary
from node.store.quarantine import HeldIdentity
from node.store.states import QuarantineKind
from node.store.store import Store, open_store

app = typer.Typer(help="List, show and control the studies of the node.", no_args_is_help=False)

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Uid = Annotated[str, typer.Argument(help="Study Instance UID.")]


@app.callback(invoke_without_command=True)
def _default(context: typer.Context, config: Config = None) -> None:
    hand_down(context, config)
    if context.invoked_subcommand is None:
        list_studies(config)


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
    terminal().print(table if found else "no studies")


@app.command("show")
def show(uid: Uid, config: Config = None, as_json: AsJson = False) -> None:
    """One study: its jobs, artefacts, reports and deliveries."""
    with _store(config) as store:
        detail = store.overview.show(uid)
    if as_json:
        _print_json(dataclasses.asdict(detail))
        return
    _print_detail(terminal(), detail)


@app.command("retry")
def retry(uid: Uid, config: Config = None) -> None:
    """Give a study that was set aside, or not delivered, another chance: a running node takes it up."""
    with _store(config) as store:
        store.retention.require_results(uid)
        due = store.studies.retry(uid, first_step=Step.SELECT)
    terminal().print(f"will be retried from step {due.step}")


@app.command("resend")
def resend(uid: Uid, config: Config = None) -> None:
    """Send the results of a study to every destination once more, as they are: nothing is computed anew."""
    with _store(config) as store:
        store.retention.require_results(uid)
        store.deliveries.resend(uid, last_step=Step.DELIVER)
    terminal().print("a running node will send the same objects again")


@app.command("export")
def export(
    uid: Uid,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An empty or new folder.")],
    config: Config = None,
    with_identity: Annotated[
        bool,
        typer.Option(
            "--with-identity", help="Copy the received files unchanged, with the patient's identity."
        ),
    ] = False,
) -> None:
    """Write what a developer needs to repeat a study, without identity unless it is asked for."""
    from node.commands.study_export import export_study  # noqa: PLC0415 - reads images: seconds of imports

    with _store(config) as store:
        try:
            made = export_study(store, load_settings(config), uid, folder, with_identity=with_identity)
        except FileExistsError as error:
            raise typer.BadParameter(str(error), param_hint="DIR") from error
        except IdentityLeft as error:
            raise ConfigurationError(f"{error}: nothing was written; see --with-identity") from error
    console = terminal()
    console.print(f"{made.images} images and {made.artefacts} artefacts in {folder}", soft_wrap=True)
    if made.left_out:
        console.print(f"{made.left_out} other files are left out", style="yellow")
    console.print(f"cd {shlex.quote(str(folder))} && {made.command}", soft_wrap=True)


@app.command("quarantine")
def list_quarantine(
    config: Config = None,
    as_json: AsJson = False,
    discard: Annotated[
        str,
        typer.Option(
            metavar="UID",
            help="Delete the quarantined files of this study, except those that wait for a decision.",
        ),
    ] = "",
) -> None:
    """Received files that no study rests on, the latest first, with the path of each."""
    with _store(config) as store:
        if discard:
            terminal().print(f"{store.quarantine.discard(discard)} files were removed")
            return
        found = store.quarantine.list()
    if as_json:
        _print_json([dataclasses.asdict(one) for one in found])
        return
    console = terminal()
    for one in found:
        for told in (
            f"{one.kind}  {one.received_at:%Y-%m-%d %H:%M:%S}Z  from {one.calling_ae}",
            f"  study {one.study_instance_uid or 'not known'}",
            f"  instance {one.sop_instance_uid or 'not known'}",
            f"  {one.reason}",
            f"  {one.path}",
        ):
            console.print(told, soft_wrap=True)
    if not found:
        console.print("quarantine is empty")


@app.command("reconcile")
def reconcile(
    uid: Uid,
    accept: Annotated[bool, typer.Option("--accept", help="The new identity is right.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="The old identity is right.")] = False,
    config: Config = None,
) -> None:
    """Images came again under another identity: show the difference, or decide which one is right.

    Once accepted, the study is measured again and an amended report goes out under the new identity.
    """
    if accept and reject:
        raise typer.BadParameter("use --accept or --reject, or neither to show the difference")
    console = terminal()
    with _store(config) as store:
        if accept:
            number = store.identities.accept(uid)
            console.print(f"{number} images have the new identity; a running node measures them again")
        elif reject:
            number = store.identities.reject(uid)
            console.print(f"{number} files were rejected; the identity in force stays")
        else:
            _print_differences(console, store.identities.waiting(uid))


def _print_differences(console: Console, waiting: Sequence[HeldIdentity]) -> None:
    """Each change of identity once, with the number of images that it was found in."""
    if not waiting:
        console.print("no other identity waits for a decision")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("attribute", "in force", "waiting", "images"):
        table.add_column(heading, overflow="fold")
    changes = Counter(change for one in waiting for change in _changes(one))
    for (keyword, old, new), images in sorted(changes.items()):
        table.add_row(keyword, old, new, str(images))
    console.print(table)


def _changes(one: HeldIdentity) -> Iterator[tuple[str, str, str]]:
    new = identity_values(one.waiting)
    if one.in_force is None:
        yield from ((keyword, "(removed by retention)", value) for keyword, value in new.items())
        return
    old = identity_values(one.in_force)
    for keyword in old.keys() | new.keys():
        if old.get(keyword) != new.get(keyword):
            yield keyword, old.get(keyword, ""), new.get(keyword, "")


@contextmanager
def _store(config: Path | None) -> Iterator[Store]:
    """The store of the configured node. What is wrong with it is said in one line, with exit status 1."""
    storage = load_settings(config).storage
    if not storage.database_url and not storage.root.is_dir():  # looking must not make one
        raise ConfigurationError(f"no node data under {storage.root.resolve()}")
    try:
        store = open_store(storage)
        try:
            yield store
        finally:
            store.close()
    except StoreError as error:
        said = f"no such study: {error}" if isinstance(error, NoSuchStudy) else str(error)
        terminal(stderr=True).print(said, style="red", soft_wrap=True)
        raise typer.Exit(1) from error


def _cells(one: StudySummary) -> tuple[str, ...]:
    return (
        one.study_instance_uid,
        one.state,
        one.step or "",
        str(one.images),
        _cell("last_received_at", one.last_received_at),
        one.last_error or one.reason,
    )


def _print_detail(console: Console, detail: StudyDetail) -> None:
    for name, value in dataclasses.asdict(detail.summary).items():
        if value not in (None, ""):
            console.print(Text.assemble((f"{name:<20}", "bold"), str(value)), soft_wrap=True)
    if any(line.kind is QuarantineKind.IDENTITY for line in detail.quarantine):
        console.print(
            "images arrived again under another identity: see `osteonode studies reconcile`", style="yellow"
        )
    if detail.purged:
        console.print(f"retention removed {detail.purged} received file(s)", style="yellow")
    if detail.results_removed_at:
        console.print(f"retention removed results on {detail.results_removed_at:%Y-%m-%d}", style="yellow")
    for title, rows in (
        ("jobs", detail.jobs),
        ("reports", detail.reports),
        ("deliveries", detail.deliveries),
        ("artefacts", detail.artefacts),
        ("quarantine", detail.quarantine),
    ):
        if not rows:
            continue
        console.print(_table(rows, title))


def _table(rows: Sequence[Any], title: str) -> Table:
    """Every field of equal records. What peers sent is shown as it is: brackets are no markup."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for field in dataclasses.fields(rows[0]):
        table.add_column(field.name, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in dataclasses.asdict(row).items()))
    return table


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    return in_words(value) if name == "status" and isinstance(value, int) else str(value)


def _print_json(value: object) -> None:
    def plain(other: Any) -> str:
        if isinstance(other, datetime):
            return other.isoformat()
        if isinstance(other, Path):
            return str(other)
        raise TypeError(f"{type(other).__name__} has no JSON form")

    typer.echo(json.dumps(value, indent=2, default=plain))
