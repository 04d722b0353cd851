"""The core's steps and their Lua twins, driven by the same operations under a clock that is given:
every verdict, and every field of the record after each of them."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from idempotency_kit import ANSWER, a_store
from redisservers import RedisServer

from proxy.core import idempotency as core
from proxy.core.idempotency import Answer, Mine, Record, Replay, State, Terms
from proxy.store.redis.idempotency import INLINE
from proxy.store.redis.idempotency_codec import read_answer

FIELDS = {b"state", b"token", b"fingerprint", b"lease_ends", b"ends", b"head", b"body"}
LEASES, TTLS = (1, 1000, 10_000), (1, 5000, 60_000, 86_400_000)
LONGEST = 2**43  # ms since the epoch: the year 2248
ANSWERS = [
    ANSWER,
    Answer(200, "", [], b""),
    Answer(599, "\xe9", [("A", ""), ("A", "\x80\xff"), ("b", "x" * 9000)], b"\r\n\x00" * 5000),
    Answer(204, "No", [("\xff", '"\\')], b"y" * (INLINE + 1)),
]


class Core:
    """The steps over one record."""

    def __init__(self) -> None:
        self.record: Record | None = None

    def claim(self, now: int, token: bytes, print_: bytes, terms: Terms) -> Any:
        self.record, verdict = core.claim(self.record, token, print_, terms, now)
        return verdict

    def sent(self, now: int, token: bytes, terms: Terms) -> bool:
        return core.mark_sent(self.record, token, terms, now)

    def renew(self, now: int, token: bytes, terms: Terms) -> bool:
        return core.renew(self.record, token, terms, now)

    def settle(
        self,
        now: int,
        token: bytes,
        print_: bytes,
        outcome: State,
        answer: Answer | None,
        terms: Terms,
    ) -> bool:
        settling = (token, print_, outcome, answer, terms, now)
        self.record, settled = core.settle(self.record, *settling)
        return settled

    def release(self, now: int, token: bytes) -> bool:
        released = core.release(self.record, token, now)
        if released:
            self.record = None
        return released

    def free(self, now: int) -> bool:
        there = self.record is not None and self.record.at(now) is not None
        self.record = None
        return there

    def fields(self) -> dict[str, Any]:
        record = self.record
        if record is None:
            return {}
        return {
            "state": record.state.value,
            "token": record.token,
            "fingerprint": record.fingerprint,
            "lease_ends": record.lease_ends,
            "ends": record.ends,
            "answer": record.answer,
        }


@pytest.fixture
async def twin(every_redis: RedisServer):
    every_redis.call("FLUSHALL")
    turned = SimpleNamespace(now=0, records=0)
    async with a_store(every_redis, now=lambda: turned.now) as turned.store:
        with every_redis.client() as client:

            def fields(record: bytes) -> dict[str, Any]:
                held = client.hgetall(turned.store._names.record(record))
                if not held:
                    return {}
                assert held.keys() <= FIELDS
                answer = None
                if b"head" in held:
                    answer = read_answer(held[b"head"], held[b"body"])
                return {
                    "state": held[b"state"].decode(),
                    "token": held[b"token"],
                    "fingerprint": held[b"fingerprint"],
                    "lease_ends": int(held[b"lease_ends"]),
                    "ends": int(held[b"ends"]) if b"ends" in held else None,
                    "answer": answer,
                }

            turned.fields = fields
            yield turned


TOKENS = st.sampled_from([b"a" * 16, b"a" * 16, b"b" * 16])
PRINTS = st.sampled_from([b"p" * 32] * 4 + [b"q" * 32])
TERMS = st.builds(
    Terms,
    ttl=st.sampled_from(TTLS),
    release_unknown=st.booleans(),
    lease=st.sampled_from(LEASES),
)
SETTLING = st.one_of(
    st.sampled_from(ANSWERS).map(lambda answer: (State.RECORDED, answer)),
    st.sampled_from([(State.TOO_LARGE, None), (State.UNKNOWN, None)]),
)
JUMPS = st.one_of(
    st.just(0),
    st.integers(-3, 3),
    st.tuples(st.sampled_from(["lease_ends", "ends"]), st.integers(-1, 1)),
    st.sampled_from([999, 10_000, -10_000, 5_000, -86_400_000, 2**42]),
)
OPERATIONS = st.one_of(
    st.tuples(st.just("claim"), TOKENS, PRINTS, TERMS),
    st.tuples(st.sampled_from(["sent", "renew"]), TOKENS, TERMS),
    st.builds(
        lambda token, print_, outcome, terms: ("settle", token, print_, *outcome, terms),
        TOKENS,
        PRINTS,
        SETTLING,
        TERMS,
    ),
    st.tuples(st.just("release"), TOKENS),
    st.tuples(st.just("free")),
)
# Few walk far by chance: begun as it usually is, then anything.
BEGINNING = st.builds(
    lambda terms, length: [
        ("claim", b"a" * 16, b"p" * 32, terms),
        ("sent", b"a" * 16, terms),
        ("settle", b"a" * 16, b"p" * 32, State.RECORDED, ANSWER, terms),
    ][:length],
    TERMS,
    st.integers(0, 3),
)


def jumped(now: int, jump: int | tuple[str, int], record: Record | None) -> int:
    """The time of the next operation: some ms on, or where the record may change."""
    if isinstance(jump, int):
        now += jump
    elif record is not None and getattr(record, jump[0]) is not None:
        now = getattr(record, jump[0]) + jump[1]
    return min(max(0, now), LONGEST)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.integers(0, 2**42),
    beginning=BEGINNING,
    rest=st.lists(st.tuples(JUMPS, OPERATIONS), max_size=25),
)
async def test_the_twin_does_the_same(twin, start, beginning, rest):
    twin.records += 1
    record = twin.records.to_bytes(16, "big")
    hand = Core()
    twin.now = start
    for jump, (name, *words) in [*((0, operation) for operation in beginning), *rest]:
        twin.now = jumped(twin.now, jump, hand.record)
        expected = getattr(hand, name)(twin.now, *words)
        said = await getattr(twin.store, name)(record, *words)
        assert said == expected, name
        assert twin.fields(record) == hand.fields(), name


async def test_what_is_compared_does_happen(twin):
    """The operations above meet every kind of answer."""
    hand = Core()
    terms = Terms(ttl=5000, lease=1000)
    for one in (hand.claim(0, b"a", b"p", terms), await twin.store.claim(b"r", b"a", b"p", terms)):
        assert one == Mine()
    assert hand.sent(0, b"a", terms)
    assert await twin.store.sent(b"r", b"a", terms)
    for answer in ANSWERS:
        settling = (b"a", b"p", State.RECORDED, answer, terms)
        assert hand.settle(0, *settling)
        assert await twin.store.settle(b"r", *settling)
        assert hand.claim(0, b"b", b"p", terms) == Replay(answer)
        assert await twin.store.claim(b"r", b"b", b"p", terms) == Replay(answer)
