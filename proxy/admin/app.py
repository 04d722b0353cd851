"""The admin application and the probes application, over a Control.

The calls and their answers are the contract's "Admin API". Every answer is JSON (metrics aside),
every error a problem. The probes application has /livez, /readyz and /metrics only; it asks for
neither token nor Host, as kubelets and scrapers come by address or by any name.
"""

import asyncio
import time
from typing import Final

from aiohttp import web

from proxy.admin import breakers, idempotency, limits
from proxy.admin.answers import Refusal, json_response, read_json
from proxy.admin.control import Control
from proxy.admin.explain import Running, explain
from proxy.admin.guard import guard, tell_errors
from proxy.admin.purge import read_purge
from proxy.admin.question import read_question
from proxy.admin.status import status
from proxy.exposition import render
from proxy.policy.snapshot import AdminPlan, Snapshot

MAX_BODY: Final = 256 * 1024


def make_admin_app(control: Control, admin: AdminPlan) -> web.Application:
    """The admin listener's application. `admin` holds until the first configuration is in use;
    from then on token and hosts are those of the configuration of the moment."""

    def plan() -> AdminPlan:
        snapshot = control.snapshot()
        return admin if snapshot is None else snapshot.admin

    app = web.Application(middlewares=[tell_errors, guard(plan)], client_max_size=MAX_BODY)
    calls = _Calls(control)
    _add_probes(app, calls)
    app.router.add_get("/status", calls.status)
    app.router.add_get("/limits/{name}", calls.show_limit)
    app.router.add_delete("/limits/{name}", calls.reset_limit)
    app.router.add_get("/breakers", calls.breakers)
    app.router.add_put("/breakers/{upstream}", calls.force_breaker)
    app.router.add_delete("/idempotency/{name}", calls.free_key)
    app.router.add_post("/cache/purge", calls.purge)
    app.router.add_post("/config/reload", calls.reload)
    app.router.add_post("/explain", calls.explain)
    return app


def make_probes_app(control: Control) -> web.Application:
    """The probes listener's application."""
    app = web.Application(middlewares=[tell_errors])
    _add_probes(app, _Calls(control))
    return app


def _add_probes(app: web.Application, calls: "_Calls") -> None:
    app.router.add_get("/livez", calls.livez)
    app.router.add_get("/readyz", calls.readyz)
    app.router.add_get("/metrics", calls.metrics)


class _Calls:
    """One method per call."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def livez(self, request: web.Request) -> web.Response:
        return json_response({"alive": True})

    async def readyz(self, request: web.Request) -> web.Response:
        await self._control.refresh_readiness()
        ready, detail = self._control.readiness()
        return json_response({"ready": ready, **detail}, 200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        accept = ", ".join(request.headers.getall("Accept", []))
        await self._control.refresh()
        content_type, body = await asyncio.to_thread(render, self._control.metrics, accept)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def status(self, request: web.Request) -> web.Response:
        await self._control.refresh()
        return json_response(status(self._control, self._snapshot(), time.time()))

    async def show_limit(self, request: web.Request) -> web.Response:
        plan = limits.find(self._snapshot(), request.match_info["name"])
        values = limits.read_values(_raw_query(request))
        salt = await self._control.key_salt()
        return json_response(await limits.show(plan, values, self._control.limit_store, salt))

    async def reset_limit(self, request: web.Request) -> web.Response:
        plan = limits.find(self._snapshot(), request.match_info["name"])
        values = limits.read_values(_raw_query(request))
        await limits.reset(plan, values, self._control.limit_store)
        return web.Response(status=204)

    async def breakers(self, request: web.Request) -> web.Response:
        await self._control.refresh()
        return json_response(self._control.breakers())

    async def force_breaker(self, request: web.Request) -> web.Response:
        upstream = breakers.find(self._snapshot(), request.match_info["upstream"])
        state = breakers.read_state(await read_json(request, refuse=422))
        await self._control.force_breaker(upstream, state)
        await self._control.refresh()
        for said in self._control.breakers():
            if said["upstream"] == upstream:
                return json_response(said)
        raise Refusal(
            503, "no worker tells of it now; those to come are told", ("Retry-After", "1")
        )

    async def free_key(self, request: web.Request) -> web.Response:
        snapshot = self._snapshot()
        plan = idempotency.find(snapshot, request.match_info["name"])
        record = idempotency.read_record(snapshot, plan, _raw_query(request))
        await self._control.free_record(record)
        return web.Response(status=204)

    async def purge(self, request: web.Request) -> web.Response:
        snapshot = self._snapshot()
        document = await read_json(request, refuse=422)
        asked = read_purge(document, snapshot.cache_rules)
        await self._control.purge(*asked)
        return json_response({"purged": asked.number})

    async def reload(self, request: web.Request) -> web.Response:
        if await read_json(request) not in (None, {}):
            raise Refusal(422, "a reload takes nothing: send an empty body or {}")
        errors = await self._control.reload()
        if errors:
            detail = "the configuration was refused; the old one stays in use"
            raise Refusal(422, detail, errors=errors)
        return json_response({"hash": self._snapshot().hash})

    async def explain(self, request: web.Request) -> web.Response:
        snapshot = self._snapshot()
        question = read_question(await read_json(request))
        control = self._control
        await control.refresh()
        running = Running(
            control.limit_store,
            await control.key_salt(),
            control.looked_up,
            control.breakers(),
            control.upstream_status(),
        )
        return json_response(await explain(snapshot, question, running))

    def _snapshot(self) -> Snapshot:
        snapshot = self._control.snapshot()
        if snapshot is None:
            raise Refusal(503, "no configuration is in use yet", ("Retry-After", "1"))
        return snapshot


def _raw_query(request: web.Request) -> str:
    """The query as latin-1 wire text."""
    target = request.raw_path.encode("utf-8", "surrogateescape").decode("latin-1")
    return target.partition("?")[2]
