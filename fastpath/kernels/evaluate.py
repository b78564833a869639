"""The kernel: packets in, fates out.

Works through a chunk in blocks that stay in cache. For each block: every tested value becomes a class; packets enter
their first stage; each stage looks its packets up level by level (or walks its ops one by one), applies what the
record reached says, and passes them to the next stage or writes their end.

All arguments are arrays, grouped in the named tuples below; nothing is allocated for each packet. ``codes`` has the
meaning of every number. Addresses are 32-bit words here; wider families bring further words of the same shape.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastpath.kernels import codes
from fastpath.kernels._jit import helper, kernel

BLOCK = 2048
"""Packets worked on at a time."""

DEPTH = 256
"""Chains that may be open at once in a linear walk."""

# Bases as numbers, in the order of their names in the compiler's field table.
(
    B_IIF, B_SRC, B_DST, B_PROTO, B_SPORT, B_DPORT, B_TCP_FLAGS, B_ICMP, B_FRAG, B_TTL, B_TOS, B_LENGTH, B_MARK,
    B_CONNMARK, B_CTSTATE, B_CTDIR, B_CTSTATUS, B_ORIGSRC, B_ORIGSPORT, B_ORIGDST, B_ORIGDPORT, B_OIF, B_MAC,
    B_PKTTYPE, B_UID, B_GID, B_TOUCHED, B_NOTRACK, B_EXTRA,
) = range(29)

# Rows of the scratch values of a block, and the base that each holds.
(
    A_IIF, A_OIF, A_CTSTATE, A_CTDIR, A_CTSTATUS, A_CONNMARK, A_TTL, A_TOS, A_TOUCHED, A_ORIGSRC, A_ORIGSPORT,
    A_ORIGDST, A_ORIGDPORT, A_NOTRACK, A_OLD_MARK, A_OLD_TOS,
) = range(16)
A_ROWS = 16
IN_BLOCK = (
    B_IIF, B_OIF, B_CTSTATE, B_CTDIR, B_CTSTATUS, B_CONNMARK, B_TTL, B_TOS, B_TOUCHED, B_ORIGSRC, B_ORIGSPORT,
    B_ORIGDST, B_ORIGDPORT, B_NOTRACK,
)

# Columns of the field table.
F_BASE, F_MASK, F_KIND, F_TABLE, F_COUNT, F_EXTRA, F_SKIP = range(7)
F_COLUMNS = 32
K_DIRECT, K_TRIE, K_SEARCH, K_PRODUCT = range(4)
F_PARTS = 6  # K_PRODUCT: up to 12 pairs of (base, table of its classes times their stride) from here on

# Columns of the stage table.
S_KIND, S_LEVEL, S_LEVELS, S_ROWS, S_ROOT, S_RECORD, S_BLOCK = range(7)
S_COLUMNS = 8
DIAGRAM, LINEAR = 0, 1

# Columns of the tables of linear stages.
L_FIRST, L_END, L_POLICY, L_POLICY_REF, L_HOOK, L_DECIDES = range(6)
O_TERM, O_TERMS, O_ACT, O_BLOCK, O_REF, O_COUNTED, O_EFFECT, O_EFFECTS, O_NEXT, O_VERDICT, O_HOOK, O_OIF = range(12)
(ACT_NEXT, ACT_ACCEPT, ACT_DROP, ACT_REJECT, ACT_RETURN, ACT_JUMP, ACT_GOTO, ACT_CALL, ACT_END, ACT_UNDECIDED) = range(10)

# Numbers of an engine.
P_LOCAL_ID, P_LOCAL_STAGE, P_NEED, P_TCP_LOOSE, P_DST_SLOT, P_DPORT_SLOT, P_CHANGING = range(7)
V_DROP, V_REJECT, V_UNDECIDED, V_RETURN = 3, 4, 6, 8
H_FORWARD = 3  # hooks from here on know an egress interface
CT_INVALID, CT_UNTRACKED = 4, 5


class Columns(NamedTuple):
    """Packet columns of a chunk; a column that no field reads has length 1."""

    iif: Any
    src: Any
    dst: Any
    proto: Any
    sport: Any
    dport: Any
    tcp_flags: Any
    icmp_type: Any
    icmp_code: Any
    frag: Any
    ttl: Any
    tos: Any
    length: Any
    mark: Any
    connmark: Any
    state: Any
    ctdir: Any
    ctstatus: Any
    ctorigdst: Any
    ctorigdstport: Any
    oif: Any
    mac_src: Any
    pkttype: Any
    uid: Any
    gid: Any
    extra: Any


class Tables(NamedTuple):
    """The compiled host (see ``compiler.tables``)."""

    params: Any
    fields: Any
    maps: Any
    trie: Any
    bounds: Any
    stages: Any
    levels: Any
    rows: Any
    records: Any
    effects: Any
    pool: Any
    alternatives: Any
    blocks: Any
    ops: Any
    terms: Any
    tests: Any
    sets: Any


class Output(NamedTuple):
    """Result columns of a chunk, counts by record and by rule, and what is needed to try undecided rules."""

    verdict: Any
    hook: Any
    rule: Any
    oif: Any
    src: Any
    dst: Any
    sport: Any
    dport: Any
    mark: Any
    walked: Any
    flags: Any
    records: Any
    rule_packets: Any
    rule_bytes: Any
    choices: Any
    forced_rule: Any
    forced_hook: Any


@helper
def _has_ports(proto: int) -> bool:
    """Protocols whose ports NAT changes and connections know; Linux 6.18 has no connection tracking for DCCP."""
    return proto == 6 or proto == 17 or proto == 132 or proto == 136


@helper
def _has_id(kind: int) -> bool:
    return kind == 0 or kind == 8 or (13 <= kind <= 18)


@helper
def _table_class(t: Any, f: int, value: Any) -> Any:
    """The class of a value of field f."""
    kind = t.fields[f, F_KIND]
    at = t.fields[f, F_TABLE]
    v = np.uint64(value) & np.uint64(t.fields[f, F_MASK])
    if kind == K_DIRECT:
        return np.uint32(t.maps[at + np.int64(v)])
    if kind == K_TRIE:
        shift = t.fields[f, F_COUNT] - 8
        e = t.trie[at + np.int64(v >> np.uint64(shift))]
        while e & np.uint32(0x80000000):
            shift -= 8
            e = t.trie[at + 256 + 256 * np.int64(e & np.uint32(0x7FFFFFFF))
                       + np.int64((v >> np.uint64(shift)) & np.uint64(255))]
        return np.uint32(e)
    low, high = at, at + t.fields[f, F_COUNT]
    while high - low > 1:
        middle = (low + high) // 2
        if t.bounds[middle] <= v:
            low = middle
        else:
            high = middle
    return np.uint32(t.trie[t.fields[f, F_EXTRA] + low - at])


@helper
def _base_value(c: Any, o: Any, aux: Any, base: int, f_extra: int, g: int, k: int) -> Any:
    """The present value of a base for packet g, which is k-th of its block."""
    if base == B_SRC:
        return np.uint64(o.src[g])
    if base == B_DST:
        return np.uint64(o.dst[g])
    if base == B_SPORT:
        return np.uint64(o.sport[g])
    if base == B_DPORT:
        return np.uint64(o.dport[g])
    if base == B_MARK:
        return np.uint64(o.mark[g])
    if base == B_IIF:
        return np.uint64(aux[A_IIF, k])
    if base == B_OIF:
        return np.uint64(aux[A_OIF, k])
    if base == B_PROTO:
        return np.uint64(c.proto[g])
    if base == B_TCP_FLAGS:
        return np.uint64(c.tcp_flags[g])
    if base == B_ICMP:
        return np.uint64(c.icmp_type[g]) * np.uint64(256) + np.uint64(c.icmp_code[g])
    if base == B_FRAG:
        return np.uint64(c.frag[g])
    if base == B_TTL:
        return np.uint64(aux[A_TTL, k])
    if base == B_TOS:
        return np.uint64(aux[A_TOS, k])
    if base == B_LENGTH:
        return np.uint64(c.length[g])
    if base == B_CONNMARK:
        return np.uint64(aux[A_CONNMARK, k])
    if base == B_CTSTATE:
        return np.uint64(aux[A_CTSTATE, k])
    if base == B_CTDIR:
        return np.uint64(aux[A_CTDIR, k])
    if base == B_CTSTATUS:
        return np.uint64(aux[A_CTSTATUS, k])
    if base == B_ORIGDST:
        return np.uint64(aux[A_ORIGDST, k])
    if base == B_ORIGDPORT:
        return np.uint64(aux[A_ORIGDPORT, k])
    if base == B_NOTRACK:
        return np.uint64(aux[A_NOTRACK, k])
    if base == B_ORIGSRC:
        return np.uint64(aux[A_ORIGSRC, k])
    if base == B_ORIGSPORT:
        return np.uint64(aux[A_ORIGSPORT, k])
    if base == B_MAC:
        return np.uint64(c.mac_src[g])
    if base == B_PKTTYPE:
        return np.uint64(c.pkttype[g])
    if base == B_UID:
        return np.uint64(c.uid[g])
    if base == B_GID:
        return np.uint64(c.gid[g])
    if base == B_TOUCHED:
        return np.uint64(aux[A_TOUCHED, k])
    return np.uint64(c.extra[f_extra, g])


@helper
def _first_states(loose: int, tcp: Any, icmp: Any) -> None:
    """State of a packet of no known flow by its TCP flags and by its ICMP type.

    A TCP flow begins with SYN, or (nf_conntrack_tcp_loose) with a bare ACK, PSH and URG aside; ICMP with a request.
    """
    for v in range(256):
        rest = v & 0x17
        tcp[v] = 0 if rest == 2 or (rest == 16 and loose != 0) else CT_INVALID
        icmp[v] = 0 if v == 8 or v == 13 or v == 15 or v == 17 else CT_INVALID


@helper
def _ct_states(
    tcp: Any, icmp: Any, state: Any, proto: Any, tcp_flags: Any, icmp_type: Any, b0: int, m: int, row: Any
) -> None:
    """The connection-tracking state of each packet: as given, or as conntrack decides for a first packet."""
    for k in range(m):
        g = b0 + k
        s = state[g]
        p = proto[g]
        as_tcp = tcp[tcp_flags[g]]
        as_icmp = icmp[icmp_type[g]]
        first = as_tcp if p == 6 else (as_icmp if p == 1 else np.uint32(0))
        row[k] = first if s == 0 else np.uint32(s) - np.uint32(1)


@helper
def _connection_details(c: Any, aux: Any, b0: int, m: int) -> None:
    """Direction, status and original tuple of each packet's connection; an ICMP error runs against its flow."""
    for k in range(m):
        g = b0 + k
        proto = c.proto[g]
        kind = c.icmp_type[g]
        ct = aux[A_CTSTATE, k]
        error = ct == 3 and proto == 1 and (3 <= kind <= 5 or kind == 11 or kind == 12)
        d = c.ctdir[g]
        if d == 0:
            d = 2 if ct == 2 or error else 1
        aux[A_CTDIR, k] = d
        status = np.uint32(c.ctstatus[g])
        if status == 0:
            if ct == 1 or ct == 2 or error:
                status = np.uint32(14)
            elif ct == 3:
                status = np.uint32(9)
        aux[A_CTSTATUS, k] = status
        sport, dport = np.uint32(0), np.uint32(0)
        if _has_ports(proto):
            sport, dport = np.uint32(c.sport[g]), np.uint32(c.dport[g])
            if d == 2:
                sport, dport = dport, sport
        elif proto == 1 and _has_id(kind):
            sport = np.uint32(c.sport[g])
            shown = np.uint32(kind)
            if d == 2:
                shown = np.uint32(8 - kind) if kind <= 8 else np.uint32(((kind - 13) ^ 1) + 13)
            dport = shown * np.uint32(256) + np.uint32(c.icmp_code[g])
        original = c.ctorigdst[g]
        if original == 0:
            original = c.src[g] if d == 2 else c.dst[g]
        aux[A_ORIGSRC, k] = c.dst[g] if d == 2 else c.src[g]
        aux[A_ORIGSPORT, k] = sport
        aux[A_ORIGDST, k] = original
        aux[A_ORIGDPORT, k] = np.uint32(c.ctorigdstport[g]) if c.ctorigdstport[g] != 0 else dport


