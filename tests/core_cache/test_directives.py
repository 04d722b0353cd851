"""Cache-Control and CDN-Cache-Control as they are read (RFC 9111 §5.2, 9213, 5861, 8246)."""

from dataclasses import asdict

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_kit import SECOND, fields

from proxy.core.cache.directives import (
    MOST,
    NOTHING,
    PLAIN,
    UNLIMITED,
    delta_seconds,
    read_request,
    read_response,
)
from proxy.core.fields import Fields

OFTEN = {"max_age": 60 * SECOND}


def given_in(directives, default):
    """What differs from saying nothing, as a dict."""
    usual = asdict(default)
    return {name: value for name, value in asdict(directives).items() if value != usual[name]}


# rule: (Cache-Control lines, what is given)
RESPONSES = {
    "no field": ([], {}),
    "an empty field": ([""], {}),
    "max-age": (["max-age=60"], OFTEN),
    "every flag": (
        ["no-store, no-cache, private, public, must-revalidate, proxy-revalidate",
         "must-understand, immutable"],
        {"no_store": True, "no_cache": True, "private": True, "public": True,
         "must_revalidate": True, "proxy_revalidate": True, "must_understand": True,
         "immutable": True}),
    "every span": (
        ["s-maxage=1, max-age=2, stale-while-revalidate=3, stale-if-error=4"],
        {"s_maxage": 1000, "max_age": 2000, "stale_while_revalidate": 3000,
         "stale_if_error": 4000}),
    "§5.2: names in any case": (["MaX-aGe=60"], OFTEN),
    "§5.2: flags in any case": (["No-StOrE"], {"no_store": True}),
    "§5.2: a quoted number": (['max-age="60"'], OFTEN),
    "§5.2: a quoted number with escapes": (['max-age="6\\0"'], OFTEN),
    "§5.2: a token for field names": (["private=Set-Cookie"], {"withheld": {"set-cookie"}}),
    "§5.2.3: unknown directives": (["foobar, max-age=60, x=1"], OFTEN),
    "RFC 9110 §5.3: lines are one list": (
        ["max-age=60", "public", "no-cache"], {**OFTEN, "public": True, "no_cache": True}),
    "RFC 9110 §5.6.1: empty members": ([",, max-age=60 ,\t,"], OFTEN),
    "no whitespace": (["public,max-age=60"], {**OFTEN, "public": True}),
    "§1.2.2: leading zeros": (["max-age=0000000000060"], OFTEN),
    "§1.2.2: 2^31 is the most": (["max-age=2147483649"], {"max_age": MOST}),
    "§1.2.2: far too many digits": ([f"max-age={'9' * 5000}"], {"max_age": MOST}),
    "§4.2.1: the first of several": (["max-age=60, max-age=1"], OFTEN),
    "§4.2.1: the first line's": (["max-age=1", "max-age=60"], {"max_age": 1000}),
    "§4.2.1: the first, though it is broken": (["max-age=x, max-age=60"], {"max_age": 0}),
    "§4.2.1: not a number is stale": (["max-age=abc"], {"max_age": 0}),
    "§4.2.1: letters before": (["max-age=a3600"], {"max_age": 0}),
    "§4.2.1: letters after": (["max-age=3600a"], {"max_age": 0}),
    "§4.2.1: negative is stale": (["max-age=-100"], {"max_age": 0}),
    "§4.2.1: a decimal is stale": (["max-age=3600.0"], {"max_age": 0}),
    "§4.2.1: single quotes are stale": (["max-age='3600'"], {"max_age": 0}),
    "§4.2.1: no number is stale": (["max-age"], {"max_age": 0}),
    "§4.2.1: an empty number is stale": (["max-age="], {"max_age": 0}),
    "§4.2.1: a space before = is stale": (["max-age =3600"], {"max_age": 0}),
    "§4.2.1: a space after = is stale": (["max-age= 3600"], {"max_age": 0}),
    "§4.2.1: a broken s-maxage hides no max-age": (
        ["s-maxage=x, max-age=60"], {**OFTEN, "s_maxage": 0}),
    "digits of another script": (["max-age=\xb2"], {"max_age": 0}),
    "RFC 5861: a broken allowance is none": (["stale-if-error=x"], {"stale_if_error": 0}),
    "nothing is found in a quoted string": (['ext="max-age=3600"'], {}),
    "nor across its commas": (['ext="a, no-store, max-age=999", max-age=60'], OFTEN),
    "nor after it": (['max-age=60, ext="a, max-age=1"'], OFTEN),
    "nor behind an escaped quote": (['ext="\\", max-age=999, \\"", max-age=60'], OFTEN),
    "nor over two lines": (['ext="a', 'no-store"'], {}),
    "a quoted string within a token": (['ext=a"b, no-store", max-age=60'], OFTEN),
    "a field that breaks off forbids": (['max-age=60, ext="a, private'], {**OFTEN,
        "no_store": True}),
    "also in an escape": (['ext="\\'], {"no_store": True}),
    "and no permission saves it": (['must-understand, ext="'], {"no_store": True}),
    "a prohibition with an argument": (["no-store=1"], {"no_store": True}),
    "a prohibition with nonsense": (["no-store;x no-cache"], {"no_store": True}),
    "a permission with nonsense is none": (["public;x, immutable x, must-understand ?"], {}),
    "RFC 8246: immutable with an argument": (["immutable=x"], {"immutable": True}),
    "§5.2.2.7: private fields": (['private="A, b"'], {"withheld": {"a", "b"}}),
    "§5.2.2.4: no-cache fields": (['no-cache="a"', 'no-cache="b"'], {"withheld": {"a", "b"}}),
    "§5.2.2.7: private of both kinds": (
        ['private="a", private'], {"withheld": {"a"}, "private": True}),
    "no names: the whole response": (['private=""'], {"private": True}),
    "commas only: the whole response": (['no-cache=" , "'], {"no_cache": True}),
    "a name that is none: the whole response": (['private="a b"'], {"private": True}),
    "names without quotes' end: the whole response": (["private=a=b"], {"private": True}),
    "the cache's own fields: the whole response": (['private="a, Vary"'], {"private": True}),
    "longer than what is remembered": ([f"{'x' * 200}, max-age=60"], OFTEN),
    "§5.4: Pragma of a response is nothing": (["Pragma: no-cache"], {}),
}  # fmt: skip

