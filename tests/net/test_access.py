"""Who may have an association, how many, for how long, and with which certificate."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.sections import Destination, TlsSettings
from config.settings import ConfigurationError, Settings, load_settings
from node.dicom.result_headers import made_here
from node.net import scp
from node.net.access import (
    CALLED_UNKNOWN,
    CALLING_UNKNOWN,
    TOO_MANY,
    AssociationPolicy,
    AssociationSlots,
    RefusalLog,
    Rejection,
    access_rules,
    association_policy,
    listener_context,
    speaks_tls,
)
from node.net.scp import Listener
from node.net.sender import DicomSender, Requestor
from node.store.store import Store
from tests.net.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    RawPeer,
    association_pdu,
    association_request,
)
from tests.waiting import LIMIT_S, wait_until

Dcmtk = Callable[..., Any]
ELSEWHERE, HERE = "192.0.2.7", "192.0.2.1"


def _settings(tmp_path: Path, **sections: Any) -> Settings:
    return load_settings(node={"port": 0}, storage={"root": str(tmp_path / "var")}, **sections)


@contextmanager
def _listening(settings: Settings, store: Store, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    policy = association_policy(settings)
    listener = Listener(settings.node, store, made_here, policy=policy, tls=tls)
    try:
        yield listener.start()
    finally:
        listener.stop()


PEER = {"ae_title": "CTSTATION", "host": "192.0.2.7", "port": 104}


@pytest.mark.parametrize(
    ("access", "peers", "asks", "answer"),
    [
        ({}, (), ("ANYBODY", "ANYTHING"), None),
        ({"known_peers_only": True}, (), ("ANYBODY", "OSTEONODE"), CALLING_UNKNOWN),
        ({"known_peers_only": True}, (PEER,), ("CTSTATION", "OSTEONODE"), None),
        ({"known_peers_only": True}, (PEER,), ("CTSTATION ", "OSTEONODE"), None),
        ({"known_peers_only": True}, (), ("ARCHIVE", "OSTEONODE"), None),  # a destination
        ({}, ({**PEER, "networks": ["192.0.2.0/24"]},), ("CTSTATION", "OSTEONODE"), None),
        ({}, ({**PEER, "networks": ["10.0.0.0/8"]},), ("CTSTATION", "OSTEONODE"), CALLING_UNKNOWN),
        ({"called_ae_titles_only": True}, (), ("ANYBODY", "OTHER"), CALLED_UNKNOWN),
        ({"called_ae_titles_only": True}, (), ("ANYBODY", "OSTEONODE"), None),
        ({"called_ae_titles_only": True}, (), ("ANYBODY", "QCT"), None),
        ({"called_ae_titles_only": True, "called_ae_titles": ["OTHER"]}, (), ("ANYBODY", "OTHER"), None),
        ({"known_peers_only": True}, (), ("OSTEONODE", "OSTEONODE"), CALLING_UNKNOWN),  # but not from here
    ],
)
def test_ae_titles_are_answered_as_configured(
    tmp_path: Path, access: Any, peers: Any, asks: tuple[str, str], answer: Rejection | None
) -> None:
    settings = _settings(
        tmp_path,
        access=access,
        peers=peers,
        selection={"qct_ae_titles": ["QCT"]},
        destinations=({"name": "a", "ae_title": "ARCHIVE", "host": "192.0.2.9", "port": 104},),
    )
    calling, called = asks
    assert (
        access_rules(settings).rejection(calling=calling, called=called, address=ELSEWHERE, here=HERE)
        == answer
    )


@pytest.mark.parametrize(
    ("networks", "address", "admitted"),
    [
        ([], "203.0.113.5", True),
        (["192.0.2.0/24"], "192.0.2.200", True),
        (["192.0.2.0/24"], "::ffff:192.0.2.200", True),  # of a socket that speaks both
        (["192.0.2.0/24"], "203.0.113.5", False),
        (["2001:db8::/32"], "2001:db8::7%eth0", True),
        (["2001:db8::/32"], "2001:dead::7", False),
        (["192.0.2.0/24"], "127.0.0.1", True),  # the operator's page looks from here
        (["203.0.113.0/24"], HERE, True),
    ],
)
def test_addresses_are_admitted_as_configured(
    tmp_path: Path, networks: list[str], address: str, *, admitted: bool
) -> None:
    access = access_rules(_settings(tmp_path, access={"networks": networks}))
    assert access.accepts_address(address, here=HERE) is admitted


@pytest.mark.usefixtures("loops")
def test_dcmtk_is_rejected_with_the_reason_that_the_standard_numbers(
    tmp_path: Path, store: Store, dcmtk: Dcmtk
) -> None:
    settings = _settings(
        tmp_path, access={"known_peers_only": True, "called_ae_titles_only": True}, peers=(PEER,)
    )
    with _listening(settings, store) as port:
        welcome = dcmtk("echoscu", "-aet", "CTSTATION", "-aec", "OSTEONODE", "127.0.0.1", port)
        stranger = dcmtk("echoscu", "-aet", "STRANGER", "-aec", "OSTEONODE", "127.0.0.1", port)
        mistaken = dcmtk("echoscu", "-aet", "CTSTATION", "-aec", "OTHER", "127.0.0.1", port)
    assert welcome.returncode == 0
    assert "Reason: Calling AE Title Not Recognized" in stranger.stderr
    assert "Reason: Called AE Title Not Recognized" in mistaken.stderr


@pytest.mark.usefixtures("loops")
def test_a_connection_from_elsewhere_is_closed_before_a_byte_is_read(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.net.access._is_own", lambda *_: False)  # this machine for another
    settings = _settings(tmp_path, access={"networks": ["192.0.2.0/24"]})
    with _listening(settings, store) as port, RawPeer(port) as peer:
        assert peer.pdu() == (0, b"")


@pytest.mark.usefixtures("loops")
def test_one_peer_more_than_its_share_is_told_to_come_later_and_others_are_served(
    tmp_path: Path, store: Store
) -> None:
    settings = _settings(tmp_path, access={"max_associations_per_peer": 2})
    with _listening(settings, store) as port:
        with RawPeer(port) as first, RawPeer(port) as second, RawPeer(port) as third:
            assert [first.associate(), second.associate()] == [ASSOCIATE_AC] * 2
            third.send(association_request())
            assert third.pdu() == (
                ASSOCIATE_RJ,
                bytes((0, TOO_MANY.result, TOO_MANY.source, TOO_MANY.reason)),
            )
            with RawPeer(port) as renamed:
                renamed.send(association_request(calling="OTHER"))
                assert renamed.pdu()[0] == ASSOCIATE_RJ
            with RawPeer(port, address="127.0.0.2") as other:
                assert other.associate() == ASSOCIATE_AC

        def is_let_in_again() -> bool:
            with RawPeer(port) as again:
                return again.associate() == ASSOCIATE_AC

        wait_until(is_let_in_again, "there is room for it again")


@pytest.mark.usefixtures("loops")
def test_a_stranger_keeps_nobody_out_whatever_it_opens(
    tmp_path: Path, store: Store, logged: Callable[[], str]
) -> None:
    """As shipped: connections that ask for nothing, and associations under ever other titles."""
    stranger = "127.0.0.66"
    with _listening(_settings(tmp_path), store) as port:
        with ExitStack() as opened:
            peers = [opened.enter_context(RawPeer(port, address=stranger)) for _ in range(60)]
            assert _closed(peers, 10) == 10
            with RawPeer(port) as pacs:
                assert pacs.associate() == ASSOCIATE_AC
        with ExitStack() as opened:
            answers = []
            while len(answers) < 30:
                peer = opened.enter_context(RawPeer(port, address=stranger))
                with suppress(OSError):  # where the last of those before are being closed yet
                    peer.send(association_request(calling=f"STRANGER{len(answers)}"))
                    answers.append(peer.pdu()[0])
            assert answers.count(ASSOCIATE_AC) <= 25
            assert answers.count(ASSOCIATE_RJ) >= 5
            with RawPeer(port) as pacs:
                assert pacs.associate() == ASSOCIATE_AC
    lines = _refusals(logged())
    first = next(one for one in lines if one["event"] == "connection_refused")
    assert (first["peer"], "access.max_connections_per_peer" in first["reason"]) == (stranger, True)
    rejected = [one for one in lines if one["event"] == "association_refused"]
    assert {(one["peer"], one["reason"]) for one in rejected} == {(stranger, TOO_MANY.text)}
    assert all(one["calling_ae"].startswith("STRANGER") for one in rejected)


def _closed(peers: list[RawPeer], expected: int) -> int:
    """How many connections the other end has closed, once it is so many."""

    def closed() -> int:
        poll = select.poll()
        for peer in peers:
            poll.register(peer.socket, select.POLLIN)
        return len(poll.poll(0))

    wait_until(lambda: closed() >= expected, f"{expected} connections are closed")
    return closed()


def _refusals(text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [one for one in lines if one["event"].endswith("_refused")]


def _ask(**fields: Any) -> bytes:
    return association_pdu(**{"calling": b"STRANGER".ljust(16), "called": b"SOMEBODY".ljust(16), **fields})


REFUSED = {
    "an unknown calling title": ({"known_peers_only": True}, _ask(), "calling AE title not recognised"),
    "an unknown called title": ({"called_ae_titles_only": True}, _ask(), "called AE title not recognised"),
    "a version": ({}, _ask(version=4), "protocol version not supported"),
    "a request that cannot be read": ({}, _ask(user=b"\1"), "association request not understood"),
}


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize(("access", "request_", "reason"), REFUSED.values(), ids=REFUSED)
def test_who_is_refused_stands_in_the_log_with_address_and_titles(
    tmp_path: Path,
    store: Store,
    logged: Callable[[], str],
    access: dict[str, bool],
    request_: bytes,
    reason: str,
) -> None:
    with _listening(_settings(tmp_path, access=access), store) as port:
        for _ in range(5):
            with RawPeer(port, address="127.0.0.9") as peer:
                peer.send(request_)
                assert peer.pdu()[0] == ASSOCIATE_RJ
    (line,) = _refusals(logged())  # five times within a minute, and told once
    assert line["event"] == "association_refused"
    told = (line["peer"], line["calling_ae"], line["called_ae"], line["reason"])
    assert told == ("127.0.0.9", "STRANGER", "SOMEBODY", reason)


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "the received PDU is not an association request"),
        (b"\1\0\xff\xff\xff\xff", "the received PDU is not an association request"),
        (b"", "no association was requested in time"),
    ],
    ids=["another protocol", "a request without end", "nothing"],
)
def test_who_asks_for_no_association_stands_in_the_log_with_its_address(
    tmp_path: Path,
    store: Store,
    logged: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
    reason: str,
) -> None:
    monkeypatch.setattr("node.net.scp._ACSE_TIMEOUT_S", 0.5 if not sent else 30.0)
    with _listening(_settings(tmp_path), store) as port, RawPeer(port, address="127.0.0.9") as peer:
        peer.send(sent)
        assert peer.pdu()[0] in (0, ABORT)
    assert [(one["event"], one["peer"], one["reason"]) for one in _refusals(logged())] == [
        ("connection_refused", "127.0.0.9", reason)
    ]


def test_refusals_are_told_at_once_and_then_once_a_minute() -> None:
    now = 0.0
    told = RefusalLog(clock=lambda: now)

    def refuse(calling: str) -> None:
        told.tell(
            "association_refused", reason="unknown", peer="192.0.2.7", calling_ae=calling, called_ae="X"
        )

    with capture_logs() as lines:
        for _ in range(100):
            refuse("A")
        refuse("B")
        assert [one["calling_ae"] for one in lines] == ["A", "B"]
        now = 61.0
        told.tell_repeated()
        assert [(one["calling_ae"], one.get("repeated")) for one in lines[2:]] == [("A", 99)]
        now = 130.0
        told.tell_repeated()
        refuse("A")
        assert [(one["calling_ae"], one.get("repeated")) for one in lines[3:]] == [("A", None)]
        for number in range(5000):  # a stranger that calls itself something else each time
            refuse(str(number))
        assert len(told._told) <= 1000


HOLDER = """
import signal, sys
from pathlib import Path
from node.net.access import AssociationSlots
assert AssociationSlots(Path(sys.argv[1])).take("all", 1) is not None
print("holds", flush=True)
signal.pause()
"""


def test_a_count_holds_over_processes_and_a_process_that_dies_is_not_counted(tmp_path: Path) -> None:
    slots = AssociationSlots(tmp_path / "slots")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "slots"], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"holds\n"
        assert slots.take("all", 1) is None
        assert slots.take("somebody else", 1) is not None
        other.send_signal(signal.SIGKILL)
    mine = slots.take("all", 1)
    assert mine is not None
    slots.free(mine)
    assert (tmp_path / "slots").stat().st_mode & 0o777 == 0o700


def test_who_cannot_be_counted_is_told_to_come_later(tmp_path: Path) -> None:
    policy = AssociationPolicy(access_rules(_settings(tmp_path)), AssociationSlots(tmp_path / "slots"))
    (tmp_path / "slots").rmdir()
    entered = policy.admit(calling="A", called="OSTEONODE", address=ELSEWHERE, here=HERE)
    assert entered == TOO_MANY


@pytest.mark.usefixtures("loops")
def test_silence_and_length_end_an_association(tmp_path: Path, store: Store) -> None:
    with _listening(_settings(tmp_path, access={"idle_s": 0.3}), store) as port, RawPeer(port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        assert peer.pdu()[0] == ABORT
    with _listening(_settings(tmp_path, access={"association_s": 0.3}), store) as port, RawPeer(port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        assert peer.pdu()[0] == ABORT


def _certificate(folder: Path, name: str, *, ca: Path | None, days: int = 30) -> tuple[Path, Path]:
    """A certificate and its key, made by openssl; its own signer where no ca is given."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", str(days)]
    command += ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(certificate)]
    if ca is not None:
        command += ["-CA", str(ca), "-CAkey", str(ca.with_suffix(".key"))]
        command += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


