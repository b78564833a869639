"""Compiled kernels are used by the sources, versions, options and processor that they were made by, by no others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastpath.kernels import _jit

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "fastpath" / "kernels"

PROBE = """
import sys
import llvmlite.binding as llvm
name, without = sys.argv[1:]
if name:
    llvm.get_host_cpu_name = lambda: name
if without:
    real = llvm.get_host_cpu_features
    def fewer():
        features = real()
        features[without] = False
        return features
    llvm.get_host_cpu_features = fewer
import numba
from fastpath.kernels.evaluate import evaluate
print(evaluate._cache.cache_path, repr(numba.config.CACHE_DIR))
"""


def where(tmp_path: Path, name: str = "", without: str = "", **environment: str) -> tuple[str, str]:
    """(folder that a new process keeps its kernels in, numba's own setting there)."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "FASTPATH_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, name, without], cwd=ROOT, capture_output=True, text=True, check=True,
        env=clean | {"PYTHONPATH": str(ROOT), "FASTPATH_CACHE_DIR": str(tmp_path)} | environment)
    folder, _, setting = done.stdout.strip().partition(" ")
    return folder, setting


def test_the_sources_count(tmp_path: Path) -> None:
    for path in KERNELS.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    cpu = _jit.processor()
    same = _jit.fingerprint(tmp_path, cpu)
    assert same == _jit.fingerprint(KERNELS, cpu) == _jit.FOLDER.name.removeprefix("kernels-")
    helper = tmp_path / "classify.py"
    helper.write_text(helper.read_text() + "\n")
    assert _jit.fingerprint(tmp_path, cpu) != same


def test_the_processor_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    import llvmlite.binding as llvm

    here = _jit.processor()
    assert here.startswith(llvm.get_host_cpu_name())
    features = dict(llvm.get_host_cpu_features())
    some = next(name for name, there in sorted(features.items()) if there)
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: features | {some: False})
    assert some in here.split() and some not in _jit.processor().split()
    prints = {_jit.fingerprint(KERNELS, cpu) for cpu in (here, _jit.processor(), "other " + here)}
    assert len(prints) == 3


def test_options_count_and_the_place_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = _jit.processor()
    before = _jit.fingerprint(KERNELS, cpu)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert _jit.fingerprint(KERNELS, cpu) == before
    monkeypatch.setenv("NUMBA_OPT", "2" if os.environ.get("NUMBA_OPT") == "1" else "1")
    assert _jit.fingerprint(KERNELS, cpu) != before


def test_a_process_on_another_processor_looks_elsewhere(tmp_path: Path) -> None:
    """What numba itself is told: the folder of the kernel's cache, in processes of their own."""
    import llvmlite.binding as llvm

    some = next(name for name, there in sorted(llvm.get_host_cpu_features().items()) if there)
    places = [where(tmp_path), where(tmp_path, name="znver9"), where(tmp_path, without=some),
              where(tmp_path, NUMBA_BOUNDSCHECK="1")]
    assert len({folder for folder, _ in places}) == 4
    assert all(folder.startswith(str(tmp_path)) and setting == "''" for folder, setting in places)
    assert where(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "own"))[1] == repr(str(tmp_path / "own"))


ALL_OF_IT = """
import sys
from fastpath.cli.warmup import warmup
from fastpath.engine import Config, compile
from fastpath.host.model import Host
from fastpath.packets import PacketBatch, synth
import numpy as np

def kernels():
    for name, module in sorted(sys.modules.items()):
        if name.startswith("fastpath.kernels."):
            for key, value in vars(module).items():
                if hasattr(value, "signatures") and value.__module__ == name:
                    yield f"{name}.{key}", value

def use(name, structure, most, **chain):
    host = Host.load(f"data/hosts/{name}")
    engine = compile(host, config=Config(structure=structure, max_table_bytes=most), **chain)
    packets = synth.packets(host, 2000, seed=1)
    engine.evaluate(packets)
    engine.evaluate(packets, columns=["verdict"], counters=False)
    given = {c: packets.column(c) for c in ("src", "dst", "proto", "sport", "dport", "length")}
    engine.evaluate(PacketBatch.from_columns(given | {"iif": np.full(2000, "eth0"), "oif": np.full(2000, "eth0")}))

if sys.argv[1] == "warm":
    warmup()
before = {name: set(map(str, kernel.signatures)) for name, kernel in kernels()}
for structure in (None, "candidates", "cross-product", "diagram", "linear"):
    for most in (64 << 20, 0):
        use("docker28-modes", structure, most)
use("docker28-bridges-noproxy", "cross-product", 64 << 20)
use("docker20-seed-live", None, 64 << 20, table="filter", chain="FORWARD")
if sys.argv[1] == "warm":
    for name, kernel in kernels():
        new = set(map(str, kernel.signatures)) - before.get(name, set())
        if new:
            print(name, new)
else:
    for name, kernel in kernels():
        if kernel.stats.cache_misses:
            print(name, dict(kernel.stats.cache_misses))
"""


def test_warmup_makes_all_that_compiling_and_evaluating_take() -> None:
    """After `warmup` no kernel meets new types of arguments, and a new process compiles none."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        pytest.skip("nothing is compiled")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for how in ("warm", "new"):
        done = subprocess.run([sys.executable, "-c", ALL_OF_IT, how], cwd=ROOT, capture_output=True, text=True,
                              env=environment)
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.splitlines() if not line.startswith("kernels ready")]
        assert not lines, lines
