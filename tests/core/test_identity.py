"""Who asks and for which host: chains from trusted peers, and what a Host may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.addresses import AddressSet
from proxy.core.identity import (
    client_address,
    normalise_host,
    plain_address,
    valid_authority,
    valid_request_id,
)

TRUSTED = AddressSet(AddressSet.parse(["10.0.0.0/8", "fd00::/8"]).networks, unix=True).holds
PEER = "10.0.0.1"


@pytest.mark.parametrize(
    ("rule", "peer", "chain", "client"),
    [
        ("no header: the peer", PEER, None, "10.0.0.1"),
        ("an untrusted peer is not believed", "192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("a trusted peer is", PEER, "203.0.113.9", "203.0.113.9"),
        ("a unix peer may be trusted", "unix", "203.0.113.9", "203.0.113.9"),
        ("a unix peer without a chain", "unix", None, "unix"),
        ("from the right", PEER, "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("past trusted hops", PEER, "203.0.113.9, 10.0.0.2, 10.0.0.3", "203.0.113.9"),
        ("to the first untrusted", PEER, "198.51.100.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("a whole chain of trusted hops", PEER, "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("a malformed entry ends the walk", PEER, "203.0.113.9, evil, 10.0.0.2", "10.0.0.2"),
        ("a malformed last entry: the peer", PEER, "203.0.113.9, evil", "10.0.0.1"),
        ("an empty entry is malformed", PEER, "203.0.113.9,, 10.0.0.2", "10.0.0.2"),
        ("an empty header: the peer", PEER, "", "10.0.0.1"),
        ("unknown is no address", PEER, "203.0.113.9, unknown", "10.0.0.1"),
        ("a port is dropped", PEER, "203.0.113.9:4711", "203.0.113.9"),
        ("IPv6", PEER, "2001:DB8::0:9", "2001:db8::9"),
        ("IPv6 with a port", PEER, "[2001:db8::9]:4711", "2001:db8::9"),
        ("IPv4-mapped is IPv4", PEER, "::ffff:203.0.113.9", "203.0.113.9"),
        ("an IPv4-mapped peer is trusted as IPv4", "::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        (
            "an IPv4-mapped hop is trusted as IPv4",
            PEER,
            "203.0.113.9, ::ffff:10.1.1.1",
            "203.0.113.9",
        ),
        ("leading zeros are no address", PEER, "203.0.113.09", "10.0.0.1"),
        ("a zone is no address", PEER, "fe80::1%eth0", "10.0.0.1"),
        ("a comment is no address", PEER, "203.0.113.9 (x)", "10.0.0.1"),
        ("quotes are no address", PEER, '"203.0.113.9"', "10.0.0.1"),
    ],
)
def test_x_forwarded_for(rule: str, peer: str, chain: str | None, client: str) -> None:
    assert client_address(peer, "x-forwarded-for", chain, TRUSTED) == client


@pytest.mark.parametrize(
    ("rule", "chain", "client"),
    [
        ("an address", "for=203.0.113.9", "203.0.113.9"),
        ("names have no case", "FOR=203.0.113.9", "203.0.113.9"),
        ("other parameters pass", "proto=https;for=203.0.113.9;by=10.0.0.1", "203.0.113.9"),
        ("quoted", 'for="203.0.113.9"', "203.0.113.9"),
        ("quoted, with a port", 'for="203.0.113.9:80"', "203.0.113.9"),
        ("IPv6 in brackets", 'for="[2001:db8::9]"', "2001:db8::9"),
        ("IPv6 with a port", 'for="[2001:db8::9]:4711"', "2001:db8::9"),
        ("an escaped quote does not end it", r'for="\"", for=203.0.113.9', "203.0.113.9"),
        ("from the right", "for=198.51.100.1, for=203.0.113.9", "203.0.113.9"),
        ("past trusted hops", "for=203.0.113.9, for=10.0.0.2;proto=http", "203.0.113.9"),
        ("a comma in quotes is text", 'for=203.0.113.9;host="a,b"', "203.0.113.9"),
        ("an empty member says nothing", "for=203.0.113.9, ,for=10.0.0.2,", "203.0.113.9"),
        (
            "an obfuscated node ends the walk",
            "for=203.0.113.9, for=_hidden, for=10.0.0.2",
            "10.0.0.2",
        ),
        ("unknown ends the walk", "for=203.0.113.9, for=unknown", "10.0.0.1"),
        ("an element without for ends it", "for=203.0.113.9, proto=http", "10.0.0.1"),
        ("for twice ends it", "for=203.0.113.9;for=198.51.100.1", "10.0.0.1"),
        ("rubbish behind it ends it", "for=203.0.113.9 x", "10.0.0.1"),
        ("a bare word ends it", "203.0.113.9", "10.0.0.1"),
        ("a client's open quote swallows nothing", 'for="evil, for=203.0.113.9', "203.0.113.9"),
        (
            "nor does its open quote with a pair",
            'for=1.1.1.1;x=", for=203.0.113.9, for=10.0.0.2',
            "203.0.113.9",
        ),
    ],
)
def test_forwarded(rule: str, chain: str, client: str) -> None:
    assert client_address(PEER, "forwarded", chain, TRUSTED) == client


ENTRIES = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(["10.0.0.2", "unknown", "_x", "", " ", "[::1]:80", "1.2.3.4:99999"]),
    st.text(st.characters(max_codepoint=0xFF), max_size=8),
)
PAIRS = st.one_of(
    st.builds("{}={}".format, st.sampled_from(["for", "by", "host", "FOR"]), ENTRIES),
    st.builds('{}="{}"'.format, st.sampled_from(["for", "by"]), ENTRIES),
    st.text('for="\\,;= .1:[]', max_size=12),
)


@given(st.text(max_size=20), st.lists(ENTRIES, max_size=6).map(", ".join))
def test_x_forwarded_for_never_raises(peer: str, chain: str) -> None:
    client_address(peer, "x-forwarded-for", chain, lambda _: True)


@given(st.lists(st.lists(PAIRS, max_size=3).map(";".join), max_size=5).map(",".join))
def test_forwarded_never_raises(chain: str) -> None:
    client_address(PEER, "forwarded", chain, lambda _: True)


@given(
    st.lists(PAIRS, max_size=4).map(",".join),
    st.ip_addresses().filter(lambda address: not TRUSTED(str(address))),
)
def test_what_a_client_sends_cannot_hide_what_a_proxy_appends(claim: str, address: object) -> None:
    """Whatever stands to the left, the trusted proxy's own entry is the client."""
    seen = plain_address(str(address))
    quoted = f'"[{seen}]"' if ":" in seen else seen
    assert client_address(PEER, "forwarded", f"{claim}, for={quoted}", TRUSTED) == seen
    assert client_address(PEER, "x-forwarded-for", f"{claim}, {seen}", TRUSTED) == seen


