"""What the command must not load: numba takes longer than a trace, and help needs neither."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cli

ROOT = Path(__file__).resolve().parents[2]

PROBE = """
import sys
from fastpath.cli import main
code = main(sys.argv[1:])
found = {name.split(".")[0] for name in sys.modules}
heavy = sorted(found & {"numba", "llvmlite", "pyarrow", "pandas", "altair", "vl_convert"})
print("code", code, "heavy", *heavy, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["eval", "--help"],
        ["trace", "--help"],
        ["query", "--help"],
        ["lint", "--help"],
        ["test", "--help"],
        ["capacity", "report", "--help"],
        ["capacity", "conntrack", "--rate", "tcp=500,30"],
        ["diff", "--help"],
        ["check", "{host}"],
        ["docker", "reach", "--from", "data/docker/shop.yaml", "--engine", "29"],
        ["trace", "--host", "{host}", "--in", "eth0", "--src", "198.51.100.7", "--dst", "10.0.2.15", "--dport", "8080"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_light_commands(host, words):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *(word.format(host=host) for word in words)],
        cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stderr.strip().splitlines()[-1] == "code 0 heavy", done.stderr


def test_the_package_itself_is_light():
    probe = (
        "import sys, fastpath\n"
        "print(*sorted({n.split('.')[0] for n in sys.modules} & {'numba', 'pyarrow', 'typer', 'rich', 'numpy'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert set(done.stdout.split()) <= {"numpy"}
