"""Worked examples, one row per rule."""

import pytest
from breaker_kit import (
    BIG,
    BOTH,
    CLOSED,
    HALF_OPEN,
    ODD_RATE,
    OFF,
    ONE,
    OPEN,
    QUICK,
    RATE,
    ROW,
    SLOW,
    TWO,
    TWO_SLOW,
    Script,
)


def five(second):
    return [(second, "fail", CLOSED)] * 4 + [(second, "fail", OPEN)]


# rule: (terms, [(clock, what happens, state after it)]). "good", "slow" and "fail" are requests
# that end at once; "ask x" one that is let through and ends later, by "good x", "neutral x", …;
# "refused" one that is not let through. Without jitter.
TABLE = {
    # A row of failures
    "the fifth failure in a row opens": (ROW, five(0)),
    "a success ends the row": (
        ROW, [*five(0)[:4], (0, "good", CLOSED), *five(0)],
    ),
    "a slow success ends the row, for it is one": (
        ROW, [*five(0)[:4], (0, "slow", CLOSED), *five(0)],
    ),
    "a neutral end neither adds to the row nor ends it": (
        ROW,
        [(0, "ask a", CLOSED), *five(0)[:4], (0, "neutral a", CLOSED), (0, "fail", OPEN)],
    ),
    "a row has no window: failures hours apart are in a row": (
        ROW, [(hour * 3600, "fail", CLOSED) for hour in range(4)] + [(14400, "fail", OPEN)],
    ),
    "consecutive_failures: 0 is off": (OFF, [(0, "fail", CLOSED)] * 50),
    "requests that were let through together fail together": (
        ROW,
        [*((0, f"ask {name}", CLOSED) for name in "abcdef"),
         *((1, f"fail {name}", CLOSED) for name in "abcd"), (1, "fail e", OPEN),
         (1, "fail f", OPEN)],
    ),
    # Rates
    "failure_rate opens where it is reached, not where it is passed": (
        RATE, [(0, "good", CLOSED), (0, "good", CLOSED), (0, "fail", CLOSED), (0, "fail", OPEN)],
    ),
    "below minimum_requests no rate is judged": (RATE, [(0, "fail", CLOSED)] * 3),
    "below the rate it stays closed": (
        RATE, [(0, "good", CLOSED)] * 3 + [(0, "fail", CLOSED)] * 2 + [(0, "fail", OPEN)],
    ),
    "the minimum_requests-th result is judged, be it a success": (
        RATE, [(0, "fail", CLOSED), (0, "good", CLOSED), (0, "fail", CLOSED), (0, "good", OPEN)],
    ),
    "neutral ends are no requests": (
        RATE,
        [(0, "ask a", CLOSED), (0, "fail", CLOSED), (0, "fail", CLOSED), (0, "good", CLOSED),
         (0, "neutral a", CLOSED), (0, "good", OPEN)],
    ),
    "7 of 50 is 14 %, though 0.14 * 50 is more than 7": (
        ODD_RATE, [(0, "good", CLOSED)] * 43 + [(0, "fail", CLOSED)] * 6 + [(0, "fail", OPEN)],
    ),
    "6 of 50 is not": (ODD_RATE, [(0, "good", CLOSED)] * 44 + [(0, "fail", CLOSED)] * 6),
    "slow_rate opens where it is reached": (
        SLOW, [(0, "good", CLOSED)] * 2 + [(0, "slow", CLOSED), (0, "slow", OPEN)],
    ),
    "a slow answer is no failure": (RATE, [(0, "slow", CLOSED)] * 50),
    "a failure is not slow": (SLOW, [(0, "fail", CLOSED)] * 50),
    "failures and slow answers are not added up": (
        BOTH, [(0, "good", CLOSED)] * 4 + [(0, "slow", CLOSED), (0, "fail", CLOSED)] * 2,
    ),
    "slow_rate 0 is off": (OFF, [(0, "slow", CLOSED)] * 50),
    "exactly slow_after is not slow": (SLOW, [(0, "2s", CLOSED)] * 50),
    "a 101 or an event stream is never slow": (SLOW, [(0, "timeless", CLOSED)] * 50),
    # The window: ten seconds of the clock
    "a result of the window's first second counts": (
        RATE, [(0.9, "fail", CLOSED)] * 3 + [(9.9, "fail", OPEN)],
    ),
    "one of the second before does not, though 10 s have not passed": (
        RATE, [(0.9, "fail", CLOSED)] * 3 + [(10, "fail", CLOSED)],
    ),
    "it falls out with the first instant of the eleventh second": (
        RATE, [(0.9, "fail", CLOSED)] * 2 + [(9.9, "fail", CLOSED), (10, "fail", CLOSED)],
    ),
    "fallen out, it is no longer in the share": (
        RATE, [(0, "fail", CLOSED)] * 3 + [(10, "good", CLOSED)] * 4,
    ),
    "failures fall out one second at a time": (
        RATE,
        [(0, "fail", CLOSED), (1, "fail", CLOSED), (2, "fail", CLOSED), (11, "fail", CLOSED),
         (11, "fail", CLOSED), (11, "fail", OPEN)],
    ),
    "successes fall out too: then the next result is judged by what is left": (
        RATE,
        [(0, "good", CLOSED)] * 4 + [(5, "fail", CLOSED)] * 3 + [(10, "good", OPEN)],
    ),
    "after a day without requests the window is empty": (
        RATE, [(5, "fail", CLOSED)] * 3 + [(86405, "fail", CLOSED)] * 3 + [(86405, "fail", OPEN)],
    ),
    # Broken bodies
    "a body that breaks off adds one failure": (
        ROW,
        [(0, "ask a", CLOSED), (0, "good a", CLOSED), *five(1)[:4], (1, "broke a", OPEN)],
    ),
    "it is a request of its own in the rate": (
        RATE,
        [(0, "ask a", CLOSED), (0, "ask b", CLOSED), (0, "good a", CLOSED), (0, "good b", CLOSED),
         (1, "broke a", CLOSED), (1, "broke b", OPEN)],
    ),
    "one from before the trip adds none": (
        ONE,
        [(0, "ask a", CLOSED), (0, "good a", CLOSED), (0, "fail", OPEN), (30, "good", CLOSED),
         (31, "broke a", CLOSED)],
    ),
    "a probe's body that breaks off opens again": (
        TWO,
        [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (30, "good a", HALF_OPEN),
         (31, "broke a", OPEN), (60, "refused", OPEN), (91, "good", HALF_OPEN)],
    ),
    "one that breaks off after the circuit closed adds none": (
        ONE,
        [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (30, "good a", CLOSED),
         (31, "broke a", CLOSED)],
    ),
    # Open
    "open refuses until open_for is over, to the instant": (
        ONE, [(0, "fail", OPEN), (29.999, "refused", OPEN), (30, "ask a", HALF_OPEN)],
    ),
    "open_max bounds the first opening too": (
        BIG, [(0, "fail", OPEN), (19.9, "refused", OPEN), (20, "good", CLOSED)],
    ),
    "a late failure does not open it longer": (
        ONE,
        [(0, "ask a", CLOSED), (0, "fail", OPEN), (20, "fail a", OPEN), (30, "good", CLOSED)],
    ),
    # Late results: what opossum did not guard
    "a slow success from before the trip does not close it": (
        ONE, [(0, "ask a", CLOSED), (0, "fail", OPEN), (5, "good a", OPEN), (6, "refused", OPEN)],
    ),
    "nor while it is half-open": (
        ONE,
        [(0, "ask a", CLOSED), (0, "fail", OPEN), (30, "ask b", HALF_OPEN),
         (31, "good a", HALF_OPEN), (31, "refused", HALF_OPEN)],
    ),
    "a failure from before the trip does not fail the probes": (
        TWO,
        [(0, "ask a", CLOSED), (0, "fail", OPEN), (30, "ask b", HALF_OPEN),
         (31, "fail a", HALF_OPEN), (31, "good b", HALF_OPEN), (31, "good", CLOSED)],
    ),
    "a neutral end from before the trip frees no probe's place": (
        ONE,
        [(0, "ask a", CLOSED), (0, "fail", OPEN), (30, "ask b", HALF_OPEN),
         (31, "neutral a", HALF_OPEN), (31, "refused", HALF_OPEN)],
    ),
    "a failure from before trip and recovery does not open it anew": (
        ONE,
        [(0, "ask a", CLOSED), (0, "fail", OPEN), (30, "good", CLOSED), (31, "fail a", CLOSED)],
    ),
    "a probe of one half-open time says nothing in the next": (
        TWO,
        [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (30, "fail", OPEN), (90, "ask b", HALF_OPEN),
         (90, "good a", HALF_OPEN), (90, "fail a", HALF_OPEN), (90, "good b", HALF_OPEN),
         (90, "good", CLOSED)],
    ),
    "a success from before trip and recovery ends no row": (
        ROW,
        [(0, "ask a", CLOSED), *five(0), (30, "good", HALF_OPEN), (30, "good", CLOSED),
         *five(31)[:4], (31, "good a", CLOSED), (31, "fail", OPEN)],
    ),
    # Half-open
    "so many successes close": (
        TWO, [(0, "fail", OPEN), (30, "good", HALF_OPEN), (30, "good", CLOSED)],
    ),
    "no more than that in flight": (
        TWO,
        [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (30, "ask b", HALF_OPEN),
         (30, "refused", HALF_OPEN), (31, "good a", HALF_OPEN), (31, "ask c", HALF_OPEN),
         (31, "refused", HALF_OPEN), (31, "good c", CLOSED), (31, "good b", CLOSED)],
    ),
    "one failure opens again, whatever succeeded before": (
        TWO,
        [(0, "fail", OPEN), (30, "good", HALF_OPEN), (30, "fail", OPEN), (31, "refused", OPEN)],
    ),
    "successes of one half-open time do not count in the next": (
        TWO,
        [(0, "fail", OPEN), (30, "good", HALF_OPEN), (30, "fail", OPEN), (90, "good", HALF_OPEN),
         (90, "good", CLOSED)],
    ),
    "a neutral end frees the place and proves nothing": (
        ONE,
        [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (31, "neutral a", HALF_OPEN),
         (31, "ask b", HALF_OPEN), (32, "neutral b", HALF_OPEN), (32, "good", CLOSED)],
    ),
    "a slow probe is a success where slow_rate is off": (
        TWO, [(0, "fail", OPEN), (30, "slow", HALF_OPEN), (30, "slow", CLOSED)],
    ),
    "a slow probe is a failure where slow_rate is on": (
        TWO_SLOW, [(0, "fail", OPEN), (30, "good", HALF_OPEN), (30, "slow", OPEN)],
    ),
    "an event stream's probe proves, however long it took": (
        TWO_SLOW, [(0, "fail", OPEN), (30, "timeless", HALF_OPEN), (30, "timeless", CLOSED)],
    ),
    "closed again, it counts from nothing, though the window still reaches back": (
        QUICK,
        [(0, "fail", CLOSED)] * 3 + [(0, "fail", OPEN)]
        + [(1, "good", HALF_OPEN), (1, "good", CLOSED)]
        + [(1, "fail", CLOSED)] * 3 + [(1, "fail", OPEN)],
    ),
    "half-open again, all places are free": (
        QUICK,
        [(0, "fail", CLOSED)] * 3 + [(0, "fail", OPEN)]
        + [(1, "ask a", HALF_OPEN), (1, "fail", OPEN), (3, "ask b", HALF_OPEN),
           (3, "ask c", HALF_OPEN), (3, "refused", HALF_OPEN)],
    ),
    "a row from before the trip is forgotten too": (
        ROW, [*five(0), (30, "good", HALF_OPEN), (30, "good", CLOSED), *five(31)],
    ),
    # Probes that do not return: what gobreaker did not guard
    "a probe that never returns holds its place until its deadline": (
        TWO,
        [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (31, "ask b", HALF_OPEN),
         (37.9, "refused", HALF_OPEN), (38, "ask c", HALF_OPEN), (38.9, "refused", HALF_OPEN),
         (39, "ask d", HALF_OPEN), (40, "good c", HALF_OPEN), (40, "good d", CLOSED)],
    ),
    "its late success is dropped": (
        TWO,
        [(0, "fail", OPEN), (30, "good", HALF_OPEN), (30, "ask a", HALF_OPEN),
         (38, "good a", HALF_OPEN), (38, "good", CLOSED)],
    ),
    "its late failure too": (
        TWO, [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (38, "fail a", HALF_OPEN)],
    ),
    "its late end frees no other's place": (
        TWO,
        [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (38, "ask b", HALF_OPEN),
         (38, "ask c", HALF_OPEN), (39, "neutral a", HALF_OPEN), (39, "refused", HALF_OPEN)],
    ),
    "a body that breaks off after a late success says nothing": (
        TWO,
        [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (38, "good a", HALF_OPEN),
         (39, "broke a", HALF_OPEN)],
    ),
    "a probe's result counts once": (
        TWO,
        [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (31, "good a", HALF_OPEN),
         (31, "good a", HALF_OPEN), (31, "fail a", HALF_OPEN)],
    ),
    # Forced
    "forced open refuses, however long": (
        ONE, [(0, "force open", OPEN), (0, "refused", OPEN), (1e6, "refused", OPEN)],
    ),
    "forced closed never opens": (
        BOTH,
        [(0, "force closed", CLOSED)] + [(0, "fail", CLOSED)] * 50 + [(0, "slow", CLOSED)] * 200,
    ),
    "forced closed ends an opening": (
        ONE, [(0, "fail", OPEN), (1, "force closed", CLOSED), (1, "good", CLOSED)],
    ),
    "a half-open circuit can be forced, and its probes say nothing more": (
        ONE,
        [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (30, "force open", OPEN),
         (31, "good a", OPEN), (32, "force closed", CLOSED)],
    ),
    "auto after forced open begins closed": (
        ONE, [(0, "force open", OPEN), (1, "force auto", CLOSED), (1, "fail", OPEN)],
    ),
    "auto after forced closed begins with nothing counted": (
        ROW,
        [(0, "force closed", CLOSED), *[(0, "fail", CLOSED)] * 9, (1, "force auto", CLOSED),
         *five(1)],
    ),
    "auto where nothing is forced changes nothing": (
        ROW, [*five(0)[:4], (0, "force auto", CLOSED), (0, "fail", OPEN), (1, "force auto", OPEN)],
    ),
    "a result from before it was forced is dropped after it": (
        ONE,
        [(0, "ask a", CLOSED), (0, "force open", OPEN), (1, "force auto", CLOSED),
         (1, "fail a", CLOSED)],
    ),
    # Told by another replica
    "told open, it opens for so long": (
        ONE, [(0, "told open 12", OPEN), (11.9, "refused", OPEN), (12, "good", CLOSED)],
    ),
    "told closed, it closes": (
        ONE, [(0, "fail", OPEN), (1, "told closed", CLOSED), (1, "good", CLOSED)],
    ),
    "told closed while it probes, it closes, and its probe says nothing more": (
        ONE,
        [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (30, "told closed", CLOSED),
         (31, "fail a", CLOSED)],
    ),
    "told open while it probes, it opens": (
        ONE,
        [(0, "fail", OPEN), (30, "ask a", HALF_OPEN), (30, "told open 60", OPEN),
         (31, "good a", OPEN), (89, "refused", OPEN), (90, "good", CLOSED)],
    ),
    "told open while it is open, the longer time holds: the other's": (
        ONE, [(0, "fail", OPEN), (1, "told open 59", OPEN), (59, "refused", OPEN),
              (60, "good", CLOSED)],
    ),
    "told open while it is open, the longer time holds: its own": (
        ONE, [(0, "fail", OPEN), (1, "told open 5", OPEN), (29, "refused", OPEN),
              (30, "good", CLOSED)],
    ),
    "told closed while it is closed, it keeps its counts": (
        ROW, [*five(0)[:4], (0, "told closed", CLOSED), (0, "fail", OPEN)],
    ),
    "nobody can keep it open beyond its own longest time": (
        ONE, [(0, "told open 1e9", OPEN), (329, "refused", OPEN), (331, "good", CLOSED)],
    ),
    "the doubling goes on from what was told": (
        ONE,
        [(0, "told open 66", OPEN), (66, "fail", OPEN), (185, "refused", OPEN),
         (187, "good", CLOSED)],
    ),
    "a forced circuit obeys no replica": (
        ONE,
        [(0, "force closed", CLOSED), (0, "told open 60", CLOSED), (0, "force open", OPEN),
         (0, "told closed", OPEN), (0, "refused", OPEN)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", TABLE)
def test_rule(rule):
    terms, steps = TABLE[rule]
    script = Script(terms)
    for number, (now, what, state) in enumerate(steps):
        script.play(now, what)
        assert script.breaker.state(now) is state, f"step {number}: {now} {what}"
