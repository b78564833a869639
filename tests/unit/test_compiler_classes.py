"""Partitions of a field into classes, and the look-up tables made of them, against every value one by one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.compiler import classes
from fastpath.compiler.classes import Partition, direct_table, partition, trie_table
from fastpath.compiler.fields import Field, Values

BYTE = Field("proto")

byte_sets = st.lists(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), max_size=4).map(Values.of), max_size=6
)


def wide_sets(bits: int) -> st.SearchStrategy[list[Values]]:
    """Sets over a wide field: anywhere, at its ends, and around the boundaries of a trie's bytes."""
    top = (1 << bits) - 1
    around = st.builds(
        lambda shift, block, step: min(max((block << shift) + step, 0), top),
        st.sampled_from(range(8, bits, 8)), st.integers(0, 3), st.integers(-1, 1))
    edge = st.one_of(st.integers(0, top), st.sampled_from((0, 1, top - 1, top)), around)
    return st.lists(st.lists(st.tuples(edge, edge), max_size=4).map(Values.of), max_size=6)


def edges_of(sets: list[Values], bits: int) -> list[int]:
    """Values on and beside every boundary."""
    near = {0, (1 << bits) - 1}
    for values in sets:
        for first, last in values:
            near |= {first - 1, first, first + 1, last - 1, last, last + 1}
    return sorted(v for v in near if 0 <= v < 1 << bits)


def check_exact(found: Partition, sets: list[Values], at: list[int]) -> None:
    """Values are in one class just where no set tells them apart."""
    by_class: dict[int, tuple[bool, ...]] = {}
    for v in at:
        signature = tuple(v in s for s in sets)
        assert by_class.setdefault(found.class_of_value(v), signature) == signature
    assert len(set(by_class.values())) == len(by_class)


# --------------------------------------------------------------------------------------------------- partitions


@given(byte_sets)
def test_partition_of_a_byte(sets: list[Values]) -> None:
    found = partition(BYTE, sets)
    check_exact(found, sets, list(range(256)))
    assert {found.class_of_value(v) for v in range(256)} == set(range(found.count))
    assert found.starts[0] == 0 and list(found.starts) == sorted(set(found.starts))
    assert len(found.starts) == len(found.class_of)


@given(byte_sets)
def test_members_are_the_classes_inside_a_set(sets: list[Values]) -> None:
    found = partition(BYTE, sets)
    for values in sets:
        expected = {found.class_of_value(v) for v in range(256) if v in values}
        assert set(np.flatnonzero(found.members(values)).tolist()) == expected


@pytest.mark.parametrize("field", [Field("dport"), Field("src"), Field("mac_src")])
@given(data=st.data())
def test_partition_of_wide_fields(field: Field, data: st.DataObject) -> None:
    sets = data.draw(wide_sets(field.bits))
    found = partition(field, sets)
    at = edges_of(sets, field.bits)
    check_exact(found, sets, at)
    for values in sets:
        inside = {found.class_of_value(v) for v in at if v in values}
        assert set(np.flatnonzero(found.members(values)).tolist()) == inside


def test_no_set_and_full_set_give_one_class() -> None:
    for sets in ([], [Values(())], [Values(((0, 0xFFFF),))]):
        found = partition(Field("dport"), sets)
        assert found.count == 1 and found.class_of_value(0) == found.class_of_value(0xFFFF) == 0


def test_far_intervals_that_look_alike_are_one_class() -> None:
    found = partition(Field("dport"), [Values.single(80, 443, 8080)])
    assert found.count == 2
    assert found.class_of_value(80) == found.class_of_value(8080) != found.class_of_value(81)


def test_a_masked_field_looks_at_its_bits_only() -> None:
    found = partition(Field("mark", 0xF0), [Values.single(0x10), Values.single(0x20)])
    assert found.count == 3
    assert found.class_of_value(0x10) == found.class_of_value(0xABCDEF1F)
    assert found.class_of_value(0x2F) == found.class_of_value(0x20) != found.class_of_value(0x30)
    assert found.class_of_value(0x3F) == found.class_of_value(0xFFFFFFFF)


