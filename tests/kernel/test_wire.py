"""The packets that the judge sends, byte by byte; no kernel is asked."""

from __future__ import annotations

import struct

import pytest

from fastpath.netns import wire

SRC, DST = 0x0A000001, 0x0A000002


def fields(proto: int, **changes: int) -> list[int]:
    values = {"src": SRC, "dst": DST, "proto": proto, "sport": 1234, "dport": 80, "tcp_flags": 0x12, "icmp_type": 8,
              "icmp_code": 3, "frag": 0, "ttl": 61, "tos": 0x28, "length": 101} | changes
    return [values[name] for name in wire.FIELDS]


def ones_complement_sum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(packet: bytes) -> bytes:
    return packet[12:20] + bytes([0, packet[9]]) + (len(packet) - 20).to_bytes(2)


@pytest.mark.parametrize("length", [60, 61, 255, 1500, wire.LONGEST])
@pytest.mark.parametrize("proto", [wire.TCP, wire.UDP, wire.ICMP, wire.SCTP, wire.DCCP, 47, 50, 0])
def test_header(proto: int, length: int) -> None:
    packet = wire.build(fields(proto, length=length), 4711, False)
    assert len(packet) == length == int.from_bytes(packet[2:4])
    assert ones_complement_sum(packet[:20]) == 0xFFFF
    assert packet[:2] == bytes([0x45, 0x28])
    assert packet[4:6] == (4711).to_bytes(2)
    assert packet[8:10] == bytes([61, proto])
    head = wire.read(packet[:wire.HEAD])
    assert (head.src, head.dst, head.ttl) == (SRC, DST, 61)
    ports = (1234, 80) if proto in wire.WITH_PORTS else (1234, None) if proto == wire.ICMP else (None, None)
    assert (head.sport, head.dport) == ports


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("length", [60, 61, 300])
@pytest.mark.parametrize("proto", [wire.TCP, wire.UDP, wire.ICMP])
def test_checksum(proto: int, length: int, broken: bool) -> None:
    packet = wire.build(fields(proto, length=length), 1, broken)
    summed = packet[20:] if proto == wire.ICMP else pseudo(packet) + packet[20:]
    assert (ones_complement_sum(summed) == 0xFFFF) is not broken


def test_udp_always_has_a_checksum() -> None:
    for sport in range(65536):
        packet = wire.build(fields(wire.UDP, sport=sport), 1, True)
        assert packet[26:28] != b"\0\0"


def test_crc32c() -> None:
    """The check value of the catalogue of CRC algorithms, and the polynomial's property on an SCTP packet."""
    assert wire.crc32c(b"123456789") == 0xE3069283
    packet = wire.build(fields(wire.SCTP, length=100), 1, False)
    body = packet[20:28] + bytes(4) + packet[32:]
    assert int.from_bytes(packet[28:32], "little") == wire.crc32c(body)


def test_icmp_error_quotes_a_packet_back() -> None:
    packet = wire.build(fields(wire.ICMP, icmp_type=3, length=60), 1, False)
    quoted = packet[28:]
    assert ones_complement_sum(quoted[:20]) == 0xFFFF
    assert (int.from_bytes(quoted[12:16]), int.from_bytes(quoted[16:20])) == (DST, SRC)
    assert wire.read(packet[:wire.HEAD]).sport is None


@pytest.mark.parametrize(("frag", "field"), [(0, 0), (1, 0x2000), (2, 185)])
def test_fragments(frag: int, field: int) -> None:
    packet = wire.build(fields(wire.TCP, frag=frag), 1, False)
    assert int.from_bytes(packet[6:8]) == field
    assert wire.read(packet[:wire.HEAD]).dport == (None if frag == 2 else 80)
