"""The bulk kernel and its programs: whatever the columns are like, it gives what the general kernel gives."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from fastpath.compiler.config import STRUCTURES, Config, Structure
from fastpath.engine import Engine, bulk, memory
from fastpath.engine import compile as compile_host
from fastpath.engine.bulk import run_bulk
from fastpath.engine.program.ready import Ready
from fastpath.host.model import Host
from fastpath.kernels import narrow
from fastpath.kernels.counts import add_counts
from fastpath.kernels.layout import BULK_BLOCK, OP_BYTE, OP_CODE, OP_PAGED, OP_SUMS
from fastpath.kernels.narrow import NARROW
from fastpath.packets import PacketBatch, Result
from fastpath.packets.result import COLUMNS
from fastpath.packets.schema import LOCAL, PACKET_COLUMNS, Verdict
from fastpath.reference import evaluate
from tests.strategies import edge_packets
from tests.unit.reference_host import make_host

DATA = Path(__file__).parents[2] / "data" / "hosts"
COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"

PLAIN = make_host(
    nat="""
        -A PREROUTING -d 192.0.2.10 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
        -A PREROUTING -d 192.0.2.10 -p udp -j DNAT --to-destination 172.17.0.3
        -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
        -A POSTROUTING -s 198.51.100.0/24 -o docker0 -j SNAT --to-source 172.17.0.1
    """,
    filter="""
        -A INPUT -p icmp --icmp-type echo-request -j ACCEPT
        -A INPUT -m conntrack --ctstate INVALID -j DROP
        -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A FORWARD -d 172.17.0.2 -p tcp --dport 80 -j ACCEPT
        -A FORWARD -d 172.17.0.3 -j REJECT
        -A FORWARD -i docker0 -o eth0 -j ACCEPT
        -A FORWARD -m length --length 1000:2000 -j DROP
        -A FORWARD -s 203.0.113.0/24 -p tcp --sport 1000:2000 --tcp-flags SYN,RST SYN -j ACCEPT
        -A OUTPUT -d 203.0.113.7 -m tos --tos 0x10 -j DROP
    """,
)
"""Nothing but what the bulk kernel does, for packets that arrive and for those that the host makes."""


def general(engine: Engine, packets: PacketBatch, **how: object) -> Result:
    """What the general kernel says."""
    with patch("fastpath.engine.core.run_bulk", return_value=None):
        return engine.evaluate(packets, **how)  # type: ignore[arg-type]


def hard(engine: Engine, packets: PacketBatch) -> int | None:
    """How many packets the bulk kernel leaves, None where it takes none."""
    compiled = engine._compiled(packets.has("oif") and bool((packets.column("oif") >= 0).all()))
    found = run_bulk(compiled, packets, list(packets.interfaces), 1, lambda _: None, frozenset(COLUMNS), True,
                     len(engine.rules))
    return None if found is None else len(found.hard)


def check(engine: Engine, packets: PacketBatch, **how: object) -> Result:
    found = engine.evaluate(packets, **how)  # type: ignore[arg-type]
    difference = found.differences(general(engine, packets))
    assert not difference, str(difference)
    return found


def with_constants(packets: PacketBatch, constant: set[str]) -> PacketBatch:
    """The packets with some columns held as one value, the first one's, and all others as arrays."""
    columns: dict[str, object] = {}
    for c in PACKET_COLUMNS:
        if c.name == "oif" and not packets.has("oif"):
            continue
        values = packets.column(c.name)
        columns[c.name] = int(values[0]) if c.name in constant else np.ascontiguousarray(values)
    return PacketBatch.from_columns(columns, len(packets), interfaces=packets.interfaces)


@pytest.mark.kernels
@pytest.mark.parametrize("structure", [None, *STRUCTURES])
def test_plain_hosts_leave_nothing(structure: Structure | None) -> None:
    engine = compile_host(PLAIN, config=Config(structure=structure))
    packets = edge_packets(PLAIN, 600 if COMPILED else 150, 1)
    found = check(engine, packets)
    assert hard(engine, packets) == (None if structure == "linear" else 0)
    assert {Verdict(v) for v in found.verdict} >= {
        Verdict.FORWARD, Verdict.LOCAL_IN, Verdict.LOCAL_OUT, Verdict.DROP, Verdict.REJECT}


