"""config/findings.toml: words, severities and consequences."""

from __future__ import annotations

import re
from string import Formatter

import pytest

from config.findings import (
    FOLLOWS,
    Finding,
    Output,
    Severity,
    UnknownFinding,
    load_findings,
    parse_findings,
    withheld,
)
from config.phrases import in_english
from node.pipeline.artefacts import from_json
from scoring.calibration.control_charts import QUANTITIES, SIGNALS
from scoring.density.scores import GRADES, REGIONS
from scoring.models.applicability import label_phrase
from segmentation.phrase import listed, phrase
from segmentation.vertebrae import Observation

WORDS = [*SIGNALS.values(), *QUANTITIES.values(), *GRADES.values(), *REGIONS.values()]

TABLE = load_findings()


@pytest.mark.parametrize("code", sorted(TABLE.rows))
def test_a_row_withholds_what_cannot_stand_without_what_it_withholds(code):
    row = TABLE.rows[code]
    for output in row.withholds:
        assert FOLLOWS.get(output, frozenset()) <= row.withholds, output


@pytest.mark.parametrize("code", sorted(TABLE.rows))
def test_a_row_names_its_hazard_and_reads_as_a_sentence(code):
    row = TABLE.rows[code]
    assert row.hazard.endswith(".")
    assert row.text["en"].rstrip().endswith((".", "}"))


@pytest.mark.parametrize("code", sorted(TABLE.rows))
def test_a_row_says_the_same_in_every_language(code):
    """Each language fills in what English does; no shipped row lacks one."""
    text = TABLE.rows[code].text
    assert set(text) == {"en", "zh"}
    filled = {
        language: {name for _, name, _, _ in Formatter().parse(said) if name}
        for language, said in text.items()
    }
    assert filled["zh"] == filled["en"]
    assert not re.search(r"[,;?!] |\.$", text["zh"]), "Chinese text has Chinese punctuation"


def test_a_finding_is_english_and_has_besides_what_the_site_reads():
    told = TABLE.describe(Observation(code="body_truncated", level="L4"), "zh")
    assert told.text == "L4 is incomplete in the image. It is not measured."
    assert told.shown == "L4 在图像中不完整，未测量。"
    english = TABLE.describe(Observation(code="body_truncated", level="L4"))
    assert english.shown == english.text == told.text
    assert english.local_text is None


@pytest.mark.parametrize(
    ("code", "values", "shown"),
    [
        (
            "laboratory_missing",
            {"names": listed([label_phrase("ALP"), label_phrase("Homocysteine")])},
            "缺少：碱性磷酸酶、同型半胱氨酸。",
        ),
        (
            "menopause_unknown",
            {"taken": phrase("taken-postmenopausal")},
            "按绝经后（50 岁及以上）处理",
        ),
        (
            "not_available",
            {"outputs": listed([phrase("output-t-score"), phrase("output-density-category")])},
            "未给出：T 值、骨密度分类。",
        ),
        ("kernel_unknown", {"kernel": "Qr59d, 3"}, "重建核（Qr59d, 3）"),
        ("sharp_kernel", {"kernel": "B70f"}, "重建核 B70f 为"),
    ],
)
def test_words_that_a_finding_fills_in_are_the_sites_and_names_stay(code, values, shown):
    told = TABLE.describe(Observation(code=code, values=values), "zh")
    assert shown in told.shown
    assert all(in_english(value) in told.text for value in values.values())


@pytest.mark.parametrize("word", WORDS)
def test_every_signal_quantity_grade_and_region_that_a_finding_may_name_has_its_words(word):
    told = TABLE.describe(Observation(code="not_available", values={"outputs": word}), "zh")
    assert re.search("[A-Za-z]", told.shown.replace("CUSUM", "")) is None


def test_a_slice_without_a_level_is_named_in_the_sites_language():
    told = TABLE.describe(Observation(code="slice_body_not_found", level="slice 2"), "zh")
    assert told.shown.startswith("切片 2：")
    assert told.text.startswith("slice 2: ")


def test_a_sites_row_without_the_sites_language_is_shown_in_english(tmp_path):
    row = '[body_truncated]\nseverity = "caution"\nwithholds = []\nhazard = "Half a body."\n'
    (tmp_path / "findings.toml").write_text(row + 'text.en = "{level} is cut off."\n')
    told = load_findings(tmp_path).describe(Observation(code="body_truncated", level="L4"), "zh")
    assert told.shown == "L4 is cut off."


def test_a_finding_kept_by_an_earlier_version_still_loads():
    kept = b'{"code": "no_model", "severity": "info", "text": "No model.", "level": null, "withholds": []}'
    assert from_json(Finding, kept).shown == "No model."


def test_normal_goes_with_category_and_class_and_nothing_follows_from_it():
    """A row that withholds it alone leaves low density, osteopenia and osteoporosis."""
    assert Output.NORMAL not in FOLLOWS
    assert not any(Output.NORMAL in following for following in FOLLOWS.values())
    assert TABLE.rows["fracture_not_assessed"].withholds == {Output.NORMAL}
    for text in TABLE.rows["fracture_not_assessed"].text.values():
        assert "normal" in text or "正常" in text


def test_a_refusal_withholds_density():
    refusals = [row for row in TABLE.rows.values() if row.severity is Severity.REFUSAL]
    assert refusals
    assert all(Output.BMD in row.withholds for row in refusals)


def test_an_observation_fills_its_text():
    finding = TABLE.describe(Observation(code="water_rod_off", values={"hu": 31, "limit": 15}))
    assert finding.text == "The water rod measures 31 HU (limit 15 HU). Density is not reported."
    assert not any(field for _, field, _, _ in Formatter().parse(finding.text) if field)


def test_an_unknown_code_is_an_error_not_a_silence():
    with pytest.raises(UnknownFinding):
        TABLE.describe(Observation(code="no_such_code"))


def test_a_finding_at_one_level_withholds_there_alone():
    finding = TABLE.describe(Observation(code="body_truncated", level="L5"))
    assert withheld([finding], Output.BMD, ["L5"])
    assert not withheld([finding], Output.BMD, ["L3"])


def test_a_finding_about_the_study_withholds_everywhere():
    finding = TABLE.describe(Observation(code="phantom_not_found", values={"phantom": "x"}))
    assert withheld([finding], Output.BMD, ["L3"])
    assert not withheld([finding], Output.VOLUME, ["L3"])


def test_a_site_may_reword_a_row_but_not_invent_an_output(tmp_path):
    row = 'severity = "info"\nwithholds = []\nhazard = "None."\ntext.en = "Ours."\n'
    (tmp_path / "findings.toml").write_text(f"[not_dxa]\n{row}", "utf-8")
    assert load_findings(tmp_path).rows["not_dxa"].text["en"] == "Ours."
    with pytest.raises(ValueError, match="dose"):
        parse_findings('[x]\nseverity = "info"\nwithholds = ["dose"]\nhazard = "h."\ntext.en = "t."\n')
