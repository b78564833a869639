"""What connection tracking makes of packets, before any rule has run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import helper
from fastpath.kernels.layout import (
    A_CTDIR,
    A_CTSTATE,
    A_CTSTATUS,
    A_ORIGDPORT,
    A_ORIGDST,
    A_ORIGSPORT,
    A_ORIGSRC,
    CT_INVALID,
)


@helper
def has_ports(proto: Any) -> Any:
    """Protocols whose ports NAT changes and connections know; Linux 6.18 has no connection tracking for DCCP."""
    return proto == 6 or proto == 17 or proto == 132 or proto == 136


@helper
def has_id(kind: Any) -> Any:
    return kind == 0 or kind == 8 or (13 <= kind <= 18)


@helper
def first_states(loose: Any, tcp: Any, icmp: Any) -> None:
    """State of a packet of no known flow by its TCP flags and by its ICMP type.

    A TCP flow begins with SYN, or (nf_conntrack_tcp_loose) with a bare ACK, PSH and URG aside; ICMP with a request.
    """
    for v in range(256):
        rest = v & 0x17
        tcp[v] = 0 if rest == 2 or (rest == 16 and loose != 0) else CT_INVALID
        icmp[v] = 0 if v == 8 or v == 13 or v == 15 or v == 17 else CT_INVALID


@helper
def connection_states(
    tcp: Any, icmp: Any, state: Any, proto: Any, tcp_flags: Any, icmp_type: Any, b0: Any, m: Any, row: Any
) -> None:
    """The connection-tracking state of each packet: as given, or as conntrack decides for a first packet."""
    states, protos, flags, kinds = state[b0:b0 + m], proto[b0:b0 + m], tcp_flags[b0:b0 + m], icmp_type[b0:b0 + m]
    for k in range(m):
        s = states[k]
        p = protos[k]
        as_tcp = tcp[flags[k]]
        as_icmp = icmp[kinds[k]]
        first = as_tcp if p == 6 else (as_icmp if p == 1 else np.uint32(0))
        row[k] = first if s == 0 else np.uint32(s) - np.uint32(1)


@helper
def connection_details(c: Any, aux: Any, b0: Any, m: Any) -> None:
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
        if has_ports(proto):
            sport, dport = np.uint32(c.sport[g]), np.uint32(c.dport[g])
            if d == 2:
                sport, dport = dport, sport
        elif proto == 1 and has_id(kind):
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
