"""Lint against evaluation: a rule called dead counts no packet, and a rule called redundant changes none.

On every captured host, and on drawn ones, where far more is dead. The packets stand at the edges of the rules.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fastpath as fp
from fastpath.packets.schema import Verdict
from fastpath.reference import evaluate
from tests.strategies import edge_packets, random_host

HOSTS = Path("data/hosts")
MORE = os.environ.get("FASTPATH_CAPTURES")
"""A folder with further captures, to be looked through as well."""

SMALL = sorted(str(p) for p in HOSTS.iterdir() if p.is_dir() and not p.name.endswith("-big"))
FURTHER = sorted(str(p) for p in Path(MORE).iterdir() if p.is_dir()) if MORE else []
DEAD = ["dead-rule", "behind-return", "unreached-chain"]


def dead_rules(host: fp.Host) -> list[int]:
    """Ids of the rules that lint says no packet matches, whether one by one or by the chain."""
    report = fp.lint(host, kinds=DEAD)
    refs = host.ruleset.refs()
    found = [f.rule.id for f in report if f.rule is not None]
    chains = {f.chain for f in report.of("unreached-chain")}
    return found + [r.id for r in refs if r.number and (r.table, r.chain) in chains]


@pytest.mark.parametrize("folder", [*SMALL, "data/hosts/docker28-big", *FURTHER])
def test_no_rule_of_a_capture_is_called_dead_that_matches(folder):
    host = fp.Host.load(folder)
    dead = dead_rules(host)
    engine = fp.compile(host)
    for seed, profile in ((1, "edges"), (2, "uniform"), (3, "traffic")):
        counted = engine.evaluate(fp.synth.packets(host, 100_000, seed=seed, profile=profile)).rule_packets
        assert not counted[dead].any(), [str(engine.rules[i]) for i in dead if counted[i]]


@pytest.mark.parametrize("seed", range(40))
def test_rules_of_drawn_hosts(seed):
    host = random_host(seed + 7000, size=5)
    packets = edge_packets(host, 300, seed)
    dead = dead_rules(host)
    for how in (None, "match", "no-match"):
        assume = None if how is None else dict.fromkeys(_modules(host), how)
        counted = evaluate(host, packets, assume=assume).rule_packets
        assert not counted[dead].any(), [str(host.ruleset.refs()[i]) for i in dead if counted[i]]


@pytest.mark.parametrize("seed", range(25))
def test_what_is_called_redundant_changes_nothing(seed):
    host = random_host(seed + 7500, size=4)
    packets = edge_packets(host, 300, seed)
    before = evaluate(host, packets)
    for finding in fp.lint(host, kinds=["redundant-rule", "jump-only-returns"]):
        assert finding.rule is not None
        after = evaluate(_without(host, finding.rule), packets)
        assert np.array_equal(before.verdict, after.verdict), str(finding)
        through = before.verdict <= Verdict.LOCAL_IN
        names = [np.array([*r.interfaces, ""], object)[r.oif] for r in (before, after)]
        assert np.array_equal(names[0][through], names[1][through]), str(finding)
        for column in ("src", "dst", "sport", "dport", "mark"):
            assert np.array_equal(getattr(before, column)[through], getattr(after, column)[through]), str(finding)


def _modules(host: fp.Host) -> set[str]:
    return {m.module for t in host.ruleset.tables for c in t.chains for r in c.rules for m in r.matches}


def _without(host: fp.Host, ref) -> fp.Host:
    tables = tuple(
        replace(t, chains=tuple(
            replace(c, rules=c.rules[:ref.number - 1] + c.rules[ref.number:])
            if (t.name, c.name) == (ref.table, ref.chain) else c for c in t.chains))
        for t in host.ruleset.tables)
    return host.with_ruleset(replace(host.ruleset, tables=tables))
