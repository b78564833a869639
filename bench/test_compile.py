"""What comes before the first packet: compile time, table size, a cold start, and commands that need no kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastpath as fp
from bench import rulesets
from bench.conftest import FULL, ROUNDS, Recorder

ROOT = Path(__file__).resolve().parents[1]
HOSTS = (*rulesets.HOSTS, "docker50") if FULL else ("docker28-big", "docker26-big", "docker28-seed", "docker50")

SIZES = ("1k", "10k", "100k") if FULL else ("1k", "10k")
CHAINS = ("docker50", *(f"{style}_{size}" for size in SIZES for style in ("acl", "fw", "ipc")),
          *(name for name in rulesets.originals() if name.partition("_")[2] in SIZES))

START = """
import sys
import fastpath as fp
host = fp.Host.load(sys.argv[1])
engine = fp.compile(host)
print(engine.evaluate(fp.synth.packets(host, 1000, seed=1)).verdict[0])
"""


@pytest.mark.parametrize("name", HOSTS)
def test_compile(record: Recorder, name: str) -> None:
    host = rulesets.host(name)
    record.benchmark.group = "compile"
    engine = record.benchmark.pedantic(fp.compile, (host,), rounds=ROUNDS if name != "docker50" else 1, warmup_rounds=1)
    if record.benchmark.stats is not None:
        seconds = record.benchmark.stats.stats.median
        record.keep("compile", name, f"{len(engine.rules)} rules", "fastpath", seconds, "s")
    record.keep("compile", name, f"{len(engine.rules)} rules", "fastpath", engine.nbytes / 1e6, "MB of tables")


@pytest.mark.parametrize("name", CHAINS)
def test_compile_one_chain(record: Recorder, name: str) -> None:
    """FORWARD of a large Docker host, and rules of classifiers; the kernels are loaded by a first compilation."""
    host = rulesets.host(name) if name == "docker50" else rulesets.rules_host(name)
    record.benchmark.group = "compile FORWARD"
    engine = record.benchmark.pedantic(
        lambda: fp.compile(host, table="filter", chain="FORWARD"), rounds=1 if name.endswith("100k") else ROUNDS,
        warmup_rounds=1)
    rules = f"{len(engine.rules)} rules"
    if record.benchmark.stats is not None:
        record.keep("compile FORWARD", name, rules, "fastpath", record.benchmark.stats.stats.median, "s")
    record.keep("compile FORWARD", name, rules, "fastpath", engine.nbytes / 1e6, "MB of tables")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A new process's surroundings: an empty cache of kernels, and compiled Python as any installation has it."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "NUMBA_CACHE_DIR")}
    folder = tmp_path_factory.mktemp("start")
    return clean | {"PYTHONPATH": str(ROOT), "FASTPATH_CACHE_DIR": str(folder / "kernels"),
                    "PYTHONPYCACHEPREFIX": str(folder / "python")}


@pytest.mark.parametrize(("name", "cache"), [("docker28-big", "empty"), ("docker28-big", "filled"),
                                             ("docker28-seed", "filled")])
def test_first_thousand_packets_in_a_new_process(
    record: Recorder, environment: dict[str, str], name: str, cache: str
) -> None:
    def start() -> None:
        subprocess.run([sys.executable, "-c", START, str(ROOT / "data" / "hosts" / name)], env=environment, check=True,
                       capture_output=True)

    record.benchmark.group = "cold start"
    filled = cache == "filled"
    record.benchmark.pedantic(start, rounds=ROUNDS if filled else 1, warmup_rounds=int(filled))
    if record.benchmark.stats is not None:
        seconds = record.benchmark.stats.stats.median
        record.keep("cold start, 1,000 packets", name, f"{cache} cache", "fastpath", seconds, "s")


@pytest.mark.parametrize("words", [["--help"], ["trace", "--host", "data/hosts/docker28-big", "--in", "eth0", "--src",
                                                "198.51.100.7", "--dst", "10.0.2.15", "--dport", "80"]],
                         ids=["help", "trace"])
def test_commands_without_numba(record: Recorder, environment: dict[str, str], words: list[str]) -> None:
    def start() -> None:
        subprocess.run([sys.executable, "-m", "fastpath", *words], cwd=ROOT, env=environment, check=True,
                       capture_output=True)

    record.benchmark.group = "commands"
    record.benchmark.pedantic(start, rounds=ROUNDS, warmup_rounds=1)
    if record.benchmark.stats is not None:
        record.keep("commands", f"fastpath {words[0]}", "", "fastpath", record.benchmark.stats.stats.median, "s")
