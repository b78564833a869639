"""Connections in the kernel: every packet of a connection is sent, and the kernel itself tracks and translates it.

Nothing of what the engines think of state, mapping or status goes in: only addresses, ports and flags of the packets
that ``evaluate_flows`` says are sent. What becomes of each of them, and every counter, is compared.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastpath as fp
from fastpath import netns
from fastpath.analysis.flow_result import FlowResult
from fastpath.host.model import Host
from fastpath.netns.backends import differences
from fastpath.netns.compare import _differing, _not_modelled, _sure
from fastpath.netns.limits import reasons
from fastpath.packets import PacketBatch
from fastpath.packets.result import Result
from fastpath.packets.schema import PACKET_COLUMNS, RESULT_COLUMNS, Flag, Leg, Outcome, State
from tests.property.test_flows_agree import compiled, connections, host_with
from tests.strategies import edge_packets, random_drawn
from tests.topologies import ENGINES, drawn, named_packets

pytestmark = pytest.mark.kernel
_OWN = ("state", "ctdir", "ctstatus", "ctorigdst", "ctorigdstport")
_SCTP, _UDP = 132, 17


def sent(found: FlowResult) -> tuple[PacketBatch, np.ndarray, np.ndarray]:
    """All packets of all connections, connection by connection; their connections, and their kinds."""
    batches, owners, kinds = [], [], []
    for kind in Leg:
        leg = found.legs[kind]
        columns = {c.name: leg.packets.column(c.name) for c in PACKET_COLUMNS
                   if c.name not in _OWN and leg.packets.has(c.name)}
        if kind is not Leg.FIRST:
            columns.pop("connmark", None)
        batches.append(PacketBatch.from_columns(columns, len(leg.rows), interfaces=leg.packets.interfaces))
        owners.append(leg.rows)
        kinds.append(np.full(len(leg.rows), kind))
    owner, kind_of = np.concatenate(owners), np.concatenate(kinds)
    order = np.lexsort((kind_of, owner))
    return PacketBatch.concat(batches).take(order), owner[order], kind_of[order]


def judged(host: Host, packets: PacketBatch, backend: netns.Backend) -> PacketBatch:
    """First packets of connections that the judge can make in full, and that no choice of the kernel's decides."""
    packets = packets.take(packets.column("state") == State.AUTO)
    found = fp.evaluate_flows(host, packets, engine=compiled(host))
    every, owner, kind = sent(found)
    bad = reasons(host, every)[0] != 0
    bad |= differences(host, every, backend)[0] != 0
    bad |= _not_modelled(host, every)[0] != 0
    bad |= every.column("proto") == _SCTP  # only the first chunk of a connection can be made
    out = set(owner[bad].tolist()) | set(np.flatnonzero(np.isin(found.outcome, (
        Outcome.UNDECIDED, Outcome.NO_FLOW))).tolist())
    for leg in found.legs:
        out |= set(leg.rows[leg.result.flags & Flag.NAT_CHOICE != 0].tolist())
    if "--ctstatus" in str(host.ruleset):  # a UDP connection is ASSURED after two seconds only
        out |= set(np.flatnonzero(found.packets.column("proto") == _UDP).tolist())
    return packets.take(np.array([row for row in range(len(packets)) if row not in out], np.int64))


