"""What the words of a profile stand for on a host: addresses, and the interfaces that their packets arrive through."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastpath.capacity.traffic.profile import ProfileError
from fastpath.host.fib import Fib
from fastpath.host.model import Host
from fastpath.packets.schema import LOCAL

if TYPE_CHECKING:
    from fastpath.docker import Topology
    from fastpath.docker.version import EngineLike

Array = npt.NDArray[Any]
Names = Mapping[str, Sequence[tuple[str, int]]]
"""A name, of a container or a network, to (interface behind which it is, address) pairs, the best way out first."""

INTERNET_SOURCES = 1000
SUBNET_SOURCES = 10


@dataclass(frozen=True, slots=True)
class Place:
    """Where packets come from or go to.

    Attributes:
        interface: through which they arrive; ``local`` for the host's own.
        addresses: to choose from, uint32.
        text: in words.
    """

    interface: str
    addresses: Array
    text: str


def names_of(topology: Topology, engine: EngineLike) -> dict[str, list[tuple[str, int]]]:
    """What a topology calls its things: containers, Compose services (all their containers), and networks."""
    from fastpath.docker.plan import make_plan
    from fastpath.docker.version import as_engine

    found: dict[str, list[tuple[str, int]]] = {}
    networks: dict[str, list[tuple[str, int]]] = {}
    places = make_plan(topology, as_engine(engine)).attachments
    for place in sorted(places, key=lambda place: place.segment.internal):
        bridge = place.segment.bridge
        if bridge is None:
            continue
        container = topology.container(place.container)
        for name in dict.fromkeys(filter(None, (place.container, container.service if container else ""))):
            found.setdefault(name, []).append((bridge, int(place.address)))
        for name in (place.segment.name, bridge):
            networks.setdefault(name, []).append((bridge, int(place.address)))
    return networks | found


class Places:
    """Looks words up, for one host.

    Raises:
        ProfileError: the host's routes are not known (from the constructor), or a word means nothing there.
    """

    def __init__(self, host: Host, names: Names | None = None) -> None:
        if not host.complete:
            raise ProfileError(f"{host.source or 'the host'}: its addresses and routes are not known; a profile needs "
                               "a capture folder with ip-addr.json and ip-route.json, or a topology")
        self._host = host
        self._fib = Fib(host)
        self._names = names or {}
        defaults = [r for r in host.routes if r.destination.family == 4 and r.destination.mask == 0 and r.dev
                    and r.type == "unicast" and r.table == "main"]
        self.uplink = min(defaults, key=lambda r: r.metric).dev if defaults else None

    def find(self, word: str, where: str, count: int, rng: np.random.Generator, *, target: bool,
             other: str = "") -> Place:
        """What `word` stands for.

        Args:
            word: as in a profile.
            where: for messages.
            count: how many addresses are wanted, 0 for the usual number.
            rng: draws addresses.
            target: whether packets go there (else: come from there).
            other: the word at the connection's other end: of a container in several networks, the one that the two
                have in common is taken, else the one that leads out.
        """
        if word == "internet":
            return Place(self._uplink(where), self._internet(count or (1 if target else INTERNET_SOURCES), rng), word)
        if word == "host":
            return self._own(where, target)
        if word in self._names:
            pairs = self._names[word]
            there = {name for name, _ in self._names.get(other, ())} | {other}
            interface = next((name for name, _ in pairs if name in there), pairs[0][0])
            known = [address for name, address in pairs if name == interface]
            return Place(interface, np.array(known[:count] if count else known, np.uint32), word)
        if (found := self._host.interface(word)) is not None:
            return Place(word, self._members(word, count, rng, where), found.name)
        try:
            network = ipaddress.IPv4Network(word, strict=False)
        except ValueError:
            known_names = [i.name for i in self._host.interfaces if i.master is None and i.name != "lo"]
            raise ProfileError(
                f"{where}: {word!r} is no place on {self._host.source or 'this host'}; give internet, host, an IPv4 "
                f"address or network, or one of {', '.join([*known_names, *self._names])}") from None
        first, size = int(network.network_address), network.num_addresses
        chosen = first + (rng.choice(size, min(count or 1 << 10, size), replace=False) if 1 < size <= 1 << 16 else
                          rng.integers(0, size, count or 1 << 10) if size > 1 else np.zeros(1, np.int64))
        route = self._fib.lookup(int(chosen[0]))
        if self._fib.is_own_address(first) and size == 1:
            interface_name: str | None = LOCAL
        else:
            interface_name = route.dev if route is not None else None
        if interface_name is None:
            raise ProfileError(f"{where}: {self._host.source or 'the host'} has no route to {word}")
        return Place(interface_name, np.unique(chosen).astype(np.uint32), word)

    def sender(self, source: Place, target: Place) -> Place:
        """The host as a source: the address that routing gives its packets to `target`."""
        route = self._fib.lookup(int(target.addresses[0]))
        if route is None or route.dev is None:
            return source
        chosen = route.prefsrc or self._fib.first_address(route.dev)
        return source if chosen is None else Place(LOCAL, np.array([chosen], np.uint32), source.text)

    def egress(self, address: int) -> str:
        """Where routing sends what goes to `address`: an interface, or ``local``; the uplink where it refuses."""
        if self._fib.local_type(address) != "UNICAST":
            return LOCAL
        route = self._fib.lookup(address)
        return route.dev if route is not None and route.dev is not None else self.uplink or LOCAL

    def _uplink(self, where: str) -> str:
        if self.uplink is None:
            raise ProfileError(f"{where}: {self._host.source or 'the host'} has no default route, so no internet")
        return self.uplink

    def _own(self, where: str, target: bool) -> Place:
        addresses = [a.address for i in self._host.interfaces if i.name == self._uplink(where) for a in i.addresses
                     if a.family == 4 and not a.secondary]
        if not addresses:
            raise ProfileError(f"{where}: {self._uplink(where)} has no address")
        return Place(LOCAL, np.array(addresses[:1], np.uint32), "host")

    def _members(self, name: str, count: int, rng: np.random.Generator, where: str) -> Array:
        interface = self._host.interface(name)
        assert interface is not None
        for address in interface.addresses:
            if address.family == 4 and address.prefixlen < 31:
                size = 1 << 32 - address.prefixlen
                first = address.network_address & ~(size - 1)
                other = np.setdiff1d(np.arange(1, min(size - 1, 1 << 16)), [address.address - first])
                wanted = min(count or SUBNET_SOURCES, len(other))
                # like dockerd, from the bottom, unless a few are not enough to tell
                return (first + other[:wanted]).astype(np.uint32)
        raise ProfileError(f"{where}: interface {name} has no IPv4 network to choose addresses from")

    def _internet(self, count: int, rng: np.random.Generator) -> Array:
        """Distinct public unicast addresses that the host reaches through its default route."""
        found: list[int] = []
        seen: set[int] = set()
        while len(found) < min(count, 1 << 16):
            for value in rng.integers(0x01000000, 0xDF000000, 2 * count + 16).tolist():
                if value in seen or not ipaddress.IPv4Address(value).is_global:
                    continue
                route = self._fib.lookup(value)
                if route is not None and route.dev == self.uplink and route.type == "unicast":
                    seen.add(value)
                    found.append(value)
                if len(found) == count:
                    break
        return np.array(found[:count], np.uint32)
