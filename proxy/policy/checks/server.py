"""`server`, `log`, `admin`: addresses that collide, an open admin port, whom to believe, and a salt
that can be guessed."""

from ipaddress import ip_address
from itertools import combinations

from proxy.policy.checks.lists import refuse_repeats
from proxy.policy.checks.tls import check_pair
from proxy.policy.draft import Draft, Part
from proxy.policy.models.routes import GATEWAY_FIELDS
from proxy.policy.models.server import AdminSection, LogSection, ServerSection
from proxy.policy.problem import dotted
from proxy.policy.snapshot import Listen

_SALT_CHARS = 16
_FORWARDING = frozenset(
    ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port",
     "x-forwarded-prefix", "x-forwarded-proto", "x-forwarded-scheme", "x-forwarded-server")
)  # fmt: skip


def check(draft: Draft) -> None:
    """Everything about the listeners."""
    _check_server(draft, draft.server)
    _check_log(draft.log)
    _check_admin(draft.admin)
    _check_collisions(draft)


def _check_server(draft: Draft, part: Part[ServerSection]) -> None:
    server = part.section
    if part.has("tls") and server.tls is not None:
        check_pair(draft, part, server.tls.cert, server.tls.key)
    if part.has("trusted_headers"):
        refuse_repeats(part, ("trusted_headers",), server.trusted_headers, str.lower)
        for index, name in enumerate(server.trusted_headers):
            if name.lower() in GATEWAY_FIELDS or name.lower() in _FORWARDING:
                part.error(f"{name} is the gateway's own to read", "trusted_headers", index)
    if not part.has("trusted_proxies"):
        return
    refuse_repeats(part, ("trusted_proxies",), map(str, server.trusted_proxies))
    for index, peer in enumerate(server.trusted_proxies):
        if peer != "unix" and peer.prefixlen == 0:
            message = "believes everyone: any client can name any address as its own"
            part.warn(message, "trusted_proxies", index)
    if not server.trusted_proxies:
        for key in ("client_ip_header", "trusted_headers"):
            if part.is_given(key) and (key == "client_ip_header" or server.trusted_headers):
                part.warn("has nobody to believe while trusted_proxies is empty", key)


def _check_log(part: Part[LogSection]) -> None:
    salt = part.section.key_salt if part.has("key_salt") else None
    if salt is not None and len(salt) < _SALT_CHARS:
        message = f"is short: whoever guesses it can find out keys; take {_SALT_CHARS} characters"
        part.warn(message, "key_salt")


def _check_admin(part: Part[AdminSection]) -> None:
    admin = part.section
    if part.has("hosts"):
        refuse_repeats(part, ("hosts",), admin.hosts)
    if (
        part.has("listen", "token")
        and admin.token is None
        and not part.is_given("token")
        and not is_loopback(admin.listen)
    ):
        message = f"is missing: {admin.listen} can be reached from other machines"
        part.error(message, "token")
    elif part.has("listen", "token") and admin.token is None and not is_loopback(admin.listen):
        part.error(f"is empty, but {admin.listen} can be reached from other machines", "token")


def is_loopback(listen: Listen) -> bool:
    """Whether only this machine can reach the address."""
    if listen.path is not None or listen.host == "localhost":
        return True
    try:
        return ip_address(listen.host).is_loopback
    except ValueError:
        return False


def _check_collisions(draft: Draft) -> None:
    taken: list[tuple[Part[ServerSection] | Part[AdminSection], str, Listen]] = []
    if draft.server.has("listen"):
        taken.append((draft.server, "listen", draft.server.section.listen))
    if draft.admin.has("listen"):
        taken.append((draft.admin, "listen", draft.admin.section.listen))
    if draft.admin.has("probes") and draft.admin.section.probes is not None:
        taken.append((draft.admin, "probes", draft.admin.section.probes))
    for first, second in combinations(taken, 2):
        if _collide(first[2], second[2]):
            # A default has no place in the file: the one that is written is to blame.
            (part, key, listen), other = second, first
            if not part.is_given(key):
                (part, key, listen), other = first, second
            rival = dotted((*other[0].loc, other[1]))
            part.error(f"{listen} is taken by {rival}", key)


def _collide(one: Listen, other: Listen) -> bool:
    if one.path is not None or other.path is not None:
        return one.path == other.path
    if one.port != other.port or one.port == 0:
        return False
    hosts = {"127.0.0.1" if host == "localhost" else host for host in (one.host, other.host)}
    if len(hosts) == 1:
        return True
    wild = hosts & {"0.0.0.0", "::"}
    # [::] is bound for IPv6 only.
    return bool(wild) and len({":" in host for host in hosts}) == 1
