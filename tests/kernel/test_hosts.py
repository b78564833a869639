"""The kernel against the compiled engine on every captured host, and on every hand-reasoned case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import fastpath as fp
from fastpath import netns
from fastpath.analysis.case import Case, load_cases
from fastpath.errors import UnavailableError
from fastpath.netns.backends import differences
from fastpath.netns.compare import visible
from fastpath.packets import synth
from fastpath.packets.schema import Flag
from fastpath.reference import evaluate

pytestmark = pytest.mark.kernel
DATA = Path(__file__).parents[2] / "data"
HOSTS = sorted(path.name for path in (DATA / "hosts").iterdir() if path.is_dir())
CASES = load_cases(DATA / "cases")


def agree(name: str, profile: str, count: int, judge: netns.Judge, backend: netns.Backend) -> None:
    host = fp.Host.load(DATA / "hosts" / name)
    packets = netns.enough(host, synth.packets(host, 2 * count, seed=1, profile=profile), count)
    found = netns.compare(host, packets, fp.compile(host).evaluate, judge, backend)
    assert found, str(found)
    assert found.counters_compared
    assert len(found.packets) >= 0.97 * count  # a few have NAT choices


@pytest.mark.parametrize("name", HOSTS)
def test_traffic_on_a_captured_host(name: str, judge: netns.Judge, backend: netns.Backend) -> None:
    agree(name, "traffic", 1000, judge, backend)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTS)
def test_edges_of_a_captured_host(name: str, judge: netns.Judge, backend: netns.Backend) -> None:
    agree(name, "edges", 20_600, judge, backend)


def test_both_engines_are_put_before_the_kernel(judge: netns.Judge) -> None:
    """The compiled engine agrees with the kernel above; the interpreter does on one host at least."""
    host = fp.Host.load(DATA / "hosts" / "docker28-seed")
    packets = synth.packets(host, 2000, seed=2, profile="edges")
    found = netns.compare(host, packets, lambda batch: evaluate(host, batch), judge)
    assert found, str(found)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, judge: netns.Judge, backend: netns.Backend) -> None:
    """What was reasoned by hand, and what some engine once got wrong."""
    if case.assume:
        pytest.skip("what the case assumes, the kernel decides by itself")
    try:
        kernel = judge.evaluate(case.host, case.packets, backend)
    except UnavailableError as error:  # a kernel without some ipset type or xtables module
        pytest.skip(str(error))
    seen = visible(case.packets, kernel)
    ours = evaluate(case.host, case.packets)
    told_apart = differences(case.host, case.packets, backend)[0] != 0
    comparable = [
        kernel.judged[row] and not told_apart[row] and not expected.unjudged
        and expected.values.get("verdict") != "UNDECIDED" and not ours.flags[row] & Flag.NAT_CHOICE
        for row, expected in enumerate(case.expected)]
    if not any(comparable):
        pytest.skip("; ".join(sorted({kernel.reason(row) for row in range(len(kernel))} - {""})) or "undecided")
    expected = tuple(
        replace(e, values={k: v for k, v in e.values.items() if comparable[row] and k in seen and seen[k][row]})
        for row, e in enumerate(case.expected))
    counters = tuple(c for c in case.counters if not c.unjudged) if all(comparable) else ()
    assert replace(case, expected=expected, counters=counters).mismatches(kernel) == []
