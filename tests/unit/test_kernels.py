"""The kernels at their borders, small enough to run with bounds checks (NUMBA_BOUNDSCHECK=1) or as plain Python
(NUMBA_DISABLE_JIT=1) too: a plain run shows wrong answers, those two show reads and writes that miss an array.

With the JIT off blocks are made small instead of batches large, so that borders are still crossed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fastpath.compiler.classes import partition
from fastpath.compiler.fields import BASES, Field, Values
from fastpath.compiler.tables import compile_tables
from fastpath.engine import Config, runner
from fastpath.engine import compile as compile_host
from fastpath.host.model import Host
from fastpath.kernels import evaluate as kernel_module
from fastpath.kernels.classify import class_of
from fastpath.kernels.layout import Tables
from fastpath.packets import PacketBatch, Result
from fastpath.packets.schema import PACKET_COLUMNS, Verdict
from fastpath.reference import evaluate
from tests.strategies import edge_packets, random_host
from tests.unit.reference_host import make_host

pytestmark = pytest.mark.kernels

DATA = Path(__file__).parents[2] / "data" / "hosts"
COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"
LINEAR = Config(structure="linear")
LIMIT = "-m limit --limit 5/min"


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """The size of a block: compiled kernels have theirs built in, plain Python takes a smaller one."""
    if not COMPILED:
        monkeypatch.setattr(kernel_module, "BLOCK", 32)
    return int(kernel_module.BLOCK)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks of 40 packets."""
    monkeypatch.setattr(runner, "CHUNK", 40)
    monkeypatch.setattr(runner, "_CONSTANTS", {})
    return 40


def check_equal(found: Result, expected: Result) -> None:
    """All columns (interfaces by name) and all counters."""
    difference = found.differences(expected)
    assert not difference, str(difference)
    assert np.array_equal(found.rule_packets, expected.rule_packets)
    assert np.array_equal(found.rule_bytes, expected.rule_bytes)


EVERYTHING = make_host(
    ipset="create s hash:ip,port\nadd s 172.17.0.2,tcp:80\nadd s 172.17.0.3,udp:53\n",
    raw="""
        -A PREROUTING -p udp --dport 53 -j NOTRACK
        -A OUTPUT -p udp --sport 9 -j CT --notrack
    """,
    mangle="""
        -A PREROUTING -m connmark --mark 0x10/0x10 -j CONNMARK --restore-mark
        -A PREROUTING -m mark --mark 0x1/0x10001 -j MARK --set-xmark 0x80000000/0x80000000
        -A PREROUTING -m mark --mark 0x80000000/0x80000000 -j TOS --set-tos 0x10/0x3f
        -A FORWARD -m ttl --ttl-lt 9 -j TTL --ttl-inc 200
        -A FORWARD -m tos --tos 0x10/0x3f -j DSCP --set-dscp 10
        -A OUTPUT -p tcp -j MARK --set-mark 7
        -A POSTROUTING -m mark --mark 7 -j CONNMARK --save-mark
        -A POSTROUTING -m owner --uid-owner 1000-2000 -j LOG
    """,
    nat="""
        -N U
        -A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
        -A PREROUTING -j U
        -A PREROUTING -p udp -j DNAT --to-destination 172.18.0.3-172.18.0.9:100-200
        -A U -p tcp --dport 22 -j REDIRECT --to-ports 2222
        -A OUTPUT -d 9.9.9.9 -j DNAT --to-destination 127.0.0.1
        -A POSTROUTING -o eth0 -j MASQUERADE
        -A POSTROUTING -o br1 -p tcp -j SNAT --to-source 172.18.0.1:5-9
        -A POSTROUTING -s 172.17.0.0/24 -j NETMAP --to 192.0.2.0/24
    """,
    filter="""
        -P FORWARD DROP
        -N A
        -N B
        -A INPUT -m addrtype --src-type UNICAST -p icmp -m icmp --icmp-type 8/0 -j DROP
        -A INPUT -m mac --mac-source 02:00:00:00:00:01 -j REJECT
        -A FORWARD -m set --match-set s dst,dst -j A
        -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A FORWARD -m conntrack --ctstate DNAT -g B
        -A FORWARD -m conntrack --ctorigdstport 8000:9000 -m length --length 60:100 -j ACCEPT
        -A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m multiport --dports 80,100:200 -j ACCEPT
        -A FORWARD -d 172.0.0.2/255.0.0.255 -m pkttype --pkt-type unicast -j A
        -A FORWARD -i docker0 ! -o br+ -j A
        -A A -m iprange --src-range 10.0.0.0-198.51.100.7 -j RETURN
        -A A -j ACCEPT
        -A B -f -j DROP
        -A B -m conntrack --ctdir ORIGINAL --ctstatus NONE -j ACCEPT
        -A B -m dscp --dscp 10 -j ACCEPT
        -A OUTPUT -o lo -d 127.0.0.1 -j ACCEPT
        -A OUTPUT -m ecn --ecn-ip-ect 1 -j REJECT
    """,
)
"""Every kind of field, every effect, marks that are tested behind where they are set, packets of all three ways."""


