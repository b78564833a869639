"""Passes from classes through the places on the way to records: levels, cross products, candidates, effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.bulk import Place
from fastpath.compiler.diagram import TESTS
from fastpath.engine.program.classes import MOST_SUM, WIDE_OF, Classes
from fastpath.kernels import layout as at
from fastpath.packets.schema import LOCAL

Array = npt.NDArray[Any]


class Ways(Classes):
    """Adds the places of a plan."""

    def ways(self) -> list[int]:
        """Adds the passes of all places -> the row of each that holds its records."""
        found: list[int] = []
        for number, place in enumerate(self.plan.places):
            words = self.new_row()
            ops = self.rows
            self.rows += len(place.lookups)
            for i, which in enumerate(place.lookups):
                self.segment(self.arrays["lookups"][which], ops + i)
            if len(place.lookups) == 1 and number == 0 and (records := self.folded(place)) is not None:
                self.add(at.OP_ENTER, words, ops, self.add_enter(records))
            else:
                kinds = {}
                for i, which in enumerate(place.lookups):
                    lookup = self.arrays["lookups"][which]
                    row = self.add(at.OP_MERGE, self.new_row(), ops + i, int(lookup[at.C_KINDS]), 0)
                    kinds[int(lookup[at.C_KIND_SLOT])] = row
                self.walk(place, words, kinds, found)
                if place.lookups:
                    self.add(at.OP_RANKED, words, ops, place.first_leaf * at.E_COLUMNS)
            found.append(words)
            kind = self.plan.columns["kind"][place.first:place.first + place.own]
            if (kind != at.FATE_PLAIN).any():
                self.affect(number, words, renames=bool((kind == at.FATE_DNAT).any()), hard=bool(
                    (kind == at.FATE_HARD).any()))
        return found

    def affect(self, number: int, words: int, *, renames: bool, hard: bool) -> None:
        """Adds the pass for records of a place that do something to a packet."""
        later = self.slots(self.plan.places[number + 1:])
        rows: list[int] = []
        for which in (at.P_DST_SLOT, at.P_DPORT_SLOT):
            slot = int(self.arrays["params"][which])
            base = (at.B_DST, at.B_DPORT)[len(rows)]
            read = renames and slot in later and self.fields[slot, at.F_BASE] == base
            rows.append(self.classes(slot) if read else -1)
        unread = self.new_row() if min(rows) < 0 else 0
        proto = self.constant("proto")
        if proto is None:
            self.column("proto")
        if not hard and max(rows) < 0:
            self.for_results.append(len(self.passes))  # nothing but result columns depends on it
        self.affects.append(len(self.passes))
        self.add(at.OP_AFFECT, words, self.plan.places[number].first, 4 if proto is None else 0,
                 *(row if row >= 0 else unread for row in rows), proto or 0)

    def slots(self, places: Sequence[Place]) -> Counter[int]:
        """How often the classes of each field are looked at in some places."""
        found = Counter(slot for place in places for slot in place.levels)
        for which in (x for place in places for x in place.lookups):
            lookup = self.arrays["lookups"][which]
            merge, group = int(lookup[at.C_MERGE]), int(lookup[at.C_GROUP])
            found.update(self.arrays["merges"][merge:merge + int(lookup[at.C_MERGES]), at.M_SLOT].tolist())
            for row in self.arrays["groups"][group:group + int(lookup[at.C_GROUPS])].tolist():
                keys = {at.SHAPE_NONE: 0, at.SHAPE_ONE: 1}.get(row[at.G_SHAPE], 2)
                found.update((row[at.G_A], row[at.G_B])[:keys])
        return found

    def walk(self, place: Place, words: int, kinds: dict[int, int], before: list[int]) -> None:
        """The levels of a place, from its roots or from the words of the place before."""
        first = -1
        levels = list(place.levels)
        if before:
            self.add(at.OP_ENTER, words, before[-1], self.plan.places[len(before) - 1].first)
        elif len(place.roots) > 1 and (local := self.local()) is not None:
            self.column("iif")
            if not self.paged_words(words, place, local):
                self.add(at.OP_ROOTS, words, local, place.roots[1], place.roots[0])
            else:
                del levels[0]
        else:
            root = place.roots[1 if len(place.roots) > 1 and self.all_local else 0]
            if levels and root & TESTS:
                first = root & TESTS - 1
                if self.paged_words(words, replace(place, roots=(root,)), None):
                    del levels[0]
            else:
                self.add(at.OP_CONSTANT, words, root, 1)
        for slot in levels:
            row = kinds[slot] if slot in kinds else self.classes(slot)
            self.add(at.OP_STEP, words, row, place.base, 0, 0, 0, first if slot == place.levels[0] else -1)

    def paged_words(self, words: int, place: Place, local: int | None) -> bool:
        """Adds the passes of a first level if it is that of an address, or a product, whose classes nothing else looks
        at: its pages, or its table, hold the words behind the level then, one set of them for each root.

        Args:
            local: the interface code of packets that begin at the second root, None where there is but one.
        """
        slot = place.levels[0] if place.levels else 0
        found = self.fields[slot]
        base, kind = int(found[at.F_BASE]), int(found[at.F_KIND])
        if not place.levels or not all(root & TESTS for root in place.roots):
            return False
        if slot in self.row_of or self.slots(self.plan.places)[slot] > 1 or self.fixed_class(slot) is not None:
            return False
        rows = [self.plan.steps[place.base + (root & TESTS - 1):] for root in place.roots]
        if kind == at.K_PRODUCT:
            return self.summed_words(words, found, rows, local)
        if kind != at.K_PAGES or base not in WIDE_OF:
            return False
        last, size = int(found[at.F_LAST]), int(found[at.F_WORDS])
        pages = self.arrays["cells16"][last:last + size]
        self.paged = np.concatenate([row[pages] for row in rows])
        if local is not None:
            self.add(at.OP_ROOTS, words, local, size, 0)
        column = at.WIDES.index(self.column(WIDE_OF[base]))
        self.add(at.OP_PAGED, words, column, int(found[at.F_TABLE]), int(found[at.F_SPLIT]), int(local is not None))
        return True

    def summed_words(self, words: int, found: Array, rows: list[Array], local: int | None) -> bool:
        """As :meth:`paged_words` for a product of small fields: the words are looked up by the sums."""
        size = int(found[at.F_EXTRA])
        if size * len(rows) > MOST_SUM:
            return False
        place = self.add_parts(self.parts(found), int(found[at.F_TABLE]))
        classes = np.arange(int(found[at.F_CLASSES]))
        if place is not None:
            classes = self.arrays["maps"][place:int(found[at.F_TABLE]) + size]
        self.paged = np.concatenate([row[classes] for row in rows])
        if local is not None:
            self.addend("iif", np.where(np.arange(len(self.ids)) == local + 1, len(classes), 0), plus=True)
        self.add(at.OP_WORDS, words)
        return True

    def local(self) -> int | None:
        """The interface code of packets that the host makes; None where all packets begin alike."""
        self.all_local = False
        if LOCAL not in self.kind.interfaces:
            return None
        local = self.kind.interfaces.index(LOCAL)
        value = self.constant("iif")
        if value is not None:
            self.all_local = value == local
            return None
        return local

    def segment(self, lookup: Array, best: int) -> None:
        """Adds the passes of a cross product, which write the ops that they find into the row `best`."""
        rest = self.rest(lookup)
        places, columns = self.new_row(), self.new_row()
        first = int(lookup[at.C_GROUP])
        for number, group in enumerate(self.arrays["groups"][first:first + int(lookup[at.C_GROUPS])].tolist()):
            shape = group[at.G_SHAPE]
            if shape == at.SHAPE_CANDIDATES:
                self.candidates(lookup, group, rest, places, columns, best)
                continue
            if shape == at.SHAPE_NONE:
                self.add(at.OP_CONSTANT, places, 0, 1)
            else:
                self.add(at.OP_LOOK_UP, places, self.classes(group[at.G_A]), group[at.G_A_MAP])
            if shape not in (at.SHAPE_NONE, at.SHAPE_ONE):
                self.add(at.OP_LOOK_UP, columns, self.classes(group[at.G_B]), group[at.G_B_MAP])
            if shape == at.SHAPE_DENSE:
                self.add(at.OP_MERGE, places, columns, group[at.G_TABLE], group[at.G_WIDTH], group[at.G_TABLE_WIDE])
            elif shape == at.SHAPE_RUNS:
                self.add(at.OP_RUNS, places, columns, group[at.G_TABLE], group[at.G_WIDTH], group[at.G_TABLE_WIDE])
            elif shape == at.SHAPE_GROUPED:
                self.add(at.OP_GROUPED, places, places, columns, group[at.G_TABLE], 0, group[at.G_TABLE_WIDE])
            merged = int(number > 0)
            if group[at.G_RESULT] == at.RESULT_GROUPED:
                self.add(at.OP_GROUPED, best, places, rest, group[at.G_FOUND], merged, group[at.G_FOUND_WIDE])
            elif group[at.G_RESULT] == at.RESULT_DIRECT:
                self.add(at.OP_DIRECT, best, places, rest, group[at.G_FOUND], int(lookup[at.C_REST]), merged,
                         group[at.G_FOUND_WIDE])
            else:
                self.add(at.OP_LISTS, best, places, rest, group[at.G_LISTS], group[at.G_FOUND],
                         int(lookup[at.C_HOLDS]), int(lookup[at.C_WORDS]) << 1 | merged)
        if not int(lookup[at.C_GROUPS]):
            self.add(at.OP_CONSTANT, best, int(lookup[at.C_MISS]), 1)

    def candidates(self, lookup: Array, group: list[int], rest: int, first: int, second: int, best: int) -> None:
        """The passes of a lookup by candidates, with rows for the words of both keys."""
        a, b = self.classes(group[at.G_A]), self.classes(group[at.G_B])
        self.add(at.OP_LOOK_UP, first, a, group[at.G_A_MAP])
        self.add(at.OP_LOOK_UP, second, b, group[at.G_B_MAP])
        if group[at.G_WIDTH]:
            self.add(at.OP_GRID, best, first, second, rest, group[at.G_TABLE], group[at.G_WIDTH],
                     int(lookup[at.C_REST]))
        else:
            self.add(at.OP_CONSTANT, best, int(lookup[at.C_MISS]), 1)
        holds, words = int(lookup[at.C_HOLDS]), int(lookup[at.C_WORDS])
        for lists, other, records in ((first, b, group[at.G_FOUND]), (second, a, group[at.G_LISTS])):
            if records >= 0:
                self.add(at.OP_CANDIDATES, best, lists, other, rest, records, holds, words)

    def rest(self, lookup: Array) -> int:
        """The row with the class of the merged fields."""
        row = self.new_row()
        first = int(lookup[at.C_MERGE])
        narrow = self.arrays["cells16"]
        begin: int | None = 0
        for slot, table, width, places in self.arrays["merges"][first:first + int(lookup[at.C_MERGES])].tolist():
            constant = self.fixed_class(slot)
            if constant is not None and not (self.renamed and self.fields[slot, at.F_BASE] in (at.B_DST, at.B_DPORT)):
                if places >= 0:
                    constant = int(narrow[places + constant])
                if begin is not None:
                    begin = int(narrow[table + begin * width + constant])
                    continue
            classes = self.classes(slot)
            if places >= 0:
                classes = self.add(at.OP_MERGE, self.new_row(), classes, places, 0)
            if begin is not None:
                self.add(at.OP_MERGE, row, classes, table + begin * width, 0)
                begin = None
            else:
                self.add(at.OP_MERGE, row, classes, table, width)
        if begin is not None:
            self.add(at.OP_CONSTANT, row, begin, 1)
        return row

    def folded(self, place: Place) -> Array | None:
        """The record of every op where all levels but the kind's have one class, uint32; None where they do not."""
        if len(place.stages) > 1:
            return None
        lookup = self.arrays["lookups"][place.lookups[0]]
        kind_slot = int(lookup[at.C_KIND_SLOT])
        fixed: list[int] = []
        for slot in place.levels:
            constant = 0 if slot == kind_slot else self.fixed_class(slot)
            if constant is None or self.fields[slot, at.F_BASE] in (at.B_DST, at.B_DPORT):
                return None
            fixed.append(constant)

        ops = np.arange(int(lookup[at.C_MISS]) + 1)
        kinds = self.arrays["cells16"][int(lookup[at.C_KINDS]) + ops].astype(np.int64)
        words = np.full(len(ops), place.roots[0], np.int64)
        rows = self.plan.steps[place.base:]
        for slot, constant in zip(place.levels, fixed, strict=True):
            classes = kinds if slot == kind_slot else constant
            words = rows[(words & TESTS - 1) + np.where(words & TESTS, classes, 0)].astype(np.int64)
        leaves = self.plan.leaves.reshape(-1, at.E_COLUMNS)[place.first_leaf + words]
        ranks = self.arrays["cells32"][leaves[:, at.E_RANKS] + ops].astype(np.int64)
        found: Array = leaves[:, at.E_RECORD] + (ranks & leaves[:, at.E_RANKED])
        return found.astype(np.uint32)
