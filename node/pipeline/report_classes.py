"""Which SR class each destination gets the report in: one report for each destination, never two."""

from __future__ import annotations

from collections.abc import Sequence

from config.settings import Destination
from node.dicom.check import check_object
from node.dicom.sr_class import SR_CLASSES, report_as
from node.pipeline.ports import Artefacts
from node.report import EncodedObject, ObjectKind
from node.store.deliveries import OpenDelivery, ScheduledReport
from node.store.jobs import Lease, MadeObject
from node.store.states import ARRIVED
from node.store.store import Store

_FIRST = next(iter(SR_CLASSES))


class ReportClasses:
    """The objects of one generation as each destination gets them.

    Parameters
    ----------
    objects : with the report in its first class, as the report step made them.
    """

    def __init__(
        self, *, store: Store, lease: Lease, artefacts: Artefacts, objects: Sequence[EncodedObject]
    ) -> None:
        self._store = store
        self._lease = lease
        self._artefacts = artefacts
        self._objects = objects
        self._report = next((one for one in objects if one.kind is ObjectKind.STRUCTURED_REPORT), None)

    def objects_for(self, destination: Destination) -> tuple[EncodedObject, ...]:
        """All objects in the order they are sent, the report in the class that this destination gets.

        A report that the destination has taken keeps its class whatever the settings say by now.
        """
        if self._report is None:
            return tuple(self._objects)
        scheduled = self._store.deliveries.report_at(self._lease, destination.name)
        wish = destination.sr_class
        if scheduled is not None and (wish == "auto" or scheduled.state in ARRIVED):
            return self._with(self._stored(scheduled))
        wanted = self._in_class(_FIRST if wish == "auto" else wish)
        if scheduled is not None and scheduled.sop_instance_uid != wanted.sop_instance_uid:
            self._store.deliveries.replace(
                self._lease, destination.name, scheduled.sop_instance_uid, wanted.sop_instance_uid
            )
        return self._with(wanted)

    def alternatives(self, destination: Destination, objects: Sequence[EncodedObject]) -> tuple[str, ...]:
        """Lesser SOP classes that the report among `objects` may go in instead, the richest first."""
        classes = [str(uid) for uid in SR_CLASSES.values()]
        now = [one.sop_class_uid for one in objects if one.kind is ObjectKind.STRUCTURED_REPORT]
        if destination.sr_class != "auto" or not now or now[0] not in classes:
            return ()
        return tuple(classes[classes.index(now[0]) + 1 :])

    def replace(self, delivery: OpenDelivery, sop_class_uid: str) -> None:
        """Send the report in another class in place of one that the destination does not accept."""
        name = next(name for name, uid in SR_CLASSES.items() if uid == sop_class_uid)
        self._store.deliveries.replace(
            self._lease,
            delivery.destination,
            delivery.sop_instance_uid,
            self._in_class(name).sop_instance_uid,
        )

    def _with(self, report: EncodedObject) -> tuple[EncodedObject, ...]:
        return tuple(report if one.kind is ObjectKind.STRUCTURED_REPORT else one for one in self._objects)

    def _stored(self, scheduled: ScheduledReport) -> EncodedObject:
        return EncodedObject(
            kind=ObjectKind.STRUCTURED_REPORT,
            file_name=scheduled.artefact,
            sop_class_uid=scheduled.sop_class_uid,
            sop_instance_uid=scheduled.sop_instance_uid,
            content=self._artefacts.get(scheduled.artefact),
        )

    def _in_class(self, name: str) -> EncodedObject:
        assert self._report is not None, "asked for only where there is a report"
        if name == _FIRST:
            return self._report
        made = report_as(
            self._report,
            name,
            issued_at=self._store.reports.issue(self._lease).issued_at,
            predecessor_uid=self._store.deliveries.predecessor_in(self._lease, SR_CLASSES[name]),
        )
        check_object(made.content)
        self._artefacts.put(made.file_name, made.content)
        self._store.deliveries.add(
            self._lease,
            MadeObject(
                sop_instance_uid=made.sop_instance_uid,
                sop_class_uid=made.sop_class_uid,
                kind=made.kind.value,
                artefact=made.file_name,
                is_report=False,  # the report of the generation stays the one that it is made from
            ),
        )
        return made
