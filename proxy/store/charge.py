"""One question to a limit store. It stands by itself as every request asks some: this module is
compiled where `ports` is not."""

from proxy.policy.limit_plans import LimitVariant


class Charge:
    """One limit asked for one request: which variant, which key, how much.

    `key` is the 16-byte hash of the resolved key parts (`proxy.core.keys.digest`).
    `shadow` limits never block and are charged only if every enforced limit admits.
    """

    __slots__ = ("alone", "at", "cost", "key", "shadow", "variant")

    def __init__(self, variant: LimitVariant, key: bytes, cost: int, shadow: bool) -> None:
        self.variant = variant
        self.key = key
        self.cost = cost
        self.shadow = shadow
        self.at = 0
        """When it was charged, in µs of the store's clock; 0 where it was not. The store says."""
        self.alone = False
        """Whether this process charged it by itself, as the shared store was in trouble."""
