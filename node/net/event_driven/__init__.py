"""Associations whose threads wake for what comes, in place of pynetdicom's polling loops. See README.md.

Here stand the private attributes of pynetdicom that this package and node/checkpoint.py use, and no others.
"""

from __future__ import annotations

from dataclasses import dataclass

PYNETDICOM = "3.0.4"  # pinned by == in pyproject.toml: any other release may have changed what stands below


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateAttribute:
    """One attribute, and what this package relies on.

    Parameters
    ----------
    owner : module and class in pynetdicom; a module alone for what stands in it.
    kind : name of the type of what is found: "function" for methods.
    relied_on : what it does, and how it is used here.
    """

    owner: str
    name: str
    kind: str
    relied_on: str


PRIVATE_ATTRIBUTES = (
    PrivateAttribute(
        owner="pynetdicom.association.Association",
        name="_is_paused",
        kind="bool",
        relied_on="The send_ methods wait until it is true. The association's thread sets it.",
    ),
    PrivateAttribute(
        owner="pynetdicom.association.Association",
        name="_reactor_checkpoint",
        kind="Event",
        relied_on="The send_ methods clear it to pause the association's thread, and set it at the end. "
        "It is replaced by an object with set, clear and wait.",
    ),
    PrivateAttribute(
        owner="pynetdicom.association.Association",
        name="_serve_request",
        kind="function",
        relied_on="Has the service class of a message serve it and answer. Called for all but C-STORE.",
    ),
    PrivateAttribute(
        owner="pynetdicom.dul.DULServiceProvider",
        name="_recv_pdu",
        kind="Queue",
        relied_on="The state machine takes the PDU of an event from it. It is filled before the event.",
    ),
    PrivateAttribute(
        owner="pynetdicom.dul.DULServiceProvider",
        name="_idle_timer",
        kind="Timer",
        relied_on="idle_timer_expired() asks it; network_timeout sets it. A PDU restarts it.",
    ),
    PrivateAttribute(
        owner="pynetdicom.dul.DULServiceProvider",
        name="_process_recv_primitive",
        kind="function",
        relied_on="Puts the event of the next primitive to be sent into event_queue; whether there was one.",
    ),
    PrivateAttribute(
        owner="pynetdicom.dul.DULServiceProvider",
        name="_decode_pdu",
        kind="function",
        relied_on="Makes a PDU and its event of bytes. Replaced on associations that this node asks for.",
    ),
)
