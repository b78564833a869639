"""Subnets and addresses as Docker's IPAM gives them: the next free pool, the lowest free address.

The default pools are Docker's own since 1.9: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in pieces of /20. A
pool that overlaps a network of the machine is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from fastpath.docker.errors import TopologyError
from fastpath.docker.topology import AddressPool

DEFAULT_POOLS = (*(AddressPool(f"172.{n}.0.0/16", 16) for n in range(17, 32)), AddressPool("192.168.0.0/16", 20))
"""What dockerd uses without ``default-address-pools``."""


def parse_subnet(text: str, where: str) -> IPv4Network:
    """The IPv4 network of a text such as ``172.18.0.0/16``; bits beyond the prefix are refused.

    Raises:
        TopologyError: no such network; `where` says whose it is.
    """
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise TopologyError(f"{where}: {text!r} is not an IPv4 subnet such as 172.18.0.0/16 ({error})") from None


def parse_address(text: str, where: str) -> IPv4Address:
    """The IPv4 address of a text.

    Raises:
        TopologyError: no such address; `where` says whose it is.
    """
    try:
        return IPv4Address(text)
    except ValueError:
        raise TopologyError(f"{where}: {text!r} is not an IPv4 address such as 172.18.0.2") from None


class Pools:
    """Gives out subnets in the order of the pools."""

    def __init__(self, pools: Iterable[AddressPool], taken: Iterable[IPv4Network]) -> None:
        self._taken = list(taken)
        self._free = self._pieces(tuple(pools) or DEFAULT_POOLS)

    @staticmethod
    def _pieces(pools: Iterable[AddressPool]) -> Iterator[IPv4Network]:
        for pool in pools:
            base = parse_subnet(pool.base, "default-address-pools")
            if not base.prefixlen <= pool.size <= 32:
                raise TopologyError(
                    f"default-address-pools: size {pool.size} of base {base} should lie within {base.prefixlen} to 32")
            yield from base.subnets(new_prefix=pool.size)

    def reserve(self, network: IPv4Network) -> None:
        """Take a subnet that was named."""
        self._taken.append(network)

    def next(self, where: str) -> IPv4Network:
        """The next subnet that overlaps none that is taken, reserved for the caller.

        Raises:
            TopologyError: the pools are used up.
        """
        for piece in self._free:
            if not any(piece.overlaps(other) for other in self._taken):
                self._taken.append(piece)
                return piece
        raise TopologyError(
            f"{where}: the address pools are used up; give it a subnet, or the daemon more default-address-pools")


class Addresses:
    """Gives out the addresses of one subnet, the lowest free one of its range first."""

    def __init__(self, subnet: IPv4Network, ip_range: IPv4Network | None, where: str) -> None:
        self.subnet = subnet
        self._where = where
        self._range = ip_range or subnet
        self._owners: dict[int, str] = {}
        wide = subnet.prefixlen < 31
        self._next = max(int(self._range.network_address), int(subnet.network_address) + wide)
        self._last = min(int(self._range.broadcast_address), int(subnet.broadcast_address) - wide)

    def take(self, address: IPv4Address, owner: str) -> IPv4Address:
        """Take an address that was named.

        Raises:
            TopologyError: outside the subnet, or taken.
        """
        if address not in self.subnet:
            raise TopologyError(f"{owner}: address {address} is outside {self._where}'s subnet {self.subnet}")
        other = self._owners.setdefault(int(address), owner)
        if other != owner:
            raise TopologyError(f"{owner}: address {address} on {self._where} is taken by {other}")
        return address

    def next(self, owner: str) -> IPv4Address:
        """The lowest free address, taken by `owner`.

        Raises:
            TopologyError: none is left.
        """
        while self._next in self._owners:
            self._next += 1
        if self._next > self._last:
            raise TopologyError(f"{owner}: {self._where} has no free address left in {self._range}")
        self._owners[self._next] = owner
        return IPv4Address(self._next)
