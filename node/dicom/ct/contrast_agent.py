"""Whether intravenous contrast was given, by the headers of a series: given, not given, or doubtful.

People, scanners and anonymisers fill the attributes with free text. The rules, in this order:

1. A text is cut into clauses (commas, semicolons, slashes, brackets, "and", "+"), a clause into words.
2. A denial ("no", "without", "ohne", "sans", "sin", "无") beside nothing but nouns of contrast and small
   words means not given; so does a word for an unenhanced scan ("plain", "nativ", "平扫"), "N/A" or a dash.
3. An agent's name, an amount above 0, "with", "yes" or a noun of contrast without a denial means given.
4. Contrast by mouth or rectum alone does not reach the vessels: it counts as not given.
5. Anything else is unclear, and so is a text whose clauses contradict each other.

Amounts above 0 without any agent count as given. A route or a time of injection alone and an amount beside a
denial are doubtful. An amount of 0 means nothing: scanners without a connected injector write it beside an
agent that was given (seen: "APPLIED", 0 ml). Of all headers of a series, and of all frames, one that states
"given" decides; else one that is doubtful. The words are R: seen or recalled, from no standard.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from pydicom import Dataset

from node.dicom.header_text import items_of, text_of

_WORDS_SHOWN = 100  # characters of a header's words that a finding shows


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastStatement:
    """What headers state of intravenous contrast.

    Attributes
    ----------
    words : quoted from the headers, at most 100 characters, where contrast was given or may have been. Empty:
        it was not given, or nothing is stated.
    doubtful : whether the words leave open if it was given.
    """

    words: str = ""
    doubtful: bool = False


class _Meaning(Enum):
    """What a text, or one clause of it, means for contrast in the vessels."""

    NOTHING = auto()
    GIVEN = auto()
    ORAL = auto()  # by mouth or rectum alone, or not in the patient yet: none in the vessels
    DENIED = auto()
    ORAL_DENIED = auto()  # which leaves the vessels open
    UNCLEAR = auto()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DENIALS = _words(
    "NO NOT NONE NIL NULL NEGATIVE N NON WITHOUT WO NA FALSE DECLINED REFUSED OMITTED CONTRAINDICATED OHNE "
    "KEIN KEINE KEINEN KEINER NICHT NEIN SANS AUCUN AUCUNE PAS SIN NINGUN NINGUNO NINGUNA SEM NAO NENHUM "
    "SENZA NESSUN NESSUNO ZONDER GEEN NEE UTAN INGEN INGET UDEN UTEN IKKE BEZ BRAK"
)
_UNENHANCED = _words(
    "PLAIN NATIVE NATIV NATIVES NATIVO NATIVA NATIF UNENHANCED NONCONTRAST NONENHANCED UNCONTRASTED NC NCCT "
    "NECT SIMPLE BLANCO"
)
_INTRAVENOUS = _words(
    "IV INTRAVENOUS INTRAVENOUSLY INTRAVENOES INTRAVENOS INTRAVENEUX INTRAVENEUSE INTRAVENOSO INTRAVENOSA "
    "ENDOVENOSO ENDOVENOSA EV VENOUS PORTAL ARTERIAL"
)
_ORAL = _words(
    "ORAL ORALE ORALES ORALLY PO PERORAL ENTERAL RECTAL RECTALE REKTAL ENEMA GASTRO BARIUM BARYTE "
    "GASTROGRAFIN GASTROGRAPHIN GASTROVIEW GASTROMIRO GASTROLUX READICAT MICROPAQUE VOLUMEN MANNITOL WATER "
    "WASSER EAU AGUA"
)
_WITH = _words("WITH W MIT AVEC CON COM MET YES Y JA OUI SI TRUE AMOUNT")  # these contradict a denial
_NOUNS = _INTRAVENOUS | _words(
    "CONTRAST CONTRASTE CONTRASTO CONTRASTED KONTRAST KONTRASTMITTEL CM KM MDC CE CECT ENHANCED ENHANCEMENT "
    "INJECTION INJECTED INJECTEE INJEKTION INJIZIERT INYECCION INYECTADO INIEZIONE GIVEN ADMINISTERED "
    "APPLIED USED GEGEBEN"
)
_SMALL = _words(
    "A AN THE OF D DE DU DEL DI DA L LA LE EL IL OR ODER OU AGENT AGENTS MEDIUM MEDIA MITTEL PRODUIT MEDIO "
    "MEZZO DYE MATERIAL BOLUS ADMINISTRATION GABE SCAN CT TC TAC PHASE STUDY EXAM SERIES SERIE WAS IS HAS "
    "BEEN THIS ANY ONLY APPLICABLE ROUTE"
)
_AGENT = re.compile(
    r"IO(HEX|PAM|DIX|PRO|VER|MEP|BIT|XA|XI|SIM|TRO|THAL|DIN|DAT|DIZ|PEN|VIS|NOX)\w*|IODE\w*|JOD\w*|YOD\w*|JOPAM\w*|"
    r"GADO\w*|OMNIPA\w*|VISIPA\w*|ULTRAVI\w*|ISOVUE\w*|OPTIRAY\w*|XENETIX\w*|IMERON\w*|SOLUTRAST\w*|ACCUPAQ\w*|"
    r"UNIPAQ\w*|NIOPAM\w*|CONRAY\w*|TELEBRIX\w*|OXILAN\w*|HEXABRIX\w*|UROGRAF\w*|RENOGRAF\w*|HYPAQUE\w*|"
    r"SCANLUX\w*|CLARISCAN\w*|DOTAREM\w*|MULTIHANCE\w*|MAGNEVIST\w*|GADAVIST\w*|NONIONIC\w*"
)
# Chinese, Japanese and Korean run without blanks: longer phrases first, each in the place of an English word.
_WITHOUT_BLANKS = {
    "非离子": " NONIONIC ", "不详": " UNKNOWN ", "未知": " UNKNOWN ", "未注明": " UNKNOWN ", "没有": " NO ",
    "沒有": " NO ", "平扫": " PLAIN ", "平掃": " PLAIN ", "単純": " PLAIN ", "增强": " ENHANCED ",
    "增強": " ENHANCED ", "对比剂": " CONTRAST ", "對比劑": " CONTRAST ", "造影剂": " CONTRAST ",
    "造影劑": " CONTRAST ", "造影剤": " CONTRAST ", "造影": " CONTRAST ", "扫描": " SCAN ",
    "조영제": " CONTRAST ", "없음": " NO ", "なし": " NO ", "あり": " YES ", "静脉": " IV ", "靜脈": " IV ",
    "静脈": " IV ", "注射": " INJECTION ", "口服": " ORAL ", "经口": " ORAL ", "経口": " ORAL ",
    "使用": " USED ", "无": " NO ", "無": " NO ", "未": " NO ", "不": " NO ", "没": " NO ", "否": " NO ",
    "非": " NO ", "有": " YES ", "是": " YES ", "用": " USED ", "碘": " IODINE ",
}  # fmt: skip
_SPELLED = (  # abbreviations that punctuation would take apart
    (r"\bW\s*/\s*O\b", " WITHOUT "),
    (r"\bW\s*/", " WITH "),
    (r"\bS\s*/", " WITHOUT "),  # "s/ contraste"
    (r"\bC\s*/", " WITH "),
    (r"\bN\s*/\s*A\b", " NA "),
    (r"\bI\s*\.?\s*V\b\.?", " IV "),
    (r"\bP\s*\.\s*O\b\.?", " PO "),
    (r"\bNON[\s-]*IONI\w*", " NONIONIC "),
    (r"\bNON[\s-]+(CONTRAST|ENHANCED)\b", " UNENHANCED "),
)
_AMOUNT = re.compile(r"(\d+(?:[.,]\d+)?)\s*(?:MG\s*I?\s*/\s*ML|ML|CC|MG|G|MMOL|%)(?![A-Z])")
_CLAUSE_ENDS = re.compile(r"[,;&+/|()\[\]\n]|\b(?:AND|UND|ET)\b")
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SIGN = re.compile(r"(?:C|KM|CM|IV|CE|MDC|CONTRAST|KONTRAST)?\s*([+-])\s*(?:C|KM|CM|IV|CE|MDC)?")

_ROUTES = {
    "47625008": _Meaning.GIVEN,
    "G-D101": _Meaning.GIVEN,
    "26643006": _Meaning.ORAL,
    "G-D140": _Meaning.ORAL,
}
_AMOUNTS = ("ContrastBolusVolume", "ContrastBolusTotalDose", "ContrastFlowRate")
_TIMES = ("ContrastBolusStartTime", "ContrastBolusStopTime")
_ATTRIBUTES = (
    "ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusRoute",
    "ContrastBolusAdministrationRouteSequence", *_AMOUNTS, *_TIMES,
)  # fmt: skip


def contrast_of(headers: Iterable[Dataset]) -> ContrastStatement:
    """What the headers of a series together state of intravenous contrast.

    Parameters
    ----------
    headers : of all images and frames. The first that states "given" decides; else the doubtful ones
        together.

    Source: PS3.3 C.7.6.4 (Contrast/Bolus), C.7.6.4b (Enhanced Contrast/Bolus) and its usage, frame by frame.
    """
    doubts: dict[str, None] = {}
    for header in headers:
        if not any(keyword in header for keyword in _ATTRIBUTES):
            continue
        stated = _statement_of(header)
        if stated.words and not stated.doubtful:
            return stated
        if stated.words:
            doubts[stated.words] = None
    return ContrastStatement(words=_shortened("; ".join(doubts)), doubtful=bool(doubts))


def _statement_of(header: Dataset) -> ContrastStatement:
    """What one header states."""
    agents = [*_coded_agents(header), *_plain_agent(header)]
    agent, route = _combined(meaning for meaning, _ in agents), _route(header)
    amounts = {keyword: value for keyword in _AMOUNTS for value in _largest(header, keyword)}
    injected = any(value > 0 for value in amounts.values())
    times = [f"{keyword} {stated}" for keyword in _TIMES if (stated := text_of(header, keyword))]
    verdict = _verdict(agent, route, injected=injected)
    if agent is _Meaning.NOTHING and verdict is _Meaning.NOTHING and times:
        verdict = _Meaning.UNCLEAR
    if verdict is _Meaning.GIVEN and agent is _Meaning.GIVEN:
        given = next(text for meaning, text in agents if meaning is _Meaning.GIVEN)
        return ContrastStatement(words=_shortened(given))
    if verdict not in (_Meaning.GIVEN, _Meaning.UNCLEAR):
        return ContrastStatement()
    words = [f'ContrastBolusAgent "{text}"' for _, text in agents]
    words += [f"{keyword} {value:g}" for keyword, value in amounts.items()]
    if route is not _Meaning.NOTHING:
        words.append(f"ContrastBolusRoute {text_of(header, 'ContrastBolusRoute') or 'coded'}")
    return ContrastStatement(
        words=_shortened(", ".join([*words, *times])), doubtful=verdict is _Meaning.UNCLEAR
    )


def _verdict(agent: _Meaning, route: _Meaning, *, injected: bool) -> _Meaning:
    """What agent, route and amounts of one header mean together; the first rule that applies decides."""
    into_vessels, by_mouth = route is _Meaning.GIVEN, route is _Meaning.ORAL
    rules = (
        (agent is _Meaning.UNCLEAR, _Meaning.UNCLEAR),
        (agent is _Meaning.ORAL, _Meaning.UNCLEAR if into_vessels else _Meaning.ORAL),
        (agent is _Meaning.DENIED, _Meaning.UNCLEAR if injected or into_vessels else _Meaning.DENIED),
        (by_mouth, _Meaning.ORAL),
        (agent is _Meaning.GIVEN or injected, _Meaning.GIVEN),
        (into_vessels, _Meaning.UNCLEAR),
    )
    return next((verdict for applies, verdict in rules if applies), _Meaning.NOTHING)


def _plain_agent(header: Dataset) -> Iterator[tuple[_Meaning, str]]:
    text = text_of(header, "ContrastBolusAgent")
    if text:
        yield contrast_in_text(text), text


def _coded_agents(header: Dataset) -> Iterator[tuple[_Meaning, str]]:
    """Coded agents, each by its own route; in a frame only those that the patient had received by then."""
    for item in items_of(header, "ContrastBolusAgentSequence"):
        text = text_of(item, "CodeMeaning") or "coded agent"
        meaning = _Meaning.GIVEN if text == "coded agent" else contrast_in_text(text)
        if meaning is _Meaning.UNCLEAR and text_of(item, "CodeValue"):
            meaning = _Meaning.GIVEN  # a code, whatever its meaning, names an agent
        route = _combined(
            _route_of(one) for one in items_of(item, "ContrastBolusAdministrationRouteSequence")
        )
        if meaning is _Meaning.GIVEN and (
            route is _Meaning.ORAL or _is_unused(header, text_of(item, "ContrastBolusAgentNumber"))
        ):
            meaning = _Meaning.ORAL
        yield meaning, text


def _is_unused(frame: Dataset, agent_number: str) -> bool:
    """Whether a frame states that this agent had not been given by then and is not visible."""
    used = [
        one
        for one in items_of(frame, "ContrastBolusUsageSequence")
        if text_of(one, "ContrastBolusAgentNumber") in ("", agent_number)
    ]
    return bool(used) and all(
        text_of(one, "ContrastBolusAgentAdministered").upper() == "NO"
        and text_of(one, "ContrastBolusAgentDetected").upper() != "YES"
        for one in used
    )


def _route(header: Dataset) -> _Meaning:
    found = [_route_of(one) for one in items_of(header, "ContrastBolusAdministrationRouteSequence")]
    text = text_of(header, "ContrastBolusRoute")
    if text:
        found.append(_route_in_words(text))
    said = set(found)
    return next((one for one in (_Meaning.GIVEN, _Meaning.ORAL) if one in said), _Meaning.NOTHING)


def _route_of(item: Dataset) -> _Meaning:
    known = _ROUTES.get(text_of(item, "CodeValue"))
    return known if known is not None else _route_in_words(text_of(item, "CodeMeaning"))


def _route_in_words(text: str) -> _Meaning:
    """`GIVEN` for a route into the vessels, `ORAL`, else `NOTHING`."""
    words = frozenset(_WORD.findall(_plain(text)))
    if words & _DENIALS:
        return _Meaning.NOTHING
    if words & _INTRAVENOUS:
        return _Meaning.GIVEN
    return _Meaning.ORAL if words & _ORAL else _Meaning.NOTHING


@lru_cache(maxsize=1024)
def contrast_in_text(text: str) -> _Meaning:
    """What a free text means for contrast in the vessels, by the rules of this module.

    Returns
    -------
    A member of `_Meaning`: texts may be compared by it.
    """
    plain = _plain(text)
    if sign := _SIGN.fullmatch(plain.replace("–", "-").strip(" .")):
        return _Meaning.GIVEN if sign[1] == "+" else _Meaning.DENIED
    if not _WORD.search(plain):
        return _Meaning.UNCLEAR if "?" in plain else _Meaning.DENIED
    return _combined(
        _meaning_of_clause(clause) for clause in _CLAUSE_ENDS.split(plain) if clause.strip(" .-:")
    )


_PLAIN_WORDS = {
    _Meaning.NOTHING: "",
    _Meaning.GIVEN: "CONTRAST",
    _Meaning.ORAL: "ORAL",
    _Meaning.DENIED: "NONE",
    _Meaning.ORAL_DENIED: "NO ORAL",
    _Meaning.UNCLEAR: "?",
}


def contrast_in_plain_words(text: str) -> str:
    """Fixed words that mean the same for contrast in the vessels as a free text.

    Returns
    -------
    "", "CONTRAST", "ORAL", "NONE", "NO ORAL" or "?". `contrast_in_text` reads it as it reads the free text.
    """
    return _PLAIN_WORDS[contrast_in_text(text)]


def route_in_plain_words(text: str) -> str:
    """Fixed words that mean the same as a free text of a route of administration.

    Returns
    -------
    "IV", "ORAL" or "".
    """
    return {_Meaning.GIVEN: "IV", _Meaning.ORAL: "ORAL"}.get(_route_in_words(text), "")


def _plain(text: str) -> str:
    """Upper case without accents; scripts without blanks, abbreviations with signs, and amounts as words."""
    found = unicodedata.normalize("NFKC", text)
    for phrase, word in _WITHOUT_BLANKS.items():
        found = found.replace(phrase, word)
    found = "".join(one for one in unicodedata.normalize("NFKD", found) if not unicodedata.combining(one))
    found = found.upper()
    found = _AMOUNT.sub(lambda hit: " AMOUNT " if float(hit[1].replace(",", ".")) > 0 else " NO ", found)
    for pattern, word in _SPELLED:
        found = re.sub(pattern, word, found)
    return found


def _meaning_of_clause(clause: str) -> _Meaning:
    words = frozenset("NO" if word == "0" else word for word in _WORD.findall(clause))
    agents = {word for word in words if _AGENT.fullmatch(word)}
    affirmed = bool(agents) or bool(words & _WITH)
    nouns, oral_alone = bool(words & _NOUNS), bool(words & _ORAL) and not words & _INTRAVENOUS
    strange = bool(words - agents - _DENIALS - _UNENHANCED - _NOUNS - _WITH - _SMALL - _ORAL)
    rules = (
        ("?" in clause, _Meaning.UNCLEAR),
        (
            words & _UNENHANCED and not words & _DENIALS,
            _Meaning.UNCLEAR if affirmed or nouns or strange else _Meaning.DENIED,
        ),
        (words & _DENIALS and (affirmed or strange), _Meaning.UNCLEAR),
        (words & _DENIALS, _Meaning.ORAL_DENIED if oral_alone else _Meaning.DENIED),
        (oral_alone, _Meaning.ORAL),
        (agents or ((affirmed or nouns) and not strange), _Meaning.GIVEN),
    )
    return next((verdict for applies, verdict in rules if applies), _Meaning.UNCLEAR)


def _combined(parts: Iterable[_Meaning]) -> _Meaning:
    """What clauses, or several agents, mean together."""
    said = set(parts) - {_Meaning.NOTHING}
    if _Meaning.GIVEN in said:
        return _Meaning.UNCLEAR if _Meaning.DENIED in said else _Meaning.GIVEN
    if _Meaning.UNCLEAR in said or said == {_Meaning.ORAL_DENIED}:
        return _Meaning.UNCLEAR
    return next((one for one in (_Meaning.DENIED, _Meaning.ORAL) if one in said), _Meaning.NOTHING)


def _largest(header: Dataset, keyword: str) -> list[float]:
    """The largest of an attribute's numbers, if it has any."""
    found = [float(part) for part in text_of(header, keyword).split() if _NUMBER.fullmatch(part)]
    return [max(found)] if found else []


def _shortened(words: str) -> str:
    return words if len(words) <= _WORDS_SHOWN else f"{words[: _WORDS_SHOWN - 3]}..."
