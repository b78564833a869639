"""What DNAT lets in: published ports open to everyone, INPUT rules that it bypasses, and DNAT to nowhere."""

from __future__ import annotations

from collections.abc import Iterator

from fastpath.analysis.lint.context import Context
from fastpath.analysis.lint.model import Finding, Kind, Severity
from fastpath.analysis.query.conditions import All, Comparison, Condition, Name, Span
from fastpath.packets.schema import Verdict
from fastpath.packets.text import format_address
from fastpath.ruleset.model import NatRange, RuleRef
from fastpath.symbolic import PacketSet

OPEN = Kind(
    "open-published-port", "A published port that every address can reach",
    "A DNAT rule forwards a port to a container, and every public source address gets through to it on the interface "
    "that leads outside. Docker publishes on all addresses unless told otherwise; bind the port to an address, or "
    "restrict the sources in DOCKER-USER.", Severity.WARNING)

BYPASSED = Kind(
    "input-bypassed", "An INPUT rule that DNAT goes around",
    "The rule (or INPUT's policy) would block packets to a port of this host. Docker's DNAT sends them to a container "
    "before, so that they pass FORWARD and never INPUT: the block that `ufw` or an INPUT rule promises is not there. "
    "Proved by comparing with the same rules without that DNAT.", Severity.ERROR)

NOWHERE = Kind(
    "nat-to-nowhere", "A DNAT rule whose packets get nowhere",
    "Not one of the packets that the rule translates gets through: routing has no way to the new destination, or the "
    "rules drop all of them, or the address is in a Docker network and belongs to no container.", Severity.WARNING)

SPECIAL = ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
           "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
           "224.0.0.0/3")
"""Blocks that are no public unicast addresses (RFC 6890 and the IANA special-purpose registry)."""


def find(context: Context) -> Iterator[Finding]:
    """All three, DNAT rule by DNAT rule."""
    rules = [ref for ref in context.all_rules() if _is_dnat(context, ref) and context.matched(ref)]
    if not rules:
        return
    blocked_without = _blocked_without_dnat(context)
    for ref in rules:
        translated = context.matched(ref)
        through = translated & context.through
        if not through and not translated & context.with_verdict(Verdict.UNDECIDED):
            yield _nowhere(context, ref, translated)
            continue
        yield from _no_container(context, ref, translated)
        yield from _open(context, ref, through)
        yield from _bypassed(context, ref, through, blocked_without)


def _is_dnat(context: Context, ref: RuleRef) -> bool:
    target = context.rules[ref.id].target
    return target is not None and target.name == "DNAT" and ref.table == "nat"


def _to(context: Context, ref: RuleRef) -> str:
    target = context.rules[ref.id].target
    option = target.get("to-destination") if target is not None else None
    return " ".join(option.text) if option is not None else "?"


def _outside(context: Context) -> Condition:
    return Comparison("iif", tuple(Name("interface", name) for name in context.outside))


# ------------------------------------------------------------------------------------------------ nowhere


def _nowhere(context: Context, ref: RuleRef, translated: PacketSet) -> Finding:
    stops = {rule: packets & translated for rule, packets in context.sets.fates("rule").items() if packets & translated}
    related = [(context.refs[rule], "drops them") for rule in list(stops)[:5] if rule >= 0]
    why = "rules drop all of them" if related else "routing has no way there, or refuses them"
    return context.finding(
        NOWHERE, f"No packet that is sent to {_to(context, ref)} gets there: {why}.", ref, related=related,
        witness=context.witness(translated), witness_note="does not arrive",
        suggestion="remove the rule, or let its packets through in FORWARD" if related else
        "remove the rule, or add the address or route that it needs")


def _no_container(context: Context, ref: RuleRef, translated: PacketSet) -> Iterator[Finding]:
    """DNAT to an address of a Docker network that no container has, where the host folder lists containers."""
    target = context.rules[ref.id].target
    option = target.get("to-destination") if target is not None else None
    value = option.value if option is not None else None
    if not isinstance(value, NatRange) or value.address is None or not context.names.containers:
        return
    first, last = value.address.first, value.address.last
    homes = [name for name, spans in context.names.networks.items()
             if any(s.first <= first and last <= s.last for s in spans)]
    known = {s.first for spans in context.names.containers.values() for s in spans}
    own = {a.address for i in context.host.interfaces for a in i.addresses}
    if not homes or any(first <= address <= last for address in known | own):
        return
    shown = format_address(first) + (f"-{format_address(last)}" if last != first else "")
    yield context.finding(
        NOWHERE, f"No container of network {homes[0]} has the address {shown} that the rule sends packets to.", ref,
        severity=Severity.WARNING, witness=context.witness(translated), witness_note="sent there",
        managed=False, suggestion="remove the rule: it is left over from a container that is gone")


