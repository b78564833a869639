"""Passes from columns to rows of classes.

Small fields that are looked up as one add up: each part's table says what a raw value (an interface's code, a state)
adds to the place in the product's table. What has one value in all packets is added here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.bulk import untouched
from fastpath.engine.program.passes import Passes, UnsuitableError
from fastpath.kernels import layout as at
from fastpath.kernels.narrow import NARROW, WIDE, in_vectors, prepared

Array = npt.NDArray[Any]

OCTET_OF = {
    at.B_PROTO: "proto", at.B_TCP_FLAGS: "tcp_flags", at.B_FRAG: "frag", at.B_TTL: "ttl", at.B_TOS: "tos",
    at.B_PKTTYPE: "pkttype",
}
HALF_OF = {at.B_SPORT: "sport", at.B_DPORT: "dport", at.B_LENGTH: "length"}
WIDE_OF = {at.B_SRC: "src", at.B_DST: "dst", at.B_MARK: "mark", at.B_UID: "uid", at.B_GID: "gid"}
CODE_OF = {at.B_IIF: "iif", at.B_OIF: "oif"}
MOST_SUM = (1 << 16) - 1
INVALID, NEW = at.CT_INVALID, 0


@dataclass
class _Part:
    """One part of a product: a column, and what each of its values adds to the place in the product's table."""

    column: str
    table: Array
    fixed: int | None = None


class Classes(Passes):
    """Adds class rows."""

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
            return self.add(at.OP_HALF, row, column, *self.direct[slot])
        if base in WIDE_OF and kind == at.K_PAGES:
            column = at.WIDES.index(self.column(WIDE_OF[base]))
            return self.add(at.OP_WORD, row, column, table, int(found[at.F_SPLIT]), int(found[at.F_LAST]))
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
        place = self.add_parts(parts, whole)
        return self.add(at.OP_CLASSES, row, -1 if place is None else place)

    def add_parts(self, parts: list[_Part], whole: int | None) -> int | None:
        """Adds the passes that add up what the parts come to -> where in the product's table the sums begin, None where
        they are classes."""
        for p in parts:
            if p.fixed is not None and whole is not None:
                whole += int(p.table[p.fixed])
        moving = {p.column: p.table.astype(np.int64) for p in parts if p.fixed is None}
        most = sum(int(table.max()) for table in moving.values())
        if most > MOST_SUM:
            raise UnsuitableError
        plus = False
        if "state" in moving:
            of_state = moving.pop("state")
            if self.kind.auto:
                self.auto(of_state, moving.pop("proto", np.zeros(256, np.int64)))
                plus = True
            else:
                moving["state"] = np.concatenate([of_state[:1], of_state])
        for name, table in moving.items():
            self.addend(name, table, plus=plus)
            plus = True
        if whole is not None and in_vectors(of_sum := self.arrays["maps"][whole:whole + most + 1]):
            self.sums(of_sum)
            whole = None
        return whole

    def addend(self, name: str, table: Array, *, plus: bool) -> None:
        """Adds the pass that begins the sums with what a column comes to, or adds it."""
        self.column(name)
        if name in at.OCTETS:
            self.add(at.OP_BYTE, 0, self.octet(name), self.add_small(prepared(table)), int(plus))
            return
        mask = mask_for(len(table))
        spread = np.zeros(mask + 1, np.uint16)
        spread[np.arange(-1, len(table) - 1) & mask] = table
        self.add(at.OP_CODE, 0, int(name == "oif"), self.add_small(prepared(spread)), int(plus), mask)

    def sums(self, table: Array) -> None:
        """Adds the pass that looks the sums up."""
        self.add(at.OP_SUMS, 0, self.add_small(prepared(table)), mask_for(len(table)))

    def auto(self, of_state: Array, of_proto: Array) -> None:
        """Adds the passes for state and protocol where conntrack decides on packets by TCP flags and ICMP type."""
        _, like, protocols = np.unique(
            [of_proto, np.arange(256) == 6, np.arange(256) == 1], axis=1, return_index=True, return_inverse=True)
        count = len(like)
        self.addend("state", np.arange(7) * 4 * count, plus=False)
        self.addend("tcp_flags", self.first("tcp") * 2 * count, plus=True)
        self.addend("icmp_type", self.first("icmp") * count, plus=True)
        self.addend("proto", protocols.reshape(-1), plus=True)
        table = np.zeros((7, 2, 2, count), np.int64)
        table[1:] = of_state[:6, None, None, None]
        table[0] = of_state[NEW]
        table[0, 1, :, like == 6] = table[0, :, 1, like == 1] = of_state[INVALID]
        self.sums((table + of_proto[like]).reshape(-1))



def mask_for(size: int) -> int:
    """The bits of an index into a table of so many entries."""
    return NARROW if size <= NARROW + 1 else WIDE
