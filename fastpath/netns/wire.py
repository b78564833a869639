"""Packets as bytes: what goes into a device, and what comes back from a hook.

Only as much of each protocol as conntrack and the matches look at: a TCP header, a UDP header, an SCTP INIT chunk,
an ICMP query, or an ICMP error that quotes a UDP packet between ports 0. The rest, up to the wished length, is zeros.
Checksums are right unless a packet is to be INVALID.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

ICMP, TCP, UDP, DCCP, GRE, SCTP, UDPLITE = 1, 6, 17, 33, 47, 132, 136
WITH_PORTS = frozenset({TCP, UDP, DCCP, SCTP, UDPLITE})
"""Protocols whose header starts with a source and a destination port."""

TRACKED_BY_PORTS = WITH_PORTS - {DCCP}
"""Those whose ports conntrack looks at; its DCCP tracker has left the kernel with Linux 6.16."""

ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})
"""ICMP types that quote the packet they answer, as conntrack reads them (nf_conntrack_proto_icmp.c)."""

ICMP_ANSWERS = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17}
"""ICMP queries and their replies, both ways: the types that conntrack can track."""

SHORTEST = {TCP: 40, UDP: 28, UDPLITE: 28, ICMP: 28, DCCP: 32, SCTP: 52, GRE: 28}
"""Bytes that a packet of a protocol needs for its headers; any other needs 20."""

QUOTING = 56
"""Bytes that an ICMP error with its quoted packet needs."""

ICMP_QUESTIONS = (8, 13, 15, 17)
"""The queries among them: only these go in a flow's original direction, and only their replies in the other."""

LONGEST = 65521
"""Bytes of the largest packet: the largest MTU of a TAP device."""

HEAD = 28
"""Bytes of a packet that a hook reports: the IP header and the 8 bytes behind it."""

_IP = struct.Struct(">BBHHHBBHII")
_TCP = struct.Struct(">HHIIBBHHH")
_PSEUDO = struct.Struct(">IIHH")
_PORTS = struct.Struct(">HH")
_FRAGMENT_OFFSET = {0: 0, 1: 0x2000, 2: 185}
_SCTP_INIT = struct.Struct(">BBHIIHHI")


@dataclass(frozen=True, slots=True)
class Head:
    """The part of a packet's header that NAT may rewrite; ``None`` ports are not in the header. TTL in hops."""

    src: int
    dst: int
    sport: int | None
    dport: int | None
    ttl: int


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): a big-endian number modulo 65535 is its one's complement sum of words."""
    return 0xFFFF - int.from_bytes(data + b"\0" * (len(data) & 1)) % 0xFFFF


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C = _crc32c_table()


def crc32c(data: bytes) -> int:
    """The checksum of SCTP (RFC 9260, appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC32C[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


FIELDS = (
    "src", "dst", "proto", "sport", "dport", "tcp_flags", "icmp_type", "icmp_code", "frag", "ttl", "tos", "length",
)
"""Packet columns that are in the packet itself."""


def build(fields: Sequence[int], ident: int, broken: bool) -> bytes:
    """An IPv4 packet of exactly the wished length, which must be at least what SHORTEST says.

    Args:
        fields: values of FIELDS, in that order.
        ident: the IP identification field, 1 to 65535.
        broken: whether the transport checksum is to be wrong.
    """
    src, dst, proto, sport, dport, flags, icmp_type, icmp_code, frag, ttl, tos, length = fields
    size = length - 20
    twist = 0x5555 if broken else 0
    if frag == 2 or proto not in SHORTEST:
        body = b""
    elif proto == TCP:
        start = _TCP.pack(sport, dport, 1000, 1 if flags & 16 else 0, 0x50, flags, 0xFFFF, 0, 0)
        body = start[:16] + (checksum(_PSEUDO.pack(src, dst, TCP, size) + start) ^ twist).to_bytes(2) + b"\0\0"
    elif proto in (UDP, UDPLITE):
        start = struct.pack(">HHH", sport, dport, size if proto == UDP else 0)
        # of UDP-Lite conntrack sums up a pseudo header of UDP with the length's low byte alone, and calls what is right
        # by RFC 3828 INVALID (udplite_error() and nf_ip_checksum_partial()); these sums are what it takes for right
        sum_ = checksum(_PSEUDO.pack(src, dst, UDP, size if proto == UDP else size & 0xFF) + start) ^ twist
        body = start + (sum_ or 1).to_bytes(2)  # 0 would mean: not summed
    elif proto == ICMP:
        if icmp_type in ICMP_ERRORS and length >= QUOTING:
            rest = bytes(4) + _ip(dst, src, UDP, 36, 7, 0, 60, 0) + struct.pack(">HHHH", 0, 0, 16, 0)
        else:
            rest = struct.pack(">HH", sport, 1)
        start = struct.pack(">BBH", icmp_type, icmp_code, 0) + rest
        body = start[:2] + (checksum(start) ^ twist).to_bytes(2) + start[4:]
    elif proto == SCTP:
        chunk = _SCTP_INIT.pack(1, 0, size - 12, 0x01020304, 0xFFFF, 1, 1, 1)  # chunks must fill the packet
        start = (_PORTS.pack(sport, dport) + bytes(8) + chunk).ljust(size, b"\0")
        body = start[:8] + (crc32c(start) ^ twist).to_bytes(4, "little") + start[12:]
    elif proto == DCCP:
        body = _PORTS.pack(sport, dport)
    else:  # a GRE header of zeros is a plain one
        body = b""
    return _ip(src, dst, proto, length, ident, _FRAGMENT_OFFSET[frag], ttl, tos) + body.ljust(size, b"\0")


def _ip(src: int, dst: int, proto: int, length: int, ident: int, fragment: int, ttl: int, tos: int) -> bytes:
    header = _IP.pack(0x45, tos, length, ident, fragment, ttl, proto, 0, src, dst)
    return header[:10] + checksum(header).to_bytes(2) + header[12:]


def read(packet: bytes) -> Head:
    """What a packet's first bytes say; for an ICMP query the source port is its id."""
    _, _, _, _, fragment, ttl, proto, _, src, dst = _IP.unpack_from(packet)
    sport: int | None = None
    dport: int | None = None
    if not fragment & 0x1FFF and len(packet) >= HEAD:
        if proto in WITH_PORTS:
            sport, dport = _PORTS.unpack_from(packet, 20)
        elif proto == ICMP and packet[20] in ICMP_ANSWERS:
            sport = _PORTS.unpack_from(packet, 24)[0]
    return Head(src, dst, sport, dport, ttl)
