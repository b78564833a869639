"""Which packets fare differently on two hosts: what assertions, policies and lint need of a comparison."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fastpath.analysis.query.conditions import Condition
from fastpath.analysis.query.fields import REACHED
from fastpath.analysis.query.names import Names
from fastpath.analysis.query.scope import in_scope
from fastpath.analysis.query.sets import to_set
from fastpath.analysis.query.text import as_condition
from fastpath.errors import QueryError
from fastpath.host.model import Host
from fastpath.packets.schema import Verdict
from fastpath.symbolic import Fate, HeaderSpace, HostSets, PacketSet

ASPECTS = ("verdict", "egress", "nat", "mark", "rule")
"""What may be compared; egress, nat and mark count where packets get through."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The packets that fare differently, those whose fate hangs on an undecided rule on either side left out; and
    these."""

    packets: PacketSet
    undecided: PacketSet


def compare(
    before: Host, after: Host, where: Condition | str, *, by: tuple[str, ...], scope: str,
    assume: Mapping[str | int, str] | None = None, names: Names | None = None,
) -> Compared:
    """The packets that `where` describes and that fare differently on the two hosts, by what `by` lists.

    Raises:
        QueryError: an unknown aspect, or a condition that does not fit the second host.
    """
    for aspect in by:
        if aspect not in ASPECTS:
            raise QueryError(f"packets cannot be compared by {aspect!r}; give some of {', '.join(ASPECTS)}")
    space = HeaderSpace.of(before, after)
    asked = to_set(in_scope(as_condition(where), scope), space, names or Names.of(after))
    first, second = (HostSets(space, host, assume=assume) for host in (before, after))
    return differing(first, second, by, asked)


def differing(first: HostSets, second: HostSets, by: Iterable[str], within: PacketSet) -> Compared:
    """The packets of a set that fare differently on two hosts of one space."""
    aspects = tuple(by)
    space, store = first.space, first.space.store
    rules = "rule" in aspects
    labels = [{r.id: (r.table, r.chain, r.text) for r in s.refs} for s in (first, second)]
    sides: list[dict[tuple[object, ...], list[tuple[Fate, int]]]] = []
    undecided = []
    for sets, names in zip((first, second), labels, strict=True):
        found: dict[tuple[object, ...], list[tuple[Fate, int]]] = defaultdict(list)
        for fate, here in sets.each_fate(rules=rules):
            part = store.both(here, within.diagram)
            if not part:
                continue
            if fate.verdict is Verdict.UNDECIDED:
                undecided.append(part)
            through = fate.verdict in REACHED
            key: tuple[object, ...] = (
                fate.verdict, fate.egress if through and "egress" in aspects else None,
                names.get(fate.rule) if rules else None)
            found[key].append((fate, part))
        sides.append(found)
    same = []
    for key, ours in sides[0].items():
        theirs = sides[1].get(key, [])
        if key[0] not in REACHED or not {"nat", "mark"} & set(aspects):
            same.append(store.both(store.any_of(p for _, p in ours), store.any_of(p for _, p in theirs)))
            continue
        same += _same_tuples(first, aspects, ours, theirs)
    hanging = space.set_of(store.any_of(undecided))
    return Compared(within - space.set_of(store.any_of(same)) - hanging, hanging)


def _same_tuples(
    sets: HostSets, aspects: tuple[str, ...], ours: list[tuple[Fate, int]], theirs: list[tuple[Fate, int]]
) -> list[int]:
    """Where two lists of fates that are alike otherwise give packets the same addresses, ports and mark."""
    store = sets.space.store

    def shown(fate: Fate) -> tuple[tuple[int, ...], ...]:
        nat = fate.rewrite.bits if "nat" in aspects else ()
        return (*nat, fate.mark) if "mark" in aspects else nat

    grouped: list[dict[tuple[tuple[int, ...], ...], int]] = []
    for side in (ours, theirs):
        parts: dict[tuple[tuple[int, ...], ...], list[int]] = defaultdict(list)
        for fate, part in side:
            parts[shown(fate)].append(part)
        grouped.append({key: store.any_of(found) for key, found in parts.items()})
    same = [store.both(here, grouped[1][key]) for key, here in grouped[0].items() if key in grouped[1]]
    done = store.any_of(same)
    left = [{key: rest for key, here in side.items() if (rest := store.without(here, done))} for side in grouped]
    for key, here in left[0].items():
        for other, there in left[1].items():
            both = store.both(here, there)
            if both:
                unlike = store.any_of(sets.origin.differ(a, b) for a, b in zip(key, other, strict=True))
                same.append(store.without(both, unlike))
    return same
