"""Look-up tables for values of 32 bits, in both forms, against the intervals that they are made of."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.compiler import addresses
from fastpath.compiler.addresses import LOWS, MOST_INSIDE, Pages, Ranks, pages, ranks
from fastpath.compiler.classes import Partition
from fastpath.compiler.config import Config
from fastpath.compiler.fields import Field
from fastpath.compiler.tables import _Packer
from fastpath.errors import CompileError
from fastpath.kernels import _vector, build
from fastpath.kernels._jit import kernel
from fastpath.kernels.addresses import page_classes, rank
from fastpath.kernels.classify import class_of
from fastpath.kernels.layout import F_KIND, F_OF_RANK_WIDE, K_PAGES, K_RANKS, Tables

pytestmark = pytest.mark.kernels

COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"
TOP = (1 << 32) - 1
Values = npt.NDArray[np.int64]


def clusters() -> st.SearchStrategy[list[int]]:
    """Bounds of intervals: single ones anywhere and at borders, and runs of equal distance, dense or not, of any size
    up to a few hundred, which fill buckets to the last place and over it."""
    border = st.builds(lambda shift, block, step: (block << shift) + step & TOP,
                       st.integers(4, 24), st.integers(0, 300), st.integers(-1, 1))
    single = st.lists(st.one_of(st.integers(0, TOP), border, st.sampled_from((0, 1, TOP - 1, TOP))), max_size=8)
    run = st.builds(lambda at, distance, many: [at + distance * i & TOP for i in range(many)],
                    st.one_of(st.integers(0, TOP), border), st.sampled_from((1, 2, 3, 16, 250, 2048, 1 << 16)),
                    st.one_of(st.integers(30, 34), st.integers(1, 300)))
    return st.builds(lambda a, b: [*a, *(v for part in b for v in part)], single, st.lists(run, max_size=4))


def of_bounds(bounds: list[int], seed: int = 0, field: Field = Field("src")) -> Partition:  # noqa: B008 (frozen)
    """A partition whose classes come again."""
    starts = tuple(sorted({0, *bounds}))
    class_of = np.random.default_rng(seed).integers(0, min(len(starts), 40) + 1, len(starts))
    return Partition(field, starts, class_of, int(class_of.max()) + 1)


def by_search(found: Partition, values: Values) -> Values:
    """Numbers of the intervals that values lie in."""
    return np.searchsorted(np.array(found.starts, np.int64), values, side="right") - 1


def near(found: Partition, seed: int) -> Values:
    """Values at and beside every bound and the borders of its buckets and regions, and drawn ones."""
    rng = np.random.default_rng(seed)
    starts = np.array(found.starts, np.int64)
    some = starts if len(starts) < 200 else rng.choice(starts, 200)
    borders = (some[:, None] >> np.arange(25) << np.arange(25)).reshape(-1)
    ends = borders + np.repeat(1 << np.arange(25)[None, :], len(some), axis=0).reshape(-1)
    drawn = rng.integers(0, 1 << 32, 200)
    flipped = (rng.choice(starts, 8)[:, None] ^ (1 << np.arange(32))).reshape(-1)
    every = np.concatenate([starts, borders, ends, drawn, flipped])
    every = np.unique(np.concatenate([every - 1, every, every + 1, [0, TOP]]))
    every = every[(every >= 0) & (every <= TOP)]
    return every if COMPILED else rng.choice(every, min(len(every), 400), replace=False)


@kernel
def read_pages(cells16: Any, last: Any, split: Any, values: Any, found: Any) -> None:
    page_classes(cells16[3:], split, cells16[last:], values, found)


@kernel
def read_ranks(words: Any, bounds: Any, low: Any, values: Any, found: Any) -> None:
    below = np.uint32(low)
    for i in range(len(values)):
        found[i] = rank(words, bounds, below, values[i])


def by_pages(made: Pages, values: Values) -> Values:
    """As the documentation describes them."""
    page = made.top[values >> made.high].astype(np.int64) << made.spacing
    page = made.middle[page + ((values & (1 << made.high) - 1) >> made.low)].astype(np.int64) << made.spacing
    return made.last[page + (values & (1 << made.low) - 1)].astype(np.int64)


def by_kernel(made: Pages, values: Values) -> npt.NDArray[np.uint32]:
    """As the kernel reads them, behind something else."""
    cells16 = np.concatenate([np.arange(3, dtype=np.uint16), made.top, made.middle, made.last])
    out = np.zeros(len(values), np.uint32)
    read_pages(cells16, len(cells16) - len(made.last), made.split, values.astype(np.uint32), out)
    return out


def by_ranks(made: Ranks, values: Values) -> Values:
    """As the documentation describes them."""
    region = made.words[values >> made.low].astype(np.int64)
    shift = region & 31
    bucket = made.words[(region >> 5) + ((values & (1 << made.low) - 1) >> shift)].astype(np.int64)
    before, inside = bucket >> 6, bucket & 63
    assert inside.max() <= MOST_INSIDE
    bounds = made.bounds[before[:, None] + np.arange(MOST_INSIDE)]
    counted = (bounds <= (values & (1 << shift) - 1)[:, None]) & (np.arange(MOST_INSIDE) < inside[:, None])
    return before + counted.sum(axis=1)


@settings(max_examples=80 if COMPILED else 15)
@given(clusters(), st.integers(0, 2**32 - 1))
def test_both_forms(bounds: list[int], seed: int) -> None:
    """The description, the kernels, and the intervals say the same."""
    found = of_bounds(bounds, seed)
    values = near(found, seed)
    expected = by_search(found, values)
    out = np.zeros(len(values), np.uint32)
    paged = pages(found, 1 << 30)
    assert paged is not None
    assert np.array_equal(by_pages(paged, values), found.class_of[expected])
    assert np.array_equal(by_kernel(paged, values), found.class_of[expected])
    made = ranks(found)
    assert np.array_equal(by_ranks(made, values), expected)
    read_ranks(made.words, made.bounds, made.low, values.astype(np.uint32), out)
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("low", LOWS)
@settings(max_examples=30 if COMPILED else 8)
@given(bounds=clusters(), seed=st.integers(0, 2**32 - 1))
def test_regions_of_every_size(low: int, bounds: list[int], seed: int) -> None:
    """Also where others would be smaller."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(addresses, "LOWS", (low,))
        found = of_bounds(bounds, seed)
        made = ranks(found)
    assert made.low == low
    values = near(found, seed)
    out = np.zeros(len(values), np.uint32)
    read_ranks(made.words, made.bounds, low, values.astype(np.uint32), out)
    assert np.array_equal(out, by_search(found, values))


