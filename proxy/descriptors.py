"""How many client connections the limit of open files has room for (RLIMIT_NOFILE).

Rules:
- The process keeps descriptors for itself, for its admin and probes listeners and for connections
  to upstreams: a client's connection takes none of these, so the gateway can always be asked how
  it is, reloaded and drained.
- Connections to upstreams have at most half of what is left: a client at work needs one of each.
"""

import resource
from typing import Final

OWN: Final = 48
"""Of the process: the loop, the log, listeners, files that a reload reads, the store's sockets."""
ADMIN_CONNECTIONS: Final = 64
"""The most connections of the admin listener, and of the probes listener."""
RESERVE: Final = OWN + 2 * ADMIN_CONNECTIONS


def raise_limit(wanted: int) -> int:
    """Raises the soft limit as far as the hard one allows, where less than `wanted` would fit.
    Returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft if soft != resource.RLIM_INFINITY else wanted
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    except (OSError, ValueError):
        return soft
    return raised


def client_connections(wanted: int, upstreams: int) -> int:
    """How many client connections there is room for, at most `wanted`, beside `upstreams`
    connections to upstreams."""
    left = max(2, raise_limit(RESERVE + wanted + upstreams) - RESERVE)
    return max(1, min(wanted, left - min(upstreams, left // 2)))
