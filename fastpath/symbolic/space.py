"""Header space: which bits of a packet sets of packets speak of.

Every packet column (``packets.schema``) has bits of its own, in one order (``ORDER``), each column's bits together
(those of the two marks take turns) and the highest first. Interfaces are the ids of one table of names over all hosts
of the space; a name that no host mentions falls under its longest wildcard, or under "any other". Callers' boolean
columns follow, one bit each, and behind them the choices of undecided rules (see ``walk.py``), which no set of packets
ever depends on.

A space is made for hosts that bring their routes (routing decides), or, where one of them does not, for packets that
bring their egress interface: the column ``oif`` then counts among the header's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastpath.compiler.fields import Values
from fastpath.compiler.flow import interface_names
from fastpath.compiler.interfaces import InterfaceTable
from fastpath.errors import CompileError, PacketError
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.packet import Packet
from fastpath.symbolic.bdd import Store

if TYPE_CHECKING:
    from fastpath.symbolic.regions import Region

ORDER: tuple[tuple[str, int], ...] = (
    ("oif", 16), ("proto", 8), ("dport", 16), ("src", 32), ("iif", 16), ("dst", 32), ("state", 3), ("sport", 16),
    ("frag", 2), ("tcp_flags", 8), ("icmp_type", 8), ("icmp_code", 8), ("pkttype", 2), ("ttl", 8), ("tos", 8),
    ("length", 16), ("mark", 32), ("connmark", 32), ("ctdir", 2), ("ctstatus", 16), ("ctorigdst", 32),
    ("ctorigdstport", 16), ("mac_src", 48), ("uid", 32), ("gid", 32),
)
"""The packet columns with their numbers of bits, in the order of the variables; interfaces take what they need."""

LARGEST: dict[str, int] = {"state": 6, "frag": 2, "pkttype": 2, "ctdir": 2}
"""The largest value of columns whose bits could hold more."""

MIXED = ("mark", "connmark")
"""Columns whose bits take turns: rules copy the one to the other, and tests of such copies compare them bit by bit."""

ALWAYS = ("iif", "state", "proto", "dst", "dport", "src", "sport")
"""Columns that count as looked at, whatever the hosts' rules."""

MOST_EXTRAS = 64


@dataclass(frozen=True)
class Place:
    """Where a column's bits are: their variables, in ascending order, the highest bit first."""

    variables: tuple[int, ...]

    @property
    def bits(self) -> int:
        """How many there are."""
        return len(self.variables)


