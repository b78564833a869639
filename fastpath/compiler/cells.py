"""Cross products as flat arrays: what ``kernels/crossproduct.py`` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.crossproduct import Candidates, CrossProduct, Group, packed
from fastpath.compiler.fields import Field
from fastpath.compiler.segments import Segment
from fastpath.errors import CompileError
from fastpath.kernels.layout import (
    C_COLUMNS,
    C_GROUP,
    C_GROUPS,
    C_HOLDS,
    C_KIND_SLOT,
    C_KINDS,
    C_MERGE,
    C_MERGES,
    C_MISS,
    C_REST,
    C_SLOT,
    C_WORDS,
    G_A,
    G_A_MAP,
    G_B,
    G_B_MAP,
    G_COLUMNS,
    G_FOUND,
    G_FOUND_WIDE,
    G_LISTS,
    G_RESULT,
    G_SHAPE,
    G_TABLE,
    G_TABLE_WIDE,
    G_WIDTH,
    RESULT_DIRECT,
    RESULT_GROUPED,
    RESULT_LIST,
    SHAPE_CANDIDATES,
    SHAPE_DENSE,
    SHAPE_GROUPED,
    SHAPE_NONE,
    SHAPE_ONE,
    SHAPE_RUNS,
)

RECORD = 4
"""Words of a candidate's record, which lie in one line of the cache."""


MOST_CELLS = 4
"""Cells of a table that may be made before it is put into groups, for each byte of a table."""

LEAST_GROUPED = 1 << 20
"""Bytes of a table from which on it is put into groups."""

MOST_COLUMNS, MOST_GROUPS, TRIES = 4096, 1024, 64
"""Different columns of a group, groups, and groups that a row is compared with."""