@helper
def _direct(maps: Any, at: int, mask: int, column: Any, b0: int, m: int, row: Any) -> None:
    table = maps[at:]
    bits = np.uint32(mask & 0xFFFF)
    for k in range(m):
        row[k] = table[np.uint32(column[b0 + k]) & bits]


@helper
def _step(blocks: Any, e: Any, byte: Any) -> Any:
    """One step down a trie: what lies under a link, or the class that is already there.

    A select and no branch: which step is the last is a coin toss for each packet.
    """
    link = np.uint32(0x80000000)
    deeper = e & link != np.uint32(0)
    place = (e & np.uint32(0x7FFFFFFF)) << np.uint32(8) | byte
    found = blocks[place if deeper else np.uint32(0)]
    return found if deeper else e


@helper
def _trie32(trie: Any, at: int, wide: int, column: Any, b0: int, m: int, row: Any) -> None:
    mask = np.uint32(wide & 0xFFFFFFFF)
    last = np.uint32(255)
    top = trie[at:at + 256]
    blocks = trie[at + 256:]
    for k in range(m):
        v = np.uint32(column[b0 + k] & mask)
        e = _step(blocks, top[v >> np.uint32(24)], v >> np.uint32(16) & last)
        row[k] = _step(blocks, _step(blocks, e, v >> np.uint32(8) & last), v & last)


