"""The terminal that commands print on."""

from __future__ import annotations

from rich.console import Console


def terminal(*, stderr: bool = False) -> Console:
    """A console that takes what it prints as it stands.

    Kernels, names and paths come from elsewhere: a bracket in one of them is no markup of ours, which rich
    would swallow or stumble over. Styles are given beside the text.
    """
    return Console(stderr=stderr, markup=False, highlight=False)
