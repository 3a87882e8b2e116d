"""Where pynetdicom's own loops fall short: tests that they fail, and why.

Each must fail with `access.event_driven = false`. One that passes is red: pynetdicom has mended it, and it
comes off this list. `node/net/event_driven` mends all of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortcoming:
    """Cases of one test that fail for one reason.

    Parameters
    ----------
    test : the test function's name.
    cases : ids of its parameters; none for all.
    """

    why: str
    test: str
    cases: tuple[str, ...] = ()


SHORTCOMINGS = (
    # ---- what PS3.8 allows in an association request
    Shortcoming(
        why="it compares and returns AE titles as it decodes them, or fails to decode them",
        test="test_what_the_standard_lets_a_peer_ask_is_served",
        cases=(
            "AE titles of NUL",
            "AE titles of blanks",
            "AE titles outside the default repertoire",
            "AE titles padded with NUL",
            "AE titles with leading blanks",
            "an AE title of Chinese characters",
            "an AE title that something follows after its NUL",
        ),
    ),
    Shortcoming(
        why="it does not send back the reserved bytes of the request (PS3.8 Table 9-17)",
        test="test_what_the_standard_lets_a_peer_ask_is_served",
        cases=("reserved bytes that are not zero",),
    ),
    Shortcoming(
        why="it compares the protocol version as a number (PS3.8 Table 9-11: one bit is tested)",
        test="test_what_the_standard_lets_a_peer_ask_is_served",
        cases=("further bits of the protocol version", "the second version besides the first"),
    ),
    Shortcoming(
        why="it ends the association at an item that it does not know (PS3.8 Section 9.3.1: ignored)",
        test="test_what_the_standard_lets_a_peer_ask_is_served",
        cases=(
            "a context with an unknown sub-item",
            "an unknown item",
            "an unknown item without content",
            "an unknown sub-item of user information",
            "an unknown type of user identity",
        ),
    ),
    Shortcoming(
        why="it ends the association at user information that it could do without",
        test="test_what_the_standard_lets_a_peer_ask_is_served",
        cases=(
            "a class UID over 64 characters",
            "a maximum length of another size",
            "a role cut short",
            "a role that is none",
            "a usable transfer syntax behind unusable ones",
            "a user identity cut short",
            "a version name of other characters",
            "a version name over 16 characters",
            "a version name padded with NUL",
            "asynchronous operations cut short",
            "extended negotiation cut short",
            "no maximum length",
            "user information without content",
        ),
    ),
    Shortcoming(
        why="it ends the association at user information that it could do without",
        test="test_a_role_is_agreed_on_beside_items_that_nobody_knows",
    ),
    Shortcoming(
        why="it aborts, accepts or keeps silent where PS3.8 Table 9-21 has a reason to reject",
        test="test_what_cannot_be_served_is_rejected_with_a_reason_of_table_9_21",
        cases=(
            "a context with a broken sub-item",
            "a context without id",
            "a request without items' place",
            "a sub-item beyond the end",
            "an application context that is no UID",
            "an empty request",
            "an item beyond the end",
            "another application context",
            "half an item",
            "no application context",
            "no room for any message",
        ),
    ),
    Shortcoming(
        why="it ends the association at a context that it could turn down",
        test="test_a_context_that_cannot_be_served_is_turned_down_and_the_rest_served",
        cases=(
            "a transfer syntax over 64 characters",
            "an even id",
            "neither",
            "no abstract syntax",
            "no transfer syntax",
            "one id for two",
            "the id 0",
            "transfer syntaxes that are no UIDs",
        ),
    ),
    Shortcoming(
        why="it fails to decode an AE title of other characters, or of none",
        test="test_an_ae_title_is_kept_as_it_can_be_read",
    ),
    # ---- connections and PDUs
    Shortcoming(
        why="it waits for a request for its whole timeout though the connection has closed",
        test="test_connections_that_ask_for_nothing_leave_nothing_behind",
    ),
    Shortcoming(
        why="closed connections count until the timeout of their requests",
        test="test_a_stranger_keeps_nobody_out_whatever_it_opens",
    ),
    Shortcoming(
        why="it limits the time for each piece of a PDU, and not for the whole",
        test="test_a_peer_that_sends_too_slowly_is_cut_off",
    ),
    Shortcoming(
        why="it holds no PDU to a length",
        test="test_a_pdu_longer_than_announced_is_not_waited_for",
    ),
    Shortcoming(
        why="its thread dies at an abort whose source there is not",
        test="test_an_abort_without_meaning_is_understood_as_one_and_nothing_breaks",
    ),
    Shortcoming(
        why="nobody is told of a connection that asks for no association",
        test="test_who_asks_for_no_association_stands_in_the_log_with_its_address",
    ),
    Shortcoming(
        why="it rejects or aborts by itself, and tells nobody",
        test="test_who_is_refused_stands_in_the_log_with_address_and_titles",
        cases=("a request that cannot be read", "a version"),
    ),
    # ---- messages
    Shortcoming(
        why="its thread dies at a command field that there is not",
        test="test_a_command_that_there_is_not_ends_the_association_and_nothing_breaks",
    ),
    Shortcoming(
        why="it takes a command amid a data set for a part of it",
        test="test_a_command_amid_a_data_set_ends_the_association_and_nothing_is_kept",
    ),
    Shortcoming(
        why="it reads one message out of a PDU, and drops the others",
        test="test_two_images_in_one_pdu_are_both_kept",
    ),
    Shortcoming(
        why="it reads one message out of a PDU, and drops the others",
        test="test_two_messages_in_one_pdu_are_answered_whoever_reads_them",
    ),
    Shortcoming(
        why="it ends the association at a UID or a priority that it does not like, or keeps silent",
        test="test_an_odd_store_request_costs_its_own_instance_at_most",
        cases=(
            "a UID of a thousand characters",
            "a UID of blanks",
            "a UID over 64 characters",
            "a UID that is no text",
            "a UID with a letter",
            "a priority that there is not",
            "no UID",
            "no class",
        ),
    ),
    Shortcoming(
        why="it ends the association at a UID or a priority that it does not like, or keeps silent",
        test="test_a_hostile_uid_in_the_command_reaches_neither_path_nor_row",
        cases=("uid1",),
    ),
)


def shortcoming_of(test: str, case: str) -> Shortcoming | None:
    """The one that a test of pynetdicom's loops fails by.

    Parameters
    ----------
    case : id of its parameters, without that of the loops.
    """
    return next(
        (one for one in SHORTCOMINGS if one.test == test and (not one.cases or case in one.cases)), None
    )