@helper
def _trie16(trie: Any, at: int, wide: int, column: Any, b0: int, m: int, row: Any) -> None:
    mask = np.uint32(wide & 0xFFFF)
    top = trie[at:at + 256]
    blocks = trie[at + 256:]
    for k in range(m):
        v = np.uint32(column[b0 + k]) & mask
        row[k] = _step(blocks, top[v >> np.uint32(8)], v & np.uint32(255))


@helper
def _search(bounds: Any, found: Any, at: int, count: int, behind: int, column: Any, b0: int, m: int, row: Any) -> None:
    for k in range(m):
        v = column[b0 + k]
        low, high = at, at + count
        while high - low > 1:
            middle = (low + high) // 2
            if bounds[middle] <= v:
                low = middle
            else:
                high = middle
        row[k] = found[behind + low - at]


@helper
def _add_direct(maps: Any, at: int, column: Any, b0: int, m: int, row: Any) -> None:
    table = maps[at:]
    for k in range(m):
        row[k] += table[column[b0 + k]]


@helper
def _add_part(c: Any, maps: Any, aux: Any, base: int, at: int, b0: int, m: int, row: Any) -> None:
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
    maps: Any, at: int, a: int, x: Any, b: int, y: Any, d: int, z: Any, e: int, w: Any, b0: int, m: int, row: Any
) -> None:
    of_x, of_y, of_z, of_w, of_all = maps[a:], maps[b:], maps[d:], maps[e:], maps[at:]
    for k in range(m):
        place = np.uint32(of_x[x[k]]) + np.uint32(of_y[y[k]]) + np.uint32(of_z[z[b0 + k]]) + np.uint32(of_w[w[k]])
        row[k] = of_all[place]


