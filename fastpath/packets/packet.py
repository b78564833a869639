"""One packet: a row of a :class:`~fastpath.packets.batch.PacketBatch`, with names for interfaces and states."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsIndex, cast

from fastpath.errors import PacketError
from fastpath.packets.schema import LOCAL, NO_ID, PACKET_COLUMNS, Column, State
from fastpath.packets.text import PORT_PROTOCOLS, format_address, format_flags, limit, parse_value
from fastpath.ruleset.names import PROTOCOLS

COLUMNS: dict[str, Column] = {c.name: c for c in PACKET_COLUMNS}
"""The packet columns by name."""


def column_of(name: str) -> Column:
    """The packet column called `name`.

    Raises:
        PacketError: there is none; the message proposes the nearest.
    """
    found = COLUMNS.get(name)
    if found is not None:
        return found
    near = difflib.get_close_matches(str(name), COLUMNS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(COLUMNS)}"
    raise PacketError(f"unknown packet column {name!r}; {hint}")


def read_value(column: Column, value: object, family: int = 4) -> int:
    """A single value of a non-interface column as its integer: a number, or text as files write it.

    Raises:
        PacketError: the wrong type, or out of the column's range; the message leaves naming the column to the caller.
    """
    if isinstance(value, str):
        number = parse_value(column, value, family)
    elif hasattr(value, "__index__"):
        number = cast(SupportsIndex, value).__index__()
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    else:
        raise PacketError(f"{value!r} is not a number")
    top = limit(column, family)
    if not 0 <= number <= top:
        raise PacketError(f"{number} is not in 0..{top}")
    return number


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet; the attributes are the packet columns (`fastpath.packets.schema.PACKET_COLUMNS` gives their units).

    ``iif`` and ``oif`` are interface names (``oif`` None: routing decides), addresses are integers of 32 or 128 bits,
    ``extra`` holds the row's values of the batch's boolean columns. :meth:`make` builds one from friendlier values.
    """

    iif: str
    src: int
    dst: int
    proto: int
    sport: int = 0
    dport: int = 0
    tcp_flags: int = 2
    icmp_type: int = 8
    icmp_code: int = 0
    frag: int = 0
    ttl: int = 64
    tos: int = 0
    length: int = 60
    mark: int = 0
    connmark: int = 0
    state: State = State.AUTO
    ctdir: int = 0
    ctstatus: int = 0
    ctorigdst: int = 0
    ctorigdstport: int = 0
    oif: str | None = None
    mac_src: int = 0
    pkttype: int = 0
    uid: int = NO_ID
    gid: int = NO_ID
    family: int = 4
    extra: Mapping[str, bool] = field(default_factory=dict, hash=False)

    @classmethod
    def make(cls, **values: Any) -> Packet:
        """A packet from values as files write them, or as numbers.

        Addresses may be text, ``proto`` a name, ``tcp_flags`` text such as ``"SYN,ACK"``, ``state`` a word. Columns
        with a default may be left out; ``family`` and ``extra`` may be given too.

        Raises:
            PacketError: an unknown column, a missing one, a wrong type or a value out of range.
        """
        family = values.pop("family", 4)
        if family not in (4, 6):
            raise PacketError(f"family {family!r} is neither 4 nor 6")
        row: dict[str, Any] = {"family": family, "extra": dict(values.pop("extra", {}))}
        for name, value in values.items():
            column = column_of(name)
            if value is None and column.default is not None:
                continue
            if column.kind != "interface":
                try:
                    row[name] = read_value(column, value, family)
                except PacketError as error:
                    raise PacketError(f"column {name}: {error}") from None
            elif isinstance(value, str) and value:
                row[name] = value
            else:
                raise PacketError(f"column {name}: {value!r} is not an interface name")
        for column in PACKET_COLUMNS:
            if column.default is None and column.name not in row:
                raise PacketError(f"column {column.name} is missing: {column.meaning}")
        if "state" in row:
            row["state"] = State(row["state"])
        return cls(**row)

    @property
    def is_local(self) -> bool:
        """Whether the host made the packet itself."""
        return self.iif == LOCAL

    @property
    def has_ports(self) -> bool:
        """Whether its protocol has ports and its header is there to read (a later fragment lacks it)."""
        return self.proto in PORT_PROTOCOLS and self.frag != 2

    def as_dict(self) -> dict[str, int | str]:
        """The columns that differ from their defaults, as files write them (text for addresses, interfaces, state)."""
        row: dict[str, int | str] = {}
        for column in PACKET_COLUMNS:
            value = getattr(self, column.name)
            if value is None or (column.default is not None and value == column.default):
                continue
            if column.kind == "interface":
                row[column.name] = value
            elif column.kind == "state":
                row[column.name] = State(value).name.lower()
            elif column.kind == "address" and column.name != "mac_src":
                row[column.name] = format_address(value, self.family)
            else:
                row[column.name] = int(value)
        return row

    def __str__(self) -> str:
        def end(address: int, port: int) -> str:
            text = format_address(address, self.family)
            if not self.has_ports:
                return text
            return f"{text}:{port}" if self.family == 4 else f"[{text}]:{port}"

        words = [f"in {self.iif}"]
        if self.oif is not None:
            words.append(f"out {self.oif}")
        words.append(f"{end(self.src, self.sport)} -> {end(self.dst, self.dport)}")
        words.append(PROTOCOLS.get(self.proto, f"proto {self.proto}"))
        if self.proto == 6:
            words.append(f"flags {format_flags(self.tcp_flags)}")
        elif self.proto in (1, 58):
            words.append(f"type {self.icmp_type} code {self.icmp_code}")
        shown = {"iif", "oif", "src", "dst", "proto", "sport", "dport", "tcp_flags", "icmp_type", "icmp_code"}
        words += [f"{name} {value}" for name, value in self.as_dict().items() if name not in shown]
        return " ".join(words)
