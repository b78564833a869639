"""Batches through the bulk kernel: the program of passes for a batch's columns, chunks, threads, counts.

A program depends on the tables and on what the batch is like: columns with one value for all packets are looked up
here, once; small tables are composed, so that a pass reads raw column values (an interface's code, a state).
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.bulk import KEEP_OIF, BulkPlan, Place, untouched
from fastpath.compiler.memory import in_large_pages
from fastpath.compiler.tables import KEPT, Compiled
from fastpath.engine import memory
from fastpath.engine.names import AS_GIVEN, interface_codes, read_only
from fastpath.kernels import codes
from fastpath.kernels import layout as at
from fastpath.packets.batch import PacketBatch
from fastpath.packets.schema import LOCAL, RESULT_COLUMNS

Array = npt.NDArray[Any]

SMALLEST, LARGEST = 1 << 16, 1 << 20
"""Packets of a chunk."""

MOST_COUNTED = 1 << 22
"""Packets counted in one array before it is emptied: packets and bytes share 64 bits."""

LANES, MOST_LANED = 4, 1 << 12
"""Arrays of counts taken in turn, for places of fewer records than that."""

MOST_REMEMBERED = 32
"""Arrays kept for batches of kinds met before."""

KEEP_CODE = -(1 << 15)
"""Interface code that stands for: what was written before stays."""

OCTET_OF = {
    at.B_PROTO: "proto", at.B_TCP_FLAGS: "tcp_flags", at.B_FRAG: "frag", at.B_TTL: "ttl", at.B_TOS: "tos",
    at.B_PKTTYPE: "pkttype",
}
HALF_OF = {at.B_SPORT: "sport", at.B_DPORT: "dport", at.B_LENGTH: "length"}
WIDE_OF = {at.B_SRC: "src", at.B_DST: "dst", at.B_MARK: "mark", at.B_UID: "uid", at.B_GID: "gid"}
CODE_OF = {at.B_IIF: "iif", at.B_OIF: "oif"}
NARROW = {"state": 7, "frag": 3, "pkttype": 3}
"""Columns of few values, which may be joined with another byte in one table."""

MOST_PAIRS = 1 << 16
INVALID, NEW = at.CT_INVALID, 0


class UnsuitableError(Exception):
    """The tables look at something that the bulk kernel does not read."""


@dataclass
class Bulk:
    """What a pass of the bulk kernel gives: columns and counts of all packets but the hard ones, and their places."""

    columns: dict[str, Array]
    record_packets: Array
    record_bytes: Array
    hard: Array


@dataclass
class _Part:
    """One part of a product: a column, and what each of its values adds to the place in the product's table."""

    column: str
    table: Array
    fixed: int | None = None


