"""Phrases: ids of translated texts, with their arguments.

Segmentation and scoring give reasons as phrases; `config.phrases` translates them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Phrase:
    """A translated text by its id, with its arguments.

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
        """Id and arguments, for logs and error messages, which are not translated."""
        filled = ", ".join(f"{name}={value}" for name, value in self.values.items())
        return f"{self.id}({filled})" if filled else self.id


Value: TypeAlias = str | int | float | Phrase  # text is not translated: a name, or a formatted number


def phrase(id_: str, /, **values: Value) -> Phrase:
    """The phrase of an id, with its arguments."""
    return Phrase(id_, values)


def listed(parts: Iterable[Value]) -> Value:
    """Several values as a list: "a, b"; "" of none."""
    return _joined(parts, lambda first, rest: phrase("list", first=first, rest=rest))


def clauses(parts: Iterable[Value]) -> Value:
    """Several statements: "a; b"; "" of none."""
    return _joined(parts, lambda first, rest: phrase("clauses", first=first, rest=rest))


def together(parts: Iterable[Value]) -> Value:
    """Several values joined by "and": "a and b"; "" of none."""
    return _joined(parts, lambda first, rest: phrase("together", first=first, rest=rest))


def _joined(parts: Iterable[Value], join: Callable[[Value, Value], Phrase]) -> Value:
    *others, last = tuple(parts) or ("",)
    for part in reversed(others):
        last = join(part, last)
    return last
