"""Text that any character set can hold."""

from __future__ import annotations

import unicodedata

# What reports use beyond ASCII, where the source's character set may not hold it.
_SPELLED = {
    "−": "-",
    "–": "-",
    "≤": "<=",
    "≥": ">=",
    "±": "+/-",
    "µ": "u",
    "μ": "u",
    "³": "3",
    "²": "2",
    "×": "x",
}


def plain(text: str) -> str:
    """`text` in ASCII. The source's character set is kept for names, and not every set holds every sign."""
    spelled = "".join(_SPELLED.get(sign, sign) for sign in text)
    decomposed = unicodedata.normalize("NFKD", spelled)
    return (
        "".join(sign for sign in decomposed if not unicodedata.combining(sign))
        .encode("ascii", "replace")
        .decode("ascii")
    )
