"""What headers tell of an image's spectrum: energy, photon counting and filters, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite

from config.phrases import in_english
from node.dicom.ct.headers import group_series, read_headers
from node.dicom.ct.reading import read_series
from node.dicom.ct.technique import beam_filter_of, energy_of, unknown_filter_of
from node.dicom.errors import SeriesUnusable, Unusable

PLAIN = ["ORIGINAL", "PRIMARY", "AXIAL"]


def header(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def nested(keyword: str, *items: Dataset, **outside: object) -> Dataset:
    return header(**{keyword: list(items)}, **outside)


def energy(kev: float) -> Dataset:
    return header(MonoenergeticEnergyEquivalent=kev)


def detector(kind: str) -> Dataset:
    return header(MultienergyDetectorType=kind)


def typed(*words: str, **others: object) -> Dataset:
    return header(ImageType=[*PLAIN, *words], **others)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (header(), "single"),
        (typed("CT_SOM5 SPI"), "single"),
        (typed(MultienergyCTAcquisition="NO"), "single"),
        (typed(SeriesDescription="Lumbar 1.0 Br40"), "single"),
        (typed("MONOCHROME"), "single"),
        (nested("MultienergyCTCharacteristicsSequence", energy(70.0)), "virtual 70 keV"),
        (nested("CTXRayDetailsSequence", energy(40.0)), "virtual 40 keV"),
        (typed("VMI", "70KEV"), "virtual 70 keV"),
        (typed("MONO_E_65"), "virtual 65 keV"),
        (typed("GSI MONO 70"), "virtual 70 keV"),
        (typed("DE_MONO_55KEV"), "virtual 55 keV"),
        (typed("VMI", SeriesDescription="Spine 60 keV"), "virtual 60 keV"),
        (typed("VMI"), "multi-energy AXIAL VMI"),
        (typed("CT_SOM5 DUAL"), "multi-energy AXIAL CT_SOM5 DUAL"),
        (header(ImageType=PLAIN[:2], MultienergyCTAcquisition="YES"), "multi-energy"),
        (typed(SeriesDescription="Spine Mono+ 70 keV"), "virtual 70 keV by its description"),
        (typed(SeriesDescription="Spine MonoE"), "virtual by its description"),
        (nested("MultienergyCTAcquisitionSequence",
                nested("MultienergyCTXRayDetectorSequence", detector("PHOTON_COUNTING"))), "photon counting"),
        (nested("MultienergyCTAcquisitionSequence",
                nested("MultienergyCTXRayDetectorSequence", detector("INTEGRATING"))), "single"),
        (typed(ManufacturerModelName="NAEOTOM Alpha"), "photon counting"),
        (typed("VMI", "67KEV", ManufacturerModelName="NAEOTOM Alpha"), "virtual 67 keV"),
    ],
)  # fmt: skip
def test_an_image_of_another_spectrum_than_a_tube_voltages_is_told(made: Dataset, expected: str) -> None:
    assert energy_of(made) == expected


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (header(FilterType="FLAT", FilterMaterial="TIN"), "tin"),
        (header(FilterType="SN100"), "tin"),
        (header(FilterType="AuSn"), "gold and tin"),
        (header(FilterMaterial=["ALUMINUM", "SILVER"]), "silver"),
        (nested("CTXRayDetailsSequence", header(FilterType="WEDGE"), header(FilterMaterial="TIN")), "tin"),
        (header(SeriesDescription="Spine Sn150kV"), "tin by its description"),
    ],
)
def test_a_metal_before_the_tube_is_named(made: Dataset, expected: str) -> None:
    assert beam_filter_of(made) == expected
    assert unknown_filter_of(made) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NONE",
        "WEDGE",
        "WEDGE_2",
        "BUTTERFLY",
        "BODY FILTER",
        "HEAD",
        "FLAT",
        "LARGE",
        "0",
        "1",
        "2",
        "3",
        "A",
    ],
)
def test_an_ordinary_filter_changes_no_spectrum(text: str) -> None:
    made = header(FilterType=text)
    assert beam_filter_of(made) == "none"
    assert unknown_filter_of(made) == ""


def test_a_filter_that_nobody_knows_is_told_and_counts_as_ordinary() -> None:
    made = header(FilterType="ZX-BEAM", FilterMaterial="UNOBTAINIUM")
    assert beam_filter_of(made) == "none"
    assert unknown_filter_of(made) == "ZX-BEAM UNOBTAINIUM"


@pytest.fixture
def read(study, tmp_path: Path) -> Callable[..., object]:  # type: ignore[no-untyped-def]
    """Reads a copy of the synthetic CT in which `edit` changed each slice."""

    def run(edit: Callable[[int, Dataset], None]) -> object:
        for number, path in enumerate(sorted(study.folder.glob("*.dcm"))):
            dataset = dcmread(path)
            edit(number, dataset)
            dcmwrite(tmp_path / path.name, dataset)
        (series,) = group_series(read_headers(tmp_path.iterdir()))
        return read_series(series).facts

    return run


def make_virtual(dataset: Dataset, kev: int) -> None:
    dataset.ImageType = [*PLAIN, "VMI", f"{kev}KEV"]


@pytest.mark.parametrize("kev", [40, 45, 80, 140])
def test_an_energy_at_which_no_limit_holds_is_refused_by_its_name(
    read: Callable[..., object], kev: int
) -> None:
    with pytest.raises(SeriesUnusable) as error:
        read(lambda number, dataset: make_virtual(dataset, kev))
    assert error.value.reason is Unusable.ENERGY_UNSUITED
    assert in_english(error.value.detail) == f"virtual {kev} keV; the limits apply from 50 to 75 keV"


@pytest.mark.parametrize("word", ["MAT_REMOVED", "MAT_SPECIFIC", "ELECTRON_DENSITY", "VNC"])
def test_an_image_without_some_material_is_no_image_of_bone(read: Callable[..., object], word: str) -> None:
    def edit(number: int, dataset: Dataset) -> None:
        dataset.ImageType = [*PLAIN, word]

    with pytest.raises(SeriesUnusable, match=word) as error:
        read(edit)
    assert error.value.reason is Unusable.MATERIAL_IMAGE


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda number, dataset: make_virtual(dataset, 60 if number < 20 else 70), "energy type"),
        (
            lambda number, dataset: setattr(dataset, "FilterMaterial", "TIN" if number < 20 else ""),
            "spectral filter",
        ),
    ],
    ids=["energies", "filters"],
)
def test_a_series_of_two_spectra_is_refused(read: Callable[..., object], edit, told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SeriesUnusable, match=told) as error:
        read(edit)
    assert error.value.reason is Unusable.TECHNIQUE_VARIES