class HeaderSpace:
    """The space that the hosts given to :meth:`of` share.

    Attributes:
        hosts: they.
        interfaces: names by id.
        given_oif: the packets bring their egress interface.
        store: the diagrams of all sets of this space.
        places: where each column's bits are.
        columns: the columns that some host can look at, in the order of the variables.
    """

    def __init__(self, hosts: tuple[Host, ...], given_oif: bool) -> None:
        if any(h.ruleset.family != 4 for h in hosts):
            raise CompileError("sets of packets exist for IPv4 only: IPv6 rulesets can be read and printed")
        self.hosts = hosts
        self.given_oif = given_oif
        names: list[str] = []
        patterns: list[str] = []
        for host in hosts:
            for found, more in zip((names, patterns), interface_names(host), strict=True):
                found += more
        self.interfaces = InterfaceTable.build(names, patterns)
        self.store = Store()
        self.places: dict[str, Place] = {}
        at = 0
        for name, bits in ORDER:
            if name == "oif" and not given_oif:
                continue
            size = (len(self.interfaces.names) - 1).bit_length() if name in ("iif", "oif") else bits
            if name in MIXED:
                if name == MIXED[0]:
                    for i, mixed in enumerate(MIXED):
                        self.places[mixed] = Place(tuple(range(at + i, at + len(MIXED) * size, len(MIXED))))
                    at += len(MIXED) * size
                continue
            self.places[name] = Place(tuple(range(at, at + size)))
            at += size
        self._extra_start = at
        self.choice_start = at + MOST_EXTRAS
        self._bits: dict[str, tuple[int, ...]] = {}
        self._looked: set[str] = set(ALWAYS) | ({"oif"} if given_oif else set())
        limits = [self.values_of(c, Values(((0, top),))) for c, top in LARGEST.items()]
        last = len(self.interfaces.names) - 1
        limits += [self.values_of(c, Values(((1, last),))) for c in ("iif", "oif") if c in self.places]
        self.domain = self.store.all_of(limits)

    @classmethod
    def of(cls, *hosts: Host, given_oif: bool | None = None) -> HeaderSpace:
        """The space of packets for some hosts.

        Args:
            hosts: they; one or more.
            given_oif: the packets bring their egress interface; by default where the routes of some host are not known.

        Raises:
            CompileError: an IPv6 ruleset.
        """
        return cls(tuple(hosts), any(not h.complete for h in hosts) if given_oif is None else given_oif)

    # ------------------------------------------------------------------------------------------------- columns

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that some host can look at, as far as hosts have been followed."""
        return tuple(c for c in self.places if c in self._looked)

    def look_at(self, columns: Iterable[str]) -> None:
        """Notes that a host looks at columns."""
        self._looked.update(c for c in columns if c in self.places)

    def bits_of(self, column: str) -> tuple[int, ...]:
        """The functions of a column's bits, the highest first; of a caller's boolean column for ``extra:NAME``."""
        found = self._bits.get(column)
        if found is None:
            if column not in self.places and column.startswith("extra:"):
                used = sum(c.startswith("extra:") for c in self.places)
                if used == MOST_EXTRAS:
                    raise CompileError(f"assumptions name more than {MOST_EXTRAS} columns")
                self.places[column] = Place((self._extra_start + used,))
                self._looked.add(column)
            found = self._bits[column] = tuple(self.store.variable(v) for v in self.places[column].variables)
        return found

    def values_of(self, column: str, values: Values) -> int:
        """The diagram of the headers in whose column stands one of the values."""
        if column not in self.places and not column.startswith("extra:"):
            raise PacketError(f"sets of packets know no column {column!r} here; they know {', '.join(self.places)}")
        return self.store.within(self.bits_of(column), values.intervals)

    def interface_id(self, name: str) -> int:
        """The id that an interface's name has in this space."""
        return self.interfaces.id(name)

    def interface_name(self, number: int) -> str:
        """A name that has this id: the interface's own, or for wildcards and the rest one that falls under it."""
        name = self.interfaces.names[number]
        if "\0" not in name:
            return name
        prefix = name[:-1]
        for word in ("0", "x", "other0", *(f"x{i}" for i in range(10_000))):
            if self.interfaces.id(prefix + word) == number:
                return prefix + word
        raise CompileError(f"every interface name under {prefix}+ has a meaning of its own")

    # ---------------------------------------------------------------------------------------------------- sets

    def set_of(self, diagram: int) -> PacketSet:
        """The set of the headers for which a diagram holds."""
        return PacketSet(self, self.store.both(diagram, self.domain))

    @property
    def everything(self) -> PacketSet:
        """All headers."""
        return PacketSet(self, self.domain)

    @property
    def nothing(self) -> PacketSet:
        """No header."""
        return PacketSet(self, 0)

    def test(self, column: str, values: Values) -> PacketSet:
        """The headers in whose column stands one of the values (interfaces: :meth:`interface_id`).

        Raises:
            PacketError: no such column in this space.
        """
        return self.set_of(self.values_of(column, values))

    def table_of(self, packets: PacketBatch, columns: Iterable[str]) -> npt.NDArray[np.uint64]:
        """Columns of packets as the diagrams read them; uint64 of shape (columns, n)."""
        rows = []
        for name in columns:
            if name.startswith("extra:"):
                found = packets.extra.get(name[6:])
                if found is None:
                    raise PacketError(f"the packets lack the boolean column {name[6:]!r} that an assumption names")
                rows.append(found.astype(np.uint64))
                continue
            column = packets.column(name)
            if name in ("iif", "oif"):
                ids = np.array([*(self.interfaces.id(i) for i in packets.interfaces), 0], np.uint64)
                column = ids[column]
            rows.append(column.astype(np.uint64))
        return np.array(rows, np.uint64).reshape(len(rows), len(packets))