# rule: (CDN-Cache-Control, what is given; None: as if it were absent)
TARGETED = {
    "an integer": ("max-age=60", OFTEN),
    "every directive": (
        "s-maxage=1, max-age=2, stale-while-revalidate=3, stale-if-error=4, no-store, public",
        {"s_maxage": 1000, "max_age": 2000, "stale_while_revalidate": 3000,
         "stale_if_error": 4000, "no_store": True, "public": True}),
    "flags": ("no-cache, private, must-revalidate", {
        "no_cache": True, "private": True, "must_revalidate": True}),
    "field names": ('private="A, b"', {"withheld": {"a", "b"}}),
    "field names of no kind": ('no-cache="a b"', {"no_cache": True}),
    "a token is not a string: the whole": ("private=a", {"private": True}),
    "parameters are ignored": ("max-age=60;foo=1", OFTEN),
    "unknown directives are ignored": ("foobar, max-age=60", OFTEN),
    "the last of several": ("max-age=1, max-age=60", OFTEN),
    "over the most": ("max-age=99999999999", {"max_age": MOST}),
    "negative is stale": ("max-age=-5", {"max_age": 0}),
    "false is not said": ("no-store=?0, max-age=60", OFTEN),
    "nothing that is known: still decides": ("none", {}),
    "longer than what is remembered": (f"{'x' * 200}, max-age=60", OFTEN),
    "§2.1: empty": ("", None),
    "§2.1: a string is no integer": ('max-age="10000"', None),
    "§2.1: a decimal is no integer": ("max-age=60.5", None),
    "§2.1: a boolean is no integer": ("max-age", None),
    "§2.1: an upper-case key": ("MaX-aGe=3600", None),
    "§2.1: a space before =": ("max-age =100", None),
    "§2.1: a space after =": ("max-age= 100", None),
    "§2.1: an unknown type": ("max-age=10000, &&&&&", None),
    "§2.1: a trailing comma": ("max-age=60,", None),
    "§2.1: an integer of 16 digits": ("max-age=1234567890123456", None),
    "§2.1: an open string": ('max-age=60, a="', None),
    "§2.1: not ASCII": ("max-age=60, \xe4", None),
}  # fmt: skip

# rule: (request lines, what is given)
REQUESTS = {
    "no field": ([], {}),
    "max-age": (["Cache-Control: max-age=60"], OFTEN),
    "max-age=0": (["Cache-Control: max-age=0"], {"max_age": 0}),
    "min-fresh and max-stale": (
        ["Cache-Control: min-fresh=5, max-stale=6"], {"min_fresh": 5000, "max_stale": 6000}),
    "§5.2.1.2: max-stale without a number": (
        ["Cache-Control: max-stale"], {"max_stale": UNLIMITED}),
    "flags, in any case": (
        ["Cache-Control: No-Cache, no-store, ONLY-if-cached"],
        {"no_cache": True, "no_store": True, "only_if_cached": True}),
    "RFC 5861 §4: stale-if-error": (["Cache-Control: stale-if-error=9"], {"stale_if_error": 9000}),
    "lines are one list": (["Cache-Control: no-cache", "Cache-Control: max-age=60"],
        {**OFTEN, "no_cache": True}),
    "unknown ones": (["Cache-Control: no-transform, foo=1"], {}),
    "not in quotes": (['Cache-Control: ext="no-cache, max-age=0"'], {}),
    "the first of several": (["Cache-Control: max-age=60, max-age=0"], OFTEN),
    "a broken max-age asks for validation": (["Cache-Control: max-age=x"], {"max_age": 0}),
    "a broken allowance is none": (
        ["Cache-Control: max-stale=x, min-fresh=y, stale-if-error=-1"], {}),
    "a field that breaks off says nothing more": (['Cache-Control: x=", no-cache'], {}),
    "§5.4: Pragma alone": (["Pragma: foo, No-Cache"], {"no_cache": True}),
    "§5.4: Pragma of another kind": (["Pragma: foo"], {}),
    "§5.4: Pragma beside Cache-Control": (["Pragma: no-cache", "Cache-Control: max-age=60"], OFTEN),
    "§5.4: Pragma beside an empty Cache-Control": (["Pragma: no-cache", "Cache-Control:"], {}),
    "longer than what is remembered": ([f"Cache-Control: max-age=60, {'x' * 200}"], OFTEN),
}  # fmt: skip


