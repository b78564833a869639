"""What a cost evaluation finds: frozen data with plain forms for reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)


@dataclass(frozen=True, slots=True)
class ClassCost:
    """Packets of one flow class: the way they take, from and to which kind of interface, state, and verdict.

    Attributes:
        name: the class in words, such as ``FORWARD outside -> inside new``.
        packets: how many.
        share: their part of all nanoseconds, 0 to 1.
        mean_ns, p50_ns, p99_ns: nanoseconds for each packet.
        rules: rules examined for each packet, on average.
    """

    name: str
    packets: int
    share: float
    mean_ns: float
    p50_ns: float
    p99_ns: float
    rules: float


@dataclass(frozen=True, slots=True)
class ChainCost:
    """A chain: nanoseconds that its rules cost each packet of the whole traffic, on average, and their part of all."""

    table: str
    chain: str
    ns: float
    share: float
    examined: float


@dataclass(frozen=True, slots=True)
class RuleCost:
    """A rule: nanoseconds for each packet of the whole traffic, on average.

    Attributes:
        rule: its id in ``Ruleset.refs()``.
        table, chain, number, text: the same of its RuleRef.
        ns: nanoseconds for each packet.
        share: its part of all nanoseconds, 0 to 1.
        examined, matched: how many packets came to it and how many it matched.
    """

    rule: int
    table: str
    chain: str
    number: int
    text: str
    ns: float
    share: float
    examined: int
    matched: int


@dataclass(frozen=True, slots=True)
class Move:
    """A rule that would better stand elsewhere in its chain (numbers from 1, of the chain as it is now)."""

    table: str
    chain: str
    number: int
    before: int
    text: str


@dataclass(frozen=True, slots=True)
class Reordering:
    """What another order of the rules would save, with every packet's verdict as it was.

    Attributes:
        mean_ns: nanoseconds for each packet afterwards.
        saved_ns: what that is less than now.
        moves: the moves, in order.
        ruleset: the reordered rules, as iptables-save text.
        proof: how it is known that no verdict changes.
    """

    mean_ns: float
    saved_ns: float
    moves: tuple[Move, ...]
    ruleset: str
    proof: str


@dataclass(frozen=True)
class CostResult:
    """What netfilter costs the given packets on a host.

    Attributes:
        backend: ``legacy`` or ``nft``.
        packets: how many packets were evaluated.
        ns: nanoseconds of each packet, float32 of shape (packets,).
        mean_ns: their mean.
        percentiles: percentile -> nanoseconds.
        base_ns: the part of the mean that no rule causes: the packet's way itself, hooks, connection tracking.
        rules_ns: the part that rules cause; ``mean_ns - base_ns``.
        rules_examined: rules examined for each packet, on average.
        packets_per_second: packets that one core can take, at the mean.
        by_class: the flow classes, the most expensive first.
        by_chain: the chains, the most expensive first.
        top_rules: the ten rules that cost most.
        reordering: what another order would save; None where it was not asked for.
        calibration: whose figures these are: machine, kernel, date.
        outside: matches and targets of the ruleset that the model has no figure of its own for.
        assumptions: what was taken for granted, in words.
    """

    backend: str
    packets: int
    ns: npt.NDArray[np.float32] = field(repr=False, compare=False)
    mean_ns: float
    percentiles: dict[float, float]
    base_ns: float
    rules_ns: float
    rules_examined: float
    packets_per_second: float
    by_class: tuple[ClassCost, ...]
    by_chain: tuple[ChainCost, ...]
    top_rules: tuple[RuleCost, ...]
    calibration: str
    reordering: Reordering | None = None
    outside: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; without the nanoseconds of every packet."""
        plain: dict[str, Any] = {
            name: getattr(self, name) for name in (
                "backend", "packets", "mean_ns", "base_ns", "rules_ns", "rules_examined", "packets_per_second",
                "calibration")
        }
        plain["percentiles"] = {f"{p:g}": ns for p, ns in self.percentiles.items()}
        for name in ("by_class", "by_chain", "top_rules"):
            plain[name] = [asdict(each) for each in getattr(self, name)]
        plain["reordering"] = None if self.reordering is None else asdict(self.reordering)
        return plain | {"outside": list(self.outside), "assumptions": list(self.assumptions)}

    def to_arrow(self) -> pa.Table:
        """The chains as a table: table, chain, ns, share, examined."""
        import pyarrow as pa

        return pa.Table.from_pylist([asdict(each) for each in self.by_chain])
