"""Chinese pages: no English but names, every sign drawn, the same bytes; SR and JSON are English."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256

import pytest

from config.phrases import load_phrases
from node.dicom.encode import encode_report
from node.dicom.sc import words
from node.dicom.sc.answer_page import compose_answer, compose_refusal
from node.dicom.sc.calibration_page import compose_fit
from node.dicom.sc.images import compose_overlay
from node.dicom.sc.layout import LATIN, Page, lines_of
from node.dicom.sc.nomogram_page import compose_nomogram
from node.result_document import ResultDocument
from node.store.states import Reopening
from scoring.calibration import INTERNAL, PATIENT_TISSUES
from scoring.calibration.methods import LEAST_SQUARES, MINDWAYS, TWO_POINT
from scoring.calibration.spectrum import Tissue
from scoring.density.bmd import DensityCategory
from scoring.models.card import NEGATIVE_CLASS

pytestmark = pytest.mark.slow

_CLOSING = "，。、；：？！）》”,.;:?!)]}%"

# Abbreviations that Chinese reports use as they are, and units.
_ABBREVIATIONS = frozenset(
    (
        "QCT",
        "BMD",
        "DXA",
        "WHO",
        "Xie",
        "UTC",
        "ISCD",
        "HPO",
        "mol",
        "Osteonode",
        "Genant",
        "Mindways",
        "Model",
    )
)


def _text(page: Page) -> str:
    return "\n".join(text for text, _ in page.text_boxes())


@pytest.fixture(scope="module")
def chinese_pages(study, variants, to_chinese, chinese_typeface) -> dict[tuple[str, str], Page]:
    report, refused = to_chinese(study.report), to_chinese(variants["refused"])
    without, graded = to_chinese(variants["laboratory missing"]), to_chinese(variants["density category"])
    font = chinese_typeface
    return {
        ("complete", "answer"): compose_answer(report, font),
        ("complete", "nomogram"): compose_nomogram(report, font),
        ("complete", "calibration"): compose_fit(report, study.series.volume, font),
        ("complete", "overlay"): compose_overlay(
            report, study.series.volume, study.vertebrae, study.regions, font
        ),
        ("refused", "refusal"): compose_refusal(refused, font),
        ("laboratory missing", "nomogram"): compose_nomogram(without, font),
        ("density category", "answer"): compose_answer(graded, font),
    }


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            *(*Reopening, *DensityCategory, NEGATIVE_CLASS, "osteoporosis"),
            *(*Tissue, PATIENT_TISSUES, INTERNAL, TWO_POINT, LEAST_SQUARES, MINDWAYS, "water"),
            *("Rad-score", "Age", "ALP", "Alkaline phosphatase", "Homocysteine"),  # as cards label their axes
        }
    ),
)
def test_a_term_of_results_is_said_in_chinese_and_as_it_is_in_english(name):
    assert words.term(load_phrases("en"), name) == name
    assert re.search("[\u4e00-\u9fff]", words.term(load_phrases("zh"), name))


def test_a_name_that_is_no_term_stays_as_it_is():
    assert words.term(load_phrases("zh"), "B-MAS 200") == "B-MAS 200"


def test_a_chinese_page_has_no_english_but_names(study, chinese_pages):
    report = study.report
    names = " ".join(
        (
            report.reference.name,
            report.reference.population,
            report.calibration.phantom_named,
            *(rod.name for rod in report.calibration.rods if rod.name != "water"),
            report.provenance.model,
            report.provenance.model_sha256,
            report.provenance.configuration_sha256,
            report.provenance.engine.name,
            report.series.manufacturer,
            report.series.model,
            "ALP homocysteine",  # values that a finding fills in
        )
    )
    for key, page in chinese_pages.items():
        for word in re.findall(r"[A-Za-z]{3,}", _text(page)):
            assert word in _ABBREVIATIONS or word in names, (key, word)


def test_chinese_pages_say_what_english_ones_say(chinese_pages):
    answer = _text(chinese_pages["density category", "answer"])
    for shown in ("仅供研究使用", "软件初步结果，未经审核", "QCT 骨密度分类 = 骨量减低", "82.9 至 88.3",
                  "L1 与 L2 平均值：85.1 mg/cm³", "T 值 −3.03", "Z 值 −0.92", "椎体中心松质骨",
                  "研究规则（Xie 2022）：骨质疏松", "影像组学评分 0.81", "体模同步扫描",
                  "不得用于临床"):  # fmt: skip
        assert shown in answer, shown
    nomogram = _text(chinese_pages["complete", "nomogram"])
    for shown in (
        "列线图",
        "碱性磷酸酶",
        "同型半胱氨酸",
        "68 岁",
        "骨质疏松（相对于骨量减少，按 T 值规则）的概率为 88 %",
    ):
        assert shown in nomogram, shown
    assert "缺少数据：未计算列线图" in _text(chinese_pages["laboratory missing", "nomogram"])
    assert "未测量：不报告骨密度" in _text(chinese_pages["refused", "refusal"])


def test_every_sign_of_a_chinese_page_is_drawn(chinese_pages):
    for key, page in chinese_pages.items():
        assert "?" not in _text(page), key


def test_chinese_greek_and_accented_names_are_drawn_on_a_page_of_either_language(
    study, to_chinese, chinese_typeface
):
    name = "北京協和醫院 Ελλάδα Ærøskøbing Łódź ČŠŽ e\u0301"
    report = replace(study.report, reference=replace(study.report.reference, name=name))
    for one in (report, to_chinese(report)):
        assert name.replace(" ", "") in re.sub(r"\s", "", _text(compose_answer(one, chinese_typeface)))


def test_without_its_font_an_english_page_shows_a_question_mark_for_a_chinese_sign(study):
    report = replace(study.report, reference=replace(study.report.reference, name="协和 Ελλάδα"))
    assert "?? Ελλάδα" in _text(compose_answer(report, LATIN))


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("骨密度，不予给出。", ["骨密度，", "不予给", "出。"]),
        ("骨质量（松质骨）", ["骨质量", "（松质", "骨）"]),
        ("扫描 5 层 mm", ["扫描 5", "层 mm"]),
        ("椎体L1与L2相邻", ["椎体L1", "与L2相", "邻"]),
        ("ABCDEF椎体", ["ABCD", "EF椎体"]),
    ],
)
def test_chinese_wraps_between_any_two_signs_but_not_at_punctuation(words, lines):
    assert lines_of(words, lambda line: len(line) <= 4) == lines


def test_no_line_of_a_chinese_page_begins_with_closing_punctuation(chinese_pages):
    for key, page in chinese_pages.items():
        for text, _ in page.text_boxes():
            assert text[0] not in _CLOSING, (key, text)


def test_english_wraps_at_spaces_alone():
    assert lines_of("no density is given", lambda line: len(line) <= 10) == ["no density", "is given"]


def test_a_suspected_fracture_leads_the_page_in_either_language(
    study, describe_finding, to_chinese, chinese_typeface
):
    told = describe_finding("fracture_in_spine", levels="L1, L4")
    report = replace(study.report, findings=(*study.report.findings, told), study_class=None)
    orders = (
        (report, ("Vertebral fracture suspected", "QCT density category", "BMD, mg", "T-score", "Z-score")),
        (to_chinese(report), ("怀疑椎体骨折", "QCT 骨密度分类", "骨密度，mg", "T 值", "Z 值")),
    )
    for one, order in orders:
        boxes = compose_answer(one, chinese_typeface).text_boxes()
        tops = [min(box.top for text, box in boxes if text.startswith(lead)) for lead in order]
        assert tops == sorted(tops)
        assert len(set(tops)) == len(tops)


def test_a_normal_category_that_is_withheld_is_explained_beside_its_headline(
    study, describe_finding, to_chinese, chinese_typeface
):
    told = describe_finding("fracture_not_assessed", step_mm=5.0, percent=40)
    report = replace(study.report, density=None, study_class=None, findings=(told,))
    for one, headline, reason in (
        (report, "QCT density category: not reported", "Image spacing of 5.0 mm"),
        (to_chinese(report), "QCT 骨密度分类：不予报告", "图像间距 5.0 mm"),
    ):
        boxes = compose_answer(one, chinese_typeface).text_boxes()
        top = next(box.top for text, box in boxes if text.startswith(headline))
        assert min(box.top for text, box in boxes if text.startswith(reason) and box.top > top) < top + 60
        assert not any("正常" in text and "“正常”" not in text for text, _ in boxes)


def test_fractures_of_single_levels_lead_where_nothing_is_said_of_the_spine(study, describe_finding):
    told = describe_finding("fracture_suspected", level="L4", percent=22, shape="wedge", grade=1)
    report = replace(study.report, findings=(*study.report.findings, told))
    first = next(text for text, box in compose_answer(report).text_boxes() if text.startswith("L4:"))
    assert first.startswith(
        "L4: vertebral height loss of 22 % (wedge). A fracture is suspected (Genant grade 1)."
    )


def test_structured_report_and_result_are_the_same_whatever_the_language(study, to_chinese, chinese_typeface):
    chinese = to_chinese(study.report)
    headers = study.series.headers
    ours, theirs = (
        {one.file_name: one.content for one in encode_report(one, headers, typeface=chinese_typeface).objects}
        for one in (study.report, chinese)
    )
    assert ours["report.dcm"] == theirs["report.dcm"]
    assert ours["nomogram-1-answer.dcm"] != theirs["nomogram-1-answer.dcm"]
    assert ResultDocument.of(study.report, {}).to_text() == ResultDocument.of(chinese, {}).to_text()


_ELSEWHERE = """
import sys
from hashlib import sha256
from pathlib import Path
from node.dicom.sc.layout import Page
from node.dicom.sc.layout import Typeface
page = Page(Typeface(wide=Path(sys.argv[1])))
page.text(20, 20, "QCT 骨密度分类 = Ελλάδα", size=28, bold=True)
print(sha256(page.pixels().tobytes()).hexdigest())
"""


def test_a_page_has_the_same_bytes_whatever_matplotlib_remembers_of_fonts(tmp_path, chinese_typeface):
    page = Page(chinese_typeface)
    page.text(20, 20, "QCT 骨密度分类 = Ελλάδα", size=28, bold=True)
    environment = os.environ | {"MPLCONFIGDIR": str(tmp_path)}
    elsewhere = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(chinese_typeface.wide)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert elsewhere.stdout.strip() == sha256(page.pixels().tobytes()).hexdigest()
