"""Storage commitment at the listener: reports of those that this node asked."""

from __future__ import annotations

from typing import Any

from pynetdicom import evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from node.net.commitment import RecordReport, answer_report


class CommitmentService:
    """What the listener offers besides storage.

    Parameters
    ----------
    record : takes in a report about what this node asked a destination to commit.
    """

    def __init__(self, record: RecordReport) -> None:
        self._record = record

    def support(self, ae: Any) -> None:
        """Accept the class with either role.

        A peer that reports proposes itself as SCP (PS3.4 Section J.3.3), one that asks is SCU, and one that
        proposes no role may do either.
        """
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)

    def handlers(self) -> list[tuple[Any, ...]]:
        return [(evt.EVT_N_EVENT_REPORT, answer_report, [self._record])]
