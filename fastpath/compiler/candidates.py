"""Candidates: which op of a segment matches first, by short lists of rules to be compared one by one.

A packet's class of one key selects the few rules that can match it: most rules of a large ruleset name an address that
few others do. Each box (``crossproduct.py``) goes to the key by which it is in fewer packets' lists, by the number of
boxes that begin or end within its range. The boxes that are wide by both keys would be in all lists; they are looked
up at once instead, in a *grid* of coarse classes of both keys and the merged class of all other fields. The least op of
both keys' lists and the grid is the answer.

The tables grow with the rules, but for the grid, which has a limit: as many of the widest boxes are in it as fit.

Safe direction: every list holds all boxes that it must, but those that an earlier one of the list holds wherever they
do; what would be too large is not built (:class:`TooLargeError`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastpath.compiler.crossproduct import Boxes, Candidates, CrossProduct, Key, Terms, merged, packed, unique_rows
from fastpath.compiler.sizes import TooLargeError

Ints = npt.NDArray[np.int64]

WIDE = 8
"""Boxes that begin or end within another, by either key, from which on that is wide."""

MOST_COARSE = 256
"""Rows and columns of a grid: a coarse class is a byte."""

MOST_RECORDS = 1 << 24
"""Records of a key: the first one of a list has 24 bits of a word."""

MOST_WORK = 200_000_000
"""Steps of filling a grid, and of making one key's lists: a nanosecond each."""

MOST_CONDITIONS = 1 << 28
"""Conditions times merged classes."""


def build(terms: Terms, cells: int) -> CrossProduct:
    """The candidates of a segment.

    Args:
        cells: most cells of the grid, before equal rows and columns are one.

    Raises:
        TooLargeError: there are no two keys, or it would outgrow its limits.
    """
    if len(terms.keys) < 2:
        raise TooLargeError
    merges, holds, condition = merged(terms.parts, len(terms.op), most=MOST_CONDITIONS)
    boxes = Boxes(terms.op, condition, terms.keys, terms.key_sets, terms.of_key)
    loads = [_load(boxes.low[k], boxes.high[k]) for k in (0, 1)]
    grid = _grid(boxes, np.minimum(*loads), holds, terms.ops, cells)
    narrow = np.ones(len(boxes.op), bool)
    narrow[grid.boxes] = False
    by_first = loads[0] <= loads[1]
    sides = [
        _side(boxes, key, np.flatnonzero(narrow & (by_first if key == 0 else ~by_first)), grid.coarse[key], holds,
              terms.ops)
        for key in (0, 1)
    ]
    (first, second) = (Key(terms.keys[k], sides[k].words, len(sides[k].words)) for k in (0, 1))
    # Packets are taken to come from the rules, evenly.
    more = sum(side.more for side in sides) / max(1, len(boxes.op))
    found = Candidates((first, second), (sides[0].records, sides[1].records), grid.cells, more)
    return CrossProduct(merges, holds.shape[1], holds, (found,), terms.ops)


def _load(low: Ints, high: Ints) -> npt.NDArray[np.float64]:
    """About how many boxes begin or end within each one's range."""
    found = np.zeros(len(low))
    for ends in (np.sort(low), np.sort(high)):
        found += np.searchsorted(ends, high, "right") - np.searchsorted(ends, low, "left")
    return found / 2


@dataclass(frozen=True)
class _Grid:
    """The wide boxes, the coarse class of every class of each key, and the op of each pair with a merged class."""

    boxes: Ints
    coarse: tuple[Ints, Ints]
    cells: npt.NDArray[np.uint32] | None


def _cuts(low: Ints, high: Ints, classes: int) -> Ints:
    """The interval of every class, between neighbours of which some range begins or ends."""
    cuts = np.zeros(classes + 1, bool)
    cuts[low] = True
    cuts[high + 1] = True
    cuts[0] = False
    return np.cumsum(cuts[:-1])


