"""Packets and results as Arrow tables, Parquet and CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastpath.errors import PacketError
from fastpath.packets import Hook, Packet, PacketBatch, Result, Verdict
from fastpath.packets.files import read_packets
from fastpath.ruleset.model import RuleRef

FULL: dict[str, Any] = {
    "iif": ["eth0", "local", "br-1"], "src": ["10.0.0.1", "255.255.255.255", "0.0.0.0"], "dst": [1, 2, 3],
    "proto": [6, 17, 1], "sport": [1, 2, 65535], "dport": 80, "tcp_flags": [2, 18, 0], "icmp_type": 8, "icmp_code": 1,
    "frag": [0, 1, 2], "ttl": 1, "tos": [0, 255, 3], "length": 1500, "mark": [0, 0xFFFFFFFF, 7], "connmark": 3,
    "state": ["auto", "reply", "invalid"], "ctdir": 1, "ctstatus": 32, "ctorigdst": "10.9.8.7", "ctorigdstport": 99,
    "oif": ["br-1", None, "local"], "mac_src": 0x02000A0B0C0D, "pkttype": 2, "uid": 0, "gid": [0, 1, 0xFFFFFFFF],
}


@pytest.fixture
def full() -> PacketBatch:
    return PacketBatch.from_columns(FULL, extra={"limited": [True, False, True]})


def result(n: int = 3) -> Result:
    rules = (RuleRef(0, "filter", "FORWARD", 0, "-P FORWARD DROP"), RuleRef(1, "filter", "FORWARD", 1, "-A FORWARD"))
    columns: dict[str, Any] = {
        "verdict": np.array([Verdict.FORWARD, Verdict.DROP, Verdict.DROP], np.uint8),
        "hook": np.array([Hook.POSTROUTING, Hook.FORWARD, Hook.ROUTE], np.uint8),
        "rule": np.array([1, 0, -1], np.int32),
        "oif": np.array([1, 1, -1], np.int16), "src": np.array([1, 2, 3], np.uint32),
        "dst": np.array([0x0A000001, 5, 6], np.uint32), "dport": np.array([6379, 0, 0], np.uint16),
    }
    return Result({k: v[:n] for k, v in columns.items()}, ("eth0", "docker0"), rules, np.array([1, 1]),
                  np.array([60, 40]))


def test_every_column_survives_every_format(full: PacketBatch, tmp_path: Path) -> None:
    assert PacketBatch.from_arrow(full.to_arrow()).equals(full)
    assert PacketBatch.from_arrow(full.to_arrow(addresses="int")).equals(full)
    assert PacketBatch.from_pandas(full.to_arrow().to_pandas()).equals(full)
    full.write_csv(tmp_path / "p.csv")
    full.write_parquet(tmp_path / "p.parquet")
    assert PacketBatch.read_csv(tmp_path / "p.csv").equals(full)
    assert PacketBatch.read_parquet(tmp_path / "p.parquet").equals(full)
    assert read_packets(tmp_path / "p.csv").equals(full) and read_packets(tmp_path / "p.parquet").equals(full)


def test_files_show_names_and_words(full: PacketBatch, tmp_path: Path) -> None:
    full.write_csv(tmp_path / "p.csv")
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0].split(",") == [*FULL, "extra.limited"]
    assert lines[2].split(",")[:4] == ["local", "255.255.255.255", "0.0.0.2", "17"]
    assert lines[2].split(",")[15] == "reply"


def test_names_with_commas_are_quoted(tmp_path: Path) -> None:
    b = PacketBatch.from_columns({"iif": ["a,b", 'c"d'], "src": 1, "dst": 2, "proto": 6})
    b.write_csv(tmp_path / "p.csv")
    assert PacketBatch.read_csv(tmp_path / "p.csv").equals(b)


def test_csv_as_people_and_other_programs_write_it(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('iif,src,dst,proto,sport,dport,tcp_flags,icmp_type,icmp_code,mark,ttl,tos,frag,state,oif\n'
                    'eth0,198.51.100.7,167772161,6,1234,6380,"SYN,ACK",8,0,0x10,61,0,0,new,\n'
                    'local,10.0.0.1,10.0.0.2,icmp,,,,0,,,,,,,docker0\n')
    one, two = PacketBatch.read_csv(path)
    assert one == Packet.make(iif="eth0", src="198.51.100.7", dst="10.0.0.1", proto=6, sport=1234, dport=6380,
                              tcp_flags=18, mark=16, ttl=61, state="new")
    assert two == Packet.make(iif="local", src="10.0.0.1", dst="10.0.0.2", proto=1, icmp_type=0, oif="docker0")


@pytest.mark.parametrize(("text", "message"), [
    ("iif,src,dst,proto\neth0,1.2.3.4,1.2.3.4,6\neth0,1.2.3,1.2.3.4,6\n", "column src: row 1: '1.2.3' is not"),
    ("iif,src,dst,proto\neth0,1.2.3.4,1.2.3.4,6\n,1.2.3.4,1.2.3.4,6\n", "column iif: row 1: no value"),
    ("iif,src,dst,proto\neth0,1.2.3.4,,6\n", "column dst: row 0: no value"),
    ("iif,src,dst,proto\neth0,1.2.3.4,1.2.3.4,\n", "column proto: row 0: no value"),
    ("iif,src,dst,proto,dport\neth0,1.2.3.4,1.2.3.4,6,70000\n", "column dport: row 0: 70000 is not in"),
    ("iif,src,dst,proto,dprot\neth0,1.2.3.4,1.2.3.4,6,7\n", "unknown packet column 'dprot'; did you mean"),
    ("iif,src,dst\neth0,1.2.3.4,1.2.3.4\n", "column proto is missing"),
    ("iif,src,dst,proto\neth0,1.2.3.4\n", "Expected 4 columns"),
    ("iif,iif\neth0,1\n", "column iif is there twice"),
    ("", "Empty CSV"),
    ("iif,src,dst,proto,extra.x\neth0,1.2.3.4,1.2.3.4,6,perhaps\n", "column extra.x"),
])
def test_bad_csv_is_a_packet_error_that_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(PacketError) as caught:
        PacketBatch.read_csv(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    (tmp_path / "x.csv").write_bytes(b"iif,src\n\xff\xfe\0,\n")
    for path in (tmp_path / "x.parquet", tmp_path / "x.csv", tmp_path / "none.csv", tmp_path / "none.parquet",
                 tmp_path / "x.txt"):
        with pytest.raises(PacketError):
            read_packets(path)
    with pytest.raises(PacketError):
        PacketBatch.empty().write_csv(tmp_path / "no" / "where.csv")


def test_arrow_columns_of_many_types() -> None:
    base = {"iif": pa.array(["a", "b", "a"]).dictionary_encode(), "src": pa.array([1, 2, 3], pa.int64()),
            "dst": pa.array(["1.1.1.1", "1.1.1.2", "1.1.1.3"], pa.large_string()),
            "proto": pa.array([6, 6, 17], pa.int8())}
    b = PacketBatch.from_arrow(pa.table(base | {"ttl": pa.array([1.0, None, 3.0]), "sport": pa.array([1, None, 3]),
                                                "state": pa.array(["new", None, ""]), "oif": pa.nulls(3)}))
    assert b.column("ttl").tolist() == [1, 64, 3] and b.column("sport").tolist() == [1, 0, 3]
    assert b.column("state").tolist() == [1, 0, 0] and b.column("oif").tolist() == [-1] * 3
    assert [p.iif for p in b] == ["a", "b", "a"]
    with pytest.raises(PacketError, match="holds no numbers"):
        PacketBatch.from_arrow(pa.table(base | {"ttl": pa.array([[1], [2], [3]])}))
    with pytest.raises(PacketError, match="interfaces are written as names"):
        PacketBatch.from_arrow(pa.table(base | {"iif": pa.array([1, 2, 3])}))
    with pytest.raises(PacketError, match="no Arrow table"):
        PacketBatch.from_arrow(7)


def test_chunked_and_sliced_tables() -> None:
    b = PacketBatch.from_columns({"iif": ["a", "b"] * 5, "src": [f"10.0.0.{i}" for i in range(10)], "dst": 1,
                                  "proto": 6, "state": ["new", "reply"] * 5})
    other = PacketBatch.from_columns({"iif": "c", "src": ["1.1.1.1"], "dst": 1, "proto": 6, "state": "invalid"})
    table = pa.concat_tables([b.to_arrow().slice(3, 4), other.to_arrow(), b.to_arrow().slice(9)])
    assert PacketBatch.from_arrow(table).equals(PacketBatch.concat([b[3:7], other, b[9:]]))
    bad = pa.table({"iif": pa.chunked_array([["a"], ["a"]]), "src": pa.chunked_array([["1.1.1.1"], ["1.1.1"]]),
                    "dst": [1, 1], "proto": [6, 6]})
    with pytest.raises(PacketError, match="column src: row 1: "):
        PacketBatch.from_arrow(bad)


def test_empty_tables(tmp_path: Path) -> None:
    empty = PacketBatch.empty()
    empty.write_csv(tmp_path / "e.csv")
    empty.write_parquet(tmp_path / "e.parquet")
    assert len(PacketBatch.read_csv(tmp_path / "e.csv")) == len(PacketBatch.read_parquet(tmp_path / "e.parquet")) == 0


def test_ipv6_files(tmp_path: Path) -> None:
    b = PacketBatch.from_columns({"iif": "a", "src": ["::1", "2001:db8::7"], "dst": "fe80::1", "proto": 58}, family=6)
    b.write_csv(tmp_path / "p.csv")
    assert "2001:db8::7,fe80::1" in (tmp_path / "p.csv").read_text()
    assert PacketBatch.read_csv(tmp_path / "p.csv", family=6).equals(b)
    with pytest.raises(PacketError):
        b.to_arrow(addresses="int")


def test_results_in_files(tmp_path: Path) -> None:
    result().to_csv(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text().splitlines() == [
        "verdict,hook,rule,oif,post_src,post_dst,post_sport,post_dport,post_mark,rules_walked,flags",
        "FORWARD,POSTROUTING,filter FORWARD 1,docker0,0.0.0.1,10.0.0.1,0,6379,0,0,0",
        "DROP,FORWARD,filter FORWARD 0,docker0,0.0.0.2,0.0.0.5,0,0,0,0,0",
        "DROP,ROUTE,,,0.0.0.3,0.0.0.6,0,0,0,0,0",
    ]


def test_packets_beside_their_results_can_be_read_back(full: PacketBatch, tmp_path: Path) -> None:
    result().to_parquet(tmp_path / "r.parquet", full)
    result().to_csv(tmp_path / "r.csv", full)
    names = result().to_arrow(full).column_names
    assert "given_oif" in names and names.count("oif") == 1 and names.index("verdict") > names.index("gid")
    assert PacketBatch.read_parquet(tmp_path / "r.parquet").equals(full)
    assert PacketBatch.read_csv(tmp_path / "r.csv").equals(full)
    with pytest.raises(PacketError, match="cannot stand beside"):
        result(2).to_arrow(full)
