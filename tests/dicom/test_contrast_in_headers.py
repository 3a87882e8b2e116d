"""What text, amounts, routes and codes of headers say of intravenous contrast."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from node.dicom.ct.contrast_agent import contrast_of
from tests.dicom.multi_frame import item


def _texts(table: str) -> tuple[str, ...]:
    """Texts between bars and ends of lines."""
    return tuple(text.strip() for line in table.strip().splitlines() for text in line.split(" | "))


GIVEN = _texts("""
iodinated contrast medium | Iohexol | OMNIPAQUE 350 | 100 ml Ultravist 370 | APPLIED | YES | WITH
with contrast | W/ IV CONTRAST | I.V. | Ja | mit KM i.v. | Iomeron 400, 90 ml | avec injection
con contraste | C+ | + | 增强 | 静脉注射碘对比剂 | 碘海醇 | 非离子型造影剂 | NON-IONIC | IV and oral
Omnipaque 300, no reaction | IODINE | Visipaque/oral | 造影あり | 350 MG I/ML | KM | Contrast
portal venous phase
""")
NOT_GIVEN = _texts("""
NONE | NO | N | NO CONTRAST | No IV contrast | NONE GIVEN | not given | W/O | W/O CONTRAST
wo contrast | without contrast agent | N/A | NA | - | -- | . | nil | 0 | 0 ml | non-contrast
NON CONTRAST | Unenhanced | plain | native | nativ | ohne | ohne KM | kein KM | keine KM-Gabe
KM: nein | KM- | C- | sans | sans injection | Pas d'injection | sin contraste | s/ contraste
senza mdc | sem contraste | 平扫 | 无 | 未增强 | 未使用对比剂 | 否 | 平扫,无对比剂 | 単純 | 造影なし
oral | ORAL CONTRAST ONLY | oral contrast, no IV | Gastrografin | barium | 口服对比剂
no oral or IV contrast | contrast declined | not applicable | plain, no contrast
""")
DOUBTFUL = _texts("""
? | X | see protocol | unknown | without and with contrast | W/WO | w wo contrast | 平扫+增强
nativ und KM | no Omnipaque | no oral contrast | NONE, patient allergic | contrast? | 350
sin y con contraste | 不详 | none; contrast given | removed | NO 90 ml | intrathecal
Omnipaque 0 ml
""")


def header(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def stated(*headers: Dataset) -> str:
    told = contrast_of(headers)
    if not told.words:
        assert not told.doubtful
        return "not given"
    return "doubtful" if told.doubtful else "given"


@pytest.mark.parametrize("text", GIVEN)
def test_a_text_that_names_or_affirms_contrast_gives_it_with_its_words(text: str) -> None:
    assert stated(header(ContrastBolusAgent=text)) == "given"
    assert contrast_of([header(ContrastBolusAgent=text)]).words == text


@pytest.mark.parametrize("text", ["", *NOT_GIVEN])
def test_a_text_that_denies_contrast_in_the_vessels_gives_none(text: str) -> None:
    assert stated(header(ContrastBolusAgent=text)) == "not given"


@pytest.mark.parametrize("text", DOUBTFUL)
def test_any_other_text_is_doubtful_and_its_words_are_kept(text: str) -> None:
    assert stated(header(ContrastBolusAgent=text)) == "doubtful"
    assert text in contrast_of([header(ContrastBolusAgent=text)]).words


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"ContrastBolusVolume": "90"}, "given"),
        ({"ContrastFlowRate": ["0", "3.5"]}, "given"),
        ({"ContrastBolusTotalDose": "30"}, "given"),
        ({"ContrastBolusVolume": "0"}, "not given"),
        ({"ContrastBolusRoute": "IV"}, "doubtful"),
        ({"ContrastBolusStartTime": "101500"}, "doubtful"),
        ({"ContrastBolusRoute": "ORAL", "ContrastBolusVolume": "500"}, "not given"),
        ({"ContrastBolusAgent": "Omnipaque", "ContrastBolusRoute": "Oral route"}, "not given"),
        ({"ContrastBolusAgent": "Omnipaque", "ContrastBolusRoute": "IV", "ContrastFlowRate": "3"}, "given"),
        ({"ContrastBolusAgent": "APPLIED", "ContrastBolusVolume": "0"}, "given"),
        ({"ContrastBolusAgent": "NONE", "ContrastBolusVolume": "0"}, "not given"),
        ({"ContrastBolusAgent": "NONE", "ContrastBolusVolume": "90"}, "doubtful"),
        ({"ContrastBolusAgent": "NONE", "ContrastBolusRoute": "IV"}, "doubtful"),
        ({"ContrastBolusAgent": "oral", "ContrastBolusRoute": "Intravenous"}, "doubtful"),
        ({"ContrastBolusAgentSequence": []}, "not given"),
        ({"ContrastBolusAgentSequence": [item(CodeValue="1", CodingSchemeDesignator="99T")]}, "given"),
        ({"ContrastBolusAgentSequence": [item(CodeValue="C-B0300", CodeMeaning="Contrast agent")]}, "given"),
        ({"ContrastBolusAgentSequence": [item(CodeMeaning="None")]}, "not given"),
    ],
)  # fmt: skip
def test_amounts_routes_and_codes_are_weighed_with_the_agent(
    values: dict[str, object], expected: str
) -> None:
    assert stated(header(**values)) == expected


def test_a_doubtful_header_names_every_attribute_that_speaks() -> None:
    words = contrast_of(
        [header(ContrastBolusAgent="NONE", ContrastBolusVolume="90", ContrastBolusRoute="IV")]
    ).words
    assert words == 'ContrastBolusAgent "NONE", ContrastBolusVolume 90, ContrastBolusRoute IV'


def test_all_headers_of_a_series_count() -> None:
    silent, doubtful = header(), header(ContrastBolusAgent="see protocol")
    assert stated(silent, header(ContrastBolusAgent="NONE"), doubtful) == "doubtful"
    assert stated(silent, doubtful, header(ContrastBolusAgent="Iohexol")) == "given"
    assert contrast_of(
        [header(ContrastBolusAgent="X" * 60), header(ContrastBolusAgent="Y" * 60)]
    ).words.endswith("...")
