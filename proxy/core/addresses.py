"""IP addresses as the gateway reads them: IPv4-mapped ones are IPv4, zones are dropped."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_REMEMBERED = 4096  # addresses, per cache: a few hundred KB


def parse_address(text: str) -> Address:
    """An IP address, IPv4-mapped ones as IPv4 and without a zone. Raises ValueError."""
    address = ip_address(text.partition("%")[0] if ":" in text else text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=_REMEMBERED)
def address_key(text: str) -> str:
    """An address as limits count it: IPv4 in full, IPv6 as its /64; other text ("unix") as is."""
    try:
        address = parse_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))


class AddressSet:
    """Networks, and optionally "unix", that a peer or client may belong to."""

    __slots__ = ("holds", "networks")

    def __init__(self, networks: Iterable[Network], *, unix: bool = False) -> None:
        self.networks = tuple(_unmapped(network) for network in networks)
        # A few peers make most requests, so the answers are worth remembering.
        remembered = lru_cache(maxsize=_REMEMBERED)(self._is_member)
        self.holds = (lambda text: text == "unix" or remembered(text)) if unix else remembered
        """Whether this text is an address within, or the "unix" of a set that has it."""

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "AddressSet":
        """Addresses and CIDRs. Raises ValueError, a sentence."""
        networks = []
        for text in texts:
            try:
                networks.append(ip_network(text))
            except ValueError as error:
                raise ValueError(f"{text!r} is not an address or a CIDR: {error}") from None
        return cls(networks)

    def _is_member(self, text: str) -> bool:
        try:
            address = parse_address(text)
        except ValueError:  # "unix", or nothing at all
            return False
        return any(address in network for network in self.networks)


def _unmapped(network: Network) -> Network:
    """A network within ::ffff:0:0/96 as the IPv4 network it stands for."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network
