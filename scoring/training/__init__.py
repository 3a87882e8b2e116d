"""Cohorts, and models trained on them; and the strict reading of a number in a table of patients."""

from __future__ import annotations

import re
from math import isfinite

_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def decimal(cell: str) -> float | None:
    """The finite number in a cell, or None.

    Stricter than `float`, which reads "6_6" as 66 and accepts digits of every script, "inf" and "nan".
    """
    if _DECIMAL.fullmatch(cell) is None:
        return None
    value = float(cell)
    return value if isfinite(value) else None
