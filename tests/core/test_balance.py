"""The balances, as pure choices."""

import os
import subprocess
import sys
from collections import Counter
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.core.balance import Balance, Hash, Kind, LeastRequests, RoundRobin, balance

IDLE = [0, 0, 0]
ALL = (0, 1, 2)
KINDS: tuple[Kind, ...] = ("round_robin", "least_requests", "hash")
WEIGHTS = st.lists(st.integers(1, 20), min_size=2, max_size=5)


def names(count: int) -> list[str]:
    return [f"http://10.0.0.{number}:8080" for number in range(count)]


def affinity(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")


KEYS = [affinity(f"user-{number}") for number in range(20_000)]


def among(weights: list[int]) -> st.SearchStrategy[tuple[int, ...]]:
    """Some of the endpoints, at least one."""
    places = st.sets(st.integers(0, len(weights) - 1), min_size=1)
    return places.map(lambda chosen: tuple(sorted(chosen)))


@pytest.mark.parametrize("kind", KINDS)
@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=5), data=st.data())
def test_only_usable_endpoints_are_taken(
    kind: Kind, weights: list[int], data: st.DataObject
) -> None:
    chooser = balance(kind, weights, names(len(weights)))
    for _ in range(6):
        usable = data.draw(among(weights))
        load = [data.draw(st.integers(0, 9)) for _ in weights]
        assert chooser.pick(load, usable, data.draw(st.integers(0, 2**64 - 1))) in usable


# --- round_robin


@pytest.mark.parametrize(
    ("rule", "weights", "usable", "turns"),
    [
        ("equals take turns", [1, 1, 1], ALL, [0, 1, 2, 0, 1, 2]),
        ("twice the weight, twice the turns", [2, 1, 1], ALL, [0, 1, 2, 0, 0, 1, 2, 0]),
        ("light ones come in between", [5, 1, 1], ALL, [0, 0, 1, 0, 2, 0, 0]),
        ("one out: the others take turns", [1, 1, 1], (0, 2), [0, 2, 0, 2]),
        ("one out: the others by weight, smoothly", [3, 9, 1], (0, 2), [0, 0, 2, 0, 0, 0, 2, 0]),
        ("one left", [1, 1, 1], (1,), [1, 1, 1]),
    ],
)
def test_round_robin_is_smooth(
    rule: str, weights: list[int], usable: tuple[int, ...], turns: list[int]
) -> None:
    chooser = RoundRobin(weights)
    assert [chooser.pick(IDLE, usable, 0) for _ in turns] == turns, rule


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_a_round_gives_every_endpoint_its_weight(weights: list[int]) -> None:
    chooser = balance("round_robin", weights, names(len(weights)))
    everyone = tuple(range(len(weights)))
    for _ in range(2):
        picks = [chooser.pick(weights, everyone, 0) for _ in range(sum(weights))]
        assert [picks.count(index) for index in everyone] == weights


@given(weights=WEIGHTS, data=st.data())
@settings(deadline=None)
def test_round_robin_keeps_to_the_shares_of_whoever_is_usable(
    weights: list[int], data: st.DataObject
) -> None:
    """Whatever happened before, from the first pick on, and in every stretch of picks."""
    chooser = RoundRobin(weights)
    for usable, turns in data.draw(
        st.lists(st.tuples(among(weights), st.integers(1, 40)), max_size=8)
    ):
        for _ in range(turns):
            chooser.pick(weights, usable, 0)
    usable = data.draw(among(weights))
    total = sum(weights[index] for index in usable)
    picks: Counter[int] = Counter()
    for turn in range(1, 61):
        picks[chooser.pick(weights, usable, 0)] += 1
        for index in usable:
            assert abs(picks[index] - turn * weights[index] / total) < 3


def test_the_shares_of_a_long_outage_are_exact() -> None:
    """5:3 of 10 is no whole number of parts, and a rounding adds up."""
    chooser = RoundRobin([5, 3, 2])
    picks = Counter(chooser.pick(IDLE, (0, 1), 0) for _ in range(8000))
    assert abs(picks[0] - 5000) <= 1


@pytest.mark.parametrize("before", range(22))
def test_when_a_heavy_endpoint_goes_the_light_ones_take_turns_at_once(before: int) -> None:
    chooser = RoundRobin([20, 1, 1])
    for _ in range(before):
        chooser.pick(IDLE, ALL, 0)
    picks = [chooser.pick(IDLE, (1, 2), 0) for _ in range(6)]
    assert 2 <= picks.count(1) <= 4


def test_an_endpoint_that_comes_back_gets_its_share_and_no_burst() -> None:
    chooser = RoundRobin([1, 1, 1])
    for _ in range(1000):
        chooser.pick(IDLE, (0, 1), 0)
    picks = [chooser.pick(IDLE, ALL, 0) for _ in range(6)]
    assert Counter(picks) == {0: 2, 1: 2, 2: 2}


# --- least_requests


