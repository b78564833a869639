"""``fp.diff`` against the reference: a packet lies in a region if and only if the two hosts' fates differ."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastpath as fp
from fastpath.compiler.fields import Values
from fastpath.host.model import Host
from fastpath.packets import PacketBatch
from fastpath.packets.packet import Packet
from fastpath.symbolic import PacketSet
from tests.strategies import Drawn, drawn_hosts, edge_packets, random_drawn
from tests.symbolic_checks import check_diff

HOSTS = Path(__file__).parents[2] / "data" / "hosts"
BY = ("verdict", ("egress",), ("nat",), ("verdict", "rule"), ("verdict", "egress", "nat", "rule"))


def edited(host: Host, seed: int) -> tuple[Host, str]:
    """A host with one rule deleted, replaced by one of its chain's others, or put once more at the head."""
    draw = random.Random(seed)
    chains = [(t.name, c) for t in host.ruleset.tables for c in t.chains if c.rules]
    if not chains:
        return host, "nothing"
    table, chain = draw.choice(chains)
    at = draw.randint(1, len(chain.rules))
    command = f"iptables -t {table} -D {chain.name} {at}"
    if draw.random() < 0.5:
        rule = next(r for r in host.ruleset.refs() if (r.table, r.chain, r.number) == (table, chain.name, at))
        text = rule.text.removeprefix(f"-A {chain.name} ")
        command = f"iptables -t {table} -I {chain.name} {text}"
    return host.edit(command), command


def pair(seed: int) -> tuple[Host, Host, str]:
    """Two drawn hosts that have something in common: surroundings, all rules but one, or (one in four) nothing."""
    drawn = random_drawn(seed, size=4)
    host = drawn.host()
    if seed % 4 == 0:
        other = random_drawn(seed + 50_000, size=4)
        return host, other.host(), f"{drawn}\nagainst\n{other}"
    if seed % 4 == 1:
        other = random_drawn(seed + 50_000, size=4)
        return host, host.with_ruleset(other.host().ruleset), f"{drawn}\nwith the rules of\n{other}"
    after, command = edited(host, seed)
    return host, after, f"{drawn}\n{command}"


@pytest.mark.parametrize("seed", range(24))
def test_drawn_pairs(seed: int) -> None:
    before, after, about = pair(seed)
    packets = PacketBatch.concat([edge_packets(before, 150, seed), edge_packets(after, 150, seed + 1)])
    by = BY[seed % len(BY)]
    found = fp.diff(before, after, packets, by=by)
    differing = check_diff(before, after, packets, found, about=f"seed {seed}, by {by}\n{about}")
    assert found.changed_packets == differing


@settings(max_examples=15)
@given(drawn_hosts(size=2), st.integers(0, 2**16), st.sampled_from(BY))
def test_edits_that_shrink(drawn: Drawn, seed: int, by: tuple[str, ...]) -> None:
    host = drawn.host()
    after, command = edited(host, seed)
    packets = edge_packets(host, 60, seed)
    check_diff(host, after, packets, fp.diff(host, after, by=by), about=f"{drawn}\n{command}")


@pytest.mark.parametrize("seed", (3, 7, 11, 14))
def test_every_witness_is_one(seed: int) -> None:
    """A region's witness lies in it, and the two explanations end in the region's two fates."""
    before, after, about = pair(seed)
    found = fp.diff(before, after, by=("verdict", "nat"))
    regions = [d.region.packets for d in found]
    for i, difference in enumerate(found):
        batch = PacketBatch.from_packets([difference.witness])
        assert [bool(r.contains(batch)[0]) for r in regions] == [i == j for j in range(len(regions))], about
        told = [e.fate for e in difference.explain()]
        assert [t.verdict for t in told] == [difference.before.verdict, difference.after.verdict], about
    assert sum(d.headers for d in found) == found.headers


@pytest.mark.parametrize("seed", range(4))
def test_one_column_enumerated(seed: int) -> None:
    """All values of one column, the others fixed: the regions hold exactly those whose fate changes."""
    before, after, about = pair(seed + 2)
    found = fp.diff(before, after)
    engines = [fp.compile(host) for host in (before, after)]
    counted = {*found.asked.space.columns, *found.changed.columns}
    for base in edge_packets(before, 4, seed):
        for column, size in (("proto", 256), ("tcp_flags", 256), ("ttl", 256), ("tos", 256), ("dport", 65536)):
            row = {**base.as_dict(), "iif": base.iif, "src": base.src, "dst": base.dst, "proto": base.proto}
            row[column] = np.arange(size)  # type: ignore[assignment]
            packets = PacketBatch.from_columns(row, size)
            sides = [engine.evaluate(packets).verdict for engine in engines]
            inside = np.zeros(size, int)
            for difference in found:
                inside += difference.region.packets.contains(packets)
            assert (inside == (sides[0] != sides[1])).all(), f"{column} of {base}\n{about}"
            if size == 256:
                check_diff(before, after, packets, found, about=about)
            headers = (found.changed & fixed(found, base, column)).count()
            assert headers == (inside.sum() if column in counted else inside.any())


def fixed(found: fp.Diff, base: Packet, column: str) -> PacketSet:
    """The headers that are a packet's but for one column."""
    space = found.asked.space
    here = space.everything
    for name in space.places:
        if name != column:
            value = getattr(base, name)
            number = space.interface_id(value) if name in ("iif", "oif") else int(value)
            here = here & space.test(name, Values.single(number))
    return here


@pytest.mark.parametrize("name", ("docker28-seed", "docker20-icc-false", "docker28-bridges-noproxy"))
def test_an_edit_of_a_data_host(name: str) -> None:
    host = Host.load(HOSTS / name)
    for number, command in enumerate((
        "iptables -I DOCKER-USER -i eth0 ! -s 192.0.2.0/24 -j DROP",
        "iptables -t mangle -A PREROUTING -p udp --dport 53 -j MARK --set-mark 7",
        "iptables -A INPUT -m limit --limit 5/min -p icmp -j DROP",
        "iptables -t nat -I PREROUTING -p tcp --dport 8443 -j REDIRECT --to-ports 443",
    )):
        after = host.edit(command)
        packets = PacketBatch.concat([edge_packets(host, 200, number), edge_packets(after, 200, number + 1)])
        for by in ("verdict", ("verdict", "nat")):
            found = fp.diff(host, after, packets, by=by)
            assert check_diff(host, after, packets, found, about=f"{name} {command}") == found.changed_packets