# ------------------------------------------------------------------------------------------------------- classes


@pytest.mark.parametrize(("base", "mask"), [
    ("proto", -1), ("iif", -1), ("dport", -1), ("icmp", -1), ("dst", -1), ("dst", 0xFF0000FF), ("mark", 0x80000001),
    ("mac_src", -1), ("extra:x", -1),
])
def test_class_of_a_value(base: str, mask: int) -> None:
    """The kernel's look-up of one value against the partition, on and beside every boundary."""
    bits = Field(base).bits
    top = 10 if base == "iif" else (1 << bits) - 1
    width = 48 if base == "mac_src" else bits
    rng = np.random.default_rng(bits)
    drawn = sorted({0, top, *(int(v) % (top + 1) for v in rng.integers(0, 1 << min(width, 62), 8))})
    if mask != -1:
        drawn = sorted({v & mask for v in drawn})
    sets = [Values.single(v) for v in drawn[::2]] + [Values.of([(a, b)]) for a, b in pairwise(drawn)]
    for chosen in (sets, sets[:1], []):
        found = partition(Field(base, mask), chosen)
        tables = table_of(found, interfaces=top + 1)
        for v in sorted({w for d in drawn for w in (d - 1, d, d + 1, d ^ 0x100, d ^ 0x10000) if 0 <= w <= top}):
            assert class_of(tables, 0, np.uint64(v)) == found.class_of_value(v), v


def table_of(found: object, interfaces: int) -> Tables:
    """Kernel tables with one field."""
    from fastpath.compiler.tables import _Packer

    packer = _Packer(True, Config())
    packer.add_field(found, interfaces, ["x"])  # type: ignore[arg-type]
    arrays = compile_tables(make_host(), table=None, chain=None, assume={}, given_oif=False, config=Config()).arrays
    arrays |= {
        "fields": np.array(packer.fields, np.int64), "bounds": np.array(packer.bounds or [0], np.uint64),
        "maps": np.concatenate([*packer.maps, np.zeros(1, np.uint16)]),
        "trie": np.concatenate([*packer.trie, np.zeros(1, np.uint32)]), "cells16": packer.cells.narrow.flat(),
    }
    return Tables(**{name: arrays[name] for name in Tables._fields})


def test_every_base_has_its_number() -> None:
    """The kernel's numbers of bases follow the order of their names in the compiler."""
    from fastpath.kernels import layout

    numbers = {name: value for name, value in vars(layout).items() if name.startswith("B_")}
    short = {"ctorigsrc": "ORIGSRC", "ctorigsrcport": "ORIGSPORT", "ctorigdst": "ORIGDST", "ctorigdstport": "ORIGDPORT",
             "mac_src": "MAC"}
    for i, base in enumerate(BASES):
        assert numbers[f"B_{short.get(base, base.upper())}"] == i
    assert numbers["B_EXTRA"] == len(BASES)


# ------------------------------------------------------------------------------------------- answers are the same


@pytest.mark.parametrize("config", [Config(), LINEAR, Config(max_product=1), Config(max_table_bytes=0)],
                         ids=["diagram", "linear", "no-product", "ranks"])
def test_every_field_and_effect(config: Config) -> None:
    packets = edge_packets(EVERYTHING, 600 if COMPILED else 400, 4)
    check_equal(compile_host(EVERYTHING, config=config).evaluate(packets), evaluate(EVERYTHING, packets))


