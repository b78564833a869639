"""A program while it is made: passes, rows, small tables, and the columns that are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.bulk import BulkPlan
from fastpath.compiler.memory import in_large_pages
from fastpath.compiler.tables import Compiled
from fastpath.kernels import layout as at
from fastpath.packets.batch import PacketBatch

Array = npt.NDArray[Any]

MOST_REMEMBERED = 32
"""Arrays kept for batches of kinds met before."""


class UnsuitableError(Exception):
    """The tables look at something that the bulk kernel does not read."""


@dataclass
class Passes:
    """The passes for a batch, and the small tables that were made for it.

    Attributes:
        compiled, plan: the tables.
        packets: the batch; its columns are looked at for single values, and for AUTO states.
        ids, names: interface ids of the packets' codes, codes of ids (``engine.names``).
        passes: operation, row written and six operands each (``kernels.layout.OP_*``).
        small, enter: parts of the tables that passes index.
        paged: the last pages of the map of an address, where words of the first level are looked up in them.
        rows: rows of room that the passes need.
        row_of: the row that holds the classes of a field.
        read: the columns that passes read, as arrays.
    """

    compiled: Compiled
    plan: BulkPlan
    packets: PacketBatch
    ids: Array
    names: Array
    passes: list[list[int]] = field(default_factory=list)
    small: list[Array] = field(default_factory=list)
    small_size: int = 0
    enter: list[Array] = field(default_factory=list)
    enter_size: int = 0
    paged: Array = field(default_factory=lambda: np.zeros(1, np.uint32))
    rows: int = 0
    row_of: dict[int, int] = field(default_factory=dict)
    read: dict[str, Array] = field(default_factory=dict)
    all_local: bool = False
    packed: bool = False
    ends: bool = False
    affects: list[int] = field(default_factory=list)
    for_results: list[int] = field(default_factory=list)
    renaming: bool = False
    counts: int = 0
    counted: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.arrays = self.compiled.arrays
        self.fields = self.arrays["fields"]
        self.add_small(self.plan.small)
        self.direct = self.plan.direct
        self.add_enter(self.plan.enter)
        self.renamed = bool((self.plan.columns["kind"] == at.FATE_DNAT).any())

    def add(self, op: int, row: int, *operands: int) -> int:
        self.passes.append([op, row, *operands, *[0] * (6 - len(operands))])
        return row

    def add_small(self, table: Array) -> int:
        begin = self.small_size
        self.small.append(table.astype(np.uint16, copy=False))
        self.small_size += len(table)
        return begin

    def add_enter(self, words: Array) -> int:
        begin = self.enter_size
        self.enter.append(words.astype(np.uint32, copy=False))
        self.enter_size += len(words)
        return begin

    def new_row(self) -> int:
        self.rows += 1
        return self.rows - 1

    def constant(self, name: str) -> int | None:
        return self.packets.constant(name)

    def column(self, name: str) -> str:
        """Notes that a column is read; one with a single value becomes an array."""
        if name not in self.read:
            self.read[name] = np.ascontiguousarray(self.packets.column(name))
        return name

    def octet(self, name: str) -> int:
        return at.OCTETS.index(self.column(name))

    def remembered(self, key: object, make: Callable[[], Array]) -> Array:
        """What was made before for a batch of this kind, or is made now."""
        found = self.plan.remembered.get(key)
        if found is None:
            if len(self.plan.remembered) >= MOST_REMEMBERED:
                self.plan.remembered.clear()
            found = self.plan.remembered[key] = in_large_pages(make())
        return found
