"""By what technique a model's studies were made, and which other studies lie outside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from node.research.rows import first_of
from scoring.applicability import technique_reasons
from scoring.calibration import Mineral
from scoring.modelcard import Applicability, Range
from scoring.spectrum import CONVENTIONAL, NO_FILTER, Spectrum, energy_in_words
from scoring.training.errors import CohortUnusable
from segmentation.bone import known_kvp

Row = Mapping[str, str]
KVP_MARGIN = 1.0  # R: to either side of a tube voltage; scanners of one setting state 119 to 121
SPACING_SHARE = 0.05  # R: of a spacing, to either side


def technique_of(rows: Sequence[Row]) -> Applicability:
    """What a model covers that is trained on these studies: their ranges, a little wider.

    Parameters
    ----------
    rows : of a table of features (`read_features`), of studies that have features.

    Raises
    ------
    CohortUnusable
        If densities of both minerals or images of several spectra are among them, a study tells no kVp or
        spacing, or tube voltages lie so far apart that the range would hold one that no study was made with.
    """
    minerals = sorted({row["equivalent"] for row in rows if row["equivalent"]})
    if len(minerals) != 1:
        raise CohortUnusable(f"one mineral equivalent is needed; the studies have {minerals or 'none'}")
    spectra = sorted({_spectrum(row) for row in rows}, key=lambda one: (one.energy, one.beam_filter))
    if len(spectra) != 1:
        told = ", ".join(f"{energy_in_words(one.energy)} with filter {one.beam_filter}" for one in spectra)
        raise CohortUnusable(
            f"studies to train on are of different spectra (energy type {told}): a card states one; train on "
            "those of one"
        )
    return Applicability(
        energy=spectra[0].energy,
        beam_filter=spectra[0].beam_filter,
        kvp=_tube_voltages(_values(rows, "kvp")),
        slice_spacing_mm=_around(_values(rows, "slice_spacing_mm")),
        pixel_spacing_mm=_around(_values(rows, "pixel_spacing_mm")),
        equivalent=Mineral(minerals[0]),
    )


def outside(row: Row, technique: Applicability) -> str:
    """Why a model of this technique does not cover a study; "" where it does.

    The table keeps the larger of two pixel spacings alone.
    """
    pixel_mm = _measure(row, "pixel_spacing_mm")
    reasons = technique_reasons(
        technique,
        kvp=_measure(row, "kvp"),
        spectrum=_spectrum(row),
        slice_spacing_mm=_measure(row, "slice_spacing_mm"),
        pixel_spacing_mm=() if pixel_mm is None else (pixel_mm,),
        equivalent=Mineral(row["equivalent"]) if row["equivalent"] else None,
    )
    return "; ".join(reasons)


def _spectrum(row: Row) -> Spectrum:
    """Silence means a conventional image, as in headers and cards."""
    return Spectrum(energy=row["energy"] or CONVENTIONAL, beam_filter=row["beam_filter"] or NO_FILTER)


def _values(rows: Sequence[Row], column: str) -> list[float]:
    measures = [_measure(row, column) for row in rows]
    missing = [row["study"] for row, measure in zip(rows, measures, strict=True) if measure is None]
    if missing:
        raise CohortUnusable(f"no {column} in {first_of(missing)}")
    return sorted(measure for measure in measures if measure is not None)


def _measure(row: Row, column: str) -> float | None:
    """None where it is not stated, or is 0 kV: earlier versions kept what a header said."""
    stated = float(row[column]) if row[column] else None
    return known_kvp(stated) if column == "kvp" else stated


def _tube_voltages(kvp: Sequence[float]) -> Range:
    """From the lowest to the highest, sorted as given, if the margins leave no gap between."""
    gaps = [(low, high) for low, high in pairwise(kvp) if high - low > 2 * KVP_MARGIN]
    if gaps:
        low, high = gaps[0]
        raise CohortUnusable(
            f"studies to train on were made at {low:g} and at {high:g} kV, none between: a card states one "
            "range of tube voltages; train on those of one"
        )
    return kvp[0] - KVP_MARGIN, kvp[-1] + KVP_MARGIN


def _around(values: Sequence[float]) -> Range:
    return values[0] * (1 - SPACING_SHARE), values[-1] * (1 + SPACING_SHARE)