def test_every_field_with_given_egress() -> None:
    packets = edge_packets(EVERYTHING, 600 if COMPILED else 300, 5, egress=True)
    check_equal(compile_host(EVERYTHING).evaluate(packets), evaluate(EVERYTHING, packets))


@pytest.mark.parametrize("seed", range(500, 512))
def test_linear_walks_and_diagrams_agree(seed: int) -> None:
    host = random_host(seed)
    packets = edge_packets(host, 200 if COMPILED else 100, seed)
    found = compile_host(host).evaluate(packets)
    check_equal(compile_host(host, config=LINEAR).evaluate(packets), found)
    check_equal(found, evaluate(host, packets))


@pytest.mark.parametrize("config", [Config(), LINEAR], ids=["diagram", "linear"])
def test_undecided_rules(config: Config) -> None:
    host = make_host(
        mangle=f"-A PREROUTING {LIMIT} -j TOS --set-tos 0x10/0xff\n"
               f"-A PREROUTING -m tos --tos 0x10/0xff {LIMIT} -j DROP",
        filter=f"-A FORWARD -p tcp {LIMIT} -j DROP\n-A FORWARD -p udp -m recent --rcheck --name x -j NFQUEUE\n"
               f"-A INPUT {LIMIT} -j LOG\n-A FORWARD {LIMIT} -j LOG")
    packets = edge_packets(host, 60, 6)
    found = compile_host(host, config=config).evaluate(packets)
    check_equal(found, evaluate(host, packets))
    assert (found.verdict == Verdict.UNDECIDED).any()


# ------------------------------------------------------------------------------------------------------- borders


def arrays_of(packets: PacketBatch, change: Callable[[str, np.ndarray], object] = lambda _, a: a) -> PacketBatch:
    """The same packets with every column written out, or as `change` has them."""
    columns = {c.name: change(c.name, packets.column(c.name)) for c in PACKET_COLUMNS if c.name != "oif"}
    return PacketBatch.from_columns(columns, len(packets), interfaces=packets.interfaces)


@pytest.mark.parametrize("config", [Config(), LINEAR], ids=["diagram", "linear"])
@pytest.mark.parametrize("constants", [
    [c.name for c in PACKET_COLUMNS if c.name != "oif"],
    ["iif", "proto", "state", "tcp_flags", "icmp_type"],
    ["dst", "dport", "frag", "ttl", "tos", "mark", "connmark", "pkttype", "length"],
    ["src", "ctdir", "ctstatus", "ctorigdst", "ctorigdstport", "icmp_code", "sport", "mac_src", "uid", "gid"],
], ids=["all", "small", "changing", "details"])
def test_constant_columns_are_as_good_as_arrays(small_blocks: int, constants: list[str], config: Config) -> None:
    """Also behind the first block, where the classes of a constant are not looked up again."""
    n = small_blocks + 40
    engine = compile_host(EVERYTHING, config=config)
    some = edge_packets(EVERYTHING, 64, 7)
    for row in range(0, 64, 8):
        drawn = some.take(np.arange(n) % 64)
        scalar = arrays_of(drawn, lambda name, a, r=row: int(a[r]) if name in constants else a)
        written = arrays_of(drawn, lambda name, a, r=row: np.full(n, a[r]) if name in constants else a)
        assert scalar.constant(constants[0]) is not None and written.constant(constants[0]) is None
        check_equal(engine.evaluate(scalar), engine.evaluate(written))


@pytest.mark.parametrize("config", [Config(), LINEAR], ids=["diagram", "linear"])
def test_borders_of_blocks(small_blocks: int, config: Config) -> None:
    engine = compile_host(EVERYTHING, config=config)
    few = edge_packets(EVERYTHING, 100, 8)
    expected = engine.evaluate(few)
    for n in (0, 1, small_blocks - 1, small_blocks, small_blocks + 1, 2 * small_blocks + 3):
        rows = np.arange(n) % 100
        found = engine.evaluate(few.take(rows))
        for name in ("verdict", "rule", "src", "dst", "sport", "dport", "mark", "rules_walked", "flags", "hook"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)[rows]), (n, name)


