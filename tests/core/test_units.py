"""Units: what each spelling means, and what is said of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import units
from proxy.core.limits.decision import Rate

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("250ms", 250_000),
        ("0s", 0),
        ("30s", 30 * SECOND),
        ("5m", 300 * SECOND),
        ("24h", 86_400 * SECOND),
        ("7d", 7 * 86_400 * SECOND),
        ("010s", 10 * SECOND),  # no octal by a leading zero
        ("3650d", 3650 * 86_400 * SECOND),
    ],
)
def test_durations(text: str, microseconds: int) -> None:
    assert units.duration_us(text) == microseconds
    assert units.duration(text) == microseconds / SECOND


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("30", "is a duration without a unit: write 30s or 30ms"),
        ("30sec", 'has an unknown unit "sec" (ms, s, m, h, d): write 30s'),
        ("30S", 'has an unknown unit "S" (ms, s, m, h, d): write 30s'),
        ("2weeks", 'has an unknown unit "weeks" (ms, s, m, h, d)'),
        ("3651d", "is longer than 3650d"),
        ("1.5s", ": write 1500ms"),
        ("1.5m", ": write 90s"),
        ("0.25h", ": write 15m"),
        ("-1s", 'not "-1s"'),
        ("1h30m", 'not "1h30m"'),
        ("", "must be a duration such as 250ms, 30s, 5m, 24h or 7d"),
        ("٣s", "must be a duration"),  # digits of another script
    ],
)
def test_what_is_no_duration(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 the sentence is compared below
        units.duration(text)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512B", 512),
        ("1KB", 1000),
        ("16KiB", 16 * 1024),
        ("10MB", 10_000_000),
        ("1MiB", 2**20),
        ("2GB", 2 * 10**9),
        ("1GiB", 2**30),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert units.size(text) == size


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1000", "is a size without a unit: write 1000B or 1000KiB"),
        ("1k", 'has an unknown unit "k" (B, KB, MB, GB, KiB, MiB, GiB): write 1KiB'),
        ("1mib", ": write 1MiB"),
        ("1TB", 'has an unknown unit "TB"'),
        ("1.5MiB", 'must be a size such as 16KiB, 1MiB or 10MB, not "1.5MiB"'),
    ],
)
def test_what_is_no_size(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        units.size(text)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(("text", "share"), [("0%", 0.0), ("50%", 0.5), ("99.9%", 0.999)])
def test_shares(text: str, share: float) -> None:
    assert units.share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["50", "0.5", "101%", "-1%", "%", "50 %"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        units.share(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/s", Rate(100, SECOND)),
        ("60/m", Rate(60, 60 * SECOND)),
        ("1000/h", Rate(1000, 3600 * SECOND)),
        ("10000/d", Rate(10000, 86_400 * SECOND)),
        ("5/10s", Rate(5, 10 * SECOND)),
        ("1/250ms", Rate(1, 250_000)),
        ("1/1d", Rate(1, 86_400 * SECOND)),
        ("1000/month", Rate(1000, 0, monthly=True)),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    assert units.rate(text) == rate
    assert units.rate(units.rate_text(rate)) == rate


@pytest.mark.parametrize(
    "text", ["100/s", "60/m", "5/10s", "1000/h", "7/90m", "10000/d", "1/250ms", "9/1ms", "3/month"]
)
def test_a_rate_is_written_as_it_is_read(text: str) -> None:
    assert units.rate_text(units.rate(text)) == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("100", 'must be a rate such as 100/s, 60/m, 5/10s or 10000/month, not "100"'),
        ("fast", "must be a rate"),
        ("-1/s", "must be a rate"),
        ("1.5/s", "must be a rate"),
        ("0/s", "must allow at least 1: a rate of 0 would refuse every request"),
        ("1/0s", 'has a period of nothing: "0s"'),
        ("100/min", 'has an unknown unit "min": write 100/m'),
        ("100/second", 'has an unknown unit "second": write 100/s'),
        ("100/week", 'has an unknown unit "week" (s, m, h, d, month or a duration such as 10s)'),
        ("100/10", 'has a period, "10", that is a duration without a unit'),
        ("100/", 'has an unknown unit ""'),
    ],
)
def test_what_is_no_rate(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        units.rate(text)
    assert sentence in str(raised.value)


@given(st.text(max_size=12))
def test_any_other_text_is_refused_with_a_sentence(text: str) -> None:
    for read in (units.duration, units.size, units.share, units.rate):
        try:
            read(text)
        except ValueError as error:
            assert len(str(error)) > 10  # noqa: PT017 what is raised is the subject
