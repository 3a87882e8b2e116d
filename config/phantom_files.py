"""What a phantom's file and a phantom's own certificate say, as `PhantomModel`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

from scoring.calibration import FitRules, Mineral
from scoring.calibration.methods import LEAST_SQUARES, METHODS, MINDWAYS, TWO_POINT
from scoring.calibration.methods import RODS as MINDWAYS_RODS
from scoring.phantoms import PhantomLimits, PhantomModel, RodModel

_KEYS = frozenset(
    {
        "name",
        "manufacturer",
        "equivalent",
        "method",
        "source",
        "rods",
        "body_hu",
        "roi_margin_mm",
        "limits",
        "fit",
    }
)
_ROD_KEYS = frozenset(
    {"name", "density_mg_cm3", "diameter_mm", "offset_mm", "expected_hu", "search_hu", "water_mg_cm3"}
)
# R: phantoms of one model differ by a few mg/cm3; what differs by more was mistyped, or is another rod's.
_CERTIFIED_WITHIN = 0.15
_CERTIFIED_WITHIN_MG_CM3 = 10.0
_WATER_WITHIN = 0.05
_TABLES = ("sigma_ref", "hu_per_mg")  # of [fit]: rows of kV, lowest, highest


def phantom_of(raw: Mapping[str, Any]) -> PhantomModel:
    """A phantom model from its file's content.

    Raises
    ------
    ValueError, KeyError, TypeError
        If something is missing or makes no sense.
    """
    _require_known(raw, _KEYS, "a phantom")
    model = PhantomModel(
        name=str(raw["name"]),
        manufacturer=str(raw["manufacturer"]),
        equivalent=Mineral(raw["equivalent"]),
        method=str(raw["method"]),
        rods=tuple(sorted((_rod(rod) for rod in raw["rods"]), key=lambda rod: sum(rod.expected_hu))),
        body_hu=_pair(raw["body_hu"]),
        roi_margin_mm=_not_negative("roi_margin_mm", raw["roi_margin_mm"]),
        limits=_limits(_table(raw["limits"], "limits")),
        source=str(raw["source"]),
        rules=_rules(_table(raw.get("fit", {}), "fit")),
    )
    if len(model.rods) < 2 or model.rod_distance_mm <= 0:
        raise ValueError("a phantom needs two rods apart from each other")
    if len({rod.name for rod in model.rods}) < len(model.rods):
        raise ValueError("two rods have the same name")
    if any(rod.diameter_mm / 2 <= model.roi_margin_mm for rod in model.rods):
        raise ValueError("roi_margin_mm leaves nothing of a rod")
    _require_suited(model)
    return model


def certified(model: PhantomModel, raw: Mapping[str, Any], serial: str) -> PhantomModel:
    """`model` with the densities of one phantom's own certificate, and nothing else changed.

    Parameters
    ----------
    raw : the certificate's file: `model`, `serial`, `source` and, for every rod, `name`, `density_mg_cm3`
        and, where a rod is certified as mineral and water, `water_mg_cm3`.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is another phantom's, does not name each rod once, or says anything else.
    """
    unknown = set(raw) - {"model", "serial", "source", "rods"}
    if unknown:
        raise ValueError(f"a certificate does not change {', '.join(sorted(unknown))}")
    if raw["model"] != model.name or str(raw["serial"]) != serial:
        raise ValueError(f"this is the certificate of {raw['model']} {raw['serial']}")
    given = {str(rod["name"]): rod for rod in raw["rods"]}
    if len(given) != len(raw["rods"]) or set(given) != {rod.name for rod in model.rods}:
        raise ValueError(f"it must name each of the rods {', '.join(rod.name for rod in model.rods)} once")
    if not str(raw["source"]).strip():
        raise ValueError("its source is empty: who certified the rods, and when, must be stated")
    own = replace(
        model,
        rods=tuple(_certified_rod(rod, given[rod.name]) for rod in model.rods),
        source=f"{model.source} Densities of {serial}: {raw['source']}",
        serial=serial,
    )
    _require_suited(own)
    return own


def _certified_rod(rod: RodModel, raw: Mapping[str, Any]) -> RodModel:
    unknown = set(raw) - {"name", "density_mg_cm3", "water_mg_cm3"}
    if unknown:
        raise ValueError(f"rod {rod.name}: a certificate does not change {', '.join(sorted(unknown))}")
    density = float(raw["density_mg_cm3"])
    if (density == 0) != (rod.density_mg_cm3 == 0):
        raise ValueError(f"rod {rod.name}: a rod of water is no rod of mineral")
    allowed = max(_CERTIFIED_WITHIN * abs(rod.density_mg_cm3), _CERTIFIED_WITHIN_MG_CM3)
    if abs(density - rod.density_mg_cm3) > allowed:
        raise ValueError(f"rod {rod.name}: {density:g} mg/cm3 is another rod's, or mistyped")
    water = float(raw["water_mg_cm3"]) if "water_mg_cm3" in raw else None
    nominal = rod.water_mg_cm3
    if water is not None and nominal is not None and abs(water - nominal) > _WATER_WITHIN * nominal:
        raise ValueError(f"rod {rod.name}: {water:g} mg/cm3 of water is another rod's, or mistyped")
    return replace(rod, density_mg_cm3=density, water_mg_cm3=water)


def _require_suited(model: PhantomModel) -> None:
    """Raise ValueError where the method's formula does not hold for these rods."""
    if model.method not in METHODS:
        raise ValueError(f"unknown method {model.method!r}; known: {', '.join(METHODS)}")
    densities = sorted(rod.density_mg_cm3 for rod in model.rods)
    dissolved = [rod.water_mg_cm3 is not None for rod in model.rods]
    if model.method == MINDWAYS:
        if model.equivalent is not Mineral.K2HPO4 or len(model.rods) != MINDWAYS_RODS:
            raise ValueError(f"method {MINDWAYS!r} needs {MINDWAYS_RODS} rods of {Mineral.K2HPO4}")
        if not all(dissolved):
            raise ValueError(f"method {MINDWAYS!r} needs water_mg_cm3 of every rod")
    elif any(dissolved):
        raise ValueError(f"water_mg_cm3 belongs to method {MINDWAYS!r}: {model.method!r} would ignore it")
    elif densities[0] < 0:
        raise ValueError(f"method {model.method!r} takes no density below 0")
    if model.method == TWO_POINT and not (len(densities) == 2 and densities[0] == 0 < densities[1]):
        raise ValueError(f"method {TWO_POINT!r} needs two rods, one of water (density 0) and one of mineral")
    if model.method == LEAST_SQUARES:
        if len(set(densities)) < len(densities):
            raise ValueError("two rods have the same density: neither can be told to read higher")
        if sum(density <= model.rules.fit_up_to_mg_cm3 for density in densities) < 2:
            raise ValueError(f"fit_up_to_mg_cm3 leaves method {LEAST_SQUARES!r} fewer than two rods")


