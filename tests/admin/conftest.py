"""The admin application over a real server, with and without a token."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from admin_kit import Gateway, admin_plan
from aiohttp import web
from aiohttp.test_utils import TestClient

from proxy.admin.app import make_admin_app, make_probes_app

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[[web.Application], Awaitable[Client]]


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    made = Gateway()
    made.load(tmp_path)
    return made


@pytest.fixture
async def admin(gateway: Gateway, aiohttp_client: MakeClient) -> Client:
    return await aiohttp_client(make_admin_app(gateway, admin_plan()))


@pytest.fixture
async def probes(gateway: Gateway, aiohttp_client: MakeClient) -> Client:
    return await aiohttp_client(make_probes_app(gateway))