class _Pool:
    """A growing flat array."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self.dtype = dtype
        self.parts: list[npt.NDArray[Any]] = []
        self.size = 0

    def add(self, values: npt.NDArray[Any], *, multiple: int = 1) -> int:
        """Adds values at a place that is a multiple of some number -> the place."""
        if self.size % multiple:
            self.parts.append(np.zeros(-self.size % multiple, self.dtype))
            self.size += len(self.parts[-1])
        at = self.size
        self.parts.append(values.astype(self.dtype, copy=False).reshape(-1))
        self.size += values.size
        return at

    def flat(self) -> npt.NDArray[Any]:
        return np.concatenate(self.parts) if self.parts else np.zeros(1, self.dtype)


@dataclass
class Cells:
    """Collects the arrays of cross products.

    A table of two keys that would be too large is searched as runs instead, and one of lists and rest classes is read
    as lists.

    Attributes:
        most: bytes that one such table may have, as 32-bit cells.
        left: bytes that all that are still to come may have.
    """

    most: int
    left: int
    lookups: list[list[int]] = field(default_factory=list)
    merges: list[list[int]] = field(default_factory=list)
    groups: list[list[int]] = field(default_factory=list)
    narrow: _Pool = field(default_factory=lambda: _Pool(np.uint16))
    wide: _Pool = field(default_factory=lambda: _Pool(np.uint32))

    def add(
        self, built: CrossProduct, segment: Segment, slot: int, kind_slot: int, slots: Mapping[Field, int]
    ) -> None:
        """Packs a cross product; `slot` and `kind_slot` are the class rows that it writes."""
        row = [0] * C_COLUMNS
        row[C_SLOT], row[C_KIND_SLOT] = slot, kind_slot
        row[C_KINDS] = self.narrow.add(np.array([*segment.kind_of, len(segment.kinds)]))
        row[C_MERGE], row[C_MERGES] = len(self.merges), len(built.merges)
        for merge in built.merges:
            places = -1 if merge.places is None else self.narrow.add(merge.places)
            self.merges.append([slots[merge.field], self.narrow.add(merge.table), merge.width, places])
        row[C_GROUP], row[C_GROUPS] = len(self.groups), len(built.groups)
        self.groups.extend(
            self._candidates(group, slots) if isinstance(group, Candidates) else self._group(group, built, slots)
            for group in built.groups)
        row[C_REST], row[C_MISS] = built.rest, built.ops
        holds = np.concatenate([built.holds, np.ones((1, built.rest), bool)])
        words = packed(holds).view(np.uint32)
        row[C_HOLDS], row[C_WORDS] = self.wide.add(words), words.shape[1]
        self.lookups.append(row)

    def _candidates(self, found: Candidates, slots: Mapping[Field, int]) -> list[int]:
        row = [0] * G_COLUMNS
        row[G_SHAPE] = SHAPE_CANDIDATES
        for key, at, of_map in zip(found.keys, (G_A, G_B), (G_A_MAP, G_B_MAP), strict=True):
            row[at], row[of_map] = slots[key.field], self.wide.add(key.places)
        if found.grid is not None:
            row[G_WIDTH], row[G_TABLE] = found.grid.shape[1], self.wide.add(found.grid)
            self.left -= found.grid.nbytes
        for records, at in zip(found.records, (G_FOUND, G_LISTS), strict=True):
            row[at] = -1 if records is None else self.wide.add(records, multiple=RECORD)
        return row

    def _fits(self, cells: int) -> bool:
        return 4 * cells <= min(self.most, self.left)

    def _sized(self, values: npt.NDArray[Any]) -> tuple[int, int]:
        """(place, 1 where it is in the pool of 32-bit cells)."""
        fits = not values.size or int(values.max()) < 1 << 16
        self.left -= values.size * (2 if fits else 4)
        if fits:
            return self.narrow.add(values), 0
        return self.wide.add(values), 1

    def _in_groups(self, table: npt.NDArray[np.uint32]) -> tuple[int, int] | None:
        """A table in two steps (``kernels.grouped``), as :meth:`_sized`; None where that is not much smaller."""
        from fastpath.kernels import grouped

        wide = bool(table.size) and int(table.max()) >= 1 << 16
        size = table.size * (4 if wide else 2)
        if size < LEAST_GROUPED or len(table) < 2 or table.shape[1] < 2:
            return None
        group, maps, sizes = grouped.group_rows(table, MOST_COLUMNS, MOST_GROUPS, TRIES)
        if not len(sizes):
            return None
        begin = np.cumsum(sizes[group]) - sizes[group]
        cells = np.zeros(int(sizes[group].sum()), np.uint32)
        needed = cells.size * (4 if wide else 2) + maps.nbytes + 8 * len(table)
        if needed > size // 2 or needed > min(self.most, self.left):
            return None
        self.left -= needed
        grouped.fill_grouped(table, group, maps, begin, cells)
        at = (self.wide if wide else self.narrow).add(cells)
        places = self.narrow.add(maps) + group * table.shape[1]
        if max(at + len(cells), int(places.max()) + table.shape[1]) >> 32:
            raise CompileError("tables of more than 2^32 cells")
        return self.wide.add(np.stack([at + begin, places], 1)), int(wide)

    def _group(self, group: Group, built: CrossProduct, slots: Mapping[Field, int]) -> list[int]:
        from fastpath.kernels import build

        row = [0] * G_COLUMNS
        row[G_SHAPE] = (SHAPE_NONE, SHAPE_ONE, SHAPE_DENSE)[len(group.keys)]
        for key, at, of_map in zip(group.keys, (G_A, G_B), (G_A_MAP, G_B_MAP), strict=False):
            row[at], row[of_map] = slots[key.field], self.wide.add(key.places)
        if len(group.keys) == 2:
            rows, columns = (key.count for key in group.keys)
            in_groups = None
            if rows * columns <= MOST_CELLS * self.most:
                cells = np.empty((rows, columns), np.uint32)
                build.fill_dense(group.run_start, group.run_column, group.run_list, cells)
                in_groups = self._in_groups(cells)
            if in_groups is not None:
                row[G_SHAPE] = SHAPE_GROUPED
                row[G_TABLE], row[G_TABLE_WIDE] = in_groups
            elif self._fits(rows * columns):
                row[G_WIDTH] = columns
                row[G_TABLE], row[G_TABLE_WIDE] = self._sized(cells)
            else:
                row[G_SHAPE] = SHAPE_RUNS
                row[G_WIDTH] = len(group.run_start)
                row[G_TABLE] = self.wide.add(group.run_start)
                self.wide.add(group.run_column)
                self.wide.add(group.run_list)
                row[G_TABLE_WIDE] = len(group.run_column)
        if group.lists * built.rest <= MOST_CELLS * self.most:
            found = np.empty((group.lists, built.rest), np.uint32)
            build.first_holding(
                group.list_start, group.list_condition, group.list_op, built.holds, built.ops, found
            )
            in_groups = self._in_groups(found)
            if in_groups is not None:
                row[G_RESULT] = RESULT_GROUPED
                row[G_FOUND], row[G_FOUND_WIDE] = in_groups
                return row
            if self._fits(found.size):
                row[G_RESULT] = RESULT_DIRECT
                row[G_FOUND], row[G_FOUND_WIDE] = self._sized(found)
                return row
        # A condition that always holds, with the miss, stands behind the last of every list.
        row[G_RESULT] = RESULT_LIST
        lengths = np.diff(group.list_start)
        begin = group.list_start[:-1] + np.arange(group.lists)
        entries = np.empty((len(group.list_op) + group.lists, 2), np.uint32)
        entries[:] = len(built.holds), built.ops
        places = np.arange(len(group.list_op)) + np.repeat(np.arange(group.lists), lengths)
        entries[places] = np.stack([group.list_condition, group.list_op], 1)
        row[G_LISTS], row[G_FOUND] = self.wide.add(begin), self.wide.add(entries)
        return row
