"""`DELETE /idempotency/POLICY?scope=…&key=…`: frees a key, whatever became of its request.

The query has one `scope` per part of the policy's scope, in its order (`absent` for a part that the
request did not have), and the `key` as clients send it. A record belongs to a host, too: `host` is
the Host that was asked; it may be left out where the routes of the policy name exactly one. Values
are percent-encoded bytes.
"""

from proxy.admin.answers import Refusal
from proxy.admin.query import read_parts
from proxy.core.idempotency import BadKey, read_key, record_id
from proxy.core.identity import normalise_host
from proxy.policy.problem import suggest
from proxy.policy.snapshot import IdempotencyPlan, Snapshot


def find(snapshot: Snapshot, name: str) -> IdempotencyPlan:
    """The policy of this name. Raises Refusal 404."""
    plan = snapshot.idempotency.get(name)
    if plan is None:
        hint = suggest(name, snapshot.idempotency)
        raise Refusal(404, f"there is no idempotency policy of this name{hint}")
    return plan


def read_record(snapshot: Snapshot, plan: IdempotencyPlan, query: str) -> bytes:
    """The record that a raw query (latin-1 wire text) names. Raises Refusal 422."""
    values, others = read_parts(query, "scope", "key", "host")
    try:
        key = read_key(others["key"])
    except BadKey as bad:
        raise Refusal(422, str(bad)) from None
    if key is None:
        raise Refusal(422, "the query has no key")
    try:
        scope = plan.scope.digest_values(values)
    except ValueError as error:
        raise Refusal(422, str(error), parts=list(plan.scope.inputs)) from None
    return record_id(plan.name, _host(snapshot, plan, others["host"]), scope, key)


def _host(snapshot: Snapshot, plan: IdempotencyPlan, given: list[str]) -> str:
    """The host of the record: as given, else the only one that its requests can have had."""
    if len(given) > 1:
        raise Refusal(422, "the query has more than one host")
    if given:
        return normalise_host(given[0])
    hosts = {
        host
        for match, route in snapshot.table.routes
        if route.idempotency is not None and route.idempotency.name == plan.name
        for host in match.hosts or ("*",)
    }
    if len(hosts) == 1 and "*" not in (host := hosts.pop()):
        return host
    raise Refusal(
        422,
        "a record belongs to the host that was asked: add host=NAME, as the routes of this policy "
        "do not name exactly one",
    )
