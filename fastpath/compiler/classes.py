"""Classes of field values: values that no condition tells apart are one class.

All stages of an engine share one partition a field, so that a value is looked up once, and a constant that NAT writes
has its class known beforehand. The look-up tables are flat arrays: direct for 8 bits and interfaces, a trie of bytes
for 16 and 32 bits, sorted bounds for 64.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastpath.compiler.fields import Field, Values

MAX_SIGNATURE_CELLS = 1 << 26
"""Above this many (value set, interval) pairs, intervals that look alike are not searched for."""

@dataclass(frozen=True)
class Partition:
    """The classes of one field.

    Attributes:
        field: the field.
        starts: first value of every elementary interval, ascending, beginning with 0.
        class_of: class of every elementary interval, int64 of the same length.
        count: number of classes.
    """

    field: Field
    starts: tuple[int, ...]
    class_of: npt.NDArray[np.int64]
    count: int

    def class_of_value(self, value: int) -> int:
        """The class that a value falls into; ``value`` is masked first where the field is."""
        if self.field.mask != -1:
            value &= self.field.mask
        return int(self.class_of[bisect.bisect_right(self.starts, value) - 1])

    def members(self, values: Values) -> npt.NDArray[np.bool_]:
        """Which classes lie in a set of values that took part in the partition; bool of shape (count,)."""
        found = np.zeros(self.count, bool)
        for first, last in values:
            a = bisect.bisect_left(self.starts, first)
            b = bisect.bisect_right(self.starts, last)
            found[self.class_of[a:b]] = True
        return found


def partition(field: Field, sets: Iterable[Values]) -> Partition:
    """The coarsest partition of a field that tells all the given sets apart."""
    distinct = list(dict.fromkeys(sets))
    top = 1 << field.bits
    bounds = {0}
    for values in distinct:
        for first, last in values:
            bounds.add(first)
            bounds.add(last + 1)
    starts = tuple(sorted(b for b in bounds if b < top))
    n = len(starts)
    if n * len(distinct) > MAX_SIGNATURE_CELLS:
        return Partition(field, starts, np.arange(n, dtype=np.int64), n)
    signature = np.zeros((len(distinct), n), bool)
    position = {b: i for i, b in enumerate(starts)}
    for row, values in enumerate(distinct):
        for first, last in values:
            signature[row, position[first]:position.get(last + 1, n)] = True
    packed = np.packbits(signature, axis=0).T
    classes: dict[bytes, int] = {}
    class_of = np.fromiter(
        (classes.setdefault(packed[i].tobytes(), len(classes)) for i in range(n)), np.int64, n
    )
    return Partition(field, starts, class_of, len(classes))


def direct_table(found: Partition, size: int) -> npt.NDArray[np.uint16]:
    """Class of every value below `size`, uint16."""
    table = np.empty(size, np.uint16)
    ends = [*found.starts[1:], size]
    for start, end, c in zip(found.starts, ends, found.class_of, strict=True):
        if start >= size:
            break
        table[start:end] = c
    return table


def trie_table(found: Partition, bits: int) -> npt.NDArray[np.uint32]:
    """A trie over values of 16 or 32 bits, a byte a step, uint32 pages of 256 entries.

    Page 0 is indexed by the highest byte; an entry is the number of the page for the next byte, and in the pages of
    the last byte the class. Every look-up takes all steps, so that it needs no branch; equal pages are one.
    """
    starts = np.array(found.starts, np.int64)
    ends = np.append(starts[1:], 1 << bits)
    pages: list[npt.NDArray[np.uint32]] = [np.zeros(256, np.uint32)]
    known: dict[bytes, int] = {}
    constant: dict[tuple[int, int], int] = {}

    def number(page: npt.NDArray[np.uint32]) -> int:
        key = page.tobytes()
        if key not in known:
            known[key] = len(pages)
            pages.append(page)
        return known[key]

    def whole(value_class: int, shift: int) -> int:
        """The entry for an interval of one class with `shift` bits still to go."""
        if shift == 0:
            return value_class
        if (value_class, shift) not in constant:
            page = np.full(256, whole(value_class, shift - 8), np.uint32)
            constant[value_class, shift] = number(page)
        return constant[value_class, shift]

    def page_of(low: int, shift: int) -> npt.NDArray[np.uint32]:
        at = low + (1 << shift) * np.arange(256, dtype=np.int64)
        which = np.searchsorted(starts, at, side="right") - 1
        split = ends[which] < at + (1 << shift)
        entries = [
            number(page_of(int(at[i]), shift - 8)) if split[i] else whole(int(found.class_of[which[i]]), shift)
            for i in range(256)
        ]
        return np.array(entries, np.uint32)

    pages[0] = page_of(0, bits - 8)
    return np.concatenate(pages)
