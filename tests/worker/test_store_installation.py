"""The key of the installation, whose pseudonyms nobody can guess, and who may read what the node keeps."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date
from importlib.resources import files
from pathlib import Path

import pytest
from alembic import command as alembic
from alembic.config import Config
from sqlalchemy import create_engine, text

from config.sections import StorageSettings
from config.settings import Settings
from node.store.database import Database
from node.store.errors import WrongInstallation
from node.store.files import ReceivedInstance
from node.store.installation import KEY_FILE, load_or_make_key
from node.store.store import Store, open_store
from node.store.workers import FeatureCheck
from tests.claiming import claim

pytestmark = pytest.mark.slow

Make = Callable[..., ReceivedInstance]
PATIENT = {"patient_id": "4711", "issuer": "CLINIC"}
PLAIN = hashlib.sha256(b"CLINIC\x004711").hexdigest()  # what a thief would compute of every number


@pytest.fixture
def storage(store: Store, make_settings: Callable[..., Settings]) -> StorageSettings:
    """Of the open store: what another process of the installation has."""
    url = store.database._engine.url.render_as_string(hide_password=False)
    return make_settings(storage={"database_url": url}).storage


def rows_as_text(url: str) -> str:
    """Every row of every table, as whoever takes a copy of the database reads them."""
    engine = create_engine(url)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            names = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars()
        else:
            names = connection.execute(
                text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            ).scalars()
        told = "\n".join(str(connection.execute(text(f"SELECT * FROM {name}")).all()) for name in list(names))
    engine.dispose()
    return told


def keep(store: Store, make_instance: Make) -> None:
    instance = make_instance()
    store.instances.receive(instance)
    store.scans.keep(
        study_instance_uid=instance.study_instance_uid, taken_on=date(2024, 1, 1), content="one", **PATIENT
    )


def test_a_copy_of_the_database_does_not_lead_from_a_patient_id_to_a_study(
    store: Store, storage: StorageSettings, make_instance: Make
) -> None:
    keep(store, make_instance)
    told = rows_as_text(storage.database_url)
    assert make_instance().study_instance_uid in told
    assert PLAIN not in told
    assert (storage.root / KEY_FILE).read_text().strip() not in told


def test_every_process_of_the_installation_finds_the_same_patient(
    store: Store, storage: StorageSettings, make_instance: Make
) -> None:
    keep(store, make_instance)
    with closing(open_store(storage)) as other:
        assert other.scans.of_patient(**PATIENT) == ("one",)


def test_two_installations_have_different_pseudonyms(
    tmp_path: Path, make_settings: Callable[..., Settings], make_instance: Make
) -> None:
    told = []
    for name in ("one", "other"):
        storage = make_settings(storage={"root": str(tmp_path / name)}).storage
        with closing(open_store(storage)) as opened:
            keep(opened, make_instance)
            with opened.database.reading() as connection:
                told.append(connection.execute(text("SELECT patient_hmac FROM scans")).scalar_one())
    assert told[0] != told[1]


@pytest.mark.parametrize("damage", ["lost", "another", "cut"])
def test_a_root_without_its_key_is_refused_in_place_of_patients_being_lost(
    store: Store, storage: StorageSettings, make_instance: Make, damage: str
) -> None:
    keep(store, make_instance)
    path = storage.root / KEY_FILE
    kept = path.read_bytes()
    path.unlink()
    if damage == "another":
        path.write_text("ab" * 32)
    elif damage == "cut":
        path.write_bytes(kept[:20])
    with pytest.raises(WrongInstallation, match=KEY_FILE):
        open_store(storage)
    path.write_bytes(kept)
    with closing(open_store(storage)) as restored:
        assert restored.scans.of_patient(**PATIENT) == ("one",)


def test_processes_that_start_at_once_make_one_key(tmp_path: Path) -> None:
    databases = [Database(f"sqlite:///{tmp_path / str(number)}") for number in range(8)]
    with ThreadPoolExecutor(len(databases)) as pool:
        keys = set(pool.map(lambda one: load_or_make_key(tmp_path, one), databases))
    for one in databases:
        one.close()
    assert len(keys) == 1
    assert list(tmp_path.glob("*.part")) == []


def test_pseudonyms_of_an_older_version_are_renewed_without_the_patient_id(
    store: Store, storage: StorageSettings
) -> None:
    url = _as_before(store, storage)
    with closing(open_store(storage.model_copy(update={"database_url": url}))) as upgraded:
        assert upgraded.scans.of_patient(**PATIENT) == ("old",)
        with upgraded.database.reading() as connection:
            renewed = connection.execute(text("SELECT identity_hmac FROM instances")).scalar_one()
    told = rows_as_text(url)
    assert PLAIN not in told
    assert renewed != "f" * 64
    assert len(renewed) == 64


def test_files_of_an_older_version_become_rows_in_their_order_and_are_taken_over_once(
    store: Store, storage: StorageSettings
) -> None:
    """Whether or not the first start ended between the tables' transaction and the mark."""
    older = storage.model_copy(update={"database_url": _as_before(store, storage)})
    record = storage.root / "models" / "activations.jsonl"
    standing = storage.root / "workers" / f"features-{socket.gethostname()}.json"
    lines = tuple(f'{{"reason": "{number} \N{SNOWMAN}\\r\\n"}}' for number in range(12))
    for path in (record, standing):
        path.parent.mkdir()
    record.write_text("".join(f"{line}\n" for line in lines) + lines[0][:9], "utf-8", newline="")
    standing.write_text(
        '{"drifted": 1, "checked": 851, "example": "x", "tried_at": "2026-01-01T00:00:00+00:00"}', "utf-8"
    )
    (standing.parent / "features-damaged.json").write_text("{", "utf-8")
    with closing(open_store(older)) as upgraded:
        assert upgraded.activations.contents() == lines
        assert upgraded.feature_checks.here() == FeatureCheck(drifted=1, checked=851, example="x")
    mark = record.with_name("activations.jsonl.taken-over")
    mark.unlink()  # as if the node had been killed before
    with closing(open_store(older)) as again:
        assert again.activations.contents() == lines
    assert int(mark.read_text("ascii")) == record.stat().st_size


