"""Evaluation of more packets than memory holds: piece by piece, and written behind.

A piece is read and evaluated while a thread writes the one before. Hence three pieces at most are in memory, whatever
the number of packets: with all columns, and addresses read and written as text, up to 300 bytes a packet each, so some
900 MB for pieces of a million; 500 MB with addresses as numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpath.errors import PacketError
from fastpath.packets.result import COLUMNS, Result, wanted_columns
from fastpath.packets.totals import Totals

if TYPE_CHECKING:
    from fastpath.engine.core import Engine
    from fastpath.packets.batch import PacketBatch
    from fastpath.packets.pieces import Piece

Progress = Callable[[int, int], None]


class Stream:
    """Packets under evaluation (:meth:`Engine.evaluate_stream` makes it); to be used once, in one of three ways.

    Iterate over it for ``(packets, result)`` of each piece, :meth:`write` the results, or :meth:`run` for the sums.

    Attributes:
        totals: the sums over what has been evaluated so far.
        seconds: time that the evaluation itself took so far.
        expected: number of packets, where the source knows it before it is read.
    """

    def __init__(
        self, engine: Engine, source: Any, columns: Iterable[str] | None, counters: bool, threads: int | None,
        rows: int, progress: Progress | None,
    ) -> None:
        wanted = wanted_columns(columns)
        self.engine = engine
        self.columns = tuple(name for name in COLUMNS if name in wanted)
        self.counters, self.threads, self.rows, self.progress = counters, threads, rows, progress
        self.totals = Totals(engine.rules, self.columns, counters=counters)
        self.seconds = 0.0
        from fastpath.packets.pieces import count_rows, pieces

        self.expected = count_rows(source)
        self._pieces: Iterator[Piece] = pieces(source, rows, engine.family)

    def __iter__(self) -> Iterator[tuple[PacketBatch, Result]]:
        return ((piece.packets, result) for piece, result in self._evaluated())

    def run(self) -> Totals:
        """Evaluates everything and keeps the sums.

        Raises:
            PacketError: packets that cannot be read or evaluated; the message names the file and the row group.
        """
        for _ in self._evaluated():
            pass
        return self.totals

    def write(self, out: str | Path, *, packets: bool = True, addresses: str = "text") -> Totals:
        """Evaluates everything and writes the results.

        Args:
            out: a file that ends in ``.parquet``, ``.pq`` or ``.csv``, or an empty or new folder, where the results of
                a file have that file's name.
            packets: whether the packets' columns stand in front of their results.
            addresses: ``"text"``, or ``"int"`` for uint32 columns, which are made and read several times as fast.

        Raises:
            PacketError: as :meth:`run`; or `out` cannot be written. A file that was not finished is removed.
        """
        from fastpath.packets.writer import Writer

        with Writer(out, packets=packets, addresses=addresses) as writer, ThreadPoolExecutor(1) as behind:
            before: Future[None] | None = None
            for piece, result in self._evaluated():
                if before is not None:
                    before.result()
                before = behind.submit(writer.write, piece.packets, result, piece.file)
            if before is not None:
                before.result()
            else:
                self._write_nothing(writer)
        return self.totals

    def _write_nothing(self, writer: Any) -> None:
        from fastpath.packets.batch import PacketBatch

        nothing = PacketBatch.empty(self.engine.family)
        writer.write(nothing, self.engine.evaluate(nothing, columns=self.columns, counters=self.counters))

    def _evaluated(self) -> Iterator[tuple[Piece, Result]]:
        for piece in self._pieces:
            start = time.perf_counter()
            try:
                result = self.engine.evaluate(
                    piece.packets, columns=self.columns, counters=self.counters, threads=self.threads)
            except PacketError as error:
                raise PacketError(f"{piece.file}: {error}" if piece.file is not None else str(error)) from None
            self.seconds += time.perf_counter() - start
            self.totals.add(result)
            if self.progress is not None:
                self.progress(self.totals.packets, self.expected or 0)
            yield piece, result
