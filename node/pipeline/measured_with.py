"""What moves a result besides the study: software, settings and the files that they name."""

from __future__ import annotations

from importlib.metadata import version

from config.catalog import configuration_sha256
from config.settings import Settings
from node import __version__
from node.store.workers import MeasuredWith
from scoring.internal import INTERNAL

_COMPUTING_PACKAGES = ("numpy", "scipy", "SimpleITK", "pyradiomics", "pydicom", "highdicom")


class BasisChanged(Exception):
    """Software, settings or a file that they name changed while a step ran: what it made rests on both."""


def measured_with(settings: Settings) -> MeasuredWith:
    """What the result of any study would rest on here, as packages and files are at this moment.

    Raises
    ------
    CatalogEntryMissing
        If a file that the settings name is gone.
    """
    packages = ", ".join(f"{name} {version(name)}" for name in computing_packages(settings))
    return MeasuredWith(
        software=f"{__version__} ({packages})", configuration_sha256=configuration_sha256(settings)
    )


def computing_packages(settings: Settings) -> tuple[str, ...]:
    """Packages that numbers rest on. Attenuation tables compute only where tissues calibrate."""
    return (*_COMPUTING_PACKAGES, *(("xraylib",) if settings.calibration.method == INTERNAL else ()))
