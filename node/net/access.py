"""Who may have an association: addresses, AE titles, and how many at once."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

import structlog

from config.settings import AccessSettings, LimitSettings, Settings
from node.pipeline.describe import describe

log = structlog.get_logger(__name__)

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An A-ASSOCIATE-RJ, as PS3.8 Table 9-21 numbers it."""

    result: int
    source: int
    reason: int
    words: str


CALLED_UNKNOWN = Refusal(result=1, source=1, reason=7, words="called AE title not recognised")
CALLING_UNKNOWN = Refusal(result=1, source=1, reason=3, words="calling AE title not recognised")
TOO_MANY = Refusal(result=2, source=3, reason=2, words="local limit exceeded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The rules of a site.

    Parameters
    ----------
    limits : of what is received.
    peers : networks by calling AE title; none means any address.
    called : AE titles that are answered.
    own : the node's AE title.
    """

    rules: AccessSettings
    limits: LimitSettings
    peers: Mapping[str, Sequence[Network]]
    called: frozenset[str]
    own: str

    def admits(self, address: str, *, here: str) -> bool:
        """Whether a connection from this address to that of ours is accepted at all.

        This machine's own is: the operator's page looks whether the listener answers.
        """
        return _is_own(address, here) or _within(address, self.rules.networks)

    def refusal(self, *, calling: str, called: str, address: str, here: str) -> Refusal | None:
        """Why an association is refused; None where it is not."""
        if calling.strip() == self.own and _is_own(address, here):
            return None
        if self.rules.called_ae_titles_only and called.strip() not in self.called:
            return CALLED_UNKNOWN
        networks = self.peers.get(calling.strip())
        if networks is None:
            return CALLING_UNKNOWN if self.rules.known_peers_only else None
        return None if _within(address, networks) else CALLING_UNKNOWN


def access_of(settings: Settings) -> Access:
    """The rules that the configuration states: peers and destinations are known."""
    peers: dict[str, Sequence[Network]] = {one.ae_title.strip(): () for one in settings.destinations}
    peers |= {one.ae_title.strip(): one.networks for one in settings.peers}
    called = {
        settings.node.ae_title,
        *settings.selection.qct_ae_titles,
        *settings.worker.urgent_ae_titles,
        *settings.access.called_ae_titles,
    }
    return Access(
        rules=settings.access,
        limits=settings.limits,
        peers=peers,
        called=frozenset(title.strip() for title in called),
        own=settings.node.ae_title.strip(),
    )


def _is_own(address: str, here: str) -> bool:
    return _plain(address).is_loopback or _plain(address) == _plain(here)


def _within(address: str, networks: Sequence[Network]) -> bool:
    return not networks or any(_plain(address) in network for network in networks)


def _plain(address: str) -> IPv4Address | IPv6Address:
    """Without zone; an IPv4 peer of a socket that speaks both is one of IPv4."""
    found = ip_address(address.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


class Slots:
    """Counts associations over all processes of the node, by locks that the kernel frees when a process dies.

    Parameters
    ----------
    folder : where the lock files lie; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def take(self, whose: str, limit: int) -> int | None:
        """One of so many slots, as a descriptor for `free`; None where all are taken.

        Raises
        ------
        OSError
            If the folder cannot be used.
        """
        name = hashlib.sha256(whose.encode()).hexdigest()[:16]
        for number in range(limit):
            slot = os.open(self._folder / f"{name}-{number}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(slot)
            else:
                return slot
        return None

    @staticmethod
    def free(slot: int) -> None:
        os.close(slot)


class Doorkeeper:
    """Admits associations one by one, and counts them until they end."""

    def __init__(self, access: Access, slots: Slots) -> None:
        self._access = access
        self._slots = slots

    @property
    def rules(self) -> AccessSettings:
        return self._access.rules

    @property
    def limits(self) -> LimitSettings:
        return self._access.limits

    def admits(self, address: str, *, here: str) -> bool:
        """Whether a connection from this address to that of ours is accepted at all."""
        return self._access.admits(address, here=here)

    def enter(self, *, calling: str, called: str, address: str, here: str) -> Refusal | tuple[int, ...]:
        """A refusal, or what is to be given to `leave` when the association has ended."""
        refusal = self._access.refusal(calling=calling, called=called, address=address, here=here)
        if refusal is not None:
            return refusal
        taken: list[int] = []
        for whose, limit in (
            ("all", self.rules.max_associations),
            (f"associations\0{_plain(address)}", self.rules.max_associations_per_peer),
        ):
            slot = self._slot(whose, limit)
            if slot is None:
                self.leave(tuple(taken))
                return TOO_MANY
            taken.append(slot)
        return tuple(taken)

    def connect(self, address: str) -> int | None:
        """Count a connection, whatever comes on it. What is to be given to `leave`; None for one too many."""
        return self._slot(f"connections\0{_plain(address)}", self.rules.max_connections_per_peer)

    def _slot(self, whose: str, limit: int) -> int | None:
        try:
            return self._slots.take(whose, limit)
        except OSError as error:  # no more files may be opened, or the disk is gone: it may pass
            log.error("associations_not_counted", error=describe(error))
            return None

    def leave(self, taken: tuple[int, ...]) -> None:
        for slot in taken:
            self._slots.free(slot)
