"""Reasons that the code composes are said whole in Chinese, and no phrase is kept that nothing composes."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from string import Formatter

import pytest

from config.findings import load_findings
from config.vocabulary import Vocabulary
from node.dicom.errors import SegProblem, Unusable
from scoring.calibration.control_charts import Signal
from segmentation.vertebrae import Observation

ROOT = Path(__file__).parents[2]
WORDS = tomllib.loads((ROOT / "config/inserted_zh.toml").read_text("utf-8"))
SAY = Vocabulary(WORDS)
# Where reasons are composed: every text with a blank in it, in these functions.
COMPOSED = {
    "node/clinical/laboratory_csv.py": ("laboratory", "_nearest"),
    "node/csv_table.py": ("_head", "_misfit"),
    "node/dicom/ct/series_choice.py": ("_sorted_out", "_unsuitable_image", "_criteria", "lacking_phantom"),
    "node/dicom/ct/slice_geometry.py": (
        "_require_cosines",
        "_require_stated_tilt",
        "_regular_step",
        "_require_unwoven",
        "_require_straight",
    ),
    "node/dicom/ct/passes.py": ("take_one_pass", "_attributes"),
    "node/dicom/seg/vertebra_masks.py": ("_grid_of", "_step_mm"),
    "node/pipeline/steps/judge.py": ("_rad_score",),
    "node/pipeline/steps/calibrate.py": ("_borrow",),
    "node/pipeline/selection.py": ("contrast_in_doubt",),
    "scoring/models/applicability.py": ("technique_reasons", "score_observations"),
    "scoring/density/classification.py": (
        "reference_observations",
        "unstated_in_words",
        "_straddled_by_density",
    ),
    "scoring/calibration/prior_scan.py": (
        "borrow",
        "_unusable",
        "_differences",
        "_why_not_lent",
        "_unstated",
        "_drift",
    ),
    "scoring/density/follow_up.py": ("obstacles",),
    "scoring/calibration/internal.py": ("_require_all", "_require_plausible"),
    "scoring/radiomics.py": ("_cropped_images",),
    "scoring/calibration/spectrum.py": ("spectrum_differences",),
    "segmentation/levels.py": ("_gaps", "_misplaced", "_too_far_apart", "_odd_spacing", "_odd_volumes"),
    "segmentation/engines/geometric/numbering.py": ("_counted", "_ribs_against"),
    "segmentation/engines/mask.py": ("segment", "_level_of_binary"),
    "segmentation/engines/recognised.py": (
        "cross_checked",
        "_leave_out_oversized",
        "_too_high",
        "judge_names",
    ),
    "segmentation/gates/motion.py": ("_woven_observation",),
    "segmentation/gates/bodies.py": ("ellipse_objection",),
}
STAYS = {"DICOM", "keV", "ImageType", "CUSUM", "PixelSpacing", "YYYY"}  # standard terms


def _texts(tree: ast.AST) -> Iterator[str]:
    """Every text of some code but docstrings and assertions; what is filled in becomes the number 7."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    unsaid = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    unsaid |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.Assert) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in node.values)
        elif isinstance(node, ast.Constant) and id(node) not in inside | unsaid:
            yield from [node.value] if isinstance(node.value, str) else []


def _functions(path: str, names: tuple[str, ...]) -> list[ast.FunctionDef]:
    found = [
        node
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name in names
    ]
    assert {one.name for one in found} == set(names), path
    return found


@cache
def _composed() -> tuple[str, ...]:
    return tuple(
        text
        for path, names in COMPOSED.items()
        for function in _functions(path, names)
        for text in _texts(function)
        if " " in text.strip() and re.search(r"[a-z]{3}", text)
    )


def _english_in(said: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]{3,}", said)) - STAYS


@pytest.mark.parametrize("reason", sorted({*_composed(), *Unusable, *SegProblem, *Signal}))
def test_a_composed_reason_is_said_whole(reason: str) -> None:
    assert _english_in(SAY(reason)) == set()


@pytest.mark.parametrize("phrase", sorted(WORDS))
def test_a_phrase_fills_in_what_it_finds(phrase: str) -> None:
    def places(text: str) -> list[str]:
        return sorted(name for _, name, *_ in Formatter().parse(text) if name)

    assert places(WORDS[phrase]) == places(phrase)


@cache
def _source() -> str:
    return "\n".join(
        text
        for room in ("node", "scoring", "segmentation", "config")
        for path in (ROOT / room).rglob("*.py")
        for text in _texts(ast.parse(path.read_text("utf-8")))
    )


@pytest.mark.parametrize("phrase", sorted(WORDS))
def test_a_phrase_stands_in_the_code(phrase: str) -> None:
    literals = [text for text, *_ in Formatter().parse(phrase)]
    labels = {"Age", "Alkaline phosphatase", "ALP", "Homocysteine", "Rad-score"}  # cards' own
    # Words may come with what is filled in: "{value} is outside {limits}" with "7 kV is outside 7 kV".
    pattern = "[^\n]*?".join(re.escape(text) for text in literals)
    assert phrase in labels or re.search(pattern, _source()), phrase


@pytest.mark.parametrize(
    ("english", "said"),
    [
        ("80 kV is outside 100 to 140 kV; its slices stand alone",
         "80 kV 超出 100 至 140 kV；其层面彼此独立"),
        ("its tube voltage is 80 kV, this study's 120 kV", "其管电压为 80 kV，本检查为 120 kV"),
        ("its scanner is not stated, this study's CT-1", "其扫描仪为 未注明，本检查为 CT-1"),
        ("missing slices: images lie 1.00 mm apart, the next is missing after z -3.0 mm",
         "缺少层面：层间距 1.00 mm，其后缺少层面：z -3.0 mm"),
        ("localizer (2 of 9 images)", "定位像（9 幅图像中的 2 幅）"),
        ("it needs L1, L2, L3; not measured: L3", "其需要 L1, L2, L3；未测量：L3"),
        ("too little of adipose, blood was found", "找到的脂肪、血液过少"),
        ("the scanner drifts: at 120 kV the phantom's slope was above its limit on 2026-01-02 "
         "and has not been in control since",
         "扫描仪漂移：120 kV 下体模的斜率高于控制限，2026-01-02，此后一直未恢复受控"),
        ("tube voltage and region of interest", "管电压和感兴趣区"),
        ("the nearest reading, of 2026-01-02, differs: tube voltage 80 kV, its technique was not kept",
         "最接近的读数（2026-01-02）不同：管电压 80 kV、其扫描技术未保存"),
    ],
)  # fmt: skip
def test_what_is_filled_in_is_said_in_its_turn(english: str, said: str) -> None:
    assert SAY(english) == said


@pytest.mark.parametrize("words", ["CT-1; second floor", "A, B and C", "Nobody knows: this", "Qr40f\\3"])
def test_what_is_not_known_stays_as_it_is(words: str) -> None:
    assert SAY(words) == words


def test_what_a_site_has_written_is_not_said_otherwise() -> None:
    notice = "water; not measured"
    told = Observation(code="model_notice", values={"model": "core", "notice": notice})
    finding = load_findings().describe(told, "zh")
    assert finding.local_text is not None
    assert notice in finding.local_text
    assert "core" in finding.local_text
