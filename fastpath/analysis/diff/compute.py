"""Finds the packets that two hosts treat differently.

Both hosts' fates are partitions of one header space. Where a set of the one meets a set of the other with another fate,
the packets in both change; what NAT writes is compared as functions of the header, so a rewrite that happens to give a
packet the address it had is no difference.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fastpath.analysis.diff.model import Diff, Difference, Side
from fastpath.analysis.query.conditions import Condition
from fastpath.analysis.query.names import Names
from fastpath.analysis.query.scope import in_scope
from fastpath.analysis.query.sets import to_set
from fastpath.analysis.query.text import as_condition
from fastpath.errors import CompileError, PacketError
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.schema import Verdict
from fastpath.symbolic import HeaderSpace, HostSets, PacketSet, Region, Rewrite
from fastpath.symbolic.regions import Splitter, regions

ASPECTS = ("verdict", "egress", "nat", "rule")
"""What can be compared. Egress and NAT count of packets that get through."""

SPLITTING = 400_000
"""Steps of work in which all sets of a comparison are split into few regions: some seconds at most."""

MOST_REGIONS = 40
"""Regions beyond which packets whose fates differ in egress or NAT only are shown together."""

THROUGH = frozenset({Verdict.FORWARD, Verdict.LOCAL_OUT, Verdict.LOCAL_IN, Verdict.ACCEPT})

Where: TypeAlias = "Condition | str | Callable[[HeaderSpace], PacketSet]"
"""Packets to compare: a condition, or a function that gives their set in a header space."""
RuleName: TypeAlias = tuple[str, str, str, int]
"""A rule by table, chain, text, and its number among those of the chain with that text: what two hosts' rules have in
common, though their ids differ."""


@dataclass(frozen=True)
class Key:
    """A fate as far as it is compared, and its verdict."""

    verdict: Verdict
    egress: str | None
    nat: Rewrite | None
    rule: RuleName | None


def diff(
    before: Host,
    after: Host,
    packets: PacketBatch | None = None,
    *,
    by: str | Iterable[str] = "verdict",
    assume: Mapping[str | int, str] | None = None,
    where: Where | None = None,
    scope: str = "any",
) -> Diff:
    """Which packets two hosts treat differently: all of them, exactly.

    Args:
        before, after: the hosts. Packets are those of one header space: of hosts whose routes are known, arriving
            on any interface or made by the host; where the routes of one are not known (a save file), packets that
            bring their egress interface.
        packets: packets to count by region. Where all of them bring their egress interface, such packets are compared.
        by: what to compare: one or several of ``verdict``, ``egress``, ``nat`` and ``rule`` (the rule that decides,
            known by its text, wherever it moved in its chain).
        assume: what to take undecided matches for, as for :func:`fastpath.compile`; by module, for the ids of rules
            may differ.
        where: compare these packets only: a condition (as for :func:`fastpath.query`; its names are those of `after`),
            or a function that makes a set for a header space.
        scope: what `where` leaves open: ``any`` packets, ``new`` ones of no known flow, or ``plain`` ordinary first
            packets (SYN, TTL 64, unfragmented ...), as for :func:`fastpath.query`.

    Raises:
        CompileError: an unknown aspect, IPv6 rules, or an assumption that does not exist.
        QueryError: a condition that cannot be read or asked, or an unknown scope.
        PacketError: packets of which some bring an egress interface and others do not.
    """
    aspects = (by,) if isinstance(by, str) else tuple(dict.fromkeys(by))
    for aspect in aspects:
        if aspect not in ASPECTS:
            raise CompileError(f"hosts cannot be compared by {aspect!r}; give some of {', '.join(ASPECTS)}")
    if not aspects:
        raise CompileError(f"by= is empty; give some of {', '.join(ASPECTS)}")
    space = HeaderSpace.of(before, after, given_oif=_given_oif(before, after, packets))
    asked = _asked(where, scope, space, after)
    sides = tuple(HostSets(space, host, assume=assume) for host in (before, after))
    comparison = Comparison(sides[0], sides[1], aspects, asked)
    found = comparison.differences(packets, (before, after), assume or {})
    return Diff(
        before, after, aspects, None if where is None and scope == "any" else asked, found, asked, comparison.changed,
        None if packets is None else len(packets), dict(assume or {}),
    )


def _asked(where: Where | None, scope: str, space: HeaderSpace, after: Host) -> PacketSet:
    """The packets that are asked about."""
    if callable(where):
        return where(space) & to_set(in_scope(as_condition("any"), scope), space, Names.of(after))
    return to_set(in_scope(as_condition("any" if where is None else where), scope), space, Names.of(after))


def _given_oif(before: Host, after: Host, packets: PacketBatch | None) -> bool | None:
    """Whether packets bring their egress interface (None: as the hosts need it)."""
    if packets is None or not len(packets):
        return None
    given = packets.column("oif") >= 0
    if given.all():
        return True
    if given.any():
        row = int(np.flatnonzero(given)[0])
        raise PacketError(f"packet {row} brings an egress interface and others do not: compare them one kind at a time")
    if not (before.complete and after.complete):
        raise PacketError("the routes of one of the hosts are not known: give the packets an oif column (an interface "
                          "name, or local for what is delivered to the host)")
    return None


class Comparison:
    """Two hosts' fates side by side.

    Attributes:
        changed: every packet that fares differently.
        pairs: how packets fared and fare -> they; disjoint.
    """

    def __init__(self, before: HostSets, after: HostSets, aspects: tuple[str, ...], asked: PacketSet) -> None:
        self.before, self.after, self.aspects = before, after, aspects
        self.space = before.space
        store = self.space.store
        names = (rule_names(before.host), rule_names(after.host))
        possible = asked & before.affected(after, names if "rule" in aspects else None)
        for sets in (before, after):
            sets.restrict(possible)
        first, second = (self._fates(sets, possible) for sets in (before, after))
        self.pairs: dict[tuple[Key, Key], int] = {}
        for ours, here in first.items():
            if ours in second:
                here = store.without(here, second[ours])
            for theirs, there in second.items():
                if not here:
                    break
                both = store.both(here, there)
                if not both:
                    continue
                here = store.without(here, both)
                both = store.both(both, self._unlike(ours, theirs))
                if both:
                    self.pairs[ours, theirs] = both
        self.changed = PacketSet(self.space, store.any_of(self.pairs.values()))

    def _unlike(self, ours: Key, theirs: Key) -> int:
        """Where two fates differ in what is compared."""
        if "verdict" in self.aspects and ours.verdict is not theirs.verdict:
            return 1
        if (ours.egress, ours.rule) != (theirs.egress, theirs.rule):
            return 1
        if ours.nat is None or theirs.nat is None:
            return int(ours.nat is not theirs.nat)
        differ = self.before.origin.differ
        return self.space.store.any_of(differ(a, b) for a, b in zip(ours.nat.bits, theirs.nat.bits, strict=True))

    def _fates(self, sets: HostSets, asked: PacketSet) -> dict[Key, int]:
        """The packets asked about, by what is compared."""
        aspects, store = self.aspects, self.space.store
        names = rule_names(sets.host)
        found: dict[Key, list[int]] = defaultdict(list)
        wanted = tuple(dict.fromkeys(("verdict", *aspects)))
        for values, here in sets.within(asked, wanted).items():
            fate = dict(zip(wanted, values, strict=True))
            through = fate["verdict"] in THROUGH
            key = Key(
                fate["verdict"], fate.get("egress") if through else None, fate.get("nat") if through else None,
                names.get(fate.get("rule", -1)),
            )
            found[key].append(here.diagram)
        return {key: store.any_of(parts) for key, parts in found.items()}

    def differences(
        self, packets: PacketBatch | None, hosts: tuple[Host, Host], assume: Mapping[str | int, str]
    ) -> tuple[Difference, ...]:
        """The regions, merged, with what becomes of them."""
        inside = None
        if packets is not None and self.changed:
            inside = packets.take(np.flatnonzero(self.changed.contains(packets)))
        found = []
        for parts, (ours, theirs) in self._regions():
            for region in parts:
                count = None if packets is None else 0
                if inside is not None:
                    count = int(np.count_nonzero(region.packets.contains(inside)))
                before, after = self._side(self.before, ours, region), self._side(self.after, theirs, region)
                found.append(Difference(region, before, after, count, hosts, assume))
        return tuple(sorted(found, key=lambda d: (d.packets or 0, d.headers), reverse=True))

    def _regions(self) -> list[tuple[tuple[Region, ...], tuple[Verdict, Verdict]]]:
        """Regions with the same verdicts on either side. What else is compared is told apart as far as that leaves few
        enough to read: rules never, egress and NAT if they are no more than ``MOST_REGIONS``."""
        levels = [tuple(a for a in kept if a in self.aspects) for kept in (("egress", "nat"), ("egress",), ())]
        splitter = Splitter(self.space, SPLITTING)
        for kept in dict.fromkeys(levels):
            grouped: dict[tuple[tuple[object, ...], tuple[object, ...]], list[int]] = defaultdict(list)
            for (ours, theirs), here in self.pairs.items():
                first, second = ((k.verdict, *(getattr(k, aspect) for aspect in kept)) for k in (ours, theirs))
                grouped[first, second].append(here)
            if len(grouped) > MOST_REGIONS and kept:
                continue
            store = self.space.store
            found = [
                (regions(PacketSet(self.space, store.any_of(parts)), splitter), (first[0], second[0]))
                for (first, second), parts in grouped.items()
            ]
            if not kept or sum(len(parts) for parts, _ in found) <= MOST_REGIONS:
                break
        return found  # type: ignore[return-value]

    def _side(self, sets: HostSets, verdict: Verdict, region: Region) -> Side:
        rules: dict[int, None] = {}
        egress: dict[str, None] = {}
        rewrites: dict[Rewrite, None] = {}
        asked = ["egress", *(["nat"] if "nat" in self.aspects else [])] if verdict in THROUGH else []
        for _, rule, *rest in sets.within(region.packets, ("verdict", "rule", *asked)):
            rules[rule] = None
            for aspect, value in zip(asked, rest, strict=True):
                if aspect == "nat":
                    rewrites[value] = None
                elif value is not None:
                    egress[value] = None
        refs = tuple(sets.refs[i] for i in sorted(rules) if i >= 0)
        return Side(verdict, tuple(egress), tuple(rewrites), refs, -1 in rules)


def rule_names(host: Host) -> dict[int, RuleName]:
    """What two hosts' rules can be recognised by, by rule id."""
    seen: Counter[tuple[str, str, str]] = Counter()
    names = {}
    for ref in host.ruleset.refs():
        text = (ref.table, ref.chain, ref.text)
        names[ref.id] = (*text, seen[text])
        seen[text] += 1
    return names
