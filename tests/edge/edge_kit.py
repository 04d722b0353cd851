"""What the edge tests share: the gateway file they start with, and the fixtures' types."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from rawhttp import RawOrigin

from proxy.app import Gateway

StartGateway = Callable[..., Awaitable["Running"]]
StartOrigin = Callable[..., Awaitable[RawOrigin]]


class Running:
    """A started gateway and where to reach it."""

    def __init__(self, gateway: Gateway, port: int, admin_port: int, path: Path) -> None:
        self.gateway = gateway
        self.port = port
        self.admin_port = admin_port
        self.path = path


GATEWAY = """\
server:
  listen: 127.0.0.1:{port}
{server}
log: {{level: warning}}
admin: {{listen: "127.0.0.1:{admin}"}}
policies: policies
upstreams:
  origin:
    endpoints: ["http://127.0.0.1:{origin}"]
{upstream}
routes:
{routes}
"""
ROUTE = """\
  - {name: all, match: {path: "/{rest:path}"}, upstream: origin}
"""
