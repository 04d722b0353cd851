"""Vary: names, normalised values, and which of several variants a request selects."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests_kit import NOW, request, stored

from proxy.core.cache import vary
from proxy.core.cache.seen import Seen
from proxy.core.fields import Fields, Lines


@pytest.mark.parametrize(
    ("rule", "lines", "names"),
    [
        ("none", [], ()),
        ("one", ["Accept"], ("accept",)),
        ("several, sorted, each once", ["b, A ,b"], ("a", "b")),
        ("several lines", ["a", "b"], ("a", "b")),
        ("empty members do not exist", [", a,,"], ("a",)),
        ("an empty field names nothing", [""], ()),
        ("* never matches", ["*"], None),
        ("* as any member", ["a, *"], None),
        ("* as the first member", ["*, a"], None),
        ("* behind an empty member", [", *"], None),
        ("* on another line", ["a", "*"], None),
        ("what is no name never matches", ["Accept Cookie"], None),
        ("a name with * in it is a name", ["*a"], ("*a",)),
    ],
)
def test_names(rule: str, lines: list[str], names: tuple[str, ...] | None) -> None:
    assert vary.names(Fields([("Vary", line) for line in lines])) == names, rule


# The rule, the field, what was stored, what is asked: does it match?
@pytest.mark.parametrize(
    ("rule", "name", "one", "other", "same"),
    [
        ("equal", "x", ["a"], ["a"], True),
        ("not equal", "x", ["a"], ["b"], False),
        ("absent matches absent", "x", [], [], True),
        ("absent is not empty", "x", [], [""], False),
        ("values have case", "x", ["a"], ["A"], False),
        ("lines are joined", "x", ["1", "2"], ["1, 2"], True),
        ("whitespace around commas", "x", ["1,2"], ["1 ,\t 2"], True),
        ("not within a value", "x", ["1 2"], ["1  2"], False),
        ("not within quotes", "x", ['"1,2"'], ['"1, 2"'], False),
        ("behind quotes again", "x", ['"1" ,2'], ['"1",2'], True),
        ("an escaped quote does not end one", "x", ['"\\",2"'], ['"\\", 2"'], False),
        ("an open quote is left alone", "x", ['"1,2'], ['"1, 2'], False),
        ("empty members stay", "x", ["1,,2"], ["1,2"], False),
        ("order counts", "x", ["1,2"], ["2,1"], False),
        ("no list has no list's commas", "user-agent", ["a,b"], ["a, b"], False),
        ("nor has Cookie", "cookie", ["a=1,2"], ["a=1, 2"], False),
        ("case of codings", "accept-encoding", ["GZip"], ["gzip"], True),
        ("a weight of 1 is none", "accept-encoding", ["gzip;q=1.0, br"], ["gzip,br"], True),
        ("writings of a weight", "accept-encoding", ["br;q=0.50"], ["br ; Q=0.5"], True),
        ("weights differ", "accept-encoding", ["br;q=0.5"], ["br;q=0.51"], False),
        ("a weight of 0", "accept-encoding", ["br;q=0"], ["br;q=0.000"], True),
        ("refused is not accepted", "accept-encoding", ["br;q=0"], ["br"], False),
        ("order between weights", "accept-language", ["de;q=0.5,en"], ["en, de;q=0.5"], True),
        ("order between equals counts", "accept-language", ["en, de"], ["de, en"], False),
        ("case of languages", "accept-language", ["en-GB"], ["EN-gb"], True),
        ("empty members", "accept-language", ["en,,de,"], ["en, de"], True),
        ("empty is not absent", "accept-encoding", [""], [], False),
        ("empty is not identity", "accept-encoding", [""], ["identity"], False),
        ("a weight above 1 is no weight", "accept-encoding", ["br;q=1.5"], ["BR;q=1.5"], False),
        ("nor is one of four digits", "accept-encoding", ["br;q=0.5000"], ["br;q=0.5"], False),
        ("another parameter stays", "accept-language", ["en;x=1"], ["en"], False),
        ("long values are read alike", "accept-language",
         ["en, " + ", ".join(f"l{n};q=0.5" for n in range(60))],
         [", ".join(f"L{n} ; q=0.50" for n in range(60)) + ", en"], True),
    ],
)  # fmt: skip
def test_what_matches(rule: str, name: str, one: list[str], other: list[str], same: bool) -> None:
    kept = vary.values((name,), Fields([(name, line) for line in one]))
    asked = Fields([(name, line) for line in other])
    assert vary.matches(kept, asked) is same, rule
    assert (vary.values((name,), asked) == kept) is same, rule


@pytest.mark.parametrize("name", ["accept-encoding", "x-list", "cookie"])
def test_a_long_value_is_kept_as_a_digest(name: str) -> None:
    long = ",".join(f"l{n}" for n in range(5000))
    kept = vary.values((name,), Fields([(name, long)]))
    assert len(str(kept)) < 100
    assert vary.matches(kept, Fields([(name, long)]))
    for other in ([(name, long + "x")], [(name, str(kept[0][1])[1:])], []):
        assert not vary.matches(kept, Fields(other))
    if name != "cookie":
        assert vary.matches(kept, Fields([(name, long.replace(",", " , "))]))


@pytest.mark.parametrize("name", ["accept-encoding", "x-list"])
def test_a_long_value_is_read_once_however_many_variants_there_are(name: str) -> None:
    """Or one client holds up all others, with as many variants as there may be, and long values."""

    def sent(number: int) -> Fields:
        return Fields([(name, ",".join(f"l{n} ;q=0.5" for n in range(4000)) + f",{number}")])

    def seconds(variants: int) -> float:
        kept = [vary.values((name,), sent(number)) for number in range(variants)]
        took = []
        for turn in range(5):
            asked = sent(1000 * variants + turn)
            began = time.thread_time()
            found = [vary.matches(pairs, asked) for pairs in kept]
            took.append(time.thread_time() - began)
            assert not any(found)
        return min(took)

    assert seconds(64) < 8 * seconds(1)


def test_every_named_field_must_match() -> None:
    kept = vary.values(("a", "b"), Fields([("A", "1")]))
    assert kept == (("a", "1"), ("b", None))
    assert vary.matches(kept, Fields([("A", "1"), ("C", "3")]))
    assert not vary.matches(kept, Fields([("A", "1"), ("B", "")]))


def test_what_connection_takes_off_is_absent() -> None:
    """Or the answer for no language would be kept as the answer for the one that was named."""
    lines = [("Accept-Language", "fr"), ("Connection", "accept-language")]
    kept = vary.values(("accept-language",), Seen(request("/a", lines)))
    assert kept == (("accept-language", None),)


def test_what_the_gateway_writes_can_be_varied_on() -> None:
    kept = vary.values(("x-forwarded-for", "x-forwarded-proto"), Seen(request("/a")))
    assert kept == (("x-forwarded-for", "192.0.2.9"), ("x-forwarded-proto", "http"))


EN = (("accept-language", "en"),)
DE = (("accept-language", "de"),)


def test_each_variant_is_judged_by_its_own_vary() -> None:
    english = stored(vary=EN)
    german = stored(vary=DE)
    gzip = stored(vary=(("accept-encoding", "gzip"), ("accept-language", "fr")))
    variants = [english, german, gzip]

    def select(*lines: tuple[str, str]) -> object:
        return vary.select(variants, Fields(lines), "GET")

    assert select(("Accept-Language", "en")) is english
    assert select(("Accept-Language", "de"), ("Accept-Encoding", "gzip")) is german
    assert select(("Accept-Language", "fr"), ("Accept-Encoding", "gzip")) is gzip
    assert select(("Accept-Language", "fr")) is None


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("rule", "best", "other"),
    [
        ("the most recent by Date", {"date": NOW}, {"date": NOW - 1, "received": NOW + 9}),
        ("of one second the last received", {"received": NOW}, {"received": NOW - 1}),
        ("those with Vary first", {"vary": EN, "date": NOW - 9}, {"date": NOW}),
    ],
)
def test_of_several_matches(
    rule: str, best: dict[str, int], other: dict[str, int], turned: bool
) -> None:
    expected = stored(**best)
    variants = [expected, stored(**other)]
    found = vary.select(
        variants[::-1] if turned else variants, Fields([("accept-language", "en")]), "GET"
    )
    assert found is expected, rule


def test_what_head_brought_answers_head_alone() -> None:
    head = stored(method="HEAD")
    got = stored(date=NOW - 1)
    assert vary.select([head], Fields(), "GET") is None
    assert vary.select([head], Fields(), "HEAD") is head
    assert vary.select([head, got], Fields(), "GET") is got
    assert vary.select([got], Fields(), "HEAD") is got


texts = st.text(alphabet='ab,;q=01.5 \t"\\*', max_size=25).map(lambda text: text.strip(" \t"))
fields = st.sampled_from(["x", "accept-encoding", "accept-language", "user-agent"])


@given(fields, texts)
def test_normalising_twice_changes_nothing(name: str, value: str) -> None:
    once = vary.normalised(name, value)
    assert vary.normalised(name, once) == once


@given(texts, texts)
def test_only_whitespace_and_nothing_else_is_lost(one: str, other: str) -> None:
    """For a field that the cache knows nothing of."""
    if vary.normalised("x", one) == vary.normalised("x", other):
        squeezed = [text.replace(" ", "").replace("\t", "") for text in (one, other)]
        assert squeezed[0] == squeezed[1]


weighted = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]), st.sampled_from(["", "0", "0.5", "0.50", "1", "1.0"])
    ),
    max_size=4,
)


@given(weighted, weighted)
def test_weighted_lists_are_equal_where_they_mean_the_same(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    def meaning(members: list[tuple[str, str]]) -> list[tuple[str, float]]:
        read = [(name, float(weight or 1)) for name, weight in members]
        return sorted(read, key=lambda member: -member[1])

    def text(members: list[tuple[str, str]]) -> str:
        return ", ".join(name + (f";q={weight}" if weight else "") for name, weight in members)

    same = meaning(one) == meaning(other)
    found = [vary.normalised("accept-language", text(members)) for members in (one, other)]
    assert (found[0] == found[1]) is same


@given(st.lists(st.text(alphabet="ab*, \t\xff", max_size=8), max_size=3))
def test_any_vary_can_be_read(lines: list[str]) -> None:
    response: Lines = [("Vary", line) for line in lines]
    found = vary.names(Fields(response))
    members = [member.strip(" \t") for line in lines for member in line.split(",")]
    assert (found is None) == any(m == "*" or set(m) & set(" \t\xff") for m in members)
