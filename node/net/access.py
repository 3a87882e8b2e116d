"""Which peers may have an association: by address, by AE title, how many at once, and by TLS.

TLS follows the rules of BCP 195 (RFC 9325), which PS3.15 Annex B.12 and B.13 ask for: TLS 1.2 with
authenticated encryption and forward secrecy, or 1.3; both ends show a certificate. Nothing falls back to a
plain connection: a port speaks TLS or does not.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

import structlog

from config.sections import AccessSettings, LimitSettings, TlsSettings
from config.settings import ConfigurationError, Settings
from node.logs import describe

log = structlog.get_logger(__name__)

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """An A-ASSOCIATE-RJ.

    Parameters
    ----------
    result, source, reason : as PS3.8 Table 9-21 numbers them.
    text : the reason, for the log.
    """

    result: int
    source: int
    reason: int
    text: str


CALLED_UNKNOWN = Rejection(result=1, source=1, reason=7, text="called AE title not recognised")
CALLING_UNKNOWN = Rejection(result=1, source=1, reason=3, text="calling AE title not recognised")
TOO_MANY = Rejection(result=2, source=3, reason=2, text="local limit exceeded")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """The site's rules.

    Parameters
    ----------
    limits : of what is received.
    peers : networks by calling AE title; an empty sequence admits any address.
    called : AE titles that the listener answers to.
    own : the node's AE title.
    """

    rules: AccessSettings
    limits: LimitSettings
    peers: Mapping[str, Sequence[Network]]
    called: frozenset[str]
    own: str

    def accepts_address(self, address: str, *, here: str) -> bool:
        """Whether a connection is accepted at all.

        This machine's own addresses always are: the operator's page checks that the listener answers.

        Parameters
        ----------
        address : the peer's.
        here : ours, that it connected to.
        """
        return _is_own(address, here) or _within(address, self.rules.networks)

    def rejection(self, *, calling: str, called: str, address: str, here: str) -> Rejection | None:
        """Judge an association request.

        Parameters
        ----------
        calling, called : AE titles.
        address : the peer's.
        here : ours, that it connected to.

        Returns
        -------
        Why the association is rejected; None where it is accepted.
        """
        if calling.strip() == self.own and _is_own(address, here):
            return None
        if self.rules.called_ae_titles_only and called.strip() not in self.called:
            return CALLED_UNKNOWN
        networks = self.peers.get(calling.strip())
        if networks is None:
            return CALLING_UNKNOWN if self.rules.known_peers_only else None
        return None if _within(address, networks) else CALLING_UNKNOWN


def access_rules(settings: Settings) -> AccessRules:
    """The rules that the configuration states. Peers and destinations are known."""
    peers: dict[str, Sequence[Network]] = {one.ae_title.strip(): () for one in settings.destinations}
    peers |= {one.ae_title.strip(): one.networks for one in settings.peers}
    called = {
        settings.node.ae_title,
        *settings.selection.qct_ae_titles,
        *settings.worker.urgent_ae_titles,
        *settings.access.called_ae_titles,
    }
    return AccessRules(
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
    """Without zone. An IPv4 address that a dual-stack socket reports as IPv6 becomes IPv4."""
    found = ip_address(address.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


class AssociationSlots:
    """Counts associations over all processes of the node by file locks, which the kernel frees when one dies.

    Parameters
    ----------
    folder : of the lock files; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def take(self, counted: str, limit: int) -> int | None:
        """One of `limit` slots, as a file descriptor for `free`; None where all are taken.

        Raises
        ------
        OSError
            If the folder cannot be used.
        """
        name = hashlib.sha256(counted.encode()).hexdigest()[:16]
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
        """Give one back.

        Raises
        ------
        OSError
            For what `take` did not give.
        """
        os.close(slot)


class AssociationPolicy:
    """Admits connections and associations one by one, and counts them until they end.

    Parameters
    ----------
    access : the site's rules.
    slots : counts over all processes of the node.
    """

    def __init__(self, access: AccessRules, slots: AssociationSlots) -> None:
        self._access = access
        self._slots = slots

    @property
    def rules(self) -> AccessSettings:
        return self._access.rules

    @property
    def limits(self) -> LimitSettings:
        return self._access.limits

    def accepts_address(self, address: str, *, here: str) -> bool:
        """Whether a connection is accepted at all, as `AccessRules.accepts_address`."""
        return self._access.accepts_address(address, here=here)

    def admit(self, *, calling: str, called: str, address: str, here: str) -> Rejection | tuple[int, ...]:
        """Judge an association request, and count the association.

        Parameters
        ----------
        calling, called : AE titles.
        address : the peer's.
        here : ours, that it connected to.

        Returns
        -------
        A rejection, or the slots to give to `release` when the association has ended.
        """
        rejection = self._access.rejection(calling=calling, called=called, address=address, here=here)
        if rejection is not None:
            return rejection
        taken: list[int] = []
        for counted, limit in (
            ("all", self.rules.max_associations),
            (f"associations\0{_plain(address)}", self.rules.max_associations_per_peer),
        ):
            slot = self._take(counted, limit)
            if slot is None:
                self.release(tuple(taken))
                return TOO_MANY
            taken.append(slot)
        return tuple(taken)

    def count_connection(self, address: str) -> int | None:
        """Count a connection, whatever it carries.

        Parameters
        ----------
        address : the peer's.

        Returns
        -------
        The slot for `release`; None for one connection too many.
        """
        return self._take(f"connections\0{_plain(address)}", self.rules.max_connections_per_peer)

    def _take(self, counted: str, limit: int) -> int | None:
        try:
            return self._slots.take(counted, limit)
        except OSError as error:  # no more files may be opened, or the disk is gone: it may pass
            log.error("associations_not_counted", error=describe(error))
            return None

    def release(self, taken: tuple[int, ...]) -> None:
        """Give slots back.

        Raises
        ------
        OSError
            For a slot that was not taken.
        """
        for slot in taken:
            self._slots.free(slot)