_SIGNER = """
[ca]
default_ca = signer
[signer]
database = index.txt
new_certs_dir = .
default_md = sha256
policy = any
rand_serial = yes
copy_extensions = copy
[any]
commonName = supplied
"""


def _expired_certificate(folder: Path, name: str, *, ca: Path) -> None:
    """A certificate of 2024; `openssl req` makes none that is over, `openssl ca` does."""
    (folder / "signer.cnf").write_text(_SIGNER)
    (folder / "index.txt").touch()
    request = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-addext"]
    request += ["subjectAltName=IP:127.0.0.1", "-keyout", f"{name}.key", "-out", f"{name}.csr"]
    sign = ["openssl", "ca", "-batch", "-notext", "-config", "signer.cnf", "-cert", str(ca)]
    sign += ["-keyfile", str(ca.with_suffix(".key")), "-in", f"{name}.csr", "-out", f"{name}.pem"]
    sign += ["-startdate", "20240101000000Z", "-enddate", "20240201000000Z"]
    for command in (request, sign):
        subprocess.run(command, check=True, capture_output=True, cwd=folder)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital's signer with a node, a peer and an expired peer; and a stranger who signed himself."""
    folder = tmp_path_factory.mktemp("pki")
    ca, _ = _certificate(folder, "ca", ca=None)
    _certificate(folder, "node", ca=ca)
    _certificate(folder, "peer", ca=ca)
    _expired_certificate(folder, "expired", ca=ca)
    other, _ = _certificate(folder, "otherca", ca=None)
    _certificate(folder, "stranger", ca=other)
    return folder


