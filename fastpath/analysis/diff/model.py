"""The differences between two hosts.

Invariants of a :class:`Diff`: its regions are disjoint; a packet of its header space lies in one of them if and only if
the two hosts treat it differently in what ``by`` lists; each region holds at least one packet, its witness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastpath.host.model import Host
from fastpath.packets.packet import Packet
from fastpath.packets.schema import Verdict
from fastpath.ruleset.model import RuleRef
from fastpath.symbolic import PacketSet, Region, Rewrite

if TYPE_CHECKING:
    import pyarrow as pa

    from fastpath.analysis.diff.kinds import Kind
    from fastpath.analysis.explain import Explanation


@dataclass(frozen=True)
class Side:
    """How one of the hosts treats the packets of a region.

    Attributes:
        verdict: their fate.
        egress: the interfaces through which they leave, where they get through.
        rewrites: what NAT makes of them, where that was compared and they get through.
        rules: the rules and policies that decide about them, in the order of their ids; for UNDECIDED those on which
            the fate hangs.
        routed: True where routing decides about some, or no filter table is there to decide.
    """

    verdict: Verdict
    egress: tuple[str, ...]
    rewrites: tuple[Rewrite, ...]
    rules: tuple[RuleRef, ...]
    routed: bool

    def __str__(self) -> str:
        words = [self.verdict.name]
        if len(self.egress) == 1:
            words.append(f"out {self.egress[0]}")
        elif self.egress:
            words.append(f"out one of {len(self.egress)} interfaces")
        if len(self.rewrites) > 1:
            words.append(f"with one of {len(self.rewrites)} translations")
        elif self.rewrites and str(self.rewrites[0]) != "unchanged":
            words.append(str(self.rewrites[0]))
        return " ".join(words)


@dataclass(frozen=True)
class Difference:
    """One region of packets that fare differently.

    Attributes:
        region: which packets: a set of values for each column that matters.
        before, after: what becomes of them on either host.
        packets: how many of the packets given to :func:`diff` lie in it; None without such packets.
    """

    region: Region
    before: Side
    after: Side
    packets: int | None = None
    _hosts: tuple[Host, Host] = field(default=(), repr=False, compare=False)  # type: ignore[assignment]
    _assume: Mapping[str | int, str] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def headers(self) -> int:
        """How many headers the region holds, over the columns that the hosts can look at."""
        return self.region.count()

    @cached_property
    def witness(self) -> Packet:
        """A packet of the region, as ordinary as possible."""
        return self.region.witness()

    @property
    def undecided(self) -> bool:
        """True where the difference hangs on a rule that the header does not decide: on one side the fate is open."""
        return Verdict.UNDECIDED in (self.before.verdict, self.after.verdict)

    def explain(self) -> tuple[Explanation, Explanation]:
        """What the witness meets on its way through either host."""
        from fastpath.analysis.explain import explain

        first, second = (explain(host, self.witness, assume=self._assume) for host in self._hosts)
        return first, second

    def __str__(self) -> str:
        from fastpath.analysis.diff.text import difference_text

        return "\n".join(difference_text(self))


@dataclass(frozen=True)
class Diff:
    """What changes from one host to another. It is true where anything does.

    Attributes:
        before, after: the hosts.
        by: what is compared.
        where: the packets that were asked about; None for all.
        differences: disjoint regions, the largest first (of packets given to :func:`diff`, else of headers).
        packets: how many packets were given, None where none were.
        assume: what was assumed of undecided matches.
    """

    before: Host
    after: Host
    by: tuple[str, ...]
    where: PacketSet | None
    differences: tuple[Difference, ...]
    asked: PacketSet
    changed: PacketSet
    packets: int | None = None
    assume: Mapping[str | int, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.differences)

    def __len__(self) -> int:
        return len(self.differences)

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.differences)

    @property
    def headers(self) -> int:
        """How many headers fare differently."""
        return self.changed.count()

    @property
    def changed_packets(self) -> int | None:
        """How many of the given packets fare differently."""
        if self.packets is None:
            return None
        return sum(d.packets or 0 for d in self.differences)

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The regions by kind: those that are the same but for the network they are about are one kind."""
        from fastpath.analysis.diff.kinds import kinds

        return kinds(self.differences, self.asked.space, (self.before, self.after))

    def __str__(self) -> str:
        return self.text()

    def text(self, most: int = 20) -> str:
        """In words, the first `most` kinds of regions in full."""
        from fastpath.analysis.diff.text import diff_text

        return diff_text(self, most)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        from fastpath.analysis.diff.export import to_dict

        return to_dict(self)

    def to_json(self, indent: int | None = 2) -> str:
        """Everything as JSON."""
        import json

        return json.dumps(self.to_dict(), indent=indent)

    def to_arrow(self) -> pa.Table:
        """One row a region: its columns' values as text, fates and deciding rules of either side, headers (float64, for
        they may be more than 64 bits hold), packets, and the witness."""
        from fastpath.analysis.diff.export import to_arrow

        return to_arrow(self)
