"""Names of keys in Redis, and the slots that they fall into."""

import pytest
from redis.crc import key_slot

from proxy.store.keys import LimitKeys


def test_known_slots():
    # CRC16/XMODEM of "123456789" is 0x31C3 (Redis Cluster specification).
    assert key_slot(b"123456789") == 0x31C3 % 16_384
    assert key_slot(b"x{123456789}y") == key_slot(b"123456789")


def test_limits_of_one_caller_share_a_slot_and_no_key():
    keys = LimitKeys("sg")
    one, two = keys.tail("one"), keys.tail("two")
    a, b = b"a" * 16, b"b" * 16
    names = {keys.name(a, one), keys.name(a, two), keys.name(b, one), keys.name(b, two)}
    assert len(names) == 4
    assert key_slot(keys.name(a, one)) == key_slot(keys.name(a, two))
    assert key_slot(keys.name(a, one)) != key_slot(keys.name(b, one))


def test_a_name_is_short_and_says_nothing():
    name = LimitKeys("sg").name(b"a" * 16, LimitKeys("sg").tail("per-key"))
    assert name.startswith(b"sg:l:{")
    assert len(name) == 5 + 24 + 1 + 11
    assert name.isascii()
    assert b"per-key" not in name


def test_prefixes_are_apart():
    a, b = LimitKeys("a"), LimitKeys("b")
    assert a.name(b"k" * 16, a.tail("x")) != b.name(b"k" * 16, b.tail("x"))
    assert a.reset_channel != b.reset_channel


@pytest.mark.parametrize("prefix", ["{a}", "a{", "a}"])
def test_a_prefix_does_not_decide_the_slot(prefix):
    with pytest.raises(ValueError, match="brace"):
        LimitKeys(prefix)
