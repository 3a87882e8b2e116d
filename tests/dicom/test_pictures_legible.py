"""Every page can be read: nothing is cut off, nothing overlaps, nobody is named, nothing is claimed."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from node.dicom.sc import layout
from node.dicom.sc.answer_page import compose_answer
from node.dicom.sc.layout import CORNER_HEIGHT, CORNER_WIDTH, FOOTER_RULE, HEIGHT, MARGIN, WIDTH, Box, Page
from node.dicom.sc.nomogram_page import predictor_ticks
from node.study_report import Report
from scoring.calibration import Grade, Mineral
from scoring.models.card import NomogramAxis
from segmentation.vertebrae import RegionKind
from tests.dicom.drawn import boxes_of, pages_of, six_rods, words_of_page

pytestmark = pytest.mark.slow

_INK_SLACK = 1.0  # pixels: antialiasing
_TITLES = (
    ("Lumbar QCT: bone density", "Nomogram", "Measured regions", "Calibration"),
    ("腰椎 QCT：骨密度", "列线图", "测量区域", "校准"),
)
_FULLEST = ("fractured, all at once", "noticed at length", "crowded", "crowded refusal")


def _crowded(report: Report, describe_finding) -> Report:
    """As much to say as a bad day brings."""
    findings = (
        describe_finding("contrast_given", agent="Iopromide 370 mg/ml, 100 ml, portal venous phase"),
        describe_finding("level_unconfirmed"),
        *(describe_finding("body_truncated", level=name) for name in ("L4", "L5")),
        *(describe_finding("roi_heterogeneous", level=name, sd_hu=93.4) for name in ("L1", "L2", "L3")),
        *(
            describe_finding("metal_near_body", level=name, volume_mm3=420, limit_hu=2000)
            for name in ("L4", "L5")
        ),
        describe_finding("thick_slices", thickness_mm=10),
        describe_finding("lossy_source", ratio="8"),
        describe_finding("sex_unknown"),
        *report.findings,
    )
    return replace(
        report,
        findings=findings,
        t_score=None,
        z_score=None,
        study_class=None,
        rad_score=None,
        nomogram=None,
        numbering_confirmed=False,
    )


def _wordy(report: Report) -> Report:
    """Long names everywhere that a site may choose them."""
    long = "Long population name of a multi-centre reference with a subtitle and a year, 2019"
    return replace(
        report,
        reference=replace(report.reference, name=long, population="adults of both sexes, all regions"),
        calibration=replace(
            report.calibration, phantom="A phantom with a very long model designation, mark IV"
        ),
        provenance=replace(
            report.provenance,
            model="a-model-with-a-remarkably-long-name-for-a-model-card-v12.3, second training",
            engine=replace(
                report.provenance.engine, name="an-engine-with-a-name-of-several-words", version="1"
            ),
        ),
        series=replace(report.series, kernel="Qr59d 3 iterative strength 5", contrast_agent="Iopromide"),
        predecessor_uid="2.25.1",
        predecessor_issued_at=datetime(2026, 3, 4, 5, 6, tzinfo=UTC),
        amendment_reason="Homocysteine arrived after the report was issued; the nomogram was computed anew",
    )


def _noticed(report: Report, describe_finding, notice: str) -> Report:
    told = describe_finding("model_notice", model="ours", notice=notice)
    kept = [one for one in report.findings if one.code != "demonstration_model"]
    return replace(report, findings=(*kept, told))


def _in_both_regions(report: Report) -> Report:
    """A second density beside each level's, and at one level none."""
    levels = [
        replace(level, ellipse=replace(level.measured, region=RegionKind.ELLIPSE, bmd_mg_cm3=80.25))
        for level in report.levels
    ]
    return replace(report, levels=(replace(levels[0], ellipse=None), *levels[1:]))


def _fractured(report: Report, describe_finding) -> Report:
    """Two fractures: their densities, and whatever rests on all levels, are withheld."""
    told = (
        describe_finding("fracture", level="L1", percent=31, shape="wedge", grade=2),
        describe_finding("fracture_suspected", level="L4", percent=22, shape="biconcave", grade=1),
        describe_finding("fracture_in_spine", levels="L1, L4"),
    )
    first, *others = report.levels
    first = replace(first, measured=replace(first.measured, bmd_mg_cm3=None, bmd_uncertainty_mg_cm3=None))
    findings = (*told, *report.findings)
    return replace(report, findings=findings, levels=(first, *others), study_class=None, density=None)


