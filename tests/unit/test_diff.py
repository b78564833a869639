"""What ``fp.diff`` gives: sides, proofs, packets, undecided rules, kinds, tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fastpath as fp
from fastpath.docker import Container, Endpoint, Network, Port, Topology
from fastpath.errors import CompileError, PacketError
from fastpath.packets import PacketBatch
from fastpath.packets.schema import Verdict
from tests.edges import edge_packets
from tests.symbolic_checks import check_diff

HOSTS = Path(__file__).parents[2] / "data" / "hosts"
EDIT = "iptables -I DOCKER-USER -i eth0 ! -s 192.0.2.0/24 -j DROP"


@pytest.fixture(scope="module")
def host() -> fp.Host:
    return fp.Host.load(HOSTS / "docker28-seed")


def test_sides_and_witness(host: fp.Host) -> None:
    found = fp.diff(host, host.edit(EDIT), scope="plain")
    assert found and len(found) == 1
    region = found.differences[0]
    assert (region.before.verdict, region.after.verdict) == (Verdict.FORWARD, Verdict.DROP)
    assert region.before.egress == ("docker0",) and not region.undecided
    assert [str(r) for r in region.after.rules] == [
        "filter DOCKER-USER rule 1: -A DOCKER-USER ! -s 192.0.2.0/24 -i eth0 -j DROP"]
    assert region.region.values("dport").intervals == ((6380, 6380),)
    before, after = region.explain()
    assert (before.fate.verdict, after.fate.verdict) == (Verdict.FORWARD, Verdict.DROP)
    assert region.headers == found.headers > 0


def test_a_proof(host: fp.Host) -> None:
    found = fp.diff(host, host.edit("iptables -A DOCKER-USER -i eth9 -j LOG"), by=("verdict", "egress", "nat", "rule"))
    assert not found and found.headers == 0 and "that holds for all packets" in str(found)
    assert not fp.diff(host, host.edit("iptables -A FORWARD -j DROP"))
    assert fp.diff(host, host.edit("iptables -A FORWARD -j DROP"), by="rule")


def test_a_rule_that_moved_is_the_same_rule(host: fp.Host) -> None:
    after = host.edit("iptables -I INPUT -p tcp --dport 1 -j DROP", "iptables -I INPUT -p tcp --dport 2 -j DROP")
    swapped = host.edit("iptables -I INPUT -p tcp --dport 2 -j DROP", "iptables -I INPUT -p tcp --dport 1 -j DROP")
    assert not fp.diff(after, swapped, by=("verdict", "rule"))


def test_undecided_rules_are_named(host: fp.Host) -> None:
    found = fp.diff(host, host.edit("iptables -I DOCKER-USER -i eth0 -m limit --limit 5/min -j DROP"), scope="plain")
    assert [d.undecided for d in found] == [True]
    assert found.differences[0].after.rules[0].number == 1 and "hangs on filter DOCKER-USER rule 1" in str(found)
    assumed = fp.diff(host, host.edit("iptables -I DOCKER-USER -i eth0 -m limit --limit 5/min -j DROP"),
                      assume={"limit": "no-match"})
    assert not assumed


def test_packets_are_counted(host: fp.Host) -> None:
    after = host.edit(EDIT)
    packets = fp.synth.packets(host, 20_000, seed=1)
    found = fp.diff(host, after, packets)
    sides = [fp.compile(h).evaluate(packets).verdict for h in (host, after)]
    assert found.changed_packets == int((sides[0] != sides[1]).sum()) > 0
    counts = [d.packets for d in found]
    assert counts == sorted(counts, reverse=True) and sum(counts) == found.changed_packets
    assert f"{found.changed_packets:,} of 20,000 packets change" in str(found)


def test_nat_is_compared_as_a_function(host: fp.Host) -> None:
    """DNAT to another port is a difference; one that gives every packet what it had is none."""
    moved = host.edit("iptables -t nat -I PREROUTING -p tcp -d 10.0.2.15 --dport 6380 -j DNAT --to 172.17.0.2:6379")
    assert not fp.diff(host, moved, by="nat", where="iif == eth0 and dst == 10.0.2.15")
    other = host.edit("iptables -t nat -I PREROUTING -p tcp -d 10.0.2.15 --dport 6380 -j DNAT --to 172.17.0.3:6379")
    found = fp.diff(host, other, by="nat", where="iif == eth0", scope="plain")
    assert [str(d.before.rewrites[0]) for d in found] == ["to 172.17.0.2:6379"]


def test_tables(host: fp.Host) -> None:
    found = fp.diff(host, host.edit(EDIT), by=("verdict", "nat"))
    told = json.loads(found.to_json())
    assert len(told["regions"]) == len(found) and told["headers"] == found.headers and not told["same"]
    table = found.to_arrow()
    assert table.num_rows == len(found)
    assert {"iif", "before_verdict", "after_rules", "witness"} <= set(table.column_names)


def test_networks_of_one_shape_are_one_kind() -> None:
    networks = tuple(Network(f"net{i}") for i in range(5))
    containers = tuple(
        Container(f"c{i}", networks=(Endpoint(f"net{i}"),), ports=(Port(80, "tcp", 8000 + i),)) for i in range(5))
    topology = Topology(networks=networks, containers=containers)
    before, after = topology.host(engine="27"), topology.host(engine="29")
    found = fp.diff(before, after)
    assert len(found.kinds) < 20 < len(found)
    assert sorted(id(d) for k in found.kinds for d in k.differences) == sorted(id(d) for d in found)
    packets = PacketBatch.concat([edge_packets(before, 400, 1), edge_packets(after, 400, 2)])
    assert check_diff(before, after, packets, found) > 0
    assert "for X each of" in str(found)


def test_hosts_without_routes_compare_packets_that_bring_their_egress(host: fp.Host) -> None:
    bare = fp.Host(host.ruleset, host.interfaces, complete=False)
    packets = edge_packets(host, 300, 3, egress=True)
    found = fp.diff(bare, bare.edit(EDIT), packets)
    assert check_diff(bare, bare.edit(EDIT), packets, found) == found.changed_packets
    assert all("oif" in d.region.columns for d in found)
    with pytest.raises(PacketError, match="give the packets an oif column"):
        fp.diff(bare, bare.edit(EDIT), edge_packets(host, 3, 3))


def test_mistakes(host: fp.Host) -> None:
    with pytest.raises(CompileError, match="cannot be compared by 'colour'; give some of verdict"):
        fp.diff(host, host, by="colour")
    with pytest.raises(CompileError, match="by= is empty"):
        fp.diff(host, host, by=())
    with pytest.raises(CompileError, match="cannot assume 'perhaps'"):
        fp.diff(host, host, assume={"limit": "perhaps"})
    with pytest.raises(fp.QueryError, match="no scope"):
        fp.diff(host, host, scope="wide")