def _as_before(store: Store, storage: StorageSettings) -> str:
    """A database as version 0010 left it, beside that of the fixture."""
    if storage.database_url.startswith("sqlite"):
        url = f"sqlite:///{storage.root / 'old.sqlite3'}"
    else:
        url = storage.database_url + "_old"
        engine = create_engine(storage.database_url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {url.rpartition('/')[2]}"))
        engine.dispose()
    database, config = Database(url), Config()
    config.set_main_option("script_location", str(files("node.store") / "migrations"))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        alembic.upgrade(config, "0010")
        connection.execute(text("INSERT INTO studies VALUES ('1.2', 1, 'sent', '', false, 0.0, NULL)"))
        connection.execute(text(f"INSERT INTO scans VALUES ('1.2', '{PLAIN}', '2024-01-01', 'old')"))
        connection.execute(
            text(
                "INSERT INTO instances (sop_instance_uid, series_instance_uid, study_instance_uid,"
                " sop_class_uid, transfer_syntax_uid, sha256, path, size_bytes, received_at, calling_ae,"
                " called_ae, own, purged_at, image_sha256, identity_sha256) VALUES ('1.2.3', '1.2.1', '1.2',"
                f" '1', '1', 'ab', '', 1, 0.0, 'A', 'B', false, 1.0, '{'e' * 64}', '{'f' * 64}')"
            )
        )
    database.close()
    return url


@pytest.fixture(params=[0o000, 0o022, 0o377])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(root: Path) -> dict[str, int]:
    """Of everything under a root, the root included, that is not as it should be."""
    found = [root, *root.rglob("*")]
    wanted = {path: 0o700 if path.is_dir() else 0o600 for path in found}
    return {
        str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode)
        for path in found
        if stat.S_IMODE(path.stat().st_mode) != wanted[path]
    }


def _fill(store: Store, make_instance: Make, close_study: Callable[[Store], object]) -> None:
    store.instances.receive(make_instance(1))
    store.instances.receive(
        make_instance(2, content=(b"x", bytes(3 << 20)))
    )  # too large to be written directly
    store.quarantine.keep_undecodable(make_instance(3, content=(b"no", b"data set")), "why")
    store.artefacts.put(claim(store, close_study(store)), "result.json", b"{}", {})


def test_nobody_else_reads_what_the_node_keeps_whoever_made_its_folder(
    tmp_path: Path,
    make_settings: Callable[..., Settings],
    make_instance: Make,
    close_study: Callable[[Store], object],
    umask: int,
) -> None:
    root = tmp_path / "var"
    if umask == 0o022:
        root.mkdir(mode=0o755)  # an administrator made it
    with closing(open_store(make_settings(storage={"root": str(root)}).storage)) as opened:
        _fill(opened, make_instance, close_study)
        assert {path.name for path in root.iterdir()} >= {"osteonode.sqlite3-wal", "osteonode.sqlite3-shm"}
        assert modes(root) == {}


def test_an_installation_of_an_older_version_is_closed_to_others_at_its_next_start(
    make_settings: Callable[..., Settings], make_instance: Make, close_study: Callable[[Store], object]
) -> None:
    storage = make_settings().storage
    with closing(open_store(storage)) as opened:
        _fill(opened, make_instance, close_study)
        with opened.database.writing() as connection:
            connection.execute(text("DELETE FROM installation WHERE name = 'modes'"))
        for path in [storage.root, *storage.root.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)
        assert len(modes(storage.root)) > 10
        with closing(open_store(storage)):  # while another process has the database open
            assert modes(storage.root) == {}


def test_a_restored_folder_is_closed_to_others_at_every_start(make_settings: Callable[..., Settings]) -> None:
    storage = make_settings().storage
    open_store(storage).close()
    storage.root.chmod(0o755)
    (storage.root / "osteonode.sqlite3").chmod(0o644)
    open_store(storage).close()
    assert modes(storage.root) == {}
