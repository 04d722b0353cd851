"""A request's body that is kept to be sent again: whole, from wherever a try stopped, and at the
price of its bytes."""

import tracemalloc

import pytest

from proxy.stages.upstream.outgoing import KEPT_BODY, KeptBody


class Pieces:
    """A body of `size` bytes that comes `by` bytes at a time, each piece another object."""

    length = None

    def __init__(self, size: int, by: int) -> None:
        self._left = size
        self._by = by
        self.read_to_the_end = 0

    async def read(self) -> bytes:
        size = min(self._left, self._by)
        self._left -= size
        self.read_to_the_end += not size
        return bytes(self._left % 251 for _ in range(size))

    def proceed(self) -> None:
        pass


async def rest(body: KeptBody) -> bytes:
    content = b""
    while piece := await body.read():
        content += piece
    return content


@pytest.mark.parametrize("stops", [0, 1, 7, 20])
async def test_every_try_gets_the_whole_body(stops: int) -> None:
    """The first one stops after so many pieces, the second one reads to the end."""
    want = await rest(KeptBody(Pieces(1000, 50)))
    source = Pieces(1000, 50)
    body = KeptBody(source)
    begun = b"".join([await body.read() for _ in range(stops)])
    assert begun == want[: stops * 50]
    for _ in range(3):
        body.rewind()
        assert await rest(body) == want
    assert await body.read() == b""
    assert source.read_to_the_end == 1


async def test_a_body_that_is_too_long_is_let_go() -> None:
    body = KeptBody(Pieces(KEPT_BODY + 1, 1000))
    assert len(await rest(body)) == KEPT_BODY + 1
    assert not body.replayable


async def test_small_pieces_cost_no_more_than_their_bytes() -> None:
    body = KeptBody(Pieces(KEPT_BODY, 2))
    tracemalloc.start()
    try:
        while await body.read():
            pass
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert body.replayable
    assert held < 2 * KEPT_BODY
