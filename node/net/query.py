"""C-FIND and C-MOVE at archives; storage commitment and C-FIND as proof of a delivery."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from config.sections import Destination, Peer
from config.settings import Settings
from node.dicom.uids import series_uid_of
from node.net.commitment import REQUEST_ACTION, RecordReport, answer_report, referenced
from node.net.sender import Requestor, why_not_established
from node.net.status import outcome_of_action
from node.pipeline.archives import ArchiveQueries
from node.pipeline.policy import in_words
from node.pipeline.ports import ArchivedReport, CommitmentResponse, FindResult, QueryResult, SendOutcome
from node.pipeline.study_watch import CompletenessWatch
from node.store.states import Proof
from node.store.store import Store
from node.study_report import EncodedObject

_PENDING = {0xFF00, 0xFF01}  # PS3.4 Table C.4-1
_SUCCESS = 0x0000
_FIND, _MOVE = StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelMove
_NAMES = {_FIND: "Study Root C-FIND", _MOVE: "Study Root C-MOVE"}
_MOST_SERIES = 1000  # a study has tens: an archive that answers with more does not match on its UID
_MOST_IMAGES = 20000  # of one series
_WHOLE_ANSWER = 2.0  # times `timeout_s`: for all matches together
# PS3.4 Table C.6-5, keys of the STUDY level: type R, and of type O those that are corrected after the fact.
_REQUIRED_IDENTITY = ("PatientName", "PatientID", "AccessionNumber", "StudyID")
_OPTIONAL_IDENTITY = (
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "OtherPatientIDs",
    "OtherPatientNames",
    "EthnicGroup",
    "PatientComments",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "Occupation",
    "AdditionalPatientHistory",
    "ReferringPhysicianName",
)
_OWN_ROOT = "2.25."  # of every UID that is made here
_REPORT_TIMES = ("ContentDate", "ContentTime", "TimezoneOffsetFromUTC")
_IDENTITY = (*_REQUIRED_IDENTITY, *_OPTIONAL_IDENTITY)


class QueryFailed(Exception):
    """An archive does not answer a query as PS3.4 Annex C requires. The message says how."""


class DicomArchive:
    """Queries archives by the Study Root model, over one association for each query. Never raises for a peer.

    Parameters
    ----------
    requestor : for queries; with timeouts of seconds.
    fetcher : for retrievals; with longer ones, for an archive may answer only when it has sent everything.
    ae_title : the node's own, to which archives send.
    timeout_s : for each match; all matches together may take twice as long.
    """

    def __init__(self, requestor: Requestor, *, fetcher: Requestor, ae_title: str, timeout_s: float) -> None:
        self._requestor = requestor
        self._fetcher = fetcher
        self._ae_title = ae_title
        self._timeout_s = timeout_s

    def count_ct_images(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[int]:
        """C-FIND at SERIES level: Number of Series Related Instances of every CT series of a study.

        An archive may leave that number out (PS3.4 Table C.3-4, type O): then its instances are counted at
        IMAGE level. Matches of another modality or study are ignored.

        Returns
        -------
        Counts by Series Instance UID.
        """
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES"
        query.StudyInstanceUID = study_instance_uid
        query.SeriesInstanceUID = ""
        query.Modality = "CT"
        query.NumberOfSeriesRelatedInstances = None
        try:
            with self._associated(self._requestor, peer, _FIND) as association:
                stated: dict[str, int] = {}
                for match in self._matches(association, query, most=_MOST_SERIES):
                    if match.get("Modality") == "CT":
                        uid, number = _series_count(match)
                        stated[uid] = self._images(association, match) if number is None else number
        except QueryFailed as failure:
            return QueryResult(matches=None, problem=str(failure))
        return QueryResult(matches=stated)

    def identify(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[str]:
        """C-FIND at STUDY level: attributes of patient and order, by keyword.

        An empty value counts for attributes that every archive must support (type R). Of others it may mean
        that the archive does not keep them.
        """
        query = Dataset()
        query.SpecificCharacterSet = "ISO_IR 192"  # archives answer in the character set of the question
        query.QueryRetrieveLevel = "STUDY"
        query.StudyInstanceUID = study_instance_uid
        for keyword in _IDENTITY:
            setattr(query, keyword, "")
        try:
            with self._associated(self._requestor, peer, _FIND) as association:
                matches = self._matches(association, query, most=_MOST_SERIES)
            if len(matches) > 1:
                raise QueryFailed("the peer knows the study more than once")
            return QueryResult(matches=_identity(matches[0]) if matches else {})
        except QueryFailed as failure:
            return QueryResult(matches=None, problem=str(failure))

    def find_reports(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[ArchivedReport]:
        """C-FIND at SERIES level for SR, then at IMAGE level for series that may be this software's.

        Their UIDs tell: that of a report's series follows from that of the report (`node.dicom.uids`).

        Returns
        -------
        Reports by SOP Instance UID.
        """
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES"
        query.StudyInstanceUID = study_instance_uid
        query.SeriesInstanceUID = ""
        query.Modality = "SR"
        found: dict[str, ArchivedReport] = {}
        try:
            with self._associated(self._requestor, peer, _FIND) as association:
                for match in self._matches(association, query, most=_MOST_SERIES):
                    uid = str(match.get("SeriesInstanceUID") or "")
                    if uid.startswith(_OWN_ROOT):
                        found |= self._own_reports(association, study_instance_uid, uid)
        except QueryFailed as failure:
            return QueryResult(matches=None, problem=str(failure))
        return QueryResult(matches=found)

    def _own_reports(self, association: Any, study: str, series: str) -> Mapping[str, ArchivedReport]:
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID, query.SeriesInstanceUID, query.SOPInstanceUID = study, series, ""
        for keyword in ("SOPClassUID", *_REPORT_TIMES):
            setattr(query, keyword, "")
        return {
            uid: ArchivedReport(
                sop_class_uid=_plain(match, "SOPClassUID"),
                stated_at=(_plain(match, "ContentDate") + _plain(match, "ContentTime"))[:14],
                offset=_plain(match, "TimezoneOffsetFromUTC"),
            )
            for match in self._matches(association, query, most=_MOST_IMAGES)
            if series_uid_of([uid := _plain(match, "SOPInstanceUID")]) == series
        }

    def retrieve(self, peer: Peer | Destination, study_instance_uid: str, series: Sequence[str]) -> str:
        """C-MOVE each series to this node, one after another.

        Returns
        -------
        What went wrong, in words; "" where all was sent.
        """
        try:
            with self._associated(self._fetcher, peer, _MOVE) as association:
                for uid in series:
                    query = Dataset()
                    query.QueryRetrieveLevel = "SERIES"
                    query.StudyInstanceUID, query.SeriesInstanceUID = study_instance_uid, uid
                    _move(association, query, self._ae_title)
        except QueryFailed as failure:
            return str(failure)
        return ""

    def _images(self, association: Any, series: Dataset) -> int:
        """Count the instances of a series that an archive lists at IMAGE level. Raises as `_matches`."""
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID, query.SeriesInstanceUID = series.StudyInstanceUID, series.SeriesInstanceUID
        query.SOPInstanceUID = ""
        listed = self._matches(association, query, most=_MOST_IMAGES)
        uids = {
            one.get("SOPInstanceUID")
            for one in listed
            if one.get("SeriesInstanceUID") == series.SeriesInstanceUID
        }
        if not uids - {None, ""}:
            raise QueryFailed("the peer neither counts (0020,1209) nor lists the images of a series")
        return len(uids)

    @contextmanager
    def _associated(self, requestor: Requestor, peer: Peer | Destination, model: UID) -> Iterator[Any]:
        ae = requestor.entity()
        # Verification is there to tell a peer that answers no query from one that accepts nothing yet.
        for abstract_syntax in (Verification, model):
            ae.add_requested_context(abstract_syntax)
        association = requestor.associate(ae, peer)
        if not association.is_established:
            raise QueryFailed(why_not_established(association)[1])
        try:
            if model not in {context.abstract_syntax for context in association.accepted_contexts}:
                raise QueryFailed(f"the peer does not accept queries ({_NAMES[model]})")
            yield association
        except BaseException:
            association.abort()  # it may still be answering
            raise
        association.release()

    def _matches(self, association: Any, query: Dataset, *, most: int) -> Sequence[Dataset]:
        """All matches for the queried study.

        Raises
        ------
        QueryFailed
            If the peer does not answer, sends more than `most` matches, or takes too long.
        """
        deadline = time.monotonic() + _WHOLE_ANSWER * self._timeout_s
        matches: list[Dataset] = []
        try:
            for answer, match in association.send_c_find(query, _FIND):
                status = answer.get("Status")
                if status == _SUCCESS:
                    return [one for one in matches if one.get("StudyInstanceUID") == query.StudyInstanceUID]
                if status not in _PENDING:
                    raise QueryFailed(
                        "no answer to the query" if status is None else f"the query ended with 0x{status:04X}"
                    )
                if match is None:
                    raise QueryFailed("a match cannot be decoded")
                matches.append(match)
                if len(matches) > most or time.monotonic() > deadline:
                    raise QueryFailed("the peer does not come to the end of its answer")
        except (RuntimeError, ValueError) as error:  # pynetdicom: the association has ended
            raise QueryFailed("the association ended") from error
        raise QueryFailed("no answer to the query")


def _plain(match: Dataset, keyword: str) -> str:
    """A value without its padding; "" where the match leaves it out, or it cannot be read."""
    try:
        return str(match.get(keyword) or "").strip()
    except Exception:  # noqa: BLE001 - pydicom raises whatever broken bytes lead to
        return ""


def _move(association: Any, query: Dataset, to_ae_title: str) -> None:
    """C-MOVE one series, and wait until it is sent.

    Raises
    ------
    QueryFailed
        If not all of it was sent.
    """
    try:
        for answer, _ in association.send_c_move(query, to_ae_title, _MOVE):
            status = answer.get("Status")
            if status == _SUCCESS:
                return
            if status not in _PENDING:
                raise QueryFailed(
                    "no answer to the retrieval"
                    if status is None
                    else f"the retrieval ended with 0x{status:04X}"
                )
    except (RuntimeError, ValueError) as error:  # pynetdicom: the association has ended
        raise QueryFailed("the association ended") from error
    raise QueryFailed("no answer to the retrieval")


def _series_count(match: Dataset) -> tuple[str, int | None]:
    """A series UID and its number of instances; None where the match states no number.

    Raises
    ------
    QueryFailed
        If it names no series.
    """
    uid = str(match.get("SeriesInstanceUID") or "")
    if not uid:
        raise QueryFailed("a match names no series")
    try:
        number = int(match.NumberOfSeriesRelatedInstances)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return uid, None
    return uid, number if number >= 0 else None


def _identity(match: Dataset) -> dict[str, str]:
    """Attributes of patient and order in a match, by keyword.

    Raises
    ------
    QueryFailed
        If a value cannot be decoded.
    """
    try:
        stated = {keyword: match[keyword].value for keyword in _IDENTITY if keyword in match}
        texts = {keyword: _text(value) for keyword, value in stated.items()}
    except Exception as error:  # pydicom raises whatever broken bytes lead to
        raise QueryFailed("a match cannot be decoded") from error
    return {keyword: text for keyword, text in texts.items() if text or keyword in _REQUIRED_IDENTITY}


def _text(value: Any) -> str:
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value or "").strip()


# ---- proof that a destination holds what it took

_LOOK_S = 0.05
_FIND_MODELS = (StudyRootQueryRetrieveInformationModelFind, PatientRootQueryRetrieveInformationModelFind)
_KEYS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


class DicomProver:
    """Asks destinations for storage commitment, or finds objects there by C-FIND. Never raises for a peer.

    Parameters
    ----------
    requestor : asks for the associations.
    record : records a commitment report that comes on the association of the request, before or after the
    answer
        to it. A report on an association of the destination's own goes to the listener.
    """

    def __init__(self, requestor: Requestor, record: RecordReport) -> None:
        self._requestor = requestor
        self._record = record

    @contextmanager
    def session(self, destination: Destination) -> Iterator[_Session]:
        """An association for as long as the block lasts."""
        ae = self._requestor.entity()
        # Verification is there to tell a peer that offers neither from one that accepts nothing yet: every
        # acceptor has it (PS3.4 Annex A).
        for abstract_syntax in (Verification, StorageCommitmentPushModel, *_FIND_MODELS):
            ae.add_requested_context(abstract_syntax)
        association = self._requestor.associate(
            ae, destination, handlers=[(evt.EVT_N_EVENT_REPORT, answer_report, [self._record])]
        )
        try:
            yield _Session(association)
        finally:
            if association.is_established:
                association.release()


class _Session:
    def __init__(self, association: Any) -> None:
        self._association = association
        self._accepted = {context.abstract_syntax for context in association.accepted_contexts}

    @property
    def offered(self) -> frozenset[Proof]:
        offered = set()
        if StorageCommitmentPushModel in self._accepted:
            offered.add(Proof.COMMITMENT)
        if self._accepted.intersection(_FIND_MODELS):
            offered.add(Proof.FIND)
        return frozenset(offered)

    @property
    def problem(self) -> str:
        return "" if self._association.is_established else why_not_established(self._association)[1]

    def request_commitment(
        self, transaction_uid: str, objects: Sequence[EncodedObject]
    ) -> CommitmentResponse:
        question = Dataset()
        question.TransactionUID = transaction_uid
        question.ReferencedSOPSequence = Items(
            referenced((one.sop_class_uid, one.sop_instance_uid) for one in objects)
        )
        try:
            answer, _ = self._association.send_n_action(
                question, REQUEST_ACTION, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
        except RuntimeError:  # pynetdicom: the association has ended
            answer = Dataset()
        if "Status" not in answer:
            return CommitmentResponse(
                outcome=SendOutcome.TRANSIENT, status=None, detail="no answer to the question for commitment"
            )
        status = int(answer.Status)
        return CommitmentResponse(
            outcome=outcome_of_action(status),
            status=status,
            detail=f"storage commitment refused: {in_words(status)}",
        )

    def wait(self, over: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not over() and self._association.is_established and time.monotonic() < deadline:
            time.sleep(_LOOK_S)

    def find(self, one: EncodedObject) -> FindResult:
        model = next(model for model in _FIND_MODELS if model in self._accepted)
        sought = dcmread(BytesIO(one.content), stop_before_pixels=True, specific_tags=list(_KEYS))
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        for keyword in _KEYS:
            if keyword != "PatientID" or model == PatientRootQueryRetrieveInformationModelFind:
                setattr(query, keyword, sought.get(keyword, ""))
        found, last = False, None
        try:
            for answer, match in self._association.send_c_find(query, model):
                last = answer.get("Status")
                # A peer that does not match on this key answers with everything it has.
                if last in _PENDING and match is not None:
                    found = found or str(match.get("SOPInstanceUID", "")) == one.sop_instance_uid
        except (RuntimeError, ValueError):  # pynetdicom: the association has ended
            return FindResult.UNKNOWN
        if found:
            return FindResult.FOUND
        return FindResult.ABSENT if last == 0x0000 else FindResult.UNKNOWN


# ---- bound to settings


def make_archive(settings: Settings) -> DicomArchive:
    """The queries of archives, with the configured timeouts."""
    patience_s = settings.completeness.ask_timeout_s
    return DicomArchive(
        Requestor(
            settings.node.ae_title,
            connect_timeout_s=patience_s,
            answer_timeout_s=patience_s,
            tls=settings.tls,
        ),
        fetcher=Requestor(settings.node.ae_title, connect_timeout_s=patience_s, tls=settings.tls),
        ae_title=settings.node.ae_title,
        timeout_s=patience_s,
    )


def make_archives(settings: Settings) -> ArchiveQueries:
    """The archives that the settings name."""
    return ArchiveQueries(make_archive(settings), settings.archives)


def make_watch(store: Store, settings: Settings) -> CompletenessWatch:
    """The watch over the completeness of a store's studies."""
    return CompletenessWatch(
        store,
        settings.completeness,
        make_archives(settings),
        urgent_titles=settings.worker.urgent_ae_titles,
    )
