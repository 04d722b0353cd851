"""`retries`: terms under which nothing is ever sent again, and waits that nobody has time for."""

from proxy.core.retries import IDEMPOTENT
from proxy.policy.checks.lists import refuse_empty, refuse_repeats
from proxy.policy.draft import Draft, Part
from proxy.policy.models.retries import RetrySection

# Client errors that may be over a moment later: RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4.
_PASSING = frozenset(("408", "425", "429"))


def check(draft: Draft) -> None:
    """Every retry, and the upstreams that use it."""
    for part in draft.retries.values():
        if part.has("attempts") and part.section.attempts == 1:
            part.warn("never sends anything again: it counts the first try", "attempts")
        if part.has("on"):
            _check_reasons(part)
        if part.has("methods"):
            _check_methods(part)
        _check_waits(part)
    _check_use(draft)


def _check_reasons(part: Part[RetrySection]) -> None:
    reasons = part.section.on
    refuse_empty(part, ("on",), reasons)
    refuse_repeats(part, ("on",), reasons)
    for index, reason in enumerate(reasons):
        if reason.startswith("4") and reason not in _PASSING:
            message = f"{reason} blames the request: the same one would get the same answer"
            part.warn(message, "on", index)


def _check_methods(part: Part[RetrySection]) -> None:
    methods = part.section.methods
    refuse_repeats(part, ("methods",), methods)
    for index, method in enumerate(methods):
        if method not in IDEMPOTENT:
            message = f"{method} is sent again only where no byte of it was sent, listed or not"
            part.warn(message, "methods", index)
    if part.has("on") and not methods and "connect_error" not in part.section.on:
        message = "is empty: then only a connect_error is tried again, and on does not name it"
        part.warn(message, "methods")


def _check_waits(part: Part[RetrySection]) -> None:
    retry = part.section
    if part.has("backoff", "backoff_max") and retry.backoff > retry.backoff_max:
        if part.is_given("backoff_max"):
            part.error(f"is shorter than backoff, which is {retry.backoff:g}s", "backoff_max")
        else:
            part.error(f"is longer than backoff_max, which is {retry.backoff_max:g}s", "backoff")


def _check_use(draft: Draft) -> None:
    for upstream in draft.upstreams.values():
        if not upstream.has("retry"):
            continue
        retry = draft.retries.get(upstream.section.retry or "")
        if retry is None or not (retry.has("backoff") and upstream.has("deadline")):
            continue
        backoff, deadline = retry.section.backoff, upstream.section.deadline
        if backoff >= deadline:
            message = f"waits of up to {backoff:g}s do not fit into the deadline of {deadline:g}s"
            upstream.warn(message, "retry")
