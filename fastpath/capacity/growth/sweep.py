"""``sweep``: the cost of many hosts that differ by size and by engine, side by side.

Each host is made, its packets are made, and it is walked (``cpu.walk``) in a process of its own kind: forked, so that
``make_host`` may be any function. Where the curve bends is found by fitting two lines, where a budget breaks by
interpolation between the sizes on both sides.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fastpath.capacity.cpu.model import CostModel
from fastpath.capacity.cpu.steps import Backend, table_bytes
from fastpath.capacity.growth.result import Crossing, Knee, SweepResult, SweepRow
from fastpath.errors import FastpathError
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch

if TYPE_CHECKING:
    from fastpath.docker.version import EngineLike


class Plan(Protocol):
    """What an engine can make a host of; a Topology is one."""

    def host(self, engine: EngineLike) -> Host:
        """The host."""


Made = Host | Plan
Traffic = int | PacketBatch | Callable[[Host], PacketBatch]
Progress = Callable[[int, int], None]
"""Called with (hosts done, hosts in all)."""

KNEE = 0.5
"""A second line counts as a knee where it takes away half of the squared error, or more, of one line ..."""

STRAIGHT = 0.02
"""... unless one line is off by less than this part of the curve's range everywhere."""


@dataclass(frozen=True)
class _Work:
    """What every worker needs; set before workers are forked."""

    make_host: Callable[[Any], Made]
    traffic: Traffic
    backend: Backend
    model: CostModel
    compile: bool
    seed: int


_plan: _Work | None = None


def sweep(
    make_host: Callable[[Any], Made], values: Iterable[float], traffic: Traffic = 5000,
    engines: Sequence[str] = (), *, name: str = "size", backend: Backend = "nft", model: CostModel | None = None,
    budgets: Mapping[str, float] | Sequence[float] = (), compile: bool = False, seed: int = 0,  # noqa: A002
    processes: int | None = None, progress: Progress | None = None,
) -> SweepResult:
    """What hosts cost as they grow.

        >>> import fastpath as fp
        >>> from fastpath.docker import Network, Topology
        >>> grown = fp.capacity.sweep(lambda n: Topology(tuple(Network(f"n{i}") for i in range(n))), [1, 2, 4], 500,
        ...                           engines=["27", "29"], processes=1)
        >>> [(row.engine, row.size) for row in grown.rows]
        [('27', 1), ('27', 2), ('27', 4), ('29', 1), ('29', 2), ('29', 4)]

    Args:
        make_host: a size -> a Topology (or another object with ``host(engine)``), or a Host where there are no
            engines.
        values: the sizes.
        traffic: packets to evaluate: how many of the usual mix to make up for each host, the packets themselves, or a
            function of the host.
        engines: Docker engines to make each topology's host with.
        name: what grows, for people.
        backend: ``nft`` or ``legacy``.
        model: a calibration; None for the one that comes with fastpath.
        budgets: mean nanoseconds for each packet, with a name or without; ``mpps_budget`` makes one of a rate.
        compile: also compile each host's decision tables, for their size and time.
        seed: of made-up packets.
        processes: worker processes, by default one for each processor; 1 stays in this one.
        progress: called after each host.

    Raises:
        FastpathError: no sizes, a host where engines are given, or a topology where none are.
    """
    global _plan
    sizes = sorted(dict.fromkeys(values))
    if not sizes:
        raise FastpathError("a sweep needs sizes, such as range(10, 210, 10)")
    calibration = model or CostModel.default()
    calibration.backend(backend)
    started = time.perf_counter()
    names = list(engines) or [""]
    tasks = [(engine, size) for size in reversed(sizes) for engine in names]  # the largest first
    _plan = _Work(make_host, traffic, backend, calibration, compile, seed)
    rows: list[SweepRow] = []
    try:
        for row in _run(tasks, processes or os.cpu_count() or 1):
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(tasks))
    finally:
        _plan = None
    rows.sort(key=lambda row: (names.index(row.engine), row.size))
    wanted = budgets if isinstance(budgets, Mapping) else {f"{ns:g} ns": ns for ns in budgets}
    by_engine = {engine: [row for row in rows if row.engine == engine] for engine in names}
    return SweepResult(
        name, tuple(rows), tuple(knee(engine, found) for engine, found in by_engine.items()),
        tuple(crossing(engine, found, budget, what) for engine, found in by_engine.items()
              for what, budget in wanted.items()),
        str(calibration), time.perf_counter() - started)


