"""What became of packets: one row a packet in columns, and one counter a rule.

Invariant: ``rule`` indexes ``rules`` (-1 = none) and ``oif`` indexes ``interfaces`` (-1 = none); ``rule_packets`` and
``rule_bytes`` are indexed by rule id, policies included, as the kernel counts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastpath.errors import AbsentColumnError, PacketError
from fastpath.packets.schema import RESULT_COLUMNS, Hook, Verdict
from fastpath.packets.text import address_at, format_address, is_ip_address
from fastpath.ruleset.model import RuleRef

if TYPE_CHECKING:
    import pyarrow as pa

    from fastpath.packets.batch import PacketBatch

Array = npt.NDArray[Any]
COLUMNS = {c.name: c for c in RESULT_COLUMNS}


def wanted_columns(names: Iterable[str] | None) -> frozenset[str]:
    """The result columns that a caller asks for; None asks for all.

    Raises:
        PacketError: an unknown column, or none at all.
    """
    if names is None:
        return frozenset(COLUMNS)
    wanted = frozenset((names,) if isinstance(names, str) else names)
    for name in sorted(wanted - COLUMNS.keys()):
        raise PacketError(f"unknown result column {name!r}; the columns are {', '.join(COLUMNS)}")
    if not wanted:
        raise PacketError(f"no result column is asked for; the columns are {', '.join(COLUMNS)}")
    return wanted


def rule_label(ref: RuleRef) -> str:
    """A rule as files name it: ``"filter DOCKER 1"``, table, chain and number; a policy has number 0."""
    return f"{ref.table} {ref.chain} {ref.number}"


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one packet; the attributes are the result columns, ``oif`` by name (None: no egress)."""

    verdict: Verdict
    hook: Hook
    rule: int
    oif: str | None
    src: int
    dst: int
    sport: int
    dport: int
    mark: int
    rules_walked: int
    flags: int = 0
    family: int = 4

    def __str__(self) -> str:
        def end(address: int, port: int) -> str:
            text = format_address(address, self.family)
            return f"{text}:{port}" if self.family == 4 else f"[{text}]:{port}"

        out = f" out {self.oif}" if self.oif is not None else ""
        return (f"{self.verdict.name} at {self.hook.name}{out} {end(self.src, self.sport)} -> "
                f"{end(self.dst, self.dport)} mark {self.mark:#x} by rule {self.rule}")


