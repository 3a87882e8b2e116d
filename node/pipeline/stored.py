"""The store as the steps see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from node.pipeline.ports import ArtefactMissing
from node.store.errors import NoSuchArtefact
from node.store.jobs import Lease
from node.store.store import Store


class StoredArtefacts:
    """The artefacts of the study and generation that a lease is for; writes need the lease to be held."""

    def __init__(self, store: Store, lease: Lease, parameters: Mapping[str, str]) -> None:
        self._artefacts = store.artefacts
        self._lease = lease
        self._parameters = parameters

    def put(self, name: str, content: bytes) -> None:
        self._artefacts.put(self._lease, name, content, self._parameters)

    def get(self, name: str) -> bytes:
        try:
            return self._artefacts.get(self._lease.study_instance_uid, self._lease.generation, name)
        except NoSuchArtefact as error:
            raise ArtefactMissing(str(error)) from error

    def names(self) -> Sequence[str]:
        return self._artefacts.names(self._lease.study_instance_uid, self._lease.generation)
