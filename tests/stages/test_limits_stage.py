"""May they: overrides, keys, costs, shadow limits, the answer's fields, and the leaky wait."""

import asyncio
import inspect
import json
import logging
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_plans import route_plan, server_plan, snapshot

from proxy.core.fields import Fields, read_written
from proxy.core.keys import KeyTemplate, WhenRule
from proxy.core.limits import ALGORITHMS
from proxy.core.limits.decision import Rate
from proxy.core.message import Reply
from proxy.core.ratelimit import policy_item
from proxy.exchange import Exchange
from proxy.metrics import Metrics
from proxy.policy.limit_plans import LimitPlan, LimitVariant, UsualLimits
from proxy.stages import limits
from proxy.store.memory.limits import MemoryLimits
from proxy.store.ports import Unavailable

SECOND = 1_000_000
SNAPSHOTS = {
    style: snapshot(server_plan(ratelimit_headers=style))
    for style in ("standard", "legacy", "both", "off")
}
ROUTE = route_plan("things")


class Bench:
    """A store with a clock turned by hand, plans, and requests for them."""

    def __init__(self):
        self.now = 1_750_000_000 * SECOND
        self.metrics = Metrics()
        self.store = MemoryLimits(lambda: self.now, self.metrics)

    def plan(self, name="per-key", rate="2", *, algorithm="token_bucket", burst=None, key=("ip",),
             overrides=(), charge="request", **changes):  # fmt: skip
        base = self.variant(name, rate, algorithm, burst, **changes)
        rules = tuple(
            (
                WhenRule.parse(when),
                None
                if other == "unlimited"
                else replace(
                    self.variant(name, other, algorithm, burst, **changes), space=f"{name}#{place}"
                ),
            )
            for place, (when, other) in enumerate(overrides)
        )
        template = KeyTemplate.parse(key)
        tally = self.metrics.limit(name)
        return LimitPlan(name, algorithm, template, charge, base, rules, tally)

    def variant(self, name, rate, algorithm, burst, **changes):
        cls = ALGORITHMS[algorithm]
        params = cls.compile(Rate(int(rate), SECOND), burst)
        quota = cls.quota(params)
        plain = LimitVariant(
            name, name, cls, params, cls.capacity(params), quota.q, quota.w,
            policy_item(name, quota), 1, None, False,
        )  # fmt: skip
        return replace(plain, **changes)

    def request(self, *plans, headers=(), ip="192.0.2.1", trusted=False, style="standard"):
        ex = Exchange(
            SNAPSHOTS[style], "GET", "/things", 11, Fields(headers),
            authority="a.test", scheme="http", peer=ip,
        )  # fmt: skip
        ex.client_ip = ip
        ex.trusted = trusted
        ex.route = replace(ROUTE, limits=plans)
        return ex

    def ask(self, ex):
        """What the stage says at once: it must not have to be waited for."""
        verdict = limits.admit(ex, self.store)
        assert verdict is None or isinstance(verdict, Reply)
        return verdict

    def statuses(self, count, *plans, **facts):
        replies = [self.ask(self.request(*plans, **facts)) for _ in range(count)]
        return [reply and reply.status for reply in replies]


@pytest.fixture
def bench():
    return Bench()


def test_a_route_without_limits_is_not_asked(bench):
    bench.store = None
    ex = bench.request()
    assert bench.ask(ex) is None
    assert ex.admission == ""


def test_denies_in_one_step_without_suspending(bench):
    plan = bench.plan(rate="2")
    assert bench.statuses(3, plan) == [None, None, 429]


def test_the_429_and_its_fields(bench):
    plan = bench.plan(rate="2")
    bench.statuses(2, plan)
    ex = bench.request(plan, style="both")
    reply = bench.ask(ex)
    assert json.loads(reply.body)["violated-policies"] == ["per-key"]
    assert ("Retry-After", "1") in reply.fields
    assert read_written(ex.admission) == [
        ("RateLimit-Policy", '"per-key";q=2;w=1'),
        ("RateLimit", '"per-key";r=0;t=1'),
        ("X-RateLimit-Limit", "2"),
        ("X-RateLimit-Remaining", "0"),
        ("X-RateLimit-Reset", "1"),
    ]
    assert ex.denied == ("per-key",)


