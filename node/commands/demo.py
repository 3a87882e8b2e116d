"""`osteonode demo`: a node, a stand-in PACS and a digital reference study, from C-STORE to report."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from config.settings import Settings, load_settings
from node.commands.console import terminal
from node.commands.process import print_result
from node.pipeline.artefacts import RESULT
from node.reference.spec import StudySpec
from node.reference.stand_in_pacs import PacsError, Received, StandInPacs, send_study
from node.reference.study import Truth, uid_of, write_reference_study
from node.result_document import ResultDocument, read_result
from node.store.errors import StoreError
from node.store.overview import StudySummary
from node.store.store import open_store

BMD_TOLERANCE_MG_CM3 = 3.0
VOLUME_TOLERANCE = 0.10
_READY_TIMEOUT_S = 120.0
_ANSWER_TIMEOUT_S = 300.0
_UNFINISHED = ("receiving", "processing")
_LABORATORY = "patient_id,issuer,date,alp_u_l,homocysteine_umol_l\n{patient_id},{issuer},{date},92,16.5\n"


class DemoFailed(Exception):
    """The node did not answer, or not rightly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the demonstration keeps what."""

    root: Path

    @property
    def study(self) -> Path:
        return self.root / "study"

    @property
    def received(self) -> Path:
        return self.root / "received"

    @property
    def config(self) -> Path:
        return self.root / "node.toml"

    @property
    def log(self) -> Path:
        return self.root / "node.log"


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for all files; created if missing.", file_okay=False)
    ] = Path("var/demo"),
    port: Annotated[
        int | None, typer.Option(help="DICOM port of the node; else 11112, or a free one if that is taken.")
    ] = None,
    reduced: Annotated[bool, typer.Option("--reduced", help="A smaller study: quick.")] = False,
) -> None:
    """Run the main job once: send a reference study to a node and check its answer against the truth."""
    console = terminal()
    # A folder for each run: what an earlier one left behind is neither touched nor mistaken for an answer.
    place = _Place(root=out.resolve() / time.strftime("%Y%m%d-%H%M%S"))
    place.root.mkdir(parents=True, exist_ok=True)
    spec = StudySpec.reduced() if reduced else StudySpec()
    try:
        _run(console, place, spec, port)
    except (DemoFailed, PacsError, StoreError) as error:
        told = f"The demonstration failed: {error}"
        console.print(told, style="red", soft_wrap=True)
        console.print(f"The node's log: {place.log}", soft_wrap=True)
        raise typer.Exit(1) from error


def _run(console: Console, place: _Place, spec: StudySpec, port: int | None) -> None:
    with _Progress(console) as progress:
        progress.tell("rendering a digital reference study")
        truth = write_reference_study(place.study, spec)
        with StandInPacs(place.received) as pacs:
            settings = _configure(place, spec, pacs, port if port is not None else _usual_port())
            progress.tell("starting the node")
            with _node(place):
                started = time.monotonic()
                progress.tell("sending the study by C-STORE")
                _send(place, settings, progress.count)
                _await_answer(settings, pacs, uid_of(spec, "study"), progress.tell)
                seconds = time.monotonic() - started
            received = pacs.received()
    result = _kept_result(settings, uid_of(spec, "study"), place)
    print_result(console, result)
    correct = _compare(console, result, truth)
    _print_places(console, place, received, seconds)
    if not correct:
        raise DemoFailed("the answers do not match the truth")
    console.print("The answers match the truth.", style="bold green")


class _Progress:
    """What is being done: a moving line on a terminal, a line for each stage elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, what: str) -> None:
        """Name the stage; saying it again is harmless."""
        if what != self._said and not self._console.is_terminal:
            self._console.print(f"{what} ...")
        self._said = what
        self._bar.update(self._task, description=what, completed=0, total=None)

    def count(self, done: int, total: int) -> None:
        """How much of the stage is done."""
        self._bar.update(self._task, completed=done, total=total)


def _usual_port() -> int:
    """The node's usual port, or any where that one is taken."""
    usual = load_settings().node.port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", usual))
        except OSError:
            return _free_port()
    return usual


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _configure(place: _Place, spec: StudySpec, pacs: StandInPacs, port: int) -> Settings:
    """Write the node's configuration as a person would, with the stand-in PACS as its destination."""
    laboratory = place.root / "laboratory.csv"
    laboratory.write_text(
        _LABORATORY.format(patient_id=spec.patient_id, issuer=spec.issuer, date=spec.study_date), "utf-8"
    )
    sections: dict[str, dict[str, Any]] = {
        "node": {"port": port},
        "storage": {"root": str(place.root / "var")},
        "completeness": {"quiet_s": 2.0, "poll_s": 0.2},
        "clinical": {"csv": str(laboratory)},
        "web": {"port": _free_port()},
        "log": {"format": "json"},
    }
    lines = [
        line
        for section, values in sections.items()
        for line in (f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), "")
    ]
    lines += ["[[destinations]]", 'name = "stand-in PACS"', f'ae_title = "{pacs.ae_title}"']
    lines += ['host = "127.0.0.1"', f"port = {pacs.port}", ""]
    place.config.write_text("\n".join(lines), "utf-8")
    return load_settings(place.config)


