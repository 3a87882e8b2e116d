"""The fuzz run in its short form, the same cases each time; `make fuzz` has the long one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.cases import Damaged, association_requests, bombs, conversations, damaged_data_sets
from tests.fuzz.checks import check_data_set, write_neighbours
from tests.fuzz.target import Target, running_target

SHORT = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    with running_target(tmp_path / "var") as running:
        yield running


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_neighbours(tmp_path_factory.mktemp("neighbours"))


@settings(SHORT, max_examples=200)
@given(pieces=conversations())
def test_no_bytes_bring_the_listener_down(target: Target, pieces: tuple[bytes, ...]) -> None:
    target.send(*pieces)


@settings(SHORT, max_examples=250)
@given(damaged=damaged_data_sets())
def test_a_damaged_data_set_is_refused_or_kept_and_never_misread(
    target: Target, neighbours: tuple[Path, ...], damaged: Damaged
) -> None:
    check_data_set(target, damaged, neighbours)


@settings(SHORT, max_examples=100)
@given(request=association_requests())
def test_an_association_is_accepted_or_rejected_whatever_its_request_holds(
    target: Target, request: bytes
) -> None:
    target.ask(request)


@settings(SHORT, max_examples=15)
@given(bomb=bombs())
def test_what_is_small_and_states_much_is_refused_or_read_within_bounds(
    target: Target, neighbours: tuple[Path, ...], bomb: Damaged
) -> None:
    check_data_set(target, bomb, neighbours)