def test_every_value_of_a_dense_block() -> None:
    """A bound at every value, then at every other, up to buckets of 32 bounds, which is as many as there may be."""
    block = 0xC0A80000
    for bounds in (range(512), range(0, 512, 2), range(1, 1024, 16), range(1, 33), range(33, 66), range(64, 97)):
        found = of_bounds([block + b for b in bounds])
        values = np.arange(block - 100, block + 1200)
        made = ranks(found)
        out = np.zeros(len(values), np.uint32)
        read_ranks(made.words, made.bounds, made.low, values.astype(np.uint32), out)
        assert np.array_equal(out, by_search(found, values))


def test_regions_are_as_large_as_bounds_lie_apart() -> None:
    """A few bytes an interval beside the 65,536 buckets; crowds make their own region finer only."""
    spread = ranks(of_bounds([i << 12 for i in range(1 << 20)][::8]))
    assert len(spread.words) == (1 << 16) + (1 << 8) and spread.low == 24
    crowds = [[(block << 24) + 2 * i for i in range(20000)] for block in range(10, 18)]
    one, eight = ranks(of_bounds(crowds[0])), ranks(of_bounds(sum(crowds, [])))
    assert one.low == 20 and len(one.words) == (1 << 12) + (1 << 16) + (1 << 14) - (1 << 4)
    assert eight.low == 18 and len(eight.words) == (1 << 14) + (1 << 16) + 8 * ((1 << 12) - (1 << 2))
    assert len(ranks(of_bounds([])).words) == (1 << 16) + (1 << 8)
    assert len(spread.bounds) == (1 << 17) - 1 + MOST_INSIDE


@settings(max_examples=60 if COMPILED else 10)
@given(bounds=clusters(), seed=st.integers(0, 2**32 - 1), high=st.integers(14, 22), low=st.integers(4, 13),
       spacing=st.integers(0, 8), mask=st.sampled_from((-1, 0xFF00FFFF, 0xFFFFFF00, 0x80000001, 0x00F0F0F0)))
def test_pages_of_every_split(bounds: list[int], seed: int, high: int, low: int, spacing: int, mask: int) -> None:
    """Also where another is smaller; and values are looked up as they are where only some of their bits count."""
    found = of_bounds([b & mask for b in bounds], seed, Field("mark", mask))
    starts = np.array(found.starts, np.int64)
    top, middle, last = build.address_pages(starts, found.class_of, mask & TOP, high, low, spacing)
    if not len(top):
        return  # they would begin too far on
    made = Pages(top, middle, last, high, low, spacing)
    values = near(found, seed)
    expected = found.class_of[by_search(found, values & mask)]
    assert np.array_equal(by_pages(made, values), expected)
    assert np.array_equal(by_kernel(made, values), expected)


def test_pages_are_shared() -> None:
    def words(*bounds: int, spacing: int = 0) -> tuple[int, int]:
        """Behind the first step of 16 bits, where all pages have 256, for intervals of two classes in turn."""
        starts = np.array((0, *bounds), np.int64)
        _, middle, last = build.address_pages(starts, np.arange(len(starts)) % 2, TOP, 16, 8, spacing)
        return len(middle), len(last)

    assert words() == (256, 256)
    assert words(0x0A000000, 0x0B000000) == (512, 512)
    assert words(0x0A000101, 0x0A000102) == (511, 511)  # the last words of one page are the first ones of the other
    assert words(0x0A000120, 0x0A000121) == (511, 480)
    assert words(0x0A000120, 0x0A000121, spacing=4) == (512, 480)
    assert words(0x0A000101, 0x0A000102, spacing=8) == (512, 512)
    assert words(0x0A000101, 0x0A000102, 0x0B000000) == (767, 767)


