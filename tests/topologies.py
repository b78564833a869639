"""Drawn topologies, valid for every generation, and connections between their containers, the host and the outside."""

from __future__ import annotations

import random

from fastpath.docker import Container, Daemon, Endpoint, Network, Port, Swarm, Topology, TopologyError
from fastpath.docker.layouts import GENERATIONS
from fastpath.packets import PacketBatch

ENGINES = tuple(sorted(".".join(map(str, since)) for since, _ in GENERATIONS))
MODES = ("nat", "nat", "nat-unprotected", "routed")


def drawn(seed: int) -> Topology:
    """A topology of up to five networks and eight containers, with every kind of setting; valid for all engines."""
    draw = random.Random(seed)
    networks = []
    for number in range(draw.randint(0, 5)):
        internal = draw.random() < 0.25
        networks.append(Network(
            f"n{number}", internal=internal, icc=draw.random() < 0.7, masquerade=draw.random() < 0.8,
            gateway_mode="isolated" if internal and draw.random() < 0.3 else draw.choice(MODES),
            bind_ip=draw.choice((None, None, "127.0.0.1", "10.0.2.15")),
            host_ip=draw.choice((None, None, "10.0.2.15")),
            trusted_interfaces=("eth1",) if draw.random() < 0.2 else ()))
    containers: list[Container] = []
    for number in range(draw.randint(1, 8)):
        kind = draw.random()
        ports = tuple(
            Port(draw.choice((53, 80, 443, 8000 + place)), draw.choice(("tcp", "tcp", "udp", "sctp")),
                 8000 + 10 * number + place, host_ip=draw.choice((None, None, "127.0.0.1", "10.0.2.15")))
            for place in range(draw.randint(0, 3)))
        mode = ""
        if kind < 0.1:
            mode = draw.choice(("host", "none"))
        elif kind < 0.2 and containers:
            mode = f"container:{draw.choice(containers).name}"
        chosen = draw.sample(networks, draw.randint(0, min(3, len(networks)))) if not mode else []
        links = tuple(c.name for c in containers if not c.networks and not c.mode) if not mode and not chosen else ()
        containers.append(Container(
            f"c{number}", tuple(Endpoint(n.name, priority=draw.randint(0, 1)) for n in chosen), mode, ports, links,
            ((6379, "tcp"),)))
    daemon = Daemon(
        ip_forward=draw.random() < 0.9, icc=draw.random() < 0.7, userland_proxy=draw.random() < 0.6,
        allow_direct_routing=draw.random() < 0.2,
        swarm=Swarm((Port(80, host_port=7000),)) if draw.random() < 0.2 else None)
    machine = Topology().machine
    interfaces = (*machine.interfaces, ("eth1", ("192.0.2.15/24",)))
    return Topology(tuple(networks), tuple(containers), daemon, type(machine)(interfaces, machine.routes))


def named_packets(topology: Topology, engine: str, count: int, seed: int) -> PacketBatch:
    """First packets of connections between drawn ends of a topology, to known and unknown ports."""
    draw = random.Random(seed)
    names = [container.name for container in topology.containers]
    ends = [*names, "host", "localhost", "external 203.0.113.9", "external 192.0.2.7", "10.0.2.15", "192.0.2.15",
            "172.17.0.1"]
    ports = sorted({p.container_port for c in topology.containers for p in c.ports}
                   | {p.host_port for c in topology.containers for p in c.ports if p.host_port} | {22, 7000})
    found: list[PacketBatch] = []
    while len(found) < count:
        protocol = draw.choice(("tcp", "tcp", "tcp", "udp", "sctp", "icmp"))
        try:
            flow = topology.flow(
                f"{draw.choice(ends)}:{draw.choice((40000, 40001, 500))}", f"{draw.choice(ends)}:{draw.choice(ports)}",
                protocol, engine=engine)
        except TopologyError:
            continue
        found.append(flow.first)
    return PacketBatch.concat(found)
