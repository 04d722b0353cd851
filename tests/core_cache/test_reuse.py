"""What a stored answer may be used for (RFC 9111 §4, §4.2.4, §5.2.1; RFC 5861; RFC 8246)."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_kit import NOW, SECOND, asked, at, entry, judged

from proxy.core.cache.directives import PLAIN
from proxy.core.cache.record import CacheTerms, Stored
from proxy.core.cache.reuse import (
    ERROR_STATUSES,
    Fresh,
    Stale,
    Validate,
    decide,
    early,
    on_error,
)

BEHIND = {"stale_while_revalidate": 30 * SECOND}
STALE = Validate("stale")
ASKED = Validate("request")


def fresh(seconds):
    return Fresh(seconds * SECOND)


def stale(seconds, *, refresh):
    return Stale(seconds * SECOND, refresh)


# rule: (entry of 60 s, the request's Cache-Control, seconds later, verdict)
VERDICTS = {
    "§4.2: fresh": ({}, "", 59, fresh(59)),
    "§4.2: fresh to the last millisecond": ({}, "", 59.999, Fresh(59_999)),
    "§4.2: lifetime = age is stale": ({}, "", 60, STALE),
    "§4.2.3: the age it came with counts": ({"initial_age": 30 * SECOND}, "", 30, STALE),
    "§4.2.3: and is shown": ({"initial_age": 30 * SECOND}, "", 5, fresh(35)),
    "a clock set back": ({}, "", -5, fresh(0)),
    "§5.2.2.4: no-cache": ({"no_cache": True}, "", 1, Validate("no-cache")),
    "§5.2.2.4: no-cache, whatever the client takes": (
        {"no_cache": True}, "max-stale", 1, Validate("no-cache")),
    "§5.2.2.2: must-revalidate while fresh": ({"must_revalidate": True}, "", 59, fresh(59)),
    "§5.2.2.2: must-revalidate once stale": ({"must_revalidate": True}, "", 60, STALE),
    "§5.2.1.1: max-age reached": ({}, "max-age=10", 10, fresh(10)),
    "§5.2.1.1: max-age exceeded": ({}, "max-age=10", 10.001, ASKED),
    "§5.2.1.1: max-age=0 of a moment ago": ({}, "max-age=0", 0, fresh(0)),
    "§5.2.1.1: the age it came with counts": (
        {"initial_age": 30 * SECOND}, "max-age=20", 0, ASKED),
    "§5.2.1.1: max-age wants nothing stale": (BEHIND, "max-age=100", 61, STALE),
    "§5.2.1.1: unless it says max-stale": (
        {}, "max-age=100, max-stale=5", 61, stale(61, refresh=False)),
    "§5.2.1.1: max-age reached, and stale accepted": (
        {}, "max-age=61, max-stale=5", 61, stale(61, refresh=False)),
    "§5.2.1.1: and is not exceeded": ({}, "max-age=60, max-stale=5", 61, STALE),
    "§5.2.1.2: max-stale": ({}, "max-stale=5", 65, stale(65, refresh=False)),
    "§5.2.1.2: max-stale exceeded": ({}, "max-stale=5", 65.001, STALE),
    "§5.2.1.2: max-stale without a number": ({}, "max-stale", 10**7, stale(10**7, refresh=False)),
    "§5.2.1.2: max-stale=0 at the edge": ({}, "max-stale=0", 60, stale(60, refresh=False)),
    "§5.2.1.2: max-stale while fresh": ({}, "max-stale", 5, fresh(5)),
    "§4.2.4: must-revalidate beats max-stale": (
        {"must_revalidate": True}, "max-stale", 61, STALE),
    "§5.2.1.3: min-fresh": ({}, "min-fresh=10", 50, fresh(50)),
    "§5.2.1.3: min-fresh missed": ({}, "min-fresh=10", 50.001, ASKED),
    "§5.2.1.3: min-fresh wants nothing stale": (
        BEHIND, "min-fresh=0, max-stale", 61, STALE),
    "§5.2.1.4: no-cache": ({}, "no-cache", 1, ASKED),
    "§5.2.1.4: no-cache once stale": ({}, "no-cache, max-stale", 61, STALE),
    "§5.2.1.5: no-store may be answered": ({}, "no-store", 1, fresh(1)),
    "§5.2.1.7: only-if-cached does not ask for more": ({}, "only-if-cached", 1, fresh(1)),
    "RFC 5861 §3: within the window": (BEHIND, "", 89.999, Stale(89_999, True)),
    "RFC 5861 §3: from the moment it is stale": (BEHIND, "", 60, stale(60, refresh=True)),
    "RFC 5861 §3: after the window": (BEHIND, "", 90, STALE),
    "RFC 5861 §3: max-stale within the window": (BEHIND, "max-stale", 61, stale(61, refresh=True)),
    "RFC 5861 §3: max-stale after it": (BEHIND, "max-stale", 95, stale(95, refresh=False)),
    "RFC 5861 §4: stale-if-error is not for this": (
        {"stale_if_error": 99 * SECOND}, "stale-if-error=99", 61, STALE),
    "RFC 8246 §2: immutable and a reload": ({"immutable": True}, "max-age=0", 30, fresh(30)),
    "RFC 8246 §2: immutable and no-cache": ({"immutable": True}, "no-cache", 30, ASKED),
    "RFC 8246 §2: immutable once stale": ({"immutable": True}, "max-age=0", 60, STALE),
    "RFC 8246 §2: immutable and min-fresh": ({"immutable": True}, "min-fresh=50", 30, ASKED),
    "a lifetime of 0": ({"lifetime": 0}, "", 0, STALE),
    "a lifetime of 0 with a window": ({"lifetime": 0, **BEHIND}, "", 0, stale(0, refresh=True)),
}  # fmt: skip

KEPT = {"stale_if_error": 30 * SECOND}

# rule: (entry of 60 s, the request's Cache-Control, seconds later, after an error, without answer)
TROUBLE = {
    "§4.2.4: stale only without an answer": ({}, "", 61, False, True),
    "§4.2.4: however stale": ({}, "", 10**7, False, True),
    "RFC 5861 §4: within stale-if-error": (KEPT, "", 89.999, True, True),
    "RFC 5861 §4: after it": (KEPT, "", 90, False, True),
    "RFC 5861 §4: the request's": ({}, "stale-if-error=30", 89, True, True),
    "RFC 5861 §4: the request's exceeded": ({}, "stale-if-error=1", 61, False, True),
    "RFC 5861 §4: the longer of both": (KEPT, "stale-if-error=1", 80, True, True),
    "RFC 5861 §4: regardless of max-age": (KEPT, "max-age=0", 80, True, True),
    "RFC 5861 §4: regardless of min-fresh": (KEPT, "min-fresh=9", 80, True, True),
    "§5.2.2.2: must-revalidate": ({"must_revalidate": True}, "stale-if-error=99", 61, False, False),
    "§5.2.2.4: no-cache": ({"no_cache": True, **KEPT}, "max-stale", 5, False, False),
    "§5.2.1.4: the request's no-cache": (KEPT, "no-cache", 61, False, False),
    "§5.2.1.4: also while fresh": (KEPT, "no-cache", 5, False, False),
    "§5.2.1.4: but for its own stale-if-error": (
        {}, "no-cache, stale-if-error=9", 61, True, True),
    "§5.2.1.4: and no longer": ({}, "no-cache, stale-if-error=9", 69, False, False),
    "§4.3.3: what is fresh answers": ({}, "max-age=0", 5, True, True),
}  # fmt: skip


@pytest.mark.parametrize(("kept", "words", "later", "verdict"), VERDICTS.values(), ids=VERDICTS)
def test_the_verdict(kept, words, later, verdict):
    found = decide(entry(**kept), asked(words), NOW + round(later * SECOND))
    assert found == verdict
    assert type(found) is type(verdict)


@pytest.mark.parametrize(
    ("kept", "words", "later", "error", "silence"), TROUBLE.values(), ids=TROUBLE
)
def test_when_the_upstream_fails(kept, words, later, error, silence):
    now = NOW + round(later * SECOND)
    assert on_error(entry(**kept), asked(words), now, "error") is error
    assert on_error(entry(**kept), asked(words), now, "disconnected") is silence


def test_which_answers_are_errors():
    assert sorted(ERROR_STATUSES) == [500, 502, 503, 504]


# rule: (entry, beta, variate, seconds later, refreshed)
EARLY = {
    "XFetch: cost · beta · variate reaches what is left": ({"cost": 2000}, 1.0, 5.0, 50, True),
    "XFetch: it does not": ({"cost": 2000}, 1.0, 4.9, 50, False),
    "XFetch: beta scales": ({"cost": 2000}, 2.0, 2.5, 50, True),
    "XFetch: beta 0 is never": ({"cost": 2000}, 0.0, 99.0, 59.999, False),
    "XFetch: not once stale": ({"cost": 2000}, 1.0, 99.0, 60, False),
    "XFetch: not what is asked about anyway": ({"cost": 2000, "no_cache": True}, 1.0, 99.0, 59,
        False),
    "XFetch: what cost nothing waits": ({"cost": 0}, 1.0, 99.0, 59.999, False),
}  # fmt: skip


@pytest.mark.parametrize(("kept", "beta", "variate", "later", "due"), EARLY.values(), ids=EARLY)
def test_early(kept, beta, variate, later, due):
    assert early(entry(**kept), NOW + round(later * SECOND), beta, variate) is due


SPANS = st.integers(0, 100)
MAYBE = st.none() | SPANS


@st.composite
def responses(draw):
    """A response's directives by name; True is a flag."""
    said = {name: draw(MAYBE) for name in ("max-age", "s-maxage")}
    said |= {name: draw(MAYBE) for name in ("stale-while-revalidate", "stale-if-error")}
    said |= {
        name: draw(st.sampled_from([None, None, None, True]))
        for name in ("no-cache", "must-revalidate", "proxy-revalidate", "immutable", "public")
    }
    return {name: value for name, value in said.items() if value is not None}


