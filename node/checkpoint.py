"""A pause of pynetdicom's reactor that is one.

An association's own thread, the reactor, takes messages off the queue. Whoever sends a request on the
association pauses the reactor first, to take the answer himself. pynetdicom asks a flag whether the reactor
has paused, and clears that flag only after the reactor has passed its checkpoint: one that is preempted just
there counts as paused, goes on, takes the answer for a request and drops it. The sender then waits until a
timeout.
"""

from __future__ import annotations

import threading
import time
from typing import Any

_FIRST_PASS_S = 5.0
_SAY_AGAIN_S = 0.02
_LOOK_S = 0.005


class ReactorCheckpoint:
    """Takes the place of the event that the reactor waits for. A reactor that has passed it is not paused.

    Parameters
    ----------
    association : whose `_is_paused` says whether the reactor stands at the checkpoint.
    """

    def __init__(self, association: Any) -> None:
        self._association = association
        self._changed = threading.Condition()
        self._open = True
        self._passed = False

    def set(self) -> None:
        """Let the reactor pass."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Let the reactor pass no more. If it has passed, the flag says so already."""
        with self._changed:
            self._open = False

    def wait(self) -> None:
        """Stand until the reactor may pass. For the reactor's thread.

        It sets the flag again and again: the thread that answers an N-EVENT-REPORT clears it when it is done.
        """
        with self._changed:
            while not self._open:
                self._association._is_paused = True
                self._changed.wait(_SAY_AGAIN_S)
            self._association._is_paused = False
            self._passed = True
            self._changed.notify_all()

    def wait_until_passed(self) -> None:
        """Wait until the reactor comes by here, and so waits no more for the event that was here before."""
        with self._changed:
            self._changed.wait_for(lambda: self._passed, _FIRST_PASS_S)


def make_pauses_sure(association: Any) -> None:
    """Give an association that a peer has accepted a `ReactorCheckpoint`. Before its first request."""
    checkpoint = ReactorCheckpoint(association)
    association._reactor_checkpoint = checkpoint
    checkpoint.wait_until_passed()


def pause_reactor(association: Any, *, within_s: float) -> bool:
    """Pause the reactor between two messages.

    pynetdicom does so itself before it sends, but waits for ever for a thread that has ended.

    Parameters
    ----------
    association : with a `ReactorCheckpoint`.
    within_s : at most so many seconds.

    Returns
    -------
    False where the association ended first, or the time is up.
    """
    association._reactor_checkpoint.clear()
    deadline = time.monotonic() + within_s
    while association.is_established and time.monotonic() < deadline:
        if association._is_paused:
            return True
        time.sleep(_LOOK_S)
    resume_reactor(association)
    return False


def resume_reactor(association: Any) -> None:
    """Have the reactor go on."""
    association._reactor_checkpoint.set()
