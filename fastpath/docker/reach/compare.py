"""What changes between two engines, or between two topologies: rules by chain, and who reaches what."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from fastpath.docker.ends import OUTSIDE
from fastpath.docker.reach.matrix import Cell, Reachability, reachability
from fastpath.docker.topology import Topology
from fastpath.docker.version import EngineLike
from fastpath.host.model import Host


@dataclass(frozen=True, slots=True)
class ChainChange:
    """A chain that differs: policies (None: a user's chain, or no chain), and its rules as lines that start with ``-``,
    ``+`` or two blanks, unchanged ones near changes included."""

    table: str
    chain: str
    before: str | None
    after: str | None
    lines: tuple[str, ...]

    def __str__(self) -> str:
        words = [f"{self.table} {self.chain}"]
        if self.before != self.after:
            words.append(f"({self.before or 'not there'} -> {self.after or 'not there'})")
        return "\n".join([" ".join(words), *(f"  {line}" for line in self.lines)])


@dataclass(frozen=True, slots=True)
class CellChange:
    """A cell of both matrices that is reached in one of them only."""

    before: Cell
    after: Cell

    def __str__(self) -> str:
        def word(cell: Cell) -> str:
            return {True: "reached", False: "not reached", None: "undecided"}[cell.reach]

        return (f"{self.before.source} -> {self.before.target}: {word(self.before)} -> {word(self.after)}\n"
                f"  before: {self.before.reason}\n  after:  {self.after.reason}")


@dataclass(frozen=True)
class Comparison:
    """Two hosts.

    Attributes:
        before, after: the matrices.
        chains: chains that differ, in the order of the tables.
        cells: cells that are reached in one only.
        ways: cells that are reached in both, by other ways (directly, NAT, proxy).
        only_before, only_after: sources and targets that the other matrix lacks.
    """

    before: Reachability
    after: Reachability
    chains: tuple[ChainChange, ...]
    cells: tuple[CellChange, ...]
    ways: tuple[CellChange, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.chains or self.cells or self.ways or self.only_before or self.only_after)

    def __str__(self) -> str:
        names = [f"Docker {m.engine}" + (f", {m.topology.source}" if self.before.topology.source
                                         != self.after.topology.source else "") for m in (self.before, self.after)]
        lines = [f"before: {names[0]}", f"after:  {names[1]}", "", f"rules: {len(self.chains)} chains differ"]
        lines += [text for chain in self.chains for text in str(chain).splitlines()]
        lines += ["", f"reachability: {len(self.cells)} cells change, {len(self.ways)} are reached by another way"]
        for what, found in (("only before", self.only_before), ("only after", self.only_after)):
            lines += [f"{what}: {', '.join(found)}"] if found else []
        lines += [text for cell in self.cells for text in str(cell).splitlines()]
        for cell in self.ways:
            lines += [f"{cell.before.source} -> {cell.before.target}: {cell.before.mark} -> {cell.after.mark}",
                      f"  before: {cell.before.reason}", f"  after:  {cell.after.reason}"]
        return "\n".join(lines)


def compare_topologies(before: Topology, engine_before: EngineLike, after: Topology, engine_after: EngineLike, *,
                       outside: str = OUTSIDE) -> Comparison:
    """What changes from one topology and engine to another; for one topology under two engines give it twice."""
    one = reachability(before, engine_before, outside=outside)
    other = reachability(after, engine_after, outside=outside)
    names = [([s.name for s in m.sources], [t.name for t in m.targets]) for m in (one, other)]
    cells: list[CellChange] = []
    ways: list[CellChange] = []
    rows = {name: row for row, name in enumerate(names[1][0])}
    columns = {name: column for column, name in enumerate(names[1][1])}
    for row, source in enumerate(names[0][0]):
        for column, target in enumerate(names[0][1]):
            if source not in rows or target not in columns:
                continue
            at = rows[source], columns[target]
            if one.reach[row, column] == other.reach[at] and one.mark(row, column) == other.mark(*at):
                continue
            change = CellChange(one.cell(row, column), other.cell(*at))
            (cells if change.before.reach != change.after.reach else ways).append(change)
    return Comparison(
        one, other, tuple(chain_changes(one.host, other.host)), tuple(cells), tuple(ways),
        _missing(names[0], names[1]), _missing(names[1], names[0]))


def _missing(ours: tuple[list[str], list[str]], theirs: tuple[list[str], list[str]]) -> tuple[str, ...]:
    return tuple(name for mine, other in zip(ours, theirs, strict=True) for name in mine if name not in set(other))


def chain_changes(before: Host, after: Host) -> Iterator[ChainChange]:
    """The chains that differ between two hosts."""
    parts = []
    for host in (before, after):
        parts.append({
            (t.name, c.name): (c.policy, [str(rule) for rule in c.rules]) for t in host.ruleset.tables
            for c in t.chains})
    for key in dict.fromkeys([*parts[0], *parts[1]]):
        (policy, rules), (policy_after, rules_after) = (part.get(key, (None, [])) for part in parts)
        shown = ("user's chain" if key in parts[0] and policy is None else policy,
                 "user's chain" if key in parts[1] and policy_after is None else policy_after)
        if shown == shown[::-1] and rules == rules_after:
            continue
        if not rules and not rules_after and None in shown and key[1] in ("PREROUTING", "INPUT", "OUTPUT", "FORWARD",
                                                                         "POSTROUTING"):
            continue  # a builtin chain of a table that only one of them has
        lines = [line for line in difflib.unified_diff(rules, rules_after, n=1, lineterm="")
                 if not line.startswith(("---", "+++", "@@"))]
        yield ChainChange(*key, *shown, tuple(f"{line[0]} {line[1:]}" for line in lines))