def lines(values):
    return fields(*(v if v.startswith("Pragma:") else f"Cache-Control: {v}" for v in values))


@pytest.mark.parametrize(("values", "expected"), RESPONSES.values(), ids=RESPONSES)
def test_response_directives(values, expected):
    assert given_in(read_response(lines(values)), NOTHING) == expected


@pytest.mark.parametrize(("value", "expected"), TARGETED.values(), ids=TARGETED)
def test_targeted_directives(value, expected):
    response = fields(f"CDN-Cache-Control: {value}", "Cache-Control: max-age=7, public")
    read = given_in(read_response(response), NOTHING)
    if expected is None:
        assert read == {"max_age": 7000, "public": True}
    else:
        assert read == {**expected, "targeted": True}


def test_targeted_lines_are_one_dictionary():
    read = read_response(fields("CDN-Cache-Control: max-age=60", "CDN-Cache-Control: private"))
    assert given_in(read, NOTHING) == {**OFTEN, "private": True, "targeted": True}


def test_other_targets_are_not_ours():
    assert read_response(fields("ExampleCDN-Cache-Control: max-age=60")) is NOTHING


@pytest.mark.parametrize(("values", "expected"), REQUESTS.values(), ids=REQUESTS)
def test_request_directives(values, expected):
    assert given_in(read_request(fields(*values)), PLAIN) == expected


@pytest.mark.parametrize("values", [[], ["Cache-Control: foo"], ["Pragma: x"]])
def test_a_request_without_directives_is_the_plain_one(values):
    assert read_request(fields(*values)) is PLAIN


def test_delta_seconds_never_overflow():
    assert delta_seconds("2147483647") == MOST - 1000
    assert delta_seconds("2147483648") == MOST
    assert delta_seconds("0" * 100 + "7") == 7000
    assert delta_seconds("") is None


NAMES = st.sampled_from(
    ["no-store", "private", "no-cache", "public", "max-age", "s-maxage", "x", "must-understand"]
)
GARBAGE = st.text(st.characters(max_codepoint=255), max_size=20)
PIECES = st.lists(
    NAMES | st.sampled_from([",", "=", '"', "\\", " ", ";", "1", "60", "\t"]) | GARBAGE,
    max_size=12,
).map("".join)


@given(PIECES)
def test_no_text_raises(text):
    for name in ("Cache-Control", "CDN-Cache-Control", "Pragma"):
        both = Fields([(name, text)])
        for span in (read_response(both).max_age, read_request(both).max_age):
            assert span is None or 0 <= span <= MOST


@given(PIECES, PIECES)
def test_a_quoted_string_hides_what_is_in_it(before, hidden):
    """Whatever stands in a well-formed quoted string changes nothing."""
    quoted = '"' + hidden.replace("\\", "\\\\").replace('"', '\\"') + '"'
    seen = read_response(Fields([("Cache-Control", f"x={quoted}, {before}")]))
    assert seen == read_response(Fields([("Cache-Control", f"x=y, {before}")]))


@given(st.lists(st.sampled_from(["no-store", "private", "no-cache", "public"]), max_size=4), PIECES)
def test_a_prohibition_is_found_wherever_it_stands(words, rest):
    """Nothing that follows takes back what was said; nothing before, unless it opens a quote."""
    read = read_response(Fields([("Cache-Control", ", ".join([*words, rest]))]))
    assert read.no_store >= ("no-store" in words)
    assert read.private >= ("private" in words)
    assert read.no_cache >= ("no-cache" in words)


@given(st.lists(st.tuples(NAMES, st.integers(-5, 10**9) | st.booleans()), max_size=5))
def test_targeted_fields_agree_with_the_plain_syntax(members):
    """Where both can be written, both say the same."""
    spans = {"max-age", "s-maxage"}
    chosen = {
        name: value
        for name, value in members
        if (type(value) is int and value >= 0 if name in spans else value is True)
    }
    text = http_sf.ser(chosen) if chosen else "x"
    targeted = given_in(read_response(fields(f"CDN-Cache-Control: {text}")), NOTHING)
    assert targeted.pop("targeted")
    assert targeted == given_in(read_response(fields(f"Cache-Control: {text}")), NOTHING)
