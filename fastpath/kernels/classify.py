"""From the values of a block of packets to their classes.

One loop for each field, chosen by where its values lie and how its table is built; :func:`class_of` is the same for one
value, after an effect has changed it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import helper
from fastpath.kernels.addresses import bits_of, page_class, page_classes, rank
from fastpath.kernels.layout import (
    A_CTSTATE,
    A_IIF,
    A_TTL,
    B_CTSTATE,
    B_DPORT,
    B_DST,
    B_FRAG,
    B_GID,
    B_ICMP,
    B_IIF,
    B_LENGTH,
    B_MAC,
    B_MARK,
    B_PKTTYPE,
    B_PROTO,
    B_SPORT,
    B_SRC,
    B_TCP_FLAGS,
    B_TTL,
    B_UID,
    F_BASE,
    F_BOUNDS,
    F_COUNT,
    F_EXTRA,
    F_KIND,
    F_LAST,
    F_LOW,
    F_MASK,
    F_OF_RANK,
    F_OF_RANK_WIDE,
    F_PARTS,
    F_SPLIT,
    F_TABLE,
    IN_BLOCK,
    K_DIRECT,
    K_PAGES,
    K_PRODUCT,
    K_RANKS,
    K_TRIE,
)


@helper
def class_of(t: Any, f: Any, value: Any) -> Any:
    """The class of a value of field f."""
    kind = t.fields[f, F_KIND]
    at = t.fields[f, F_TABLE]
    v = np.uint64(value) & np.uint64(t.fields[f, F_MASK])
    if kind == K_DIRECT:
        return np.uint32(t.maps[at + np.int64(v)])
    if kind == K_TRIE:
        byte = np.int64(v & np.uint64(255))
        return np.uint32(t.trie[at + 256 * np.int64(t.trie[at + np.int64(v >> np.uint64(8))]) + byte])
    if kind == K_PAGES:
        high, low, spacing = bits_of(t.fields[f, F_SPLIT])
        middle, last = t.cells16[at + (1 << 32 - np.int64(high)):], t.cells16[t.fields[f, F_LAST]:]
        return np.uint32(page_class(
            t.cells16[at:], middle, last, np.uint32(0), high, low, spacing, np.uint32(v)))
    if kind == K_RANKS:
        place = rank(t.trie[at:], t.cells16[t.fields[f, F_BOUNDS]:], np.uint32(t.fields[f, F_LOW]), np.uint32(v))
        place += t.fields[f, F_OF_RANK]
        return np.uint32(t.cells32[place] if t.fields[f, F_OF_RANK_WIDE] else t.cells16[place])
    low, high = at, at + t.fields[f, F_COUNT]
    while high - low > 1:
        middle = (low + high) // 2
        if t.bounds[middle] <= v:
            low = middle
        else:
            high = middle
    return np.uint32(t.trie[t.fields[f, F_EXTRA] + low - at])


@helper
def _direct(maps: Any, at: Any, mask: Any, column: Any, b0: Any, m: Any, row: Any) -> None:
    table = maps[at:]
    bits = np.uint32(mask & 0xFFFF)
    values = column[b0:b0 + m]
    for k in range(m):
        row[k] = table[np.uint32(values[k]) & bits]


@helper
def _ranks(t: Any, f: Any, column: Any, b0: Any, m: Any, row: Any) -> None:
    fields, cells16 = t.fields, t.cells16
    mask, low = np.uint32(fields[f, F_MASK] & 0xFFFFFFFF), np.uint32(fields[f, F_LOW])
    words, bounds = t.trie[fields[f, F_TABLE]:], cells16[fields[f, F_BOUNDS]:]
    narrow, wide = cells16[fields[f, F_OF_RANK]:], t.cells32[fields[f, F_OF_RANK]:]
    values = column[b0:b0 + m]
    for k in range(m):
        row[k] = rank(words, bounds, low, np.uint32(values[k] & mask))
    if fields[f, F_OF_RANK_WIDE]:
        for k in range(m):
            row[k] = wide[row[k]]
    else:
        for k in range(m):
            row[k] = narrow[row[k]]


@helper
def _wide(t: Any, f: Any, column: Any, b0: Any, m: Any, row: Any) -> None:
    if t.fields[f, F_KIND] == K_RANKS:
        _ranks(t, f, column, b0, m, row)
    else:
        words, last = t.cells16[t.fields[f, F_TABLE]:], t.cells16[t.fields[f, F_LAST]:]
        page_classes(words, t.fields[f, F_SPLIT], last, column[b0:b0 + m], row)


@helper
def _trie16(trie: Any, at: Any, wide: Any, column: Any, b0: Any, m: Any, row: Any) -> None:
    mask = np.uint32(wide & 0xFFFF)
    pages = trie[at:]
    values = column[b0:b0 + m]
    for k in range(m):
        v = np.uint32(values[k]) & mask
        row[k] = pages[pages[v >> np.uint32(8)] << np.uint32(8) | v & np.uint32(255)]


@helper
def _search(bounds: Any, found: Any, at: Any, count: Any, behind: Any, column: Any, b0: Any, m: Any, row: Any) -> None:
    values = column[b0:b0 + m]
    for k in range(m):
        v = values[k]
        low, high = at, at + count
        while high - low > 1:
            middle = (low + high) // 2
            if bounds[middle] <= v:
                low = middle
            else:
                high = middle
        row[k] = found[behind + low - at]


@helper
def _add_direct(maps: Any, at: Any, column: Any, b0: Any, m: Any, row: Any) -> None:
    table = maps[at:]
    values = column[b0:b0 + m]
    for k in range(m):
        row[k] += table[values[k]]


@helper
def _add_part(c: Any, maps: Any, aux: Any, base: Any, at: Any, b0: Any, m: Any, row: Any) -> None:
    """Adds the strided class of one part of a product."""
    if base == B_PROTO:
        _add_direct(maps, at, c.proto, b0, m, row)
    elif base == B_TCP_FLAGS:
        _add_direct(maps, at, c.tcp_flags, b0, m, row)
    elif base == B_FRAG:
        _add_direct(maps, at, c.frag, b0, m, row)
    elif base == B_PKTTYPE:
        _add_direct(maps, at, c.pkttype, b0, m, row)
    else:
        for i in range(len(IN_BLOCK)):
            if IN_BLOCK[i] == base:
                _add_direct(maps, at, aux[i], 0, m, row)


@helper
def _four(
    maps: Any, at: Any, a: Any, x: Any, b: Any, y: Any, d: Any, z: Any, e: Any, w: Any, b0: Any, m: Any, row: Any
) -> None:
    of_x, of_y, of_z, of_w, of_all = maps[a:], maps[b:], maps[d:], maps[e:], maps[at:]
    values = z[b0:b0 + m]
    for k in range(m):
        place = np.uint32(of_x[x[k]]) + np.uint32(of_y[y[k]]) + np.uint32(of_z[values[k]]) + np.uint32(of_w[w[k]])
        row[k] = of_all[place]


@helper
def _product(c: Any, fields: Any, maps: Any, aux: Any, fixed: Any, f: Any, b0: Any, m: Any, row: Any) -> None:
    """Classes of a product of small fields: the parts' strided classes add up to a place in its table."""
    parts = fields[f, F_COUNT]
    at = fields[f, F_TABLE]
    whole = np.int64(0)
    moving = 0
    iif_at, ct_at, proto_at, ttl_at = np.int64(-1), np.int64(-1), np.int64(-1), np.int64(-1)
    for p in range(parts):
        base, table = fields[f, F_PARTS + 2 * p], fields[f, F_PARTS + 2 * p + 1]
        if fixed >> base & 1:
            row[0] = 0
            _add_part(c, maps, aux, base, table, b0, 1, row)
            whole += np.int64(row[0])
            continue
        moving += 1
        if base == B_IIF:
            iif_at = table
        elif base == B_CTSTATE:
            ct_at = table
        elif base == B_PROTO:
            proto_at = table
        elif base == B_TTL:
            ttl_at = table
    if moving == 4 and iif_at >= 0 and ct_at >= 0 and proto_at >= 0 and ttl_at >= 0:
        _four(maps, at + whole, iif_at, aux[A_IIF], ct_at, aux[A_CTSTATE], proto_at, c.proto, ttl_at, aux[A_TTL],
              b0, m, row)
        return
    for k in range(m):
        row[k] = 0
    for p in range(parts):
        base = fields[f, F_PARTS + 2 * p]
        if not fixed >> base & 1:
            _add_part(c, maps, aux, base, fields[f, F_PARTS + 2 * p + 1], b0, m, row)
    table = maps[at + whole:]
    for k in range(m):
        row[k] = table[row[k]]


