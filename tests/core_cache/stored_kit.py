"""Short ways to write responses, requests and stored answers in tables. Times are ms."""

from proxy.core.cache.directives import read_request
from proxy.core.cache.record import CacheTerms, Stored
from proxy.core.cache.storing import judge
from proxy.core.dates import imf_fixdate
from proxy.core.fields import Fields

SECOND = 1000
DAY = 86_400 * SECOND
NOW = 1_767_225_600 * SECOND  # Thu, 01 Jan 2026 00:00:00 GMT
DATE = f"Date: {imf_fixdate(NOW // SECOND)}"


def fields(*lines):
    """Fields of `Name: value` texts."""
    return Fields([(name, value.strip()) for name, _, value in (x.partition(":") for x in lines)])


def at(seconds):
    """The HTTP-date so many seconds from NOW."""
    return imf_fixdate(NOW // SECOND + seconds)


def asked(directives):
    """A request's directives, as its Cache-Control says them."""
    return read_request(fields(f"Cache-Control: {directives}") if directives else Fields())


def judged(*response, request=(), method="GET", status=200, terms=None, took=0, **more):
    """What `judge` makes of a response that came at NOW."""
    return judge(
        method,
        fields(*request),
        status,
        "",
        fields(*response),
        terms or CacheTerms(),
        NOW - took,
        NOW,
        **more,
    )


def entry(**changes):
    """A stored answer of age 0 at NOW, fresh for 60 s."""
    values = {
        "method": "GET", "status": 200, "reason": "OK", "lines": [], "length": 5, "vary": (),
        "date": NOW, "requested": NOW, "received": NOW, "initial_age": 0, "lifetime": 60 * SECOND,
        "stale_while_revalidate": 0, "stale_if_error": 0, "no_cache": False,
        "must_revalidate": False, "immutable": False, "etag": None, "last_modified": None,
    }  # fmt: skip
    return Stored(**(values | changes))
