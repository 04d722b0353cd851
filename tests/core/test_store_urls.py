"""A store's URL: every form that is documented, and a sentence for every other."""

import pytest

from proxy.core.store_urls import FORMS, StoreUrl, read_store_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("memory://", StoreUrl("memory")),
        ("redis://r", StoreUrl("standalone", (("r", 6379),))),
        ("redis://r:7000/3", StoreUrl("standalone", (("r", 7000),), database=3)),
        ("redis://r/", StoreUrl("standalone", (("r", 6379),))),
        ("redis://[::1]:7000", StoreUrl("standalone", (("::1", 7000),))),
        ("redis://[fe80::1]", StoreUrl("standalone", (("fe80::1", 6379),))),
        ("rediss://r", StoreUrl("standalone", (("r", 6379),), tls=True)),
        ("redis://u:p@r", StoreUrl("standalone", (("r", 6379),), username="u", password="p")),
        ("redis://:p%40%2Fx@r", StoreUrl("standalone", (("r", 6379),), password="p@/x")),
        ("redis://u:a@b@r", StoreUrl("standalone", (("r", 6379),), username="u", password="a@b")),
        ("unix:///run/r.sock", StoreUrl("standalone", socket="/run/r.sock")),
        ("unix:///run/r.sock?db=2", StoreUrl("standalone", socket="/run/r.sock", database=2)),
        ("unix://:p@/r%20s", StoreUrl("standalone", socket="/r s", password="p")),
        (
            "redis+sentinel://u:p@h1:26379,h2:26380/MASTER/0",
            StoreUrl(
                "sentinel",
                (("h1", 26379), ("h2", 26380)),
                master="MASTER",
                username="u",
                password="p",
            ),
        ),
        (
            "rediss+sentinel://h1,[::1]/my%20one",
            StoreUrl("sentinel", (("h1", 26379), ("::1", 26379)), master="my one", tls=True),
        ),
        (
            "redis+cluster://h1:7000,h2:7001",
            StoreUrl("cluster", (("h1", 7000), ("h2", 7001))),
        ),
        ("rediss+cluster://h1", StoreUrl("cluster", (("h1", 6379),), tls=True)),
        ("redis+cluster://h1/0", StoreUrl("cluster", (("h1", 6379),))),
    ],
)
def test_reads(text: str, url: StoreUrl) -> None:
    assert read_store_url(text) == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be one of memory://, redis://"),
        ("memory", "must be one of"),
        ("memory://x", "must be one of"),
        ("http://r", "must be one of"),
        ("REDIS://r", "must be one of"),
        ("redis:/r", "must be one of"),
        ("redis://", "lacks a host"),
        ("redis://:6379", "lacks a host"),
        ("redis://r:", "has a port"),
        ("redis://r:0", "has a port"),
        ("redis://r:65536", "has a port"),
        ("redis://r:00000006379", "has a port"),
        ("redis://r:٣", "has a port"),
        ("redis://r:6379/x", "has a database"),
        ("redis://r:6379/-1", "has a database"),
        ("redis://r:6379/0/1", "has a database"),
        ("redis://r?db=1", "takes no ?"),
        ("redis://r#x", "has a character"),
        ("redis://r r", "has a character"),
        ("redis://h1,h2", "redis+sentinel:// or redis+cluster://"),
        ("redis://u@r", "user without a password"),
        ("redis://u:@r", "user without a password"),
        ("redis://::1", "IPv6 address without brackets"),
        ("redis://[::1", "closing bracket"),
        ("redis://[::1]7", "closing bracket"),
        ("unix://run/r.sock", "absolute path"),
        ("unix:///", "absolute path"),
        ("unix:///r.sock?timeout=1", "?db=N at most"),
        ("redis+sentinel://h1:26379", "needs the master's name"),
        ("redis+sentinel://h1:26379//0", "needs the master's name"),
        ("redis+sentinel://h1,,h2/m", "lacks a host"),
        ("redis+cluster://h1/1", "number 0 only"),
    ],
)
def test_refuses(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z]") as refused:
        read_store_url(text)
    assert says in str(refused.value)


@pytest.mark.parametrize("form", ["{}{}@r:x", "{}{}@r:6379/x", "{}{}@h1,h2?x=1", "{}{} @r"])
def test_a_refusal_tells_no_password(form: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        read_store_url(form.format("redis://", "user:s3cret"))
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://u:s3cret@r/2", "redis://r:6379"),
        ("unix://:s3cret@/r.sock", "unix:///r.sock"),
        ("rediss+sentinel://:s3cret@[::1],b/m/0", "rediss+sentinel://[::1]:26379,b:26379/m"),
        ("redis+cluster://:s3cret@a:1,b:2", "redis+cluster://a:1,b:2"),
        ("memory://", "memory://"),
    ],
)
def test_shows_no_credentials(text: str, shown: str) -> None:
    url = read_store_url(text)
    assert str(url) == shown
    assert "s3cret" not in repr(url)


def test_forms_that_are_told_are_read() -> None:
    for form in FORMS:
        assert read_store_url(form.replace("…", "r")).kind
