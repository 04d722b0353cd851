"""What of a request with a key goes upstream: always the key."""

import pytest
from rawhttp import Seen
from redisservers import RedisServer
from relay import Fault, Relay
from replay_kit import BODY, Origin, Shop, StartShop, is_replay, post

in_memory = pytest.mark.parametrize("store", ["memory"], indirect=True)
in_redis = pytest.mark.parametrize("store", ["redis"], indirect=True)
NAMED = ("Connection: keep-alive, idempotency-KEY, X-Hop", "X-Hop: 1")


def named(seen: Seen) -> tuple[str | None, str | None]:
    return seen.get("Idempotency-Key"), seen.get("X-Hop")


@in_memory
async def test_connection_cannot_take_the_key_off(shop: Shop, origin: Origin) -> None:
    """As whoever looks an outcome up in the upstream's books finds it by its key."""
    async with await shop.open() as client:
        assert (await client.ask(post("k1", BODY, "/pay", *NAMED))).status == 201
        assert is_replay(await client.ask(post("k1", BODY, "/pay", *NAMED)))
    assert [named(seen) for seen in origin.seen] == [("k1", None)]


@in_memory
async def test_where_no_policy_heeds_it_it_is_a_field_like_any(shop: Shop, origin: Origin) -> None:
    assert (await shop.pay("k1", BODY, "/pay", *NAMED, method="PUT")).status == 201
    assert [named(seen) for seen in origin.seen] == [(None, None)]


@in_redis
async def test_it_goes_along_without_a_record_too(
    start_shop: StartShop, origin: Origin, relay: Relay, server: RedisServer
) -> None:
    shop = await start_shop({"on_store_failure": "allow"}, timeout="150ms")
    relay.suffer(Fault("connect", "refuse"))
    assert (await shop.pay("k1", BODY, "/pay", *NAMED)).status == 201
    assert await shop.counted("unprotected") == 1
    assert [named(seen) for seen in origin.seen] == [("k1", None)]
