"""A set of packets as few disjoint regions, for people to read.

A region is a product: for each column a set of values. A set falls into regions by taking one column after the other:
values of the column behind which the same set of the other columns lies belong together. How many regions come out
depends on which column is taken when, and it may be another one in each branch; all orders are tried while there is
budget for it. At last regions that differ in one column only are joined.

Values of a column are a diagram over the column's own bits, so a scattered mask is as small as a range.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from fastpath.compiler.fields import Values
from fastpath.packets.packet import Packet
from fastpath.symbolic.space import LARGEST, HeaderSpace, PacketSet

BUDGET = 100_000
"""Steps of work in which orders of columns are compared; then columns are taken in the order of the diagrams."""

MOST_INTERVALS = 4096
"""Intervals of one column's values; what needs more is described by masks."""


@dataclass(frozen=True)
class Region:
    """A product of values of columns.

    Attributes:
        space: the header space.
        parts: for each column that matters a diagram over its bits.
    """

    space: HeaderSpace
    parts: tuple[tuple[str, int], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it restricts."""
        return tuple(name for name, _ in self.parts)

    @cached_property
    def packets(self) -> PacketSet:
        """The set of its headers."""
        return self.space.set_of(self.space.store.all_of(d for _, d in self.parts))

    def values(self, column: str) -> Values | None:
        """The values of a column, None where it is not restricted, or only by a scattered mask (see :meth:`masks`)."""
        diagram = dict(self.parts).get(column)
        if diagram is None:
            return None
        return intervals(self.space, column, diagram)

    def masks(self, column: str) -> tuple[tuple[int, int], ...]:
        """The values of a column as disjoint pairs of (value, mask)."""
        diagram = dict(self.parts).get(column)
        return () if diagram is None else tuple(_cubes(self.space, column, diagram))

    def count(self) -> int:
        """How many headers it holds (see :meth:`PacketSet.count`)."""
        return self.packets.count()

    def witness(self) -> Packet:
        """A packet of it."""
        return self.packets.witness()

    def __str__(self) -> str:
        from fastpath.symbolic.text import region_text

        return region_text(self)


def intervals(space: HeaderSpace, column: str, diagram: int) -> Values | None:
    """The values that a diagram over a column's bits holds for, or None where they are too scattered."""
    place = space.places[column]
    nodes = space.store.nodes
    found: list[tuple[int, int]] = []
    pending = [(diagram, 0, 0)]
    while pending:
        here, depth, value = pending.pop()
        if here == 0:
            continue
        left = place.bits - depth
        if here == 1:
            found.append((value << left, (value << left) + (1 << left) - 1))
            if len(found) > MOST_INTERVALS:
                return None
            continue
        variable, low, high = nodes[here].tolist()
        if variable == place.variables[depth]:
            pending += [(low, depth + 1, value << 1), (high, depth + 1, value << 1 | 1)]
        else:
            pending += [(here, depth + 1, value << 1), (here, depth + 1, value << 1 | 1)]
        if len(pending) > MOST_INTERVALS:
            return None
    top = LARGEST.get(column)
    if column in ("iif", "oif"):
        top = len(space.interfaces.names) - 1
    values = Values.of(found)
    return values if top is None else values.intersect(Values(((0, top),)))


def _cubes(space: HeaderSpace, column: str, diagram: int) -> Iterator[tuple[int, int]]:
    place = {v: 1 << i for i, v in enumerate(reversed(space.places[column].variables))}
    nodes = space.store.nodes
    pending = [(diagram, 0, 0)]
    while pending:
        here, value, mask = pending.pop()
        if here == 1:
            yield value, mask
        elif here:
            variable, low, high = nodes[here].tolist()
            bit = place[variable]
            pending += [(high, value | bit, mask | bit), (low, value, mask | bit)]


class Splitter:
    """Takes sets apart by columns; what it has found out about parts of one set serves for the next.

    Attributes:
        budget: steps of work left for comparing orders of columns.
    """

    def __init__(self, space: HeaderSpace, budget: int = BUDGET) -> None:
        self.space = space
        self.store = space.store
        self.column_of: dict[int, str] = {}
        for name, place in space.places.items():
            self.column_of.update(dict.fromkeys(place.variables, name))
        self._parts: dict[tuple[int, str], dict[int, int]] = {}
        self._columns: dict[int, frozenset[str]] = {0: frozenset(), 1: frozenset()}
        self._best: dict[int, tuple[int, str]] = {}
        self.budget = budget

    def columns(self, f: int) -> frozenset[str]:
        """The columns that a set depends on."""
        found = self._columns.get(f)
        if found is None:
            rows = self.store.nodes
            for node in self.store.reachable(f).tolist():
                if node not in self._columns:
                    variable, low, high = rows[node].tolist()
                    self._columns[node] = self._columns[low] | self._columns[high] | {self.column_of[variable]}
            found = self._columns[f]
        return found

    def split(self, f: int, column: str) -> dict[int, int]:
        """What is left of a set behind each value of a column: set of the other columns -> the values, a partition."""
        own = frozenset(self.space.places[column].variables)
        last = max(own)

        def parts(node: int) -> dict[int, int]:
            variable, low, high = self.store.nodes[node].tolist()
            if variable > last:
                return {node: 1}
            key = (node, column)
            found = self._parts.get(key)
            if found is not None:
                return found
            self.budget -= 1
            below, above = parts(low), parts(high)
            test = self.store.variable(variable)
            joined: dict[int, list[int]] = {}
            if variable in own:
                for child in {**below, **above}:
                    joined[child] = [self.store.choose(test, above.get(child, 0), below.get(child, 0))]
            else:
                for a, values_a in below.items():
                    for b, values_b in above.items():
                        both = self.store.both(values_a, values_b)
                        if both:
                            joined.setdefault(self.store.choose(test, b, a), []).append(both)
            found = self._parts[key] = {child: self.store.any_of(v) for child, v in joined.items()}
            return found

        return {child: values for child, values in parts(f).items() if child}

    def best(self, f: int) -> tuple[int, str]:
        """(number of regions as far as it was looked into, column to take first) of a set."""
        found = self._best.get(f)
        if found is not None:
            return found
        if self.budget <= 0:
            column = self.column_of[int(self.store.nodes[f, 0])]
            self._best[f] = (0, column)
            return 0, column
        columns = [c for c in self.space.places if c in self.columns(f)]
        sizes = sorted((len(self.split(f, c)), i, c) for i, c in enumerate(columns))
        if sizes[0][0] == 1:
            sizes = sizes[:1]
        choices: list[tuple[int, str]] = []
        for size, _, column in sizes:
            if choices and size >= min(choices)[0]:
                break
            choices.append((sum(self.best(c)[0] if c > 1 else 1 for c in self.split(f, column)), column))
        found = self._best[f] = min(choices, key=lambda c: c[0])
        return found

    def regions(self, f: int) -> Iterator[dict[str, int]]:
        """The parts of every region of a set."""
        if f == 0:
            return
        if f == 1:
            yield {}
            return
        column = self.best(f)[1]
        for child, values in self.split(f, column).items():
            for rest in self.regions(child):
                yield {column: values, **rest}


def joined(found: list[dict[str, int]], space: HeaderSpace) -> list[dict[str, int]]:
    """Regions with those joined that differ in one column only."""
    store = space.store
    changed = True
    while changed:
        changed = False
        for column in space.places:
            groups: dict[tuple[tuple[str, int], ...], list[int]] = {}
            for region in found:
                rest = tuple(sorted((c, d) for c, d in region.items() if c != column))
                groups.setdefault(rest, []).append(region.get(column, 1))
            if len(groups) < len(found):
                changed = True
                found = []
                for rest, values in groups.items():
                    union = store.any_of(values)
                    found.append({**dict(rest), **({column: union} if union != 1 else {})})
    return found


def regions(found: PacketSet, splitter: Splitter | None = None) -> tuple[Region, ...]:
    """A set as disjoint regions, the largest first; `splitter` may serve for several sets of one space."""
    space = found.space
    splitter = splitter or Splitter(space)
    parts = joined(list(splitter.regions(found.diagram)), space)
    return tuple(sorted((_region(space, p) for p in parts), key=_size, reverse=True))


def _size(region: Region) -> int:
    return region.count()


def _region(space: HeaderSpace, parts: Mapping[str, int]) -> Region:
    """A region without the columns whose every value that exists it allows."""
    store = space.store
    kept = []
    for column in space.places:
        values = parts.get(column, 1)
        if store.without(space.domain, values) != 0 and column_domain(space, column) != values:
            kept.append((column, values))
    return Region(space, tuple(kept))


def column_domain(space: HeaderSpace, column: str) -> int:
    """The values of a column that exist, as a diagram over its bits."""
    top = (1 << space.places[column].bits) - 1
    if column in ("iif", "oif"):
        return space.values_of(column, Values(((1, len(space.interfaces.names) - 1),)))
    return space.values_of(column, Values(((0, LARGEST.get(column, top)),)))
