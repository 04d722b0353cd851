"""A request asked about in another way has every fact of the first."""

from facts_kit import facts
from stage_plans import exchange, snapshot

from proxy.core.limits.decision import Decision
from proxy.exchange import Exchange, Memo


class Claim:
    written = False

    async def announce(self) -> None:
        """Nobody is told."""


class Body:
    length = None

    async def read(self) -> bytes:
        return b""

    def proceed(self) -> None:
        """It comes anyway."""


def test_a_copy_has_every_fact() -> None:
    plan = snapshot()
    ex = Exchange(
        plan, "PUT", "/a?b", 10, exchange(lines=[("A", "b")]).fields, "h:1", "https", "unix",
        Body(), True, "websocket", lambda status, lines: None,
    )  # fmt: skip
    ex.host, ex.trusted, ex.client_ip, ex.request_id = "h", True, "unix", "id"
    ex.route, ex.captures = plan.routes["any"], {"rest": "b"}
    ex.admission, ex.charges = "RateLimit: a\r\n", [None]  # type: ignore[list-item]
    ex.said = [(None, Decision(True, 1, 1, 0, 0))]  # type: ignore[list-item]
    ex.denied, ex.shadow_denied, ex.claim = ("a",), ("b",), Claim()
    ex.memo, ex.trace = Memo(ex), "00-1"

    told, plain = facts(ex), facts(exchange())
    same = [name for name, value in told.items() if plain[name] == value]
    # But for what is empty once the fields were looked at.
    assert same == ["_unjoined"], "give these a value here that a new Exchange has not"
    assert facts(ex.copy()) == told
