"""Chains of some hundred rules, looked up by cross products of every shape, against numpy and the reference."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fastpath.compiler import addresses, cells, crossproduct, tables
from fastpath.compiler.config import Config
from fastpath.compiler.sizes import TooLargeError
from fastpath.docker import Container, Endpoint, Network, Port, Topology
from fastpath.engine import Engine
from fastpath.engine import compile as compile_host
from fastpath.errors import CompileError
from fastpath.host.model import Host
from fastpath.kernels.layout import (
    F_KIND,
    F_OF_RANK_WIDE,
    G_RESULT,
    G_SHAPE,
    K_RANKS,
    RESULT_GROUPED,
    SHAPE_GROUPED,
)
from fastpath.packets import PacketBatch, synth
from fastpath.reference import evaluate
from fastpath.ruleset import parse_ruleset
from tests.strategies import edge_packets
from tests.unit.reference_host import make_host

pytestmark = pytest.mark.kernels

COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"
TOP = np.array([2**32 - 1, 2**32 - 1, 65535, 65535, 255], np.int64)
Boxes = npt.NDArray[np.int64]


def drawn_boxes(n: int, seed: int) -> tuple[Boxes, Boxes]:
    """Rules as boxes over (src, dst, sport, dport, proto): nested prefixes, wide ones, ranges; (n, 5)."""
    rng = np.random.default_rng(seed)
    low, high = np.zeros((n, 5), np.int64), np.tile(TOP, (n, 1))
    nets = rng.integers(0, 1 << 32, 40)
    for i in range(n):
        for f in (0, 1):
            if rng.random() < 0.75:
                length = int(rng.choice([1, 2, 8, 16, 20, 24, 28, 30, 32, 32, 32]))
                mask = (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF
                low[i, f] = int(rng.choice(nets) ^ rng.integers(0, 1 << int(rng.integers(1, 20)))) & mask
                high[i, f] = low[i, f] | ~mask & 0xFFFFFFFF
        if rng.random() < 0.8:
            low[i, 4] = high[i, 4] = rng.choice([6, 17])
            for f in (2, 3):
                if rng.random() < (0.3, 0.7)[f - 2]:
                    low[i, f] = rng.choice([0, 22, 53, 80, 443, 1024, 8080])
                    high[i, f] = min(65535, low[i, f] + rng.choice([0, 0, 0, 1, 100, 65535]))
        elif rng.random() < 0.5:
            low[i, 4] = high[i, 4] = rng.choice([1, 47, 50])
    return low, high


def address(low: int, high: int) -> str:
    return f"{low >> 24}.{low >> 16 & 255}.{low >> 8 & 255}.{low & 255}/{32 - (high - low).bit_length()}"


def chain_of(low: Boxes, high: Boxes, rng: np.random.Generator) -> Host:
    """The boxes as a FORWARD chain with a policy of DROP."""
    lines = []
    for a, b in zip(low.tolist(), high.tolist(), strict=True):
        words = ["-A FORWARD"]
        for f, option in ((0, "-s"), (1, "-d")):
            if (a[f], b[f]) != (0, TOP[f]):
                words.append(f"{option} {address(a[f], b[f])}")
        if a[4] == b[4]:
            words.append(f"-p {a[4]}")
            if a[4] in (6, 17):
                words.append(f"-m {'tcp' if a[4] == 6 else 'udp'} --sport {a[2]}:{b[2]} --dport {a[3]}:{b[3]}")
        lines.append(" ".join([*words, "-j", str(rng.choice(["ACCEPT", "DROP", "REJECT", "RETURN"]))]))
    text = "\n".join(["*filter", ":INPUT ACCEPT", ":FORWARD DROP", ":OUTPUT ACCEPT", *lines, "COMMIT", ""])
    return Host(parse_ruleset(text), complete=False)


def edges_of(low: Boxes, high: Boxes, n: int, rng: np.random.Generator) -> Boxes:
    """Packets at the edges of the boxes, half of them near one box."""
    found = np.empty((n, 5), np.int64)
    rows = rng.integers(0, len(low), n)
    for f in range(5):
        found[:, f] = rng.choice(np.concatenate([low[:, f], high[:, f], low[:, f] - 1, high[:, f] + 1]), n)
    near = np.where(rng.random((n, 5)) < 0.5, low[rows], high[rows])
    return np.clip(np.where(rng.random((n, 5)) < 0.7, near, found), 0, TOP)


def check(low: Boxes, high: Boxes, engine: Engine, host: Host, points: Boxes) -> None:
    """Rule, rules walked and counters against one comparison of every packet with every rule."""
    n = len(low)
    holds = np.ones((len(points), n), bool)
    for f in range(5):
        holds &= (points[:, f, None] >= low[:, f]) & (points[:, f, None] <= high[:, f])
    first = np.where(holds.any(axis=1), holds.argmax(axis=1), n)
    ids = {r.number: r.id for r in host.ruleset.refs() if r.chain == "FORWARD"}
    targets = [str(rule.target) for rule in host.ruleset.tables[0].chains[1].rules]
    at = np.array([*(ids[i + 1] for i in range(n)), ids[0]])
    decides = np.array([*(ids[0] if "RETURN" in t else ids[i + 1] for i, t in enumerate(targets)), ids[0]])
    packets = PacketBatch.from_columns({
        "src": points[:, 0].astype(np.uint32), "dst": points[:, 1].astype(np.uint32),
        "sport": points[:, 2].astype(np.uint16), "dport": points[:, 3].astype(np.uint16),
        "proto": points[:, 4].astype(np.uint8), "iif": np.full(len(points), "eth0"),
        "oif": np.full(len(points), "eth1"),
    })
    result = engine.evaluate(packets)
    assert np.array_equal(result.rule, decides[first])
    assert np.array_equal(result.rules_walked, np.minimum(first + 1, n))
    counted = np.bincount(at[first], minlength=len(result.rules))
    returned = np.array([*("RETURN" in t for t in targets), False])[first]
    counted[ids[0]] += returned.sum()
    assert np.array_equal(result.rule_packets, counted)


def apart(*_: Any) -> Any:
    raise TooLargeError


@pytest.mark.parametrize("split", [False, True], ids=["one group", "groups"])
@pytest.mark.parametrize("most", [64 << 20, 1, 0], ids=["large tables", "tables in groups", "small tables"])
@pytest.mark.parametrize("seed", [1, 2])
def test_first_rules_of_a_flat_chain(seed: int, most: int, split: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense tables and runs, direct results and lists, address maps of pages and of ranks."""
    if split:
        monkeypatch.setattr(crossproduct.Boxes, "together", apart)
    grouped = most == 1
    if grouped:
        most = 64 << 20
        monkeypatch.setattr(cells, "LEAST_GROUPED", 0)
    rng = np.random.default_rng(seed)
    low, high = drawn_boxes(400 if COMPILED else 120, seed)
    host = chain_of(low, high, rng)
    config = Config(structure="cross-product", max_table_bytes=most)
    engine = compile_host(host, table="filter", chain="FORWARD", config=config)
    assert set(engine.structures.values()) == {"cross-product"}
    check(low, high, engine, host, edges_of(low, high, 4000 if COMPILED else 300, rng))
    if grouped and COMPILED:
        compiled = engine.given or engine.routed
        assert compiled is not None
        groups = compiled.arrays["groups"]
        assert (groups[:, G_RESULT] == RESULT_GROUPED).any() and (groups[:, G_SHAPE] == SHAPE_GROUPED).any()


