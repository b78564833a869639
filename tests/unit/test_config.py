"""Every limit of a compilation: what is done where it is met, with the same answers; and what is told meanwhile."""

from __future__ import annotations

import os

import numpy as np
import pytest

from fastpath.compiler.config import Config
from fastpath.engine import Engine
from fastpath.engine import compile as compile_host
from fastpath.host.model import Host
from fastpath.kernels.layout import G_RESULT, G_SHAPE, RESULT_DIRECT, RESULT_LIST, SHAPE_DENSE, SHAPE_RUNS
from fastpath.packets import PacketBatch
from fastpath.reference import evaluate
from fastpath.ruleset import parse_ruleset
from tests.strategies import edge_packets
from tests.unit.reference_host import make_host

pytestmark = pytest.mark.kernels
COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"

BLOCKED = "\n".join(
    f"-A FORWARD -s 10.{i % 7}.{i}.0/24 -d 198.51.{i % 90}.0/24 -j {('DROP', 'ACCEPT', 'REJECT')[i % 3]}"
    for i in range(120))
HOST = make_host(filter=f"-A FORWARD -i eth0 -j LOG\n{BLOCKED}\n-A FORWARD -p tcp -j LOG")
PACKETS = edge_packets(HOST, 400 if COMPILED else 100, 3)
EXPECTED = evaluate(HOST, PACKETS)


def compiled(config: Config) -> Engine:
    """An engine that gives the reference's answers, counters included."""
    engine = compile_host(HOST, config=config)
    found = engine.evaluate(PACKETS)
    assert not found.differences(EXPECTED), str(found.differences(EXPECTED))
    assert np.array_equal(found.rule_packets, EXPECTED.rule_packets)
    return engine


@pytest.mark.parametrize(("config", "structure"), [
    (Config(), "diagram"),
    (Config(small_words=1), "cross-product"),
    (Config(small_work=1), "cross-product"),
    (Config(small_words=1, shortest_segment=121), "diagram"),
    (Config(shortest_segment=121, max_words=100), "linear"),
    (Config(shortest_segment=121, max_work=100), "linear"),
    (Config(max_product=1), "diagram"),
], ids=["none", "small words", "small work", "no segment", "words", "work", "no product"])
def test_what_is_too_large_for_one_structure_gets_the_next(config: Config, structure: str) -> None:
    assert compiled(config).structures["arriving"] == structure


def test_cross_products_take_slower_forms_in_less_memory() -> None:
    forms = []
    for most in (64 << 20, 1 << 16, 0):
        engine = compiled(Config(structure="cross-product", max_table_bytes=most))
        assert engine.routed is not None
        forms.append({(int(g[G_SHAPE]), int(g[G_RESULT])) for g in engine.routed.arrays["groups"] if g[G_SHAPE]})
    assert (SHAPE_DENSE, RESULT_DIRECT) in forms[0] and (SHAPE_RUNS, RESULT_LIST) not in forms[0]
    assert (SHAPE_RUNS, RESULT_LIST) in forms[2] and (SHAPE_DENSE, RESULT_DIRECT) not in forms[2]


def dotted(word: int) -> str:
    return f"{word >> 24}.{word >> 16 & 255}.{word >> 8 & 255}.{word & 255}"


def test_ten_thousand_rules_stay_within_the_default() -> None:
    """64 MB, whatever the structure that is chosen."""
    rng = np.random.default_rng(1)
    n = 10_000 if COMPILED else 100
    words = rng.integers(0, 1 << 24, (n, 2)) << 8
    ports = rng.integers(0, 1 << 16, n)
    lines = [f"-A FORWARD -s {dotted(a)}/24 -d {dotted(b)}/24 -p tcp -m tcp --dport {port} -j ACCEPT"
             for (a, b), port in zip(words.tolist(), ports.tolist(), strict=True)]
    text = "\n".join(["*filter", ":INPUT ACCEPT", ":FORWARD DROP", ":OUTPUT ACCEPT", *lines, "COMMIT", ""])
    engine = compile_host(Host(parse_ruleset(text), complete=False), table="filter", chain="FORWARD")
    assert engine.nbytes <= 64 << 20
    packets = PacketBatch.from_columns({
        "src": words[:, 0].astype(np.uint32), "dst": words[:, 1].astype(np.uint32), "dport": ports.astype(np.uint16),
        "proto": np.full(n, 6, np.uint8), "iif": np.full(n, "eth0"), "oif": np.full(n, "eth1")})
    numbers = np.array([ref.number for ref in engine.rules])
    assert (numbers[engine.evaluate(packets).rule] <= np.arange(1, n + 1)).all()
    assert (engine.evaluate(packets).rule_packets > 0).sum() > 0.9 * n


def test_progress_grows_to_the_end() -> None:
    for host in (HOST, make_host()):
        said: list[tuple[str, float]] = []
        engine = compile_host(host, progress=lambda what, part, said=said: said.append((what, part)))  # type: ignore[misc]
        parts = [part for _, part in said]
        assert parts == sorted(parts) and parts[0] >= 0 and parts[-1] == 1.0
        assert parts.count(1.0) == 1
        assert {f"stage {name}" for name in engine.structures} <= {what for what, _ in said}
    assert len(said) < 1000
