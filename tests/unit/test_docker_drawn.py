"""Drawn topologies in every generation: the engines agree on their hosts, and the kernel where it can be asked."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

import fastpath as fp
from fastpath import netns
from fastpath.docker import Container, Daemon, Endpoint, Network, Port, Swarm, Topology
from fastpath.docker.layouts import GENERATIONS
from fastpath.reference import evaluate

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


def test_every_topology_stands_in_every_generation() -> None:
    for seed in range(60):
        topology = drawn(seed)
        topology.check()
        assert Topology.from_dict(topology.to_dict()) == topology
        for engine in ENGINES:
            host = topology.host(engine)
            assert fp.parse_ruleset(str(host.ruleset)) == host.ruleset


def test_drawn_topologies_are_of_every_kind() -> None:
    found = [drawn(seed) for seed in range(60)]
    assert {n.gateway_mode for t in found for n in t.networks} == {"nat", "nat-unprotected", "routed", "isolated"}
    assert {c.mode.partition(":")[0] for t in found for c in t.containers} == {"", "host", "none", "container"}
    assert any(t.daemon.swarm for t in found) and any(not t.daemon.userland_proxy for t in found)


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_agree(engine: str) -> None:
    for seed in (3, 8):
        host = drawn(seed).host(engine)
        packets = fp.synth.packets(host, n=150, seed=seed, profile="edges")
        expected, found = evaluate(host, packets), fp.compile(host).evaluate(packets)
        assert [found[i] for i in range(len(packets))] == [expected[i] for i in range(len(packets))]


@pytest.fixture(scope="module")
def judge() -> Iterator[netns.Judge]:
    why = netns.available("nft")
    if why is not None:
        if os.environ.get("FASTPATH_REQUIRE_KERNEL"):
            pytest.fail(why)
        pytest.skip(why)
    with netns.Judge() as found:
        yield found


def agrees(seed: int, engine: str, flows: int, judge: netns.Judge) -> None:
    host = drawn(seed).host(engine)
    packets = netns.enough(host, fp.synth.packets(host, n=4 * flows, seed=seed, profile="edges"), flows)
    found = netns.compare(host, packets, lambda batch: evaluate(host, batch), judge, "nft")
    assert found, f"seed {seed}, Docker {engine}\n{found}"
    assert len(found.packets) > flows // 2


@pytest.mark.kernel
@pytest.mark.parametrize("engine", ENGINES)
def test_the_kernel_agrees(engine: str, judge: netns.Judge) -> None:
    agrees(1, engine, 200, judge)


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_the_kernel_agrees_on_many(engine: str, judge: netns.Judge) -> None:
    for seed in range(20):
        agrees(seed, engine, 500, judge)
