"""What a host does to all packets at once: its fates as sets of headers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fastpath.compiler.fields import Values
from fastpath.compiler.flow import Builder, Ways, conntrack_in_use
from fastpath.compiler.stages import ways_of_chain
from fastpath.errors import CompileError
from fastpath.host.model import Host
from fastpath.packets.schema import LOCAL, Hook, Verdict
from fastpath.packets.text import format_address
from fastpath.symbolic.affected import Names, affected
from fastpath.symbolic.header import READS, Bits, Origin, constant_of
from fastpath.symbolic.space import HeaderSpace, PacketSet
from fastpath.symbolic.undecided import SHOWN, Doubts, Shown
from fastpath.symbolic.walk import Place, Walked, Walker

ASPECTS = ("verdict", "hook", "egress", "nat", "mark", "rule")
"""What fates can be told apart by."""

EGRESS_HOOKS = (Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING)

EFFECT_READS = ("src", "dst", "sport", "dport", "proto")


@dataclass(frozen=True)
class Rewrite:
    """What NAT made of source, destination and ports, as functions of the header that arrived.

    ``src``, ``dst``, ``sport``, ``dport`` are the new values, None where they stay, ``"*"`` where they depend on the
    header. Two rewrites of one header space are equal if and only if they give every header the same.
    """

    bits: tuple[Bits, ...]
    src: int | str | None
    dst: int | str | None
    sport: int | str | None
    dport: int | str | None

    def __str__(self) -> str:
        def end(address: int | str | None, port: int | str | None) -> str:
            shown = format_address(address, 4) if isinstance(address, int) else str(address or "")
            return shown + (f":{port}" if port is not None else "")

        parts = []
        if self.src is not None or self.sport is not None:
            parts.append(f"from {end(self.src, self.sport)}")
        if self.dst is not None or self.dport is not None:
            parts.append(f"to {end(self.dst, self.dport)}")
        return " ".join(parts) or "unchanged"


@dataclass(frozen=True)
class Fate:
    """One way for packets to end: attributes as in results; ``egress`` is a name or None."""

    verdict: Verdict
    hook: Hook
    egress: str | None
    rule: int
    rewrite: Rewrite
    mark: Bits

    def key(self, by: Iterable[str]) -> tuple[object, ...]:
        """The fate told apart by some aspects only."""
        values: dict[str, object] = {
            "verdict": self.verdict, "hook": self.hook, "egress": self.egress, "nat": self.rewrite, "mark": self.mark,
            "rule": self.rule,
        }
        return tuple(values[aspect] for aspect in by)


class HostSets:
    """The fates of all packets of a header space on one host.

    Attributes:
        space: the header space.
        host: the host, one of those that the space was made for.
    """

    def __init__(
        self, space: HeaderSpace, host: Host, *, assume: Mapping[str | int, str] | None = None,
        table: str | None = None, chain: str | None = None,
    ) -> None:
        """Args as for :func:`fastpath.compile`: `assume`, and one chain alone by `table` and `chain`.

        Raises:
            CompileError: a host that is not of the space, an assumption or chain that does not exist, or something
                that cannot be followed.
        """
        if not any(h is host or h == host for h in space.hosts):
            raise CompileError("the host is none of those that the header space was made for (HeaderSpace.of)")
        if not host.complete and not space.given_oif and chain not in ("PREROUTING", "INPUT"):
            raise CompileError("the host's routes are not known: packets must bring an egress interface "
                               "(HeaderSpace.of(..., given_oif=True))")
        if (table is None) != (chain is None):
            raise CompileError("a chain alone needs both its table and its name")
        self.space, self.host = space, host
        self.refs = host.ruleset.refs()
        assumed: dict[str | int, str] = {}
        for key, how in (assume or {}).items():
            if how not in ("match", "no-match") and (not how.startswith("column:") or how == "column:"):
                raise CompileError(f"cannot assume {how!r} of {key}: say match, no-match or column:NAME")
            if isinstance(key, int) and not 0 <= key < len(self.refs):
                raise CompileError(f"cannot assume anything of rule {key}: ids are below {len(self.refs)}")
            assumed[key] = how
        self.assume = assumed
        builder = Builder(host, assumed, space.given_oif, conntrack_in_use(host), space.interfaces)
        self.alone = chain is not None
        try:
            if table is None or chain is None:
                self._ways: Ways = builder.ways()
            else:
                self._ways = ways_of_chain(builder, table, chain)
        except LookupError:
            raise CompileError(f"there is no chain {chain} in table {table}") from None
        self.origin = Origin(space, host)
        walker = Walker(self.origin, self._ways)
        for base in walker.looked:
            if base.startswith("extra:"):
                space.bits_of(base)
            space.look_at(READS.get(base, (base,)))
        self._effects_read()
        self._packets = space.domain

    def restrict(self, packets: PacketSet) -> None:
        """Follows some packets only: fates are then a partition of these, and rules' sets are parts of them.

        Raises:
            CompileError: all packets have been followed already.
        """
        if "_walked" in self.__dict__:
            raise CompileError("these sets have been computed already")
        self._packets = packets.diagram

    @cached_property
    def _walked(self) -> Walked:
        return Walker(self.origin, self._ways).run(self._entries())

    def _effects_read(self) -> None:
        """Notes the columns that NAT and marks read."""
        steps = [s for found in self._ways.steps.values() for s in found]
        effects = [e for s in steps for b in s.blocks.values() for op in b.ops for e in op.effects]
        if effects:
            self.space.look_at(EFFECT_READS)

    def _entries(self) -> dict[str, int]:
        domain = self._packets
        if self.alone:
            return {"alone": domain}
        local = self.space.values_of("iif", Values.single(self.space.interface_id(LOCAL)))
        store = self.space.store
        return {"arriving": store.without(domain, local), "local": store.both(domain, local)}

    def affected(self, other: HostSets, names: tuple[Names, Names] | None = None) -> PacketSet:
        """The packets that may fare differently on another host of the space; none of the others does.

        Args:
            other: the other host's sets.
            names: names of either host's rules by id, where it matters which rule decides.
        """
        found = affected((self.origin, other.origin), (self._ways, other._ways), self._entries(), names)
        return PacketSet(self.space, found)

    # ------------------------------------------------------------------------------------------------- fates

    def _egress(self, place: Place) -> str | None:
        if place.verdict is Verdict.UNDECIDED or place.hook not in EGRESS_HOOKS or place.header.egress <= 0:
            return None
        return self.space.interfaces.names[place.header.egress]

    def _shown(self, place: Place) -> Shown:
        """What of an end makes a difference to a packet."""
        return (place.verdict, place.hook, self._egress(place), *(place.header.bits(b) for b in SHOWN))

    @cached_property
    def _ends(self) -> dict[Place, int]:
        return {place: self.space.store.any_of(parts) for place, parts in self._walked.ends.items()}

    @cached_property
    def _arrived(self) -> Rewrite:
        return self._rewrite(tuple(self.origin.bits(b) for b in SHOWN[:4]))

    def _rewrite(self, bits: tuple[Bits, ...]) -> Rewrite:
        values: list[int | str | None] = []
        for base, new in zip(SHOWN, bits, strict=False):
            number = constant_of(new)
            values.append(None if new == self.origin.bits(base) else "*" if number is None else number)
        return Rewrite(bits, *values)

    def _fate(self, place: Place, rule: int) -> Fate:
        if place.verdict is Verdict.UNDECIDED:
            return Fate(place.verdict, place.hook, None, rule, self._arrived, self.origin.bits("mark"))
        header = place.header
        rewrite = self._rewrite(tuple(header.bits(b) for b in SHOWN[:4]))
        return Fate(place.verdict, place.hook, self._egress(place), rule, rewrite, header.bits("mark"))

    @cached_property
    def doubtful(self) -> list[tuple[Fate, int]]:
        """The headers whose fate depends on undecided rules, by the rule that is named."""
        walked = self._walked
        if not walked.meetings:
            return []
        doubts = Doubts(self.origin, self._ends, self._shown, walked.meetings.values(), walked.met)
        mark = self.origin.bits("mark")
        return [
            (Fate(Verdict.UNDECIDED, meeting.hook, None, meeting.rule, self._arrived, mark), here)
            for meeting, here in doubts.named()
        ]

    @cached_property
    def _decided(self) -> list[tuple[Place, int]]:
        """The ends of the headers whose fate does not depend on undecided rules; disjoint sets of headers."""
        store = self.space.store
        variables = dict.fromkeys((m.variable for m in self._walked.meetings.values()), 0)
        open_ = store.any_of(here for _, here in self.doubtful)
        left = ((place, store.without(store.assign(here, variables), open_)) for place, here in self._ends.items())
        return [(place, here) for place, here in left if here]

    def _by_rule(self, rule: int | None, way: str, here: int) -> Iterator[tuple[int, int]]:
        """The packets of an end by deciding rule: the one that ended it, else what the way's filter table let pass."""
        if rule is not None:
            yield rule, here
            return
        store = self.space.store
        for rule, passed in self._accepted.get(way, {}).items():
            part = store.both(here, passed)
            if part:
                yield rule, part
                here = store.without(here, part)
                if not here:
                    return
        yield -1, here

    @cached_property
    def _accepted(self) -> dict[str, dict[int, int]]:
        store = self.space.store
        variables = dict.fromkeys((m.variable for m in self._walked.meetings.values()), 0)
        return {
            way: {rule: store.assign(store.any_of(parts), variables) for rule, parts in rules.items()}
            for way, rules in self._walked.accepted.items()
        }

    def each_fate(self, *, rules: bool = True) -> Iterator[tuple[Fate, int]]:
        """Every fate with its set, a partition of everything; without `rules` deciding rules are not told apart (and
        may be wrong)."""
        yield from self.doubtful
        for place, here in self._decided:
            if rules:
                for rule, part in self._by_rule(place.rule, place.way, here):
                    yield self._fate(place, rule), part
            else:
                yield self._fate(place, -1 if place.rule is None else place.rule), here

    def fates(self, by: str | Iterable[str] = ("verdict",)) -> dict[Any, PacketSet]:
        """The fates that occur, told apart by some aspects, with the headers that meet them: a partition of everything.

        Args:
            by: one aspect or several: ``verdict`` (a Verdict), ``hook``, ``egress`` (an interface's name or None),
                ``nat`` (a :class:`Rewrite`), ``mark`` (its bits), ``rule`` (the deciding rule's id, -1 for routing).

        Returns:
            Sets by fate: the aspect's value where one was asked for as text, else a tuple of values.
        """
        aspects = (by,) if isinstance(by, str) else tuple(by)
        found = self.within(self.space.everything, aspects)
        return {key[0]: here for key, here in found.items()} if isinstance(by, str) else dict(found)

    def within(self, packets: PacketSet, by: Iterable[str]) -> dict[tuple[Any, ...], PacketSet]:
        """The fates of some packets, told apart by some aspects: a partition of them (see :meth:`fates`)."""
        aspects = tuple(by)
        for aspect in aspects:
            if aspect not in ASPECTS:
                raise CompileError(f"fates cannot be told apart by {aspect!r}; aspects are {', '.join(ASPECTS)}")
        store = self.space.store
        found: dict[tuple[Any, ...], list[int]] = {}
        grouped: dict[tuple[tuple[Any, ...], int | None, str], list[int]] = {}
        rules = "rule" in aspects
        for fate, here in self.doubtful:
            part = store.both(here, packets.diagram)
            if part:
                found.setdefault(fate.key(aspects), []).append(part)
        for place, here in self._decided:
            part = store.both(here, packets.diagram)
            if part:
                key = self._fate(place, -1).key(aspects)
                grouped.setdefault((key, place.rule if rules else -1, place.way), []).append(part)
        at = aspects.index("rule") if rules else 0
        for (key, rule, way), parts in grouped.items():
            if not rules:
                found.setdefault(key, []).extend(parts)
                continue
            for decided, part in self._by_rule(rule, way, store.any_of(parts)):
                found.setdefault((*key[:at], decided, *key[at + 1:]), []).append(part)
        return {key: PacketSet(self.space, store.any_of(parts)) for key, parts in found.items()}

    # ------------------------------------------------------------------------------------------------- rules

    @cached_property
    def _recorded(self) -> Walked:
        return Walker(self.origin, self._ways, record=True).run(self._entries())

    def _possible(self, found: Mapping[int, set[int]]) -> dict[int, PacketSet]:
        store = self.space.store
        variables = [m.variable for m in self._recorded.meetings.values()]
        return {
            ref.id: PacketSet(self.space, store.some(store.any_of(found.get(ref.id, ())), variables))
            for ref in self.refs
        }

    def _plain(self, found: Mapping[int, set[int]]) -> dict[int, PacketSet]:
        store = self.space.store
        variables = dict.fromkeys((m.variable for m in self._recorded.meetings.values()), 0)
        return {
            ref.id: PacketSet(self.space, store.assign(store.any_of(found.get(ref.id, ())), variables))
            for ref in self.refs
        }

    @cached_property
    def reached(self) -> dict[int, PacketSet]:
        """By rule id the headers whose packet is examined by the rule, by a policy's id those that come to it, for
        some outcome of undecided rules."""
        return self._possible(self._recorded.reached)

    @cached_property
    def matched(self) -> dict[int, PacketSet]:
        """By rule id the headers whose packet the rule matches, by a policy's id those that it decides, for some
        outcome of undecided rules."""
        found = self._recorded
        both = {ref.id: found.matched.get(ref.id, set()) | found.doubtful.get(ref.id, set()) for ref in self.refs}
        return self._possible(both)

    @cached_property
    def counted(self) -> dict[int, PacketSet]:
        """By rule id the headers that the rule counts: matched, where no undecided rule matches (as results count)."""
        return self._plain(self._recorded.matched)

    @cached_property
    def examined(self) -> dict[int, PacketSet]:
        """By rule id the headers whose packet is examined where no undecided rule matches."""
        return self._plain(self._recorded.reached)
