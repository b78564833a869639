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

MOST_PAGED = (1 << 24) - (1 << 17)
"""Words of pages whose numbers have 16 bits for certain."""


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


def pages(found: Partition, most: int) -> npt.NDArray[np.uint16] | None:
    """Pages of at most about `most` words; None where they would be more, or classes have more than 16 bits."""
    from fastpath.kernels import build

    if found.count > MOST_CLASSES:
        return None
    words = build.address_pages(np.array(found.starts, np.int64), found.class_of, min(most, MOST_PAGED))
    return words if len(words) else None


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