@st.composite
def requests(draw):
    said = {
        name: draw(st.none() | st.none() | SPANS)
        for name in ("max-age", "max-stale", "min-fresh", "stale-if-error")
    }
    said["no-cache"] = draw(st.sampled_from([None, None, None, True]))
    if draw(st.booleans()) and said["max-stale"] is not None:
        said["max-stale"] = True
    return {name: value for name, value in said.items() if value is not None}


def in_ms(said):
    return {name: value if value is True else value * 1000 for name, value in said.items()}


def written(said):
    return ", ".join(name if value is True else f"{name}={value}" for name, value in said.items())


# Milliseconds; whole seconds often, as that is where verdicts change.
LATER = st.integers(0, 300).map(lambda second: second * 1000) | st.integers(0, 300_000)


class Model:
    """RFC 9111's sentences one by one, on the directives as said; slow and plain."""

    def __init__(self, said, age, request, later):
        self.said, self.request = in_ms(said), in_ms(request)
        self.age = age * 1000 + later
        lifetime = self.said.get("s-maxage", self.said.get("max-age", 0))
        self.staleness = self.age - lifetime  # negative while fresh

    def prohibited(self):
        """§4.2.4, first paragraph."""
        said = self.said
        return any(
            [
                "no-cache" in said,
                "must-revalidate" in said,
                "proxy-revalidate" in said,
                "s-maxage" in said,
            ]
        )

    def unwanted(self):
        """What the client prefers not to get without validation (§5.2.1)."""
        request, reasons = self.request, []
        if "no-cache" in request:
            reasons.append("no-cache")
        if "max-age" in request:
            excused = "immutable" in self.said and self.staleness < 0
            if self.age > request["max-age"] and not excused:
                reasons.append("too old")
            if self.staleness >= 0 and "max-stale" not in request:
                reasons.append("stale, and only max-stale would accept that")
        if "min-fresh" in request and -self.staleness < request["min-fresh"]:
            reasons.append("not fresh for long enough")
        if "min-fresh" in request and self.staleness >= 0:
            reasons.append("not fresh at all")
        return reasons

    def stale_accepted(self):
        said, request = self.said, self.request
        behind = self.staleness < said.get("stale-while-revalidate", 0)
        taken = request.get("max-stale")
        return behind or taken is True or (taken is not None and self.staleness <= taken)

    def usable(self):
        """Without asking the origin."""
        if "no-cache" in self.said or self.unwanted():
            return False
        return self.staleness < 0 or (not self.prohibited() and self.stale_accepted())

    def survives(self, accident):
        """After an accident at the origin."""
        if self.prohibited():
            return False
        asked = self.request.get("stale-if-error", 0)
        if "no-cache" in self.request:
            return asked > 0 and self.staleness < asked
        if accident == "disconnected" or self.staleness < 0:
            return True
        return self.staleness < max(asked, self.said.get("stale-if-error", 0))


