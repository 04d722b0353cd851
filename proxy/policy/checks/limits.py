"""`limits`: rates that cannot be counted, costs that cannot pass, overrides without effect."""

from proxy.core.keys import WhenRule, header_read
from proxy.policy.checks.lists import refuse_repeats
from proxy.policy.draft import Draft, Part
from proxy.policy.models.limits import Cost, LimitSection, OverrideSection
from proxy.policy.models.routes import RouteSection
from proxy.policy.problem import dotted
from proxy.policy.terms import Terms, terms_of

_BURSTING = ("token_bucket", "leaky_bucket")


def check(draft: Draft) -> None:
    """Every limit."""
    server = draft.server
    trusted = None
    if server.has("trusted_headers"):
        trusted = frozenset(name.lower() for name in server.section.trusted_headers)
    for part in draft.limits.values():
        _check_key(part)
        _check_terms(part)
        _check_overrides(part)
        if trusted is not None:
            _check_trust(part, trusted)
    if all(route.has("limits") for route in draft.routes):
        for name, part in draft.limits.items():
            if part.has("charge") and part.section.charge == "miss":
                _check_misses(draft, name, part)


def _check_misses(draft: Draft, name: str, part: Part[LimitSection]) -> None:
    users = [route for route in draft.routes if name in route.section.limits]
    if users and all(
        route.has("cache", "idempotency") and not _may_answer(route) for route in users
    ):
        message = (
            "counts every request: none of this limit's routes can answer without its upstream"
        )
        part.warn(f"{message}; give one a cache, or leave charge out", "charge")


def _may_answer(route: Part[RouteSection]) -> bool:
    """Whether some of its requests could be answered from a cache, or by a replay."""
    if route.section.idempotency is not None:
        return True
    if route.section.cache is None:
        return False
    methods = route.section.match.methods if route.has("match") else None
    return not methods or not {"GET", "HEAD"}.isdisjoint(methods)


def _check_key(part: Part[LimitSection]) -> None:
    if not part.has("key"):
        return
    if not part.section.key:
        part.error('is empty: say who is counted; ["global"] is everybody together', "key")
    refuse_repeats(part, ("key",), part.section.key)


def _check_terms(part: Part[LimitSection]) -> None:
    limit = part.section
    if not part.has("algorithm"):
        return
    _check_burst(part, limit.burst if part.has("burst") else None, ("burst",))
    if part.has("rate", "burst"):
        terms = terms_of(limit) if part.has("cost", "mode") else None
        _check_compiles(part, terms or _bare(limit), (), limit.burst is not None)


def _bare(limit: LimitSection) -> Terms | None:
    """The base's terms where its cost or mode could not be read."""
    return terms_of(limit.model_copy(update={"cost": 1, "mode": "enforce"}))


def _check_burst(part: Part[LimitSection], burst: int | None, loc: tuple[str | int, ...]) -> None:
    algorithm = part.section.algorithm
    if burst is not None and algorithm not in _BURSTING:
        part.error(f"{algorithm} has no burst; token_bucket and leaky_bucket have", *loc)


def _check_compiles(
    part: Part[LimitSection], terms: Terms | None, loc: tuple[str | int, ...], own_burst: bool
) -> None:
    """Whether the algorithm can count this, and whether the cost can ever pass."""
    if terms is None or (terms.burst is not None and terms.algorithm.name not in _BURSTING):
        return
    try:
        params = terms.compile()
    except ValueError as error:
        sentence = str(error)
        key = "burst" if own_burst and sentence.startswith("burst") else "rate"
        part.error(sentence, *loc, key)
        return
    capacity = terms.algorithm.capacity(params)
    if isinstance(terms.cost, int) and terms.cost > capacity:
        message = f"is {terms.cost}, but no request above {capacity} could ever pass"
        part.error(message, *loc, "cost")


def _check_overrides(part: Part[LimitSection]) -> None:
    if not part.has("overrides"):
        return
    seen: dict[str, int] = {}
    for index, override in enumerate(part.section.overrides):
        loc = ("overrides", index)
        _check_when(part, override, loc)
        condition = repr(sorted((key, sorted(values)) for key, values in override.when.items()))
        if condition in seen:
            message = f"is the condition of {dotted((*part.loc, *loc[:1], seen[condition]))} again"
            part.error(message, *loc, "when")
        seen.setdefault(condition, index)
        given = [key for key in ("burst", "cost", "mode") if getattr(override, key) is not None]
        if override.rate is None and not given:
            part.error("changes nothing: give it a rate, burst, cost or mode", *loc)
        if override.rate == "unlimited":
            for key in given:
                part.error("has no effect beside rate: unlimited", *loc, key)
            continue
        if part.has("algorithm"):
            _check_burst(part, override.burst, (*loc, "burst"))
            if override.rate is None and override.burst is None and override.cost is None:
                continue  # the base's own error would only be said again
            if part.has("rate", "burst", "cost", "mode"):
                terms = terms_of(part.section, override)
                _check_compiles(part, terms, loc, override.burst is not None)


def _check_when(
    part: Part[LimitSection], override: OverrideSection, loc: tuple[str | int, ...]
) -> None:
    if not override.when:
        part.error("is empty: it would hold for everybody", *loc, "when")
    for key, values in override.when.items():
        refuse_repeats(part, (*loc, "when", key), values)
        try:
            WhenRule.parse({key: values})
        except ValueError as error:
            part.error(str(error), *loc, "when", key)


def _check_trust(part: Part[LimitSection], trusted: frozenset[str]) -> None:
    """A cost must come from a trusted header; a condition had better."""
    if part.has("cost"):
        _check_cost(part, part.section.cost, trusted, ("cost",))
    for index, override in enumerate(part.section.overrides if part.has("overrides") else []):
        loc = ("overrides", index)
        _check_cost(part, override.cost, trusted, (*loc, "cost"))
        for key in override.when:
            name = header_read(key)
            if name is not None and name not in trusted:
                sent = key[7:].removesuffix("+")
                message = f"any client can send {sent}: it is not in server.trusted_headers"
                part.warn(message, *loc, "when", key)


def _check_cost(
    part: Part[LimitSection],
    cost: Cost | None,
    trusted: frozenset[str],
    loc: tuple[str | int, ...],
) -> None:
    if isinstance(cost, str) and cost not in trusted:
        part.error(
            f"any client could name its own price: {cost} is not in server.trusted_headers", *loc
        )
