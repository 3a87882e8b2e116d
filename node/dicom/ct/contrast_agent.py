"""Whether intravenous contrast was given, as the headers of a series say it: given, not given, or doubtful.

The attributes are free text that people, scanners and anonymisers fill in. The rule, in this order:

1. A text is cut into clauses (commas, semicolons, slashes, brackets, "and", "+"), a clause into words.
2. A denial ("no", "without", "ohne", "sans", "sin", "无") beside nothing but nouns of contrast and small
   words denies; so does a word for an unenhanced scan ("plain", "nativ", "平扫"), "N/A" or a mere dash.
3. An agent's name, an amount above 0, "with", "yes" or a noun of contrast without a denial gives.
4. Contrast by mouth or rectum alone is none in the vessels: it counts as not given.
5. Anything else is unclear, and so is a text whose clauses contradict each other.

Amounts above 0 without any agent count as given. A route or a time of injection alone and an amount beside a
denial are doubtful. An amount of 0 says nothing: scanners that no injector tells write it beside an agent
that was given (seen: "APPLIED", 0 ml). Of all headers of a series, and of all frames, one that says "given"
decides; else one that is doubtful. The words are R: seen or recalled, and no standard's.

Read from PS3.3 C.7.6.4 (Contrast/Bolus), C.7.6.4b (Enhanced Contrast/Bolus) and its usage, frame by frame.
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
    """What headers say of intravenous contrast; with no words: not given, or nothing is said."""

    words: str = ""  # where it was given, or may have been: what stands there
    doubtful: bool = False  # whether the words leave that open


class _Says(Enum):
    """What a text, or one clause of it, says of contrast in the vessels."""

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
_SPELLED = (  # what punctuation would take apart
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

_ROUTES = {"47625008": _Says.GIVEN, "G-D101": _Says.GIVEN, "26643006": _Says.ORAL, "G-D140": _Says.ORAL}
_AMOUNTS = ("ContrastBolusVolume", "ContrastBolusTotalDose", "ContrastFlowRate")
_TIMES = ("ContrastBolusStartTime", "ContrastBolusStopTime")
_ATTRIBUTES = (
    "ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusRoute",
    "ContrastBolusAdministrationRouteSequence", *_AMOUNTS, *_TIMES,
)  # fmt: skip


def contrast_of(headers: Iterable[Dataset]) -> ContrastStatement:
    """What the headers of a series, all of them together, say of intravenous contrast."""
    doubts: dict[str, None] = {}
    for header in headers:
        if not any(keyword in header for keyword in _ATTRIBUTES):
            continue
        told = _statement(header)
        if told.words and not told.doubtful:
            return told
        if told.words:
            doubts[told.words] = None
    return ContrastStatement(words=_shown("; ".join(doubts)), doubtful=bool(doubts))


def _statement(header: Dataset) -> ContrastStatement:
    """What one header says."""
    agents = [*_coded_agents(header), *_plain_agent(header)]
    agent, route = _together(says for says, _ in agents), _route(header)
    amounts = {keyword: value for keyword in _AMOUNTS for value in _largest(header, keyword)}
    injected = any(value > 0 for value in amounts.values())
    times = [f"{keyword} {told}" for keyword in _TIMES if (told := text_of(header, keyword))]
    verdict = _judged(agent, route, injected=injected)
    if agent is _Says.NOTHING and verdict is _Says.NOTHING and times:
        verdict = _Says.UNCLEAR
    if verdict is _Says.GIVEN and agent is _Says.GIVEN:
        return ContrastStatement(words=_shown(next(text for says, text in agents if says is _Says.GIVEN)))
    if verdict not in (_Says.GIVEN, _Says.UNCLEAR):
        return ContrastStatement()
    words = [f'ContrastBolusAgent "{text}"' for _, text in agents]
    words += [f"{keyword} {value:g}" for keyword, value in amounts.items()]
    if route is not _Says.NOTHING:
        words.append(f"ContrastBolusRoute {text_of(header, 'ContrastBolusRoute') or 'coded'}")
    return ContrastStatement(words=_shown(", ".join([*words, *times])), doubtful=verdict is _Says.UNCLEAR)


def _judged(agent: _Says, route: _Says, *, injected: bool) -> _Says:
    """What agent, route and amounts of one header say together; clauses later in the list give way."""
    into_vessels, by_mouth = route is _Says.GIVEN, route is _Says.ORAL
    rules = (
        (agent is _Says.UNCLEAR, _Says.UNCLEAR),
        (agent is _Says.ORAL, _Says.UNCLEAR if into_vessels else _Says.ORAL),
        (agent is _Says.DENIED, _Says.UNCLEAR if injected or into_vessels else _Says.DENIED),
        (by_mouth, _Says.ORAL),
        (agent is _Says.GIVEN or injected, _Says.GIVEN),
        (into_vessels, _Says.UNCLEAR),
    )
    return next((verdict for applies, verdict in rules if applies), _Says.NOTHING)


def _plain_agent(header: Dataset) -> Iterator[tuple[_Says, str]]:
    text = text_of(header, "ContrastBolusAgent")
    if text:
        yield read_words(text), text


def _coded_agents(header: Dataset) -> Iterator[tuple[_Says, str]]:
    """Agents by code, each by its own route, and of a frame those that were in the patient by then."""
    for item in items_of(header, "ContrastBolusAgentSequence"):
        text = text_of(item, "CodeMeaning") or "coded agent"
        says = _Says.GIVEN if text == "coded agent" else read_words(text)
        if says is _Says.UNCLEAR and text_of(item, "CodeValue"):
            says = _Says.GIVEN  # a code, whatever it is called, names an agent
        route = _together(
            _route_of(one) for one in items_of(item, "ContrastBolusAdministrationRouteSequence")
        )
        if says is _Says.GIVEN and route is _Says.ORAL:
            says = _Says.ORAL
        if says is _Says.GIVEN and _is_unused(header, text_of(item, "ContrastBolusAgentNumber")):
            says = _Says.ORAL
        yield says, text


def _is_unused(frame: Dataset, agent_number: str) -> bool:
    """Whether a frame says that this agent had not been given by then, nor is seen."""
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


def _route(header: Dataset) -> _Says:
    found = [_route_of(one) for one in items_of(header, "ContrastBolusAdministrationRouteSequence")]
    text = text_of(header, "ContrastBolusRoute")
    if text:
        found.append(_route_in_words(text))
    said = set(found)
    return next((one for one in (_Says.GIVEN, _Says.ORAL) if one in said), _Says.NOTHING)


def _route_of(item: Dataset) -> _Says:
    known = _ROUTES.get(text_of(item, "CodeValue"))
    return known if known is not None else _route_in_words(text_of(item, "CodeMeaning"))


def _route_in_words(text: str) -> _Says:
    """`GIVEN` for a route into the vessels, `ORAL`, else `NOTHING`."""
    words = frozenset(_WORD.findall(_plain(text)))
    if words & _DENIALS:
        return _Says.NOTHING
    if words & _INTRAVENOUS:
        return _Says.GIVEN
    return _Says.ORAL if words & _ORAL else _Says.NOTHING


@lru_cache(maxsize=1024)
def read_words(text: str) -> _Says:
    """What a free text says of contrast in the vessels, by the rule of this module."""
    plain = _plain(text)
    if sign := _SIGN.fullmatch(plain.replace("–", "-").strip(" .")):
        return _Says.GIVEN if sign[1] == "+" else _Says.DENIED
    if not _WORD.search(plain):
        return _Says.UNCLEAR if "?" in plain else _Says.DENIED
    return _together(_clause(clause) for clause in _CLAUSE_ENDS.split(plain) if clause.strip(" .-:"))


_SAME_IN_PLAIN_WORDS = {
    _Says.NOTHING: "",
    _Says.GIVEN: "CONTRAST",
    _Says.ORAL: "ORAL",
    _Says.DENIED: "NONE",
    _Says.ORAL_DENIED: "NO ORAL",
    _Says.UNCLEAR: "?",
}


def contrast_in_plain_words(text: str) -> str:
    """A text that says the same of contrast in the vessels as a free text, and nothing else."""
    return _SAME_IN_PLAIN_WORDS[read_words(text)]


def route_in_plain_words(text: str) -> str:
    """As `contrast_in_plain_words`, of a route of administration."""
    return {_Says.GIVEN: "IV", _Says.ORAL: "ORAL"}.get(_route_in_words(text), "")


def _plain(text: str) -> str:
    """Upper case without accents; what runs without blanks, is spelled with signs or counts, as words."""
    found = unicodedata.normalize("NFKC", text)
    for phrase, word in _WITHOUT_BLANKS.items():
        found = found.replace(phrase, word)
    found = "".join(one for one in unicodedata.normalize("NFKD", found) if not unicodedata.combining(one))
    found = found.upper()
    found = _AMOUNT.sub(lambda hit: " AMOUNT " if float(hit[1].replace(",", ".")) > 0 else " NO ", found)
    for pattern, word in _SPELLED:
        found = re.sub(pattern, word, found)
    return found


def _clause(clause: str) -> _Says:
    words = frozenset("NO" if word == "0" else word for word in _WORD.findall(clause))
    agents = {word for word in words if _AGENT.fullmatch(word)}
    affirmed = bool(agents) or bool(words & _WITH)
    nouns, oral_alone = bool(words & _NOUNS), bool(words & _ORAL) and not words & _INTRAVENOUS
    strange = bool(words - agents - _DENIALS - _UNENHANCED - _NOUNS - _WITH - _SMALL - _ORAL)
    rules = (
        ("?" in clause, _Says.UNCLEAR),
        (
            words & _UNENHANCED and not words & _DENIALS,
            _Says.UNCLEAR if affirmed or nouns or strange else _Says.DENIED,
        ),
        (words & _DENIALS and (affirmed or strange), _Says.UNCLEAR),
        (words & _DENIALS, _Says.ORAL_DENIED if oral_alone else _Says.DENIED),
        (oral_alone, _Says.ORAL),
        (agents or ((affirmed or nouns) and not strange), _Says.GIVEN),
    )
    return next((verdict for applies, verdict in rules if applies), _Says.UNCLEAR)


def _together(parts: Iterable[_Says]) -> _Says:
    """What clauses, or several agents, say together."""
    said = set(parts) - {_Says.NOTHING}
    if _Says.GIVEN in said:
        return _Says.UNCLEAR if _Says.DENIED in said else _Says.GIVEN
    if _Says.UNCLEAR in said or said == {_Says.ORAL_DENIED}:
        return _Says.UNCLEAR
    return next((one for one in (_Says.DENIED, _Says.ORAL) if one in said), _Says.NOTHING)


def _largest(header: Dataset, keyword: str) -> list[float]:
    """The largest of an attribute's numbers, if it has any."""
    found = [float(part) for part in text_of(header, keyword).split() if _NUMBER.fullmatch(part)]
    return [max(found)] if found else []


def _shown(words: str) -> str:
    return words if len(words) <= _WORDS_SHOWN else f"{words[: _WORDS_SHOWN - 3]}..."
