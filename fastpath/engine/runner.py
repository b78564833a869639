"""One pass of the kernel over a batch of packets: chunks, threads, columns as the kernel wants them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.tables import BASE_NUMBER, KEPT, Compiled
from fastpath.engine.names import AS_GIVEN, interface_codes, read_only
from fastpath.errors import PacketError
from fastpath.packets.batch import PacketBatch
from fastpath.packets.schema import PACKET_COLUMNS, RESULT_COLUMNS

Array = npt.NDArray[Any]

CHUNK = 1 << 17
"""Packets that one call of the kernel works through."""

_STATE = ("state", "proto", "tcp_flags", "icmp_type")
_DETAILS = (*_STATE, "icmp_code", "ctdir", "ctstatus", "src", "dst", "sport", "dport", "ctorigdst", "ctorigdstport")
COLUMNS_OF = {
    "icmp": ("icmp_type", "icmp_code"), "ctstate": _STATE, "touched": ("mark", "tos"), "notrack": ("mark",),
    **dict.fromkeys(("ctdir", "ctstatus", "ctorigsrc", "ctorigsrcport", "ctorigdst", "ctorigdstport"), _DETAILS),
}
"""The packet columns that a base is made of, where it is not the column of its name."""

DTYPES = {c.name: np.dtype(c.dtype) for c in (*PACKET_COLUMNS, *RESULT_COLUMNS)}


ALL = frozenset(c.name for c in RESULT_COLUMNS)


@dataclass
class Run:
    """The wanted columns and the counts of one pass over packets.

    ``choices`` and what follows only where undecided rules are tried: for each stage and packet the number of choices
    that take one undecided rule (low 16 bits) and of all (high bits), and the rule that was forced to match, -1 if
    none.
    """

    columns: dict[str, Array]
    rule_packets: Array
    rule_bytes: Array
    choices: Array
    forced_rule: Array
    forced_hook: Array

    @classmethod
    def of(cls, columns: dict[str, Array], rule_packets: Array, rule_bytes: Array) -> Run:
        """Columns and counts, where nothing was tried."""
        none = np.zeros(0, np.int64)
        return cls(columns, rule_packets, rule_bytes, none, none, none)


class Runner:
    """One pass of the kernel over a batch."""

    def __init__(self, compiled: Compiled, packets: PacketBatch, interfaces: list[str], rules: int) -> None:
        self.compiled = compiled
        self.packets = packets
        self.n = len(packets)
        self.rules = rules
        self.ids, self.names = interface_codes(compiled, packets, interfaces)
        for name in compiled.extras:
            if name not in packets.extra:
                raise PacketError(f"the packets have no boolean column {name}, which an assumption reads")

    def columns(self, a: int, b: int, bytes_too: bool) -> Any:
        """The packet columns of a chunk as kernels take them."""
        from fastpath.kernels.layout import Columns

        out: dict[str, Array] = {}
        for name in Columns._fields[:-1]:
            wanted = name in self.compiled.columns or (name == "length" and bytes_too)
            if not wanted:
                out[name] = _blank(DTYPES[name].str)
                continue
            constant = self.packets.constant(name)
            if constant is not None:
                out[name] = _constant(DTYPES[name].str, constant)[:b - a]
            else:
                out[name] = read_only(np.ascontiguousarray(self.packets.column(name)[a:b]))
        if self.compiled.extras:
            extra = np.stack([self.packets.extra[name][a:b] for name in self.compiled.extras]).astype(np.uint8)
        else:
            extra = np.zeros((1, 1), np.uint8)
        return Columns(**out, extra=read_only(extra))

    def run(
        self,
        threads: int | None,
        report: Callable[[int], None],
        *,
        wanted: Collection[str] = ALL,
        counters: bool = True,
        trying: bool = False,
        force: Array | None = None,
    ) -> Run:
        """Runs all chunks.

        Args:
            threads: worker threads, one for each processor where None.
            report: called with the number of packets done.
            wanted: result columns to write; the others need no memory but for one chunk a thread, if that.
            counters: whether to count by record and rule.
            trying: count the undecided choices on each packet's way.
            force: the choices to take, int64 of shape (stages, n).
        """
        from fastpath.kernels.counts import add_counts
        from fastpath.kernels.evaluate import evaluate
        from fastpath.kernels.layout import Output, Tables

        n, compiled = self.n, self.compiled
        left = set(KEPT) - compiled.written
        columns = {c.name: np.empty(n, c.dtype) for c in RESULT_COLUMNS if c.name in wanted and c.name not in left}
        unseen = [] if compiled.plain else [c for c in RESULT_COLUMNS if c.name not in wanted and c.name not in left]
        stages = len(compiled.stages)
        arrays = Tables(**{name: read_only(compiled.arrays[name]) for name in Tables._fields})
        choices = np.zeros((max(2, stages), n) if trying else (1, 1), np.int32)
        forced_rule = np.full(n if trying else 1, -1, np.int32)
        forced_hook = np.zeros(n if trying else 1, np.int8)
        length = self.packets.constant("length")
        bytes_too = length is None
        records, rules = len(compiled.arrays["records"]), max(1, self.rules)
        no_force = read_only(np.zeros((1, 1), np.int64))
        rule_packets, rule_bytes = np.zeros(rules, np.int64), np.zeros(rules, np.int64)
        paths = read_only(compiled.path_start), read_only(compiled.path_rules)
        of_place = read_only(np.arange(len(compiled.path_start) - 1 if counters else 0))
        fixed = sum(
            1 << number for base, number in BASE_NUMBER.items()
            if all(self.packets.constant(name) is not None for name in COLUMNS_OF.get(base, (base,)))
        )
        lock = threading.Lock()
        spare: list[dict[str, Array]] = []
        done = 0

        def work(bounds: tuple[int, int]) -> None:
            nonlocal done, rule_packets, rule_bytes
            a, b = bounds
            counts = [np.zeros(records if counters else 1, np.int64), np.zeros(rules, np.int64),
                      np.zeros(rules, np.int64)]
            here = {c.name: columns[c.name][a:b] if c.name in columns else np.empty(1, c.dtype) for c in RESULT_COLUMNS}
            scratch = spare.pop() if spare else {c.name: np.empty(CHUNK, c.dtype) for c in unseen}
            here |= scratch
            some = np.zeros((len(choices), b - a), np.int32) if trying else choices
            output = Output(
                **{name: here[name] for name in Output._fields[:9]}, walked=here["rules_walked"], flags=here["flags"],
                records=counts[0], rule_packets=counts[1], rule_bytes=counts[2], choices=some,
                forced_rule=forced_rule[a:b] if trying else forced_rule,
                forced_hook=forced_hook[a:b] if trying else forced_hook,
            )
            given = no_force if force is None else read_only(np.ascontiguousarray(force[:, a:b]))
            evaluate(b - a, self.columns(a, b, bytes_too), arrays, output, self.ids, self.names, given, fixed)
            spare.append(scratch)
            with lock:
                add_counts(counts[0].reshape(1, -1), of_place, *paths, rule_packets, rule_bytes)
                rule_packets += counts[1]
                rule_bytes += counts[2]
                if trying:
                    choices[:, a:b] = some
                done += b - a
                report(done)

        chunks = [(a, min(a + CHUNK, n)) for a in range(0, n, CHUNK)]
        workers = min(len(chunks), threads or os.cpu_count() or 1)
        if workers <= 1:
            for bounds in chunks:
                work(bounds)
        else:
            with ThreadPoolExecutor(workers) as pool:
                for _ in pool.map(work, chunks):
                    pass
        for name in KEPT:
            if name in wanted and name not in columns:
                columns[name] = np.zeros(n, np.uint8) if name == "flags" else self.packets.column(name)
        if compiled.given_oif and "oif" in columns:
            as_given = np.flatnonzero(columns["oif"] == AS_GIVEN)
            columns["oif"][as_given] = self.packets.column("oif")[as_given]
        if length is not None:
            rule_bytes = rule_packets * length
        return Run(columns, rule_packets[:self.rules], rule_bytes[:self.rules], choices, forced_rule, forced_hook)


_CONSTANTS: dict[tuple[str, int], Array] = {}


def _constant(dtype: str, value: int) -> Array:
    """A chunk's worth of one value, shared by all chunks."""
    key = (dtype, value)
    found = _CONSTANTS.get(key)
    if found is None:
        if len(_CONSTANTS) > 256:
            _CONSTANTS.clear()
        found = _CONSTANTS[key] = read_only(np.full(CHUNK, value, dtype))
    return found


def _blank(dtype: str) -> Array:
    return _constant(dtype, 0)[:1]
