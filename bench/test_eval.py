"""How fast packets are evaluated, beside two other ways to get the same answers.

Every comparison checks that the answers are equal before it says anything about speed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastpath as fp
from bench import masks
from fastpath import reference
from fastpath.packets import Hook, PacketBatch, Result, State, Verdict
from fastpath.packets.schema import RESULT_COLUMNS

Note = Callable[[Any, int], None]

REFERENCE_PACKETS = 2_000
CHAIN_PACKETS = 1_000_000


def assert_equal(ours: Result, theirs: Result) -> None:
    differences = ours.differences(theirs)
    assert not differences, str(differences)


# ------------------------------------------------------------------------------------------------ the whole path


@pytest.mark.parametrize("threads", [1, None], ids=["one core", "all cores"])
def test_whole_path(benchmark: Any, engine: fp.Engine, traffic: PacketBatch, threads: int | None, note: Note) -> None:
    benchmark.group = "whole path, docker28-big, traffic"
    result = benchmark.pedantic(engine.evaluate, (traffic,), {"threads": threads}, rounds=5, warmup_rounds=1)
    assert len(result) == len(traffic)
    note(benchmark, len(traffic))


@pytest.mark.parametrize("profile", ["edges", "uniform"])
def test_whole_path_other_profiles(benchmark: Any, big: fp.Host, engine: fp.Engine, profile: str, note: Note) -> None:
    benchmark.group = "whole path, docker28-big, one core, other profiles"
    packets = fp.synth.packets(big, CHAIN_PACKETS, seed=1, profile=profile)
    benchmark.pedantic(engine.evaluate, (packets,), {"threads": 1}, rounds=5, warmup_rounds=1)
    note(benchmark, len(packets))


def test_whole_path_reference(
    benchmark: Any, big: fp.Host, engine: fp.Engine, traffic: PacketBatch, note: Note
) -> None:
    benchmark.group = "whole path, docker28-big, traffic"
    packets = traffic[:REFERENCE_PACKETS]
    slow = benchmark.pedantic(reference.evaluate, (big, packets), rounds=1)
    assert_equal(engine.evaluate(packets, threads=1), slow)
    note(benchmark, len(packets))


# ------------------------------------------------------------------------------------------------ one chain alone


@pytest.fixture(scope="session")
def forwarded(engine: fp.Engine, traffic: PacketBatch) -> PacketBatch:
    """The traffic as filter FORWARD sees it: routed, after DNAT, with an egress and an explicit state."""
    packets = traffic[:CHAIN_PACKETS]
    result = engine.evaluate(packets)
    through = (result.verdict == Verdict.FORWARD) | (result.hook == Hook.FORWARD)
    rows = np.flatnonzero(through & (result.oif >= 0))
    packets = packets.take(rows)
    given = {name: packets.column(name) for name in ("src", "proto", "sport", "tcp_flags", "frag")}
    state = packets.column("state").copy()
    state[state == State.AUTO] = State.NEW
    codes = {
        "iif": np.array(packets.interfaces)[packets.column("iif")],
        "oif": np.array(result.interfaces)[result.oif[rows]],
    }
    return PacketBatch.from_columns(
        given | codes | {"dst": result.dst[rows], "dport": result.dport[rows], "state": state}
    )


@pytest.fixture(scope="session")
def chain_engine(big: fp.Host) -> fp.Engine:
    return fp.compile(big, table="filter", chain="FORWARD")


def test_chain_compiled(benchmark: Any, chain_engine: fp.Engine, forwarded: PacketBatch, note: Note) -> None:
    benchmark.group = "filter FORWARD alone, docker28-big, one core"
    benchmark.pedantic(chain_engine.evaluate, (forwarded,), {"threads": 1}, rounds=5, warmup_rounds=1)
    note(benchmark, len(forwarded))


def test_chain_masks(benchmark: Any, big: fp.Host, chain_engine: fp.Engine, forwarded: PacketBatch, note: Note) -> None:
    benchmark.group = "filter FORWARD alone, docker28-big, one core"
    slow = benchmark.pedantic(masks.verdicts, (big.ruleset, "FORWARD", forwarded), rounds=1)
    np.testing.assert_array_equal(chain_engine.evaluate(forwarded).verdict, slow)
    note(benchmark, len(forwarded))


def test_chain_reference(
    benchmark: Any, big: fp.Host, chain_engine: fp.Engine, forwarded: PacketBatch, note: Note
) -> None:
    benchmark.group = "filter FORWARD alone, docker28-big, one core"
    packets = forwarded[:REFERENCE_PACKETS]
    slow = benchmark.pedantic(
        reference.evaluate, (big, packets), {"table": "filter", "chain": "FORWARD"}, rounds=1
    )
    assert_equal(chain_engine.evaluate(packets), slow)
    note(benchmark, len(packets))


def test_every_column_is_compared() -> None:
    """`assert_equal` must not overlook a column that is added later."""
    names = [column.name for column in RESULT_COLUMNS]
    empty: dict[str, Any] = {name: np.zeros(1, "int64") for name in names}
    none = np.zeros(0, "int64")
    base = Result(empty | {"rule": np.full(1, -1), "oif": np.full(1, -1)}, (), (), none, none)
    for name in set(names) - {"rule", "oif"}:
        other = Result(empty | {"rule": np.full(1, -1), "oif": np.full(1, -1), name: np.ones(1, "int64")}, (), (),
                       none, none)
        with pytest.raises(AssertionError):
            assert_equal(base, other)
