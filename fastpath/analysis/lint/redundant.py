"""Rules that change nothing if removed, and jumps that only return.

A rule changes nothing if, for every packet, verdict, egress, translation and mark are the same without it, and every
rule that logs, counts for others or marks connections sees the same packets. Packets of the rule are tried first, with
the reference: most rules turn out to matter that way. What is left is proved with sets of packets.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastpath.analysis.lint.context import Context
from fastpath.analysis.lint.model import Finding, Kind, Severity
from fastpath.analysis.query.compare import differing
from fastpath.compiler.flow import conntrack_in_use
from fastpath.packets.batch import PacketBatch
from fastpath.packets.packet import Packet
from fastpath.packets.result import Fate
from fastpath.packets.schema import Verdict
from fastpath.reference.program import Act
from fastpath.ruleset.model import RuleRef
from fastpath.symbolic import PacketSet
from fastpath.symbolic.variants import WithoutRule

REDUNDANT = Kind(
    "redundant-rule", "A rule that changes nothing if removed",
    "Every packet fares the same without the rule: what comes behind it decides alike. Proved for all packets, by "
    "verdict, egress, translation and mark, and for what logging and connection-marking rules see.", Severity.NOTE)

ONLY_RETURNS = Kind(
    "jump-only-returns", "A jump that only comes back",
    "No packet that takes the jump is decided, changed or logged in the chain that it leads to; all return. The jump "
    "costs time and does nothing.", Severity.NOTE)

BY = ("verdict", "egress", "nat", "mark")
"""What has to be the same."""


def find(context: Context) -> Iterator[Finding]:
    """Both."""
    undecided = context.with_verdict(Verdict.UNDECIDED)
    for ref in context.all_rules():
        matched = context.matched(ref)
        if not matched:
            continue
        act = context.act(ref)
        if act is Act.JUMP and _only_returns(context, ref, matched):
            yield _jump(context, ref)
            continue
        if act in (Act.NOTHING, Act.CHANGE, Act.UNDECIDED) and not _sets_mark(context, ref):
            continue
        if matched & undecided or not all(t.sure for t in context.compiled(ref).tests):
            continue
        if _matters(context, ref, matched):
            continue
        if _proved(context, ref, matched):
            yield context.finding(
                REDUNDANT, "Every packet fares the same without this rule.", ref, severity=Severity.WARNING,
                witness=context.witness(matched), witness_note="matches it, and fares the same without",
                suggestion="remove it, unless it is there to be read")


def _jump(context: Context, ref: RuleRef) -> Finding:
    target = context.rules[ref.id].target
    name = target.name if target is not None else ""
    empty = not context.chains.get((ref.table, name))
    if empty:
        message = f"The jump does nothing: chain {name} is empty."
    else:
        message = f"The jump does nothing: every packet that it sends to {name} comes back as it was."
    user = name == "DOCKER-USER"
    return context.finding(
        ONLY_RETURNS, message, ref, severity=Severity.NOTE if user else Severity.WARNING,
        suggestion="keep it: it is the place for rules of your own" if user else "remove it, or fill the chain")


def _only_returns(context: Context, ref: RuleRef, matched: PacketSet) -> bool:
    """Whether no rule of the chain (or of chains it leads to) touches a packet that the jump sends there."""
    seen: set[tuple[str, str]] = set()
    pending = [_target(context, ref)]
    while pending:
        place = pending.pop()
        if place in seen:
            continue
        seen.add(place)
        for inner in context.chains[place]:
            act = context.act(inner)
            if act in (Act.JUMP, Act.GOTO):
                if context.matched(inner) & matched:
                    pending.append(_target(context, inner))
            elif act is not Act.RETURN and not (act is Act.NOTHING and _is_plain(context, inner)):
                if context.matched(inner) & matched:
                    return False
    return True


def _target(context: Context, ref: RuleRef) -> tuple[str, str]:
    target = context.rules[ref.id].target
    assert target is not None
    return ref.table, target.name


def _is_plain(context: Context, ref: RuleRef) -> bool:
    """A rule without any target: it only counts."""
    return context.rules[ref.id].target is None


def _sets_mark(context: Context, ref: RuleRef) -> bool:
    target = context.rules[ref.id].target
    return target is not None and target.name == "MARK"


# ------------------------------------------------------------------------------------------------ trying


def _matters(context: Context, ref: RuleRef, matched: PacketSet) -> bool:
    """Whether a packet of the rule, of those that stand for the different fates, fares differently without it."""
    reference = context.reference
    chain = reference.program.chains[ref.table, ref.chain]
    kept = chain.rules
    without = [rule for rule in kept if rule.id != ref.id]
    for packet in _tried(context, matched):
        batch = PacketBatch.from_packets([packet])
        before = reference.evaluate(batch)[0]
        try:
            chain.rules = without
            after = reference.evaluate(batch)[0]
        finally:
            chain.rules = kept
        if _differ(before, after):
            return True
    return False


def _tried(context: Context, matched: PacketSet) -> Iterator[Packet]:
    yield context.witness(matched)
    for part in context.parts:
        here = part & matched
        if here:
            yield here.witness()


def _differ(a: Fate, b: Fate) -> bool:
    def seen(fate: Fate) -> tuple[object, ...]:
        if fate.verdict in (Verdict.FORWARD, Verdict.LOCAL_OUT, Verdict.LOCAL_IN):
            return (fate.verdict, fate.oif, fate.src, fate.dst, fate.sport, fate.dport, fate.mark)
        return (fate.verdict,)

    return seen(a) != seen(b)


# ------------------------------------------------------------------------------------------------ proving


def _proved(context: Context, ref: RuleRef, matched: PacketSet) -> bool:
    """Whether all packets fare the same without the rule, and rules with side effects see the same ones."""
    if conntrack_in_use(context.without([ref])) != context.program.conntrack:
        return False
    sets = WithoutRule(context.sets, ref.id, matched)
    found = differing(context.sets, sets, BY, matched)
    if found.packets or found.undecided:
        return False
    return all(context.matched(r) & matched == sets.matched[r.id] for r in context.side_effects if r.id != ref.id)
