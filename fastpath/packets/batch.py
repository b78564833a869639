"""Many packets as columns.

Invariants of a :class:`PacketBatch`, on which the engines rely:

- every column has the schema's dtype and the batch's length; an address column of family 6 has shape (n, 4);
- every array is read-only, and C-contiguous where the batch holds it as an array (a constant or default column is
  broadcast on demand and needs no memory);
- every value is in its column's range, and interface codes index ``interfaces`` (-1, "none", only in ``oif``).

Values are checked on the way in; whatever cannot be read is a :class:`~fastpath.errors.PacketError` that names the
column and the row. Safe direction of error: refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from fastpath.errors import PacketError
from fastpath.packets.packet import COLUMNS, Packet, column_of, read_value
from fastpath.packets.schema import PACKET_COLUMNS, Column, State
from fastpath.packets.text import address_at, is_ip_address, join_strings, limit, parse_addresses, words_of

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]
_ITERATION_BLOCK = 4096
_STATES = tuple(State)


class PacketBatch:
    """Packets as columns; build one with :meth:`from_columns`, :meth:`from_dicts`, :meth:`from_arrow` or a file reader.

    Attributes:
        interfaces: the names that the codes of ``iif`` and ``oif`` index; ``"local"`` is an ordinary member.
        family: 4 or 6.
        extra: boolean columns of any name, each of shape (n,): outcomes of tests that a packet's header cannot tell.
    """

    __slots__ = ("_arrays", "_constants", "_n", "extra", "family", "interfaces")

    def __init__(
        self,
        n: int,
        arrays: Mapping[str, Array],
        constants: Mapping[str, int],
        interfaces: Sequence[str],
        *,
        family: int = 4,
        extra: Mapping[str, Array] | None = None,
    ) -> None:
        """Wraps columns that already fulfil the invariants; :meth:`from_columns` is the checked way.

        Args:
            n: number of packets.
            arrays: columns with the schema's dtype and shape.
            constants: columns with one value for all packets; interface columns as codes, addresses as integers.
            interfaces: names of the interface codes.
            family: 4 or 6.
            extra: boolean columns.
        """
        self._n = n
        self._arrays = {name: _frozen(values) for name, values in arrays.items()}
        self._constants = dict(constants)
        self.interfaces: tuple[str, ...] = tuple(interfaces)
        self.family = family
        self.extra: dict[str, Array] = {name: _frozen(values) for name, values in (extra or {}).items()}

    # -------------------------------------------------------------------------------------------- building

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        n: int | None = None,
        family: int = 4,
        extra: Mapping[str, Any] | None = None,
        *,
        interfaces: Sequence[str] = (),
    ) -> PacketBatch:
        """Packets from columns by schema name.

        A value is a numpy array, a sequence, or one scalar for all packets. Numbers may be text as in files: addresses
        dotted, protocols by name, TCP flags as ``"SYN,ACK"``, states as words; None and NaN stand for the default.
        Interface columns are names, or integer codes into `interfaces`. IPv6 addresses are text, integers, or a
        uint32 array of shape (n, 4). Arrays that already have the column's dtype are not copied.

        Args:
            columns: values by column name; iif, src, dst and proto are required.
            n: number of packets, needed only where every column is a scalar.
            family: 4 or 6.
            extra: boolean columns by any name.
            interfaces: names that integer interface codes index.

        Raises:
            PacketError: unknown or missing column, wrong length, type, text or range.
        """
        if family not in (4, 6):
            raise PacketError(f"family {family!r} is neither 4 nor 6")
        given = {column_of(name).name: value for name, value in columns.items()}
        for column in PACKET_COLUMNS:
            if column.default is None and given.get(column.name) is None:
                raise PacketError(f"column {column.name} is missing: {column.meaning}")
        boolean = dict(extra or {})
        rows = _count(given, boolean, n)
        names = Names(interfaces)
        arrays: dict[str, Array] = {}
        constants: dict[str, int] = {}
        for name, value in given.items():
            column = COLUMNS[name]
            if value is None:
                continue
            try:
                if _is_scalar(value):
                    constants[name] = (names.code(column, value) if column.kind == "interface"
                                       else read_value(column, value, family))
                elif column.kind == "interface":
                    arrays[name] = _interface_column(column, value, names)
                elif is_ip_address(column):
                    arrays[name] = _address_column(column, value, family)
                else:
                    arrays[name] = _number_column(column, value)
            except PacketError as error:
                raise PacketError(f"column {name}: {error}") from None
        return cls(rows, arrays, constants, names.all, family=family,
                   extra={name: _boolean_column(name, value, rows) for name, value in boolean.items()})

    @classmethod
    def from_dicts(cls, rows: Iterable[Mapping[str, Any]], family: int = 4) -> PacketBatch:
        """Packets from mappings of column names to values, one each; a column that a row lacks has its default.

        Raises:
            PacketError: as :meth:`from_columns`.
        """
        rows = list(rows)
        names = dict.fromkeys(name for row in rows for name in row)
        for name in names:
            column_of(name)
        if not rows:
            return cls.empty(family)
        columns = {name: [row.get(name) for row in rows] for name in names}
        return cls.from_columns(columns, len(rows), family)

    @classmethod
    def from_packets(cls, packets: Iterable[Packet]) -> PacketBatch:
        """Packets one by one, all of one family.

        Raises:
            PacketError: the families differ, or a value is out of range.
        """
        packets = list(packets)
        if not packets:
            return cls.empty()
        family = packets[0].family
        if any(p.family != family for p in packets):
            raise PacketError("packets of both families cannot share a batch")
        columns: dict[str, Any] = {}
        for column in PACKET_COLUMNS:
            values = [getattr(p, column.name) for p in packets]
            if any(v is not None and v != column.default for v in values):
                columns[column.name] = values
        for column in PACKET_COLUMNS:
            if column.default is None:
                columns.setdefault(column.name, [getattr(p, column.name) for p in packets])
        names = dict.fromkeys(name for p in packets for name in p.extra)
        extra = {name: [bool(p.extra.get(name, False)) for p in packets] for name in names}
        return cls.from_columns(columns, len(packets), family, extra)

    @classmethod
    def empty(cls, family: int = 4) -> PacketBatch:
        """No packets."""
        required: dict[str, Any] = {c.name: [] for c in PACKET_COLUMNS if c.default is None}
        return cls.from_columns(required, 0, family)

    @classmethod
    def concat(cls, batches: Sequence[PacketBatch]) -> PacketBatch:
        """Batches one behind the other. Interface dictionaries are merged; a column constant in all with one value
        stays constant; an ``extra`` column that a batch lacks is False there.

        Raises:
            PacketError: no batch at all, or different families.
        """
        if not batches:
            raise PacketError("there is no batch to concatenate")
        family = batches[0].family
        if any(b.family != family for b in batches):
            raise PacketError("batches of both families cannot be concatenated")
        names = Names(())
        maps = [np.array([names.add(name) for name in b.interfaces] + [-1], np.int16) for b in batches]
        arrays: dict[str, Array] = {}
        constants: dict[str, int] = {}
        for column in PACKET_COLUMNS:
            name = column.name
            if not any(b.has(name) for b in batches):
                continue
            same = [b.constant(name) for b in batches]
            if column.kind == "interface":
                same = [None if c is None else int(m[c]) for c, m in zip(same, maps, strict=True)]
            if same[0] is not None and all(c == same[0] for c in same):
                constants[name] = same[0]
            elif column.kind == "interface":
                arrays[name] = np.concatenate([m[b.column(name)] for b, m in zip(batches, maps, strict=True)])
            else:
                arrays[name] = np.concatenate([b.column(name) for b in batches])
        extra = {name: np.concatenate([b.extra.get(name, np.zeros(len(b), np.bool_)) for b in batches])
                 for name in dict.fromkeys(name for b in batches for name in b.extra)}
        return cls(sum(map(len, batches)), arrays, constants, names.all, family=family, extra=extra)

    # -------------------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        return self._n

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the columns hold."""
        return sum(a.nbytes for a in self._arrays.values()) + sum(a.nbytes for a in self.extra.values())

    def has(self, name: str) -> bool:
        """Whether a column was given (as an array or a constant) rather than defaulted."""
        column_of(name)
        return name in self._arrays or name in self._constants

    def constant(self, name: str) -> int | None:
        """The value that all packets share, where the column was given as a constant or has its default; else None.

        An interface column gives its code, an address an integer of 32 or 128 bits.
        """
        column = column_of(name)
        if name in self._arrays:
            return None
        return self._constants.get(name, column.default)

    def column(self, name: str) -> Array:
        """A column: read-only, the schema's dtype, length n (shape (n, 4) for an IPv6 address).

        Raises:
            PacketError: an unknown column.
        """
        found = self._arrays.get(name)
        if found is not None:
            return found
        column = column_of(name)
        value = self.constant(name)
        assert value is not None  # required columns are arrays or constants
        if self.family == 6 and is_ip_address(column):
            return np.broadcast_to(words_of(value), (self._n, 4))
        return np.broadcast_to(np.array(value, column.dtype), (self._n,))

    @overload
    def __getitem__(self, index: int) -> Packet: ...
    @overload
    def __getitem__(self, index: slice) -> PacketBatch: ...
    def __getitem__(self, index: int | slice) -> Packet | PacketBatch:
        if isinstance(index, slice):
            rows = range(*index.indices(self._n))
            return self._map(len(rows), lambda a: np.ascontiguousarray(a[index]))
        row = index.__index__()
        if not -self._n <= row < self._n:
            raise IndexError(f"packet {row} of {self._n}")
        row %= self._n
        return next(self._packets(row, row + 1))

    def __iter__(self) -> Iterator[Packet]:
        for start in range(0, self._n, _ITERATION_BLOCK):
            yield from self._packets(start, min(self._n, start + _ITERATION_BLOCK))

    def take(self, indices: npt.ArrayLike) -> PacketBatch:
        """The packets at `indices`, in that order; a boolean array of length n selects instead.

        Raises:
            PacketError: an index out of range, or a selection of another length.
        """
        rows = np.asarray(indices)
        if rows.dtype == np.bool_:
            if rows.shape != (self._n,):
                raise PacketError(f"a selection of shape {rows.shape} does not fit {self._n} packets")
            rows = np.flatnonzero(rows)
        elif rows.size == 0:
            rows = rows.astype(np.intp)
        elif rows.dtype.kind not in "iu" or rows.ndim != 1:
            raise PacketError("indices must be one row of integers")
        elif int(rows.max()) >= self._n or int(rows.min()) < -self._n:
            raise PacketError(f"an index is out of range for {self._n} packets")
        return self._map(len(rows), lambda a: a[rows])

    def equals(self, other: PacketBatch) -> bool:
        """Whether both hold the same packets, row by row; how interfaces are coded and whether a column is constant,
        defaulted or an array plays no part."""
        if len(self) != len(other) or self.family != other.family or self.extra.keys() != other.extra.keys():
            return False
        if any(not np.array_equal(self.extra[name], other.extra[name]) for name in self.extra):
            return False
        names = Names(self.interfaces)
        codes = np.array([names.add(name) for name in other.interfaces] + [-1], np.int16)
        for column in PACKET_COLUMNS:
            theirs = other.column(column.name)
            if column.kind == "interface":
                theirs = codes[theirs]
            if not np.array_equal(self.column(column.name), theirs):
                return False
        return True

    def __repr__(self) -> str:
        given = [c.name for c in PACKET_COLUMNS if self.has(c.name)]
        return f"PacketBatch({self._n} packets; {', '.join(given)})"

    def _map(self, n: int, change: Any) -> PacketBatch:
        return PacketBatch(n, {k: change(v) for k, v in self._arrays.items()}, self._constants, self.interfaces,
                           family=self.family, extra={k: change(v) for k, v in self.extra.items()})

    def _packets(self, start: int, stop: int) -> Iterator[Packet]:
        """The rows from `start` to `stop`, converted by the column. Packet's fields are in the schema's order."""
        names: tuple[str | None, ...] = (*self.interfaces, None)
        columns: list[Iterable[Any]] = []
        for column in PACKET_COLUMNS:
            array = self._arrays.get(column.name)
            values: list[Any]
            if array is None:
                values = [self.constant(column.name)]
            elif array.ndim == 2:
                values = [address_at(array, row) for row in range(start, stop)]
            else:
                values = array[start:stop].tolist()
            if column.kind == "interface":
                values = [names[v] for v in values]
            elif column.kind == "state":
                values = [_STATES[v] for v in values]
            columns.append(repeat(values[0], stop - start) if array is None else values)
        extra = {name: values[start:stop].tolist() for name, values in self.extra.items()}
        columns.append(repeat(self.family, stop - start))
        columns.append({name: values[row] for name, values in extra.items()} for row in range(stop - start))
        for fields in zip(*columns, strict=True):
            yield Packet(*fields)

    # -------------------------------------------------------------------------------------------- tables and files

    @classmethod
    def from_arrow(cls, table: Any, family: int = 4) -> PacketBatch:
        """Packets of an Arrow table, or of anything that hands out Arrow data (record batches, polars, pandas).

        Columns have the names and forms of files (see `fastpath.packets.files`).

        Raises:
            PacketError: as :meth:`from_columns`.
        """
        from fastpath.packets.files import packets_from_table

        return packets_from_table(table, family)

    @classmethod
    def from_pandas(cls, frame: Any, family: int = 4) -> PacketBatch:
        """Packets of a pandas data frame; its index is ignored.

        Raises:
            PacketError: as :meth:`from_columns`.
        """
        import pyarrow as pa

        return cls.from_arrow(pa.Table.from_pandas(frame, preserve_index=False), family)

    @classmethod
    def from_polars(cls, frame: Any, family: int = 4) -> PacketBatch:
        """Packets of a polars data frame.

        Raises:
            PacketError: as :meth:`from_columns`.
        """
        return cls.from_arrow(frame.to_arrow(), family)

    def to_arrow(self, *, addresses: str = "text") -> pa.Table:
        """The given columns as an Arrow table, in the form of files.

        Args:
            addresses: ``"text"``, or ``"int"`` for uint32 columns (family 4 only): four times as compact to build.
        """
        from fastpath.packets.files import packets_to_table

        return packets_to_table(self, addresses)

    @classmethod
    def read_csv(cls, path: str | Path, family: int = 4) -> PacketBatch:
        """Packets of a CSV file with a header line; an empty field is the column's default.

        Raises:
            PacketError: not readable as packets; the message names the file.
        """
        from fastpath.packets.files import read_csv

        return read_csv(path, family)

    @classmethod
    def read_parquet(cls, path: str | Path, family: int = 4) -> PacketBatch:
        """Packets of a Parquet file.

        Raises:
            PacketError: not readable as packets; the message names the file.
        """
        from fastpath.packets.files import read_parquet

        return read_parquet(path, family)

    def write_csv(self, path: str | Path) -> None:
        """Writes the given columns as CSV.

        Raises:
            PacketError: the file cannot be written.
        """
        from fastpath.packets.files import write_table

        write_table(self.to_arrow(), path, "csv")

    def write_parquet(self, path: str | Path) -> None:
        """Writes the given columns as Parquet.

        Raises:
            PacketError: the file cannot be written.
        """
        from fastpath.packets.files import write_table

        write_table(self.to_arrow(), path, "parquet")