@pytest.fixture(scope="module")
def reports(study, variants, describe_finding):
    reports = dict(variants)
    reports["both regions"] = _in_both_regions(study.report)
    reports["six rods"] = replace(study.report, calibration=six_rods(study.report.calibration))
    reports["rods of another scan"] = replace(
        study.report,
        calibration=replace(study.report.calibration, grade=Grade.ASYNCHRONOUS, scanned_on=date(2024, 5, 2)),
    )
    reports["contradicted"] = replace(
        study.report,
        findings=(
            *study.report.findings,
            describe_finding("contradiction", probability="88 %", t=-2),
        ),
    )
    reports["noticed"] = _noticed(study.report, describe_finding, "For research; not validated elsewhere")
    reports["noticed at length"] = _noticed(
        reports["contradicted"], describe_finding, "For research in this hospital alone. " * 30
    )
    reports["noticed, no laboratory"] = _noticed(
        variants["laboratory missing"], describe_finding, "For research in this hospital alone. " * 30
    )
    reports["fractured"] = _fractured(study.report, describe_finding)
    reports["fractured, all at once"] = _fractured(_wordy(reports["contradicted"]), describe_finding)
    reports["crowded"] = _crowded(study.report, describe_finding)
    reports["wordy"] = _wordy(study.report)
    reports["crowded refusal"] = replace(
        variants["refused"],
        findings=(
            *variants["refused"].findings,
            *(describe_finding("rod_uneven", rod="bone", sd_hu=88, limit=40) for _ in range(9)),
            *_crowded(study.report, describe_finding).findings,
        ),
    )
    return reports


@pytest.fixture(scope="module")
def pages(study, reports):
    """English pages by variant and name."""
    return {
        (name, page): drawn
        for name, report in reports.items()
        for page, drawn in pages_of(study, report).items()
    }


@pytest.fixture(scope="module")
def every_page(study, reports, pages, to_chinese, chinese_typeface):
    """The same, and all of them in Chinese."""
    chinese = {
        (name, page, "zh"): drawn
        for name, report in reports.items()
        for page, drawn in pages_of(study, to_chinese(report), chinese_typeface).items()
    }
    return pages | chinese


def test_no_text_is_cut_off(every_page):
    for key, page in every_page.items():
        for text, box in boxes_of(page):
            inside = box.left >= 0 and box.top >= 0 and box.right <= WIDTH and box.bottom <= HEIGHT
            assert inside, (key, text, box)


def test_no_ink_lies_in_the_margins(every_page):
    """As drawn, not as measured: hinting widens some lines by a fiftieth."""
    ground = np.array([round(255 * part) for part in to_rgb(layout.BACKGROUND)])
    for (variant, name, *language), page in every_page.items():
        if variant in _FULLEST and name in ("answer", "nomogram", "refusal"):
            pixels = page.pixels()
            for margin in (pixels[:, : MARGIN - 2], pixels[:, WIDTH - MARGIN + 2 :], pixels[-1:]):
                assert (margin == ground).all(), (variant, name, language)


def test_no_text_crosses_the_rule_above_the_footer(every_page):
    for key, page in every_page.items():
        for text, box in boxes_of(page):
            assert box.bottom <= FOOTER_RULE or box.top >= FOOTER_RULE, (key, text, box)


def test_the_footer_names_everything_that_made_the_numbers(reports, every_page):
    for (variant, *_), page in every_page.items():
        footer = "".join(text for text, box in boxes_of(page) if box.top >= FOOTER_RULE)
        made_by = reports[variant].provenance
        for part in (
            made_by.version,
            made_by.model,
            made_by.model_sha256[:8],
            made_by.configuration_sha256[:8],
        ):
            assert part.replace(" ", "") in footer.replace(" ", ""), (variant, part, footer)


def test_no_texts_overlap(every_page):
    for key, page in every_page.items():
        boxes = boxes_of(page)
        for place, (text, box) in enumerate(boxes):
            for other, other_box in boxes[place + 1 :]:
                assert not box.overlaps(other_box, slack=_INK_SLACK), (key, text, other)


def test_no_page_names_the_patient(study, pages):
    identity = study.report.study
    secrets = ("Muster", "Erika", identity.patient_id, identity.accession_number, "1955", "Ward")
    for key, page in pages.items():
        words = words_of_page(page)
        for secret in secrets:
            assert secret not in words, (key, secret)


