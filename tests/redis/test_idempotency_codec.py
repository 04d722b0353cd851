"""A recorded answer as Redis has it: read as it was written, and refused where it is damaged."""

import pytest

from proxy.core.idempotency import Answer
from proxy.store.ports import StoreError
from proxy.store.redis.idempotency_codec import read_answer, write_head


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, "OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], b"\x00\r\n"),
        Answer(204, "", [], b""),
        Answer(599, "caf\xe9", [("X-Name", "caf\xe9\ta\x80 \x7f")], b"x"),
    ],
)
def test_an_answer_comes_back_as_it_was(answer: Answer) -> None:
    assert read_answer(write_head(answer), answer.body) == answer


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff",
        b"{}",
        b"[]",
        b"[" * 100_000,
        b'[2,200,"OK",[]]',
        b'[1,200,"OK",["A"]]',
        b'[1,200,"OK",null]',
        b'[1,200,"OK",[1,2]]',
        b"[1,200,5,[]]",
        b"[1,200,null,[]]",
        b'[1,"200","OK",[]]',
        b'[1,true,"OK",[]]',
        b'[1,200.5,"OK",[]]',
        b'[1,199,"OK",[]]',
        b'[1,600,"OK",[]]',
        b'[1,200,"OK",["A","b\\r\\nX: y"]]',
        b'[1,200,"OK",["A\\n","b"]]',
        b'[1,200,"O\\rK",[]]',
        b'[1,200,"OK",["A","\\u0000"]]',
        b'[1,200,"OK",["A","\\u0101"]]',
        b'[1,200,"\\ud800",[]]',
    ],
)
def test_what_is_no_answer_is_an_error_and_never_no_record(head: bytes) -> None:
    with pytest.raises(StoreError, match="cannot read") as raised:
        read_answer(head, b"")
    assert raised.value.reason == "refused"
