"""Two places on a packet's way as one diagram over the arriving header: when there is one, and that it is right."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from fastpath.compiler import fused
from fastpath.engine import Engine
from fastpath.engine import compile as compile_host
from fastpath.host.model import Host
from fastpath.kernels.layout import OP_PAGED, OP_ROOTS, OP_WORDS
from fastpath.packets import PacketBatch
from fastpath.packets.schema import PACKET_COLUMNS, Verdict
from tests.strategies import edge_packets
from tests.unit.reference_host import make_host
from tests.unit.test_bulk import takes

DATA = Path(__file__).parents[2] / "data" / "hosts"
COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"

PUBLISHED = """
    -A PREROUTING -d 192.0.2.10 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
    -A PREROUTING -d 192.0.2.10 -p udp --dport 8080 -j DNAT --to-destination 172.17.0.3:80
    -A PREROUTING -d 192.0.2.10 -j DNAT --to-destination 172.17.0.4
    -A OUTPUT -d 192.0.2.10 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
    -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    -A POSTROUTING -s 172.17.0.2 -d 172.17.0.2 -p tcp --dport 80 -j MASQUERADE
"""
FORWARDED = """
    -A FORWARD -s 198.51.100.0/24 -j DROP
    -A FORWARD -d 172.17.0.2 -p tcp --dport 80 -j ACCEPT
    -A FORWARD -d 172.17.0.3 -p udp --dport 80 -j REJECT
    -A FORWARD -d 172.17.0.4 -p tcp --dport 8080 -j ACCEPT
    -A FORWARD -p tcp --dport 8080 -j DROP