class Names:
    """Interface names in the order of their codes."""

    def __init__(self, names: Sequence[str]) -> None:
        self._codes: dict[str, int] = {}
        for name in names:
            self.add(name)
        if len(self._codes) != len(names):
            raise PacketError("an interface name is listed twice")

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(self._codes)

    def add(self, name: object) -> int:
        if not isinstance(name, str) or not name:
            raise PacketError(f"{name!r} is not an interface name")
        code = self._codes.setdefault(str(name), len(self._codes))
        if code > np.iinfo(np.int16).max:
            raise PacketError(f"there are more than {np.iinfo(np.int16).max + 1} interface names")
        return code

    def code(self, column: Column, value: object) -> int:
        """The code of a scalar: a name, or a code already."""
        if isinstance(value, str):
            return self.add(value)
        if not isinstance(value, int | np.integer):
            raise PacketError(f"{value!r} is not an interface name")
        check_codes(np.array([value], np.int64), column, len(self._codes))
        return int(value)


def check_codes(codes: Array, column: Column, count: int) -> None:
    """Checks interface codes against the number of names.

    Raises:
        PacketError: a code outside; -1 is allowed where the column has that default.
    """
    low = 0 if column.default is None else -1
    bad = np.flatnonzero((codes < low) | (codes >= count))
    if len(bad):
        raise PacketError(f"row {bad[0]}: interface code {codes[bad[0]]} is not in {low}..{count - 1}; give names, or "
                          "the names that the codes index")