_BADGES = ("RESEARCH USE ONLY", "仅供研究使用")


def test_every_page_says_research_use_only(every_page):
    for key, page in every_page.items():
        assert _BADGES["zh" in key] in [text for text, _ in boxes_of(page)], key


def test_badge_and_title_keep_clear_of_what_viewers_write_over_the_corners(every_page):
    """And of each other: the badge is the topmost text of every page, the title stands below it."""
    for key, page in every_page.items():
        boxes = sorted(boxes_of(page), key=lambda one: one[1].top)
        for text, box in boxes[:2]:
            assert box.left >= CORNER_WIDTH, (key, text, box)
            assert box.right <= WIDTH - CORNER_WIDTH, (key, text, box)
        (badge, _), (title, title_box) = boxes[:2]
        assert badge == _BADGES["zh" in key], key
        assert title in _TITLES["zh" in key], (key, title)
        assert title_box.bottom - title_box.top >= 14, key  # as large as a heading: legible at 1024 x 768


def test_no_content_begins_in_the_corners(every_page):
    """What leads a page, a category or a refusal, stands below them; above stand lines across the middle."""
    for key, page in every_page.items():
        for text, box in boxes_of(page):
            if box.top < CORNER_HEIGHT - 10:
                middle = (box.left + box.right) / 2
                assert abs(middle - WIDTH / 2) < 2 or text.startswith("AMENDED"), (key, text, box)


def test_every_page_of_an_amended_report_says_which_one_it_replaces(pages):
    for page in ("answer", "nomogram", "overlay", "calibration"):
        words = words_of_page(pages["wordy", page])
        assert "AMENDED, replaces the report of 2026-03-04 05:06 UTC: Homocysteine arrived" in words


def test_demonstrations_are_marked_on_every_page_that_uses_them(pages):
    for page in ("answer", "nomogram", "overlay", "calibration"):
        words = words_of_page(pages["complete", page])
        assert "DEMONSTRATION MODEL - NOT FOR CLINICAL USE" in words
        assert "DEMONSTRATION REFERENCE - NOT FOR CLINICAL USE" in words


def test_a_real_model_is_not_marked_as_a_demonstration(study):
    report = study.report
    report = replace(
        report,
        findings=(),
        reference=replace(report.reference, demonstration=False),
        rad_score=replace(report.rad_score, demonstration=False),
        nomogram=replace(report.nomogram, demonstration=False),
    )
    assert "DEMONSTRATION" not in words_of_page(compose_answer(report))


def test_the_answer_leads_with_the_density_category(pages):
    words = words_of_page(pages["density category", "answer"])
    assert "QCT density category = low bone mass" in words
    assert "mean of L1 and L2: 85.1 mg/cm³" in words


def test_the_answer_says_what_it_rests_on_and_what_was_converted(variants):
    report = variants["density category"]
    assert "phantom in view" in words_of_page(compose_answer(report))
    earlier = replace(report.calibration, grade=Grade.ASYNCHRONOUS)
    density = replace(report.density, converted_from=Mineral.HA)
    words = words_of_page(compose_answer(replace(report, calibration=earlier, density=density)))
    assert "phantom scanned earlier" in words
    assert "converted from HA" in words


def test_a_withheld_category_says_why(pages):
    words = words_of_page(pages["complete", "answer"])
    assert "QCT density category: not reported" in words
    assert "this phantom measures HA. The density category is not reported." in words


def test_the_answer_shows_every_headline_number(pages):
    words = words_of_page(pages["complete", "answer"])
    for shown in ("82.9 to 88.3", "85.6", "84.6", "83.6", "82.6", "81.6", "T-score −3.03", "Z-score −0.92",
                  "Rad-score 0.81",
                  "119.4 points", "88 %", "Study rule, Xie 2022: osteoporosis", "HA equivalent"):  # fmt: skip
        assert shown in words, shown


def test_the_nomogram_shows_this_patients_values(pages):
    words = words_of_page(pages["complete", "nomogram"])
    for shown in (
        "0.8125",
        "60.2",
        "68 years",
        "28.8",
        "84 U/L",
        "11.0",
        "13.5 µmol/L",
        "19.5",
        "119.4",
        "88 %",
    ):
        assert shown in words, shown
    assert "Probability of osteoporosis" in words


