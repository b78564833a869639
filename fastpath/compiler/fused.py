"""Two places on a packet's way as one diagram over the header that arrives.

What the first place's NAT makes of a destination is known where its rule is, so the second place's levels can be taken
on the classes of the packet that arrived: a node of the fused diagram is a word of the first place, and for each way in
which its records may lead on the word of the second one. Packets then take the levels that both places share once, and
one record of pairs says what became of them; counts of pairs are counts of both records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.diagram import TESTS
from fastpath.kernels.layout import (
    B_DPORT,
    B_DST,
    B_PROTO,
    F_BASE,
    F_CLASSES,
    F_COUNT,
    F_EXTRA,
    F_KIND,
    F_PARTS,
    F_TABLE,
    K_DIRECT,
    K_PRODUCT,
    P_DPORT_SLOT,
    P_DST_SLOT,
)

Array = npt.NDArray[Any]

MOST_WORDS = 1 << 21
"""Words of a fused diagram."""

MOST_WORK = 1 << 25
"""Words of both places that are looked at while it is made, which takes up to a second."""

PORTS = (6, 17, 132, 136)
"""Protocols whose ports NAT changes, as ``kernels.connection.has_ports`` has them."""


class _TooLargeError(Exception):
    """The diagram would not pay, or not be right."""


@dataclass(frozen=True)
class Fused:
    """A diagram over the levels of both places.

    Attributes:
        levels: slots of its levels.
        roots: words that packets begin with, one for each root of the first place.
        rows: its words, uint32; records are places in `first` and `second`.
        first, second: for each record the records of both places, int64 of shape (records,).
    """

    levels: tuple[int, ...]
    roots: tuple[int, ...]
    rows: Array
    first: Array
    second: Array


def fuse(
    arrays: dict[str, Array], steps: Array, first: Sequence[int], roots: Sequence[int], second: Sequence[int],
    levels: Sequence[int], enter: Array, dst: Array, dport: Array, ports: Array,
) -> Fused | None:
    """The diagram of two places, None where it would be too large, or where NAT of ports depends on the packet.

    Args:
        arrays: the compiled tables.
        steps: the words of both places.
        first, second: slots of the levels of both places.
        roots: words that packets begin with.
        levels: slots in which those of both are contained in order.
        enter: for each record of the first place the word of the second one that it leads to, shape (records,).
        dst, dport: classes of address and port that a record rewrites, -1 where it leaves them, or nothing looks.
        ports: whether a record rewrites the port, which it does for some protocols only.
    """
    if len(set(levels)) < len(levels):
        return None
    try:
        return _Fusion(arrays, steps, first, second, enter, dst, dport, ports).run(roots, levels)
    except _TooLargeError:
        return None


@dataclass(frozen=True)
class _Node:
    """A word of the first place, and for each kind of record behind it the word of the second place."""

    word: int
    vector: Array


class _Fusion:
    """Makes a diagram level by level, from the roots on.

    Records of the first place that lead on in the same way, by the word of the second place and the classes of what NAT
    rewrites, are of one *kind*; whether they rewrite a port counts too where nothing asks for its class.
    """

    def __init__(
        self, arrays: dict[str, Array], steps: Array, first: Sequence[int], second: Sequence[int], enter: Array,
        dst: Array, dport: Array, ports: Array,
    ) -> None:
        self.arrays, self.steps, self.first, self.second = arrays, steps, first, second
        kinds, of_record = np.unique(
            np.stack([enter.astype(np.int64), dst, dport, ports], axis=1), axis=0, return_inverse=True)
        self.kind_of = of_record.reshape(-1)
        self.enter, self.ports = kinds[:, 0].astype(np.uint32), kinds[:, 3] > 0
        self.rewritten = {}
        for column, which, base in ((1, P_DST_SLOT, B_DST), (2, P_DPORT_SLOT, B_DPORT)):
            slot = int(arrays["params"][which])
            if arrays["fields"][slot, F_BASE] == base:
                self.rewritten[slot] = kinds[:, column]
        self.work = self.words = 0
        self.kinds: list[dict[int, Array]] = []

    def classes(self, slot: int) -> int:
        return int(self.arrays["fields"][slot, F_CLASSES])

    def spend(self, work: int) -> None:
        self.work += work
        if self.work > MOST_WORK:
            raise _TooLargeError

    def run(self, roots: Sequence[int], levels: Sequence[int]) -> Fused:
        self.kinds = self.reachable(roots)
        nodes = [_Node(root, self.enter[self.kinds[0][root]]) for root in roots]
        layers: list[tuple[Array, Array]] = []
        ports = [_with_ports(self.arrays, slot) for slot in levels]
        if self.ports.any() and all(p is None for p in ports):
            raise _TooLargeError
        depth = 0
        for at, slot in enumerate(levels):
            if depth == len(self.first):
                break
            nodes, layer = self.below(nodes, slot, depth, ports[at])
            layers.append(layer)
            depth += slot in self.first
        heads = np.array([node.word for node in nodes], np.int64)
        words = np.array([node.vector[0] for node in nodes], np.int64)
        for at, slot in enumerate(levels[len(layers):], len(layers)):
            if ports[at] is not None and self.ports[self.kind_of[heads]].any():
                raise _TooLargeError
            heads, words, layer = self.behind(heads, words, slot)
            layers.append(layer)
        return self.laid_out(levels, layers, len(roots), heads, words)

    def reachable(self, roots: Sequence[int]) -> list[dict[int, Array]]:
        """For every word of the first place before each of its levels, and for its records, the kinds behind it."""
        words = [np.unique(np.array(roots, np.int64))]
        below: list[Array] = []
        for slot in self.first:
            self.spend(len(words[-1]) * self.classes(slot))
            below.append(self.step(words[-1][:, None], np.arange(self.classes(slot))).astype(np.int64))
            words.append(np.unique(below[-1]))
        found = [{int(record): self.kind_of[record:record + 1] for record in words[-1]}]
        for here, children in zip(words[-2::-1], below[::-1], strict=True):
            found.append({
                word: np.unique(np.concatenate([found[-1][child] for child in np.unique(row).tolist()]))
                for word, row in zip(here.tolist(), children, strict=True)})
        return found[::-1]

    def step(self, words: Array, classes: Array) -> Array:
        words = words.astype(np.int64)
        found: Array = self.steps[(words & TESTS - 1) + np.where(words & TESTS, classes, 0)]
        return found

    def below(
        self, nodes: list[_Node], slot: int, depth: int, ports: Array | None
    ) -> tuple[list[_Node], tuple[Array, Array]]:
        """One level while records of the first place are not known yet -> (nodes below, words of the level's nodes one
        after the other as numbers of these, number of words of each node)."""
        found: list[_Node] = []
        known: dict[tuple[int, bytes], int] = {}
        parts, lengths = [], []
        for node in nodes:
            children, of_class = self.children(node, slot, depth, ports)
            numbers = []
            for child in children:
                number = known.setdefault((child.word, child.vector.tobytes()), len(found))
                if number == len(found):
                    found.append(child)
                numbers.append(number)
            parts.append(np.array(numbers, np.int64)[of_class])
            lengths.append(len(of_class))
            self.fits(len(of_class))
        return found, (np.concatenate(parts), np.array(lengths, np.int64))

    def fits(self, words: int) -> None:
        self.words += words
        if self.words > MOST_WORDS:
            raise _TooLargeError

    def children(self, node: _Node, slot: int, depth: int, ports: Array | None) -> tuple[list[_Node], Array]:
        """The nodes below a node, and which of them each class of the level leads to; one class where all do alike."""
        own, others = slot in self.first, slot in self.second
        kinds, vector = self.kinds[depth][node.word], node.vector
        tests = own and bool(node.word & TESTS) or others and bool((vector & TESTS).any())
        classes = np.arange(self.classes(slot) if tests or ports is not None else 1)
        self.spend(len(classes) * (1 + len(kinds)))
        table = np.empty((len(classes), 1 + len(kinds)), np.uint32)
        table[:, 0] = self.step(np.array(node.word), classes) if own else node.word
        table[:, 1:] = vector
        if others:
            seen = np.broadcast_to(classes[:, None], (len(classes), len(kinds)))
            if slot in self.rewritten:
                to = self.rewritten[slot][kinds]
                seen = np.where(to >= 0, to, seen)
            table[:, 1:] = self.step(vector, seen)
        behind = self.kinds[depth + own]
        heads, of_head = np.unique(table[:, 0], return_inverse=True)
        alive = np.stack([np.isin(kinds, behind[int(head)]) for head in heads])[of_head.reshape(-1)]
        if ports is not None and (alive & self.ports[kinds] & ~ports[:, None]).any():
            raise _TooLargeError
        table[:, 1:][~alive] = 0
        rows = table.view(np.dtype((np.void, table.itemsize * table.shape[1]))).reshape(-1)
        _, first, of_class = np.unique(rows, return_index=True, return_inverse=True)
        found = [_Node(int(table[i, 0]), table[i, 1:][alive[i]]) for i in first]
        return found, of_class.reshape(-1) if tests else np.zeros(1, np.int64)

    def behind(self, heads: Array, words: Array, slot: int) -> tuple[Array, Array, tuple[Array, Array]]:
        """One level where records of the first place are known -> (records and words of the nodes below, as for
        :meth:`below`)."""
        tests = (words & TESTS) != 0 if slot in self.second else np.zeros(len(words), bool)
        count = self.classes(slot)
        lengths = np.where(tests, count, 1)
        self.spend(int(lengths.sum()))
        self.fits(int(lengths.sum()))
        node = np.repeat(np.arange(len(words)), lengths)
        classes = np.arange(len(node)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        if slot in self.rewritten:
            to = self.rewritten[slot][self.kind_of[heads[node]]]
            classes = np.where(to >= 0, to, classes)
        below = self.step(words[node], classes) if slot in self.second else words[node]
        pairs, of_word = np.unique(heads[node] << 32 | below.astype(np.int64), return_inverse=True)
        return pairs >> 32, pairs & 0xFFFFFFFF, (of_word.reshape(-1), lengths)

    def laid_out(
        self, levels: Sequence[int], layers: list[tuple[Array, Array]], roots: int, heads: Array, words: Array
    ) -> Fused:
        to = np.arange(len(heads), dtype=np.int64)
        size, parts, tested = 0, [], []
        for slot, (below, lengths) in zip(reversed(levels), reversed(layers), strict=True):
            if (lengths == 1).all() and len(levels) > 1:
                to = to[below]  # nothing tests it
                continue
            tested.append(slot)
            parts.append(to[below])
            starts = size + np.cumsum(lengths) - lengths
            size += len(below)
            to = starts + np.where(lengths > 1, TESTS, 0)
        rows = np.concatenate(parts).astype(np.uint32) if parts else np.zeros(1, np.uint32)
        return Fused(tuple(tested[::-1]), tuple(to[:roots].tolist()), rows, heads, words)


def _with_ports(arrays: dict[str, Array], slot: int) -> Array | None:
    """For each class of a field whether all of its protocols have ports, None for a field that is not of protocols."""
    row = arrays["fields"][slot]
    maps = arrays["maps"]
    if row[F_KIND] == K_DIRECT and row[F_BASE] == B_PROTO:
        classes = maps[row[F_TABLE]:row[F_TABLE] + 256].astype(np.int64)
        found = np.ones(int(row[F_CLASSES]), bool)
        found[np.delete(classes, PORTS)] = False
        return found
    if row[F_KIND] != K_PRODUCT:
        return None
    parts = {int(row[F_PARTS + 2 * p]): int(row[F_PARTS + 2 * p + 1]) for p in range(int(row[F_COUNT]))}
    if B_PROTO not in parts:
        return None
    # A protocol's part of a place is its class times a stride, so a place's class is its digit there.
    addends = maps[parts[B_PROTO]:parts[B_PROTO] + 256].astype(np.int64)
    digits = np.unique(addends)
    stride, count = int(digits[min(1, len(digits) - 1)]) or 1, len(digits)
    without = np.isin(np.arange(count), np.delete(addends, PORTS) // stride)
    places = np.arange(int(row[F_EXTRA]))
    found = np.ones(int(row[F_CLASSES]), bool)
    found[maps[row[F_TABLE] + places[without[places // stride % count]]]] = False
    return found