def test_the_fields_of_an_admitted_request(bench):
    ex = bench.request(bench.plan(rate="10"), bench.plan("tight", "4"))
    assert bench.ask(ex) is None
    assert read_written(ex.admission) == [
        ("RateLimit-Policy", '"per-key";q=10;w=1, "tight";q=4;w=1'),
        ("RateLimit", '"tight";r=3;t=1'),
    ]


def test_limits_of_a_miss_are_named_before_they_are_asked(bench):
    plans = (
        bench.plan("miss", "4", charge="miss"),
        bench.plan("shadow", "4", charge="miss", shadow=True),
        bench.plan("gold", "4", charge="miss", overrides=(({"ip": ["192.0.2.1"]}, "8"),)),
        bench.plan("free", "4", charge="miss", overrides=(({"ip": ["192.0.2.1"]}, "unlimited"),)),
    )
    ex = bench.request(bench.plan(rate="10"))
    object.__setattr__(ex.route, "miss_limits", plans)
    object.__setattr__(ex.route, "usual_limits", None)
    assert bench.ask(ex) is None
    assert read_written(ex.admission) == [
        ("RateLimit-Policy", '"per-key";q=10;w=1, "miss";q=4;w=1, "gold";q=8;w=1'),
        ("RateLimit", '"per-key";r=9;t=1'),
    ]


def test_a_cost_that_is_no_number_is_told_with_the_policies(bench):
    plan = bench.plan(rate="5", **HEADER)
    ex = bench.request(plan, headers=[("X-Cost", "-1")], trusted=True)
    assert bench.ask(ex).status == 400
    assert read_written(ex.admission) == [("RateLimit-Policy", '"per-key";q=5;w=1')]


async def test_a_store_that_must_not_be_guessed_is_told_with_the_policies(bench):
    class Gone:
        async def admit(self, charges):
            raise Unavailable("per-key")

    ex = bench.request(bench.plan(rate="5"), bench.plan("trial", shadow=True))
    assert (await limits.admit(ex, Gone())).status == 503
    assert read_written(ex.admission) == [("RateLimit-Policy", '"per-key";q=5;w=1')]


def test_off_adds_no_fields(bench):
    ex = bench.request(bench.plan(), style="off")
    assert bench.ask(ex) is None
    assert ex.admission == ""


def test_keys_count_apart(bench):
    plan = bench.plan(rate="1")
    assert bench.statuses(2, plan, ip="192.0.2.1") == [None, 429]
    assert bench.statuses(2, plan, ip="192.0.2.2") == [None, 429]


def test_all_that_denied_are_named_and_a_refusal_charges_none(bench):
    a, b, c = bench.plan("a", "1"), bench.plan("b", "1"), bench.plan("c", "2")
    assert bench.statuses(1, a, b, c) == [None]
    reply = bench.ask(bench.request(a, b, c))
    assert json.loads(reply.body)["violated-policies"] == ["a", "b"]
    # c was asked twice and charged once.
    assert bench.statuses(2, c) == [None, 429]


OVERRIDES = (
    ({"header:X-Plan": ["gold", "platinum"]}, "3"),
    ({"header:X-Plan": ["gold"]}, "9"),
    ({"ip": ["198.51.100.0/24"]}, "unlimited"),
)


def test_the_first_override_that_matches_holds(bench):
    plan = bench.plan(rate="1", overrides=OVERRIDES)
    gold = [("X-Plan", "gold")]
    assert bench.statuses(4, plan, headers=gold) == [None, None, None, 429]


def test_each_override_keeps_its_own_state(bench):
    plan = bench.plan(rate="1", overrides=OVERRIDES)
    assert bench.statuses(3, plan, headers=[("X-Plan", "gold")]) == [None, None, None]
    assert bench.statuses(2, plan) == [None, 429]


def test_unlimited_is_neither_counted_nor_told(bench):
    plan = bench.plan(rate="1", overrides=OVERRIDES)
    assert bench.statuses(5, plan, ip="198.51.100.7") == [None] * 5
    ex = bench.request(plan, ip="198.51.100.7")
    assert bench.ask(ex) is None
    assert ex.admission == ""
    assert plan.tally.allowed == 0