# ------------------------------------------------------------------------------------------------ open ports


def _open(context: Context, ref: RuleRef, through: PacketSet) -> Iterator[Finding]:
    """The rule's packets from outside, to the host's own addresses, from every public source."""
    if not context.outside:
        return
    public = ~context.set_of(Comparison("src", tuple(_span(text) for text in SPECIAL)))
    from_outside = context.set_of(_outside(context)) & context.ordinary
    arriving = context.matched(ref) & from_outside
    for name in context.outside:
        interface = context.host.interface(name)
        own = [a.address for a in interface.addresses if a.family == 4] if interface is not None else []
        for address in own:
            here = arriving & context.set_of(All((
                Comparison("iif", (Name("interface", name),)), Comparison("dst", (Span(address, address),)))))
            everyone = here & public
            if everyone and not everyone - through and _all_public(context, everyone, public):
                yield context.finding(
                    OPEN, f"Every public address reaches {_to(context, ref)} through {name} at "
                    f"{format_address(address)}.", ref, severity=Severity.WARNING, managed=False,
                    witness=context.witness(everyone), witness_note="gets through",
                    suggestion="publish on one address (-p ADDRESS:PORT:PORT), or restrict sources: iptables -I "
                    f"DOCKER-USER -i {name} ! -s NETWORK -m conntrack --ctstate NEW -j DROP")
                return


def _all_public(context: Context, found: PacketSet, public: PacketSet) -> bool:
    """Whether the packets found hold some packet of every public source: not only part of them is translated."""
    packet = found.witness()
    same = context.set_of(All(tuple(
        Comparison(name, (Span(getattr(packet, name), getattr(packet, name)),))
        for name in ("dst", "proto", "sport", "dport"))))
    on = context.set_of(Comparison("iif", (Name("interface", packet.iif),)))
    return not (public & same & on & context.ordinary) - found


def _span(text: str) -> Span:
    from fastpath.host.text import parse_prefix

    network = parse_prefix(text)
    return Span(network.address, network.address | (~network.mask & 0xFFFFFFFF))


# ------------------------------------------------------------------------------------------------ INPUT


def _blocked_without_dnat(context: Context) -> dict[RuleRef, PacketSet]:
    """Packets that INPUT's rules would block if nothing were translated, by the rule that would."""
    removed = [ref for ref in context.all_rules() if _is_dnat(context, ref)]
    host = context.without(removed)
    gone = {(r.table, r.chain, r.number) for r in removed}
    back: dict[int, RuleRef] = {}
    kept = iter(host.ruleset.refs())
    for ref in context.refs:
        if (ref.table, ref.chain, ref.number) not in gone:
            back[next(kept).id] = ref
    inputs = _reachable(context, ("filter", "INPUT"))
    sets = context.sets_of(host)
    found: dict[RuleRef, PacketSet] = {}
    for (verdict, rule), packets in sets.fates(("verdict", "rule")).items():
        if verdict in (Verdict.DROP, Verdict.REJECT) and rule >= 0:
            ref = back[rule]
            if (ref.table, ref.chain) in inputs:
                found[ref] = packets
    return found


def _reachable(context: Context, start: tuple[str, str]) -> set[tuple[str, str]]:
    """A chain and all that its rules jump to."""
    seen: set[tuple[str, str]] = set()
    pending = [start]
    while pending:
        place = pending.pop()
        if place in seen or place not in context.chains:
            continue
        seen.add(place)
        targets = (context.rules[r.id].target for r in context.chains[place])
        pending += [(place[0], t.name) for t in targets if t is not None and (place[0], t.name) in context.chains]
    return seen


def _bypassed(
    context: Context, ref: RuleRef, through: PacketSet, blocked: dict[RuleRef, PacketSet]
) -> Iterator[Finding]:
    outside = context.set_of(_outside(context)) if context.outside else context.space.everything
    for rule, packets in blocked.items():
        around = packets & through & outside & context.as_delivered
        if around:
            what = "INPUT's policy" if rule.number == 0 else "The rule"
            yield context.finding(
                BYPASSED, f"{what} would block packets that DNAT sends to {_to(context, ref)} instead: they never come "
                "to INPUT.", rule, related=[(ref, "goes around it")], witness=context.witness(around),
                witness_note="gets through", managed=False,
                suggestion="block them in DOCKER-USER, by the port before DNAT: iptables -I DOCKER-USER -i "
                f"{context.outside[0] if context.outside else 'eth0'} -p tcp -m conntrack --ctorigdstport PORT "
                "--ctdir ORIGINAL -j DROP")
