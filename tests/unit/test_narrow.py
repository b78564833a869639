"""Columns of few values looked up and added up: the vectors, and the loop behind them, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from fastpath.kernels.narrow import NARROW, WIDE, add_up

GUARD = 0xABCD


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
@pytest.mark.parametrize("mask", [NARROW, WIDE])
def test_sums(dtype: str, mask: int) -> None:
    """Every length up to some groups of vectors, columns that begin anywhere, nothing written beyond them."""
    rng = np.random.default_rng(mask)
    table = rng.integers(0, 1 << 16, mask + 1).astype(np.uint16)
    for n in [*range(0, 200, 1 if mask == NARROW else 29), 4096]:
        begin = n % 7
        info = np.iinfo(dtype)
        column = rng.integers(info.min, info.max + 1, n + begin).astype(dtype)[begin:]
        found = table[column.astype(np.int64) & mask]
        for plus in (False, True):
            room = np.full(n + 70, GUARD, np.uint16)
            sums = room[3:]
            before = rng.integers(0, (1 << 16) - found.astype(np.int64)).astype(np.uint16)
            sums[:n] = before
            add_up(table, column, mask, plus, sums)
            assert np.array_equal(sums[:n], found + before if plus else found), (n, plus)
            assert (room[:3] == GUARD).all() and (sums[n:] == GUARD).all(), (n, plus)


@pytest.mark.kernels
def test_sums_looked_up_again() -> None:
    """The sums may be the column."""
    rng = np.random.default_rng(1)
    table = rng.integers(0, 1 << 16, 256).astype(np.uint16)
    for n in (1, 63, 64, 150):
        sums = rng.integers(0, 256, n).astype(np.uint16)
        expected = table[sums]
        add_up(table, sums, NARROW, False, sums)
        assert np.array_equal(sums, expected), n


@pytest.mark.kernels
def test_no_bit_of_a_table_is_lost() -> None:
    """Every index finds its own entry, in whatever lane it is."""
    for shift in range(0, 256, 37):
        column = np.roll(np.arange(256), shift).astype(np.uint8)
        for table in (np.arange(256) * 257, 0xFFFF - np.arange(256)):
            sums = np.zeros(256, np.uint16)
            add_up(table.astype(np.uint16), column, NARROW, False, sums)
            assert np.array_equal(sums, table[column]), shift


@pytest.mark.kernels
def test_columns_of_bytes() -> None:
    """Results of eight bits are written where they belong, wherever the column begins."""
    rng = np.random.default_rng(2)
    table = rng.integers(0, 256, 256).astype(np.uint16)
    for n in (0, 1, 63, 64, 65, 200):
        which = rng.integers(0, 256, n).astype(np.uint16)
        room = np.full(n + 70, 77, np.uint8)
        add_up(table, which, NARROW, False, room[3:])
        assert np.array_equal(room[3:n + 3], table[which]), n
        assert (room[:3] == 77).all() and (room[n + 3:] == 77).all(), n