class PacketSet:
    """A set of headers: exact, and equal to another of its space if and only if it holds the same headers.

    Sets are made by :meth:`HeaderSpace.test` and by ``&``, ``|``, ``-`` and ``~``; a set is true where it is not empty.
    """

    __slots__ = ("diagram", "space")

    def __init__(self, space: HeaderSpace, diagram: int) -> None:
        self.space = space
        self.diagram = diagram

    def _other(self, other: PacketSet) -> int:
        if other.space is not self.space:
            raise CompileError("sets of two header spaces cannot be compared: make one space for all hosts")
        return other.diagram

    def __and__(self, other: PacketSet) -> PacketSet:
        return PacketSet(self.space, self.space.store.both(self.diagram, self._other(other)))

    def __or__(self, other: PacketSet) -> PacketSet:
        return PacketSet(self.space, self.space.store.either(self.diagram, self._other(other)))

    def __sub__(self, other: PacketSet) -> PacketSet:
        return PacketSet(self.space, self.space.store.without(self.diagram, self._other(other)))

    def __invert__(self) -> PacketSet:
        return PacketSet(self.space, self.space.store.without(self.space.domain, self.diagram))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PacketSet) and other.space is self.space and other.diagram == self.diagram

    def __hash__(self) -> int:
        return hash((id(self.space), self.diagram))

    def __bool__(self) -> bool:
        return self.diagram != 0

    def __le__(self, other: PacketSet) -> bool:
        return not self - other

    def __repr__(self) -> str:
        return f"PacketSet({self.count()} headers)"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that decide whether a header is in the set."""
        support = self.space.store.support(self.diagram)
        return tuple(name for name, p in self.space.places.items() if not support.isdisjoint(p.variables))

    def count(self) -> int:
        """How many headers it holds, over the columns that the space's hosts can look at and those it asks for."""
        space = self.space
        counted = {*space.columns, *self.columns}
        others = [space.values_of(c, Values.single(0)) for c in space.places if c not in counted]
        total = sum(p.bits for p in space.places.values())
        return space.store.count(space.store.all_of([self.diagram, *others]), total)

    def contains(self, packets: PacketBatch) -> npt.NDArray[np.bool_]:
        """Which of the packets are in the set: bool of shape (n,).

        Raises:
            PacketError: packets of IPv6, or without a boolean column that is asked for.
        """
        space = self.space
        n = len(packets)
        if n and packets.family != 4:
            raise PacketError("sets of packets exist for IPv4 only")
        columns = self.columns
        places = np.zeros((space.choice_start, 2), np.int64)
        for i, name in enumerate(columns):
            place = space.places[name]
            for k, variable in enumerate(place.variables):
                places[variable] = i, place.bits - 1 - k
        out = np.zeros(n, bool)
        step = 1 << 18
        for start in range(0, n, step):
            part = packets if n <= step else packets[start:start + step]
            table = space.table_of(part, columns)
            out[start:start + step] = space.store.contains(self.diagram, table, places)
        return out

    def witness(self) -> Packet:
        """A packet of the set, as ordinary as possible.

        Raises:
            PacketError: the set is empty.
        """
        from fastpath.symbolic.witness import witness

        return witness(self)

    def regions(self) -> tuple[Region, ...]:
        """The set as few disjoint regions, each a set of values for each column."""
        from fastpath.symbolic.regions import regions

        return regions(self)
