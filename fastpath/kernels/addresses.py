"""Classes of 32-bit values, in two forms (``compiler.addresses`` makes them).

*Pages*: a table of the high 16 bits and two levels of pages for the bytes below. *Ranks*: how many intervals begin at
or below a value, found by two table look-ups and one comparison with up to 32 bounds at once; a table by rank has the
class. Pages are quicker while they stay in cache, ranks take a few bytes an interval, wherever those lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import helper
from fastpath.kernels._vector import counted


@helper
def page_class(words: Any, v: Any) -> Any:
    """The class of a value.

    Args:
        words: by the high 16 bits, then by the next byte in the page of that number, the number of a page of 256 words;
            the class there by the last byte. uint16, from the beginning of the map on, where page 0 begins.
        v: uint32.
    """
    shift, byte = np.uint32(8), np.uint32(255)
    page = np.uint32(words[np.uint32(words[v >> np.uint32(16)]) << shift | v >> shift & byte])
    return words[page << shift | v & byte]


@helper
def rank(words: Any, bounds: Any, low: Any, v: Any) -> Any:
    """How many intervals, but for the first one, begin at or below a value.

    Args:
        words: by the bits from `low` on: place of a region's buckets << 5 | bits that the values of a bucket share
            with no other; behind these the buckets: intervals that begin before << 6 | those that begin within, at
            most 32; uint32.
        bounds: for every interval but the first, its first value's bits within its bucket; uint16, 32 elements more.
        low: uint32, 16 to 24.
        v: uint32.
    """
    one = np.uint32(1)
    region = words[v >> low]
    shift = region & np.uint32(31)
    within = np.uint32(v & np.uint32((one << low) - one))
    bucket = words[np.uint32((region >> np.uint32(5)) + (within >> shift))]
    before = bucket >> np.uint32(6)
    inside = np.uint32(v & np.uint32((one << shift) - one))
    return np.uint32(before + counted(bounds, np.uint64(before), inside, bucket & np.uint32(63)))
