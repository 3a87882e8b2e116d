"""Repairs of pynetdicom's reading of what peers answer to this node's requests for an association."""

from __future__ import annotations

from typing import Any

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from node.net.event_driven.negotiation import plain_answer


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