HEADER = {"cost": None, "cost_header": "x-cost"}

# rule: (X-Cost lines, trusted, status, units left of 5)
COSTS = {
    "absent is 1": ([], True, None, 4),
    "as stated": (["3"], True, None, 2),
    "0 asks without charging": (["0"], True, None, 5),
    "leading zeros are digits": (["002"], True, None, 3),
    "all of the capacity": (["5"], True, None, 0),
    "above the capacity": (["6"], True, 400, 5),
    "far above": (["9" * 15], True, 400, 5),
    "too long to be read": (["1" * 5000], True, 400, 5),
    "negative": (["-1"], True, 400, 5),
    "signed": (["+1"], True, 400, 5),
    "a fraction": (["1.5"], True, 400, 5),
    "empty": ([""], True, 400, 5),
    "not ASCII digits": (["²"], True, 400, 5),
    "twice": (["1", "1"], True, 400, 5),
    "from a peer that is not trusted": (["3"], False, None, 4),
}


@pytest.mark.parametrize("rule", COSTS)
def test_cost_from_a_trusted_header(bench, rule):
    lines, trusted, status, units = COSTS[rule]
    plan = bench.plan(rate="5", **HEADER)
    headers = [("X-Cost", line) for line in lines]
    reply = bench.ask(bench.request(plan, headers=headers, trusted=trusted))
    assert (reply and reply.status) == status
    if reply is not None:
        assert json.loads(reply.body)["type"] == "urn:sluicegate:problem:bad-request"
    asked = bench.request(plan, headers=[("X-Cost", "0")], trusted=True)
    assert bench.ask(asked) is None
    assert read_written(asked.admission)[1][1].startswith(f'"per-key";r={units};')


def test_a_shadow_limit_is_counted_and_logged_and_says_nothing(bench, caplog):
    shadow = bench.plan("trial", "1", shadow=True)
    enforced = bench.plan("per-key", "9")
    caplog.set_level(logging.INFO, "proxy.limits")
    assert bench.statuses(3, shadow, enforced) == [None] * 3
    assert (shadow.tally.allowed, shadow.tally.shadow_denied, shadow.tally.denied) == (1, 2, 0)
    assert [r.message for r in caplog.records] == [
        "shadow_denied: the limit trial would have refused a request"
    ] * 2
    ex = bench.request(shadow, enforced)
    bench.ask(ex)
    assert ex.shadow_denied == ("trial",)
    assert "trial" not in str(ex.admission)


TWICE = [("X-Api-Key", "a"), ("x-api-key", "b")]
BY_KEY = {"key": ("ip", "header:X-Api-Key")}


@pytest.mark.parametrize("more", [{}, {"overrides": (({"method": ["PUT"]}, "9"),)}])
def test_a_key_s_header_in_several_lines_is_400(bench, more):
    """The usual way, and the long one."""
    plan = bench.plan(rate="2", **BY_KEY, **more)
    reply = bench.ask(bench.request(plan, headers=TWICE))
    assert reply.status == 400
    body = json.loads(reply.body)
    assert body["type"] == "urn:sluicegate:problem:bad-request"
    assert body["detail"] == ("The request has several X-Api-Key fields where only one is allowed.")
    assert plan.tally.allowed == plan.tally.denied == len(bench.store) == 0


def test_a_header_that_joins_its_lines_is_one_key(bench):
    plan = bench.plan(rate="1", key=("header:X-Api-Key+",))
    assert bench.statuses(2, plan, headers=TWICE) == [None, 429]
    assert bench.statuses(1, plan, headers=[("X-Api-Key", "a, b")]) == [429]


def test_a_shadow_limit_does_not_refuse_a_header_in_several_lines(bench):
    plan = bench.plan(rate="2", shadow=True, **BY_KEY)
    assert bench.ask(bench.request(plan, headers=TWICE)) is None
    assert plan.tally.shadow_denied == 1


