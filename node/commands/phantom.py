"""`osteonode phantom`: write a digital reference study with known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from node.commands.console import terminal
from node.reference.spec import LUMBAR, PHANTOMS, SpecInvalid, StudySpec, parse_bmd
from node.reference.study import Truth, write_reference_study


def phantom(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder; created if missing.", file_okay=False)
    ],
    bmd: Annotated[
        str | None, typer.Option(help="mg HA/cm3 per level, such as L1=110,L3=95; the rest is interpolated.")
    ] = None,
    kvp: Annotated[int, typer.Option(help="Tube voltage: 80, 100, 120 or 140.")] = 120,
    seed: Annotated[int, typer.Option(help="Of noise, texture and bowel.", min=0)] = 1,
    model: Annotated[
        str, typer.Option("--phantom", help=f"Calibration phantom: {' or '.join(PHANTOMS)}.")
    ] = "siemens-osteo",
    view: Annotated[str, typer.Option(help="Topmost and lowest vertebra wholly in view.")] = "T12-S1",
    noise: Annotated[float, typer.Option(help="SD of single voxels, HU.")] = 18.0,
    thickness: Annotated[float | None, typer.Option(help="Slice thickness, mm.")] = None,
    spacing: Annotated[float | None, typer.Option(help="Slice spacing, mm; else the thickness.")] = None,
    pixel: Annotated[float | None, typer.Option(help="Pixel spacing, mm.")] = None,
    scoliosis: Annotated[float, typer.Option(help="Cobb angle, degrees.")] = 0.0,
    age: Annotated[int, typer.Option(help="Years.")] = 67,
    sex: Annotated[str, typer.Option(help="M, F, O or empty.")] = "F",
    patient_id: Annotated[str, typer.Option(help="Patient ID; empty for none.")] = "REFERENCE-1",
    spine_phantom: Annotated[
        bool, typer.Option("--esp", help="A European Spine Phantom in place of the patient.")
    ] = False,
    reduced: Annotated[bool, typer.Option("--reduced", help="Fewer, smaller slices: quick.")] = False,
) -> None:
    """Write a digital reference study: DICOM CT, truth.json and truth_mask.nii.gz in DIR."""
    changes: dict[str, Any] = {
        "kvp": kvp,
        "seed": seed,
        "phantom": model,
        "noise_hu": noise,
        "scoliosis_degrees": scoliosis,
        "age_years": age,
        "sex": sex,
        "patient_id": patient_id,
        "european_spine_phantom": spine_phantom,
    }
    if thickness is not None:
        changes["slice_thickness_mm"] = changes["slice_spacing_mm"] = thickness
    if spacing is not None:
        changes["slice_spacing_mm"] = spacing
    if pixel is not None:
        changes["pixel_spacing_mm"] = (pixel, pixel)
    try:
        if bmd is not None:
            changes["bmd_mg_cm3"] = parse_bmd(bmd)
        top, _, bottom = view.partition("-")
        changes["view"] = (top, bottom)
        spec = StudySpec.reduced(**changes) if reduced else StudySpec(**changes)
    except SpecInvalid as error:
        raise typer.BadParameter(str(error)) from error
    if directory.exists() and not directory.is_dir():
        raise typer.BadParameter(f"{directory} is a file", param_hint="DIR")
    if directory.is_dir() and any(directory.glob("*.dcm")):
        raise typer.BadParameter(f"{directory} already holds DICOM files", param_hint="DIR")
    for name in ("truth.json", "truth_mask.nii.gz"):
        if (directory / name).exists():
            raise typer.BadParameter(f"{directory} already holds a {name}", param_hint="DIR")
    _print_truth(terminal(), write_reference_study(directory, spec), directory)


def _print_truth(console: Console, truth: Truth, directory: Path) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("level", f"BMD mg/cm3 {truth.equivalent}", "body cm3"):
        table.add_column(heading, justify="left" if heading == "level" else "right")
    for name in LUMBAR:
        if name in truth.levels:
            level = truth.levels[name]
            table.add_row(name, f"{level.bmd_mg_cm3:.1f}", f"{level.volume_mm3 / 1000:.1f}")
    console.print(table)
    console.print(f"written to {directory}")
