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
