"""Whatever is asked, answered, purged and written, in whatever order and at whatever time: nobody
gets what is another's, and nothing is served that RFC 9111 forbids.

The real flow runs over an origin in the same process, with time in the test's hands, and a plain
model (safety_model) judges every single answer.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from safety_model import Terms, hold
from safety_world import SECOND, Answer, Ask, Got, Say, World

from proxy.policy.load import Loaded, load

TARGETS = ("/a", "/a?x=1", "/b/c")
NUMBERS = st.sampled_from((None, None, 0, 1, 5, 20))
YES = st.sampled_from((False,) * 9 + (True,))

says = st.builds(
    Say,
    no_store=YES,
    no_cache=YES,
    private=YES,
    public=YES,
    must_revalidate=YES,
    proxy_revalidate=YES,
    must_understand=YES,
    immutable=YES,
    mine=YES,
    max_age=st.sampled_from((None, 0, 5, 20, 20, 100)),
    s_maxage=st.sampled_from((None, None, None, 5, 20)),
    stale_while_revalidate=NUMBERS,
    stale_if_error=NUMBERS,
)
common = (
    None,
    *(Say(max_age=seconds) for seconds in (5, 20, 20, 20, 100)),
    Say(max_age=5, stale_while_revalidate=5),
    Say(max_age=5, public=True),
    Say(max_age=20, stale_if_error=20),
    Say(no_cache=True),
    Say(private=True, max_age=20),
)
plain_says = st.sampled_from(common)
answers = st.builds(
    Answer,
    status=st.sampled_from((200,) * 9 + (203, 204, 206, 299, 301, 302, 404, 410, 429, 500, 503)),
    say=plain_says | plain_says | says,
    cdn=st.sampled_from((None,) * 7 + (Say(max_age=20), Say(no_store=True), Say(private=True))),
    vary=st.sampled_from(
        ("", "", "", "Accept-Language", "X-Color", "Accept-Language, X-Color", "*", "X-Color, *",
         "Cookie", "Authorization")
    ),
    validator=st.sampled_from(("strong", "strong", "weak", "date", "")),
    expires=st.sampled_from((None, None, None, -5, 0, 10)),
    dated=st.sampled_from((0, 0, 0, 7, None)),
    age=st.sampled_from((None, None, None, 3, 50)),
    cookie=YES,
    tag=st.sampled_from(("", "t1", "t2")),
    trouble=st.sampled_from(("",) * 16 + ("reset", "timeout", "cut")),
    whole=st.booleans(),
    sized=st.booleans(),
    unchanged=st.sampled_from(("yes", "yes", "yes", "no", "other")),
    latency=st.sampled_from((0, 0, 0, 1, 8)),
)  # fmt: skip
directives = st.sampled_from(
    ((),) * 14
    + (
        (("no-cache", None),), (("no-store", None),), (("max-age", 0),), (("max-age", 6),),
        (("max-stale", None),), (("max-stale", 10),), (("min-fresh", 8),),
        (("only-if-cached", None),),
        (("stale-if-error", 30),), (("max-age", 6), ("max-stale", 10)),
        (("no-cache", None), ("stale-if-error", 30)),
        (("only-if-cached", None), ("max-stale", None)),
    )
)  # fmt: skip
varied = st.sampled_from(
    ((),) * 9
    + ((("Accept-Language", "de"),), (("Accept-Language", "en"),), (("X-Color", "red"),),
       (("Accept-Language", "de"), ("X-Color", "red")), (("Range", "bytes=3-20"),),
       (("Range", "bytes=-7"),), (("Range", "bytes=9000-"),), (("Range", "bytes=0-1, 5-6"),))
)  # fmt: skip
conditions = (
    st.none()
    | st.none()
    | st.none()
    | st.tuples(
        st.sampled_from(("if-none-match", "if-modified-since", "if-range", "if-match")),
        st.integers(0, 3),
    )
)
asks = st.builds(
    Ask,
    method=st.sampled_from(
        ("GET",) * 8 + ("HEAD", "HEAD", "POST", "PUT", "DELETE", "M-SEARCH", "OPTIONS")
    ),
    target=st.sampled_from(TARGETS[:1] * 6 + TARGETS),
    user=st.sampled_from(("", "", "", "", "alice", "bob")),
    by=st.sampled_from(("authorization", "cookie")),
    lines=varied,
    condition=conditions,
    directives=directives,
    answer=answers,
    leaves=YES,
)  # fmt: skip


@dataclass(frozen=True)
class Wait:
    seconds: int


@dataclass(frozen=True)
class PurgeIt:
    selector: str
    value: str
    soft: bool


@dataclass(frozen=True)
class Together:
    """Several at once; the origin's answers come in the order of `turns`."""

    steps: tuple["Ask | PurgeIt | Wait", ...]
    turns: tuple[int, ...]


