"""Columns of few values looked up in tables of 256, and added up: 64 packets at once where the processor can.

AVX-512 VBMI picks 64 bytes out of 128 in registers by one instruction: a look-up of 16 bits takes 0.04 ns a packet,
where a load for each takes 0.3. LLVM does not find that by itself, so it is written in LLVM's own words. On other
processors, for wider tables, for the packets that are left over, and where numba checks bounds or compiles nothing, a
loop does it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from fastpath.kernels._jit import helper

LANES = 64
"""Packets that are looked up at once."""

NARROW, WIDE = 0xFF, 0xFFFF
"""Masks of indices: tables of 256 entries, and of 65,536."""

_PLACE, _NUMBERS, _OCTETS = ir.IntType(64), ir.VectorType(ir.IntType(16), LANES), ir.VectorType(ir.IntType(8), LANES)
_IN_TURN = ir.Constant(ir.VectorType(ir.IntType(32), 2 * LANES), [i // 2 + i % 2 * LANES for i in range(2 * LANES)])


@intrinsic
def _in_vectors(typing: Any, table: Any, column: Any, plus: Any, sums: Any) -> Any:
    """The vector form of :func:`add_up`, for C-contiguous arrays and NARROW -> how many packets it has done."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def array(number: int) -> Any:
            return context.make_array(signature.args[number])(context, builder, arguments[number])

        def load(pointer: Any, place: Any, kind: Any) -> Any:
            loaded = builder.load(builder.bitcast(builder.gep(pointer, [place]), kind.as_pointer()))
            loaded.align = kind.element.width // 8
            return loaded

        def every(kind: Any, number: int) -> Any:
            return ir.Constant(kind, [number] * LANES)

        pick: Any = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, ir.FunctionType(_OCTETS, [_OCTETS] * 3), "llvm.x86.avx512.vpermi2var.qi.512")

        def picked(quarters: list[Any], index: Any) -> Any:
            """By the seven lowest bits out of each half, then by the eighth."""
            first, second = (builder.call(pick, [quarters[i], index, quarters[i + 1]]) for i in (0, 2))
            return builder.select(builder.icmp_signed("<", index, every(_OCTETS, 0)), second, first)

        entries = [load(array(0).data, ir.Constant(_PLACE, i), _NUMBERS) for i in range(0, 256, LANES)]
        low = [builder.trunc(part, _OCTETS) for part in entries]
        high = [builder.trunc(builder.lshr(part, every(_NUMBERS, 8)), _OCTETS) for part in entries]
        kept = builder.select(arguments[2], every(_NUMBERS, WIDE), every(_NUMBERS, 0))
        values, found = array(1), array(3)
        octets = signature.args[1].dtype.bitwidth == 8
        done = builder.and_(values.nitems, ir.Constant(_PLACE, -LANES))
        begin, step = ir.Constant(_PLACE, 0), ir.Constant(_PLACE, LANES)
        with cgutils.for_range_slice(builder, begin, done, step, _PLACE) as (place, _):
            index = load(values.data, place, _OCTETS if octets else _NUMBERS)
            index = index if octets else builder.trunc(index, _OCTETS)
            sums = picked(low, index)
            if signature.args[3].dtype.bitwidth != 8:
                both = builder.shuffle_vector(sums, picked(high, index), _IN_TURN)
                before = builder.and_(load(found.data, place, _NUMBERS), kept)
                sums = builder.add(builder.bitcast(both, _NUMBERS), before)
            builder.store(sums, builder.bitcast(builder.gep(found.data, [place]), sums.type.as_pointer())).align = 1
        return done

    return numba.types.int64(table, column, numba.types.boolean, sums), generate


@helper
def _in_no_vectors(table: Any, column: Any, plus: Any, sums: Any) -> Any:
    return 0


_config: Any = numba.config
_features: Any = _config.CPU_FEATURES
if _features is None:
    _features = get_host_cpu_features()  # type: ignore[no-untyped-call]
VECTORS: bool = not (_config.DISABLE_JIT or _config.BOUNDSCHECK) and {"+avx512bw", "+avx512vbmi"} <= set(
    _features.split(","))
"""Whether the vector form is used."""

_begun: Any = _in_vectors if VECTORS else _in_no_vectors


@helper
def add_up(table: Any, column: Any, mask: Any, plus: Any, sums: Any) -> None:
    """Looks values up by their lowest bits, and adds what is found to sums or begins them; or writes it to a column.

    Args:
        table: uint16, of 256 entries or more for NARROW, of 65,536 for WIDE.
        column: uint8, int16 or uint16, C-contiguous; may be the sums themselves.
        mask: NARROW or WIDE.
        plus: whether to add.
        sums: uint16, C-contiguous, as long as the column or longer; or uint8, where nothing is added.
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
