"""Packets that do not fit into memory: read piece by piece from files, folders, batches, Arrow data.

A piece has never more packets than were asked for. Parquet files are read by row group, through a small buffer, so that
memory does not grow with the file or its row groups. Errors name the file, the row group, and the row of it from which
the rows in the rest of the message are counted. Every file gives one piece at least, if an empty one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from fastpath.errors import PacketError
from fastpath.packets.batch import PacketBatch
from fastpath.packets.files import packets_from_table

ROWS = 1 << 20
"""Packets of a piece, at most."""

BUFFER = 1 << 20
"""Bytes that are read at a time from each column of a Parquet file."""

_CSV_BLOCK = 1 << 24
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class Piece:
    """Some packets, and the file that they come from (None: from no file)."""

    packets: PacketBatch
    file: Path | None


def is_file_source(source: object) -> bool:
    """Whether `source` names a file or a folder."""
    return isinstance(source, str | os.PathLike)


def pieces(source: Any, rows: int = ROWS, family: int = 4) -> Iterator[Piece]:
    """Packets piece by piece.

    Args:
        source: a packet file (``.parquet``, ``.pq``, ``.csv``); a folder of them, taken in order of their names, those
            that begin with ``.`` or ``_`` left out; a batch, or what hands out Arrow data; an iterator of such.
        rows: packets of a piece, at most; a batch or row group is cut where it has more, and not joined with the next.
        family: 4 or 6.

    Raises:
        PacketError: not readable as packets.
    """
    if is_file_source(source):
        for path in files_of(source):
            yield from (_csv if path.suffix.lower() == ".csv" else _parquet)(path, rows, family)
        return
    if isinstance(source, PacketBatch | pa.RecordBatch):
        source = (source,)
    elif hasattr(source, "__arrow_c_stream__"):
        source = pa.RecordBatchReader.from_stream(source)
    elif not isinstance(source, Iterable):
        raise PacketError(f"{type(source).__name__} is no source of packets: give a file, a folder, or batches of them")
    for number, item in enumerate(source):
        for start in range(0, max(1, len(item)), rows):
            yield Piece(_batch(item, start, rows, number, family), None)


def files_of(source: Any) -> list[Path]:
    """The files that a path stands for: itself, or a folder's packet files in order of their names.

    Raises:
        PacketError: no such file, an empty folder, or something in it that is no packet file.
    """
    path = Path(source)
    if not path.is_dir():
        if not path.exists():
            raise PacketError(f"{path}: no such file or folder")
        _check_end(path)
        return [path]
    found = sorted(p for p in path.iterdir() if not p.name.startswith((".", "_")))
    for each in found:
        _check_end(each)
    if not found:
        raise PacketError(f"{path}: no packet files in it; their names end in .parquet or .csv")
    return found


def count_rows(source: Any) -> int | None:
    """How many packets a file or folder holds, where its files say so (Parquet), else None."""
    if isinstance(source, PacketBatch | pa.Table | pa.RecordBatch):
        return len(source)
    if not is_file_source(source):
        return None
    from pyarrow import parquet

    total = 0
    for path in files_of(source):
        if path.suffix.lower() not in _PARQUET:
            return None
        try:
            total += parquet.read_metadata(path).num_rows
        except (OSError, pa.ArrowException) as error:
            raise PacketError(f"{path}: {error}") from None
    return total


def _check_end(path: Path) -> None:
    if path.is_dir() or path.suffix.lower() not in (*_PARQUET, ".csv"):
        raise PacketError(f"{path}: a packet file ends in .parquet or .csv")


def _batch(item: Any, start: int, rows: int, number: int, family: int) -> PacketBatch:
    if isinstance(item, PacketBatch):
        if item.family != family:
            raise PacketError(f"batch {number}: these are IPv{item.family} packets, where IPv{family} is expected")
        return item if start == 0 and len(item) <= rows else item[start:start + rows]
    try:
        if isinstance(item, pa.RecordBatch):
            item = pa.Table.from_batches([item])
        elif not isinstance(item, pa.Table):
            item = pa.table(item)
        return packets_from_table(item.slice(start, rows), family)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise PacketError(f"batch {number}: no packets: {error}") from None
    except PacketError as error:
        raise PacketError(f"batch {number}{f', from its row {start} on' if start else ''}: {error}") from None


def _parquet(path: Path, rows: int, family: int) -> Iterator[Piece]:
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
        if file.metadata.num_rows == 0:
            yield Piece(packets_from_table(file.schema_arrow.empty_table(), family), path)
    except (PacketError, OSError, pa.ArrowException) as error:
        raise PacketError(f"{path}: {error}") from None
    with file:
        for group in range(file.num_row_groups):
            row = 0
            try:
                for batch in file.iter_batches(rows, row_groups=[group]):
                    yield Piece(packets_from_table(pa.Table.from_batches([batch]), family), path)
                    row += len(batch)
            except (PacketError, OSError, pa.ArrowException) as error:
                start = f", from its row {row} on" if row else ""
                raise PacketError(f"{path}: row group {group}{start}: {error}") from None


def _csv(path: Path, rows: int, family: int) -> Iterator[Piece]:
    from pyarrow import csv

    row = 0
    try:
        with open(path, "rb") as stream:
            names = csv.open_csv(stream).schema.names
        convert = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), null_values=[""],
                                     strings_can_be_null=True, quoted_strings_can_be_null=True)
        with csv.open_csv(path, csv.ReadOptions(block_size=_CSV_BLOCK), convert_options=convert) as reader:
            packets_from_table(reader.schema.empty_table(), family)
            for batch in reader:
                for start in range(0, len(batch), rows):
                    table = pa.Table.from_batches([batch.slice(start, rows)])
                    yield Piece(packets_from_table(table, family), path)
                    row += len(table)
        if row == 0:
            yield Piece(PacketBatch.empty(family), path)
    except (PacketError, OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise PacketError(f"{path}: {f'from row {row} on: ' if row else ''}{error}") from None
