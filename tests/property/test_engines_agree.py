"""The compiled engine and the reference give the same answer: every result column, every rule id, every counter; and
so do the engine's general kernel alone, which else sees only what the bulk kernel leaves, and the bulk kernel with one
diagram for each place on the way where it has one for both.

Hosts are drawn (see ``tests/strategies.py``) or those of ``data/hosts``; packets are drawn at the edges of their rules.
A failure shows the host as text, the seed and the first packet that differs. Seeds that once failed are kept in
``KEPT``; drawn seeds alone make at least 2,000 hosts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.compiler.config import STRUCTURES, Config, Structure
from fastpath.engine import compile as compile_host
from fastpath.host.model import Host
from fastpath.packets import PacketBatch, Result
from fastpath.packets.schema import RESULT_COLUMNS, Verdict
from fastpath.reference import evaluate
from tests.strategies import Drawn, drawn_hosts, edge_packets, random_drawn

DATA = Path(__file__).parents[2] / "data" / "hosts"
FOLDERS = sorted(p.name for p in DATA.iterdir() if p.is_dir())

DRAWN = 2000
CHUNK = 50
PACKETS = 100

KEPT: tuple[int, ...] = (
    11, 48, 54, 57, 74, 178, 198, 331, 397, 688, 1330, 1362, 1484, 1619, 2084, 2160, 2243, 2519, 2797,
)
"""Seeds of drawn hosts on which the engines once disagreed."""


def check_agreement(
    host: Host,
    packets: PacketBatch,
    *,
    about: object = "",
    assume: Mapping[str | int, str] | None = None,
    table: str | None = None,
    chain: str | None = None,
    config: Config | None = None,
) -> Result:
    """Evaluates with both engines and compares everything; returns the reference's result."""
    expected = evaluate(host, packets, assume=assume, table=table, chain=chain)
    engine = compile_host(host, assume=assume, table=table, chain=chain, config=config)
    found = engine.evaluate(packets)
    with patch("fastpath.engine.core.run_bulk", return_value=None):
        general = engine.evaluate(packets)
    assert not found.differences(general), f"the kernels disagree: {found.differences(general)}\n{about}"
    ways = [way for way in (engine.routed, engine.given) if way is not None and way.bulk is not None]
    if any(way.bulk.fused for way in ways):
        with patch("fastpath.compiler.bulk.fuse", return_value=None):
            for way in ways:
                del way.bulk
            apart = engine.evaluate(packets)
        assert not found.differences(apart), f"places apart disagree: {found.differences(apart)}\n{about}"
    columns = [c.name for c in RESULT_COLUMNS if c.name != "oif"]
    same = all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in columns)
    names = [[*r.interfaces, None] for r in (found, expected)]
    same = same and all(names[0][a] == names[1][b] for a, b in zip(found.oif, expected.oif, strict=True))
    same = same and found.rules == expected.rules
    same = same and np.array_equal(found.rule_packets, expected.rule_packets)
    same = same and np.array_equal(found.rule_bytes, expected.rule_bytes)
    if not same:
        difference = found.differences(expected)
        row = int(difference.rows[0]) if len(difference.rows) else 0
        pytest.fail(
            f"compiled and reference disagree (compiled first): {difference}\n"
            f"packet {row}: {packets[row]}\n  compiled  {found[row]}\n  reference {expected[row]}\n{about}",
            pytrace=False)
    return expected


def check_seed(seed: int, *, size: int = 7, packets: int = PACKETS, config: Config | None = None) -> Result:
    """Both engines on one drawn host."""
    drawn = random_drawn(seed, size=size)
    host = drawn.host()
    return check_agreement(host, edge_packets(host, packets, seed), about=f"seed {seed}\n{drawn}", config=config)


# ------------------------------------------------------------------------------------------------- drawn hosts


@pytest.mark.parametrize("seed", range(0, 40))
def test_some_drawn_hosts(seed: int) -> None:
    check_seed(seed)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("seed", range(40, 70))
def test_each_structure_forced(seed: int, structure: Structure) -> None:
    """Wherever it can stand, however short the chains."""
    check_seed(seed, config=Config(structure=structure))


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("first", range(20_000, 20_400, CHUNK))
def test_each_structure_forced_many_times(first: int, structure: Structure) -> None:
    for seed in range(first, first + CHUNK):
        check_seed(seed, size=7 + seed % 3 * 9, config=Config(structure=structure))


