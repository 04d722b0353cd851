"""Who: what the stage believes, takes off, and names."""

import re

import pytest
from stage_plans import exchange, server_plan, snapshot

from proxy.core.fields import Lines
from proxy.core.keys import KeyTemplate, WhenRule
from proxy.policy.snapshot import Snapshot
from proxy.stages import identity

PROXIED = snapshot(server_plan(["10.0.0.0/8"], trusted_headers=frozenset({"x-plan"})))
FORWARDED = snapshot(server_plan(["10.0.0.0/8"], client_ip_header="forwarded"))
UNIX = snapshot(server_plan(trust_unix=True))

XFF = [("X-Forwarded-For", "203.0.113.9")]


@pytest.mark.parametrize(
    ("rule", "plan", "peer", "lines", "trusted", "client_ip"),
    [
        ("a stranger is who it is", PROXIED, "192.0.2.1", XFF, False, "192.0.2.1"),
        ("a trusted peer says who", PROXIED, "10.0.0.1", XFF, True, "203.0.113.9"),
        ("a trusted peer that says nothing", PROXIED, "10.0.0.1", [], True, "10.0.0.1"),
        ("mapped peers are IPv4", PROXIED, "::ffff:10.0.0.1", XFF, True, "203.0.113.9"),
        ("only the configured header is read", FORWARDED, "10.0.0.1", XFF, True, "10.0.0.1"),
        (
            "Forwarded",
            FORWARDED,
            "10.0.0.1",
            [("Forwarded", "for=203.0.113.9")],
            True,
            "203.0.113.9",
        ),
        ("unix, not trusted", PROXIED, "unix", XFF, False, "unix"),
        ("unix, trusted", UNIX, "unix", XFF, True, "203.0.113.9"),
    ],
)
def test_client(
    rule: str, plan: Snapshot, peer: str, lines: Lines, trusted: bool, client_ip: str
) -> None:
    ex = exchange(lines=lines, peer=peer, plan=plan)
    assert identity.resolve(ex) is None
    assert (ex.trusted, ex.client_ip) == (trusted, client_ip)


CLAIM = [("X-Plan", "gold"), ("X_Plan", "gold"), ("X-Real-IP", "1.1.1.1"), ("A", "1")]


def test_a_stranger_cannot_choose_its_plan() -> None:
    """Not for the upstream, and not for a limit's override or key either."""
    ex = exchange(lines=CLAIM, plan=PROXIED)
    identity.resolve(ex)
    assert ex.fields.lines == [("A", "1")]
    assert not WhenRule.parse({"header:X-Plan": ["gold"]}).matches(ex)
    assert KeyTemplate.parse(["header:X-Plan"]).values(ex) == (None,)


def test_a_trusted_peer_can() -> None:
    ex = exchange(lines=CLAIM, plan=PROXIED, peer="10.0.0.1")
    identity.resolve(ex)
    assert ex.fields.lines == CLAIM
    assert WhenRule.parse({"header:X-Plan": ["gold"]}).matches(ex)


def test_host_for_matching() -> None:
    ex = exchange(authority="A.Example.:8080")
    identity.resolve(ex)
    assert ex.host == "a.example"
    assert ex.authority == "A.Example.:8080"


def request_id(lines: Lines) -> str:
    ex = exchange(lines=lines)
    identity.resolve(ex)
    return ex.request_id


def test_request_id_is_passed_on() -> None:
    assert request_id([("x-request-id", "abc/1+2=")]) == "abc/1+2="


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [("X-Request-Id", "")],
        [("X-Request-Id", "a b")],
        [("X-Request-Id", "x" * 129)],
        [("X-Request-Id", "a"), ("X-Request-Id", "b")],
    ],
)
def test_request_id_is_made(lines: Lines) -> None:
    made = request_id(lines)
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert made != request_id(lines)


@pytest.mark.parametrize(("times", "refused"), [(0, False), (7, False), (8, True), (9, True)])
def test_a_loop_ends(times: int, refused: bool) -> None:
    ex = exchange(lines=[("Via", "1.1 sluicegate")] * times)
    reply = identity.resolve(ex)
    assert (reply is not None) == refused
    if reply is not None:
        assert reply.status == 508
    assert ex.request_id
