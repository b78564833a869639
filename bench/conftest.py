"""What the measurements share: sizes, how a thing is measured, and where the figures go.

Every figure is the median of at least five rounds, and is kept by :class:`Recorder`; at the end of the run `report`
writes all of them to ``bench/results``. Peers run in the same test as what they are compared with, on the same packets,
and only after their answers were found equal. They take turns, a pass each in every round, so that whatever else the
machine does meets all of them; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bench import machine, report
from bench.report import OURS, TIMES, Row

FULL = os.environ.get("FASTPATH_BENCH_FULL") == "1"
"""Whether everything is measured, all hosts and rulesets of 100,000 rules: below an hour; else about ten minutes."""

PACKETS = int(float(os.environ.get("FASTPATH_BENCH_PACKETS", "1e6")))
ROUNDS = 5

ROWS: list[Row] = []
REMARKS: list[str] = []


@dataclass(frozen=True)
class Turn:
    """What takes a turn in every round beside our engine.

    Attributes:
        engine: its name.
        work: one pass; returns its seconds where `timed`.
        packets: of one pass.
        timed: `work` takes the time itself.
    """

    engine: str
    work: Callable[[], Any]
    packets: int
    timed: bool = False

    def seconds(self) -> float:
        """Runs a pass -> how long it took."""
        start = time.perf_counter()
        found = self.work()
        return float(found) if self.timed else time.perf_counter() - start


def affordable(work: Callable[[int], object], packets: int, seconds: float = 1.5) -> int:
    """How many packets, of so many at most, a pass over which takes not much longer than that; 1,000 at least.

    All are measured but where rules are walked one by one, and there is nothing there that more packets would change.
    """
    few = min(packets, 1_000)
    work(few)  # what is compiled at the first call
    start = time.perf_counter()
    work(few)
    return max(few, min(packets, int(few * seconds / (time.perf_counter() - start))))


class Recorder:
    """Measures and records one test's figures."""

    def __init__(self, benchmark: Any) -> None:
        self.benchmark = benchmark

    def ours(
        self, group: str, subject: str, variant: str, work: Callable[[], object], packets: int,
        others: Sequence[Turn] = (),
    ) -> dict[str, list[float]]:
        """Measures our engine through pytest-benchmark, and others that take turns with it.

        Args:
            group, subject, variant: what is measured.
            work: one pass of our engine.
            packets: of one pass.
            others: one pass each before each of ours. Those that are not ours have a ratio: how many times their rate
                ours is.

        Returns:
            The seconds of every round by engine; nothing with ``--benchmark-disable``.
        """
        times: dict[str, list[float]] = {turn.engine: [] for turn in others}

        def round_of_others() -> None:
            for turn in others:
                times[turn.engine].append(turn.seconds())

        self.benchmark.group = group
        self.benchmark.pedantic(work, setup=round_of_others, rounds=ROUNDS, warmup_rounds=1)
        if self.benchmark.stats is None:  # --benchmark-disable
            return {}
        own = list(self.benchmark.stats.stats.data)
        times = {engine: seconds[-len(own):] for engine, seconds in times.items()}  # without the round that warmed up
        self._rate(group, subject, variant, OURS, own, packets)
        for turn in others:
            seconds = times[turn.engine]
            self._rate(group, subject, variant, turn.engine, seconds, turn.packets)
            if not turn.engine.startswith(OURS):
                ratios = [(theirs / turn.packets) / (mine / packets) for theirs, mine in zip(seconds, own, strict=True)]
                self.keep(group, subject, variant, f"{OURS} / {turn.engine}", median(ratios), TIMES)
        return times | {OURS: own}

    def _rate(self, group: str, subject: str, variant: str, engine: str, seconds: Sequence[float], n: int) -> None:
        self.keep(group, subject, variant, engine, n / median(seconds) / 1e6, "M packets/s", f"{n:,} packets")

    def keep(
        self, group: str, subject: str, variant: str, engine: str, value: float, unit: str, remark: str = ""
    ) -> None:
        """Keeps any figure."""
        self.benchmark.extra_info[f"{engine}, {unit}"] = value
        ROWS.append(Row(group, subject, variant, engine, value, unit, remark))

    def remark(self, text: str) -> None:
        """Keeps what the report has to say beside its figures, once."""
        if text not in REMARKS:
            REMARKS.append(text)


@pytest.fixture
def record(benchmark: Any) -> Recorder:
    return Recorder(benchmark)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the tables and writes the results."""
    if not ROWS:
        return
    terminalreporter.section("figures (medians)")
    terminalreporter.write_line(report.tables(ROWS))
    about = machine.about() | {"packets": PACKETS, "full": FULL}
    for text in [*REMARKS, *report.write(ROWS, REMARKS, about, Path(__file__).parent / "results")]:
        terminalreporter.write_line(text)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, object]) -> None:
    machine_info["fastpath"] = machine.about()
