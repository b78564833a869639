"""From a disagreement with the kernel to the smallest host and the plainest packet that still show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastpath.errors import FastpathError
from fastpath.host.model import Host
from fastpath.netns.compare import Agreement, Evaluate, compare
from fastpath.netns.judge import Backend, Judge
from fastpath.netns.plan import dotted, ipset_lines, route_text
from fastpath.packets.batch import PacketBatch
from fastpath.packets.packet import Packet
from fastpath.packets.schema import PACKET_COLUMNS
from fastpath.ruleset.model import Ruleset, Table

Place = tuple[int, int, int]


class Minimiser:
    """Asks again and again with less."""

    def __init__(self, engine_of: Callable[[Host], Evaluate], judge: Judge, backend: Backend, *,
                 questions: int = 300) -> None:
        """Args:
            engine_of: gives the engine for a host.
            judge: asks the kernel.
            backend: on which the disagreement was seen.
            questions: how often to ask at most; what is left then is not the smallest.
        """
        self._engine_of = engine_of
        self._judge = judge
        self._backend = backend
        self._left = questions

    def minimise(self, host: Host, agreement: Agreement) -> tuple[Host, Packet]:
        """The first disagreement's host with only the rules it needs, and its packet with as many defaults as can be.

        Args:
            host: the host of the comparison.
            agreement: a comparison with a disagreement, in packets or in counters alone.
        """
        rows = agreement.rows
        packets = agreement.packets.take(rows[:1]) if len(rows) else self._culprit(host, agreement.packets)
        host = self._fewer_rules(host, packets)
        return host, self._plainer(host, packets[0])

    def _differ(self, host: Host, packets: PacketBatch) -> bool:
        self._left -= 1
        try:
            return not compare(host, packets, self._engine_of(host), self._judge, self._backend)
        except FastpathError:  # what iptables refuses shows nothing
            return False

    def _culprit(self, host: Host, packets: PacketBatch) -> PacketBatch:
        """One packet whose counters differ, by halving; all that are left where only several together do."""
        while len(packets) > 1:
            half = len(packets) // 2
            for part in (packets[:half], packets[half:]):
                if self._differ(host, part):
                    packets = part
                    break
            else:
                break
        return packets[:1]

    def _fewer_rules(self, host: Host, packets: PacketBatch) -> Host:
        places = list(_places(host.ruleset))
        matched = self._matched(host, packets, places)
        if self._differ(_only(host, matched), packets):
            places = matched
        size = len(places)
        while size and self._left > 0:
            at = 0
            while at < len(places) and self._left > 0:
                rest = places[:at] + places[at + size:]
                if self._differ(_only(host, rest), packets):
                    places = rest
                else:
                    at += size
            size //= 2
        smaller = _only(host, places)
        bare = smaller.with_ruleset(_without_idle(smaller.ruleset))
        return bare if self._differ(bare, packets) else smaller

    def _matched(self, host: Host, packets: PacketBatch, places: Sequence[Place]) -> list[Place]:
        """Rules that counted in the engine or in the kernel: often no others are needed."""
        found = compare(host, packets, self._engine_of(host), self._judge, self._backend)
        counted = (found.engine.rule_packets > 0) | (found.kernel.rule_packets > 0)
        rules = [bool(counted[ref.id]) for ref in found.kernel.rules if ref.number]
        return [place for place, chosen in zip(places, rules, strict=True) if chosen]

    def _plainer(self, host: Host, packet: Packet) -> Packet:
        for column in PACKET_COLUMNS:
            default = None if column.name == "oif" else column.default
            if column.name in ("iif", "src", "dst", "proto") or getattr(packet, column.name) == default:
                continue
            values: dict[str, Any] = {column.name: default}
            plain = replace(packet, **values)
            if self._differ(host, PacketBatch.from_packets([plain])):
                packet = plain
        return packet


def _places(ruleset: Ruleset) -> Iterator[Place]:
    for t, table in enumerate(ruleset.tables):
        for c, chain in enumerate(table.chains):
            for r in range(len(chain.rules)):
                yield t, c, r


def _only(host: Host, places: Sequence[Place]) -> Host:
    kept = set(places)
    tables = tuple(
        replace(table, chains=tuple(
            replace(chain, rules=tuple(rule for r, rule in enumerate(chain.rules) if (t, c, r) in kept))
            for c, chain in enumerate(table.chains)))
        for t, table in enumerate(host.ruleset.tables))
    return host.with_ruleset(replace(host.ruleset, tables=tables))


def _without_idle(ruleset: Ruleset) -> Ruleset:
    """Without user chains that nothing jumps to, and without tables that accept everything."""
    tables: list[Table] = []
    for table in ruleset.tables:
        chains = table.chains
        while True:
            called = {rule.target.name for chain in chains for rule in chain.rules if rule.target is not None}
            fewer = tuple(chain for chain in chains if chain.policy is not None or chain.name in called)
            if len(fewer) == len(chains):
                break
            chains = fewer
        if any(chain.rules or chain.policy == "DROP" for chain in chains):
            tables.append(replace(table, chains=chains))
    return replace(ruleset, tables=tuple(tables))


def as_text(host: Host) -> dict[str, Any]:
    """A host as case files write one: rules, interfaces, routes, sysctl and ipset. Interfaces that are down are left
    out, and so are bridges' ports."""
    usable = [i for i in host.interfaces if i.up and i.master is None]
    return {
        "rules": str(host.ruleset),
        "interfaces": {i.name: [f"{dotted(a.address)}/{a.prefixlen}" for a in i.addresses if a.family == 4]
                       for i in usable},
        "routes": [route_text(r) for r in host.routes if r.dev is None or any(i.name == r.dev for i in usable)],
        "sysctl": dict(host.sysctls),
        "ipset": "\n".join(line for s in host.ipsets for line in ipset_lines(s)),
    }


def matched_rules(judge: Judge, host: Host, packet: Packet, backend: Backend) -> str:
    """The kernel's side of a story: what became of one packet, and every rule and policy that counted it."""
    judgement = judge.evaluate(host, PacketBatch.from_packets([packet]), backend)
    lines = [str(judgement[0]) if judgement.judged[0] else judgement.reason(0)]
    lines += [str(judgement.rules[i]) for i in np.flatnonzero(judgement.rule_packets).tolist()]
    return "\n".join(lines)
