"""Which op of a segment matches first, for many packets at a time, by cross products of classes or by candidates.

One pass over the packets for every table, so that a pass keeps few tables in cache and its look-ups do not wait for one
another. Small fields are merged into one class first; each group of boxes then finds its list by the classes of at
most two large fields, and what that list says for the merged class; the lowest op of all groups is the answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import helper
from fastpath.kernels.candidates import candidates, grid
from fastpath.kernels.grouped import grouped
from fastpath.kernels.layout import (
    C_GROUP,
    C_GROUPS,
    C_HOLDS,
    C_KIND_SLOT,
    C_KINDS,
    C_MERGE,
    C_MERGES,
    C_MISS,
    C_REST,
    C_SLOT,
    C_WORDS,
    F_BASE,
    F_COUNT,
    F_KIND,
    F_PARTS,
    G_A,
    G_A_MAP,
    G_B,
    G_B_MAP,
    G_FOUND,
    G_FOUND_WIDE,
    G_LISTS,
    G_RESULT,
    G_SHAPE,
    G_TABLE,
    G_TABLE_WIDE,
    G_WIDTH,
    K_PRODUCT,
    M_PLACES,
    M_SLOT,
    M_TABLE,
    M_WIDTH,
    RESULT_DIRECT,
    RESULT_GROUPED,
    SHAPE_CANDIDATES,
    SHAPE_DENSE,
    SHAPE_GROUPED,
    SHAPE_NONE,
    SHAPE_ONE,
)


@helper
def _mapped(maps: Any, row: Any, here: Any, count: Any, places: Any) -> None:
    for j in range(count):
        places[j] = maps[row[here[j]]]


@helper
def _plus_mapped(maps: Any, row: Any, here: Any, count: Any, width: Any, places: Any) -> None:
    for j in range(count):
        places[j] = places[j] * width + maps[row[here[j]]]


@helper
def _look_up(cells: Any, count: Any, places: Any) -> None:
    for j in range(count):
        places[j] = cells[places[j]]


@helper
def _runs(starts: Any, columns: Any, lists: Any, maps: Any, row: Any, here: Any, count: Any, places: Any) -> None:
    """places: rows -> lists, by a search among the runs of a row."""
    for j in range(count):
        column = maps[row[here[j]]]
        low = starts[places[j]]
        length = starts[places[j] + np.uint32(1)] - low
        while length > np.uint32(1):
            half = length >> np.uint32(1)
            low = low + half if columns[low + half] <= column else low
            length -= half
        places[j] = lists[low]


@helper
def _direct(cells: Any, rest: Any, classes: Any, count: Any, places: Any, best: Any) -> None:
    for j in range(count):
        op = np.uint32(cells[places[j] * classes + rest[j]])
        best[j] = min(best[j], op)


@helper
def _lists(
    lists: Any, entries: Any, holds: Any, words: Any, rest: Any, count: Any, places: Any, best: Any
) -> None:
    """The first entry of each list whose condition holds; the last one always does."""
    one, word, bit = np.uint32(1), np.uint32(5), np.uint32(31)
    for j in range(count):
        at = lists[places[j]]
        r = rest[j]
        while holds[entries[np.uint32(2) * at] * words + (r >> word)] >> (r & bit) & one == np.uint32(0):
            at += one
        best[j] = min(best[j], entries[np.uint32(2) * at + one])


@helper
def _gathered(row: Any, here: Any, count: Any, out: Any) -> None:
    for j in range(count):
        out[j] = row[here[j]]


@helper
def _candidates(
    t: Any, which: Any, x: Any, classes: Any, here: Any, count: Any, rest: Any, room: Any, best: Any
) -> None:
    """The first op by candidates, for packets that `best` has the miss for."""
    lookups, groups, wide = t.lookups, t.groups, t.cells32
    row_a, row_b = classes[groups[x, G_A]], classes[groups[x, G_B]]
    first, second, other = room[0], room[1], room[2]
    _mapped(wide[groups[x, G_A_MAP]:], row_a, here, count, first)
    _mapped(wide[groups[x, G_B_MAP]:], row_b, here, count, second)
    if groups[x, G_WIDTH]:
        grid(wide[groups[x, G_TABLE]:], groups[x, G_WIDTH], lookups[which, C_REST], first, second, rest, count, best)
    holds = wide[lookups[which, C_HOLDS]:]
    if groups[x, G_FOUND] >= 0:
        _gathered(row_b, here, count, other)
        candidates(wide[groups[x, G_FOUND]:], holds, lookups[which, C_WORDS], first, other, rest, count, best, room[3],
                   room[4])
    if groups[x, G_LISTS] >= 0:
        _gathered(row_a, here, count, other)
        candidates(wide[groups[x, G_LISTS]:], holds, lookups[which, C_WORDS], second, other, rest, count, best, room[3],
                   room[4])


@helper
def is_fixed(fields: Any, f: Any, fixed: Any) -> Any:
    """True where a field has one class in all packets, by the bits of the bases that have one value."""
    if fields[f, F_KIND] == K_PRODUCT:
        for p in range(fields[f, F_COUNT]):
            if fixed >> fields[f, F_PARTS + 2 * p] & 1 == 0:
                return False
        return True
    return fixed >> fields[f, F_BASE] & 1 != 0


@helper
def _merge(t: Any, which: Any, classes: Any, fixed: Any, here: Any, count: Any, rest: Any) -> Any:
    """Writes the rest class of every packet; of merges that come first and are fixed, one look-up does for all."""
    lookups, merges, narrow = t.lookups, t.merges, t.cells16
    x = lookups[which, C_MERGE]
    end = x + lookups[which, C_MERGES]
    begin = np.uint32(0)
    while x < end and is_fixed(t.fields, merges[x, M_SLOT], fixed):
        c = classes[merges[x, M_SLOT], 0]
        if merges[x, M_PLACES] >= 0:
            c = np.uint32(narrow[merges[x, M_PLACES] + c])
        begin = np.uint32(narrow[merges[x, M_TABLE] + begin * merges[x, M_WIDTH] + c])
        x += 1
    if x == end or merges[x, M_PLACES] >= 0:
        for j in range(count):
            rest[j] = begin
    else:
        row = classes[merges[x, M_SLOT]]
        table = narrow[merges[x, M_TABLE] + begin * merges[x, M_WIDTH]:]
        for j in range(count):
            rest[j] = table[row[here[j]]]
        x += 1
    while x < end:
        row = classes[merges[x, M_SLOT]]
        table = narrow[merges[x, M_TABLE]:]
        width = np.uint32(merges[x, M_WIDTH])
        if merges[x, M_PLACES] >= 0:
            of_class = narrow[merges[x, M_PLACES]:]
            for j in range(count):
                rest[j] = table[rest[j] * width + of_class[row[here[j]]]]
        else:
            for j in range(count):
                rest[j] = table[rest[j] * width + row[here[j]]]
        x += 1


@helper
def first_ops(
    t: Any, which: Any, classes: Any, fixed: Any, here: Any, count: Any, rest: Any, places: Any, room: Any, best: Any
) -> None:
    """Writes the first op of a segment that matches each packet into `best`, ``C_MISS`` for none.

    Args:
        which: the cross product.
        fixed: bits of the bases that have one value in all packets.
        here: which packets of the block, `count` of them.
        rest, places, room: room for a block, `room` five times.
    """
    lookups, groups, narrow, wide = t.lookups, t.groups, t.cells16, t.cells32
    _merge(t, which, classes, fixed, here, count, rest)
    miss = np.uint32(lookups[which, C_MISS])
    for j in range(count):
        best[j] = miss
    of_rest = np.uint32(lookups[which, C_REST])
    first = lookups[which, C_GROUP]
    for x in range(first, first + lookups[which, C_GROUPS]):
        shape = groups[x, G_SHAPE]
        if shape == SHAPE_CANDIDATES:
            _candidates(t, which, x, classes, here, count, rest, room, best)
            continue
        if shape == SHAPE_NONE:
            for j in range(count):
                places[j] = 0
        else:
            _mapped(wide[groups[x, G_A_MAP]:], classes[groups[x, G_A]], here, count, places)
            if shape == SHAPE_ONE:
                pass
            elif shape == SHAPE_GROUPED:
                _mapped(wide[groups[x, G_B_MAP]:], classes[groups[x, G_B]], here, count, room[0])
                rows = wide[groups[x, G_TABLE]:]
                if groups[x, G_TABLE_WIDE]:
                    grouped(rows, narrow, wide, places, room[0], count, False, places)
                else:
                    grouped(rows, narrow, narrow, places, room[0], count, False, places)
            elif shape == SHAPE_DENSE:
                _plus_mapped(wide[groups[x, G_B_MAP]:], classes[groups[x, G_B]], here, count,
                             np.uint32(groups[x, G_WIDTH]), places)
                if groups[x, G_TABLE_WIDE]:
                    _look_up(wide[groups[x, G_TABLE]:], count, places)
                else:
                    _look_up(narrow[groups[x, G_TABLE]:], count, places)
            else:
                at = groups[x, G_TABLE]
                columns = at + groups[x, G_WIDTH]
                _runs(wide[at:], wide[columns:], wide[columns + groups[x, G_TABLE_WIDE]:], wide[groups[x, G_B_MAP]:],
                      classes[groups[x, G_B]], here, count, places)
        found = groups[x, G_FOUND]
        if groups[x, G_RESULT] == RESULT_DIRECT:
            if groups[x, G_FOUND_WIDE]:
                _direct(wide[found:], rest, of_rest, count, places, best)
            else:
                _direct(narrow[found:], rest, of_rest, count, places, best)
        elif groups[x, G_RESULT] == RESULT_GROUPED:
            if groups[x, G_FOUND_WIDE]:
                grouped(wide[found:], narrow, wide, places, rest, count, True, best)
            else:
                grouped(wide[found:], narrow, narrow, places, rest, count, True, best)
        else:
            _lists(wide[groups[x, G_LISTS]:], wide[found:], wide[lookups[which, C_HOLDS]:],
                   np.uint32(lookups[which, C_WORDS]), rest, count, places, best)


@helper
def write_ops(t: Any, which: Any, classes: Any, here: Any, count: Any, best: Any) -> None:
    """Writes what :func:`first_ops` found, and the kinds of the ops, into their class rows."""
    lookups = t.lookups
    ops, kinds = classes[lookups[which, C_SLOT]], classes[lookups[which, C_KIND_SLOT]]
    kind_of = t.cells16[lookups[which, C_KINDS]:]
    for j in range(count):
        i = here[j]
        ops[i] = best[j]
        kinds[i] = kind_of[best[j]]
