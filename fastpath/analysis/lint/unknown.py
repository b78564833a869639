"""Rules that a packet's header does not decide, and rules that are not understood at all."""

from __future__ import annotations

from collections.abc import Iterator

from fastpath.analysis.lint.context import Context
from fastpath.analysis.lint.model import Finding, Kind, Severity
from fastpath.packets.schema import Verdict
from fastpath.reference.program import Act

UNDECIDED = Kind(
    "undecided-rule", "A rule that a packet's header does not decide",
    "The rule asks for what no header holds: a rate, the clock, chance, a process, payload. Whether it matches is not "
    "known, and with it what becomes of the packets that come to it. Assumptions (assume=) decide it.", Severity.NOTE)

UNKNOWN = Kind(
    "unknown-extension", "A rule with a match or target that is not known",
    "The match, the target or one of its options is not in the table of extensions. It is never taken to match or not "
    "to match: packets that hang on it are undecided.", Severity.WARNING)


def find(context: Context) -> Iterator[Finding]:
    """Unknown extensions, and undecided rules with what hangs on them."""
    undecided = context.with_verdict(Verdict.UNDECIDED)
    for ref in context.all_rules():
        rule, ready = context.rules[ref.id], context.compiled(ref)
        strange = [f"match {m.module}" for m in rule.matches if not m.known]
        if rule.target is not None and not rule.target.known:
            strange.append(f"target {rule.target.name}")
        reasons = [f"{t.text} {t.reason}" for t in ready.tests if not t.sure]
        if ready.act is Act.UNDECIDED:
            reasons.append(f"-j {rule.target.name if rule.target is not None else ''}: {ready.why}")
        if not strange and not reasons:
            continue
        here = context.matched(ref)
        hanging = here & undecided
        if not here:
            effect = "No packet comes to it with its other tests fulfilled."
        elif not ready.effect:
            effect = "It changes no packet's fate."
        elif hanging:
            effect = "Packets hang on it."
        else:
            effect = "Every packet that comes to it fares the same either way."
        kind = UNKNOWN if strange else UNDECIDED
        what = f"{' and '.join(strange)} is not known here" if strange else "; ".join(dict.fromkeys(reasons))
        yield context.finding(
            kind, f"The rule cannot be decided: {what}. {effect}", ref,
            severity=Severity.WARNING if hanging else Severity.NOTE,
            witness=context.witness(hanging) if hanging else None, witness_note="hangs on it",
            suggestion=f"decide it with assume={{{ref.id}: 'match'}} or 'no-match'" if hanging else "")