@pytest.mark.parametrize(
    "host",
    [
        "a",
        "a.b",
        "A-1.b",
        "a_b.c",
        "a.b.",
        "a:80",
        "a:0",
        "a:65535",
        "a:",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]",
        "[::1]:80",
        "[::ffff:1.2.3.4]",
        "xn--bcher-kva.example",
    ],
)
def test_a_host(host: str) -> None:
    assert valid_authority(host)


@pytest.mark.parametrize(
    "host",
    # The first four are what aiohttp 3.14's server lets through.
    [
        "a@evil",
        "a b",
        "a/b",
        "a?b",
        "",
        " ",
        ":80",
        ".",
        "..",
        "a..b",
        ".a",
        "a#b",
        "a\\b",
        "a,b",
        "a:b",
        "a:80:80",
        "a:65536",
        "a:123456",
        "a:-1",
        "a:+1",
        "a:8 0",
        "a:80 ",
        " a",
        "user:pw@a",
        "[::1",
        "::1",
        "[]",
        "[g::1]",
        "[1.2.3.4]",
        "[::1%25eth0]",
        "[::1]x",
        "[::1].a",
        "[v1.a]",
        "a%00",
        "a%2eb",
        "a\x00",
        "a\r\nb",
        "a\n",
        "a\t",
        "ä",
        "b\xfcch",
        "*",
        "*.a",
        "a;b",
        "a'b",
        "a<b>",
        "a" * 301,
    ],
)
def test_no_host(host: str) -> None:
    assert not valid_authority(host)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("A.Example", "a.example"),
        ("a.example:8080", "a.example"),
        ("a.example.", "a.example"),
        ("a.example.:80", "a.example"),
        ("[2001:DB8::1]:80", "[2001:db8::1]"),
        ("[::1]", "[::1]"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("", ""),
    ],
)
def test_normalises_host(authority: str, host: str) -> None:
    assert normalise_host(authority) == host


@given(st.text(max_size=20))
def test_host_functions_never_raise(text: str) -> None:
    valid_authority(text)
    normalise_host(text)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("a", True),
        ("0aZ._:/+=-", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        (None, False),
        ("a b", False),
        ("a, b", False),
        ("a\n", False),
        ("ä", False),
    ],
)
def test_request_id(text: str | None, passes: bool) -> None:
    assert valid_request_id(text) is passes


@pytest.mark.parametrize(
    ("rule", "networks", "unix", "peer", "trusted"),
    [
        ("nobody by default", [], False, "127.0.0.1", False),
        ("one address", ["192.0.2.1"], False, "192.0.2.1", True),
        ("a network", ["192.0.2.0/24"], False, "192.0.2.200", True),
        ("IPv6", ["2001:db8::/32"], False, "2001:db8:1::1", True),
        ("a zone is not looked at", ["fe80::/10"], False, "fe80::1%eth0", True),
        ("unix is not an address", ["0.0.0.0/0", "::/0"], False, "unix", False),
        ("unix where it is named", [], True, "unix", True),
        ("unix trusts no address", [], True, "127.0.0.1", False),
        ("nothing is nobody", ["::/0"], True, "", False),
    ],
)
def test_trusted_peers(
    rule: str, networks: list[str], unix: bool, peer: str, trusted: bool
) -> None:
    peers = AddressSet(AddressSet.parse(networks).networks, unix=unix)
    assert peers.holds(peer) is trusted
