"""`osteonode train` and `evaluate` on patients who do not exist: everything that they leave behind."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from node.research.extraction import made_with_sha256
from scoring.models.applicability import input_observations
from scoring.models.card import apply_nomogram, parse_model_card, rad_score
from tests.unit.research_cohort import (
    NAMES,
    OTHER_SETTINGS,
    PATIENTS,
    Files,
    run,
    table,
    write,
    write_cohort,
    write_features,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    return write_cohort(tmp_path_factory.mktemp("cohort"), 5)


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory) -> Path:
    rng = np.random.default_rng(9)
    repeated = files.values + rng.normal(size=files.values.shape)
    repeated[:, 30] = rng.normal(size=len(repeated)) * 10 + 50  # nothing left of this feature
    again = write_features(files.folder / "again.csv", repeated)
    out = tmp_path_factory.mktemp("trained")
    command = ("train", files.cohort, "--out", out, "--features", files.features, "--repeat", again)
    found = run(*command, "--bootstrap", 2, figures=True)
    assert found.exit_code == 0, found.output
    return out


def test_the_card_finds_what_tells_the_classes_apart(trained):
    card = parse_model_card((trained / "model.json").read_text("utf-8"))
    assert {NAMES[1], NAMES[4]} <= {one.name for one in card.features}
    assert card.term("age").coefficient > 0
    assert card.applicability.kvp == (119.0, 121.0)
    assert (card.applicability.energy, card.applicability.beam_filter) == ("single", "none")
    assert card.label == "class as the cohort's table states it"
    assert card.training["penalty"] == "lambda.1se"
    assert "(0 of 2 resamples gave no model)" in card.training["train_auc_radiomics_less_optimism"]


def test_every_table_and_figure_is_there_and_the_page_holds_them_all(trained):
    tables = {path.stem for path in (trained / "tables").iterdir()}
    assert tables >= {
        "table1_train", "table1_test", "agreement_again", "rad_score", "mrmr", "lasso_path",
        "logistic_clinical", "logistic_combined", "performance_train", "performance_test", "delong_train",
        "delong_test", "hosmer_lemeshow_train", "hosmer_lemeshow_test", "subgroups", "optimism", "missing",
        "left_out",
    }  # fmt: skip
    figures = {path.name for path in (trained / "figures").iterdir()}
    for name in (
        "roc_train",
        "roc_test",
        "calibration_train",
        "calibration_test",
        "decision_train",
        "decision_test",
        "rad_score",
        "lasso_path",
        "lasso_deviance",
        "nomogram",
    ):
        assert {f"{name}.png", f"{name}.svg"} <= figures
    page = (trained / "index.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == len(figures) // 2
    assert "Positive class throughout: osteoporosis." in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_page_stands_a_wide_table_upright_so_that_no_number_is_cut_off(trained):
    page = (trained / "index.html").read_text("utf-8")
    lines = [line for line in page.splitlines() if "<tr>" in line]
    assert max(line.count("<td>") + line.count("<th>") for line in lines) <= 8
    briers = [line for line in lines if "<th>brier</th>" in line]
    assert [line.count("<td>") for line in briers] == [3, 3]  # each model's, of both parts


def test_table_1_tests_each_variable_between_the_classes_of_its_part(trained, files):
    rows = {row["variable"]: row for row in table(trained / "tables" / "table1_test.csv")}
    assert list(rows) == ["sex", "age", "alp_u_l", "homocysteine_umol_l", "calcium_mmol_l"]
    told = {split: table(trained / "tables" / f"table1_{split}.csv") for split in ("train", "test")}
    counts = [
        [
            int(part.split(" ")[0])
            for cell in (row["osteoporosis"], row["osteopenia"])
            for part in cell.split(", ")
        ]
        for row in (told["train"][0], told["test"][0])
    ]
    low = [row for row in files.rows if row["label"] != "normal"]
    everybody = [
        sum((row["label"], row["sex"]) == (label, sex) for row in low)
        for label in ("osteoporosis", "osteopenia")
        for sex in "FM"
    ]
    assert [sum(pair) for pair in zip(*counts, strict=True)] == everybody
    assert rows["sex"]["test"] == "chi-squared"
    found = chi2_contingency(np.reshape(counts[1], (2, 2)), correction=False)
    assert float(rows["sex"]["p"]) == pytest.approx(found.pvalue)
    assert {row["test"] for name, row in rows.items() if name != "sex"} <= {"Welch t", "Mann-Whitney U"}


def test_both_models_give_odds_ratios_with_intervals_and_the_card_their_coefficients(trained):
    card = parse_model_card((trained / "model.json").read_text("utf-8"))
    for name, terms in (("clinical", []), ("combined", ["rad_score"])):
        intercept, *rows = table(trained / "tables" / f"logistic_{name}.csv")
        assert intercept["odds_ratio"] == intercept["odds_ratio_95"] == ""
        assert [row["term"] for row in rows] == [*terms, "age", "alp_u_l", "homocysteine_umol_l"]
        for row in rows:
            value, error = float(row["coefficient"]), float(row["standard_error"])
            assert float(row["odds_ratio"]) == pytest.approx(np.exp(value))
            ends = [float(end) for end in row["odds_ratio_95"].split(" to ")]
            assert ends == pytest.approx(
                np.exp([value - 1.959964 * error, value + 1.959964 * error]), rel=1e-3
            )
    assert [float(row["coefficient"]) for row in rows] == [one.coefficient for one in card.terms]


def test_nothing_of_the_test_part_enters_the_model(files, tmp_path):
    """Selection, means and SDs, coefficients, axes and cut-offs are the training patients' alone; the axes of
    age and laboratory those of the patients without gaps, to whom the combined model was fitted."""
    low = [row for row in files.rows if row["label"] != "normal"]
    rows = [row | {"split": "train" if at < 90 else "test"} for at, row in enumerate(low)]
    rows[0] |= {"age": "", "alp_u_l": "600"}
    tested = [int(row["study"].removeprefix("study")) for row in rows[90:]]
    values = files.values.copy()
    values[tested] = values[tested[::-1]] * 1.1 + 3.0
    values[tested[0], 1] = 5000.0
    other = [row | ({"age": "66", "alp_u_l": "85"} if row["split"] == "test" else {}) for row in rows]
    other[-1] |= {"homocysteine_umol_l": "200"}
    made = []
    for name, patients, read in (("as-is", rows, files.values), ("changed", other, values)):
        cohort = write(files.folder / f"{name}.csv", patients)
        features = write_features(files.folder / f"{name}-features.csv", read)
        found = run("train", cohort, "--out", tmp_path / name, "--features", features, "--bootstrap", 0)
        assert found.exit_code == 0, found.output
        made.append(json.loads((tmp_path / name / "model.json").read_text("utf-8")))
    first, second = made
    assert first["training"]["test_auc_combined"] != second["training"]["test_auc_combined"]
    for document in made:
        document["training"] = {
            key: value for key, value in document["training"].items() if not key.startswith("test_")
        }
    assert first == second
    learnt = files.values[[int(row["study"].removeprefix("study")) for row in rows[:90]]]
    for one in first["rad_score"]["features"]:
        column = learnt[:, NAMES.index(one["name"])]
        assert (one["mean"], one["sd"]) == pytest.approx((column.mean(), column.std(ddof=1)))
    axes = {one["name"]: one["axis"] for one in first["clinical"]["terms"]}
    for name, column in (("age", "age"), ("alp", "alp_u_l"), ("homocysteine", "homocysteine_umol_l")):
        known = [float(row[column]) for row in rows[1:90]]
        assert axes[name] == [min(known), max(known)]


def test_the_card_for_people_has_tripods_items_and_the_page_says_the_same(trained):
    told = (trained / "model_card.md").read_text("utf-8")
    card = parse_model_card((trained / "model.json").read_text("utf-8"))
    for heading in (
        "Intended use", "Source of data, setting, dates", "Participants", "Outcome", "Circularity",
        "Predictors", "Missing data", "Statistical method", "Model", "Performance", "Optimism", "Limitations",
    ):  # fmt: skip
        assert f"**{heading}.**" in told
    assert "derive from the same HU that the features measure" in told
    assert "The site states this" in told
    accepted = "age 18 to 110, alp_u_l 5 to 2000, homocysteine_umol_l 1 to 300, calcium_mmol_l 0.5 to 5."
    assert f"Accepted: {accepted}" in told  # the label is stated: no T-score
    assert f"sha256 {card.sha256}" in told
    assert all(f"{one.coefficient:+.4g} x {one.name}" in told for one in (*card.features, *card.terms))
    page = unescape((trained / "index.html").read_text("utf-8"))
    paragraphs = [line.partition(".** ")[2] for line in told.splitlines() if line.startswith("**")]
    assert all(paragraph in page for paragraph in paragraphs)


def test_a_feature_that_observers_do_not_agree_on_is_left_out(trained):
    by_name = {row["feature"]: float(row["icc"]) for row in table(trained / "tables" / "agreement_again.csv")}
    assert by_name[NAMES[30]] < 0.81 < by_name[NAMES[1]]
    for row in table(trained / "tables" / "agreement_again.csv"):
        lower, upper = (float(end) for end in row["icc_95"].split(" to "))
        assert lower < float(row["icc"]) < upper
        assert int(row["studies"]) == PATIENTS
    card = json.loads((trained / "model.json").read_text("utf-8"))
    assert card["training"]["features_kept"] == len(NAMES) - 1
    assert "ICC(2,1)" in card["training"]["agreement"]


def test_a_feature_stays_only_where_every_repeat_agrees_on_it(files, tmp_path):
    """One observer twice and two observers: each repeat has its table, and each takes features away."""
    rng = np.random.default_rng(13)
    repeats = []
    for name, spoilt in (("intra", 20), ("inter", 30)):
        read = files.values + rng.normal(size=files.values.shape)
        read[:, spoilt] = rng.normal(size=PATIENTS) * 10 + 50
        repeats += ["--repeat", write_features(files.folder / f"{name}.csv", read)]
    command = ("train", files.cohort, "--out", tmp_path, "--features", files.features, "--bootstrap", 0)
    found = run(*command, *repeats)
    assert found.exit_code == 0, found.output
    for name, spoilt in (("intra", 20), ("inter", 30)):
        rows = table(tmp_path / "tables" / f"agreement_{name}.csv")
        assert [row["feature"] for row in rows if float(row["icc"]) < 0.81] == [NAMES[spoilt]]
    card = json.loads((tmp_path / "model.json").read_text("utf-8"))
    assert card["training"]["features_kept"] == len(NAMES) - 2
    ranked = {row["feature"] for row in table(tmp_path / "tables" / "mrmr.csv")}
    assert ranked.isdisjoint({NAMES[20], NAMES[30]})


def test_performance_names_its_positive_class_and_its_counts_add_up(trained):
    for row in table(trained / "tables" / "performance_test.csv"):
        assert row["positive_class"] == "osteoporosis"
        assert sum(int(row[name]) for name in ("tp", "fn", "fp", "tn")) == int(row["patients"])
        assert int(row["tp"]) + int(row["fn"]) == int(row["positives"])
        assert float(row["sensitivity"]) == int(row["tp"]) / int(row["positives"])
    freedoms = {
        split: {
            row["degrees_of_freedom"] for row in table(trained / "tables" / f"hosmer_lemeshow_{split}.csv")
        }
        for split in ("train", "test")
    }
    assert freedoms == {"train": {"8"}, "test": {"10"}}


def test_patients_with_normal_bone_train_nothing_and_are_compared(trained, files):
    card = json.loads((trained / "model.json").read_text("utf-8"))
    counted = sum(
        card["training"][f"{split}_{label}"]
        for split in ("train", "test")
        for label in ("osteoporosis", "osteopenia")
    )
    assert counted == sum(row["label"] != "normal" for row in files.rows)
    pairs = {
        (row["positive_class"], row["negative_class"]) for row in table(trained / "tables" / "subgroups.csv")
    }
    assert pairs == {
        ("osteoporosis", "osteopenia"),
        ("osteoporosis", "normal"),
        ("osteoporosis or osteopenia", "normal"),
        ("osteopenia", "normal"),
    }


def test_the_same_seed_gives_the_same_bytes(files, tmp_path):
    outs = [tmp_path / "one", tmp_path / "two"]
    command = ("train", files.cohort, "--features", files.features, "--bootstrap", 0)
    for out in outs:
        found = run(*command, "--out", out, figures=True)
        assert found.exit_code == 0, found.output
    written = [{p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} for out in outs]
    assert written[0] == written[1]


@pytest.mark.parametrize("left", ["model.json", "index.html", "tables"])
def test_a_folder_with_an_earlier_runs_outputs_is_not_used_again(trained, files, tmp_path, left):
    """Its agreement table would stand beside "not assessed", its model beside a refusal."""
    path = tmp_path / left
    path.mkdir() if left == "tables" else path.write_text("earlier", "utf-8")
    for command in (["train"], ["evaluate", trained / "model.json"]):
        found = run(*command, files.cohort, "--out", tmp_path, "--features", files.features)
        assert found.exit_code == 2
        assert f"an earlier run left ({left}): name another folder" in " ".join(found.output.split())
    assert [one.name for one in tmp_path.iterdir()] == [left]


def test_both_penalties_are_reported_and_the_used_one_is_the_models(trained):
    chosen = {row["choice"]: row for row in table(trained / "tables" / "lasso_path.csv") if row["choice"]}
    assert set(chosen) == {"lambda.min", "lambda.1se"}
    assert float(chosen["lambda.1se"]["lambda"]) > float(chosen["lambda.min"]["lambda"])
    card = parse_model_card((trained / "model.json").read_text("utf-8"))
    assert int(chosen["lambda.1se"]["features"]) == len(card.features)


def test_a_table_with_its_own_split_and_folds_is_obeyed_and_gaps_are_told(files, tmp_path):
    low = [row for row in files.rows if row["label"] != "normal"]
    rows = [
        row | {"split": "train" if number < 90 else "test", "fold": str(number % 5)}
        for number, row in enumerate(low)
    ]
    gaps = dict.fromkeys(("age", "sex", "alp_u_l", "homocysteine_umol_l"), "")
    rows[-1] |= gaps
    rows[-2] |= {"alp_u_l": ""}
    cohort = write(files.folder / "split.csv", rows)
    command = ("train", cohort, "--out", tmp_path, "--features", files.features, "--bootstrap", 0)
    found = run(*command, "--penalty", "lambda.min")
    assert found.exit_code == 0, found.output
    card = json.loads((tmp_path / "model.json").read_text("utf-8"))
    assert card["training"]["penalty"] == "lambda.min"
    (row,) = [one for one in table(tmp_path / "tables" / "lasso_path.csv") if "lambda.min" in one["choice"]]
    assert int(row["features"]) == len(card["rad_score"]["features"])
    assert card["training"]["split"] == "the table's own"
    assert card["training"]["folds"] == "the table's own"
    left_out = {row["patient"]: row["reason"] for row in table(tmp_path / "tables" / "left_out.csv")}
    assert left_out[rows[-1]["patient"]] == "4 values missing"
    assert left_out[rows[-2]["patient"]].startswith("Not available: ALP.")
    assert all("is outside the model's range" in why for why in list(left_out.values())[1:-1])
    missing = {row["column"]: row["patients"] for row in table(tmp_path / "tables" / "missing.csv")}
    assert (missing["age"], missing["alp_u_l"], missing["calcium_mmol_l"]) == ("1", "2", "0")
    (judged,) = [
        row for row in table(tmp_path / "tables" / "performance_test.csv") if row["model"] == "combined"
    ]
    assert int(judged["patients"]) == len(rows) - 90 - len(left_out)
    assert card["training"]["train_osteoporosis"] + card["training"]["train_osteopenia"] == 90


def test_evaluation_on_new_patients_gives_what_the_card_gives_each_of_them(trained, tmp_path):
    new = write_cohort(tmp_path / "new", 6)
    command = ("evaluate", trained / "model.json", new.cohort, "--features", new.features)
    found = run(*command, "--out", tmp_path / "out", figures=True)
    assert found.exit_code == 0, found.output
    card = parse_model_card((trained / "model.json").read_text("utf-8"))
    (row,) = [
        row
        for row in table(tmp_path / "out" / "tables" / "performance_evaluation.csv")
        if row["model"] == "combined"
    ]
    positives = judged = 0
    for patient, values in zip(new.rows, new.values, strict=True):
        if patient["label"] == "normal":
            continue
        score = rad_score(card, dict(zip(NAMES, values.tolist(), strict=True))).value
        inputs = {
            "rad_score": score,
            "age": float(patient["age"]),
            "alp": float(patient["alp_u_l"]),
            "homocysteine": float(patient["homocysteine_umol_l"]),
        }
        if input_observations(card.terms, **inputs):
            continue  # the node gives no probability either
        result = apply_nomogram(card, **inputs)
        judged += 1
        positives += result.probability >= card.training["cutoff_combined"]
    assert int(row["tp"]) + int(row["fp"]) == positives
    assert int(row["patients"]) == judged > 100
    assert float(row["auc"]) > 0.7
    assert "combined: AUC" in found.output
    assert "Positive class throughout: osteoporosis." in found.output
    assert float(row["cutoff"]) == card.training["cutoff_combined"]
    figures = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    of_models = ("roc_evaluation", "calibration_evaluation", "decision_evaluation")
    names = {f"{name}.{kind}" for name in (*of_models, "rad_score") for kind in ("png", "svg")}
    assert figures == names
    assert {path.stem for path in (tmp_path / "out" / "tables").iterdir()} == {
        "performance_evaluation", "delong_evaluation", "hosmer_lemeshow_evaluation", "subgroups", "left_out",
    }  # fmt: skip
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 4
    assert "Positive class throughout: osteoporosis." in page

    found = run(*command, "--out", tmp_path / "other", "--cutoff", "0.9")
    assert found.exit_code == 0, found.output
    for other in table(tmp_path / "other" / "tables" / "performance_evaluation.csv"):
        assert other["cutoff"] == "0.9"
        assert other["model"] != "combined" or int(other["tp"]) < int(row["tp"])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda rows: [row | {"label": "osteoporosis"} for row in rows], "0 with osteopenia"),
        (lambda rows: [*rows, rows[0]], "p0: occurs twice"),
        (lambda rows: [*rows[1:], rows[1] | {"patient": "again"}], "these patients share a study: p1, again"),
        (lambda rows: rows[:10], "10 of each are needed"),
        (lambda rows: [rows[0] | {"age": "nan"}, *rows[1:]], "p0: age is not a number: 'nan'"),
        (
            lambda rows: [row | {"split": "train" if row["label"] == "normal" else "test"} for row in rows],
            "leaves no patients to train on",
        ),
        (
            lambda rows: [
                row | {"split": "train" if row["label"] == "osteoporosis" else "test"} for row in rows
            ],
            "a class has 0 patients to train on",
        ),
        (lambda rows: [row | {"fold": "1"} for row in rows], "three folds"),
        (
            lambda rows: [
                row | {"fold": str(["normal", "osteopenia", "osteoporosis"].index(row["label"]))}
                for row in rows
            ],
            "three folds",
        ),
    ],
    ids=[
        "one class",
        "a patient twice",
        "a study twice",
        "ten patients",
        "not a number",
        "nobody trains",
        "one class trains",
        "one fold",
        "folds by class",
    ],
)
def test_a_bad_cohort_gets_a_clear_error(files, tmp_path, spoil, told):
    cohort = write(files.folder / "bad.csv", spoil(files.rows))
    found = run("train", cohort, "--out", tmp_path, "--features", files.features)
    assert found.exit_code == 2
    assert told in found.output
    assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize("sign", [";", "\t"])
def test_a_table_with_other_signs_than_commas_is_told_so(files, tmp_path, sign):
    odd = files.folder / "odd.csv"
    odd.write_text(files.cohort.read_text("utf-8").replace(",", sign), "utf-8")
    found = run("train", odd, "--out", tmp_path, "--features", files.features)
    assert found.exit_code == 2
    assert f"separated by {sign!r} instead of commas" in " ".join(found.output.split())


def test_a_constant_feature_gets_a_clear_error(files, tmp_path):
    values = files.values.copy()
    values[:, 7] = 3.0
    constant = write_features(files.folder / "constant.csv", values)
    found = run("train", files.cohort, "--out", tmp_path, "--features", constant)
    assert found.exit_code == 2
    assert NAMES[7] in found.output


@pytest.mark.parametrize("cell", ["nan", "inf", "", "much"])
def test_a_feature_that_is_no_number_is_named_with_its_study(files, tmp_path, cell):
    spoilt = write_features(files.folder / "spoilt.csv", files.values)
    rows = table(spoilt)
    rows[3][NAMES[7]] = cell
    write(spoilt, rows)
    found = run("train", files.cohort, "--out", tmp_path, "--features", spoilt)
    assert found.exit_code == 2
    assert f"{NAMES[7]} of {files.folder / 'study3'} ({cell!r})" in found.output.replace("\n", "")
    assert not (tmp_path / "model.json").exists()


def test_a_study_under_two_folders_is_one_study(files, tmp_path):
    copied = write_features(files.folder / "copied.csv", files.values)
    write(
        copied,
        [
            row | {"study_instance_uid": "2.25.7"} if at in (2, 5) else row
            for at, row in enumerate(table(copied))
        ],
    )
    found = run("train", files.cohort, "--out", tmp_path, "--features", copied)
    assert found.exit_code == 2
    assert "these patients share a study: p2, p5" in found.output


def test_a_table_of_features_with_a_study_twice_is_refused(files, tmp_path):
    doubled = write_features(files.folder / "doubled.csv", files.values)
    write(doubled, [*table(doubled), table(doubled)[4]])
    found = run("train", files.cohort, "--out", tmp_path, "--features", doubled)
    assert found.exit_code == 2
    assert f"holds these studies twice: {files.folder / 'study4'}" in found.output


def test_a_feature_that_no_second_mask_changes_at_all_is_named(files, tmp_path):
    same = files.values.copy()
    same[:, 7] = 3.0
    first = write_features(files.folder / "same.csv", same)
    again = write_features(files.folder / "same-again.csv", np.where(same == 3.0, 3.0, same + 0.1))
    found = run("train", files.cohort, "--out", tmp_path, "--features", first, "--repeat", again)
    assert found.exit_code == 2
    assert NAMES[7] in found.output


@pytest.mark.parametrize("option", ["--name", "--version"])
def test_a_model_without_a_name_or_version_is_not_made(files, tmp_path, option):
    found = run("train", files.cohort, "--out", tmp_path, "--features", files.features, option, " ")
    assert found.exit_code == 2
    assert "must not be empty" in found.output
    assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize(
    "name", ["my_feature", "wavelet-HHH_glcm_Nonsense", "wavelet-LLL_shape_Sphericity", "log_glcm_Idn"]
)
def test_a_feature_that_the_tables_settings_do_not_give_is_refused(files, tmp_path, name):
    """Its card would be refused where it is to be activated."""
    features = write_features(files.folder / "strange.csv", files.values)
    features.write_text(features.read_text("utf-8").replace(NAMES[1], name), "utf-8")
    found = run("train", files.cohort, "--out", tmp_path, "--features", features)
    assert found.exit_code == 2
    assert f"columns that are not features of these settings: {name}" in " ".join(found.output.split())
    assert not (tmp_path / "model.json").exists()


def test_a_hash_beside_the_table_that_is_not_of_the_settings_there_is_refused(files, tmp_path):
    features = write_features(files.folder / "hash.csv", files.values)
    beside = features.with_name("hash.csv.json")
    made = json.loads(beside.read_text("utf-8")) | {"radiomics_settings": OTHER_SETTINGS}
    beside.write_text(json.dumps(made), "utf-8")
    write(features, [row | {"settings_sha256": made_with_sha256(made)} for row in table(features)])
    found = run("train", files.cohort, "--out", tmp_path, "--features", features)
    assert found.exit_code == 2
    assert "radiomics_settings_sha256 is not of radiomics_settings" in " ".join(found.output.split())


def test_settings_beside_the_table_that_are_not_its_own_are_refused(files, tmp_path):
    features = write_features(files.folder / "swapped.csv", files.values)
    beside = features.with_name("swapped.csv.json")
    beside.write_text(beside.read_text("utf-8").replace("3.0.1", "3.1.0"), "utf-8")
    found = run("train", files.cohort, "--out", tmp_path, "--features", features)
    assert found.exit_code == 2
    assert "is not of the settings that the table's features" in " ".join(found.output.split())


def test_features_of_other_settings_are_not_judged(trained, files, tmp_path):
    other = write_features(files.folder / "other.csv", files.values, radiomics_settings=OTHER_SETTINGS)
    found = run("evaluate", trained / "model.json", files.cohort, "--out", tmp_path, "--features", other)
    assert found.exit_code == 2
    assert "other settings" in found.output
