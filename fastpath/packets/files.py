"""Packets and results as Arrow tables, Parquet and CSV. The only module of this room that needs pyarrow.

The form of files, the same in every format:

- Columns have the schema's names. Only columns that were given are written; one that is absent, and a null or an
  empty field, means the column's default.
- ``iif`` and ``oif`` are interface names (``oif`` null: none), addresses are text, ``state`` is a lower-case word. TCP
  flags are the header's bits as a number. On the way in, numbers may be written as the packet columns allow anywhere:
  ``tcp``, ``SYN,ACK``, ``0x10``; addresses may be integers.
- A boolean column of :attr:`PacketBatch.extra` is called ``extra.NAME``.
- A result has ``verdict`` and ``hook`` as words, ``rule`` as ``"TABLE CHAIN NUMBER"`` (a policy has number 0; null
  where routing decided), ``oif``, ``post_src``, ``post_dst``, ``post_sport``, ``post_dport``, ``post_mark``,
  ``rules_walked`` and ``flags``.
- Where packets stand beside their results, ``oif`` is the result's, and an ``oif`` that the packets brought along is
  called ``given_oif``. Reading such a file as packets skips the result columns and takes ``given_oif`` back.

Text columns with few values are dictionary-encoded in Arrow and Parquet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastpath.errors import PacketError
from fastpath.packets.batch import Names, PacketBatch, interface_codes, numbers_of_words
from fastpath.packets.packet import COLUMNS, column_of
from fastpath.packets.result import rule_label
from fastpath.packets.schema import FILE_NAMES, PACKET_COLUMNS, RESULT_COLUMNS, Column, Hook, State, Verdict
from fastpath.packets.text import format_addresses, is_ip_address, parse_addresses

if TYPE_CHECKING:
    from fastpath.packets.result import Result

Array = npt.NDArray[Any]
GIVEN_OIF = "given_oif"
"""The packets' own ``oif`` in a file that also holds results."""

EXTRA = "extra."
"""Prefix of the boolean columns' names."""

_RESULT_NAMES = frozenset(FILE_NAMES.get(c.name, c.name) for c in RESULT_COLUMNS)

# ------------------------------------------------------------------------------------------------ to Arrow


def packets_to_table(batch: PacketBatch, addresses: str = "text") -> pa.Table:
    """The given columns of a batch as an Arrow table."""
    _check_form(addresses, batch.family)
    columns: dict[str, Any] = {}
    for column in PACKET_COLUMNS:
        if not batch.has(column.name):
            continue
        values = batch.column(column.name)
        if column.kind == "interface":
            columns[column.name] = words_column(values, batch.interfaces)
        elif column.kind == "state":
            columns[column.name] = words_column(values, [s.name.lower() for s in State])
        else:
            columns[column.name] = _plain(column, values, addresses)
    for name, values in batch.extra.items():
        columns[EXTRA + name] = pa.array(values)
    return pa.table(columns)


def result_to_table(result: Result, packets: PacketBatch | None = None, addresses: str = "text") -> pa.Table:
    """A result, behind its packets where they are given, as an Arrow table.

    Raises:
        PacketError: `packets` has another length.
    """
    _check_form(addresses, result.family)
    columns: dict[str, Any] = {}
    if packets is not None:
        if len(packets) != len(result):
            raise PacketError(f"{len(packets)} packets cannot stand beside a result of {len(result)}")
        table = packets_to_table(packets, addresses)
        columns = {GIVEN_OIF if name == "oif" else name: table[name] for name in table.column_names}
    for column in RESULT_COLUMNS:
        if column.name not in result.columns:
            continue
        values = result.column(column.name)
        name = FILE_NAMES.get(column.name, column.name)
        if column.name == "verdict":
            columns[name] = words_column(values, [v.name for v in Verdict])
        elif column.name == "hook":
            columns[name] = words_column(values, [h.name for h in Hook])
        elif column.name == "rule":
            columns[name] = words_column(values, [rule_label(r) for r in result.rules])
        elif column.name == "oif":
            columns[name] = words_column(values, result.interfaces)
        else:
            columns[name] = _plain(column, values, addresses)
    return pa.table(columns)


def _check_form(addresses: str, family: int) -> None:
    if addresses not in ("text", "int") or (addresses == "int" and family != 4):
        raise PacketError(f"addresses {addresses!r} is neither 'text' nor, for IPv4, 'int'")


