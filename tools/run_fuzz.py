"""Sends damaged, odd and oversized PDUs and data sets to a listener, and counts what became of them.

tools/run_fuzz.py [--minutes 10] [--seed N]

Exit status 1 at the first case after which the listener is not as it was before, which is printed.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.fuzz.cases import Damaged, association_requests, bombs, conversations, damaged_data_sets
from tests.fuzz.checks import check_data_set, write_neighbours
from tests.fuzz.target import Target, running_target

_CASES_A_ROUND, _BOMBS_A_ROUND = 500, 50


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    given_options = options.parse_args()
    print(f"seed {given_options.seed}", flush=True)
    end = time.monotonic() + 60.0 * given_options.minutes
    rounds = 0
    with (
        tempfile.TemporaryDirectory(prefix="osteonode-fuzz-") as folder,
        running_target(Path(folder) / "var") as target,
    ):
        neighbours = write_neighbours(Path(folder))
        while time.monotonic() < end:
            for case in (_conversation, _request, _data_set, _bomb):
                case(target, neighbours, given_options.seed + rounds)
            rounds += 1
    cases = rounds * _CASES_A_ROUND
    print(
        f"{cases} conversations, as many association requests and data sets, {rounds * _BOMBS_A_ROUND} bombs"
    )
    print("the listener was never down")
    for what, times in sorted(target.seen.items()):
        print(f"  {times:>8}  {what}")
    return 0


def _conversation(target: Target, neighbours: tuple[Path, ...], number: int) -> None:  # noqa: ARG001
    @_round(number)
    @given(pieces=conversations())
    def send(pieces: tuple[bytes, ...]) -> None:
        target.send(*pieces)

    send()


def _data_set(target: Target, neighbours: tuple[Path, ...], number: int) -> None:
    @_round(number)
    @given(damaged=damaged_data_sets())
    def store(damaged: Damaged) -> None:
        check_data_set(target, damaged, neighbours)

    store()


def _request(target: Target, neighbours: tuple[Path, ...], number: int) -> None:  # noqa: ARG001
    @_round(number)
    @given(request=association_requests())
    def ask(request: bytes) -> None:
        target.ask(request)

    ask()


def _bomb(target: Target, neighbours: tuple[Path, ...], number: int) -> None:
    @_round(number, _BOMBS_A_ROUND)
    @given(bomb=bombs())
    def store(bomb: Damaged) -> None:
        check_data_set(target, bomb, neighbours)

    store()


def _round(number: int, cases: int = _CASES_A_ROUND) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def of(test: Callable[[], None]) -> Callable[[], None]:
        run: Callable[[], None] = seed(number)(
            settings(
                max_examples=cases,
                database=None,
                deadline=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )(test)
        )
        return run

    return of


if __name__ == "__main__":
    sys.exit(main())
