"""`DELETE /idempotency/POLICY?scope=…&key=…`: frees a key, whatever became of its request.

The query has one `scope` per part of the policy's scope, in its order (`absent` for a part that the
request did not have), and the `key` as clients send it. Values are percent-encoded bytes.
"""

from proxy.admin.answers import Refusal
from proxy.admin.query import read_parts
from proxy.core.idempotency import BadKey, read_key, record_id
from proxy.policy.problem import suggest
from proxy.policy.snapshot import IdempotencyPlan, Snapshot


def find(snapshot: Snapshot, name: str) -> IdempotencyPlan:
    """The policy of this name. Raises Refusal 404."""
    plan = snapshot.idempotency.get(name)
    if plan is None:
        hint = suggest(name, snapshot.idempotency)
        raise Refusal(404, f"there is no idempotency policy of this name{hint}")
    return plan


def read_record(plan: IdempotencyPlan, query: str) -> bytes:
    """The record that a raw query (latin-1 wire text) names. Raises Refusal 422."""
    values, keys = read_parts(query, "scope", "key")
    try:
        key = read_key(keys)
    except BadKey as bad:
        raise Refusal(422, str(bad)) from None
    if key is None:
        raise Refusal(422, "the query has no key")
    try:
        scope = plan.scope.digest_values(values)
    except ValueError as error:
        raise Refusal(422, str(error), parts=list(plan.scope.inputs)) from None
    return record_id(plan.name, scope, key)
