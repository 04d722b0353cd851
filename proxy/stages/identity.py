"""Who: the client's address, the host it asks for, and a name for this request.

What an untrusted peer may not claim is taken off here, before any limit, override or route could
read it.
"""

from proxy.core.headers import VIA_LIMIT, passes, without_claims
from proxy.core.identity import client_address, normalise_host, plain_address, valid_request_id
from proxy.core.message import Reply
from proxy.core.problems import problem
from proxy.exchange import Exchange, new_request_id


def resolve(ex: Exchange) -> Reply | None:
    """Sets trusted, fields (cleaned), client_ip, host and request_id; 508 where it circles."""
    server = ex.snapshot.server
    peer = ex.peer
    trusts = server.peers.holds
    fields = ex.fields
    if trusts(peer):
        ex.trusted = True
        header = server.client_ip_header
        ex.client_ip = client_address(peer, header, fields.index.get(header), trusts)
    else:
        fields = ex.fields = without_claims(fields, server.trusted_headers)
        ex.client_ip = plain_address(peer)
    ex.host = normalise_host(ex.authority)
    index = fields.index
    received = index.get("x-request-id")
    if received is not None and valid_request_id(received):
        ex.request_id = received
    else:
        ex.request_id = new_request_id()
    via = index.get("via")
    if via is not None and passes(via) >= VIA_LIMIT:
        return problem("loop", f"This request has passed this gateway {VIA_LIMIT} times.")
    return None
