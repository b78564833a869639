"""Cross products as flat arrays: what ``kernels/crossproduct.py`` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.crossproduct import CrossProduct, Group, packed
from fastpath.compiler.fields import Field
from fastpath.compiler.segments import Segment
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
    RESULT_LIST,
    SHAPE_DENSE,
    SHAPE_NONE,
    SHAPE_ONE,
    SHAPE_RUNS,
)


class _Pool:
    """A growing flat array."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self.dtype = dtype
        self.parts: list[npt.NDArray[Any]] = []
        self.size = 0

    def add(self, values: npt.NDArray[Any]) -> int:
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
        self.groups.extend(self._group(group, built, slots) for group in built.groups)
        row[C_REST], row[C_MISS] = built.rest, built.ops
        holds = np.concatenate([built.holds, np.ones((1, built.rest), bool)])
        words = packed(holds).view(np.uint32)
        row[C_HOLDS], row[C_WORDS] = self.wide.add(words), words.shape[1]
        self.lookups.append(row)

    def _fits(self, cells: int) -> bool:
        return 4 * cells <= min(self.most, self.left)

    def _sized(self, values: npt.NDArray[Any]) -> tuple[int, int]:
        """(place, 1 where it is in the pool of 32-bit cells)."""
        fits = not values.size or int(values.max()) < 1 << 16
        self.left -= values.size * (2 if fits else 4)
        if fits:
            return self.narrow.add(values), 0
        return self.wide.add(values), 1

    def _group(self, group: Group, built: CrossProduct, slots: Mapping[Field, int]) -> list[int]:
        from fastpath.kernels import build

        row = [0] * G_COLUMNS
        row[G_SHAPE] = (SHAPE_NONE, SHAPE_ONE, SHAPE_DENSE)[len(group.keys)]
        for key, at, of_map in zip(group.keys, (G_A, G_B), (G_A_MAP, G_B_MAP), strict=False):
            row[at], row[of_map] = slots[key.field], self.wide.add(key.places)
        if len(group.keys) == 2:
            rows, columns = (key.count for key in group.keys)
            if self._fits(rows * columns):
                cells = np.empty((rows, columns), np.uint32)
                build.fill_dense(group.run_start, group.run_column, group.run_list, cells)
                row[G_WIDTH] = columns
                row[G_TABLE], row[G_TABLE_WIDE] = self._sized(cells)
            else:
                row[G_SHAPE] = SHAPE_RUNS
                row[G_WIDTH] = len(group.run_start)
                row[G_TABLE] = self.wide.add(group.run_start)
                self.wide.add(group.run_column)
                self.wide.add(group.run_list)
                row[G_TABLE_WIDE] = len(group.run_column)
        if self._fits(group.lists * built.rest):
            row[G_RESULT] = RESULT_DIRECT
            found = np.empty((group.lists, built.rest), np.uint32)
            build.first_holding(
                group.list_start, group.list_condition, group.list_op, built.holds, built.ops, found
            )
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
