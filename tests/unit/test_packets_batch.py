"""Packets as columns, and single packets."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from fastpath.errors import PacketError
from fastpath.packets import Packet, PacketBatch, State
from fastpath.packets.schema import NO_ID, PACKET_COLUMNS

BASE: dict[str, Any] = {"iif": ["eth0", "local"], "src": ["198.51.100.7", 5], "dst": "10.0.0.1", "proto": ["tcp", 17]}


def batch(**more: Any) -> PacketBatch:
    return PacketBatch.from_columns(BASE | more)


def test_columns_have_the_schemas_types_and_the_batchs_length() -> None:
    b = batch(dport=80, state=["established", None])
    assert len(b) == 2
    for column in PACKET_COLUMNS:
        values = b.column(column.name)
        assert values.dtype == column.dtype and values.shape == (2,)
        assert not values.flags.writeable
    assert b.column("src").tolist() == [0xC6336407, 5]
    assert b.column("dst").tolist() == [0x0A000001] * 2
    assert b.column("proto").tolist() == [6, 17]
    assert b.column("state").tolist() == [State.ESTABLISHED, State.AUTO]
    assert [b.interfaces[c] for c in b.column("iif")] == ["eth0", "local"]
    assert b.column("oif").tolist() == [-1, -1]
    assert b.column("uid").tolist() == [NO_ID] * 2


def test_constants_and_defaults_need_no_memory() -> None:
    b = PacketBatch.from_columns({"iif": "eth0", "src": "10.0.0.1", "dst": 2, "proto": 6, "dport": 80}, n=10_000_000)
    assert len(b) == 10_000_000 and b.nbytes == 0
    assert b.constant("dport") == 80 and b.has("dport")
    assert b.constant("ttl") == 64 and not b.has("ttl")
    assert b.constant("iif") == 0 and b.interfaces == ("eth0",)
    assert b.column("dport").sum() == 800_000_000
    assert batch(dport=[1, 2]).constant("dport") is None


def test_arrays_of_the_right_type_are_not_copied() -> None:
    src = np.arange(2, dtype=np.uint32)
    assert np.shares_memory(batch(src=src).column("src"), src)
    src[0] = 9  # the caller's own array stays writable


def test_interface_codes_with_names() -> None:
    codes = np.array([1, 0], np.int16)
    b = PacketBatch.from_columns(BASE | {"iif": codes, "oif": [None, "br0"]}, interfaces=("a", "b"))
    assert b[0].iif == "b" and b[1].iif == "a"
    assert b[0].oif is None and b[1].oif == "br0"
    assert b.interfaces == ("a", "b", "br0")


def test_floats_of_pandas_are_whole_numbers_with_gaps() -> None:
    assert batch(sport=np.array([1.0, np.nan])).column("sport").tolist() == [1, 0]
    assert batch(sport=[None, 7]).column("sport").tolist() == [0, 7]


@pytest.mark.parametrize(("change", "message"), [
    ({"dports": 1}, "unknown packet column 'dports'; did you mean 'dport'?"),
    ({"xyz": 1}, "the columns are iif, src"),
    ({"src": None}, "column src is missing"),
    ({"dport": [1, 2, 3]}, "column dport has 3 rows where 2 are expected"),
    ({"dport": [1, 70000]}, "column dport: row 1: 70000 is not in 0..65535"),
    ({"dport": np.array([1, -1])}, "column dport: row 1: -1 is not in 0..65535"),
    ({"dport": [1.5, 1]}, "column dport: row 0: 1.5 is not a number"),
    ({"dport": np.array([1.5, 1])}, "column dport: row 0: 1.5 is not a whole number"),
    ({"dport": np.array([1e9, 1])}, "row 0: 1000000000 is not in"),
    ({"dport": np.zeros((2, 2), np.uint16)}, "its shape is"),
    ({"dport": [object(), 1]}, "is not a number"),
    ({"dport": 70000}, "column dport: 70000 is not in"),
    ({"frag": np.array([0, 3], np.uint8)}, "column frag: row 1: 3 is not in 0..2"),
    ({"state": np.array([7, 0], np.uint8)}, "column state: row 0: 7 is not in 0..6"),
    ({"state": "nwe"}, "column state: 'nwe' is not a state"),
    ({"mac_src": 1 << 48}, "column mac_src: "),
    ({"dst": ["1.2.3.4", "1.2.3"]}, "column dst: row 1: '1.2.3' is not an IPv4 address"),
    ({"dst": [1, 1 << 32]}, "column dst: row 1: 4294967296 is not in"),
    ({"dst": np.array([1, 1 << 32])}, "column dst: row 1: 4294967296 is not in"),
    ({"proto": ["tcp", "tpc"]}, "column proto: row 1: 'tpc' is not a protocol"),
    ({"proto": [6, None]}, "column proto: row 1: no value, and the column has no default"),
    ({"iif": ["eth0", None]}, "column iif: row 1: no value"),
    ({"iif": ["eth0", 2.5]}, "column iif: row 1: 2.5 is not an interface name"),
    ({"iif": [0, 1]}, "column iif: row 0: interface code 0 is not in"),
    ({"iif": np.array([-1, 0])}, "column iif: row 0: interface code -1"),
    ({"iif": 0}, "column iif: row 0: interface code 0"),
])
def test_bad_columns_are_named_with_their_row(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PacketError) as caught:
        batch(**change)
    assert message in str(caught.value)


def test_length_must_be_known() -> None:
    constants = {"iif": "eth0", "src": 1, "dst": 2, "proto": 6}
    with pytest.raises(PacketError, match="number of packets n is needed"):
        PacketBatch.from_columns(constants)
    with pytest.raises(PacketError, match="negative"):
        PacketBatch.from_columns(constants, n=-1)
    assert len(PacketBatch.from_columns(constants, n=0)) == 0


def test_rows_slices_and_selections() -> None:
    b = PacketBatch.from_columns({"iif": "eth0", "src": np.arange(10), "dst": 1, "proto": 17},
                                 extra={"odd": np.arange(10) % 2 == 1})
    assert b[3].src == 3 and b[-1].src == 9 and b[3].extra == {"odd": True}
    assert [p.src for p in b[2:5]] == [2, 3, 4]
    assert [p.src for p in b[::-4]] == [9, 5, 1]
    assert b[::2].column("src").flags.c_contiguous
    assert np.shares_memory(b[2:5].column("src"), b.column("src"))
    assert [p.src for p in b.take([7, -1, 0])] == [7, 9, 0]
    assert [p.src for p in b.take(b.extra["odd"])] == [1, 3, 5, 7, 9]
    assert len(b.take([])) == 0
    for bad in ([10], [-11], [1.5], np.ones(3, bool), [[1]]):
        with pytest.raises(PacketError):
            b.take(bad)
    with pytest.raises(IndexError):
        b[10]


def test_concat_merges_interfaces_and_keeps_constants() -> None:
    a = PacketBatch.from_columns({"iif": "eth0", "src": [1, 2], "dst": 1, "proto": 6, "oif": "br0"})
    b = PacketBatch.from_columns({"iif": ["br0", "eth0"], "src": 3, "dst": 1, "proto": 17, "ttl": 1},
                                 extra={"x": [True, False]})
    c = PacketBatch.concat([a, b])
    assert list(c[:2]) != list(c[2:])
    assert [(p.iif, p.oif, p.src, p.proto, p.ttl, p.extra["x"]) for p in c] == [
        ("eth0", "br0", 1, 6, 64, False), ("eth0", "br0", 2, 6, 64, False), ("br0", None, 3, 17, 1, True),
        ("eth0", None, 3, 17, 1, False)]
    assert c.constant("dst") == 1 and c.constant("proto") is None and not c.has("mark")
    same = PacketBatch.concat([a, a])
    assert same.constant("iif") is not None and same.constant("oif") is not None
    with pytest.raises(PacketError):
        PacketBatch.concat([])


def test_equality_looks_at_values_only() -> None:
    a = batch(ttl=64)
    coded = {"iif": np.array([1, 0]), "dst": [0x0A000001] * 2}
    b = PacketBatch.from_columns(BASE | coded, interfaces=("local", "eth0"))
    assert a.equals(b) and b.equals(a)
    assert not a.equals(batch(ttl=63))
    assert not a.equals(batch(oif=[None, "eth0"]))
    assert not a.equals(a[:1])
    assert not a.equals(PacketBatch.from_columns(BASE, extra={"x": [True, True]}))


def test_dicts_and_packets_round_trip() -> None:
    b = batch(dport=[80, None], state="new", oif=[None, "local"])
    assert [f.name for f in fields(Packet)] == [*(c.name for c in PACKET_COLUMNS), "family", "extra"]
    assert list(b) == [b[0], b[1]]
    assert PacketBatch.from_packets(b).equals(b)
    assert PacketBatch.from_dicts([p.as_dict() for p in b]).equals(b)
    assert len(PacketBatch.from_dicts([])) == 0 and len(PacketBatch.from_packets([])) == 0
    with pytest.raises(PacketError, match="did you mean"):
        PacketBatch.from_dicts([{"iff": "eth0"}])


def test_one_packet_from_friendly_values() -> None:
    p = Packet.make(iif="eth0", src="198.51.100.7", dst=1, proto="tcp", dport=80, tcp_flags="SYN,ACK", state="reply")
    assert (p.src, p.dst, p.proto, p.tcp_flags, p.state, p.oif) == (0xC6336407, 1, 6, 18, State.REPLY, None)
    assert p.as_dict() == {"iif": "eth0", "src": "198.51.100.7", "dst": "0.0.0.1", "proto": 6, "dport": 80,
                           "tcp_flags": 18, "state": "reply"}
    assert str(p) == "in eth0 198.51.100.7:0 -> 0.0.0.1:80 tcp flags SYN,ACK state reply"
    assert Packet.make(**p.as_dict()) == p
    with pytest.raises(PacketError, match="column src is missing"):
        Packet.make(iif="eth0", dst=1, proto=6)
    with pytest.raises(PacketError, match="column dport: 70000"):
        Packet.make(iif="eth0", src=1, dst=1, proto=6, dport=70000)
    with pytest.raises(PacketError, match="did you mean 'dport'"):
        Packet.make(iif="eth0", src=1, dst=1, proto=6, dprt=1)
    with pytest.raises(PacketError, match="not an interface name"):
        Packet.make(iif=3, src=1, dst=1, proto=6)


def test_ipv6_batches() -> None:
    address = 0x20010DB8 << 96 | 7
    b = PacketBatch.from_columns({"iif": "eth0", "src": ["2001:db8::7", address], "dst": "::1", "proto": 58}, family=6)
    assert b.column("src").shape == (2, 4) and b.column("src").dtype == np.uint32
    assert b.column("dst").shape == (2, 4) and b.constant("dst") == 1
    assert b.column("ctorigdst").shape == (2, 4)
    assert b[1].src == address and b[0] == b[1]
    words = PacketBatch.from_columns({"iif": "eth0", "src": b.column("src"), "dst": [1, 1], "proto": 58}, family=6)
    assert words.equals(b) and PacketBatch.from_packets(b).equals(b)
    assert PacketBatch.concat([b, b])[3].src == address
    assert "[2001:db8::7]:1 -> [::1]:2" in str(Packet.make(
        iif="a", src=address, dst="::1", proto=17, sport=1, dport=2, family=6))
    with pytest.raises(PacketError):
        PacketBatch.concat([b, PacketBatch.empty()])
    with pytest.raises(PacketError, match="row 1: "):
        PacketBatch.from_columns({"iif": "a", "src": ["::1", "1.2.3.4"], "dst": 1, "proto": 6}, family=6)


def test_extra_columns_are_booleans_of_the_batchs_length() -> None:
    b = PacketBatch.from_columns(BASE, extra={"limited": [True, False], "all": True})
    assert b.extra["limited"].tolist() == [True, False] and b.extra["all"].tolist() == [True, True]
    with pytest.raises(PacketError, match="not a row of booleans"):
        PacketBatch.from_columns(BASE, extra={"x": [1, 2]})
    with pytest.raises(PacketError, match="column x has 3 rows"):
        PacketBatch.from_columns(BASE, extra={"x": [True] * 3})


def test_importing_packets_loads_neither_arrow_nor_numba() -> None:
    code = "import sys, fastpath.packets; sys.exit(bool({'pyarrow', 'numba', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
