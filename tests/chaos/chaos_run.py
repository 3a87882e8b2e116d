"""A run in which a node is killed, starved and cut off at random, and must lose and double nothing.

Senders behave as a PACS does: what was not answered with Success is sent again. At the end each study must
have its one report at the PACS for its last generation, and nothing may be left over.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from config.settings import load_settings
from node.reference.stand_in_pacs import Received, StandInPacs
from node.store.errors import StoreError
from node.store.overview import StudyDetail
from node.store.states import UNFINISHED, StudyState
from node.store.store import Store, open_store
from tests.chaos.fire import Fire
from tests.chaos.node_under_fire import NodeUnderFire
from tests.chaos.studies import Sender, write_studies
from tests.waiting import LIMIT_S

_MIN_FREE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened, and what is wrong with how it ended."""

    seed: int
    folder: Path  # with the node's log
    studies: int
    instances: int
    faults: Mapping[str, int]
    resends: int  # of instances, by senders
    reports: int  # structured reports that the PACS holds
    repeated: int  # objects that the PACS took more than once, under one UID
    reopened: int  # studies whose last images came after they were taken for whole
    seconds: float
    problems: Sequence[str]

    def table(self) -> str:
        """The counts, one a line."""
        rows = {
            "studies": self.studies,
            "instances": self.instances,
            **self.faults,
            "instances sent again": self.resends,
            "studies reopened": self.reopened,
            "reports at the PACS": self.reports,
            "objects sent twice": self.repeated,
            "seconds": round(self.seconds),
        }
        lines = [f"{name:32s} {count:7d}" for name, count in rows.items()]
        return "\n".join([*lines, *self.problems, f"seed {self.seed}, log in {self.folder}"])


def run(
    folder: Path, *, studies: int, seed: int, seconds: float, patience_s: float, disk: Path | None
) -> Outcome:
    """Put a node under fire.

    Parameters
    ----------
    folder : for the log, the studies and what the PACS holds; made if missing.
    seconds : how long faults come, at the least; each kind of fault comes once whatever it says.
    patience_s : how long the node has afterwards until every study has its report.
    disk : a small file system for the store, which gets filled; None: under `folder`, without that fault.
    """
    chance = random.Random(seed)
    began = time.monotonic()
    sent = write_studies(folder / "studies", studies)
    instances = sum(len(files) for files in sent.values())
    faults: Counter[str] = Counter()
    with StandInPacs(folder / "pacs") as pacs:
        node = NodeUnderFire(
            folder,
            (disk or folder) / "var",
            pacs_port=pacs.port,
            min_free_bytes=_MIN_FREE_BYTES if disk else 0,
        )
        fire = Fire(node, pacs, disk, chance)
        try:
            node.start()
            fire.begin()
            under_fire = time.monotonic()
            senders = [
                Sender(
                    files,
                    port=node.port,
                    begin_after_s=chance.uniform(0.0, seconds),
                    give_up=under_fire + seconds + patience_s,
                )
                for files in sent.values()
            ]
            for sender in senders:
                sender.start()
            _light(fire, faults, chance, under_fire + seconds)
            for sender in senders:
                sender.join()
            with closing(open_store(load_settings(node.config).storage)) as store:
                details = _come_to_rest(store, sent, time.monotonic() + patience_s)
        finally:
            left_over = [*fire.end(), *node.stop()]
        received = pacs.received()
    unsent = sum(len(sender.left) for sender in senders)
    problems = [
        *([f"{unsent} instances were never answered with Success"] if unsent else []),
        *(f"{uid}: {what}" for uid in sent for what in _wrong(details.get(uid), sent[uid], received, uid)),
        *left_over,
        *fire.problems,
    ]
    return Outcome(
        seed=seed,
        folder=folder,
        studies=len(sent),
        instances=instances,
        faults=dict(sorted(faults.items())),
        resends=sum(sender.resends for sender in senders),
        reports=len({one.sop_instance_uid for one in received if one.kind == "SR"}),
        repeated=len(received) - len({one.sop_instance_uid for one in received}),
        reopened=sum(detail.summary.generation > 1 for detail in details.values()),
        seconds=time.monotonic() - began,
        problems=problems,
    )


def _light(fire: Fire, counts: Counter[str], chance: random.Random, until: float) -> None:
    """Every fault once in random order, and again, until the time is over."""
    while True:
        names = sorted(fire.faults)
        chance.shuffle(names)
        for name in names:
            time.sleep(chance.uniform(0.2, 2.0))
            befell, until_known = False, time.monotonic() + LIMIT_S
            while not befell and time.monotonic() < until_known:  # its process may be starting again
                befell = fire.faults[name]()
                time.sleep(0.1)
            counts[name] += befell
        if time.monotonic() >= until:
            return


def _come_to_rest(store: Store, uids: Collection[str], deadline: float) -> Mapping[str, StudyDetail]:
    """The studies once all were sent, or as they are at the deadline."""
    details: dict[str, StudyDetail] = {}
    while time.monotonic() < deadline:
        try:
            known = [one.study_instance_uid for one in store.overview.list()]
            details = {uid: store.overview.show(uid) for uid in known}
        except StoreError:  # the database may still be busy
            continue
        rests = [
            one.summary.state not in (StudyState.RECEIVING, StudyState.PROCESSING) for one in details.values()
        ]
        if len(rests) == len(uids) and all(rests):
            break
        time.sleep(0.5)
    return details


def _wrong(
    detail: StudyDetail | None, files: Sequence[Path], received: Sequence[Received], uid: str
) -> list[str]:
    """What one study lacks, or has too much."""
    if detail is None:
        return ["is not known"]
    last = detail.summary.generation
    generations = {one.sop_instance_uid: one.generation for one in detail.deliveries}
    at_pacs = {one.sop_instance_uid: one.kind for one in received if one.study_instance_uid == uid}
    reports = Counter(generations.get(one) for one, kind in at_pacs.items() if kind == "SR")
    absent = {one for one, generation in generations.items() if generation == last and one not in at_pacs}
    running = [job.generation for job in detail.jobs if job.state in UNFINISHED]
    wrong = {
        f"is {detail.summary.state}: {detail.summary.reason} {detail.summary.last_error}": (
            detail.summary.state != StudyState.SENT
        ),
        f"{detail.summary.images} of {len(files)} images": detail.summary.images != len(files),
        f"{detail.quarantined} files in quarantine": detail.quarantined > 0,
        f"reports by generation: {dict(reports)}": reports[last] != 1 or max(reports.values()) > 1,
        f"{len(absent)} objects are not at the PACS": bool(absent),
        "the PACS holds objects that the node does not know": not set(at_pacs) <= set(generations),
        f"generations with an unfinished job: {running}": bool(running),
    }
    return [what for what, applies in wrong.items() if applies]