@dataclass(frozen=True, slots=True)
class RuleCounter:
    """Packets and bytes that a rule matched, or that a policy decided."""

    ref: RuleRef
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Decision:
    """How many packets one rule or policy decided with one verdict; ``ref`` is None for routing's decisions."""

    ref: RuleRef | None
    verdict: Verdict
    packets: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A result in brief.

    Attributes:
        packets: their number.
        verdicts: number of packets by verdict, largest first; verdicts that did not occur are left out.
        decisions: number of packets by deciding rule and verdict, largest first, cut off behind the requested number.
        deciding: how many decisions there are before the cut.
    """

    packets: int
    verdicts: tuple[tuple[Verdict, int], ...]
    decisions: tuple[Decision, ...]
    deciding: int

    def __str__(self) -> str:
        share = 100 / self.packets if self.packets else 0.0
        lines = [f"{self.packets} packets"]
        lines += [f"  {v.name:<10} {count:>12} {count * share:6.2f} %" for v, count in self.verdicts]
        for d in self.decisions:
            what = str(d.ref) if d.ref is not None else "(routing)"
            lines.append(f"  {d.packets:>12} {d.verdict.name:<10} {what}")
        if self.deciding > len(self.decisions):
            lines.append(f"  and {self.deciding - len(self.decisions)} more")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Difference:
    """One cell in which two results differ, as files would write the two values."""

    row: int
    column: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"packet {self.row}: {self.column} {self.ours} != {self.theirs}"


@dataclass(frozen=True, slots=True)
class Differences:
    """Where two results differ; false where they do not.

    Attributes:
        rows: packets that differ in any column, ascending, int64.
        columns: for each column that differs, the packets that differ in it.
        examples: the first differing cells.
        counters: rules whose counters differ, as (rule label, our (packets, bytes), theirs).
    """

    rows: Array
    columns: Mapping[str, Array]
    examples: tuple[Difference, ...]
    counters: tuple[tuple[str, tuple[int, int], tuple[int, int]], ...]

    def __bool__(self) -> bool:
        return bool(len(self.rows)) or bool(self.counters)

    def __str__(self) -> str:
        if not self:
            return "no difference"
        lines = []
        if len(self.rows):
            counts = ", ".join(f"{name} {len(rows)}" for name, rows in self.columns.items())
            lines.append(f"{len(self.rows)} packets differ ({counts})")
            lines += [f"  {d}" for d in self.examples]
        if self.counters:
            lines.append(f"{len(self.counters)} counters differ")
            lines += [f"  {label}: {ours} != {theirs}" for label, ours, theirs in self.counters[:10]]
        return "\n".join(lines)


class Result:
    """What became of every packet of a batch, and what each rule counted.

    Attributes:
        verdict, hook, rule, oif, src, dst, sport, dport, mark, rules_walked, flags: numpy columns of one row a packet,
            of the dtypes of `fastpath.packets.schema.RESULT_COLUMNS`; ``src`` and ``dst`` have shape (n, 4) for IPv6.
            One that was not asked for is absent: reading it is an AbsentColumnError.
        columns: names of the columns that are there, in the schema's order.
        interfaces: names that ``oif`` indexes; -1 is none.
        rules: rules and policies that ``rule`` indexes; -1 is none (routing decided).
        rule_packets, rule_bytes: int64 by rule id; absent where no counters were asked for.
        family: 4 or 6.
    """

    verdict: Array
    hook: Array
    rule: Array
    oif: Array
    src: Array
    dst: Array
    sport: Array
    dport: Array
    mark: Array
    rules_walked: Array
    flags: Array
    rule_packets: Array
    rule_bytes: Array

    def __init__(
        self,
        columns: Mapping[str, Array],
        interfaces: Sequence[str],
        rules: Sequence[RuleRef],
        rule_packets: Array | None,
        rule_bytes: Array | None,
        *,
        family: int = 4,
        partial: bool = False,
    ) -> None:
        """A result from its columns.

        Args:
            columns: by the names of RESULT_COLUMNS. ``verdict`` is required, and one that is left out has its default,
                unless the result is partial.
            interfaces: names of the interface codes.
            rules: rules and policies by id.
            rule_packets, rule_bytes: counters by rule id, None where nothing was counted.
            family: 4 or 6.
            partial: columns that are left out are absent; one at least must be there.

        Raises:
            PacketError: unknown column, or lengths that do not fit.
        """
        if "verdict" not in columns and not (partial and columns):
            raise PacketError("result column verdict is missing")
        unknown = [name for name in columns if name not in COLUMNS]
        if unknown:
            raise PacketError(f"unknown result column {unknown[0]!r}; the columns are {', '.join(COLUMNS)}")
        self._n = len(next(iter(columns.values())))
        self.columns = tuple(name for name in COLUMNS if name in columns or not partial)
        self.family = family
        self.interfaces = tuple(interfaces)
        self.rules = tuple(rules)
        for column in RESULT_COLUMNS:
            shape = (self._n, 4) if family == 6 and is_ip_address(column) else (self._n,)
            values = columns.get(column.name)
            if values is None and partial:
                continue
            if values is None:
                values = np.broadcast_to(np.array(column.default, column.dtype), shape)
            elif values.shape != shape:
                raise PacketError(f"result column {column.name} has shape {values.shape} where {shape} is expected")
            setattr(self, column.name, values.astype(column.dtype, copy=False))
        for name, counts in (("rule_packets", rule_packets), ("rule_bytes", rule_bytes)):
            if counts is None:
                continue
            if np.shape(counts) != (len(self.rules),):
                raise PacketError(f"{name} has shape {np.shape(counts)} where {(len(self.rules),)} is expected")
            setattr(self, name, np.asarray(counts, np.int64))

    def __getattr__(self, name: str) -> Array:
        """Called for what is not there: columns and counters that were not asked for."""
        if name in ("rule_packets", "rule_bytes"):
            raise AbsentColumnError("the counters are absent: they were not asked for (counters=False)")
        if name in COLUMNS and "columns" in self.__dict__:
            raise AbsentColumnError(f"result column {name} is absent: only {', '.join(self.columns)} were asked for")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __len__(self) -> int:
        return self._n

    def __repr__(self) -> str:
        return f"Result({self._n} packets, {len(self.rules)} rules)"

    def column(self, name: str) -> Array:
        """A column by name.

        Raises:
            PacketError: an unknown column.
            AbsentColumnError: one that was not asked for.
        """
        if name not in COLUMNS:
            raise PacketError(f"unknown result column {name!r}; the columns are {', '.join(COLUMNS)}")
        values: Array = getattr(self, name)
        return values

    def __getitem__(self, index: int) -> Fate:
        row = index.__index__()
        if not -self._n <= row < self._n:
            raise IndexError(f"packet {row} of {self._n}")
        row %= self._n
        oif = int(self.oif[row])
        return Fate(
            verdict=Verdict(int(self.verdict[row])), hook=Hook(int(self.hook[row])), rule=int(self.rule[row]),
            oif=self.interfaces[oif] if oif >= 0 else None, src=address_at(self.src, row),
            dst=address_at(self.dst, row), sport=int(self.sport[row]), dport=int(self.dport[row]),
            mark=int(self.mark[row]), rules_walked=int(self.rules_walked[row]), flags=int(self.flags[row]),
            family=self.family)

    def counters(self) -> tuple[RuleCounter, ...]:
        """Packets and bytes of every rule and policy, in order of their ids.

        Raises:
            AbsentColumnError: nothing was counted.
        """
        return tuple(RuleCounter(ref, p, b) for ref, p, b in zip(
            self.rules, self.rule_packets.tolist(), self.rule_bytes.tolist(), strict=True))

    def summary(self, top: int | None = 20) -> Summary:
        """Numbers of packets by verdict, and by deciding rule and verdict (none of these where ``rule`` is absent).

        Args:
            top: how many decisions to keep; None keeps all.

        Raises:
            AbsentColumnError: ``verdict`` is absent.
        """
        from fastpath.packets.totals import Totals

        return Totals.of(self).summary(top)

    def differences(self, other: Result, columns: Iterable[str] | None = None, *, counters: bool = True,
                    examples: int = 10) -> Differences:
        """Where this result and another one of the same packets differ.

        Interfaces are compared by name, and rules by table, chain and number where the two rule lists differ.

        Args:
            other: a result of as many packets.
            columns: result columns to compare; by default all of this result.
            counters: whether to compare the rules' counters too.
            examples: how many differing cells to spell out.

        Raises:
            PacketError: the numbers of packets or the families differ, or an unknown column.
            AbsentColumnError: a column that one of them lacks.
        """
        if len(self) != len(other) or self.family != other.family:
            raise PacketError(f"results of {len(self)} and {len(other)} packets cannot be compared"
                              if len(self) != len(other) else "results of different families cannot be compared")
        labels = [rule_label(r) for r in self.rules]
        other_labels = labels if self.rules == other.rules else [rule_label(r) for r in other.rules]
        found: dict[str, Array] = {}
        for name in self.columns if columns is None else columns:
            ours, theirs = self.column(name), other.column(name)
            if name == "oif" and self.interfaces != other.interfaces:
                ours, theirs = _by_name(ours, self.interfaces, theirs, other.interfaces)
            elif name == "rule" and labels is not other_labels:
                ours, theirs = _by_name(ours, labels, theirs, other_labels)
            unequal = ours != theirs
            rows = np.flatnonzero(unequal.any(axis=1) if unequal.ndim == 2 else unequal)
            if len(rows):
                found[name] = rows
        rows = np.unique(np.concatenate(list(found.values()))) if found else np.zeros(0, np.int64)
        shown: list[Difference] = []
        for row in rows[:examples].tolist():
            shown += [Difference(row, name, self.cell(name, row), other.cell(name, row))
                      for name, where in found.items() if where[np.searchsorted(where, row) % len(where)] == row]
        unequal_counters = _counter_differences(self, labels, other, other_labels) if counters else ()
        return Differences(rows, found, tuple(shown[:examples]), unequal_counters)

    def cell(self, name: str, row: int) -> str:
        """One value as files write it; "" for no interface and no rule.

        Raises:
            PacketError: an unknown column.
        """
        column = COLUMNS.get(name)
        values = self.column(name)
        assert column is not None
        if name == "verdict":
            return Verdict(int(values[row])).name
        if name == "hook":
            return Hook(int(values[row])).name
        if name == "rule":
            return rule_label(self.rules[values[row]]) if values[row] >= 0 else ""
        if name == "oif":
            return self.interfaces[values[row]] if values[row] >= 0 else ""
        if is_ip_address(column):
            return format_address(address_at(values, row), self.family)
        return str(int(values[row]))

    # -------------------------------------------------------------------------------------------- tables and files

    def to_arrow(self, packets: PacketBatch | None = None, *, addresses: str = "text") -> pa.Table:
        """The result's columns as an Arrow table in the form of files (see `fastpath.packets.files`).

        Args:
            packets: the batch that was evaluated, to have its columns stand in front.
            addresses: ``"text"``, or ``"int"`` for uint32 columns (family 4 only).

        Raises:
            PacketError: `packets` has another length.
        """
        from fastpath.packets.files import result_to_table

        return result_to_table(self, packets, addresses)

    def to_parquet(self, path: str | Path, packets: PacketBatch | None = None) -> None:
        """Writes the result, and the packets in front where given, as Parquet.

        Raises:
            PacketError: `packets` has another length, or the file cannot be written.
        """
        from fastpath.packets.files import write_table

        write_table(self.to_arrow(packets), path, "parquet")

    def to_csv(self, path: str | Path, packets: PacketBatch | None = None) -> None:
        """Writes the result, and the packets in front where given, as CSV.

        Raises:
            PacketError: `packets` has another length, or the file cannot be written.
        """
        from fastpath.packets.files import write_table

        write_table(self.to_arrow(packets), path, "csv")


def _by_name(ours: Array, our_names: Sequence[str], theirs: Array, their_names: Sequence[str]) -> tuple[Array, Array]:
    """Two code columns recoded to one list of names; -1 stays."""
    known: dict[str, int] = {}
    maps = [np.array([known.setdefault(name, len(known)) for name in names] + [-1], np.int64)
            for names in (our_names, their_names)]
    return maps[0][ours], maps[1][theirs]


def _counter_differences(
    ours: Result, our_labels: Sequence[str], theirs: Result, their_labels: Sequence[str],
) -> tuple[tuple[str, tuple[int, int], tuple[int, int]], ...]:
    def table(result: Result, labels: Sequence[str]) -> dict[str, tuple[int, int]]:
        counts = zip(result.rule_packets.tolist(), result.rule_bytes.tolist(), strict=True)
        return dict(zip(labels, counts, strict=True))

    a, b = table(ours, our_labels), table(theirs, their_labels)
    none = (0, 0)
    return tuple((label, a.get(label, none), b.get(label, none)) for label in dict.fromkeys([*a, *b])
                 if a.get(label, none) != b.get(label, none))
