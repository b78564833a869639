"""What became of connections: columns of one row a connection, and the packets that they were judged by.

Invariants: ``leg`` is -1 exactly where ``outcome`` is WORKS; ``rule`` indexes ``rules`` and is -1 where no rule or
policy is to blame; the rows of every leg ascend, and those of a later leg are among those of an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastpath.errors import PacketError
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.result import Result, rule_label
from fastpath.packets.schema import LOCAL, Hook, Leg, Outcome, Verdict
from fastpath.packets.text import PORT_PROTOCOLS, format_address
from fastpath.ruleset.model import RuleRef

if TYPE_CHECKING:
    import pyarrow as pa

    from fastpath.reference.flows import FlowWalk

Array = npt.NDArray[Any]

COLUMNS: dict[str, str] = {
    "outcome": "uint8", "leg": "int8", "rule": "int32", "nat": "uint8", "mapped_src": "uint32", "mapped_dst": "uint32",
    "mapped_sport": "uint16", "mapped_dport": "uint16",
}
"""The columns of a connection and their dtypes."""

LEG_NAMES = {
    Leg.FIRST: "the first packet", Leg.REPLY: "the answer", Leg.LATER: "a later packet",
    Leg.LATER_REPLY: "a later answer",
}


@dataclass(frozen=True, slots=True)
class FlowLeg:
    """The packets of one kind (all first ones, all answers ...).

    Attributes:
        rows: int64, the connections that they are of; those that ended before have none.
        packets: they themselves, as they arrive (or are made), with their state and their connection's columns.
        result: what became of them; row i is of the connection ``rows[i]``.
    """

    rows: Array
    packets: PacketBatch
    result: Result


class FlowResult:
    """Whether connections work, and what stops those that do not.

    Attributes:
        packets: the first packets.
        host: where they were evaluated.
        outcome: uint8, :class:`Outcome`.
        leg: int8, the :class:`Leg` that the connection ends with; -1 where it works.
        rule: int32, the rule or policy that stops that packet; -1 where none does.
        nat: uint8, status bits of the connection: 16 its source was changed, 32 its destination.
        mapped_src, mapped_dst: uint32, the first packet's addresses at its end.
        mapped_sport, mapped_dport: uint16, its ports there.
        legs: four :class:`FlowLeg`, by :class:`Leg`.
        rules: rules and policies that ``rule`` indexes.
    """

    outcome: Array
    leg: Array
    rule: Array
    nat: Array
    mapped_src: Array
    mapped_dst: Array
    mapped_sport: Array
    mapped_dport: Array

    def __init__(self, host: Host, packets: PacketBatch, columns: Mapping[str, Array], legs: Sequence[FlowLeg],
                 assume: Mapping[str | int, str] | None = None) -> None:
        self.host = host
        self.packets = packets
        self.legs = tuple(legs)
        self.assume = dict(assume or {})
        self.rules: tuple[RuleRef, ...] = host.ruleset.refs()
        for name, dtype in COLUMNS.items():
            setattr(self, name, columns[name].astype(dtype, copy=False))

    def __len__(self) -> int:
        return len(self.packets)

    def __repr__(self) -> str:
        return f"FlowResult({len(self)} connections, {int(self.works.sum())} work)"

    @property
    def works(self) -> Array:
        """Boolean: whether the connection works."""
        found: Array = self.outcome == Outcome.WORKS
        return found

    def counters(self) -> tuple[Array, Array]:
        """Packets and bytes that every rule counts for all packets of all connections; int64 by rule id."""
        return (np.sum([leg.result.rule_packets for leg in self.legs], axis=0),
                np.sum([leg.result.rule_bytes for leg in self.legs], axis=0))

    def answerer(self, row: int) -> str:
        """Who would answer: ``local`` for the host itself, else the interface behind which; empty for nobody."""
        fate = self.legs[Leg.FIRST].result[self._row(row)]
        if fate.verdict is Verdict.LOCAL_IN:
            return LOCAL
        return (fate.oif or "") if fate.verdict in (Verdict.FORWARD, Verdict.LOCAL_OUT) else ""

    def _row(self, row: int) -> int:
        if not -len(self) <= row < len(self):
            raise IndexError(f"connection {row} of {len(self)}")
        return row % len(self)

    def reason(self, row: int) -> str:
        """One sentence: that the connection works, and through what NAT; or what stops it, where."""
        row = self._row(row)
        outcome = Outcome(int(self.outcome[row]))
        if outcome is Outcome.WORKS:
            return f"works{self._nat_text(row)}"
        leg = Leg(int(self.leg[row]))
        who = LEG_NAMES[leg]
        if outcome is Outcome.NO_FLOW:
            return "the first packet opens no connection"
        if outcome is Outcome.BYPASSED:
            return ("the answer does not come back through this host: both ends are on one link, and the server "
                    f"answers from {self._mapped(row, destination=True)}, which the client did not ask")
        held = self.legs[leg]
        at = int(np.searchsorted(held.rows, row))
        fate = held.result[at]
        rule = self.rules[fate.rule] if fate.rule >= 0 else None
        if outcome is Outcome.UNDECIDED:
            return f"undecided: {who} hangs on {rule or 'policy routing (ip rule)'}"
        if outcome is Outcome.STOPPED:
            by = str(rule) if rule is not None else self._routing(leg, at)
            return stopped_text(leg, fate.verdict, fate.hook, by)
        if outcome is Outcome.ASTRAY:
            where = f"leaves by {fate.oif}" if fate.oif is not None else "is delivered to this host"
            return f"{who} {where}, which is not where it belongs"
        return (f"{who} arrives as {_end(self, fate.src, fate.sport, row)} -> {_end(self, fate.dst, fate.dport, row)}, "
                "which the other end takes for none of this connection")

    def _routing(self, leg: Leg, at: int) -> str:
        """What routing said, in its own words."""
        from fastpath.reference.tracing import Remark, Routed

        told = self._traces(int(self.legs[leg].rows[at]))[leg]
        said = [e.text for e in told.events if isinstance(e, Routed | Remark)]
        return f"the kernel: {said[-1]}" if said else "the kernel"

    def _mapped(self, row: int, *, destination: bool) -> str:
        if destination:
            return _end(self, int(self.mapped_dst[row]), int(self.mapped_dport[row]), row)
        return _end(self, int(self.mapped_src[row]), int(self.mapped_sport[row]), row)

    def _nat_text(self, row: int) -> str:
        parts = []
        if self.nat[row] & 32:
            parts.append(f"to {self._mapped(row, destination=True)}")
        if self.nat[row] & 16:
            parts.append(f"from {self._mapped(row, destination=False)}")
        return f", translated {' and '.join(parts)}" if parts else ""

    def walk(self, row: int) -> FlowWalk:
        """The connection walked by the reference, packet by packet."""
        from fastpath.reference import Reference
        from fastpath.reference.flows import walk_flow

        return walk_flow(Reference(self.host, assume=self.assume), self.packets[self._row(row)])

    def _traces(self, row: int) -> list[Any]:
        from fastpath.reference import Reference

        reference = Reference(self.host, assume=self.assume)
        return [reference.trace(leg.packet, leg.connection) for leg in self.walk(row).legs]

    def explain(self, row: int, *, full: bool = False) -> str:
        """The connection told: its end in one sentence, and hook by hook what each of its packets meets.

        Args:
            row: which connection.
            full: list every rule that does not match, instead of folding runs of them.
        """
        from fastpath.analysis.explain import Explanation

        lines = [self.reason(row)]
        for leg, told in enumerate(self._traces(row)):
            lines += ["", LEG_NAMES[Leg(leg)].upper(), str(Explanation(told, full))]
        return "\n".join(lines)

    def to_arrow(self) -> pa.Table:
        """The connections as an Arrow table: the given packet columns, works, outcome, leg, stopped_by
        (``"filter DOCKER 1"``), nat (``"src"``, ``"dst"``, ``"src,dst"``) and the mapped addresses and ports."""
        import pyarrow as pa

        from fastpath.packets.files import addresses_column, words_column

        table = self.packets.to_arrow()
        added: dict[str, Any] = {
            "works": pa.array(self.works), "outcome": words_column(self.outcome, [o.name.lower() for o in Outcome]),
            "leg": words_column(self.leg, [leg.name.lower() for leg in Leg]),
            "stopped_by": words_column(self.rule, [rule_label(ref) for ref in self.rules]),
            "nat": words_column(self.nat >> 4, ["", "src", "dst", "src,dst"]),
            "mapped_src": addresses_column(self.mapped_src), "mapped_dst": addresses_column(self.mapped_dst),
            "mapped_sport": pa.array(self.mapped_sport), "mapped_dport": pa.array(self.mapped_dport)}
        for name, values in added.items():
            table = table.append_column(name, values)
        return table

    def summary(self) -> str:
        """How many connections work, and what stops the others, the most frequent first."""
        n = len(self)
        lines = [f"{n} connections, {int(self.works.sum())} work"]
        keys = np.stack([self.outcome.astype(np.int64), self.leg.astype(np.int64), self.rule.astype(np.int64)])
        found, counts = np.unique(keys[:, ~self.works], axis=1, return_counts=True)
        for at in np.argsort(-counts, kind="stable").tolist():
            outcome, leg, rule = found[:, at].tolist()
            by = f" by {self.rules[rule]}" if rule >= 0 else ""
            lines.append(f"{int(counts[at]):>10}  {Outcome(outcome).name.lower()}: {LEG_NAMES[Leg(leg)]}{by}")
        return "\n".join(lines)


def stopped_text(leg: Leg, verdict: Verdict, hook: Hook, by: str) -> str:
    """That a packet of a connection is stopped, where, and by what."""
    word = {Verdict.DROP: "dropped", Verdict.REJECT: "rejected", Verdict.ICMP_ERROR: "answered with an ICMP error"}
    return f"{LEG_NAMES[leg]} is {word[verdict]} in {hook.name} by {by}"


def _end(result: FlowResult, address: int, port: int, row: int) -> str:
    text = format_address(address, 4)
    return f"{text}:{port}" if int(result.packets.column("proto")[row]) in PORT_PROTOCOLS else text


def as_batch(flows: Any) -> PacketBatch:
    """First packets of whatever names them: a batch, or one or several objects that hold one as ``first``.

    Raises:
        PacketError: something else.
    """
    if isinstance(flows, PacketBatch):
        return flows
    many = flows if isinstance(flows, list | tuple) else [flows]
    batches = [getattr(flow, "first", None) for flow in many]
    if not many:
        return PacketBatch.empty()
    if not all(isinstance(batch, PacketBatch) for batch in batches):
        raise PacketError(f"{type(many[0]).__name__} is neither a PacketBatch nor a flow; `Topology.flow` makes flows")
    return PacketBatch.concat([batch for batch in batches if isinstance(batch, PacketBatch)])
