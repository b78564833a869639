"""Candidates by either key and a grid of the wide rules: drawn chains against a comparison of every packet with every
rule, and drawn hosts against the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fastpath.compiler import candidates
from fastpath.compiler.config import Config
from fastpath.engine import Engine, load_engine
from fastpath.engine import compile as compile_host
from fastpath.host.model import Host
from fastpath.kernels import layout as at
from fastpath.packets import PacketBatch
from fastpath.reference import evaluate
from fastpath.ruleset import parse_ruleset
from tests.strategies import edge_packets
from tests.unit.reference_host import make_host
from tests.unit.test_crossproduct import COMPILED, LIMITED, TOP, Boxes, chain_of, check, drawn_boxes, edges_of

pytestmark = pytest.mark.kernels

FORCED = Config(structure="candidates")


def scattered(n: int, seed: int) -> tuple[Boxes, Boxes]:
    """Rules each of which names an address that few others do; some are wide by both keys."""
    rng = np.random.default_rng(seed)
    low, high = np.zeros((n, 5), np.int64), np.tile(TOP, (n, 1))
    for f in (0, 1):
        lengths = rng.choice([0, 1, 3, 8, 16, 24, 32], n, p=[0.3, 0.05, 0.05, 0.1, 0.1, 0.2, 0.2])
        masks = 0xFFFFFFFF << 32 - lengths & 0xFFFFFFFF
        low[:, f] = rng.integers(0, 1 << 32, n) & masks
        high[:, f] = low[:, f] | 0xFFFFFFFF & ~masks
    low[:, 4] = high[:, 4] = rng.choice([6, 17], n)
    for f in (2, 3):
        one = rng.random(n) < (0.1, 0.6)[f - 2]
        low[one, f] = rng.integers(0, (3, 300)[f - 2], one.sum()) * 7
        high[one, f] = low[one, f] + rng.choice([0, 0, 5, 900], one.sum())
    return low, high


def groups_of(engine: Engine) -> npt.NDArray[np.int64]:
    for compiled in (engine.given, engine.routed):
        if compiled is not None:
            groups = compiled.arrays["groups"]
            return groups[groups[:, at.G_SHAPE] == at.SHAPE_CANDIDATES]
    raise AssertionError


@pytest.mark.parametrize("seed", [1, 2])
def test_thousands_of_rules_for_which_candidates_are_chosen(seed: int) -> None:
    """Both keys' lists, the grid, and more merged classes than a byte numbers."""
    rng = np.random.default_rng(seed)
    n = 4000 if COMPILED else 100
    low, high = scattered(n, seed)
    host = chain_of(low, high, rng)
    config = Config() if COMPILED else FORCED
    engine = compile_host(host, table="filter", chain="FORWARD", config=config)
    assert set(engine.structures.values()) == {"candidates"}
    check(low, high, engine, host, edges_of(low, high, 6000 if COMPILED else 100, rng))
    (group,) = groups_of(engine)
    assert group[at.G_WIDTH] > 0 and group[at.G_FOUND] >= 0 and group[at.G_LISTS] >= 0
    compiled = engine.given or engine.routed
    assert compiled is not None
    if COMPILED:
        assert compiled.arrays["lookups"][0, at.C_REST] > 256


