"""Queries against brute force: a packet is in the answer if and only if evaluating it says so.

Hosts are drawn, packets stand at the edges of their rules, and conditions take their values from the packets and their
results, so that each holds for some. The oracle is the condition evaluated on columns; it knows nothing of sets.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

import fastpath as fp
from fastpath.analysis.query import Condition, Names, mask, query
from fastpath.analysis.query.compare import compare
from fastpath.analysis.query.conditions import Bits, Comparison, Item, Name, Span
from fastpath.analysis.query.fields import FIELDS, RESULT_COLUMN, WORDS
from fastpath.packets.schema import Verdict
from fastpath.reference import evaluate
from tests.strategies import edge_packets, random_host

HOSTS = 48
PACKETS = 150
CONDITIONS = 4


class Draw:
    """Draws conditions that hold for some of the packets at hand."""

    def __init__(self, seed: int, packets: fp.PacketBatch, result: fp.Result, names: Names) -> None:
        self.rnd = random.Random(seed)
        self.packets, self.result, self.names = packets, result, names
        self.arriving = [n for n, f in FIELDS.items() if not f.result and n != "oif"]
        self.results = [n for n, f in FIELDS.items() if f.result]

    def condition(self, fields: list[str], depth: int = 2) -> Condition:
        kind = self.rnd.random()
        if depth == 0 or kind < 0.3:
            if self.rnd.random() < 0.15 and fields is not self.arriving:
                return WORDS[self.rnd.choice(["reached", "blocked"])]
            return self.comparison(self.rnd.choice(fields))
        left, right = self.condition(fields, depth - 1), self.condition(fields, depth - 1)
        return left & right if kind < 0.55 else left | right if kind < 0.8 else ~left

    def comparison(self, name: str) -> Condition:
        return Comparison(name, tuple(dict.fromkeys(self.item(name) for _ in range(self.rnd.choice([1, 1, 2, 3])))))

    def item(self, name: str) -> Item:
        row = self.rnd.randrange(len(self.packets))
        info = FIELDS[name]
        if info.kind == "interface":
            known = [*(self.names.interfaces or ()), "br-+", "+"]
            return Name("interface", self.rnd.choice([n for n in known if n]))
        if info.kind == "rule":
            value = int(self.result.rule[row])
            ref = self.result.rules[value]
            return Name("rule", "none" if value < 0 else f"{ref.table} {ref.chain} {ref.number}")
        if name == "ctstate":
            return Span(code := self.rnd.randrange(5), code)
        values = self.result.column(RESULT_COLUMN[name]) if info.result else self.packets.column(name)
        value = int(values[row])
        if name == "verdict":
            value = value if value != Verdict.UNDECIDED else int(Verdict.DROP)
            return Span(value, value)
        if info.kind == "name":
            return Span(value, value)
        kind = self.rnd.random()
        if kind < 0.5:
            return Span(value, value)
        if kind < 0.7:
            size = (1 << self.rnd.randrange(info.top.bit_length())) - 1
            return Span(value & ~size, min(info.top, value | size))
        if kind < 0.85:
            bits = self.rnd.getrandbits(info.top.bit_length())
            return Bits(value & bits, bits)
        other = self.rnd.randrange(info.top + 1)
        return Span(min(value, other), max(value, other))


@pytest.mark.parametrize("chunk", range(4))
def test_queries_are_what_evaluation_says(chunk):
    held = 0
    for seed in range(chunk, HOSTS, 4):
        host = random_host(seed + 9000)
        packets = edge_packets(host, PACKETS, seed)
        result = evaluate(host, packets)
        names = Names.of(host)
        forced = [evaluate(host, packets, assume=dict.fromkeys(_modules(host), how)) for how in ("match", "no-match")]
        draw = Draw(seed, packets, result, names)
        decided = result.verdict != Verdict.UNDECIDED
        for _ in range(CONDITIONS):
            where = draw.condition(draw.arriving, 1)
            want = draw.condition(draw.results + draw.arriving)
            answer = query(host, where, want, scope="any")
            certain, maybe = answer.packets.contains(packets), answer.maybe.contains(packets)
            asked = mask(where, packets, names=names)
            expected = asked & mask(want, packets, result, names)
            about = f"seed {seed}: where {where} want {want}"
            assert np.array_equal(certain[decided], expected[decided]), about
            assert not maybe[decided].any(), about
            held += int(expected.sum())
            for other in forced:
                holds = asked & mask(want, packets, other, names)
                known = ~decided & (other.verdict != Verdict.UNDECIDED)
                assert holds[known & certain].all(), about
                assert not holds[known & ~certain & ~maybe].any(), about
    assert held > 200, "the conditions hold for some packets"


def _modules(host: fp.Host) -> set[str]:
    return {m.module for t in host.ruleset.tables for c in t.chains for r in c.rules for m in r.matches}


@pytest.mark.parametrize("seed", range(12))
def test_conditions_alone_are_what_columns_say(seed):
    host = random_host(seed + 9500)
    packets = edge_packets(host, 400, seed)
    result = evaluate(host, packets[:1])
    names = Names.of(host)
    draw = Draw(seed, packets, result, names)
    for _ in range(5):
        where = draw.condition(draw.arriving, 3)
        answer = query(host, where, scope="any")
        assert np.array_equal(answer.packets.contains(packets), mask(where, packets, names=names)), where


@pytest.mark.parametrize("seed", range(12))
def test_asserts_agree_with_packets(seed):
    """An assertion that passes is refuted by no packet; one that fails shows a packet that refutes it."""
    host = random_host(seed + 9700, undecided=False)
    packets = edge_packets(host, 300, seed)
    result = evaluate(host, packets)
    names = Names.of(host)
    draw = Draw(seed, packets, result, names)
    for _ in range(4):
        where = draw.condition(draw.arriving, 1)
        asked = mask(where, packets, names=names)
        through = result.verdict <= Verdict.LOCAL_IN
        for check, wrong in ((fp.assert_blocked, asked & through), (fp.assert_reaches, asked & ~through)):
            try:
                check(host, where, scope="any")
            except AssertionError as failure:
                text = str(failure)
                if "there are no" in text:
                    assert not asked.any()
                    continue
                reached = any(f"verdict  {v}" in text for v in ("FORWARD", "LOCAL_IN", "LOCAL_OUT"))
                assert reached is (check is fp.assert_blocked), text
            else:
                assert not wrong.any(), where


@pytest.mark.parametrize("seed", range(30))
def test_comparisons_are_what_evaluating_both_hosts_says(seed):
    """What differs between a host and the same without one of its rules, by all aspects, packet by packet."""
    before = random_host(seed + 9900, size=5)
    rules = [(t.name, c.name, n) for t in before.ruleset.tables for c in t.chains for n in range(1, len(c.rules) + 1)]
    table, chain, number = random.Random(seed).choice(rules)
    after = before.edit(f"iptables -t {table} -D {chain} {number}")
    packets = edge_packets(before, 300, seed)
    results = [evaluate(host, packets) for host in (before, after)]
    found = compare(before, after, "any", by=("verdict", "egress", "nat", "mark"), scope="any")
    differ = results[0].verdict != results[1].verdict
    through = (results[0].verdict <= Verdict.LOCAL_IN) & ~differ
    names = [np.array([*r.interfaces, ""], object)[r.oif] for r in results]
    differ |= through & (names[0] != names[1])
    for column in ("src", "dst", "sport", "dport", "mark"):
        differ |= through & (results[0].column(column) != results[1].column(column))
    undecided = (results[0].verdict == Verdict.UNDECIDED) | (results[1].verdict == Verdict.UNDECIDED)
    assert np.array_equal(found.packets.contains(packets), differ & ~undecided)
    assert np.array_equal(found.undecided.contains(packets), undecided)