def _tls(pki: Path, **changed: Any) -> TlsSettings:
    given = {
        "certificate": str(pki / "node.pem"),
        "key": str(pki / "node.key"),
        "ca": str(pki / "ca.pem"),
        "require_peer_certificate": True,
        **changed,
    }
    return TlsSettings(**given)


@pytest.mark.usefixtures("loops")
def test_dcmtk_is_served_over_tls_with_the_right_certificate_alone(
    tmp_path: Path,
    store: Store,
    dcmtk: Dcmtk,
    pki: Path,
    make_dataset: Any,
    as_file: Any,
    logged: Callable[[], str],
) -> None:
    def send(port: int, who: str | None, *, ca: str = "ca") -> int:
        tls = ["+tls", pki / f"{who}.key", pki / f"{who}.pem"] if who else ["+tla"]
        image = as_file(make_dataset())
        answer = dcmtk(
            "storescu", *tls, "+cf", pki / f"{ca}.pem", "-aec", "OSTEONODE", "127.0.0.1", port, image
        )
        return int(answer.returncode)

    with _listening(_settings(tmp_path), store, listener_context(_tls(pki))) as port:
        assert send(port, "peer") == 0
        assert send(port, "stranger") != 0
        assert send(port, "expired") != 0
        assert send(port, None) != 0
        assert send(port, "peer", ca="otherca") != 0  # it does not believe the node
        assert dcmtk("echoscu", "-aec", "OSTEONODE", "127.0.0.1", port).returncode != 0  # plain DICOM
        assert speaks_tls("127.0.0.1", port, timeout_s=LIMIT_S)
        assert send(port, "peer") == 0
    assert len(store.instances.paths("2.25.100")) == 1
    reasons = {one["reason"] for one in _refusals(logged()) if one["peer"] == "127.0.0.1"}
    assert reasons >= {"CERTIFICATE_VERIFY_FAILED", "PEER_DID_NOT_RETURN_A_CERTIFICATE"}


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_peer_may_be_let_in_without_certificate(
    tmp_path: Path, store: Store, pki: Path, version: ssl.TLSVersion
) -> None:
    mine = listener_context(_tls(pki, require_peer_certificate=False))
    context = ssl.create_default_context(cafile=str(pki / "ca.pem"))
    context.minimum_version = context.maximum_version = version
    with (
        _listening(_settings(tmp_path), store, mine) as port,
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as peer,
    ):
        assert peer.version() == version.name.replace("_", ".")
        assert "GCM" in peer.cipher()[0] or "POLY1305" in peer.cipher()[0]