def association_policy(settings: Settings) -> AssociationPolicy:
    """The policy that the configuration states. Its locks lie in the storage root.

    Raises
    ------
    OSError
        If their folder cannot be made.
    """
    return AssociationPolicy(access_rules(settings), AssociationSlots(settings.storage.root / "associations"))


# Refusals in the log: who was turned away and why, once a minute for each, however often he comes.


_EVERY_S = 60.0
_MOST_KEPT = 1000  # addresses and titles whose repetitions are counted; the one told longest ago makes room


@dataclass(frozen=True, slots=True, kw_only=True)
class _Who:
    event: str
    reason: str
    peer: str
    calling_ae: str
    called_ae: str


@dataclass(slots=True)
class _Told:
    at: float
    since: int = 0  # how often it came after it was told


class RefusalLog:
    """Logs the first refusal of each kind at once, and counts those that follow within a minute.

    Parameters
    ----------
    clock : seconds that never go back.
    """

    def __init__(self, *, every_s: float = _EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[_Who, _Told] = {}  # the one told longest ago first

    def tell(self, event: str, *, reason: str, peer: str, calling_ae: str = "", called_ae: str = "") -> None:
        """Log a refusal, or count it.

        Parameters
        ----------
        event : of the log.
        reason : in words.
        peer : its address.
        calling_ae, called_ae : AE titles; "" where none was stated.
        """
        who = _Who(event=event, reason=reason, peer=peer, calling_ae=calling_ae, called_ae=called_ae)
        self.tell_repeated()
        with self._lock:
            known = self._told.get(who)
            if known is not None:
                known.since += 1
                return
            if len(self._told) >= _MOST_KEPT:
                oldest = next(iter(self._told))
                self._log(oldest, self._told.pop(oldest).since)
            self._told[who] = _Told(self._clock())
        self._log(who, None)

    def tell_repeated(self) -> None:
        """Log what was counted for a minute. Call it now and then."""
        with self._lock:
            now = self._clock()
            due = [who for who, told in self._told.items() if now - told.at >= self._every_s]
            counts = [(who, self._told.pop(who).since) for who in due]
            self._told |= {who: _Told(now) for who, since in counts if since}
        for who, since in counts:
            self._log(who, since)

    def _log(self, who: _Who, repeated: int | None) -> None:
        if repeated == 0:
            return
        fields: dict[str, str | int] = {}
        if who.calling_ae:
            fields |= {"calling_ae": who.calling_ae, "called_ae": who.called_ae}
        if repeated is not None:
            fields["repeated"] = repeated
        log.warning(who.event, reason=who.reason, peer=who.peer, **fields)


# TLS.

# RFC 9325 Section 4.2, for TLS 1.2; those of 1.3 need no choice.
_CIPHERS = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
)


def listener_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """For the listener; None where it speaks plain DICOM.

    Raises
    ------
    ConfigurationError
        If a certificate or key cannot be read.
    """
    if not settings.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED if settings.require_peer_certificate else ssl.CERT_NONE
    return _with(context, settings)


def sender_context(settings: TlsSettings) -> ssl.SSLContext:
    """For associations that this node asks for. The peer's certificate is always verified, its name too.

    Raises
    ------
    ConfigurationError
        If a certificate or key cannot be read.
    """
    return _with(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), settings)


def certificate_ends(settings: TlsSettings) -> datetime | None:
    """When the node's own certificate expires (UTC), the first of its file; None without one.

    Raises
    ------
    ConfigurationError
        If it cannot be read.
    """
    if not settings.certificate:
        return None
    try:
        # All that the standard library has to read a certificate that nobody presented.
        decoded = ssl._ssl._test_decode_cert(settings.certificate)  # type: ignore[attr-defined]
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(f"tls: {error.strerror or error}") from error
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(decoded["notAfter"]), UTC)


def speaks_tls(host: str, port: int, *, timeout_s: float) -> bool:
    """Whether a port answers with TLS, whatever it thinks of us: a look at our own listener."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as plain, context.wrap_socket(plain):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # it wants a certificate, and says so in TLS
    except OSError:
        return False


def _with(context: ssl.SSLContext, settings: TlsSettings) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.set_ciphers(_CIPHERS)
        if settings.certificate:
            context.load_cert_chain(settings.certificate, settings.key or None, password=_no_password)
        if settings.ca:
            context.load_verify_locations(settings.ca)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(f"tls: {error.strerror or error}") from error
    return context


def _no_password() -> str:
    raise ConfigurationError("tls: the key is locked by a password; the node starts without anybody to ask")
