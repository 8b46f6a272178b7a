"""Which IP addresses lead to the public internet, and which others an operator has let in.

The list is ours: `ipaddress.is_global` of Python 3.11 takes NAT64, 6to4, multicast and mapped forms for public ones. Of IPv6
only 2000::/3 is given out, so all else is refused without being named: loopback, mapped and compatible IPv4, NAT64, unique
local, link-local, multicast.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, TypeAlias

from app.errors import StartupError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")

# Source: the IANA registries of special-purpose addresses, and what clouds serve their machines' secrets from.
DENIED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; a cloud's metadata at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's host agent on a public address
        "169.254.0.0/16",  # link-local; metadata at 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; a cloud's metadata at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # multicast tunnels
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # protocol assignments, Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to the public internet and carries no other address inside it."""
    if isinstance(address, ipaddress.IPv6Address) and address not in PUBLIC_V6:
        return False
    return not any(address in network for network in DENIED if network.version == address.version)


@dataclass(frozen=True, slots=True)
class Inside:
    """Places that are not public and may be reached all the same.

    Args:
        hosts: names in lower case, reached wherever they lead.
        networks: addresses, reached by whatever name.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """Read entries that are each a host name, an address or a network such as `10.1.0.0/16`.

        Raises:
            StartupError: an entry is none of these.
        """
        hosts: set[str] = set()
        networks: list[Network] = []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                hosts.add(_host(entry))
        return cls(frozenset(hosts), tuple(networks))

    def __or__(self, other: Self) -> Self:
        """Return what either lets in."""
        return type(self)(self.hosts | other.hosts, self.networks + other.networks)

    def has(self, host: str, address: Address) -> bool:
        """Tell whether a host that was resolved to an address was let in."""
        return host in self.hosts or any(address in network for network in self.networks if network.version == address.version)


NOTHING_INSIDE = Inside()
EVERYWHERE = Inside(networks=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
"""For what operators alone have written, and meant."""


def _host(entry: str) -> str:
    labels = entry.lower().split(".")
    is_name = all(label and label.replace("-", "").replace("_", "").isalnum() and label.isascii() for label in labels)
    if not is_name or labels[-1].isdigit():
        raise StartupError(f"{entry!r} is neither a host name nor an address nor a network such as 10.1.0.0/16.")
    return entry.lower()
