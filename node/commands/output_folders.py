"""Where a command's results may go: never over what it reads."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import typer

from node.research.extraction import ABOUT

_LONGEST_HEAD = 1 << 20  # characters: 851 names take 40,000


def require_outside(out: Path, studies: Iterable[Path], *, option: str = "--out") -> None:
    """Refuse results in a folder of inputs, by whatever path or link it is named.

    Raises
    ------
    typer.BadParameter
        If `out` is one of the folders or lies in one.
    """
    place = out.resolve()
    for study in studies:
        folder = study.resolve()
        if place == folder or folder in place.parents:
            raise typer.BadParameter(
                f"{out} is inside the input folder {study}: results would mix with the images, and those of "
                "an earlier run would be deleted. Name a folder outside it",
                param_hint=option,
            )


def require_kept(
    out: Path, patterns: Iterable[str], inputs: Iterable[Path | None], *, option: str = "--out"
) -> None:
    """Refuse a folder in which the command's own files would replace one that it reads.

    Parameters
    ----------
    patterns : names of the files that the command writes or deletes in `out`.
    inputs : files that it reads; None for those that were not named.

    Raises
    ------
    typer.BadParameter
    """
    folder, names = out.resolve(), tuple(patterns)
    for path in (one for one in inputs if one is not None):
        # By its own name and by that of what it links to: deleting either loses it.
        for place in (path.parent.resolve() / path.name, path.resolve()):
            if place.parent == folder and any(fnmatchcase(place.name, name) for name in names):
                raise typer.BadParameter(
                    f"{place.name} in {out} is an input and would be replaced by a result of that name: "
                    "name another folder",
                    param_hint=option,
                )


def require_table_of_features(out: Path, *, option: str = "--out") -> None:
    """Refuse to replace a file that is no table of features: a cohort's, say, or an image.

    Raises
    ------
    typer.BadParameter
    """
    if not out.is_file() or not out.stat().st_size:
        return
    try:
        with out.open(encoding="utf-8-sig", errors="replace") as file:
            head = file.readline(_LONGEST_HEAD)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {out}: {error.strerror}", param_hint=option) from error
    if not head.startswith(",".join(ABOUT)):
        raise typer.BadParameter(
            f"{out} exists and is not a table of features: name another file", param_hint=option
        )
