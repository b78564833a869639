"""Columns of few values looked up and added up: every form that the processor has, and the loop, against numpy."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fastpath.kernels.narrow import NARROW, ROW, SHUFFLE, WIDE, add_up, features, in_vectors, prepared, rows_of

Array = np.ndarray[Any, Any]
GUARD = 0xABCD
DTYPES = ["uint8", "int16", "uint16"]
ROWS = [0, 1, 2, 5, 8, 9, 12, 13, 16]


def of_rows(rng: np.random.Generator, count: int) -> Array:
    """A table with so many rows that differ and are not zeros only, each at least once, in any order."""
    rows = rng.integers(0, 1 << 16, (count + 1, ROW)).astype(np.uint16)
    rows[:, 0] |= 1
    rows[count] = 0
    row_of = rng.integers(0, count + 1, 256 // ROW)
    row_of[rng.permutation(256 // ROW)[:count]] = np.arange(count)
    return rows[row_of].reshape(-1)


def values_of(rng: np.random.Generator, dtype: str, n: int) -> Array:
    """Values of all bits, in memory that begins anywhere."""
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, n + n % 7).astype(dtype)[n % 7:]


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("mask", "count"), [*((NARROW, count) for count in ROWS), (WIDE, 0)])
def test_sums(dtype: str, mask: int, count: int) -> None:
    """Every length up to some groups of vectors, columns that begin anywhere, nothing written beyond them."""
    rng = np.random.default_rng([mask, count])
    table = of_rows(rng, count) if mask == NARROW else rng.integers(0, 1 << 16, mask + 1).astype(np.uint16)
    read = prepared(table)
    for n in [*range(0, 200, 1 if count == 2 else 29), 4096]:
        column = values_of(rng, dtype, n)
        found = table[column.astype(np.int64) & mask]
        for plus in (False, True):
            room = np.full(n + 70, GUARD, np.uint16)
            sums = room[3:]
            before = rng.integers(0, (1 << 16) - found.astype(np.int64)).astype(np.uint16)
            sums[:n] = before
            add_up(read, column, mask, plus, sums)
            assert np.array_equal(sums[:n], found + before if plus else found), (n, plus)
            assert (room[:3] == GUARD).all() and (sums[n:] == GUARD).all(), (n, plus)


@pytest.mark.kernels
def test_sums_looked_up_again() -> None:
    """The sums may be the column."""
    rng = np.random.default_rng(1)
    for count in ROWS:
        table = of_rows(rng, count)
        for n in (1, 63, 64, 150):
            sums = rng.integers(0, 256, n).astype(np.uint16)
            expected = table[sums]
            add_up(prepared(table), sums, NARROW, False, sums)
            assert np.array_equal(sums, expected), (count, n)


@pytest.mark.kernels
def test_no_bit_of_a_table_is_lost() -> None:
    """Every index finds its own entry, in whatever lane it is."""
    for shift in range(0, 256, 37):
        column = np.roll(np.arange(256), shift).astype(np.uint8)
        for table in (np.arange(256) * 257, 0xFFFF - np.arange(256)):
            sums = np.zeros(256, np.uint16)
            add_up(prepared(table.astype(np.uint16)), column, NARROW, False, sums)
            assert np.array_equal(sums, table[column]), shift


@pytest.mark.kernels
def test_tables_with_fewer_entries_are_filled() -> None:
    """Nothing is found beyond their end, whatever their length; longer tables stay as they are."""
    every = np.arange(256).astype(np.uint8)
    for size in (1, 15, 16, 17, 255):
        sums = np.full(256, 7, np.uint16)
        add_up(prepared(np.full(size, 300, np.uint16)), every, NARROW, True, sums)
        assert np.array_equal(sums, np.where(every < size, 307, 7)), size
    longer = np.arange(257).astype(np.uint16)
    assert np.array_equal(prepared(longer), longer) and not in_vectors(longer)


@pytest.mark.kernels
def test_what_is_looked_up_in_vectors() -> None:
    """Tables of few rows where there is nothing better; the number of rows is right."""
    rng = np.random.default_rng(3)
    for count in ROWS:
        table = of_rows(rng, count)
        assert rows_of(table, 16)[0] == count
        if SHUFFLE is not None:
            assert in_vectors(table) == (0 < count <= SHUFFLE.most), count


@pytest.mark.parametrize(("cpu", "has"), [("haswell", "+avx2"), ("nehalem", "+ssse3")])
def test_other_processors(cpu: str, has: str) -> None:
    """All of the above as on processors that have less than this one."""
    if has not in features():
        pytest.skip("this processor has even less")
    code = (
        "import sys, pytest; from fastpath.kernels.narrow import SHUFFLE, SHUFFLES\n"
        f"assert SHUFFLE is SHUFFLES[{has!r}]\n"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-m', 'kernels', {__file__!r}]))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PYTEST_"))}
    of_cpu = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": f"{has},+popcnt"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | of_cpu, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
