"""The admin API while the shared store gives no answer: a 503 that says so, and nothing undone."""

import pytest
from admin_kit import Gateway
from aiohttp.test_utils import TestClient
from aiohttp.web import Application, Request

from proxy.core.limits.decision import Decision
from proxy.store.charge import Charge
from proxy.store.ports import StoreError

Client = TestClient[Request, Application]


class OutOfReach:
    """A store whose server is gone, as far as the admin API asks it."""

    async def peek(self, charge: Charge) -> Decision:
        raise StoreError("down", "Connection refused")

    async def reset(self, space: str, key: bytes) -> None:
        raise StoreError("timeout", "no reply in time")


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("GET", "/limits/whole", "down: Connection refused"),
        ("DELETE", "/limits/whole", "timeout: no reply in time"),
    ],
)
async def test_is_a_503_with_its_reason(
    admin: Client, gateway: Gateway, method: str, path: str, reason: str
) -> None:
    gateway.limit_store = OutOfReach()
    answer = await admin.request(method, path)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    problem = await answer.json(content_type="application/problem+json")
    assert problem["type"] == "urn:sluicegate:problem:store-unavailable"
    assert problem["detail"].endswith(reason)
