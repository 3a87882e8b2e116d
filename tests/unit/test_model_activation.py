"""Changing the model: what is recorded, what is used, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from config.catalog import load_model_card
from config.settings import Settings, load_settings
from node.cli import build
from node.commands import model as command
from node.commands.check import CheckStatus, Line, examine
from node.pipeline.result_basis import active_model
from node.pipeline.steps.judge import load_reporting_rules
from node.reference.spec import StudySpec
from node.research.activation import (
    CASES,
    NotActivated,
    activate,
    class_changes,
    find_card,
    measure_patients,
    previous_card,
    propose,
    require_change,
    require_usable,
)
from node.store.activations import ActivationConflict, activation_history
from node.store.errors import StoreUnavailable
from node.store.schema import activations
from node.store.store import open_store
from scoring.calibration import Mineral
from scoring.models.applicability import ReferencePatient, compare_models
from scoring.models.card import ModelCard, card_document
from tests.e2e.in_process import Run, unchecked
from tests.made_studies import write_reference_study

pytestmark = pytest.mark.slow

SHIPPED = load_model_card("demonstration")[0]
# Two units of log-odds more: whoever had a probability between 12 and 50 % passes the half.
STRICTER = replace(
    SHIPPED, name="stricter", clinical=replace(SHIPPED.clinical, intercept=SHIPPED.clinical.intercept + 2.0)
)
WHEN = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def patient(name: str, sds: float) -> ReferencePatient:
    """Whose first feature lies so many SDs from the training mean, and all the others on it."""
    features = {one.name: one.mean for one in SHIPPED.features}
    features[SHIPPED.features[0].name] += sds * SHIPPED.features[0].sd
    return ReferencePatient(
        name=name,
        features=features,
        kvp=120.0,
        slice_spacing_mm=3.0,
        pixel_spacing_mm=(1.7, 1.7),
        equivalent=Mineral.HA,
        age=60.0,
        alp=70.0,
        homocysteine=10.0,
    )


PATIENTS = (patient("dense", 4.0), patient("between", 1.8), patient("porous", -1.0))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(storage={"root": str(tmp_path / "var")}, node={"site": str(tmp_path / "site")})


@pytest.fixture
def switch(settings: Settings) -> Callable[..., None]:
    def make(card: ModelCard, reason: str = "") -> None:
        activate(propose(card, settings, PATIENTS), settings, at=WHEN, by="physicist", reason=reason)

    return make


def contents(settings: Settings) -> tuple[str, ...]:
    with closing(open_store(settings.storage)) as store:
        return store.activations.contents()


def rewrite(settings: Settings, content: str) -> None:
    """Change the first row behind the node's back."""
    with closing(open_store(settings.storage)) as store, store.database.writing() as connection:
        connection.execute(update(activations).where(activations.c.number == 1).values(content=content))


def file_of_earlier_versions(settings: Settings, text: str) -> Path:
    """What a node of an earlier version has: a record in a file, and tables that know of none."""
    path = settings.storage.root / "models/activations.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def site_card(settings: Settings, card: ModelCard, name: str = "ours") -> Path:
    folder = Path(settings.node.site) / "models"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(card_document(card)), "utf-8")
    return path


def test_the_comparison_shows_both_models_answers_and_who_changes_class(settings):
    compared = propose(STRICTER, settings, PATIENTS).comparison
    assert [one.patient for one in compared] == ["dense", "between", "porous"]
    for one in compared:
        assert one.before is not None
        assert one.before.rad_score == one.after.rad_score
        assert one.before.probability < one.after.probability
        assert one.after.outside == ""
    assert [one.class_changes for one in compared] == [False, True, False]
    assert class_changes(compared) == 1
    intercept, first = SHIPPED.rad_score.intercept, SHIPPED.features[0].coefficient
    assert compared[0].after.rad_score == pytest.approx(intercept + 4.0 * first)


