"""Packet values as text, one at a time and in bulk."""

from __future__ import annotations

import numpy as np
import pytest

from fastpath.errors import PacketError
from fastpath.packets.packet import COLUMNS
from fastpath.packets.text import (
    format_address,
    format_addresses,
    format_flags,
    join_strings,
    parse_address,
    parse_addresses,
    parse_flags,
    parse_value,
)


@pytest.mark.parametrize(("text", "value"), [
    ("0.0.0.0", 0), ("255.255.255.255", 0xFFFFFFFF), ("198.51.100.7", 0xC6336407), (" 10.0.0.1 ", 0x0A000001),
    ("167772161", 0x0A000001), ("0x0a000001", 0x0A000001),
])
def test_ipv4_addresses_are_read(text: str, value: int) -> None:
    assert parse_address(text) == value


@pytest.mark.parametrize("text", [
    "", "1.2.3", "1.2.3.4.5", "256.0.0.1", "1.2.3.04", "1..2.3", "a.b.c.d", "4294967296", "-1", "1.2.3.4/32", "::1",
    "１.2.3.4",
])
def test_what_is_no_ipv4_address_is_refused(text: str) -> None:
    with pytest.raises(PacketError, match="is not an IPv4 address"):
        parse_address(text)


def test_ipv6_addresses() -> None:
    value = 0x20010DB8 << 96 | 7
    assert parse_address("2001:db8::7", 6) == value
    assert parse_address("2001:0DB8:0:0:0:0:0:7", 6) == value
    assert format_address(value, 6) == "2001:db8::7"
    with pytest.raises(PacketError, match="is not an IPv6 address"):
        parse_address("2001:db8::7::1", 6)


@pytest.mark.parametrize("bad", [
    "1.2.3", "1.2.3.256", "1.2.3.4.5", "1.2.3.x", "", "01.2.3.4", "1.2.3.4 5", "1234.1.1.1",
])
def test_bulk_reading_names_the_row_of_a_bad_address(bad: str) -> None:
    texts = ["10.0.0.1"] * 70_000
    texts[66_000] = bad
    with pytest.raises(PacketError, match="row 66000: "):
        parse_addresses(*join_strings(texts))


def test_bulk_reading_takes_what_single_reading_takes() -> None:
    texts = ["10.0.0.1", "167772162", " 10.0.0.3", "255.255.255.255"]
    assert parse_addresses(*join_strings(texts)).tolist() == [parse_address(t) for t in texts]


def test_bulk_reading_is_not_fooled_by_dots_of_the_neighbour() -> None:
    with pytest.raises(PacketError, match="row 0"):
        parse_addresses(*join_strings(["1.2.3", "4.5.6.7.8"]))


def test_bulk_writing_agrees_with_single_writing() -> None:
    values = np.array([0, 1, 0x0A000001, 0xC0A80AFF, 0xFFFFFFFF, 0x64646464] * 20_000, np.uint32)
    data, offsets = format_addresses(values)
    raw = data.tobytes().decode()
    texts = [raw[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
    assert texts == [format_address(v) for v in values.tolist()]


def test_no_addresses_at_all() -> None:
    data, offsets = format_addresses(np.zeros(0, np.uint32))
    assert len(data) == 0 and offsets.tolist() == [0]
    assert parse_addresses(data, offsets).shape == (0,)
    assert parse_addresses(data, offsets, 6).shape == (0, 4)


def test_flags() -> None:
    assert parse_flags("SYN,ACK") == 18
    assert parse_flags("fin|urg") == 33
    assert parse_flags("NONE") == 0
    assert parse_flags("ALL") == 63
    assert format_flags(18) == "SYN,ACK"
    assert format_flags(0) == "NONE"
    with pytest.raises(PacketError, match="'SIN' is not a TCP flag"):
        parse_flags("SIN")


@pytest.mark.parametrize(("column", "text", "value"), [
    ("proto", "tcp", 6), ("proto", "UDP", 17), ("proto", "47", 47), ("proto", "icmp", 1), ("state", "reply", 3),
    ("state", "AUTO", 0), ("pkttype", "multicast", 2), ("mac_src", "02:00:0a:0b:0c:0d", 0x02000A0B0C0D),
    ("mark", "0x10", 16), ("tcp_flags", "2", 2), ("dport", "080", 80),
])
def test_values_of_columns(column: str, text: str, value: int) -> None:
    assert parse_value(COLUMNS[column], text) == value


@pytest.mark.parametrize(("column", "text", "message"), [
    ("proto", "tpc", "not a protocol"), ("proto", "all", "not a protocol"),
    ("state", "nwe", "the states are auto, new"),
    ("dport", "http", "not a number"), ("mark", "-1", "not a number"), ("mac_src", "02:00", "not a number"),
])
def test_bad_values_of_columns(column: str, text: str, message: str) -> None:
    with pytest.raises(PacketError, match=message):
        parse_value(COLUMNS[column], text)
