"""A structured report read back by its codes alone: pydicom, the standard's codes and docs/conformance.md.

Nothing of the node is imported here: what another maker's reader could get is what this one gets. The shape
is that of result.json, as far as the report holds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread

SITES = {
    ("66794005", "SCT"): "L1",
    ("14293000", "SCT"): "L2",
    ("36470004", "SCT"): "L3",
    ("11994002", "SCT"): "L4",
    ("49668003", "SCT"): "L5",
}
MEAN, SD = ("373098007", "SCT"), ("386136009", "SCT")
MINERALS = ("HA", "K2HPO4")
OURS = "99OSTEO"
CATEGORIES = {
    ("17621005", "SCT"): "normal",
    ("312894000", "SCT"): "low bone mass",
    ("64859006", "SCT"): "osteoporosis",
}
CLASSES = {"XIE2022-NORMAL": "normal", "XIE2022-PENIA": "osteopenia", "XIE2022-POROSIS": "osteoporosis"}
INPUTS = {
    ("RAD-SCORE", OURS): "rad_score",
    ("121033", "DCM"): "age",
    ("6768-6", "LN"): "alp",
    ("13965-9", "LN"): "homocysteine",
}
BODY = re.compile(r"lumbar body (\d+) of (\d+) ")
Key = tuple[str, str]


def _code(item: Dataset, keyword: str) -> Key:
    sequence = item.get(keyword)
    return (str(sequence[0].CodeValue), str(sequence[0].CodingSchemeDesignator)) if sequence else ("", "")


@dataclass(frozen=True)
class Node:
    """One content item."""

    item: Dataset

    @property
    def name(self) -> Key:
        return _code(self.item, "ConceptNameCodeSequence")

    @property
    def value(self) -> Any:
        match self.item.get("ValueType"):
            case "NUM":
                measured = self.item.MeasuredValueSequence[0]
                return float(measured.get("FloatingPointValue", measured.NumericValue))
            case "CODE":
                return _code(self.item, "ConceptCodeSequence")
            case "TEXT":
                return str(self.item.TextValue)
            case "UIDREF":
                return str(self.item.UID)
        return None

    @property
    def unit(self) -> str:
        return _code(self.item.MeasuredValueSequence[0], "MeasurementUnitsCodeSequence")[0]

    @property
    def children(self) -> list[Node]:
        return [Node(one) for one in self.item.get("ContentSequence") or ()]

    def all(self, *names: Key) -> list[Node]:
        return [one for one in self.children if one.name in names]

    def one(self, *names: Key) -> Node | None:
        found = self.all(*names)
        assert len(found) <= 1, (names, len(found))
        return found[0] if found else None

    def number(self, *names: Key) -> float | None:
        found = self.one(*names)
        return None if found is None else found.value

    def text(self, *names: Key) -> str | None:
        found = self.one(*names)
        return None if found is None else found.value


def read_report(content: bytes) -> dict[str, Any]:
    """A Part 10 file -> what it says, under the names of result.json."""
    return read_document(dcmread(BytesIO(content)))


def read_document(document: Dataset) -> dict[str, Any]:
    """The same of a data set that was read, or that is to be written."""
    root = Node(document)
    groups = {
        str(group.text(("112039", "DCM"))): group
        for container in root.all(("126010", "DCM"))
        for group in container.children
    }
    own = groups.get("calibration and technique")
    scores = groups.get("density scores and categories")
    model = groups.get("rad-score and nomogram")
    return {
        "series": _series(root, own),
        "levels": _levels(groups),
        "unnamed_bodies": _bodies(groups),
        "unnamed": _slices(groups),
        "calibration": _calibration(own),
        "t_score": scores.number(("T-SCORE-QCT", OURS)) if scores else None,
        "z_score": scores.number(("121416", "DCM")) if scores else None,
        "categories": _categories(scores),
        "rad_score": model.number(("RAD-SCORE", OURS)) if model else None,
        "features": _features(groups.get("L3 radiomics region")),
        "nomogram": _nomogram(model, groups.get("laboratory values and age")),
        "laboratory": _laboratory(groups.get("laboratory values and age")),
        "follow_up": _follow_up(groups.get("change since an earlier study")),
        "findings": list(_findings(root)),
        "predecessor_uid": _predecessor(root.item),
    }


def _predecessor(dataset: Dataset) -> str | None:
    sequence = dataset.get("PredecessorDocumentsSequence")
    if not sequence:
        return None
    return str(sequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)


def _series(root: Node, own: Node | None) -> dict[str, Any]:
    (library,) = root.all(("111028", "DCM"))
    images = [one for group in library.children for one in group.all(("260753009", "SCT"))]
    return {
        "instances": len(images),
        "kvp": own.number(("113733", "DCM")) if own else None,
        "slice_thickness_mm": own.number(("112225", "DCM")) if own else None,
        "slice_spacing_mm": own.number(("112226", "DCM")) if own else None,
        "pixel_spacing_mm": [own.number(("111066", "DCM")), own.number(("111026", "DCM"))] if own else None,
        "kernel": own.text(("113961", "DCM")) if own else None,
    }


def _levels(groups: dict[str, Node]) -> dict[str, Any]:
    def level_of(name: str, group: Node) -> str | None:
        site = group.one(("363698007", "SCT"), ("G-C0E3", "SRT"))
        return SITES.get(site.value) if site else None

    return _regions(groups, level_of)


def _bodies(groups: dict[str, Node]) -> list[dict[str, Any]]:
    """Bodies of which the report says that their level is not known, by ordinal and count."""

    def place_of(name: str, group: Node) -> tuple[int, int] | None:
        place = BODY.match(name)
        if place is None:
            return None
        assert group.one(("LEVEL-KNOWN", OURS)).value == ("LEVEL-UNKNOWN", OURS)  # type: ignore[union-attr]
        return int(place[1]), int(place[2])

    return [
        {"ordinal": ordinal, "count": count, **values}
        for (ordinal, count), values in sorted(_regions(groups, place_of).items())
    ]


def _regions(groups: dict[str, Node], key_of: Callable[[str, Node], Any]) -> dict[Any, Any]:
    """What the groups of segments hold, by what `key_of` makes of identifier and group."""
    found: dict[Any, Any] = {}
    for name, group in groups.items():
        level = key_of(name, group)
        if level is None or "radiomics" in name:
            continue
        here = found.setdefault(level, {"ellipse": None})
        body = group.number(("CORE-VOLUME", OURS))
        if body is not None:
            here["volume_mm3"] = group.number(("118565006", "SCT"))
            here["core_volume_mm3"] = body
            here["centroid_mm"] = [group.number((f"CENTROID-{axis}", OURS)) for axis in "XYZ"]
        elif group.all(("110850", "DCM")):
            read = _density(group)
            if "ellipse" in name:
                here["ellipse"] = read
            else:
                here.update(read)
    return found


def _density(group: Node) -> dict[str, Any]:
    hu = {one.one(("121401", "DCM")).value: one.value for one in group.all(("110850", "DCM"))}  # type: ignore[union-attr]
    bmd = group.one(*((f"BMD-{mineral}", OURS) for mineral in MINERALS))
    volume = group.number(("118565006", "SCT"))
    return {
        "hu_mean": hu[MEAN],
        "hu_sd": hu[SD],
        **({} if volume is None else {"roi_volume_mm3": volume}),
        "bmd_mg_cm3": bmd.value if bmd else None,
        "bmd_uncertainty_mg_cm3": bmd.number(("371884006", "SCT")) if bmd else None,
        "equivalent": bmd.name[0].removeprefix("BMD-") if bmd else None,
    }


def _slices(groups: dict[str, Node]) -> list[dict[str, Any]]:
    found = []
    for name, group in groups.items():
        if not name.endswith(" region") or not name.startswith("slice "):
            continue
        slice_name = name.removesuffix(" region")
        outline = next(one for one in group.children if one.item.ValueType == "SCOORD")
        (source,) = outline.children
        found.append(
            {
                "name": slice_name,
                "sop_instance_uid": str(source.item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID),
                "position_mm": [group.number((f"CENTROID-{axis}", OURS)) for axis in "XYZ"],
                "thickness_mm": group.number(("112225", "DCM")),
                "tilt_degrees": group.number(("SLICE-TILT", OURS)),
                "region_mm2": group.number(("42798000", "SCT")),
                **_density(group),
                "calibration": _calibration(groups.get(f"{slice_name} calibration")),
            }
        )
    return found


def _calibration(group: Node | None) -> dict[str, Any] | None:
    slope = group.one(*((f"CAL-SLOPE-{mineral}", OURS) for mineral in MINERALS)) if group else None
    if group is None or slope is None:
        return None
    mineral = slope.name[0].removeprefix("CAL-SLOPE-")
    densities = group.all((f"ROD-DENS-{mineral}", OURS))
    rods = []
    for density in densities:
        named = density.text(("121106", "DCM"))
        here = [one for one in group.children if one.text(("121106", "DCM")) == named]
        hu = {one.one(("121401", "DCM")).value: one for one in here if one.name == ("ROD-HU", OURS)}  # type: ignore[union-attr]
        (voxels,) = (one.value for one in here if one.name == ("ROD-VOXELS", OURS))
        rods.append(
            {
                "name": str(named).removeprefix("rod ").removesuffix(", not in the fit"),
                "density_mg_cm3": density.value,
                "hu_mean": hu[MEAN].value,
                "hu_sd": hu[SD].value,
                "standard_error_hu": hu[MEAN].number(("371884006", "SCT")),
                "voxels": voxels,
                "fitted": not str(named).endswith(", not in the fit"),
            }
        )
    tissues = {
        str(one.text(("121106", "DCM"))).removeprefix("tissue "): one
        for one in group.all(("TISSUE-HU", OURS))
    }
    volumes = {
        str(one.text(("121106", "DCM"))).removeprefix("tissue "): one.value
        for one in group.all(("TISSUE-VOLUME", OURS))
    }
    return {
        "method": group.text(("CAL-METHOD", OURS)),
        "phantom": group.text(("122421", "DCM")),
        "phantom_sha256": group.text(("CAL-SHA256", OURS)),
        "scanned_on": group.text(("CAL-DATE", OURS)),
        "equivalent": mineral,
        "slope": slope.value,
        "intercept": group.number((f"CAL-ICPT-{mineral}", OURS)),
        "r2": group.number(("CAL-R2", OURS)),
        "max_residual_hu": group.number(("CAL-RESIDUAL", OURS)),
        "rods": rods,
        "tissues": [
            {"name": name, "hu": one.value, "volume_cm3": volumes[name]} for name, one in tissues.items()
        ],
        "effective_kev": group.number(("CAL-KEV", OURS)),
    }


def _categories(scores: Node | None) -> dict[str, Any]:
    found: dict[str, Any] = {"study_class": None, "density": None}
    if scores is None:
        return found
    if (study_class := scores.one(("STUDY-CLASS", OURS))) is not None:
        assert study_class.value[1] == OURS
        found["study_class"] = CLASSES[study_class.value[0]]
    category = scores.one(("DENSITY-CATEGORY", OURS))
    mean = scores.one(*((f"BMD-MEAN2-{mineral}", OURS) for mineral in MINERALS))
    if category is not None and mean is not None:
        found["density"] = {
            "category": CATEGORIES[category.value],
            "mean_mg_cm3": mean.value,
            "uncertainty_mg_cm3": mean.number(("371884006", "SCT")),
            "equivalent": mean.name[0].removeprefix("BMD-MEAN2-"),
        }
    return found


def _features(group: Node | None) -> dict[str, float] | None:
    if group is None:
        return None
    named = [one for one in group.children if one.one(("IMAGE-FILTER", OURS)) is not None]
    return {str(one.text(("121106", "DCM"))): one.value for one in named} or None


def _nomogram(model: Node | None, values: Node | None) -> dict[str, Any] | None:
    total = model.number(("NOMOGRAM-TOTAL", OURS)) if model else None
    if model is None or total is None:
        return None
    inputs = []
    for one in model.all(("NOMOGRAM-POINTS", OURS)):
        predictor = one.one(("PREDICTOR", OURS))
        assert predictor is not None
        source = values if values and values.one(predictor.value) else model
        measured = source.one(predictor.value)
        assert measured is not None
        inputs.append(
            {
                "name": INPUTS[predictor.value],
                "value": measured.value,
                "unit": measured.unit,
                "points": one.value,
            }
        )
    return {"total_points": total, "probability": model.number(("122157", "DCM")), "inputs": inputs}


def _laboratory(group: Node | None) -> dict[str, Any]:
    return {
        "alp_u_l": group.number(("6768-6", "LN")) if group else None,
        "homocysteine_umol_l": group.number(("13965-9", "LN")) if group else None,
    }


def _follow_up(group: Node | None) -> dict[str, Any] | None:
    if group is None:
        return None
    levels: dict[str, dict[str, float]] = {}
    equivalent = ""
    for one in group.children:
        kind, _, mineral = one.name[0].rpartition("-")
        if one.name[1] != OURS or kind not in ("PRIOR-BMD", "CHANGE"):
            continue
        site = one.one(("363698007", "SCT"))
        assert site is not None
        equivalent = mineral
        name = "earlier_mg_cm3" if kind == "PRIOR-BMD" else "change_mg_cm3"
        levels.setdefault(SITES[site.value], {})[name] = one.value
    return {
        "prior_study_instance_uid": group.text(("PRIOR-STUDY", OURS)),
        "prior_date": group.text(("PRIOR-DATE", OURS)),
        "lsc_mg_cm3": group.number(("LSC", OURS)),
        "equivalent": equivalent,
        "levels": levels,
    }


def _findings(root: Node) -> Iterator[dict[str, Any]]:
    severities = {"SEV-INFO": "info", "SEV-CAUTION": "caution", "SEV-REFUSAL": "refusal"}
    for container in root.all(("C0034375", "UMLS")):
        for one in container.all(("121071", "DCM")):
            site, severity = one.one(("363698007", "SCT")), one.one(("246112005", "SCT"))
            assert severity is not None
            yield {
                "meaning": str(one.item.ConceptCodeSequence[0].CodeMeaning),
                "severity": severities[severity.value[0]],
                "text": one.text(("121106", "DCM")),
                "level": SITES[site.value] if site else None,
            }