def agree(host: Host, packets: PacketBatch, judge: netns.Judge, backend: netns.Backend, about: object) -> FlowResult:
    found = fp.evaluate_flows(host, judged(host, packets, backend), engine=compiled(host))
    every, owner, kind = sent(found)
    kernel = judge.evaluate(host, every, backend, connections=owner.astype(np.int32))
    assert kernel.judged.all(), set(kernel.reason_texts)
    names = found.legs[0].result.interfaces
    columns = {column.name: np.empty(len(every), column.dtype) for column in RESULT_COLUMNS}
    for leg in Leg:
        for name, values in columns.items():
            values[kind == leg] = found.legs[leg].result.column(name)
    assert all(leg.result.interfaces == names for leg in found.legs)
    ours = Result(columns, names, found.rules, *found.counters())
    differing = _differing(every, ours, kernel)
    for name, rows in differing.items():
        row = int(rows[0])
        pytest.fail(f"{name}: connection {owner[row]}, {Leg(int(kind[row])).name}: {every[row]}\n  engine {ours[row]}\n"
                    f"  kernel {kernel[row]}\n{found.explain(int(owner[row]))}\n{about}", pytrace=False)
    if all(_sure(rule) for t in host.ruleset.tables for chain in t.chains for rule in chain.rules):
        wrong = np.flatnonzero((ours.rule_packets != kernel.rule_packets) | (ours.rule_bytes != kernel.rule_bytes))
        assert not len(wrong), f"{found.rules[wrong[0]]}: {ours.rule_packets[wrong[0]]} here, " \
                               f"{kernel.rule_packets[wrong[0]]} in the kernel\n{about}"
    return found


EXTRA = (
    "-j LOG",
    "-p tcp -m conntrack --ctstate DNAT --ctorigdstport 8080 --ctdir ORIGINAL -m tcp --tcp-flags PSH PSH -j DROP",
    "-p tcp -m conntrack --ctdir REPLY --ctorigdst 10.0.2.15/32 -j REJECT",
    "-m conntrack --ctorigsrc 172.17.0.3/32 --ctdir REPLY -j DROP",
    "-p tcp -m conntrack --ctstatus ASSURED -j DROP",
    "-p tcp -m conntrack --ctstatus SEEN_REPLY -j DROP",
    "-p tcp -m mark --mark 0x1/0x1 -m conntrack --ctstate ESTABLISHED -j DROP",
    "-m conntrack --ctreplsrc 172.17.0.2/32 --ctrepldstport 40000 --ctdir REPLY -j DROP",
)


@pytest.mark.parametrize("extra", EXTRA)
def test_rules_that_tell_the_packets_of_a_connection_apart(
    extra: str, judge: netns.Judge, backend: netns.Backend
) -> None:
    host = host_with(extra)
    found = agree(host, connections(), judge, backend, extra)
    assert found.nat.any() and found.works.any()
    stopped = (found.outcome == Outcome.STOPPED) & (found.leg > Leg.FIRST)
    assert stopped.any() == (extra != "-j LOG")
    assert {(found.rules[rule].chain, found.rules[rule].number) for rule in found.rule[stopped]} <= {("FORWARD", 1)}


@pytest.mark.parametrize("engine", ENGINES)
def test_drawn_topologies(engine: str, judge: netns.Judge) -> None:
    count = translated = 0
    for seed in (1, 2):
        topology = drawn(seed)
        found = agree(topology.host(engine), named_packets(topology, engine, 100, seed), judge, "nft",
                      f"seed {seed}, Docker {engine}")
        count += len(found)
        translated += int((found.nat[found.works] != 0).sum())
    assert count > 60


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_many_drawn_topologies(engine: str, judge: netns.Judge, backend: netns.Backend) -> None:
    for seed in range(20):
        topology = drawn(seed)
        agree(topology.host(engine), named_packets(topology, engine, 500, seed), judge, backend,
              f"seed {seed}, Docker {engine}")


def test_drawn_hosts(judge: netns.Judge, backend: netns.Backend) -> None:
    for seed in range(8):
        host = random_drawn(seed, undecided=False).host()
        agree(host, edge_packets(host, 100, seed), judge, backend, f"seed {seed}")


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_many_drawn_hosts(block: int, judge: netns.Judge, backend: netns.Backend) -> None:
    for seed in range(1000 + 20 * block, 1020 + 20 * block):
        host = random_drawn(seed, undecided=False).host()
        agree(host, edge_packets(host, 150, seed), judge, backend, f"seed {seed}")
