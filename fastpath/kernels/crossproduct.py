"""Which op of a segment matches first, for many packets at a time, by cross products of classes.

One pass over the packets for every table, so that a pass keeps few tables in cache and its look-ups do not wait for one
another. Small fields are merged into one class first; each group of boxes then finds its list by the classes of at
most two large fields, and what that list says for the merged class; the lowest op of all groups is the answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import helper
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
    M_PLACES,
    M_SLOT,
    M_TABLE,
    M_WIDTH,
    RESULT_DIRECT,
    SHAPE_DENSE,
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
def first_ops(t: Any, which: Any, classes: Any, here: Any, count: Any, rest: Any, places: Any, best: Any) -> None:
    """Writes the first op and its kind (``C_MISS`` and the last kind for none) into their class rows.

    Args:
        which: the cross product.
        here: which packets of the block, `count` of them.
        rest, places, best: room for a block.
    """
    lookups, merges, groups, narrow, wide = t.lookups, t.merges, t.groups, t.cells16, t.cells32
    first = lookups[which, C_MERGE]
    for j in range(count):
        rest[j] = 0
    for x in range(first, first + lookups[which, C_MERGES]):
        row = classes[merges[x, M_SLOT]]
        table = narrow[merges[x, M_TABLE]:]
        width = np.uint32(merges[x, M_WIDTH])
        if merges[x, M_PLACES] >= 0:
            of_class = narrow[merges[x, M_PLACES]:]
            for j in range(count):
                rest[j] = table[rest[j] * width + of_class[row[here[j]]]]
        elif x == first:
            for j in range(count):
                rest[j] = table[row[here[j]]]
        else:
            for j in range(count):
                rest[j] = table[rest[j] * width + row[here[j]]]
    miss = np.uint32(lookups[which, C_MISS])
    for j in range(count):
        best[j] = miss
    of_rest = np.uint32(lookups[which, C_REST])
    first = lookups[which, C_GROUP]
    for x in range(first, first + lookups[which, C_GROUPS]):
        shape = groups[x, G_SHAPE]
        if shape == SHAPE_NONE:
            for j in range(count):
                places[j] = 0
        else:
            _mapped(wide[groups[x, G_A_MAP]:], classes[groups[x, G_A]], here, count, places)
            if shape == SHAPE_ONE:
                pass
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
        else:
            _lists(wide[groups[x, G_LISTS]:], wide[found:], wide[lookups[which, C_HOLDS]:],
                   np.uint32(lookups[which, C_WORDS]), rest, count, places, best)
    ops, kinds = classes[lookups[which, C_SLOT]], classes[lookups[which, C_KIND_SLOT]]
    kind_of = narrow[lookups[which, C_KINDS]:]
    for j in range(count):
        i = here[j]
        ops[i] = best[j]
        kinds[i] = kind_of[best[j]]
