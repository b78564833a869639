"""The routing of a host as sets of addresses.

The address space falls into intervals within which every look-up of :class:`fastpath.host.fib.Fib` gives the same
answer; one look-up for each gives the whole map. Address types, ways out and the address that MASQUERADE would take
are sets and maps derived from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from fastpath.compiler.fields import Values
from fastpath.host.fib import Fib, Lookup
from fastpath.host.model import Host


class RouteMap:
    """Intervals of the destination address and what routing does with each.

    Attributes:
        intervals: sorted inclusive intervals that cover all addresses.
        lookups: what the tables hold for each interval, None without a route.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.fib = Fib(host)
        self.bits = 32 if host.ruleset.family == 4 else 128
        top = 1 << self.bits
        starts = {0, 1, top - 1, 127 << 24, 128 << 24, 0xE << 28, 0xF << 28}
        for route in host.routes:
            d = route.destination
            starts |= {d.address, (d.address | (~d.mask & (top - 1))) + 1}
        for interface in host.interfaces:
            for a in interface.addresses:
                if a.family != host.ruleset.family:
                    continue
                size = 1 << (self.bits - a.prefixlen)
                network = a.address & -size
                starts |= {a.address, a.address + 1, network, network + size, network + size - 1}
                if a.broadcast is not None:
                    starts |= {a.broadcast, a.broadcast + 1}
        ordered = sorted(s for s in starts if 0 <= s < top)
        self.intervals = tuple(zip(ordered, [s - 1 for s in ordered[1:]] + [top - 1], strict=True))
        self.lookups: tuple[Lookup | None, ...] = tuple(self.fib.lookup(first) for first, _ in self.intervals)
        self.of_type = cache(self._of_type)

    def _of_type(self, types: frozenset[str], dev: str | None) -> Values:
        return Values.of(
            i for i in self.intervals if self.fib.local_type(i[0], dev) in types
        )

    def where(self, chosen: Iterable[bool]) -> Values:
        """The union of the intervals for which `chosen` is true."""
        return Values.of(i for i, take in zip(self.intervals, chosen, strict=True) if take)

    @property
    def own_addresses(self) -> Values:
        """Every address of an interface."""
        return Values.of(i for i in self.intervals if self.fib.is_own_address(i[0]))
