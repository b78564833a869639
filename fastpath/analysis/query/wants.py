"""Conditions on fates as sets of packets.

A condition on results is tested on every end that packets come to; what NAT wrote is a function of the arriving header
there, so that the answer is again an exact set of arriving headers.

Where a packet's fate hangs on undecided rules, it has several ends. What the condition says of all of them is certain
(a packet that is either dropped or rejected is surely blocked); what it says of some is possible. ``verdict ==
UNDECIDED`` asks for the packets whose fate hangs on such rules, and is always certain, but for an end that is itself
beyond knowing (a target such as NFQUEUE), of which nothing else is.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastpath.analysis.query.conditions import All, Any, Comparison, Condition, Name, Not, Span
from fastpath.analysis.query.fields import info
from fastpath.analysis.query.names import Names
from fastpath.analysis.query.sets import items_in, to_set
from fastpath.compiler.interfaces import matches
from fastpath.packets.schema import Verdict
from fastpath.symbolic import Fate, HostSets, PacketSet
from fastpath.symbolic.outcomes import outcomes

_REWRITTEN = {"post_src": 0, "post_dst": 1, "post_sport": 2, "post_dport": 3}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The packets that surely fare as wanted, and those that do for some outcome of undecided rules only."""

    certain: PacketSet
    possible: PacketSet


def wanted(condition: Condition, sets: HostSets, names: Names) -> Wanted:
    """The packets of which a condition on fates (and headers) holds.

    Raises:
        QueryError: a name that is not known.
    """
    space = sets.space
    store = space.store
    reader = _Reader(sets, names)
    resolved = names.resolve(condition)
    some, other = [], []
    for fate, here in outcomes(sets):
        sure, maybe = reader.holds(resolved, fate)
        some.append(store.both(here, maybe))
        other.append(store.without(here, sure))
    certain = space.everything - space.set_of(store.any_of(other))
    return Wanted(certain, space.set_of(store.any_of(some)) - certain)


class _Reader:
    """Reads conditions at the ends of one host's packets; pairs of diagrams: where they surely hold, and may hold."""

    def __init__(self, sets: HostSets, names: Names) -> None:
        self.sets, self.names = sets, names
        self.store = sets.space.store
        self.undecided = self.store.any_of(
            packets.diagram for verdict, packets in sets.fates("verdict").items() if verdict is Verdict.UNDECIDED)
        self._arriving: dict[Comparison, int] = {}

    def holds(self, condition: Condition, fate: Fate) -> tuple[int, int]:
        if isinstance(condition, Not):
            sure, maybe = self.holds(condition.part, fate)
            return self.store.negated(maybe), self.store.negated(sure)
        if isinstance(condition, All):
            parts = [self.holds(part, fate) for part in condition.parts]
            return self.store.all_of(p[0] for p in parts), self.store.all_of(p[1] for p in parts)
        if isinstance(condition, Any):
            parts = [self.holds(part, fate) for part in condition.parts]
            return self.store.any_of(p[0] for p in parts), self.store.any_of(p[1] for p in parts)
        assert isinstance(condition, Comparison)
        if not info(condition.field).result:
            found = self._arriving.get(condition)
            if found is None:
                found = self._arriving[condition] = to_set(condition, self.sets.space, self.names).diagram
            return found, found
        if condition.field == "verdict":
            return self._verdict(condition, fate)
        if fate.verdict is Verdict.UNDECIDED:
            return 0, 1
        found = self._result(condition, fate)
        return found, found

    def _verdict(self, condition: Comparison, fate: Fate) -> tuple[int, int]:
        codes = {v for item in condition.items if isinstance(item, Span) for v in range(item.first, item.last + 1)}
        hanging = self.undecided if Verdict.UNDECIDED in codes else 0
        if fate.verdict is Verdict.UNDECIDED:
            return hanging, 1 if codes - {Verdict.UNDECIDED} else hanging
        found = 1 if fate.verdict in codes else hanging
        return found, found

    def _result(self, condition: Comparison, fate: Fate) -> int:
        """A comparison with something that is known at an end."""
        match condition.field:
            case "hook":
                return int(any(isinstance(i, Span) and i.first <= fate.hook <= i.last for i in condition.items))
            case "rule":
                return int(any(isinstance(i, Name) and fate.rule in self.names.rule_ids(i) for i in condition.items))
            case "egress":
                return int(fate.egress is not None and any(
                    isinstance(i, Name) and matches(i.text, fate.egress) for i in condition.items))
            case "post_mark":
                return items_in(self.sets.space, fate.mark, condition.items)
        return items_in(self.sets.space, fate.rewrite.bits[_REWRITTEN[condition.field]], condition.items)
