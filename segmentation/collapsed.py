"""Volumes that a fracture explains are not held against names.

A body crushed to half its height has lost half its volume. So has one half of a split vertebra; but that lies
too near to its other half, which stays a doubt.
"""

from __future__ import annotations

from dataclasses import replace

from segmentation.fracture import fracture_observations
from segmentation.levels import identity_observations
from segmentation.settings import IdentitySettings
from segmentation.vertebrae import Vertebrae


def without_collapsed(found: Vertebrae, settings: IdentitySettings | None = None) -> Vertebrae:
    """The same vertebrae, less the doubts of their names that lost height alone gave rise to.

    Parameters
    ----------
    found : its observations hold `identity_observations` of its levels.
    settings : those that these observations were made with.
    """
    doubts = identity_observations(found.levels, settings)
    if not doubts:  # heights take their time
        return found
    deformed = {one.level for one in fracture_observations(found) if one.level is not None}
    left = identity_observations(found.levels, settings, deformed=deformed)
    explained = [one for one in doubts if one not in left]
    if not explained:
        return found
    kept = tuple(one for one in found.observations if one not in explained)
    return replace(found, observations=kept, numbering_confirmed=not kept)
