"""Programs as the kernel takes them, remembered for batches of one kind.

Making one takes a millisecond or two, as long as 100,000 packets or more do.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.bulk import BulkPlan
from fastpath.compiler.tables import Compiled
from fastpath.engine.names import interface_codes, read_only
from fastpath.engine.program.passes import Kind, UnsuitableError
from fastpath.engine.program.results import Program
from fastpath.kernels import layout as at
from fastpath.packets.batch import PacketBatch

Array = npt.NDArray[Any]

MOST_REMEMBERED = 16
"""Programs kept by a plan."""


@dataclass(frozen=True)
class Ready:
    """A program that is finished. Several threads may run it.

    Attributes:
        interfaces: names of the result's interface codes.
        passes: int64 of shape (passes, 8), as the kernel takes them.
        small: uint16, the small tables that passes index.
        fates: what records mean.
        rows: rows of room that the passes need.
        hard: whether some records are.
        read: the packet columns that passes read.
        columns: the result columns to hold, and the value that those begin with which passes may leave as they are.
        counts: places of counts.
        counted: for each place of the plan where its counts begin, and how many arrays of them are taken in turn;
            nothing where nothing is counted.
    """

    interfaces: tuple[str, ...]
    passes: Array
    small: Array
    fates: at.Fates
    rows: int
    hard: bool
    read: frozenset[str]
    columns: dict[str, int | None]
    counts: int
    counted: tuple[tuple[int, int], ...]


def program_for(
    compiled: Compiled, plan: BulkPlan, packets: PacketBatch, interfaces: list[str], wanted: Collection[str],
    counters: bool,
) -> Ready | None:
    """The program for a batch, None where the tables look at something that the bulk kernel does not read.

    Args:
        interfaces: names of the result's interface codes so far.
        wanted: result columns to write.
        counters: whether to count by record.
    """
    kind = Kind.of(packets, compiled)
    key = kind, tuple(interfaces), frozenset(wanted), counters
    try:
        found: Ready | None = plan.programs[key]
    except KeyError:
        found = _make(compiled, plan, kind, packets, interfaces, wanted, counters)
        if len(plan.programs) >= MOST_REMEMBERED:
            plan.programs.clear()
        plan.programs[key] = found
    return found


def _make(
    compiled: Compiled, plan: BulkPlan, kind: Kind, packets: PacketBatch, interfaces: list[str],
    wanted: Collection[str], counters: bool,
) -> Ready | None:
    known = list(interfaces)
    ids, names = interface_codes(compiled, packets, known)
    program = Program(compiled, plan, kind, ids, names)
    try:
        records = program.ways()
    except UnsuitableError:
        return None
    columns = program.results(records, wanted, counters=counters)
    return Ready(
        interfaces=tuple(known), passes=read_only(np.array(program.passes, np.int64).reshape(-1, 8)),
        small=read_only(np.concatenate(program.small)), fates=program.fates(), rows=program.rows,
        hard=bool((plan.columns["kind"] == at.FATE_HARD).any()), read=frozenset(program.read), columns=columns,
        counts=program.counts, counted=tuple(program.counted),
    )