@pytest.mark.kernels
@pytest.mark.parametrize("seed", range(12))
def test_columns_of_one_value(seed: int) -> None:
    """The program differs with every column that has one value; the answers do not."""
    rng = np.random.default_rng(seed)
    packets = edge_packets(PLAIN, 200 if COMPILED else 60, seed)
    names = [c.name for c in PACKET_COLUMNS if c.name not in ("oif", "length")]
    constant = {name for name in names if rng.random() < (0.2, 0.5, 0.9)[seed % 3]}
    check(compile_host(PLAIN), with_constants(packets, constant))


@pytest.mark.kernels
def test_every_column_of_one_value() -> None:
    """All of one kind, and all but one column."""
    engine = compile_host(PLAIN)
    packets = edge_packets(PLAIN, 40, 5)
    names = {c.name for c in PACKET_COLUMNS if c.name != "oif"}
    for row in range(0, 40, 4):
        here = packets.take(np.full(7, row))
        check(engine, with_constants(here, names))
        for name in sorted(names):
            check(engine, with_constants(packets.take(np.r_[row, np.arange(20)]), names - {name}))


@pytest.mark.kernels
@pytest.mark.parametrize("state", ["new", "established", "auto"])
def test_states_with_and_without_auto(state: str) -> None:
    """First packets of unknown flows need flags and types looked at; others only their state."""
    packets = edge_packets(PLAIN, 150, 6)
    columns = {c.name: packets.column(c.name) for c in PACKET_COLUMNS if c.name not in ("oif", "state")}
    number = {"auto": 0, "new": 1, "established": 2}[state]
    states = np.where(np.arange(150) % 3 == 0, number, 3 + np.arange(150) % 4).astype(np.uint8)
    batch = PacketBatch.from_columns({**columns, "state": states}, 150, interfaces=packets.interfaces)
    check(compile_host(PLAIN), batch)


@pytest.mark.kernels
@pytest.mark.parametrize("count", [255, 256, 400])
def test_many_interfaces(count: int) -> None:
    """Codes that fit a byte beside the one for none, and codes that do not."""
    packets = edge_packets(PLAIN, 150, 12)
    more = count - len(packets.interfaces)
    names = [*(f"veth{i}" for i in range(more)), *packets.interfaces]
    columns = {c.name: packets.column(c.name) for c in PACKET_COLUMNS if c.name != "oif"}
    columns["iif"] = np.where(np.arange(150) % 5, columns["iif"] + more, columns["iif"]).astype(np.int16)
    check(compile_host(PLAIN), PacketBatch.from_columns(columns, 150, interfaces=names))


@pytest.mark.kernels
@pytest.mark.parametrize("count", [3, 6, 7, 40])
def test_many_protocols_beside_states(count: int) -> None:
    """What conntrack decides on: of few combinations, looked up in vectors, and of many."""
    host = make_host(filter="-A FORWARD -m conntrack --ctstate INVALID -j DROP\n" + "\n".join(
        f"-A FORWARD -p {number} -m conntrack --ctstate NEW -j {('ACCEPT', 'REJECT')[number % 2]}"
        for number in [1, 6, 17, *range(60, 57 + count)]))
    packets = edge_packets(host, 400, 13)
    assert (packets.column("state") == 0).any()
    check(compile_host(host), packets)
    assert hard(compile_host(host), packets) == 0


