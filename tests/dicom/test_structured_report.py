"""An independent reader (pydicom alone) recovers every number of the report from its SR."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread

from node.dicom.seg import encode_segmentation, plan_segments
from node.dicom.sr.document import encode_sr
from node.result_document import ResultDocument
from scoring.calibration import Grade, Mineral
from segmentation.vertebrae import RegionKind

pytestmark = pytest.mark.slow

LEVEL_CODES = {"L1": "66794005", "L2": "14293000", "L3": "36470004", "L4": "11994002", "L5": "49668003"}


@dataclass(frozen=True)
class Item:
    """One content item, as flat as a reader needs it."""

    group: str  # tracking identifier of its measurement group, "" outside
    site: str  # code of the group's finding site
    name: str  # code value of its concept
    value: float | str
    unit: str
    children: dict[str, float | str]


def _code(dataset: Dataset, keyword: str) -> str:
    return str(dataset[keyword].value[0].CodeValue)


def _value(item: Dataset) -> float | str:
    if item.ValueType == "NUM":
        return float(item.MeasuredValueSequence[0].FloatingPointValue)
    if item.ValueType == "CODE":
        return _code(item, "ConceptCodeSequence")
    return str(item.get("TextValue") or item.get("UID") or "")


def read_items(item: Dataset, group: str = "", site: str = "") -> Iterator[Item]:
    for child in item.get("ContentSequence") or ():
        if "ConceptNameCodeSequence" not in child:
            continue
        name = _code(child, "ConceptNameCodeSequence")
        if child.ValueType == "CONTAINER":
            inside = {
                _code(c, "ConceptNameCodeSequence"): _value(c)
                for c in child.ContentSequence
                if c.ValueType in ("TEXT", "CODE")
            }
            yield from read_items(child, str(inside.get("112039", group)), str(inside.get("363698007", "")))
        elif child.ValueType in ("NUM", "CODE", "TEXT", "UIDREF"):
            unit = (
                _code(child.MeasuredValueSequence[0], "MeasurementUnitsCodeSequence")
                if child.ValueType == "NUM"
                else ""
            )
            children = {
                _code(c, "ConceptNameCodeSequence"): _value(c) for c in child.get("ContentSequence") or ()
            }
            yield Item(group, site, name, _value(child), unit, children)


@pytest.fixture(scope="module")
def encode(study):
    """Encode a report with its segmentation; returns the SR's bytes."""

    def run(report, *, with_seg: bool = True) -> bytes:
        segments = plan_segments(report, study.vertebrae, study.regions) if with_seg else ()
        seg = encode_segmentation(report, study.series, segments) if segments else None
        return encode_sr(report, study.series.headers, seg=seg, segments=segments).content

    return run


@pytest.fixture(scope="module")
def contents(encode, variants):
    return {name: encode(report, with_seg=name != "refused") for name, report in variants.items()}


@pytest.fixture(scope="module")
def items(contents):
    return {name: list(read_items(dcmread(BytesIO(content)))) for name, content in contents.items()}


def _one(items: list[Item], name: str, **where: str) -> Item:
    found = [i for i in items if i.name == name and all(getattr(i, k) == v for k, v in where.items())]
    assert len(found) == 1, (name, where, found)
    return found[0]


def test_every_level_value_is_recovered(study, items):
    for level in study.report.levels:
        here = [item for item in items["complete"] if item.site == LEVEL_CODES[level.name]]
        volumes = {item.group: (item.value, item.unit) for item in here if item.name == "118565006"}
        assert volumes == {
            f"{level.name} vertebral body": (level.volume_mm3, "mm3"),
            f"{level.name} cancellous core (BMD region)": (level.measured.roi_volume_mm3, "mm3"),
        }
        by_derivation = {item.children["121401"]: item for item in here if item.name == "110850"}
        assert by_derivation["373098007"].value == level.measured.hu_mean
        assert by_derivation["386136009"].value == level.measured.hu_sd
        assert by_derivation["373098007"].unit == "[hnsf'U]"
        bmd = _one(here, "BMD-HA")
        assert (bmd.value, bmd.unit) == (level.measured.bmd_mg_cm3, "mg/cm3")
        assert bmd.children["371884006"] == level.measured.bmd_uncertainty_mg_cm3


