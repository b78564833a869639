"""Sets of packets against the reference: drawn hosts and the captured ones, packets at the edges of their rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.host.model import Host
from tests.strategies import Drawn, drawn_hosts, edge_packets, random_drawn
from tests.symbolic_checks import check_fates

DATA = Path(__file__).parents[2] / "data"
FOLDERS = sorted(p.name for p in (DATA / "hosts").iterdir() if p.is_dir())


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_fates_of_drawn_hosts(first: int) -> None:
    for seed in range(first, first + 10):
        drawn = random_drawn(seed)
        host = drawn.host()
        check_fates(host, edge_packets(host, 100, seed), about=f"seed {seed}\n{drawn}")


@settings(max_examples=20)
@given(drawn_hosts(size=3), st.integers(0, 2**16))
def test_hosts_that_shrink(drawn: Drawn, seed: int) -> None:
    host = drawn.host()
    check_fates(host, edge_packets(host, 40, seed), about=drawn)


@pytest.mark.parametrize("name", FOLDERS)
def test_fates_of_a_data_host(name: str) -> None:
    host = Host.load(DATA / "hosts" / name)
    check_fates(host, edge_packets(host, 200, 1), about=name)
