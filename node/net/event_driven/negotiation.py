"""Association requests and answers of peers, rewritten so that pynetdicom can read them.

pynetdicom validates each field as it decodes it, and ends the association at the first that it does not know
or does not accept. PS3.8 asks otherwise: an item of unknown type is ignored (Section 9.3.1), one bit of the
protocol version is tested (Table 9-11), and blanks around an AE title mean nothing. This module reads every
A-ASSOCIATE PDU of a peer first, and writes it anew with the items that this node uses. It adds to
pynetdicom's answer what that leaves out: contexts that cannot be served, with the true result, and the fields
that are sent back as they came.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from node.net.access import Rejection

REQUEST, ACCEPTANCE, REJECTION, ABORT = 0x01, 0x02, 0x03, 0x07  # PDU types (PS3.8 Section 9.3.1)

# PS3.8 Table 9-21: for good; by the service user 1, by the provider of ACSE 2.
NOT_UNDERSTOOD = Rejection(result=1, source=2, reason=1, text="association request not understood")
TOO_SHORT_PDUS = Rejection(result=1, source=2, reason=1, text="maximum length below that of any message")
VERSION_UNKNOWN = Rejection(result=1, source=2, reason=2, text="protocol version not supported")
CONTEXT_UNKNOWN = Rejection(result=1, source=1, reason=2, text="application context name not supported")

# Results of a presentation context (PS3.8 Table 9-18).
_ACCEPTED, _NO_REASON, _NO_ABSTRACT_SYNTAX, _NO_TRANSFER_SYNTAX = 0, 2, 3, 4
_RESULTS = range(5)
# Reasons of a rejection by its source (PS3.8 Table 9-21), and of an abort by the provider (Table 9-26).
_REASONS: Mapping[int, Sequence[int]] = {1: (1, 2, 3, 7), 2: (1, 2), 3: (1, 2)}
_ABORT_REASONS = (0, 1, 2, 4, 5, 6)

_HEADER = struct.Struct(">BxL")
_ITEM = struct.Struct(">BxH")
_FIXED = 74  # bytes before the first item, the PDU's header among them
_TITLES = slice(10, _FIXED)  # with the reserved bytes after them: sent back as they came (PS3.8 Table 9-17)
_APPLICATION, _CONTEXT_ASKED, _CONTEXT_ANSWERED, _USER = 0x10, 0x20, 0x21, 0x50
_ABSTRACT, _TRANSFER = 0x30, 0x40
_MAXIMUM_LENGTH, _CLASS_UID, _ROLE, _VERSION_NAME = 0x51, 0x52, 0x54, 0x55
_DICOM = b"1.2.840.10008.3.1.1.1"  # the one application context (PS3.7 Annex A.2.1)
_UID = re.compile(rb"[0-9.]{1,64}")
_UNPRINTABLE = re.compile(rb"[^\x20-\x5b\x5d-\x7e]")  # and the backslash, which no AE title holds
_TITLE_LENGTH = 16
_UNSTATED_LENGTH = 16384  # of PDUs to a peer that states no maximum
_LEAST_LENGTH = 7  # a presentation data value's header, and one byte
_MOST_ROLES = 128  # as many as there can be contexts, whose ids are odd and have one byte
_NO_TITLE = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRequest:
    """An A-ASSOCIATE-RQ, rewritten.

    Parameters
    ----------
    content : a PDU that pynetdicom can decode.
    called, calling : AE titles as they are compared and logged.
    rejection : why the association cannot be served; None where it can.
    sent_back : what the A-ASSOCIATE-AC repeats: AE titles and the reserved bytes after them.
    unserved : results of presentation contexts that pynetdicom does not see, by context id.
    """

    content: bytes
    called: str
    calling: str
    rejection: Rejection | None = None
    sent_back: bytes = b""
    unserved: Mapping[int, int] = field(default_factory=dict)


def read_request(pdu: bytes) -> AssociationRequest:
    """Read an A-ASSOCIATE-RQ, whatever it holds.

    Parameters
    ----------
    pdu : with its header.

    Returns
    -------
    The request; one that cannot be served carries a rejection.
    """
    titles = _titles(pdu)
    try:
        if len(pdu) < _FIXED:
            raise ValueError("cut off before its first item")
        return _request(pdu, titles)
    except ValueError:  # lengths that contradict each other
        return _refused(titles, NOT_UNDERSTOOD)


def _request(pdu: bytes, titles: tuple[str, ...]) -> AssociationRequest:
    application, user = None, b""
    asked: dict[int, bytes] = {}
    unserved: dict[int, int] = {}
    for kind, value in _items(pdu[_FIXED:]):
        if kind == _APPLICATION:
            application = _stripped(value)
        elif kind == _USER:
            user = value
        elif kind == _CONTEXT_ASKED:
            context_id, context, result = _context_asked(value)
            repeated = (
                asked.get(context_id, context) != context
            )  # one id for two: which is meant is not known
            asked[context_id] = context
            if repeated or result != _ACCEPTED:
                unserved[context_id] = _NO_REASON if repeated else result
    known, longest = _user_information(user)
    if not int.from_bytes(pdu[6:8], "big") & 1:
        return _refused(titles, VERSION_UNKNOWN)
    if application != _DICOM:
        return _refused(titles, CONTEXT_UNKNOWN)
    if 0 < longest < _LEAST_LENGTH:
        return _refused(titles, TOO_SHORT_PDUS)
    served = [_item(_CONTEXT_ASKED, one) for number, one in asked.items() if number not in unserved]
    content = _associate(REQUEST, titles, [*served, _item(_USER, known)])
    called, calling = titles
    return AssociationRequest(
        content=content, called=called, calling=calling, sent_back=pdu[_TITLES], unserved=unserved
    )


def _refused(titles: tuple[str, ...], rejection: Rejection) -> AssociationRequest:
    called, calling = titles
    content = _associate(REQUEST, titles, [_item(_USER, b"")])
    return AssociationRequest(content=content, called=called, calling=calling, rejection=rejection)


def _context_asked(value: bytes) -> tuple[int, bytes, int]:
    """A presentation context: its id, its item for pynetdicom, and 0 or the result that rejects it.

    Raises
    ------
    ValueError
        If its lengths contradict each other.
    """
    if len(value) < 4:
        raise ValueError("a presentation context is cut off")
    context_id = value[0]
    items = list(_items(value[4:]))
    abstract = {_stripped(one) for kind, one in items if kind == _ABSTRACT}
    transfer = [_stripped(one) for kind, one in items if kind == _TRANSFER]
    usable = [one for one in dict.fromkeys(transfer) if _UID.fullmatch(one)]
    if context_id % 2 == 0:
        result = _NO_REASON  # ids are odd (PS3.8 Section 9.3.2.2)
    elif len(abstract) != 1 or not all(_UID.fullmatch(one) for one in abstract):
        result = _NO_ABSTRACT_SYNTAX
    else:
        result = _ACCEPTED if usable else _NO_TRANSFER_SYNTAX
    subitems = [_item(_ABSTRACT, one) for one in sorted(abstract)] + [_item(_TRANSFER, one) for one in usable]
    return context_id, bytes((context_id, 0, 0, 0)) + b"".join(subitems), result


def answered(acceptance: bytes, request: AssociationRequest) -> bytes:
    """Complete pynetdicom's A-ASSOCIATE-AC by contexts that it did not see, and by fields that are sent back.

    Parameters
    ----------
    acceptance : the PDU that pynetdicom encoded.
    request : that it answers.

    Returns
    -------
    The PDU to send.
    """
    contexts = b"".join(
        _context_answered(number, result, ImplicitVRLittleEndian.encode())
        for number, result in request.unserved.items()
    )
    body = bytearray(acceptance[6:])
    body[_TITLES.start - 6 : _TITLES.stop - 6] = request.sent_back
    # After the application context, and before user information, as tables in the standard have them.
    at = _FIXED - 6
    for kind, value in _items(acceptance[_FIXED:]):
        if kind == _USER:
            break
        at += _ITEM.size + len(value)
    body[at:at] = contexts
    return _HEADER.pack(ACCEPTANCE, len(body)) + bytes(body)


def plain_answer(pdu: bytes) -> bytes:
    """Rewrite a peer's answer to our request so that pynetdicom can read it. Other PDUs stay as they are.

    Raises
    ------
    ValueError
        If it is cut off, or its lengths contradict each other.
    """
    kind = pdu[0]
    if kind == ACCEPTANCE:
        if len(pdu) < _FIXED:
            raise ValueError("an acceptance is cut off")
        return _acceptance(pdu)
    if kind in (REJECTION, ABORT):
        if len(pdu) < 10:
            raise ValueError("a rejection or an abort is cut off")
        result, source, reason = pdu[7:10]
        if kind == REJECTION:
            result = result if result in (1, 2) else 2  # what is not said to be for good may pass
            source, reason = (source, reason) if reason in _REASONS.get(source, ()) else (2, 1)
            return pdu[:7] + bytes((result, source, reason))
        source, reason = pdu[8:10]
        source = source if source in (0, 2) else 2
        return pdu[:8] + bytes((source, reason if reason in _ABORT_REASONS else 0))
    return pdu


def _acceptance(pdu: bytes) -> bytes:
    contexts, user = [], b""
    for kind, value in _items(pdu[_FIXED:]):
        if kind == _USER:
            user = value
        elif kind == _CONTEXT_ANSWERED:
            if len(value) < 4:
                raise ValueError("a presentation context is cut off")
            number, result = value[0], value[2]
            syntaxes = [_stripped(one) for kind, one in _items(value[4:]) if kind == _TRANSFER]
            sound = len(syntaxes) > 0 and _UID.fullmatch(syntaxes[0]) is not None
            # Of one that is not accepted the syntax means nothing (PS3.8 Section 9.3.3.2).
            if result not in _RESULTS or (result == _ACCEPTED and not sound):
                result = _NO_REASON
            syntax = syntaxes[0] if result == _ACCEPTED else ImplicitVRLittleEndian.encode()
            if number % 2 == 1:
                contexts.append(_context_answered(number, result, syntax))
    known, longest = _user_information(user)
    if 0 < longest < _LEAST_LENGTH:
        raise ValueError("the maximum length holds no message")
    return _associate(ACCEPTANCE, _titles(pdu), [*contexts, _item(_USER, known)])


def _context_answered(number: int, result: int, syntax: bytes) -> bytes:
    return _item(_CONTEXT_ANSWERED, bytes((number, 0, result, 0)) + _item(_TRANSFER, syntax))


def _user_information(value: bytes) -> tuple[bytes, int]:
    """The sub-items that this node uses, and the longest PDU that the peer accepts; 0 for any.

    Left out are those that an acceptor may leave unanswered: asynchronous operations, extended negotiation
    and user identity of whatever type (PS3.7 Annex D.3.3), and all that are not known.
    """
    longest = _UNSTATED_LENGTH
    known: dict[bytes, bytes] = {}  # the first of each kind, and the first role for each class
    for kind, one in _items(value):
        if kind == _MAXIMUM_LENGTH and len(one) == 4:
            longest = int.from_bytes(one, "big")
        elif kind == _CLASS_UID and _UID.fullmatch(_stripped(one)):
            known.setdefault(b"class", _item(kind, _stripped(one)))
        elif kind == _VERSION_NAME and _stripped(one):
            known.setdefault(b"version", _item(kind, _title(one[:_TITLE_LENGTH]).encode("ascii")))
        elif kind == _ROLE and (role := _role(one)) and len(known) < _MOST_ROLES:
            known.setdefault(role[2:-2], _item(kind, role))
    return _item(_MAXIMUM_LENGTH, longest.to_bytes(4, "big")) + b"".join(known.values()), longest


def _role(value: bytes) -> bytes | None:
    """A role selection with a class and at least one role; None for any other (PS3.7 Annex D.3.3.4)."""
    length = int.from_bytes(value[:2], "big")
    uid, roles = _stripped(value[2 : 2 + length]), value[2 + length :]
    if len(roles) != 2 or not _UID.fullmatch(uid) or sorted(roles) not in ([0, 1], [1, 1]):
        return None
    return len(uid).to_bytes(2, "big") + uid + roles


def _associate(kind: int, titles: Sequence[str], items: Sequence[bytes]) -> bytes:
    """A PDU with the default version and application context."""
    fixed = b"\x00\x01\0\0" + b"".join(one.ljust(_TITLE_LENGTH).encode("ascii") for one in titles) + bytes(32)
    body = fixed + _item(_APPLICATION, _DICOM) + b"".join(items)
    return _HEADER.pack(kind, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Types and values.

    Raises
    ------
    ValueError
        If a length reaches beyond the content.
    """
    at = 0
    while at < len(content):
        if len(content) - at < _ITEM.size:
            raise ValueError("an item is cut off")
        kind, length = _ITEM.unpack_from(content, at)
        begin = at + _ITEM.size
        at = begin + length
        if at > len(content):
            raise ValueError("an item is longer than what holds it")
        yield kind, content[begin:at]


