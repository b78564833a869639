"""The kernel against the interpreter on drawn hosts, with packets at their edges."""

from __future__ import annotations

import pytest

from fastpath import netns
from fastpath.reference import evaluate
from tests.edges import edge_packets
from tests.strategies import random_drawn

pytestmark = pytest.mark.kernel
PACKETS = 200


def agree(seed: int, judge: netns.Judge, backend: netns.Backend, *, undecided: bool) -> int:
    drawn = random_drawn(seed, undecided=undecided)
    host = drawn.host()
    packets = netns.enough(host, edge_packets(host, 4 * PACKETS, seed), PACKETS)
    found = netns.compare(host, packets, lambda batch: evaluate(host, batch), judge, backend)
    assert found, f"seed {seed}\n{drawn}\n{found}"
    return len(found.packets)


def test_few(judge: netns.Judge, backend: netns.Backend) -> None:
    assert sum(agree(seed, judge, backend, undecided=False) for seed in range(20)) > 10 * PACKETS


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_many(block: int, judge: netns.Judge, backend: netns.Backend) -> None:
    """500 hosts in all; every fifth may hold rules that no header decides."""
    seeds = range(1000 + 50 * block, 1050 + 50 * block)
    assert sum(agree(seed, judge, backend, undecided=not seed % 5) for seed in seeds) > 25 * PACKETS