def test_the_split_with_the_fewest_words() -> None:
    """And pages lie as near to each other as their places in 16 bits allow."""
    one = of_bounds([])
    made = pages(one, 5120)
    assert made is not None and (made.high, made.low, made.spacing) == (21, 10, 0)
    assert len(made.top) + len(made.middle) + len(made.last) == 5120
    assert pages(one, 5119) is None and pages(one, 0) is None
    spread = pages(of_bounds(list(range(0, 1 << 32, 1 << 16))), 1 << 20)
    assert spread is not None and spread.high == 16
    scattered = of_bounds([int(v) for v in np.random.default_rng(1).integers(0, 1 << 32, 6000)])
    far = pages(scattered, 1 << 24)
    assert far is not None and far.spacing > 0 and max(len(far.middle), len(far.last)) > 1 << 16
    starts = np.array(scattered.starts, np.int64)
    assert not len(build.address_pages(starts, scattered.class_of, TOP, far.high, far.low, far.spacing - 1)[0])


def test_a_split_that_needs_no_spacing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken where it is hardly larger."""
    rng = np.random.default_rng(3)
    blocks = of_bounds([int(v) for v in (rng.integers(0, 1 << 14, 500) << 18) + (rng.integers(0, 1 << 12, 500) << 6)])
    near = pages(blocks, 1 << 24)
    monkeypatch.setattr(addresses, "NEAR", 1.0)
    fewest = pages(blocks, 1 << 24)
    assert near is not None and fewest is not None
    assert near.spacing == 0 < fewest.spacing and near.high < fewest.high


def test_more_classes_than_sixteen_bits_number() -> None:
    """They are looked up by rank, in words of 32 bits."""
    for count, wide in ((1 << 16, 0), ((1 << 16) + 1, 1)):
        starts = tuple(range(0, 3 * count, 3))
        found = Partition(Field("dst"), starts, np.arange(count), count)
        assert (pages(found, 1 << 30) is None) == bool(wide)
        packer, t = table_of(found, 0)
        assert packer.fields[0][F_KIND] == K_RANKS and packer.fields[0][F_OF_RANK_WIDE] == wide
        for v in (0, 2, 3, 3 * count - 4, 3 * count - 3, TOP):
            assert class_of(t, 0, np.uint64(v)) == found.class_of_value(v)


def table_of(found: Partition, most: int) -> tuple[_Packer, Tables]:
    """Kernel tables with nothing but one field."""
    packer = _Packer(True, Config(max_table_bytes=most))
    packer.add_field(found, 1, [])
    arrays = dict.fromkeys(Tables._fields, np.zeros(1, np.int64)) | {
        "fields": np.array(packer.fields, np.int64), "maps": np.zeros(1, np.uint16), "bounds": np.zeros(1, np.uint64),
        "trie": np.concatenate([*packer.trie, np.zeros(1, np.uint32)]),
        "cells16": packer.cells.narrow.flat(), "cells32": packer.cells.wide.flat(),
    }
    return packer, Tables(**arrays)


@pytest.mark.parametrize("most", [64 << 20, 0])
@pytest.mark.parametrize("mask", [-1, 0xFF00FFFF, 0x80000001])
def test_class_of_one_value(mask: int, most: int) -> None:
    rng = np.random.default_rng(3)
    found = of_bounds([int(v) & mask for v in rng.integers(0, 1 << 32, 60)], 1, Field("mark", mask))
    packer, t = table_of(found, most)
    assert packer.fields[0][F_KIND] == (K_PAGES if most else K_RANKS)
    for v in rng.choice(near(found, 1), 300).tolist():
        assert class_of(t, 0, np.uint64(v)) == found.class_of_value(v)


def test_the_vector_form_and_the_loop() -> None:
    """They count the same, up to the ends of all ranges."""
    rng = np.random.default_rng(5)
    values = rng.integers(0, 1 << 16, 40).astype(np.uint16)
    values[3], values[7] = 0, 0xFFFF
    for wanted in (0, 1, 0x7FFF, 0x8000, 0xFFFF, *values.tolist()):
        for count in range(33):
            for at in (0, 1, 8):
                expected = int((values[at:at + count] <= wanted).sum())
                given = np.uint64(at), np.uint32(wanted), np.uint32(count)
                assert _vector._counted(values, *given) == expected
                assert count_by(values, *given) == expected


@kernel
def count_by(values: Any, at: Any, wanted: Any, count: Any) -> Any:
    return _vector.counted(values, at, wanted, count)


def test_too_many_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MOST_RANKS", 100)
    with pytest.raises(CompileError, match="101 different bounds of src"):
        ranks(of_bounds(list(range(1, 101))))
