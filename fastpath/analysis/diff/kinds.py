"""Regions that are the same but for the network they are about.

A host with twenty bridges often differs from another in twenty regions of one shape: "from any bridge but X into X's
network". Such regions are one *kind* for people to read; the regions stay as they are, exact and disjoint.

A region is about the one interface through which its packets leave, else the one that it alone does not arrive on, else
that whose network all its destinations lie in, else all its sources, else the one it arrives on. Two regions are of one
kind if they have the same fates, and columns that are the same once each region's own interface and network are put
aside. Ports of published services may be each region's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from fastpath.analysis.diff.model import Difference
from fastpath.compiler.fields import Values
from fastpath.host.model import Host
from fastpath.packets.schema import Verdict
from fastpath.symbolic import HeaderSpace, Region
from fastpath.symbolic.text import SHOWN_ORDER, column_text, values_text

ADDRESSES = ("dst", "src")
PORTS = ("dport", "sport")


@dataclass(frozen=True)
class Inside:
    """Values within a region's own network, all of it or some."""

    whole: bool


@dataclass(frozen=True)
class Beside:
    """Values without a region's own network, or a part of that; with it they are these."""

    values: Values
    part: bool


@dataclass(frozen=True)
class Kind:
    """Regions of one shape.

    Attributes:
        differences: they, the largest first.
        networks: the interface that each is about; empty for a single region.
        columns: the shape: what each column holds, in words.
    """

    differences: tuple[Difference, ...]
    networks: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]

    @cached_property
    def headers(self) -> int:
        """How many headers the regions hold."""
        return sum(d.headers for d in self.differences)

    @property
    def packets(self) -> int | None:
        """How many of the given packets lie in them."""
        counts = [d.packets for d in self.differences]
        return None if None in counts else sum(c or 0 for c in counts)


class Networks:
    """The networks of two hosts' interfaces, as sets of addresses by interface id."""

    def __init__(self, space: HeaderSpace, hosts: Iterable[Host]) -> None:
        self.space = space
        found: dict[int, list[tuple[int, int]]] = {}
        for host in hosts:
            for interface in host.interfaces:
                for a in interface.addresses:
                    if a.family == 4 and a.prefixlen < 31 and interface.name != "lo":
                        size = 1 << 32 - a.prefixlen
                        first = a.address & -size
                        found.setdefault(space.interface_id(interface.name), []).append((first, first + size - 1))
        self.arriving: dict[tuple[Verdict, Verdict], frozenset[int]] = {}
        self.of: Mapping[int, Values] = {i: Values.of(spans) for i, spans in found.items()}

    def note(self, differences: Iterable[Difference]) -> None:
        """Notes the interfaces that regions with the same verdicts arrive on, all together."""
        for d in differences:
            values = d.region.values("iif")
            here = {i for i in self.of if values is None or i in values}
            self.arriving[_verdicts(d)] = self.arriving.get(_verdicts(d), frozenset()) | here

    def about(self, difference: Difference) -> int | None:
        """The interface that a region is about."""
        leaving = {name for side in (difference.before, difference.after) for name in side.egress}
        if len(leaving) == 1:
            only = self.space.interface_id(leaving.pop())
            if only in self.of:
                return only
        values = difference.region.values("iif")
        if values:
            left = [i for i in self.arriving.get(_verdicts(difference), frozenset()) if i not in values]
            if len(left) == 1 and len(self.of) > 2:
                return left[0]
        for column in ADDRESSES:
            values = difference.region.values(column)
            if values:
                for i, network in self.of.items():
                    if values.intersect(network) == values:
                        return i
        values = difference.region.values("iif")
        if values and len(values.intervals) == 1 and values.intervals[0][0] == values.intervals[0][1]:
            only = values.intervals[0][0]
            return only if only in self.of else None
        return None

    def shape(self, region: Region, own: int) -> dict[str, tuple[object, object]]:
        """Each column as it is, and as it is when the region's own interface and network are put aside (ports: when
        each region may have ports of its own)."""
        network = self.of[own]
        addresses = Values.of(i for n, net in self.of.items() if n != own for i in net)
        interfaces = Values.single(*(n for n in self.of if n != own))
        found: dict[str, tuple[object, object]] = {}
        for column, diagram in region.parts:
            values = region.values(column)
            relative: object = diagram
            if column in PORTS:
                relative = "its own"
            elif values is not None and column in ("iif", "oif", *ADDRESSES):
                name = column in ("iif", "oif")
                mine, others = (Values.single(own), interfaces) if name else (network, addresses)
                inside = values.intersect(mine)
                if inside == values:
                    relative = Inside(inside == mine)
                elif inside != mine and values.intersect(others):
                    relative = Beside(values.union(mine), bool(inside))
            found[column] = diagram, relative
        return found

    def words(self, difference: Difference, relative: frozenset[str]) -> tuple[tuple[str, str], ...]:
        """A shape in words."""
        region = difference.region
        own = self.about(difference)
        assert own is not None
        shape = self.shape(region, own)
        found = []
        for column in _ordered(region.columns):
            what = shape[column][1] if column in relative else None
            plain = column_text(region, column)
            name = "X" if column in ("iif", "oif") else "X's network"
            if column in PORTS and column in relative:
                plain = f"ports of its own, for the first {plain}"
            elif isinstance(what, Inside):
                plain = f"{name}" if what.whole or name == "X" else f"in {name}, for the first {plain}"
            elif isinstance(what, Beside):
                whole = values_text(self.space, column, what.values)
                plain = f"{whole} without {'part of ' if what.part else ''}{name}"
            found.append((column, plain))
        return tuple(found)