def test_small_tables_are_made_for_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tables are looked up by rows, all of 256 entries have theirs behind them, in whatever pass."""
    monkeypatch.setattr(narrow, "PICKS", False)
    monkeypatch.setattr(narrow, "SHUFFLE", narrow.SHUFFLES["+avx2"])
    engine, packets = compile_host(PLAIN), edge_packets(PLAIN, 300, 6)
    check(engine, packets)
    check(engine, packets.take(packets.column("state") != 0))
    seen = set()
    for program in of_engine(engine).values():
        assert isinstance(program, Ready)
        for op, _, *operands in program.passes.tolist():
            where = {OP_BYTE: operands[1], OP_CODE: operands[1], OP_SUMS: operands[0]}.get(op)
            mask = {OP_CODE: operands[3], OP_SUMS: operands[1]}.get(op, NARROW)
            if where is None or mask != NARROW:
                continue
            table, rows = np.split(program.small[where:], [NARROW + 1])
            expected = narrow.rows_of(table, 12)
            assert np.array_equal(rows[:len(expected)], expected)
            seen.add(op)
    assert seen == {OP_BYTE, OP_CODE, OP_SUMS}


@pytest.mark.kernels
def test_arriving_and_local_packets_apart() -> None:
    """Batches of one kind begin at one root, mixed ones at two."""
    engine = compile_host(PLAIN)
    packets = edge_packets(PLAIN, 300 if COMPILED else 100, 7)
    local = packets.column("iif") == packets.interfaces.index("local")
    assert local.any() and not local.all()
    for rows in (local, ~local):
        check(engine, packets.take(rows))
        here = packets.take(rows)
        check(engine, with_constants(here.take(here.column("iif") == here.column("iif")[0]), {"iif"}))


@pytest.mark.skipif(not COMPILED, reason="takes minutes without the JIT")
@pytest.mark.parametrize("n", [0, 1, BULK_BLOCK - 1, BULK_BLOCK, BULK_BLOCK + 1, 3 * BULK_BLOCK + 5])
@pytest.mark.parametrize("threads", [1, 2])
def test_borders_of_blocks_and_chunks(n: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "SMALLEST", BULK_BLOCK)
    monkeypatch.setattr(bulk, "LARGEST", BULK_BLOCK)
    monkeypatch.setattr(bulk, "MOST_COUNTED", BULK_BLOCK)
    few = edge_packets(PLAIN, 700, 8)
    packets = few.take(np.arange(n) % 700)
    found = check(compile_host(PLAIN), packets, threads=threads)
    assert len(found) == n


@pytest.mark.parametrize("name", ["docker28-seed", "docker26-bridges", "docker20-sctp"])
def test_hard_packets_are_done_by_the_general_kernel(name: str) -> None:
    """Edge packets of captured hosts: some are left to it, and all are right, with any columns."""
    host = Host.load(DATA / name)
    engine = compile_host(host)
    packets = edge_packets(host, 5000, 9)
    left = hard(engine, packets)
    assert left is not None and 0 < left < len(packets) // 2
    check(engine, packets, threads=2)
    expected = general(engine, packets)
    for columns in (
            ["rule"], ["verdict"], ["dst", "dport"], ["src"], ["oif", "hook"], ["rules_walked", "flags", "mark"]):
        found = engine.evaluate(packets, columns=columns, counters=False)
        for column in columns:
            assert np.array_equal(getattr(found, column), getattr(expected, column)), column


def test_what_nat_changed_is_seen_behind() -> None:
    """A destination that only FORWARD asks about, behind a DNAT that looks at the port alone."""
    host = make_host(
        nat="-A PREROUTING -i eth0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
        filter="-A FORWARD -d 172.17.0.2 -p tcp --dport 80 -j DROP\n-A FORWARD -p tcp --dport 8080 -j REJECT",
    )
    engine = compile_host(host)
    packets = edge_packets(host, 500, 10)
    found = check(engine, packets)
    assert (found.verdict == Verdict.DROP).any()
    assert hard(engine, packets) == 0


@pytest.mark.parametrize("chain", [None, "FORWARD"])
def test_given_egress_interfaces_show_as_given(chain: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All columns and some, written through the cache and past it."""
    engine = compile_host(PLAIN, table=chain and "filter", chain=chain)
    packets = edge_packets(PLAIN, 400, 11)
    arriving = packets.take(packets.column("iif") != packets.interfaces.index("local"))
    columns = {c.name: arriving.column(c.name) for c in PACKET_COLUMNS if c.name != "oif"}
    for oif in ("eth0", np.where(np.arange(len(arriving)) % 2, "docker0", "nobody0")):
        batch = PacketBatch.from_columns({**columns, "oif": oif}, len(arriving), interfaces=arriving.interfaces)
        found = check(engine, batch)
        out = found.verdict == (Verdict.FORWARD if chain is None else Verdict.ACCEPT)
        assert out.any() and np.array_equal(found.oif[out], batch.column("oif")[out])
        for past in (0, bulk.PAST):
            monkeypatch.setattr(bulk, "PAST", past)
            monkeypatch.setattr(memory, "SMALLEST", 1 if past == 0 else 1 << 20)
            for names in (["oif"], ["verdict", "hook", "rule", "oif"], None):
                assert np.array_equal(engine.evaluate(batch, columns=names).oif, found.oif)


