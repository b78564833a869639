"""Passes from classes through the places on the way to records: levels, cross products, candidates, effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.bulk import Place
from fastpath.compiler.diagram import TESTS
from fastpath.engine.program.classes import HALF_OF, WIDE_OF, Classes
from fastpath.kernels import layout as at
from fastpath.packets.schema import LOCAL

Array = npt.NDArray[Any]


class Ways(Classes):
    """Adds the places of a plan."""

    def alone(self, slot: int) -> bool:
        """Whether a field's classes are looked up once only, and from the column as it arrived."""
        if self.uses is None:
            self.uses = self.slots(self.plan.places)
        changed = self.renaming and self.fields[slot, at.F_BASE] in (at.B_DST, at.B_DPORT)
        return self.uses[slot] == 1 and not changed and slot not in self.row_of and self.fixed_class(slot) is None

    def step(self, words: int, slot: int, base: int, first: int) -> None:
        """Adds the pass of one level; classes that nothing else needs are looked up within it."""
        found = self.fields[slot]
        of, kind = int(found[at.F_BASE]), int(found[at.F_KIND])
        if self.alone(slot):
            mark = len(self.passes)
            if of in HALF_OF and kind == at.K_TRIE:
                column = at.HALVES.index(self.column(HALF_OF[of]))
                self.add(at.OP_STEP_HALF, words, column, base, self.direct[slot], 0, 0, first)
                return
            if first >= 0 and of in WIDE_OF and kind == at.K_PAGES:
                column = at.WIDES.index(self.column(WIDE_OF[of]))
                mask = int(found[at.F_MASK]) & 0xFFFFFFFF
                self.add(at.OP_STEP_WORD, words, column, base, int(found[at.F_TABLE]), mask, 0, first)
                return
            row = self.classes(slot)
            if len(self.passes) > mark and self.passes[-1][0] == at.OP_CLASSES:
                self.passes[-1] = [at.OP_STEP_SUMS, words, 0, base, self.passes[-1][2], 0, 0, first]
                return
        row = self.classes(slot)
        self.add(at.OP_STEP, words, row, base, 0, 0, 0, first)

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
        self.renaming |= renames

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
        levels = list(place.levels)
        first = -1
        if before:
            earlier = self.plan.places[len(before) - 1].first
            if levels and levels[0] not in kinds:
                row = self.classes(levels.pop(0))
                self.add(at.OP_STEP_ENTERING, words, row, place.base, before[-1], earlier)
            else:
                self.add(at.OP_ENTER, words, before[-1], earlier)
        elif len(place.roots) > 1 and (local := self.local()) is not None:
            self.addend("iif", local, plus=False)
            self.add(at.OP_ENTER_BY_SUMS, words, place.roots[1], place.roots[0])
        else:
            root = place.roots[1 if len(place.roots) > 1 and self.all_local else 0]
            if levels and root & TESTS:
                first = root & TESTS - 1
            else:
                self.add(at.OP_CONSTANT, words, root, 1)
        for slot in levels:
            if slot in kinds:
                self.add(at.OP_STEP, words, kinds[slot], place.base, 0, 0, 0, first)
            else:
                self.step(words, slot, place.base, first)
            first = -1

    def local(self) -> Array | None:
        """For each interface code, shifted by one, whether packets are the host's own; None where all are alike."""
        local = np.array([False, *(name == LOCAL for name in self.packets.interfaces)])
        self.all_local = False
        if not local.any():
            return None
        value = self.constant("iif")
        if value is not None:
            self.all_local = bool(local[value + 1])
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
                self.add(at.OP_DENSE, places, columns, group[at.G_TABLE], group[at.G_WIDTH], group[at.G_TABLE_WIDE])
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

        def records() -> Array:
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

        return self.remembered(("records", place.first, *fixed), records)
