"""Features by Celery workers: a message asks for one study, a file answers.

Messages may be lost or repeated, as everywhere in the node: what counts is the answer's file beside the table
that is being made, on a disk that command and workers share. A run that was stopped finds the answers that
came meanwhile, to studies whose files are still the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from config.settings import Settings
from node.pipeline.ports import FeatureRequest
from node.research.extraction import (
    Extraction,
    Row,
    RowsOf,
    reason_row,
    settings_sha256,
    study_content_sha256,
    study_row,
)

POLL_S = 0.2
_ROWS = ".rows"


class WorkersSilent(Exception):
    """No worker has answered for too long; what was answered is kept."""


def by_workers(publish: Callable[[FeatureRequest], None], out: Path, *, silence_s: float) -> RowsOf:
    """A way to have rows computed by workers of the queue `features`.

    Parameters
    ----------
    publish : hands a request to the broker.
    out : the table; answers come into the folder `out`.rows beside it, which is gone when all are taken.
    silence_s : how long to wait for the next answer.

    Raises
    ------
    WorkersSilent
        While rows are taken, if none comes for so long.
    """
    folder = out.resolve().with_name(out.name + _ROWS)

    def rows(studies: Sequence[str], how: Extraction, sha256: str) -> Iterator[Row]:
        if not studies:
            return
        folder.mkdir(exist_ok=True)
        waiting = {
            name: folder / f"{_digest(name, study_content_sha256(name, how.mask), sha256)}.json"
            for name in studies
        }
        for name, answer in waiting.items():
            if not answer.exists():
                publish(FeatureRequest(study=name, mask=how.mask, settings_sha256=sha256, answer=str(answer)))
        heard_at = time.monotonic()
        while waiting:
            come = [name for name, answer in waiting.items() if answer.exists()]
            for name in come:
                answer = waiting.pop(name)
                row: Row = json.loads(answer.read_text("utf-8"))
                yield row | {"study": name}
                answer.unlink()
                heard_at = time.monotonic()
            if waiting and time.monotonic() - heard_at > silence_s:
                raise WorkersSilent(
                    f"no worker has answered for {silence_s:g} s: {len(waiting)} studies wait"
                )
            if waiting and not come:
                time.sleep(POLL_S)
        shutil.rmtree(folder)  # with answers to what an earlier run had asked too

    return rows


def answer_request(request: FeatureRequest, settings: Settings) -> None:
    """Compute one study under this worker's settings, and write the answer.

    Settings or versions other than those that the table is made with give a row with that reason, never
    features.
    """
    own = settings_sha256(Extraction(settings=settings, mask=request.mask, jobs=1))
    if own != request.settings_sha256:
        row = reason_row(
            request.study,
            request.settings_sha256,
            "the worker has other settings or versions than the command",
        )
    else:
        row = study_row(request.study, settings, request.mask, own)
    write_answer(request, row)


def write_answer(request: FeatureRequest, row: Row) -> None:
    """Whole or not at all, into a folder of answers alone. One that is gone: nobody waits any more."""
    answer = Path(request.answer)
    if not answer.parent.name.endswith(_ROWS) or answer.suffix != ".json":
        raise ValueError("an answer belongs into a folder of answers")
    whole = answer.with_suffix(".part")
    with suppress(FileNotFoundError):
        whole.write_text(json.dumps(row), "utf-8")
        whole.replace(answer)


def _digest(name: str, content_sha256: str, settings_sha256: str) -> str:
    return hashlib.sha256(f"{settings_sha256} {content_sha256} {name}".encode()).hexdigest()[:32]
