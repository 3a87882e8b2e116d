"""Select: is this a QCT study, whose is it, which series is measured, and is a phantom in view?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from config.phrases import in_english
from config.sections import QualitySettings, SelectionSettings
from config.settings import Settings
from node.dicom.ct.headers import Instance, SeriesHeaders, identity_of
from node.dicom.ct.series_choice import Sharpness, is_qct_candidate, kernel_rank
from node.dicom.header_text import text_of
from node.dicom.result_headers import IDENTITY_KEYWORDS
from node.pipeline.artefacts import SelectedSlice, SelectionArtefact
from node.pipeline.steps.calibrate import is_declared_phantom, suspected_phantom
from node.pipeline.steps.candidates import Choice, choose
from node.pipeline.study_run import Arrival, StepResult, StudyImages, Verdict
from node.study_report import Completeness, RejectedSeries, SeriesFacts, StudyIdentity
from scoring.calibration.spectrum import energy_phrase, filter_phrase
from scoring.phantoms import holds_no_patient
from segmentation.ct_volume import CtVolume
from segmentation.gates.great_vessels import brightest_vessel
from segmentation.phrase import Phrase, Value, clauses, listed, phrase
from segmentation.settings import ImageSettings
from segmentation.vertebrae import Observation, Vertebrae

# Not "not applicable": that would say that somebody looked.
_NOT_LOOKED_AT = "its images cannot be looked at ({reasons}): whether a phantom is in view is not known"


def select(
    images: StudyImages, settings: Settings, *, arrival: Arrival, scanners_watched: bool
) -> SelectionArtefact | StepResult:
    """Choose what is measured and read its phantom.

    Parameters
    ----------
    images : all files of the study; the chosen series stays decoded there.
    arrival : how the study came, and whether a person asked for it by name.
    scanners_watched : whether phantom readings are remembered, so that a phantom scanned alone counts.

    Returns
    -------
    SelectionArtefact or StepResult
        The latter where the study ends here: not applicable, or set aside because no image can be looked at.
    """
    instances, series = images.instances, images.series
    choice = choose(images, settings)
    # A phantom that cannot be used, cut by the image for one, still declares what the study is for.
    declared = scanners_watched and _holds_declared_phantom(instances, settings.quality)
    if not (
        declared
        or choice.shows_phantom
        or _is_declared_qct(instances, arrival, settings.selection)
        or (scanners_watched and _may_be_phantom_alone(choice, settings.quality))
    ):
        if choice.unseen:
            reasons = in_english(_reasons(choice.rejected))
            reason = _NOT_LOOKED_AT.format(reasons=reasons)
            return StepResult(verdict=Verdict.SET_ASIDE, reason=reason)
        return StepResult(verdict=Verdict.NOT_APPLICABLE, reason="no phantom in view and not declared as QCT")

    source = _header_source(series, instances, choice)
    study = identity_of(source.header)
    patients = _patients_of(series)
    if len(patients) > 1:
        study = replace(study, patient_id="", issuer_of_patient_id="")  # whose study this is is not known
    for _, issuer in patients if len(patients) == 1 else ():
        study = replace(study, issuer_of_patient_id=issuer)
    measured = {one.facts.series_instance_uid for one in choice.shown}
    return SelectionArtefact(
        study=study,
        series=choice.facts,
        rejected=choice.rejected,
        phantom=choice.readings[0] if choice.loaded is not None else None,
        observations=(
            *_identity_observations(study, len(patients)),
            *_text_observations(instances),
            *_series_observations(choice, settings.segmentation.image),
            *_missing_observations(arrival.completeness, measured),
        ),
        slices=_selected_slices(choice),
    )


def _selected_slices(choice: Choice) -> tuple[SelectedSlice, ...]:
    return tuple(
        SelectedSlice(
            name=f"slice {number}",
            sop_instance_uid=text_of(one.headers[0], "SOPInstanceUID"),
            phantom=reading,
        )
        for number, (one, reading) in enumerate(zip(choice.slices, choice.readings, strict=False), start=1)
    )


def _is_declared_qct(instances: Sequence[Instance], arrival: Arrival, settings: SelectionSettings) -> bool:
    return (
        arrival.declared_qct
        or bool(arrival.called_ae_titles & frozenset(settings.qct_ae_titles))
        or is_qct_candidate(instances, settings.qct_procedure_codes)
    )


def _holds_declared_phantom(instances: Sequence[Instance], settings: QualitySettings) -> bool:
    """A phantom that a site declares makes a candidate even where it is not found: that is its reading."""
    return any(is_declared_phantom(text_of(one.header, "PatientID"), settings) for one in instances)


def _may_be_phantom_alone(choice: Choice, settings: QualitySettings) -> bool:
    """Whether the volume contains no patient and an object that resembles a rod.

    Such a scan says that its scanner reads far off, and would otherwise be forgotten.
    """
    loaded = choice.loaded
    if loaded is None or not holds_no_patient(loaded.volume, settings.patient):
        return False
    return any(suspected_phantom(loaded.volume, reading) is not None for reading in choice.readings)


def _header_source(
    series: tuple[SeriesHeaders, ...], instances: tuple[Instance, ...], choice: Choice
) -> Instance:
    """The instance that results copy their identity from: the chosen series', else any CT image's."""
    for one in series:
        if choice.facts and one.series_instance_uid == choice.facts.series_instance_uid:
            return one.instances[0]
    return series[0].instances[0] if series else instances[0]


def _patients_of(series: Sequence[SeriesHeaders]) -> frozenset[tuple[str, str]]:
    """Patient ID and issuer of all patients in the images. An absent issuer is not another issuer."""
    issuers: dict[str, set[str]] = {}
    for instance in (instance for one in series for instance in one.instances):
        named = issuers.setdefault(text_of(instance.header, "PatientID"), set())
        named.add(text_of(instance.header, "IssuerOfPatientID"))
    return frozenset((patient, one) for patient, named in issuers.items() for one in named - {""} or {""})


def _identity_observations(study: StudyIdentity, patients: int) -> list[Observation]:
    missing = []
    if not study.study_instance_uid:
        missing.append(Observation(code="study_uid_missing"))
    if patients > 1:
        missing.append(Observation(code="patient_conflict", values={"patients": patients}))
    elif not study.patient_id:
        missing.append(Observation(code="patient_id_missing"))
    return missing


def _text_observations(instances: Sequence[Instance]) -> list[Observation]:
    """Identity that is no text in its image's character set, or no sequence where it should be one."""
    noticed = []
    unreadable = sorted({keyword for instance in instances for keyword in instance.unreadable})
    if unreadable:
        noticed.append(Observation(code="identity_unreadable", values={"attributes": ", ".join(unreadable)}))
    malformed = sorted({one for instance in instances for one in instance.malformed} & IDENTITY_KEYWORDS)
    if malformed:
        noticed.append(Observation(code="identity_malformed", values={"attributes": ", ".join(malformed)}))
    return noticed