def test_a_laboratory_value_carries_its_date_or_says_that_it_has_none(study, pages):
    words = words_of_page(pages["complete", "nomogram"])
    assert "84 U/L on 2024-05-10" in words
    assert "13.5 µmol/L on 2024-05-11" in words
    undated = replace(study.report.laboratory, homocysteine_taken_on=None)
    words = words_of_page(pages_of(study, replace(study.report, laboratory=undated))["nomogram"])
    assert "84 U/L on 2024-05-10" in words
    assert "13.5 µmol/L date not stated" in words


def test_the_probability_says_what_it_is_of_and_stands_beside_the_measured_t(pages):
    words = words_of_page(pages["complete", "nomogram"])
    assert "119.4 points: 88 % for osteoporosis versus osteopenia (T rule)" in words
    assert "Measured T-score −3.03: osteoporosis (T ≤ −2.5)" in words
    assert "88 % for osteoporosis versus osteopenia (T rule)" in words_of_page(pages["complete", "answer"])


def test_where_model_and_measurement_disagree_the_nomogram_says_which_leads(pages):
    words = words_of_page(pages["contradicted", "nomogram"])
    assert "The nomogram (88 % for osteoporosis) and the measured T-score (-2) disagree" in words
    assert "The measurement takes precedence" in words


@pytest.mark.parametrize(
    ("lower", "upper", "points"),
    [
        (40.0, 1370.0, (0.0, 100.0)),
        (40.0, 1370.0, (0.0, 8.0)),
        (6.9, 22.1, (3.0, 0.0)),
        (9.9, 10.1, (0.0, 0.0)),
    ],
)
def test_an_axis_names_two_values_at_least_side_by_side(lower, upper, points):
    """However short a weak predictor's axis is, and however uneven its ends are."""
    page = Page()
    axis = NomogramAxis(
        name="alp", label="ALP", unit="U/L", lower=lower, upper=upper,
        points_at_lower=points[0], points_at_upper=points[1],
    )  # fmt: skip
    ticks = sorted(predictor_ticks(page, axis), key=lambda tick: tick.x)
    assert len(ticks) >= 2
    places = [tick.x + tick.shift for tick in ticks]
    widths = [page.text_width(tick.label, size=13.0) for tick in ticks]
    for at in range(len(ticks) - 1):
        assert places[at + 1] - places[at] >= (widths[at] + widths[at + 1]) / 2 + 4


def test_a_models_notice_stands_on_the_page_of_its_numbers(pages):
    told = "Rad-score and nomogram come from ours: For research; not validated elsewhere"
    assert told in words_of_page(pages["noticed", "nomogram"])
    for name in ("noticed at length", "noticed, no laboratory"):
        words = words_of_page(pages[name, "nomogram"])
        assert "come from ours: For research in this hospital alone." in words
        assert "and more: see the structured report" in words
    assert "The measurement takes precedence" in words_of_page(pages["noticed at length", "nomogram"])


def test_a_missing_laboratory_shows_the_rad_score_alone(pages):
    words = words_of_page(pages["laboratory missing", "nomogram"])
    assert "Not available: nomogram not computed" in words
    assert "ALP, homocysteine" in words
    assert "Rad-score only: 0.81" in words
    assert "119.4" not in words
    assert "%" not in words


def test_a_refusal_shows_its_reason_and_no_density(pages):
    words = words_of_page(pages["refused", "refusal"])
    assert "Not measured: density is not reported" in words
    assert "No calibration phantom of the configured model (Siemens Osteo)" in words
    assert "mg/cm" not in words


def test_withheld_values_are_absent_from_the_page(pages):
    words = words_of_page(pages["crowded", "answer"])
    for absent in ("−3.03", "−0.92", "0.81", "119.4"):
        assert absent not in words
    assert "L1 ?" in words


def test_a_withheld_class_of_the_study_is_said_to_be_withheld(pages):
    assert "Study rule, Xie 2022: not reported, see findings" in words_of_page(pages["fractured", "answer"])


def test_words_shrink_to_their_box_and_an_ellipsis_ends_what_is_cut():
    box = Box(left=24, top=700, right=324, bottom=730)
    for words, lines in (("short", 1), ("several words " * 5, 2), ("far too many words " * 40, 2)):
        page = Page()
        end = page.text_within(box, words, sizes=(16.0, 12.0, 11.0))
        drawn = boxes_of(page)
        assert len(drawn) == lines
        assert end <= box.bottom
        assert all(one.right <= box.right for _, one in drawn)
        assert drawn[-1][0].endswith("…") == (words.startswith("far"))