def test_a_patient_outside_a_models_range_is_shown_with_the_reason(settings):
    softer = replace(SHIPPED, applicability=replace(SHIPPED.applicability, kvp=(79.0, 81.0)))
    (compared,) = propose(softer, settings, PATIENTS[:1]).comparison
    assert compared.before is not None
    assert compared.before.outside == ""
    assert compared.after.outside == "120 kV is outside 79 to 81 kV"


def test_a_patient_whom_the_node_would_refuse_has_no_class_in_the_comparison(settings):
    """Not by images alone: by the rad-score, by age and by the laboratory's values too."""
    odd = replace(patient("odd", -40.0), age=105.0, alp=900.0, homocysteine=600.0)
    compared = propose(STRICTER, settings, (odd, replace(PATIENTS[2], age=105.0))).comparison
    first = compared[0].after
    assert first.reported_class is None
    for words in (
        "a rad-score of ",
        "Age 105 is outside ",
        "ALP 900 U/L is outside 20 to 180",
        "Homocysteine 600 umol/L is outside 1 to 300",
    ):
        assert words in first.outside
    assert compared[1].after.outside == "Age 105 is outside 50 to 90"


def test_a_patient_who_loses_or_gains_a_class_counts_among_the_changes(settings):
    shape = SHIPPED.term("age")
    terms = tuple(replace(one, axis=(70.0, 90.0)) if one == shape else one for one in SHIPPED.terms)
    older = replace(SHIPPED, name="older", clinical=replace(SHIPPED.clinical, terms=terms))
    lost = propose(older, settings, PATIENTS).comparison
    assert [one.after.reported_class for one in lost] == [None] * 3
    assert class_changes(lost) == 3
    gained = compare_models(older, SHIPPED, PATIENTS, str)
    assert class_changes(gained) == 3
    assert class_changes(compare_models(older, older, PATIENTS, str)) == 0


def test_an_activation_says_who_what_when_why_and_in_place_of_what(settings, switch):
    assert active_model(settings).card == SHIPPED
    switch(STRICTER, reason="retrained on 2025")
    found = active_model(settings)
    assert found.card == STRICTER
    assert found.activation is not None
    assert found.activation == activation_history(settings.storage)[-1]
    assert (found.activation.activated_by, found.activation.activated_at) == ("physicist", WHEN)
    assert found.activation.reason == "retrained on 2025"
    assert found.activation.previous_sha256 == SHIPPED.sha256
    assert [one.class_changes for one in found.activation.comparison] == [False, True, False]


def test_going_back_is_an_activation_and_the_record_only_grows(settings, switch):
    switch(STRICTER)
    (first,) = contents(settings)
    assert previous_card(settings) == SHIPPED
    switch(previous_card(settings))
    assert active_model(settings).card == SHIPPED
    assert contents(settings)[0] == first
    assert previous_card(settings) == STRICTER  # though no file of that name exists
    names = [one.card.name for one in activation_history(settings.storage)]
    assert names == ["stricter", "demonstration"]


def test_going_back_needs_no_card_file(settings, switch):
    """What the record holds is enough: neither the file of the card wanted nor that of `scoring.model`."""
    path = site_card(settings, STRICTER)
    named = settings.model_copy(update={"scoring": settings.scoring.model_copy(update={"model": "ours"})})
    activate(propose(SHIPPED, named, PATIENTS), named, at=WHEN, by="physicist", reason="")
    site_card(settings, replace(STRICTER, version="edited"))
    assert previous_card(named) == STRICTER
    assert find_card(STRICTER.sha256[:8], named) == STRICTER
    switch(STRICTER)
    path.unlink()
    assert previous_card(named) == SHIPPED


def test_a_record_of_the_hash_alone_is_gone_back_by_the_card_of_the_settings(settings, switch):
    """As records of earlier versions are."""
    switch(STRICTER)
    known = json.loads(contents(settings)[0])
    del known["previous_card"]
    rewrite(settings, json.dumps(known))
    assert previous_card(settings) == SHIPPED