@helper
def _product(c: Any, fields: Any, maps: Any, aux: Any, fixed: int, f: int, b0: int, m: int, row: Any) -> None:
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
def _classify(c: Any, t: Any, aux: Any, fixed: int, f: int, b0: int, m: int, classes: Any) -> None:
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
        elif fields[f, F_COUNT] == 16:
            _trie16(trie, at, mask, aux[in_block], 0, m, row)
        else:
            _trie32(trie, at, mask, aux[in_block], 0, m, row)
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
        _trie32(trie, at, mask, wide, b0, m, row)
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
        top, blocks = trie[at:at + 256], trie[at + 256:]
        for k in range(m):
            row[k] = _step(blocks, top[kinds[b0 + k]], np.uint32(subs[b0 + k]))
    elif base == B_MAC:
        _search(t.bounds, trie, at, fields[f, F_COUNT], fields[f, F_EXTRA], c.mac_src, b0, m, row)
    else:
        _direct(maps, at, mask, c.extra[fields[f, F_EXTRA]], b0, m, row)


@helper
def _nat(o: Any, pool: Any, g: int, source: bool, first: int, last: int, packed: int, proto: int) -> bool:
    """Gives packet g the first address and port that a NAT rule allows -> whether anything changed."""
    address = o.src[g] if source else o.dst[g]
    port = np.int64(o.sport[g]) if source else np.int64(o.dport[g])
    old_address, old_port = address, port
    ports = _has_ports(proto)
    has_ports = packed & codes.HAS_PORTS != 0
    random = packed & codes.RANDOM != 0
    low, high = packed & 0xFFFF, (packed >> 16) & 0xFFFF
    if source and not random:
        inside = first < 0 or pool[first, 0] <= address <= pool[last, 0]
        if inside and (not has_ports or not ports or low <= port <= high):
            return False
    choice = False
    if first >= 0:
        address = pool[first, 0]
        choice = first != last
    if ports:
        if not has_ports:
            if source and random:
                port = 1 if port < 512 else (600 if port < 1024 else 1024)
                choice = True
        elif packed & codes.HAS_BASE:
            port = low + ((port - ((packed >> 32) & 0xFFFF)) & 0xFFFF) % (high - low + 1)
        elif random or not low <= port <= high:
            port = low
            choice = choice or (high > low and (source or random))
    elif proto == 1 and random:
        choice = True
    if choice:
        o.flags[g] |= np.uint8(1)
    if address == old_address and port == old_port:
        return False
    if source:
        o.src[g] = address
        o.sport[g] = port
    else:
        o.dst[g] = address
        o.dport[g] = port
    return True


