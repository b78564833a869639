"""Cross products of classes: which op of a segment matches first.

Each term of the segment's ops becomes *boxes*: one range of classes for each of at most two large fields (the keys)
and a condition on all others. The other fields are merged, two at a time, into one *rest* class: classes that satisfy
the same conditions are one. Boxes are put into *groups*, and for each the classes of the keys select a list of boxes in
the order of the rules; what a list means for every rest class is a table as well. The lowest op of all groups is the
answer, so groups may be chosen freely: rules that do not look at a key, or that span much of it, stand in groups of
their own, where they do not multiply with the rest.

A value set that is one interval is a range of classes, and one of n intervals at most n of them: classes are numbered
in the order in which they first appear (``classes.py``).

Safe direction: every table is exact; what would be too large is not built (:class:`TooLargeError`) and the rules are
walked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastpath.compiler.classes import Partition
from fastpath.compiler.fields import Field, Values
from fastpath.compiler.program import Op
from fastpath.compiler.sizes import TooLargeError

Ints = npt.NDArray[np.int64]

LARGE = 48
"""Classes of a field from which on it may be a key; smaller ones are merged."""

MOST_REST = 1 << 15
"""Rest classes: the merged fields that lead to more become keys."""

MOST_CELLS = 1 << 24
"""Cells of one table."""

WIDE = 16
"""A set that holds more than this part of a key's classes is wide, if it is more than `LARGE`."""

MOST_WIDE = 24
"""Wide sets of a key."""

MOST_WORK = 400_000_000
"""Steps of building the rows of one group: a nanosecond each."""


@dataclass(frozen=True)
class Merge:
    """One field more in the rest class: ``table[rest * width + places[class of the field]]``, uint16.

    ``places`` is None where every class has a column of its own.
    """

    field: Field
    table: npt.NDArray[np.uint16]
    width: int
    places: npt.NDArray[np.uint16] | None = None


@dataclass(frozen=True)
class Key:
    """A large field of a group, and the row or column of its table for each class; uint32."""

    field: Field
    places: npt.NDArray[np.uint32]
    count: int


@dataclass(frozen=True)
class Group:
    """Some of the boxes.

    Attributes:
        keys: none, one or two fields.
        run_start, run_column, run_list: for two keys, the runs of columns with the same list in every row.
        lists: number of lists; with fewer than two keys the row is the list.
        list_start, list_condition, list_op: conditions and ops of every list, in order.
    """

    keys: tuple[Key, ...]
    run_start: Ints
    run_column: npt.NDArray[np.uint32]
    run_list: npt.NDArray[np.uint32]
    list_start: Ints
    list_condition: Ints
    list_op: Ints

    @property
    def lists(self) -> int:
        """Number of lists."""
        return len(self.list_start) - 1


@dataclass(frozen=True)
class Candidates:
    """All of the boxes, as candidates by either key and a grid of the wide ones (``candidates.py``).

    Attributes:
        keys: two fields; the place of a class is its first record shifted left by eight bits, with its coarse class, a
            row or column of the grid, in the lowest eight.
        records: for each key the candidates of all lists, uint32 of shape (records, 4): first class of the other key,
            how many more, condition << 1 | 1 in the last record of a list, op; None where the key has none.
        grid: uint32 of shape (rows, columns, rest classes), the op; None where no box is wide.
        more: about how many records are compared for a packet, beyond the first one by each key.
    """

    keys: tuple[Key, Key]
    records: tuple[npt.NDArray[np.uint32] | None, npt.NDArray[np.uint32] | None]
    grid: npt.NDArray[np.uint32] | None
    more: float


@dataclass(frozen=True)
class CrossProduct:
    """The tables of one segment.

    Attributes:
        merges: how the rest class comes about.
        rest: number of rest classes.
        holds: for every condition the rest classes that satisfy it; bool of shape (conditions, rest).
        groups: the groups of boxes, or the one that is looked up by candidates.
        ops: number of ops; the answer for packets that none of them matches.
    """

    merges: tuple[Merge, ...]
    rest: int
    holds: npt.NDArray[np.bool_]
    groups: tuple[Group | Candidates, ...]
    ops: int

    @property
    def structure(self) -> str:
        """What it is called."""
        return "candidates" if any(isinstance(g, Candidates) for g in self.groups) else "cross-product"


