"""Connection tracking, as far as one packet can tell: its state, direction, status and original tuple.

``nf_conntrack_in()`` runs between the raw and the mangle table. Rules that run earlier see every packet as INVALID;
what ``-j NOTRACK`` marked there stays UNTRACKED.
"""

from __future__ import annotations

from fastpath.packets.schema import Hook, State
from fastpath.reference import state as st
from fastpath.reference.state import PacketState, Tuple
from fastpath.ruleset.model import Ruleset

USING_MATCHES = frozenset({
    "conntrack", "state", "connmark", "connbytes", "connlimit", "connlabel", "helper", "socket", "cluster",
})
USING_TARGETS = frozenset({
    "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "CONNMARK", "CONNSECMARK", "TPROXY", "SYNPROXY", "CLUSTERIP",
})
"""Matches and targets whose presence switches conntrack on; the nat table without one of these targets does not."""

SYN_ONLY = frozenset({0x02, 0x0A, 0x22, 0x2A})
PICKED_UP = frozenset({0x10, 0x18, 0x30, 0x38})
"""TCP flags with which an unknown flow becomes NEW: SYN with PSH and URG as they like; with nf_conntrack_tcp_loose
also ACK with PSH and URG."""

ICMP_REPLY = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17}
ICMPV6_REPLY = {128: 129, 129: 128, 139: 140, 140: 139}
"""Types of ICMP requests and their replies, both ways; requests alone start a flow."""

TRACKED_PORTS = frozenset({6, 17, 132, 136})
"""Protocols whose ports conntrack and NAT know: TCP, UDP, SCTP, UDP-Lite. Linux 6 no longer knows those of DCCP."""

NAT_HOOKS = frozenset({Hook.PREROUTING, Hook.INPUT, Hook.OUTPUT, Hook.POSTROUTING})

ICMP_ERRORS, ICMPV6_ERRORS = (3, 4, 5, 11, 12), (1, 2, 3, 4)

_BITS = {State.NEW: st.NEW, State.ESTABLISHED: st.ESTABLISHED, State.REPLY: st.ESTABLISHED, State.RELATED: st.RELATED}
_STATUS = {
    State.NEW: 0, State.ESTABLISHED: st.SEEN_REPLY | st.ASSURED | st.CONFIRMED,
    State.REPLY: st.SEEN_REPLY | st.ASSURED | st.CONFIRMED, State.RELATED: st.EXPECTED | st.CONFIRMED,
}


def in_use(ruleset: Ruleset) -> bool:
    """Whether the kernel tracks connections with this ruleset: any rule, reachable or not, that needs it."""
    for table in ruleset.tables:
        for chain in table.chains:
            for rule in chain.rules:
                if any(m.module in USING_MATCHES for m in rule.matches):
                    return True
                if rule.target is not None and (
                        rule.target.name in USING_TARGETS
                        or (rule.target.name == "CT" and rule.target.get("notrack") is None)):
                    return True
    return False


def first_state(p: PacketState, loose: bool) -> State:
    """NEW or INVALID for a packet of no known flow.

    TCP: ``tcp_conntracks`` in nf_conntrack_proto_tcp.c; ICMP: the types that ``nf_conntrack_icmp_packet()`` takes.
    """
    if p.proto == 6:
        flags = p.tcp_flags & 0x3F
        return State.NEW if flags in SYN_ONLY or (loose and flags in PICKED_UP) else State.INVALID
    if p.proto == 1 and p.family == 4:
        return State.NEW if p.icmp_type in (8, 13, 15, 17) else State.INVALID
    if p.proto == 58 and p.family == 6:
        return State.NEW if p.icmp_type in (128, 139) else State.INVALID
    return State.NEW


def is_icmp_error(p: PacketState) -> bool:
    """Whether the packet reports on another: RELATED, it belongs to that one's connection, and runs against it."""
    return p.icmp_type in (ICMP_ERRORS if p.proto == 1 else ICMPV6_ERRORS if p.proto == 58 else ())


def track(p: PacketState, loose: bool) -> None:
    """Gives the packet its connection. Looped-back packets keep theirs, and NOTRACK's decision stands."""
    if p.tracked or p.ctbits == st.UNTRACKED:
        return
    state = State(p.given)
    if state is State.AUTO:
        state = first_state(p, loose)
    if state is State.INVALID:
        return
    if state is State.UNTRACKED:
        p.ctbits = st.UNTRACKED
        return
    p.tracked = True
    p.ctbits = _BITS[state]
    if state is State.RELATED and is_icmp_error(p):
        p.status, p.direction = p.ctstatus or _STATUS[State.REPLY], p.ctdir or st.REPLY
    else:
        p.status = p.ctstatus or _STATUS[state]
        p.direction = p.ctdir or (st.REPLY if state is State.REPLY else st.ORIGINAL)
    p.origin = _original_tuple(p)
    if state is State.NEW and p.connection is None:
        p.unbound = NAT_HOOKS


def notrack(p: PacketState) -> None:
    """``-j NOTRACK``: without effect on packets that have a connection already (``xt_ct_target()``)."""
    if not p.tracked:
        p.ctbits = st.UNTRACKED


def _own_ports(p: PacketState) -> tuple[int, int]:
    """The two numbers that a tuple holds for the packet's own direction: ports, or ICMP's id and type with code."""
    if p.proto in TRACKED_PORTS:
        return p.sport, p.dport
    if _has_id(p):
        return p.sport, p.icmp_type << 8 | p.icmp_code
    return 0, 0


def _reversed_ports(p: PacketState) -> tuple[int, int]:
    """The two numbers of the other direction."""
    if p.proto in TRACKED_PORTS:
        return p.dport, p.sport
    if _has_id(p):
        reply = ICMP_REPLY if p.proto == 1 else ICMPV6_REPLY
        return p.sport, reply.get(p.icmp_type, p.icmp_type) << 8 | p.icmp_code
    return 0, 0


def _has_id(p: PacketState) -> bool:
    return (p.proto == 1 and p.icmp_type in ICMP_REPLY) or (p.proto == 58 and p.icmp_type in ICMPV6_REPLY)


def _original_tuple(p: PacketState) -> Tuple:
    if p.connection is not None:
        return p.connection.original
    if p.direction == st.REPLY:
        sport, dport = _reversed_ports(p)
        return p.dst, p.ctorigdst or p.src, sport, p.ctorigdstport or dport
    sport, dport = _own_ports(p)
    return p.src, p.ctorigdst or p.dst, sport, p.ctorigdstport or dport


def reply_tuple(p: PacketState) -> Tuple:
    """The connection's reply tuple; of one that is not known, what the packet's present addresses say of it."""
    if p.connection is not None:
        return p.connection.reply
    if p.direction == st.REPLY:
        return (p.src, p.dst, *_own_ports(p))
    return (p.dst, p.src, *_reversed_ports(p))