"""


def is_fused(engine: Engine) -> bool:
    way = engine.routed or engine.given
    return way is not None and way.bulk is not None and way.bulk.fused


def all_ways(host: Host, packets: PacketBatch, *, expect: bool = True) -> Engine:
    """Evaluates with one diagram, with one for each place and by the general kernel; all must agree."""
    engine = compile_host(host)
    found = engine.evaluate(packets)
    assert is_fused(engine) is expect
    with patch("fastpath.compiler.bulk.fuse", return_value=None):
        apart = compile_host(host)
        assert not found.differences(apart.evaluate(packets)) and not is_fused(apart)
    with patch("fastpath.engine.core.run_bulk", return_value=None):
        assert not found.differences(engine.evaluate(packets))
    return engine


@pytest.mark.kernels
def test_published_ports() -> None:
    """What NAT makes of address and port is what the second place sees, what it leaves too."""
    host = make_host(nat=PUBLISHED, filter=FORWARDED)
    packets = edge_packets(host, 900 if COMPILED else 150, 1)
    engine = all_ways(host, packets)
    found = engine.evaluate(packets)
    rewritten = found.dst != packets.column("dst")
    assert rewritten.any() and (found.dport[rewritten] != packets.column("dport")[rewritten]).any()
    assert (found.dport[rewritten] == packets.column("dport")[rewritten]).any()
    assert {Verdict(v) for v in found.verdict[rewritten]} >= {Verdict.FORWARD, Verdict.REJECT, Verdict.DROP}


@pytest.mark.kernels
@pytest.mark.parametrize(("containers", "ops"), [(3, {OP_WORDS}), (80, {OP_ROOTS, OP_PAGED})])
def test_words_behind_a_first_level_of_two_roots(containers: int, ops: set[int]) -> None:
    """The larger level comes first, small fields or addresses; each has words for what arrives, and behind them those
    for what the host makes."""
    addresses = [f"172.17.0.{i + 2}" for i in range(containers)]
    host = make_host(
        nat="".join(
            f"-A PREROUTING -d 192.0.2.10 -p tcp --dport {8000 + i} -j DNAT --to-destination {a}:80\n"
            for i, a in enumerate(addresses)),
        filter="".join(f"-A FORWARD -d {a} -p tcp --dport 80 -j ACCEPT\n" for a in addresses) + "-P FORWARD DROP")
    packets = edge_packets(host, 500 if COMPILED else 100, 8)
    local = packets.column("iif") == packets.interfaces.index("local")
    assert local.any() and not local.all()
    engine = all_ways(host, packets)
    assert {op for op in (OP_WORDS, OP_ROOTS, OP_PAGED) if takes(engine, op)} == ops
    for rows in (local, ~local):
        assert not engine.evaluate(packets.take(rows)).differences(all_ways(host, packets.take(rows)).evaluate(
            packets.take(rows)))


@pytest.mark.parametrize(
    "columns", [["dst"], ["dport"], ["src", "dport"], ["rule", "rules_walked"], ["verdict", "oif"]])
def test_some_columns(columns: list[str]) -> None:
    """Columns that are not written by one pass for all."""
    host = make_host(nat=PUBLISHED, filter=FORWARDED)
    packets = edge_packets(host, 400, 2)
    engine = compile_host(host)
    every = engine.evaluate(packets)
    some = engine.evaluate(packets, columns=columns)
    for name in columns:
        assert np.array_equal(getattr(some, name), getattr(every, name)), name
    assert np.array_equal(some.rule_packets, every.rule_packets)


@pytest.mark.kernels
@pytest.mark.parametrize("constant", ["dst", "dport", "src", "proto", "iif", "state"])
def test_columns_of_one_value(constant: str) -> None:
    host = make_host(nat=PUBLISHED, filter=FORWARDED)
    packets = edge_packets(host, 300 if COMPILED else 80, 3)
    row = int(np.flatnonzero(compile_host(host).evaluate(packets).dst != packets.column("dst"))[0])
    same = packets.take(packets.column(constant) == packets.column(constant)[row])
    columns: dict[str, object] = {c.name: same.column(c.name) for c in PACKET_COLUMNS if c.name != "oif"}
    columns[constant] = int(same.column(constant)[0])
    all_ways(host, PacketBatch.from_columns(columns, len(same), interfaces=same.interfaces))


@pytest.mark.parametrize("name", ["docker20-sctp", "docker26-bridges", "docker28-big", "docker28-ipv6"])
def test_captured_hosts(name: str) -> None:
    host = Host.load(DATA / name)
    all_ways(host, edge_packets(host, 4000, 4))


@pytest.mark.parametrize("limit", ["MOST_WORDS", "MOST_WORK"])
def test_what_would_be_too_large_stays_apart(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, limit, 100)
    host = make_host(nat=PUBLISHED, filter=FORWARDED)
    all_ways(host, edge_packets(host, 200, 5), expect=False)


def test_words_of_the_first_place_are_counted_before_they_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "MOST_WORK", 0)
    host = make_host(nat=PUBLISHED, filter=FORWARDED)
    with patch("fastpath.compiler.fused._Fusion.step", side_effect=AssertionError("looked at")):
        all_ways(host, edge_packets(host, 50, 5), expect=False)


@pytest.mark.parametrize("asked", ["-p udp --dport 53", "-s 198.51.100.0/24"])
@pytest.mark.parametrize("protocol", ["icmp", "dccp"])
def test_ports_of_protocols_that_have_none_for_nat(protocol: str, asked: str) -> None:
    """Also where no rule asks for ports, and so nothing tells their classes apart."""
    host = make_host(
        nat=f"-A PREROUTING -i eth0 -p {protocol} -j REDIRECT --to-ports 53",
        filter=f"-A INPUT {asked} -j DROP",
    )
    all_ways(host, edge_packets(host, 200, 6), expect=False)


def test_addresses_that_stand_for_none() -> None:
    """A rewriting to 0.0.0.0 is left to the general kernel, since zeros stand for what stays."""
    host = make_host(
        nat=f"-A POSTROUTING -s 172.17.0.2 -j SNAT --to-source 0.0.0.0\n{PUBLISHED}", filter=FORWARDED)
    all_ways(host, edge_packets(host, 300, 7))
