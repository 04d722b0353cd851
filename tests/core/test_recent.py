"""A bounded memory for what comes again."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.recent import Recent


def made(most: int, most_bytes: int = 1 << 30) -> Recent[Any, Any]:
    """Whose values weigh what they say, if that is a number."""
    return Recent(most, most_bytes, lambda _, value: value if isinstance(value, int) else 1)


def test_it_keeps_what_came_twice() -> None:
    recent: Recent[str, int] = made(4)
    assert recent.get("a") is None
    assert not recent.again("a")
    assert recent.again("a")
    recent.put("a", 1)
    assert recent.get("a") == 1
    assert not recent.again("b")


def test_what_is_in_use_stays() -> None:
    recent: Recent[int, int] = made(4)
    recent.put(0, 0)
    for number in range(1, 1000):
        recent.put(number, number)
        assert recent.get(0) == 0
        assert len(recent) <= 8
    assert recent.get(999) == 999
    assert recent.get(500) is None


def test_of_none_nothing_is_kept() -> None:
    recent: Recent[int, int] = made(0)
    assert not recent.again(1)
    assert not recent.again(1)
    recent.put(1, 1)
    assert recent.get(1) is None
    assert len(recent) == 0


@given(st.integers(1, 5), st.lists(st.integers(0, 12), max_size=80))
def test_the_last_ones_used_are_there(most: int, uses: list[int]) -> None:
    """And a value is never another key's."""
    recent: Recent[int, str] = made(most)
    last: dict[int, None] = {}
    for key in uses:
        found = recent.get(key)
        assert found in (None, str(key))
        if key in list(last)[-most:]:
            assert found == str(key)
        if found is None:
            recent.put(key, str(key))
        last.pop(key, None)
        last[key] = None
        assert len(recent) <= 2 * most
        assert len(recent._once) <= most


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 30)), max_size=80))
def test_what_is_kept_weighs_no_more_than_it_may(uses: list[tuple[int, int]]) -> None:
    recent = made(100, 60)
    for key, weight in uses:
        if recent.get(key) is None:
            recent.put(key, weight)
        assert recent.get(key) is not None  # what came last is there
        assert sum(recent._young.values()) <= 30
        assert sum(recent._old.values()) <= 30


def test_what_has_grown_makes_room() -> None:
    recent = made(100, 40)
    recent.put("a", 5)
    recent.grew(15)
    recent.put("b", 5)
    recent.put("c", 16)
    assert recent.get("a") is None
    assert recent.get("b") == 5


def test_of_what_came_once_only_a_hash_is_kept() -> None:
    recent = made(4)
    recent.again(b"x" * 100_000)
    assert all(isinstance(one, int) for one in recent._once)
