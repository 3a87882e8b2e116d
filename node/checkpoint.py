"""A pause of pynetdicom's reactor that is one.

An association's own thread takes messages off the queue; whoever sends a request on it pauses that thread
first, to take the answer himself. pynetdicom 3.0 asks a flag whether the thread has paused, and clears that
flag only after the thread has passed the checkpoint: one that is preempted just there counts as paused, goes
on, takes the answer for a request and drops it. The sender then waits until an association times out.
"""

from __future__ import annotations

import threading
from typing import Any

_FIRST_PASS_S = 5.0
_SAY_AGAIN_S = 0.02


class Checkpoint:
    """In the place of the event that the reactor waits for: who passes it is not paused any more.

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
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """From now on nobody passes; who has passed has said so."""
        with self._changed:
            self._open = False

    def wait(self) -> None:
        """The reactor's: until it may pass.

        While it stands here it says so again and again, for the thread that answers an N-EVENT-REPORT clears
        the flag when it is done.
        """
        with self._changed:
            while not self._open:
                self._association._is_paused = True
                self._changed.wait(_SAY_AGAIN_S)
            self._association._is_paused = False
            self._passed = True
            self._changed.notify_all()

    def wait_until_passed(self) -> None:
        """Until the reactor comes by here, and no more by what it waited for before."""
        with self._changed:
            self._changed.wait_for(lambda: self._passed, _FIRST_PASS_S)


def make_pauses_sure(association: Any) -> None:
    """Give an association that a peer has accepted a checkpoint of this kind. Before its first request."""
    checkpoint = Checkpoint(association)
    association._reactor_checkpoint = checkpoint
    checkpoint.wait_until_passed()
