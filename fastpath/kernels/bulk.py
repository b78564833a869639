"""The bulk kernel: a short program of passes over blocks of packets.

A pass is one loop with one or two table look-ups: from packet columns to class rows, from class rows through the
levels of a diagram or the tables of a cross product to records, from records to result columns. The program is made
for batches of a kind (``engine.program``); what it cannot do for a packet, it leaves to the general kernel: such a
packet is put on the list of *hard* packets, and neither counted nor right in the result columns.

Why it is fast: blocks stay in cache; columns are sliced before they are looped over (an index that might be negative
costs a correction for each packet); no loop has a branch that depends on data.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import helper
from fastpath.kernels.addresses import page_classes, page_words, rank
from fastpath.kernels.candidates import candidates, grid
from fastpath.kernels.connection import has_ports
from fastpath.kernels.grouped import grouped
from fastpath.kernels.layout import (
    BULK_BLOCK,
    COL_DPORT,
    COL_DST,
    COL_ICMP_CODE,
    COL_ICMP_TYPE,
    COL_IIF,
    COL_MARK,
    COL_OIF,
    COL_PROTO,
    COL_SPORT,
    COL_SRC,
    E_RANKED,
    E_RANKS,
    E_SLOT,
    FATE_HARD,
    OP_ADDRESS,
    OP_AFFECT,
    OP_BYTE,
    OP_CANDIDATES,
    OP_CLASSES,
    OP_CODE,
    OP_CONSTANT,
    OP_COPY,
    OP_COUNT,
    OP_DIRECT,
    OP_ENDS,
    OP_ENTER,
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
    OP_PAGED,
    OP_PORT,
    OP_RANK,
    OP_RANKED,
    OP_ROOTS,
    OP_RULE,
    OP_RUNS,
    OP_STEP,
    OP_SUMS,
    OP_VERDICT,
    OP_WALKED,
    OP_WALKED_BOTH,
    OP_WORD,
    OP_WORDS,
)
from fastpath.kernels.narrow import NARROW, add_up
from fastpath.kernels.uncached import fence, rewrite, write

# A program's columns: the pass, the row that it writes, and its operands.
P_OP, P_ROW, P_A, P_B, P_C, P_D, P_E, P_F = range(8)

SHORT = 512
"""Packets whose ends are taken apart while they are in the nearest cache."""


@helper
def _table(table: Any, row: Any, m: Any, out: Any) -> None:
    for k in range(m):
        out[k] = table[row[k]]


@helper
def _copy(column: Any, out: Any) -> None:
    for k in range(len(column)):
        out[k] = column[k]


@helper
def _half(table: Any, column: Any, most: Any, row: Any) -> None:
    """The class of 16 bits; from `most` on, where the table ends, all have the same."""
    end = np.uint64(most)
    for k in range(len(column)):
        row[k] = table[min(np.uint64(column[k]), end)]


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
def _step(rows: Any, first: Any, classes: Any, m: Any, words: Any) -> None:
    """One level; from `first` on, where that is not negative, all packets begin at one row.

    Places are worked out in vectors first, so that the look-ups are nothing but that.
    """
    if first >= 0:
        _table(rows[first:], classes, m, words)
        return
    for k in range(m):
        tests = np.uint32(np.int32(words[k]) >> np.int32(31))
        words[k] = (words[k] & np.uint32(0x7FFFFFFF)) + (classes[k] & tests)
    _table(rows, words, m, words)


@helper
def _roots(codes: Any, local: Any, here: Any, others: Any, words: Any) -> None:
    """The words that packets begin with: those that the host makes, and all others."""
    made, root, rest = np.int16(local), np.uint32(here), np.uint32(others)
    for k in range(len(codes)):
        words[k] = root if codes[k] == made else rest


@helper
def _merge(table: Any, width: Any, classes: Any, m: Any, rest: Any) -> None:
    """Two classes -> one, by a table of both."""
    wide = np.uint32(width)
    for k in range(m):
        rest[k] = rest[k] * wide + classes[k]
    _table(table, rest, m, rest)


@helper
def _direct(cells: Any, rest_classes: Any, rest: Any, places: Any, m: Any, merged: Any, best: Any) -> None:
    """Lists and rest classes -> ops; writes over the lists."""
    classes = np.uint32(rest_classes)
    for k in range(m):
        places[k] = places[k] * classes + rest[k]
    if merged:
        for k in range(m):
            best[k] = min(best[k], np.uint32(cells[places[k]]))
    else:
        _table(cells, places, m, best)


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
def _column(table: Any, words: Any, past: Any, room: Any, out: Any) -> None:
    """What records say in one column."""
    if past:
        for k in range(len(out)):
            room[k] = np.uint32(table[words[k]])
        write(room, 0, past, out)
    else:
        _table(table, words, len(out), out)


@helper
def _keeping(table: Any, kept: Any, words: Any, out: Any) -> None:
    """As :func:`_column`, but `kept` leaves what is there."""
    for k in range(len(out)):
        v = table[words[k]]
        out[k] = v if v != kept else out[k]


@helper
def _added(table: Any, words: Any, out: Any) -> None:
    for k in range(len(out)):
        out[k] += table[words[k]]


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
def _apart(quads: Any, past: Any, given: Any, rule: Any, oif: Any, verdict: Any, hook: Any) -> None:
    """Four columns out of one number each; egress interfaces are looked at again where some are given."""
    write(quads, 0, past, rule)
    write(quads, 32, past and not given, oif)
    write(quads, 48, past, verdict)
    write(quads, 56, past, hook)


@helper
def _ends(ends: Any, words: Any, m: Any, first: Any, second: Any, third: Any) -> None:
    """What records say, next to each other: three numbers of 64 bits in turn."""
    two = np.uint64(2)
    for k in range(m):
        at = np.uint64(words[k]) << two
        first[k] = ends[at]
        second[k] = ends[at + np.uint64(1)]
        third[k] = ends[at + two]


@helper
def _hard(quads: Any, m: Any, first: Any, hard: Any, hards: Any) -> Any:
    """Lists the packets that the general kernel must do, from the highest bits -> the number of all that are listed."""
    by, some = np.uint64(48), np.uint64(0)
    for k in range(m):
        some |= quads[k]
    if some >> by:
        for k in range(m):
            if quads[k] >> by:
                hard[hards] = first + k
                hards += 1
    return hards


@helper
def _rewritten(table: Any, words: Any, kept: Any, past: Any, room: Any, out: Any) -> None:
    """What records say that NAT writes, 0 for what it leaves."""
    _table(table, words, len(out), room)
    rewrite(room, 0, kept, past, out)


@helper
def _as_given(given: Any, mark: Any, out: Any) -> None:
    for k in range(len(given)):
        out[k] = out[k] if out[k] != mark else given[k]


@helper
def _walked(first: Any, second: Any, a: Any, b: Any, m: Any, out: Any) -> None:
    for k in range(m):
        out[k] = first[a[k]] + second[b[k]]


@helper
def _affected(kinds: Any, words: Any, m: Any, found: Any) -> Any:
    """Lists the packets of a block that a record has an effect on -> their number."""
    n = np.uint64(0)
    for k in range(m):
        found[n] = np.uint32(k)  # written, and kept where the number moves on
        n += np.uint64(kinds[words[k]] != 0)
    return np.int64(n)


@helper
def bulk(
    n: Any, program: Any, octets: Any, halves: Any, wides: Any, interfaces: Any, small: Any, trie: Any, steps: Any,
    cells16: Any, cells32: Any, fates: Any, o: Any, counts: Any, room: Any, hard: Any, past: Any
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
        room: what passes write for each other.
        hard: room for places of packets, int32; the number that is returned may not be exceeded.
        past: whether result columns are written past the cache.
    """
    hards = np.int64(0)
    rows, sums = room.rows, room.sums
    found, onward = room.lists[0], room.lists[1]
    quads, more, third = room.wide[0], room.wide[1], room.wide[2]
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
            elif op == OP_PAGED:
                if d:
                    page_words(cells16[b:], c, fates.paged, wides[a][b0:e], row)
                else:
                    page_classes(cells16[b:], c, fates.paged, wides[a][b0:e], row)
            elif op == OP_WORDS:
                _table(fates.paged, sums, m, row)
            elif op == OP_ROOTS:
                _roots(interfaces[COL_IIF][b0:e], a, b, c, row)
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
                    _copy(sums[:m], row)
            elif op == OP_HALF:
                _half(small[b:], halves[a][b0:e], c, row)
            elif op == OP_WORD:
                page_classes(cells16[b:], c, cells16[d:], wides[a][b0:e], row)
            elif op == OP_RANK:
                _rank(trie[b:], cells16[d:], program[p, P_E], wides[a][b0:e], c, row)
            elif op == OP_ICMP:
                _icmp(trie[a:], octets[COL_ICMP_TYPE][b0:e], octets[COL_ICMP_CODE][b0:e], row)
            elif op == OP_CONSTANT:
                if b0 == 0 or b:
                    row[:] = np.uint32(a)
            elif op == OP_ENTER:
                _table(fates.enter[b:], rows[a], m, row)
            elif op == OP_MERGE:
                if d:
                    _merge(cells32[b:], c, rows[a], m, row)
                else:
                    _merge(cells16[b:], c, rows[a], m, row)
            elif op == OP_LOOK_UP:
                _table(cells32[b:], rows[a], m, row)
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
                _column(fates.verdict[a:], row, past, found, o.verdict[b0:e])
            elif op == OP_HOOK:
                _column(fates.hook[a:], row, past, found, o.hook[b0:e])
            elif op == OP_RULE:
                if c:
                    _keeping(fates.rule[a:], np.int32(b), row, o.rule[b0:e])
                else:
                    _column(fates.rule[a:], row, past, found, o.rule[b0:e])
            elif op == OP_OIF:
                if c:
                    _keeping(fates.oif[a:], np.int16(b), row, o.oif[b0:e])
                else:
                    _column(fates.oif[a:], row, past and not d, found, o.oif[b0:e])
                if d:
                    _as_given(interfaces[COL_OIF][b0:e], np.int16(program[p, P_E]), o.oif[b0:e])
            elif op == OP_WALKED:
                if b:
                    _added(fates.walked[a:], row, o.walked[b0:e])
                else:
                    _column(fates.walked[a:], row, past, found, o.walked[b0:e])
            elif op == OP_COPY:
                if a == COL_DST:
                    _copy(wides[COL_DST][b0:e], o.dst[b0:e])
                elif a == COL_MARK:
                    _copy(wides[COL_MARK][b0:e], o.mark[b0:e])
                elif a == COL_SPORT:
                    _copy(halves[0][b0:e], o.sport[b0:e])
                elif a == COL_DPORT:
                    _copy(halves[1][b0:e], o.dport[b0:e])
            elif op == OP_FATES:
                _table(fates.packed[a:], row, m, quads)
                _apart(quads, past, d != 0, o.rule[b0:e], o.oif[b0:e], o.verdict[b0:e], o.hook[b0:e])
                if d:
                    _as_given(interfaces[COL_OIF][b0:e], np.int16(b), o.oif[b0:e])
            elif op == OP_ENDS:
                for k in range(0, m, SHORT):
                    f = min(k + SHORT, m)
                    g, h = b0 + k, b0 + f
                    _ends(fates.ends[4 * a:], row[k:f], f - k, quads, more, third)
                    _apart(quads, past, d != 0, o.rule[g:h], o.oif[g:h], o.verdict[g:h], o.hook[g:h])
                    write(more, 0, past, o.walked[g:h])
                    if program[p, P_E]:
                        hards = _hard(third, f - k, g, hard, hards)
                    if c:
                        rewrite(more, 32, wides[COL_SRC][g:h], past, o.src[g:h])
                        rewrite(third, 0, wides[COL_DST][g:h], past, o.dst[g:h])
                        rewrite(third, 32, halves[1][g:h], past, o.dport[g:h])
                if d:
                    _as_given(interfaces[COL_OIF][b0:e], np.int16(b), o.oif[b0:e])
            elif op == OP_WALKED_BOTH:
                _walked(fates.walked[b:], fates.walked[c:], rows[a], row, m, o.walked[b0:e])
            elif op == OP_COUNT:
                for j in range(before, hards):
                    row[hard[j] - b0] = np.uint32(b)
                _count(row, halves[2][b0:e] if c else halves[2][0:0], m,
                       counts[a:a + d * (b + 1)].reshape(d, b + 1))
            elif op == OP_ADDRESS:
                if b == COL_SRC:
                    _rewritten(fates.source[a:], row, wides[COL_SRC][b0:e], past, found, o.src[b0:e])
                else:
                    _rewritten(fates.target[a:], row, wides[COL_DST][b0:e], past, found, o.dst[b0:e])
            elif op == OP_PORT:
                _rewritten(fates.port[a:], row, halves[1][b0:e], past, found, o.dport[b0:e])
            elif op == OP_AFFECT:
                many = _affected(fates.kind[a:], row, m, found)
                dst, dport = o.dst[b0:e], o.dport[b0:e]
                dst_row, dport_row = rows[c], rows[d]
                proto = protos[b0:e]
                kinds, dnat = fates.kind[a:], fates.dnat[a:]
                for j in range(many):
                    at = np.uint64(found[j])
                    r = np.uint64(row[at])
                    if kinds[r] == FATE_HARD:
                        hard[hards] = b0 + np.int64(at)
                        hards += 1
                        continue
                    if b & 1:
                        dst[at] = np.uint32(dnat[r, 0])
                    dst_row[at] = dnat[r, 1]
                    port = dnat[r, 2]
                    if port >= 0 and has_ports(proto[at] if b & 4 else program[p, P_E]):
                        if b & 2:
                            dport[at] = port
                        dport_row[at] = dnat[r, 3]
    if past:
        fence()
    return hards
