"""The font that Chinese pictures need, which comes with the operating system."""

from __future__ import annotations

from pathlib import Path

from config.settings import ConfigurationError, NodeSettings

_CHINESE = "zh"
# What a file of TrueType or OpenType outlines begins with, or a collection of them (OpenType 1.9, "otff").
_SIGNATURES = (b"\x00\x01\x00\x00", b"OTTO", b"ttcf", b"true")


def wide_font(node: NodeSettings) -> Path | None:
    """The font for signs that DejaVu Sans lacks; None where it is not installed and the pages are English.

    Raises
    ------
    ConfigurationError
        If Chinese pages are asked for and there is no such font.
    """
    path = Path(node.wide_font)
    if _is_font(path):
        return path
    if node.language != _CHINESE:
        return None
    raise ConfigurationError(
        f"node.language is {node.language!r}, for which node.wide_font must be a TrueType or OpenType font "
        f"with Chinese signs: {path} is none. Install Debian's package fonts-wqy-microhei, or name another."
    )


def _is_font(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in _SIGNATURES
    except OSError:
        return False
