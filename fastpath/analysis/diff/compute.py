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
from fastpath.errors import CompileError, PacketError
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.schema import Verdict
from fastpath.symbolic import HeaderSpace, HostSets, PacketSet, Region, Rewrite

ASPECTS = ("verdict", "egress", "nat", "rule")
"""What can be compared. Egress and NAT count of packets that get through."""

THROUGH = frozenset({Verdict.FORWARD, Verdict.LOCAL_OUT, Verdict.LOCAL_IN, Verdict.ACCEPT})

Where: TypeAlias = "PacketSet | Callable[[HeaderSpace], PacketSet]"
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
        where: compare these packets only: a set, or a function that makes it for a header space.

    Raises:
        CompileError: an unknown aspect, IPv6 rules, or an assumption that does not exist.
        PacketError: packets of which some bring an egress interface and others do not.
    """
    aspects = (by,) if isinstance(by, str) else tuple(dict.fromkeys(by))
    for aspect in aspects:
        if aspect not in ASPECTS:
            raise CompileError(f"hosts cannot be compared by {aspect!r}; give some of {', '.join(ASPECTS)}")
    if not aspects:
        raise CompileError(f"by= is empty; give some of {', '.join(ASPECTS)}")
    space = HeaderSpace.of(before, after, given_oif=_given_oif(before, after, packets))
    asked = space.everything if where is None else where if isinstance(where, PacketSet) else where(space)
    if asked.space is not space:
        raise CompileError("the set of packets is one of another header space: give a function of the space instead")
    sides = tuple(HostSets(space, host, assume=assume) for host in (before, after))
    comparison = Comparison(sides[0], sides[1], aspects, asked)
    found = comparison.differences(packets, (before, after), assume or {})
    return Diff(
        before, after, aspects, None if where is None else asked, found, asked, comparison.changed,
        None if packets is None else len(packets), dict(assume or {}),
    )


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
        first, second = (self._fates(sets, asked) for sets in (before, after))
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
        found = []
        inside = None
        if packets is not None and self.changed:
            inside = packets.take(np.flatnonzero(self.changed.contains(packets)))
        for (ours, theirs), here in self.pairs.items():
            for region in PacketSet(self.space, here).regions():
                count = None if packets is None else 0
                if inside is not None:
                    count = int(np.count_nonzero(region.packets.contains(inside)))
                before, after = self._side(self.before, ours, region), self._side(self.after, theirs, region)
                found.append(Difference(region, before, after, count, hosts, assume))
        return tuple(sorted(found, key=lambda d: (d.packets or 0, d.headers), reverse=True))

    def _side(self, sets: HostSets, key: Key, region: Region) -> Side:
        rules = {rule for _, rule in sets.within(region.packets, ("verdict", "rule"))}
        return Side(key.verdict, key.egress, key.nat, tuple(sets.refs[i] for i in sorted(rules) if i >= 0), -1 in rules)


def rule_names(host: Host) -> dict[int, RuleName]:
    """What two hosts' rules can be recognised by, by rule id."""
    seen: Counter[tuple[str, str, str]] = Counter()
    names = {}
    for ref in host.ruleset.refs():
        text = (ref.table, ref.chain, ref.text)
        names[ref.id] = (*text, seen[text])
        seen[text] += 1
    return names
