"""TLS files: there, readable, PEM, and a key that belongs to its certificate."""

import os
import ssl
from pathlib import Path
from typing import Any

from proxy.policy.draft import Draft, Part

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY_END = b"PRIVATE KEY-----"


def check_pair(draft: Draft, part: Part[Any], cert: str, key: str) -> None:
    """A certificate chain and its private key, under the part's `tls`."""
    cert_path, key_path = draft.resolve(cert), draft.resolve(key)
    sound = _holds(draft, part, cert_path, "cert", _CERTIFICATE, "certificate")
    data = _read(draft, part, key_path, "key")
    if data is None:
        return
    if _KEY_END not in data:
        part.error(f"{shown(key_path)} holds no private key in PEM form", "tls", "key")
        return
    if b"ENCRYPTED" in data:
        part.error(f"{shown(key_path)} is encrypted; the gateway has nobody to ask", "tls", "key")
        return
    if not sound:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_path, key_path)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            part.error(f"{shown(key_path)} does not belong to the certificate", "tls", "key")
        else:
            part.error(
                f"{shown(cert_path)} and its key cannot be used: {_reason(error)}", "tls", "cert"
            )


def check_client(draft: Draft, part: Part[Any], tls: Any, *, spoken: bool, otherwise: str) -> None:
    """A client's `tls` (ca, cert, key, verify). `spoken`: whether it is for anything at all;
    `otherwise` says why not."""
    if not spoken:
        part.error(f"has no use: {otherwise}", "tls")
    if tls.cert is not None and tls.key is not None:
        check_pair(draft, part, tls.cert, tls.key)
    elif tls.cert is not None or tls.key is not None:
        missing, given = ("key", "cert") if tls.cert is not None else ("cert", "key")
        part.error(f"is missing: {given} is of no use without it", "tls", missing)
    if not tls.verify:
        if tls.ca is not None:
            part.error("has no use: verify: false trusts any certificate", "tls", "ca")
        part.warn("trusts whoever answers: anyone on the way can read along", "tls", "verify")
    elif tls.ca is not None:
        check_authorities(draft, part, tls.ca)


def check_authorities(draft: Draft, part: Part[Any], ca: str) -> None:
    """A file of trusted authorities, under the part's `tls`."""
    path = draft.resolve(ca)
    if not _holds(draft, part, path, "ca", _CERTIFICATE, "certificate"):
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        part.error(f"{shown(path)} cannot be used: {_reason(error)}", "tls", "ca")


def _holds(draft: Draft, part: Part[Any], path: Path, key: str, marker: bytes, what: str) -> bool:
    data = _read(draft, part, path, key)
    if data is not None and marker not in data:
        part.error(f"{shown(path)} holds no {what} in PEM form", "tls", key)
        return False
    return data is not None


def _read(draft: Draft, part: Part[Any], path: Path, key: str) -> bytes | None:
    try:
        return draft.sources.read(path)
    except OSError as error:
        part.error(f"{shown(path)} cannot be read: {error.strerror}", "tls", key)
        return None


def shown(path: Path) -> str:
    """The path without detours."""
    return os.path.normpath(path)


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
