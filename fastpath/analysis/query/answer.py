"""The query: which packets, of all there are, fare as asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any as Json

from fastpath.analysis.explain import Explanation, explain
from fastpath.analysis.query.conditions import EVERYTHING, Condition
from fastpath.analysis.query.names import Names
from fastpath.analysis.query.scope import SCOPES, in_scope, settled
from fastpath.analysis.query.sets import to_set
from fastpath.analysis.query.text import as_condition
from fastpath.analysis.query.wants import wanted
from fastpath.host.model import Host
from fastpath.packets.packet import Packet
from fastpath.packets.schema import Verdict
from fastpath.ruleset.model import RuleRef
from fastpath.symbolic import HeaderSpace, HostSets, PacketSet
from fastpath.symbolic.regions import Region
from fastpath.symbolic.text import SHOWN_ORDER, column_text

Assume = Mapping[str | int, str]


def query(
    host: Host,
    where: Condition | str = EVERYTHING,
    want: Condition | str | None = None,
    *,
    scope: str = "new",
    assume: Assume | None = None,
    names: Names | None = None,
) -> Answer:
    """All packets that `where` describes and that fare as `want` says, or the proof that there are none.

    Args:
        host: rules and surroundings.
        where: which packets, by what they are when they arrive: a condition, or its text.
        want: what becomes of them, by their fate (and header); None for anything.
        scope: what `where` leaves open (see ``fastpath.analysis.query.scope``): ``new``, all packets of no known flow;
            ``plain``, ordinary first packets; ``any``, any packet.
        assume: what undecided matches are taken for, by module or rule id.
        names: what names in conditions stand for, where the host's folder does not tell.

    Raises:
        QueryError: a condition that does not fit the host.
        ParseError: a condition's text that cannot be read.
        CompileError: an IPv6 ruleset, or rules whose sets of packets outgrow memory.
    """
    first, second = as_condition(where), as_condition(want) if want is not None else None
    names = names or Names.of(host)
    space = HeaderSpace.of(host)
    asked = to_set(in_scope(first, scope), space, names)
    sets = HostSets(space, host, assume=assume)
    if second is None:
        return Answer(host, first, None, scope, sets, asked, space.nothing, dict(assume or {}))
    found = wanted(second, sets, names)
    return Answer(
        host, first, second, scope, sets, asked & found.certain, asked & found.possible, dict(assume or {}))


@dataclass(frozen=True)
class Found:
    """Packets that fare alike, as one region of headers.

    Attributes:
        region: a set of values for each column.
        verdict: what becomes of them (UNDECIDED where that hangs on a rule that no header decides).
        rule: the rule or policy that decides; None where routing does.
        count: how many headers it holds.
        witness: one of them, as ordinary as possible.
        text: the region in words, without the columns that the query's scope settles.
    """

    region: Region
    verdict: Verdict
    rule: RuleRef | None
    count: int
    witness: Packet
    text: str
    _host: Host = field(repr=False)
    _assume: Assume = field(repr=False)

    def explain(self) -> Explanation:
        """The witness's way through the host."""
        return explain(self._host, self.witness, assume=self._assume)

    def __str__(self) -> str:
        return f"{self.verdict.name:<10} {self.text}"

    def to_dict(self) -> dict[str, Json]:
        """Plain values, ready for JSON."""
        rule = None if self.rule is None else {
            "rule": self.rule.id, "table": self.rule.table, "chain": self.rule.chain, "number": self.rule.number,
            "text": self.rule.text}
        columns = {c: column_text(self.region, c) for c in self.region.columns}
        return {"region": columns, "verdict": self.verdict.name, "rule": rule, "headers": self.count,
                "witness": self.witness.as_dict()}


@dataclass(frozen=True)
class Answer:
    """What a query found; true where there is something, or may be.

    Attributes:
        host: the host that was asked about.
        where, want, scope: the question.
        sets: the fates of all packets on the host.
        packets: the packets that surely fare as asked.
        maybe: those that do for some outcome of undecided rules, and do not for another.
        assume: what was assumed of undecided matches.
    """

    host: Host
    where: Condition
    want: Condition | None
    scope: str
    sets: HostSets = field(repr=False)
    packets: PacketSet
    maybe: PacketSet
    assume: Assume
    _regions: list[tuple[Found, ...]] = field(default_factory=list, repr=False)

    def __bool__(self) -> bool:
        return bool(self.packets) or bool(self.maybe)

    @property
    def witness(self) -> Packet | None:
        """A packet that surely fares as asked, as ordinary as possible; None where there is none."""
        return self.packets.witness() if self.packets else None

    @property
    def regions(self) -> tuple[Found, ...]:
        """The packets that surely fare as asked, by fate and deciding rule; disjoint."""
        if not self._regions:
            self._regions.append(self._found(self.packets))
        return self._regions[0]

    @property
    def maybe_regions(self) -> tuple[Found, ...]:
        """The same of those that may fare as asked."""
        return self._found(self.maybe)

    def _found(self, packets: PacketSet) -> tuple[Found, ...]:
        if not packets:
            return ()
        refs = self.host.ruleset.refs()
        hidden = settled(self.where, self.scope)
        found: list[Found] = []
        for (verdict, rule), here in self.sets.fates(("verdict", "rule")).items():
            for region in (here & packets).regions():
                found.append(Found(region, verdict, refs[rule] if rule >= 0 else None, region.count(), region.witness(),
                                   _shown(region, hidden), self.host, self.assume))
        return tuple(sorted(found, key=lambda f: -f.count))

    def text(self, most: int = 20) -> str:
        """The answer for people, with at most `most` regions."""
        lines = [f"packets  {SCOPES[self.scope]}", f"where    {self.where}"]
        if self.want is not None:
            lines.append(f"want     {self.want}")
        if not self:
            lines += ["", "proved: there are no such packets"]
            return "\n".join(lines)
        if self.packets:
            lines += ["", *_listed(self.regions, most)]
        if self.maybe:
            lines += ["", "These hang on rules that no header decides (assume= decides them):",
                      *_listed(self.maybe_regions, most)]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()

    def to_dict(self) -> dict[str, Json]:
        """Plain values, ready for JSON."""
        return {
            "host": self.host.source, "where": str(self.where), "want": None if self.want is None else str(self.want),
            "scope": self.scope, "headers": self.packets.count(), "regions": [f.to_dict() for f in self.regions],
            "undecided": [f.to_dict() for f in self.maybe_regions], "proved_none": not self,
        }


def _shown(region: Region, hidden: tuple[str, ...]) -> str:
    """A region in one line, as its ``str()``, without some columns."""
    names = [c for c in (*SHOWN_ORDER, *(c for c in region.columns if c not in SHOWN_ORDER)) if c in region.columns]
    return "  ".join(f"{c} {column_text(region, c)}" for c in names if c not in hidden) or "all of them"


def _listed(found: tuple[Found, ...], most: int) -> list[str]:
    headers = sum(f.count for f in found)
    lines = [f"{headers:,} headers in {len(found)} region{'s' if len(found) != 1 else ''}"]
    for f in found[:most]:
        by = f.rule if f.rule is not None else "routing"
        lines += [str(f), f"           by {by}", f"           e.g. {f.witness}"]
    if len(found) > most:
        lines.append(f"and {len(found) - most} more regions")
    return lines
