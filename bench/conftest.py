"""What the measurements share: sizes, how a thing is measured, and where the figures go.

Every figure is the median of at least five rounds, and is kept by :class:`Recorder`; at the end of the run `report`
writes all of them to ``bench/results``. Peers run in the same test as what they are compared with, on the same packets,
and only after their answers were found equal.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bench import report
from bench.report import Row

FULL = os.environ.get("FASTPATH_BENCH_FULL") == "1"
"""Whether everything is measured: hours, and rulesets of 100,000 rules; else about ten minutes."""

PACKETS = int(float(os.environ.get("FASTPATH_BENCH_PACKETS", "4e6" if FULL else "1e6")))
ROUNDS = 5

ROWS: list[Row] = []
REMARKS: list[str] = []


class Recorder:
    """Measures and records one test's figures."""

    def __init__(self, benchmark: Any) -> None:
        self.benchmark = benchmark

    def ours(
        self, group: str, subject: str, variant: str, engine: str, work: Callable[[], object], packets: int
    ) -> float:
        """Measures our engine through pytest-benchmark -> million packets a second, of the median round."""
        self.benchmark.group = group
        self.benchmark.pedantic(work, rounds=ROUNDS, warmup_rounds=1)
        if self.benchmark.stats is None:  # --benchmark-disable
            return 0.0
        rate = packets / self.benchmark.stats.stats.median / 1e6
        self.rate(group, subject, variant, engine, rate, packets)
        return rate

    def also(
        self, group: str, subject: str, variant: str, engine: str, work: Callable[[], object], packets: int,
        rounds: int = ROUNDS,
    ) -> float:
        """Measures something beside it, in the same way -> million packets a second."""
        if self.benchmark.stats is None:
            work()
            return 0.0
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        rate = packets / median(times) / 1e6
        self.rate(group, subject, variant, engine, rate, packets)
        return rate

    def rate(self, group: str, subject: str, variant: str, engine: str, rate: float, packets: int) -> None:
        """Keeps a rate in million packets a second."""
        self.keep(group, subject, variant, engine, rate, "M packets/s", f"{packets:,} packets")

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


def machine() -> dict[str, object]:
    """What the figures depend on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else ""
    return {
        "processor": model, "cores": os.cpu_count(), "python": platform.python_version(), "numpy": version("numpy"),
        "numba": version("numba"), "packets": PACKETS, "full": FULL,
    }


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the tables and writes the results."""
    if not ROWS:
        return
    terminalreporter.section("figures (medians)")
    terminalreporter.write_line(report.tables(ROWS))
    for text in [*REMARKS, *report.write(ROWS, REMARKS, machine(), Path(__file__).parent / "results")]:
        terminalreporter.write_line(text)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, object]) -> None:
    machine_info["fastpath"] = machine()
