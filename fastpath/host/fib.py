"""Routing look-ups as the kernel makes them, one address at a time.

:class:`Fib` answers what ``inet_addr_type()``, ``fib_lookup()`` and ``inet_select_addr()`` answer in Linux
(net/ipv4/fib_frontend.c, fib_trie.c, devinet.c); the order of checks around them (martians, forwarding, reverse
path) is the reader's. It is plain Python for the reference; the compiler derives tables of its own.

Invariants: nothing here reads the rules; a route through an interface that is down is never returned, while
that interface's own addresses stay local, as in the kernel. Policy rules (`ip rule`) are not consulted: whoever
routes with a host that has some must treat the answer as undecided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fastpath.host.model import Host, Interface, InterfaceAddress, Route
from fastpath.ruleset.model import Network

ERROR_TYPES = frozenset({"blackhole", "unreachable", "prohibit"})
"""Route types that end a look-up with an error instead of a way out."""



@dataclass(frozen=True, slots=True)
class Lookup:
    """What a route look-up found.

    Attributes:
        type: ``local``, ``broadcast``, ``unicast``, ``multicast``, ``anycast``, ``blackhole``, ``unreachable`` or
            ``prohibit``.
        dev: the interface, None for error types.
        gateway: the next hop's address, None where the destination is on the link.
        prefsrc: source address that the host's own packets would get, where the route names one.
        route: the route itself; None for entries of the local table that follow from an address.
    """

    type: str
    dev: str | None
    gateway: int | None = None
    prefsrc: int | None = None
    route: Route | None = None

    @property
    def on_link(self) -> bool:
        """True where the packet goes to the destination itself and not to a gateway."""
        return self.type not in ERROR_TYPES and self.gateway is None


def prefix_mask(length: int, family: int = 4) -> int:
    """The mask of a prefix length, as an integer of 32 (family 4) or 128 (family 6) bits."""
    bits = 32 if family == 4 else 128
    return ((1 << length) - 1) << (bits - length)


def connected_routes(interfaces: Iterable[Interface], family: int = 4) -> tuple[Route, ...]:
    """The routes that the kernel adds by itself for the primary addresses of interfaces that are up."""
    bits = 32 if family == 4 else 128
    found: list[Route] = []
    for interface in interfaces:
        if not interface.up or interface.name == "lo":
            continue
        for a in interface.addresses:
            if a.family != family or a.secondary or (a.prefixlen == bits and a.peer is None):
                continue
            mask = prefix_mask(a.prefixlen, family)
            route = Route(Network(family, a.network_address & mask, mask), interface.name, prefsrc=a.address)
            if route not in found:
                found.append(route)
    return tuple(found)


def _is_global(address: InterfaceAddress) -> bool:
    return address.scope in ("global", "universe", "0")


class Fib:
    """The local, main and default routing tables of a host.

    Without policy rules the kernel keeps local and main in one trie: the longest prefix of both wins, local
    before main where they are equal, then the smallest metric, then the order of addition.
    """

    def __init__(self, host: Host) -> None:
        self.family = host.ruleset.family
        self._bits = 32 if self.family == 4 else 128
        self._interfaces = {i.name: i for i in host.interfaces}
        main: dict[tuple[int, int], list[tuple[tuple[int, int], Lookup]]] = {}
        default: dict[tuple[int, int], list[tuple[tuple[int, int], Lookup]]] = {}
        for network, found in self._local_entries(host):
            main.setdefault(self._key(network), []).append(((0, 0), found))
        for route in host.routes:
            if route.destination.family != self.family or not self._usable(route):
                continue
            dev = None if route.type in ERROR_TYPES else route.dev
            found = Lookup(route.type, dev, route.gateway, route.prefsrc, route)
            where = {"main": main, "local": main, "default": default}.get(route.table)
            if where is not None:
                rank = (0 if route.table == "local" else 1, route.metric)
                where.setdefault(self._key(route.destination), []).append((rank, found))
        self._main = self._sorted(main)
        self._default = self._sorted(default)
        self._lengths = sorted({length for length, _ in (*self._main, *self._default)}, reverse=True)

    def _key(self, network: Network) -> tuple[int, int]:
        return network.mask.bit_count(), network.address

    def _usable(self, route: Route) -> bool:
        interface = self._interfaces.get(route.dev) if route.dev is not None else None
        return interface is None or interface.up

    @staticmethod
    def _sorted(
        table: dict[tuple[int, int], list[tuple[tuple[int, int], Lookup]]],
    ) -> dict[tuple[int, int], tuple[Lookup, ...]]:
        return {key: tuple(f for _, f in sorted(fs, key=lambda x: x[0])) for key, fs in table.items()}

    def _local_entries(self, host: Host) -> Iterator[tuple[Network, Lookup]]:
        """What each address puts into the local table (fib_add_ifaddr). An address of an interface that is down
        is local all the same; only its broadcasts are missing."""
        full = prefix_mask(self._bits, self.family)
        for interface in host.interfaces:
            for a in interface.addresses:
                if a.family != self.family:
                    continue
                dev = interface.name
                yield Network(self.family, a.address, full), Lookup("local", dev, prefsrc=a.address)
                if self.family != 4 or not interface.up:
                    continue
                if a.broadcast is not None and a.broadcast != 0xFFFFFFFF:
                    yield Network(4, a.broadcast, full), Lookup("broadcast", dev, prefsrc=a.address)
                mask = prefix_mask(a.prefixlen)
                network = a.network_address & mask
                if a.secondary or a.prefixlen == 32 or network == 0:
                    continue
                if dev == "lo":
                    yield Network(4, network, mask), Lookup("local", dev, prefsrc=a.address)
                if a.prefixlen < 31:
                    broadcast = network | (mask ^ 0xFFFFFFFF)
                    yield Network(4, broadcast, full), Lookup("broadcast", dev, prefsrc=a.address)

    def _search(self, table: dict[tuple[int, int], tuple[Lookup, ...]], address: int) -> Lookup | None:
        for length in self._lengths:
            found = table.get((length, address & prefix_mask(length, self.family)))
            if found is not None:
                return found[0]
        return None

    def lookup(self, address: int) -> Lookup | None:
        """The route to `address`, or None without one (also behind a ``throw`` route).

        Only the tables are asked: limited broadcast and multicast addresses match the default route like any
        other; the kernel sorts them out before it looks here, with :meth:`local_type`.
        """
        for table in (self._main, self._default):
            found = self._search(table, address)
            if found is not None and found.type != "throw":
                return found
        return None

    def local_type(self, address: int, dev: str | None = None) -> str:
        """The type of an address as ``-m addrtype`` has it: LOCAL, BROADCAST, MULTICAST, UNICAST or ANYCAST.

        0.0.0.0 and 255.255.255.255 are BROADCAST. With `dev` (``--limit-iface-*``) an address that is not
        reached through that interface is UNICAST. Blackhole and other error routes give UNICAST too: the kernel
        takes a failed look-up so.
        """
        if self.family == 4:
            if address in (0, 0xFFFFFFFF):
                return "BROADCAST"
            if address >> 28 == 0xE:
                return "MULTICAST"
        elif address >> 120 == 0xFF:
            return "MULTICAST"
        found = self._search(self._main, address)
        if found is None or found.type in ERROR_TYPES or found.type == "throw":
            return "UNICAST"
        if dev is not None and dev != found.dev:
            return "UNICAST"
        return found.type.upper()

    def is_own_address(self, address: int) -> bool:
        """True where an interface, up or down, has exactly this address."""
        return any(a.family == self.family and a.address == address
                   for i in self._interfaces.values() for a in i.addresses)

    def first_address(self, dev: str) -> int | None:
        """The address that REDIRECT sends packets from `dev` to: the interface's first one, or None."""
        return next((a.address for a in self._addresses(dev)), None)

    def masquerade_address(self, dev: str, next_hop: int) -> int | None:
        """The source address that MASQUERADE gives to packets leaving by `dev` towards `next_hop`.

        The first primary address of global scope whose network holds the next hop (the gateway, or the
        destination where it is on the link), else the first of global scope, else that of any interface; None
        where there is none (the packet is dropped then).
        """
        usable = [a for a in self._addresses(dev) if not a.secondary and _is_global(a)]
        for a in usable:
            mask = prefix_mask(a.prefixlen, self.family)
            if (a.network_address ^ next_hop) & mask == 0:
                return a.address
        if usable:
            return usable[0].address
        for name in self._interfaces:
            for a in self._addresses(name):
                if not a.secondary and _is_global(a):
                    return a.address
        return None

    def _addresses(self, dev: str) -> Iterator[InterfaceAddress]:
        interface = self._interfaces.get(dev)
        if interface is not None:
            yield from (a for a in interface.addresses if a.family == self.family)
