"""A stage as a decision diagram: one look-up a level instead of one test a rule.

Fields are taken in a fixed order. A node is a set of terms that may still hold; looking up the next field's class
leaves the terms that this class satisfies, stripped of what no walk can reach any more. Nodes with equal sets are one
node; where no field is left to test, the set says exactly which rules match, and the machine says what they do.

Words: a node is a row of words, one for each class of its level; a word is the offset of the next level's row, with
``TESTS`` set where that is a node of that level. Where it is not (the node tests a later level) the offset is that of a
row of one word, which carries it on whatever the class. Behind the last level a word is a record. So every packet takes
every level with the same steps: ``word = rows[offset + (class if TESTS else 0)]``.

Invariant: the word reached for a packet is the record of :meth:`Machine.outcomes` for the terms that hold for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fastpath.compiler.classes import Partition
from fastpath.compiler.crossproduct import packed, unique_rows
from fastpath.compiler.fields import Field
from fastpath.compiler.machine import Alternative, Machine, Outcome
from fastpath.compiler.sizes import TooLargeError

TESTS = 1 << 31


@dataclass(frozen=True)
class Level:
    """One look-up of a diagram: the classes of a field, or of a product of small fields.

    Attributes:
        slot: which class array the kernel reads.
        fields: the fields that it covers.
        members: for each of its classes and each covered field, the field's class; int64 of shape (count, fields).
        combinations, class_of: every combination of the fields' classes, and the class that it falls into.
    """

    slot: int
    fields: tuple[Field, ...]
    members: npt.NDArray[np.int64]
    combinations: npt.NDArray[np.int64]
    class_of: npt.NDArray[np.int64]

    @classmethod
    def of_field(cls, slot: int, found: Partition) -> Level:
        """The look-up of one field."""
        numbers = np.arange(found.count, dtype=np.int64)
        return cls(slot, (found.field,), numbers[:, None], numbers[:, None], numbers)


@dataclass
class Diagram:
    """The rows of a stage.

    Attributes:
        shape: its levels, in order.
        rows: all rows, uint32.
        root: the word that packets begin with, as the first level sees it.
        leaves: outcome and alternatives of every record.
    """

    shape: list[Level]
    rows: npt.NDArray[np.uint32]
    root: int
    leaves: list[tuple[Outcome, tuple[Alternative, ...]]] = field(default_factory=list)

    @property
    def levels(self) -> list[int]:
        """The slots of its levels."""
        return [level.slot for level in self.shape]


@dataclass(frozen=True)
class _Step:
    """One field of a level.

    Attributes:
        sets: the distinct sets of terms that its classes satisfy.
        ways: a pair for each combination of sets so far: a combination of the steps before, and one of `sets`.
        later: terms that look at fields of later steps.
    """

    sets: list[int]
    ways: list[tuple[int, int]]
    later: int


class _Bits:
    """For each class of a level the set of terms it satisfies, grouped into distinct sets.

    A level of several fields is taken one field after the other: what one leaves unreachable need not be told apart by
    the others.

    Attributes:
        constrained: terms that look at some field of the level.
        group: which of the sets each class has: a combination of the last step.
        steps: the fields.
    """

    def __init__(self, machine: Machine, level: Level, partitions: dict[Field, Partition]) -> None:
        n = len(machine.terms)
        fields: list[tuple[int, npt.NDArray[np.uint64], int]] = []
        self.constrained = 0
        for which, f in sorted(enumerate(level.fields), key=lambda item: partitions[item[1]].count):
            found = partitions[f]
            table = np.ones((found.count, n), bool)
            cache: dict[object, npt.NDArray[np.bool_]] = {}
            looks = 0
            for t, term in enumerate(machine.terms):
                values = term.values(f)
                if values is not None:
                    looks |= 1 << t
                    if values not in cache:
                        cache[values] = found.members(values)
                    table[:, t] = cache[values]
            if looks:
                fields.append((which, packed(table), looks))
                self.constrained |= looks
        self.steps: list[_Step] = []
        self.group = np.zeros(len(level.members), np.int64)
        if not fields:
            return
        whole = np.full((len(level.members), fields[0][1].shape[1]), np.uint64(0xFFFF_FFFF_FFFF_FFFF))
        for which, satisfied, _ in fields:
            whole &= satisfied[level.members[:, which]]
        self.group, classes = unique_rows(whole)
        before = [0] * len(classes)
        for place, (which, satisfied, _) in enumerate(fields):
            later = 0
            for _, _, looks in fields[place + 1:]:
                later |= looks
            number, first = unique_rows(satisfied)
            ways: dict[tuple[int, int], int] = {}
            of_set = number[level.members[classes, which]].tolist()
            before = [ways.setdefault(way, len(ways)) for way in zip(before, of_set, strict=True)]
            self.steps.append(_Step([_number(row, n) for row in satisfied[first]], list(ways), later))
        # The last combinations are the sets, in their order: what differs in its terms differs in a step.
        assert before == list(range(len(classes)))


def _number(row: npt.NDArray[np.uint64], bits: int) -> int:
    return int.from_bytes(row.tobytes(), "little") & ((1 << bits) - 1)


def build(
    machine: Machine,
    levels: Sequence[Level],
    partitions: dict[Field, Partition],
    *,
    max_words: int,
    max_work: int,
    slack: int = 4,
    progress: Callable[[float], None] | None = None,
) -> Diagram:
    """The diagram of a stage.

    While it is built it may have `slack` times `max_words` words, because equal rows are found at the end.

    `progress` is called with the part of the levels that is done, now and then.

    Raises:
        TooLargeError: it would need more than `max_words` words or `max_work` steps to build.
    """
    bits = [_Bits(machine, level, partitions) for level in levels]
    used = [i for i, b in enumerate(bits) if b.constrained]
    levels, bits = [levels[i] for i in used], [bits[i] for i in used]
    everything = (1 << len(machine.terms)) - 1
    sure = everything & ~machine.unknown
    sure_behind = [0] * (len(levels) + 1)
    sure_between: list[list[int]] = [[] for _ in levels]
    pending = sure
    for i in range(len(levels), -1, -1):
        sure_behind[i] = pending
        if i:
            sure_between[i - 1] = [pending & ~step.later for step in bits[i - 1].steps]
            pending &= ~bits[i - 1].constrained
    stripped: list[dict[int, int]] = [{} for _ in range(len(levels) + 1)]
    between: list[list[dict[int, int]]] = [[{} for _ in b.steps] for b in bits]

    words = work = 0

    def strip(mask: int, known: dict[int, int], sure: int) -> int:
        nonlocal work
        found = known.get(mask)
        if found is None:
            work += mask.bit_count()
            if work > max_work:
                raise TooLargeError
            found = known[mask] = machine.relevant(mask, sure)
        return found

    def next_test(mask: int, depth: int) -> int:
        while depth < len(levels) and not mask & bits[depth].constrained:
            depth += 1
        return depth

    # Of every node its children, and which of them each set of satisfied terms leads to.
    nodes: list[dict[int, tuple[list[tuple[int, int]], list[int]]]] = [{} for _ in levels]
    finals: set[int] = set()
    root = strip(everything, stripped[0], sure_behind[0])
    waiting: list[set[int]] = [set() for _ in range(len(levels) + 1)]
    waiting[next_test(root, 0)].add(root)
    for depth in range(len(levels)):
        width = len(levels[depth].members)
        here = bits[depth]
        for mask in waiting[depth]:
            seen: dict[int, int] = {}
            numbers: dict[tuple[int, int], int] = {}
            children: list[tuple[int, int]] = []
            which: list[int] = []
            if progress is not None and not len(nodes[depth]) & 63:
                progress((depth + len(nodes[depth]) / len(waiting[depth])) / len(levels))
            masks = [mask]
            for step, known, certain in zip(here.steps[:-1], between[depth], sure_between[depth], strict=False):
                masks = [strip(masks[way] & step.sets[number], known, certain) for way, number in step.ways]
            last = here.steps[-1]
            for way, satisfied in last.ways:
                key = masks[way] & last.sets[satisfied]
                number = seen.get(key)
                if number is None:
                    left = strip(key, stripped[depth + 1], sure_behind[depth + 1])
                    child = (next_test(left, depth + 1), left)
                    number = seen[key] = numbers.setdefault(child, len(children))
                    if number == len(children):
                        children.append(child)
                        waiting[child[0]].add(left)
                which.append(number)
            nodes[depth][mask] = children, which
            words += width
            work += len(last.ways)
            if words > slack * max_words or work > max_work:
                raise TooLargeError
    machine.forget()
    finals = waiting[len(levels)]

    leaves: list[tuple[Outcome, tuple[Alternative, ...]]] = []
    record_of: dict[object, int] = {}
    target: list[dict[int, _Node]] = [{} for _ in range(len(levels) + 1)]
    for mask in finals:
        leaf = machine.outcomes(mask)
        if leaf not in record_of:
            record_of[leaf] = len(leaves)
            leaves.append(leaf)
        target[-1][mask] = (len(levels), record_of[leaf])
    machine.forget()
    rows = _Rows(len(levels), max_words)
    for depth in range(len(levels) - 1, -1, -1):
        for mask, (children, which) in nodes[depth].items():
            below = [target[d][m] for d, m in children]
            if all(node == below[0] for node in below):
                target[depth][mask] = below[0]
            else:
                local = np.array([rows.word(node, depth + 1) for node in below], np.uint32)
                target[depth][mask] = rows.node(depth, local[which][bits[depth].group])
    start = rows.word(target[next_test(root, 0)][root], 0)
    return Diagram(list(levels), rows.flat(), start, leaves)


_Node: TypeAlias = tuple[int, int]
"""(level that it tests, offset of its row), or (number of levels, record)."""


class _Rows:
    """The rows of a diagram while they are laid out; equal rows of a level are one."""

    def __init__(self, depth: int, limit: int) -> None:
        self.depth = depth
        self.limit = limit
        self.parts: list[npt.NDArray[np.uint32]] = []
        self.size = 0
        self.known: dict[tuple[int, bytes], int] = {}
        self.carried: dict[tuple[_Node, int], int] = {}

    def _add(self, row: npt.NDArray[np.uint32]) -> int:
        at = self.size
        self.parts.append(row)
        self.size += len(row)
        if self.size > self.limit:
            raise TooLargeError
        return at

    def node(self, depth: int, row: npt.NDArray[np.uint32]) -> _Node:
        """The node that tests level `depth` with a row of words for the next level."""
        key = (depth, row.tobytes())
        if key not in self.known:
            self.known[key] = self._add(row)
        return depth, self.known[key]

    def word(self, node: _Node, depth: int) -> int:
        """The word for a node as level `depth` sees it: one that tests a later level is carried by a row of one."""
        level, offset = node
        if depth == self.depth:
            return offset
        if level == depth:
            return TESTS | offset
        if (node, depth) not in self.carried:
            self.carried[node, depth] = self._add(np.array([self.word(node, depth + 1)], np.uint32))
        return self.carried[node, depth]

    def flat(self) -> npt.NDArray[np.uint32]:
        """All rows."""
        return np.concatenate(self.parts) if self.parts else np.zeros(1, np.uint32)