def _stripped(value: bytes) -> bytes:
    """Without the padding that peers put around UIDs, though there should be none (PS3.8 Annex F)."""
    return value.strip(b"\0 ")


def _titles(pdu: bytes) -> tuple[str, ...]:
    """Called and calling AE title."""
    return tuple(_title(pdu[begin : begin + _TITLE_LENGTH]) for begin in (10, 26))


def _title(value: bytes) -> str:
    """An AE title as it is compared and logged. "?" stands for a character outside ASCII, and for no title.

    A NUL ends it, as it ends the text of peers that leave something after it.
    """
    text = _UNPRINTABLE.sub(b"?", value.partition(b"\0")[0].strip(b" "))
    return text.decode("ascii") or _NO_TITLE


# ---- answers to this node's own requests, where pynetdicom's loops read them


def read_answers_plainly(association: Association) -> None:
    """Have pynetdicom read a peer's answer without the items that it cannot read. Before the answer comes.

    Parameters
    ----------
    association : that this node asks for.
    """
    provider = association.dul
    decode = provider._decode_pdu

    def decode_plain(content: bytearray) -> Any:
        return decode(bytearray(plain_answer(bytes(content))))

    provider._decode_pdu = decode_plain


def read_early_rejection(association: Association) -> None:
    """Note a rejection that came before pynetdicom checked the connection.

    The provider has closed the connection by then, which pynetdicom takes for no connection, and the answer
    stays unread. Unread, a peer that rejects for good would be asked again.
    """
    if association.acceptor.primitive is not None:
        return
    for answer in tuple(association.dul.to_user_queue.queue):
        if isinstance(answer, A_ASSOCIATE) and answer.result:
            association.acceptor.primitive = answer
            association.is_rejected = True