def words_column(codes: Array, words: Sequence[str]) -> Any:
    """A dictionary column; negative codes are null."""
    dtype = np.int8 if len(words) < 128 else np.int16 if len(words) < 1 << 15 else np.int32
    negative = codes < 0 if codes.dtype.kind == "i" else None
    indices = pa.array(codes.astype(dtype), mask=negative if negative is not None and negative.any() else None)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(words), pa.string()))


def addresses_column(values: Array) -> Any:
    """IPv4 addresses (uint32) as a text column."""
    return _plain(COLUMNS["src"], values, "text")


def _plain(column: Column, values: Array, addresses: str) -> Any:
    if not is_ip_address(column) or addresses == "int":
        return pa.array(np.ascontiguousarray(values))
    data, offsets = format_addresses(values)
    return pa.LargeStringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(data)).cast(pa.string())


# ------------------------------------------------------------------------------------------------ from Arrow


def packets_from_table(source: Any, family: int = 4) -> PacketBatch:
    """Packets of an Arrow table, a record batch, or anything that ``pyarrow.table`` takes.

    Raises:
        PacketError: unknown columns, or values that are not the columns'.
    """
    try:
        table = source if isinstance(source, pa.Table) else pa.table(source)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise PacketError(f"no Arrow table: {error}") from None
    names = table.column_names
    if len(set(names)) != len(names):
        raise PacketError(f"column {next(n for n in names if names.count(n) > 1)} is there twice")
    has_results = "verdict" in names
    columns: dict[str, Any] = {}
    extra: dict[str, Array] = {}
    interfaces = Names(())
    for name in names:
        data = table[name]
        if name.startswith(EXTRA):
            extra[name.removeprefix(EXTRA)] = _booleans(name, data)
            continue
        if has_results and name in _RESULT_NAMES:
            continue
        column = COLUMNS["oif"] if has_results and name == GIVEN_OIF else column_of(name)
        try:
            if column.kind == "interface":
                columns[column.name] = _interfaces(column, data, interfaces)
            elif is_ip_address(column):
                columns[column.name] = _addresses(column, data, family)
            else:
                columns[column.name] = _numbers(column, data)
        except (PacketError, pa.ArrowException, NotImplementedError) as error:
            raise PacketError(f"column {name}: {error}") from None
    return PacketBatch.from_columns(columns, table.num_rows, family, extra, interfaces=interfaces.all)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _booleans(name: str, data: Any) -> Array:
    if _is_text(data.type):  # as CSV has them
        try:
            data = data.cast(pa.bool_())
        except pa.ArrowInvalid as error:
            raise PacketError(f"column {name}: {error}") from None
    if not pa.types.is_boolean(data.type) or data.null_count:
        raise PacketError(f"column {name} must hold true or false in every row")
    values: Array = data.to_numpy()
    return values


def _coded(data: Any) -> tuple[Array, list[Any]]:
    """Codes into distinct values, the last of which is None where there are nulls."""
    if not pa.types.is_dictionary(data.type):
        data = data.dictionary_encode()
    codes: list[Array] = []
    known: dict[Any, int] = {}
    for chunk in data.chunks:
        words = chunk.dictionary.to_pylist()
        table = np.array([known.setdefault(w, len(known)) for w in words] + [-1], np.int64)
        indices = chunk.indices.fill_null(-1) if pa.types.is_signed_integer(chunk.indices.type) else (
            chunk.indices.cast(pa.int64()).fill_null(-1))
        codes.append(table[indices.to_numpy(zero_copy_only=False)])
    row = np.concatenate(codes) if codes else np.zeros(0, np.int64)
    distinct = list(known)
    if len(row) and int(row.min()) < 0:
        row[row < 0] = len(distinct)
        distinct.append(None)
    return row, distinct


def _interfaces(column: Column, data: Any, names: Names) -> Array:
    if not (_is_text(data.type) or pa.types.is_dictionary(data.type) or pa.types.is_null(data.type)):
        raise PacketError(f"interfaces are written as names, not as {data.type}")
    return interface_codes(column, *_coded(data), names)


