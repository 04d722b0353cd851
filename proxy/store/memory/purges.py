"""What has been purged, as far as this process knows.

Every purge has a number, later ones greater ones, and every answer remembers the last number from
when its fetch began. It is void where one of its tags, or a prefix of its target, was purged under
a greater number: so a purge is a few writes however many answers it covers, and what was being
fetched while it came is void too, whoever stores it when.

Rules:
- A tag that an answer here carries is a `Tag`, shared by all that carry it and gone with the last.
- The last MAX_RECENT purged tags are known by name, for answers that are on their way, or as many
  as fit into their share of the cache's room. `forgotten` is the greatest number that is not known
  any more: what began before may not be stored.
- At most MAX_PREFIXES prefixes are told apart; the oldest then counts as a purge of everything.
- A soft purge leaves an answer stale from the moment of the purge on, whenever that is noticed. Of
  a tag or prefix the last two are known: what more have covered is taken to be stale from its
  beginning.
- Telling a purge twice, or late, changes nothing.
- Where purges come from a store, answers are used for `blind` after the last moment up to which
  every purge is known to have been heard; for LEAST_BLIND at least while no loss is known.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final
from weakref import WeakValueDictionary

from proxy.store.memory.known import Known, Tag
from proxy.store.memory.room import SHARE, Room
from proxy.store.ports import LEAST_BLIND, Purge

MAX_RECENT: Final = 65_536
MAX_PREFIXES: Final = 256

_LEAST: Final = 256 * 1024
"""Bytes that the names of purged tags may take, however small the room."""
_UNBOUND: Final = 1 << 40
_PURGED: Final = 340
"""What CPython takes for a purged tag beside its characters, measured."""

VALID, SOFT, VOID = range(3)


_NEVER: Final = Known()


class Purgeable:
    """What purges can reach: an answer, or a fetch whose answer will be one."""

    __slots__ = ("began", "changes", "softened", "stale_at", "state", "tags", "target")

    def __init__(self, tags: tuple[Tag, ...], target: str, began: int) -> None:
        self.tags = tags
        self.target = target
        """In the spelling of `core.cache.urls.keyed_target`."""
        self.began = began
        """The last purge's number when its fetch began."""
        self.stale_at = 0
        """Since when (ms since the epoch) a soft purge has it stale, where its state is SOFT."""
        self.softened = False
        """Whether it has been made stale for that: further soft purges change nothing."""
        self.changes = -1
        self.state = VALID


class Purges:
    """A process's knowledge of purges; a PurgeListener. `blind`: how long (ms) answers are used
    after the last sign that purges are heard."""

    __slots__ = (
        "_clock", "_heard", "_most", "_prefixes", "_recent", "_room", "_tags", "_taken", "blind",
        "changes", "deaf", "forgotten", "last", "since",
    )  # fmt: skip

    def __init__(self, clock: Callable[[], int], blind: int = 0, room: Room | None = None) -> None:
        self._clock = clock
        self._room = Room(_UNBOUND) if room is None else room
        self._most = min(max(_LEAST, self._room.size // SHARE), self._room.size // 2)
        self._taken = 0
        self._tags: WeakValueDictionary[str, Tag] = WeakValueDictionary()
        # Not a dict: finding its first key walks over everything that was deleted before it.
        self._recent: OrderedDict[str, Known] = OrderedDict()
        self._prefixes: dict[str, Known] = {"": _NEVER}
        self.blind = blind
        self.changes = 0
        """How often anything became known."""
        self.forgotten = 0
        self.last = 0
        """The greatest number heard of."""
        self._heard: int | None = None
        """Until when (ms) every purge was heard; None where no store has been listened to."""
        self.deaf = False
        """Whether the listening is known to be lost."""
        self.since: int | None = None
        """From when (ms) answers need validation, as purges may have gone unheard, unless they are
        heard again before; None where there is no store to listen to."""

    # Answers.

    def tagged(self, names: Iterable[str]) -> tuple[Tag, ...]:
        """What an answer with these tags holds."""
        return tuple([self._tag(name) for name in names])

    def state(self, one: Purgeable) -> int:
        """VALID, SOFT (stale since `one.stale_at`) or VOID."""
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
        since: list[int] = []
        for known in self._about(one):
            if known.hard > began:
                return VOID
            if (at := known.stale_at(began)) is not None:
                since.append(at)
        if one.softened or not since:
            return VALID
        if one.state != SOFT:  # the first time counts
            one.stale_at = min(since)
        return SOFT

    def _about(self, one: Purgeable) -> Iterator[Known]:
        for tag in one.tags:
            yield tag.known
        for prefix, known in self._prefixes.items():
            if one.target.startswith(prefix):
                yield known

    def _tag(self, name: str) -> Tag:
        tag = self._tags.get(name)
        if tag is None:
            tag = self._tags[name] = Tag(self._recent.get(name, _NEVER))
        return tag

    # What happens.

    def apply(self, purge: Purge) -> int:
        """Purges by this process's own count, where nothing is shared."""
        number = self.last + 1
        self._purged(purge, number, self._clock())
        return number

    def purged(self, purge: Purge, number: int) -> None:
        self._purged(purge, number, number // 1000)

    def _purged(self, purge: Purge, number: int, at: int) -> None:
        numbers = (0, number, at) if purge.soft else (number, 0, 0)
        self._purge_tags(purge.tags, *numbers)
        if purge.prefix is not None:
            self._purge_prefix(purge.prefix, *numbers)
        self.last = max(self.last, number)

    def tags(self) -> Collection[str]:
        return list({**self._recent, **self._tags})

    def lost(self) -> None:
        if not self.deaf:
            self.deaf = True
            heard = self._clock() if self._heard is None else self._heard
            self.since = heard + self.blind

    def alive(self, ago: float) -> None:
        if not self.deaf:
            self._heard = self._clock() - round(ago * 1000)
            self.since = self._heard + max(self.blind, round(LEAST_BLIND * 1000))

    def back(self, number: int) -> None:
        self.deaf = False
        self.alive(0.0)
        self.reached(number)

    def reached(self, number: int) -> None:
        """What begins from here on began after the purge of this number."""
        self.last = max(self.last, number)

    def _purge_tags(self, names: Iterable[str], hard: int, soft: int, at: int) -> None:
        tags, recent = self._tags, self._recent
        only = Known(hard, soft, at)
        taken = self._taken
        for name in names:
            tag = tags.get(name)
            known = recent.get(name) if tag is None else tag.known
            now = only if known is None else known.heard(hard, soft, at)
            if now == known:
                continue
            if name in recent:
                recent.move_to_end(name)
            else:
                taken += _PURGED + len(name)
            recent[name] = now
            if tag is not None:
                tag.known = now
            self.changes += 1
            while taken > self._most or len(recent) > MAX_RECENT:
                gone, oldest = recent.popitem(last=False)
                taken -= _PURGED + len(gone)
                self.forgotten = max(self.forgotten, oldest.hard, oldest.soft)
        self._room.taken += taken - self._taken
        self._taken = taken

    def _purge_prefix(self, prefix: str, hard: int, soft: int, at: int) -> None:
        prefixes = self._prefixes
        known = prefixes.get(prefix, _NEVER)
        now = known.heard(hard, soft, at)
        if now == known:
            return
        if prefix:
            prefixes.pop(prefix, None)
        prefixes[prefix] = now
        self.changes += 1
        if len(prefixes) > MAX_PREFIXES:
            oldest = prefixes.pop(next(name for name in prefixes if name))
            self._purge_prefix("", 0, oldest.before, 0)
            self._purge_prefix("", oldest.hard, oldest.soft, oldest.at)