# ------------------------------------------------------------------------------------------- programs met before


def of_engine(engine: Engine, given_oif: bool = False) -> dict[object, object]:
    plan = engine._compiled(given_oif).bulk
    assert plan is not None
    return plan.programs


@pytest.mark.kernels
def test_batches_of_one_kind_share_a_program() -> None:
    engine = compile_host(PLAIN)
    for seed in (13, 14):
        check(engine, edge_packets(PLAIN, 60, seed))
        assert len(of_engine(engine)) == 1
    with patch("fastpath.engine.program.ready.Program", side_effect=AssertionError("made again")):
        check(engine, edge_packets(PLAIN, 60, 15))


@pytest.mark.kernels
def test_what_a_program_depends_on_makes_another() -> None:
    """One engine, batches in turn that differ in one thing each; the answers are always their own."""
    engine = compile_host(PLAIN)
    packets = edge_packets(PLAIN, 120, 16)
    columns = {c.name: packets.column(c.name) for c in PACKET_COLUMNS if c.name != "oif"}
    names = list(packets.interfaces)
    turned = np.array([names[::-1].index(name) for name in names], np.int16)
    known = np.maximum(packets.column("state"), 1)
    batches = [
        PacketBatch.from_columns({**columns, **change}, 120, interfaces=of_codes)
        for change, of_codes in (
            ({}, names), ({"state": known}, names), ({"iif": turned[packets.column("iif")]}, names[::-1]),
            ({}, [*names, "nobody0"]), ({"proto": 6}, names), ({"proto": 17}, names), ({"iif": "docker0"}, names))
    ]
    for _ in range(2):
        for batch in batches:
            assert engine.evaluate(batch).interfaces == general(engine, batch).interfaces
            check(engine, batch)
    assert len(of_engine(engine)) == len(batches)
    for columns_wanted in (["rule"], ["verdict", "dst"]):
        found = engine.evaluate(packets, columns=columns_wanted, counters=False)
        assert all(np.array_equal(getattr(found, c), getattr(general(engine, packets), c)) for c in columns_wanted)
        check(engine, packets)
    assert len(of_engine(engine)) == len(batches) + 2


@pytest.mark.kernels
def test_remembered_programs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastpath.engine.program.ready.MOST_REMEMBERED", 3)
    engine = compile_host(PLAIN)
    packets = edge_packets(PLAIN, 30, 17)
    for proto in range(8):
        columns = {c.name: packets.column(c.name) for c in PACKET_COLUMNS if c.name != "oif"} | {"proto": proto}
        check(engine, PacketBatch.from_columns(columns, 30, interfaces=packets.interfaces))
        assert 0 < len(of_engine(engine)) <= 3


@pytest.mark.kernels
def test_counts_of_records_go_to_all_rules_on_their_paths() -> None:
    """Records counted in several arrays, one that two places stand for, one without rules, and what is no record's."""
    counts = np.zeros((2, 5), np.int64)
    counts[0, :4] = [2 << 40 | 100, 0, 1 << 40 | 7, 5 << 40 | 50]
    counts[1, 0] = 3 << 40 | 11
    counts[:, 4] = 9 << 40 | 9
    rule_packets, rule_bytes = np.array([10, 0, 0, 0]), np.array([0, 0, 0, 1])
    add_counts(
        counts, np.array([2, 0, 1, 2]), np.array([0, 2, 2, 4]), np.array([0, 1, 1, 3], np.int32),
        rule_packets, rule_bytes)
    assert rule_packets.tolist() == [10, 10, 0, 10]
    assert rule_bytes.tolist() == [0, 161, 0, 162]


# ------------------------------------------------------------------------------------------------------- memory


def test_memory_is_used_again_when_nobody_holds_it() -> None:
    memory.release()
    n = memory.SMALLEST
    first = memory.empty(n, "uint32")
    place = first.__array_interface__["data"][0]
    part = first[5:9]
    del first
    assert memory.empty(n, "uint32").__array_interface__["data"][0] != place, "a view still holds it"
    del part
    again = memory.empty(n, "uint32")
    assert again.__array_interface__["data"][0] == place
    assert len(again) == n and again.dtype == np.uint32 and again.flags.writeable


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.release()
    monkeypatch.setattr(memory, "MOST_KEPT", 3 * memory.SMALLEST)
    held = [memory.empty(memory.SMALLEST, "uint8") for _ in range(5)]
    del held
    assert memory._size <= 3 * memory.SMALLEST
    memory.release()
    assert memory._size == 0


