"""Reduced ordered binary decision diagrams in flat arrays.

A diagram is the number of its root node. Node 0 is false and node 1 is true; any other is a row ``(variable, low,
high)`` of ``nodes``, where variables are tested in the order of their numbers. Equal functions are equal numbers, for
every row stands in the table once (``unique``, open addressing). Children have smaller numbers than their parents.

``cache`` remembers results (direct-mapped; what falls out is computed again). Nothing here grows: a function that
finds no room returns ``FULL``, and the caller repeats it with larger arrays; what was found before is kept. Nodes are
never taken back.

``meta`` holds the number of nodes in use and the number of operations that have been remembered under a number of
their own. ``stack`` is scratch space, six numbers for each variable on the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import helper, kernel

FULL = -1
"""No room: enlarge the arrays and try again."""

LEAF = 1 << 30
"""The variable of nodes 0 and 1: behind all others."""

M_NODES, M_OPERATIONS = 0, 1

KEEP, LOW, HIGH, SOME, ALL = 0, 1, 2, 3, 4
"""What :func:`transform` does to a variable: keeps it, sets it to 0 or 1, or asks for some or all of its values."""


@helper
def _mixed(a: Any, b: Any, c: Any) -> Any:
    """A hash of three numbers below 2**31; the sum cannot overflow."""
    x = np.uint64(a) * np.uint64(0x5BD1E995) + np.uint64(b) * np.uint64(0x1B873593)
    x += np.uint64(c) * np.uint64(0x38495AB5)
    return x ^ (x >> np.uint64(16)) ^ (x >> np.uint64(33))


@helper
def _node(nodes: Any, unique: Any, meta: Any, variable: Any, low: Any, high: Any) -> Any:
    """The node that tests a variable, or ``FULL``."""
    if low == high:
        return low
    mask = np.uint64(unique.shape[0] - 1)
    at = _mixed(variable, low, high) & mask
    while unique[at] != 0:
        found = unique[at]
        if nodes[found, 1] == low and nodes[found, 2] == high and nodes[found, 0] == variable:
            return np.int64(found)
        at = (at + np.uint64(1)) & mask
    new = meta[M_NODES]
    if new >= nodes.shape[0]:
        return np.int64(FULL)
    meta[M_NODES] = new + 1
    nodes[new, 0] = variable
    nodes[new, 1] = low
    nodes[new, 2] = high
    unique[at] = new
    return np.int64(new)


@helper
def _choose(nodes: Any, unique: Any, cache: Any, meta: Any, stack: Any, f: Any, g: Any, h: Any) -> Any:
    """``g`` where ``f`` holds and ``h`` elsewhere."""
    mask = np.uint64(cache.shape[0] - 1)
    depth = 0
    f, g, h = np.int64(f), np.int64(g), np.int64(h)
    while True:
        result = np.int64(-2)
        if f == 1:
            result = g
        elif f == 0:
            result = h
        else:
            if g == f:
                g = np.int64(1)
            if h == f:
                h = np.int64(0)
            if g == h:
                result = g
            elif g == 1 and h == 0:
                result = f
        if result == -2:
            if h == 0 and g < f:
                f, g = g, f
            elif g == 1 and h < f:
                f, h = h, f
            slot = _mixed(f, g, h) & mask
            if cache[slot, 0] == f and cache[slot, 1] == g and cache[slot, 2] == h:
                result = np.int64(cache[slot, 3])
            else:
                top = min(nodes[f, 0], nodes[g, 0], nodes[h, 0])
                stack[depth, 0] = f
                stack[depth, 1] = g
                stack[depth, 2] = h
                stack[depth, 3] = top
                stack[depth, 4] = -1
                depth += 1
                if nodes[f, 0] == top:
                    f = np.int64(nodes[f, 1])
                if nodes[g, 0] == top:
                    g = np.int64(nodes[g, 1])
                if nodes[h, 0] == top:
                    h = np.int64(nodes[h, 1])
                continue
        while True:
            if depth == 0:
                return result
            last = depth - 1
            f, g, h = np.int64(stack[last, 0]), np.int64(stack[last, 1]), np.int64(stack[last, 2])
            top = stack[last, 3]
            if stack[last, 4] < 0:
                stack[last, 4] = result
                if nodes[f, 0] == top:
                    f = np.int64(nodes[f, 2])
                if nodes[g, 0] == top:
                    g = np.int64(nodes[g, 2])
                if nodes[h, 0] == top:
                    h = np.int64(nodes[h, 2])
                break
            result = _node(nodes, unique, meta, top, np.int64(stack[last, 4]), result)
            if result == FULL:
                return result
            slot = _mixed(f, g, h) & mask
            cache[slot, 0] = f
            cache[slot, 1] = g
            cache[slot, 2] = h
            cache[slot, 3] = result
            depth = last


@kernel
def node(nodes: Any, unique: Any, meta: Any, variable: Any, low: Any, high: Any) -> Any:
    """The node that tests `variable`, which must stand before those of its children, or ``FULL``."""
    return _node(nodes, unique, meta, np.int64(variable), np.int64(low), np.int64(high))


@kernel
def choose(nodes: Any, unique: Any, cache: Any, meta: Any, stack: Any, f: Any, g: Any, h: Any) -> Any:
    """The function that is ``g`` where ``f`` holds and ``h`` elsewhere, or ``FULL``: and is ``(f, g, 0)``, or is
    ``(f, 1, h)``, not is ``(f, 0, 1)``."""
    return _choose(nodes, unique, cache, meta, stack, f, g, h)


@kernel
def fold(nodes: Any, unique: Any, cache: Any, meta: Any, stack: Any, items: Any, disjunction: Any) -> Any:
    """The disjunction or the conjunction of many functions, or ``FULL``.

    Args:
        items: their numbers, int64; overwritten.
        disjunction: 1 for or, 0 for and.
    """
    n = items.shape[0]
    if n == 0:
        return np.int64(1 - disjunction)
    while n > 1:
        half = 0
        for i in range(0, n - 1, 2):
            if disjunction:
                found = _choose(nodes, unique, cache, meta, stack, items[i], np.int64(1), items[i + 1])
            else:
                found = _choose(nodes, unique, cache, meta, stack, items[i], items[i + 1], np.int64(0))
            if found == FULL:
                return found
            items[half] = found
            half += 1
        if n & 1:
            items[half] = items[n - 1]
            half += 1
        n = half
    return np.int64(items[0])


@kernel
def within(nodes: Any, unique: Any, cache: Any, meta: Any, stack: Any, bits: Any, intervals: Any) -> Any:
    """Where a number that is given bit by bit lies in one of several intervals, or ``FULL``.

    Args:
        bits: the function of each bit, the highest first; int64 of shape (k,).
        intervals: first and last values, at most ``2**k - 1``; uint64 of shape (n, 2).
    """
    k = bits.shape[0]
    found = np.int64(0)
    for i in range(intervals.shape[0]):
        first, last = intervals[i, 0], intervals[i, 1]
        least, most = np.int64(1), np.int64(1)
        for j in range(k):
            bit = bits[k - 1 - j]
            if first >> np.uint64(j) & np.uint64(1):
                least = _choose(nodes, unique, cache, meta, stack, bit, least, np.int64(0))
            else:
                least = _choose(nodes, unique, cache, meta, stack, bit, np.int64(1), least)
            if least == FULL:
                return least
            if last >> np.uint64(j) & np.uint64(1):
                most = _choose(nodes, unique, cache, meta, stack, bit, most, np.int64(1))
            else:
                most = _choose(nodes, unique, cache, meta, stack, bit, np.int64(0), most)
            if most == FULL:
                return most
        both = _choose(nodes, unique, cache, meta, stack, least, most, np.int64(0))
        if both == FULL:
            return both
        found = _choose(nodes, unique, cache, meta, stack, both, np.int64(1), found)
        if found == FULL:
            return found
    return found


@kernel
def transform(nodes: Any, unique: Any, cache: Any, meta: Any, stack: Any, f: Any, actions: Any) -> Any:
    """A function with some variables set or asked about (``KEEP`` ... ``ALL``), or ``FULL``.

    Args:
        f: the function.
        actions: what to do with each variable, int8; variables behind its end are kept.
    """
    last = -1
    for i in range(actions.shape[0]):
        if actions[i] != KEEP:
            last = i
    operation = -2 - meta[M_OPERATIONS]
    meta[M_OPERATIONS] += 1
    mask = np.uint64(cache.shape[0] - 1)
    depth = 0
    f = np.int64(f)
    while True:
        while nodes[f, 0] <= last and (actions[nodes[f, 0]] == LOW or actions[nodes[f, 0]] == HIGH):
            f = np.int64(nodes[f, actions[nodes[f, 0]]])
        result = f
        if nodes[f, 0] <= last:
            slot = _mixed(f, -operation, 0) & mask
            if cache[slot, 0] == f and cache[slot, 1] == operation:
                result = np.int64(cache[slot, 3])
            else:
                stack[depth, 0] = f
                stack[depth, 4] = -1
                depth += 1
                f = np.int64(nodes[f, 1])
                continue
        while True:
            if depth == 0:
                return result
            f = np.int64(stack[depth - 1, 0])
            if stack[depth - 1, 4] < 0:
                stack[depth - 1, 4] = result
                f = np.int64(nodes[f, 2])
                break
            low = np.int64(stack[depth - 1, 4])
            action = actions[nodes[f, 0]]
            if action == SOME:
                result = _choose(nodes, unique, cache, meta, stack[depth:], low, np.int64(1), result)
            elif action == ALL:
                result = _choose(nodes, unique, cache, meta, stack[depth:], low, result, np.int64(0))
            else:
                result = _node(nodes, unique, meta, np.int64(nodes[f, 0]), low, result)
            if result == FULL:
                return result
            slot = _mixed(f, -operation, 0) & mask
            cache[slot, 0] = f
            cache[slot, 1] = operation
            cache[slot, 2] = 0
            cache[slot, 3] = result
            depth -= 1


@kernel
def reachable(nodes: Any, root: Any, seen: Any, found: Any) -> Any:
    """Writes the numbers of a diagram's nodes (0 and 1 aside) into `found` -> how many there are.

    Args:
        root: the diagram.
        seen: uint8, zeros for every node up to the root; left zero.
        found: int32, room for as many.
    """
    count = 0
    if root > 1:
        found[0] = root
        seen[root] = 1
        count = 1
    at = 0
    while at < count:
        here = found[at]
        at += 1
        for side in range(1, 3):
            below = nodes[here, side]
            if below > 1 and seen[below] == 0:
                seen[below] = 1
                found[count] = below
                count += 1
    for i in range(count):
        seen[found[i]] = 0
    return count


@kernel
def rebuild(unique: Any, nodes: Any, count: Any) -> None:
    """Fills an empty table of unique nodes with the first `count` nodes."""
    mask = np.uint64(unique.shape[0] - 1)
    for i in range(2, count):
        at = _mixed(np.int64(nodes[i, 0]), np.int64(nodes[i, 1]), np.int64(nodes[i, 2])) & mask
        while unique[at] != 0:
            at = (at + np.uint64(1)) & mask
        unique[at] = i


@kernel
def contains(nodes: Any, root: Any, columns: Any, places: Any, out: Any) -> None:
    """For each packet the leaf that it reaches.

    Args:
        root: the diagram.
        columns: packet columns, uint64 of shape (columns, n).
        places: column and bit of each variable, int64 of shape (variables, 2).
        out: int32 of shape (n,): 0 or 1.
    """
    for i in range(out.shape[0]):
        f = np.int64(root)
        while f > 1:
            variable = nodes[f, 0]
            bit = columns[places[variable, 0], i] >> np.uint64(places[variable, 1]) & np.uint64(1)
            f = np.int64(nodes[f, 1 + np.int64(bit)])
        out[i] = f


@kernel
def mapped(nodes: Any, unique: Any, cache: Any, meta: Any, stack: Any, bits: Any, table: Any) -> Any:
    """The function that a table gives for each value of a number, or ``FULL``.

    Args:
        bits: the functions of the number's bits, the highest first; int64 of shape (k,).
        table: a function for each of the ``2**k`` values, int64; overwritten.
    """
    k = bits.shape[0]
    for j in range(k):
        bit = bits[k - 1 - j]
        for i in range(1 << (k - 1 - j)):
            found = _choose(nodes, unique, cache, meta, stack, bit, table[2 * i + 1], table[2 * i])
            if found == FULL:
                return found
            table[i] = found
    return np.int64(table[0])
