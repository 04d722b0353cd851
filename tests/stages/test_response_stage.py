"""Answer: edits, RateLimit fields, and what every answer carries."""

import pytest
from stage_plans import exchange, route_plan

from proxy.core.fields import Lines, written
from proxy.core.message import Reply
from proxy.core.problems import problem
from proxy.policy.snapshot import HeaderEdits
from proxy.stages import response


def finish(reply: Reply, edits: HeaderEdits | None = None, admission: Lines | None = None) -> Lines:
    ex = exchange()
    ex.request_id = "id-1"
    ex.route = route_plan("r", edits)
    ex.admission = written(admission or [])
    assert response.finish(ex, reply) is reply
    return reply.fields


def origin(lines: Lines) -> Reply:
    return Reply(200, lines, origin=True)


VIA = ("Via", "1.1 sluicegate")
ID = ("X-Request-Id", "id-1")
OURS = [("RateLimit-Policy", '"a";q=1;w=1'), ("RateLimit", '"a";r=0;t=1')]
LEGACY = [("X-RateLimit-Limit", "1"), ("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1")]


@pytest.mark.parametrize(
    ("rule", "lines", "edits", "admission", "sent"),
    [
        (
            "an origin's lines stay",
            [("Set-Cookie", "a"), ("X", "\xe9"), ("Set-Cookie", "b")],
            None,
            [],
            [("Set-Cookie", "a"), ("X", "\xe9"), ("Set-Cookie", "b"), VIA, ID],
        ),
        ("Via is appended", [("Via", "1.1 inner")], None, [], [("Via", "1.1 inner"), VIA, ID]),
        ("its echo of the request id is ours", [("x-request-id", "other")], None, [], [VIA, ID]),
        (
            "edits remove, then set",
            [("X-Powered-By", "p"), ("A", "1")],
            HeaderEdits(set=(("A", "2"), ("B", "3")), remove=frozenset({"x-powered-by"})),
            [],
            [VIA, ID, ("A", "2"), ("B", "3")],
        ),
        (
            "edits may remove what we add",
            [],
            HeaderEdits(remove=frozenset({"via", "x-request-id"})),
            [],
            [],
        ),
        (
            "an origin's RateLimit is kept, ours appended",
            [("RateLimit", '"o";r=5')],
            None,
            OURS,
            [("RateLimit", '"o";r=5'), VIA, ID, *OURS],
        ),
        (
            "an edit removes the origin's, not ours",
            [("RateLimit", '"o";r=5')],
            HeaderEdits(remove=frozenset({"ratelimit"})),
            OURS,
            [VIA, ID, *OURS],
        ),
        (
            "legacy fields hold one value, ours",
            [("x-ratelimit-limit", "9"), ("X-RateLimit-Used", "1")],
            None,
            LEGACY,
            [("X-RateLimit-Used", "1"), VIA, ID, *LEGACY],
        ),
        (
            "an origin's legacy fields stay where we send none",
            [("X-RateLimit-Limit", "9")],
            None,
            OURS,
            [("X-RateLimit-Limit", "9"), VIA, ID, *OURS],
        ),
    ],
)
def test_origin_answers(
    rule: str, lines: Lines, edits: HeaderEdits | None, admission: Lines, sent: Lines
) -> None:
    before = list(lines)
    assert finish(origin(lines), edits, admission) == sent
    assert lines == before


@pytest.mark.parametrize("admission", [[], OURS, LEGACY, OURS + LEGACY])
@pytest.mark.parametrize(
    "edits", [None, HeaderEdits(set=(("A", "2"),), remove=frozenset({"via", "server"}))]
)
def test_text_is_finished_as_lines_are(edits: HeaderEdits | None, admission: Lines) -> None:
    stored = [("Date", "then"), ("Server", "s"), ("Via", "1.1 inner"), ("X", "\xe9: e"), ("Y", "")]
    text = Reply(200, written(stored), origin=True)
    assert finish(text, edits, admission) == finish(origin(stored), edits, admission)


def test_what_is_stored_stays_text() -> None:
    ex = exchange()
    ex.request_id, ex.route, ex.admission = "id-1", route_plan("r"), written(OURS)
    reply = Reply(200, "Date: then\r\n", origin=True)
    assert response.finish(ex, reply).head == written([("Date", "then"), VIA, ID, *OURS])


def test_own_answers_have_no_via() -> None:
    assert finish(Reply(204, [("Allow", "GET")])) == [("Allow", "GET"), ID]
    assert finish(Reply(204, "Allow: GET\r\n"), None, OURS) == [("Allow", "GET"), ID, *OURS]


def test_edits_reach_own_answers_but_never_their_own_fields() -> None:
    edits = HeaderEdits(
        set=(("Cache-Control", "public, max-age=60"), ("Access-Control-Allow-Origin", "*")),
        remove=frozenset({"retry-after", "content-type", "x-powered-by"}),
    )
    reply = problem("overloaded", "Busy.", fields=(("Retry-After", "1"),))
    fields = finish(reply, edits, OURS)
    assert fields == [
        ("Content-Type", "application/problem+json"),
        ("Cache-Control", "no-store"),
        ("Retry-After", "1"),
        ID,
        ("Access-Control-Allow-Origin", "*"),
        *OURS,
    ]


def test_without_a_route() -> None:
    ex = exchange()
    ex.request_id = "id-1"
    reply = response.finish(ex, problem("no-route", "No route matches this request."))
    assert reply.fields[-1] == ID
