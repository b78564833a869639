"""Value sets and conditions against plain sets and plain truth, over universes small enough to look at every member."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.compiler.fields import (
    BASES,
    FALSE,
    TRUE,
    UNKNOWN,
    Condition,
    Field,
    Term,
    Values,
    all_of,
    any_of,
    equals,
    masked_equals,
    none_of,
)
from fastpath.compiler.fields import test as value_in

BYTE = range(256)

byte_intervals = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), max_size=6)
byte_values = byte_intervals.map(Values.of)


def members(values: Values) -> set[int]:
    """Every member of a set."""
    return {v for first, last in values for v in range(first, last + 1)}


def is_canonical(values: Values) -> bool:
    """Sorted, disjoint, not adjacent, no empty interval: equal sets are then equal objects."""
    flat = values.intervals
    return all(a <= b for a, b in flat) and all(b + 1 < c for (_, b), (c, _) in zip(flat, flat[1:], strict=False))


# -------------------------------------------------------------------------------------------------- value sets


@given(byte_intervals)
def test_of_is_the_union_of_its_intervals(intervals: list[tuple[int, int]]) -> None:
    found = Values.of(intervals)
    assert members(found) == {v for a, b in intervals for v in range(a, b + 1)}
    assert is_canonical(found)
    assert found == Values.single(*members(found))


@given(byte_values, byte_values)
def test_algebra_is_that_of_sets(a: Values, b: Values) -> None:
    ours, theirs = members(a), members(b)
    for found, expected in (
        (a.intersect(b), ours & theirs), (a.union(b), ours | theirs), (a.complement(8), set(BYTE) - ours),
    ):
        assert members(found) == expected
        assert is_canonical(found)
    assert a.complement(8).complement(8) == a
    assert a.is_full(8) == (ours == set(BYTE))
    assert bool(a) == bool(ours)
    assert {v for v in BYTE if v in a} == ours


def test_complement_at_the_ends() -> None:
    assert Values(()).complement(8) == Values(((0, 255),))
    assert Values(((0, 255),)).complement(8) == Values(())
    assert Values.single(0).complement(32) == Values(((1, 0xFFFFFFFF),))
    assert Values.single(0xFFFFFFFF).complement(32) == Values(((0, 0xFFFFFFFE),))
    assert Values.single((1 << 128) - 1).complement(128) == Values(((0, (1 << 128) - 2),))
    assert not Values(((0, 255),)).is_full(16)


@given(st.integers(0, 255), st.integers(0, 255))
def test_masked_over_a_byte(value: int, mask: int) -> None:
    assert members(Values.masked(value, mask, 8)) == {v for v in BYTE if v & mask == value}


def test_masked_over_wide_fields() -> None:
    assert Values.masked(0x0A000200, 0xFFFFFF00, 32) == Values(((0x0A000200, 0x0A0002FF),))
    assert Values.masked(0, 0, 32) == Values(((0, 0xFFFFFFFF),))
    assert Values.masked(7, 0xFFFFFFFF, 32) == Values.single(7)
    assert Values.masked(0x0A000201, 0xFFFFFF00, 32) == Values(())
    with pytest.raises(ValueError, match="masked Field"):
        Values.masked(1, 0xFF0000FF, 32)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_masked_scattered_over_sixteen_bits(value: int, mask: int) -> None:
    found = Values.masked(value & mask, mask, 16)
    assert is_canonical(found)
    assert sum(b - a + 1 for a, b in found) == 1 << (16 - mask.bit_count())
    assert all(v & mask == value & mask for a, b in found for v in (a, b))


# -------------------------------------------------------------------------------------------------- conditions

Point = dict[str, int]


def holds(condition: Condition, point: Point) -> bool | None:
    """The truth of a condition at a point, from its definition: a disjunction of conjunctions, None for perhaps."""
    perhaps = False
    for term in condition:
        for field, values in term.tests:
            value = point[field.base]
            if not any(a <= (value if field.mask == -1 else value & field.mask) <= b for a, b in values.intervals):
                break
        else:
            if not term.unknown:
                return True
            perhaps = True
    return None if perhaps else False


def both(truths: Iterable[bool | None]) -> bool | None:
    """Conjunction of three truths."""
    found = list(truths)
    return False if False in found else (None if None in found else True)


def either(truths: Iterable[bool | None]) -> bool | None:
    """Disjunction of three truths."""
    found = list(truths)
    return True if True in found else (None if None in found else False)


def negation(truth: bool | None) -> bool | None:
    """Negation of three truths."""
    return None if truth is None else not truth


EDGES = (0, 1, 2, 5, 6, 7, 8, 100, 254, 255)
MARKS = (0, 1, 0x10, 0x11, 0x8000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF)
POINTS = [
    {"proto": proto, "ttl": ttl, "mark": mark, "extra:a": a}
    for proto, ttl, mark, a in product(EDGES, EDGES, MARKS, (0, 1))
]
"""Every interval of the drawn conditions begins and ends at one of EDGES, so these points tell all of them apart."""

edge_values = st.lists(st.tuples(st.sampled_from(EDGES), st.sampled_from(EDGES)), min_size=1, max_size=3).map(Values.of)
simple = st.one_of(
    st.builds(value_in, st.sampled_from(("proto", "ttl")), edge_values),
    st.builds(equals, st.just("mark"), st.sampled_from(MARKS)),
    st.builds(masked_equals, st.just("mark"), st.sampled_from((0, 1, 0x10, 0x8000)),
              st.sampled_from((0x11, 0x8010, 0xF, 0xFFFFFFFF, 0x80000000))),
    st.builds(equals, st.just("extra:a"), st.integers(0, 1)),
    st.sampled_from((TRUE, FALSE, UNKNOWN)),
)
conditions = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: all_of(*parts)),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: any_of(*parts)),
        inner.map(none_of),
    ),
    max_leaves=6,
)


def is_sound(condition: Condition) -> bool:
    """The invariant of terms: sorted tests, no empty set and no full one, one a field."""
    for term in condition:
        fields = [f for f, _ in term.tests]
        if fields != sorted(set(fields)):
            return False
        if any(not v or v.is_full(f.bits) or not is_canonical(v) for f, v in term.tests):
            return False
    return True


@given(st.lists(conditions, max_size=3))
def test_all_of_and_any_of_are_conjunction_and_disjunction(parts: list[Condition]) -> None:
    every, some = all_of(*parts), any_of(*parts)
    assert is_sound(every) and is_sound(some)
    for point in POINTS:
        truths = [holds(p, point) for p in parts]
        assert holds(every, point) is both(truths)
        assert holds(some, point) is either(truths)


@given(conditions)
def test_none_of_is_negation(condition: Condition) -> None:
    found = none_of(condition)
    assert is_sound(found)
    for point in POINTS:
        assert holds(found, point) is negation(holds(condition, point))


@given(conditions, conditions)
def test_de_morgan(a: Condition, b: Condition) -> None:
    left, right = none_of(all_of(a, b)), any_of(none_of(a), none_of(b))
    assert all(holds(left, p) is holds(right, p) for p in POINTS)


def test_constants() -> None:
    assert all_of() == TRUE and any_of() == FALSE
    assert none_of(TRUE) == FALSE and none_of(FALSE) == TRUE and none_of(UNKNOWN) == UNKNOWN
    assert any_of(UNKNOWN, TRUE) == TRUE and all_of(UNKNOWN, FALSE) == FALSE
    assert all_of(UNKNOWN, UNKNOWN) == UNKNOWN
    assert value_in("proto", Values(())) == FALSE
    assert value_in("proto", Values(((0, 255),))) == TRUE
    assert equals("extra:a", 0, 1) == TRUE


def test_terms_that_differ_in_one_field_are_joined() -> None:
    """A set of ports is one term, and what covers everything is true."""
    parts = [all_of(equals("proto", 6), equals("dport", port)) for port in range(80, 90)]
    assert any_of(*parts) == all_of(equals("proto", 6), value_in("dport", Values(((80, 89),))))
    assert any_of(equals("proto", 6), none_of(equals("proto", 6))) == TRUE
    assert any_of(all_of(UNKNOWN, equals("proto", 6)), all_of(UNKNOWN, none_of(equals("proto", 6)))) == UNKNOWN


def test_an_unknown_term_is_not_joined_with_a_sure_one() -> None:
    found = any_of(all_of(UNKNOWN, equals("proto", 6)), equals("proto", 17))
    assert [holds(found, {"proto": v}) for v in (6, 17, 1)] == [None, True, False]


def test_term_values() -> None:
    (term,) = all_of(equals("proto", 6), equals("ttl", 1))
    assert term.values(Field("ttl")) == Values.single(1)
    assert term.values(Field("mark")) is None
    assert Term().values(Field("ttl")) is None


# ----------------------------------------------------------------------------------------------- masked_equals


@pytest.mark.parametrize("base", ["tos", "sport", "mark", "dst", "mac_src"])
@given(data=st.data())
def test_masked_equals_of_any_mask(base: str, data: st.DataObject) -> None:
    """Prefix masks, scattered masks and masks wider than the field, at values near the boundary."""
    bits = BASES[base]
    full = (1 << bits) - 1
    prefix = st.integers(0, bits).map(lambda n: full & ~((1 << n) - 1))
    mask = data.draw(st.one_of(prefix, st.integers(0, full), st.just(-1), st.just(full << 1)))
    value = data.draw(st.one_of(st.integers(0, full), st.integers(0, full).map(lambda v: v & mask & full)))
    condition = masked_equals(base, value, mask)
    assert is_sound(condition)
    flips = [0, *(1 << b for b in range(bits)), full]
    near = {(value & mask ^ flip) & full for flip in flips} | {(value ^ flip) & full for flip in flips}
    for v in near:
        assert holds(condition, {base: v}) is (v & mask & full == value)


def test_masked_equals_takes_the_plain_field_where_it_can() -> None:
    """Intervals of one field share its classes; only scattered bits of a wide field need a field of their own."""
    def fields(condition: Condition) -> list[Field]:
        return [f for t in condition for f, _ in t.tests]

    assert fields(masked_equals("dst", 0x0A000000, 0xFF000000)) == [Field("dst")]
    assert fields(masked_equals("dst", 1, 0x000000FF)) == [Field("dst", 0xFF)]
    assert fields(masked_equals("tos", 0x11, 0x11)) == [Field("tos")]
    assert masked_equals("mark", 0, 0) == TRUE
    assert masked_equals("mark", 1, 2) == FALSE