@given(byte_sets)
def test_without_signatures_every_interval_is_a_class(sets: list[Values]) -> None:
    """Above the limit the partition is finer than it need be, but still tells all sets apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classes, "MAX_SIGNATURE_CELLS", 0)
        found = partition(BYTE, sets)
    if not sets:
        return
    assert found.count == len(found.starts)
    for values in sets:
        inside = found.members(values)
        assert all(bool(inside[found.class_of_value(v)]) == (v in values) for v in range(256))


# ------------------------------------------------------------------------------------------------ look-up tables


def look_up(table: npt.NDArray[np.uint32], bits: int, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Classes of values by a trie, as its documentation describes it."""
    entry = np.zeros(len(values), np.int64)
    for shift in range(bits - 8, -1, -8):
        entry = table[256 * entry + (values >> shift & 255)].astype(np.int64)
    return entry


def by_search(found: Partition, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Classes of many values at once."""
    return found.class_of[np.searchsorted(np.array(found.starts, np.int64), values, side="right") - 1]


@given(byte_sets)
def test_direct_table_of_a_byte(sets: list[Values]) -> None:
    found = partition(BYTE, sets)
    assert direct_table(found, 256).tolist() == [found.class_of_value(v) for v in range(256)]


@given(wide_sets(16), st.integers(1, 40))
def test_direct_table_of_interface_ids(sets: list[Values], size: int) -> None:
    """Only the ids of a host's interfaces exist; sets may name more."""
    found = partition(Field("iif"), sets)
    assert direct_table(found, size).tolist() == [found.class_of_value(v) for v in range(size)]


@settings(max_examples=40)
@given(wide_sets(16))
def test_trie_of_sixteen_bits(sets: list[Values]) -> None:
    found = partition(Field("dport"), sets)
    every = np.arange(1 << 16, dtype=np.int64)
    assert np.array_equal(look_up(trie_table(found, 16), 16, every), by_search(found, every))
    for v in edges_of(sets, 16):
        assert look_up(trie_table(found, 16), 16, np.array([v]))[0] == found.class_of_value(v)


@settings(max_examples=40)
@given(wide_sets(32), st.integers(0, 2**32 - 1))
def test_trie_of_thirty_two_bits(sets: list[Values], seed: int) -> None:
    found = partition(Field("dst"), sets)
    table = trie_table(found, 32)
    at = edges_of(sets, 32)
    assert look_up(table, 32, np.array(at)).tolist() == [found.class_of_value(v) for v in at]
    drawn = np.random.default_rng(seed).integers(0, 1 << 32, 2000)
    near = (np.array(at)[:, None] ^ (1 << np.arange(32))).reshape(-1)
    for values in (drawn, near):
        assert np.array_equal(look_up(table, 32, values), by_search(found, values))


def test_tries_without_and_with_all_boundaries() -> None:
    every = np.arange(1 << 16, dtype=np.int64)
    plain = partition(Field("dport"), [])
    assert not look_up(trie_table(plain, 16), 16, every).any()
    even = partition(Field("dport"), [Values(tuple((v, v) for v in range(0, 1 << 16, 2)))])
    assert np.array_equal(look_up(trie_table(even, 16), 16, every), even.class_of[every])
    assert even.count == 2
    separate = Partition(Field("dport"), tuple(range(1 << 16)), every, 1 << 16)
    assert np.array_equal(look_up(trie_table(separate, 16), 16, every), every)


def test_a_trie_is_as_small_as_its_boundaries_allow() -> None:
    """Equal pages are one: values far from any boundary share their pages, however many they are."""
    def pages(*intervals: tuple[int, int]) -> int:
        found = partition(Field("dst"), [Values.of(intervals)])
        return len(trie_table(found, 32)) // 256

    assert pages() <= 4  # one for each byte
    assert pages((0x0A000000, 0x0AFFFFFF)) <= 1 + 2 * 3  # and one more each for a second class
    assert pages((0x0A000101, 0x0A000101)) <= 1 + 3 * 3
    assert pages(*((n << 16 | 5, n << 16 | 9) for n in range(0, 1 << 13, 2))) <= 1 + 3 * 4
