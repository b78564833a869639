"""Columns written past the cache hold what columns written through it do."""

from __future__ import annotations

import numpy as np
import pytest

from fastpath.engine import bulk, memory
from fastpath.engine import compile as compile_host
from fastpath.kernels.uncached import LINE, rewrite, write
from tests.strategies import edge_packets
from tests.unit.test_bulk import PLAIN, check

LENGTHS = (0, 1, 15, 16, 17, 63, 64, 65, 128, 200)


def column(n: int, dtype: str, begin: int) -> np.ndarray:
    """A column of one value that begins `begin` bytes behind a cache line."""
    room = np.full(n * np.dtype(dtype).itemsize + 2 * LINE, 0xAA, np.uint8)
    first = -room.ctypes.data % LINE + begin
    return room[first:first + n * np.dtype(dtype).itemsize].view(dtype)


@pytest.mark.kernels
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("begin", [0, 4, 32])
@pytest.mark.parametrize(("numbers", "shift", "dtype"), [
    ("uint64", 0, "int32"), ("uint64", 32, "int16"), ("uint64", 48, "uint8"), ("uint64", 32, "uint32"),
    ("uint64", 32, "uint16"), ("uint32", 0, "int32"), ("uint32", 0, "uint8"), ("uint32", 0, "int16")])
def test_parts_of_numbers(numbers: str, shift: int, dtype: str, begin: int, past: bool) -> None:
    """Any length, anywhere; nothing behind the end is touched."""
    rng = np.random.default_rng(shift)
    for n in LENGTHS:
        of = rng.integers(0, np.iinfo(numbers).max, n, numbers, endpoint=True)
        of[rng.random(n) < 0.5] &= np.array(0xFFFF, numbers)
        whole = column(n + 8, dtype, begin)
        behind = whole[n:].copy()
        expected = (of.astype(np.uint64) >> np.uint64(shift)).astype(dtype)
        write(of, shift, past, whole[:n])
        assert np.array_equal(whole[:n], expected) and np.array_equal(whole[n:], behind)
        kept = rng.integers(1, 99, n).astype(dtype)
        rewrite(of, shift, kept, past, whole[:n])
        assert np.array_equal(whole[:n], np.where(expected != 0, expected, kept))
        assert np.array_equal(whole[n:], behind)


@pytest.mark.kernels
@pytest.mark.parametrize("columns", [None, ["rule"], ["verdict", "rules_walked"], ["oif", "hook"]])
def test_results_of_any_size(columns: list[str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = compile_host(PLAIN)
    packets = edge_packets(PLAIN, 250, 21)
    expected = check(engine, packets)
    monkeypatch.setattr(bulk, "PAST", 0)
    monkeypatch.setattr(memory, "SMALLEST", 1)
    found = engine.evaluate(packets, columns=columns)
    for name in columns or ["verdict", "rule", "hook", "oif", "dst", "dport", "src", "rules_walked"]:
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_memory_begins_at_cache_lines() -> None:
    for n in (memory.SMALLEST, memory.SMALLEST + 1, 3 * memory.SMALLEST + 17):
        assert memory.empty(n, "uint8").ctypes.data % LINE == 0