@dataclass
class Program:
    """The passes for a batch, and the small tables that were made for it."""

    compiled: Compiled
    plan: BulkPlan
    packets: PacketBatch
    ids: Array
    names: Array
    passes: list[list[int]] = field(default_factory=list)
    small: list[Array] = field(default_factory=list)
    small_size: int = 0
    enter: list[Array] = field(default_factory=list)
    enter_size: int = 0
    rows: int = 0
    row_of: dict[int, int] = field(default_factory=dict)
    read: dict[str, Array] = field(default_factory=dict)
    uses: Counter[int] | None = None
    all_local: bool = False
    packed: bool = False
    affects: list[int] = field(default_factory=list)
    for_results: list[int] = field(default_factory=list)
    renaming: bool = False
    counts: int = 0
    counted: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.arrays = self.compiled.arrays
        self.fields = self.arrays["fields"]
        self.add_small(self.plan.small)
        self.direct = self.plan.direct
        self.add_enter(self.plan.enter)
        self.renamed = bool((self.plan.columns["kind"] == at.FATE_DNAT).any())

    def add(self, op: int, row: int, *operands: int) -> int:
        self.passes.append([op, row, *operands, *[0] * (6 - len(operands))])
        return row

    def add_small(self, table: Array) -> int:
        begin = self.small_size
        self.small.append(table.astype(np.uint16, copy=False))
        self.small_size += len(table)
        return begin

    def add_enter(self, words: Array) -> int:
        begin = self.enter_size
        self.enter.append(words.astype(np.uint32, copy=False))
        self.enter_size += len(words)
        return begin

    def new_row(self) -> int:
        self.rows += 1
        return self.rows - 1

    # ------------------------------------------------------------------------------------------------ columns

    def constant(self, name: str) -> int | None:
        return self.packets.constant(name)

    def column(self, name: str) -> str:
        """Notes that a column is read; one with a single value becomes an array."""
        if name not in self.read:
            self.read[name] = np.ascontiguousarray(self.packets.column(name))
        return name

    def octet(self, name: str) -> int:
        return at.OCTETS.index(self.column(name))

    # ------------------------------------------------------------------------------------------------ classes

    def classes(self, slot: int) -> int:
        """The row that holds the classes of a field; its passes are added where it is new."""
        if slot not in self.row_of:
            self.row_of[slot] = self.make(slot)
        return self.row_of[slot]

    def make(self, slot: int) -> int:
        row = self.new_row()
        found = self.fields[slot]
        base, kind, table = int(found[at.F_BASE]), int(found[at.F_KIND]), int(found[at.F_TABLE])
        constant = self.fixed_class(slot)
        if constant is not None:
            changes = self.renamed and base in (at.B_DST, at.B_DPORT) and kind != at.K_PRODUCT
            return self.add(at.OP_CONSTANT, row, constant, int(changes))
        if kind == at.K_PRODUCT:
            return self.product(row, found)
        if base == at.B_ICMP:
            self.octet("icmp_type"), self.octet("icmp_code")
            return self.add(at.OP_ICMP, row, table)
        if base in HALF_OF and kind == at.K_TRIE:
            column = at.HALVES.index(self.column(HALF_OF[base]))
            return self.add(at.OP_HALF, row, column, self.direct[slot])
        if base in WIDE_OF and kind == at.K_PAGES:
            column = at.WIDES.index(self.column(WIDE_OF[base]))
            return self.add(at.OP_WORD, row, column, table, int(found[at.F_MASK]) & 0xFFFFFFFF)
        if base in WIDE_OF and kind == at.K_RANKS:
            self.ranks(row, found)
            op = at.OP_LOOK_UP if found[at.F_OF_RANK_WIDE] else at.OP_MERGE
            return self.add(op, row, row, int(found[at.F_OF_RANK]), 0)
        if kind == at.K_DIRECT:
            part = self.part(base, table, int(found[at.F_MASK]))
            return self.sum(row, [part], None)
        raise UnsuitableError

    def ranks(self, row: int, found: Array) -> int:
        """Adds the pass that writes the ranks of a field of 32 bits: the numbers of its elementary intervals."""
        column = at.WIDES.index(self.column(WIDE_OF[int(found[at.F_BASE])]))
        return self.add(at.OP_RANK, row, column, int(found[at.F_TABLE]), int(found[at.F_MASK]) & 0xFFFFFFFF,
                        int(found[at.F_BOUNDS]), int(found[at.F_LOW]))

    def fixed_class(self, slot: int) -> int | None:
        """The class that all packets have in a field, None where they differ or it is not known here."""
        constant = untouched(self.arrays, slot)
        if constant >= 0:
            return constant
        found = self.fields[slot]
        base, kind, table = int(found[at.F_BASE]), int(found[at.F_KIND]), int(found[at.F_TABLE])
        mask = int(found[at.F_MASK])
        if kind == at.K_PRODUCT:
            parts = self.parts(found)
            if any(p.fixed is None for p in parts):
                return None
            return int(self.arrays["maps"][table + sum(int(p.table[p.fixed]) for p in parts if p.fixed is not None)])
        if kind == at.K_DIRECT:
            part = self.part(base, table, mask)
            return None if part.fixed is None else int(part.table[part.fixed])
        trie = self.arrays["trie"]
        if base == at.B_ICMP:
            of_type, of_code = self.constant("icmp_type"), self.constant("icmp_code")
            if of_type is None or of_code is None:
                return None
            return int(trie[table + (int(trie[table + of_type]) << 8 | of_code)])
        if base in HALF_OF and kind == at.K_TRIE:
            value = self.constant(HALF_OF[base])
            if value is None:
                return None
            value &= mask & 0xFFFF
            return int(trie[table + (int(trie[table + (value >> 8)]) << 8 | value & 255)])
        return None

    def part(self, base: int, table: int, mask: int = -1) -> _Part:
        """What the values of a small field come to."""
        maps = self.arrays["maps"]
        if base in CODE_OF:
            name = CODE_OF[base]
            of_code = maps[table + self.ids.astype(np.int64)]
            value = self.constant(name)
            return _Part(name, of_code, None if value is None else value + 1)
        if base == at.B_CTSTATE:
            of_state = maps[table + np.arange(6)]
            state = self.constant("state")
            if state is None:
                return _Part("state", of_state)
            if state:
                return _Part("state", of_state, state - 1)
            values = [self.constant(name) for name in ("proto", "tcp_flags", "icmp_type")]
            if any(v is None for v in values):
                return _Part("state", of_state)
            proto, flags, kind = (int(v or 0) for v in values)
            bad = (proto == 6 and bool(self.first("tcp")[flags])) or (proto == 1 and bool(self.first("icmp")[kind]))
            return _Part("state", of_state, INVALID if bad else NEW)
        if base not in OCTET_OF:
            raise UnsuitableError
        name = OCTET_OF[base]
        return _Part(name, maps[table + (np.arange(256) & (mask & 0xFF))], self.constant(name))

    def parts(self, found: Array) -> list[_Part]:
        return [
            self.part(int(found[at.F_PARTS + 2 * p]), int(found[at.F_PARTS + 2 * p + 1]))
            for p in range(int(found[at.F_COUNT]))
        ]

    def first(self, protocol: str) -> Array:
        """For every value of the TCP flags or ICMP types whether it makes a packet of no known flow INVALID."""
        v = np.arange(256)
        if protocol == "icmp":
            return ~np.isin(v, [8, 13, 15, 17])
        loose = int(self.arrays["params"][at.P_TCP_LOOSE]) != 0
        begins: Array = ((v & 0x17) == 2) | (((v & 0x17) == 16) & loose)
        return ~begins

    def product(self, row: int, found: Array) -> int:
        return self.sum(row, self.parts(found), int(found[at.F_TABLE]))

    def sum(self, row: int, parts: list[_Part], whole: int | None) -> int:
        """Adds up what the parts come to, and looks it up in the product's table from `whole` on, if there is one."""
        for p in parts:
            if p.fixed is not None and whole is not None:
                whole += int(p.table[p.fixed])
        moving = {p.column: p.table.astype(np.int64) for p in parts if p.fixed is None}
        groups: list[tuple[tuple[str, ...], Array]] = []
        if "state" in moving:
            if len(self.packets) and int(self.packets.column("state").min()) == 0:
                of_proto = moving.pop("proto", np.zeros(256, np.int64))
                groups.append((("auto",), self.auto(moving.pop("state"), of_proto)))
            else:
                moving["state"] = np.concatenate([moving["state"][:1], moving["state"]])
        narrow = [name for name in NARROW if name in moving]
        wide = [name for name in moving if name in at.OCTETS and name not in narrow]
        for name in narrow:
            table = moving.pop(name)[:NARROW[name]]
            if wide:
                other = wide.pop(0)
                groups.append(((name, other), (table[:, None] + moving.pop(other)[None, :]).reshape(-1)))
            else:
                groups.append(((name,), table))
        for name in wide:
            groups.append(((name,), moving.pop(name)))
        if len(moving) == 2:
            of_iif, of_oif = moving["iif"], moving["oif"]
            if len(of_iif) * len(of_oif) <= MOST_PAIRS:
                groups.append((("iif", "oif"), (of_iif[:, None] + of_oif[None, :]).reshape(-1)))
                moving.clear()
        groups.extend(((name,), moving[name]) for name in list(moving))
        if whole is not None and len(groups) == 1:
            names, table = groups[0]
            groups[0] = names, self.arrays["maps"][whole + table]
            whole = None
        if whole is not None and len(groups) == 2 and [len(g[0]) for g in groups] == [2, 2]:
            ((a, b), first), (_, second) = groups
            sums, number = np.unique(first, return_inverse=True)
            if len(sums) * len(second) <= MOST_PAIRS:  # by sums of the bytes, and interfaces as they are
                self.column("iif"), self.column("oif")
                of_all = self.arrays["maps"][whole + sums[:, None] + second[None, :]].reshape(-1)
                return self.add(at.OP_PAIR_CODES, row, self.octet(a), self.octet(b),
                                self.add_small(number.reshape(-1) * len(second)), self.add_small(of_all), len(self.ids))
        if groups[0][0] == ("auto",) and (codes_of := next((g for g in groups if g[0] == ("iif",)), None)):
            groups.remove(codes_of)
            if whole is not None and len(groups) == 2 and len(groups[1][0]) == 1 and groups[1][0][0] in at.OCTETS:
                sums, number = np.unique(groups[0][1], return_inverse=True)
                octets, place = np.unique(groups[1][1], return_inverse=True)
                if len(sums) * len(self.ids) * len(octets) <= MOST_PAIRS:  # interfaces as they are here too
                    of_all = self.arrays["maps"][
                        whole + sums[:, None, None] + codes_of[1][None, :, None] + octets[None, None, :]].reshape(-1)
                    self.addend(row, ("auto",), number.reshape(-1) * len(self.ids) * len(octets), plus=False)
                    tables = self.passes.pop()[2:5]
                    octet = self.add_small(place.reshape(-1)) << 8 | self.octet(groups[1][0][0])
                    return self.add(at.OP_AUTO_PRODUCT, row, *tables, len(octets), octet, self.add_small(of_all))
            groups[0] = ("auto", "iif"), np.concatenate([groups[0][1], codes_of[1]])
        for i, (names, table) in enumerate(groups):
            self.addend(row, names, table, plus=i > 0)
        return row if whole is None else self.add(at.OP_FINAL, row, whole)

    def addend(self, row: int, names: tuple[str, ...], table: Array, *, plus: bool) -> None:
        where = self.add_small(table)
        if names[0] == "auto":
            for name in ("state", "proto", "tcp_flags", "icmp_type", "iif"):
                self.column(name)
            tcp, icmp = self.add_small(self.first("tcp") * 256), self.add_small(self.first("icmp") * 512)
            of_iif = where + 7 * 1024 if len(names) > 1 else self.add_small(np.zeros(len(self.ids)))
            self.add(at.OP_AUTO, row, where, tcp, icmp, of_iif)
        elif names == ("iif", "oif"):
            self.column("iif"), self.column("oif")
            self.add(at.OP_CODES, row, where, len(self.ids), int(plus))
        elif names[0] in ("iif", "oif"):
            self.add(at.OP_CODE, row, int(self.column(names[0]) == "oif"), where, int(plus))
        elif len(names) == 2:
            self.add(at.OP_PAIR, row, self.octet(names[0]), self.octet(names[1]), where, int(plus))
        else:
            self.add(at.OP_BYTE, row, self.octet(names[0]), where, int(plus))

    def auto(self, of_state: Array, of_proto: Array) -> Array:
        """By state, whether ICMP type and TCP flags begin no flow, and protocol; as ``OP_AUTO`` reads it."""
        table = np.zeros((7, 2, 2, 256), np.int64)
        table[1:] = of_state[:6, None, None, None]
        table[0] = of_state[NEW]
        table[0, :, 1, 6] = table[0, 1, :, 1] = of_state[INVALID]
        return (table + of_proto).reshape(-1)

    # -------------------------------------------------------------------------------------------------- places

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
            op, _, a, b, c, d, width, _ = self.passes[-1]
            if len(self.passes) == mark + 1 and op == at.OP_BYTE:
                self.passes[-1] = [at.OP_STEP_OCTET, words, a, base, b, 0, 0, first]
                return
            if len(self.passes) == mark + 1 and op == at.OP_PAIR:
                self.passes[-1] = [at.OP_STEP_PAIR, words, a << 8 | b, base, c, 0, 0, first]
                return
            if len(self.passes) == mark + 1 and op == at.OP_CODE:
                self.passes[-1] = [at.OP_STEP_CODE, words, a, base, b, 0, 0, first]
                return
            if len(self.passes) == mark + 1 and op == at.OP_PAIR_CODES:
                self.passes[-1] = [at.OP_STEP_MIXED, words, a << 8 | b, base, c, d, width, first]
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
        elif len(place.roots) > 1 and (roots := self.by_code(place)) is not None:
            self.column("iif")
            where = self.add_enter(roots)
            if levels and levels[0] not in kinds:
                self.add(at.OP_STEP_BY_CODE, words, self.classes(levels.pop(0)), place.base, where)
            else:
                self.add(at.OP_ENTER_BY_CODE, words, where)
        else:
            root = place.roots[1 if len(place.roots) > 1 and self.all_local else 0]
            if levels and root >> 31:
                first = root & 0x7FFFFFFF
            else:
                self.add(at.OP_CONSTANT, words, root, 1)
        for slot in levels:
            if slot in kinds:
                self.add(at.OP_STEP, words, kinds[slot], place.base, 0, 0, 0, first)
            else:
                self.step(words, slot, place.base, first)
            first = -1

    def by_code(self, place: Place) -> Array | None:
        """The root for each interface code, shifted by one; None where all packets have the same."""
        local = np.array([False, *(name == LOCAL for name in self.packets.interfaces)])
        self.all_local = False
        if not local.any():
            return None
        value = self.constant("iif")
        if value is not None:
            self.all_local = bool(local[value + 1])
            return None
        return np.where(local, place.roots[1], place.roots[0]).astype(np.uint32)

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
                words = rows[(words & 0x7FFFFFFF) + np.where(words >> 31, classes, 0)].astype(np.int64)
            leaves = self.plan.leaves.reshape(-1, at.E_COLUMNS)[place.first_leaf + words]
            ranks = self.arrays["cells32"][leaves[:, at.E_RANKS] + ops].astype(np.int64)
            found: Array = leaves[:, at.E_RECORD] + (ranks & leaves[:, at.E_RANKED])
            return found.astype(np.uint32)

        return self.remembered(("records", place.first, *fixed), records)

    def remembered(self, key: object, make: Callable[[], Array]) -> Array:
        """What was made before for a batch of this kind, or is made now."""
        found = self.plan.remembered.get(key)
        if found is None:
            if len(self.plan.remembered) >= MOST_REMEMBERED:
                self.plan.remembered.clear()
            found = self.plan.remembered[key] = in_large_pages(make())
        return found

    # ------------------------------------------------------------------------------------------------- results

    def results(self, records: list[int], wanted: Collection[str], *, counters: bool) -> dict[str, Array]:
        """Adds the passes that write what is wanted -> the columns, which may hold their values already."""
        n = len(self.packets)
        written = self.compiled.written
        columns: dict[str, Array] = {}
        passes, self.passes = self.passes, []
        for where in self.affects:
            passes[where][3] |= ("dst" in wanted) * 1 | ("dport" in wanted) * 2
        if not {"dst", "dport"} & set(wanted):
            passes = [p for number, p in enumerate(passes) if number not in self.for_results]
        for name in at.COPIED:
            if name not in wanted or name not in written:
                continue
            value = self.constant(name)
            if value is not None and name != "src":
                columns[name] = memory.full(n, value, _DTYPES[name])
                continue
            columns[name] = memory.empty(n, _DTYPES[name])
            self.column(name)
            if name != "src":
                self.add(at.OP_COPY, 0, at.COPIED.index(name))
        self.passes += passes
        if "flags" in wanted and "flags" in written:
            columns["flags"] = memory.full(n, 0, "uint8")
        last, place = records[-1], self.plan.places[-1]
        if "src" in columns:
            self.add(at.OP_SOURCES, last, place.first)
        given = int(self.compiled.given_oif and self.constant("oif") is None)
        of_rule, of_oif = self.kept("rule", codes.KEEP_RULE), self.kept("oif", KEEP_OIF)
        for name in ("verdict", "hook", "rule", "oif", "rules_walked"):
            if name in wanted:
                columns[name] = memory.empty(n, _DTYPES[name])
        if given and "oif" in wanted:
            self.column("oif")
        if {"verdict", "hook", "rule", "oif"} <= set(wanted) and len(of_rule) == len(of_oif) == 1:
            self.packed = True
            self.add(at.OP_FATES, last, place.first, AS_GIVEN, 0, given)
        else:
            for name, op in (("verdict", at.OP_VERDICT), ("hook", at.OP_HOOK)):
                if name in wanted:
                    self.add(op, last, place.first)
            for number, keep in of_rule if "rule" in wanted else ():
                self.add(at.OP_RULE, records[number], self.plan.places[number].first, codes.KEEP_RULE, int(keep))
            for number, keep in of_oif if "oif" in wanted else ():
                self.add(at.OP_OIF, records[number], self.plan.places[number].first, KEEP_CODE, int(keep),
                         int(given and number == of_oif[-1][0]), AS_GIVEN)
        if "rules_walked" in wanted and len(records) == 2:
            self.add(at.OP_WALKED_BOTH, records[1], records[0], 0, place.first)
        elif "rules_walked" in wanted:
            for number, row in enumerate(records):
                self.add(at.OP_WALKED, row, self.plan.places[number].first, int(number > 0))
        if counters:
            bytes_too = self.constant("length") is None
            if bytes_too:
                self.column("length")
            for number, row in enumerate(records):
                place = self.plan.places[number]
                lanes = LANES if place.size < MOST_LANED else 1
                self.add(at.OP_COUNT, row, self.counts, place.size, int(bytes_too), lanes)
                self.counted.append((self.counts, lanes))
                self.counts += lanes * (place.size + 1)
        return columns

    def kept(self, name: str, mark: int) -> list[tuple[int, bool]]:
        """The places whose records write a column, and whether some of them leave what an earlier one wrote."""
        found: list[tuple[int, bool]] = []
        for number in range(len(self.plan.places) - 1, -1, -1):
            place = self.plan.places[number]
            values = self.plan.columns[name][place.first:place.first + place.size]
            keeps = number > 0 and bool((values == mark).any())
            found.append((number, keeps))
            if not keeps:
                break
        return found[::-1]

    def fates(self) -> at.Fates:
        """What records mean, with the batch's interface codes."""
        means = self.plan.columns
        given = self.constant("oif") if self.compiled.given_oif else None

        def of_oif() -> Array:
            oif: Array = self.names[np.maximum(means["oif"], 0)]
            oif[means["oif"] < 0] = -1
            oif[means["oif"] == KEEP_OIF] = KEEP_CODE
            if given is not None:
                oif[oif == AS_GIVEN] = given
            return oif

        def of_all() -> Array:
            packed: Array = means["rule"].astype(np.uint32).astype(np.uint64)
            packed |= oif.astype(np.uint16).astype(np.uint64) << 32
            packed |= means["verdict"].astype(np.uint64) << 48 | means["hook"].astype(np.uint64) << 56
            return packed

        kind = (self.names.tobytes(), given)
        oif = self.remembered(("oif", *kind), of_oif)
        packed = self.remembered(("packed", *kind), of_all) if self.packed else np.zeros(1, np.uint64)
        enter = self.enter[0] if len(self.enter) == 1 else np.concatenate(self.enter)
        return at.Fates(
            packed=read_only(packed), enter=read_only(in_large_pages(enter)), oif=read_only(oif),
            leaves=read_only(self.plan.leaves if len(self.plan.leaves) else np.zeros(1, np.int64)),
            **{name: read_only(means[name]) for name in (
                "verdict", "hook", "rule", "walked", "kind", "dnat", "source")},
        )


