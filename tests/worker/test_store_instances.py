"""What the store promises the listener."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest
from alembic import command as alembic
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from config.settings import Settings, load_settings
from node.store import files as durable
from node.store.database import Database
from node.store.errors import StorageFull, StoreUnavailable
from node.store.files import ReceivedInstance
from node.store.installation import Pseudonyms
from node.store.instances import Instances, Receipt
from node.store.quarantine import QuarantineBounds
from node.store.schema import metadata
from node.store.states import QuarantineKind
from node.store.store import Store, open_store

pytestmark = pytest.mark.slow

Make = Callable[..., ReceivedInstance]
_ROOM = QuarantineBounds(instances=1, size_bytes=1000)


def _files(store: Store) -> list[Path]:
    return sorted(path for path in (store.files.root / "instances").rglob("*") if path.is_file())


def test_migrations_make_exactly_the_tables_of_the_schema(store: Store) -> None:
    with store.database.writing() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_migrating_twice_changes_nothing(store: Store) -> None:
    store.database.migrate()
    with store.database.writing() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_quarantine_from_before_its_kinds_is_taken_for_other_content(tmp_path: Path) -> None:
    settings = load_settings(storage={"root": str(tmp_path)}).storage
    database = Database(settings.resolved_database_url)
    _migrate_to(database, "0006")
    with database.writing() as connection:
        connection.exec_driver_sql(
            "INSERT INTO quarantine (sop_instance_uid, study_instance_uid, sha256, path, size_bytes,"
            " received_at, calling_ae, called_ae, reason)"
            " VALUES ('2.25.1', '2.25', 'ab', 'x', 7, 0.0, 'A', 'B', 'why')"
        )
    database.close()
    with closing(open_store(settings)) as store:
        (one,) = store.quarantine.list()
        assert (one.kind, one.size_bytes, one.reason) == (QuarantineKind.CONTENT, 7, "why")


def _migrate_to(database: Database, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(files("node.store") / "migrations"))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        alembic.upgrade(config, revision)


def test_sqlite_runs_with_full_synchronisation_and_a_write_ahead_log(sqlite_store: Store) -> None:
    with sqlite_store.database.reading() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_received_bytes_are_kept_unmodified(store: Store, make_instance: Make) -> None:
    assert store.instances.receive(make_instance()) is Receipt.STORED
    (path,) = store.instances.paths(make_instance().study_instance_uid)
    assert path.read_bytes() == b"headerpixels 1"


def test_paths_hold_no_text_from_outside(store: Store, make_instance: Make) -> None:
    store.instances.receive(make_instance(calling_ae="../../EVIL"))
    (path,) = store.instances.paths(make_instance().study_instance_uid)
    name = path.relative_to(store.files.root).as_posix()
    assert make_instance().sop_instance_uid not in name
    assert "EVIL" not in name


def test_an_instance_sent_again_is_acknowledged_and_kept_once(store: Store, make_instance: Make) -> None:
    store.instances.receive(make_instance())
    assert store.instances.receive(make_instance()) is Receipt.ALREADY_HELD
    assert len(_files(store)) == 1


def test_other_content_under_a_known_uid_is_quarantined_and_the_first_stays(
    store: Store, make_instance: Make
) -> None:
    store.instances.receive(make_instance())
    other = make_instance(content=(b"header", b"other pixels"))
    assert store.instances.receive(other) is Receipt.QUARANTINED
    (path,) = store.instances.paths(other.study_instance_uid)
    assert path.read_bytes() == b"headerpixels 1"
    assert store.overview.show(other.study_instance_uid).quarantined == 1
    assert len(_files(store)) == 2  # the quarantined bytes are kept for a person to look at


def test_an_image_that_comes_again_in_another_study_makes_no_study(store: Store, make_instance: Make) -> None:
    store.instances.receive(make_instance())
    moved = make_instance(study_instance_uid="2.25.8", content=(b"header", b"pixels 1, moved"))
    assert store.instances.receive(moved) is Receipt.QUARANTINED
    assert [one.study_instance_uid for one in store.overview.list()] == [make_instance().study_instance_uid]
    (line,) = store.quarantine.lines()
    assert (line.study_instance_uid, line.study_is_held) == ("2.25.8", False)


def test_a_resend_replaces_a_file_that_was_lost(store: Store, make_instance: Make) -> None:
    store.instances.receive(make_instance())
    (path,) = store.instances.paths(make_instance().study_instance_uid)
    path.unlink()
    assert store.instances.receive(make_instance()) is Receipt.RESTORED
    (path,) = store.instances.paths(make_instance().study_instance_uid)
    assert path.read_bytes() == b"headerpixels 1"


def test_own_objects_leave_no_file_and_do_not_count(store: Store, make_instance: Make) -> None:
    own = make_instance(sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34")
    assert store.instances.note_own(own) is Receipt.OWN
    assert store.instances.paths(own.study_instance_uid) == ()
    shown = store.overview.show(own.study_instance_uid)
    assert (shown.summary.images, shown.summary.others, shown.own_returned) == (0, 0, 1)


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_is_told_and_leaves_nothing_behind(
    sqlite_store: Store, make_instance: Make, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    owner: object = durable.os if call == "fsync" else Path
    monkeypatch.setattr(owner, call, refuse)
    with pytest.raises(StorageFull):
        sqlite_store.instances.receive(make_instance())
    monkeypatch.undo()
    assert _files(sqlite_store) == []
    assert sqlite_store.overview.list() == ()


def test_a_locked_database_is_told_and_leaves_no_file(
    sqlite_store: Store, make_instance: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite_store.database.writing() as connection:
        # A second connection must not wait for ten seconds here.
        monkeypatch.setattr("node.store.database._BUSY_TIMEOUT_S", 0.05)
        database = Database(f"sqlite:///{sqlite_store.files.root / 'osteonode.sqlite3'}")
        with pytest.raises(StoreUnavailable):
            Instances(database, sqlite_store.files, Pseudonyms(b"key"), _ROOM).receive(make_instance())
        database.close()
        connection.rollback()
    assert _files(sqlite_store) == []


def test_an_unusable_folder_is_told(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        open_store(make_settings(storage={"root": str(tmp_path / "file" / "var")}).storage)


def test_the_folder_is_closed_to_others(sqlite_store: Store, make_instance: Make) -> None:
    sqlite_store.instances.receive(make_instance())
    assert sqlite_store.files.root.stat().st_mode & 0o077 == 0
