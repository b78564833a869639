"""Ports that source NAT takes, pool by pool.

A pool is what connections share that leave through one source address for one destination address, port and protocol: a
source port may serve several destinations at once, and the same port of another address is another one.

Formulas. A pool holds ``rate * hold`` ports on average (Little's law), with a Poisson number's fluctuation; ``hold`` is
a connection's duration and what conntrack keeps its entry for afterwards. A range of ``ports`` cannot serve more than
``ports / hold`` connections per second. How many get none before that is the business of ``search.py``. Over several
addresses (``--to-source A-B``) the kernel spreads by a hash of source and destination (``find_best_ips_proto``): all
connections of one source to one destination use one address, so `k` addresses are worth `k` times the ports only to
many sources.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fastpath.capacity.ports.search import Region, highest, lost, lost_evicting, regions
from fastpath.errors import FastpathError

if TYPE_CHECKING:
    import pyarrow as pa

EPHEMERAL = (32768, 60999)
"""Linux' ``net.ipv4.ip_local_port_range``: 28,232 ports."""

EVICTING_SINCE = (6, 5)
"""The first Linux that takes the ports of closing TCP connections (see ``search.py``, 4)."""

CLIENT_TIME_WAIT = 60
"""Seconds that a Linux client keeps a closed connection's port itself (``TCP_TIMEWAIT_LEN``, include/net/tcp.h)."""

SAFE_LOSS = 1e-3
"""A rate is called safe as long as fewer connections than this fail, as a part of all."""

_PORT_PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True, slots=True)
class PortRange:
    """Where a rule lets source ports lie.

    Attributes:
        first, last: ``--to-ports`` or the ports of ``--to-source``; None where the rule names none.
        random: ``--random`` or ``--random-fully``.
    """

    first: int | None = None
    last: int | None = None
    random: bool = False

    def __post_init__(self) -> None:
        if (self.first is None) != (self.last is None):
            raise FastpathError("a range of ports needs both its ends")
        if self.first is not None and self.last is not None and not 0 < self.first <= self.last <= 65535:
            raise FastpathError(f"ports {self.first}-{self.last} should be a range within 1-65535")

    def bounds(self, own: tuple[int, int]) -> tuple[int, int]:
        """The range for connections whose own ports lie in `own`; without a rule's, the kernel's for its first port."""
        if self.first is not None and self.last is not None:
            return self.first, self.last
        return (1, 511) if own[0] < 512 else (600, 1023) if own[0] < 1024 else (1024, 65535)

    def __str__(self) -> str:
        text = "any port" if self.first is None else f"ports {self.first}-{self.last}"
        return text + (", random" if self.random else "")


@dataclass(frozen=True, slots=True)
class SnatFlow:
    """Connections whose source is changed, to one destination.

    Attributes:
        address: the source address that they get; for several, in words (``192.0.2.1-192.0.2.4``).
        destination, port, protocol: whom they go to, after DNAT.
        rate: new connections per second.
        duration: mean seconds that a connection is open (or half open).
        after: seconds that its entry stays when it is closed: TIME_WAIT for TCP, the timeout for UDP.
        sources: how many different sources there are (containers).
        addresses: how many source addresses there are to choose from.
        destinations: how many destinations share the rate evenly, each with a pool of its own.
        ports: where source ports may lie.
        own: where the connections' own ports lie.
        name: for people.
    """

    address: str
    destination: str
    port: int
    protocol: str
    rate: float
    duration: float
    after: float = 120.0
    sources: int = 1
    addresses: int = 1
    destinations: int = 1
    ports: PortRange = field(default_factory=PortRange)
    own: tuple[int, int] = EPHEMERAL
    name: str = ""

    def __post_init__(self) -> None:
        if self.protocol not in _PORT_PROTOCOLS:
            raise FastpathError(f"{self.protocol!r} has no ports to choose; there are {', '.join(_PORT_PROTOCOLS)}")
        for name in ("rate", "duration", "after"):
            if not 0 <= getattr(self, name) < math.inf:
                raise FastpathError(f"{name} {getattr(self, name)!r} should be a number, 0 or more")
        for name in ("sources", "addresses", "destinations"):
            if getattr(self, name) < 1:
                raise FastpathError(f"{name} {getattr(self, name)!r} should be 1 or more")
        if not 0 < self.own[0] <= self.own[1] <= 65535:
            raise FastpathError(f"own ports {self.own[0]}-{self.own[1]} should be a range within 1-65535")

    @property
    def hold(self) -> float:
        """Seconds that a connection holds its port."""
        return self.duration + self.after


@dataclass(frozen=True, slots=True)
class PoolUse:
    """A pool of ports and what its connections need.

    Attributes:
        name: of the flow.
        address, destination, port, protocol: whom the pool is for.
        ports: ports of one address.
        addresses: how many addresses connections are spread over.
        destinations: how many such pools there are, one a destination; what follows is of one of them.
        rate: new connections per second.
        hold: seconds that each holds its port.
        active: connections that are open, on average.
        in_use: ports in use on average, of all addresses together; no more than there are.
        share: ports that have to be there, of those that are: of an evicting pool for the active connections, else for
            all whose entry is still there; over 1 where there are too few.
        lost: the part of connections that get no port.
        max_rate: ports over holding time: connections per second that no arrangement exceeds.
        safe_rate: connections per second at which one in a thousand fails.
        client_rate: connections per second that the sources' own ports allow, at most.
        evicting: whether ports of closing connections may be taken; max_rate then counts active connections only.
    """

    name: str
    address: str
    destination: str
    port: int
    protocol: str
    ports: int
    addresses: int
    destinations: int
    rate: float
    hold: float
    active: float
    in_use: float
    share: float
    lost: float
    max_rate: float
    safe_rate: float
    client_rate: float
    evicting: bool

    @property
    def growth(self) -> float:
        """The factor on the rate at which one connection in a thousand fails."""
        return self.safe_rate / self.rate if self.rate else math.inf