def check_range(values: Array, column: Column, family: int = 4) -> None:
    """Checks an integer array against a column's range.

    Raises:
        PacketError: a value outside; the message names its row.
    """
    top = limit(column, family)
    if values.size == 0:
        return
    if int(values.min()) < 0 or int(values.max()) > top:
        bad = int(np.flatnonzero((values < 0) | (values > top))[0])
        raise PacketError(f"row {bad}: {values[bad]} is not in 0..{top}")


def _frozen(values: Array) -> Array:
    view = values.view()
    view.flags.writeable = False
    return view


def _is_scalar(value: object) -> bool:
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return not isinstance(value, Iterator)
    return isinstance(value, np.ndarray) and value.ndim == 0


def _count(given: Mapping[str, Any], extra: Mapping[str, Any], n: int | None) -> int:
    lengths = {name: len(v) for name, v in {**given, **extra}.items() if v is not None and not _is_scalar(v)}
    if n is None:
        if not lengths:
            raise PacketError("every column is a constant: the number of packets n is needed")
        n = next(iter(lengths.values()))
    if n < 0:
        raise PacketError(f"the number of packets {n} is negative")
    for name, length in lengths.items():
        if length != n:
            raise PacketError(f"column {name} has {length} rows where {n} are expected")
    return n


def _default(column: Column) -> int:
    if column.default is None:
        raise PacketError("no value, and the column has no default")
    return column.default