@helper
def _apply(c: Any, t: Any, o: Any, aux: Any, classes: Any, first: int, count: int, g: int, k: int) -> None:
    """Effects first .. first+count on packet g, and the classes of what they changed."""
    connected = aux[A_CTSTATE, k] < CT_INVALID
    changed = np.int64(0)
    for e in range(first, first + count):
        code = t.effects[e, 0]
        a, b, third = t.effects[e, 1], t.effects[e, 2], t.effects[e, 3]
        if code == codes.DST_NAT:
            if _nat(o, t.pool, g, False, a, b, third, c.proto[g]):
                aux[A_CTSTATUS, k] |= np.uint32(32)
                changed |= 1 << B_DST | 1 << B_DPORT | 1 << B_CTSTATUS
        elif code == codes.SRC_NAT:
            if _nat(o, t.pool, g, True, a, b, third, c.proto[g]):
                aux[A_CTSTATUS, k] |= np.uint32(16)
                changed |= 1 << B_SRC | 1 << B_SPORT | 1 << B_CTSTATUS
        elif code == codes.DST_MAP:
            new = np.uint32((np.int64(o.dst[g]) & a) | b)
            if new != o.dst[g]:
                aux[A_CTSTATUS, k] |= np.uint32(32)
            o.dst[g] = new
            changed |= 1 << B_DST | 1 << B_CTSTATUS
        elif code == codes.SRC_MAP:
            new = np.uint32((np.int64(o.src[g]) & a) | b)
            if new != o.src[g]:
                aux[A_CTSTATUS, k] |= np.uint32(16)
            o.src[g] = new
            changed |= 1 << B_SRC | 1 << B_CTSTATUS
        elif code == codes.MARK:
            o.mark[g] = np.uint32((np.int64(o.mark[g]) & a) ^ b)
            changed |= 1 << B_MARK
        elif code == codes.CONNMARK:
            if connected:
                aux[A_CONNMARK, k] = np.uint32((np.int64(aux[A_CONNMARK, k]) & a) ^ b)
                changed |= 1 << B_CONNMARK
        elif code == codes.MARK_RESTORE:
            if connected:
                o.mark[g] = np.uint32((np.int64(o.mark[g]) & a) ^ (np.int64(aux[A_CONNMARK, k]) & b))
                changed |= 1 << B_MARK
        elif code == codes.MARK_SAVE:
            if connected:
                aux[A_CONNMARK, k] = np.uint32((np.int64(aux[A_CONNMARK, k]) & a) ^ (np.int64(o.mark[g]) & b))
                changed |= 1 << B_CONNMARK
        elif code == codes.TTL_SET:
            aux[A_TTL, k] = a
            changed |= 1 << B_TTL
        elif code == codes.TTL_ADD:
            aux[A_TTL, k] = min(255, np.int64(aux[A_TTL, k]) + a)
            changed |= 1 << B_TTL
        elif code == codes.TTL_SUB:
            aux[A_TTL, k] = max(0, np.int64(aux[A_TTL, k]) - a)
            changed |= 1 << B_TTL
        elif code == codes.TOS:
            aux[A_TOS, k] = (np.int64(aux[A_TOS, k]) & a) ^ b
            changed |= 1 << B_TOS
        elif code == codes.NOTRACK or (code == codes.NOTRACK_LATE and not connected):
            aux[A_CTSTATE, k] = CT_UNTRACKED
            aux[A_NOTRACK, k] = 1
            connected = False
            changed |= 1 << B_CTSTATE | 1 << B_NOTRACK
        elif code == codes.CHOICE:
            o.flags[g] |= np.uint8(1)
        elif code == codes.SET_OIF:
            aux[A_OIF, k] = a
            changed |= 1 << B_OIF
        elif code == codes.NOTE_MARK:
            aux[A_OLD_MARK, k] = o.mark[g]
            aux[A_OLD_TOS, k] = aux[A_TOS, k]
        elif code == codes.TOUCH:
            if o.mark[g] != aux[A_OLD_MARK, k] or aux[A_TOS, k] != aux[A_OLD_TOS, k]:
                aux[A_TOUCHED, k] |= np.uint32(1)
            if o.dst[g] != c.dst[g]:
                aux[A_TOUCHED, k] |= np.uint32(2)
            changed |= 1 << B_TOUCHED
        elif code == codes.CONFIRM:
            if connected:
                aux[A_CTSTATUS, k] |= np.uint32(8)
                changed |= 1 << B_CTSTATUS
        elif code == codes.FORGET:
            o.rule[g] = -1
    if changed:
        for f in range(t.fields.shape[0]):
            base = t.fields[f, F_BASE]
            if t.fields[f, F_KIND] != K_PRODUCT and changed >> base & 1:
                classes[f, k] = _table_class(t, f, _base_value(c, o, aux, base, t.fields[f, F_EXTRA], g, k))


@helper
def _truth(t: Any, classes: Any, op: int, k: int) -> int:
    """Of a linear op's condition: 0 no, 1 yes, 2 perhaps."""
    perhaps = 0
    first = t.ops[op, O_TERM]
    for term in range(first, first + t.ops[op, O_TERMS]):
        holds = True
        start = t.terms[term, 0]
        for x in range(start, start + t.terms[term, 1]):
            if t.sets[t.tests[x, 1] + np.int64(classes[t.tests[x, 0], k])] == 0:
                holds = False
                break
        if holds:
            if t.terms[term, 2] == 0:
                return 1
            perhaps = 2
    return perhaps


