"""How fast packets are evaluated, beside other ways to get the same answers.

Answers are compared before anything is said about speed. One core each, unless a row says otherwise.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

import fastpath as fp
from bench import masks, rte, rulesets, traces
from bench.conftest import FULL, PACKETS, Recorder
from bench.flatten import FirstMatch
from fastpath import reference
from fastpath.packets import Hook, PacketBatch, State, Verdict

HOSTS = rulesets.HOSTS if FULL else ("docker28-big", "docker28-seed")
WHOLE = (*HOSTS, "docker50")
PROFILES = ("traffic", "edges", "uniform", "zipf")
CHAINS = (("docker28-big", "filter", "FORWARD"), ("docker50", "filter", "FORWARD"), ("docker50", "nat", "PREROUTING"))
SIZES = ("1k", "10k", "100k") if FULL else ("1k", "10k")
CLASSIFIERS = tuple(
    name for size in SIZES for style in ("acl", "fw", "ipc")
    for name in (f"{style}_{size}", f"{style}1_{size}") if name[-len(size) - 2] != "1" or name in rulesets.originals())
FEW = ("verdict", "rule")
REFERENCE = 1_000


@lru_cache(maxsize=2)
def engine_of(name: str, table: str | None = None, chain: str | None = None) -> fp.Engine:
    return fp.compile(rulesets.host(name), table=table, chain=chain)


@lru_cache(maxsize=2)
def packets_of(name: str, profile: str) -> PacketBatch:
    """Made-up packets of a host; ``zipf`` are flows of its traffic, the k-th with a share in proportion to 1/k."""
    host = rulesets.host(name)
    if profile != "zipf":
        return fp.synth.packets(host, PACKETS, seed=1, profile=profile)
    flows = fp.synth.packets(host, traces.FLOWS, seed=1)
    return flows.take(traces.zipf(len(flows), PACKETS, np.random.default_rng(1)))


def assert_equal(ours: fp.Result, theirs: fp.Result) -> None:
    differences = ours.differences(theirs)
    assert not differences, str(differences)


# ------------------------------------------------------------------------------------------------ the whole path


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", WHOLE)
def test_whole_path(record: Recorder, name: str, profile: str) -> None:
    """All tables and hooks: all result columns and counters, two columns, all cores; the reference on a few packets."""
    group = "whole path, one core"
    engine, packets = engine_of(name), packets_of(name, profile)
    assert_equal(engine.evaluate(packets[:REFERENCE]), reference.evaluate(rulesets.host(name), packets[:REFERENCE]))
    record.ours(group, name, profile, "fastpath", lambda: engine.evaluate(packets, threads=1), len(packets))
    record.also(group, name, profile, "fastpath, verdict and rule",
                lambda: engine.evaluate(packets, columns=FEW, counters=False, threads=1), len(packets))
    record.also(group, name, profile, "fastpath, all cores", lambda: engine.evaluate(packets), len(packets))
    if profile == "traffic":
        host = rulesets.host(name)
        record.also(group, name, profile, "reference", lambda: reference.evaluate(host, packets[:REFERENCE]), REFERENCE,
                    rounds=1)


# ------------------------------------------------------------------------------------------------ one chain alone


def classify(
    record: Recorder, group: str, name: str, kind: str, engine: fp.Engine, rules: FirstMatch, plain: bool
) -> None:
    """The engine for a chain beside rte_acl on the same headers: equal rule ids first, then the rates."""
    at = traces.headers(rules, PACKETS, kind)
    packets = traces.batch(rules, at, plain=plain)
    rule = engine.evaluate(packets, columns=["rule"], counters=False).rule
    timings = []
    for algorithm in rte.ALGORITHMS:
        try:
            timing = rte.classify(rules, at, algorithm)
        except rte.UnavailableError as error:
            record.remark(str(error))
            continue
        assert np.array_equal(timing.rule, rule), f"{name}, {kind}: {int((timing.rule != rule).sum())} answers differ"
        timings.append(timing)
    record.ours(group, name, kind, "fastpath",
                lambda: engine.evaluate(packets, columns=FEW, counters=False, threads=1), len(packets))
    record.also(group, name, kind, "fastpath, all columns", lambda: engine.evaluate(packets, threads=1), len(packets))
    for timing in timings:
        record.rate(group, name, kind, f"rte_acl {timing.algorithm}", PACKETS / timing.median / 1e6, PACKETS)
    if kind == traces.KINDS[0]:
        group = "tables"
        record.keep(group, name, f"{len(rules)} rules", "fastpath", engine.compile_seconds, "s to build")
        record.keep(group, name, f"{len(rules)} rules", "fastpath", engine.nbytes / 1e6, "MB")
        if timings:
            record.keep(group, name, f"{len(rules)} rules", "rte_acl", timings[0].build_seconds, "s to build")
            record.keep(group, name, f"{len(rules)} rules", "rte_acl", timings[0].table_bytes / 1e6, "MB")


@pytest.mark.parametrize("kind", traces.KINDS)
@pytest.mark.parametrize(("name", "table", "chain"), CHAINS, ids=lambda word: str(word))
def test_chain(record: Recorder, name: str, table: str, chain: str, kind: str) -> None:
    rules = rulesets.chain_rules(name, table, chain)
    engine = engine_of(name, table, chain)
    classify(record, "one chain, one core", f"{name} {table} {chain}", kind, engine, rules, False)


@lru_cache(maxsize=1)
def classifier(name: str) -> fp.Engine:
    return fp.compile(rulesets.rules_host(name), table="filter", chain="FORWARD")


@pytest.mark.parametrize("kind", traces.KINDS)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(record: Recorder, name: str, kind: str) -> None:
    rules = rulesets.classifier_rules(name)
    classify(record, "rules of classifiers, one core", name, kind, classifier(name), rules, True)


@lru_cache(maxsize=1)
def forwarded(name: str) -> tuple[PacketBatch, PacketBatch]:
    """Packets of a host's traffic that reach FORWARD, as they arrive and as that chain sees them."""
    packets = packets_of(name, "traffic")
    result = engine_of(name).evaluate(packets)
    through = ((result.verdict == Verdict.FORWARD) | (result.hook == Hook.FORWARD)) & (result.oif >= 0)
    rows = np.flatnonzero(through & (packets.column("frag") == 0))
    arriving = packets.take(rows)
    state = arriving.column("state").copy()
    state[state == State.AUTO] = State.NEW
    seen = {name: arriving.column(name) for name in ("src", "proto", "sport", "tcp_flags")} | {
        "iif": np.array(packets.interfaces)[arriving.column("iif")],
        "oif": np.array(result.interfaces)[result.oif[rows]],
        "dst": result.dst[rows], "dport": result.dport[rows], "state": state,
    }
    return arriving, PacketBatch.from_columns(seen)


