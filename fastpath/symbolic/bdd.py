"""A store of binary decision diagrams: the arrays of :mod:`fastpath.kernels.bdd`, grown as needed.

Diagrams are plain integers; equal integers of one store are equal functions. Variables are numbered in the order in
which they are tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.errors import CompileError
from fastpath.kernels import bdd as kernels

FALSE, TRUE = 0, 1

MOST_NODES = 1 << 26
"""Nodes of one store; 16 bytes each, and as much again for the tables beside them."""

_STACK = 4096


class Store:
    """Diagrams that share their nodes.

    Attributes:
        nodes: variable, low and high child of every node; int32 of shape (room, 3).
    """

    def __init__(self, room: int = 1 << 16) -> None:
        self.nodes: npt.NDArray[np.int32] = np.zeros((room, 3), np.int32)
        self.nodes[:2, 0] = kernels.LEAF
        self._unique = np.zeros(2 * room, np.int32)
        self._cache = np.zeros((room, 4), np.int32)
        self._meta = np.array([2, 0], np.int64)
        self._stack = np.zeros((_STACK, 6), np.int32)
        self._seen = np.zeros(room, np.uint8)
        self._within: dict[tuple[tuple[int, ...], tuple[tuple[int, int], ...]], int] = {}

    def __len__(self) -> int:
        return int(self._meta[kernels.M_NODES])

    def _grow(self) -> None:
        room = 2 * len(self.nodes)
        if room > MOST_NODES:
            raise CompileError(f"the sets of packets need more than {MOST_NODES} nodes: compare fewer tables, or a "
                               "part of the packets (where=)")
        nodes = np.zeros((room, 3), np.int32)
        nodes[:len(self.nodes)] = self.nodes
        self.nodes = nodes
        self._unique = np.zeros(2 * room, np.int32)
        kernels.rebuild(self._unique, nodes, len(self))
        self._cache = np.zeros((room, 4), np.int32)
        self._seen = np.zeros(room, np.uint8)

    # ------------------------------------------------------------------------------------------------ functions

    def variable(self, number: int) -> int:
        """The function that is the variable itself."""
        while (found := kernels.node(self.nodes, self._unique, self._meta, number, 0, 1)) < 0:
            self._grow()
        return int(found)

    def choose(self, f: int, g: int, h: int) -> int:
        """`g` where `f` holds, `h` elsewhere."""
        while True:
            found = kernels.choose(self.nodes, self._unique, self._cache, self._meta, self._stack, f, g, h)
            if found >= 0:
                return int(found)
            self._grow()

    def both(self, f: int, g: int) -> int:
        """Conjunction."""
        if f == g or g == 1 or f == 0:
            return f
        if f == 1 or g == 0:
            return g
        return self.choose(f, g, 0)

    def either(self, f: int, g: int) -> int:
        """Disjunction."""
        if f == g or g == 0 or f == 1:
            return f
        if f == 0 or g == 1:
            return g
        return self.choose(f, 1, g)

    def without(self, f: int, g: int) -> int:
        """`f` and not `g`."""
        if g == 0 or f == 0:
            return f
        if g == 1 or f == g:
            return 0
        return self.choose(g, 0, f)

    def negated(self, f: int) -> int:
        """Not `f`."""
        return 1 - f if f < 2 else self.choose(f, 0, 1)

    def differ(self, f: int, g: int) -> int:
        """Where exactly one of them holds."""
        return 0 if f == g else self.choose(f, self.negated(g), g)

    def _fold(self, items: Iterable[int], disjunction: int) -> int:
        absorbing = disjunction
        left = sorted({i for i in items if i != 1 - absorbing})
        if absorbing in left[:2]:
            return absorbing
        if not left:
            return 1 - absorbing
        while True:
            found = kernels.fold(
                self.nodes, self._unique, self._cache, self._meta, self._stack, np.array(left, np.int64), disjunction
            )
            if found >= 0:
                return int(found)
            self._grow()

    def any_of(self, items: Iterable[int]) -> int:
        """Disjunction of many."""
        return self._fold(items, 1)

    def all_of(self, items: Iterable[int]) -> int:
        """Conjunction of many."""
        return self._fold(items, 0)

    def within(self, bits: Sequence[int], intervals: Sequence[tuple[int, int]]) -> int:
        """Where the number with these bits (functions, the highest first) lies in one of the intervals."""
        top = (1 << len(bits)) - 1
        clipped = tuple((a, min(b, top)) for a, b in intervals if a <= top)
        if not clipped:
            return FALSE
        if all(b < 2 for b in bits):
            value = 0
            for bit in bits:
                value = value << 1 | bit
            return int(any(a <= value <= b for a, b in clipped))
        key = (tuple(bits), clipped)
        found = self._within.get(key)
        if found is None:
            table = np.array(clipped, np.uint64)
            functions = np.array(bits, np.int64)
            while (new := int(kernels.within(
                self.nodes, self._unique, self._cache, self._meta, self._stack, functions, table
            ))) < 0:
                self._grow()
            found = self._within[key] = new
        return found

    def mapped(self, bits: Sequence[int], table: Sequence[int], width: int) -> tuple[int, ...]:
        """The bits, `width` of them, of the number that a table gives for each value of the number with `bits`."""
        values = np.array(table, np.int64)
        functions = np.array(bits, np.int64)
        out = []
        for place in range(width - 1, -1, -1):
            while (found := int(kernels.mapped(
                self.nodes, self._unique, self._cache, self._meta, self._stack, functions, values >> place & 1
            ))) < 0:
                self._grow()
            out.append(found)
        return tuple(out)

    def transform(self, f: int, actions: npt.NDArray[np.int8]) -> int:
        """A function with variables set or asked about (see :func:`fastpath.kernels.bdd.transform`)."""
        if f < 2:
            return f
        while True:
            found = kernels.transform(self.nodes, self._unique, self._cache, self._meta, self._stack, f, actions)
            if found >= 0:
                return int(found)
            self._grow()

    def assign(self, f: int, values: Mapping[int, int]) -> int:
        """A function with some variables set."""
        if f < 2 or not values:
            return f
        actions = np.zeros(max(values) + 1, np.int8)
        for variable, value in values.items():
            actions[variable] = kernels.HIGH if value else kernels.LOW
        return self.transform(f, actions)

    def some(self, f: int, variables: Iterable[int]) -> int:
        """Where the function holds for some values of the variables."""
        chosen = list(variables)
        if f < 2 or not chosen:
            return f
        actions = np.zeros(max(chosen) + 1, np.int8)
        actions[chosen] = kernels.SOME
        return self.transform(f, actions)

    # -------------------------------------------------------------------------------------------- looking inside

    def reachable(self, f: int) -> npt.NDArray[np.int32]:
        """The nodes of a diagram, children before parents, without 0 and 1; int32."""
        if f < 2:
            return np.zeros(0, np.int32)
        found = np.zeros(min(len(self), f + 1), np.int32)
        count = kernels.reachable(self.nodes, f, self._seen, found)
        return np.sort(found[:count])

    def support(self, f: int) -> frozenset[int]:
        """The variables that a function depends on."""
        return frozenset(np.unique(self.nodes[self.reachable(f), 0]).tolist())

    def count(self, f: int, variables: int) -> int:
        """For how many of the ``2**variables`` values of the first variables a function of these alone holds."""
        if f < 2:
            return f << variables
        numbers = self.reachable(f)
        level: dict[int, int] = {0: variables, 1: variables}
        found: dict[int, int] = {0: 0, 1: 1}
        rows = self.nodes[numbers].tolist()
        for number, (variable, low, high) in zip(numbers.tolist(), rows, strict=True):
            level[number] = variable
            found[number] = (found[low] << (level[low] - variable - 1)) + (found[high] << (level[high] - variable - 1))
        return found[f] << level[f]

    def contains(
        self, f: int, columns: npt.NDArray[np.uint64], places: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        """Which packets a function holds for: bool of shape (n,); arguments as for the kernel."""
        out = np.zeros(columns.shape[1], np.int32)
        if f < 2:
            return np.full(columns.shape[1], bool(f))
        kernels.contains(self.nodes, f, columns, places, out)
        return out.astype(bool)
