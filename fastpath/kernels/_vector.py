"""Vectors, which numba has no words for: what is written in LLVM's own begins here, for any processor.

One comparison is here itself. LLVM makes of it what the processor has: one comparison with AVX-512, two with AVX2, four
with SSE2 or NEON. Where numba checks bounds, or compiles nothing (``LOOPS``), a loop does the same.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from fastpath.kernels._jit import helper

LANES = 32
"""Elements that are compared at once."""

_config: Any = numba.config
LOOPS: bool = bool(_config.DISABLE_JIT or _config.BOUNDSCHECK)
"""Whether loops do what vectors do elsewhere."""


def array_of(context: Any, builder: Any, signature: Any, arguments: Any, number: int) -> Any:
    """Emits the parts of an argument that is an array: ``data``, ``nitems`` and more."""
    return context.make_array(signature.args[number])(context, builder, arguments[number])


def load(builder: Any, data: Any, place: Any, kind: Any) -> Any:
    """Emits the load of a vector of some kind from `place` on, at any element."""
    loaded = builder.load(builder.bitcast(builder.gep(data, [place]), kind.as_pointer()))
    loaded.align = kind.element.width // 8
    return loaded


def spread(builder: Any, value: Any, kind: Any) -> Any:
    """Emits a vector of some kind that has one value everywhere."""
    number = ir.IntType(32)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(number, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(number, kind.count), [0] * kind.count))


@intrinsic
def _compared(typing: Any, values: Any, at: Any, wanted: Any, count: Any) -> Any:
    """The vector form of :func:`_counted`, for a C-contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = array_of(context, builder, signature, arguments, 0)
        short, word, wide = ir.IntType(16), ir.IntType(32), ir.IntType(64)
        vector = ir.VectorType(short, LANES)
        loaded = load(builder, array.data, arguments[1], vector)
        every = spread(builder, builder.trunc(arguments[2], short), vector)
        holds = builder.bitcast(builder.icmp_unsigned("<=", loaded, every), word)
        ones = builder.sub(
            builder.shl(ir.Constant(wide, 1), builder.zext(arguments[3], wide)), ir.Constant(wide, 1))
        return builder.ctpop(builder.and_(holds, builder.trunc(ones, word)))

    signature = numba.types.uint32(values, numba.types.uint64, numba.types.uint32, numba.types.uint32)
    return signature, generate


@helper
def _counted(values: Any, at: Any, wanted: Any, count: Any) -> Any:
    """How many of ``values[at:at + count]`` are at most `wanted`.

    Args:
        values: uint16; ``values[at:at + 32]`` lies within it.
        at: uint64.
        wanted: uint32, below 65,536.
        count: uint32, at most 32.
    """
    found = np.uint32(values[at + np.uint64(LANES - 1)] & 0)  # as far as the vector form reads
    for i in range(count):
        found += np.uint32(values[at + np.uint64(i)] <= wanted)
    return np.uint32(found)


counted: Any = _counted if LOOPS else _compared
"""The vector form, or the loop (see above)."""