def test_borders_of_chunks(small_chunks: int) -> None:
    """Chunks of any size, on one thread or two, give what one large chunk gives."""
    packets = edge_packets(EVERYTHING, 2 * small_chunks + 1, 9)
    engine = compile_host(EVERYTHING)
    by_chunks = [engine.evaluate(packets[:n]) for n in (1, 39, 40, 41, 80, 81)]
    one = engine.evaluate(packets, threads=1)
    check_equal(engine.evaluate(packets, threads=2), one)
    for found in by_chunks:
        check_equal(found, evaluate(EVERYTHING, packets[:len(found)]))
    assert runner.CHUNK == small_chunks


def test_constants_and_chunks(small_chunks: int) -> None:
    """The last chunk is shorter than those before; the first chunk of constants is not its model."""
    packets = edge_packets(EVERYTHING, 1, 10)
    columns = {c.name: int(packets.column(c.name)[0]) for c in PACKET_COLUMNS if c.name != "oif"}
    for n in (1, small_chunks, small_chunks + 1, 3 * small_chunks - 1):
        batch = PacketBatch.from_columns(columns, n, interfaces=packets.interfaces)
        found = compile_host(EVERYTHING).evaluate(batch, threads=2)
        check_equal(found, evaluate(EVERYTHING, batch))


@pytest.mark.skipif(not COMPILED, reason="takes minutes without the JIT")
def test_a_whole_chunk_and_one_more() -> None:
    host = Host.load(DATA / "docker28-seed")
    n = runner.CHUNK + 1
    few = edge_packets(host, 1000, 11)
    engine = compile_host(host)
    expected = engine.evaluate(few)
    many = few.take(np.arange(n) % 1000)
    one, two = engine.evaluate(many, threads=1), engine.evaluate(many, threads=2)
    check_equal(one, two)
    assert np.array_equal(one.verdict, expected.verdict[np.arange(n) % 1000])
    whole = engine.evaluate(few.take(np.arange(n % 1000)))
    assert np.array_equal(one.rule_packets, expected.rule_packets * (n // 1000) + whole.rule_packets)
    assert np.array_equal(one.rule_bytes, expected.rule_bytes * (n // 1000) + whole.rule_bytes)


def test_neighbours_do_not_matter(small_blocks: int) -> None:
    """Forwarded, local, looped-back and dropped packets of one block do not see one another."""
    packets = edge_packets(EVERYTHING, 120, 12)
    engine = compile_host(EVERYTHING)
    together = engine.evaluate(packets)
    order = np.random.default_rng(1).permutation(120)
    mixed = engine.evaluate(packets.take(order))
    assert [mixed[i] for i in range(120)] == [together[int(i)] for i in order]
    assert np.array_equal(mixed.rule_packets, together.rule_packets)
    kinds = {Verdict(v) for v in together.verdict}
    assert kinds >= {Verdict.FORWARD, Verdict.LOCAL_IN, Verdict.DROP}
    local = packets.column("iif") == packets.interfaces.index("local")
    assert ((together.verdict == Verdict.LOCAL_IN) & local).any(), "some packets loop back through lo"


def test_extremes() -> None:
    """All ones and all zeros in every column."""
    names = ("eth0", "local")
    for bits in (0, -1):
        columns = {
            c.name: np.array([bits] * 2, np.int64).astype(c.dtype) for c in PACKET_COLUMNS
            if c.name not in ("iif", "oif", "state", "frag", "ctdir", "pkttype", "mac_src")}
        columns |= {"iif": np.array([0, 1], np.int16), "frag": np.array([-2 * bits] * 2, np.uint8),
                    "ctdir": np.array([-2 * bits] * 2, np.uint8), "state": np.array([-6 * bits] * 2, np.uint8),
                    "pkttype": np.array([-2 * bits] * 2, np.uint8),
                    "mac_src": np.array([0xFFFFFFFFFFFF * -bits] * 2, np.uint64)}
        batch = PacketBatch.from_columns(columns, 2, interfaces=names)
        for config in (Config(), LINEAR):
            check_equal(compile_host(EVERYTHING, config=config).evaluate(batch), evaluate(EVERYTHING, batch))
