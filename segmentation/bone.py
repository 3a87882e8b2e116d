"""How bright bone is by tube voltage."""

from __future__ import annotations

import numpy as np

# HU that a milligram of bone mineral adds, relative to 80 kV: hydroxyapatite's attenuation over water's at
# 50, 57, 63 and 69 keV (NIST tables), which are assumed to be the effective energies behind an abdomen (R).
_BONE_BY_KVP = {80.0: 1.0, 100.0: 0.80, 120.0: 0.68, 140.0: 0.60}


def bone_contrast(kvp: float | None, *, relative_to: float = 80.0) -> float:
    """Contrast of bone relative to that at another tube voltage; 1 where the voltage is not known."""
    return 1.0 if kvp is None else _contrast(kvp) / _contrast(relative_to)


def _contrast(kvp: float) -> float:
    return float(np.interp(kvp, list(_BONE_BY_KVP), list(_BONE_BY_KVP.values())))
