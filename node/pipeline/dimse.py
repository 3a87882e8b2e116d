"""DIMSE statuses and reasons in words, for people who look for what went wrong."""

from __future__ import annotations

# PS3.7 Annex C; PS3.3 C.14 Failure Reason uses the same numbers.
_GENERAL = {
    0x0000: "success",
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0112: "no such object instance",
    0x0113: "no such event type",
    0x0114: "no such argument",
    0x0115: "invalid argument value",
    0x0117: "invalid object instance",
    0x0118: "no such SOP class",
    0x0119: "class and instance conflict",
    0x0122: "SOP class not supported",
    0x0123: "no such action",
    0x0124: "not authorized",
    0x0131: "duplicate transaction UID",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
}
# PS3.4 Table B.2-1, of the Storage service.
_STORAGE = {
    0xA700: "out of resources",
    0xA900: "the data set does not match its SOP class",
    0xB000: "stored, with coerced elements",
    0xB006: "stored, with elements discarded",
    0xB007: "stored, though the data set does not match its SOP class",
    0xC000: "cannot understand the object",
}


def in_words(status: int) -> str:
    """A status with its number, such as "0x0122, SOP class not supported"."""
    family = status & 0xFF00 if status >= 0xA000 else status
    if family in range(0xC000, 0xD000):
        family = 0xC000
    known = _GENERAL.get(status) or _STORAGE.get(status) or _STORAGE.get(family)
    return f"0x{status:04X}, {known}" if known else f"0x{status:04X}"