class _Sets:
    """The value sets of one field, as ranges of its classes."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.number: dict[Values, int] = {}
        self.values: list[Values] = []

    def add(self, values: Values) -> int:
        found = self.number.setdefault(values, len(self.values))
        if found == len(self.values):
            self.values.append(values)
        return found

    def ranges(self) -> tuple[Ints, Ints, Ints]:
        """(first range of every set, first class, last class); sets of several intervals have their ranges joined."""
        partition = self.partition
        starts = np.array(partition.starts, np.uint64)
        order = partition.class_of
        seen = np.concatenate([[0], np.maximum.accumulate(order) + 1]) if len(order) else np.zeros(1, np.int64)
        lengths = np.array([len(v.intervals) for v in self.values], np.int64)
        flat = np.array([i for v in self.values for i in v.intervals], np.uint64).reshape(-1, 2)
        low = seen[np.searchsorted(starts, flat[:, 0], side="left")]
        high = seen[np.searchsorted(starts, flat[:, 1], side="right")]
        of_set = np.repeat(np.arange(len(lengths)), lengths)
        kept = low < high
        low, high, of_set = low[kept], high[kept], of_set[kept]
        joins = np.zeros(len(low), bool)
        joins[1:] = (low[1:] == high[:-1]) & (of_set[1:] == of_set[:-1])
        first = np.flatnonzero(~joins)
        last = np.append(first[1:], len(low)) - 1
        counts = np.bincount(of_set[first], minlength=len(lengths))
        return np.concatenate([[0], np.cumsum(counts)]), low[first], high[last] - 1

    def members(self) -> npt.NDArray[np.bool_]:
        """bool of shape (sets, classes)."""
        start, low, high = self.ranges()
        found = np.zeros((len(self.values), self.partition.count), bool)
        for row in range(len(self.values)):
            for x in range(start[row], start[row + 1]):
                found[row, low[x]:high[x] + 1] = True
        return found


def packed(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Rows of bits as rows of 64-bit words."""
    wide = np.zeros((len(rows), -(-max(1, rows.shape[1]) // 64) * 64), bool)
    wide[:, :rows.shape[1]] = rows
    return np.ascontiguousarray(np.packbits(wide, axis=1, bitorder="little")).view(np.uint64)


def unique_rows(rows: npt.NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """(number of every row, the first row of each number)."""
    from fastpath.kernels import build

    ids, first = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    count = build.unique_rows(np.ascontiguousarray(rows), ids, first)
    return ids, first[:count].copy()


class Terms:
    """The terms of a segment, all decided: which value sets each has, by field.

    Attributes:
        ops: number of ops.
        keys: at most two large fields, the largest first.
        key_sets: their value sets.
        parts: all other fields.
    """

    def __init__(self, ops: Sequence[Op], partitions: Mapping[Field, Partition], *, least: int = LARGE) -> None:
        """Args:
            least: classes of a field from which on it may be a key.
        """
        fields = sorted({f for op in ops for term in op.condition for f, _ in term.tests})
        place = {f: i for i, f in enumerate(fields)}
        sets = [_Sets(partitions[f]) for f in fields]
        terms: list[list[int]] = []
        op_of: list[int] = []
        for number, op in enumerate(ops):
            for term in op.condition:
                row = [-1] * len(fields)
                for f, values in term.tests:
                    row[place[f]] = sets[place[f]].add(values)
                terms.append(row)
                op_of.append(number)
        self.ops = len(ops)
        self.op = np.array(op_of, np.int64)
        of_term = np.array(terms, np.int64).reshape(len(terms), len(fields))
        by_size = sorted(range(len(fields)), key=lambda i: (partitions[fields[i]].count, i))
        large = [i for i in by_size if partitions[fields[i]].count >= least]
        keys = large[-2:][::-1]
        self.keys, self.key_sets = [fields[i] for i in keys], [sets[i] for i in keys]
        self.of_key = of_term[:, keys]
        self.parts = [_Part(fields[i], sets[i].members(), None, of_term[:, i]) for i in by_size if i not in keys]


def together(terms: Terms) -> CrossProduct:
    """The cross product of a segment with all boxes in one group.

    Raises:
        TooLargeError: it would outgrow its limits.
    """
    merges, holds, condition = merged(terms.parts, len(terms.op))
    boxes = Boxes(terms.op, condition, terms.keys, terms.key_sets, terms.of_key)
    return CrossProduct(merges, holds.shape[1], holds, boxes.together(holds), terms.ops)


def build(terms: Terms) -> CrossProduct:
    """The cross product of a segment.

    Raises:
        TooLargeError: it would outgrow its limits.
    """
    with contextlib.suppress(TooLargeError):
        return together(terms)
    return apart(terms)


def apart(terms: Terms) -> CrossProduct:
    """The cross product of a segment with boxes in several groups.

    Raises:
        TooLargeError: it would outgrow its limits.
    """
    key_fields, key_sets = terms.keys, terms.key_sets
    for most in (MOST_WIDE, MOST_WIDE // 4, 0):
        narrow = terms.of_key.copy()
        coarse = []
        for k, of_key in enumerate(key_sets):
            part = _coarse(key_fields[k], of_key, narrow[:, k], most)
            if part is not None:
                coarse.append(part)
                narrow[part.of_term >= 0, k] = -1
        try:
            merges, holds, condition = merged([*terms.parts, *coarse], len(terms.op))
            boxes = Boxes(terms.op, condition, key_fields, key_sets, narrow)
            return CrossProduct(merges, holds.shape[1], holds, boxes.apart(holds), terms.ops)
        except TooLargeError:
            pass
    raise TooLargeError


@dataclass(frozen=True)
class _Part:
    """What is merged: which classes each value set of a field holds, and the set of every term (-1 for none)."""

    field: Field
    members: npt.NDArray[np.bool_]
    places: npt.NDArray[np.uint16] | None
    of_term: Ints


def _coarse(field: Field, sets: _Sets, of_term: Ints, most: int) -> _Part | None:
    """The `most` widest sets of a key as a small field of their own: only they tell its values apart."""
    start, low, high = sets.ranges()
    span = np.zeros(len(sets.values), np.int64)
    np.add.at(span, np.repeat(np.arange(len(span)), np.diff(start)), high - low + 1)
    wide = np.flatnonzero(span > max(LARGE, sets.partition.count // WIDE))
    wide = np.sort(wide[np.argsort(-span[wide], kind="stable")][:most])
    if not len(wide):
        return None
    members = np.zeros((len(wide), sets.partition.count), bool)
    for row, which in enumerate(wide):
        for x in range(start[which], start[which + 1]):
            members[row, low[x]:high[x] + 1] = True
    places, first = unique_rows(packed(members.T))
    number = np.full(len(span) + 1, -1, np.int64)
    number[wide] = np.arange(len(wide))
    return _Part(field, members[:, first], places.astype(np.uint16), number[of_term])


def merged(
    parts: Sequence[_Part], terms: int, *, most: int = 1 << 40
) -> tuple[tuple[Merge, ...], npt.NDArray[np.bool_], Ints]:
    """Merges fields one after the other -> (merges, which classes satisfy each condition, condition of every term).

    `most`: conditions times classes.
    """
    from fastpath.kernels import build

    merges: list[Merge] = []
    condition = np.zeros(terms, np.int64)
    holds = np.ones((1, 1), bool)
    for part in parts:
        pairs, number = np.unique(np.stack([condition, part.of_term], 1), axis=0, return_inverse=True)
        classes = part.members.shape[1]
        members = np.concatenate([part.members, np.ones((1, classes), bool)])
        before = packed(holds[pairs[:, 0]].T)
        here = packed(members[pairs[:, 1]].T)
        if len(before) * len(here) > MOST_CELLS or len(pairs) * max(len(before), len(here)) > most:
            raise TooLargeError
        ids = np.empty((len(before), len(here)), np.int64)
        a, b = np.empty(MOST_REST, np.int64), np.empty(MOST_REST, np.int64)
        count = build.unique_pairs(before, here, ids, a, b, MOST_REST)
        if count < 0 or count * len(pairs) > most:
            raise TooLargeError
        a, b = a[:count], b[:count]
        holds = np.ascontiguousarray(holds[pairs[:, 0]][:, a] & members[pairs[:, 1]][:, b])
        condition = number.reshape(-1)
        merges.append(Merge(part.field, ids.astype(np.uint16).reshape(-1), classes, part.places))
    return tuple(merges), holds, condition


class Boxes:
    """Terms as boxes over the keys."""

    def __init__(self, op: Ints, condition: Ints, keys: list[Field], sets: list[_Sets], of_term: Ints) -> None:
        self.fields = keys
        self.counts = [s.partition.count for s in sets]
        which = np.arange(len(op))
        low: list[Ints] = []
        high: list[Ints] = []
        wild: list[npt.NDArray[np.bool_]] = []
        for k, of_key in enumerate(sets):
            start, first, last = of_key.ranges()
            number = of_term[which, k]
            every = number < 0
            at = np.where(every, 0, start[number]) if len(of_key.values) else np.zeros(len(number), np.int64)
            many = np.where(every, 1, start[number + 1] - at) if len(of_key.values) else np.ones(len(number), np.int64)
            repeated = np.repeat(np.arange(len(which)), many)
            inner = np.arange(len(repeated)) - np.repeat(np.cumsum(many) - many, many)
            all_here = every[repeated]
            index = at[repeated] + inner
            if not len(first):
                first = last = np.zeros(1, np.int64)
            low = [v[repeated] for v in low] + [np.where(all_here, 0, first[np.where(all_here, 0, index)])]
            high = [v[repeated] for v in high] + [
                np.where(all_here, self.counts[k] - 1, last[np.where(all_here, 0, index)])]
            wild = [v[repeated] for v in wild] + [all_here]
            which = which[repeated]
        self.op, self.condition = op[which], condition[which]
        self.low, self.high, self.wild = low, high, wild

    def together(self, holds: npt.NDArray[np.bool_]) -> tuple[Group, ...]:
        """All boxes in one group.

        Raises:
            TooLargeError: that is large.
        """
        keys = list(range(len(self.fields)))
        one = self.group(np.arange(len(self.op)), holds, keys, MOST_WORK // 8)
        if len(keys) == 2 and one.keys[0].count * one.keys[1].count > MOST_CELLS:
            raise TooLargeError
        return (one,)

    def apart(self, holds: npt.NDArray[np.bool_]) -> tuple[Group, ...]:
        """Groups by the keys that the boxes look at."""
        by_keys: dict[tuple[bool, ...], Ints] = {}
        narrow = np.stack([~w for w in self.wild], 1) if self.wild else np.zeros((len(self.op), 0), bool)
        for pattern in np.unique(narrow, axis=0):
            by_keys[tuple(pattern.tolist())] = np.flatnonzero((narrow == pattern).all(axis=1))
        return tuple(
            self.group(which, holds, [k for k, looks in enumerate(pattern) if looks], MOST_WORK)
            for pattern, which in by_keys.items()
        )

    def group(self, which: Ints, holds: npt.NDArray[np.bool_], keys: list[int], max_work: int) -> Group:
        """One group of boxes."""
        from fastpath.kernels import build

        op, condition = self.op[which], self.condition[which]
        always = holds.all(axis=1)
        if not keys:
            row_start, row_boxes = np.array([0, len(which)]), np.arange(len(which), dtype=np.int32)
            rows = None
        else:
            rows, row_start, row_boxes = self.rows(which, keys[0])
        columns = None
        low = high = np.zeros(len(which), np.int64)
        width = 1
        if len(keys) > 1:
            columns = self.columns(which, keys[1])
            low = columns.places[self.low[keys[1]][which]].astype(np.int64)
            high, width = columns.places[self.high[keys[1]][which]].astype(np.int64), columns.count
        starts, column, lists, list_start, list_box = build.cross_rows(
            row_start, row_boxes, low, high, condition, op, always, width, max_work, MOST_CELLS
        )
        if not len(starts):
            raise TooLargeError
        if len(keys) == 1:
            assert rows is not None
            rows = Key(rows.field, lists[rows.places], len(list_start) - 1)
        found = tuple(k for k in (rows, columns) if k is not None)
        return Group(found, starts, column, lists, list_start, condition[list_box], op[list_box])

    def rows(self, which: Ints, key: int) -> tuple[Key, Ints, npt.NDArray[np.int32]]:
        """Classes of a key that hold the same boxes are one row -> (key, start of every row, boxes of the rows)."""
        from fastpath.kernels import build

        number, start, boxes = build.rows_of_key(
            self.low[key][which], self.high[key][which], self.counts[key], 8 * MOST_CELLS)
        if not len(start):
            raise TooLargeError
        return Key(self.fields[key], number.astype(np.uint32), len(start) - 1), start, boxes

    def columns(self, which: Ints, key: int) -> Key:
        """Neighbouring classes of a key between which no box of the group begins or ends are one column."""
        cuts = np.zeros(self.counts[key] + 1, np.int64)
        cuts[self.low[key][which]] = 1
        cuts[self.high[key][which] + 1] = 1
        cuts[0] = 0
        places = np.cumsum(cuts[:-1])
        return Key(self.fields[key], places.astype(np.uint32), int(places[-1]) + 1)
