"""Peak memory of whole processes that stream packets through."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.conftest import FULL, Recorder

ROOT = Path(__file__).resolve().parents[1]
COUNT = 100_000_000 if FULL else 5_000_000

PROBE = """
import resource, sys
from fastpath.cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("written", [False, True], ids=["sums", "written"])
def test_streamed(record: Recorder, tmp_path: Path, written: bool) -> None:
    """Made-up packets, summed up only, and with packets and results written as Parquet: memory and rate."""
    words = ["eval", "--host", str(ROOT / "data" / "hosts" / "docker28-big"), "--synth", "traffic", "-n", str(COUNT)]
    out = ["--out", str(tmp_path / "out"), "--addresses", "int"] if written else []
    peak = 0.0

    def run() -> None:
        nonlocal peak
        done = subprocess.run([sys.executable, "-c", PROBE, *words, *out], capture_output=True, text=True, check=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})
        peak = int(done.stderr.split()[-1]) / 1024

    record.benchmark.group = "memory"
    record.benchmark.pedantic(run, rounds=1)
    what = "Parquet written" if written else "sums only"
    if record.benchmark.stats is not None:
        rate = COUNT / record.benchmark.stats.stats.median / 1e6
        record.keep("packets streamed, all cores", "docker28-big, made up", what, "fastpath", rate, "M packets/s",
                    f"{COUNT:,} packets, one round, with starting and compiling")
    record.keep("peak memory", "docker28-big, streamed", what, "fastpath", peak, "MiB", f"{COUNT:,} packets")
