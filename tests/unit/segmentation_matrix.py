"""Sixty digital reference studies and what must come out of each, written down before any engine saw them.

The expectations follow from the rules for level identity and quality, not from an engine's answers:

* names: with sacrum or last rib in view every whole lumbar body is found and named; with neither, every whole
  lumbar body is found, counted from the head and not named. Five lumbar vertebrae and no fault: no finding
  that withholds a density.
* a fractured L3 is named as fractured there, an implant as metal at its level, and no other level is barred.
* on slices more than 3.2 mm apart every study says that fractures were not assessed, and no sound body is
  called fractured; a fractured one may still be, if it lost much.
* six lumbar vertebrae, or a sacralised fifth, are a numbering conflict where rib and sacrum are both in view.
  With the sacrum alone in view six are told from five only if the sixth is wholly in view: its sides then
  bear no ribs (test_engine_numbering.py). No such study is in this list.

test_segmentation_matrix.py runs 14 of them; `make matrix` prints each and counts. The pixels were made
finer later (1.4 instead of 1.7 mm), so that the core's depth is 3 mm and not two pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from node.reference.spec import BODIES, Faults, Fracture, FractureShape, Implant, Lumbar, StudySpec

RIB_AND_SACRUM = "sacrum and last rib"
SACRUM, RIB, NEITHER = "sacrum", "last rib", "none"
HEIGHTS_UP_TO_MM = 3.2
LUMBAR = ("L1", "L2", "L3", "L4", "L5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The outcome that a study must have."""

    whole: tuple[str, ...]  # lumbar bodies wholly in view
    anchor: str  # what the names can rest on
    conflict: bool = False  # rib and sacrum must be said to disagree
    misnamed: tuple[str, ...] = ()  # names that the count must give to other vertebrae, marked
    barred: tuple[tuple[str, str], ...] = ()  # (finding, level): each must be among the findings
    unassessed: tuple[str, ...] = ()  # fractured, on slices too thick for heights: they may be barred