def _is_missing(value: object) -> bool:
    return value is None or value == "" or value != value


def _number_column(column: Column, value: Any) -> Array:
    if isinstance(value, np.ndarray):
        if value.ndim != 1:
            raise PacketError(f"its shape is {value.shape}, not one row of values")
        if value.dtype.kind in "iub":
            if value.dtype != np.dtype(column.dtype) or column.name in ("frag", "state", "ctdir", "pkttype", "mac_src"):
                check_range(value, column)
            return np.ascontiguousarray(value, column.dtype)
        if value.dtype.kind == "f":
            return _from_floats(column, value)
        value = value.tolist()
    elif not isinstance(value, list | tuple):
        return _number_column(column, np.asarray(value))
    if all(type(v) is int for v in value):
        try:
            return _number_column(column, np.array(value, np.int64))
        except OverflowError:
            pass
    return _by_distinct(column, value)


def _from_floats(column: Column, values: Array) -> Array:
    missing = np.isnan(values)
    if missing.any():
        if column.default is None:
            raise PacketError(f"row {int(np.argmax(missing))}: no value, and the column has no default")
        values = np.where(missing, column.default, values)
    bad = np.flatnonzero(~np.isfinite(values) | (values != np.floor(values)))
    if len(bad):
        raise PacketError(f"row {bad[0]}: {values[bad[0]]} is not a whole number")
    top = limit(column, 4)
    bad = np.flatnonzero((values < 0) | (values > top))
    if len(bad):
        raise PacketError(f"row {bad[0]}: {values[bad[0]]:.0f} is not in 0..{top}")
    return values.astype(column.dtype)


