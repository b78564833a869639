"""Loops of the compiler that numpy cannot take: finding equal rows, and the rows of cross products.

Called while tables are built, never for packets. Hashes only find candidates: rows are compared before they are called
equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import kernel

MIX = 0x9E3779B97F4A7C15


@kernel
def unique_rows(rows: Any, ids: Any, first: Any) -> Any:
    """Numbers equal rows of a uint64 matrix alike, in order of appearance -> how many different ones there are.

    ``ids[i]`` becomes the number of row i, ``first[number]`` the first row that has it.
    """
    n, width = rows.shape
    size = 16
    while size < 2 * n:
        size *= 2
    table = np.full(size, -1, np.int64)
    mask = np.uint64(size - 1)
    count = 0
    for i in range(n):
        h = np.uint64(0)
        for w in range(width):
            h = (h ^ rows[i, w]) * np.uint64(MIX)
            h ^= h >> np.uint64(29)
        at = h & mask
        while True:
            other = table[at]
            if other < 0:
                table[at] = count
                first[count] = i
                ids[i] = count
                count += 1
                break
            same = True
            j = first[other]
            for w in range(width):
                if rows[i, w] != rows[j, w]:
                    same = False
                    break
            if same:
                ids[i] = other
                break
            at = (at + np.uint64(1)) & mask
    return count


@kernel
def unique_pairs(a: Any, b: Any, ids: Any, first_a: Any, first_b: Any, limit: Any) -> Any:
    """Numbers the rows ``a[i] & b[j]`` of two uint64 matrices: ``ids[i, j]``, with one (i, j) for each number.

    Returns:
        How many different ones there are, or -1 where more than `limit`.
    """
    width = a.shape[1]
    size = 16
    while size < 2 * limit + 2:
        size *= 2
    table = np.full(size, -1, np.int64)
    mask = np.uint64(size - 1)
    count = 0
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            h = np.uint64(0)
            for w in range(width):
                h = (h ^ (a[i, w] & b[j, w])) * np.uint64(MIX)
                h ^= h >> np.uint64(29)
            at = h & mask
            while True:
                other = table[at]
                if other < 0:
                    if count >= limit:
                        return -1
                    table[at] = count
                    first_a[count], first_b[count] = i, j
                    ids[i, j] = count
                    count += 1
                    break
                same = True
                x, y = first_a[other], first_b[other]
                for w in range(width):
                    if a[i, w] & b[j, w] != a[x, w] & b[y, w]:
                        same = False
                        break
                if same:
                    ids[i, j] = other
                    break
                at = (at + np.uint64(1)) & mask
    return count


@kernel
def leaf_sets(children: Any, reached: Any, nodes: Any, classes: Any) -> None:
    """Sets of leaves, one level up: ``nodes[i]`` and ``classes[c]`` gain what ``reached[children[i, c]]`` holds, for
    every node i and class c."""
    width = reached.shape[1]
    for i in range(children.shape[0]):
        before = np.int64(-1)
        for c in range(children.shape[1]):
            child = children[i, c]
            for w in range(width):
                classes[c, w] |= reached[child, w]
            if child != before:
                for w in range(width):
                    nodes[i, w] |= reached[child, w]
            before = child


@kernel
def _grown(array: Any, need: Any) -> Any:
    if need <= len(array):
        return array
    larger = np.empty(max(2 * len(array), need), array.dtype)
    larger[:len(array)] = array
    return larger


@kernel
def _hash_table(hashes: Any, count: Any, size: Any) -> Any:
    """A table of `size`, a power of two, with the numbers of the first `count` hashes; -1 where there is none."""
    table = np.full(size, -1, np.int64)
    for i in range(count):
        at = hashes[i] & np.uint64(size - 1)
        while table[at] >= 0:
            at = (at + np.uint64(1)) & np.uint64(size - 1)
        table[at] = i
    return table


@kernel
def rows_of_key(low: Any, high: Any, classes: Any, most: Any) -> Any:
    """The classes of a key as rows: classes that lie in the same boxes are one row.

    Args:
        low, high: first and last class of every box; int64.
        classes: number of classes.
        most: boxes that all classes together may have.

    Returns:
        (row of every class, start of every row, boxes of all rows in ascending order, int32), empty where there were
        more than `most`.
    """
    start = np.zeros(classes + 1, np.int64)
    for x in range(len(low)):
        start[low[x]] += 1
        start[high[x] + 1] -= 1
    count, at = np.int64(0), np.int64(0)
    for c in range(classes + 1):
        count += start[c]
        start[c] = at
        at += count
    row = np.zeros(classes, np.int64)
    if at > most:
        return row, start[:0].copy(), np.zeros(0, np.int32)
    boxes = np.empty(at, np.int32)
    end = start.copy()
    for x in range(len(low)):
        for c in range(low[x], high[x] + 1):
            boxes[end[c]] = x
            end[c] += 1
    # Equal classes are found by a hash and compared; the boxes of new ones move up over those of the others.
    size = 16
    while size < 2 * classes + 2:
        size *= 2
    table = np.full(size, -1, np.int64)
    row_start = np.zeros(classes + 1, np.int64)
    rows, used = 0, np.int64(0)
    for c in range(classes):
        length = start[c + 1] - start[c]
        h = np.uint64(length)
        for x in range(start[c], start[c + 1]):
            h = (h ^ np.uint64(boxes[x])) * np.uint64(MIX)
            h ^= h >> np.uint64(29)
        place = h & np.uint64(size - 1)
        while True:
            other = table[place]
            if other < 0:
                table[place] = rows
                row[c] = rows
                for x in range(length):
                    boxes[used + x] = boxes[start[c] + x]
                used += length
                rows += 1
                row_start[rows] = used
                break
            same = row_start[other + 1] - row_start[other] == length
            if same:
                for x in range(length):
                    if boxes[row_start[other] + x] != boxes[start[c] + x]:
                        same = False
                        break
            if same:
                row[c] = other
                break
            place = (place + np.uint64(1)) & np.uint64(size - 1)
    return row, row_start[:rows + 1].copy(), boxes[:used].copy()


@kernel
def cross_rows(
    row_start: Any, row_boxes: Any, low: Any, high: Any, condition: Any, op: Any, always: Any, width: Any,
    max_work: Any, max_pieces: Any,
) -> Any:
    """The rows of a cross product as runs of columns with the same list of boxes.

    Row r holds the boxes ``row_boxes[row_start[r]:row_start[r + 1]]`` in ascending order; box x spans the columns
    ``low[x]`` to ``high[x]`` of `width`. A list has each condition once, and nothing behind a condition that `always`
    holds.

    Returns:
        (first run of every row, first column of every run, list of every run, start of every list, boxes of the
        lists); empty arrays where it takes more than `max_work` steps or `max_pieces` runs.
    """
    rows = len(row_start) - 1
    starts = np.zeros(rows + 1, np.int64)
    columns = np.empty(1024, np.uint32)
    lists = np.empty(1024, np.uint32)
    list_start = np.zeros(1024, np.int64)
    list_box = np.empty(4096, np.int64)
    pieces, count, filled = 0, 0, 0
    size = 1 << 12
    table = np.full(size, -1, np.int64)
    hashes = np.empty(1024, np.uint64)
    seen = np.full(len(always), -1, np.int64)
    stamp = 0
    work = 0
    none = (np.zeros(0, np.int64), columns[:0], lists[:0], list_start[:0], list_box[:0])
    for r in range(rows):
        a, b = row_start[r], row_start[r + 1]
        cuts = np.empty(2 * (b - a) + 1, np.int64)
        cuts[0] = 0
        used = 1
        for x in range(a, b):
            box = row_boxes[x]
            if low[box] > 0:
                cuts[used] = low[box]
                used += 1
            if high[box] + 1 < width:
                cuts[used] = high[box] + 1
                used += 1
        cuts = np.sort(cuts[:used])
        before = -1
        previous = np.int64(-1)
        for c in range(used):
            column = cuts[c]
            if column == before:
                continue
            before = column
            stamp += 1
            filled_here = filled
            work += b - a + 4
            h = np.uint64(1)
            for x in range(a, b):
                box = row_boxes[x]
                if low[box] <= column <= high[box] and seen[condition[box]] != stamp:
                    seen[condition[box]] = stamp
                    if filled_here >= len(list_box):
                        list_box = _grown(list_box, filled_here + 1)
                    list_box[filled_here] = box
                    filled_here += 1
                    h = (h ^ np.uint64(op[box] * len(always) + condition[box])) * np.uint64(MIX)
                    h ^= h >> np.uint64(29)
                    if always[condition[box]]:
                        break
            if work > max_work or pieces >= max_pieces:
                return none
            at = h & np.uint64(size - 1)
            found = np.int64(-1)
            while table[at] >= 0:
                other = table[at]
                start = list_start[other]
                length = list_start[other + 1] - start
                if hashes[other] == h and length == filled_here - filled:
                    same = True
                    for x in range(length):
                        p, q = list_box[start + x], list_box[filled + x]
                        if op[p] != op[q] or condition[p] != condition[q]:
                            same = False
                            break
                    if same:
                        found = other
                        break
                at = (at + np.uint64(1)) & np.uint64(size - 1)
            if found < 0:
                found = np.int64(count)
                table[at] = count
                if count + 2 > len(list_start):
                    list_start = _grown(list_start, count + 2)
                if count + 1 > len(hashes):
                    hashes = _grown(hashes, count + 1)
                hashes[count] = h
                filled = filled_here
                count += 1
                list_start[count] = filled
                if 2 * count > size:
                    size *= 4
                    table = _hash_table(hashes, count, size)
            if found == previous:
                continue
            previous = found
            if pieces + 1 > len(columns):
                columns = _grown(columns, pieces + 1)
                lists = _grown(lists, pieces + 1)
            columns[pieces] = column
            lists[pieces] = found
            pieces += 1
        starts[r + 1] = pieces
    return (
        starts, columns[:pieces].copy(), lists[:pieces].copy(), list_start[:count + 1].copy(), list_box[:filled].copy(),
    )


@kernel
def first_holding(list_start: Any, condition: Any, op: Any, holds: Any, miss: Any, found: Any) -> None:
    """``found[i, c]`` = op of list i's first entry whose condition holds for class c (`holds`), else `miss`."""
    classes = holds.shape[1]
    for i in range(len(list_start) - 1):
        for c in range(classes):
            found[i, c] = miss
        for x in range(list_start[i + 1] - 1, list_start[i] - 1, -1):
            row = condition[x]
            for c in range(classes):
                if holds[row, c]:
                    found[i, c] = op[x]


