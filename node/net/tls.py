"""TLS for associations, by the rules of BCP 195 (RFC 9325), which PS3.15 Annex B.12 and B.13 ask for.

TLS 1.2 with authenticated encryption and forward secrecy, or 1.3; both ends show a certificate. Nothing falls
back to a plain connection: a port speaks TLS or does not.
"""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime

from config.sections import TlsSettings
from config.settings import ConfigurationError

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
