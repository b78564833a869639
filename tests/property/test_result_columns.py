"""A result with some columns is the full result without the others, whichever structures and effects are involved."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import fastpath as fp
from fastpath.compiler.config import STRUCTURES, Structure
from fastpath.engine import Config
from fastpath.packets.schema import RESULT_COLUMNS
from tests.strategies import edge_packets, random_drawn

NAMES = tuple(c.name for c in RESULT_COLUMNS)
SUBSETS = [*((name,) for name in NAMES), ("verdict", "hook", "rule"), ("src", "dport"), ("rule", "mark", "flags"),
           tuple(reversed(NAMES))]


def check_subset(engine: fp.Engine, packets: fp.PacketBatch, full: fp.Result, columns: tuple[str, ...],
                 counters: bool) -> None:
    found = engine.evaluate(packets, columns=columns, counters=counters, threads=1)
    assert set(found.columns) == set(columns)
    for name in columns:
        values = found.column(name)
        assert values.dtype == full.column(name).dtype
        np.testing.assert_array_equal(values, full.column(name), err_msg=f"{name} of {columns}")
    assert found.interfaces == full.interfaces
    if counters:
        np.testing.assert_array_equal(found.rule_packets, full.rule_packets)
        np.testing.assert_array_equal(found.rule_bytes, full.rule_bytes)
    for name in set(NAMES) - set(columns):
        assert not hasattr(found, name)


@pytest.mark.parametrize("seed", range(500, 515))
@pytest.mark.parametrize("structure", [None, *STRUCTURES])
def test_drawn_hosts(seed: int, structure: Structure | None) -> None:
    """Undecided rules, marks, NAT ranges, loops through lo: whatever the drawn hosts have."""
    host = random_drawn(seed).host()
    packets = edge_packets(host, 100, seed)
    engine = fp.compile(host, config=Config(structure=structure))
    full = engine.evaluate(packets, threads=1)
    rng = np.random.default_rng(seed)
    for columns in SUBSETS:
        check_subset(engine, packets, full, columns, bool(rng.integers(2)))


@pytest.mark.parametrize("egress", [False, True], ids=["routed", "given"])
def test_every_pair_on_a_docker_host(egress: bool) -> None:
    host = fp.Host.load(Path(__file__).parents[2] / "data" / "hosts" / "docker28-seed")
    packets = edge_packets(host, 2000, 7, egress=egress)
    engine = fp.compile(host)
    full = engine.evaluate(packets, threads=1)
    for pair in combinations(NAMES, 2):
        check_subset(engine, packets, full, pair, pair[0] < "m")


@pytest.mark.parametrize("n", [0, 1, 2, 8192, 8193])
def test_few_packets(n: int) -> None:
    """Arrays of one element stand for absent columns: nothing may depend on that for one packet."""
    host = fp.Host.load(Path(__file__).parents[2] / "data" / "hosts" / "docker28-seed")
    packets = fp.synth.packets(host, n, seed=3, profile="edges")
    engine = fp.compile(host)
    full = engine.evaluate(packets)
    for columns in SUBSETS:
        check_subset(engine, packets, full, columns, True)


def test_several_threads() -> None:
    """Scratch columns are reused chunk by chunk and must not be shared."""
    host = random_drawn(501).host()
    packets = fp.synth.packets(host, 600_000, seed=5, profile="edges")
    engine = fp.compile(host, config=Config(structure="linear"))
    full = engine.evaluate(packets, threads=1)
    found = engine.evaluate(packets, threads=4, columns=["verdict", "rule"])
    np.testing.assert_array_equal(found.verdict, full.verdict)
    np.testing.assert_array_equal(found.rule, full.rule)
    np.testing.assert_array_equal(found.rule_packets, full.rule_packets)


def test_absent_columns_say_so() -> None:
    host = fp.Host.load(Path(__file__).parents[2] / "data" / "hosts" / "docker28-seed")
    packets = fp.synth.packets(host, 50, seed=3)
    engine = fp.compile(host)
    found = engine.evaluate(packets, columns=["verdict", "oif"], counters=False)
    with pytest.raises(fp.AbsentColumnError, match="rule is absent: only verdict, oif were asked for"):
        _ = found.rule
    with pytest.raises(fp.AbsentColumnError, match="mark is absent"):
        found.column("mark")
    with pytest.raises(fp.AbsentColumnError, match="absent"):
        _ = found[3]
    with pytest.raises(fp.AbsentColumnError, match=r"counters are absent.*counters=False"):
        found.counters()
    with pytest.raises(fp.PacketError, match="absent"):
        engine.evaluate(packets).differences(found)
    with pytest.raises(fp.PacketError, match="unknown result column 'oiff'; the columns are verdict"):
        engine.evaluate(packets, columns=["oiff"])
    with pytest.raises(fp.PacketError, match="no result column is asked for"):
        engine.evaluate(packets, columns=[])
    with pytest.raises(AttributeError, match="no attribute 'verdicts'"):
        _ = found.verdicts
    brief = found.summary()
    assert brief.decisions == () and sum(count for _, count in brief.verdicts) == 50
    assert found.to_arrow().column_names == ["verdict", "oif"]
    assert not found.differences(engine.evaluate(packets), counters=False)
