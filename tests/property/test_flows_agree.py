"""Connections in batches and one by one give the same answer: every column, every packet, every counter.

``evaluate_flows`` runs the compiled engine over rewritten columns; ``reference/flows.py`` walks packet by packet and
carries out each connection's mapping itself.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastpath as fp
from fastpath.analysis import flows as batched
from fastpath.analysis.flow_engines import FlowEngines
from fastpath.analysis.flow_result import COLUMNS, FlowResult
from fastpath.host.model import Host
from fastpath.packets import PacketBatch
from fastpath.packets.schema import Leg, Outcome
from fastpath.reference import Reference
from fastpath.reference.flows import walk_flow
from tests.strategies import edge_packets, random_drawn
from tests.topologies import ENGINES, drawn, named_packets


def compiled(host: Host) -> FlowEngines:
    """A host whose connections are done in batches, however few."""
    engines = FlowEngines(host)
    assert engines.whole.engine and engines.ready
    return engines


def check(host: Host, packets: PacketBatch, about: object = "") -> FlowResult:
    found = fp.evaluate_flows(host, packets, engine=compiled(host))
    reference = Reference(host)
    counts = [np.zeros((2, len(found.rules)), np.int64) for _ in Leg]
    places = [{int(row): at for at, row in enumerate(leg.rows)} for leg in found.legs]
    for row in range(len(packets)):
        walk = walk_flow(reference, packets[row])
        told = f"connection {row}: {packets[row]}\n{about}"
        leg = -1 if walk.leg is None else int(walk.leg)
        assert tuple(int(getattr(found, name)[row]) for name in COLUMNS) == (
            walk.outcome, leg, walk.rule, walk.nat, *walk.mapped), told
        for kind in Leg:
            assert (row in places[kind]) == (kind < len(walk.legs)), (kind, told)
            if kind >= len(walk.legs):
                continue
            walked, at = walk.legs[kind], places[kind][row]
            assert found.legs[kind].packets[at] == walked.packet, (kind, told)
            assert found.legs[kind].result[at] == walked.fate, (kind, told)
            for rule in walked.hits:
                counts[kind][:, rule] += (1, walked.packet.length)
    for kind in Leg:
        result = found.legs[kind].result
        assert np.array_equal(result.rule_packets, counts[kind][0]), (kind, about)
        assert np.array_equal(result.rule_bytes, counts[kind][1]), (kind, about)
    return found


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_drawn_hosts(first: int) -> None:
    for seed in range(first, first + 10):
        drawn_host = random_drawn(seed)
        host = drawn_host.host()
        check(host, edge_packets(host, 60, seed), f"seed {seed}\n{drawn_host}")


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1500, 100))
def test_many_drawn_hosts(first: int) -> None:
    for seed in range(first, first + 100):
        drawn_host = random_drawn(seed)
        host = drawn_host.host()
        check(host, edge_packets(host, 40, seed), f"seed {seed}\n{drawn_host}")


@pytest.mark.parametrize("engine", ENGINES)
def test_drawn_topologies(engine: str) -> None:
    """Docker's own hosts, with connections between their containers, the host and the outside."""
    for seed in (2, 5):
        topology = drawn(seed)
        check(topology.host(engine), named_packets(topology, engine, 80, seed), f"seed {seed}, Docker {engine}")


RULES = """\
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
-A PREROUTING -i eth1 -p udp -m udp --dport 53 -j NOTRACK
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -i eth0 -p tcp -m tcp --dport 8080 -j MARK --set-xmark 0x1/0xffffffff
-A OUTPUT -d 10.0.3.1/32 -p tcp -m tcp --dport 8081 -j MARK --set-xmark 0x2/0xffffffff
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d 10.0.2.15/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-A OUTPUT -d 10.0.3.1/32 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:80
-A OUTPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 8082 -j REDIRECT --to-ports 22
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD {extra}
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -o docker0 -m conntrack --ctstate DNAT -j ACCEPT
-A FORWARD -i docker0 -j ACCEPT
COMMIT
"""