@dataclass(frozen=True, slots=True, kw_only=True)
class Crisp:
    """What makes the ends and waists of bodies stand out, put into a study that is rendered without it.

    Attributes
    ----------
    endplate_hu : added at both ends of every body, fading within 3 mm.
    sclerosis : a level, and HU added to the 8 mm beneath its upper endplate; None for none.
    edge_gain : of a bone kernel's enhancement of edges within slices.
    half_field_mm : to each side of the spine; the phantom is out of view.
    """

    endplate_hu: float
    sclerosis: tuple[str, float] | None
    edge_gain: float
    half_field_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One study of the matrix."""

    number: int
    spec: StudySpec
    expected: Expected
    crisp: Crisp | None = None

    @property
    def faulted(self) -> bool:
        return bool(self.expected.barred or self.expected.unassessed) or self.expected.conflict

    @property
    def heights_are_read(self) -> bool:
        """Whether slices are close enough for losses of height of less than 40 %."""
        return self.spec.slice_spacing_mm <= HEIGHTS_UP_TO_MM

    @property
    def anchored(self) -> bool:
        return self.expected.anchor != NEITHER


# View: topmost and lowest vertebra wholly in view, its whole lumbar bodies, its anchors. T12 wholly in view
# shows the twelfth ribs; S1 wholly in view shows the wings.
_VIEWS = (
    (("T11", "S2"), LUMBAR, RIB_AND_SACRUM),
    (("T12", "S1"), LUMBAR, RIB_AND_SACRUM),
    (("L1", "S1"), LUMBAR, SACRUM),
    (("L2", "S1"), LUMBAR[1:], SACRUM),
    (("T12", "L4"), LUMBAR[:4], RIB),
    (("T11", "L3"), LUMBAR[:3], RIB),
    (("L2", "L4"), LUMBAR[1:4], NEITHER),
    (("L4", "L4"), ("L4",), NEITHER),
)
# Millimetres: spacing and thickness.
_SLICES = (0.6, 1.0, 2.0, 3.0, 5.0)
_BMD = (40.0, 80.0, 120.0, 160.0, 200.0)
_NOISE = (8.0, 18.0, 30.0)
_SCOLIOSIS = (0.0, 5.0, 10.0, 15.0, 20.0)


def _spec(
    number: int, view: tuple[str, str], faults: Faults | None = None, slice_mm: float = 0.0
) -> StudySpec:
    """The values of study `number`, each list run through at its own pace."""
    spacing = slice_mm or _SLICES[number % 5]
    return StudySpec.reduced(
        seed=100 + number,
        view=view,
        pixel_spacing_mm=(1.4, 1.4),
        matrix=252,
        slice_spacing_mm=spacing,
        slice_thickness_mm=spacing,
        bmd_mg_cm3=dict.fromkeys(BODIES, _BMD[(number // 5 + number) % 5]),
        noise_hu=_NOISE[number % 3],
        scoliosis_degrees=_SCOLIOSIS[(2 * number + number // 5) % 5],
        **({"faults": faults} if faults else {}),
    )


def matrix() -> Iterator[Entry]:
    """All sixty, in their order: 40 without faults, 8 fractured, 6 with screws, 6 of another count."""
    for number in range(40):
        view, whole, anchor = _VIEWS[number % len(_VIEWS)]
        yield Entry(number=number, spec=_spec(number, view), expected=Expected(whole=whole, anchor=anchor))
    yield from _fractured()
    yield from _fixed()
    yield from _otherwise_counted()


def mixed_otherwise() -> Iterator[Entry]:
    """The same views, faults and expectations with other values, seeds and turned patients.

    Limits of the engine were set while the first sixty were looked at; these tell whether they hold.
    """
    for entry in matrix():
        number = entry.number
        slice_mm = _SLICES[(3 * number + 2) % 5]
        spec = replace(
            entry.spec,
            seed=900 + number,
            slice_spacing_mm=slice_mm,
            slice_thickness_mm=slice_mm,
            bmd_mg_cm3=dict.fromkeys(BODIES, _BMD[(2 * number + 1 + number // 7) % 5]),
            noise_hu=_NOISE[(number + 1 + number // 3) % 3],
            scoliosis_degrees=_SCOLIOSIS[(3 * number + number // 5 + 1) % 5] * (1 if number % 2 else -1),
            rotation_degrees=6.0 if number % 3 else -6.0,
        )
        yield _as_assessed(replace(entry, spec=spec))


def mixed_anew() -> Iterator[Entry]:
    """A third mixing: made after the limits had been set, to tell whether they hold."""
    for entry in matrix():
        number = entry.number
        slice_mm = _SLICES[(2 * number + 1) % 5]
        spec = replace(
            entry.spec,
            seed=4000 + number,
            slice_spacing_mm=slice_mm,
            slice_thickness_mm=slice_mm,
            bmd_mg_cm3=dict.fromkeys(BODIES, _BMD[(3 * number + 2 + number // 6) % 5]),
            noise_hu=_NOISE[(2 * number + number // 4) % 3],
            scoliosis_degrees=_SCOLIOSIS[(4 * number + 2 + number // 3) % 5] * (1 if number % 2 else -1),
        )
        yield _as_assessed(replace(entry, spec=spec))


def _as_assessed(entry: Entry) -> Entry:
    """A fracture is expected by name only where heights are read."""
    named = tuple(level for code, level in entry.expected.barred if code == "fracture")
    if entry.heights_are_read or not named:
        return entry
    return replace(entry, expected=replace(entry.expected, barred=(), unassessed=named))


def at_other_voltages() -> Iterator[Entry]:
    """The same studies at 80, 100 and 140 kV in turn, with the HU that bone has there."""
    for entry in matrix():
        yield replace(entry, spec=replace(entry.spec, kvp=(80, 100, 140)[entry.number % 3]))


def worn() -> Iterator[Entry]:
    """The same studies with osteophytes at every lumbar rim, some across a disc, and a calcified aorta."""
    for entry in matrix():
        spurs_mm = (4.0, 6.0, 8.0, 12.0)[entry.number % 4]
        faults = replace(entry.spec.faults, spurs_mm=spurs_mm, calcified_aorta=True)
        yield replace(entry, spec=replace(entry.spec, faults=faults))


def crisp() -> Iterator[Entry]:
    """The same studies on thin slices with dense endplates, a bone kernel and a narrow field.

    Half have a sclerotic level too: what a gate withholds there is right.
    """
    for entry in matrix():
        number = entry.number
        slice_mm = (0.6, 1.0, 0.6, 1.0, 2.0)[(2 * number + 1) % 5]
        level = entry.expected.whole[number % len(entry.expected.whole)] if number % 2 else None
        yield replace(
            entry,
            spec=replace(
                entry.spec,
                seed=7100 + number,
                slice_spacing_mm=slice_mm,
                slice_thickness_mm=slice_mm,
                bmd_mg_cm3=dict.fromkeys(BODIES, _BMD[(4 * number + 1 + number // 6) % 5]),
            ),
            crisp=Crisp(
                endplate_hu=(150.0, 300.0, 450.0)[number % 3],
                sclerosis=None if level in (None, "L6") else (str(level), 250.0),
                edge_gain=(0.0, 0.5, 1.0)[(number // 2) % 3],
                half_field_mm=(75.0, 90.0)[(number // 3) % 2],
            ),
        )


def _fractured() -> Iterator[Entry]:
    """Heights cannot be judged on slices 5 mm apart, so that these are thinner."""
    shapes = (FractureShape.WEDGE, FractureShape.BICONCAVE, FractureShape.CRUSH)
    for place in range(8):
        number = 40 + place
        view, whole, anchor = _VIEWS[place % 6]
        fracture = Fracture(level="L3", shape=shapes[place % 3], height_loss=(0.35, 0.45)[place % 2])
        yield Entry(
            number=number,
            spec=_spec(number, view, Faults(fractures=(fracture,)), slice_mm=_SLICES[place % 4]),
            expected=Expected(whole=whole, anchor=anchor, barred=(("fracture", "L3"),)),
        )


def _fixed() -> Iterator[Entry]:
    for place in range(6):
        number = 48 + place
        view, whole, anchor = _VIEWS[place]
        levels = (("L3",), ("L2", "L3"))[place % 2]
        yield Entry(
            number=number,
            spec=_spec(number, view, Faults(implants=(Implant(levels=levels),))),
            expected=Expected(
                whole=whole, anchor=anchor, barred=tuple(("metal_near_body", level) for level in levels)
            ),
        )


def _otherwise_counted() -> Iterator[Entry]:
    counts = (Lumbar.SIX, Lumbar.SIX, Lumbar.SIX, Lumbar.SIX, Lumbar.SACRALISED, Lumbar.SACRALISED)
    for place, count in enumerate(counts):
        number = 54 + place
        view, _, anchor = _VIEWS[place % 2]
        whole = (*LUMBAR, "L6") if count is Lumbar.SIX else LUMBAR
        yield Entry(
            number=number,
            spec=_spec(number, view, Faults(lumbar=count)),
            # Counted from the sacrum all are one off: which anchor is right no image tells.
            expected=Expected(whole=whole, anchor=anchor, conflict=True, misnamed=LUMBAR),
        )
