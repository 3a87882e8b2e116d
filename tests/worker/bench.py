"""A node in miniature: steps on a real store, with small step functions and peers that answer as told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from config.sections import Destination
from node.pipeline.artefacts import store_objects
from node.pipeline.housekeeping import StepPublisher
from node.pipeline.ports import (
    CommitmentResponse,
    FindResult,
    Publisher,
    SendOutcome,
    SendResult,
    Step,
    StepMessage,
)
from node.pipeline.runner import Dependencies, run_step
from node.pipeline.study_run import PROCEED, StepFunction, StepResult, StudyRun
from node.store.states import Proof, StudyState
from node.store.store import Store
from node.study_report import EncodedObject, ObjectKind
from segmentation.engines import Segmenter
from segmentation.errors import EngineUnavailable
from tests.closing import close_due

PACS = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
SEG_UID, SR_UID = "2.25.10", "2.25.11"


@dataclass
class Queue:
    """A broker in memory, which can lose everything."""

    messages: list[StepMessage] = field(default_factory=list)

    def publish(self, message: StepMessage) -> None:
        self.messages.append(message)

    def waiting(self, step: Step) -> int:
        return sum(message.step is step for message in self.messages)


@dataclass
class ScriptedSender:
    """Answers each object with the next of its outcomes, the last one for ever."""

    outcomes: dict[str, list[SendOutcome]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)

    def send(
        self,
        destination: Destination,
        objects: Sequence[EncodedObject],
        *,
        before_each: Callable[[], None] = lambda: None,
        alternatives: Sequence[str] = (),
    ) -> Sequence[SendResult]:
        results = []
        for one in objects:
            before_each()
            script = self.outcomes.get(one.sop_instance_uid, [SendOutcome.SENT])
            outcome = script.pop(0) if len(script) > 1 else script[0]
            if outcome is SendOutcome.SENT:
                self.sent.append(one.sop_instance_uid)
            results.append(
                SendResult(sop_instance_uid=one.sop_instance_uid, outcome=outcome, status=None, detail="")
            )
        return results


@dataclass
class ScriptedProver:
    """A destination that offers what it is told to, and answers as told."""

    offers: frozenset[Proof] = frozenset()
    problem: str = ""
    answer: SendOutcome = SendOutcome.SENT
    sought: list[FindResult] = field(default_factory=lambda: [FindResult.FOUND])
    asked: list[tuple[str, list[str]]] = field(default_factory=list)  # transactions, and what of
    on_asked: Callable[[str], None] = lambda transaction_uid: None  # a report on the same association
    queries: list[str] = field(default_factory=list)
    sessions: int = 0

    @contextmanager
    def session(self, destination: Destination) -> Iterator[ScriptedProver]:
        self.sessions += 1
        yield self

    @property
    def offered(self) -> frozenset[Proof]:
        return self.offers

    def request_commitment(
        self, transaction_uid: str, objects: Sequence[EncodedObject]
    ) -> CommitmentResponse:
        self.asked.append((transaction_uid, [one.sop_instance_uid for one in objects]))
        return CommitmentResponse(outcome=self.answer, status=None, detail="refused")

    def wait(self, over: Callable[[], bool], timeout_s: float) -> None:
        self.on_asked(self.asked[-1][0])

    def find(self, one: EncodedObject) -> FindResult:
        self.queries.append(one.sop_instance_uid)
        return self.sought.pop(0) if len(self.sought) > 1 else self.sought[0]


def no_engine() -> Segmenter:
    raise EngineUnavailable("none", "these steps segment nothing")


def made_object(kind: ObjectKind, name: str, uid: str) -> EncodedObject:
    return EncodedObject(
        kind=kind, file_name=name, sop_class_uid="1.2.3", sop_instance_uid=uid, content=name.encode()
    )


def make_report(study: StudyRun) -> StepResult:
    study.artefacts.put("issued.txt", study.issue().issued_at.isoformat().encode())
    store_objects(
        study.artefacts,
        (
            made_object(ObjectKind.SEGMENTATION, "segmentation.dcm", SEG_UID),
            made_object(ObjectKind.STRUCTURED_REPORT, "report.dcm", SR_UID),
        ),
    )
    return PROCEED


def proceed(study: StudyRun) -> StepResult:
    return PROCEED


FUNCTIONS: Mapping[Step, StepFunction] = {
    Step.SELECT: proceed,
    Step.SEGMENT: proceed,
    Step.SCORE: proceed,
    Step.REPORT: make_report,
}


def republish(store: Store, queue: Publisher) -> int:
    """Publish what is due, as one who has published nothing before; how many messages these were."""
    return StepPublisher(store, queue).publish_due()


@dataclass
class Bench:
    """A node in miniature, worked by hand."""

    dependencies: Dependencies
    queue: Queue
    sender: ScriptedSender
    prover: ScriptedProver

    @property
    def store(self) -> Store:
        return self.dependencies.store

    def replaced(self, **fields: Any) -> Dependencies:
        return replace(self.dependencies, **fields)

    def with_step(self, step: Step, function: StepFunction) -> Dependencies:
        return self.replaced(functions={**self.dependencies.functions, step: function})

    def close(self) -> None:
        """Close the one study; no archive is asked."""
        (_job,) = close_due(self.store, first_step=Step.SELECT, quiet_s=0, stale_s=20)

    def retry(self) -> None:
        """A person asks for another try of the one study."""
        self.store.studies.retry(self.summary.study_instance_uid, first_step=Step.SELECT)

    def work(self, dependencies: Dependencies | None = None, rounds: int = 40) -> None:
        """Reconcile and work until nothing is due any more."""
        for _ in range(rounds):
            republish(self.store, self.queue)
            if not self.queue.messages and not self._waits():
                return
            while self.queue.messages:
                run_step(self.queue.messages.pop(0), dependencies or self.dependencies)
        raise AssertionError("the study does not come to rest")

    def _waits(self) -> bool:
        return self.summary.state == StudyState.PROCESSING

    @property
    def summary(self) -> Any:
        return self.store.overview.list()[0]

    @property
    def detail(self) -> Any:
        return self.store.overview.show(self.summary.study_instance_uid)