@pytest.mark.skipif(not COMPILED, reason="takes minutes without the JIT")
def test_results_stay_as_they_are() -> None:
    """A later evaluation does not touch the columns of an earlier one that is still held."""
    engine = compile_host(PLAIN)
    n = 2 * memory.SMALLEST
    few = edge_packets(PLAIN, 64, 12)
    one, two = few.take(np.arange(n) % 64), few.take(np.arange(n)[::-1] % 64)
    first = engine.evaluate(one)
    kept = first.rule.copy()
    engine.evaluate(two)
    second = engine.evaluate(two)
    assert np.array_equal(first.rule, kept)
    assert np.array_equal(second.rule, kept[::-1])


@pytest.mark.kernels
@pytest.mark.parametrize("structure", [None, "diagram"])
def test_bits_of_an_address_and_a_mark(structure: Structure | None) -> None:
    """Masks of any bits, for arriving packets, for the host's own, and for both."""
    host = make_host(filter="""
        -A FORWARD -d 0.0.0.7/0.0.0.255 -j DROP
        -A FORWARD -s 128.0.113.0/192.0.255.0 -m mark --mark 0x10/0xf0 -j REJECT
        -A FORWARD -m mark --mark 0x80000001/0x80000001 -j ACCEPT
        -A FORWARD -d 172.17.0.2 -j DROP
        -A OUTPUT -d 203.0.113.7 -j REJECT
        -A OUTPUT -m mark ! --mark 0x8000/0xc000 -j DROP
    """)
    packets = edge_packets(host, 600 if COMPILED else 150, 4)
    rng = np.random.default_rng(4)
    columns = {c.name: packets.column(c.name) for c in PACKET_COLUMNS if c.name != "oif"}
    columns["mark"] = rng.choice(np.array([0, 0x10, 0x1F, 0x8000, 0x80000001, 0xFFFFFFFF], np.uint32), len(packets))
    packets = PacketBatch.from_columns(columns, len(packets), interfaces=packets.interfaces)
    engine = compile_host(host, config=Config(structure=structure))
    local = packets.column("iif") == packets.interfaces.index(LOCAL)
    assert local.any() and not local.all()
    for here in (~local, local, ~local, local | True):
        of_kind = packets.take(np.flatnonzero(here))
        found = check(engine, of_kind)
        assert hard(engine, of_kind) == 0
        expected = evaluate(host, of_kind)
        assert all(np.array_equal(getattr(found, c), getattr(expected, c)) for c in ("verdict", "hook", "rule"))


def takes(engine: Engine, op: int) -> bool:
    """Whether a program of the engine had some pass."""
    plan = engine._compiled(False).bulk
    assert plan is not None
    return any((program.passes[:, 0] == op).any() for program in plan.programs.values())


@pytest.mark.kernels
@pytest.mark.parametrize("key", ["-d", "-s"])
def test_words_behind_a_first_level_of_an_address(key: str) -> None:
    """They are looked up without its classes."""
    host = make_host(filter=f"""
        -A FORWARD {key} 172.17.0.2 -p tcp --dport 80 -j ACCEPT
        -A FORWARD {key} 172.17.0.0/24 -m length --length 100:2000 -j REJECT
        -A FORWARD {key} 172.17.0.0/16 -j DROP
        -A FORWARD {key} 0.0.0.7/0.0.0.255 -j ACCEPT
        -A FORWARD {key} 203.0.113.0/25 -p udp -j DROP
    """)
    engine = compile_host(host, table="filter", chain="FORWARD", config=Config(structure="diagram"))
    packets = edge_packets(host, 600 if COMPILED else 150, 8)
    for constant in (set(), {"proto"}, {"src", "dst"}, {"length"}):
        found = check(engine, with_constants(packets, constant))
    assert len(np.unique(found.rule)) > 3
    assert takes(engine, OP_PAGED)
