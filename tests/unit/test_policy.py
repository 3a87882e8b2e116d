"""Retry, another machine, wait, set aside or abandon: what `node.pipeline.policy` decides."""

from __future__ import annotations

import pytest

from config.settings import ConfigurationError
from node.pipeline.policy import Action, decide, reason_to_give_up
from node.pipeline.ports import ArtefactMissing
from node.store.errors import LeaseLost, StoreUnavailable


@pytest.mark.parametrize(
    ("error", "attempt", "action"),
    [
        (ValueError("unexpected"), 1, Action.RETRY),
        (ValueError("unexpected"), 3, Action.SET_ASIDE),
        (ArtefactMissing("selection.json"), 1, Action.ELSEWHERE),
        (OSError("stale file handle"), 2, Action.ELSEWHERE),
        (OSError("stale file handle"), 3, Action.SET_ASIDE),
        (StoreUnavailable("no answer"), 3, Action.WAIT),
        (ConfigurationError("no such engine"), 1, Action.SET_ASIDE),
        (LeaseLost(job_id=1, token=2), 3, Action.ABANDON),
    ],
)
def test_each_error_has_one_action(error: Exception, attempt: int, action: Action) -> None:
    assert decide(error, attempt=attempt, max_attempts=3) is action


def test_a_study_is_given_up_only_when_more_workers_were_lost_than_attempts_are_permitted() -> None:
    assert reason_to_give_up(attempt=3, max_attempts=3) is None
    assert reason_to_give_up(attempt=4, max_attempts=3) == "the worker was lost 3 times in this step"