def test_scores_carry_their_population(study, items):
    t = _one(items["complete"], "T-SCORE-QCT")
    z = _one(items["complete"], "121416")
    assert (t.value, z.value) == (study.report.t_score.value, study.report.z_score.value)
    assert (t.children["373098007"], t.children["121414"]) == (170.0, 28.0)
    assert (z.children["373098007"], z.children["121414"]) == (110.0, 27.0)
    assert "DEMONSTRATION REFERENCE - NOT FOR CLINICAL USE" in str(t.children["121405"])


def test_rad_score_nomogram_and_features_are_recovered(study, items):
    found = items["complete"]
    nomogram = study.report.nomogram
    assert _one(found, "RAD-SCORE").value == study.report.rad_score.value
    assert _one(found, "NOMOGRAM-TOTAL").value == nomogram.total_points
    probability = _one(found, "122157")
    assert probability.value == nomogram.probability
    assert "of osteoporosis versus osteopenia (T rule)" in probability.children.values()
    assert _one(found, "POSITIVE-CLASS").value == "CLASS-POROSIS"
    points = {str(item.children["PREDICTOR"]): item.value for item in found if item.name == "NOMOGRAM-POINTS"}
    by_name = {entry.name: entry.points for entry in nomogram.inputs}
    assert points == {
        "RAD-SCORE": by_name["rad_score"],
        "121033": by_name["age"],
        "6768-6": by_name["alp"],
        "13965-9": by_name["homocysteine"],
    }
    features = {
        str(item.children["121106"]): item.value
        for item in found
        if item.group == "L3 radiomics region" and item.unit
    }
    assert features == dict(study.report.features)


def test_features_carry_ibsi_codes_and_their_sub_band(items):
    coded = {
        (item.name, item.children["IMAGE-FILTER"])
        for item in items["complete"]
        if item.group == "L3 radiomics region" and item.unit
    }
    assert coded == {
        ("QG58", "WAVELET-LLL"),
        ("Y12H", "WAVELET-LLL"),
        ("SALO", "WAVELET-LLH"),
        ("KE2A", "WAVELET-LLH"),
        ("Y12H", "WAVELET-HLH"),
        ("HTZT", "ORIGINAL"),
    }


def test_laboratory_values_carry_unit_source_and_date(items):
    alp, homocysteine = _one(items["complete"], "6768-6"), _one(items["complete"], "13965-9")
    assert (alp.value, alp.unit) == (84.0, "U/L")
    assert (homocysteine.value, homocysteine.unit) == (13.5, "umol/L")
    assert alp.children["121106"] == "from CSV, taken on 2024-05-10"
    assert homocysteine.children["121106"] == "from CSV, taken on 2024-05-11"
    assert _one(items["complete"], "121033").value == 68


def test_calibration_and_technique_are_recovered(study, items):
    found = items["complete"]
    calibration = study.report.calibration
    assert _one(found, "CAL-SLOPE-HA").value == calibration.slope
    assert _one(found, "CAL-ICPT-HA").value == calibration.intercept
    assert not [item for item in found if item.name in ("CAL-R2", "CAL-RESIDUAL")]  # two points have none
    assert _one(found, "122421").value == "Siemens Osteo"
    assert _one(found, "CAL-METHOD").value == "two-point"
    rods = [(item.value, item.children["121106"]) for item in found if item.name == "ROD-DENS-HA"]
    assert rods == [(0.0, "rod water"), (200.0, "rod bone")]
    assert _one(found, "113733").value == 80.0
    assert _one(found, "113961").value == "B40f"
    assert [item.value for item in found if item.name == "112225"] == [
        4.0,
        4.0,
    ]  # image library and technique


@pytest.mark.parametrize("grade", Grade)
def test_what_a_calibration_rests_on_is_coded(study, encode, grade):
    calibration = replace(study.report.calibration, grade=grade)
    found = list(read_items(dcmread(BytesIO(encode(replace(study.report, calibration=calibration))))))
    coded = {"phantom": "GRADE-PHANTOM", "asynchronous": "GRADE-ASYNC", "internal": "GRADE-INTERNAL"}
    assert _one(found, "CAL-GRADE").value == coded[grade.value]


