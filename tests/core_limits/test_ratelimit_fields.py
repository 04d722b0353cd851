"""The RateLimit fields as a strict reader of structured fields sees them, and the 429."""

import json
from fractions import Fraction
from types import SimpleNamespace

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.fields import read_written
from proxy.core.limits.decision import Decision, Quota
from proxy.core.ratelimit import (
    policy_item,
    ratelimit_fields,
    sf_string,
    tightest,
    too_many_requests,
)

SECOND = 1_000_000


def limit(name, q, w=None):
    return SimpleNamespace(
        limit=name, sf_name=sf_string(name), quota=q, policy_item=policy_item(name, Quota(q, w))
    )


def fields(limits, decisions, style):
    return read_written(ratelimit_fields(list(zip(limits, decisions, strict=True)), style))


def left(remaining, reset=0.0):
    return Decision(True, remaining, round(reset * SECOND), 0, 0)


def denied(reset, retry):
    return Decision(False, 0, round(reset * SECOND), round(retry * SECOND), 0)


def place(limits, decisions):
    """Which of them is the tightest."""
    said = list(zip(limits, decisions, strict=True))
    best = tightest(said)
    return said.index(best)


def parsed(lines, name):
    (value,) = [value for key, value in lines if key == name]
    return http_sf.parse(value.encode("latin-1"), tltype="list")


A = limit("per-key", 100, 60)
B = limit("whole-service", 1000, 3600)
MONTHLY = limit("monthly", 10_000)

# rule: (limits, decisions, [(name, parameters) of RateLimit-Policy], (name, r, t) of RateLimit)
FIELDS = {
    "one limit": ([A], [left(99, 0.6)], [("per-key", {"q": 100, "w": 60})], ("per-key", 99, 1)),
    "t is rounded up": ([A], [left(0, 1.000001)], None, ("per-key", 0, 2)),
    "t is 0 where nothing is used": ([A], [left(100)], None, ("per-key", 100, 0)),
    "months have no w": ([MONTHLY], [left(5, 9)], [("monthly", {"q": 10_000})], ("monthly", 5, 9)),
    "every enforced limit has a policy, in order": (
        [B, A], [left(900, 1), left(50, 1)],
        [("whole-service", {"q": 1000, "w": 3600}), ("per-key", {"q": 100, "w": 60})],
        ("per-key", 50, 1)),
    "tightest is the smallest share, not the smallest number": (
        [A, B], [left(50, 1), left(60, 2)], None, ("whole-service", 60, 2)),
    "of equal shares the one that takes longer": (
        [A, B], [left(0, 1), left(0, 2)], None, ("whole-service", 0, 2)),
    "a denial is tighter than any share": (
        [A, B], [left(0, 9), denied(1, 1)], None, ("whole-service", 0, 1)),
    "of denials the longest wait, with its own t": (
        [A, B], [denied(5, 5), denied(2, 7)], None, ("whole-service", 0, 2)),
}  # fmt: skip


@pytest.mark.parametrize("rule", FIELDS)
def test_standard_fields(rule):
    limits, decisions, policies, (name, r, t) = FIELDS[rule]
    lines = fields(limits, decisions, "standard")
    assert [key for key, _ in lines] == ["RateLimit-Policy", "RateLimit"]
    assert parsed(lines, "RateLimit") == [(name, {"r": r, "t": t})]
    policy = parsed(lines, "RateLimit-Policy")
    assert [item for item, _ in policy] == [item.limit for item in limits]
    if policies is not None:
        assert policy == policies


def test_text_is_as_the_contract_writes_it():
    assert fields([A], [left(99, 0.6)], "standard") == [
        ("RateLimit-Policy", '"per-key";q=100;w=60'),
        ("RateLimit", '"per-key";r=99;t=1'),
    ]


