"""How packet values are written as text, and how to read them back: one value at a time, and addresses in bulk.

The single-value functions take what a person may write (``tcp``, ``SYN,ACK``, ``0x10``, ``198.51.100.7``);
the bulk ones take and give the flat byte buffers that string columns consist of, because ten million addresses
cannot go through Python one by one.

Invariant: ``parse_address(format_address(a, f), f) == a`` for every address `a` of family `f`. Safe direction of
error: refuse. A dotted quad with leading zeros, for example, is refused: programs disagree on whether it is octal.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.errors import PacketError
from fastpath.packets.schema import Column, State
from fastpath.ruleset.names import PROTOCOL_NUMBERS

Array = npt.NDArray[Any]

PROTOCOLS: dict[str, int] = {name: number for name, number in PROTOCOL_NUMBERS.items() if name not in ("all", "ip")}
"""Protocol names that a packet's ``proto`` may be given as, with their numbers."""

PORT_PROTOCOLS = frozenset({6, 17, 33, 132, 136})
"""Protocols whose header starts with two ports: TCP, UDP, DCCP, SCTP, UDP-Lite."""

TCP_FLAGS: dict[str, int] = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128}
"""Bits of the TCP header's flags byte (RFC 9293)."""

PKTTYPES = ("unicast", "broadcast", "multicast")
"""Words of the ``pkttype`` column by code."""

LIMITS: dict[str, int] = {"frag": 2, "state": max(State), "ctdir": 2, "pkttype": 2, "mac_src": (1 << 48) - 1}
"""Largest value of the columns that are narrower than their dtype."""

_MAC = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")
_QUAD = re.compile(r"(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})", re.ASCII)
_NUMBER = re.compile(r"\d+|0[xX][0-9a-fA-F]+", re.ASCII)


def is_ip_address(column: Column) -> bool:
    """Whether a column holds IP addresses (the source MAC address is a plain number)."""
    return column.kind == "address" and column.name != "mac_src"


def limit(column: Column, family: int) -> int:
    """The largest value that a column takes."""
    if is_ip_address(column):
        return (1 << 32) - 1 if family == 4 else (1 << 128) - 1
    if column.kind == "interface":
        return (1 << 15) - 1
    found = LIMITS.get(column.name)
    return found if found is not None else int(np.iinfo(column.dtype).max)


# ------------------------------------------------------------------------------------------------ one value


def parse_address(text: str, family: int = 4) -> int:
    """An IP address written as ``198.51.100.7``, ``2001:db8::7`` or a decimal number.

    Raises:
        PacketError: it is not an address of that family.
    """
    word = text.strip()
    if _NUMBER.fullmatch(word):
        value = int(word, 0) if word[:2] in ("0x", "0X") else int(word)
        if value < 1 << (32 if family == 4 else 128):
            return value
    elif family == 4:
        match = _QUAD.fullmatch(word)
        if match:
            a, b, c, d = (int(x) for x in match.groups())
            if max(a, b, c, d) <= 255:
                return a << 24 | b << 16 | c << 8 | d
    else:
        try:
            return int.from_bytes(socket.inet_pton(socket.AF_INET6, word), "big")
        except (OSError, ValueError):
            pass
    right = "198.51.100.7" if family == 4 else "2001:db8::7"
    raise PacketError(f"{text!r} is not an IPv{family} address such as {right}")


def format_address(value: int, family: int = 4) -> str:
    """An IP address as text: a dotted quad, or the shortest form of an IPv6 address (RFC 5952)."""
    if family == 4:
        return f"{value >> 24 & 255}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"
    return socket.inet_ntop(socket.AF_INET6, value.to_bytes(16, "big"))


def parse_flags(text: str) -> int:
    """TCP flags written as ``SYN,ACK``, ``NONE`` or ``ALL`` (the six that iptables calls ALL).

    Raises:
        PacketError: a word that is no flag.
    """
    value = 0
    for word in re.split(r"[,|]", text.strip().upper()):
        if word == "ALL":
            value |= 63
        elif word in TCP_FLAGS:
            value |= TCP_FLAGS[word]
        elif word not in ("", "NONE"):
            raise PacketError(f"{word!r} is not a TCP flag; the flags are {', '.join(TCP_FLAGS)}")
    return value


def format_flags(value: int) -> str:
    """TCP flags as ``SYN,ACK``; ``NONE`` where no bit is set."""
    return ",".join(name for name, bit in TCP_FLAGS.items() if value & bit) or "NONE"


def parse_value(column: Column, text: str, family: int = 4) -> int:
    """The value of one non-interface column from text; range is not checked here.

    Raises:
        PacketError: the text is not such a value.
    """
    if is_ip_address(column):
        return parse_address(text, family)
    word = text.strip()
    if _NUMBER.fullmatch(word):
        return int(word, 16) if word[:2] in ("0x", "0X") else int(word)
    lower = word.lower()
    if column.name == "proto":
        if lower in PROTOCOLS:
            return PROTOCOLS[lower]
        raise PacketError(f"{text!r} is not a protocol; give a number, or a name such as tcp, udp or icmp")
    if column.name == "tcp_flags":
        return parse_flags(word)
    if column.name == "state":
        for state in State:
            if lower == state.name.lower():
                return int(state)
        raise PacketError(f"{text!r} is not a state; the states are {', '.join(s.name.lower() for s in State)}")
    if column.name == "pkttype" and lower in PKTTYPES:
        return PKTTYPES.index(lower)
    if column.name == "mac_src" and _MAC.fullmatch(word):
        return int("".join(part.zfill(2) for part in word.split(":")), 16)
    raise PacketError(f"{text!r} is not a number")


