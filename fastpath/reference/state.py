"""A packet on its way: the fields that rules read and change, and where in the ruleset it is.

One :class:`PacketState` is one run of the machine. Copying it at an undecided rule and going on with both copies is
all that trying both outcomes takes, so everything that can still influence the packet's fate is in here, and
:meth:`PacketState.key` names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastpath.packets.schema import NO_ID, Hook, Verdict

if TYPE_CHECKING:
    from fastpath.reference.program import CompiledChain, CompiledRule
    from fastpath.reference.tracing import Recorder
    from fastpath.reference.walk import Step

INVALID, ESTABLISHED, RELATED, NEW, SNAT, DNAT, UNTRACKED = 1, 2, 4, 8, 16, 32, 64
"""Bits of what ``--ctstate`` sees. SNAT and DNAT are the connection's status bits 16 and 32 (see CT_STATUS)."""

EXPECTED, SEEN_REPLY, ASSURED, CONFIRMED, SRC_NAT, DST_NAT = 1, 2, 4, 8, 16, 32
"""Bits of a connection's status, as in the column ``ctstatus``."""

ORIGINAL, REPLY = 1, 2
"""Direction of a packet within its connection."""

Tuple = tuple[int, int, int, int]
"""Source, destination, source port, destination port."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection that exists already: the tuples of its two directions, and its NAT status bits."""

    original: Tuple
    reply: Tuple
    nat: int


