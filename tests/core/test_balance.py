"""The balances, as pure choices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.balance import LeastRequests, RoundRobin, balance

IDLE = [0, 0, 0]
ALL = (0, 1, 2)


@pytest.mark.parametrize(
    ("weights", "turns"),
    [
        ([1, 1, 1], [0, 1, 2, 0, 1, 2]),
        ([2, 1, 1], [0, 1, 2, 0, 0, 1, 2, 0]),
        ([5, 1, 1], [0, 0, 1, 0, 2, 0, 0]),
    ],
)
def test_round_robin_is_smooth(weights: list[int], turns: list[int]) -> None:
    chooser = RoundRobin(weights)
    assert [chooser.pick(IDLE, ALL, 0) for _ in turns] == turns


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_a_round_gives_every_endpoint_its_weight(weights: list[int]) -> None:
    chooser = balance("round_robin", weights, [""] * len(weights))
    for _ in range(2):
        picks = [chooser.pick(weights, range(len(weights)), 0) for _ in range(sum(weights))]
        assert [picks.count(index) for index in range(len(weights))] == weights


@pytest.mark.parametrize(
    ("rule", "weights", "in_flight", "choice"),
    [
        ("fewest in flight", [1, 1, 1], [2, 1, 3], 1),
        ("the first of new equals", [1, 1, 1], [0, 0, 0], 0),
        ("twice the weight, twice the load", [1, 2, 1], [1, 2, 1], 1),
        ("no more than its share", [1, 2, 1], [0, 2, 1], 0),
    ],
)
def test_least_requests(rule: str, weights: list[int], in_flight: list[int], choice: int) -> None:
    assert LeastRequests(weights).pick(in_flight, ALL, 0) == choice


def test_least_requests_lets_idle_endpoints_take_turns() -> None:
    chooser = LeastRequests([1, 1, 1])
    assert [chooser.pick(IDLE, ALL, 0) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.data())
def test_least_requests_never_picks_a_busier_endpoint(
    weights: list[int], data: st.DataObject
) -> None:
    chooser = balance("least_requests", weights, [""] * len(weights))
    for _ in range(5):
        load = [data.draw(st.integers(0, 9)) for _ in weights]
        pick = chooser.pick(load, range(len(weights)), 0)
        shares = [(count + 1) / weight for count, weight in zip(load, weights, strict=True)]
        assert shares[pick] == min(shares)