def test_an_edited_card_file_changes_nothing_until_it_is_activated(settings, switch):
    path = site_card(settings, replace(STRICTER, name="ours"))
    switch(find_card("ours", settings))
    edited = json.loads(path.read_text("utf-8"))
    edited["clinical"]["intercept"] = 99.0
    path.write_text(json.dumps(edited), "utf-8")
    assert active_model(settings).card == replace(STRICTER, name="ours")
    path.unlink()
    assert active_model(settings).card == replace(STRICTER, name="ours")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('"intercept": ', '"intercept": 1', "pins the card"),
        ('"card_sha256": "', '"card_sha256": "0', "pins the card"),
        ('"previous_sha256": "', '"previous_sha256": "0', "pins the card"),
        ('"activated_at"', '"activated_on"', "is damaged"),
        ('{"activated_at"', '"activated_at"', "is damaged"),
    ],
)
def test_a_card_that_is_not_the_one_pinned_is_refused_with_its_finding(
    settings, switch, before, after, words
):
    """And the model that the settings name does not step into its place."""
    switch(STRICTER)
    (text,) = contents(settings)
    assert before in text
    rewrite(settings, text.replace(before, after, 1))
    found = active_model(settings)
    assert found.card is None
    assert found.refusal is not None
    assert found.refusal.code == "model_not_pinned"
    assert words in str(found.refusal.values["reason"])
    basis = load_reporting_rules(settings)
    assert (basis.card, basis.card_refusal) == (None, found.refusal)


def test_a_file_of_an_earlier_version_is_in_force_before_and_after_it_is_taken_over(settings, switch):
    switch(STRICTER)
    switch(SHIPPED)
    earlier = contents(settings)
    shutil.rmtree(settings.storage.root)
    cut = earlier[0][:50]  # what a power cut left of a third
    path = file_of_earlier_versions(settings, "".join(f"{one}\n" for one in earlier) + cut)
    before = activation_history(settings.storage)
    assert [one.card for one in before] == [STRICTER, SHIPPED]
    assert list(settings.storage.root.iterdir()) == [path.parent]  # looking makes no database
    kept = path.read_bytes()
    assert contents(settings) == earlier
    assert activation_history(settings.storage) == before
    assert path.read_bytes() == kept
    switch(STRICTER)
    assert contents(settings)[:2] == earlier
    assert active_model(settings).card == STRICTER


def test_a_file_is_taken_over_once_even_where_the_database_is_lost(settings, switch, capsys):
    switch(STRICTER)
    (line,) = contents(settings)
    shutil.rmtree(settings.storage.root)
    path = file_of_earlier_versions(settings, f"{line}\n")
    assert contents(settings) == (line,)
    for lost in settings.storage.root.glob("osteonode.sqlite3*"):
        lost.unlink()
    assert active_model(settings).card == SHIPPED
    assert contents(settings) == ()
    assert "not_in_force" not in capsys.readouterr().out
    path.write_text(f"{line}\n{line}\n", "utf-8")  # by an earlier version, which is told so in the log
    assert contents(settings) == ()
    assert "activation_by_an_earlier_version_is_not_in_force" in capsys.readouterr().out


@pytest.mark.parametrize("damaged", [b"{}\n", b"\n", b"\xff\x00\n"])
def test_a_damaged_line_is_taken_over_as_it_is_and_scores_nobody(settings, damaged):
    file_of_earlier_versions(settings, "").write_bytes(damaged)
    for _ in range(2):
        found = active_model(settings)
        assert found.refusal is not None
        assert "activation 1 of the record is damaged" in str(found.refusal.values["reason"])
        contents(settings)


