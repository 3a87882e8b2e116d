"""Whose studies a model is neither made from nor judged by: everyone who is left out is told of."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from scoring.models.card import parse_model_card
from tests.unit.research_cohort import (
    NAMES,
    OTHER_SETTINGS,
    PATIENTS,
    SETTINGS_TEXT,
    Files,
    run,
    table,
    write,
    write_cohort,
    write_features,
)

pytestmark = pytest.mark.slow

Row = dict[str, str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_cohort(tmp_path_factory.mktemp("cohort"), 5)


@pytest.fixture(scope="module")
def model(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on two thirds of the patients, as their table says."""
    out = tmp_path_factory.mktemp("model")
    found = run("train", split(files), "--out", out, "--features", files.features, "--bootstrap", 0)
    assert found.exit_code == 0, found.output
    return out / "model.json"


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_cohort(tmp_path_factory.mktemp("others"), 6)


def split(files: Files) -> Path:
    rows = [row | {"split": "test" if number % 3 == 0 else "train"} for number, row in enumerate(files.rows)]
    return write(files.folder / "split.csv", rows)


def changed(files: Files, name: str, change: Callable[[int, Row], Row]) -> Path:
    """The table of features with cells that `change` gives for the row of that number."""
    path = write_features(files.folder / f"{name}.csv", files.values)
    write(path, [row | change(number, row) for number, row in enumerate(table(path))])
    return path


def flat(text: str) -> str:
    return " ".join(unescape(text).split())


