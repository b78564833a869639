"""Classes of 32-bit values, in two forms (``compiler.addresses`` makes them).

*Pages*: a table of the highest bits and two levels of pages for those below. *Ranks*: how many intervals begin at
or below a value, found by two table look-ups and one comparison with up to 32 bounds at once; a table by rank has the
class. Pages are quicker while they stay in cache, ranks take a few bytes an interval, wherever those lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import helper
from fastpath.kernels._vector import counted


@helper
def bits_of(split: Any) -> Any:
    """(high, low, spacing) of pages, uint32, from the one number that they are kept as."""
    return np.uint32(split & 255), np.uint32(split >> 8 & 255), np.uint32(split >> 16)


@helper
def page_class(top: Any, middle: Any, last: Any, begin: Any, high: Any, low: Any, spacing: Any, v: Any) -> Any:
    """The class of a value.

    Args:
        top: by the bits from `high` on, where the page for the next ones begins in `middle`; uint16.
        middle: by the bits from `low` on, where the page for the others begins in `last`; uint16.
        last: classes, from place `begin` on, uint32; uint16.
        high, low, spacing: uint32; pages begin at multiples of ``2**spacing`` words, which is what is counted.
        v: uint32.
    """
    one = np.uint32(1)
    page = np.uint32(np.uint32(top[v >> high]) << spacing)
    page = middle[page + (v >> low & np.uint32((one << np.uint32(high - low)) - one))]
    return last[begin + np.uint32(np.uint32(page) << spacing) + (v & np.uint32((one << low) - one))]


@helper
def page_classes(words: Any, split: Any, last: Any, column: Any, row: Any) -> None:
    """The classes of all values of a column.

    Args:
        words: from the beginning of the map on; uint16.
        split: high | low << 8 | spacing << 16.
        last: from the beginning of its last pages on, or of pages like these with something else; uint16 or uint32.
        column: uint32.
        row: written; uint32, of the length of `column` or more.
    """
    high, low, spacing = bits_of(split)
    middle, zero = words[1 << 32 - np.int64(high):], np.uint32(0)
    if spacing == 0:
        for k in range(len(column)):
            row[k] = page_class(words, middle, last, zero, high, low, zero, column[k])
    else:
        for k in range(len(column)):
            row[k] = page_class(words, middle, last, zero, high, low, spacing, column[k])


@helper
def page_words(words: Any, split: Any, last: Any, column: Any, row: Any) -> None:
    """As :func:`page_classes`, with several sets of last pages one behind the other.

    Args:
        row: where the last pages for each value begin in `last`, written over.
    """
    high, low, spacing = bits_of(split)
    middle, zero = words[1 << 32 - np.int64(high):], np.uint32(0)
    if spacing == 0:
        for k in range(len(column)):
            row[k] = page_class(words, middle, last, row[k], high, low, zero, column[k])
    else:
        for k in range(len(column)):
            row[k] = page_class(words, middle, last, row[k], high, low, spacing, column[k])


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
