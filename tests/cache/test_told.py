"""What those who wait for another process' fetch are told of it."""

import pytest

from proxy.core.cache.storing import NotStored
from proxy.core.message import Reply
from proxy.core.problems import problem
from proxy.stages.cache.fetch import Failed, Outcome, Unstorable
from proxy.stages.cache.told import LOOK, read, told

AN_ERROR = Reply(503, [("X", "y")], b"gone", origin=True)


@pytest.mark.parametrize("name", ["upstream-invalid", "upstream-unreachable", "upstream-timeout"])
def test_a_failure_is_told_as_it_is(name: str) -> None:
    failure = problem(name, "The upstream is not there.")
    other = read(told(Failed(failure, "disconnected")))
    assert other is not None
    assert other.failure is not None
    assert (other.status, other.failure.status) == (failure.status, failure.status)
    assert (other.failure.fields, other.failure.body) == (failure.fields, failure.body)
    assert not other.failure.origin


@pytest.mark.parametrize("name", ["breaker-open", "no-endpoint", "overloaded"])
def test_what_is_the_holder_s_own_is_not_told(name: str) -> None:
    assert told(Failed(problem(name, "Not now."), "error")) == LOOK


@pytest.mark.parametrize(
    "outcome", [Failed(AN_ERROR, "error"), Unstorable(AN_ERROR, NotStored("no-freshness", False))]
)
def test_of_an_error_only_the_status_is_told(outcome: Outcome) -> None:
    other = read(told(outcome))
    assert other is not None
    assert (other.status, other.failure) == (503, None)


@pytest.mark.parametrize("refused", [NotStored("private", True), NotStored("authorization", False)])
def test_where_a_mark_says_it_one_has_to_look(refused: NotStored) -> None:
    assert told(Unstorable(Reply(200, [], origin=True), refused)) == LOOK


@pytest.mark.parametrize(
    "text", [LOOK, b"x", b"{}", b"[]", b"7", b"null", b'[502,["a"],"b"]', b"[502,1,2]", b'["x"]',
             b"[502,[],7]", b"[502,[],\"b\",1]", b"\xff"]
)  # fmt: skip
def test_what_is_not_understood_is_nothing(text: bytes) -> None:
    assert read(text) is None
