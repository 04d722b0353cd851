"""The sockets of several workers: one port for ours, nobody else's; and who waits for whom."""

import socket
from pathlib import Path

import pytest
from rawhttp import free_port

from proxy.policy.snapshot import Listen
from proxy.workers.merging import merged
from proxy.workers.ports import Port
from proxy.workers.post import BACKOFF_MAX, backoff


def listening(port: Port) -> None:
    for sockets in port.sockets:
        for bound in sockets:
            bound.listen()


def test_all_workers_share_one_port() -> None:
    port = Port(Listen("127.0.0.1", 0), 3)
    names = {bound.getsockname() for sockets in port.sockets for bound in sockets}
    assert names == {("127.0.0.1", port.number)}
    listening(port)
    port.close()


def test_every_address_of_a_name_is_bound() -> None:
    number = free_port()
    port = Port(Listen("localhost", number), 2)
    found = socket.getaddrinfo("localhost", number, type=socket.SOCK_STREAM)
    for sockets in port.sockets:
        assert {bound.getsockname()[:2] for bound in sockets} <= {entry[4][:2] for entry in found}
        assert ("127.0.0.1", number) in {bound.getsockname()[:2] for bound in sockets}
    port.close()


@pytest.mark.parametrize("theirs_shares", [False, True], ids=["alone", "shared"])
def test_the_port_of_another_gateway_is_taken(theirs_shares: bool) -> None:
    if theirs_shares:
        theirs = Port(Listen("127.0.0.1", 0), 2)
        listening(theirs)
        number = theirs.number
        close = theirs.close
    else:
        single = socket.create_server(("127.0.0.1", 0))
        number = single.getsockname()[1]
        close = single.close
    with pytest.raises(OSError, match=f"cannot bind 127.0.0.1:{number}: Address already in use"):
        Port(Listen("127.0.0.1", number), 2)
    close()


def test_a_unix_socket_is_one_for_all(tmp_path: Path) -> None:
    path = tmp_path / "gate.sock"
    port = Port(Listen(path=str(path)), 2)
    first, second = (sockets[0] for sockets in port.sockets)
    first.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        second.accept()[0].close()
    with pytest.raises(OSError, match="Address already in use"):
        Port(Listen(path=str(path)), 2)
    port.close()
    Port(Listen(path=str(path)), 1).close()  # what a dead one left is no obstacle
    port.unlink()
    port.unlink()
    assert not path.exists()


def test_backoff() -> None:
    assert [backoff(failures) for failures in range(1, 6)] == [0.0, 0.25, 0.5, 1.0, 2.0]
    assert backoff(10_000) == BACKOFF_MAX


@pytest.mark.parametrize(
    ("said", "together"),
    [
        ([3, 4], 7),
        ([True, True], True),
        ([True, False], False),  # a truth, not a number
        (["redis", "redis"], "redis"),
        (["closed", "open", "closed"], ["closed", "open"]),
        ([None, None], None),
        ([{"degraded": True}, {"degraded": False}], {"degraded": True}),
        ([{"degraded_s": 1.5}, {"degraded_s": 0.5}], {"degraded_s": 1.5}),
        ([{"a": 1, "x": "y"}, {"a": 2, "b": 3}], {"a": 3, "x": "y", "b": 3}),
        (
            [[{"name": "u", "busy": 1}], [{"name": "v", "busy": 5}, {"name": "u", "busy": 2}]],
            [{"name": "u", "busy": 3}, {"name": "v", "busy": 5}],
        ),
        (
            [[{"endpoint": "h:1", "in_flight": 1}], [{"endpoint": "h:1", "in_flight": 0}]],
            [{"endpoint": "h:1", "in_flight": 1}],
        ),
        ([[], []], []),
        ([["a", "b"], ["b"]], ["a", "b"]),
    ],
)
def test_what_workers_say_as_one(said: list[object], together: object) -> None:
    assert merged(said) == together
