"""A store on SQLite or a real PostgreSQL, and received instances to put into it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from config.settings import Settings, load_settings
from node.clinical import NoLaboratory
from node.pipeline.runner import Dependencies
from node.processes.supervisor import EmbeddedRedis
from node.store.files import ReceivedInstance, sha256_of
from node.store.jobs import DueJob
from node.store.store import Store, open_store
from tests.closing import close_due
from tests.waiting import stop, wait_until
from tests.worker.bench import FUNCTIONS, PACS, Bench, Queue, ScriptedProver, ScriptedSender, no_engine

CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY = "1.2.826.0.1.3680043.10.1.1"


@pytest.fixture
def broker() -> Iterator[EmbeddedRedis]:
    """A real redis-server."""
    server = EmbeddedRedis()
    server.start()
    yield server
    server.close()


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings with everything under tmp_path and no waiting; sections may be overridden."""

    def make(**sections: Any) -> Settings:
        given: dict[str, Any] = {
            "node": {"port": 0},
            "storage": {"root": str(tmp_path / "var")},
            "completeness": {"quiet_s": 0.05, "poll_s": 0.05},
            "worker": {
                "lease_s": 5.0,
                "backoff_s": [0.001],
                "send_backoff_s": [0.001],
                "reconcile_s": 0.05,
                "time_limit_s": 60.0,
            },
            "web": {"port": 0},
        }
        for name, values in sections.items():
            given[name] = {**given.get(name, {}), **values} if isinstance(values, dict) else values
        return load_settings(**given)

    return make


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A PostgreSQL of our own on an ephemeral port; gives the URL of its administration database."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is not installed (apt-get install postgresql)", pytrace=False)
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    binaries = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="osteonode-pg-", dir="/tmp"))
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "osteonode", "-A", "trust", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        **as_user,
    )
    options = ["-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [binaries / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd=folder, **as_user
        )
    try:
        asked = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]

        def is_ready() -> bool:
            assert server.poll() is None, (folder / "log").read_text()
            return subprocess.run(asked, check=False).returncode == 0

        wait_until(is_ready, "PostgreSQL is ready")
        yield f"postgresql+psycopg://osteonode@127.0.0.1:{port}/postgres"
    finally:
        stop(server)
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, make_settings: Callable[..., Settings]) -> Iterator[Store]:
    """An empty store; a test that takes it runs on both databases."""
    url = ""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = server.rpartition("/")[0] + f"/{name}"
    opened = open_store(make_settings(storage={"database_url": url}).storage)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(make_settings: Callable[..., Settings]) -> Iterator[Store]:
    opened = open_store(make_settings().storage)
    yield opened
    opened.close()


@pytest.fixture
def make_instance() -> Callable[..., ReceivedInstance]:
    """A received instance; each keyword replaces a field."""

    def make(number: int = 1, **fields: Any) -> ReceivedInstance:
        content = fields.pop("content", (b"header", f"pixels {number}".encode()))
        values: dict[str, Any] = {
            "sop_instance_uid": f"{STUDY}.1.{number}",
            "series_instance_uid": f"{STUDY}.1",
            "study_instance_uid": STUDY,
            "sop_class_uid": CT,
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "sha256": sha256_of(content[-1]),
            "content": content,
            "calling_ae": "PACS",
            "called_ae": "OSTEONODE",
            "association_id": None,
        }
        return ReceivedInstance(**{**values, **fields})

    return make


@pytest.fixture
def close_study() -> Callable[[Store], DueJob]:
    """Close the one study that is due, and give its job."""

    def close(store: Store) -> DueJob:
        (job,) = close_due(store, first_step="select", quiet_s=0, stale_s=20)
        return job

    return close


@pytest.fixture
def make_bench(
    make_settings: Callable[..., Settings],
    sqlite_store: Store,
    make_instance: Callable[..., ReceivedInstance],
) -> Callable[..., Bench]:
    def make(**sections: Any) -> Bench:
        sections.setdefault("completeness", {"quiet_s": 1e-6, "poll_s": 0.05})
        sections.setdefault("destinations", [PACS])
        sqlite_store.instances.receive(make_instance(called_ae="QCT"))
        queue, sender, prover = Queue(), ScriptedSender(), ScriptedProver()
        dependencies = Dependencies(
            settings=make_settings(**sections),
            store=sqlite_store,
            publisher=queue,
            sender=sender,
            prover=prover,
            functions=FUNCTIONS,
            engine=no_engine,
            clinical=NoLaboratory(),
            owner="bench",
        )
        return Bench(dependencies=dependencies, queue=queue, sender=sender, prover=prover)

    return make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
