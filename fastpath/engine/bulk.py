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
from fastpath.engine import memory
from fastpath.engine.names import read_only
from fastpath.engine.program import DTYPES, program_for
from fastpath.kernels import layout as at
from fastpath.packets.batch import PacketBatch

Array = npt.NDArray[Any]


SMALLEST, LARGEST = 1 << 16, 1 << 20
"""Packets of a chunk."""

PAST = 2 << 20
"""Bytes of result columns from which on they are written past the cache, where they would not stay."""

MOST_COUNTED = 1 << 22
"""Packets counted in one array before it is emptied: packets and bytes share 64 bits."""


@dataclass
class Bulk:
    """What a pass of the bulk kernel gives: columns and counts of all packets but the hard ones, and their places."""

    columns: dict[str, Array]
    rule_packets: Array
    rule_bytes: Array
    hard: Array


def run_bulk(
    compiled: Compiled, packets: PacketBatch, interfaces: list[str], threads: int | None,
    report: Callable[[int], None], wanted: Collection[str], counters: bool, rules: int,
) -> Bulk | None:
    """Runs a batch through the bulk kernel, None where it cannot be.

    Args:
        interfaces: names of the result's interface codes; egress interfaces that are not among them are added.
        threads: worker threads, one for each processor where None.
        report: called with the number of packets done.
        wanted: result columns to write.
        counters: whether to count by rule.
        rules: number of rules.
    """
    plan = compiled.bulk
    n = len(packets)
    if plan is None or compiled.extras:
        return None
    program = program_for(compiled, plan, packets, interfaces, wanted, counters)
    if program is None:
        return None
    interfaces[:] = program.interfaces
    from fastpath.kernels.bulk import bulk
    from fastpath.kernels.counts import add_counts

    columns = {
        name: memory.empty(n, DTYPES[name]) if value is None else memory.full(n, value, DTYPES[name])
        for name, value in program.columns.items()}
    past = sum(column.nbytes for column in columns.values()) >= PAST
    read = {name: read_only(np.ascontiguousarray(packets.column(name))) for name in program.read}
    trie, steps = read_only(compiled.arrays["trie"]), read_only(plan.steps)
    cells16, cells32 = read_only(compiled.arrays["cells16"]), read_only(compiled.arrays["cells32"])
    paths = read_only(compiled.path_start), read_only(compiled.path_rules)
    rule_packets, rule_bytes = np.zeros(max(1, rules), np.int64), np.zeros(max(1, rules), np.int64)
    hard: dict[int, Array] = {}
    lock = threading.Lock()
    spare: list[_Worker] = []
    workers: list[_Worker] = []
    done = 0

    def inputs(names: tuple[str, ...], dtype: str, a: int, b: int) -> tuple[Array, ...]:
        return tuple(read[name][a:b] if name in read else _NOTHING[dtype] for name in names)

    def empty(worker: _Worker) -> None:
        """Adds a worker's counts to the rules' and begins anew."""
        for (begin, lanes), place in zip(program.counted, plan.places, strict=counters):
            counts = worker.counts[begin:begin + lanes * (place.size + 1)].reshape(lanes, -1)
            for numbers in place.records:
                add_counts(counts, read_only(numbers), *paths, rule_packets, rule_bytes)
        worker.counts[:] = 0
        worker.packets = 0

    def work(bounds: tuple[int, int]) -> None:
        nonlocal done
        a, b = bounds
        try:
            worker = spare.pop()
        except IndexError:
            worker = _Worker(in_large_pages(np.zeros(max(1, program.counts), np.int64)), at.Room(
                np.empty((max(1, program.rows), at.BULK_BLOCK), np.uint32), np.empty(at.BULK_BLOCK, np.uint16),
                np.empty((2, at.BULK_BLOCK + 1), np.uint32), np.empty((3, at.BULK_BLOCK), np.uint64)))
            workers.append(worker)
        listed = np.empty(b - a if program.hard else 1, np.int32)
        output = at.BulkOutput(**{
            name: columns[column][a:b] if column in columns else np.empty(1, DTYPES[column])
            for name, column in _OUTPUT.items()})
        many = bulk(
            b - a, program.passes, inputs(at.OCTETS, "uint8", a, b), inputs(at.HALVES, "uint16", a, b),
            inputs(at.WIDES, "uint32", a, b), inputs(("iif", "oif"), "int16", a, b), program.small, trie, steps,
            cells16, cells32, program.fates, output, worker.counts, worker.room, listed, past)
        worker.packets += b - a
        with lock:
            if many:
                hard[a] = listed[:many].astype(np.int64) + a
            if worker.packets > MOST_COUNTED:
                empty(worker)
            done += b - a
            report(done)
        spare.append(worker)

    threads = threads or os.cpu_count() or 1
    step = min(LARGEST, max(SMALLEST, -(-n // (8 * threads)))) if threads > 1 else LARGEST
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
        empty(worker)
    length = packets.constant("length")
    if length is not None:
        rule_bytes = rule_packets * length
    for name in KEPT:
        if name in wanted and name not in columns:
            columns[name] = np.zeros(n, np.uint8) if name == "flags" else packets.column(name)
    found = np.concatenate([hard[a] for a in sorted(hard)]) if hard else np.zeros(0, np.int64)
    return Bulk(columns, rule_packets[:rules], rule_bytes[:rules], found)


@dataclass
class _Worker:
    """A thread's own room."""

    counts: Array
    room: at.Room
    packets: int = 0


_OUTPUT = {name: "rules_walked" if name == "walked" else name for name in at.BulkOutput._fields}
_NOTHING = {dtype: read_only(np.zeros(1, dtype)) for dtype in ("uint8", "uint16", "uint32", "int16")}
