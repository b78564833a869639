"""How fast packets are evaluated, beside other ways to get the same answers.

Answers are compared before anything is said about speed: every result column and the counters with the reference on
sampled packets, what peers find on all packets that they are timed with, and what is timed with fewer columns or more
cores with the one that was compared. One core each, unless a row says otherwise; all take turns.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastpath as fp
from bench import masks, rte, rulesets, traces
from bench.conftest import FULL, PACKETS, Recorder, Turn, affordable
from bench.flatten import FirstMatch
from fastpath.packets import Hook, PacketBatch, State, Verdict
from fastpath.reference.evaluate import Reference

Array = npt.NDArray[Any]

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
MASKED = min(PACKETS, masks.CHUNK)
PLAIN = ("docker28-big",)
"""Hosts for which the plainest masks are measured too, which takes long with more networks."""


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


@lru_cache(maxsize=2)
def reference_of(name: str, table: str | None = None, chain: str | None = None) -> Reference:
    host = rulesets.host(name) if name in (*rulesets.HOSTS, "docker50") else rulesets.rules_host(name)
    return Reference(host, table=table, chain=chain)


def assert_equal(ours: fp.Result, theirs: fp.Result, *, counters: bool = True) -> None:
    differences = ours.differences(theirs, counters=counters)
    assert not differences, str(differences)


def assert_as_reference(engine: fp.Engine, reference: Reference, packets: PacketBatch, count: int) -> None:
    """Every result column and the counters, on packets from all over the batch."""
    rows = np.random.default_rng(2).choice(len(packets), min(count, len(packets)), replace=False)
    some = packets.take(np.sort(rows))
    assert_equal(engine.evaluate(some), reference.evaluate(some))


def own_turn(engine: fp.Engine, packets: PacketBatch, what: str, wanted: fp.Result, **how: Any) -> Turn:
    """Our engine asked for something else than the main row; its answer must be what is `wanted`."""
    counters = bool(how.get("counters", True))
    assert_equal(engine.evaluate(packets, **how), wanted, counters=counters)
    return Turn(f"fastpath, {what}", lambda: engine.evaluate(packets, **how), len(packets))


def rte_turns(record: Recorder, name: str, rules: FirstMatch, at: Array, wanted: Array, label: str = "") -> list[Turn]:
    """rte_acl with each of its algorithms, whose rule ids must be the `wanted` ones."""
    turns = []
    try:
        peer = rte_of(name, rules)
        peer.load(at)
    except rte.UnavailableError as error:
        record.remark(str(error))
        return []
    for algorithm in rte.ALGORITHMS:
        try:
            peer.run(algorithm)
        except rte.UnavailableError as error:
            record.remark(str(error))
            continue
        found = peer.found()
        assert np.array_equal(found, wanted), f"{name}, {algorithm}: {int((found != wanted).sum())} answers differ"
        turns.append(Turn(f"rte_acl {algorithm}{label}", partial(peer.run, algorithm), len(at), timed=True))
    return turns


RTE: dict[str, rte.Classifier] = {}


def rte_of(name: str, rules: FirstMatch) -> rte.Classifier:
    """rte_acl with the tables of some rules; one process at a time, since they may take a gigabyte."""
    if name not in RTE:
        RTE.clear()
        RTE[name] = rte.Classifier(rules)
    return RTE[name]


@lru_cache(maxsize=1)
def masks_of(name: str, plain: bool) -> masks.Masks | str:
    """The numpy baseline for a host, or why there is none."""
    try:
        return masks.Masks(rulesets.host(name), plain=plain)
    except ValueError as error:
        return f"numpy masks are left out for {name}: {error}"


def masks_turns(
    record: Recorder, name: str, packets: PacketBatch, wanted: fp.Result, chain: str | None = None
) -> list[Turn]:
    """numpy masks, and their plainest form, whose answers must be the `wanted` ones in every column and counter."""
    turns = []
    for plain in (False, True) if name in PLAIN else (False,):
        found = masks_of(name, plain)
        if isinstance(found, str):
            record.remark(found)
            return []

        def work(peer: masks.Masks = found) -> fp.Result:
            return peer.evaluate(packets) if chain is None else peer.evaluate_chain(packets, chain)

        assert_equal(wanted, work())
        turns.append(Turn("numpy masks, plain" if plain else "numpy masks", work, len(packets)))
    return turns


# ------------------------------------------------------------------------------------------------ the whole path


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", WHOLE)
def test_whole_path(record: Recorder, name: str, profile: str) -> None:
    """All tables and hooks, all result columns and counters; two columns; all cores; numpy and the reference."""
    engine, packets = engine_of(name), packets_of(name, profile)
    assert_as_reference(engine, reference_of(name), packets, REFERENCE)
    every = engine.evaluate(packets, threads=1)
    others = [own_turn(engine, packets, "verdict and rule", every, columns=FEW, counters=False, threads=1),
              own_turn(engine, packets, "all cores", every)]
    if profile == "traffic":
        few, peer = packets[:100], reference_of(name)
        others += masks_turns(record, name, packets[:MASKED], engine.evaluate(packets[:MASKED]))
        others.append(Turn("reference", lambda: peer.evaluate(few), len(few)))
    record.ours("whole path, one core", name, profile, lambda: engine.evaluate(packets, threads=1), len(packets),
                others)


# ------------------------------------------------------------------------------------------------ one chain alone


def classify(
    record: Recorder, group: str, name: str, kind: str, engine: fp.Engine, rules: FirstMatch, reference: Reference,
    plain: bool,
) -> None:
    """The engine for a chain beside rte_acl on the same headers. The main row writes what rte_acl does."""
    at = traces.headers(rules, PACKETS, kind)
    packets = traces.batch(rules, at, plain=plain)
    count = affordable(lambda n: engine.evaluate(packets[:n], threads=1), PACKETS)
    at, packets = at[:count], packets[:count]
    assert_as_reference(engine, reference, packets, max(20, min(REFERENCE, 2_000_000 // len(rules))))
    every = engine.evaluate(packets, threads=1)
    rte_acl = rte_turns(record, name, rules, at, every.rule)
    others = [own_turn(engine, packets, "verdict and rule", every, columns=FEW, counters=False, threads=1),
              own_turn(engine, packets, "all columns", every, threads=1), *rte_acl]
    assert_equal(engine.evaluate(packets, columns=["rule"], counters=False, threads=1), every, counters=False)
    record.ours(group, name, kind, lambda: engine.evaluate(packets, columns=["rule"], counters=False, threads=1),
                len(packets), others)
    if kind == traces.KINDS[0]:
        record.keep("tables", name, f"{len(rules)} rules", "fastpath", engine.compile_seconds, "s to build")
        record.keep("tables", name, f"{len(rules)} rules", "fastpath", engine.nbytes / 1e6, "MB")
        if rte_acl:
            peer = rte_of(name, rules)
            record.keep("tables", name, f"{len(rules)} rules", "rte_acl", peer.build_seconds, "s to build")
            record.keep("tables", name, f"{len(rules)} rules", "rte_acl", peer.table_bytes / 1e6, "MB")


@pytest.mark.parametrize("kind", traces.KINDS)
@pytest.mark.parametrize(("name", "table", "chain"), CHAINS, ids=lambda word: str(word))
def test_chain(record: Recorder, name: str, table: str, chain: str, kind: str) -> None:
    rules = rulesets.chain_rules(name, table, chain)
    classify(record, "one chain, one core", f"{name} {table} {chain}", kind, engine_of(name, table, chain), rules,
             reference_of(name, table, chain), False)


@lru_cache(maxsize=1)
def classifier(name: str) -> fp.Engine:
    return fp.compile(rulesets.rules_host(name), table="filter", chain="FORWARD")


@pytest.mark.parametrize("kind", traces.KINDS)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(record: Recorder, name: str, kind: str) -> None:
    classify(record, "rules of classifiers, one core", name, kind, classifier(name), rulesets.classifier_rules(name),
             reference_of(name, "filter", "FORWARD"), True)


# ------------------------------------------------------------------------------------------------ the same packets


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
    seen = {name: arriving.column(name) for name in ("src", "proto", "sport", "tcp_flags", "length")} | {
        "iif": np.array(packets.interfaces)[arriving.column("iif")],
        "oif": np.array(result.interfaces)[result.oif[rows]],
        "dst": result.dst[rows], "dport": result.dport[rows], "state": state,
    }
    return arriving, PacketBatch.from_columns(seen)


@pytest.mark.parametrize("way", ["whole path", "FORWARD"])
def test_forwarded_packets(record: Recorder, way: str) -> None:
    """The same packets: the whole path with all columns beside numpy's whole path, and beside rte_acl, which looks up
    FORWARD alone; FORWARD's rules beside both."""
    name, group = "docker28-big", "packets that are forwarded, one core"
    arriving, seen = forwarded(name)
    chain = engine_of(name, "filter", "FORWARD")
    rules, found = rulesets.chain_rules(name, "filter", "FORWARD"), chain.evaluate(seen)
    others = rte_turns(record, f"{name} filter FORWARD", rules, traces.headers_of(rules, seen), found.rule, ", FORWARD")
    if way == "whole path":
        engine = engine_of(name)
        assert_as_reference(engine, reference_of(name), arriving, REFERENCE)
        others += masks_turns(record, name, arriving[:MASKED], engine.evaluate(arriving[:MASKED]))
        record.ours(group, name, f"{way}, all columns", lambda: engine.evaluate(arriving, threads=1), len(seen), others)
    else:
        assert_as_reference(chain, reference_of(name, "filter", "FORWARD"), seen, REFERENCE)
        others += masks_turns(record, name, seen[:MASKED], chain.evaluate(seen[:MASKED]), "FORWARD")
        record.ours(group, name, f"{way}, column rule",
                    lambda: chain.evaluate(seen, columns=["rule"], counters=False, threads=1), len(seen), others)