def _series_observations(choice: Choice, image: ImageSettings) -> list[Observation]:
    facts = choice.facts
    if facts is None:
        if choice.few_slices is not None:
            return [Observation(code="slices_too_few", values={"slices": choice.few_slices})]
        reasons = _reasons(choice.rejected) or phrase("no-ct-image")
        return [Observation(code="no_usable_series", values={"reasons": reasons})]
    noticed = []
    if choice.slices:
        noticed.append(Observation(code="single_slice", values={"slices": len(choice.slices)}))
    noticed += _pass_observations(facts)
    noticed += contrast_in_headers(facts)
    noticed += spectrum_observations(facts)
    if facts.lossy:
        noticed.append(_loss_observation(facts.lossy_ratio, image.lossy_ratio))
    if choice.loaded is not None and choice.loaded.copies:
        noticed.append(Observation(code="duplicate_images", values={"images": choice.loaded.copies}))
    if choice.localizers:
        noticed.append(Observation(code="localizers_left_out", values={"images": choice.localizers}))
    if choice.passed_over:
        values = {"advantages": listed(choice.passed_over)}
        noticed.append(Observation(code="series_passed_over", values=values))
    if choice.disagreement:
        noticed.append(Observation(code="phantoms_disagree_elsewhere"))
    if choice.phantom_in:
        reasons = _reasons([one for one in choice.rejected if one.series_instance_uid in choice.phantom_in])
        noticed.append(Observation(code="phantom_in_other_series", values={"reasons": reasons}))
    step_mm = slice_step_mm(facts)
    if (
        step_mm is not None and step_mm > image.thick_slices_mm
    ):  # single slices have no texture along z to lose
        noticed.append(Observation(code="thick_slices", values={"thickness_mm": f"{step_mm:.3g}"}))
    noticed += _kernel_observations(facts.kernel)
    return noticed