@dataclass(frozen=True)
class SnatResult:
    """What :func:`snat_ports` finds.

    Attributes:
        pools: the fullest first.
        rate: connections per second that need a port, in all.
        lost: connections per second that get none.
        kernel: the kernel that was assumed.
    """

    pools: tuple[PoolUse, ...]
    rate: float
    lost: float
    kernel: tuple[int, int]

    @property
    def growth(self) -> float:
        """The smallest growth factor among the pools."""
        return min((pool.growth for pool in self.pools), default=math.inf)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; what is infinite is null."""
        def plain(number: float) -> float | None:
            return number if math.isfinite(number) else None

        return {
            "rate": self.rate, "lost": self.lost, "growth": plain(self.growth), "kernel": list(self.kernel),
            "pools": [{key: plain(value) if isinstance(value, float) else value for key, value in asdict(pool).items()}
                      | {"growth": plain(pool.growth)} for pool in self.pools],
        }

    def to_arrow(self) -> pa.Table:
        """The pools as a table, one column for each field of :class:`PoolUse`."""
        import pyarrow as pa

        return pa.Table.from_pylist([asdict(pool) for pool in self.pools])


def snat_ports(flows: Iterable[SnatFlow], *, kernel: tuple[int, int] = (6, 12)) -> SnatResult:
    """The pools that connections draw their source ports from.

    Args:
        flows: what leaves; flows of one address, destination, port, protocol and range share a pool.
        kernel: Linux version: from 6.5 the ports of closing TCP connections may be taken over.

    Raises:
        FastpathError: numbers out of range (from :class:`SnatFlow`).
    """
    groups: dict[tuple[Any, ...], list[SnatFlow]] = {}
    for flow in flows:
        key = (flow.address, flow.destination, flow.port, flow.protocol, flow.ports, flow.addresses, flow.destinations,
               flow.ports.bounds(flow.own))
        groups.setdefault(key, []).append(flow)
    pools = [_pool(group, kernel) for group in groups.values()]
    pools.sort(key=lambda pool: (pool.growth, -pool.share))
    return SnatResult(tuple(pools), sum(p.rate * p.destinations for p in pools),
                      sum(p.rate * p.destinations * p.lost for p in pools), kernel)


def _pool(group: list[SnatFlow], kernel: tuple[int, int]) -> PoolUse:
    one = group[0]
    rate = sum(flow.rate for flow in group) / one.destinations
    weight = [flow.rate / one.destinations / rate if rate else 1 / len(group) for flow in group]
    hold = sum(w * flow.hold for w, flow in zip(weight, group, strict=True))
    active = sum(w * flow.duration for w, flow in zip(weight, group, strict=True))
    sources = sum(flow.sources for flow in group)
    first, last = one.ports.bounds(one.own)
    ports = last - first + 1
    own = None if one.ports.random else (min(f.own[0] for f in group), max(f.own[1] for f in group))
    if own is not None and one.ports.first is not None and (own[1] < first or own[0] > last):
        own = None
    evicting = one.protocol == "tcp" and kernel >= EVICTING_SINCE
    parts = regions(first, last, own)

    def loss(load: float) -> float:
        """Of `load` connections at once."""
        return _spread(lambda x: _lost(x, x * active / hold if hold else 0.0, ports, parts, evicting), load, sources,
                       one.addresses)

    load = rate * hold
    total = ports * one.addresses
    needed = active if evicting else hold
    own_ports = sum(flow.sources * (flow.own[1] - flow.own[0] + 1) for flow in group)
    keeps = active + (CLIENT_TIME_WAIT if one.protocol == "tcp" else 0)
    return PoolUse(
        name=", ".join(dict.fromkeys(flow.name for flow in group if flow.name)), address=one.address,
        destination=one.destination, port=one.port, protocol=one.protocol, ports=ports, addresses=one.addresses,
        destinations=one.destinations, rate=rate, hold=hold, active=rate * active,
        in_use=min(load, total), share=rate * needed / total, lost=loss(load),
        max_rate=total / needed if needed else math.inf,
        safe_rate=highest(loss, SAFE_LOSS, total) / hold if hold else math.inf,
        client_rate=own_ports / keeps if keeps else math.inf, evicting=evicting)


def _lost(load: float, active: float, ports: int, parts: tuple[Region, ...], evicting: bool) -> float:
    return lost_evicting(load, active, ports, parts) if evicting else lost(load, ports, parts)


def _spread(loss: Callable[[float], float], load: float, sources: int, addresses: int) -> float:
    """The part lost where each of `sources` has one of `addresses`, as likely as another: mean over how many share one,
    counted by connections."""
    if addresses == 1:
        return loss(load)
    if sources > 400:
        return loss(load / addresses)
    chance = 1 / addresses
    found = 0.0
    for others in range(sources):  # sources that share the address with the one that is looked at
        probability = math.comb(sources - 1, others) * chance**others * (1 - chance) ** (sources - 1 - others)
        if probability > 1e-9:
            found += probability * loss(load * (others + 1) / sources)
    return found
