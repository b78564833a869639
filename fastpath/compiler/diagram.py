"""A stage as a decision diagram: one look-up a level instead of one test a rule.

Fields are taken in a fixed order. A node is a set of terms that may still hold; looking up the next field's class
leaves the terms that this class satisfies, stripped of what no walk can reach any more. Nodes with equal sets are one
node; where no field is left to test, the set says exactly which rules match, and the machine says what they do.

Words: a row entry is a node or a leaf in 32 bits, ``level << 27 | offset``; level 31 marks a leaf, whose offset is a
record. A node is a row of one word for each class of its level. A node that does not test a level does not exist
there: its word is carried past it.

Invariant: the word reached for a packet is the record of :meth:`Machine.outcomes` for the terms that hold for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fastpath.compiler.classes import Partition
from fastpath.compiler.fields import Field
from fastpath.compiler.machine import Alternative, Machine, Outcome

LEVEL_SHIFT = 27
OFFSET = (1 << LEVEL_SHIFT) - 1
LEAF = 31


class TooLargeError(Exception):
    """The diagram would exceed its budget."""


@dataclass(frozen=True)
class Level:
    """One look-up of a diagram: the classes of a field, or of a product of small fields.

    Attributes:
        slot: which class array the kernel reads.
        fields: the fields that it covers.
        members: for each of its classes and each covered field, the field's class; int64 of shape (count, fields).
    """

    slot: int
    fields: tuple[Field, ...]
    members: npt.NDArray[np.int64]


@dataclass
class Diagram:
    """The rows of a stage.

    Attributes:
        levels: slots in the order of the levels.
        rows: all rows, uint32.
        root: the word that packets begin with.
        leaves: outcome and alternatives of every record.
    """

    levels: list[int]
    rows: npt.NDArray[np.uint32]
    root: int
    leaves: list[tuple[Outcome, tuple[Alternative, ...]]] = field(default_factory=list)


class _Bits:
    """For each class of a level the set of terms it satisfies, grouped into distinct sets."""

    def __init__(self, machine: Machine, level: Level, partitions: dict[Field, Partition]) -> None:
        n = len(machine.terms)
        self.constrained = 0
        satisfied: list[npt.NDArray[np.uint8]] = []
        for which, f in enumerate(level.fields):
            found = partitions[f]
            table = np.ones((found.count, n), bool)
            cache: dict[object, npt.NDArray[np.bool_]] = {}
            for t, term in enumerate(machine.terms):
                values = term.values(f)
                if values is not None:
                    self.constrained |= 1 << t
                    if values not in cache:
                        cache[values] = found.members(values)
                    table[:, t] = cache[values]
            packed = np.packbits(table, axis=1, bitorder="little")
            satisfied.append(packed[level.members[:, which]])
        combined = satisfied[0]
        for more in satisfied[1:]:
            combined = combined & more
        rows, self.group = np.unique(combined, axis=0, return_inverse=True)
        self.group = self.group.reshape(-1)
        self.sets = [int.from_bytes(r.tobytes(), "little") & ((1 << n) - 1) for r in rows]


def build(
    machine: Machine,
    levels: Sequence[Level],
    partitions: dict[Field, Partition],
    *,
    max_words: int,
    max_work: int,
    progress: Callable[[str, float], None] | None = None,
) -> Diagram:
    """The diagram of a stage.

    Raises:
        TooLargeError: it would need more than `max_words` words or `max_work` steps to build.
    """
    if len(levels) >= LEAF:
        raise TooLargeError
    bits = [_Bits(machine, level, partitions) for level in levels]
    used = [i for i, b in enumerate(bits) if b.constrained]
    levels, bits = [levels[i] for i in used], [bits[i] for i in used]
    everything = (1 << len(machine.terms)) - 1
    sure = everything & ~machine.unknown
    sure_behind = [0] * (len(levels) + 1)
    pending = sure
    for i in range(len(levels), -1, -1):
        sure_behind[i] = pending
        if i:
            pending &= ~bits[i - 1].constrained
    stripped: list[dict[int, int]] = [{} for _ in range(len(levels) + 1)]

    words = work = 0

    def strip(mask: int, depth: int) -> int:
        nonlocal work
        found = stripped[depth].get(mask)
        if found is None:
            work += mask.bit_count()
            if work > max_work:
                raise TooLargeError
            found = stripped[depth][mask] = machine.relevant(mask, sure_behind[depth])
        return found

    def next_test(mask: int, depth: int) -> int:
        while depth < len(levels) and not mask & bits[depth].constrained:
            depth += 1
        return depth

    nodes: list[dict[int, list[tuple[int, int]]]] = [{} for _ in levels]
    finals: set[int] = set()
    root = strip(everything, 0)
    waiting: list[set[int]] = [set() for _ in range(len(levels) + 1)]
    waiting[next_test(root, 0)].add(root)
    for depth in range(len(levels)):
        width = len(levels[depth].members)
        for mask in waiting[depth]:
            seen: dict[int, tuple[int, int]] = {}
            children = []
            constrained = bits[depth].constrained
            for satisfied in bits[depth].sets:
                key = mask & (satisfied | ~constrained)
                child = seen.get(key)
                if child is None:
                    left = strip(key, depth + 1)
                    child = seen[key] = (next_test(left, depth + 1), left)
                    waiting[child[0]].add(left)
                children.append(child)
            nodes[depth][mask] = children
            words += width
            work += len(bits[depth].sets)
            if words > 4 * max_words or work > max_work:
                raise TooLargeError
        if progress is not None:
            progress(machine.stage.name, (depth + 1) / len(levels))
    finals = waiting[len(levels)]

    leaves: list[tuple[Outcome, tuple[Alternative, ...]]] = []
    record_of: dict[object, int] = {}
    word_of: list[dict[int, int]] = [{} for _ in range(len(levels) + 1)]
    for mask in finals:
        leaf = machine.outcomes(mask)
        if leaf not in record_of:
            record_of[leaf] = len(leaves)
            leaves.append(leaf)
        word_of[-1][mask] = LEAF << LEVEL_SHIFT | record_of[leaf]
    rows: list[npt.NDArray[np.uint32]] = []
    size = 0
    for depth in range(len(levels) - 1, -1, -1):
        known: dict[bytes, int] = {}
        for mask, children in nodes[depth].items():
            local = np.array([word_of[d][m] for d, m in children], np.uint32)
            if (local == local[0]).all():
                word_of[depth][mask] = int(local[0])
                continue
            row = local[bits[depth].group]
            key_ = row.tobytes()
            if key_ not in known:
                known[key_] = depth << LEVEL_SHIFT | size
                rows.append(row)
                size += len(row)
                if size > max_words:
                    raise TooLargeError
            word_of[depth][mask] = known[key_]
    start = word_of[next_test(root, 0)][root]
    flat = np.concatenate(rows) if rows else np.zeros(1, np.uint32)
    return Diagram([level.slot for level in levels], flat, start, leaves)
