"""Why a connection to an upstream did not come about, in words.

The kinds are RFC 9209's Proxy Error Types (§2.3), so that logs, problems and what comes to use them
say the same.
"""

import errno
import socket
import ssl
from typing import Final, NamedTuple

# Certificates by OpenSSL's X509_V_ERR_… numbers.
_CERTIFICATE: Final = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is self-signed",
    19: "its certificate comes from an authority that is not trusted",
    20: "its certificate comes from an authority that is not trusted",
    23: "its certificate has been revoked",
    62: "its certificate is for another host name",
    64: "its certificate is for another IP address",
}
_NO_TLS: Final = frozenset(("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE"))
_UNROUTABLE: Final = frozenset((errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL))


class ConnectFailure(NamedTuple):
    """A failed connect."""

    kind: str
    """The Proxy Error Type."""
    cause: str
    """What is wrong with the endpoint, to go on after a colon; it names no host or address, so
    that clients may see it."""


def resolve_failure(error: OSError) -> ConnectFailure:
    """Why an endpoint's name has no address."""
    if isinstance(error, TimeoutError):
        return ConnectFailure("dns_timeout", "its name was not resolved in time")
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
        return ConnectFailure("dns_error", "its name does not exist")
    return ConnectFailure("dns_error", "its name cannot be resolved")


def connect_failure(error: OSError, *, tls: bool) -> ConnectFailure:
    """Why a connection, or the TLS handshake on it, failed."""
    if isinstance(error, ssl.SSLError):
        return _tls_failure(error)
    if isinstance(error, TimeoutError):
        what = "finish the TLS handshake" if tls else "accept the connection"
        return ConnectFailure("connection_timeout", f"it did not {what} in time")
    if isinstance(error, ConnectionRefusedError):
        return ConnectFailure("connection_refused", "it refused the connection")
    if isinstance(error, FileNotFoundError):
        return ConnectFailure("destination_not_found", "its socket file does not exist")
    if error.errno in _UNROUTABLE:
        return ConnectFailure("destination_ip_unroutable", "there is no route to it")
    if tls:  # refusals are above: what is left happened in the handshake
        cause = "it closed the connection during the TLS handshake"
        return ConnectFailure("connection_terminated", cause)
    return ConnectFailure("destination_unavailable", "it does not accept connections")


def says_little(error: OSError) -> bool:
    """Whether this is what an address gives where nobody is, such as ::1 of localhost: a failure
    at another of the endpoint's addresses is the one to tell."""
    return isinstance(error, ConnectionRefusedError) or error.errno in _UNROUTABLE


def _tls_failure(error: ssl.SSLError) -> ConnectFailure:
    if isinstance(error, ssl.SSLCertVerificationError):
        cause = _CERTIFICATE.get(error.verify_code, "its certificate cannot be verified")
        return ConnectFailure("tls_certificate_error", cause)
    reason = error.reason or ""
    if reason in _NO_TLS:
        return ConnectFailure("tls_protocol_error", "it does not speak TLS on this port")
    if "ALERT" in reason:
        alert = reason.partition("ALERT_")[2].replace("_", " ").lower()
        return ConnectFailure("tls_alert_received", f"it ended the TLS handshake: {alert}")
    return ConnectFailure("tls_protocol_error", "the TLS handshake failed")