@pytest.mark.parametrize("seed", range(10, 16))
def test_lists_with_and_without_a_grid(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested prefixes by the hundred: long lists, rules that cover later ones, grids that must do with fewer rules."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(candidates, "WIDE", int(rng.integers(0, 40)))
    monkeypatch.setattr(candidates, "MOST_COARSE", int(rng.integers(2, 60)))
    low, high = (drawn_boxes, scattered)[seed % 2](int(rng.integers(20, 500)) if COMPILED else 60, seed)
    host = chain_of(low, high, rng)
    config = Config(structure="candidates", max_table_bytes=int(rng.choice([0, 1 << 16, 1 << 20, 64 << 20])))
    engine = compile_host(host, table="filter", chain="FORWARD", config=config)
    assert set(engine.structures.values()) == {"candidates"}
    check(low, high, engine, host, edges_of(low, high, 3000 if COMPILED else 100, rng))


def drawn_rules(rng: np.random.Generator, n: int, chain: str, nets: tuple[str, str]) -> str:
    """Rules with negations, ranges of addresses and ports, and any prefix length."""
    lines = []
    for _ in range(n):
        words = [f"-A {chain}"]
        for option, net in zip(("-s", "-d"), nets, strict=True):
            kind = rng.random()
            address = net.format(*rng.integers(0, 6, 2))
            if kind < 0.6:
                length = rng.choice([0, 1, 8, 16, 23, 24, 28, 31, 32])
                words.append(f"{'! ' if rng.random() < 0.15 else ''}{option} {address}/{length}")
            elif kind < 0.7:
                side = "src" if option == "-s" else "dst"
                last = address.rsplit(".", 1)[0] + ".200"
                words.append(f"-m iprange {'! ' if rng.random() < 0.5 else ''}--{side}-range {address}-{last}")
        if rng.random() < 0.6:
            words.append(f"-p tcp -m tcp {'! ' if rng.random() < 0.2 else ''}--dport {80 + rng.integers(0, 5)}")
        lines.append(" ".join([*words, "-j", str(rng.choice(["ACCEPT", "DROP", "REJECT", "RETURN"]))]))
    return "\n".join(lines)


def agree(host: Host, packets: PacketBatch, config: Config) -> Engine:
    expected = evaluate(host, packets)
    engine = compile_host(host, config=config)
    found = engine.evaluate(packets)
    assert not found.differences(expected), str(found.differences(expected))
    assert np.array_equal(found.rule_packets, expected.rule_packets)
    assert np.array_equal(found.rule_bytes, expected.rule_bytes)
    return engine


@pytest.mark.parametrize("undecided", ["", LIMITED], ids=["sure", "undecided"])
@pytest.mark.parametrize("seed", range(3))
def test_addresses_that_nat_has_rewritten(seed: int, undecided: str) -> None:
    """Filter rules see what DNAT wrote, here to one address or to a range, which the general kernel does."""
    rng = np.random.default_rng(seed)
    published = "\n".join(
        f"-A PREROUTING {'-s 10.0.0.0/23 ' * (i % 3 == 0)}-d 203.0.113.{i % 9} -p tcp -m tcp --dport {80 + i % 7} "
        f"-j DNAT --to-destination 172.17.{i % 2}.{i % 4}{('', '-172.17.1.9', ':8080')[i % 3]}" for i in range(70))
    rules = drawn_rules(rng, 80, "FORWARD", ("10.0.{}.{}", "172.17.{}.{}"))
    host = make_host(nat=published, filter=f"{undecided}{rules}")
    packets = edge_packets(host, 2000 if COMPILED else 60, seed)
    engine = agree(host, packets, FORCED)
    assert "candidates" in engine.structures.values()


def test_saved_tables(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    low, high = scattered(300 if COMPILED else 60, 5)
    host = chain_of(low, high, rng)
    engine = compile_host(host, table="filter", chain="FORWARD", config=FORCED)
    engine.save(tmp_path / "engine")
    loaded = load_engine(tmp_path / "engine")
    assert set(loaded.structures.values()) == {"candidates"}
    check(low, high, loaded, host, edges_of(low, high, 500, rng))


def test_what_is_too_large_becomes_a_cross_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "MOST_WORK", 0)
    rng = np.random.default_rng(6)
    low, high = scattered(100, 6)
    host = chain_of(low, high, rng)
    engine = compile_host(host, table="filter", chain="FORWARD", config=FORCED)
    assert set(engine.structures.values()) == {"cross-product"}
    check(low, high, engine, host, edges_of(low, high, 500 if COMPILED else 100, rng))


@pytest.mark.parametrize("rule", ["-s 10.0.0.0/8", "-p tcp -m tcp --dport 80", ""])
def test_rules_without_two_keys(rule: str) -> None:
    text = f"*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\n-A FORWARD {rule} -j ACCEPT\nCOMMIT\n"
    host = Host(parse_ruleset(text), complete=False)
    engine = compile_host(host, table="filter", chain="FORWARD", config=FORCED)
    columns: dict[str, Any] = {"src": np.array([10 << 24, 11 << 24], np.uint32), "dst": 1,
                               "proto": np.full(2, 6, np.uint8), "dport": np.array([80, 81], np.uint16),
                               "iif": np.full(2, "eth0"), "oif": np.full(2, "eth1")}
    packets = PacketBatch.from_columns(columns)
    expected = evaluate(host, packets, table="filter", chain="FORWARD")
    assert not engine.evaluate(packets).differences(expected)