def _verdicts(difference: Difference) -> tuple[Verdict, Verdict]:
    return difference.before.verdict, difference.after.verdict


def _ordered(columns: Iterable[str]) -> list[str]:
    known = list(columns)
    return [c for c in SHOWN_ORDER if c in known] + [c for c in known if c not in SHOWN_ORDER]


def kinds(differences: Iterable[Difference], space: HeaderSpace, hosts: Iterable[Host]) -> tuple[Kind, ...]:
    """Regions by kind, the largest kind first."""
    differences = tuple(differences)
    networks = Networks(space, hosts)
    networks.note(differences)
    shapes: list[tuple[Difference, dict[str, tuple[object, object]] | None]] = []
    for difference in differences:
        own = networks.about(difference)
        shapes.append((difference, None if own is None else networks.shape(difference.region, own)))
    classes: dict[object, list[tuple[Difference, dict[str, tuple[object, object]] | None]]] = {}
    for difference, shape in shapes:
        alike: object = difference.region if shape is None else (*_verdicts(difference), tuple(shape))
        classes.setdefault(alike, []).append((difference, shape))
    found: list[Kind] = []
    for members in classes.values():
        grouped, relative = _fewest(members)
        found += (_kind(networks, group, relative) for group in grouped)
    return tuple(sorted(found, key=lambda k: (k.packets or 0, k.headers), reverse=True))


def _kind(networks: Networks, members: list[Difference], relative: frozenset[str]) -> Kind:
    region = members[0].region
    if len(members) == 1:
        return Kind(tuple(members), (), tuple((c, column_text(region, c)) for c in _ordered(region.columns)))
    names = [networks.space.interfaces.names[i] for d in members if (i := networks.about(d)) is not None]
    return Kind(tuple(members), tuple(dict.fromkeys(names)), networks.words(members[0], relative))


def _fewest(
    shapes: list[tuple[Difference, dict[str, tuple[object, object]] | None]]
) -> tuple[list[list[Difference]], frozenset[str]]:
    """The columns to take relative to what each region is about, so that the fewest kinds come out."""
    first = shapes[0][1]
    columns = [] if first is None or len(shapes) == 1 else [c for c in ("iif", *ADDRESSES, *PORTS) if c in first]
    choices = [frozenset(c) for n in range(len(columns) + 1) for c in combinations(columns, n)]
    return min(((_grouped(shapes, c), c) for c in choices), key=lambda g: (len(g[0]), len(g[1])))


def _grouped(
    shapes: Iterable[tuple[Difference, dict[str, tuple[object, object]] | None]], relative: frozenset[str]
) -> list[list[Difference]]:
    """Regions of equal shapes, where some columns are taken relative to what each region is about."""
    grouped: dict[object, list[Difference]] = {}
    for difference, shape in shapes:
        key: object = difference.region
        if shape is not None:
            forms = tuple((column, form[column in relative]) for column, form in shape.items())
            key = (*_verdicts(difference), forms)
        grouped.setdefault(key, []).append(difference)
    return list(grouped.values())
