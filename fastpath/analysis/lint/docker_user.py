"""DOCKER-USER: replies that its rules drop, `-i` of a bridge used for what comes in, and ways around the chain."""

from __future__ import annotations

from collections.abc import Iterator

from fastpath.analysis.lint.context import Context
from fastpath.analysis.lint.model import Finding, Kind, Severity
from fastpath.analysis.query.conditions import Comparison, Name, Span
from fastpath.packets.packet import Packet
from fastpath.packets.schema import State, Verdict
from fastpath.reference import trace
from fastpath.reference.program import Act
from fastpath.ruleset.model import NatRange, Network, PortRange, Rule, RuleRef
from fastpath.symbolic import PacketSet

REPLIES = Kind(
    "replies-dropped", "A DOCKER-USER rule that drops replies",
    "DOCKER-USER stands in front of the rule that accepts established connections. The rule also drops packets from "
    "outside that answer connections which containers opened, and which the rules let out: the containers cannot reach "
    "those addresses any more. `-m conntrack --ctstate NEW`, or --ctdir ORIGINAL, limits a rule to what comes in.",
    Severity.ERROR)

INBOUND = Kind(
    "bridge-as-inbound", "A rule that tests -i of a bridge for what comes in from outside",
    "Packets from outside to a container come in on the outside interface and leave through the bridge; -i BRIDGE "
    "matches what the containers send. The rule names sources, destinations or published ports as if for what comes "
    "in, and matches none of it.", Severity.ERROR)

SKIPPED = Kind(
    "docker-user-skipped", "Forwarded packets that never pass DOCKER-USER",
    "A rule of FORWARD in front of the jump to DOCKER-USER lets packets for containers through, or the jump is not for "
    "all of them, so that the rules in DOCKER-USER do not apply to these.", Severity.WARNING)

USER = ("filter", "DOCKER-USER")


def find(context: Context) -> Iterator[Finding]:
    """All three."""
    for ref in context.all_rules():
        if ref.table != "filter" or ref.chain not in ("DOCKER-USER", "FORWARD") or not context.matched(ref):
            continue
        if context.is_managed(ref, context.rules[ref.id]):
            continue
        if ref.chain == "DOCKER-USER" and context.act(ref) in (Act.DROP, Act.REJECT):
            yield from _replies(context, ref)
        yield from _inbound(context, ref)
    yield from _skipped(context)


# ------------------------------------------------------------------------------------------------ replies


def _replies(context: Context, ref: RuleRef) -> Iterator[Finding]:
    """Replies from outside to a container among what the rule drops, whose connection was let out."""
    dropped = context.matched(ref)
    for bridge in context.bridges:
        home = _addresses_of(context, bridge)
        if not home or not context.outside:
            continue
        coming = dropped & context.set_of(
            Comparison("iif", tuple(Name("interface", n) for n in context.outside))
        ) & context.set_of(Comparison("dst", home)) & context.set_of(
            Comparison("state", (Span(State.REPLY, State.REPLY),))
        ) & _usual(context)
        found = _answered(context, coming, bridge)
        if found is not None:
            reply, first = found
            yield context.finding(
                REPLIES, "The rule drops replies to connections that containers open.", ref, witness=reply,
                witness_note=f"dropped, though it answers {first}",
                suggestion="insert it with -m conntrack --ctstate NEW, or put in front: iptables -I DOCKER-USER -m "
                "conntrack --ctstate RELATED,ESTABLISHED -j RETURN")
            return


def _usual(context: Context) -> PacketSet:
    """TCP and UDP packets with nothing unusual beside their state."""
    return context.as_delivered & context.set_of(
        "proto in {tcp,udp} and frag == 0 and ttl == 64 and tos == 0 and length == 60 and mark == 0 and connmark == 0 "
        "and pkttype == unicast and (proto == udp or tcp_flags == SYN|ACK)")


def _answered(context: Context, replies: PacketSet, bridge: str) -> tuple[Packet, Packet] | None:
    """A reply of the set together with a first packet that it answers and that gets out."""
    left = replies
    for _ in range(TRIES):
        if not left:
            return None
        reply = left.witness()
        first = Packet(bridge, reply.dst, reply.src, reply.proto, reply.dport, reply.sport, tcp_flags=2)
        fate = trace(context.host, first, assume=context.assume).fate
        if fate.verdict is Verdict.FORWARD and fate.oif == reply.iif:
            return reply, first
        left = left - context.set_of(Comparison("src", (Span(reply.src & ~255, reply.src | 255),)))
    return None


TRIES = 32
"""How many replies are tried; each that is not answered rules out its /24 of sources."""


def _addresses_of(context: Context, bridge: str) -> tuple[Span, ...]:
    """The networks behind a bridge, without the bridge's own and the broadcast address."""
    interface = context.host.interface(bridge)
    found: list[Span] = []
    for a in interface.addresses if interface is not None else ():
        if a.family == 4 and a.prefixlen < 31:
            size = 1 << (32 - a.prefixlen)
            first, last = (a.address & -size) + 1, (a.address & -size) + size - 2
            found += [s for s in (Span(first, a.address - 1), Span(a.address + 1, last)) if s.first <= s.last]
    return tuple(found)


