"""Tests wait for events, and `tests/waiting.py` alone says for how long at most."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import HANGS_AFTER_S, LIMIT_S, holds_for, wait_until

TESTS = Path(__file__).parents[1]
# Arguments that say for how long somebody waits at most, by name.
LIMITS = {
    "answer_timeout_s",
    "connect_timeout_s",
    "dimse_timeout",
    "patience_s",
    "timeout",
    "timeout_s",
    "within_s",
}
# Methods that wait, and take the limit as an argument without a name.
WAITING = {"acquire", "communicate", "join", "result", "settimeout", "timeout", "wait", "wait_procs"}
CLOCKS = {"monotonic", "perf_counter"}
# Where a time is what is tested: the file and function, and why.
TIMES_OF_THEIR_OWN = {
    "net/test_checkpoint.py::test_who_has_passed_is_not_paused_and_who_stands_there_is": (
        "the reactor stands: it has not passed after a moment"
    ),
    "net/test_commitment_asked.py::test_a_report_that_comes_after_a_restart_finds_its_transaction": (
        "when the node may ask again: nobody waits for it"
    ),
    "net/test_sender.py::test_a_peer_that_hangs_up_half_way_gets_the_rest_later": (
        "pynetdicom waits for the answer of a peer that is gone until its time is over"
    ),
    "net/test_sender.py::test_a_peer_that_never_answers_is_left": (
        "the product gives up after a time of its own, which is set short"
    ),
    "unit/test_reference_pacs.py::test_waiting_for_what_never_comes_ends": "waiting is what is tested",
    "worker/test_store_transactions.py": "when the node may ask again: nobody waits for it",
    "worker/test_supervised_threads.py::_store_if_possible": "a pause, so that a heartbeat comes",
}


def limits_in(source: str) -> Iterator[tuple[str, int]]:
    """Where a source says for how long it waits at most: the function's name and the line."""
    tree = ast.parse(source)
    numbers = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and _is_number(node.value, set())
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    yield from _limits_below(tree, "", numbers)


def _limits_below(node: ast.AST, function: str, numbers: set[str]) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        within = function
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            within = f"{function}.{child.name}".lstrip(".")
        elif _states_a_limit(child, numbers):
            yield function, getattr(child, "lineno", 0)
        yield from _limits_below(child, within, numbers)


def _states_a_limit(node: ast.AST, numbers: set[str]) -> bool:
    def number(value: ast.AST | None) -> bool:
        return value is not None and _is_number(value, numbers)

    match node:
        case ast.Call(func=function, args=given, keywords=named):
            name = function.attr if isinstance(function, ast.Attribute) else ""
            by_name = any(one.arg in LIMITS and number(one.value) for one in named)
            return by_name or (name in WAITING and any(map(number, given)))
        case ast.arguments():
            positional = dict(zip(reversed(node.args), reversed(node.defaults), strict=False))
            values = positional | dict(zip(node.kwonlyargs, node.kw_defaults, strict=True))
            return any(one.arg in LIMITS and number(value) for one, value in values.items())
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _reads_a_clock(left) and number(right)
        case ast.Compare(left=ast.BinOp(left=left, op=ast.Sub()), ops=[ast.Lt() | ast.LtE()]):
            return _reads_a_clock(left) and number(node.comparators[0])
        case ast.Assign(targets=[ast.Attribute(attr=name)], value=value):
            return name in LIMITS and number(value)
    return False


def _reads_a_clock(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="time"), attr=name)):
            return name in CLOCKS
    return False


def _is_number(node: ast.AST | None, numbers: set[str]) -> bool:
    match node:
        case ast.Constant(value=int() | float() as value):
            return not isinstance(value, bool)
        case ast.UnaryOp(operand=operand):
            return _is_number(operand, numbers)
        case ast.BinOp(left=left, right=right):
            return _is_number(left, numbers) and _is_number(right, numbers)
        case ast.Name(id=name):
            return name in numbers
    return False


@pytest.mark.parametrize(
    "source",
    [
        "process.wait(10)",
        "process.communicate(timeout=3)",
        "WITHIN_S = 5.0\nthread.join(WITHIN_S)",
        "deadline = time.monotonic() + 10",
        "assert time.monotonic() - began < 2 * 4",
        "@pytest.mark.timeout(300)\ndef test_a(): ...",
        "entity.dimse_timeout = 2.0",
        "session.wait(over, 5.0)",
        "subprocess.run(command, timeout=20)",
        "def close(watch, within_s=5.0): ...",
        "def close(watch, *, within_s=5.0): ...",
    ],
)
def test_a_limit_is_found_however_it_is_stated(source: str) -> None:
    assert list(limits_in(source))


@pytest.mark.parametrize("source", ["process.wait(LIMIT_S)", "process.wait()", "wait(over, 2 * LIMIT_S)"])
def test_the_one_limit_is_none_of_a_test_s_own(source: str) -> None:
    assert not list(limits_in(source))


def test_no_test_says_for_how_long_it_waits() -> None:
    found, used = [], set()
    for path in sorted(TESTS.rglob("*.py")):
        file = path.relative_to(TESTS).as_posix()
        for function, line in limits_in(path.read_text("utf-8")):
            known = {file, f"{file}::{function}"} & set(TIMES_OF_THEIR_OWN)
            used |= known
            if not known:
                found.append(f"{file}:{line} in {function}: use LIMIT_S or wait_until of tests.waiting")
    assert not found, "\n".join(found)
    assert used == set(TIMES_OF_THEIR_OWN)


def test_what_holds_later_is_waited_for_and_what_ends_is_told() -> None:
    looks = iter([0, 0, 7])
    assert wait_until(lambda: next(looks), every_s=0.0) == 7
    seen = iter([True, True, False])
    with pytest.raises(AssertionError, match="it stays"):
        holds_for(lambda: next(seen), LIMIT_S, "it stays")
    assert HANGS_AFTER_S > LIMIT_S
