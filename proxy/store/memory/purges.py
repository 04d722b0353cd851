"""What has been purged, as far as this process knows.

Every purge has a number, later ones greater ones, and every answer remembers the last number from
when its fetch began. It is void where one of its tags, or a prefix of its target, was purged under
a greater number: so a purge is a few writes however many answers it covers, and what was being
fetched while it came is void too, whoever stores it when.

Rules:
- A tag that an answer here carries is a `Tag`, shared by all that carry it and gone with the last.
- The last MAX_RECENT purged tags are known by name, for answers that are on their way. `forgotten`
  is the greatest number that is not known any more: what began before may not be stored.
- At most MAX_PREFIXES prefixes are told apart; the oldest then counts as a purge of everything.
- A soft purge leaves an answer to be validated. Telling a purge twice, or late, changes nothing.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final
from weakref import WeakValueDictionary

from proxy.store.ports import Purge

MAX_RECENT: Final = 65_536
MAX_PREFIXES: Final = 256

VALID, SOFT, VOID = range(3)


class Tag:
    """The numbers under which one tag was purged last."""

    __slots__ = ("__weakref__", "hard", "soft")

    def __init__(self, hard: int, soft: int) -> None:
        self.hard = hard
        self.soft = soft


class Purgeable:
    """What purges can reach: an answer, or a fetch whose answer will be one."""

    __slots__ = ("began", "changes", "softened", "state", "tags", "target")

    def __init__(self, tags: tuple[Tag, ...], target: str, began: int) -> None:
        self.tags = tags
        self.target = target
        """In the spelling of `core.cache.urls.keyed_target`."""
        self.began = began
        """The last purge's number when its fetch began."""
        self.softened = 0
        """The last soft purge's number that it has been made stale for."""
        self.changes = -1
        self.state = VALID


class Purges:
    """A process's knowledge of purges; a PurgeListener. `blind`: how long (ms) answers are used
    after the listening was `lost`."""

    __slots__ = (
        "_clock", "_prefixes", "_recent", "_tags", "blind", "changes", "forgotten", "last",
        "since",
    )  # fmt: skip

    def __init__(self, clock: Callable[[], int], blind: int = 0) -> None:
        self._clock = clock
        self._tags: WeakValueDictionary[str, Tag] = WeakValueDictionary()
        self._recent: dict[str, tuple[int, int]] = {}
        self._prefixes: dict[str, tuple[int, int]] = {"": (0, 0)}
        self.blind = blind
        self.changes = 0
        """How often anything became known."""
        self.forgotten = 0
        self.last = 0
        """The greatest number heard of."""
        self.since: int | None = None
        """From when (ms) answers need validation, as purges may have gone unheard; None while
        every purge is heard."""

    # Answers.

    def tagged(self, names: Iterable[str]) -> tuple[Tag, ...]:
        """What an answer with these tags holds."""
        return tuple([self._tag(name) for name in names])

    def state(self, one: Purgeable) -> int:
        """VALID, SOFT (validate it first) or VOID."""
        if one.changes != self.changes:
            one.changes = self.changes
            if one.state != VOID:
                one.state = max(one.state, self._judge(one))
        return one.state

    def reaches(self, one: Purgeable) -> bool:
        """Whether a purge since it began covers it, or may have."""
        return one.began < self.forgotten or self.state(one) != VALID

    def _judge(self, one: Purgeable) -> int:
        began = one.began
        since = max(began, one.softened)
        soft = False
        for tag in one.tags:
            if tag.hard > began:
                return VOID
            soft = soft or tag.soft > since
        for prefix, (hard, gently) in self._prefixes.items():
            if (hard > began or gently > since) and one.target.startswith(prefix):
                if hard > began:
                    return VOID
                soft = True
        return SOFT if soft else VALID

    def _tag(self, name: str) -> Tag:
        tag = self._tags.get(name)
        if tag is None:
            tag = self._tags[name] = Tag(*self._recent.get(name, (0, 0)))
        return tag

    # What happens.

    def apply(self, purge: Purge) -> int:
        """Purges by this process's own count, where nothing is shared."""
        number = self.last + 1
        self.purged(purge, number)
        return number

    def purged(self, purge: Purge, number: int) -> None:
        numbers = (0, number) if purge.soft else (number, 0)
        for name in purge.tags:
            self._purge_tag(name, *numbers)
        if purge.prefix is not None:
            self._purge_prefix(purge.prefix, *numbers)
        self.last = max(self.last, number)

    def tags(self) -> Collection[str]:
        return list({**self._recent, **self._tags})

    def lost(self) -> None:
        if self.since is None:
            self.since = self._clock() + self.blind

    def back(self, number: int) -> None:
        self.since = None
        self.reached(number)

    def reached(self, number: int) -> None:
        """What begins from here on began after the purge of this number."""
        self.last = max(self.last, number)

    def _purge_tag(self, name: str, hard: int, soft: int) -> None:
        known = self._recent.get(name, (0, 0))
        now = max(known[0], hard), max(known[1], soft)
        if now == known:
            return
        self._recent.pop(name, None)
        self._recent[name] = now
        tag = self._tags.get(name)
        if tag is not None:
            tag.hard, tag.soft = max(tag.hard, hard), max(tag.soft, soft)
        self.changes += 1
        if len(self._recent) > MAX_RECENT:
            oldest = next(iter(self._recent))
            self.forgotten = max(self.forgotten, *self._recent.pop(oldest))

    def _purge_prefix(self, prefix: str, hard: int, soft: int) -> None:
        prefixes = self._prefixes
        known = prefixes.get(prefix, (0, 0))
        now = max(known[0], hard), max(known[1], soft)
        if now == known:
            return
        if prefix:
            prefixes.pop(prefix, None)
        prefixes[prefix] = now
        self.changes += 1
        if len(prefixes) > MAX_PREFIXES:
            oldest = next(name for name in prefixes if name)
            self._purge_prefix("", *prefixes.pop(oldest))