class PacketState:
    """A packet under way.

    Attributes:
        iif, oif: names of the interfaces that the present hook shows to rules; empty where it shows none.
        egress: where a packet of the host itself will go; OUTPUT's rules see the first answer in `oif` even where
            they changed it themselves, and only POSTROUTING the last.
        local: made by the host itself.
        owned: made by the host and not yet looped back, so that its socket is known.
        ctbits: the state bits that rules see; INVALID before conntrack has run.
        tracked: belongs to a connection.
        status, direction, origin: the connection's status bits, the packet's direction, and the original tuple.
        flow_proto: the connection's protocol, which for an ICMP error is not the packet's.
        unbound: the hooks at which the nat table is still to be asked about the connection.
        connection: the connection that the packet belongs to, where its mapping is known: nat's hooks carry it out.
        given: the ``state`` column.
        steps, position: the way through the hooks, and the next step on it.
        chain, index, stack: the place in the chain being walked; `chain` None between chains. The stack holds the
            places to return to.
        forced: the undecided rule that is taken to match, where a copy goes on from it.
        accepted_by: id of the filter rule or policy that accepted last.
        next_hop: where the route sends it: a gateway, or None for the destination itself.
        routed_dst, routed_mark: the destination that the last route look-up of a local packet was for, and its mark
            and type of service when it came to mangle OUTPUT.
        alone: one chain is evaluated by itself.
        hits: ids of rules and policies that counted, None where nobody wants them.
        doubts: copies of the state at each undecided rule, None where nobody wants them.
    """

    __slots__ = (
        "accepted_by", "alone", "chain", "connection", "connmark", "ctbits", "ctdir", "ctorigdst", "ctorigdstport",
        "ctstatus", "direction", "doubts", "dport", "dst", "egress", "extra", "family", "flags", "flow_proto",
        "forced", "frag", "gid", "given", "given_oif", "hits", "hook", "icmp_code", "icmp_type", "iif", "index",
        "ingress", "length", "local", "looped", "mac_src", "mark", "next_hop", "oif", "origin", "owned", "pkttype",
        "position", "proto", "recorder", "routed_dst", "routed_mark", "rule", "sport", "src", "stack", "status",
        "steps", "tcp_flags", "tos", "tracked", "ttl", "uid", "unbound", "verdict", "walked",
    )

    ingress: str
    iif: str
    oif: str
    egress: str
    local: bool
    owned: bool
    looped: bool
    family: int
    src: int
    dst: int
    proto: int
    sport: int
    dport: int
    tcp_flags: int
    icmp_type: int
    icmp_code: int
    frag: int
    ttl: int
    tos: int
    length: int
    mark: int
    connmark: int
    given: int
    ctdir: int
    ctstatus: int
    ctorigdst: int
    ctorigdstport: int
    given_oif: str | None
    mac_src: int
    pkttype: int
    uid: int
    gid: int
    extra: Mapping[str, bool]
    ctbits: int
    tracked: bool
    status: int
    direction: int
    origin: Tuple
    flow_proto: int
    unbound: frozenset[Hook]
    connection: Connection | None
    steps: tuple[Step, ...]
    position: int
    chain: CompiledChain | None
    index: int
    stack: tuple[tuple[CompiledChain, int], ...]
    forced: CompiledRule | None
    accepted_by: int
    next_hop: int | None
    routed_dst: int
    routed_mark: tuple[int, int]
    alone: bool
    hook: Hook
    verdict: Verdict | None
    rule: int
    walked: int
    flags: int
    hits: list[int] | None
    doubts: list[PacketState] | None
    recorder: Recorder | None

    def __init__(
        self, ingress: str, src: int, dst: int, proto: int, sport: int = 0, dport: int = 0, tcp_flags: int = 2,
        icmp_type: int = 8, icmp_code: int = 0, frag: int = 0, ttl: int = 64, tos: int = 0, length: int = 60,
        mark: int = 0, connmark: int = 0, given: int = 0, ctdir: int = 0, ctstatus: int = 0, ctorigdst: int = 0,
        ctorigdstport: int = 0, given_oif: str | None = None, mac_src: int = 0, pkttype: int = 0, uid: int = NO_ID,
        gid: int = NO_ID, family: int = 4, extra: Mapping[str, bool] | None = None,
    ) -> None:
        """A packet before its first hook; the arguments are the packet columns in their order, interfaces by name."""
        self.ingress = ingress
        self.local = self.owned = ingress == "local"
        self.looped = False
        self.iif = "" if self.local else ingress
        self.oif = self.egress = ""
        self.src, self.dst, self.proto, self.sport, self.dport = src, dst, proto, sport, dport
        self.tcp_flags, self.icmp_type, self.icmp_code, self.frag = tcp_flags, icmp_type, icmp_code, frag
        self.ttl, self.tos, self.length, self.mark, self.connmark = ttl, tos, length, mark, connmark
        self.given, self.ctdir, self.ctstatus = given, ctdir, ctstatus
        self.ctorigdst, self.ctorigdstport = ctorigdst, ctorigdstport
        self.given_oif, self.mac_src, self.pkttype, self.uid, self.gid = given_oif, mac_src, pkttype, uid, gid
        self.family = family
        self.extra = extra if extra is not None else {}
        self.ctbits, self.tracked, self.status, self.direction = INVALID, False, 0, ORIGINAL
        self.origin = (src, dst, sport, dport)
        self.flow_proto = proto
        self.unbound: frozenset[Hook] = frozenset()
        self.connection: Connection | None = None
        self.steps, self.position = (), 0
        self.chain, self.index, self.stack, self.forced = None, 0, (), None
        self.accepted_by, self.next_hop = -1, None
        self.routed_dst, self.routed_mark, self.alone = dst, (mark, tos), False
        self.hook, self.verdict, self.rule = Hook.PREROUTING, None, -1
        self.walked = self.flags = 0
        self.hits: list[int] | None = None
        self.doubts: list[PacketState] | None = None
        self.recorder: Recorder | None = None

    def copy(self) -> PacketState:
        """The same state again, to go another way; without its counters, doubts and recorder."""
        other = PacketState.__new__(PacketState)
        for name in PacketState.__slots__:
            setattr(other, name, getattr(self, name))
        other.hits = other.doubts = other.recorder = None
        return other

    def key(self) -> tuple[object, ...]:
        """Equal keys mean equal futures: place and every field that a rule or a step can have changed."""
        return (
            id(self.steps), self.position, id(self.chain), self.index, self.stack, id(self.forced), self.src, self.dst,
            self.sport, self.dport, self.mark, self.connmark, self.tos, self.ttl, self.ctbits, self.status, self.iif,
            self.oif, self.egress, self.looped, self.next_hop, self.routed_dst, self.routed_mark,
        )

    def end(self, verdict: Verdict, hook: Hook, rule: int = -1) -> None:
        """Ends the way here."""
        self.verdict, self.hook, self.rule = verdict, hook, rule
