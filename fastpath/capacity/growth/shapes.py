"""Docker hosts of a size: what the sweeps of the command line and the benchmarks grow.

All of them stay the same apart from what grows, and leave addresses to be chosen as a user would who plans for many:
every network a /24 of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastpath.docker.topology import Container, Endpoint, Network, Port, Topology
from fastpath.host.model import Host

if TYPE_CHECKING:
    from fastpath.docker.version import EngineLike

OUT_OF = 250
"""Networks in a /16, and containers in a network."""


def _network(i: int) -> Network:
    return Network(f"net{i}", subnet=f"10.{100 + i // OUT_OF}.{i % OUT_OF}.0/24")


def networks(n: int) -> Topology:
    """`n` networks of three containers, two of which publish a port."""
    containers = tuple(
        Container(f"c{i}-{j}", (Endpoint(f"net{i}"),), ports=Port.parse(f"{10_000 + 2 * i + j}:80") if j < 2 else ())
        for i in range(n) for j in range(3))
    return Topology(tuple(_network(i) for i in range(n)), containers)


def containers(n: int) -> Topology:
    """One network (a /16) of `n` containers that publish a port each."""
    return Topology((Network("net", subnet="10.100.0.0/16"),), tuple(
        Container(f"c{i}", (Endpoint("net"),), ports=Port.parse(f"{10_000 + i}:80")) for i in range(n)))


def ports(n: int) -> Topology:
    """One container that publishes `n` ports, ``10000-...:10000-...``."""
    published = Port.parse(f"10000-{10_000 + n - 1}:10000-{10_000 + n - 1}") if n else ()
    return Topology((Network("net", subnet="10.100.0.0/24"),), (Container("c", (Endpoint("net"),), ports=published),))


@dataclass(frozen=True)
class Guarded:
    """A topology, and iptables commands that are given once Docker has written its rules."""

    topology: Topology
    commands: tuple[str, ...]

    def host(self, engine: EngineLike) -> Host:
        """The host that an engine makes of it."""
        return self.topology.host(engine).edit(*self.commands)


def rules(n: int) -> Guarded:
    """Ten networks, and `n` rules in DOCKER-USER that each drop what comes from one address."""
    return Guarded(networks(10), tuple(
        f"iptables -I DOCKER-USER {i + 1} -s 203.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}/32 -j DROP"
        for i in range(n)))


SHAPES: dict[str, Callable[[int], Topology | Guarded]] = {
    "networks": networks, "containers": containers, "ports": ports, "rules": rules}
"""What `fastpath capacity sweep --grow` takes."""
