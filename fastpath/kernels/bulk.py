"""The bulk kernel: a short program of passes over blocks of packets.

A pass is one loop with one or two table look-ups: from packet columns to class rows, from class rows through the
levels of a diagram or the tables of a cross product to records, from records to result columns. The program is made
for each batch (``engine.bulk``); what it cannot do for a packet, it leaves to the general kernel: such a packet is put
on the list of *hard* packets, and neither counted nor right in the result columns.

Why it is fast: blocks stay in cache; columns are sliced before they are looped over (an index that might be negative
costs a correction for each packet); no loop has a branch that depends on data.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import helper, kernel
from fastpath.kernels.addresses import page_class, rank
from fastpath.kernels.candidates import candidates, grid
from fastpath.kernels.connection import has_ports
from fastpath.kernels.grouped import grouped
from fastpath.kernels.layout import (
    BULK_BLOCK,
    COL_DPORT,
    COL_DST,
    COL_ICMP_CODE,
    COL_ICMP_TYPE,
    COL_MARK,
    COL_OIF,
    COL_PROTO,
    COL_SPORT,
    COL_SRC,
    E_RANKED,
    E_RANKS,
    E_SLOT,
    FATE_HARD,
    OP_AFFECT,
    OP_BYTE,
    OP_CANDIDATES,
    OP_CLASSES,
    OP_CODE,
    OP_CONSTANT,
    OP_COPY,
    OP_COUNT,
    OP_DENSE,
    OP_DIRECT,
    OP_ENTER,
    OP_ENTER_BY_SUMS,
    OP_FATES,
    OP_GRID,
    OP_GROUPED,
    OP_HALF,
    OP_HOOK,
    OP_ICMP,
    OP_LISTS,
    OP_LOOK_UP,
    OP_MERGE,
    OP_OIF,
    OP_RANK,
    OP_RANKED,
    OP_RULE,
    OP_RUNS,
    OP_SOURCES,
    OP_STEP,
    OP_STEP_ENTERING,
    OP_STEP_HALF,
    OP_STEP_SUMS,
    OP_STEP_WORD,
    OP_SUMS,
    OP_VERDICT,
    OP_WALKED,
    OP_WALKED_BOTH,
    OP_WORD,
)
from fastpath.kernels.narrow import NARROW, add_up

# A program's columns: the pass, the row that it writes, and its operands.
P_OP, P_ROW, P_A, P_B, P_C, P_D, P_E, P_F = range(8)


@helper
def _enter(sums: Any, other: Any, root: Any, m: Any, words: Any) -> None:
    """The words that packets begin with: `other` where their interface adds up to something."""
    a, b = np.uint32(other), np.uint32(root)
    for k in range(m):
        words[k] = a if sums[k] else b


@helper
def _table(table: Any, row: Any, m: Any, out: Any) -> None:
    for k in range(m):
        out[k] = table[row[k]]


@helper
def _word(words: Any, column: Any, mask: Any, row: Any) -> None:
    bits = np.uint32(mask)
    for k in range(len(column)):
        row[k] = page_class(words, np.uint32(column[k] & bits))


@helper
def _rank(words: Any, bounds: Any, low: Any, column: Any, mask: Any, row: Any) -> None:
    bits, below = np.uint32(mask), np.uint32(low)
    for k in range(len(column)):
        row[k] = rank(words, bounds, below, np.uint32(column[k] & bits))


@helper
def _icmp(pages: Any, kinds: Any, subs: Any, row: Any) -> None:
    shift = np.uint32(8)
    for k in range(len(kinds)):
        row[k] = pages[pages[kinds[k]] << shift | np.uint32(subs[k])]


@helper
def _place(word: Any, of_class: Any) -> Any:
    """Where the word behind a word is, for a class of the level."""
    return np.uint32((word & np.uint32(0x7FFFFFFF)) + (of_class & np.uint32(np.int32(word) >> np.int32(31))))


@helper
def _next(rows: Any, word: Any, of_class: Any) -> Any:
    """The word behind a word, for a class of the level."""
    return rows[_place(word, of_class)]


@helper
def _step(rows: Any, first: Any, classes: Any, m: Any, words: Any) -> None:
    """One level; from `first` on, where that is not negative, all packets begin at one row.

    Places are worked out in vectors first, so that the look-ups are nothing but that.
    """
    if first >= 0:
        here = rows[first:]
        for k in range(m):
            words[k] = here[classes[k]]
    else:
        for k in range(m):
            words[k] = _place(words[k], np.uint32(classes[k]))
        for k in range(m):
            words[k] = rows[words[k]]


@helper
def _step_entering(rows: Any, enter: Any, before: Any, classes: Any, m: Any, words: Any) -> None:
    """The first level of a place, from where the records of the place before lead."""
    for k in range(m):
        words[k] = _next(rows, enter[before[k]], classes[k])


@helper
def _step_half(rows: Any, first: Any, table: Any, column: Any, words: Any) -> None:
    """A level whose classes are looked up on the way, by a port or the sums of a product."""
    if first >= 0:
        here = rows[first:]
        for k in range(len(column)):
            words[k] = here[table[column[k]]]
    else:
        for k in range(len(column)):
            words[k] = _next(rows, words[k], np.uint32(table[column[k]]))


@helper
def _step_wide(rows: Any, first: Any, pages: Any, column: Any, mask: Any, words: Any) -> None:
    """A level of an address."""
    bits = np.uint32(mask)
    if first >= 0:
        here = rows[first:]
        for k in range(len(column)):
            words[k] = here[page_class(pages, np.uint32(column[k] & bits))]
    else:
        for k in range(len(column)):
            of_class = np.uint32(page_class(pages, np.uint32(column[k] & bits)))
            words[k] = _next(rows, words[k], of_class)


@helper
def _merge(table: Any, width: Any, classes: Any, m: Any, rest: Any) -> None:
    wide = np.uint32(width)
    for k in range(m):
        rest[k] = rest[k] * wide + classes[k]
    for k in range(m):
        rest[k] = table[rest[k]]


@helper
def _dense(cells: Any, width: Any, columns: Any, m: Any, places: Any) -> None:
    wide = np.uint32(width)
    for k in range(m):
        places[k] = places[k] * wide + columns[k]
    for k in range(m):
        places[k] = cells[places[k]]


@helper
def _runs(starts: Any, columns: Any, lists: Any, column: Any, m: Any, places: Any) -> None:
    """places: rows -> lists, by a search among the runs of a row."""
    one = np.uint32(1)
    for k in range(m):
        wanted = column[k]
        low = starts[places[k]]
        length = starts[places[k] + one] - low
        while length > one:
            half = length >> one
            low = low + half if columns[low + half] <= wanted else low
            length -= half
        places[k] = lists[low]


@helper
def _direct(cells: Any, rest_classes: Any, rest: Any, places: Any, m: Any, merged: Any, best: Any) -> None:
    classes = np.uint32(rest_classes)
    if merged:
        for k in range(m):
            best[k] = min(best[k], np.uint32(cells[places[k] * classes + rest[k]]))
    else:
        for k in range(m):
            best[k] = cells[places[k] * classes + rest[k]]


@helper
def _lists(
    lists: Any, entries: Any, holds: Any, width: Any, rest: Any, places: Any, m: Any, merged: Any, best: Any
) -> None:
    """The first entry of each list whose condition holds; the last one always does."""
    one, word, bit, words = np.uint32(1), np.uint32(5), np.uint32(31), np.uint32(width)
    for k in range(m):
        at = lists[places[k]]
        r = rest[k]
        while holds[entries[np.uint32(2) * at] * words + (r >> word)] >> (r & bit) & one == np.uint32(0):
            at += one
        op = entries[np.uint32(2) * at + one]
        best[k] = min(best[k], op) if merged else op


@helper
def _ranked(leaves: Any, ranks: Any, ops: Any, m: Any, words: Any) -> None:
    """Leaves -> records: the first one of the leaf plus the rank of the op that its cross product found.

    ops: one row for each cross product, uint32 of shape (cross products or more, BULK_BLOCK).
    """
    four, width = np.uint64(4), np.uint64(ops.shape[1])
    flat = ops.reshape(ops.size)
    for k in range(m):
        leaf = np.uint64(words[k]) * four
        op = flat[np.uint64(leaves[leaf + np.uint64(E_SLOT)]) * width + np.uint64(k)]
        rank = ranks[np.uint64(leaves[leaf + np.uint64(E_RANKS)]) + np.uint64(op)]
        words[k] = np.uint32(leaves[leaf]) + (rank & np.uint32(leaves[leaf + np.uint64(E_RANKED)]))


@helper
def _keeping(table: Any, kept: Any, words: Any, m: Any, keep: Any, out: Any) -> None:
    """As :func:`_table`, but `kept` leaves what is there."""
    if keep:
        for k in range(m):
            v = table[words[k]]
            out[k] = v if v != kept else out[k]
    else:
        for k in range(m):
            out[k] = table[words[k]]


@helper
def _added(table: Any, words: Any, m: Any, plus: Any, out: Any) -> None:
    if plus:
        for k in range(m):
            out[k] += table[words[k]]
    else:
        for k in range(m):
            out[k] = table[words[k]]


@helper
def _count(words: Any, length: Any, m: Any, counts: Any) -> None:
    """Packets and bytes by record; in four arrays in turn, so that packets of one record do not wait for each other."""
    lanes = counts.shape[0]
    first, second = counts[0], counts[lanes >> 2]
    third, fourth = counts[lanes >> 1], counts[lanes - 1]
    whole = m & ~3
    if len(length) >= m:
        for k in range(0, whole, 4):
            first[words[k]] += 1 << 40 | np.int64(length[k])
            second[words[k + 1]] += 1 << 40 | np.int64(length[k + 1])
            third[words[k + 2]] += 1 << 40 | np.int64(length[k + 2])
            fourth[words[k + 3]] += 1 << 40 | np.int64(length[k + 3])
        for k in range(whole, m):
            first[words[k]] += 1 << 40 | np.int64(length[k])
    else:
        for k in range(0, whole, 4):
            first[words[k]] += 1 << 40
            second[words[k + 1]] += 1 << 40
            third[words[k + 2]] += 1 << 40
            fourth[words[k + 3]] += 1 << 40
        for k in range(whole, m):
            first[words[k]] += 1 << 40


@helper
def _fates(
    packed: Any, shown: Any, words: Any, m: Any, rule: Any, oif: Any, verdict: Any, hook: Any, room: Any, sums: Any
) -> None:
    """Four columns at once, where nothing that an earlier place wrote stays."""
    for k in range(m):
        room[k] = packed[words[k]]
    for k in range(m):
        rule[k] = np.int32(room[k]) >> np.int32(8)
    for k in range(m):
        sums[k] = np.uint16(room[k] & np.uint32(NARROW))
    which = sums[:m]
    add_up(shown, which, NARROW, False, oif)
    add_up(shown[NARROW + 1:], which, NARROW, False, verdict)
    add_up(shown[2 * (NARROW + 1):], which, NARROW, False, hook)


@helper
def _as_given(given: Any, mark: Any, out: Any) -> None:
    for k in range(len(given)):
        out[k] = out[k] if out[k] != mark else given[k]


@helper
def _walked(first: Any, second: Any, a: Any, b: Any, m: Any, out: Any) -> None:
    for k in range(m):
        out[k] = first[a[k]] + second[b[k]]


@helper
def _sources(sources: Any, words: Any, column: Any, out: Any) -> None:
    """Source addresses after NAT: bits that stay are in the high half of what a record says, the others in the low."""
    for k in range(len(column)):
        source = sources[words[k]]
        out[k] = np.uint32(column[k] & np.uint32(source >> np.uint64(32)) | np.uint32(source & np.uint64(0xFFFFFFFF)))


@helper
def _affected(kinds: Any, words: Any, m: Any, found: Any) -> Any:
    """Lists the packets of a block that a record has an effect on -> their number."""
    n = np.uint64(0)
    for k in range(m):
        found[n] = np.uint32(k)  # written, and kept where the number moves on
        n += np.uint64(kinds[words[k]] != 0)
    return np.int64(n)


@kernel
def bulk(
    n: Any, program: Any, octets: Any, halves: Any, wides: Any, interfaces: Any, small: Any, trie: Any, steps: Any,
    cells16: Any, cells32: Any, fates: Any, o: Any, counts: Any, rows: Any, hard: Any
) -> Any:
    """Runs a program over n packets -> number of hard packets, whose places it lists.

    Args:
        n: number of packets; the packets counted between two looks at `counts` are fewer than 2**23.
        program: the passes, int64 of shape (passes, 8): operation, row written, operands.
        octets, halves, wides, interfaces: packet columns of uint8, uint16, uint32 and int16; length 1 where not read.
        small, trie, steps, cells16, cells32: tables.
        fates: what records mean, as columns.
        o: result columns; those that no pass writes may have length 1.
        counts: int64; packets << 40 | bytes by record, added to.
        rows: room, uint32 of shape (rows, BULK_BLOCK).
        hard: room for places of packets, int32; the number that is returned may not be exceeded.
    """
    hards = np.int64(0)
    found, onward = np.empty(BULK_BLOCK + 1, np.uint32), np.empty(BULK_BLOCK + 1, np.uint32)
    sums = np.empty(BULK_BLOCK, np.uint16)
    passes = program.shape[0]
    protos = octets[COL_PROTO]
    for b0 in range(0, n, BULK_BLOCK):
        m = min(BULK_BLOCK, n - b0)
        e = b0 + m
        before = hards
        for p in range(passes):
            op = program[p, P_OP]
            row = rows[program[p, P_ROW]]
            a, b, c, d = program[p, P_A], program[p, P_B], program[p, P_C], program[p, P_D]
            if op == OP_STEP:
                _step(steps[b:], program[p, P_F], rows[a], m, row)
            elif op == OP_STEP_ENTERING:
                _step_entering(steps[b:], fates.enter[d:], rows[c], rows[a], m, row)
            elif op == OP_STEP_HALF:
                _step_half(steps[b:], program[p, P_F], small[c:], halves[a][b0:e], row)
            elif op == OP_STEP_WORD:
                _step_wide(steps[b:], program[p, P_F], cells16[c:], wides[a][b0:e], d, row)
            elif op == OP_STEP_SUMS:
                if c >= 0:
                    _step_half(steps[b:], program[p, P_F], small[c:], sums[:m], row)
                else:
                    _step(steps[b:], program[p, P_F], sums, m, row)
            elif op == OP_BYTE:
                add_up(small[b:], octets[a][b0:e], NARROW, c != 0, sums)
            elif op == OP_CODE:
                add_up(small[b:], interfaces[a][b0:e], d, c != 0, sums)
            elif op == OP_SUMS:
                add_up(small[a:], sums[:m], b, False, sums)
            elif op == OP_CLASSES:
                if a >= 0:
                    _table(small[a:], sums, m, row)
                else:
                    row[:m] = sums[:m]
            elif op == OP_HALF:
                _table(small[b:], halves[a][b0:e], m, row)
            elif op == OP_WORD:
                _word(cells16[b:], wides[a][b0:e], c, row)
            elif op == OP_RANK:
                _rank(trie[b:], cells16[d:], program[p, P_E], wides[a][b0:e], c, row)
            elif op == OP_ICMP:
                _icmp(trie[a:], octets[COL_ICMP_TYPE][b0:e], octets[COL_ICMP_CODE][b0:e], row)
            elif op == OP_CONSTANT:
                if b0 == 0 or b:
                    row[:] = np.uint32(a)
            elif op == OP_ENTER:
                _table(fates.enter[b:], rows[a], m, row)
            elif op == OP_ENTER_BY_SUMS:
                _enter(sums, a, b, m, row)
            elif op == OP_MERGE:
                _merge(cells16[b:], c, rows[a], m, row)
            elif op == OP_LOOK_UP:
                _table(cells32[b:], rows[a], m, row)
            elif op == OP_DENSE:
                if d:
                    _dense(cells32[b:], c, rows[a], m, row)
                else:
                    _dense(cells16[b:], c, rows[a], m, row)
            elif op == OP_RUNS:
                _runs(cells32[b:], cells32[b + c:], cells32[b + c + d:], rows[a], m, row)
            elif op == OP_DIRECT:
                if program[p, P_F]:
                    _direct(cells32[c:], d, rows[b], rows[a], m, program[p, P_E] != 0, row)
                else:
                    _direct(cells16[c:], d, rows[b], rows[a], m, program[p, P_E] != 0, row)
            elif op == OP_LISTS:
                _lists(cells32[c:], cells32[d:], cells32[program[p, P_E]:], program[p, P_F] >> 1, rows[b], rows[a], m,
                       program[p, P_F] & 1 != 0, row)
            elif op == OP_GRID:
                grid(cells32[d:], program[p, P_E], program[p, P_F], rows[a], rows[b], rows[c], m, row)
            elif op == OP_GROUPED:
                if program[p, P_E]:
                    grouped(cells32[c:], cells16, cells32, rows[a], rows[b], m, d != 0, row)
                else:
                    grouped(cells32[c:], cells16, cells16, rows[a], rows[b], m, d != 0, row)
            elif op == OP_CANDIDATES:
                candidates(cells32[d:], cells32[program[p, P_E]:], program[p, P_F], rows[a], rows[b], rows[c], m, row,
                           found, onward)
            elif op == OP_RANKED:
                _ranked(fates.leaves[b:], cells32, rows[a:], m, row)
            elif op == OP_VERDICT:
                _table(fates.verdict[a:], row, m, o.verdict[b0:e])
            elif op == OP_HOOK:
                _table(fates.hook[a:], row, m, o.hook[b0:e])
            elif op == OP_RULE:
                _keeping(fates.rule[a:], np.int32(b), row, m, c != 0, o.rule[b0:e])
            elif op == OP_OIF:
                out = o.oif[b0:e]
                _keeping(fates.oif[a:], np.int16(b), row, m, c != 0, out)
                if d:
                    _as_given(interfaces[COL_OIF][b0:e], np.int16(program[p, P_E]), out)
            elif op == OP_WALKED:
                _added(fates.walked[a:], row, m, b != 0, o.walked[b0:e])
            elif op == OP_COPY:
                if a == COL_DST:
                    o.dst[b0:e] = wides[COL_DST][b0:e]
                elif a == COL_MARK:
                    o.mark[b0:e] = wides[COL_MARK][b0:e]
                elif a == COL_SPORT:
                    o.sport[b0:e] = halves[0][b0:e]
                elif a == COL_DPORT:
                    o.dport[b0:e] = halves[1][b0:e]
            elif op == OP_FATES:
                _fates(fates.packed[a:], small[b:], row, m, o.rule[b0:e], o.oif[b0:e].view(np.uint16), o.verdict[b0:e],
                       o.hook[b0:e], found, sums)
                if d:
                    _as_given(interfaces[COL_OIF][b0:e], np.int16(c), o.oif[b0:e])
            elif op == OP_WALKED_BOTH:
                _walked(fates.walked[b:], fates.walked[c:], rows[a], row, m, o.walked[b0:e])
            elif op == OP_COUNT:
                for j in range(before, hards):
                    row[hard[j] - b0] = np.uint32(b)
                _count(row, halves[2][b0:e] if c else halves[2][0:0], m,
                       counts[a:a + d * (b + 1)].reshape(d, b + 1))
            elif op == OP_SOURCES:
                _sources(fates.source[a:], row, wides[COL_SRC][b0:e], o.src[b0:e])
            elif op == OP_AFFECT:
                many = _affected(fates.kind[a:], row, m, found)
                dst, dport = o.dst[b0:e], o.dport[b0:e]
                dst_row, dport_row = rows[c], rows[d]
                proto = protos[b0:e]
                kinds, dnat = fates.kind[a:], fates.dnat[a:]
                for j in range(many):
                    k = np.uint64(found[j])
                    r = np.uint64(row[k])
                    if kinds[r] == FATE_HARD:
                        hard[hards] = b0 + np.int64(k)
                        hards += 1
                        continue
                    if b & 1:
                        dst[k] = np.uint32(dnat[r, 0])
                    dst_row[k] = dnat[r, 1]
                    port = dnat[r, 2]
                    if port >= 0 and has_ports(proto[k] if b & 4 else program[p, P_E]):
                        if b & 2:
                            dport[k] = port
                        dport_row[k] = dnat[r, 3]
    return hards
