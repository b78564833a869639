"""Candidates: the few rules that a packet can match, by the class of one of its keys, compared one by one.

A *record* is four words: the first class of the other key that the rule takes, how many more, its condition on the
merged fields shifted left by one with the lowest bit set in the last record of a list, and its op. The first record of
every packet's list is compared without a branch; packets whose list goes on are put together and go round again. So
the time is that of the mean list, and lists should have few records.

No loop here compares and selects: LLVM makes jumps of it that depend on data. What does not hold becomes the largest
number instead, by arithmetic, and the least one is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import helper, kernel
from fastpath.kernels.build import MIX, _grown, _hash_table


@helper
def grid(cells: Any, width: Any, rest_classes: Any, first: Any, second: Any, rest: Any, m: Any, best: Any) -> None:
    """The least op of the wide rules, by the coarse classes in the lowest bytes of two rows of words."""
    of_first, of_second, byte = np.uint32(width * rest_classes), np.uint32(rest_classes), np.uint32(255)
    for k in range(m):
        best[k] = cells[(first[k] & byte) * of_first + (second[k] & byte) * of_second + rest[k]]


@helper
def _compared(records: Any, holds: Any, width: Any, at: Any, other: Any, rest: Any, best: Any) -> Any:
    """The lesser of `best` and a record's op, if that holds."""
    one = np.uint64(1)
    beyond = np.int64(other) - np.int64(records[at])
    beyond |= np.int64(records[at | one]) - beyond  # negative outside
    place = np.uint64(records[at | np.uint64(2)] >> np.uint32(1)) * width + np.uint64(rest >> np.uint32(5))
    holding = np.int64(holds[place] >> (rest & np.uint32(31)) & np.uint32(1))
    op = np.int64(records[at | np.uint64(3)]) | beyond >> 32 | holding - 1
    return min(best, np.uint32(op & 0xFFFFFFFF))


@helper
def candidates(
    records: Any, holds: Any, words: Any, lists: Any, other: Any, rest: Any, m: Any, best: Any, onward: Any, places: Any
) -> None:
    """Lowers `best` to the op of every candidate that holds.

    Args:
        records: four words each, flat.
        holds: a row of `words` words for each condition, the bits of the merged classes that satisfy it.
        lists: for each packet its first record, shifted left by eight bits.
        other: classes of the other key.
        rest: merged classes.
        onward, places: room for m numbers.
    """
    width, one, two, eight = np.uint64(words), np.uint64(1), np.uint64(2), np.uint32(8)
    used: Any = np.uint64(0)
    for k in range(m):
        x = np.uint64(lists[k] >> eight)
        at = x << two
        best[k] = _compared(records, holds, width, at, other[k], rest[k], best[k])
        onward[used], places[used] = np.uint32(k), np.uint32(x + one)  # written, and kept where the number moves on
        used += np.uint64(records[at | two] & np.uint32(1)) ^ one
    while used > np.uint64(0):
        n = np.int64(used)
        used = np.uint64(0)
        for j in range(n):
            i = np.uint64(onward[j])
            x = np.uint64(places[j])
            at = x << two
            best[i] = _compared(records, holds, width, at, other[i], rest[i], best[i])
            onward[used], places[used] = np.uint32(i), np.uint32(x + one)
            used += np.uint64(records[at | two] & np.uint32(1)) ^ one


@kernel
def fill_grid(
    low_a: Any, high_a: Any, low_b: Any, high_b: Any, condition: Any, holds: Any, op: Any, cells: Any
) -> None:
    """``cells[a, b, r]`` becomes the op of the first box that holds there.

    Args:
        low_a, high_a, low_b, high_b: rows and columns of each box, in the order of the ops, first and last.
        condition: condition of each box on the merged classes.
        holds: uint8 of shape (conditions, merged classes).
        op: op of each box.
        cells: uint32; what is there stays where no box holds.
    """
    rest = cells.shape[2]
    for x in range(len(op) - 1, -1, -1):
        row = holds[condition[x]]
        for a in range(low_a[x], high_a[x] + 1):
            for b in range(low_b[x], high_b[x] + 1):
                for r in range(rest):
                    if row[r]:
                        cells[a, b, r] = op[x]


@kernel
def candidate_lists(
    low: Any, high: Any, intervals: Any, other_low: Any, other_high: Any, condition: Any, holds: Any, max_work: Any
) -> Any:
    """The boxes that cover each interval of a key, as lists.

    A box is left out where an earlier one of the list holds wherever it does. Equal lists are one.

    Args:
        low, high: first and last interval of every box, in the order of the ops.
        intervals: number of intervals.
        other_low, other_high: what the boxes take of the other key.
        condition: condition of every box.
        holds: for each condition the merged classes that satisfy it, uint64 words.
        max_work: steps that may be taken.

    Returns:
        (list of every interval, start of every list, boxes of the lists); the lists are empty where it took more steps.
    """
    begin = np.zeros(intervals + 1, np.int64)
    for x in range(len(low)):
        begin[low[x]] += 1
        begin[high[x] + 1] -= 1
    count: Any = 0
    total: Any = np.int64(0)
    for i in range(intervals + 1):
        count += begin[i]
        begin[i] = total
        total += count
    number = np.zeros(intervals, np.int64)
    none = np.zeros(0, np.int64)
    if total > max_work:
        return number, none, none
    boxes = np.empty(total, np.int32)
    end = begin.copy()
    for x in range(len(low)):
        for i in range(low[x], high[x] + 1):
            boxes[end[i]] = x
            end[i] += 1
    words = holds.shape[1]
    work: Any = total
    start = np.zeros(1024, np.int64)
    found = np.empty(1024, np.int64)
    hashes = np.empty(1024, np.uint64)
    lists, filled = 0, 0
    size = 1 << 12
    table = np.full(size, -1, np.int64)
    for i in range(intervals):
        here: Any = filled
        h = np.uint64(1)
        for y in range(begin[i], begin[i + 1]):
            x = boxes[y]
            covered = False
            for z in range(filled, here):
                v = found[z]
                if other_low[v] > other_low[x] or other_high[x] > other_high[v]:
                    continue
                covered = True
                for w in range(words):
                    if holds[condition[x], w] & ~holds[condition[v], w] != np.uint64(0):
                        covered = False
                        break
                if covered:
                    break
            work += here - filled + 1
            if not covered:
                found = _grown(found, here + 1)
                found[here] = x
                here += 1
                h = (h ^ np.uint64(x)) * np.uint64(MIX)
                h ^= h >> np.uint64(29)
        if work > max_work:
            return number, none, none
        at = h & np.uint64(size - 1)
        same = np.int64(-1)
        while table[at] >= 0:
            other = table[at]
            if hashes[other] == h and start[other + 1] - start[other] == here - filled:
                same = other
                for z in range(here - filled):
                    if found[start[other] + z] != found[filled + z]:
                        same = np.int64(-1)
                        break
                if same >= 0:
                    break
            at = (at + np.uint64(1)) & np.uint64(size - 1)
        if same < 0:
            same = np.int64(lists)
            table[at] = lists
            hashes = _grown(hashes, lists + 1)
            start = _grown(start, lists + 2)
            hashes[lists] = h
            lists += 1
            filled = here
            start[lists] = filled
            if 2 * lists > size:
                size *= 4
                table = _hash_table(hashes, lists, size)
        number[i] = same
    return number, start[:lists + 1].copy(), found[:filled].copy()