def _limits(raw: Mapping[str, Any]) -> PhantomLimits:
    """The file's limits; those with a default may be left out."""
    unknown = set(raw) - {field.name for field in fields(PhantomLimits)}
    if unknown:
        raise ValueError(f"[limits] has no {', '.join(sorted(unknown))}")
    return PhantomLimits(**{key: _not_negative(key, value) for key, value in raw.items()})


def _table(raw: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise ValueError(f"[{name}] is no table")
    return raw


def _require_known(raw: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    """Raise ValueError for a key that would be ignored: a misspelt one leaves the shipped value in force."""
    if unknown := sorted(set(raw) - known):
        raise ValueError(f"{what} has no {', '.join(unknown)}")


def _not_negative(name: str, raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise ValueError(f"{name} is no number: {raw!r}")
    value = float(raw)
    if value < 0:
        raise ValueError(f"{name} must not be negative")
    return value


def _rod(raw: Mapping[str, Any]) -> RodModel:
    _require_known(raw, _ROD_KEYS, "a rod")
    return RodModel(
        name=str(raw["name"]),
        density_mg_cm3=float(raw["density_mg_cm3"]),
        diameter_mm=float(raw["diameter_mm"]),
        offset_mm=float(raw["offset_mm"]),
        expected_hu=_pair(raw["expected_hu"]),
        search_hu=_pair(raw["search_hu"]),
        water_mg_cm3=float(raw["water_mg_cm3"]) if "water_mg_cm3" in raw else None,
    )


def _rules(raw: Mapping[str, Any]) -> FitRules:
    """The shipped rules, but for what the file's [fit] states."""
    unknown = set(raw) - {field.name for field in fields(FitRules)}
    if unknown:
        raise ValueError(f"[fit] has no {', '.join(sorted(unknown))}")
    stated: dict[str, Any] = {
        key: _ranges(value) if key in _TABLES else _not_negative(key, value) for key, value in raw.items()
    }
    rules = FitRules(**stated)
    if not 0 <= rules.r2_refused_below <= rules.r2_doubted_below <= 1:
        raise ValueError("0 <= r2_refused_below <= r2_doubted_below <= 1 does not hold")
    return rules


def _ranges(raw: Any) -> tuple[tuple[float, float, float], ...]:
    rows = tuple((float(kvp), *_pair((low, high))) for kvp, low, high in raw)
    if not rows or any(a[0] >= b[0] for a, b in pairwise(rows)):
        raise ValueError("a range of slopes needs rows of rising tube voltage")
    if any(low <= 0 for _, low, _ in rows):
        raise ValueError("a slope must be above 0")
    return rows


def _pair(raw: Any) -> tuple[float, float]:
    lower, upper = (float(value) for value in raw)
    if not lower < upper:
        raise ValueError(f"{raw!r} is no range")
    return lower, upper
