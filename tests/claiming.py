"""Claiming a job that nobody else holds, as a worker does."""

from __future__ import annotations

from node.store.jobs import DueJob, Lease
from node.store.store import Store


def claim(store: Store, job: DueJob, *, owner: str = "worker", lease_s: float = 60.0) -> Lease:
    """The lease of the job's step."""
    lease = store.jobs.claim(
        job_id=job.job_id, step=job.step, generation=job.generation, owner=owner, lease_s=lease_s
    )
    assert lease is not None
    return lease