def test_forwarded_packets(record: Recorder) -> None:
    """The same packets: the whole path with all columns, FORWARD alone, and what others make of FORWARD."""
    group, name = "packets that are forwarded, one core", "docker28-big"
    arriving, seen = forwarded(name)
    whole, chain = engine_of(name), fp.compile(rulesets.host(name), table="filter", chain="FORWARD")
    found = chain.evaluate(seen)
    n = len(seen)
    record.ours(group, name, "traffic", "fastpath", lambda: whole.evaluate(arriving, threads=1), n)
    record.also(group, name, "traffic", "fastpath, FORWARD alone",
                lambda: chain.evaluate(seen, columns=FEW, counters=False, threads=1), n)
    rules = rulesets.chain_rules(name, "filter", "FORWARD")
    at = traces.headers_of(rules, seen)
    for algorithm in rte.ALGORITHMS:
        try:
            timing = rte.classify(rules, at, algorithm)
        except rte.UnavailableError as error:
            record.remark(str(error))
            continue
        assert np.array_equal(timing.rule, found.rule)
        record.rate(group, name, "traffic", f"rte_acl {algorithm}, FORWARD", n / timing.median / 1e6, n)
    few = seen[:200_000]
    np.testing.assert_array_equal(found.verdict[:len(few)], masks.verdicts(rulesets.host(name).ruleset, "FORWARD", few))
    record.also(group, name, "traffic", "numpy masks, FORWARD",
                lambda: masks.verdicts(rulesets.host(name).ruleset, "FORWARD", few), len(few))
