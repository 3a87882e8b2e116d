"""Claiming a job that nobody else holds, as a worker does."""

from __future__ import annotations

from node.store.jobs import DueJob, Lease
from node.store.store import Store
from node.store.workers import ResultBasis

# What every worker of these tests measures with.
MEASURED_WITH = ResultBasis(software="1.0", configuration_sha256="ab" * 32)


def claim(store: Store, job: DueJob, *, owner: str = "worker", lease_s: float = 60.0) -> Lease:
    """The lease of the job's step."""
    lease = store.jobs.claim(
        job_id=job.job_id,
        step=job.step,
        generation=job.generation,
        owner=owner,
        lease_s=lease_s,
        result_basis=MEASURED_WITH,
        begins=job.step == "select",
    )
    assert isinstance(lease, Lease)
    return lease