def evaluate(model: Path, cohort: Path, features: Path, out: Path) -> tuple[dict[str, str], str, str]:
    """Who is left out and why, the page, and what the console says."""
    found = run("evaluate", model, cohort, "--out", out, "--features", features)
    assert found.exit_code == 0, found.output
    left_out = {row["patient"]: row["reason"] for row in table(out / "tables" / "left_out.csv")}
    return left_out, flat((out / "index.html").read_text("utf-8")), flat(found.output)


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({"kvp": "140.0"}, "140 kV is outside 119 to 121 kV"),
        ({"kvp": ""}, "the tube voltage is not stated"),
        ({"energy": "virtual 70 keV"}, "the energy type is virtual 70 keV; conventional is required"),
        ({"beam_filter": "tin"}, "the spectral filter is tin; none is required"),
        ({"slice_spacing_mm": "5.0"}, "slices 5 mm apart are outside 0.95 to 1.05 mm"),
        ({"pixel_spacing_mm": "0.3"}, "pixels of 0.3 mm are outside 0.665 to 0.735 mm"),
        ({"equivalent": "K2HPO4"}, "densities are in K2HPO4; the model's labels are based on HA"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_study_that_the_node_would_not_score_is_not_judged(model, others, tmp_path, cells, told):
    features = changed(others, "other-technique", lambda number, _: cells if number == 4 else {})
    left_out, page, console = evaluate(model, others.cohort, features, tmp_path)
    assert left_out["p4"] == told
    assert told in page
    assert told in console


def test_nobody_is_judged_whose_studies_all_lie_outside_the_cards_technique(model, others, tmp_path):
    features = changed(others, "all-140", lambda *_: {"kvp": "140.0"})
    found = run("evaluate", model, others.cohort, "--out", tmp_path, "--features", features)
    assert found.exit_code == 2
    assert "0 with osteoporosis and 0 with osteopenia can be judged" in flat(found.output)
    assert "p1: 140 kV is outside 119 to 121 kV" in flat(found.output)


def test_values_beyond_the_cards_axes_give_no_probability_and_are_not_judged(model, others, tmp_path):
    rows = [row | ({"age": "105"} if number == 4 else {}) for number, row in enumerate(others.rows)]
    rows[5] |= {"homocysteine_umol_l": ""}
    cohort = write(others.folder / "old.csv", rows)
    left_out, page, _ = evaluate(model, cohort, others.features, tmp_path)
    assert left_out["p4"].startswith("Age 105 is outside the model's range")
    assert left_out["p5"].startswith("Not available: Homocysteine")
    assert "not judged: the nomogram gives no probability" in page
    assert ".;" not in page


def test_a_training_judges_whom_an_evaluation_of_its_card_would_judge(files, tmp_path):
    """The same patients, reasons and numbers: a test part is as new to the card as another cohort."""
    rows = [
        row | {"split": "test" if number % 3 == 0 or row["label"] == "normal" else "train"}
        for number, row in enumerate(files.rows)
    ]
    rows[3] |= {"age": "105"}
    rows[6] |= {"homocysteine_umol_l": ""}
    cohort = write(files.folder / "judged.csv", rows)
    names = NAMES[1], NAMES[4]  # what tells the classes apart
    features = changed(
        files, "judged-wild", lambda number, _: dict.fromkeys(names, "1e6") if number == 9 else {}
    )
    found = run("train", cohort, "--out", tmp_path / "a", "--features", features, "--bootstrap", 0)
    assert found.exit_code == 0, found.output
    told = {row["patient"]: row["reason"] for row in table(tmp_path / "a" / "tables" / "left_out.csv")}
    assert told["p3"].startswith("Age 105 is outside the model's range")
    assert told["p6"].startswith("Not available: Homocysteine")
    assert "a rad-score of" in told["p9"]
    page = flat((tmp_path / "a" / "index.html").read_text("utf-8"))
    without = "patients are not judged: the nomogram gives no probability (table left_out)"
    for words in (page, flat(found.output)):
        assert f"{len(told) - 1} {without}" in words
    card = (tmp_path / "a" / "model_card.md").read_text("utf-8")
    assert f"{len(told) - 1} of the test part have no probability" in card

    left_out, _, _ = evaluate(tmp_path / "a" / "model.json", cohort, features, tmp_path / "b")
    assert told == {name: why for name, why in left_out.items() if why != "the table's split: trains"}
    trained, evaluated = (
        {row["model"]: row for row in table(tmp_path / folder / "tables" / f"performance_{name}.csv")}
        for folder, name in (("a", "test"), ("b", "evaluation"))
    )
    for name in ("radiomics", "combined"):
        assert trained[name].keys() == evaluated[name].keys()
        for column, cell in trained[name].items():
            same = cell == evaluated[name][column]
            assert same or float(cell) == pytest.approx(float(evaluated[name][column]), rel=1e-9), column
    assert table(tmp_path / "a" / "tables" / "subgroups.csv") == table(
        tmp_path / "b" / "tables" / "subgroups.csv"
    )


def test_a_test_part_beyond_the_cards_axes_ends_the_training(files, tmp_path):
    rows = [
        row | ({"split": "test", "age": "105"} if number % 3 == 0 else {"split": "train"})
        for number, row in enumerate(files.rows)
    ]
    cohort = write(files.folder / "old-test.csv", rows)
    found = run("train", cohort, "--out", tmp_path, "--features", files.features)
    assert found.exit_code == 2
    assert "0 with osteoporosis and 0 with osteopenia can be judged by this model" in flat(found.output)
    assert "p3: Age 105 is outside" in flat(found.output)
    assert not (tmp_path / "model.json").exists()


def test_an_implausible_rad_score_is_not_judged(model, others, tmp_path):
    card = parse_model_card(model.read_text("utf-8"))
    features = changed(
        others, "wild", lambda number, _: {card.features[0].name: "1e6"} if number == 4 else {}
    )
    left_out, _, _ = evaluate(model, others.cohort, features, tmp_path)
    assert "a rad-score of" in left_out["p4"]


def test_patients_who_trained_are_left_out_by_their_studies_whatever_they_are_called(model, files, tmp_path):
    elsewhere = table(files.features)
    moved = tmp_path / "moved"
    moved.mkdir()
    features = write_features(moved / "features.csv", files.values)
    write(
        features,
        [row | {"study": f"case{number}"} for number, row in enumerate(elsewhere)],
    )
    cohort = write(
        moved / "cohort.csv",
        [row | {"patient": f"q{number}", "study": f"case{number}"} for number, row in enumerate(files.rows)],
    )
    left_out, page, console = evaluate(model, cohort, features, tmp_path / "out")
    trained = {
        f"q{number}" for number, row in enumerate(files.rows) if number % 3 and row["label"] != "normal"
    }
    assert {name for name, why in left_out.items() if "trained on this study" in why} == trained
    assert "the model was trained on this study" in page
    assert "the model was trained on this study" in console


def test_a_card_that_does_not_tell_its_studies_is_said_not_to(model, others, tmp_path):
    document = json.loads(model.read_text("utf-8"))
    del document["training"]["studies"]
    (tmp_path / "model.json").write_text(json.dumps(document), "utf-8")
    told = "The card does not state which studies trained it"
    _, page, console = evaluate(tmp_path / "model.json", others.cohort, others.features, tmp_path / "out")
    assert told in page
    assert told in console
    assert told not in evaluate(model, others.cohort, others.features, tmp_path / "known")[1]


def test_patients_whom_the_table_calls_training_patients_are_left_out(model, others, tmp_path):
    left_out, _, _ = evaluate(model, split(others), others.features, tmp_path)
    marked = {row["patient"] for row in table(others.folder / "split.csv") if row["split"] == "train"}
    assert {name for name, why in left_out.items() if why == "the table's split: trains"} == marked
    (row, _) = table(tmp_path / "tables" / "performance_evaluation.csv")
    assert int(row["patients"]) <= PATIENTS - len(marked)


def test_the_evaluations_page_tells_labels_kinship_and_who_has_no_features(model, others, tmp_path):
    features = changed(others, "half", lambda number, _: {"reason": "no L3"} if number % 2 else {})
    left_out, page, console = evaluate(model, others.cohort, features, tmp_path)
    assert sum(reason == "no L3" for reason in left_out.values()) == PATIENTS // 2
    assert f"{PATIENTS // 2} x no L3" in page
    assert f"{PATIENTS // 2} x no L3" in console
    assert "This cohort's labels: class as the cohort's table states it." in page
    assert "derive from the same HU that the features measure" in page


def test_training_tells_the_console_who_is_left_out(files, tmp_path):
    features = changed(files, "few", lambda number, _: {"reason": "no L3"} if number < 7 else {})
    found = run("train", files.cohort, "--out", tmp_path, "--features", features, "--bootstrap", 0)
    assert found.exit_code == 0, found.output
    assert "7 patients are left out (table left_out): 7 x no L3" in flat(found.output)
    assert "Positive class throughout: osteoporosis." in flat(found.output)


def test_a_test_part_by_another_technique_is_left_out_of_the_trainings_validation(files, tmp_path):
    strange = set(range(0, PATIENTS, 6))
    features = changed(files, "part-140", lambda number, _: {"kvp": "140.0"} if number in strange else {})
    found = run("train", split(files), "--out", tmp_path, "--features", features, "--bootstrap", 0)
    assert found.exit_code == 0, found.output
    left_out = {row["patient"]: row["reason"] for row in table(tmp_path / "tables" / "left_out.csv")}
    outside = {name for name, why in left_out.items() if why == "140 kV is outside 119 to 121 kV"}
    assert outside == {f"p{number}" for number in strange}
    (judged, *_) = table(tmp_path / "tables" / "performance_test.csv")
    low = [number for number, row in enumerate(files.rows) if row["label"] != "normal" and number % 3 == 0]
    assert int(judged["patients"]) == len(set(low) - strange) - (len(left_out) - len(strange))


def test_a_test_part_that_the_model_does_not_cover_at_all_ends_the_training(files, tmp_path):
    features = changed(files, "test-140", lambda number, _: {} if number % 3 else {"kvp": "140.0"})
    found = run("train", split(files), "--out", tmp_path, "--features", features)
    assert found.exit_code == 2
    assert "the model covers none of the studies to test: p0: 140 kV" in flat(found.output)


def test_tube_voltages_with_none_between_make_no_range(files, tmp_path):
    features = changed(files, "two-kvp", lambda number, _: {"kvp": "80" if number % 2 else "120"})
    found = run("train", files.cohort, "--out", tmp_path, "--features", features)
    assert found.exit_code == 2
    assert "at 80 and at 120 kV, none between" in flat(found.output)


@pytest.mark.parametrize("cells", [{"energy": "virtual 70 keV"}, {"beam_filter": "tin"}])
def test_images_of_two_spectra_train_no_model(files, tmp_path, cells):
    features = changed(files, "two-spectra", lambda number, _: cells if number % 2 else {})
    found = run("train", files.cohort, "--out", tmp_path, "--features", features)
    assert found.exit_code == 2
    assert "are of different spectra" in flat(found.output)
    assert next(iter(cells.values())) in flat(found.output)


def test_a_model_of_one_virtual_energy_states_it_and_covers_no_other(files, tmp_path):
    features = changed(files, "virtual", lambda *_: {"energy": "virtual 60 keV"})
    found = run("train", files.cohort, "--out", tmp_path, "--features", features, "--bootstrap", 0)
    assert found.exit_code == 0, found.output
    card = parse_model_card((tmp_path / "model.json").read_text("utf-8"))
    assert card.applicability.energy == "virtual 60 keV"
    found = run("evaluate", tmp_path / "model.json", files.cohort, "--out", tmp_path / "e",
                "--features", files.features)  # fmt: skip
    assert found.exit_code == 2
    assert "the energy type is conventional; virtual 60 keV is required" in flat(found.output)


def test_a_table_that_is_silent_on_energy_counts_as_conventional_and_that_is_told(files, tmp_path):
    path = changed(files, "silent", lambda *_: {})
    write(path, [{k: v for k, v in row.items() if k not in ("energy", "beam_filter")} for row in table(path)])
    found = run("train", files.cohort, "--out", tmp_path, "--features", path, "--bootstrap", 0)
    assert found.exit_code == 0, found.output
    assert f"{PATIENTS} studies of the table state no energy type" in flat(found.output)
    assert parse_model_card((tmp_path / "model.json").read_text("utf-8")).applicability.energy == "single"


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("kvp", "nan"),
        ("kvp", "120 kV"),
        ("slice_spacing_mm", "-1"),
        ("pixel_spacing_mm", "inf"),
        ("equivalent", "CaCO3"),
    ],
)
def test_a_technique_that_cannot_be_is_named_with_its_study(files, tmp_path, column, cell):
    features = changed(files, "odd", lambda number, _: {column: cell} if number == 3 else {})
    found = run("train", files.cohort, "--out", tmp_path, "--features", features)
    assert found.exit_code == 2
    assert f"{column} of {files.folder / 'study3'} ({cell!r})" in flat(found.output)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "null",
        '{"radiomics_settings_sha256": "s", "packages": {}}',
        '{"radiomics_settings_sha256": "s", "packages": {}, "radiomics_settings": "binWidth: 25"}',
        "{",
    ],
)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_settings_beside_the_features_that_say_nothing_are_refused(model, files, tmp_path, command, text):
    features = write_features(files.folder / "bare.csv", files.values)
    features.with_name("bare.csv.json").write_text(text)
    cards = [model] if command == "evaluate" else []
    found = run(command, *cards, files.cohort, "--out", tmp_path, "--features", features)
    assert found.exit_code == 2
    assert "bare.csv.json" in flat(found.output)


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("spoil", ["no study column", "other folders", "no study readable"])
def test_a_cohort_of_whom_nobody_has_features_is_refused(model, files, tmp_path, command, spoil):
    rows = [dict(row) for row in files.rows]
    features = files.features
    if spoil == "no study column":
        rows = [{name: cell for name, cell in row.items() if name != "study"} for row in rows]
    elif spoil == "other folders":
        rows = [row | {"study": f"elsewhere/{row['study']}"} for row in rows]
    else:
        empty = dict.fromkeys(NAMES, "")
        features = changed(files, "unread", lambda *_: empty | {"reason": "holds no DICOM file"})
    cohort = write(files.folder / "nobody.csv", rows)
    cards = [model] if command == "evaluate" else []
    found = run(command, *cards, cohort, "--out", tmp_path, "--features", features)
    assert found.exit_code == 2
    assert "no patient has features: p0: " in flat(found.output)


