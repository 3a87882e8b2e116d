"""Change of density since an earlier study of the same patient, where the two are comparable.

Densities differ for other reasons than bone where scanner, spectrum, reconstruction, mineral, phantom, region
or engine differ: then no change is given, with the reasons. A condition that either study does not state is
not equal, unless neither states it and the site accepts that. A change is significant from the site's least
significant change on (LSC; 2.77 times its precision error for 95 % confidence, ISCD); without an LSC
significance is not assessed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date

from scoring.calibration import Mineral
from scoring.calibration.spectrum import energy_phrase
from segmentation.phrase import Value, clauses, phrase, together
from segmentation.vertebrae import Observation

NO_PHANTOM = "no phantom"  # in place of a phantom's hash, where the patient's own tissues calibrate


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What must be equal for densities to be compared; "" or None where it is not stated.

    The last six have a default because earlier versions kept studies without them: those count as unstated.

    Attributes
    ----------
    method : of calibration.
    rules_sha256 : SHA-256 of the settings of engine, regions and calibration.
    engine : name, version and weights.
    energy : "single", "virtual 70 keV", ...
    phantom_sha256 : SHA-256 of the files that describe the phantom, its certificate included; or
        `NO_PHANTOM`.
    model : the scanner's model: a serial number alone is not unique.
    """

    device_serial: str
    kvp: float | None
    equivalent: Mineral
    phantom: str
    method: str
    rules_sha256: str
    engine: str
    spectral_filter: str = ""
    energy: str = ""
    kernel: str = ""
    reconstruction: str = ""
    phantom_sha256: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One study's densities, as far as its report gave them.

    Attributes
    ----------
    densities_mg_cm3 : by level.
    contrast : whether contrast medium was given or is suspected.
    """

    study_instance_uid: str
    taken_on: date
    conditions: Conditions
    densities_mg_cm3: Mapping[str, float]
    levels_confirmed: bool
    contrast: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelChange:
    """Change of one level's density.

    Attributes
    ----------
    change_mg_cm3 : later minus earlier.
    significant : None without a least significant change.
    """

    level: str
    earlier_mg_cm3: float
    change_mg_cm3: float
    significant: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """Comparison with an earlier study; `changes` is empty where there are `reasons` against it.

    Attributes
    ----------
    reasons : why the studies are not comparable.
    equivalent : mineral of the later study's densities and of every change.
    accepted : conditions that neither study states and the site accepts as equal.
    """

    prior_study_instance_uid: str
    prior_taken_on: date
    changes: tuple[LevelChange, ...]
    reasons: tuple[Value, ...]
    lsc_mg_cm3: float | None
    equivalent: Mineral
    accepted: tuple[Value, ...] = ()


# What each condition is called in a report.
_NAMES = {
    "device_serial": phrase("condition-scanner"),
    "kvp": phrase("tube-voltage"),
    "equivalent": phrase("condition-equivalent"),
    "phantom": phrase("condition-phantom"),
    "method": phrase("condition-method"),
    "rules_sha256": phrase("condition-rules"),
    "engine": phrase("condition-engine"),
    "spectral_filter": phrase("condition-filter"),
    "energy": phrase("condition-energy"),
    "kernel": phrase("condition-kernel"),
    "reconstruction": phrase("condition-reconstruction"),
    "phantom_sha256": phrase("condition-phantom-description"),
    "model": phrase("condition-model"),
}
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
_SHOWN_OF_SHA256 = 12  # digits, enough to distinguish two


def follow_up(
    scan: Scan, priors: Sequence[Scan], *, lsc_mg_cm3: float | None, accept_unstated: Collection[str] = ()
) -> FollowUp | None:
    """The comparison with the latest comparable earlier study, otherwise the reasons against the latest one.

    A study of the same day is not earlier: it is never compared, and reported only where there is no earlier
    one.

    Parameters
    ----------
    priors : studies of the same patient; later ones, and earlier reports of this study, are ignored.
    accept_unstated : fields of `Conditions` that count as equal where neither study states them.

    Returns
    -------
    None without an earlier study.
    """
    others = [one for one in priors if one.study_instance_uid != scan.study_instance_uid]
    upto_today = sorted(
        (one for one in others if one.taken_on <= scan.taken_on),
        key=lambda one: (one.taken_on, one.study_instance_uid),
    )
    earlier = [one for one in upto_today if one.taken_on < scan.taken_on] or upto_today
    if not earlier:
        return None
    fitting = (one for one in reversed(earlier) if not obstacles(scan, one, accept_unstated))
    prior = next(fitting, earlier[-1])
    reasons = obstacles(scan, prior, accept_unstated)
    return FollowUp(
        prior_study_instance_uid=prior.study_instance_uid,
        prior_taken_on=prior.taken_on,
        changes=() if reasons else _changes(scan, prior, lsc_mg_cm3),
        reasons=reasons,
        lsc_mg_cm3=lsc_mg_cm3,
        equivalent=scan.conditions.equivalent,
        accepted=() if reasons else _stated_in_neither(scan.conditions, prior.conditions),
    )


def obstacles(scan: Scan, prior: Scan, accept_unstated: Collection[str] = ()) -> tuple[Value, ...]:
    """Why two studies are not comparable; empty where they are.

    Parameters
    ----------
    accept_unstated : fields of `Conditions` that count as equal where neither study states them.
    """
    found: list[Value] = []
    if prior.taken_on == scan.taken_on:
        found.append(phrase("same-day"))
    for field in fields(Conditions):
        own, theirs = getattr(scan.conditions, field.name), getattr(prior.conditions, field.name)
        if own == theirs and (_is_stated(own) or field.name in accept_unstated):
            continue
        name = _NAMES[field.name]
        if own == theirs:
            found.append(phrase("condition-not-stated", condition=name))
        else:
            found.append(
                phrase(
                    "condition-differs",
                    condition=name,
                    theirs=_condition_value(field.name, theirs),
                    own=_condition_value(field.name, own),
                )
            )
    if not (scan.levels_confirmed and prior.levels_confirmed):
        found.append(phrase("levels-not-confirmed"))
    if scan.contrast or prior.contrast:
        found.append(phrase("contrast-in-either"))
    if not set(scan.densities_mg_cm3) & set(prior.densities_mg_cm3):
        found.append(phrase("no-common-level"))
    return tuple(found)


def _is_stated(value: object) -> bool:
    return value not in ("", None)


def _condition_value(condition: str, value: str | float | None) -> Value:
    if not _is_stated(value):
        return phrase("not-stated")
    if isinstance(value, float):  # the only number is the tube voltage
        return f"{value:g} kV"
    if condition == "energy":
        return energy_phrase(str(value))
    return _SHA256.sub(lambda found: found.group()[:_SHOWN_OF_SHA256], str(value))


def _stated_in_neither(own: Conditions, theirs: Conditions) -> tuple[Value, ...]:
    return tuple(
        name
        for field, name in _NAMES.items()
        if not _is_stated(getattr(own, field)) and not _is_stated(getattr(theirs, field))
    )


def follow_up_observations(found: FollowUp) -> tuple[Observation, ...]:
    """`follow_up_not_comparable`; or `follow_up_change` or `follow_up_without_lsc`, each with
    `follow_up_unstated` beside it where the site accepted something that neither study states.
    """
    day = found.prior_taken_on.isoformat()
    if found.reasons:
        values: dict[str, Value] = {"date": day, "reasons": clauses(found.reasons)}
        return (Observation(code="follow_up_not_comparable", values=values),)
    return (_change_observation(found, day), *_accepted_observation(found, day))


def _change_observation(found: FollowUp, day: str) -> Observation:
    changes = ", ".join(f"{one.level} {one.change_mg_cm3:+.1f}" for one in found.changes)
    values: dict[str, Value] = {"date": day, "changes": changes, "equivalent": found.equivalent.value}
    if found.lsc_mg_cm3 is None:
        return Observation(code="follow_up_without_lsc", values=values)
    beyond = [one.level for one in found.changes if one.significant]
    values |= {"lsc": f"{found.lsc_mg_cm3:g}", "levels": ", ".join(beyond) or phrase("no-level")}
    return Observation(code="follow_up_change", values=values)


def _accepted_observation(found: FollowUp, day: str) -> tuple[Observation, ...]:
    if not found.accepted:
        return ()
    values: dict[str, Value] = {"date": day, "unstated": together(found.accepted)}
    return (Observation(code="follow_up_unstated", values=values),)


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
