"""The compiled engine: a host's tables, and what runs packets through them.

``compile`` makes an :class:`Engine`; ``Engine.evaluate`` cuts packets into chunks, runs the kernel over them on a pool
of threads (it holds no lock), and tries the choices of undecided rules where there are any. Packets that bring their
egress interface run through tables of their own, compiled when they are first needed.

Safe direction of error: what cannot be told is UNDECIDED and names a rule.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpath.compiler import tables as compiler_tables
from fastpath.compiler.config import Config
from fastpath.compiler.progress import CompileProgress
from fastpath.compiler.tables import KEPT, Compiled, compile_tables
from fastpath.engine.bulk import run_bulk
from fastpath.engine.runner import ALL, Array, Run, Runner
from fastpath.engine.undecided import Chooser, may_be_undecided, may_end_undecided
from fastpath.errors import CompileError, PacketError
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.result import Result, wanted_columns
from fastpath.packets.schema import RESULT_COLUMNS, Verdict
from fastpath.ruleset.model import RuleRef

if TYPE_CHECKING:
    from fastpath.engine.stream import Stream
    from fastpath.packets.packet import Packet

Progress = Callable[[int, int], None]


@dataclass(repr=False)
class Engine:
    """A compiled host.

    Attributes:
        host: what was compiled; None for an engine that was loaded from a file.
        rules: every rule and policy by id.
        compile_seconds: how long the compilation took.
        assume: what was assumed of undecided matches.
        table, chain: the one chain that is evaluated alone, None for the whole path.
    """

    host: Host | None
    rules: tuple[RuleRef, ...]
    complete: bool
    routed: Compiled | None
    given: Compiled | None
    config: Config = field(default_factory=Config)
    assume: Mapping[str | int, str] = field(default_factory=dict)
    table: str | None = None
    chain: str | None = None
    compile_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __repr__(self) -> str:
        what = f"{self.table} {self.chain}" if self.chain is not None else "whole path"
        return f"Engine({what}, {len(self.rules)} rules and policies, {self.nbytes} bytes)"

    @property
    def family(self) -> int:
        """Address family of the packets that it evaluates."""
        return self.host.ruleset.family if self.host is not None else 4

    @property
    def nbytes(self) -> int:
        """Memory of the tables compiled so far, in bytes."""
        return sum(c.nbytes for c in (self.routed, self.given) if c is not None)

    @property
    def structures(self) -> dict[str, str]:
        """Structure chosen for each stage of the way: ``diagram``, ``cross-product``, ``candidates`` or ``linear``."""
        found = self.routed or self.given
        return dict(zip(found.stages, found.structures, strict=True)) if found is not None else {}

    def _compiled(self, given_oif: bool, progress: CompileProgress | None = None) -> Compiled:
        with self._lock:
            found = self.given if given_oif else self.routed
            if found is None:
                if self.host is None:
                    raise CompileError("the saved engine holds no tables for packets with an oif column: compile the "
                                       "host and evaluate such packets once before saving")
                try:
                    found = compile_tables(
                        self.host, table=self.table, chain=self.chain, assume=self.assume, given_oif=given_oif,
                        config=self.config, progress=progress,
                    )
                except RecursionError:
                    raise CompileError("chains nest too deeply to be compiled: some hundred jumps at most") from None
                if given_oif:
                    self.given = found
                else:
                    self.routed = found
            return found

    # ------------------------------------------------------------------------------------------------ evaluation

    def evaluate(
        self, packets: PacketBatch, *, columns: Iterable[str] | None = None, counters: bool = True,
        threads: int | None = None, progress: Progress | None = None,
    ) -> Result:
        """The fate of every packet.

        Args:
            packets: any number of packets.
            columns: names of the result columns that are wanted, all by default; the others are not held, nor computed
                as far as that can be left out.
            counters: whether to count packets and bytes by rule.
            threads: worker threads, by default one for each processor.
            progress: called with (packets done, packets in all) after each chunk.

        Raises:
            PacketError: packets without an egress interface on a host whose routes are not known, or without a
                boolean column that was assumed; an unknown result column.
        """
        wanted = wanted_columns(columns)
        n = len(packets)
        if n and packets.family != self.family:
            raise PacketError(f"these are IPv{packets.family} packets, and the ruleset is of family {self.family}")
        interfaces = list(packets.interfaces)
        parts: list[tuple[Compiled, Array | None]] = []
        some, every = _given(packets, "oif") if packets.has("oif") and n else (False, False)
        if not self.complete and not every and not self._needs_no_route() and n:
            raise PacketError("the host's routes are not known: give the packets an oif column (an interface name, or "
                              "local for what is delivered to the host)")
        if n == 0 and self.host is None and self.routed is None:
            parts.append((self._compiled(True), None))
        elif not some:
            parts.append((self._compiled(False), None))
        elif every:
            parts.append((self._compiled(True), None))
        else:
            given = packets.column("oif") >= 0
            parts.append((self._compiled(False), np.flatnonzero(~given)))
            parts.append((self._compiled(True), np.flatnonzero(given)))
        out = {c.name: np.empty(n, c.dtype) for c in RESULT_COLUMNS if c.name in wanted} if len(parts) > 1 else {}
        rule_packets = np.zeros(len(self.rules), np.int64)
        rule_bytes = np.zeros(len(self.rules), np.int64)
        done = 0
        for compiled, rows in parts:
            here = packets if rows is None else packets.take(rows)

            def report(now: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + now, n)

            found = self._evaluate_part(compiled, here, interfaces, threads, report, wanted, counters)
            done += len(here)
            rule_packets += found.rule_packets
            rule_bytes += found.rule_bytes
            if rows is None:
                out = found.columns
            else:
                for name, values in found.columns.items():
                    out[name][rows] = values
        counted = (rule_packets, rule_bytes) if counters else (None, None)
        return Result(out, tuple(interfaces), self.rules, *counted, partial=True)

    def evaluate_stream(
        self, source: Any, *, columns: Iterable[str] | None = None, counters: bool = True,
        threads: int | None = None, rows: int | None = None, progress: Progress | None = None,
    ) -> Stream:
        """Evaluates more packets than memory holds, piece by piece; nothing is read before the stream is used.

        Args:
            source: a packet file (Parquet or CSV), a folder of them, or batches: an iterator of PacketBatch or of
                anything that hands out Arrow data.
            columns, counters, threads: as in :meth:`evaluate`.
            rows: packets of a piece, a million by default; memory grows with it and not with the number of packets.
            progress: called with (packets done, packets in all or 0 where that is not known) after each piece.

        Returns:
            A stream: iterate over it for (packets, result) pairs, ``write`` it to a file or folder, or ``run`` it for
            its ``totals``: the summary and the counters over everything.

        Raises:
            PacketError: no such file or folder, or an unknown result column. What is read while the stream is used
                may raise it too; the message names the file and the row group.
        """
        from fastpath.engine.stream import Stream
        from fastpath.packets.pieces import ROWS

        if rows is not None and rows < 1:
            raise PacketError(f"pieces of {rows} packets: one at least is needed")
        return Stream(self, source, columns, counters, threads, rows or ROWS, progress)

    def _needs_no_route(self) -> bool:
        return self.chain in ("PREROUTING", "INPUT")

    def _evaluate_part(
        self, compiled: Compiled, packets: PacketBatch, interfaces: list[str], threads: int | None,
        report: Callable[[int], None], wanted: frozenset[str], counters: bool,
    ) -> Run:
        found = run_bulk(compiled, packets, interfaces, threads, report, wanted, counters, len(self.rules))
        if found is None:
            return self._evaluate_general(compiled, packets, interfaces, threads, report, wanted, counters)
        run = Run.of(found.columns, found.rule_packets, found.rule_bytes)
        if len(found.hard):
            few = packets.take(found.hard)
            rest = self._evaluate_general(compiled, few, interfaces, threads, lambda _: None, wanted, counters)
            for name, values in rest.columns.items():
                if not run.columns[name].flags.writeable:
                    run.columns[name] = run.columns[name].copy()
                run.columns[name][found.hard] = values
            run.rule_packets += rest.rule_packets
            run.rule_bytes += rest.rule_bytes
        return run

    def _evaluate_general(
        self, compiled: Compiled, packets: PacketBatch, interfaces: list[str], threads: int | None,
        report: Callable[[int], None], wanted: frozenset[str], counters: bool,
    ) -> Run:
        """By the general kernel, which can do everything."""
        undecided = may_be_undecided(compiled)
        lossy = may_end_undecided(compiled)
        run = Runner(compiled, packets, interfaces, len(self.rules)).run(
            threads, report, wanted=ALL if lossy else wanted, counters=counters, trying=undecided)
        if undecided and len(packets):
            Chooser(compiled, packets, interfaces, run, len(self.rules), threads).run()
        lost = np.zeros(0, np.int64)
        if lossy:
            lost = np.flatnonzero(run.columns["verdict"] == Verdict.UNDECIDED)
        if len(lost):
            for name in ("src", "dst", "sport", "dport", "mark"):
                if name not in KEPT or name in compiled.written:
                    run.columns[name][lost] = packets.column(name)[lost]
            run.columns["oif"][lost] = -1
            run.columns["flags"][lost] = 0
        run.columns = {name: values for name, values in run.columns.items() if name in wanted}
        return run

    # ----------------------------------------------------------------------------------------------- around it

    def warm_up(self) -> None:
        """Loads the compiled kernels; where the cache holds none for this machine, compiles them (half a minute)."""
        compiled = self.routed or self.given or self._compiled(not self.complete)
        packet = PacketBatch.from_columns(
            {"iif": "lo", "src": 0, "dst": 0, "proto": 6}, 1, extra=dict.fromkeys(compiled.extras, False))
        Runner(compiled, packet, [], len(self.rules)).run(1, lambda _: None)

    def explain(self, packet: Packet) -> Any:
        """Hook by hook what happens to a packet (see :func:`fastpath.analysis.explain.explain`).

        Raises:
            CompileError: the engine was loaded from a file and has no host.
        """
        from fastpath.analysis.explain import explain

        if self.host is None:
            raise CompileError("a loaded engine has no rules to explain with: compile the host")
        return explain(self.host, packet, assume=dict(self.assume), table=self.table, chain=self.chain)

    def save(self, path: str | Path) -> None:
        """Writes the tables to a file that :func:`load_engine` reads."""
        meta = {
            "label": compiler_tables.LABEL, "version": compiler_tables.VERSION, "complete": self.complete,
            "table": self.table, "chain": self.chain, "assume": list(self.assume.items()),
            "compile_seconds": self.compile_seconds,
            "rules": [[r.table, r.chain, r.number, r.text] for r in self.rules],
        }
        arrays = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
        for prefix, compiled in (("routed.", self.routed), ("given.", self.given)):
            if compiled is not None:
                arrays |= compiler_tables.to_arrays(compiled, prefix)
        with open(path, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _given(packets: PacketBatch, name: str) -> tuple[bool, bool]:
    """(whether some packets have an interface in a column, whether all have)."""
    value = packets.constant(name)
    if value is not None:
        return value >= 0, value >= 0
    values = packets.column(name)
    every = int(values.min()) >= 0
    return every or int(values.max()) >= 0, every


def load_engine(path: str | Path) -> Engine:
    """An engine that :meth:`Engine.save` wrote. It evaluates; it cannot explain or be compiled further.

    Raises:
        CompileError: no such file, not an engine, or one of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(bytes(arrays["meta"]))
        label, version = meta["label"], meta["version"]
    except OSError as error:
        raise CompileError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # numpy, zipfile and zlib have exceptions of their own for what is no archive
        raise CompileError(f"{path} is no saved engine: Engine.save writes them") from error
    if label != compiler_tables.LABEL:
        raise CompileError(f"{path} is no saved engine: Engine.save writes them")
    if version != compiler_tables.VERSION:
        raise CompileError(f"{path} has tables of version {version}, this fastpath reads version "
                           f"{compiler_tables.VERSION}: compile the host again")
    try:
        ways = {
            prefix: compiler_tables.from_arrays(arrays, prefix)
            for prefix in ("routed.", "given.") if f"{prefix}meta" in arrays
        }
        return Engine(
            None, tuple(RuleRef(i, *r) for i, r in enumerate(meta["rules"])), meta["complete"],
            ways.get("routed."), ways.get("given."), table=meta["table"], chain=meta["chain"],
            assume=dict(meta["assume"]), compile_seconds=meta["compile_seconds"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CompileError(f"{path} is a damaged engine: {error} is missing or wrong") from error


def compile(  # noqa: A001 (the public name, as in re.compile)
    host: Host,
    *,
    table: str | None = None,
    chain: str | None = None,
    assume: Mapping[str | int, str] | None = None,
    config: Config | None = None,
    progress: CompileProgress | None = None,
) -> Engine:
    """Compiles a host into decision tables.

    Args:
        host: rules and surroundings.
        table, chain: evaluate this one chain alone instead of the whole path.
        assume: what to assume of undecided matches: module name or rule id -> ``match``, ``no-match`` or
            ``column:NAME`` (a boolean column of the packets).
        config: size limits, and which structures are taken.
        progress: called now and then with what is being done (``rules``, ``values``, ``stage NAME``, ``tables``) and
            the part of the whole that is done, from 0 to 1; the latter is an estimate that never falls.

    Raises:
        CompileError: no such chain, or an assumption that is none of the three.
    """
    started = time.perf_counter()
    if host.ruleset.family != 4:
        raise CompileError("IPv6 rulesets can be read and printed, but not compiled yet")
    if (table is None) != (chain is None):
        raise CompileError("a chain alone needs both its table and its name")
    if table is not None and chain is not None:
        found = host.ruleset.table(table)
        if found is None or found.chain(chain) is None:
            raise CompileError(f"there is no chain {chain} in table {table}")
    checked: dict[str | int, str] = {}
    for key, how in (assume or {}).items():
        if how not in ("match", "no-match") and (not how.startswith("column:") or how == "column:"):
            raise CompileError(f"cannot assume {how!r} of {key}: say match, no-match or column:NAME")
        if isinstance(key, int) and not 0 <= key < len(host.ruleset.refs()):
            raise CompileError(f"cannot assume anything of rule {key}: ids are below {len(host.ruleset.refs())}")
        checked[key] = how
    engine = Engine(
        host, host.ruleset.refs(), host.complete, None, None, config or Config(), checked, table, chain
    )
    engine._compiled(not host.complete and chain not in ("PREROUTING", "INPUT"), progress)
    engine.compile_seconds = time.perf_counter() - started
    return engine
