"""What looking up a segment's rule will cost: nanoseconds a packet, by the sizes of the tables that it reads.

The figures are fitted to a few measured rulesets (``bench/NOTES.md``); they only have to put structures in order.
"""

from __future__ import annotations

import numpy as np

from fastpath.compiler.crossproduct import Candidates, CrossProduct, Group

NEAR = 1 << 15
"""Bytes of a table that is in the nearest cache."""

RECORD, ENTRY, STEP = 3.0, 3.0, 1.5
"""A candidate or an entry of a list, behind the first; a step of a search."""


def access(size: int) -> float:
    """A look-up in a table of `size` bytes at random places."""
    return float(0.3 * max(1.0, size / NEAR) ** 0.5)


def cost(found: CrossProduct, most: int) -> float:
    """Nanoseconds a packet.

    Args:
        most: bytes that one table may have, as 32-bit cells; larger ones are searched or read.
    """
    return sum(_candidates(g) if isinstance(g, Candidates) else _group(g, found, most) for g in found.groups)


def _candidates(found: Candidates) -> float:
    total = sum(access(key.places.nbytes) for key in found.keys)
    if found.grid is not None:
        total += access(found.grid.nbytes)
    for records in found.records:
        if records is not None:
            total += 1.5 + access(records.nbytes)
    return total + RECORD * found.more


def _group(group: Group, found: CrossProduct, most: int) -> float:
    total = 0.0
    for key in group.keys:
        total += access(key.places.nbytes)
    if len(group.keys) == 2:
        cells = group.keys[0].count * group.keys[1].count
        if 4 * cells <= most:
            total += access(cells * (2 if group.lists < 1 << 16 else 4))
        else:
            runs = len(group.run_column) / max(1, len(group.run_start) - 1)
            total += access(group.run_column.nbytes * 2) + STEP * float(np.log2(1 + runs))
    if 4 * group.lists * found.rest <= most:
        return total + access(group.lists * found.rest * (2 if found.ops < 1 << 16 else 4))
    entries = len(group.list_op) / max(1, group.lists)
    return total + access(8 * len(group.list_op) + 4 * group.lists) + ENTRY * (1 + entries / 2)