@given(responses(), st.integers(0, 50), requests(), LATER)
def test_the_verdict_is_the_models(said, age, request, later):
    kept = stored_of(said, age)
    model = Model(said, age, request, later)
    verdict = decide(kept, asked(written(request)), NOW + later)
    assert isinstance(verdict, Fresh | Stale) is model.usable()
    match verdict:
        case Fresh(shown):
            assert model.staleness < 0
            assert shown == model.age
        case Stale(shown, refresh):
            assert model.staleness >= 0
            assert shown == model.age
            assert refresh is (model.staleness < model.said.get("stale-while-revalidate", 0))
        case Validate(why):
            expected = "request" if model.staleness < 0 else "stale"
            assert why == ("no-cache" if "no-cache" in said else expected)


@given(
    responses(), st.integers(0, 50), requests(), LATER, st.sampled_from(["error", "disconnected"])
)
def test_surviving_an_error_is_the_models(said, age, request, later, accident):
    model = Model(said, age, request, later)
    found = on_error(stored_of(said, age), asked(written(request)), NOW + later, accident)
    assert found is model.survives(accident)


def stored_of(said, age):
    """The record of a response that said this, of that age; it can always be asked about."""
    found = judged('ETag: "a"', f"Date: {at(0)}", f"Age: {age}", f"Cache-Control: {written(said)}")
    assert isinstance(found, Stored)
    return found