def test_an_activation_after_a_damaged_one_puts_a_model_in_force_again(settings, switch):
    switch(STRICTER)
    rewrite(settings, "{}")
    require_change(STRICTER, settings)
    switch(STRICTER)
    assert active_model(settings).card == STRICTER
    assert contents(settings)[0] == "{}"


def test_while_the_database_does_not_answer_no_model_is_taken_for_the_active_one(settings, switch):
    switch(STRICTER)
    away = settings.model_copy(
        update={
            "storage": settings.storage.model_copy(
                update={"database_url": "postgresql+psycopg://127.0.0.1:1/x"}
            )
        }
    )
    with pytest.raises(StoreUnavailable):
        active_model(away)


def test_of_two_who_compare_at_the_same_time_the_second_must_compare_again(settings):
    mine, theirs = propose(STRICTER, settings, PATIENTS), propose(STRICTER, settings, PATIENTS)
    activate(theirs, settings, at=WHEN, by="another", reason="")
    with pytest.raises(ActivationConflict):
        activate(mine, settings, at=WHEN, by="physicist", reason="")
    assert [one.activated_by for one in activation_history(settings.storage)] == ["another"]


def test_no_model_in_the_settings_is_no_model_whatever_was_activated(settings, switch):
    switch(STRICTER)
    none = settings.model_copy(update={"scoring": settings.scoring.model_copy(update={"model": ""})})
    found = active_model(none)
    assert (found.card, found.refusal) == (None, None)
    with pytest.raises(NotActivated, match="gives no rad-score"):
        require_usable(STRICTER, none)


def test_a_card_of_other_feature_settings_or_unknown_features_is_not_activated(settings):
    with pytest.raises(NotActivated, match="other settings"):
        require_usable(replace(SHIPPED, radiomics_settings_sha256="ab" * 32), settings)
    strange = replace(SHIPPED.features[0], name="original_glcm_Unheard")
    with pytest.raises(NotActivated, match="original_glcm_Unheard"):
        require_usable(replace(SHIPPED, rad_score=replace(SHIPPED.rad_score, features=(strange,))), settings)


def test_the_active_card_is_not_activated_again_but_the_settings_one_may_be_pinned(settings, switch):
    require_change(SHIPPED, settings)
    switch(SHIPPED)
    with pytest.raises(NotActivated, match="active model already"):
        require_change(SHIPPED, settings)


def test_a_card_is_named_by_catalogue_file_or_hash(settings, switch, tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(card_document(STRICTER)), "utf-8")
    assert find_card(str(path), settings) == STRICTER
    switch(STRICTER)
    path.unlink()
    assert find_card(STRICTER.sha256[:8], settings) == STRICTER
    assert find_card("demonstration", settings) == SHIPPED
    path.write_text('{"schema": "osteonode-model-card"}', "utf-8")
    with pytest.raises(NotActivated, match="missing"):
        find_card(str(path), settings)


def run(tmp_path: Path, *arguments: str) -> Any:
    config = tmp_path / "node.toml"
    config.write_text(f'[storage]\nroot = "{tmp_path / "var"}"\n', "utf-8")
    return CliRunner().invoke(build(["model"]), ["model", *arguments, "--config", str(config)])


