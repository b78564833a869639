"""Rules that no packet can match, chains that none enters, and rules behind DOCKER-USER's RETURN.

The set of packets that match a rule is computed exactly; where it is empty, the rule is dead. Which earlier rules are
to blame: a copy of the rule without a target, put at the head of its chain, tells which packets it is meant for, and
the rules between that take some of these are those that cover it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fastpath.analysis.lint.context import DECIDING, Context
from fastpath.analysis.lint.model import Finding, Kind, Severity
from fastpath.host.model import Host
from fastpath.reference.program import Act
from fastpath.ruleset.model import RuleRef
from fastpath.symbolic import PacketSet

DEAD = Kind(
    "dead-rule", "A rule that can never match",
    "No packet whatsoever matches the rule: earlier rules of its chain take every packet that it is meant for, or its "
    "tests contradict each other or the place where it stands. It can be removed without any effect, and if it was "
    "meant to do something, it does not.", Severity.WARNING)

BEHIND_RETURN = Kind(
    "behind-return", "A rule behind DOCKER-USER's RETURN",
    "Docker up to 28.2.1 ends DOCKER-USER with a RETURN for every packet. A rule that is appended (-A) stands behind "
    "it and never matches; it has to be inserted (-I).", Severity.ERROR)

UNREACHED = Kind(
    "unreached-chain", "A chain that no packet enters",
    "No rule jumps to the chain, or no packet matches the rules that do. Its rules have no effect.", Severity.NOTE)


def find(context: Context) -> Iterator[Finding]:
    """Dead rules, rules behind DOCKER-USER's RETURN, and chains that nothing enters."""
    dead: list[RuleRef] = []
    for place, refs in context.chains.items():
        table = context.host.ruleset.table(place[0])
        chain = table.chain(place[1]) if table is not None else None
        assert table is not None and chain is not None
        jumps = [r for r in context.all_rules() if r.table == place[0] and _target(context, r) == place[1]]
        if chain.policy is None and (not jumps or (refs and not context.entering(place))):
            yield _unreached(context, place, jumps)
            continue
        if chain.policy is None and not refs:
            continue
        if refs and not context.entering(place):
            yield context.finding(
                UNREACHED, f"No packet comes through {place[1]} of table {place[0]}, so its {_rules(len(refs))} never "
                "match: " + _why_not_walked(context, place), chain=place)
            continue
        dead += [ref for ref in refs if not context.matched(ref)]
    if dead:
        yield from _dead(context, dead)


def _target(context: Context, ref: RuleRef) -> str:
    target = context.rules[ref.id].target
    return target.name if target is not None else ""


def _rules(count: int) -> str:
    return "1 rule does" if count == 1 else f"{count} rules do"


def _why_not_walked(context: Context, place: tuple[str, str]) -> str:
    if place[0] == "nat" and not context.program.conntrack:
        return "nothing makes the kernel track connections, and without that it does not walk nat."
    return "no packet takes this way on this host."


def _unreached(context: Context, place: tuple[str, str], jumps: list[RuleRef]) -> Finding:
    table, name = place
    if not jumps:
        docker = name == "DOCKER-USER"
        message = f"No rule jumps to chain {name} of table {table}"
        if docker:
            message += ", so that the rules in it have no effect"
        return context.finding(
            UNREACHED, message + ".", chain=place, managed=False if docker else name.startswith("DOCKER"),
            severity=Severity.ERROR if docker and context.chains[place] else Severity.NOTE,
            suggestion="insert the jump again: iptables -I FORWARD -j DOCKER-USER" if docker else
            f"remove it: iptables -t {table} -F {name} and iptables -t {table} -X {name}; or jump to it")
    return context.finding(
        UNREACHED, f"No packet enters chain {name} of table {table}: "
        + ("the rule that jumps to it never matches." if len(jumps) == 1 else "the rules that jump to it never match."),
        chain=place, related=[(j, "jump that never matches") for j in jumps], managed=name.startswith("DOCKER"))


def _dead(context: Context, dead: list[RuleRef]) -> Iterator[Finding]:
    meant = _meant(context, dead)
    for ref in dead:
        wanted = meant[ref.id]
        if not wanted:
            yield context.finding(
                DEAD, f"The rule can never match: no packet that comes into {ref.chain} passes its tests.", ref,
                suggestion="remove it, or correct its tests")
            continue
        covering = _covering(context, ref, wanted)
        returning = [r for r in covering if context.act(r) is Act.RETURN and not context.rules[r.id].matches]
        if ref.chain == "DOCKER-USER" and returning:
            yield context.finding(
                BEHIND_RETURN, "The rule can never match: it stands behind the RETURN that ends DOCKER-USER.", ref,
                related=[(returning[0], "takes every packet")], witness=context.witness(wanted),
                witness_note="meant for, for instance",
                suggestion=f"insert it in front: iptables -I DOCKER-USER {ref.text.removeprefix('-A DOCKER-USER ')}")
            continue
        what = "the rule in front of it takes" if len(covering) == 1 else f"{len(covering)} rules in front of it take"
        yield context.finding(
            DEAD, f"The rule can never match: {what} every packet that it is meant for.", ref,
            related=[(r, "covered by") for r in covering], witness=context.witness(wanted),
            witness_note="meant for, for instance", suggestion="remove it, or move it in front of what covers it")


def _meant(context: Context, dead: list[RuleRef]) -> dict[int, PacketSet]:
    """For each dead rule the packets that would match it at the head of its chain."""
    host, places = with_probes(context.host, dead)
    sets = context.sets_of(host)
    ids = {(r.table, r.chain, r.number): r.id for r in host.ruleset.refs()}
    return {ref.id: sets.matched[ids[places[ref.id]]] for ref in dead}


def with_probes(host: Host, refs: list[RuleRef]) -> tuple[Host, dict[int, tuple[str, str, int]]]:
    """The host with copies of some rules, without their targets, at the head of their chains.

    Returns:
        The host, and the place (table, chain, number) of the copy of each rule by its id.
    """
    places: dict[int, tuple[str, str, int]] = {}
    tables = []
    for table in host.ruleset.tables:
        chains = []
        for chain in table.chains:
            here = [r for r in refs if (r.table, r.chain) == (table.name, chain.name)]
            probes = tuple(replace(chain.rules[r.number - 1], target=None) for r in here)
            places |= {r.id: (table.name, chain.name, n) for n, r in enumerate(here, 1)}
            chains.append(replace(chain, rules=probes + chain.rules))
        tables.append(replace(table, chains=tuple(chains)))
    return host.with_ruleset(replace(host.ruleset, tables=tuple(tables))), places


def _covering(context: Context, ref: RuleRef, wanted: PacketSet) -> list[RuleRef]:
    """The earlier rules of the chain that take packets from among the wanted ones."""
    found = []
    for earlier in context.chains[ref.table, ref.chain][: ref.number - 1]:
        act = context.act(earlier)
        if act in DECIDING or act in (Act.RETURN, Act.GOTO, Act.JUMP):
            taken = context.matched(earlier) & wanted
            if taken and (act is not Act.JUMP or taken - _next(context, earlier)):
                found.append(earlier)
    return found


def _next(context: Context, ref: RuleRef) -> PacketSet:
    """The packets that come to the rule behind this one."""
    behind = context.chains[ref.table, ref.chain][ref.number:]
    return context.reached(behind[0]) if behind else context.space.nothing