def test_the_phantoms_certificate_is_named_by_serial_number_and_hash(study, encode):
    calibration = replace(study.report.calibration, phantom_serial="4541A", phantom_sha256="9f" * 32)
    found = list(read_items(dcmread(BytesIO(encode(replace(study.report, calibration=calibration))))))
    assert _one(found, "CAL-SERIAL").value == "4541A"
    assert _one(found, "CAL-SHA256").value == "9f" * 32


def test_a_category_on_a_converted_mean_names_what_was_measured(variants, encode, items):
    report = variants["density category"]
    density = replace(report.density, converted_from=Mineral.HA, uncertainty_mg_cm3=1.5)
    found = list(read_items(dcmread(BytesIO(encode(replace(report, density=density))))))
    for name in ("BMD-MEAN2-K2HPO4", "DENSITY-CATEGORY"):
        assert _one(found, name).children["CONVERTED-FROM"] == "EQUIV-HA"
        assert "CONVERTED-FROM" not in _one(items["density category"], name).children
    assert _one(found, "BMD-MEAN2-K2HPO4").children["371884006"] == 1.5
    assert "converted from HA" in str(_one(found, "DENSITY-CATEGORY").children["121106"])


def test_densities_of_two_regions_stand_in_groups_of_their_own(study):
    """In the segmentation too; the leading one is the same as alone."""
    report = replace(
        study.report,
        levels=tuple(
            replace(
                level,
                ellipse=replace(level.measured, region=RegionKind.ELLIPSE, bmd_mg_cm3=80.25 + place),
            )
            for place, level in enumerate(study.report.levels)
        ),
    )
    regions = tuple(replace(one, ellipse=_smaller(one.bmd)) for one in study.regions)
    segments = plan_segments(report, study.vertebrae, regions)
    seg = encode_segmentation(report, study.series, segments)
    content = encode_sr(report, study.series.headers, seg=seg, segments=segments).content
    found = [item for item in read_items(dcmread(BytesIO(content))) if item.name == "BMD-HA"]
    for level in report.levels:
        here = {item.group: item for item in found if item.site == LEVEL_CODES[level.name]}
        core = here[f"{level.name} cancellous core (BMD region)"]
        ellipse = here[f"{level.name} mid-body ellipse (BMD region)"]
        assert (core.value, core.children["BMD-REGION"]) == (level.measured.bmd_mg_cm3, "REGION-CORE")
        assert (ellipse.value, ellipse.children["BMD-REGION"]) == (level.ellipse.bmd_mg_cm3, "REGION-ELLIPSE")
    labels = {str(item.SegmentLabel) for item in dcmread(BytesIO(seg.content)).SegmentSequence}
    assert "L3 mid-body ellipse (BMD region)" in labels


def test_an_ellipse_that_leads_is_named_as_one(study):
    report = replace(
        study.report,
        levels=tuple(
            replace(level, measured=replace(level.measured, region=RegionKind.ELLIPSE))
            for level in study.report.levels
        ),
    )
    regions = tuple(replace(one, kind=RegionKind.ELLIPSE) for one in study.regions)
    labels = {segment.label for segment in plan_segments(report, study.vertebrae, regions)}
    assert "L3 mid-body ellipse (BMD region)" in labels
    assert "L3 cancellous core (BMD region)" not in labels


