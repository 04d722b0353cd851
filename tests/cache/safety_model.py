"""What may be answered: every answer held against all that the origin said, slowly and plainly.

Nothing here is the gateway's own code. A rule reads the record of exchanges (safety_world) and
says why an answer was wrong, by the section of RFC 9111 unless another one is named.
"""

from dataclasses import dataclass

from safety_world import SECOND, Got, Say, Sent, World

GUESSABLE = {200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501}
NEVER = {206, 304, 416, 429}
NOT_UNDERSTOOD = {299}
ERRORS = {500, 502, 503, 504}
NOTHING = Say()


@dataclass(frozen=True)
class Terms:
    """The policy's, in seconds."""

    default_ttl: int = 0
    stale_while_revalidate: int = 0
    stale_if_error: int = 0


class Wrong(AssertionError):
    """An answer that must not be."""


@dataclass
class Used:
    """An answer that was made of `brought`, as `said` spoke of it last."""

    world: World
    terms: Terms
    got: Got
    brought: Sent
    said: Sent

    @property
    def say(self) -> Say:
        return self.said.say or NOTHING

    def age(self, now: int) -> int:
        """§4.2.3, ms."""
        said = self.said
        apparent = 0 if said.told.dated is None else max(0, said.received - said.date)
        corrected = (said.told.age or 0) * SECOND + said.received - said.requested
        return max(apparent, corrected) + now - said.received

    def date(self) -> int:
        return self.said.received if self.said.told.dated is None else self.said.date

    def explicit(self) -> int | None:
        """§4.2.1, ms."""
        for span in (self.say.s_maxage, self.say.max_age):
            if span is not None:
                return span * SECOND
        if self.said.expires is not None:
            return max(0, self.said.expires - self.date())
        return None

    def lifetime(self) -> tuple[int, bool]:
        """ms, and whether anything gives it."""
        explicit = self.explicit()
        if explicit is not None:
            return explicit, True
        if "cookie" in self.brought.fields:
            return 0, False
        if self.brought.status in GUESSABLE or self.say.public:
            modified = self.said.modified
            if modified is None and self.terms.default_ttl:
                start = self.age(self.said.received)
                return start + self.terms.default_ttl * SECOND, True
            if modified is not None and modified < self.date():
                return min((self.date() - modified) // 10, 86400 * SECOND), True
        return 0, False

    def soft(self, before: int) -> list[int]:
        """When (ms) soft purges have reached it, before this tick."""
        return [
            at
            for tick, at, kind, value, soft in self.world.purges
            if soft and self.said.began < tick < before and covers(kind, value, self.brought)
        ]

    def left(self, now: int, before: int) -> int:
        """Freshness left (ms), less than nothing once stale; a soft purge before this tick ends
        it when it comes."""
        left = self.lifetime()[0] - self.age(now)
        return min([left, *[at - now for at in self.soft(before)]])

    # The rules.

    def unstorable(self, said: Sent) -> str | None:
        """§3, §3.5, and the contract's rules for cookies: why nobody else may have it."""
        say = said.say or NOTHING
        brought = self.brought
        if brought.status in NEVER:
            return f"a {brought.status} is not stored"
        if say.no_store and not say.must_understand:
            return "no-store (§5.2.2.5)"
        if say.must_understand and brought.status in NOT_UNDERSTOOD:
            return "must-understand (§5.2.2.3)"
        if say.private:
            return "private (§5.2.2.7)"
        if "*" in brought.told.vary:
            return "Vary: * (§4.1)"
        lifted = say.public or say.must_revalidate or say.s_maxage is not None
        if "authorization" in said.fields and not lifted:
            return "an answer to Authorization (§3.5)"
        if "authorization" in brought.fields and not lifted:
            return "an answer to Authorization (§3.5)"
        named = Used(self.world, self.terms, self.got, brought, said)
        if "cookie" in said.fields and named.explicit() is None and not say.no_cache:
            return "an answer to a cookie, without explicit freshness"
        if brought.status not in GUESSABLE and not say.public and named.explicit() is None:
            return "nothing allows to store it (§3)"
        if any(name == "no-store" for name, _ in self.world.asks[brought.rid].directives):
            return "the request's no-store (§5.2.1.5)"
        if brought.told.cookie:
            return "an answer with Set-Cookie"
        return None

    def mismatch(self) -> str | None:
        """§4: whether it is for this request at all."""
        brought, got = self.brought, self.got
        if brought.target != got.ask.target:
            return f"made for {brought.target}"
        if brought.method != "GET" and got.ask.method != brought.method:
            return f"made for {brought.method}"
        for name in brought.told.vary.lower().split(", "):
            if name and brought.fields.get(name) != got.fields.get(name):
                return f"another variant by {name} (§4.1)"
        return None

    def void(self) -> str | None:
        """§4.4, and purges."""
        began = self.got.began
        for said, done, target in self.world.writes:
            if self.brought.began < said and done < began and target == self.brought.target:
                return "written meanwhile (§4.4)"
        for tick, _, kind, value, soft in self.world.purges:
            if not soft and self.brought.began < tick < began and covers(kind, value, self.brought):
                return f"purged by {kind} {value}"
        return None

    def outdated(self) -> str | None:
        """§4.3.4: a 304 has changed what is said of it since."""
        for sent in self.world.sent:
            if sent.status != 304 or sent.names != self.brought.id or sent.method != "GET":
                continue
            asker = self.world.asks[sent.rid]
            plain = asker.condition is None and not asker.user and not asker.answer.cookie
            if plain and self.said.answered < sent.answered < self.got.began:
                return f"what {sent.id} has said of it since is forgotten (§4.3.4)"
        return None

    def validated(self) -> bool:
        """Whether the origin has said so while this request waited: after it came, where only that
        helps."""
        strict = self.say.no_cache or self.asked("no-cache") is not None
        return any(
            sent.status == 304
            and sent.names == self.brought.id
            and self.got.began < sent.answered < self.got.answered
            and (not strict or sent.began > self.got.began)
            for sent in self.world.sent
        )

    def asked(self, name: str) -> int | None:
        """A directive of the request, in ms: 0 without a number, None where it is not given."""
        for given, value in self.got.ask.directives:
            if given == name:
                return (value or 0) * SECOND
        return None

    def unusable(self) -> str | None:
        """§4.2, §5.2.1: why it may not be used unasked at this moment."""
        if self.validated():
            return None
        now = max(self.got.start, self.said.received)
        age, (_, sourced) = self.age(now), self.lifetime()
        left = self.left(now, self.got.began)
        no_cache, max_age = self.asked("no-cache") is not None, self.asked("max-age")
        min_fresh = self.asked("min-fresh")
        if self.say.no_cache:
            return "no-cache without validation (§5.2.2.4)"
        forbids = self.say.must_revalidate or self.say.proxy_revalidate
        forbids = forbids or self.say.s_maxage is not None
        if left > 0:
            young = max_age is None or age <= max_age or self.say.immutable
            lasting = min_fresh is None or left >= min_fresh
            if young and lasting and not no_cache:
                return None
            why = "younger, or longer fresh, is asked for (§5.2.1)"
        else:
            why = f"stale by {-left} ms (§4.2.4)"
            if forbids:
                return why
            if self.stale_is_fine(max(0, -left), age, sourced):
                return None
        return None if not forbids and self.stands_in(-left) else why

    def stale_is_fine(self, staleness: int, age: int, sourced: bool) -> bool:
        max_age, max_stale = self.asked("max-age"), self.asked("max-stale")
        if self.asked("no-cache") is not None or self.asked("min-fresh") is not None:
            return False
        if max_age is not None and (max_stale is None or age > max_age):
            return False
        behind = self.say.stale_while_revalidate
        if behind is None:
            behind = self.terms.stale_while_revalidate if sourced else 0
        if staleness < behind * SECOND:
            return True
        unlimited = ("max-stale", None) in self.got.ask.directives
        return unlimited or (max_stale is not None and staleness <= max_stale)

    def stands_in(self, staleness: int) -> bool:
        """RFC 5861 §4, RFC 9111 §4.2.4: for an answer that the upstream failed to give."""
        own = self.say.stale_if_error
        own = self.terms.stale_if_error if own is None else own
        asked = self.asked("stale-if-error") or 0
        allowed = asked if self.asked("no-cache") is not None else max(asked, own * SECOND)
        for sent in self.world.sent:
            if sent.target != self.brought.target or sent.answered < self.got.began:
                continue
            if sent.failed and (self.asked("no-cache") is None or staleness < allowed):
                return True
            if sent.status in ERRORS and staleness < allowed:
                return True
        return False


def covers(kind: str, value: str, sent: Sent) -> bool:
    if kind == "tags":
        return sent.told.tag == value
    if kind == "urls":
        return sent.target == value
    return kind == "all" or sent.target.startswith(value)


def hold(world: World, terms: Terms, got: Got) -> str:
    """Raises Wrong where the answer must not be; says what kind of answer it is."""
    reply, said = got.reply, got.said
    assert reply is not None
    own = [sent for sent in world.sent if sent.rid == got.rid and sent.began < got.answered]
    if not reply.origin:
        failed = any(
            sent.target == got.ask.target and sent.failed and sent.answered > got.began
            for sent in world.sent
        )
        refused = reply.status == 504 and ("only-if-cached", None) in got.ask.directives
        _must(failed or (refused and not own), got, f"a {reply.status} out of nothing")
        return "problem"
    if "x-said" not in said:
        _must(reply.status == 416, got, "an answer that the origin never gave")
        return "416"
    spoke = world.sent[int(said.index["x-said"]) - 1]
    if "x-serial" not in said:
        _must(reply.status == 304 and spoke.rid == got.rid, got, "a 304 of another request")
        _must("if-none-match" in got.fields or "if-modified-since" in got.fields, got, "a bare 304")
        return "304"
    serial = world.sent[int(said.index["x-serial"]) - 1]
    mine = spoke.rid == got.rid
    heads = [s for s in world.sent if s.method == "HEAD" and s.names == serial.id and not mine]
    brought = [serial, *heads] if got.ask.method == "HEAD" else [serial]
    used = [Used(world, terms, got, one, spoke) for one in brought]
    if serial.rid != got.rid and not (mine and spoke.method == "HEAD"):
        complaints = [complaint(one, mine) for one in used]
        if None not in complaints:
            raise Wrong(f"{complaints[0]}: {got}\nbrought {serial}\nsaid {spoke}")
        _reused(used[0], mine)
    whole = Used(world, terms, got, spoke, spoke) if mine and spoke.method == "HEAD" else used[0]
    _honest(whole, own, mine)
    _whole(got, serial)
    return "reused" if serial.rid != got.rid else "own"


def complaint(used: Used, mine: bool) -> str | None:
    """Why this request must not have it, from another's exchange; None where it may."""
    wrong = used.mismatch() or used.void() or used.unstorable(used.brought)
    if wrong is None and not mine:
        wrong = used.unstorable(used.said) or used.outdated() or used.unusable()
    if wrong is None and used.brought.cut and used.brought.ended < used.got.began:
        wrong = "it broke off (§3.3)"
    return wrong


def _reused(used: Used, mine: bool) -> None:
    """What an answer from another's exchange says of itself."""
    got, said = used.got, used.got.said
    cookie = mine and used.said.told.cookie
    _must(cookie or "set-cookie" not in said, got, "another's cookie")
    _must(mine or not used.say.mine or "x-mine" not in said, got, "another's field")
    age = said.get("age")
    low = used.age(max(got.start, used.said.received)) // SECOND
    high = used.age(got.at) // SECOND
    _must(age is not None and low <= int(age) <= high, got, f"Age {age}, not {low} to {high}")


def _honest(used: Used, own: list[Sent], mine: bool) -> None:
    """RFC 9211."""
    got = used.got
    if got.ask.method not in ("GET", "HEAD"):
        return
    name, *given = got.said.all("cache-status")[-1].split("; ")
    params = dict(text.partition("=")[::2] for text in given)
    _must(name == "sluicegate" and ("hit" in params) != ("fwd" in params), got, "hit xor fwd")
    if "hit" in params:
        _must(not own, got, "a hit that asked the origin")
        left = used.left(got.start, got.began) // SECOND
        ttl = int(params["ttl"])
        unclear = len(used.soft(got.began)) > 1  # when it was purged first may be forgotten
        _must(ttl == left or (unclear and ttl <= left), got, f"ttl {ttl}, not {left}")
    shared = params.get("collapsed") == ""
    _must(shared or "hit" in params or bool(own) or "detail" in params, got, "fwd, but to whom?")
    _must(not (shared and own), got, "collapsed, but has asked")
    if params.get("fwd-status") == "304":
        _must(mine and used.said.status == 304, got, "no 304 has come")
    if "stored" in params:
        wrong = used.unstorable(used.said)
        _must(wrong is None, got, f"stored, though {wrong}")


def _whole(got: Got, serial: Sent) -> None:
    """The bytes are those of the exchange, and all of them where they ended well."""
    reply, body = got.reply, serial.body
    assert reply is not None
    if got.ask.method == "HEAD":
        return  # the edge sends none
    if reply.status in (204, 304):
        _must(not got.body, got, "a body where there is none")
        return
    if reply.status == 206 and serial.status != 206:
        start, _, rest = got.said.index["content-range"].removeprefix("bytes ").partition("-")
        stop, _, length = rest.partition("/")
        _must(int(length) == len(body), got, "a part of another length")
        body = body[int(start) : int(stop) + 1]
    _must(body.startswith(got.body), got, "other bytes than the origin's")
    if not (got.cut or got.left):
        _must(len(got.body) == len(body), got, "a part of a body, served as if it were all")
        _must(reply.length in (None, len(body)), got, "another length than announced")


def _must(truth: bool, got: Got, wrong: str) -> None:
    if not truth:
        raise Wrong(f"{wrong}: {got}")
