"""The edge stands on members of aiohttp's handler, and says so at start where one is gone."""

import ast
import inspect

import pytest
from aiohttp.web_protocol import RequestHandler
from edge_kit import StartGateway, StartOrigin

from proxy.edge import protocol
from proxy.edge.protocol import GatewayProtocol


def test_every_member_that_is_used_is_looked_for() -> None:
    """Those that are overridden, too."""
    own = set(vars(GatewayProtocol))
    named = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(GatewayProtocol)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == "self"
    }
    members = {name for name in own | named if hasattr(RequestHandler, name) and name[:2] != "__"}
    assert members <= set(protocol._USED)
    assert named - own <= members


def test_this_aiohttp_fits() -> None:
    assert protocol.self_test() == []


async def test_an_aiohttp_that_does_not_fit_serves_nobody(
    start_gateway: StartGateway, start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no lane without them: both have our parser in aiohttp's loop."""
    monkeypatch.setattr(protocol, "_USED", ("start", "_gone", "_away"))
    with pytest.raises(RuntimeError, match="RequestHandler lacks _gone, _away"):
        await start_gateway(await start_origin())