waits = st.builds(Wait, st.sampled_from((1, 2, 4, 5, 6, 15, 20, 100)))
purges = st.builds(
    lambda what, soft: PurgeIt(what[0], what[1], soft),
    st.sampled_from(
        (("tags", "t1"), ("tags", "t2"), ("urls", "/a"), ("prefix", "/a"), ("prefix", "/b/"),
         ("all", ""))
    ),
    st.booleans(),
)  # fmt: skip
single = asks | asks | asks | waits | purges
together = st.builds(
    Together,
    st.lists(asks | asks | asks | purges | waits, min_size=2, max_size=5).map(tuple),
    st.lists(st.integers(0, 4), max_size=8).map(tuple),
)
softened = st.builds(
    lambda say, first, more: (
        (Ask(answer=Answer(say=say)), Wait(1), PurgeIt("all", "", True))
        + ((Wait(1), PurgeIt("all", "", True)) if more else ())
        + (Wait(first), Ask())
    ),
    st.builds(Say, max_age=st.just(100), stale_while_revalidate=st.sampled_from((5, 20))),
    st.sampled_from((1, 4, 6, 15)),
    st.booleans(),
)
"""What is purged softly and asked for a while later, which chance alone seldom brings."""
steps = st.lists(
    (single | single | together).map(lambda step: (step,)) | softened, min_size=1, max_size=14
).map(lambda parts: [step for part in parts for step in part])

POLICIES = {
    "the contract's": Terms(),
    "stale": Terms(default_ttl=10, stale_while_revalidate=6, stale_if_error=30),
}


MakeWorld = Callable[[str], World]


@pytest.fixture(scope="module")
def make_world(tmp_path_factory: pytest.TempPathFactory) -> MakeWorld:
    """Makes a world under the policy of this name."""
    made: dict[str, Loaded] = {}
    for name, terms in POLICIES.items():
        folder = tmp_path_factory.mktemp("safety")
        cache = {member: f"{seconds}s" for member, seconds in vars(terms).items()}
        caches = {"caches": {"things": {**cache, "early_refresh": 0}}}
        (folder / "caches.yaml").write_text(json.dumps(caches))
        document = {
            "server": {"listen": "127.0.0.1:1"},
            "policies": "caches.yaml",
            "upstreams": {"origin": {"endpoints": ["http://127.0.0.1:2"]}},
            "routes": [{
                "name": "things", "match": {"path": "/{rest:path}"}, "upstream": "origin",
                "cache": "things",
            }],
        }  # fmt: skip
        (folder / "gateway.yaml").write_text(json.dumps(document))
        made[name] = load(folder / "gateway.yaml")
    return lambda policy: World(made[policy])


async def play(
    world: World, terms: Terms, script: list[Ask | Wait | PurgeIt | Together]
) -> Counter[str]:
    seen: Counter[str] = Counter()
    for step in script:
        for got in await take(world, step):
            seen[hold(world, terms, got)] += 1
            seen[f"{got.ask.method} {got.said.get('cache-status')}"] += 1
        await world.quiet()
    await world.caching.close()
    return seen


async def take(world: World, step: Ask | Wait | PurgeIt | Together) -> list[Got]:
    match step:
        case Ask():
            return [await world.ask(step)]
        case Wait():
            world.now += step.seconds * SECOND
        case PurgeIt():
            await world.purge(step.selector, step.value, step.soft)
        case Together():
            return await at_once(world, step)
    return []


async def at_once(world: World, step: Together) -> list[Got]:
    gates = world.gates = []
    tasks: list[asyncio.Task[Got]] = []
    for one in step.steps:
        if isinstance(one, Ask):
            tasks.append(asyncio.create_task(world.ask(one)))
            await idle()
        else:
            await take(world, one)
    turns = list(step.turns)
    for _ in range(100):
        if gates:
            gates.pop((turns.pop() if turns else 0) % len(gates)).set()
        elif all(task.done() for task in tasks):
            break
        await idle()
    for gate in gates:
        gate.set()
    world.gates = None
    return [await task for task in tasks]


async def idle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


@pytest.mark.parametrize("policy", POLICIES)
@settings(
    max_examples=350,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(script=steps)
def test_no_answer_is_anothers_or_forbidden(
    make_world: MakeWorld, policy: str, script: list[Ask | Wait | PurgeIt | Together]
) -> None:
    logging.getLogger("proxy").setLevel(logging.CRITICAL)
    seen = asyncio.run(play(make_world(policy), POLICIES[policy], script))
    for what in ("reused", "own", "problem", "304"):
        event(f"{what}: {bool(seen[what])}")
