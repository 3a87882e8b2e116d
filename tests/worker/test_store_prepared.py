"""Statements past SQLAlchemy: they mean what its own mean, and fail as they do, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, Date, Float, Integer, MetaData, Table, bindparam, select, text

from node.store.database import Database, Prepared, first, insert_unless_there, now_s
from node.store.errors import StoreError, StoreUnavailable
from node.store.files import ReceivedInstance
from node.store.schema import instances
from node.store.states import StudyState
from node.store.store import Store

pytestmark = pytest.mark.slow

Make = Callable[..., ReceivedInstance]

KINDS = Table(
    "kinds",
    MetaData(),
    Column("name", Integer, primary_key=True),
    Column("state", instances.c.sop_class_uid.type),
    Column("is_so", Boolean),
    Column("since", Date),
    Column("at", Float),
    Column("missing", Float),
)
ROW = {"name": 7, "state": StudyState.RECEIVING, "is_so": True, "since": date(2024, 2, 29), "missing": None}


def test_a_row_of_every_type_is_read_as_it_was_written(store: Store) -> None:
    with store.database.writing() as connection:
        KINDS.create(connection)
        assert insert_unless_there(connection, KINDS, {**ROW, "at": now_s()})
        read = connection.execute(select(KINDS)).mappings().one()
        clock = connection.execute(select(now_s())).scalar_one()
    assert {name: read[name] for name in ROW} == ROW
    assert 0.0 <= clock - read["at"] < 60.0


def test_a_row_that_is_there_stays(store: Store) -> None:
    with store.database.writing() as connection:
        KINDS.create(connection)
        assert insert_unless_there(connection, KINDS, ROW)
        assert not insert_unless_there(connection, KINDS, {**ROW, "is_so": False})
        assert connection.execute(select(KINDS.c.is_so)).scalars().all() == [True]


def test_percent_and_colon_in_a_value_are_no_parameters(store: Store, make_instance: Make) -> None:
    store.instances.receive(make_instance(calling_ae="50%s :uid %(x)s"))
    with store.database.reading() as connection:
        assert connection.execute(select(instances.c.calling_ae)).scalar_one() == "50%s :uid %(x)s"


def test_a_query_finds_what_is_committed_and_nothing_else(store: Store, make_instance: Make) -> None:
    by_uid = Prepared(
        lambda _: select(instances.c.sha256).where(instances.c.sop_instance_uid == bindparam("uid"))
    )
    image = make_instance()
    assert store.database.first(by_uid, {"uid": image.sop_instance_uid}) is None
    store.instances.receive(image)
    assert store.database.first(by_uid, {"uid": image.sop_instance_uid}) == (image.sha256,)


def test_a_statement_that_the_database_refuses_is_an_error_of_the_store(store: Store) -> None:
    orphan: dict[str, Any] = {column.name: None for column in instances.columns}
    with pytest.raises(StoreError) as refused, store.database.writing() as connection:
        insert_unless_there(connection, instances, {**orphan, "sop_instance_uid": "2.25.1"})
    assert not isinstance(refused.value, StoreUnavailable)  # coming again would not help
    with store.database.writing() as connection:  # and the connection is fit for the next
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_table_that_cannot_be_read_is_told_as_such(store: Store) -> None:
    nowhere = Prepared(lambda _: text("SELECT a FROM nowhere"))
    with pytest.raises(StoreError):
        store.database.first(nowhere, {})
    with pytest.raises(StoreError), store.database.writing() as connection:
        first(connection, nowhere, {})


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_a_server_that_went_away_is_met_again_when_it_is_back(store: Store, make_instance: Make) -> None:
    store.instances.receive(make_instance())
    with store.database.writing() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        )
    store.instances.receive(make_instance(sop_instance_uid="2.25.77"))
    with pytest.raises(StoreUnavailable):
        _cut_off_while_writing(store.database)
    store.instances.receive(make_instance(sop_instance_uid="2.25.78"))
    assert store.overview.show(make_instance().study_instance_uid).summary.images == 3


def _cut_off_while_writing(database: Database) -> None:
    with database.writing() as connection:
        own = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with database.writing() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": own})
        insert_unless_there(connection, KINDS, ROW)