@pytest.mark.parametrize("most", [64 << 20, 0], ids=["grid", "no grid"])
@pytest.mark.parametrize("seed", [1, 2, 4])
def test_first_rules_of_a_flat_chain_by_candidates(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = drawn_boxes(600 if COMPILED else 120, seed)
    host = chain_of(low, high, rng)
    config = Config(structure="candidates", max_table_bytes=most)
    engine = compile_host(host, table="filter", chain="FORWARD", config=config)
    assert set(engine.structures.values()) == {"candidates"}
    check(low, high, engine, host, edges_of(low, high, 5000 if COMPILED else 300, rng))


def test_ranks_with_wide_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are for more classes than 16 bits can number."""
    monkeypatch.setattr(addresses, "MOST_CLASSES", 1)
    rng = np.random.default_rng(5)
    low, high = drawn_boxes(150 if COMPILED else 60, 5)
    host = chain_of(low, high, rng)
    for structure in ("cross-product", "diagram"):
        engine = compile_host(host, table="filter", chain="FORWARD", config=Config(structure=structure))  # type: ignore[arg-type]
        compiled = engine.routed or engine.given
        assert compiled is not None
        fields = compiled.arrays["fields"]
        assert (fields[fields[:, F_KIND] == K_RANKS, F_OF_RANK_WIDE] == 1).sum() >= 2
        check(low, high, engine, host, edges_of(low, high, 2000 if COMPILED else 150, rng))


def test_a_chain_too_large_for_a_diagram_is_a_cross_product_by_itself() -> None:
    rng = np.random.default_rng(3)
    low, high = drawn_boxes(700 if COMPILED else 100, 3)
    host = chain_of(low, high, rng)
    engine = compile_host(host, table="filter", chain="FORWARD", config=Config(small_words=10))
    assert set(engine.structures.values()) == {"cross-product"}
    check(low, high, engine, host, edges_of(low, high, 3000 if COMPILED else 200, rng))


BLOCKED = "\n".join(f"-A U -s 10.{i % 7}.{i}.0/24 {'! ' * (i % 9 == 0)}-d 198.51.{i % 5}.0/24 -j "
                    f"{('DROP', 'RETURN', 'REJECT')[i % 3]}" for i in range(90))
PUBLISHED = "\n".join(f"-A PREROUTING -p tcp -m tcp --dport {8000 + i} -j DNAT "
                      f"--to-destination 172.17.0.{i + 2}:{80 + i}" for i in range(80))
LIMITED = "-A FORWARD -p udp -m limit --limit 1/s -j DROP\n"


@pytest.mark.parametrize("undecided", ["", LIMITED], ids=["sure", "undecided"])
def test_segments_in_a_host(undecided: str) -> None:
    """Rules around a segment, effects of its own, a user chain that is walked twice, undecided rules before it."""
    host = make_host(
        nat=PUBLISHED,
        filter=f"-N U\n-A FORWARD -i eth0 -j LOG\n{undecided}-A FORWARD -p udp -j U\n-A FORWARD -p tcp -j LOG\n"
               f"-A FORWARD -j U\n-A FORWARD -d 172.17.0.0/24 -j ACCEPT\n{BLOCKED}",
    )
    packets = edge_packets(host, 500 if COMPILED else 150, 1)
    expected = evaluate(host, packets)
    for structure in ("candidates", "cross-product", "diagram", None):
        engine = compile_host(host, config=Config(structure=structure))  # type: ignore[arg-type]
        found = engine.evaluate(packets)
        assert not found.differences(expected), str(found.differences(expected))
        assert np.array_equal(found.rule_packets, expected.rule_packets)
        if structure in ("candidates", "cross-product"):
            assert structure in engine.structures.values()


def test_structures_that_do_not_exist() -> None:
    with pytest.raises(CompileError, match="say one of candidates, cross-product, diagram, linear"):
        Config(structure="bdd")  # type: ignore[arg-type]


def docker(networks: int, containers: int) -> Host:
    """A Docker host whose every container publishes a port; the networks take turns, so that their rules mix."""
    nets = tuple(Network(f"net{i}", subnet=f"10.{i + 1}.0.0/24") for i in range(networks))
    return Topology(nets, tuple(
        Container(f"c{i}", (Endpoint(f"net{i % networks}"),), ports=(Port(80 + i % 3, "tcp", 8000 + i),))
        for i in range(networks * containers))).host("28.5")


def test_only_rules_that_can_meet_a_leaf_have_records_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Docker host's rules each belongs to one bridge: leaves of other bridges need no record for it."""
    host = docker(networks=5, containers=4 if COMPILED else 2)
    packets = PacketBatch.concat([edge_packets(host, 400 if COMPILED else 60, 1),
                                  synth.packets(host, 400 if COMPILED else 60, seed=2)])
    expected = evaluate(host, packets)
    engines = [compile_host(host, config=Config(structure="cross-product"))]
    monkeypatch.setattr(tables, "MANY_LEAVES", 1 << 30)
    engines.append(compile_host(host, config=Config(structure="cross-product")))
    for engine in engines:
        assert "cross-product" in engine.structures.values()
        found = engine.evaluate(packets)
        assert not found.differences(expected), str(found.differences(expected))
        assert np.array_equal(found.rule_packets, expected.rule_packets)
    few, many = (len(e.routed.arrays["records"]) for e in engines if e.routed is not None)
    assert few < many / 2
