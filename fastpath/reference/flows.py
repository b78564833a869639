"""Connections in plain Python: the first packet, the answer to it, and later packets of both directions.

Each packet is walked by the machine. The first one fixes the connection's NAT mapping and status; the others bring
them. Who answers is where the first packet went: the host itself where it was delivered, else whoever is behind the
egress interface. What the rules did to the connection's mark stays with it from one packet to the next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastpath.host.model import Host
from fastpath.packets.packet import Packet
from fastpath.packets.result import Fate
from fastpath.packets.schema import LOCAL, Leg, Outcome, State, Verdict
from fastpath.packets.text import PORT_PROTOCOLS
from fastpath.reference import state as st
from fastpath.reference.conntrack import ICMP_REPLY, TRACKED_PORTS, reply_tuple
from fastpath.reference.evaluate import Reference
from fastpath.reference.state import Connection, PacketState, Tuple

ARRIVED = frozenset({Verdict.FORWARD, Verdict.LOCAL_OUT, Verdict.LOCAL_IN})
ASSURED_PROTOCOLS = frozenset({6, 17, 47, 132, 136})
"""Protocols whose connections become ASSURED in the end: ICMP's and those of unknown protocols do not."""
SYN, ACK, SYN_ACK, DATA = 0x02, 0x10, 0x12, 0x18


@dataclass(frozen=True, slots=True)
class WalkedLeg:
    """One packet of a connection: as it arrives, its connection (None where it has none yet), and what became of it."""

    packet: Packet
    connection: Connection | None
    fate: Fate
    hits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FlowWalk:
    """A connection.

    Attributes:
        outcome: what becomes of it.
        leg: the packet that it ends with; None where it works.
        rule: the rule or policy that stops that packet, -1 where none does.
        nat: status bits 16 (source) and 32 (destination) of what the first packet underwent.
        mapped: the first packet's addresses and ports at its end.
        legs: the packets that were looked at, at most four, in the order of :class:`Leg`.
    """

    outcome: Outcome
    leg: Leg | None
    rule: int
    nat: int
    mapped: Tuple
    legs: tuple[WalkedLeg, ...]


def walk_flow(reference: Reference, packet: Packet) -> FlowWalk:
    """What becomes of the connection that a packet opens; what its columns say of another connection is left aside."""
    return _Flow(reference, packet).run()