def mpps_budget(mpps: float, cores: int = 1) -> float:
    """Nanoseconds that each packet may take so that `cores` cores pass `mpps` million packets a second."""
    return 1e3 * cores / mpps


def _run(tasks: list[tuple[str, Any]], processes: int) -> Iterator[SweepRow]:
    if processes == 1 or len(tasks) == 1 or sys.platform != "linux":
        for engine, size in tasks:
            yield one(engine, size)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(processes, len(tasks)), mp_context=context) as pool:
        waiting = [pool.submit(one, engine, size) for engine, size in tasks]
        try:
            for done in as_completed(waiting):
                yield done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def one(engine: EngineLike, size: Any) -> SweepRow:
    """One host's row."""
    from fastpath.capacity.cpu.evaluate import packet_ns
    from fastpath.capacity.cpu.walk import walk
    from fastpath.packets import synth

    plan = _plan
    assert plan is not None
    started = time.perf_counter()
    made = plan.make_host(size)
    if isinstance(made, Host):
        if engine:
            raise FastpathError("make_host gives a host, which no engine can change: give a topology, or no engines")
        host = made
    elif engine:
        host = made.host(engine)
    else:
        raise FastpathError("make_host gives a topology: name the engines to make hosts with, such as "
                            "engines=['28', '29']")
    if isinstance(plan.traffic, int):
        packets = synth.packets(host, plan.traffic, seed=plan.seed)
    else:
        packets = plan.traffic if isinstance(plan.traffic, PacketBatch) else plan.traffic(host)
    if not len(packets):
        raise FastpathError(f"there is no traffic to evaluate at size {size}")
    costs = plan.model.backend(plan.backend)
    walked = walk(host, packets, plan.backend, costs, threads=1)
    ns = packet_ns(host, packets, walked, costs)
    size_of_tables = seconds = None
    if plan.compile:
        from fastpath.engine import compile

        engine_tables = compile(host)
        size_of_tables, seconds = engine_tables.nbytes, engine_tables.compile_seconds
    p50, p99 = np.percentile(ns, (50, 99))
    rules = sum(len(chain.rules) for table in host.ruleset.tables for chain in table.chains)
    return SweepRow(
        str(engine), size, plan.backend, rules, len(str(host.ruleset).encode()), table_bytes(host), float(ns.mean()),
        float(p50), float(p99), float(walked.columns["rules_walked"].mean()), size_of_tables, seconds,
        time.perf_counter() - started)


def knee(engine: str, rows: Sequence[SweepRow]) -> Knee:
    """Where mean_ns over size bends: the best two lines, if they are much better than one."""
    x, y = np.array([r.size for r in rows], float), np.array([r.mean_ns for r in rows])
    if len(x) < 2:
        return Knee(engine, None, 0.0, 0.0)
    slope, error, off = _line(x, y)
    best: tuple[float, int, float, float] | None = None
    for at in range(2, len(x) - 2):
        before, error_before, _ = _line(x[:at + 1], y[:at + 1])
        after, error_after, _ = _line(x[at:], y[at:])
        if best is None or error_before + error_after < best[0]:
            best = (error_before + error_after, at, before, after)
    if best is None or best[0] > KNEE * error or off <= STRAIGHT * float(np.ptp(y)):
        return Knee(engine, None, slope, slope)
    return Knee(engine, float(x[best[1]]), best[2], best[3])


def _line(x: Any, y: Any) -> tuple[float, float, float]:
    """Slope of the best line, its sum of squared errors, and the largest error."""
    slope, start = np.polyfit(x, y, 1)
    errors = y - (slope * x + start)
    return float(slope), float((errors ** 2).sum()), float(np.abs(errors).max())


def crossing(engine: str, rows: Sequence[SweepRow], budget: float, what: str) -> Crossing:
    """The first size at which mean_ns goes over a budget, interpolated between the sizes that were evaluated."""
    for before, after in zip([None, *rows], rows, strict=False):
        if after.mean_ns > budget:
            if before is None:
                return Crossing(engine, budget, what, float(after.size))
            part = (budget - before.mean_ns) / (after.mean_ns - before.mean_ns)
            return Crossing(engine, budget, what, float(before.size + part * (after.size - before.size)))
    return Crossing(engine, budget, what, None)