def test_a_shadow_limit_does_not_even_refuse_a_bad_cost(bench):
    shadow = bench.plan("trial", "5", shadow=True, **HEADER)
    assert bench.statuses(1, shadow, headers=[("X-Cost", "6")], trusted=True) == [None]
    assert shadow.tally.shadow_denied == 1


def test_a_shadow_leaky_bucket_delays_nobody(bench):
    shadow = bench.plan("trial", "1", algorithm="leaky_bucket", burst=5, shadow=True)
    assert bench.statuses(3, shadow) == [None] * 3


def test_tallies_count_each_limits_own_answer(bench):
    a, b = bench.plan("a", "1"), bench.plan("b", "5")
    bench.statuses(3, a, b)
    assert (a.tally.allowed, a.tally.denied) == (1, 2)
    assert (b.tally.allowed, b.tally.denied) == (3, 0)


async def test_a_leaky_bucket_waits_for_the_longest_line(bench):
    slow = bench.plan("slow", "20", algorithm="leaky_bucket", burst=2)
    fast = bench.plan("fast", "40", algorithm="leaky_bucket", burst=2)
    clock = asyncio.get_running_loop().time
    waits = []
    for _ in range(4):
        begun = clock()
        verdict = limits.admit(bench.request(slow, fast), bench.store)
        if inspect.isawaitable(verdict):
            assert await verdict is None
        waits.append(clock() - begun)
    # The first leaves at once; the fourth is refused, and does not wait to hear it.
    assert max(waits[0], waits[3]) < 0.04
    assert waits[1] > 0.049
    assert waits[2] > 0.099


ALGORITHM = st.sampled_from(["fixed_window", "sliding_window", "token_bucket", "leaky_bucket"])
LIMIT = st.tuples(
    ALGORITHM, st.integers(1, 6), st.integers(1, 3), st.sampled_from(["ip", "global"])
)
CALL = st.tuples(st.sampled_from(["192.0.2.1", "192.0.2.2"]), st.integers(0, SECOND))


class Elsewhere:
    """A store that has to be waited for, though not for long."""

    def __init__(self, store: MemoryLimits) -> None:
        self._store = store

    async def admit(self, charges):
        return self._store.decide(charges)


def outcome(verdict: limits.Verdict) -> object:
    """What a verdict comes to; "waits" where a leaky_bucket makes it."""
    if verdict is None or isinstance(verdict, Reply):
        return type(verdict)
    waiting = verdict.__await__()
    try:
        next(waiting)
    except StopIteration as done:
        return type(done.value)
    except RuntimeError:  # asyncio.sleep, where no loop runs
        return "waits"
    raise AssertionError("it waits for something else")


@given(
    st.lists(LIMIT, min_size=1, max_size=3),
    st.lists(CALL, max_size=20),
    st.booleans(),
    st.booleans(),
)
def test_the_usual_way_says_what_the_long_one_says(
    asked: list[tuple[str, int, int, str]],
    calls: list[tuple[str, int]],
    more: bool,
    elsewhere: bool,
) -> None:
    """To the client, to the metrics, to the limits of a miss, and to the store."""

    def said(usual: bool) -> list[object]:
        bench = Bench()
        store = Elsewhere(bench.store) if elsewhere else bench.store
        plans = tuple(
            bench.plan(f"l{number}", str(rate), algorithm=name, key=(key,), cost=min(cost, rate))
            for number, (name, rate, cost, key) in enumerate(asked)
        )
        answers: list[object] = []
        for ip, pause in calls:
            bench.now += pause
            ex = bench.request(*plans, ip=ip)
            # What a route works out for itself of its other settings.
            late = (bench.plan("late", charge="miss"),) if more else ()
            object.__setattr__(ex.route, "miss_limits", late)
            object.__setattr__(
                ex.route, "usual_limits", UsualLimits.of(plans, late) if usual else None
            )
            answers.append(outcome(limits.admit(ex, store)))
            answers.append((ex.admission, ex.denied, ex.shadow_denied))
            answers.append([(c.variant.limit, c.key, c.cost, c.shadow, c.at) for c in ex.charges])
            if more:
                answers.append([(variant.limit, decision) for variant, decision in ex.said])
        return [*answers, *[plan.tally.dump() for plan in plans]]

    assert said(True) == said(False)