def _grid(boxes: Boxes, least: npt.NDArray[np.float64], holds: npt.NDArray[np.bool_], miss: int, cells: int) -> _Grid:
    """As many of the widest boxes as fit into a grid; `least`: how wide each is."""
    from fastpath.kernels import candidates

    order = np.argsort(-least, kind="stable")
    wide = int((least >= WIDE).sum())
    sizes = sorted({min(wide, int(1.25 ** k)) for k in range(100)} - {0})
    rest = holds.shape[1]

    def places(count: int) -> tuple[Ints, Ints, Ints]:
        chosen = np.sort(order[:count])
        a, b = (_cuts(boxes.low[k][chosen], boxes.high[k][chosen], boxes.counts[k]) for k in (0, 1))
        return chosen, a, b

    def ranges(chosen: Ints, a: Ints, b: Ints) -> list[Ints]:
        return [of[ends[k][chosen]] for k, of in ((0, a), (1, b)) for ends in (boxes.low, boxes.high)]

    def fits(count: int) -> bool:
        chosen, a, b = places(count)
        if int(a[-1] + 1) * int(b[-1] + 1) * rest > cells:
            return False
        low_a, high_a, low_b, high_b = ranges(chosen, a, b)
        work: int = ((high_a - low_a + 1) * (high_b - low_b + 1)).sum() * rest
        return bool(work <= MOST_WORK)

    first, last = 0, len(sizes)
    while first < last:
        middle = (first + last) // 2
        if fits(sizes[middle]):
            first = middle + 1
        else:
            last = middle
    count = sizes[first - 1] if first else 0
    while count:
        chosen, a, b = places(count)
        found = np.full((int(a[-1]) + 1, int(b[-1]) + 1, rest), miss, np.uint32)
        low_a, high_a, low_b, high_b = ranges(chosen, a, b)
        candidates.fill_grid(low_a, high_a, low_b, high_b, boxes.condition[chosen], holds.view(np.uint8),
                             boxes.op[chosen], found)
        rows, kept = _equal(found)
        found = found[kept]
        columns, kept = _equal(found.transpose(1, 0, 2))
        found = np.ascontiguousarray(found[:, kept])
        if max(found.shape[:2]) <= MOST_COARSE:
            return _Grid(chosen, (rows[a], columns[b]), found)
        count = count * 3 // 4
    nothing = (np.zeros(boxes.counts[0], np.int64), np.zeros(boxes.counts[1], np.int64))
    return _Grid(order[:0], nothing, None)


def _equal(cells: npt.NDArray[np.uint32]) -> tuple[Ints, Ints]:
    """(number of every part along the first axis, the first part of each number)."""
    flat = cells.reshape(len(cells), -1)
    wide = np.zeros((len(flat), flat.shape[1] + flat.shape[1] % 2), np.uint32)
    wide[:, :flat.shape[1]] = flat
    return unique_rows(wide.view(np.uint64))


@dataclass(frozen=True)
class _Side:
    """One key: the word of every class, its records, and those behind the first of a list, summed over all boxes."""

    words: npt.NDArray[np.uint32]
    records: npt.NDArray[np.uint32] | None
    more: float


def _side(boxes: Boxes, key: int, which: Ints, coarse: Ints, holds: npt.NDArray[np.bool_], miss: int) -> _Side:
    """The lists of the boxes that are looked up by a key."""
    from fastpath.kernels import candidates

    if not len(which):
        return _Side(coarse.astype(np.uint32), None, 0.0)
    low, high, other = boxes.low[key][which], boxes.high[key][which], 1 - key
    of_class = _cuts(low, high, boxes.counts[key])
    other_low, other_high = boxes.low[other][which], boxes.high[other][which]
    condition = boxes.condition[which]
    number, start, entries = candidates.candidate_lists(
        of_class[low], of_class[high], int(of_class[-1]) + 1, other_low, other_high, condition, packed(holds),
        MOST_WORK)
    if not len(start):
        raise TooLargeError
    lengths = np.diff(start)
    # A list without entries is one record that misses.
    taken = np.maximum(lengths, 1)
    first = np.cumsum(taken) - taken
    if int(taken.sum()) > MOST_RECORDS:
        raise TooLargeError
    records = np.zeros((int(taken.sum()), 4), np.uint32)
    records[:, 3] = miss
    at = np.repeat(first - start[:-1], lengths) + np.arange(len(entries))
    records[at, 0], records[at, 1] = other_low[entries], other_high[entries] - other_low[entries]
    records[at, 2], records[at, 3] = condition[entries] << 1, boxes.op[which[entries]]
    records[first + taken - 1, 2] |= 1
    words = (first[number] << 8)[of_class] | coarse
    # Over all boxes: those of the other key have packets that come by these lists too.
    ends = of_class[boxes.low[key]], of_class[boxes.high[key]]
    more = float(sum((taken[number[at]] - 1).sum() for at in ends)) / 2
    return _Side(words.astype(np.uint32), records, more)
