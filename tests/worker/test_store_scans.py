"""Earlier studies of a patient, found again without keeping who the patient is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from node.store.files import ReceivedInstance
from node.store.store import Store


@pytest.fixture
def studies(store: Store, make_instance: Callable[..., ReceivedInstance]) -> tuple[str, str]:
    uids = ("1.2.3.1", "1.2.3.2")
    for number, uid in enumerate(uids):
        store.instances.receive(make_instance(number, study_instance_uid=uid))
    return uids


def keep(store: Store, uid: str, content: str, **changes) -> None:
    given = {"patient_id": "P-4711", "issuer": "CLINIC", "taken_on": date(2024, 1, 1)} | changes
    store.scans.keep(study_instance_uid=uid, content=content, **given)


def test_studies_of_one_patient_come_back_the_earliest_first(store: Store, studies):
    keep(store, studies[0], "later", taken_on=date(2025, 1, 1))
    keep(store, studies[1], "earlier")
    assert store.scans.of_patient(patient_id="P-4711", issuer="CLINIC") == ("earlier", "later")


def test_the_same_id_of_another_issuer_is_another_patient(store: Store, studies):
    keep(store, studies[0], "one")
    assert store.scans.of_patient(patient_id="P-4711", issuer="OTHER") == ()
    assert store.scans.of_patient(patient_id="4711", issuer="CLINICP-") == ()


def test_a_study_measured_again_replaces_what_it_measured_before(store: Store, studies):
    keep(store, studies[0], "first")
    keep(store, studies[0], "second")
    assert store.scans.of_patient(patient_id="P-4711", issuer="CLINIC") == ("second",)


def test_patients_without_an_id_are_not_one_patient(store: Store, studies):
    with pytest.raises(ValueError, match="no Patient ID"):
        keep(store, studies[0], "one", patient_id="")


def test_the_database_does_not_hold_the_patients_id(sqlite_store: Store, make_instance):
    instance = make_instance()
    sqlite_store.instances.receive(instance)
    keep(sqlite_store, instance.study_instance_uid, "one")
    with sqlite_store.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM scans").all()
    assert len(rows) == 1
    assert "P-4711" not in str(rows)


def test_a_study_that_is_forgotten_is_nobodys_earlier_study(store: Store, studies):
    keep(store, studies[0], "one")
    keep(store, studies[1], "other")
    store.scans.forget(studies[0])
    store.scans.forget("9.9")
    assert store.scans.of_patient(patient_id="P-4711", issuer="CLINIC") == ("other",)