@helper
def _finish(o: Any, g: int, verdict: int, hook: int) -> None:
    o.verdict[g] = verdict
    o.hook[g] = hook
    if hook < H_FORWARD or verdict == V_UNDECIDED:
        o.oif[g] = -1


@kernel
def _walk(
    c: Any, t: Any, o: Any, aux: Any, classes: Any, names: Any, stage: int, g: int, k: int, force: int, stack: Any
) -> int:
    """A linear stage for one packet -> the next stage or FINAL. Bit j of `force`: the j-th undecided rule matches."""
    block = t.stages[stage, S_BLOCK]
    at = t.blocks[block, L_FIRST]
    base = np.int64(-1)
    depth = 0
    choices = 0
    size = np.int64(c.length[g]) if c.length.shape[0] > g else np.int64(0)
    while True:
        accept = False
        ref = np.int64(-1)
        if at >= t.blocks[block, L_END]:
            leave = True
        else:
            op = at
            at += 1
            leave = False
            o.walked[g] += np.uint32(t.ops[op, O_COUNTED])
            truth = _truth(t, classes, op, k)
            act = t.ops[op, O_ACT]
            ref = t.ops[op, O_REF]
            if truth == 2:
                truth = 0
                if act != ACT_NEXT or t.ops[op, O_EFFECTS] > 0:
                    if choices < 62 and (force >> choices) & 1:
                        truth = 1
                        if o.forced_rule[g] < 0:
                            o.forced_rule[g] = ref
                            o.forced_hook[g] = t.blocks[block, L_HOOK]
                    choices += 1
            if truth == 0:
                continue
            if t.ops[op, O_COUNTED]:
                o.rule_packets[ref] += 1
                o.rule_bytes[ref] += size
            if t.ops[op, O_EFFECTS] > 0:
                _apply(c, t, o, aux, classes, t.ops[op, O_EFFECT], t.ops[op, O_EFFECTS], g, k)
            if t.ops[op, O_OIF] >= 0:
                o.oif[g] = names[t.ops[op, O_OIF]]
            if act == ACT_NEXT:
                continue
            if act == ACT_ACCEPT:
                accept = True
            elif act == ACT_RETURN:
                leave = True
            elif act == ACT_JUMP or act == ACT_CALL:
                stack[depth, 0] = block
                stack[depth, 1] = at
                stack[depth, 2] = base
                depth += 1
                block = t.ops[op, O_BLOCK]
                at = t.blocks[block, L_FIRST]
                if act == ACT_CALL:
                    base = block
                continue
            elif act == ACT_GOTO:
                block = t.ops[op, O_BLOCK]
                at = t.blocks[block, L_FIRST]
                continue
            elif act == ACT_END:
                if o.choices.shape[0] > 1:
                    o.choices[stage, g] = choices << 16 | choices
                if t.ops[op, O_NEXT] >= 0:
                    return t.ops[op, O_NEXT]
                verdict = t.ops[op, O_VERDICT]
                if verdict == V_DROP or verdict == 5:
                    o.rule[g] = ref
                _finish(o, g, verdict, t.ops[op, O_HOOK])
                return codes.FINAL
            else:
                verdict = V_DROP if act == ACT_DROP else (V_REJECT if act == ACT_REJECT else V_UNDECIDED)
                if o.choices.shape[0] > 1:
                    o.choices[stage, g] = choices << 16 | choices
                o.rule[g] = ref
                _finish(o, g, verdict, t.blocks[block, L_HOOK])
                return codes.FINAL
        if leave:
            inner = base < 0 or (depth > 0 and stack[depth - 1, 2] == base)
            if inner:
                depth -= 1
                block = stack[depth, 0]
                at = stack[depth, 1]
                base = stack[depth, 2]
                continue
            returned = ref
            ref = t.blocks[base, L_POLICY_REF]
            if ref >= 0:
                o.rule_packets[ref] += 1
                o.rule_bytes[ref] += size
            policy = t.blocks[base, L_POLICY]
            if policy == ACT_ACCEPT:
                accept = True
            else:
                if o.choices.shape[0] > 1:
                    o.choices[stage, g] = choices << 16 | choices
                o.rule[g] = returned if policy == ACT_RETURN else ref
                _finish(o, g, V_RETURN if policy == ACT_RETURN else V_DROP, t.blocks[base, L_HOOK])
                return codes.FINAL
        if accept:
            if base >= 0:
                if t.blocks[base, L_DECIDES]:
                    o.rule[g] = ref
                here = base
                while base == here:
                    depth -= 1
                    block = stack[depth, 0]
                    at = stack[depth, 1]
                    base = stack[depth, 2]


