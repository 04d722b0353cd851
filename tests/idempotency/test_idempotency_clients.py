"""Clients that are seldom met: those that close their half, and those that come by other hosts."""

import asyncio

import pytest
from replay_kit import BODY, Gate, Origin, Shop, common, is_replay, post, until

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


@in_memory
async def test_a_host_is_no_difference(shop: Shop, origin: Origin) -> None:
    """A service under two names is one; tenants by host have `host` in their scope."""
    first = await shop.pay()
    again = await shop.ask(post().replace(b"Host: a", b"Host: b.example:81"))
    assert is_replay(again)
    assert common(again) == common(first)
