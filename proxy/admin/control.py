"""What the admin application asks of the gateway that it serves."""

from typing import Any, Protocol

from proxy.admin.question import Question
from proxy.metrics import Metrics
from proxy.policy.snapshot import Snapshot
from proxy.store.ports import LimitStore, Purge


class Control(Protocol):
    """The running gateway, as an operator may see and steer it."""

    @property
    def started(self) -> float:
        """When the process began, in seconds since the epoch."""

    @property
    def metrics(self) -> Metrics:
        """Every tally of the process."""

    @property
    def limit_store(self) -> LimitStore:
        """Where limits count."""

    async def key_salt(self) -> bytes | None:
        """By what keys are hashed where they are shown (`core.keys.shown_key`); None while the
        store has not told it."""

    async def refresh(self) -> None:
        """Brings the figures up to now, where other processes have them."""

    def snapshot(self) -> Snapshot | None:
        """The configuration in use; None before the first."""

    async def refresh_readiness(self) -> None:
        """Brings what `readiness` says up to now, where other processes have a part in it."""

    def readiness(self) -> tuple[bool, dict[str, object]]:
        """Whether traffic is welcome, and the members that say why (or why not)."""

    async def reload(self) -> list[str]:
        """Reads the YAML again; empty if it is in use now, else the errors, and nothing changed."""

    async def purge(self, purge: Purge, selector: str, number: int) -> None:
        """Purges stored answers, in every process; counted as so many selectors of a kind (one of
        `metrics.SELECTORS`). Raises StoreError where it is not certain that all will hear of it."""

    async def looked_up(self, question: Question) -> dict[str, Any]:
        """What is stored for a request, and what its lookup would decide
        (`admin.stored.looked_up`); {} where no process can say."""

    def cache_status(self) -> dict[str, object]:
        """How much is stored, and how the store for it is."""

    def store_status(self) -> dict[str, object]:
        """`kind`, `healthy`, and the store's figures."""

    def upstream_status(self) -> list[dict[str, object]]:
        """Each upstream's `name`, requests in flight, connections and waiting requests."""

    def breakers(self) -> list[dict[str, Any]]:
        """Each circuit: `upstream`, `state`, `forced`, `reason`, `retry_in_s`, and its figures."""

    async def force_breaker(self, upstream: str, state: str) -> None:
        """Opens or closes an upstream's circuit by hand, in every process; "auto" lets it decide
        again (`admin.breakers.STATES`)."""

    async def free_record(self, record: bytes) -> None:
        """Frees an idempotency key (`core.idempotency.record_id`). Raises StoreError."""

    def idempotency_status(self) -> dict[str, object]:
        """Requests at work under a claim, and how the store of records is; {} without policies."""

    def connections(self) -> int:
        """Open client connections."""
