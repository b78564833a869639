"""Sets of packets against the reference: drawn hosts and the captured ones, packets at the edges of their rules."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.analysis.case import Case, load_cases
from fastpath.host.model import Host
from fastpath.packets import PacketBatch
from tests.strategies import Drawn, drawn_hosts, edge_packets, random_drawn
from tests.symbolic_checks import check_fates, check_rules

DATA = Path(__file__).parents[2] / "data"
FOLDERS = sorted(p.name for p in (DATA / "hosts").iterdir() if p.is_dir())


def check(host: Host, packets: PacketBatch, *, about: object = "", rules: int = 30, **options: Any) -> None:
    """Fates of packets and rules of the first ones, those that bring their egress interface by themselves."""
    given = packets.column("oif") >= 0
    for rows in (np.flatnonzero(given), np.flatnonzero(~given)):
        if len(rows):
            here = packets.take(rows)
            sets = check_fates(host, here, about=about, given_oif=bool(given[rows[0]]), **options)
            if rules:
                check_rules(host, sets, here[:rules], about=about, **options)


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_drawn_hosts(first: int) -> None:
    for seed in range(first, first + 10):
        drawn = random_drawn(seed)
        host = drawn.host()
        check(host, edge_packets(host, 100, seed), about=f"seed {seed}\n{drawn}")


@settings(max_examples=20)
@given(drawn_hosts(size=3), st.integers(0, 2**16))
def test_hosts_that_shrink(drawn: Drawn, seed: int) -> None:
    host = drawn.host()
    check(host, edge_packets(host, 40, seed), about=drawn)


@pytest.mark.parametrize("seed", range(41, 45))
def test_given_egress_interfaces(seed: int) -> None:
    """With an ``oif`` column, on hosts with routes and on rules alone."""
    host = random_drawn(seed).host()
    packets = edge_packets(host, 60, seed, egress=True)
    check(host, packets, about=f"seed {seed}")
    check(Host(host.ruleset, host.interfaces, ipsets=host.ipsets, complete=False), packets, about=f"seed {seed}, bare")


@pytest.mark.parametrize("seed", range(60, 66))
def test_assumptions(seed: int) -> None:
    host = random_drawn(seed).host()
    packets = edge_packets(host, 80, seed, outcomes=["chosen"])
    draw = random.Random(seed)
    assume: dict[str | int, str] = {
        module: draw.choice(("match", "no-match", "column:chosen")) for module in ("limit", "statistic", "recent")}
    check(host, packets, assume=assume, about=f"seed {seed}, {assume}")


@pytest.mark.parametrize("seed", range(70, 74))
def test_one_chain_alone(seed: int) -> None:
    host = random_drawn(seed, size=4).host()
    packets = edge_packets(host, 40, seed)
    for table in host.ruleset.tables:
        for chain in table.chains:
            check(host, packets, table=table.name, chain=chain.name, about=f"seed {seed}, {table.name} {chain.name}")


@pytest.mark.parametrize("name", [name for name in FOLDERS if name not in ("docker20-big", "docker26-big")])
def test_data_hosts(name: str) -> None:
    host = Host.load(DATA / "hosts" / name)
    check(host, edge_packets(host, 150, 1), about=name, rules=10 if name.endswith("-big") else 30)


@pytest.mark.parametrize("case", load_cases(DATA / "cases"), ids=lambda c: c.name)
def test_cases(case: Case) -> None:
    check(case.host, case.packets, assume=case.assume, about=case.name)
