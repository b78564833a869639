"""Columns of few values looked up in tables of 256, and added up: 64 packets at once where the processor can.

AVX-512 VBMI picks 64 bytes out of 128 in registers by one instruction: a look-up of 16 bits takes 0.04 ns a packet,
where a load for each takes 0.3. Other processors pick out of 16 bytes. A table is 16 rows of 16 entries to them, by
the upper four bits of an index, and few rows differ: states have one, 50 interfaces four, protocols and TCP flags two.
Each row is looked up for all packets, and found only by those whose row it is: 0.02 ns for each. LLVM finds neither by
itself, so they are written in its own words. For larger tables, for the packets that are left over, and where numba
checks bounds or compiles nothing, a loop does it.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from fastpath.kernels._jit import helper
from fastpath.kernels._vector import LOOPS, array_of, load

Array = npt.NDArray[Any]

LANES = 64
"""Packets that are looked up at once."""

NARROW, WIDE = 0xFF, 0xFFFF
"""Masks of indices: tables of 256 entries, and of 65,536."""

ROW = 16
"""Entries of a row of a table."""

OF_ROW = 3 * ROW // 2
"""Numbers of 16 bits that say what a row comes to."""


@dataclass(frozen=True)
class Shuffle:
    """An instruction that finds bytes among 16 by the lowest bits of others, and 0 by those of 128 or more.

    Attributes:
        name: LLVM's.
        width: bytes that are found at once.
        most: rows of a table that differ, beyond which the loop is faster.
    """

    name: str
    width: int
    most: int


SHUFFLES = {
    "+avx2": Shuffle("llvm.x86.avx2.pshuf.b", 32, 12), "+ssse3": Shuffle("llvm.x86.ssse3.pshuf.b.128", 16, 8),
    "aarch64": Shuffle("llvm.aarch64.neon.tbl1.v16i8", 16, 8),
}
"""By what a processor has, the best first."""

_PLACE, _LANE, _OCTET = ir.IntType(64), ir.IntType(32), ir.IntType(8)
_NUMBERS, _OCTETS = ir.VectorType(ir.IntType(16), LANES), ir.VectorType(_OCTET, LANES)


def _at(number: int) -> Any:
    return ir.Constant(_PLACE, number)


def _every(kind: Any, number: int) -> Any:
    return ir.Constant(kind, [number] * kind.count)


def _lanes(builder: Any, first: Any, second: Any, which: list[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(_LANE, len(which)), which))


def _function(builder: Any, name: str, kind: Any, operands: int) -> Any:
    signature = ir.FunctionType(kind, [kind] * operands)
    return cgutils.get_or_insert_function(builder.module, signature, name)  # type: ignore[no-untyped-call]


LookUp = Callable[[Any], tuple[Any, Any]]
"""Emits the look-up of a vector of indices -> lower and upper bytes."""


def picks(builder: Any, table: Any) -> tuple[Any, LookUp]:
    """Loads a table -> whether it is looked up in vectors, and how."""
    pick = _function(builder, "llvm.x86.avx512.vpermi2var.qi.512", _OCTETS, 3)
    entries = [load(builder, table, _at(i), _NUMBERS) for i in range(0, 256, LANES)]
    low = [builder.trunc(part, _OCTETS) for part in entries]
    high = [builder.trunc(builder.lshr(part, _every(_NUMBERS, 8)), _OCTETS) for part in entries]

    def picked(quarters: list[Any], index: Any) -> Any:
        """By the seven lowest bits out of each half, then by the eighth."""
        first, second = (builder.call(pick, [quarters[i], index, quarters[i + 1]]) for i in (0, 2))
        return builder.select(builder.icmp_signed("<", index, _every(_OCTETS, 0)), second, first)

    return ir.Constant(ir.IntType(1), 1), lambda index: (picked(low, index), picked(high, index))


def shuffles(builder: Any, table: Any, by: Shuffle) -> tuple[Any, LookUp]:
    """As :func:`picks`, by shuffles, row after row."""
    width = by.width
    part, row = ir.VectorType(_OCTET, width), ir.VectorType(_OCTET, ROW)
    shuffle = _function(builder, by.name, part, 2)
    rows = builder.zext(builder.load(builder.gep(table, [_at(NARROW + 1)])), _PLACE)
    ends = builder.add(builder.mul(rows, _at(OF_ROW)), _at(NARROW + 2))
    begins = range(0, LANES, width)
    room: Any = cgutils.alloca_once
    sums = [[room(builder, part) for _ in begins] for _ in range(2)]

    def parts(index: Any) -> list[Any]:
        return [_lanes(builder, index, index, list(range(i, i + width))) for i in begins]

    def together(found: list[Any]) -> Any:
        while len(found) > 1:
            found = [
                _lanes(builder, a, b, list(range(2 * a.type.count)))
                for a, b in zip(found[::2], found[1::2], strict=True)
            ]
        return found[0]

    def look_up(index: Any) -> tuple[Any, Any]:
        entry = parts(builder.and_(index, _every(_OCTETS, ROW - 1)))
        of_row = parts(builder.lshr(index, _every(_OCTETS, 4)))
        for found in (*sums[0], *sums[1]):
            builder.store(_every(part, 0), found)
        with cgutils.for_range_slice(builder, _at(NARROW + 2), ends, _at(OF_ROW), _PLACE) as (place, _):
            loaded = [load(builder, table, builder.add(place, _at(i * ROW // 2)), row) for i in range(3)]
            elsewhere, *octets = [_lanes(builder, v, v, [i % ROW for i in range(width)]) for v in loaded]
            for i in range(len(begins)):
                wanted = builder.or_(entry[i], builder.call(shuffle, [elsewhere, of_row[i]]))
                for of_sum, values in zip(sums, octets, strict=True):
                    value = builder.call(shuffle, [values, wanted])
                    builder.store(builder.or_(builder.load(of_sum[i]), value), of_sum[i])
        low, high = (together([builder.load(found) for found in of_sum]) for of_sum in sums)
        return low, high

    return builder.icmp_unsigned("!=", rows, _at(0)), look_up


def vectors(prepare: Any, *how: Any) -> Any:
    """What adds up in vectors, with the arguments of :func:`add_up` but the mask, for NARROW -> packets it has done."""

    @intrinsic
    def form(typing: Any, table: Any, column: Any, plus: Any, sums: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            table, values, found = (array_of(context, builder, signature, arguments, number) for number in (0, 1, 3))
            octets = signature.args[1].dtype.bitwidth == 8
            usable, look_up = prepare(builder, table.data, *how)
            kept = builder.select(arguments[2], _every(_NUMBERS, WIDE), _every(_NUMBERS, 0))
            done = builder.select(usable, builder.and_(values.nitems, _at(-LANES)), _at(0))
            with cgutils.for_range_slice(builder, _at(0), done, _at(LANES), _PLACE) as (place, _):
                index = load(builder, values.data, place, _OCTETS if octets else _NUMBERS)
                low, high = look_up(index if octets else builder.trunc(index, _OCTETS))
                both = _lanes(builder, low, high, [i // 2 + i % 2 * LANES for i in range(2 * LANES)])
                before = builder.and_(load(builder, found.data, place, _NUMBERS), kept)
                to = builder.bitcast(builder.gep(found.data, [place]), _NUMBERS.as_pointer())
                builder.store(builder.add(builder.bitcast(both, _NUMBERS), before), to).align = 2
            return done

        return numba.types.int64(table, column, numba.types.boolean, sums), generate

    return form


@helper
def _in_no_vectors(table: Any, column: Any, plus: Any, sums: Any) -> Any:
    return 0


def features() -> set[str]:
    """What the processor that is compiled for has, as far as it is asked about here."""
    config: Any = numba.config
    named = config.CPU_FEATURES
    if named is None:
        named = get_host_cpu_features()  # type: ignore[no-untyped-call]
    return {*named.split(","), {"arm64": "aarch64"}.get(platform.machine(), platform.machine())}


_features = set() if LOOPS else features()
PICKS = {"+avx512bw", "+avx512vbmi"} <= _features
"""Whether all tables are looked up by picks of VBMI."""

SHUFFLE = None if PICKS else next((SHUFFLES[f] for f in SHUFFLES if f in _features), None)
"""What they are looked up by otherwise, row after row."""

_begun: Any = vectors(picks) if PICKS else vectors(shuffles, SHUFFLE) if SHUFFLE else _in_no_vectors


def prepared(table: Array) -> Array:
    """A table as :func:`add_up` reads it: with zeros up to 256 entries and its rows behind it, if it has no more."""
    if len(table) > NARROW + 1:
        return table
    whole = np.zeros(NARROW + 1, np.uint16)
    whole[:len(table)] = table
    return np.concatenate([whole, rows_of(whole, SHUFFLE.most)]) if SHUFFLE else whole


def in_vectors(table: Array) -> bool:
    """Whether :func:`add_up` looks more than what is left over up in vectors."""
    return len(table) <= NARROW + 1 and (PICKS or (SHUFFLE is not None and bool(prepared(table)[NARROW + 1])))


def rows_of(table: Array, most: int) -> Array:
    """The number of rows that differ, and are not zeros only; then each. The number is 0 where they are too many.

    A row has 48 bytes: for each value of the upper four bits of an index 0 where it is the row of these and 128
    elsewhere, the lower bytes of its entries, and the upper ones.
    """
    rows, row_of = np.unique(table.reshape(-1, ROW), axis=0, return_inverse=True)
    kept = np.flatnonzero(rows.any(axis=1))
    if len(kept) > most:
        kept = kept[:0]
    elsewhere = (row_of.reshape(-1) != kept[:, None]) * 128
    octets = np.concatenate([elsewhere, rows[kept] & 255, rows[kept] >> 8], axis=1).astype(np.uint8)
    return np.concatenate([np.array([len(kept)], np.uint16), octets.reshape(-1).view(np.uint16)])


@helper
def add_up(table: Any, column: Any, mask: Any, plus: Any, sums: Any) -> None:
    """Looks values up by their lowest bits, and adds what is found to sums or begins them.

    Args:
        table: uint16; begins as :func:`prepared` makes it, of up to 256 entries for NARROW.
        column: uint8, int16 or uint16, C-contiguous; may be the sums themselves.
        mask: NARROW or WIDE.
        plus: whether to add.
        sums: uint16, C-contiguous, as long as the column or longer.
    """
    bits = np.uint32(mask)
    done = _begun(table, column, plus, sums) if bits == np.uint32(NARROW) else 0
    values, rest = column[done:], sums[done:]
    if plus:
        for k in range(len(values)):
            rest[k] += table[np.uint32(values[k]) & bits]
    else:
        for k in range(len(values)):
            rest[k] = table[np.uint32(values[k]) & bits]
