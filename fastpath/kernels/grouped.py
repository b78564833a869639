"""Tables of two keys in two steps: rows that change at the same columns share a map from columns to their few values.

A row is two numbers: where its cells begin, and where the map of its group does; the cell is at the former plus what
the map has for the column. A table whose rows have few different values takes a tenth of its room so, and stays in
nearer caches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import helper, kernel

MOST_PAIRS = 1 << 20
"""Columns of a group times values of a row that are told apart."""


@helper
def grouped(rows: Any, maps: Any, cells: Any, places: Any, columns: Any, m: Any, merged: Any, out: Any) -> None:
    """`places` and `columns` -> cells; the lesser of them and what is there where `merged`."""
    one = np.uint32(1)
    if merged:
        for k in range(m):
            row = places[k] << one
            out[k] = min(out[k], np.uint32(cells[rows[row] + maps[rows[row | one] + columns[k]]]))
    else:
        for k in range(m):
            row = places[k] << one
            out[k] = cells[rows[row] + maps[rows[row | one] + columns[k]]]


@kernel
def group_rows(table: Any, most: Any, most_groups: Any, tries: Any) -> Any:
    """Puts the rows of a table into groups, each into the one that grows least, or into one of its own.

    Args:
        table: uint32 of shape (rows, columns).
        most: different columns that a group may have.
        most_groups: groups that there may be.
        tries: groups that a row is compared with, the latest ones.

    Returns:
        (group of every row; for every group the place of every column among its different ones, uint16; number of
        those), the latter two empty where it takes too many groups.
    """
    rows, columns = table.shape
    largest = np.uint32(0)
    for r in range(rows):
        for c in range(columns):
            largest = max(largest, table[r, c])
    seen = np.full(np.int64(largest) + 1, -1, np.int64)
    number = np.zeros(np.int64(largest) + 1, np.int64)
    here = np.empty(columns, np.int64)
    stamps, labels = np.zeros(MOST_PAIRS, np.int64), np.zeros(MOST_PAIRS, np.int64)
    stamp = 0
    group = np.zeros(rows, np.int64)
    maps = np.zeros((most_groups, columns), np.uint16)
    sizes, members = np.zeros(most_groups, np.int64), np.zeros(most_groups, np.int64)
    groups = 0
    for r in range(rows):
        values = 0
        for c in range(columns):
            v = table[r, c]
            if seen[v] != r:
                seen[v] = r
                number[v] = values
                values += 1
            here[c] = number[v]
        if values > most:
            return group, maps[:0].copy(), sizes[:0].copy()
        chosen = -1
        least = 2 * columns + 2 * values  # bytes of a group of its own
        for g in range(groups - 1, max(-1, groups - 1 - tries), -1):
            if sizes[g] * values > MOST_PAIRS:
                continue
            limit = min(most, (least + 2 * sizes[g] * members[g]) // (2 * members[g] + 2))
            stamp += 1
            count = 0
            for c in range(columns):
                k = np.int64(maps[g, c]) * values + here[c]
                if stamps[k] != stamp:
                    stamps[k] = stamp
                    count += 1
                    if count > limit:
                        break
            if count > limit:
                continue
            grown = 2 * (count - sizes[g]) * members[g] + 2 * count
            if grown < least:
                least, chosen = grown, g
        if chosen < 0:
            if groups == most_groups:
                return group, maps[:0].copy(), sizes[:0].copy()
            chosen = groups
            groups += 1
        stamp += 1
        count = 0
        for c in range(columns):
            k = np.int64(maps[chosen, c]) * values + here[c]
            if stamps[k] != stamp:
                stamps[k] = stamp
                labels[k] = count
                count += 1
            maps[chosen, c] = labels[k]
        sizes[chosen] = count
        members[chosen] += 1
        group[r] = chosen
    return group, maps[:groups].copy(), sizes[:groups].copy()


@kernel
def fill_grouped(table: Any, group: Any, maps: Any, begin: Any, cells: Any) -> None:
    """Writes the cells of every row from ``begin[row]`` on."""
    for r in range(table.shape[0]):
        g = group[r]
        for c in range(table.shape[1]):
            cells[begin[r] + np.int64(maps[g, c])] = table[r, c]
