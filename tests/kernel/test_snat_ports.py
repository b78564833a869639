"""Source ports against the kernel: connections that are really entered into the table, through a small range."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastpath.capacity.connections.timeouts import Timeouts
from fastpath.capacity.ports.search import ROUNDS
from fastpath.capacity.ports.simulate import fill

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).resolve().parents[2]


def ask(*steps: dict[str, Any]) -> list[Any]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/kernel/masquerade.py")], input=json.dumps(steps), capture_output=True,
        text=True, check=False, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
                          "OPENBLAS_NUM_THREADS": "1"})
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout)
    if "unavailable" in found:
        if os.environ.get("FASTPATH_REQUIRE_KERNEL"):
            pytest.fail(found["unavailable"])
        pytest.skip(found["unavailable"])
    answers: list[Any] = found["answers"]
    return answers


def rule(options: str, backend: str = "nft") -> dict[str, Any]:
    return {"rule": f"-p tcp -o out0 -j MASQUERADE {options}".strip(), "backend": backend}


def linux() -> tuple[int, int]:
    words = os.uname().release.split(".")
    return int(words[0]), int(words[1].split("-")[0])


def test_a_small_range_is_used_up_to_the_last_port(backend):
    _, got = ask(rule("--to-ports 5000-5099", backend), {"open": 150})
    assert sorted(got) == list(range(5000, 5100))
    assert fill(150, 5000, 5099) == 100


@pytest.mark.skipif(linux() < (6, 5), reason="before Linux 6.5 closing connections keep their ports")
def test_ports_of_closed_connections_are_taken_over_if_the_sequence_number_is_ahead(backend):
    _, first, closed, ahead, behind = ask(
        rule("--to-ports 5000-5099", backend), {"open": 100}, {"close": True}, {"open": 50, "seq": 1_000_000},
        {"open": 50, "seq": 500})
    assert len(first) == closed == 100
    assert len(ahead) == 50
    assert behind == []


def test_a_connection_keeps_its_port_where_it_may_and_else_leaves_its_class():
    _, got, low = ask(rule(""), {"open": 300, "sources": 100, "port": 40000}, {"open": 40, "sources": 40, "port": 300})
    assert {40000, 40001, 40002} <= set(got)
    assert len(set(got)) == 300
    assert min(got) >= 1024
    assert all(1 <= port <= 511 for port in low)


def test_a_large_range_fails_before_it_is_full_as_often_as_simulated():
    ports, runs = 1000, 6
    answers = ask(*(step for _ in range(runs) for step in (rule("--to-ports 5000-5999 --random"), {"open": ports})))
    got = [len(answer) for answer in answers if answer is not None]
    simulated = [fill(ports, 5000, 5999, seed=seed) for seed in range(200)]
    assert sum(ROUNDS) < ports
    assert any(n < ports for n in got)
    missed, expected = sum(ports - n for n in got) / runs, sum(ports - n for n in simulated) / len(simulated)
    spread = (sum((ports - n - expected) ** 2 for n in simulated) / len(simulated) / runs) ** 0.5
    assert abs(missed - expected) < 4.5 * spread, (got, expected)


def test_the_default_timeouts_are_the_kernels():
    names = list(Timeouts().to_dict())
    _, values = ask(rule(""), {"read": names})
    assert dict(zip(names, map(float, values), strict=True)) == Timeouts().to_dict()