def _smaller(mask):
    inside = mask.copy()
    inside[:, :, : mask.shape[2] // 2] = False
    return inside


def test_a_fit_over_several_rods_states_its_residual(study, encode):
    calibration = replace(study.report.calibration, r2=0.9987, max_residual_hu=3.5)
    found = list(read_items(dcmread(BytesIO(encode(replace(study.report, calibration=calibration))))))
    assert (_one(found, "CAL-R2").value, _one(found, "CAL-RESIDUAL").value) == (0.9987, 3.5)


def test_a_rod_that_does_not_determine_the_line_is_marked(study, encode):
    rods = (
        study.report.calibration.rods[0],
        replace(study.report.calibration.rods[1], standard_error_hu=0.25),
    )
    calibration = replace(study.report.calibration, rods=rods, left_out=("bone",))
    found = list(read_items(dcmread(BytesIO(encode(replace(study.report, calibration=calibration))))))
    means = [one for one in found if one.name == "ROD-HU" and one.children["121401"] == "373098007"]
    assert [one.children["121106"] for one in means] == ["rod water", "rod bone, not in the fit"]
    assert means[1].children["371884006"] == 0.25
    assert "371884006" not in means[0].children  # not measured


def test_only_the_density_category_carries_a_standard_category_code(items):
    assert _one(items["density category"], "DENSITY-CATEGORY").value == "312894000"
    assert _one(items["density category"], "STUDY-CLASS").value == "XIE2022-POROSIS"
    assert not [item for item in items["complete"] if item.name == "DENSITY-CATEGORY"]
    assert not {"64859006", "312894000", "17621005"} & {str(item.value) for item in items["complete"]}


def test_the_equivalents_have_codes_of_their_own(items):
    names = {item.name for item in items["density category"]}
    assert {"BMD-K2HPO4", "CAL-SLOPE-K2HPO4", "BMD-MEAN2-K2HPO4"} <= names
    assert "BMD-HA" not in names


def _densities(item: Dataset, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Dataset]]:
    """Every number in mg/cm3, with the meanings of the concepts that it stands under."""
    for child in item.get("ContentSequence") or ():
        name = child.get("ConceptNameCodeSequence")
        here = (*path, str(name[0].CodeMeaning) if name else "")
        measured = child.get("MeasuredValueSequence")
        if measured and _code(measured[0], "MeasurementUnitsCodeSequence") == "mg/cm3":
            yield here, child
        yield from _densities(child, here)


@pytest.mark.parametrize(
    ("name", "mineral", "other", "code"),
    [
        ("complete", "hydroxyapatite", "K2HPO4", "EQUIV-HA"),
        ("density category", "K2HPO4", "hydroxyapatite", "EQUIV-K2HPO4"),
    ],
)
def test_every_number_in_mg_per_cm3_states_its_mineral(contents, name, mineral, other, code):
    """In its concept's name, in that of the number it is the uncertainty of, or in a modifier."""
    found = list(_densities(dcmread(BytesIO(contents[name]))))
    assert len(found) > 10
    for path, item in found:
        modifiers = {
            _code(child, "ConceptNameCodeSequence"): _value(child)
            for child in item.get("ContentSequence") or ()
        }
        of_uncertainty = "uncertainty" in path[-1]
        named = path[-2] if of_uncertainty else path[-1]
        assert mineral in named or modifiers.get("EQUIVALENT") == code, path
        assert other not in named


def test_every_density_in_words_is_followed_by_its_mineral(items):
    for name, mineral in (("complete", "HA"), ("density category", "K2HPO4")):
        texts = [str(item.value) for item in items[name]]
        texts += [str(child) for item in items[name] for child in item.children.values()]
        words = [text for text in texts if "mg/cm3" in text]
        assert any(text.startswith("BMD compared: ") for text in words)
        for text in words:
            rule = text.replace("(80/120 mg/cm3 K2HPO4)", "")  # the density rule is named with its own
            assert "mg/cm3" not in rule.replace(f"mg/cm3 {mineral}", ""), text


def test_every_finding_stands_as_code_severity_and_words(variants, items):
    for name, report in variants.items():
        shown = [item for item in items[name] if item.name == "121071" and item.group == ""]
        words = [item.children["121106"] for item in shown]
        assert words == [finding.text for finding in report.findings]
        severities = [item.children["246112005"] for item in shown]
        assert severities == [f"SEV-{finding.severity.name}" for finding in report.findings]


def test_a_refusal_holds_its_reasons_and_no_measurement(items):
    found = items["refused"]
    measured = {item.name for item in found if item.unit}
    # What is left is technique: matrix, kVp, thickness, spacing.
    assert measured == {"110910", "110911", "113733", "112225", "112226", "111026", "111066"}
    assert _one(found, "111050").value == "111235"
    assert any("REFUSED" in str(item.value) for item in found)


def test_a_missing_laboratory_leaves_the_rad_score_alone(items):
    names = {item.name for item in items["laboratory missing"]}
    assert "RAD-SCORE" in names
    assert not {"NOMOGRAM-TOTAL", "NOMOGRAM-POINTS", "122157", "6768-6", "13965-9"} & names


