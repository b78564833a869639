"""Results that do not fit into memory, written as they come: one Parquet or CSV file, or a folder of Parquet files.

In a folder, the results of a file have that file's name (with ``.parquet`` at its end); those of other packets are
``part-00000.parquet`` and so on, :data:`PART` packets each. The form of the columns is that of
`fastpath.packets.files`. A file that could not be finished is removed; finished ones stay.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from fastpath.errors import PacketError
from fastpath.packets.batch import PacketBatch
from fastpath.packets.files import result_to_table, write_csv
from fastpath.packets.result import Result

PART = 1 << 24
"""Packets of a file in a folder, where no file's name says how to divide them."""

GROUP = 1 << 20
"""Packets of a row group, at most."""


class _Sink(Protocol):
    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class _Parquet:
    def __init__(self, path: Path, table: pa.Table) -> None:
        from pyarrow import parquet

        self.schema = _schema(table)
        self.writer = parquet.ParquetWriter(path, self.schema)

    def write(self, table: pa.Table) -> None:
        self.writer.write_table(table.cast(self.schema), row_group_size=GROUP)

    def close(self) -> None:
        self.writer.close()


class _Csv:
    def __init__(self, path: Path) -> None:
        self.file = open(path, "wb")  # noqa: SIM115 (closed by close)
        self.header = True

    def write(self, table: pa.Table) -> None:
        text = io.BytesIO()
        write_csv(table, text, header=self.header)
        self.file.write(text.getbuffer())
        self.header = False

    def close(self) -> None:
        self.file.close()


class Writer:
    """Writes results piece by piece; use it in a ``with`` statement."""

    def __init__(self, out: str | Path, *, packets: bool = True, addresses: str = "text") -> None:
        """Opens a place for results.

        Args:
            out: a file that ends in ``.parquet``, ``.pq`` or ``.csv`` (an old one is replaced), or a folder, which must
                be empty or new.
            packets: whether the packets' columns stand in front of their results.
            addresses: ``"text"``, or ``"int"`` for uint32 columns.

        Raises:
            PacketError: a folder that holds something, or a place that cannot be written to.
        """
        self.out = Path(out)
        self.packets = packets
        self.addresses = addresses
        self.single = self.out.suffix.lower() in (".parquet", ".pq", ".csv")
        self._sink: _Sink | None = None
        self._path = self.out
        self._columns: list[str] = []
        self._from: Path | None = None
        self._rows = 0
        self._parts = 0
        if self.single:
            if self.out.is_dir():
                raise PacketError(f"{self.out}: a folder; a folder of results has no .parquet or .csv at its end")
            return
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            held = next(self.out.iterdir(), None)
        except OSError as error:
            raise PacketError(f"{self.out}: {error.strerror or error}") from None
        if held is not None:
            raise PacketError(f"{self.out}: the folder holds {held.name}; results go into an empty or new one")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(failed=kind is not None)

    def write(self, packets: PacketBatch, result: Result, file: Path | None = None) -> None:
        """Writes one piece's result.

        Args:
            packets: the piece.
            result: what became of it.
            file: the file that the piece comes from.

        Raises:
            PacketError: the file cannot be written, or the columns are not those of the pieces before it.
        """
        table = result_to_table(result, packets if self.packets else None, self.addresses)
        try:
            if self._sink is not None and self._begins_another(table, file):
                self._finish()
            if self._sink is None:
                self._open(table, file)
            assert self._sink is not None
            self._sink.write(table)
        except (OSError, pa.ArrowException) as error:
            raise PacketError(f"{self._path}: {error}") from None
        self._rows += len(result)

    def close(self, *, failed: bool = False) -> None:
        """Finishes the file that is open; one that `failed` is removed.

        Raises:
            PacketError: the file cannot be finished.
        """
        if self._sink is None:
            return
        try:
            self._finish()
        except (OSError, pa.ArrowException) as error:
            failed = True
            raise PacketError(f"{self._path}: {error}") from None
        finally:
            if failed:
                self._path.unlink(missing_ok=True)

    def _begins_another(self, table: pa.Table, file: Path | None) -> bool:
        same = table.column_names == self._columns
        if self.single:
            if not same:
                other = sorted(set(table.column_names) ^ set(self._columns))
                raise PacketError(f"{self.out}: packets with and without {', '.join(other)} do not fit into one file: "
                                  "write to a folder")
            return False
        return not same or file != self._from or (file is None and self._rows >= PART)

    def _open(self, table: pa.Table, file: Path | None) -> None:
        self._columns, self._from, self._rows = table.column_names, file, 0
        if not self.single:
            name = f"{file.stem}.parquet" if file is not None else f"part-{self._parts:05d}.parquet"
            self._path = self.out / name
            if self._path.exists():
                raise PacketError(f"{self._path}: two files of packets would have their results here: name them apart")
        self._parts += 1
        self._sink = _Csv(self._path) if self._path.suffix.lower() == ".csv" else _Parquet(self._path, table)

    def _finish(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()


def _schema(table: pa.Table) -> Any:
    """The table's schema with room for words that later pieces add to the dictionaries."""
    return pa.schema([
        pa.field(f.name, pa.dictionary(pa.int32(), pa.string()) if pa.types.is_dictionary(f.type) else f.type)
        for f in table.schema
    ])
