"""What comes before the first packet: compile time, table size, and a cold start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastpath as fp

ROOT = Path(__file__).resolve().parents[1]
HOSTS = sorted(path.name for path in (ROOT / "data" / "hosts").iterdir() if path.is_dir())

START = """
import sys
import fastpath as fp
host = fp.Host.load(sys.argv[1])
engine = fp.compile(host)
print(engine.evaluate(fp.synth.packets(host, 1000, seed=1)).verdict[0])
"""


@pytest.mark.parametrize("name", HOSTS)
def test_compile(benchmark: Any, name: str) -> None:
    benchmark.group = "compile"
    host = fp.Host.load(ROOT / "data" / "hosts" / name)
    engine = benchmark.pedantic(fp.compile, (host,), rounds=3, warmup_rounds=1)
    benchmark.extra_info["rules"] = len(engine.rules)
    benchmark.extra_info["table_kib"] = engine.nbytes / 1024


@pytest.mark.parametrize("cache", ["empty", "filled"])
def test_first_thousand_packets_in_a_new_process(benchmark: Any, tmp_path: Path, cache: str) -> None:
    benchmark.group = "cold start"
    host = str(ROOT / "data" / "hosts" / "docker28-big")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FASTPATH_CACHE_DIR": str(tmp_path)}

    def start() -> None:
        subprocess.run([sys.executable, "-c", START, host], env=environment, check=True, capture_output=True)

    if cache == "filled":
        start()
    benchmark.pedantic(start, rounds=1 if cache == "empty" else 3)


@pytest.mark.parametrize("words", [["--help"], ["trace", "--host", "data/hosts/docker28-big", "--in", "eth0", "--src",
                                                "198.51.100.7", "--dst", "10.0.2.15", "--dport", "80"]],
                         ids=["help", "trace"])
def test_commands_without_numba(benchmark: Any, words: list[str]) -> None:
    benchmark.group = "commands"

    def start() -> None:
        subprocess.run([sys.executable, "-m", "fastpath", *words], cwd=ROOT, check=True, capture_output=True)

    benchmark.pedantic(start, rounds=3, warmup_rounds=1)
