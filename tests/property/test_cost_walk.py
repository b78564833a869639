"""The walk that adds up costs makes exactly the tests that the kernel makes: compared, packet by packet, with the
reference, which is asked for the outcome of every single test at the moment that the rule is examined."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fastpath as fp
from fastpath.capacity.cpu.model import BASE, TRACK, BackendCosts
from fastpath.capacity.cpu.steps import Backend, plan_of
from fastpath.capacity.cpu.walk import walk
from fastpath.host.ipset import IpSetTester
from fastpath.host.model import Host
from fastpath.packets import PacketBatch, Verdict
from fastpath.reference import builtin
from fastpath.reference.evaluate import states_of
from fastpath.reference.matches import tests_of as asked_by
from fastpath.reference.program import CompiledRule, Program
from fastpath.reference.state import PacketState
from fastpath.reference.test import Surroundings, Test
from fastpath.reference.tracing import Recorder
from fastpath.reference.walk import Machine
from fastpath.ruleset.model import Rule
from tests.strategies import edge_packets, random_drawn

DATA = Path(__file__).parents[2] / "data" / "hosts"


class EveryName(dict[str, float]):
    """A figure of its own for every parameter, so that one too many or too few shows."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> float:
        return 1 + zlib.crc32(name.encode()) % 9973 / 16


COSTS = BackendCosts(
    dict.fromkeys(BASE, 0.0), {t: 1000.0 + i for i, t in enumerate(("raw", "mangle", "nat", "filter", "security"))},
    dict.fromkeys(TRACK, 0.0), {"new": 0.0, "known": 0.0}, EveryName(), 0.375, 0, 0.0, 0, 0.0)

HEADER = {
    "legacy": ("source", "destination", "in_interface", "out_interface", "protocol", "fragment"),
    "nft": ("in_interface", "out_interface", "protocol", "source", "destination", "fragment"),
}
"""The order in which a kernel tests the header: struct ipt_ip's (ip_packet_match()), and that of nft's expressions."""

NAMES = {"source": "src", "destination": "dst", "in_interface": "in", "out_interface": "out", "protocol": "proto",
         "fragment": "frag"}


def outcome(tests: list[Test], p: PacketState) -> bool:
    """Whether all hold; one that has no answer does not (the baseline)."""
    return all(test.check(p) is True for test in tests)


class Oracle(Recorder):
    """Adds up, rule by rule, what the reference's own tests come to."""

    def __init__(self, program: Program, backend: Backend) -> None:
        super().__init__(program.refs)
        host = program.host
        self.around = Surroundings(host, program.router, IpSetTester(host))
        self.rules = {(t.name, c.name, i): rule for t in host.ruleset.tables for c in t.chains
                      for i, rule in enumerate(c.rules, 1)}
        self.chains = {(t.name, c.name) for t in host.ruleset.tables for c in t.chains}
        self.host, self.backend = host, backend
        self.ns = self.read = 0.0

    def enter(self, p: PacketState, table: str, chain: str) -> None:
        self.ns += COSTS.hook[table]

    def examine(self, p: PacketState, rule: CompiledRule, matched: bool | None, depth: int) -> None:
        plain = self.rules[rule.ref.table, rule.ref.chain, rule.ref.number]
        user_chain = plain.target is not None and (rule.ref.table, plain.target.name) in self.chains
        plan = plan_of(plain, self.host, self.backend, user_chain=user_chain)
        self.read += plan.bytes
        before = self.rules.get((rule.ref.table, rule.ref.chain, rule.ref.number - 1))
        if before is not None:
            shapes = [[step.fail for step in plan_of(r, self.host, self.backend).steps] for r in (before, plain)]
            self.ns += COSTS.switch_ns * (shapes[0] != shapes[1])
        names = [step.name for step in plan.steps if step.match is None and step.name]
        assert names == [n for n in self.header(plain) if n in names]
        for step in plan.steps:
            tests = [] if step.match is None else asked_by(step.match, self.around)
            if step.match is None and step.name:
                only = {field: getattr(plain, field) for field, name in NAMES.items() if name == step.name}
                tests = list(builtin.tests(Rule(**only)))
            holds = outcome(tests, p)
            self.ns += COSTS.ns(step.pass_ if holds else step.fail)
            if not holds:
                assert not matched
                return
        assert matched, f"{plain}: every step holds, and the rule does not match"
        self.ns += COSTS.ns(plan.matched)

    def header(self, rule: Rule) -> Iterator[str]:
        for field in HEADER[self.backend]:
            if getattr(rule, field) is not None:
                yield NAMES[field]


def check(host: Host, packets: PacketBatch, backend: Backend) -> None:
    found = walk(host, packets, backend, COSTS)
    program = Program(host)
    machine = Machine(program)
    for row, p in enumerate(states_of(packets, set())):
        oracle = Oracle(program, backend)
        p.hits, p.doubts, p.recorder = [], [], oracle
        machine.start(p)
        machine.run(p)
        assert found.columns["rules_walked"][row] == p.walked, packets[row]
        assert found.read[row] == pytest.approx(oracle.read), packets[row]
        assert found.ns[row] == pytest.approx(oracle.ns), packets[row]
    assert int(found.examined.sum()) == int(found.columns["rules_walked"].sum())
    result = fp.compile(host).evaluate(packets)
    assert np.array_equal(found.matched, result.rule_packets)
    assert np.array_equal(found.columns["rules_walked"], result.rules_walked)
    sure = result.verdict != Verdict.UNDECIDED
    for name in ("verdict", "hook", "rule", "src", "dst", "sport", "dport", "mark"):
        assert np.array_equal(found.columns[name][sure], result.column(name)[sure]), name


@pytest.mark.parametrize("backend", ["legacy", "nft"])
@pytest.mark.parametrize("seed", range(12))
def test_drawn_hosts(seed: int, backend: Backend) -> None:
    drawn = random_drawn(seed)
    host = drawn.host()
    check(host, edge_packets(host, 60, seed), backend)


@pytest.mark.parametrize("backend", ["legacy", "nft"])
@pytest.mark.parametrize("name", ["docker28-modes", "docker20-icc-false", "docker26-bridges"])
def test_captured_hosts(name: str, backend: Backend) -> None:
    host = Host.load(DATA / name)
    check(host, fp.synth.packets(host, 60, seed=3), backend)
    check(host, fp.synth.packets(host, 60, seed=3, profile="edges"), backend)


def test_packets_that_bring_their_egress() -> None:
    host = Host.load(DATA / "docker28-seed")
    packets = fp.synth.packets(host, 500, seed=5)
    result = fp.compile(host).evaluate(packets)
    given = PacketBatch.from_columns(
        {name: packets.column(name) for name in ("src", "dst", "proto", "sport", "dport", "state", "tcp_flags")}
        | {"iif": [packets.interfaces[i] for i in packets.column("iif")],
           "oif": [result.interfaces[i] if i >= 0 else "local" for i in result.oif]})
    assert walk(host, given, "nft", COSTS).columns["rules_walked"].sum() > 0
    assert np.array_equal(walk(host, given, "nft", COSTS).columns["rules_walked"],
                          fp.compile(host).evaluate(given).rules_walked)


def test_chunks_and_threads_do_not_matter() -> None:
    host = Host.load(DATA / "docker28-seed")
    packets = fp.synth.packets(host, 20_000, seed=2)
    one, many = (walk(host, packets, "nft", COSTS, threads=n) for n in (1, 3))
    assert np.array_equal(one.ns, many.ns) and np.array_equal(one.examined, many.examined)
    assert one.rule_ns == pytest.approx(many.rule_ns)