@pytest.mark.parametrize("seed", KEPT)
def test_hosts_that_once_failed(seed: int) -> None:
    check_seed(seed, packets=1000)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, DRAWN, CHUNK))
def test_many_drawn_hosts(first: int) -> None:
    for seed in range(first, first + CHUNK):
        check_seed(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10_000, 10_040))
def test_longer_chains(seed: int) -> None:
    check_seed(seed, size=25, packets=400)


@settings(max_examples=40)
@given(drawn_hosts(size=3), st.integers(0, 2**16))
def test_hosts_that_shrink(drawn: Drawn, seed: int) -> None:
    """Few rules, and Hypothesis: what fails here comes out small."""
    host = drawn.host()
    check_agreement(host, edge_packets(host, 40, seed), about=drawn)


def test_drawn_hosts_reach_every_fate() -> None:
    """The generator is worth its tests: all verdicts occur, and most rules match some packet."""
    verdicts: set[int] = set()
    matched = total = 0
    for seed in range(60):
        host = random_drawn(seed).host()
        result = evaluate(host, edge_packets(host, 300, seed))
        verdicts |= set(result.verdict.tolist())
        rules = [r.id for r in result.rules if r.number > 0]
        matched += int((result.rule_packets[rules] > 0).sum())
        total += len(rules)
    assert verdicts == {int(v) for v in Verdict} - {Verdict.ACCEPT, Verdict.RETURN}
    assert matched > total / 3


# -------------------------------------------------------------------------------- assumptions, chains, no routes


@pytest.mark.parametrize("seed", range(200, 240))
def test_assumptions_about_undecided_rules(seed: int) -> None:
    """What is assumed of a module, of a rule, or by a column of outcomes, goes into both engines alike."""
    drawn = random_drawn(seed)
    host = drawn.host()
    packets = edge_packets(host, PACKETS, seed, outcomes=["chosen"])
    rng = np.random.default_rng(seed)
    choices = ("match", "no-match", "column:chosen")
    assume: dict[str | int, str] = {
        module: choices[int(rng.integers(0, 3))] for module in ("limit", "statistic", "recent") if rng.random() < 0.7}
    for ref in host.ruleset.refs():
        if "-m quota" in ref.text or "-m connlimit" in ref.text:
            assume[ref.id] = choices[int(rng.integers(0, 3))]
    check_agreement(host, packets, assume=assume, about=f"seed {seed}, assume {assume}\n{drawn}")


@pytest.mark.parametrize("seed", range(300, 330))
def test_one_chain_alone(seed: int) -> None:
    drawn = random_drawn(seed)
    host = drawn.host()
    packets = edge_packets(host, PACKETS, seed)
    for table in host.ruleset.tables:
        for chain in table.chains:
            check_agreement(host, packets, table=table.name, chain=chain.name,
                            about=f"seed {seed}, {table.name} {chain.name}\n{drawn}")


@pytest.mark.parametrize("seed", range(400, 430))
def test_given_egress_interfaces(seed: int) -> None:
    """With an ``oif`` column, on hosts with routes and on rules alone."""
    drawn = random_drawn(seed)
    host = drawn.host()
    packets = edge_packets(host, PACKETS, seed, egress=True)
    check_agreement(host, packets, about=f"seed {seed}\n{drawn}")
    bare = Host(host.ruleset, host.interfaces, ipsets=host.ipsets, complete=False)
    check_agreement(bare, packets, about=f"seed {seed}, routes not known\n{drawn}")


# -------------------------------------------------------------------------------------------------- data hosts


@pytest.mark.parametrize("name", FOLDERS)
def test_edges_of_a_data_host(name: str) -> None:
    host = Host.load(DATA / name)
    check_agreement(host, edge_packets(host, 300, 1), about=name)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("name", FOLDERS)
def test_many_edges_of_a_data_host(name: str, part: int) -> None:
    host = Host.load(DATA / name)
    check_agreement(host, edge_packets(host, 20_000, 100 + part), about=f"{name}, part {part}")