@kernel
def fill_dense(starts: Any, columns: Any, lists: Any, cells: Any) -> None:
    """Runs of columns -> a row of cells each."""
    width = cells.shape[1]
    for r in range(cells.shape[0]):
        for x in range(starts[r], starts[r + 1]):
            end = columns[x + 1] if x + 1 < starts[r + 1] else width
            for c in range(columns[x], end):
                cells[r, c] = lists[x]


@kernel
def _laid(words: Any, used: Any, page: Any, spacing: Any) -> Any:
    """Appends a page, over the end of what is there where both hold one value -> the words, where it begins."""
    lead = 1
    while lead < len(page) and page[lead] == page[0]:
        lead += 1
    shared = 0
    while shared < lead and shared < used and words[used - 1 - shared] == page[0]:
        shared += 1
    at = (used - shared + (1 << spacing) - 1) >> spacing << spacing
    words = _grown(words, at + len(page))
    words[used:at] = 0
    words[at:at + len(page)] = page
    return words, at


@kernel
def address_pages(starts: Any, classes: Any, mask: Any, high: Any, low: Any, spacing: Any) -> Any:
    """Classes of all 32-bit values, as ``kernels.addresses.page_class`` reads them.

    Pages with one class everywhere are shared, and the equal words at the end of one page are also those at the
    beginning of the next one.

    Args:
        starts: first value of every interval, ascending, from 0; int64.
        classes: class of every interval, below 65,536; int64.
        mask: bits of values that count; int64.
        high, low, spacing: int64.

    Returns:
        (top, middle, last), uint16; empty where pages begin too far on.
    """
    top = np.empty(1 << 32 - high, np.uint16)
    middle, last = np.empty(1 << 12, np.uint16), np.empty(1 << 12, np.uint16)
    page, inner = np.empty(1 << high - low, np.uint16), np.empty(1 << low, np.uint16)
    used, inner_used = 0, 0
    size = 0
    for x in range(len(classes)):
        size = max(size, classes[x] + 1)
    single = np.full(size, -1, np.int64)  # place of a page with one class everywhere
    double = np.full(size, -1, np.int64)  # place of a page that leads to that page everywhere
    x = 0
    end = len(starts)
    for h in range(len(top)):
        if h & mask >> high != h:
            top[h] = top[h & mask >> high]
            continue
        first = h << high
        while x + 1 < end and starts[x + 1] <= first:
            x += 1
        c = classes[x]
        whole = x + 1 == end or starts[x + 1] >= first + (1 << high)
        if whole and double[c] >= 0:
            top[h] = double[c]
            continue
        for i in range(len(page)):
            if i & mask >> low != i:
                page[i] = page[i & mask >> low]
                continue
            value = first + (i << low)
            while x + 1 < end and starts[x + 1] <= value:
                x += 1
            of_page = classes[x]
            constant = x + 1 == end or starts[x + 1] >= value + (1 << low)
            if constant and single[of_page] >= 0:
                page[i] = single[of_page]
                continue
            for k in range(len(inner)):
                if k & mask != k:
                    inner[k] = inner[k & mask]
                    continue
                while x + 1 < end and starts[x + 1] <= value + k:
                    x += 1
                inner[k] = classes[x]
            last, at = _laid(last, inner_used, inner, spacing)
            inner_used = at + len(inner)
            if at >> spacing >= 1 << 16:
                return top[:0].copy(), top[:0].copy(), top[:0].copy()
            page[i] = at >> spacing
            if constant:
                single[of_page] = at >> spacing
        middle, at = _laid(middle, used, page, spacing)
        used = at + len(page)
        if at >> spacing >= 1 << 16:
            return top[:0].copy(), top[:0].copy(), top[:0].copy()
        top[h] = at >> spacing
        if whole:
            double[c] = at >> spacing
    return top, middle[:used].copy(), last[:inner_used].copy()
