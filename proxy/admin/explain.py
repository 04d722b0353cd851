"""Explain: what would happen to a request, without sending or counting anything.

The same head parser and the same stages look at it as at a real request. The answer has the
contract's members; where the gateway would answer by itself (no route, a method that is not
allowed, a bad request) a further member `answer` says with what status and why, and which routes
come nearest.

What keys are made of may be a credential or an address, so they are shown as the hash that is shown
everywhere (`core.keys.shown_key`), beside the parts that were there.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from proxy.admin import explained_limits, nearest
from proxy.admin.question import Question
from proxy.admin.stored import text
from proxy.core.cache.keys import primary
from proxy.core.cache.tags import filled
from proxy.core.fields import Fields
from proxy.core.http1.request import HeadError, RequestHead, parse_request_head
from proxy.core.keys import RepeatedHeader, shown_key
from proxy.core.message import Outgoing, Reply, UpstreamError
from proxy.core.problems import problem
from proxy.exchange import Exchange
from proxy.metrics import Metrics
from proxy.policy.compile import Live, load_snapshot
from proxy.policy.problem import ConfigError
from proxy.policy.snapshot import Destination, RoutePlan, Snapshot, UpstreamPlan
from proxy.stages import identity, route
from proxy.stages.upstream import outgoing
from proxy.store.ports import LimitStore

Headers = Sequence[tuple[str, str]]
LookedUp = Callable[[Question], Awaitable[dict[str, Any]]]


class Running(NamedTuple):
    """What only a running gateway knows."""

    store: LimitStore | None = None
    salt: bytes | None = None
    looked_up: LookedUp | None = None
    """What is stored and what a lookup would decide: further members of `cache`."""
    circuits: Sequence[dict[str, Any]] = ()
    upstreams: Sequence[dict[str, Any]] = ()
    """`Control.upstream_status`."""


_NOTHING_RUNS: Final = Running()
_UNROUTED: Final = (404, 405, 421)
_NEVER_FORWARDED: Final = ("CONNECT", "TRACE")


async def explain(
    snapshot: Snapshot, question: Question, running: Running = _NOTHING_RUNS
) -> dict[str, Any]:
    """`{route, upstream_url, client_ip, limits, cache, breaker, idempotency}`, and `answer`
    where the gateway would answer itself.

    Texts are wire text. The question's `ip` is the peer's address, or "unix"; a trusted peer's
    chain is read. A request without Host asks for localhost. Of an upstream with several endpoints
    the URL names the first; where a gateway is `running`, `endpoints` has what it knows of each.
    What cannot be known without is None.
    """
    said: dict[str, Any] = {
        "route": None,
        "upstream_url": None,
        "client_ip": question.ip,
        "limits": [],
        "cache": None,
        "breaker": None,
        "idempotency": None,
    }
    try:
        ex = _exchange(snapshot, question)
    except HeadError as refused:
        return said | {"answer": _answer(problem(refused.problem, refused.detail))}
    reply = identity.resolve(ex) or route.find(ex)
    said["client_ip"] = ex.client_ip
    if reply is not None:
        answer = _answer(reply)
        if reply.status in _UNROUTED and ex.method not in _NEVER_FORWARDED:
            answer["nearest"] = nearest.nearest(ex)
        return said | {"answer": answer}
    assert ex.route is not None
    said["route"] = ex.route.name
    said["upstream_url"] = _url(ex.route.upstream.plan, outgoing(ex).target)
    if (endpoints := _endpoints(ex.route.upstream.name, running.upstreams)) is not None:
        said["endpoints"] = endpoints
    said["limits"] = await explained_limits.explained(ex, running.store, running.salt)
    said["cache"] = _cache(ex, ex.route)
    if said["cache"] is not None and running.looked_up is not None:
        said["cache"] |= await running.looked_up(question)
    said["breaker"] = _breaker(ex.route.upstream, running.circuits)
    said["idempotency"] = _idempotency(ex, ex.route, running.salt)
    return said


def routed(snapshot: Snapshot, question: Question) -> Exchange | None:
    """The request as a lookup in the cache gets it; None where it would not come so far."""
    try:
        ex = _exchange(snapshot, question)
    except HeadError:
        return None
    if (identity.resolve(ex) or route.find(ex)) is not None or ex.route is None:
        return None
    return ex if _is_looked_up(ex, ex.route) else None


def _head(snapshot: Snapshot, question: Question) -> RequestHead:
    lines = list(question.headers)
    if not any(name.lower() == "host" for name, _ in lines):
        lines.insert(0, ("Host", "localhost"))
    text = f"{question.method} {question.target} HTTP/1.1\r\n" + "".join(
        f"{n}: {v}\r\n" for n, v in lines
    )
    server = snapshot.server
    return parse_request_head(text.encode("latin-1"), server.max_headers, server.max_target_bytes)


def _exchange(snapshot: Snapshot, question: Question) -> Exchange:
    """Raises HeadError."""
    head = _head(snapshot, question)
    scheme = "http" if snapshot.server.tls is None else "https"
    return Exchange(
        snapshot,
        head.method,
        head.target,
        head.version,
        head.fields,
        authority=head.authority,
        scheme=scheme,
        peer=question.ip,
    )


def _answer(reply: Reply) -> dict[str, Any]:
    said: dict[str, Any] = {"status": reply.status}
    if reply.body:
        said["detail"] = json.loads(reply.body)["detail"]
    allow = Fields(reply.fields).get("allow")
    return said if allow is None else said | {"allow": allow}


def _url(plan: UpstreamPlan, target: str) -> str:
    endpoint = plan.endpoints[0]
    if endpoint.socket is not None:
        return f"{endpoint.scheme}+unix://{endpoint.socket}:{endpoint.path}{target}"
    return f"{endpoint.scheme}://{endpoint.authority}{endpoint.path}{target}"


def _endpoints(upstream: str, statuses: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """What checks and connects have found of an upstream's endpoints."""
    found = [status["endpoints"] for status in statuses if status["name"] == upstream]
    return found[0] if found else None


