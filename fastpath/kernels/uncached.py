"""Columns written past the cache.

A column that is larger than the cache is written to memory in the end; to bring its old content into the cache first,
as a store does, takes as long again. Non-temporal stores of whole cache lines do without. LLVM has them in words of its
own only; for what is left over, for columns that do not begin at a cache line, and where numba checks bounds or
compiles nothing, a loop stores in the usual way.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from fastpath.kernels._jit import helper
from fastpath.kernels._vector import LOOPS, array_of, load, spread

LINE = 64
"""Bytes of a cache line."""

_WORD = ir.IntType(64)


@intrinsic
def _in_lines(typing: Any, numbers: Any, shift: Any, kept: Any, out: Any) -> Any:
    """The vector form of :func:`write`, for C-contiguous arrays -> how many elements it has written."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, found = (array_of(context, builder, signature, arguments, number) for number in (0, 3))
        wide, width = signature.args[0].dtype.bitwidth, signature.args[3].dtype.bitwidth
        lanes = 8 * LINE // width
        read, written = ir.VectorType(ir.IntType(wide), lanes), ir.VectorType(ir.IntType(width), lanes)
        past = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        by = spread(builder, context.cast(builder, arguments[1], numba.types.uint64, signature.args[0].dtype), read)
        within = builder.and_(builder.ptrtoint(found.data, _WORD), ir.Constant(_WORD, LINE - 1))
        begins = builder.icmp_unsigned("==", within, ir.Constant(_WORD, 0))
        done = builder.select(
            begins, builder.and_(found.nitems, ir.Constant(_WORD, -lanes)), ir.Constant(_WORD, 0))
        steps = ir.Constant(_WORD, 0), done, ir.Constant(_WORD, lanes)
        with cgutils.for_range_slice(builder, *steps, _WORD) as (place, _):
            values = builder.lshr(load(builder, source.data, place, read), by)
            if wide > width:
                values = builder.trunc(values, written)
            if isinstance(signature.args[2], numba.types.Array):
                rewrites = builder.icmp_unsigned("!=", values, ir.Constant(written, [0] * lanes))
                left = array_of(context, builder, signature, arguments, 2)
                values = builder.select(rewrites, values, load(builder, left.data, place, written))
            to = builder.bitcast(builder.gep(found.data, [place]), written.as_pointer())
            stored = builder.store(values, to)
            stored.align = LINE
            stored.set_metadata("nontemporal", past)
        return done

    return numba.types.int64(numbers, numba.types.uint64, kept, out), generate


@intrinsic
def _fence(typing: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return numba.types.void(), generate


@helper
def _in_no_lines(numbers: Any, shift: Any, kept: Any, out: Any) -> Any:
    return 0


@helper
def _no_fence() -> None:
    pass


_lines: Any = _in_no_lines if LOOPS else _in_lines
fence: Any = _no_fence if LOOPS else _fence
"""Waits until what was written past the cache is where others see it."""


@helper
def write(numbers: Any, shift: Any, past: Any, out: Any) -> None:
    """Writes the bits of numbers from `shift` on, as many as an element of the column has.

    Args:
        numbers: uint32 or uint64, as long as `out` or longer.
        shift: bits.
        past: whether past the cache.
        out: integers of no more bits.
    """
    done = _lines(numbers, np.uint64(shift), 0, out) if past else 0
    by = np.uint64(shift)
    for k in range(done, len(out)):
        out[k] = out.dtype.type(np.uint64(numbers[k]) >> by)


@helper
def rewrite(numbers: Any, shift: Any, kept: Any, past: Any, out: Any) -> None:
    """As :func:`write`, but where the bits are 0 what is in the column `kept`, which is of the kind of `out`."""
    done = _lines(numbers, np.uint64(shift), kept, out) if past else 0
    by = np.uint64(shift)
    for k in range(done, len(out)):
        value = out.dtype.type(np.uint64(numbers[k]) >> by)
        out[k] = value if value != 0 else kept[k]