def _addresses(column: Column, data: Any, family: int) -> Any:
    if pa.types.is_dictionary(data.type):
        data = data.cast(data.type.value_type)
    if not _is_text(data.type):
        return _numbers(column, data)
    data = data.cast(pa.large_string())
    if data.null_count:
        return data.to_pylist()
    parts: list[Array] = []
    start = 0
    for chunk in data.chunks:
        _, offset_buffer, bytes_buffer = chunk.buffers()
        if len(chunk) == 0:
            continue
        offsets = np.frombuffer(offset_buffer, np.int64)[chunk.offset:chunk.offset + len(chunk) + 1]
        raw = np.frombuffer(bytes_buffer, np.uint8) if bytes_buffer is not None else np.zeros(0, np.uint8)
        if np.any(offsets[1:] == offsets[:-1]):
            return [word or None for word in data.to_pylist()]
        try:
            parts.append(parse_addresses(raw, offsets, family))
        except PacketError:
            if start == 0:
                raise
            return data.to_pylist()  # slow, but its message counts rows from the first chunk on
        start += len(chunk)
    if not parts:
        return np.zeros(0 if family == 4 else (0, 4), np.uint32)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _numbers(column: Column, data: Any) -> Any:
    kind = data.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        if data.null_count:
            if column.default is None:
                raise PacketError(f"row {_first_null(data)}: no value, and the column has no default")
            data = data.cast(pa.uint64()).fill_null(column.default)
        return data.to_numpy()
    if pa.types.is_floating(kind):
        return data.to_numpy()
    if pa.types.is_decimal(kind):
        return _numbers(column, data.cast(pa.float64()))
    if _is_text(kind):
        try:
            return _numbers(column, data.cast(pa.uint64()))
        except pa.ArrowInvalid:
            pass
    elif not (pa.types.is_dictionary(kind) or pa.types.is_null(kind)):
        raise PacketError(f"a column of {kind} holds no numbers")
    return numbers_of_words(column, *_coded(data))


def _first_null(data: Any) -> int:
    return int(np.argmax(data.is_null().to_numpy()))


# ------------------------------------------------------------------------------------------------ files


def read_csv(path: str | Path, family: int = 4) -> PacketBatch:
    """Packets of a CSV file with a header line.

    Raises:
        PacketError: not readable as packets.
    """
    from pyarrow import csv

    try:
        with open(path, "rb") as stream:
            names = csv.open_csv(stream).schema.names
        convert = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), null_values=[""],
                                     strings_can_be_null=True, quoted_strings_can_be_null=True)
        table = csv.read_csv(path, convert_options=convert)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise PacketError(f"{path}: {error}") from None
    return _named(path, table, family)


def read_parquet(path: str | Path, family: int = 4) -> PacketBatch:
    """Packets of a Parquet file.

    Raises:
        PacketError: not readable as packets.
    """
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise PacketError(f"{path}: {error}") from None
    return _named(path, table, family)


def read_packets(path: str | Path, family: int = 4) -> PacketBatch:
    """Packets of a file, by its name's end: ``.csv``, or ``.parquet`` (``.pq``).

    Raises:
        PacketError: another end, or not readable as packets.
    """
    return read_csv(path, family) if _format_of(path) == "csv" else read_parquet(path, family)


def write_table(table: pa.Table, path: str | Path, form: str | None = None) -> None:
    """Writes an Arrow table of packets or results.

    Args:
        table: the table.
        path: the file.
        form: ``csv`` or ``parquet``; by the name's end where None.

    Raises:
        PacketError: the file cannot be written.
    """
    from pyarrow import parquet

    try:
        if (form or _format_of(path)) == "parquet":
            parquet.write_table(table, path)
        else:
            write_csv(table, path)
    except (OSError, pa.ArrowException) as error:
        raise PacketError(f"{path}: {error}") from None


def write_csv(table: pa.Table, where: Any, *, header: bool = True) -> None:
    """Writes a table as CSV to a path, or to a new file in memory; quoted only where a name holds a comma or quote."""
    from pyarrow import csv

    plain = [c.cast(pa.string()) if pa.types.is_dictionary(c.type) else c for c in table.columns]
    flat = pa.table(plain, names=table.column_names)
    try:
        csv.write_csv(flat, where, csv.WriteOptions(include_header=header, quoting_style="none", quoting_header="none"))
    except pa.ArrowInvalid:
        if not isinstance(where, str | Path):
            where.seek(0)
            where.truncate()
        csv.write_csv(flat, where, csv.WriteOptions(include_header=header))


def _format_of(path: str | Path) -> str:
    end = Path(path).suffix.lower()
    if end == ".csv":
        return "csv"
    if end in (".parquet", ".pq"):
        return "parquet"
    raise PacketError(f"{path}: a packet file ends in .csv or .parquet")


def _named(path: str | Path, table: pa.Table, family: int) -> PacketBatch:
    try:
        return packets_from_table(table, family)
    except PacketError as error:
        raise PacketError(f"{path}: {error}") from None