def _is_looked_up(ex: Exchange, plan: RoutePlan) -> bool:
    return plan.cache is not None and ex.method in ("GET", "HEAD")


def _cache(ex: Exchange, plan: RoutePlan) -> dict[str, Any] | None:
    """Under what an answer is filed, and the tags that the policy gives it; the origin may give
    it more. None where the cache is not looked into."""
    cache = plan.cache
    if cache is None or not _is_looked_up(ex, plan):
        return None
    return {
        "name": cache.name,
        "key": primary(cache.key, plan.cache_space, ex).hex(),
        "tags": [text(tag) for tag in filled(cache.tags, ex.captures)],
    }


def _breaker(there: Destination, circuits: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    if there.policy is None:
        return None
    states = {circuit["upstream"]: circuit["state"] for circuit in circuits}
    return {"name": there.policy, "state": states.get(there.name)}


def _idempotency(ex: Exchange, plan: RoutePlan, salt: bytes | None) -> dict[str, Any] | None:
    """`scope` is the hash of whose key it would be; None without a salt, or where a request with a
    key is 400, as `problem` says."""
    policy = plan.idempotency
    if policy is None or ex.method not in policy.methods:
        return None
    said: dict[str, Any] = {"policy": policy.name, "scope": None, "by": []}
    try:
        scope = policy.scope.digest(ex)
    except RepeatedHeader as repeated:
        return said | {"problem": str(repeated)}
    if policy.scope.is_absent(ex):
        return said | {"problem": f"The request has none of {', '.join(policy.scope.parts)}."}
    shown = None if salt is None else shown_key(salt, scope)
    return said | {"scope": shown, "by": policy.scope.sources(ex)}


def render(said: dict[str, Any]) -> str:
    """An explanation for a person, a fact per line."""
    lines = [f"client    {said['client_ip']}"]
    if said["route"] is None:
        lines.append("route     none")
    else:
        lines += [f"route     {said['route']}", f"upstream  {said['upstream_url']}"]
    lines += [f"endpoint  {_endpoint_line(endpoint)}" for endpoint in said.get("endpoints", ())]
    lines += [f"limit     {explained_limits.line(limit)}" for limit in said["limits"]]
    if (cache := said["cache"]) is not None:
        tags = f"; tags {', '.join(cache['tags'])}" if cache["tags"] else ""
        lines.append(f"cache     {cache['name']}: key {cache['key']}{tags}")
    if (breaker := said["breaker"]) is not None:
        state = f", {breaker['state']} now" if breaker["state"] else ""
        lines.append(f"breaker   {breaker['name']}{state}")
    if (policy := said["idempotency"]) is not None:
        within = f"a key counts by {', '.join(policy['by'])}"
        if policy["scope"] is not None:
            within += f"; scope {policy['scope']}"
        if "problem" in policy:
            within = f"a request with a key is refused (400): {policy['problem']}"
        lines.append(f"idempotent {policy['policy']}: {within}")
    if (answer := said.get("answer")) is not None:
        detail = f": {answer['detail']}" if "detail" in answer else ""
        allow = f" Allow: {answer['allow']}" if "allow" in answer else ""
        lines.append(f"answer    {answer['status']}{detail}{allow}")
        lines += [f"nearest   {nearest.line(near)}" for near in answer.get("nearest", ())]
    return "\n".join(lines)


def _endpoint_line(endpoint: dict[str, Any]) -> str:
    trouble = [endpoint[by] for by in ("check", "connect") if by in endpoint]
    state = "up" if endpoint["up"] else "down"
    return f"{endpoint['endpoint']}: {'; '.join([state, *trouble])}"


class _Idle:
    """Stands for the live upstreams of a gateway that does not run: a name, never a connection."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def send(self, request: Outgoing) -> Reply:
        raise UpstreamError("no_endpoint", "this configuration was only read", sent=False)


class _NotRunning(Live):
    """What a snapshot binds to where nothing runs."""

    def __init__(self) -> None:
        self.metrics = Metrics()

    def upstream(self, plan: UpstreamPlan) -> _Idle:
        return _Idle(plan.name)


def explain_command(
    path: Path, as_json: bool, method: str, target: str, headers: Headers, ip: str
) -> int:
    """`sluicegate explain`: prints the explanation. 0, 1 where no route matches, 2 where the
    configuration is bad. It asks no store, so it does not say what is left."""
    try:
        snapshot, _ = load_snapshot(path, _NotRunning())
    except ConfigError as bad:
        print("\n".join(map(str, bad.problems)))
        return 2
    wire = [(_wire(name), _wire(value)) for name, value in headers]
    question = Question(_wire(method), _wire(target), wire, ip)
    said = asyncio.run(explain(snapshot, question, Running(salt=snapshot.log.key_salt)))
    print(json.dumps(said, indent=2) if as_json else render(said))
    if said["limits"] and snapshot.log.key_salt is None and not as_json:
        print("note      to see the hash of a key, set log.key_salt, or POST /explain")
    if said["route"] is None:
        print("explain: no route matches", file=sys.stderr)
        return 1
    return 0


def _wire(text: str) -> str:
    """What a terminal gives as what a client sends: its bytes, one character each."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