def _pass_observations(facts: SeriesFacts) -> list[Observation]:
    found = facts.measured_pass
    if found is None:
        return []
    values: dict[str, Value] = {
        "number": found.number,
        "passes": found.passes,
        "told_by": found.told_by,
        "reason": found.reason,
        "left_out": found.images_left_out,
    }
    return [Observation(code="one_pass_measured", values=values)]


def _reasons(rejected: Sequence[RejectedSeries]) -> Value:
    return clauses(sorted({one.reason for one in rejected}, key=in_english))


def _loss_observation(ratio: float | None, limit: float) -> Observation:
    """Weak lossy compression withholds texture; strong or unstated compression withholds density too."""
    if ratio is None:
        return Observation(code="lossy_unknown")
    if ratio > limit:
        return Observation(code="lossy_strong", values={"ratio": f"{ratio:.3g}", "limit": f"{limit:.3g}"})
    return Observation(code="lossy_source", values={"ratio": f"{ratio:.3g}"})


def _missing_observations(completeness: Completeness | None, measured: set[str]) -> list[Observation]:
    """Images that an archive holds and that did not arrive: of the measured series, and of the others."""
    lacking = completeness.lacking if completeness is not None else ()
    noticed = []
    for code, counts in (
        ("series_incomplete", [one for one in lacking if one.series_instance_uid in measured]),
        ("study_incomplete", [one for one in lacking if one.series_instance_uid not in measured]),
    ):
        if counts:
            archived = sum(one.archived or 0 for one in counts)
            values = {
                "archived": archived,
                "arrived": sum(one.arrived for one in counts),
                "series": len(counts),
            }
            noticed.append(Observation(code=code, values=values))
    return noticed


def _kernel_observations(kernel: str) -> list[Observation]:
    rank = kernel_rank(kernel)
    if rank is Sharpness.SOFT:
        return []
    code = "sharp_kernel" if rank is Sharpness.SHARP else "kernel_unknown"
    return [Observation(code=code, values={"kernel": kernel or phrase("not-stated")})]


_UNREAD = phrase("vessels-unread")


def contrast_in_headers(series: SeriesFacts) -> tuple[Observation, ...]:
    """`contrast_given` where it is documented; in single slices, without vessels, doubt counts as well."""
    if not series.contrast_agent:
        return ()
    if not series.contrast_doubtful:
        return (Observation(code="contrast_given", values={"agent": series.contrast_agent}),)
    return (_in_doubt(series.contrast_agent, _UNREAD),) if series.slice_spacing_mm is None else ()


def contrast_in_doubt(
    volume: CtVolume, vertebrae: Vertebrae, series: SeriesFacts, settings: ImageSettings
) -> tuple[Observation, ...]:
    """Where the headers leave contrast medium open, the vessels decide; unreadable vessels count as enhanced.

    `contrast_doubtful`, which withholds what contrast does, or `contrast_not_seen`.
    """
    if not series.contrast_agent or not series.contrast_doubtful:
        return ()
    vessel = brightest_vessel(volume, vertebrae, settings)
    if vessel is None:
        return (_in_doubt(series.contrast_agent, _UNREAD),)
    if vessel.hu > settings.contrast_hu:
        return (_in_doubt(series.contrast_agent, phrase("vessels-read", hu=f"{vessel.hu:.0f}")),)
    values: dict[str, str | int | float] = {
        "words": series.contrast_agent,
        "hu": round(vessel.hu),
        "limit": round(settings.contrast_hu),
    }
    return (Observation(code="contrast_not_seen", values=values),)


def _in_doubt(words: str, reason: Phrase) -> Observation:
    return Observation(code="contrast_doubtful", values={"words": words, "reason": reason})


def spectrum_observations(series: SeriesFacts) -> tuple[Observation, ...]:
    """`spectrum_unusual` where the tube voltage does not stand for the spectrum; `filter_unknown`."""
    found = []
    spectrum = series.spectrum
    if not spectrum.is_conventional:
        values: dict[str, Value] = {
            "energy": energy_phrase(spectrum.energy),
            "filter": filter_phrase(spectrum.beam_filter),
        }
        found.append(Observation(code="spectrum_unusual", values=values))
    if series.filter_unknown:
        found.append(Observation(code="filter_unknown", values={"filter": series.filter_unknown}))
    return tuple(found)


def slice_step_mm(series: SeriesFacts) -> float | None:
    """Thickness or distance of the slices, the larger; None where each slice stands alone."""
    if series.slice_spacing_mm is None:
        return None
    return max(series.slice_thickness_mm or 0.0, series.slice_spacing_mm)
