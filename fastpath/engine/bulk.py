"""Batches through the bulk kernel: chunks, threads, counts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.memory import in_large_pages
from fastpath.compiler.tables import KEPT, Compiled
from fastpath.engine.names import interface_codes, read_only
from fastpath.engine.program import DTYPES, Program, UnsuitableError
from fastpath.kernels import layout as at
from fastpath.packets.batch import PacketBatch

Array = npt.NDArray[Any]


SMALLEST, LARGEST = 1 << 16, 1 << 20
"""Packets of a chunk."""

MOST_COUNTED = 1 << 22
"""Packets counted in one array before it is emptied: packets and bytes share 64 bits."""


@dataclass
class Bulk:
    """What a pass of the bulk kernel gives: columns and counts of all packets but the hard ones, and their places."""

    columns: dict[str, Array]
    record_packets: Array
    record_bytes: Array
    hard: Array


def run_bulk(
    compiled: Compiled, packets: PacketBatch, interfaces: list[str], threads: int | None,
    report: Callable[[int], None], wanted: Collection[str], counters: bool,
) -> Bulk | None:
    """Runs a batch through the bulk kernel, None where it cannot be.

    Args:
        interfaces: names of the result's interface codes; egress interfaces that are not among them are added.
        threads: worker threads, one for each processor where None.
        report: called with the number of packets done.
        wanted: result columns to write.
        counters: whether to count by record.
    """
    plan = compiled.bulk
    n = len(packets)
    if plan is None or compiled.extras:
        return None
    ids, names = interface_codes(compiled, packets, interfaces)
    program = Program(compiled, plan, packets, ids, names)
    try:
        records = program.ways()
    except UnsuitableError:
        return None
    columns = program.results(records, wanted, counters=counters)
    from fastpath.kernels.bulk import bulk

    passes = read_only(np.array(program.passes, np.int64).reshape(-1, 8))
    small, fates = read_only(np.concatenate(program.small)), program.fates()
    trie, steps = read_only(compiled.arrays["trie"]), read_only(plan.steps)
    cells16, cells32 = read_only(compiled.arrays["cells16"]), read_only(compiled.arrays["cells32"])
    many_hard = bool((plan.columns["kind"] == at.FATE_HARD).any())
    size = max(1, program.counts)
    totals = np.zeros((2, size), np.int64)
    hard: dict[int, Array] = {}
    lock = threading.Lock()
    spare: list[_Worker] = []
    workers: list[_Worker] = []
    done = 0

    def inputs(names: tuple[str, ...], dtype: str, a: int, b: int) -> tuple[Array, ...]:
        return tuple(
            read_only(program.read[name][a:b]) if name in program.read else _NOTHING[dtype] for name in names)

    def work(bounds: tuple[int, int]) -> None:
        nonlocal done
        a, b = bounds
        try:
            worker = spare.pop()
        except IndexError:
            worker = _Worker(in_large_pages(np.zeros(size, np.int64)),
                             np.empty((max(1, program.rows), at.BULK_BLOCK), np.uint32),
                             np.empty((2, at.BULK_BLOCK + 1), np.uint32), np.empty((3, at.BULK_BLOCK), np.uint64))
            workers.append(worker)
        room = np.empty(b - a if many_hard else 1, np.int32)
        output = at.BulkOutput(**{
            name: columns[column][a:b] if column in columns else np.empty(1, DTYPES[column])
            for name, column in _OUTPUT.items()})
        many = bulk(
            b - a, passes, inputs(at.OCTETS, "uint8", a, b), inputs(at.HALVES, "uint16", a, b),
            inputs(at.WIDES, "uint32", a, b), inputs(("iif", "oif"), "int16", a, b), small, trie, steps, cells16,
            cells32, fates, output, worker.counts, worker.rows, worker.lists, worker.wide, room)
        worker.packets += b - a
        with lock:
            if many:
                hard[a] = room[:many].astype(np.int64) + a
            if worker.packets > MOST_COUNTED:
                worker.empty(totals)
            done += b - a
            report(done)
        spare.append(worker)

    threads = threads or os.cpu_count() or 1
    step = min(LARGEST, max(SMALLEST, -(-n // (4 * threads)))) if threads > 1 else LARGEST
    step = -(-step // at.BULK_BLOCK) * at.BULK_BLOCK
    chunks = [(a, min(a + step, n)) for a in range(0, n, step)]
    if min(len(chunks), threads) <= 1:
        for bounds in chunks:
            work(bounds)
    else:
        with ThreadPoolExecutor(min(len(chunks), threads)) as pool:
            for _ in pool.map(work, chunks):
                pass
    for worker in workers:
        worker.empty(totals)
    records_counted = np.zeros((2, len(compiled.arrays["records"]) + 1), np.int64)  # the last is nobody's
    if counters:
        for (begin, lanes), place in zip(program.counted, plan.places, strict=True):
            counted = totals[:, begin:begin + lanes * (place.size + 1)].reshape(2, lanes, place.size + 1).sum(axis=1)
            for kind in range(2):
                for numbers in place.records:
                    np.add.at(records_counted[kind], numbers, counted[kind, :place.own])
    for name in KEPT:
        if name in wanted and name not in columns:
            columns[name] = np.zeros(n, np.uint8) if name == "flags" else packets.column(name)
    found = np.concatenate([hard[a] for a in sorted(hard)]) if hard else np.zeros(0, np.int64)
    return Bulk(columns, records_counted[0, :-1], records_counted[1, :-1], found)


@dataclass
class _Worker:
    """A thread's own room."""

    counts: Array
    rows: Array
    lists: Array
    wide: Array
    packets: int = 0

    def empty(self, totals: Array) -> None:
        """Adds the counts to the totals and begins anew."""
        totals[0] += self.counts >> 40
        totals[1] += self.counts & ((1 << 40) - 1)
        self.counts[:] = 0
        self.packets = 0


_OUTPUT = {name: "rules_walked" if name == "walked" else name for name in at.BulkOutput._fields}
_NOTHING = {dtype: read_only(np.zeros(1, dtype)) for dtype in ("uint8", "uint16", "uint32", "int16")}
