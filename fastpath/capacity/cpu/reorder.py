"""What a better order of the rules would save.

Rules that many packets match move up in their chain, past rules that they can change places with: neighbours that no
packet matches both of, in any hook where the chain is walked, or that do the same (the same verdict, with the same
options). What a rule is worth in front is how many packets it ends for each nanosecond that it costs the others, so
that one moves past another only where that ratio is larger. The saving is what a second walk of the same packets costs.

Safe direction of error: to leave a rule where it is. A rule with a test that is undecided (a rate, a clock, chance) is
never moved nor passed, since what it sees would change; nor is one whose target acts on more than the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fastpath.capacity.cpu.model import CostModel
from fastpath.capacity.cpu.result import CostResult, Move, Reordering
from fastpath.capacity.cpu.steps import Backend
from fastpath.capacity.cpu.walk import Walked, walk
from fastpath.compiler.fields import Condition, all_of
from fastpath.compiler.flow import Builder, conntrack_in_use
from fastpath.compiler.stages import stages_of_host
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch
from fastpath.ruleset.model import Chain, Rule, Ruleset

VERDICTS = frozenset({"ACCEPT", "DROP", "REJECT", "RETURN"})
"""Targets that do nothing but decide."""

HOT = 40
"""Rules of a chain that are tried in front."""

MAX_CHECKS = 200_000
"""Pairs of rules that are compared at most; a longer search is given up where it stands."""

FATE = ("verdict", "hook", "oif", "src", "dst", "sport", "dport", "mark")
"""Columns in which nothing may change."""


def reordered(
    host: Host, packets: PacketBatch, now: CostResult, walked: Walked, model: CostModel,
    assume: Mapping[str | int, str] | None = None, threads: int | None = None,
) -> Reordering:
    """The order that these packets ask for, as far as it is known to change no verdict."""
    nothing = Reordering(now.mean_ns, 0.0, (), str(host.ruleset), "nothing moves")
    if any(isinstance(key, int) for key in assume or ()):
        return replace(nothing, proof="assumptions by rule id hold for one order only")
    after, moves = _Search(host, walked, assume or {}, packets).run()
    if not moves:
        return nothing
    from fastpath.capacity.cpu.evaluate import packet_ns

    other = host.with_ruleset(after)
    costs = model.backend(now.backend)
    backend: Backend = "legacy" if now.backend == "legacy" else "nft"
    again = walk(other, packets, backend, costs, assume=assume, threads=threads)
    for name in FATE:
        if not np.array_equal(again.columns[name], walked.columns[name]):
            raise AssertionError(f"reordering changed {name}")
    mean = float(packet_ns(other, packets, again, costs).mean())
    if mean >= now.mean_ns:
        return nothing
    return Reordering(mean, now.mean_ns - mean, tuple(moves), str(after), proof(host, other, packets, assume or {}))


def proof(before: Host, after: Host, packets: PacketBatch, assume: Mapping[str | int, str]) -> str:
    """Proves with ``diff`` that no packet at all fares differently; says how it is known.

    Raises:
        AssertionError: one does.
    """
    from fastpath.analysis.diff import diff

    given = packets if packets.has("oif") else None
    changes = diff(before, after, given, by=("verdict", "egress", "nat"), assume=assume)
    if changes:
        raise AssertionError(f"reordering changed fates: {changes}")
    return ("no packet of any header has another verdict, egress or NAT (fastpath diff), and all "
            f"{len(packets)} packets given have the fate they had")


class _Search:
    """Chains, what their rules match in every hook, and how often."""

    def __init__(self, host: Host, walked: Walked, assume: Mapping[str | int, str], packets: PacketBatch) -> None:
        self.host = host
        given = packets.has("oif") and bool((packets.column("oif") >= 0).any())
        builder = Builder(host, assume, given, conntrack_in_use(host))
        self.conditions: dict[tuple[str, str], list[tuple[Condition, ...]]] = {}
        seen: set[str] = set()
        for stage in stages_of_host(builder):
            for key, block in stage.blocks.items():
                parts = key.split(":")
                if len(parts) == 3 and block.ops and all(op.counted for op in block.ops) and key not in seen:
                    seen.add(key)
                    found: list[tuple[Condition, ...]] = [(op.condition,) for op in block.ops]
                    known = self.conditions.get((parts[1], parts[2]))
                    self.conditions[parts[1], parts[2]] = (
                        found if known is None else [a + b for a, b in zip(known, found, strict=True)])
        self.refs = builder.refs
        self.matched, self.examined, self.ns = walked.matched, walked.examined, walked.rule_ns
        self.checks = 0

    def run(self) -> tuple[Ruleset, list[Move]]:
        """The new rules, and the moves."""
        moves: list[Move] = []
        tables = []
        for table in self.host.ruleset.tables:
            chains = []
            for chain in table.chains:
                order = self.order(table.name, chain)
                moves += _moves(table.name, chain, order)
                chains.append(replace(chain, rules=tuple(chain.rules[i] for i in order)))
            tables.append(replace(table, chains=tuple(chains)))
        return replace(self.host.ruleset, tables=tuple(tables)), moves

    def order(self, table: str, chain: Chain) -> list[int]:
        """The places of a chain's rules in their new order."""
        conditions = self.conditions.get((table, chain.name))
        order = list(range(len(chain.rules)))
        if conditions is None or len(order) < 2:
            return order
        ids = [self.refs[table, chain.name, i + 1] for i in order]
        worth = [self._worth(rule, ids[i]) for i, rule in enumerate(chain.rules)]
        hot = sorted((i for i in order if worth[i] > 0), key=lambda i: -worth[i])[:HOT]
        for i in hot:
            at = place = order.index(i)
            while place > 0 and worth[order[place - 1]] < worth[i]:
                if not self.commute(chain, conditions, order[place - 1], i):
                    break
                place -= 1
            if place < at:
                order.insert(place, order.pop(at))
        return order

    def _worth(self, rule: Rule, ref: int) -> float:
        """Packets that a rule ends, for each nanosecond that it costs all who come by."""
        if rule.target is None or rule.target.name not in VERDICTS or not self.matched[ref]:
            return 0.0
        each = float(self.ns[ref]) / max(1, int(self.examined[ref]))
        return float(self.matched[ref]) / max(0.1, each)

    def commute(self, chain: Chain, conditions: list[tuple[Condition, ...]], a: int, b: int) -> bool:
        """Whether two neighbours may change places."""
        if self.checks >= MAX_CHECKS:
            return False
        self.checks += 1
        if any(t.unknown for c in (*conditions[a], *conditions[b]) for t in c):
            return False
        first, second = chain.rules[a].target, chain.rules[b].target
        if first is not None and first == second and first.name in VERDICTS:
            return True
        return all(not all_of(one, other) for one, other in zip(conditions[a], conditions[b], strict=True))


def _moves(table: str, chain: Chain, order: list[int]) -> list[Move]:
    """The moves up that make an order: each rule that stands before one that it used to stand behind."""
    found = []
    highest = -1
    for place, i in enumerate(order):
        later = [j for j in order[place + 1:] if j < i]
        if later and i > highest:
            found.append(Move(table, chain.name, i + 1, min(later) + 1, str(chain.rules[i])))
        highest = max(highest, i) if not later else highest
    return found