def host_with(extra: str) -> Host:
    from fastpath.host.text import make_host

    return make_host(
        fp.parse_ruleset(RULES.format(extra=extra)),
        {"eth0": ["10.0.2.15/24"], "eth1": ["10.0.3.1/24"], "docker0": ["172.17.0.1/16"]},
        ["default via 10.0.2.2 dev eth0"], sysctls={"net.ipv4.ip_forward": "1"})


def without_notrack(host: Host) -> Host:
    """The host whose connections can all be done in batches."""
    return host.edit("-t raw -D PREROUTING -i eth1 -p udp -m udp --dport 53 -j NOTRACK")


def connections() -> PacketBatch:
    rows = [("eth0", "198.51.100.7", "10.0.2.15", 8080), ("docker0", "172.17.0.3", "8.8.8.8", 443),
            ("local", "10.0.3.1", "10.0.3.1", 8081), ("local", "127.0.0.1", "127.0.0.1", 8082),
            ("eth0", "198.51.100.7", "172.17.0.2", 80), ("docker0", "172.17.0.3", "10.0.2.15", 8080),
            ("eth0", "10.0.2.9", "10.0.2.15", 8080), ("eth1", "172.17.0.9", "10.0.3.1", 53)]
    return PacketBatch.from_dicts([
        {"iif": iif, "src": src, "dst": dst, "proto": proto, "sport": 40000, "dport": dport}
        for iif, src, dst, dport in rows for proto in ("tcp", "udp")])


EXTRA = (
    "-j LOG",
    "-m conntrack --ctstate DNAT --ctorigdstport 8080 --ctdir ORIGINAL -m conntrack --ctstate ESTABLISHED -j DROP",
    "-m conntrack --ctdir REPLY --ctorigdst 10.0.2.15/32 -j REJECT",
    "-m conntrack --ctorigsrc 172.17.0.3/32 --ctdir REPLY -j DROP",
    "-m conntrack --ctstatus ASSURED -j DROP",
    "-m conntrack --ctstatus ASSURED --ctdir REPLY -j DROP",
    "-m mark --mark 0x1/0x1 -m conntrack --ctstate ESTABLISHED -j DROP",
    "-m statistic --mode random --probability 0.5 -m conntrack --ctdir REPLY -j DROP",
)


@pytest.mark.parametrize("extra", EXTRA)
def test_rules_that_tell_the_packets_of_a_connection_apart(extra: str) -> None:
    check(host_with(extra), connections(), extra)
    found = check(without_notrack(host_with(extra)), connections(), extra)
    if extra == "-j LOG":
        assert [Outcome(o).name for o in found.outcome[::2]] == [
            "WORKS", "WORKS", "WORKS", "WORKS", "STOPPED", "BYPASSED", "WORKS", "ASTRAY"]


def test_no_packets() -> None:
    assert len(fp.evaluate_flows(host_with("-j LOG"), PacketBatch.empty())) == 0


def test_drawn_hosts_reach_every_outcome() -> None:
    """The comparison is worth something: every outcome occurs, and every kind of packet ends some connection."""
    outcomes: set[int] = set()
    for seed in range(20):
        host = random_drawn(seed).host()
        outcomes |= set(fp.evaluate_flows(host, edge_packets(host, 100, seed)).outcome.tolist())
    assert outcomes == {int(o) for o in Outcome}
    legs = {leg for extra in EXTRA for leg in fp.evaluate_flows(host_with(extra), connections()).leg.tolist()}
    assert legs == {-1, *(int(leg) for leg in Leg)}


def test_a_few_connections_need_no_compiled_host() -> None:
    host = host_with("-j LOG")
    few, many = (fp.evaluate_flows(host, connections(), engine=e) for e in (None, compiled(host)))
    assert all(np.array_equal(getattr(few, name), getattr(many, name)) for name in COLUMNS)
    for one, other in zip(few.legs, many.legs, strict=True):
        assert np.array_equal(one.rows, other.rows) and not one.result.differences(other.result)


def test_most_connections_are_done_in_batches() -> None:
    """Connections are walked one by one only where they must be: the batches are not a way round the question."""
    evaluation = batched._Evaluation(FlowEngines(without_notrack(host_with("-j LOG"))), connections(), None)
    evaluation.run()
    assert len(evaluation.walked) == 1  # the host's own connection to itself that REDIRECT changes