def _by_distinct(column: Column, values: Sequence[Any]) -> Array:
    """Reads each distinct value once."""
    codes, distinct = encode_words(values)
    return numbers_of_words(column, codes, distinct)


def numbers_of_words(column: Column, codes: Array, distinct: Sequence[Any]) -> Array:
    """Numbers from codes into `distinct` values as a person writes them; None, NaN and "" mean the default.

    Raises:
        PacketError: a value that cannot be read; the message names its first row.
    """
    table = np.zeros(max(len(distinct), 1), column.dtype)
    used = np.bincount(codes, minlength=len(distinct))
    for i, value in enumerate(distinct):
        try:
            if used[i]:
                table[i] = _default(column) if _is_missing(value) else read_value(column, value)
        except PacketError as error:
            raise PacketError(f"row {int(np.argmax(codes == i))}: {error}") from None
    return table[codes]


def encode_words(words: Sequence[Any]) -> tuple[Array, list[Any]]:
    """Codes (int64) into the distinct values, in order of appearance."""
    known: dict[Any, int] = {}
    codes = np.fromiter((known.setdefault(w, len(known)) for w in words), np.int64, len(words))
    return codes, list(known)


def _interface_column(column: Column, value: Any, names: Names) -> Array:
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        check_codes(value, column, len(names.all))
        return np.ascontiguousarray(value, np.int16)
    words = value.tolist() if isinstance(value, np.ndarray) else list(value)
    if words and all(isinstance(w, int | np.integer) for w in words):
        return _interface_column(column, np.array(words, np.int64), names)
    codes, distinct = encode_words(words)
    return interface_codes(column, codes, distinct, names)


