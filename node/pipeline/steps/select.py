"""Select: is this a QCT study, whose is it, which series is measured, and is a phantom in view?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from config.catalog import configured_phantoms
from config.image_rules import ImageRules
from node.dicom.errors import SeriesUnusable, Unusable
from node.dicom.headers import (
    Instance,
    SeriesHeaders,
    group_series,
    identity_of,
    is_multi_frame_ct,
    read_headers,
    text_of,
)
from node.dicom.identity import IDENTITY_KEYWORDS
from node.dicom.lone_slices import is_lone_series, read_lone_slices, select_lone_slices
from node.dicom.read import LoadedSeries
from node.dicom.select import Sharpness, is_qct_candidate, kernel_rank, select_series
from node.pipeline.artefacts import SELECTION, to_json
from node.pipeline.calibration_rules import patient_rules
from node.pipeline.context import PROCEED, StepContext, StepResult, Verdict
from node.pipeline.contrast import contrast_in_headers
from node.pipeline.scanner import is_declared_phantom, shows_phantom, suspected_phantom
from node.pipeline.selection import SelectedSlice, SelectionArtefact, load_series, slice_step_mm
from node.report import Completeness, RejectedSeries, SeriesFacts, StudyIdentity
from scoring.phantom import PhantomReading
from scoring.phantom_choice import Image, read_phantom
from scoring.phantom_scan import holds_no_patient
from segmentation.observation import Observation

# Not "not applicable": that would say that somebody looked.
_NOT_LOOKED_AT = (
    "its multi-frame (Enhanced) CT cannot be measured ({reasons}): whether a phantom is in view is not known"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Readable:
    """The best series that can really be read, or else the single slices, and why the others are not used."""

    loaded: LoadedSeries | None
    rejected: tuple[RejectedSeries, ...]
    few_slices: int | None  # slices of a series that only lacks slices
    slices: tuple[LoadedSeries, ...] = ()  # where each slice is measured by itself; then nothing is `loaded`

    @property
    def facts(self) -> SeriesFacts | None:
        found = next(iter(self.slices), self.loaded)
        return found.facts if found else None


def select(context: StepContext) -> StepResult:
    """Write `selection.json`, or end the study as not applicable or set aside."""
    instances = read_headers(context.instances)
    series = group_series(instances)
    readable = _best_readable(context, series)
    shown = (readable.loaded,) if readable.loaded is not None else readable.slices
    readings = read_phantom(
        [Image(volume=one.volume, kvp=one.facts.kvp) for one in shown],
        configured_phantoms(context.settings),
        noise_window_mm=context.settings.scoring.noise_window_mm,
    )
    slices = tuple(
        SelectedSlice(
            name=f"slice {number}",
            sop_instance_uid=text_of(one.headers[0], "SOPInstanceUID"),
            phantom=reading,
        )
        for number, (one, reading) in enumerate(zip(readable.slices, readings, strict=False), start=1)
    )
    if not (
        _is_candidate(context, instances, readings)
        or _may_be_phantom_alone(context, readable.loaded, readings)
    ):
        if not shown and any(is_multi_frame_ct(one) for one in instances):
            reason = _NOT_LOOKED_AT.format(reasons=_reasons(readable.rejected))
            return StepResult(verdict=Verdict.SET_ASIDE, reason=reason)
        return StepResult(verdict=Verdict.NOT_APPLICABLE, reason="no phantom in view and not declared as QCT")

    source = _header_source(series, instances, readable)
    study = identity_of(source.header)
    patients = _patients_of(series)
    if len(patients) > 1:
        study = replace(study, patient_id="", issuer_of_patient_id="")  # whose study this is is not known
    for _, issuer in patients if len(patients) == 1 else ():
        study = replace(study, issuer_of_patient_id=issuer)
    measured = {one.facts.series_instance_uid for one in shown}
    context.artefacts.put(
        SELECTION,
        to_json(
            SelectionArtefact(
                study=study,
                header_source=source.path.name,
                series=readable.facts,
                rejected=readable.rejected,
                phantom=readings[0] if readable.loaded is not None else None,
                observations=(
                    *_identity_observations(study, len(patients)),
                    *_text_observations(instances),
                    *_series_observations(readable, context.settings.segmentation.image),
                    *_missing_observations(context.completeness, measured),
                ),
                slices=slices,
            )
        ),
    )
    if not study.patient_id or not study.study_instance_uid:
        reason = "the study carries no patient or study identity, or more than one"
        return StepResult(verdict=Verdict.SET_ASIDE, reason=reason)
    return PROCEED


def _best_readable(context: StepContext, series: tuple[SeriesHeaders, ...]) -> _Readable:
    """A volume where there is one; else the slices of single-slice QCT."""
    lone = tuple(one for one in series if is_lone_series(one))
    volume = _first_readable(context, tuple(one for one in series if not is_lone_series(one)))
    if volume.loaded is not None:
        return _also_rejecting(volume, lone, "single slices beside a volume")
    chosen = select_lone_slices(lone)
    if chosen is None:
        return volume
    others = [one for one in lone if one.series_instance_uid not in chosen.series_instance_uids]
    volume = _also_rejecting(volume, others, "a repetition of the chosen slices")
    try:
        return replace(volume, slices=read_lone_slices(chosen.instances), few_slices=None)
    except SeriesUnusable as error:
        used = [one for one in lone if one.series_instance_uid in chosen.series_instance_uids]
        return _also_rejecting(volume, used, str(error))


def _also_rejecting(readable: _Readable, series: Sequence[SeriesHeaders], reason: str) -> _Readable:
    rejected = [RejectedSeries(series_instance_uid=one.series_instance_uid, reason=reason) for one in series]
    return replace(readable, rejected=(*readable.rejected, *rejected))


def _first_readable(context: StepContext, series: tuple[SeriesHeaders, ...]) -> _Readable:
    """Try the preferred series first; one that cannot be read makes room for the next."""
    candidates = list(series)
    unreadable: list[RejectedSeries] = []
    few_slices: int | None = None
    while True:
        selection = select_series(candidates)
        few_slices = few_slices or selection.too_few
        if selection.chosen is None:
            # Where a longer series failed for another reason, that reason is the one to tell.
            only_few = few_slices if all(_is_single(one) for one in unreadable) else None
            return _Readable(loaded=None, rejected=(*selection.rejected, *unreadable), few_slices=only_few)
        uid = selection.chosen.series_instance_uid
        try:
            loaded = load_series(context, uid)
        except SeriesUnusable as error:
            unreadable.append(RejectedSeries(series_instance_uid=uid, reason=str(error)))
            if error.reason is Unusable.SINGLE_SLICE:
                few_slices = few_slices or 1
            candidates = [one for one in candidates if one.series_instance_uid != uid]
            continue
        return _Readable(loaded=loaded, rejected=(*selection.rejected, *unreadable), few_slices=None)


def _is_single(rejected: RejectedSeries) -> bool:
    return rejected.reason.startswith(Unusable.SINGLE_SLICE.value)


def _is_candidate(
    context: StepContext, instances: tuple[Instance, ...], readings: Sequence[PhantomReading]
) -> bool:
    """A phantom that cannot be used, cut by the image for one, still declares what the study is for.

    One that a site declares does so even where it is not found: then that is its reading.
    """
    settings = context.settings.selection
    return (
        context.declared_qct
        or bool(context.called_ae_titles & frozenset(settings.qct_ae_titles))
        or is_qct_candidate(instances, settings.qct_procedure_codes)
        or any(shows_phantom(reading) for reading in readings)
        or (context.scanners is not None and any(_is_declared_phantom(context, one) for one in instances))
    )


def _may_be_phantom_alone(
    context: StepContext, loaded: LoadedSeries | None, readings: Sequence[PhantomReading]
) -> bool:
    """Whether nobody lies in the volume and something looks like a rod.

    Such a scan says that its scanner reads far off, and would otherwise be forgotten.
    """
    if context.scanners is None or loaded is None:
        return False
    if not holds_no_patient(loaded.volume, patient_rules(context.settings.quality.patient)):
        return False
    return any(suspected_phantom(loaded.volume, reading) is not None for reading in readings)


def _is_declared_phantom(context: StepContext, instance: Instance) -> bool:
    return is_declared_phantom(text_of(instance.header, "PatientID"), context.settings.quality)


def _header_source(
    series: tuple[SeriesHeaders, ...], instances: tuple[Instance, ...], readable: _Readable
) -> Instance:
    """The instance that results copy their identity from: the chosen series', else any CT image's."""
    for one in series:
        if readable.facts and one.series_instance_uid == readable.facts.series_instance_uid:
            return one.instances[0]
    return series[0].instances[0] if series else instances[0]


def _patients_of(series: Sequence[SeriesHeaders]) -> frozenset[tuple[str, str]]:
    """Patient ID and issuer of everybody whom the images name. An absent issuer is not another issuer."""
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


def _series_observations(readable: _Readable, image: ImageRules) -> list[Observation]:
    facts = readable.facts
    if facts is None:
        if readable.few_slices is not None:
            return [Observation(code="slices_too_few", values={"slices": readable.few_slices})]
        reasons = _reasons(readable.rejected) or "no CT image"
        return [Observation(code="no_usable_series", values={"reasons": reasons})]
    noticed = []
    if readable.slices:
        noticed.append(Observation(code="single_slice", values={"slices": len(readable.slices)}))
    noticed += _pass_observations(facts)
    noticed += contrast_in_headers(facts)
    if facts.lossy:
        noticed.append(_loss_observation(facts.lossy_ratio, image.lossy_ratio))
    if readable.loaded is not None and readable.loaded.copies:
        noticed.append(Observation(code="duplicate_images", values={"images": readable.loaded.copies}))
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
    values: dict[str, str | int | float] = {
        "number": found.number,
        "passes": found.passes,
        "told_by": found.told_by,
        "reason": found.reason,
        "left_out": found.images_left_out,
    }
    return [Observation(code="one_pass_measured", values=values)]


def _reasons(rejected: Sequence[RejectedSeries]) -> str:
    return "; ".join(sorted({one.reason for one in rejected}))


def _loss_observation(ratio: float | None, limit: float) -> Observation:
    """A weak loss takes the texture; a strong one, or one that nobody states, the density too."""
    if ratio is None:
        return Observation(code="lossy_unknown")
    if ratio > limit:
        return Observation(code="lossy_strong", values={"ratio": f"{ratio:.3g}", "limit": f"{limit:.3g}"})
    return Observation(code="lossy_source", values={"ratio": f"{ratio:.3g}"})


def _missing_observations(completeness: Completeness | None, measured: set[str]) -> list[Observation]:
    """Images that an archive has and that did not come: of what is measured, and of the rest."""
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
    return [Observation(code=code, values={"kernel": kernel or "not stated"})]
