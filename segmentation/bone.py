"""How bright bone is by tube voltage."""

from __future__ import annotations

import numpy as np

# HU that a milligram of bone mineral adds, relative to 80 kV: hydroxyapatite's attenuation over water's at
# 50, 57, 63 and 69 keV (NIST tables), which are assumed to be the effective energies behind an abdomen (R).
_BONE_BY_KVP = {80.0: 1.0, 100.0: 0.80, 120.0: 0.68, 140.0: 0.60}

# R: tube voltages of CT scanners reach from 70 to 150 kV. Archives write 0 and worse where none is known.
_TUBE_VOLTAGE_KV = (50.0, 180.0)


def known_kvp(stated: float | None) -> float | None:
    """A tube voltage as stated, in kV; None where it is not stated, or is one that no CT scanner has."""
    lowest, highest = _TUBE_VOLTAGE_KV
    return stated if stated is not None and lowest <= stated <= highest else None


def bone_contrast(kvp: float | None, *, relative_to: float = 80.0) -> float:
    """Contrast of bone relative to that at another tube voltage; 1 where the voltage is not known."""
    known = known_kvp(kvp)
    return 1.0 if known is None else _contrast(known) / _contrast(relative_to)


def _contrast(kvp: float) -> float:
    return float(np.interp(kvp, list(_BONE_BY_KVP), list(_BONE_BY_KVP.values())))