class _Flow:
    def __init__(self, reference: Reference, packet: Packet) -> None:
        self.reference = reference
        self.tracking = reference.program.conntrack
        self.packet = replace(packet, ctdir=0, ctstatus=0, ctorigdst=0, ctorigdstport=0)
        self.legs: list[WalkedLeg] = []
        self.nat = 0

    def run(self) -> FlowWalk:
        packet = self.packet
        first, fate = self._walk(packet, None)
        if (end := self._stopped(fate)) is not None:
            return end
        if self._opens_nothing(first, packet):
            return self._end(Outcome.NO_FLOW)
        connection = Connection(first.origin, reply_tuple(first), first.status & 48) if (
            self.tracking and first.tracked) else None
        self.nat = connection.nat if connection is not None else 0
        if connection is not None and self._bypassed(packet, fate, connection):
            return self._end(Outcome.BYPASSED, Leg.REPLY)
        answer = self._answer(packet, fate, connection, first.connmark)
        reply, reply_fate = self._walk(answer, connection)
        home = (Verdict.LOCAL_IN, None) if packet.iif in (LOCAL, "lo") else (Verdict.FORWARD, packet.iif)
        if (end := self._misses(reply_fate, home, _turned(packet))) is not None:
            return end
        there = (fate.verdict, fate.oif)
        later, later_fate = self._walk(*self._later(packet, connection, reply, first))
        if (end := self._misses(later_fate, there, (fate.src, fate.dst, fate.sport, fate.dport))) is not None:
            return end
        last = replace(answer, tcp_flags=DATA if packet.proto == 6 else answer.tcp_flags)
        if connection is not None:
            marked = later if later.tracked else reply
            last = replace(last, ctstatus=_steady(packet.proto) | connection.nat, connmark=marked.connmark)
        elif self.tracking and reply.tracked:  # the answer opened a connection, since the first packet had none
            connection = Connection(reply.origin, reply_tuple(reply), reply.status & 48)
            last = replace(last, state=State.NEW, ctstatus=st.CONFIRMED | connection.nat, connmark=reply.connmark)
        _, last_fate = self._walk(last, connection)
        return self._misses(last_fate, home, _turned(packet)) or self._end(Outcome.WORKS)

    # ------------------------------------------------------------------------------------------------ packets

    def _walk(self, packet: Packet, connection: Connection | None) -> tuple[PacketState, Fate]:
        p, fate = self.reference.walk(packet, connection)
        self.legs.append(WalkedLeg(packet, connection, fate, tuple(p.hits or ())))
        return p, fate

    def _answer(self, packet: Packet, fate: Fate, connection: Connection | None, connmark: int) -> Packet:
        """The answer as it sets out, from the host itself or from behind the first packet's egress."""
        ports = packet.proto in PORT_PROTOCOLS
        flags = (SYN_ACK if packet.tcp_flags & SYN else ACK) if packet.proto == 6 else packet.tcp_flags
        answer = Packet(
            LOCAL if fate.verdict is Verdict.LOCAL_IN else str(fate.oif), fate.dst, fate.src, packet.proto,
            fate.dport if ports else fate.sport, fate.sport if ports else fate.dport, flags,
            ICMP_REPLY.get(packet.icmp_type, packet.icmp_type), packet.icmp_code, family=packet.family,
            extra=packet.extra, oif=packet.iif if packet.oif is not None else None)
        if connection is None:
            return answer
        return replace(
            answer, state=State.REPLY, ctstatus=st.SEEN_REPLY | st.CONFIRMED | connection.nat, connmark=connmark,
            ctorigdst=packet.dst, ctorigdstport=packet.dport if packet.proto in TRACKED_PORTS else 0)

    def _later(self, packet: Packet, connection: Connection | None, reply: PacketState,
               first: PacketState) -> tuple[Packet, Connection | None]:
        """A later packet from where the first one came, and its connection. Where conntrack did not see the answer, a
        TCP segment after a SYN is INVALID, and others are still NEW."""
        later = replace(packet, tcp_flags=DATA if packet.proto == 6 else packet.tcp_flags)
        if connection is None:
            return later, None
        if not reply.tracked:
            if packet.proto == 6 and packet.tcp_flags & SYN:
                return replace(later, state=State.INVALID), None
            return replace(later, state=State.NEW, ctstatus=st.CONFIRMED | connection.nat,
                           connmark=first.connmark), connection
        return replace(
            later, state=State.ESTABLISHED, ctstatus=_steady(packet.proto) | connection.nat, connmark=reply.connmark,
            ctorigdst=packet.dst, ctorigdstport=packet.dport if packet.proto in TRACKED_PORTS else 0), connection

    # ------------------------------------------------------------------------------------------------ verdicts

    def _stopped(self, fate: Fate) -> FlowWalk | None:
        if fate.verdict is Verdict.UNDECIDED:
            return self._end(Outcome.UNDECIDED)
        return None if fate.verdict in ARRIVED else self._end(Outcome.STOPPED)

    def _misses(self, fate: Fate, where: tuple[Verdict, str | None], ends: Tuple) -> FlowWalk | None:
        """The connection's end where a packet is stopped, or arrives elsewhere or as another; None where it arrives."""
        stopped = self._stopped(fate)
        if stopped is not None:
            return stopped
        here = fate.verdict is Verdict.LOCAL_IN
        if here != (where[0] is Verdict.LOCAL_IN) or fate.oif != where[1]:
            return self._end(Outcome.ASTRAY)
        if (fate.src, fate.dst, fate.sport, fate.dport) != ends:
            return self._end(Outcome.UNTRANSLATED)
        return None

    def _end(self, outcome: Outcome, leg: Leg | None = None) -> FlowWalk:
        last, first = self.legs[-1], self.legs[0]
        if outcome is not Outcome.WORKS and leg is None:
            leg = Leg(len(self.legs) - 1)
        blames = outcome in (Outcome.STOPPED, Outcome.UNDECIDED)
        fate = first.fate
        return FlowWalk(outcome, leg, last.fate.rule if blames else -1, self.nat,
                        (fate.src, fate.dst, fate.sport, fate.dport), tuple(self.legs))

    def _opens_nothing(self, first: PacketState, packet: Packet) -> bool:
        """INVALID for conntrack, or not a first packet; or to many at once, whose answers come from elsewhere."""
        if self.tracking and (packet.state in (State.ESTABLISHED, State.REPLY, State.RELATED) or (
                not first.tracked and first.ctbits == st.INVALID)):
            return True
        return self.reference.program.router.type_of(first.dst) in ("MULTICAST", "BROADCAST")

    def _bypassed(self, packet: Packet, fate: Fate, connection: Connection) -> bool:
        """Both ends on one link, and the client's address untouched: the server answers the client itself. Between
        ports of a bridge even that passes the rules (``br_netfilter``)."""
        host = self.reference.program.host
        if connection.nat != st.DST_NAT or fate.oif != packet.iif or packet.oif is not None:
            return False
        if bridged(host, packet.iif):
            return False
        links = on_link(host, packet.iif)
        return all(any(address & mask == network for network, mask in links) for address in (fate.src, fate.dst))


def bridged(host: Host, name: str) -> bool:
    """Whether what passes between ports of the bridge called `name` passes the host's rules."""
    interface = host.interface(name)
    return interface is not None and interface.kind == "bridge" and bool(
        host.sysctl("net.bridge.bridge-nf-call-iptables", 1))


def on_link(host: Host, name: str) -> list[tuple[int, int]]:
    """Network and mask of every IPv4 subnet on an interface's link."""
    interface = host.interface(name)
    masks = [(a.network_address, (1 << 32) - (1 << 32 - a.prefixlen))
             for a in (interface.addresses if interface is not None else ()) if a.family == 4]
    return [(address & mask, mask) for address, mask in masks]


def _turned(packet: Packet) -> Tuple:
    """What the answer's addresses and ports must be in the end."""
    if packet.proto in PORT_PROTOCOLS:
        return packet.dst, packet.src, packet.dport, packet.sport
    return packet.dst, packet.src, packet.sport, packet.dport


def _steady(proto: int) -> int:
    return st.SEEN_REPLY | st.CONFIRMED | (st.ASSURED if proto in ASSURED_PROTOCOLS else 0)
