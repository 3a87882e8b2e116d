"""Reports of this node that an archive holds and of which the database, an older copy, has no record.

A node that was restored from a backup gets a study again of which it had issued a report in the time that is
lost. The new report must not look like the first: it names the one that is there as its predecessor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog

from config.settings import Destination
from node.dicom.sr_class import SR_CLASSES
from node.dicom.uids import series_uid_of
from node.pipeline.describe import describe
from node.pipeline.ports import Answer, ArchivedReport, ReportFinder
from node.store.reports import Reports, UnrecordedReport

log = structlog.get_logger(__name__)


def latest_unrecorded(
    study_instance_uid: str,
    reports: Reports,
    finder: ReportFinder | None,
    destinations: Sequence[Destination],
) -> UnrecordedReport | None:
    """The latest report on a study that was made by this software and is not in the database.

    Every destination is asked, and what came back by itself counts, too. One that does not answer holds
    nothing up: the log says so, and the report goes without its word.

    Raises
    ------
    StoreUnavailable
    """
    found = dict(_returned(reports, study_instance_uid))
    for destination in destinations if finder is not None else ():
        assert finder is not None, "looked at above"
        answer = _ask(finder, destination, study_instance_uid)
        if answer.stated is None:
            log.warning("earlier_reports_not_told", destination=destination.name, problem=answer.problem)
            continue
        found |= {uid: one for uid, one in answer.stated.items() if one.sop_class_uid in _CLASSES}
    unknown = reports.unknown_among(sorted(found))
    if not unknown:
        return None
    uid = max(unknown, key=lambda one: (found[one].stated_at, one))
    log.warning("report_not_recorded", study_instance_uid=study_instance_uid, sop_instance_uid=uid)
    return UnrecordedReport(
        sop_instance_uid=uid, sop_class_uid=found[uid].sop_class_uid, issued_at=_moment(found[uid])
    )


_CLASSES = frozenset(str(uid) for uid in SR_CLASSES.values())


def _returned(reports: Reports, study_instance_uid: str) -> Mapping[str, ArchivedReport]:
    """Own reports that a PACS sent back, as one does whose rules forward everything."""
    return {
        uid: ArchivedReport(sop_class_uid=sop_class, stated_at="", offset="")
        for sop_class, series, uid in reports.returned(study_instance_uid)
        if sop_class in _CLASSES and series == series_uid_of([uid])
    }


def _ask(finder: ReportFinder, destination: Destination, uid: str) -> Answer[ArchivedReport]:
    try:
        return finder.find_reports(destination, uid)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong with an archive, studies go on without it
        return Answer(stated=None, problem=describe(error))


def _moment(report: ArchivedReport) -> datetime | None:
    """When it was issued; None where the archive does not say it with its distance from UTC."""
    try:
        return datetime.strptime(f"{report.stated_at}{report.offset}", "%Y%m%d%H%M%S%z")
    except ValueError:
        return None