@kernel
def evaluate(n: int, c: Any, t: Any, o: Any, ids: Any, names: Any, force: Any, fixed: int) -> None:
    """Evaluates n packets.

    Args:
        n: number of packets in the chunk, at most 65,536 (so that a record's packets and bytes fit one integer).
        c, t, o: packet columns, tables, output.
        ids: interface id of every interface code of the packets, shifted by one (entry 0 is "none").
        names: interface code to write for every interface id.
        force: int64 of shape (stages, n) with the undecided choices to take, or of shape (1, 1) for none.
        fixed: bits of the bases that have one value in all packets.
    """
    fields = t.fields.shape[0]
    n_stages = t.stages.shape[0]
    classes = np.zeros((fields, BLOCK), np.uint32)
    aux = np.zeros((A_ROWS, BLOCK), np.uint32)
    words = np.empty(BLOCK, np.uint32)
    lists = np.empty((n_stages, BLOCK), np.uint32)
    counts = np.zeros(n_stages, np.uint64)
    stack = np.empty((DEPTH, 3), np.int64)
    tcp_first, icmp_first = np.empty(256, np.uint32), np.empty(256, np.uint32)
    _first_states(t.params[P_TCP_LOOSE], tcp_first, icmp_first)
    need = t.params[P_NEED]
    fixed &= ~t.params[P_CHANGING]
    local_id = np.uint32(t.params[P_LOCAL_ID])
    local_stage = t.params[P_LOCAL_STAGE]
    dst_slot, dport_slot = t.params[P_DST_SLOT], t.params[P_DPORT_SLOT]
    forcing = force.shape[0] > 1
    trying = o.choices.shape[0] > 1
    bytes_too = c.length.shape[0] >= n
    offset = np.uint32((1 << 27) - 1)
    # Arrays as locals: taking one out of a tuple costs a reference count each time.
    stages, levels, rows, records, pool = t.stages, t.levels, t.rows, t.records, t.pool
    alternatives, field_table = t.alternatives, t.fields
    c_iif, c_src, c_dst, c_proto, c_sport, c_dport, c_mark = c.iif, c.src, c.dst, c.proto, c.sport, c.dport, c.mark
    c_length = c.length
    verdicts, hooks, rules, oifs, walked, flags = o.verdict, o.hook, o.rule, o.oif, o.walked, o.flags
    o_src, o_dst, o_sport, o_dport, o_mark = o.src, o.dst, o.sport, o.dport, o.mark
    counted = o.records
    choices, forced_rule, forced_hook = o.choices, o.forced_rule, o.forced_hook
    iifs = aux[A_IIF]
    dst_row, dport_row = classes[dst_slot], classes[dport_slot]
    zero = np.uint32(0)
    for b0 in range(0, n, BLOCK):
        m = min(BLOCK, n - b0)
        o_src[b0:b0 + m] = c_src[b0:b0 + m]
        o_dst[b0:b0 + m] = c_dst[b0:b0 + m]
        o_sport[b0:b0 + m] = c_sport[b0:b0 + m]
        o_dport[b0:b0 + m] = c_dport[b0:b0 + m]
        o_mark[b0:b0 + m] = c_mark[b0:b0 + m]
        rules[b0:b0 + m] = -1
        oifs[b0:b0 + m] = -1
        walked[b0:b0 + m] = 0
        flags[b0:b0 + m] = 0
        for k in range(m):
            iifs[k] = ids[c_iif[b0 + k] + 1]
        if need >> B_OIF & 1:
            for k in range(m):
                aux[A_OIF, k] = ids[c.oif[b0 + k] + 1]
        if need >> B_CTSTATE & 1:
            _ct_states(tcp_first, icmp_first, c.state, c_proto, c.tcp_flags, c.icmp_type, b0, m, aux[A_CTSTATE])
        if need >> B_CTDIR & 1:
            _connection_details(c, aux, b0, m)
        if need >> B_CONNMARK & 1:
            for k in range(m):
                aux[A_CONNMARK, k] = c.connmark[b0 + k]
        if need >> B_TTL & 1:
            aux[A_TTL, 0:m] = c.ttl[b0:b0 + m]
        if need >> B_TOS & 1:
            aux[A_TOS, 0:m] = c.tos[b0:b0 + m]
        if need >> B_NOTRACK & 1:
            aux[A_NOTRACK, 0:m] = 0
        first, local = 0, 0
        for k in range(m):
            if iifs[k] == local_id and local_stage > 0:
                lists[local_stage, local] = np.uint32(k)
                local += 1
            else:
                lists[0, first] = np.uint32(k)
                first += 1
        for s in range(n_stages):
            counts[s] = np.uint64(0)
        counts[0] = first
        if local_stage > 0:
            counts[local_stage] = local
        if need >> B_TOUCHED & 1 and local > 0:
            for k in range(m):
                aux[A_TOUCHED, k] = 0
                aux[A_OLD_MARK, k] = c_mark[b0 + k]
                aux[A_OLD_TOS, k] = aux[A_TOS, k]
        for f in range(fields):
            base = field_table[f, F_BASE]
            if field_table[f, F_KIND] != K_PRODUCT:
                if field_table[f, F_SKIP] or (fixed >> base & 1 and b0 > 0) or (base == B_TOUCHED and local == 0):
                    continue
            _classify(c, t, aux, fixed, f, b0, m, classes)
        begin = np.uint64(b0)
        for s in range(n_stages):
            count = np.int64(counts[s])
            if count == 0:
                continue
            here = lists[s]
            if stages[s, S_KIND] == LINEAR:
                for j in range(count):
                    k = np.int64(here[j])
                    choice = force[s, b0 + k] if forcing else 0
                    onward = _walk(c, t, o, aux, classes, names, s, b0 + k, k, choice, stack)
                    if onward >= 0:
                        lists[onward, counts[onward]] = np.uint32(k)
                        counts[onward] += np.uint64(1)
                continue
            root = np.uint32(stages[s, S_ROOT])
            here_rows = rows[stages[s, S_ROWS]:]
            first_level = stages[s, S_LEVEL]
            depth = stages[s, S_LEVELS]
            level = np.int64(root >> np.uint32(27))
            if level >= depth:
                for j in range(count):
                    words[j] = root
            else:
                row = classes[levels[first_level + level]]
                start = root & offset
                for j in range(count):
                    words[j] = here_rows[start + row[here[j]]]
                level += 1
            while level < depth:
                row = classes[levels[first_level + level]]
                tag = np.uint32(level)
                for j in range(count):
                    w = words[j]
                    tests = (w >> np.uint32(27)) == tag
                    place = (w & offset) + row[here[j]]
                    found = here_rows[place if tests else zero]
                    words[j] = found if tests else w
                level += 1
            first_record = stages[s, S_RECORD]
            here_records, here_counted = records[first_record:], counted[first_record:]
            for j in range(count):
                k = np.uint64(here[j])
                g = begin + k
                r = np.uint64(words[j] & offset)
                if trying:
                    choices[s, g] = here_records[r, codes.R_ALTS] << 16 | here_records[r, codes.R_ALONE]
                if forcing:
                    choice = force[s, g]
                    if choice > 0:
                        a = here_records[r, codes.R_ALT] + choice - 1
                        if forced_rule[g] < 0:
                            forced_rule[g] = alternatives[a, 1]
                            forced_hook[g] = alternatives[a, 2]
                        r = np.uint64(alternatives[a, 0] - first_record)
                here_counted[r] += 1 << 40 | (np.int64(c_length[g]) if bytes_too else 0)
                walked[g] += np.uint32(here_records[r, codes.R_WALKED])
                out = here_records[r, codes.R_OIF]
                if out >= 0:
                    oifs[g] = names[out]
                rule = here_records[r, codes.R_RULE]
                if rule != codes.KEEP_RULE:
                    rules[g] = rule
                fast = here_records[r, codes.R_FAST]
                if fast != 0:
                    address = pool[np.uint64(here_records[r, codes.R_DST]), 0]
                    if fast == 2:
                        o_src[g] = address
                    else:
                        o_dst[g] = address
                        to = here_records[r, codes.R_DST_CLASS]
                        if to >= 0:
                            dst_row[k] = to
                        port = here_records[r, codes.R_DPORT]
                        if port >= 0 and _has_ports(c_proto[g]):
                            o_dport[g] = port
                            to = here_records[r, codes.R_DPORT_CLASS]
                            if to >= 0:
                                dport_row[k] = to
                elif here_records[r, codes.R_EFFECTS] > 0:
                    _apply(c, t, o, aux, classes, here_records[r, codes.R_EFFECT], here_records[r, codes.R_EFFECTS],
                           np.int64(g), np.int64(k))
                onward = here_records[r, codes.R_NEXT]
                if onward >= 0:
                    lists[onward, counts[onward]] = np.uint32(k)
                    counts[onward] += np.uint64(1)
                else:
                    verdict = here_records[r, codes.R_VERDICT]
                    hook = here_records[r, codes.R_HOOK]
                    verdicts[g] = verdict
                    hooks[g] = hook
                    if hook < H_FORWARD or verdict == V_UNDECIDED:
                        oifs[g] = -1
