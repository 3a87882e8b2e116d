"""Phrases: each that the code says stands in every language, filled in alike; none stands there unsaid."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fluent.syntax import ast as fluent

from config.findings import load_findings
from config.phrases import (
    LANGUAGES,
    PhraseIncomplete,
    UnknownPhrase,
    arguments_of,
    load_phrases,
    parse_phrases,
)
from config.settings import ConfigurationError
from node.dicom.errors import SeriesUnusable, Unusable
from segmentation.phrase import clauses, listed, phrase, together
from segmentation.vertebrae import Observation

ROOT = Path(__file__).parents[2]
ROOMS = ("node", "scoring", "segmentation", "config")
RESOURCES = {
    language: parse_phrases((ROOT / f"config/phrases/{language}.ftl").read_text("utf-8"))
    for language in LANGUAGES
}
TERMS = {  # of Chinese reports, of headers and of files
    *("BMD", "CUSUM", "DICOM", "DXA", "ImageType", "Mindways", "PixelSpacing", "QCT", "TotalSegmentator"),
    *("VerSe", "WHO", "Xie", "keV", "limits", "matrix", "slices", "YYYY"),
}
ARGUMENTS = {language: arguments_of(resource) for language, resource in RESOURCES.items()}


def _said() -> Iterator[tuple[str, frozenset[str]]]:
    """Every id that the code says, with the names of what it fills in."""
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(call, ast.Call):
                    yield from _of_call(call)


def _of_call(call: ast.Call) -> Iterator[tuple[str, frozenset[str]]]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    place = {"phrase": 0, "say": 0, "framed_page": 1}.get(name)
    if place is None or len(call.args) <= place:
        return
    id_ = call.args[place]
    if isinstance(id_, ast.Constant) and isinstance(id_.value, str):
        yield id_.value, frozenset(one.arg for one in call.keywords if one.arg) if place == 0 else frozenset()


SAID = tuple(_said())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_phrase_that_the_code_says_stands_in_each_language_and_no_other(language: str) -> None:
    assert set(ARGUMENTS[language]) == {id_ for id_, _ in SAID}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_can_be_read_and_stands_once(language: str) -> None:
    body = RESOURCES[language].body
    assert not [one.content for one in body if isinstance(one, fluent.Junk)]
    ids = [one.id.name for one in body if isinstance(one, fluent.Message)]
    assert sorted(ids) == sorted(set(ids))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_phrase_fills_in_what_the_code_gives_it(language: str) -> None:
    odd = {(id_, given, ARGUMENTS[language][id_]) for id_, given in SAID if given != ARGUMENTS[language][id_]}
    assert odd == set()


def test_what_fills_in_a_phrase_is_said_in_the_same_language() -> None:
    told = phrase("not-given", name=phrase("study-rule"))
    assert load_phrases("en").words(told) == "Study rule, Xie 2022: not reported, see findings"
    assert load_phrases("zh").words(told) == "研究规则（Xie 2022）：不予报告，见提示"


def test_a_chinese_phrase_has_no_english_but_terms() -> None:
    foreign = {
        (message.id.name, word)
        for message in RESOURCES["zh"].body
        if isinstance(message, fluent.Message) and message.value is not None
        for part in message.value.elements
        if isinstance(part, fluent.TextElement)
        for word in re.findall(r"[A-Za-z]{3,}", part.value)
        if word not in TERMS
    }
    assert foreign == set()


def test_a_reason_that_a_room_composed_is_said_whole_in_either_language() -> None:
    places = phrase("places", depths="-3.0")
    gap = SeriesUnusable(
        Unusable.SLICE_GAP, phrase("image-missing-after", step="1.00", places=places), slices=9
    )
    found = load_findings().describe(Observation(code="no_usable_series", values={"reasons": gap.said}), "zh")
    assert str(gap) == "missing slices: image spacing 1.00 mm, images missing after -3.0 mm"
    assert str(gap) in found.text
    assert found.local_text is not None
    assert "缺少层面：层间距 1.00 mm，其后缺少层面：-3.0 mm" in found.local_text


def test_names_and_numbers_stay_as_they_are() -> None:
    say = load_phrases("zh")
    assert say.words("study-rule") == "study-rule"
    assert say.words(3) == "3"
    assert say("more-findings", count=12345) == "另有 12345 条，见结构化报告"
    assert say("made-with-model", name="{ $odd } name") == "模型 { $odd } name"


def test_an_unknown_id_or_a_value_left_out_is_an_error_and_never_half_a_sentence() -> None:
    say = load_phrases()
    with pytest.raises(UnknownPhrase):
        say("no-such-phrase")
    with pytest.raises(PhraseIncomplete, match="study-of-date"):
        say("study-of-date")


def test_lists_are_joined_as_each_language_joins_them() -> None:
    parts = [phrase("water"), phrase("air"), "B 3"]
    joined = [join(parts) for join in (listed, clauses, together)]
    assert [load_phrases("en").words(one) for one in joined] == [
        "water, air, B 3",
        "water; air; B 3",
        "water and air and B 3",
    ]
    assert [load_phrases("zh").words(one) for one in joined] == [
        "水、空气、B 3",
        "水；空气；B 3",
        "水和空气和B 3",
    ]
    assert listed(["one"]) == "one"
    assert clauses([]) == ""


def test_phrases_of_one_id_filled_in_alike_are_equal_and_count_once() -> None:
    assert len({phrase("made-with-model", name="A"), phrase("made-with-model", name="A")}) == 1
    assert phrase("made-with-model", name="A") != phrase("made-with-model", name="B")


def test_a_site_says_phrases_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "phrases").mkdir()
    (tmp_path / "phrases/zh.ftl").write_text("water = 水棒\n", "utf-8")
    say = load_phrases("zh", tmp_path)
    assert say("water") == "水棒"
    assert say("air") == load_phrases("zh")("air")
    assert load_phrases("en", tmp_path)("water") == "water"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no-such-phrase = words\n", "no-such-phrase: no phrase has this id"),
        (
            "made-with-model = { $name } by { $maker }\n",
            "made-with-model fills in maker: the phrase has none such",
        ),
        ("= words\n", "is not a message"),
    ],
)
def test_a_sites_odd_phrase_is_refused_with_its_reason(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "phrases").mkdir()
    (tmp_path / "phrases/en.ftl").write_text(content, "utf-8")
    with pytest.raises(ConfigurationError, match=reason):
        load_phrases("en", tmp_path)