def test_the_document_says_that_it_is_preliminary_and_for_research(contents, items):
    dataset = dcmread(BytesIO(contents["complete"]))
    assert (dataset.VerificationFlag, dataset.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert dataset.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert _one(items["complete"], "INTENDED-USE").value == "RESEARCH-ONLY"
    assert any("Research use only" in str(item.value) for item in items["complete"])


def test_an_amendment_states_its_reason(items):
    assert _one(items["amended"], "AMENDMENT").value == "Homocysteine arrived"


def test_algorithms_are_named_with_version_and_hash(contents, items):
    text = {str(item.value) for item in items["complete"]}
    assert {"geometric", "Osteonode", "demonstration-2024"} <= text
    assert f"model_sha256={'ab' * 32}" in text
    assert f"configuration_sha256={'ef' * 32}" in text


def test_a_study_that_was_begun_again_says_so_with_the_software(study, encode):
    told = "begun again at select: what came before score had been done with software 0.0.9"
    again = replace(study.report, provenance=replace(study.report.provenance, begun_again=told))
    items = read_items(dcmread(BytesIO(encode(again, with_seg=False))))
    assert f"begun_again={told}" in {str(item.value) for item in items}
    assert ResultDocument.of(again, {}).provenance.begun_again == told
    assert ResultDocument.of(study.report, {}).provenance.begun_again is None


def test_the_private_scheme_is_declared(contents):
    schemes = dcmread(BytesIO(contents["complete"])).CodingSchemeIdentificationSequence
    (scheme,) = [item for item in schemes if item.CodingSchemeDesignator == "99OSTEO"]
    assert scheme.CodingSchemeUID.startswith("2.25.")
    assert scheme.CodingSchemeName


def test_evidence_names_every_slice_and_the_segmentation(study, contents):
    (evidence,) = dcmread(BytesIO(contents["complete"])).CurrentRequestedProcedureEvidenceSequence
    referenced = [
        item.ReferencedSOPInstanceUID
        for s in evidence.ReferencedSeriesSequence
        for item in s.ReferencedSOPSequence
    ]
    slices = [header.SOPInstanceUID for header in study.series.headers]
    assert referenced[: len(slices)] == slices
    assert len(referenced) == len(slices) + 1


def test_groups_point_at_the_segments_that_the_segmentation_holds(study):
    segments = plan_segments(study.report, study.vertebrae, study.regions)
    seg = encode_segmentation(study.report, study.series, segments)
    dataset = dcmread(BytesIO(seg.content))
    held = {int(s.SegmentNumber): s.TrackingUID for s in dataset.SegmentSequence}
    report = dcmread(
        BytesIO(encode_sr(study.report, study.series.headers, seg=seg, segments=segments).content)
    )
    (measurements,) = [c for c in report.ContentSequence if _code(c, "ConceptNameCodeSequence") == "126010"]
    pointed = {}
    for group in measurements.ContentSequence:
        parts = {_code(c, "ConceptNameCodeSequence"): c for c in group.ContentSequence}
        if "121191" in parts:
            reference = parts["121191"].ReferencedSOPSequence[0]
            assert reference.ReferencedSOPInstanceUID == dataset.SOPInstanceUID
            pointed[int(reference.ReferencedSegmentNumber)] = parts["112040"].UID
    assert pointed == held


def test_dsrdump_prints_the_numbers(study, contents, dsrdump, tmp_path):
    path = tmp_path / "report.dcm"
    path.write_bytes(contents["complete"])
    printed = subprocess.run([dsrdump, "+Pl", path], capture_output=True, text=True, check=True).stdout
    report = study.report
    numbers = [
        *(level.measured.bmd_mg_cm3 for level in report.levels),
        *(level.volume_mm3 for level in report.levels),
        report.t_score.value, report.z_score.value, report.rad_score.value,
        report.nomogram.total_points, report.nomogram.probability, *report.features.values(),
    ]  # fmt: skip
    for value in numbers:
        assert f'"{value:.10g}"' in printed, value
    assert "UNVERIFIED" in printed
    assert "QCT" in printed


def test_text_beyond_ascii_is_spelled_so_that_any_character_set_holds_it(study, encode):
    kernel = replace(study.report.series, kernel="Br38 µ ≤ é 王")
    found = list(read_items(dcmread(BytesIO(encode(replace(study.report, series=kernel))))))
    assert _one(found, "113961").value == "Br38 u <= e ?"