STYLES = {
    "off": [],
    "standard": ["RateLimit-Policy", "RateLimit"],
    "legacy": ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"],
    "both": [
        "RateLimit-Policy", "RateLimit",
        "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
    ],
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_styles(style):
    lines = fields([A, B], [left(50, 1.5), left(999, 1)], style)
    assert [name for name, _ in lines] == STYLES[style]
    legacy = [value for name, value in lines if name.startswith("X-")]
    assert legacy in ([], ["100", "50", "2"])


def test_no_enforced_limit_no_fields():
    assert ratelimit_fields([], "both") == ""


def test_limits_that_were_not_asked_have_a_policy_alone():
    said = [(A, left(99, 0.6))]
    assert read_written(ratelimit_fields(said, "standard", [MONTHLY])) == [
        ("RateLimit-Policy", '"per-key";q=100;w=60, "monthly";q=10000'),
        ("RateLimit", '"per-key";r=99;t=1'),
    ]
    assert ratelimit_fields([], "both", [MONTHLY]) == 'RateLimit-Policy: "monthly";q=10000\r\n'
    assert ratelimit_fields([], "legacy", [MONTHLY]) == ""
    assert ratelimit_fields(said, "off", [MONTHLY]) == ""


@given(
    name=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1),
    q=st.integers(0, 10**15 - 1),
    w=st.one_of(st.none(), st.integers(1, 10**9)),
    r=st.integers(0, 10**15 - 1),
    reset=st.integers(0, 10**15),
)
def test_any_name_and_number_survives_a_strict_parser(name, q, w, r, reset):
    some = limit(name, q, w)
    lines = fields([some], [Decision(True, r, reset, 0, 0)], "standard")
    expected = {"q": q} if w is None else {"q": q, "w": w}
    assert parsed(lines, "RateLimit-Policy") == [(name, expected)]
    ((item, params),) = parsed(lines, "RateLimit")
    assert (item, params["r"]) == (name, r)
    assert (params["t"] - 1) * SECOND < reset <= params["t"] * SECOND


@pytest.mark.parametrize("text", ["é", "a\nb", "\x7f", "\x00"])
def test_a_name_that_no_string_can_hold_is_refused(text):
    with pytest.raises(ValueError, match="printable ASCII"):
        sf_string(text)


@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.booleans(), st.integers(0, 50), st.integers(0, 9)),
        min_size=1,
        max_size=5,
    )
)
def test_tightest_is_never_looser_than_another(rows):
    limits = [limit(f"l{i}", q) for i, (q, _, _, _) in enumerate(rows)]
    decisions = [left(min(r, q), wait) if ok else denied(wait, wait + 1) for q, ok, r, wait in rows]
    best = place(limits, decisions)
    for item, decision in zip(limits, decisions, strict=True):
        if decisions[best].allowed:
            assert decision.allowed
            assert decisions[best].remaining * item.quota <= decision.remaining * limits[best].quota
        elif not decision.allowed:
            assert decision.retry_after <= decisions[best].retry_after


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.booleans(), st.integers(0, 3), st.integers(0, 2)),
        min_size=1,
        max_size=5,
    )
)
def test_tightest_is_the_least_as_the_rule_ranks_them(rows):
    limits = [limit(f"l{i}", q) for i, (q, _, _, _) in enumerate(rows)]
    decisions = [left(min(r, q), wait) if ok else denied(9, wait) for q, ok, r, wait in rows]

    def rank(place):
        decision = decisions[place]
        if decision.allowed:
            return 1, Fraction(decision.remaining, limits[place].quota), -decision.reset, place
        return 0, Fraction(0), -decision.retry_after, place

    assert place(limits, decisions) == min(range(len(rows)), key=rank)


# rule: (decisions, Retry-After)
WAITS = {
    "rounded up": ([denied(0.2, 1.000001)], "2"),
    "at least a second": ([denied(0.000001, 0.000001)], "1"),
    "exact seconds stay": ([denied(3, 3)], "3"),
    "the longest of all that denied": ([denied(1, 4), denied(2, 60)], "60"),
}


@pytest.mark.parametrize("rule", WAITS)
def test_429(rule):
    decisions, wait = WAITS[rule]
    limits = [A, B][: len(decisions)]
    reply = too_many_requests(list(zip(limits, decisions, strict=True)))
    fields = dict(reply.fields)
    assert reply.status == 429
    assert fields["Retry-After"] == wait
    assert fields["Content-Type"] == "application/problem+json"
    assert fields["Cache-Control"] == "no-store"
    document = json.loads(reply.body)
    assert document["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert document["title"] == "Too Many Requests"
    assert document["status"] == 429
    assert document["violated-policies"] == [item.limit for item in limits]


@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 10**9)), min_size=1, max_size=3))
def test_retry_after_is_never_earlier_than_t(waits):
    decisions = [Decision(False, 0, reset, reset + more, 0) for reset, more in waits]
    limits = [limit(f"l{i}", 10) for i in range(len(waits))]
    ((_, params),) = parsed(fields(limits, decisions, "standard"), "RateLimit")
    assert (
        int(
            dict(too_many_requests(list(zip(limits, decisions, strict=True))).fields)["Retry-After"]
        )
        >= params["t"]
    )
