"""What the measurements share: hosts, packets, and the machine they ran on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import fastpath as fp

ROOT = Path(__file__).resolve().parents[1]
PACKETS = int(float(os.environ.get("FASTPATH_BENCH_PACKETS", "1e7")))


RATES: list[tuple[str, int, float]] = []
"""What was measured, packets, and packets per second."""


Note = Callable[[Any, int], None]


@pytest.fixture
def note() -> Note:
    """Writes the rate of the fastest round next to the times, and keeps it for the end of the run."""

    def write(benchmark: Any, packets: int) -> None:
        if benchmark.stats is not None:  # None under --benchmark-disable
            rate = packets / benchmark.stats.stats.min
            benchmark.extra_info["packets"] = packets
            benchmark.extra_info["packets_per_second"] = rate
            RATES.append((f"{benchmark.name} ({benchmark.group})", packets, rate))

    return write


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the rates, in the order in which they were measured."""
    if RATES:
        terminalreporter.section("packets per second, fastest round")
    for name, packets, rate in RATES:
        terminalreporter.write_line(f"{rate / 1e6:10.4f} M/s  {packets:>10,} packets  {name}")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, object]) -> None:
    """Adds what the figures depend on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else ""
    machine_info["fastpath"] = {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "numba": version("numba"),
        "packets": PACKETS,
    }


@pytest.fixture(scope="session")
def big() -> fp.Host:
    """A Docker host with a few hundred published ports on sixteen bridges."""
    return fp.Host.load(ROOT / "data" / "hosts" / "docker28-big")


@pytest.fixture(scope="session")
def engine(big: fp.Host) -> fp.Engine:
    return fp.compile(big)


@pytest.fixture(scope="session")
def traffic(big: fp.Host) -> fp.PacketBatch:
    return fp.synth.packets(big, PACKETS, seed=1, profile="traffic")
