"""Clients that are seldom met: those that close their half."""

import asyncio

import pytest
from replay_kit import BODY, Gate, Origin, Shop, is_replay, post, until

in_memory = pytest.mark.parametrize("store", ["memory"], indirect=True)


@in_memory
@pytest.mark.usefixtures("lane")
@pytest.mark.parametrize("body", [BODY, b""], ids=["body", "none"])
async def test_a_client_that_closes_its_half_has_left(
    shop: Shop, origin: Origin, body: bytes
) -> None:
    """Its request is executed and recorded; its answer is for whoever asks again."""
    origin.script = gate = Gate()
    async with await shop.open() as client:
        await client.send(post("k1", body))
        await until(lambda: gate.waiting)
        client.writer.write_eof()
        assert await asyncio.wait_for(client.rest(), 8) == b""
    gate.open()
    await shop.rests()
    assert is_replay(await shop.pay("k1", body))
    assert origin.executed == 1