@contextmanager
def _node(place: _Place) -> Iterator[None]:
    """`osteonode serve` as a child, from the moment it listens."""
    command = [sys.executable, "-m", "node.cli", "serve", "--config", str(place.config)]
    with place.log.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while b'"node_ready"' not in place.log.read_bytes():
            if process.poll() is not None:
                raise DemoFailed(f"the node ended with status {process.returncode}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"the node is not ready after {_READY_TIMEOUT_S:g} s")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _send(place: _Place, settings: Settings, sent: Callable[[int, int], None]) -> None:
    statuses = send_study(
        place.study,
        host="127.0.0.1",
        port=settings.node.port,
        called_ae_title=settings.node.ae_title,
        sent=sent,
    )
    refused = [status for status in statuses if status != 0]
    if refused:
        raise DemoFailed(f"{len(refused)} instances were refused, the first with 0x{refused[0]:04X}")


def _await_answer(settings: Settings, pacs: StandInPacs, study_uid: str, tell: Callable[[str], None]) -> None:
    """Wait until SR, SEG and SC are back, telling what the node is at."""
    deadline = time.monotonic() + _ANSWER_TIMEOUT_S
    store = open_store(settings.storage)
    try:
        while not pacs.wait_for(_is_complete, 0.5):
            state = next((s for s in store.overview.list() if s.study_instance_uid == study_uid), None)
            if state is not None:
                tell(_words(state))
                if state.state not in (*_UNFINISHED, "sent", "delivered"):
                    raise DemoFailed(f"the study is {state.state}: {state.reason or state.last_error}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"no answer after {_ANSWER_TIMEOUT_S:g} s")
        while (
            next(s for s in store.overview.list() if s.study_instance_uid == study_uid).state in _UNFINISHED
        ):
            if time.monotonic() > deadline:
                raise DemoFailed("the node does not finish the study")
            time.sleep(0.1)
    finally:
        store.close()


def _is_complete(received: Sequence[Received]) -> bool:
    kinds = [one.kind for one in received]
    return "SR" in kinds and "SEG" in kinds and kinds.count("SC") >= 4


def _words(study: StudySummary) -> str:
    if study.state == "receiving":
        return "waiting until the study is complete"
    return f"processing: {study.step}"


def _kept_result(settings: Settings, study_uid: str, place: _Place) -> ResultDocument:
    """The result as the node keeps it; it and its pictures go beside what was received."""
    store = open_store(settings.storage)
    try:
        detail = store.overview.show(study_uid)
        for artefact in detail.artefacts:
            if artefact.name in (RESULT, "nomogram.png", "overlay.png", "calibration.png"):
                content = store.artefacts.get(study_uid, artefact.generation, artefact.name)
                (place.root / artefact.name).write_bytes(content)
        content = store.artefacts.get(study_uid, detail.summary.generation, RESULT)
    finally:
        store.close()
    return read_result(content)


def _compare(console: Console, result: ResultDocument, truth: Truth) -> bool:
    """Whether BMD and volume are right at every level, with a table that shows it."""
    table = Table(title="comparison with the known truth", title_justify="left", box=None, pad_edge=False)
    for heading in ("level", "BMD", "truth", "error", "volume cm3", "truth", "error", ""):
        table.add_column(heading, justify="left" if heading in ("level", "") else "right")
    correct = set(truth.levels) <= set(result.levels)
    for name, known in truth.levels.items():
        found = result.levels.get(name)
        bmd = found.bmd_mg_cm3 if found else None
        volume = found.volume_mm3 if found else None
        if bmd is None or volume is None:
            table.add_row(name, "missing", f"{known.bmd_mg_cm3:.1f}", "", "", "", "", Text("wrong", "red"))
            correct = False
            continue
        bmd_error = bmd - known.bmd_mg_cm3
        volume_error = volume / known.volume_mm3 - 1
        right = abs(bmd_error) <= BMD_TOLERANCE_MG_CM3 and abs(volume_error) <= VOLUME_TOLERANCE
        correct &= right
        table.add_row(
            name,
            f"{bmd:.1f}",
            f"{known.bmd_mg_cm3:.1f}",
            f"{bmd_error:+.1f}",
            f"{volume / 1000:.1f}",
            f"{known.volume_mm3 / 1000:.1f}",
            f"{volume_error:+.1%}",
            Text("right", "green") if right else Text("wrong", "red"),
        )
    console.print(table)
    return correct


def _print_places(console: Console, place: _Place, received: Sequence[Received], seconds: float) -> None:
    kinds = ", ".join(f"{kind} {sum(one.kind == kind for one in received)}" for kind in ("SEG", "SR", "SC"))
    console.print(f"Received by C-STORE after {seconds:.0f} s: {kinds}")
    for what, path in (
        ("DICOM objects", place.received),
        ("nomogram", place.root / "nomogram.png"),
        ("overlay", place.root / "overlay.png"),
        ("calibration", place.root / "calibration.png"),
        ("result", place.root / RESULT),
        ("node's log", place.log),
    ):
        console.print(f"  {what:<15}{path}", soft_wrap=True)