@helper
def classify(c: Any, t: Any, aux: Any, fixed: Any, f: Any, b0: Any, m: Any, classes: Any) -> None:
    """Classes of field f for a block."""
    fields, maps, trie = t.fields, t.maps, t.trie
    kind = fields[f, F_KIND]
    base = fields[f, F_BASE]
    at = fields[f, F_TABLE]
    mask = fields[f, F_MASK]
    row = classes[f]
    in_block = -1
    for i in range(len(IN_BLOCK)):
        if IN_BLOCK[i] == base:
            in_block = i
    if kind == K_PRODUCT:
        _product(c, fields, maps, aux, fixed, f, b0, m, row)
    elif in_block >= 0:
        if kind == K_DIRECT:
            _direct(maps, at, mask, aux[in_block], 0, m, row)
        elif kind == K_TRIE:
            _trie16(trie, at, mask, aux[in_block], 0, m, row)
        else:
            _wide(t, f, aux[in_block], 0, m, row)
    elif base == B_SRC or base == B_DST or base == B_MARK or base == B_UID or base == B_GID:
        wide = c.src
        if base == B_DST:
            wide = c.dst
        elif base == B_MARK:
            wide = c.mark
        elif base == B_UID:
            wide = c.uid
        elif base == B_GID:
            wide = c.gid
        _wide(t, f, wide, b0, m, row)
    elif base == B_SPORT or base == B_DPORT or base == B_LENGTH:
        half = c.sport
        if base == B_DPORT:
            half = c.dport
        elif base == B_LENGTH:
            half = c.length
        _trie16(trie, at, mask, half, b0, m, row)
    elif base == B_PROTO or base == B_TCP_FLAGS or base == B_FRAG or base == B_PKTTYPE:
        narrow = c.proto
        if base == B_TCP_FLAGS:
            narrow = c.tcp_flags
        elif base == B_FRAG:
            narrow = c.frag
        elif base == B_PKTTYPE:
            narrow = c.pkttype
        _direct(maps, at, mask, narrow, b0, m, row)
    elif base == B_ICMP:
        kinds, subs = c.icmp_type, c.icmp_code
        pages = trie[at:]
        kinds, subs = kinds[b0:b0 + m], subs[b0:b0 + m]
        for k in range(m):
            row[k] = pages[pages[kinds[k]] << np.uint32(8) | np.uint32(subs[k])]
    elif base == B_MAC:
        _search(t.bounds, trie, at, fields[f, F_COUNT], fields[f, F_EXTRA], c.mac_src, b0, m, row)
    else:
        _direct(maps, at, mask, c.extra[fields[f, F_EXTRA]], b0, m, row)
