"""Drawn topologies in every generation: the engines agree on their hosts, and the kernel where it can be asked."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import fastpath as fp
from fastpath import netns
from fastpath.docker import Topology
from fastpath.reference import evaluate
from tests.topologies import ENGINES, drawn


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