def run_bulk(
    compiled: Compiled, packets: PacketBatch, interfaces: list[str], threads: int | None,
    report: Callable[[int], None], wanted: Collection[str], counters: bool,
) -> Bulk | None:
    """Runs a batch through the bulk kernel, None where it cannot be.

    Args:
        interfaces: names of the result's interface codes; egress interfaces that are not among them are added.
        threads: worker threads, one for each processor where None.
        report: called with the number of packets done.
        wanted: result columns to write.
        counters: whether to count by record.
    """
    plan = compiled.bulk
    n = len(packets)
    if plan is None or compiled.extras:
        return None
    ids, names = interface_codes(compiled, packets, interfaces)
    program = Program(compiled, plan, packets, ids, names)
    try:
        records = program.ways()
    except UnsuitableError:
        return None
    columns = program.results(records, wanted, counters=counters)
    from fastpath.kernels.bulk import bulk

    passes = read_only(np.array(program.passes, np.int64).reshape(-1, 8))
    small, fates = read_only(np.concatenate(program.small)), program.fates()
    trie, steps = read_only(compiled.arrays["trie"]), read_only(plan.steps)
    cells16, cells32 = read_only(compiled.arrays["cells16"]), read_only(compiled.arrays["cells32"])
    many_hard = bool((plan.columns["kind"] == at.FATE_HARD).any())
    size = max(1, program.counts)
    totals = np.zeros((2, size), np.int64)
    hard: dict[int, Array] = {}
    lock = threading.Lock()
    spare: list[_Worker] = []
    workers: list[_Worker] = []
    done = 0

    def inputs(names: tuple[str, ...], dtype: str, a: int, b: int) -> tuple[Array, ...]:
        return tuple(
            read_only(program.read[name][a:b]) if name in program.read else _NOTHING[dtype] for name in names)

    def work(bounds: tuple[int, int]) -> None:
        nonlocal done
        a, b = bounds
        try:
            worker = spare.pop()
        except IndexError:
            worker = _Worker(in_large_pages(np.zeros(size, np.int64)),
                             np.empty((max(1, program.rows), at.BULK_BLOCK), np.uint32))
            workers.append(worker)
        room = np.empty(b - a if many_hard else 1, np.int32)
        output = at.BulkOutput(**{
            name: columns[column][a:b] if column in columns else np.empty(1, _DTYPES[column])
            for name, column in _OUTPUT.items()})
        many = bulk(
            b - a, passes, inputs(at.OCTETS, "uint8", a, b), inputs(at.HALVES, "uint16", a, b),
            inputs(at.WIDES, "uint32", a, b), inputs(("iif", "oif"), "int16", a, b), small, trie, steps, cells16,
            cells32, fates, output, worker.counts, worker.rows, room)
        worker.packets += b - a
        with lock:
            if many:
                hard[a] = room[:many].astype(np.int64) + a
            if worker.packets > MOST_COUNTED:
                worker.empty(totals)
            done += b - a
            report(done)
        spare.append(worker)

    threads = threads or os.cpu_count() or 1
    step = min(LARGEST, max(SMALLEST, -(-n // (4 * threads)))) if threads > 1 else LARGEST
    step = -(-step // at.BULK_BLOCK) * at.BULK_BLOCK
    chunks = [(a, min(a + step, n)) for a in range(0, n, step)]
    if min(len(chunks), threads) <= 1:
        for bounds in chunks:
            work(bounds)
    else:
        with ThreadPoolExecutor(min(len(chunks), threads)) as pool:
            for _ in pool.map(work, chunks):
                pass
    for worker in workers:
        worker.empty(totals)
    records_counted = np.zeros((2, len(compiled.arrays["records"])), np.int64)
    if counters:
        for (begin, lanes), place in zip(program.counted, plan.places, strict=True):
            counted = totals[:, begin:begin + lanes * (place.size + 1)].reshape(2, lanes, place.size + 1).sum(axis=1)
            for kind in range(2):
                records_counted[kind, place.records] += counted[kind, :place.own]  # each record once in a place
    for name in KEPT:
        if name in wanted and name not in columns:
            columns[name] = np.zeros(n, np.uint8) if name == "flags" else packets.column(name)
    found = np.concatenate([hard[a] for a in sorted(hard)]) if hard else np.zeros(0, np.int64)
    return Bulk(columns, records_counted[0], records_counted[1], found)


@dataclass
class _Worker:
    """A thread's own room."""

    counts: Array
    rows: Array
    packets: int = 0

    def empty(self, totals: Array) -> None:
        """Adds the counts to the totals and begins anew."""
        totals[0] += self.counts >> 40
        totals[1] += self.counts & ((1 << 40) - 1)
        self.counts[:] = 0
        self.packets = 0


_OUTPUT = {name: "rules_walked" if name == "walked" else name for name in at.BulkOutput._fields}
_DTYPES = {c.name: c.dtype for c in RESULT_COLUMNS}
_NOTHING = {dtype: read_only(np.zeros(1, dtype)) for dtype in ("uint8", "uint16", "uint32", "int16")}