@pytest.mark.usefixtures("loops")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_before_1_2_is_refused(tmp_path: Path, store: Store, pki: Path) -> None:
    context = ssl.create_default_context(cafile=str(pki / "ca.pem"))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        _listening(_settings(tmp_path), store, listener_context(_tls(pki))) as port,
        socket.create_connection(("127.0.0.1", port)) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.usefixtures("loops")
def test_a_peer_that_opens_tls_and_says_nothing_keeps_nobody_waiting(
    tmp_path: Path, store: Store, pki: Path, dcmtk: Dcmtk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scp, "_ACSE_TIMEOUT_S", 2 * LIMIT_S)  # so long the silent ones may keep silent
    tls = ["+tls", pki / "peer.key", pki / "peer.pem", "+cf", pki / "ca.pem"]
    mine = listener_context(_tls(pki))
    with _listening(_settings(tmp_path), store, mine) as port, RawPeer(port), RawPeer(port):
        assert dcmtk("echoscu", *tls, "-aec", "OSTEONODE", "127.0.0.1", port).returncode == 0


@pytest.mark.parametrize(
    ("shown", "believed", "answered"),
    [("peer", "ca", True), ("peer", "otherca", False), ("expired", "ca", False)],
)
def test_results_go_over_tls_to_a_destination_whose_certificate_is_believed(
    pki: Path, free_port: int, shown: str, believed: str, *, answered: bool
) -> None:
    command = ["/usr/bin/storescp", "+tls", pki / f"{shown}.key", pki / f"{shown}.pem", "+cf", pki / "ca.pem"]
    destination = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port, tls=True)
    requestor = Requestor("OSTEONODE", tls=_tls(pki, ca=str(pki / f"{believed}.pem")))
    environment = {**os.environ, "TCP_NODELAY": "1"}
    with subprocess.Popen([*map(str, command), str(free_port)], env=environment) as storescp:
        try:
            wait_until(lambda: speaks_tls("127.0.0.1", free_port, timeout_s=LIMIT_S), "storescp speaks TLS")
            assert DicomSender(requestor).echo(destination).answered is answered
        finally:
            storescp.terminate()


def test_certificates_that_cannot_be_read_are_told_at_once(pki: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tls"):
        listener_context(_tls(pki, certificate=str(tmp_path / "none.pem")))
    with pytest.raises(ValueError, match="ca"):
        _tls(pki, ca="")
    locked = tmp_path / "locked.key"
    command = [
        "openssl",
        "rsa",
        "-aes128",
        "-passout",
        "pass:secret",
        "-in",
        pki / "node.key",
        "-out",
        locked,
    ]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ConfigurationError, match="password"):
        listener_context(_tls(pki, key=str(locked)))
