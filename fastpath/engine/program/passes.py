"""A program while it is made: passes, rows, small tables, and the columns that are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.bulk import BulkPlan
from fastpath.compiler.tables import Compiled
from fastpath.kernels import layout as at
from fastpath.packets.batch import PacketBatch
from fastpath.packets.schema import PACKET_COLUMNS, State

Array = npt.NDArray[Any]

class UnsuitableError(Exception):
    """The tables look at something that the bulk kernel does not read."""


FEW = 1 << 12
"""Packets among which some with a state that is AUTO are looked for first."""


@dataclass(frozen=True)
class Kind:
    """What a program depends on in a batch; packets of one kind have one program.

    Attributes:
        interfaces: names of the packets' interface codes.
        constants: for each packet column the value that all packets share, None where they may differ.
        auto: whether the state of some packets is AUTO, as far as tables look at states.
    """

    interfaces: tuple[str, ...]
    constants: tuple[int | None, ...]
    auto: bool

    @classmethod
    def of(cls, packets: PacketBatch, compiled: Compiled) -> Kind:
        constants = tuple(packets.constant(c.name) for c in PACKET_COLUMNS)
        least = packets.constant("state")
        if least is None and "state" in compiled.columns:
            states = packets.column("state")
            least = State.AUTO if (states[:FEW] == State.AUTO).any() else int(states.min(initial=max(State)))
        return cls(packets.interfaces, constants, least == State.AUTO)


_NUMBER = {c.name: number for number, c in enumerate(PACKET_COLUMNS)}


@dataclass
class Passes:
    """The passes for batches of a kind, and the small tables that were made for them.

    Attributes:
        compiled, plan: the tables.
        kind: of the batches.
        ids, names: interface ids of the packets' codes, codes of ids (``engine.names``).
        passes: operation, row written and six operands each (``kernels.layout.OP_*``).
        small, enter: parts of the tables that passes index.
        paged: what words of the first level are looked up in.
        rows: rows of room that the passes need.
        row_of: the row that holds the classes of a field.
        read: the packet columns that passes read.
    """

    compiled: Compiled
    plan: BulkPlan
    kind: Kind
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
    read: set[str] = field(default_factory=set)
    all_local: bool = False
    packed: bool = False
    ends: bool = False
    affects: list[int] = field(default_factory=list)
    for_results: list[int] = field(default_factory=list)
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
        return self.kind.constants[_NUMBER[name]]

    def column(self, name: str) -> str:
        """Notes that a column is read."""
        self.read.add(name)
        return name

    def octet(self, name: str) -> int:
        return at.OCTETS.index(self.column(name))
