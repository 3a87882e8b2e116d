"""How busy each of the processes is that accept from one socket, so that an idler one takes the next peer."""

from __future__ import annotations

import mmap
from collections.abc import Sequence


class Seat:
    """One process's place among them; the counts lie in memory that a fork shares."""

    def __init__(self, counts: memoryview[int], place: int) -> None:
        self._counts = counts
        self._place = place

    def note(self, associations: int) -> None:
        """Tell the others how many this process has open. A process that starts has none."""
        self._counts[self._place] = associations

    @property
    def others_have_fewer(self) -> bool:
        return min(self._counts) < self._counts[self._place]


def seats(processes: int) -> Sequence[Seat]:
    """One for each process; to be made before the fork."""
    counts = memoryview(mmap.mmap(-1, 4 * processes)).cast("I")
    return [Seat(counts, place) for place in range(processes)]
