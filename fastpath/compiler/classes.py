"""Classes of field values: values that no condition tells apart are one class.

All stages of an engine share one partition a field, so that a value is looked up once, and a constant that NAT writes
has its class known beforehand. The look-up tables are flat arrays: direct for 8 bits and interfaces, a trie of bytes
for 16 bits, pages or ranks for 32 (``addresses.py``), sorted bounds for 64.

Invariant: classes are numbered in the order in which they first appear, so a set that is one interval holds a range of
classes. Two intervals are one class where the sums of their sets' random numbers of 128 bits are equal: that they are
by chance has a probability below 2**-90 even for a million intervals.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastpath.compiler.fields import Field, Values


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
    at = np.array(starts, np.uint64)
    lengths = np.array([len(v.intervals) for v in distinct], np.int64)
    flat = np.array([i for v in distinct for i in v.intervals], np.uint64).reshape(-1, 2)
    # Every set has a random number of 128 bits, and an interval the sum of those it lies in.
    numbers = np.random.default_rng(0).integers(0, 1 << 64, (len(distinct), 2), np.uint64)
    of_interval = np.repeat(numbers, lengths, axis=0)
    changes = np.zeros((len(starts) + 1, 2), np.uint64)
    np.add.at(changes, np.searchsorted(at, flat[:, 0], side="left"), of_interval)
    np.subtract.at(changes, np.searchsorted(at, flat[:, 1], side="right"), of_interval)
    sums = np.cumsum(changes[:-1], axis=0, dtype=np.uint64)
    whole = np.ascontiguousarray(sums).view([("low", np.uint64), ("high", np.uint64)]).reshape(-1)
    _, appears, number = np.unique(whole, return_index=True, return_inverse=True)
    order = np.empty(len(appears), np.int64)
    order[np.argsort(appears)] = np.arange(len(appears))
    return Partition(field, starts, order[number.reshape(-1)], len(appears))


def direct_table(found: Partition, size: int) -> npt.NDArray[np.uint16]:
    """Class of every value below `size`, uint16."""
    table = np.empty(size, np.uint16)
    ends = [*found.starts[1:], size]
    for start, end, c in zip(found.starts, ends, found.class_of, strict=True):
        if start >= size:
            break
        table[start:end] = c
    return table


def trie_table(found: Partition) -> npt.NDArray[np.uint32]:
    """A trie over values of 16 bits, a byte a step, uint32 pages of 256 entries.

    Page 0 is indexed by the high byte; an entry is the number of the page for the low byte, and an entry there the
    class. Every look-up takes both steps, so that it needs no branch; equal pages are one.
    """
    classes = np.repeat(found.class_of, np.diff([*found.starts, 1 << 16])).astype(np.uint32).reshape(256, 256)
    pages, numbers = np.unique(classes, axis=0, return_inverse=True)
    return np.concatenate([numbers.reshape(-1).astype(np.uint32) + np.uint32(1), pages.reshape(-1)])