# ------------------------------------------------------------------------------------------------ the wrong interface


def _inbound(context: Context, ref: RuleRef) -> Iterator[Finding]:
    rule = context.rules[ref.id]
    inside = rule.in_interface
    if inside is None or inside.negated or str(inside.value) not in context.bridges or rule.out_interface is not None:
        return
    if context.act(ref) in (Act.NOTHING, Act.CHANGE):
        return
    bridge = str(inside.value)
    home = _addresses_of(context, bridge)
    why = _meant_for_inbound(context, ref, home, bridge)
    if not why or not context.outside:
        return
    outside = context.set_of(Comparison("iif", tuple(Name("interface", n) for n in context.outside)))
    assert not context.matched(ref) & outside  # -i names another interface
    sent = context.matched(ref) & context.ordinary & context.set_of(Comparison("src", home))
    witness = context.witness(sent) if sent else context.witness(context.matched(ref))
    yield context.finding(
        INBOUND, f"-i {bridge} matches what containers send, and nothing of what comes to them; yet the rule {why}.",
        ref, witness=witness, witness_note="what it matches",
        suggestion=f"test -i {context.outside[0]} (and -o {bridge} if only this network is meant)")


def _meant_for_inbound(context: Context, ref: RuleRef, home: tuple[Span, ...], bridge: str) -> str:
    """Why the rule's other tests only make sense for what comes in; empty where they do not."""
    rule = context.rules[ref.id]
    outside_source = rule.source is not None and isinstance(rule.source.value, Network) and not _overlaps(
        rule.source.value, home)
    if outside_source:
        return "names sources that are not behind that bridge"
    ranged = [m for m in rule.matches if m.module == "iprange" and m.get("src-range") is not None]
    for match in ranged:
        option = match.get("src-range")
        value = option.value if option is not None else None
        first, last = getattr(value, "first", None), getattr(value, "last", None)
        if first is not None and last is not None and not any(s.first <= last and first <= s.last for s in home):
            return "names sources that are not behind that bridge"
    if rule.destination is not None and not rule.destination.negated and isinstance(rule.destination.value, Network):
        network = rule.destination.value
        if any(s.first <= network.address and network.address | (~network.mask & 0xFFFFFFFF) <= s.last for s in home):
            return "names a destination behind that bridge"
    if rule.source is None and rule.destination is None and not ranged:
        ports = _destination_ports(rule)
        if ports and ports <= _published_ports(context, home):
            return "names ports that are published behind that bridge"
    return ""


def _destination_ports(rule: Rule) -> set[int]:
    """The destination ports that a rule names; empty where it names none, or many."""
    found: set[int] = set()
    for match in rule.matches:
        for option in match.options:
            values = option.value if isinstance(option.value, tuple) else (option.value,)
            if option.name in ("dport", "dports") and not option.negated:
                for value in values:
                    if isinstance(value, PortRange) and value.last - value.first < 64:
                        found.update(range(value.first, value.last + 1))
    return found


def _published_ports(context: Context, home: tuple[Span, ...]) -> set[int]:
    """Ports of containers behind a bridge that DNAT rules lead to, and the published ones that lead there."""
    found: set[int] = set()
    for ref in context.all_rules():
        rule = context.rules[ref.id]
        option = rule.target.get("to-destination") if rule.target is not None and rule.target.name == "DNAT" else None
        value = option.value if option is not None else None
        if isinstance(value, NatRange) and value.address is not None and any(
            s.first <= value.address.first <= s.last for s in home
        ):
            found |= _destination_ports(rule)
            if value.ports is not None:
                found.update(range(value.ports.first, value.ports.last + 1))
    return found


def _overlaps(network: Network, spans: tuple[Span, ...]) -> bool:
    last = network.address | (~network.mask & 0xFFFFFFFF)
    return any(s.first <= last and network.address <= s.last for s in spans)


# ------------------------------------------------------------------------------------------------ ways around


def _skipped(context: Context) -> Iterator[Finding]:
    """Packets that are forwarded to a bridge though they never entered DOCKER-USER."""
    rules = context.chains.get(USER)
    if not rules:
        return
    forwarded = context.space.nothing
    by_rule = []
    for (verdict, egress, rule), packets in context.sets.fates(("verdict", "egress", "rule")).items():
        if verdict is Verdict.FORWARD and egress in context.bridges:
            around = (packets - context.entering(USER)) & context.as_delivered
            if around:
                by_rule.append((rule, around))
                forwarded = forwarded | around
    if not by_rule or not context.entering(USER):
        return
    seen: set[int] = set()
    for rule, around in by_rule:
        if rule in seen:
            continue
        seen.add(rule)
        ref = context.refs[rule] if rule >= 0 else None
        yield context.finding(
            SKIPPED, "Packets for containers get through here without passing DOCKER-USER.", ref,
            chain=("filter", "FORWARD"), witness=context.witness(around), witness_note="gets around it", managed=False,
            suggestion="let the jump to DOCKER-USER be the first rule of FORWARD")
