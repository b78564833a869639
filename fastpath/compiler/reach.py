"""Which rules of a segment can meet which leaves of a stage's diagram.

A leaf that depends on a segment's rule has a record for each rule of the kind. On a host of many bridges most of these
pairs cannot be: a leaf that leaves through one bridge never meets the rules for addresses behind another. So for each
level of the diagram, and each class of it, the leaves are found that some way through that class leads to; a rule can
meet a leaf only if every level has a class that the rule allows and that leads there.

Safe direction: levels are looked at one by one, so that pairs may be kept that cannot be; none that can is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fastpath.compiler.classes import Partition
from fastpath.compiler.diagram import TESTS, Diagram
from fastpath.compiler.fields import Field, Values
from fastpath.compiler.segments import Segment

Bits = npt.NDArray[np.uint64]

MOST_SETS = 1 << 23
"""64-bit words of the nodes' sets of leaves above which nothing is looked for: every pair is kept."""


class Reach:
    """The leaves that every class of every level leads to, of those asked for.

    Attributes:
        possible: False where the diagram is too large for the question.
    """

    def __init__(self, diagram: Diagram, leaves: Sequence[int], partitions: Mapping[Field, Partition]) -> None:
        self.levels = diagram.shape
        self.partitions = partitions
        self.place = {leaf: i for i, leaf in enumerate(leaves)}
        self._permitted: dict[tuple[int, tuple[tuple[Field, Values], ...]], Bits] = {}
        self.words = -(-max(1, len(leaves)) // 64)
        words = np.array([diagram.root], np.uint32)
        steps: list[npt.NDArray[np.int64]] = []
        for level in self.levels:
            tests, at = words >= TESTS, (words & np.uint32(TESTS - 1)).astype(np.int64)
            width = np.where(tests, 1, 0)[:, None] * np.arange(len(level.members))
            below = diagram.rows[at[:, None] + width]
            words, child = np.unique(below, return_inverse=True)
            steps.append(child.reshape(below.shape))
        self.possible = (sum(len(s) for s in steps) + len(words)) * self.words <= MOST_SETS
        if not self.possible:
            return
        from fastpath.kernels import build

        reached = np.zeros((len(words), self.words), np.uint64)
        for row, word in enumerate(words.tolist()):
            if word in self.place:
                bit = self.place[word]
                reached[row, bit >> 6] |= np.uint64(1 << (bit & 63))
        self.of_class: list[Bits] = []
        for step in reversed(steps):
            nodes = np.zeros((len(step), self.words), np.uint64)
            classes = np.zeros((step.shape[1], self.words), np.uint64)
            build.leaf_sets(step, reached, nodes, classes)
            self.of_class.append(classes)
            reached = nodes
        self.of_class.reverse()

    def pairs(self, segment: Segment) -> Bits:
        """For each rule of a segment the set of leaves that it can meet."""
        found = np.zeros((len(segment.ops), self.words), np.uint64)
        for row, op in zip(found, segment.ops, strict=True):
            for term in op.condition:
                row |= self._of_term(term.tests)
        return found

    def meets(self, pairs: Bits, leaf: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of the rules at `places` that can meet a leaf."""
        bit = self.place[leaf]
        held = pairs[places, bit >> 6] >> np.uint64(bit & 63) & np.uint64(1)
        found: npt.NDArray[np.int64] = places[held != 0]
        return found

    def _of_term(self, tests: tuple[tuple[Field, Values], ...]) -> Bits:
        reached = np.full(self.words, np.uint64(0xFFFF_FFFF_FFFF_FFFF))
        for number, level in enumerate(self.levels):
            here = tuple(t for t in tests if t[0] in level.fields)
            if not here:
                continue
            key = (number, here)
            if key not in self._permitted:
                self._permitted[key] = self._of_level(number, here)
            reached &= self._permitted[key]
        return reached

    def _of_level(self, number: int, tests: tuple[tuple[Field, Values], ...]) -> Bits:
        """The leaves that the classes of a level lead to in which a packet may pass the tests."""
        level = self.levels[number]
        allowed = np.ones(len(level.combinations), bool)
        for f, values in tests:
            members = self.partitions[f].members(values)
            allowed &= members[level.combinations[:, level.fields.index(f)]]
        classes = np.unique(level.class_of[allowed])
        found: Bits = np.bitwise_or.reduce(self.of_class[number][classes], axis=0)
        return found