# ------------------------------------------------------------------------------------------------ addresses in bulk


def words_of(value: int) -> Array:
    """A 128-bit address as four 32-bit words, most significant first."""
    return np.array([value >> shift & 0xFFFFFFFF for shift in (96, 64, 32, 0)], np.uint32)


def address_at(values: Array, row: int) -> int:
    """The address in a row of an address column of either family."""
    if values.ndim == 1:
        return int(values[row])
    a, b, c, d = (int(x) for x in values[row])
    return a << 96 | b << 64 | c << 32 | d


def join_strings(texts: Sequence[str]) -> tuple[Array, Array]:
    """Strings as one byte buffer (uint8) and ``len(texts) + 1`` offsets (int64)."""
    encoded = [t.encode() for t in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


_STEP = 1 << 16


def parse_addresses(data: Array, offsets: Array, family: int = 4) -> Array:
    """A column of address texts.

    Args:
        data: all texts one behind the other, uint8.
        offsets: row i is ``data[offsets[i]:offsets[i + 1]]``; one more than there are rows.
        family: 4 gives uint32 (n,), 6 gives uint32 (n, 4).

    Raises:
        PacketError: a row that is not an address; the message names the row.
    """
    n = len(offsets) - 1
    out = np.zeros(n if family == 4 else (n, 4), np.uint32)
    for a in range(0, n, _STEP):
        part = offsets[a:a + _STEP + 1].astype(np.int64)
        chunk = data[int(part[0]):int(part[-1])]
        part -= part[0]
        quads = _quads(chunk, part) if family == 4 else None
        if quads is not None:
            out[a:a + len(quads)] = quads
            continue
        raw = chunk.tobytes()
        for i in range(len(part) - 1):
            text = raw[part[i]:part[i + 1]].decode(errors="replace")
            try:
                value = parse_address(text, family)
            except PacketError as error:
                raise PacketError(f"row {a + i}: {error}") from None
            out[a + i] = value if family == 4 else words_of(value)
    return out


def _quads(data: Array, offsets: Array) -> Array | None:
    """Dotted quads as uint32, or None where any row is anything else."""
    rows = len(offsets) - 1
    is_dot = data == ord(".")
    digit = data - np.uint8(ord("0"))
    dots = np.flatnonzero(is_dot)
    if len(dots) != 3 * rows or not np.all((digit <= 9) | is_dot):
        return None
    bounds = np.empty((rows, 5), np.int64)  # one before each number, and the row's end
    bounds[:, 0] = offsets[:-1] - 1
    bounds[:, 1:4] = dots.reshape(rows, 3)
    bounds[:, 4] = offsets[1:]
    length = np.diff(bounds, axis=1) - 1
    if rows and (length.min() < 1 or length.max() > 3):
        return None
    end = bounds[:, 1:]
    number = digit[end - 1].astype(np.uint32)
    number += np.where(length > 1, digit[end - 2], 0).astype(np.uint32) * 10
    number += np.where(length > 2, digit[end - 3], 0).astype(np.uint32) * 100
    if np.any(number > 255) or np.any((length > 1) & (number < np.array([0, 0, 10, 100])[length])):
        return None
    return number[:, 0] << 24 | number[:, 1] << 16 | number[:, 2] << 8 | number[:, 3]


def _octet_cells() -> Array:
    cells = np.zeros((256, 4), np.uint8)
    for i in range(256):
        word = f"{i}.".encode()
        cells[i, :len(word)] = list(word)
    return cells


_CELLS = _octet_cells()
_CELL_LENGTHS = (_CELLS != 0).sum(axis=1).astype(np.int64)


def format_addresses(values: Array) -> tuple[Array, Array]:
    """A column of addresses as text: one byte buffer (uint8) and n + 1 offsets (int64).

    Args:
        values: uint32 of shape (n,) or (n, 4).
    """
    n = len(values)
    if values.ndim == 2:
        return join_strings([format_address(address_at(values, i), 6) for i in range(n)])
    offsets = np.zeros(n + 1, np.int64)
    parts = []
    total = 0
    for a in range(0, n, _STEP):
        octets = np.ascontiguousarray(values[a:a + _STEP]).astype(">u4").view(np.uint8).reshape(-1, 4)
        cells = _CELLS[octets]
        cells[:, 3][cells[:, 3] == ord(".")] = 0
        flat = cells.reshape(-1)
        parts.append(flat[flat != 0])
        ends = offsets[a + 1:a + 1 + len(octets)]
        np.cumsum(_CELL_LENGTHS[octets].sum(axis=1) - 1, out=ends)
        ends += total
        total = int(ends[-1])
    return np.concatenate(parts) if parts else np.zeros(0, np.uint8), offsets
