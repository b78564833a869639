"""What becomes of a packet where some rules cannot be told: both outcomes are tried.

The baseline takes every undecided match for "no match". Each place on it where an undecided match made the choice is a
doubt. A packet is decided if every combination of outcomes gives it the baseline's fate. Otherwise the rule to name is
the first doubt that changes the fate when it alone is forced to match; failing that, the first from which some
combination of later choices does.

States that are equal have equal futures, so each is followed once: a chain of thirty undecided rules that each may set
one mark costs sixty walks, not two to the thirtieth. Where there are more than :data:`MOST_STATES` states all the
same, the packet counts as undecided: that is the safe answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastpath.packets.schema import Hook, Verdict
from fastpath.reference.state import PacketState
from fastpath.reference.walk import Machine

MOST_STATES = 20_000

Fate = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Doubt:
    """The undecided rule that a packet's fate hangs on, and the hook where it stands; ``alternative`` is the packet
    after the rule was taken to match, None where it took more than that rule."""

    rule: int
    hook: Hook
    alternative: PacketState | None


SHOWN_EGRESS = frozenset({Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING})
"""Hooks at which a result names the egress interface."""


def egress_of(p: PacketState) -> str | None:
    """The egress interface of a packet that has ended, as results give it."""
    if p.verdict is Verdict.LOCAL_IN or p.hook not in SHOWN_EGRESS:
        return None
    return p.oif or None


def fate_of(p: PacketState) -> Fate:
    """What of a packet's end makes a difference."""
    return (p.verdict, p.hook, egress_of(p), p.src, p.dst, p.sport, p.dport, p.mark)


def deciding_doubt(machine: Machine, baseline: PacketState) -> Doubt | None:
    """The undecided rule on which the fate of a packet hangs, or None where it does not hang on any."""
    doubts = baseline.doubts
    if not doubts:
        return None
    fate = fate_of(baseline)
    for doubt in doubts:
        other = _taken(doubt)
        machine.run(other)
        if _differs(other, fate):
            return Doubt(_rule_id(doubt), doubt.hook, other)
    seen: set[tuple[object, ...]] = set()
    for doubt in doubts:
        if _explore(machine, _taken(doubt), fate, seen):
            return Doubt(_rule_id(doubt), doubt.hook, None)
    return None


def _explore(machine: Machine, start: PacketState, fate: Fate, seen: set[tuple[object, ...]]) -> bool:
    """Whether some combination of choices from here on leads to another fate."""
    pending = [start]
    while pending:
        p = pending.pop()
        key = p.key()
        if key in seen:
            continue
        seen.add(key)
        if len(seen) > MOST_STATES:
            return True
        p = p.copy()
        p.doubts = []
        machine.run(p)
        if _differs(p, fate):
            return True
        pending += [_taken(d) for d in reversed(p.doubts)]
    return False


def _taken(doubt: PacketState) -> PacketState:
    """The packet where the undecided rule matches."""
    assert doubt.chain is not None
    other = doubt.copy()
    other.forced = doubt.chain.rules[doubt.index]
    return other


def _rule_id(doubt: PacketState) -> int:
    assert doubt.chain is not None
    return doubt.chain.rules[doubt.index].id


def _differs(p: PacketState, fate: Fate) -> bool:
    return p.verdict is Verdict.UNDECIDED or fate_of(p) != fate
