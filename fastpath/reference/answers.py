"""The host's own answers, REJECT's and the ICMP errors of routing: what they count on their way out.

Follows ``nf_send_unreach()``, ``nf_send_reset()`` (net/ipv4/netfilter/nf_reject_ipv4.c) and ``__icmp_send()``
(net/ipv4/icmp.c) with no rate limits. A packet whose ``state`` column says INVALID is taken for one with a bad
checksum, which REJECT drops in silence. An answer belongs to the connection of the packet it answers, as RELATED in
the other direction; it takes the path of a packet that the host makes. IPv4 only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastpath.packets.schema import Hook, State, Verdict
from fastpath.reference import state as st
from fastpath.reference.state import PacketState
from fastpath.reference.walk import Machine

ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})
LARGEST_ICMP_TYPE = 18
CHECKED = frozenset({1, 6, 17, 41, 47, 50, 51, 132, 136})
"""Protocols whose packets REJECT answers: with a checksum that the kernel can verify, or known to need none."""

UNREACHABLE = {
    "icmp-net-unreachable": 0, "icmp-host-unreachable": 1, "icmp-proto-unreachable": 2, "icmp-port-unreachable": 3,
    "icmp-net-prohibited": 9, "icmp-host-prohibited": 10, "icmp-admin-prohibited": 13,
}
"""Codes of ``--reject-with``."""

RST, ACK = 4, 16


@dataclass(frozen=True, slots=True)
class _Error:
    """An ICMP error to send."""

    type: int
    code: int


def answer_to(machine: Machine, p: PacketState) -> Iterator[tuple[int, int]]:
    """The rules and policies that count the answer to a packet that has ended, each with the answer's length."""
    answer = _answer(machine, p)
    if answer is None:
        return
    answer.hits = []
    machine.start(answer)
    machine.run(answer)
    yield from ((rule, answer.length) for rule in answer.hits)
    yield from answer_to(machine, answer)


def _answer(machine: Machine, p: PacketState) -> PacketState | None:
    if p.family != 4 or p.frag == 2:
        return None
    if p.verdict is Verdict.ICMP_ERROR:
        return _icmp(machine, p, _routing_error(machine, p))
    if p.verdict is not Verdict.REJECT or p.proto not in CHECKED or p.given == State.INVALID:
        return None
    target = machine.program.rules[p.rule].target
    option = target.get("reject-with") if target is not None else None
    kind = str(option.value) if option is not None else "icmp-port-unreachable"
    if kind in ("tcp-reset", "tcp-rst"):
        return _reset(machine, p)
    return _icmp(machine, p, _Error(3, UNREACHABLE.get(kind, 3)))


def _routing_error(machine: Machine, p: PacketState) -> _Error:
    """TTL exceeded where there was a route, else that of the route."""
    found = machine.router.find(p.dst)
    if p.given_oif is not None or (found is not None and found.type == "unicast"):
        return _Error(11, 0)
    return _Error(3, {"unreachable": 1, "prohibit": 13}.get(found.type if found is not None else "", 0))


def _to_many(machine: Machine, p: PacketState) -> bool:
    """Whether the packet was addressed to more than one host: nobody answers that."""
    return bool(p.pkttype) or (
        (p.local or p.oif == "") and p.dst != 0 and machine.program.host.complete
        and machine.router.type_of(p.dst) in ("BROADCAST", "MULTICAST"))


def _icmp(machine: Machine, p: PacketState, error: _Error) -> PacketState | None:
    if _to_many(machine, p):
        return None
    if p.proto == 1 and (p.icmp_type in ICMP_ERRORS or p.icmp_type > LARGEST_ICMP_TYPE):
        return None
    source = p.dst if _is_here(machine, p) else _source_towards(machine, p)
    answer = PacketState(
        "local", source, p.src, 1, icmp_type=error.type, icmp_code=error.code, length=28 + min(p.length, 548),
        tos=(p.tos & 0x1E) | 0xC0, given=State.INVALID)
    return _attach(answer, p)


def _reset(machine: Machine, p: PacketState) -> PacketState | None:
    if p.proto != 6 or p.tcp_flags & RST or _to_many(machine, p):
        return None
    answer = PacketState("local", p.dst, p.src, 6, p.dport, p.sport, length=40, given=State.INVALID,
                         tcp_flags=RST if p.tcp_flags & ACK else RST | ACK)
    if p.unbound and not p.looped:
        answer.unbound = frozenset({Hook.POSTROUTING})
    return _attach(answer, p)


def _is_here(machine: Machine, p: PacketState) -> bool:
    """Whether the packet's own destination can be the answer's source: it was routed to this host."""
    return p.hook is Hook.INPUT or p.oif == "lo"


def _source_towards(machine: Machine, p: PacketState) -> int:
    """The source address that the host's packets to the sender get: the route's, or the egress interface's."""
    found = machine.router.find(p.src)
    if found is None or found.dev is None:
        return p.dst
    if found.type == "local":
        return p.src
    if found.prefsrc is not None:
        return found.prefsrc
    next_hop = found.gateway if found.gateway is not None else p.src
    address = machine.router.fib.masquerade_address(found.dev, next_hop)
    return p.dst if address is None else address


def _attach(answer: PacketState, p: PacketState) -> PacketState:
    """Puts the answer into the packet's connection, if it has one; else it is INVALID."""
    answer.owned = False
    answer.given_oif = None
    if p.tracked:
        answer.tracked, answer.ctbits, answer.status = True, st.RELATED, p.status
        answer.direction = st.ORIGINAL if p.direction == st.REPLY else st.REPLY
        answer.origin, answer.connmark, answer.flow_proto = p.origin, p.connmark, p.flow_proto
    return answer