@pytest.mark.parametrize(
    ("rule", "weights", "in_flight", "usable", "choice"),
    [
        ("fewest in flight", [1, 1, 1], [2, 1, 3], ALL, 1),
        ("the first of new equals", [1, 1, 1], [0, 0, 0], ALL, 0),
        ("twice the weight, twice the load", [1, 2, 1], [1, 2, 1], ALL, 1),
        ("no more than its share", [1, 2, 1], [0, 2, 1], ALL, 0),
        ("fewest of the usable", [1, 1, 1], [2, 0, 1], (0, 2), 2),
        ("the first of new equals that are usable", [1, 1, 1], [0, 0, 0], (1, 2), 1),
    ],
)
def test_least_requests(
    rule: str, weights: list[int], in_flight: list[int], usable: tuple[int, ...], choice: int
) -> None:
    assert LeastRequests(weights).pick(in_flight, usable, 0) == choice, rule


@pytest.mark.parametrize(
    ("usable", "turns"), [(ALL, [0, 1, 2, 0, 1, 2]), ((0, 2), [0, 2, 0, 2]), ((2,), [2, 2])]
)
def test_least_requests_lets_idle_endpoints_take_turns(
    usable: tuple[int, ...], turns: list[int]
) -> None:
    chooser = LeastRequests([1, 1, 1])
    assert [chooser.pick(IDLE, usable, 0) for _ in turns] == turns


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.data())
def test_least_requests_never_picks_a_busier_endpoint(
    weights: list[int], data: st.DataObject
) -> None:
    chooser = balance("least_requests", weights, names(len(weights)))
    for _ in range(5):
        usable = data.draw(among(weights))
        load = [data.draw(st.integers(0, 9)) for _ in weights]
        pick = chooser.pick(load, usable, 0)
        shares = {index: (load[index] + 1) / weights[index] for index in usable}
        assert shares[pick] == min(shares.values())


# --- hash


def spread(chooser: Balance, usable: tuple[int, ...]) -> list[int]:
    return [chooser.pick(IDLE, usable, key) for key in KEYS]


@pytest.mark.parametrize(
    "weights",
    [[1, 1], [1, 1, 1], [1, 2, 5], [20, 1, 1], [1] * 10],
    ids=lambda w: ":".join(map(str, w)),
)
def test_hash_spreads_by_weight(weights: list[int]) -> None:
    """Within four standard deviations of a fair draw: at most 1.4 % of the keys."""
    everyone = tuple(range(len(weights)))
    counts = Counter(spread(Hash(weights, names(len(weights))), everyone))
    for index, weight in enumerate(weights):
        share = weight / sum(weights)
        deviation = (len(KEYS) * share * (1 - share)) ** 0.5
        assert abs(counts[index] - len(KEYS) * share) < 4 * deviation


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [1, 2, 3, 4]])
@pytest.mark.parametrize("lost", range(4))
def test_hash_moves_only_the_share_of_a_lost_endpoint(weights: list[int], lost: int) -> None:
    chooser = Hash(weights, names(4))
    left = tuple(index for index in range(4) if index != lost)
    before, after = spread(chooser, (0, 1, 2, 3)), spread(chooser, left)
    moved = Counter(new for old, new in zip(before, after, strict=True) if old == lost)
    assert all(new == old for old, new in zip(before, after, strict=True) if old != lost)
    orphans = before.count(lost)
    for index in left:
        # To the others by their weights, not all to one neighbour.
        share = weights[index] / sum(weights[other] for other in left)
        assert abs(moved[index] - orphans * share) < 4 * (orphans * share * (1 - share)) ** 0.5
    assert spread(chooser, (0, 1, 2, 3)) == before


@given(
    endpoints=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=2, max_size=6
    ).flatmap(lambda listed: st.tuples(st.just(listed), st.permutations(listed))),
    key=st.integers(0, 2**64 - 1),
)
@example(endpoints=([(0, 1), (1, 1), (2, 1)], [(2, 1), (1, 1), (0, 1)]), key=KEYS[0])
def test_hash_knows_no_order(
    endpoints: tuple[list[tuple[int, int]], list[tuple[int, int]]], key: int
) -> None:
    """Nor does one URL listed twice, with one weight, make a difference."""
    taken = []
    for listed in endpoints:
        weight_of = dict(endpoints[0])
        urls = [f"http://10.0.0.{host}" for host, _ in listed]
        weights = [weight_of[host] for host, _ in listed]
        pick = Hash(weights, urls).pick([0] * len(urls), tuple(range(len(urls))), key)
        taken.append(urls[pick])
    assert taken[0] == taken[1]


def test_hash_gives_an_endpoint_that_is_listed_twice_two_shares() -> None:
    chooser = Hash([1, 1, 1], ["http://a", "http://b", "http://a"])
    counts = Counter(spread(chooser, ALL))
    assert all(0.31 < counts[index] / len(KEYS) < 0.36 for index in ALL)


PICKS = """
from proxy.core.balance import balance
chooser = balance("hash", [1, 2, 3], ["http://a:1", "https://b", "http+unix:///run/c.sock"])
step = 0x9E3779B97F4A7C15
print([chooser.pick([0, 0, 0], (0, 1, 2), n * step % 2**64) for n in range(200)])
"""


def test_hash_is_the_same_in_every_process() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", PICKS],
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_hash_is_the_same_in_every_release() -> None:
    """Or a rolling update would split every key's requests between two endpoints."""
    chooser = Hash([1, 2, 3], ["http://a:1", "https://b", "http+unix:///run/c.sock"])
    picks = [chooser.pick(IDLE, ALL, affinity(f"key-{number}")) for number in range(24)]
    assert "".join(map(str, picks)) == "011110221022101122122122"
