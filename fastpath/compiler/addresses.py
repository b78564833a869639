"""Look-up tables for values of 32 bits: pages, or ranks where pages would be too many (``kernels.addresses``)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastpath.compiler.classes import Partition
from fastpath.errors import CompileError

LOWS = (24, 20, 18, 16)
"""Bits below those that choose a region, the first choice at equal sizes first."""

MOST_INSIDE, WIDEST = 32, 16
"""Intervals that may begin within a bucket, and bits of its values."""

MOST_CLASSES = 1 << 16
"""Classes that words of 16 bits can number."""

MOST_RANKS = 1 << 26
"""Intervals that buckets can number."""

LEAST_HIGH, MOST_HIGH, LEAST_LOW = 14, 22, 4
"""Bits below those of the first step of pages, and of the last one."""

NEAR, ATTEMPTS = 1.25, 6
"""How many times the words of the smallest split another one may have, and how many of these are tried."""

MOST_SPACING = 8
"""Pages begin at multiples of two to this many words, at most."""


@dataclass(frozen=True)
class Pages:
    """A map from values to classes (``kernels.addresses.page_class``).

    Attributes:
        top, middle, last: tables of the steps, uint16.
        high, low: bits below those of the first step, and of the last one.
        spacing: bits of the distance of places where pages may begin.
    """

    top: npt.NDArray[np.uint16]
    middle: npt.NDArray[np.uint16]
    last: npt.NDArray[np.uint16]
    high: int
    low: int
    spacing: int

    @property
    def split(self) -> int:
        """The three numbers of bits in one."""
        return self.high | self.low << 8 | self.spacing << 16


@dataclass(frozen=True)
class Ranks:
    """A map from values to ranks: the numbers of the elementary intervals of a partition.

    Attributes:
        words: regions and buckets, uint32 (``kernels.addresses.rank``).
        bounds: uint16.
        low: bits below those that choose a region.
    """

    words: npt.NDArray[np.uint32]
    bounds: npt.NDArray[np.uint16]
    low: int


def pages(found: Partition, most: int) -> Pages | None:
    """Pages of at most about `most` words; None where they would be more, or classes have more than 16 bits.

    The bits of a step are those that take the least room, since a map that fits the nearest cache is looked up fastest;
    or nearly the least where pages can begin at any word then, which takes an instruction less a step.
    """
    from fastpath.kernels import build

    if found.count > MOST_CLASSES:
        return None
    starts = np.array(found.starts, np.int64)
    of_bits = {bits: _different(starts, found, bits) for bits in range(LEAST_LOW, MOST_HIGH + 1)}
    splits = sorted(
        ((1 << 32 - high) + (of_bits[high] << high - low) + (of_bits[low] << low), high, low)
        for high in range(LEAST_HIGH, MOST_HIGH + 1) for low in range(LEAST_LOW, high))
    fewest, high, low = splits[0]
    if fewest > most:
        return None
    near = [(high, low, 0) for words, high, low in splits if words <= NEAR * fewest]
    mask = found.field.mask & 0xFFFFFFFF
    for high, low, spacing in (*near[:ATTEMPTS], *((high, low, spacing) for spacing in range(1, MOST_SPACING + 1))):
        top, middle, last = build.address_pages(starts, found.class_of, mask, high, low, spacing)
        if len(top):
            return Pages(top, middle, last, high, low, spacing)
    return None


def _different(starts: npt.NDArray[np.int64], found: Partition, bits: int) -> int:
    """How many different pages the values below so many bits take, at most."""
    cut = starts[(starts & (1 << bits) - 1) != 0] >> bits
    ends = np.append(starts[1:], 1 << 32)
    whole = found.class_of[-(-starts >> bits) < ends >> bits]
    return int(np.count_nonzero(np.diff(cut, prepend=-1))) + len(np.unique(whole))


def ranks(found: Partition) -> Ranks:
    """Ranks of all values, with the regions that take the least room.

    Raises:
        CompileError: intervals that take more than half a gigabyte.
    """
    starts = np.array(found.starts, np.int64)
    full = _overfull(starts)
    shifts = {low: _shifts(full, low) for low in LOWS}
    low = min(LOWS, key=lambda low: len(shifts[low]) + int((1 << low - shifts[low]).sum()))
    of_region = shifts[low]
    lengths = 1 << low - of_region
    places = len(of_region) + np.cumsum(lengths) - lengths
    if int(places[-1]) >> 27 or len(starts) > MOST_RANKS:
        raise CompileError(f"rules with {len(starts):,} different bounds of {found.field.base} are too many for tables")
    region = np.repeat(np.arange(len(of_region)), lengths)
    bucket = np.arange(len(region)) - (places - len(of_region))[region]
    first = (region << low) + (bucket << of_region[region])
    before = np.searchsorted(starts, first, side="right") - 1
    inside = np.searchsorted(starts, first + (1 << of_region[region])) - 1 - before
    words = np.concatenate([places << 5 | of_region, before << 6 | inside]).astype(np.uint32)
    bounds = np.zeros(len(starts) - 1 + MOST_INSIDE, np.uint16)
    bounds[:len(starts) - 1] = (starts & (1 << of_region[starts >> low]) - 1)[1:]
    return Ranks(words, bounds, low)


def _overfull(starts: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int64]]:
    """For each width of buckets from the widest on, the buckets within which too many intervals begin."""
    full: dict[int, npt.NDArray[np.int64]] = {}
    for shift in range(WIDEST, 0, -1):
        inside = starts[(starts & (1 << shift) - 1) != 0] >> shift
        full[shift] = inside[MOST_INSIDE:][inside[MOST_INSIDE:] == inside[:-MOST_INSIDE]]
        if not len(full[shift]):
            break
    return full


def _shifts(full: dict[int, npt.NDArray[np.int64]], low: int) -> npt.NDArray[np.int64]:
    """For each region the width of its buckets in bits."""
    found = np.full(1 << 32 - low, WIDEST, np.int64)
    for shift, buckets in full.items():
        found[buckets >> low - shift] = shift - 1
    return found
