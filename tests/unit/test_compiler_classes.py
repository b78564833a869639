"""Partitions of a field into classes, and the look-up tables made of them, against every value one by one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@given(wide_sets(32))
def test_an_interval_is_a_range_of_classes(sets: list[Values]) -> None:
    """Classes are numbered as they first appear, however often they come again."""
    sets = [*sets, *(Values((interval,)) for values in sets for interval in values)]
    found = partition(Field("dst"), sets)
    for values in sets:
        if len(values.intervals) == 1:
            inside = np.flatnonzero(found.members(values))
            assert inside.tolist() == list(range(inside[0], inside[0] + len(inside)))
    assert found.class_of[0] == 0
    assert (np.diff(np.maximum.accumulate(found.class_of)) <= 1).all()


# ------------------------------------------------------------------------------------------------ look-up tables


def look_up(table: npt.NDArray[np.uint32], values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Classes of 16-bit values by a trie, as its documentation describes it."""
    entry = np.zeros(len(values), np.int64)
    for shift in (8, 0):
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
    assert np.array_equal(look_up(trie_table(found), every), by_search(found, every))
    for v in edges_of(sets, 16):
        assert look_up(trie_table(found), np.array([v]))[0] == found.class_of_value(v)


def test_tries_without_and_with_all_boundaries() -> None:
    every = np.arange(1 << 16, dtype=np.int64)
    plain = partition(Field("dport"), [])
    assert not look_up(trie_table(plain), every).any()
    even = partition(Field("dport"), [Values(tuple((v, v) for v in range(0, 1 << 16, 2)))])
    assert np.array_equal(look_up(trie_table(even), every), even.class_of[every])
    assert even.count == 2
    separate = Partition(Field("dport"), tuple(range(1 << 16)), every, 1 << 16)
    assert np.array_equal(look_up(trie_table(separate), every), every)
