"""Passes from columns to rows of classes.

Small fields that are looked up as one add up: each part's table says what a raw value (an interface's code, a state)
adds to the place in the product's table. Parts are joined to pairs; what has one value in all packets is added here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.bulk import untouched
from fastpath.engine.program.passes import Passes, UnsuitableError
from fastpath.kernels import layout as at

Array = npt.NDArray[Any]

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
        for p in parts:
            if p.fixed is not None and whole is not None:
                whole += int(p.table[p.fixed])
        moving = {p.column: p.table.astype(np.int64) for p in parts if p.fixed is None}
        groups: list[tuple[tuple[str, ...], Array]] = []
        if "state" in moving:
            if self.kind.auto:
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