def interface_codes(column: Column, codes: Array, distinct: Sequence[Any], names: Names) -> Array:
    """Interface codes from codes into `distinct` names; None, NaN and "" mean none.

    Raises:
        PacketError: a value that is no name, or none where the column is required.
    """
    table = np.full(max(len(distinct), 1), -1, np.int16)
    used = np.bincount(codes, minlength=len(distinct))
    for i, word in enumerate(distinct):
        try:
            if used[i]:
                table[i] = _default(column) if _is_missing(word) else names.add(word)
        except PacketError as error:
            raise PacketError(f"row {int(np.argmax(codes == i))}: {error}") from None
    return table[codes]


def _address_column(column: Column, value: Any, family: int) -> Array:
    if isinstance(value, np.ndarray):
        if family == 6 and value.ndim == 2:
            if value.shape[1] != 4 or value.dtype.kind not in "iu":
                raise PacketError(f"its shape is {value.shape} of {value.dtype}, where (n, 4) of uint32 is expected")
            if value.dtype != np.uint32 and value.size and (int(value.min()) < 0 or int(value.max()) > 0xFFFFFFFF):
                raise PacketError("a word of an address is not in 0..4294967295")
            return np.ascontiguousarray(value, np.uint32)
        if value.ndim != 1:
            raise PacketError(f"its shape is {value.shape}, not one row of values")
        if family == 4 and value.dtype.kind in "iu":
            if value.dtype != np.uint32:
                check_range(value, column)
            return np.ascontiguousarray(value, np.uint32)
        if family == 4 and value.dtype.kind == "f":
            return _from_floats(column, value)
        value = value.tolist()
    elif not isinstance(value, list | tuple):
        return _address_column(column, np.asarray(value), family)
    if all(type(v) is str for v in value) and "" not in value:
        return parse_addresses(*join_strings(value), family)
    if family == 4:
        return _by_distinct(column, value)
    out = np.zeros((len(value), 4), np.uint32)
    for row, v in enumerate(value):
        try:
            out[row] = words_of(_default(column) if _is_missing(v) else read_value(column, v, 6))
        except PacketError as error:
            raise PacketError(f"row {row}: {error}") from None
    return out


def _boolean_column(name: str, value: Any, n: int) -> Array:
    if isinstance(value, bool | np.bool_):
        return np.broadcast_to(np.array(value), (n,))
    array = np.asarray(value)
    if array.dtype != np.bool_ or array.ndim != 1:
        if array.size:
            raise PacketError(f"extra column {name} is not a row of booleans")
        array = np.zeros(0, np.bool_)
    return array