def test_the_command_compares_on_measured_reference_studies_switches_and_goes_back(tmp_path, monkeypatch):
    measured = tuple(measure_patients(load_settings(), (CASES[2],)))  # whose probability lies about a half
    monkeypatch.setattr(command, "measure_patients", lambda settings, cases: measured)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(card_document(STRICTER)), "utf-8")
    compared = run(tmp_path, "compare", str(path))
    assert compared.exit_code == 0, compared.output
    assert "CLASS CHANGES" in compared.stdout
    assert not (tmp_path / "var").exists()  # looking changes nothing
    assert "0 have none by stricter" in compared.stdout
    terms = tuple(replace(one, axis=(20.0, 30.0)) if one.name == "age" else one for one in SHIPPED.terms)
    young = tmp_path / "young.json"
    young.write_text(
        json.dumps(
            card_document(replace(SHIPPED, name="young", clinical=replace(SHIPPED.clinical, terms=terms)))
        ),
        "utf-8",
    )
    refused = run(tmp_path, "compare", str(young)).stdout
    assert "CLASS LOST" in refused
    assert "1 have none by young" in refused
    assert f"Age {CASES[2].age_years} is outside 20 to 30 ({CASES[2].name})" in refused
    switched = run(tmp_path, "activate", str(path), "--by", "physicist", "--reason", "test")
    assert switched.exit_code == 0, switched.output
    assert f"sha256 {STRICTER.sha256}" in switched.stdout
    assert "stricter" in run(tmp_path, "history").stdout
    again = run(tmp_path, "activate", str(path))
    assert (again.exit_code, "active model already" in again.output) == (1, True)
    back = run(tmp_path, "rollback")
    assert back.exit_code == 0, back.output
    assert f"sha256 {SHIPPED.sha256}" in back.stdout
    (listed,) = [line for line in run(tmp_path, "list").stdout.splitlines() if line.startswith("*")]
    assert SHIPPED.sha256[:12] in listed


def test_a_study_is_scored_by_the_activated_card_which_its_result_names_and_by_no_other(
    tmp_path, settings, switch
):
    study = tmp_path / "study"
    write_reference_study(study, StudySpec.reduced(view=("L2", "L4")))
    doubled = replace(
        STRICTER, rad_score=replace(SHIPPED.rad_score, intercept=SHIPPED.rad_score.intercept + 1.0)
    )
    used = unchecked(storage={"root": str(settings.storage.root)})
    before = Run(study, study / "truth_mask.nii.gz", settings=used, files=False).result
    switch(doubled)
    after = Run(study, study / "truth_mask.nii.gz", settings=used, files=False).result
    assert before["provenance"]["model_sha256"] == SHIPPED.sha256
    assert after["provenance"]["model_sha256"] == doubled.sha256
    assert after["rad_score"] == pytest.approx(before["rad_score"] + 1.0)
    switch(previous_card(settings))
    back = Run(study, study / "truth_mask.nii.gz", settings=used, files=False).result
    for answer in ("rad_score", "nomogram"):
        assert back[answer] == before[answer]
    assert back["provenance"]["model_sha256"] == SHIPPED.sha256

    with closing(open_store(settings.storage)) as store, store.database.writing() as connection:
        number = activations.c.number == 2
        content = connection.execute(select(activations.c.content).where(number)).scalar_one()
        changed = content.replace('"card_sha256": "', '"card_sha256": "f', 1)
        connection.execute(update(activations).where(number).values(content=changed))
    refused = Run(study, study / "truth_mask.nii.gz", settings=used, files=False)
    assert "model_not_pinned" in refused.codes
    assert "no_model" not in refused.codes
    assert (refused.result["rad_score"], refused.result["nomogram"]) == (None, None)
    assert refused.result["provenance"]["model_sha256"] is None
    assert refused.result["levels"]["L3"]["bmd_mg_cm3"] == before["levels"]["L3"]["bmd_mg_cm3"]


def test_check_tells_a_pinned_card_from_one_that_an_edit_would_change(settings, switch):
    def model_line() -> Line:
        return next(line for line in examine(named) if line.what == "model")

    real = replace(STRICTER, name="ours", demonstration=False, notice="")
    site_card(settings, real)
    named = settings.model_copy(update={"scoring": settings.scoring.model_copy(update={"model": "ours"})})
    assert model_line().standing is CheckStatus.WARNING
    assert "not activated" in model_line().detail
    switch(real)
    assert model_line().standing is CheckStatus.OK
    assert model_line().detail.endswith("activated 2026-03-01 by physicist")
    rewrite(settings, "{}")
    assert model_line().standing is CheckStatus.FAILED
    assert "damaged" in model_line().detail