@given(responses(), requests(), LATER, LATER)
def test_time_only_takes_away(said, request, one, other):
    """What cannot be used now cannot be used later, whatever the reason."""
    sooner, later = sorted([one, other])
    kept, words = stored_of(said, 0), asked(written(request))
    rank = {Fresh: 2, Stale: 1, Validate: 0}
    before, after = decide(kept, words, NOW + sooner), decide(kept, words, NOW + later)
    assert rank[type(before)] >= rank[type(after)]
    for accident in ("error", "disconnected"):
        assert on_error(kept, words, NOW + sooner, accident) >= on_error(
            kept, words, NOW + later, accident
        )


@given(responses(), requests(), LATER)
def test_a_request_without_directives_gets_what_any_other_gets(said, request, later):
    """No directive makes a fresh answer of a stale one; only max-stale accepts more."""
    kept = stored_of(said, 0)
    plain = decide(kept, PLAIN, NOW + later)
    other = decide(kept, asked(written(request)), NOW + later)
    if isinstance(plain, Validate):
        assert isinstance(other, Validate) or "max-stale" in request
    assert not isinstance(other, Fresh) or isinstance(plain, Fresh)


@given(responses(), LATER, st.floats(0, 10), st.floats(0, 50))
def test_early_is_for_fresh_answers_only_and_likelier_with_time(said, later, beta, variate):
    kept = stored_of(said, 0)
    kept.cost = 700
    due = early(kept, NOW + later, beta, variate)
    if due:
        assert isinstance(decide(kept, PLAIN, NOW + later), Fresh)
        # Until it is stale the chance only grows.
        assert early(kept, NOW + kept.lifetime - 1, beta, variate) or later >= kept.lifetime
    assert not early(kept, NOW + later, 0.0, variate)


def test_early_chance_is_exponential():
    """P(refresh) = P(−ln U · cost ≥ left): of 1000 evenly spread U as many as exp(−left/cost)."""
    kept = entry(cost=5000)
    chances = [-math.log((n + 0.5) / 1000) for n in range(1000)]
    due = sum(early(kept, NOW + 50 * SECOND, 1.0, chance) for chance in chances)
    assert due == round(1000 * math.exp(-2))


def test_the_policys_windows_reach_the_verdict():
    terms = CacheTerms(stale_while_revalidate=9 * SECOND, stale_if_error=20 * SECOND)
    kept = judged("Cache-Control: max-age=60", terms=terms)
    assert decide(kept, PLAIN, NOW + 68 * SECOND) == stale(68, refresh=True)
    assert decide(kept, PLAIN, NOW + 69 * SECOND) == STALE
    assert on_error(kept, PLAIN, NOW + 79 * SECOND, "error")
    assert not on_error(kept, PLAIN, NOW + 80 * SECOND, "error")
