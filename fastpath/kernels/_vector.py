"""One vector comparison, which numba has no words for: written in LLVM's own, for any processor.

LLVM makes of it what the processor has: one comparison with AVX-512, two with AVX2, four with SSE2 or NEON. Where
numba checks bounds, or compiles nothing, a loop does the same.
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


@intrinsic
def _compared(typing: Any, values: Any, at: Any, wanted: Any, count: Any) -> Any:
    """The vector form of :func:`_counted`, for a C-contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        short, word, wide = ir.IntType(16), ir.IntType(32), ir.IntType(64)
        vector = ir.VectorType(short, LANES)
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), vector.as_pointer())
        loaded = builder.load(place)
        loaded.align = 2
        one = builder.insert_element(
            ir.Constant(vector, ir.Undefined), builder.trunc(arguments[2], short), ir.Constant(word, 0))
        every = builder.shuffle_vector(
            one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(word, LANES), [0] * LANES))
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


_config: Any = numba.config
counted: Any = _counted if _config.DISABLE_JIT or _config.BOUNDSCHECK else _compared
"""The vector form, or the loop (see above)."""
