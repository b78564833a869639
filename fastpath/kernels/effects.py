"""What records and rules change on a packet, and the classes of what they changed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels import codes
from fastpath.kernels._jit import helper
from fastpath.kernels.classify import class_of
from fastpath.kernels.connection import has_ports
from fastpath.kernels.layout import (
    A_CONNMARK,
    A_CTDIR,
    A_CTSTATE,
    A_CTSTATUS,
    A_IIF,
    A_NOTRACK,
    A_OIF,
    A_OLD_MARK,
    A_OLD_TOS,
    A_ORIGDPORT,
    A_ORIGDST,
    A_ORIGSPORT,
    A_ORIGSRC,
    A_TOS,
    A_TOUCHED,
    A_TTL,
    B_CONNMARK,
    B_CTDIR,
    B_CTSTATE,
    B_CTSTATUS,
    B_DPORT,
    B_DST,
    B_FRAG,
    B_GID,
    B_ICMP,
    B_IIF,
    B_LENGTH,
    B_MAC,
    B_MARK,
    B_NOTRACK,
    B_OIF,
    B_ORIGDPORT,
    B_ORIGDST,
    B_ORIGSPORT,
    B_ORIGSRC,
    B_PKTTYPE,
    B_PROTO,
    B_SPORT,
    B_SRC,
    B_TCP_FLAGS,
    B_TOS,
    B_TOUCHED,
    B_TTL,
    B_UID,
    CT_INVALID,
    CT_UNTRACKED,
    F_BASE,
    F_EXTRA,
    F_KIND,
    K_PRODUCT,
)


@helper
def base_value(c: Any, o: Any, aux: Any, base: Any, f_extra: Any, g: Any, k: Any) -> Any:
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
def _nat(o: Any, pool: Any, g: Any, source: Any, first: Any, last: Any, packed: Any, proto: Any) -> Any:
    """Gives packet g the first address and port that a NAT rule allows -> whether anything changed."""
    address = o.src[g] if source else o.dst[g]
    port: Any = np.int64(o.sport[g]) if source else np.int64(o.dport[g])
    old_address, old_port = address, port
    ports = has_ports(proto)
    to_ports = packed & codes.HAS_PORTS != 0
    random = packed & codes.RANDOM != 0
    low, high = packed & 0xFFFF, (packed >> 16) & 0xFFFF
    if source and not random:
        inside = first < 0 or pool[first, 0] <= address <= pool[last, 0]
        if inside and (not to_ports or not ports or low <= port <= high):
            return False
    choice = False
    if first >= 0:
        address = pool[first, 0]
        choice = first != last
    if ports:
        if not to_ports:
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
def apply(c: Any, t: Any, o: Any, aux: Any, classes: Any, first: Any, count: Any, g: Any, k: Any) -> None:
    """Effects first .. first+count on packet g, and the classes of what they changed."""
    connected = aux[A_CTSTATE, k] < CT_INVALID
    changed = np.int64(0)
    effects, fields = t.effects, t.fields  # taking an array out of a tuple costs a reference count each time
    for e in range(first, first + count):
        code = effects[e, 0]
        a, b, third = effects[e, 1], effects[e, 2], effects[e, 3]
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
            if a == 1 and (o.mark[g] != aux[A_OLD_MARK, k] or aux[A_TOS, k] != aux[A_OLD_TOS, k]):
                aux[A_TOUCHED, k] |= np.uint32(1)
            if a == 2 and o.dst[g] != c.dst[g]:
                aux[A_TOUCHED, k] |= np.uint32(2)
            changed |= 1 << B_TOUCHED
        elif code == codes.CONFIRM:
            if connected:
                aux[A_CTSTATUS, k] |= np.uint32(8)
                changed |= 1 << B_CTSTATUS
        elif code == codes.FORGET:
            o.rule[g] = -1
    if changed:
        for f in range(fields.shape[0]):
            base = fields[f, F_BASE]
            if changed >> base & 1 and fields[f, F_KIND] != K_PRODUCT:
                classes[f, k] = class_of(t, f, base_value(c, o, aux, base, fields[f, F_EXTRA], g, k))
