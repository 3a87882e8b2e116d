"""Change of density since an earlier study of the same patient, where the two may be compared at all.

Two densities differ by more than bone where scanner, spectrum, mineral, phantom, region or engine differ:
then no change is given, and the reasons are. A change is significant from the site's own least significant
change on (LSC; 2.77 times its precision error for 95 % confidence, ISCD); without one, that is left open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date

from scoring.calibration import Mineral
from segmentation.observation import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What must be equal for densities to be compared."""

    device_serial: str
    kvp: float | None
    equivalent: Mineral
    phantom: str
    method: str  # of calibration
    rules_sha256: str  # of the settings of regions and calibration
    engine: str  # with version and weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One study's densities, as far as its report gave them."""

    study_instance_uid: str
    taken_on: date
    conditions: Conditions
    densities_mg_cm3: Mapping[str, float]  # by level
    levels_confirmed: bool
    contrast: bool  # given or suspected


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelChange:
    """Change of one level's density."""

    level: str
    earlier_mg_cm3: float
    change_mg_cm3: float  # later minus earlier
    significant: bool | None  # None without an LSC


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """Comparison with an earlier study; `changes` is empty where there are `reasons` against it."""

    prior_study_instance_uid: str
    prior_taken_on: date
    changes: tuple[LevelChange, ...]
    reasons: tuple[str, ...]
    lsc_mg_cm3: float | None


_DIFFERS = {
    "device_serial": "it comes from another scanner",
    "kvp": "it was taken at another tube voltage",
    "equivalent": "it is given in another mineral equivalent",
    "phantom": "it has another phantom",
    "method": "it has another calibration method",
    "rules_sha256": "it was measured by other rules of regions and calibration",
    "engine": "it was segmented by another segmentation engine",
}


def follow_up(scan: Scan, priors: Sequence[Scan], *, lsc_mg_cm3: float | None) -> FollowUp | None:
    """Compare with the latest earlier study that may be compared, else say why the latest may not.

    Parameters
    ----------
    priors : other studies of the same patient; what is not earlier than `scan` is passed over.

    Returns
    -------
    FollowUp or None
        None without an earlier study.
    """
    earlier = sorted((one for one in priors if one.taken_on < scan.taken_on), key=lambda one: one.taken_on)
    if not earlier:
        return None
    prior = next((one for one in reversed(earlier) if not obstacles(scan, one)), earlier[-1])
    reasons = obstacles(scan, prior)
    return FollowUp(
        prior_study_instance_uid=prior.study_instance_uid,
        prior_taken_on=prior.taken_on,
        changes=() if reasons else _changes(scan, prior, lsc_mg_cm3),
        reasons=reasons,
        lsc_mg_cm3=lsc_mg_cm3,
    )


def obstacles(scan: Scan, prior: Scan) -> tuple[str, ...]:
    """Why the two may not be compared; empty where they may."""
    found = []
    if not scan.conditions.device_serial or scan.conditions.kvp is None:
        found.append("scanner or tube voltage is not stated")
    for field in fields(Conditions):
        if getattr(scan.conditions, field.name) != getattr(prior.conditions, field.name):
            found.append(_DIFFERS[field.name])
    if not (scan.levels_confirmed and prior.levels_confirmed):
        found.append("vertebral levels are not confirmed in both")
    if scan.contrast or prior.contrast:
        found.append("contrast medium was given or is suspected")
    if not set(scan.densities_mg_cm3) & set(prior.densities_mg_cm3):
        found.append("no level was measured in both")
    return tuple(found)


def follow_up_observations(found: FollowUp) -> tuple[Observation, ...]:
    """`follow_up_change`, `follow_up_without_lsc`, or `follow_up_not_comparable`."""
    day = found.prior_taken_on.isoformat()
    if found.reasons:
        values: dict[str, str | int | float] = {"date": day, "reasons": "; ".join(found.reasons)}
        return (Observation(code="follow_up_not_comparable", values=values),)
    changes = ", ".join(f"{one.level} {one.change_mg_cm3:+.1f}" for one in found.changes)
    values = {"date": day, "changes": changes}
    if found.lsc_mg_cm3 is None:
        return (Observation(code="follow_up_without_lsc", values=values),)
    beyond = [one.level for one in found.changes if one.significant]
    values |= {"lsc": f"{found.lsc_mg_cm3:g}", "levels": ", ".join(beyond) or "no level"}
    return (Observation(code="follow_up_change", values=values),)


def _changes(scan: Scan, prior: Scan, lsc_mg_cm3: float | None) -> tuple[LevelChange, ...]:
    changes = []
    for level, later in scan.densities_mg_cm3.items():
        if level not in prior.densities_mg_cm3:
            continue
        change = later - prior.densities_mg_cm3[level]
        changes.append(
            LevelChange(
                level=level,
                earlier_mg_cm3=prior.densities_mg_cm3[level],
                change_mg_cm3=change,
                significant=None if lsc_mg_cm3 is None else abs(change) >= lsc_mg_cm3,
            )
        )
    return tuple(changes)
