"""Whatever packets are, every form of them reads back as the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.errors import PacketError
from fastpath.packets import Packet, PacketBatch
from fastpath.packets.packet import COLUMNS
from fastpath.packets.schema import PACKET_COLUMNS
from fastpath.packets.text import (
    format_address,
    format_addresses,
    join_strings,
    limit,
    parse_address,
    parse_addresses,
)

NAMES = st.sampled_from(["eth0", "docker0", "local", "br-0123456789ab", "a,b", 'c"d', "x y"])


def rows(family: int) -> st.SearchStrategy[dict[str, object]]:
    required: dict[str, st.SearchStrategy[object]] = {}
    optional: dict[str, st.SearchStrategy[object]] = {}
    for column in PACKET_COLUMNS:
        named = column.kind == "interface"
        values: st.SearchStrategy[object] = NAMES if named else st.integers(0, limit(column, family))
        (required if column.default is None else optional)[column.name] = values
    return st.fixed_dictionaries(required, optional=optional)


def batches(family: int = 4) -> st.SearchStrategy[PacketBatch]:
    return st.lists(rows(family), min_size=1, max_size=8).map(lambda found: PacketBatch.from_dicts(found, family))


@settings(deadline=None)
@given(st.lists(st.integers(0, 0xFFFFFFFF)))
def test_addresses_round_trip_in_bulk(values: list[int]) -> None:
    data, offsets = format_addresses(np.array(values, np.uint32))
    assert parse_addresses(data, offsets).tolist() == values


@given(st.integers(0, (1 << 128) - 1))
def test_ipv6_addresses_round_trip(value: int) -> None:
    assert parse_address(format_address(value, 6), 6) == value


@settings(deadline=None)
@given(st.lists(st.one_of(st.text("0123456789.", max_size=16), st.ip_addresses(v=4).map(str)), min_size=1, max_size=5))
def test_bulk_reading_agrees_with_reading_one_by_one(texts: list[str]) -> None:
    try:
        expected = [parse_address(t) for t in texts]
    except PacketError:
        expected = []
    try:
        found = parse_addresses(*join_strings(texts)).tolist()
    except PacketError:
        found = []
    assert found == expected


@settings(deadline=None)
@given(st.sampled_from([4, 6]).flatmap(batches))
def test_batches_round_trip_through_every_form(batch: PacketBatch) -> None:
    family = batch.family
    assert PacketBatch.from_arrow(batch.to_arrow(), family).equals(batch)
    assert PacketBatch.from_packets(list(batch)).equals(batch)
    assert PacketBatch.from_dicts([p.as_dict() for p in batch], family).equals(batch)
    assert [Packet.make(family=family, **p.as_dict()) for p in batch] == list(batch)
    with tempfile.TemporaryDirectory() as folder:
        for name, write, read in (("p.csv", batch.write_csv, PacketBatch.read_csv),
                                  ("p.parquet", batch.write_parquet, PacketBatch.read_parquet)):
            write(Path(folder) / name)
            assert read(Path(folder) / name, family).equals(batch)


@settings(deadline=None)
@given(batches(), st.data())
def test_parts_are_what_rows_are(batch: PacketBatch, data: st.DataObject) -> None:
    n = len(batch)
    packets = list(batch)
    picked = data.draw(st.lists(st.integers(-n, n - 1), max_size=10))
    assert list(batch.take(picked)) == [packets[i] for i in picked]
    part = data.draw(st.slices(n))
    assert list(batch[part]) == packets[part]
    cut = data.draw(st.integers(0, n))
    assert list(PacketBatch.concat([batch[:cut], batch[cut:]])) == packets


@settings(deadline=None)
@given(st.dictionaries(
    st.one_of(st.sampled_from([*COLUMNS]), st.text(max_size=8)),
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=6), st.lists(
        st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=6), st.booleans()), max_size=3))))
def test_bad_columns_give_packet_errors_and_no_others(columns: dict[str, object]) -> None:
    base: dict[str, object] = {"iif": "eth0", "src": 1, "dst": 2, "proto": 6}
    try:
        batch = PacketBatch.from_columns(base | columns, n=2)
    except PacketError:
        return
    assert len(batch) == 2 and PacketBatch.from_packets(list(batch)).equals(batch)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bad_files_give_packet_errors_and_no_others(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.csv"
        for prefix in (b"", b"iif,src,dst,proto\n"):
            path.write_bytes(prefix + content)
            try:
                PacketBatch.read_csv(path)
            except PacketError:
                pass
