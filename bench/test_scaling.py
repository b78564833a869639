"""How rates change with the number of rules, of packets, and of threads."""

from __future__ import annotations

import os
from functools import partial
from statistics import median

import numpy as np
import pytest

import fastpath as fp
from bench import rte, rulesets, traces
from bench.conftest import FULL, PACKETS, Recorder, Turn, affordable
from fastpath.packets.schema import RESULT_COLUMNS

RULES = ("10", "100", "1k", "10k", "100k") if FULL else ("10", "100", "1k")
COUNTS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000) if FULL else (1_000, 10_000, 100_000, 1_000_000)


@pytest.mark.parametrize("size", RULES)
@pytest.mark.parametrize("style", ["acl", "fw", "ipc"])
def test_rules(record: Recorder, style: str, size: str) -> None:
    name = f"{style}_{size}"
    engine = fp.compile(rulesets.rules_host(name), table="filter", chain="FORWARD")
    rules = rulesets.classifier_rules(name)
    at = traces.headers(rules, PACKETS, "uniform")
    packets = traces.batch(rules, at, plain=True)
    count = affordable(lambda n: engine.evaluate(packets[:n], threads=1), PACKETS)
    at, packets = at[:count], packets[:count]
    found = engine.evaluate(packets, columns=["rule"], counters=False)
    others = []
    try:
        peer = rte.Classifier(rules)
        peer.load(at)
        others.append(Turn("rte_acl avx2", lambda: peer.run("avx2"), count, timed=True))
        others[0].seconds()
        assert np.array_equal(peer.found(), found.rule)
    except rte.UnavailableError as error:
        record.remark(str(error))
        others = []
    record.ours("scaling with rules", style, f"{len(rules) - 1} rules",
                lambda: engine.evaluate(packets, columns=["rule"], counters=False, threads=1), len(packets), others)


@pytest.fixture(scope="module")
def engine() -> fp.Engine:
    return fp.compile(rulesets.host("docker28-big"))


@pytest.mark.parametrize("count", COUNTS)
def test_packets(record: Recorder, engine: fp.Engine, count: int) -> None:
    packets = fp.synth.packets(rulesets.host("docker28-big"), count, seed=1)
    record.ours("scaling with packets", "docker28-big", f"{count} packets",
                lambda: engine.evaluate(packets, threads=1), count)


@pytest.mark.skipif(os.cpu_count() == 1, reason="there is one core")
def test_threads(record: Recorder, engine: fp.Engine) -> None:
    packets = fp.synth.packets(rulesets.host("docker28-big"), 4 * PACKETS, seed=1)
    cores = os.cpu_count() or 1
    numbers = sorted({min(2 ** i, cores) for i in range(1, cores.bit_length() + 1)})
    others = [Turn(f"fastpath, {n} threads", partial(engine.evaluate, packets, threads=n), len(packets))
              for n in numbers]
    times = record.ours("threads", "docker28-big", "all columns, one thread and more",
                        lambda: engine.evaluate(packets, threads=1), len(packets), others)
    for n, turn in zip(numbers, others, strict=True) if times else ():
        ratio = median(one / many for one, many in zip(times["fastpath"], times[turn.engine], strict=True))
        record.keep("scaling with threads", "docker28-big", f"{n} threads", "fastpath", ratio, "times one thread")


@pytest.mark.parametrize("columns", [("verdict",), ("verdict", "rule"), tuple(c.name for c in RESULT_COLUMNS)],
                         ids=lambda names: str(len(names)))
def test_columns(record: Recorder, engine: fp.Engine, columns: tuple[str, ...]) -> None:
    """What result columns cost; without counters but for the last."""
    packets = fp.synth.packets(rulesets.host("docker28-big"), PACKETS, seed=1)
    every = len(columns) == len(RESULT_COLUMNS)
    record.ours("result columns, one core", "docker28-big", "all, and counters" if every else ", ".join(columns),
                lambda: engine.evaluate(packets, columns=columns, counters=every, threads=1), len(packets))
