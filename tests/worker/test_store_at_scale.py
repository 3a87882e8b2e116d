"""What is asked again and again stays quick: the tables keep a row of every image and study that ever came.

Effort is counted in steps of SQLite's virtual machine, which do not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from config.settings import load_settings
from node.store.database import now_s
from node.store.schema import instances, jobs, studies
from node.store.states import JobState, StudyState
from node.store.store import Store, open_store

pytestmark = pytest.mark.slow

CT = "1.2.840.10008.5.1.4.1.1.2"
DAY_S = 86400.0
STEPS = 20  # between two counts

Ask = Callable[[Store], object]
WHATEVER_IMAGES: dict[str, Ask] = {
    "each second, studies": lambda store: store.studies.receiving(stale_s=20.0),
    "each second, jobs": lambda store: store.jobs.due(),
    "each two seconds": lambda store: store.commitment_requests.claim_due(60.0),
    "each minute, what is left": lambda store: store.retention.remove_files(),
    "each minute, what is old": lambda store: store.retention.finished(for_s=30 * DAY_S),
    "each minute, on a full disk": lambda store: store.retention.finished(),
    "each minute, identities": lambda store: store.identities.studies_waiting(),
    "for each scrape": lambda store: (store.census.take(), store.census.destinations()),
}
WHATEVER_STUDIES: dict[str, Ask] = {
    "each second, studies": WHATEVER_IMAGES["each second, studies"],
    "for each look at the page": lambda store: store.overview.list(limit=2),
    "for each look at a study": lambda store: store.overview.show("2.25.1"),
}


def _filled(folder: Path, *, studies_there: int, images: int) -> Store:
    """Studies that were delivered long ago; of every other one the images are gone."""
    store = open_store(load_settings(storage={"root": folder}).storage)
    with store.database.writing() as connection:
        for number in range(studies_there):
            uid, long_ago = f"2.25.{number}", now_s() - 60 * DAY_S + number
            connection.execute(
                studies.insert().values(
                    study_instance_uid=uid,
                    generation=1,
                    state=StudyState.DELIVERED,
                    reason="",
                    declared_qct=False,
                    created_at=long_ago,
                    last_received_at=long_ago,
                )
            )
            connection.execute(
                jobs.insert().values(
                    study_instance_uid=uid,
                    generation=1,
                    step="deliver",
                    state=JobState.FINISHED,
                    attempts=0,
                    not_before=long_ago,
                    token=1,
                    last_error="",
                    created_at=long_ago,
                    updated_at=long_ago,
                )
            )
            for image in range(images):
                connection.execute(
                    instances.insert().values(
                        sop_instance_uid=f"{uid}.{image}",
                        series_instance_uid=f"{uid}.0",
                        study_instance_uid=uid,
                        sop_class_uid=CT,
                        transfer_syntax_uid="1.2.840.10008.1.2.1",
                        sha256="",
                        path="" if number % 2 else f"{uid}/{image}",
                        size_bytes=1,
                        received_at=long_ago,
                        calling_ae="PACS",
                        called_ae="OSTEONODE",
                        own=False,
                        purged_at=long_ago if number % 2 else None,
                    )
                )
    return store


def _effort(store: Store, ask: Ask) -> int:
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    def watch(connection: Any, *_: Any) -> None:
        connection.connection.driver_connection.set_progress_handler(count, STEPS)

    event.listen(Engine, "before_cursor_execute", watch)
    try:
        ask(store)
    finally:
        event.remove(Engine, "before_cursor_execute", watch)
        store.close()
    return counted


@pytest.mark.parametrize("when", WHATEVER_IMAGES)
def test_the_effort_does_not_grow_with_the_images_of_a_study(tmp_path: Path, when: str) -> None:
    few = _effort(_filled(tmp_path / "few", studies_there=4, images=3), WHATEVER_IMAGES[when])
    many = _effort(_filled(tmp_path / "many", studies_there=4, images=300), WHATEVER_IMAGES[when])
    assert many <= few + 5, (few, many)


@pytest.mark.parametrize("when", WHATEVER_STUDIES)
def test_the_effort_does_not_grow_with_the_studies_of_the_past(tmp_path: Path, when: str) -> None:
    few = _effort(_filled(tmp_path / "few", studies_there=3, images=3), WHATEVER_STUDIES[when])
    many = _effort(_filled(tmp_path / "many", studies_there=300, images=3), WHATEVER_STUDIES[when])
    assert many <= few + 5, (few, many)


def test_what_may_go_is_found_and_what_has_gone_is_not(tmp_path: Path) -> None:
    store = _filled(tmp_path, studies_there=4, images=3)
    assert store.retention.finished(for_s=30 * DAY_S) == ("2.25.0", "2.25.2")
    assert store.retention.finished(for_s=90 * DAY_S) == ()
    store.close()


WHATEVER_NUMBERS: dict[str, Ask] = {
    **WHATEVER_IMAGES,
    "each minute, results": lambda store: store.retention.with_results(for_s=0.0, kept=("x",)),
    "each minute, identity": lambda store: store.retention.with_identity(for_s=0.0, kept=("x",)),
    "each day, files without a row": lambda store: store.orphans.search(older_than_s=-DAY_S, for_s=60.0),
    "for each look at the page": lambda store: store.overview.list(),
    "for each look at quarantine": lambda store: store.quarantine.lines(),
}


def _most_parameters(store: Store, ask: Ask) -> int:
    """Of any statement: databases take 32,766 (SQLite) or 65,535 (PostgreSQL) at most."""
    most = 0

    def watch(_connection: Any, _cursor: Any, _statement: Any, parameters: Any, *_: Any) -> None:
        nonlocal most
        most = max(most, len(parameters))

    event.listen(Engine, "before_cursor_execute", watch)
    try:
        ask(store)
    finally:
        event.remove(Engine, "before_cursor_execute", watch)
    return most


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """1200 studies, each in a folder of its own, and as many files that no row names."""
    store = _filled(tmp_path_factory.mktemp("large"), studies_there=1200, images=1)
    folder = store.files.root / "instances" / "ab"
    folder.mkdir(parents=True)
    for number in range(1200):
        (folder / f"{number}.dcm").touch()
    yield store
    store.close()


@pytest.mark.parametrize("when", WHATEVER_NUMBERS)
def test_no_statement_takes_a_parameter_for_each_study(large_store: Store, when: str) -> None:
    assert _most_parameters(large_store, WHATEVER_NUMBERS[when]) <= 500
