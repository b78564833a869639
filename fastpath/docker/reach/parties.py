"""The rows and columns of the matrix: who may want to reach something, and what there is to reach.

Targets are a container's own ports (published or exposed), ``web:*`` for any other port of it, the published ports at
the host's address and at 127.0.0.1, the ports of containers that use the host's stack, the ports that swarm publishes,
and ``host:*`` for any other port of the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from fastpath.docker.ends import OUTSIDE, End, Ends
from fastpath.docker.plan import Ingress

OUTSIDE_NAME = "external"
_LOOPBACK = IPv4Address("127.0.0.1")


@dataclass(frozen=True, slots=True)
class Source:
    """Who connects: a container, ``host`` or ``external``."""

    name: str
    end: End


@dataclass(frozen=True, slots=True)
class Target:
    """What is connected to.

    Attributes:
        name: ``web:80``, ``web:53/udp``, ``web:*``, ``host:8080``, ``localhost:8080``, ``10.0.2.15:8080``.
        kind: ``port`` (a container's own), ``other`` (any other of it), ``published``, ``ingress``, ``host`` (a port of
            a container in the host's stack) or ``host-other``.
        end: where it is.
        port, protocol: the port connected to (of ``other`` ones: one that nobody names).
        container: whose port it is in the end; empty for the host's own.
        published: for a container's own port, whether it is published.
    """

    name: str
    kind: str
    end: End
    port: int
    protocol: str
    container: str = ""
    published: bool = False


def sources(ends: Ends, outside: str = OUTSIDE) -> tuple[Source, ...]:
    """Every running container in the topology's order, then the host and the outside."""
    found = [Source(c.name, End(c.name, ends.plan.stacks[c.name])) for c in ends.topology.containers if c.running]
    return (*found, Source("host", End("host", "host")),
            Source(OUTSIDE_NAME, End(OUTSIDE_NAME, "external", IPv4Address(outside))))


def targets(ends: Ends) -> tuple[Target, ...]:
    """Every port there is to reach, container by container, then the host's."""
    free = _free_port(ends)
    found: dict[str, Target] = {}
    for target in (*_own_ports(ends, free), *_published(ends), *_ingress(ends),
                   Target("host:*", "host-other", End("host", "host"), free, "tcp")):
        found.setdefault(target.name, target)
    return tuple(found.values())


def _free_port(ends: Ends) -> int:
    """A port that nobody in the topology names."""
    taken = {p.container_port for c in ends.topology.containers for p in c.ports}
    taken |= {port for c in ends.topology.containers for port, _ in c.exposed}
    taken |= {p.host_port for p in ends.plan.published}
    taken |= {step.port for step in ends.plan.steps if isinstance(step, Ingress)}
    return next(port for port in range(9, 65536) if port not in taken)


def port_name(name: str, port: int, protocol: str) -> str:
    """``web:80``; the protocol where it is not TCP."""
    return f"{name}:{port}" + ("" if protocol == "tcp" else f"/{protocol}")


def _own_ports(ends: Ends, free: int) -> Iterator[Target]:
    published = {(p.attachment.container, p.container_port, p.protocol) for p in ends.plan.published}
    for container in ends.topology.containers:
        if not container.running:
            continue
        name, stack = container.name, ends.plan.stacks[container.name]
        known = dict.fromkeys([*((p.container_port, p.protocol) for p in container.ports), *container.exposed])
        for port, protocol in known:
            yield Target(port_name(name, port, protocol), "host" if stack == "host" else "port", End(name, stack), port,
                         protocol, name, (name, port, protocol) in published)
        if stack != "host":
            yield Target(f"{name}:*", "other", End(name, stack), free, "tcp", name)


def _published(ends: Ends) -> Iterator[Target]:
    for port in ends.plan.published:
        if port.attachment.segment.mode == "routed":
            continue
        container = port.attachment.container
        name, address = "host", port.host_ip
        if address is not None and not address.is_loopback:
            name = str(address) if address != ends.host_address else "host"
        if address is None or not address.is_loopback:
            yield Target(port_name(name, port.host_port, port.protocol), "published", End(name, "host", address),
                         port.host_port, port.protocol, container, True)
        if address is None or address.is_loopback:
            loopback = address or _LOOPBACK
            name = "localhost" if loopback == _LOOPBACK else str(loopback)
            yield Target(port_name(name, port.host_port, port.protocol), "published", End(name, "host", loopback),
                         port.host_port, port.protocol, container, True)


def _ingress(ends: Ends) -> Iterator[Target]:
    for step in ends.plan.steps:
        if isinstance(step, Ingress):
            yield Target(port_name("host", step.port, step.protocol), "ingress", End("host", "host"), step.port,
                         step.protocol, "ingress-sbox", True)