def test_relative_studies_count_from_the_tables_own_folder(model, others, tmp_path, monkeypatch):
    features = changed(others, "relative", lambda number, _: {"study": f"study{number}"})
    monkeypatch.chdir(tmp_path)
    left_out, _, _ = evaluate(model, others.cohort, features, tmp_path / "out")
    assert "no features of this study" not in left_out.values()


@pytest.mark.parametrize("spoil", ["itself", "a copy", "one name", "other settings", "other studies"])
def test_a_repeat_that_is_no_second_reading_of_the_same_studies_is_refused(files, tmp_path, spoil):
    values = files.values + np.random.default_rng(3).normal(size=files.values.shape)
    folders = [files.folder / name for name in ("second", "third")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    studies = {number: row["study"] for number, row in enumerate(table(files.features))}
    uids = {number: row["study_instance_uid"] for number, row in enumerate(table(files.features))}

    def again(folder: Path, read: np.ndarray, radiomics_settings: str = SETTINGS_TEXT) -> Path:
        path = write_features(folder / "again.csv", read, radiomics_settings=radiomics_settings)
        same = [
            row | {"study": studies[number], "study_instance_uid": uids[number]}
            for number, row in enumerate(table(path))
        ]
        return write(path, same)

    repeats = [again(folders[0], values)]
    if spoil == "itself":
        repeats, told = [files.features], "cannot be its own repeat"
    elif spoil == "a copy":
        repeats, told = [again(folders[0], files.values)], "its masks are not repeated ones"
    elif spoil == "one name":
        repeats.append(again(folders[1], values + 1.0))
        told = "more than one is named again"
    elif spoil == "other settings":
        again(folders[0], values, OTHER_SETTINGS)
        told = "other radiomics settings"
    else:
        rows = table(repeats[0])
        rows[2]["study_instance_uid"] = "2.25.2"
        write(repeats[0], rows)
        told = f"of other studies than these: {rows[2]['study']}"
    options = [part for path in repeats for part in ("--repeat", path)]
    found = run("train", files.cohort, "--out", tmp_path, "--features", files.features, *options)
    assert found.exit_code == 2
    assert told in flat(found.output)
    assert not (tmp_path / "model.json").exists()
