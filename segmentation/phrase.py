"""Phrases: words that every language has, by their ids, without the words.

The rooms that measure say why by phrases; `config.phrases` knows their words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that every language has, by their id, and what fills them in.

    Attributes
    ----------
    id : of a message in config/phrases/.
    values : the message's arguments.
    """

    id: str
    values: Mapping[str, Value] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.id, *sorted(self.values)))

    def __str__(self) -> str:
        """For logs and error messages, which have no language."""
        filled = ", ".join(f"{name}={value}" for name, value in self.values.items())
        return f"{self.id}({filled})" if filled else self.id


Value: TypeAlias = str | int | float | Phrase  # text stands as it is: a name, or a number as it is shown


def phrase(id_: str, /, **values: Value) -> Phrase:
    """The phrase of that id, filled in."""
    return Phrase(id_, values)


def listed(parts: Iterable[Value]) -> Value:
    """Several values as a list: "a, b"; "" of none."""
    *others, last = tuple(parts) or ("",)
    for part in reversed(others):
        last = phrase("list", first=part, rest=last)
    return last


def clauses(parts: Iterable[Value]) -> Value:
    """Several statements beside each other: "a; b"; "" of none."""
    *others, last = tuple(parts) or ("",)
    for part in reversed(others):
        last = phrase("clauses", first=part, rest=last)
    return last


def together(parts: Iterable[Value]) -> Value:
    """Several values that count together: "a and b"; "" of none."""
    *others, last = tuple(parts) or ("",)
    for part in reversed(others):
        last = phrase("together", first=part, rest=last)
    return last