def test_findings_that_do_not_fit_are_counted(pages):
    words = words_of_page(pages["crowded refusal", "refusal"])
    assert "more: see the structured report" in words


def test_anatomy_carries_orientation_marks(pages):
    marks = [text for text, _ in pages["complete", "overlay"].text_boxes() if len(text) == 1]
    assert sorted(marks) == sorted(["H", "F", "A", "P", "R", "L", "A", "P"])


def test_rods_and_levels_are_named_on_the_overlay(pages):
    words = words_of_page(pages["complete", "overlay"])
    for shown in ("L1", "L5", "0 mg/cm³\nHA", "200 mg/cm³\nHA", "Axial through L3", "50 mm"):
        assert shown in words


def test_the_calibration_page_shows_the_line_and_every_rod_with_its_error(pages):
    words = words_of_page(pages["six rods", "calibration"])
    for shown in ("BMD = 0.77", "HA equivalent", "method: least-squares", "phantom: QRM",
                  "grade: phantom in view",
                  "R² 0.9999", "largest distance 1.8 HU", "not in the fit: HA 600, HA 800", "264.4 ± 0.15",
                  "Rods as read, axial"):  # fmt: skip
        assert shown in words, shown
    for name in (
        "water",
        "HA 100",
        "HA 200",
        "HA 400",
    ):  # by the line, its distance, on the image, in the table
        assert [text for text, _ in boxes_of(pages["six rods", "calibration"])].count(name) == 4
    assert words.count("not in the fit") == 3  # twice in the table


def test_two_rods_state_neither_r_squared_nor_a_distance(pages):
    words = words_of_page(pages["complete", "calibration"])
    assert "two rods define their line exactly" in words
    assert "R²" not in words
    assert "largest distance" not in words


def test_every_density_on_every_page_is_followed_by_its_mineral(pages):
    """In the same line, or first in the next where the line ends after the unit."""
    for (variant, name), page in pages.items():
        mineral = "K(₂HPO₄|2HPO4)" if variant == "density category" else "HA"
        words = "\n".join(text for text, _ in boxes_of(page))
        words = words.replace("(80/120 mg/cm3 K2HPO4)", "")  # the density rule is named with its own
        after = re.findall(r"mg/cm[³3](.{12})", words, re.DOTALL)
        assert after or name not in ("answer", "calibration"), (variant, name)
        for text in after:
            assert re.match(rf",?\s\(?{mineral}\b", text), (variant, name, text)


def test_rods_of_another_scan_are_not_drawn_on_this_one(pages):
    words = words_of_page(pages["rods of another scan", "calibration"])
    assert "This image shows no rods." in words
    assert "2024-05-02" in words
    assert "grade: phantom scanned earlier" in words
    assert "200 mg/cm³" not in words_of_page(pages["rods of another scan", "overlay"])


def test_the_region_is_named_and_a_second_density_stands_beside_the_first(study, pages):
    assert "HA equivalent), cancellous core" in words_of_page(pages["complete", "answer"])
    assert "filled: cancellous core" in words_of_page(pages["complete", "overlay"])
    words = words_of_page(pages["both regions", "answer"])
    assert "Ellipse ± (k=1)" in words
    assert words.count("80.2 ± 1.4") == 4
    assert "not reported" in words
    leading = replace(
        study.report,
        levels=tuple(
            replace(level, measured=replace(level.measured, region=RegionKind.ELLIPSE))
            for level in study.report.levels
        ),
    )
    assert "mid-body ellipse" in words_of_page(compose_answer(leading))


def test_a_page_is_1024_by_768_and_the_same_each_time(study):
    first, second = compose_answer(study.report).pixels(), compose_answer(study.report).pixels()
    assert first.shape == (768, 1024, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)


def test_marks_stand_out_on_a_grey_scale_monitor(study):
    """Text against its ground, in luminance: at least the 4.5 to 1 that WCAG asks for."""

    def luminance(colour: str) -> float:
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]

    ground = luminance(layout.BACKGROUND)
    for colour in (layout.TEXT, layout.QUIET, layout.CAUTION, layout.REFUSAL, layout.ACCENT):
        assert (luminance(colour) + 0.05) / (ground + 0.05) > 4.5
