"""Fields, value sets and conditions: the vocabulary in which every match is written down.

A :class:`Field` is something of a packet that can be looked at: a column, or the masked bits of one. A
:class:`Values` is a set of its values, kept as disjoint inclusive intervals of Python integers, so that a field may
be as wide as it likes (an IPv6 address is one field of 128 bits). A :class:`Term` is a conjunction of such tests,
at most one a field; a condition is a disjunction of terms.

Three truths: a term with ``unknown`` True holds *perhaps* where its tests hold, and surely not where they do not.
Invariant: no term holds an empty set or a full one; the empty condition is false, a term without tests is true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, order=True)
class Field:
    """A testable part of a packet.

    Attributes:
        base: the column it is read from (names in ``BASES``), ``extra:NAME`` for a caller's boolean column, or
            ``segment:NUMBER`` for the kind of a segment's rule that matches first.
        mask: only these bits count (all of them where None).
    """

    base: str
    mask: int = -1

    @property
    def bits(self) -> int:
        """Width in bits."""
        if self.base.startswith("extra:"):
            return 1
        return 32 if self.base.startswith("segment:") else BASES[self.base]


BASES: dict[str, int] = {
    "iif": 16, "src": 32, "dst": 32, "proto": 8, "sport": 16, "dport": 16, "tcp_flags": 8, "icmp": 16, "frag": 8,
    "ttl": 8, "tos": 8, "length": 16, "mark": 32, "connmark": 32, "ctstate": 8, "ctdir": 8, "ctstatus": 16,
    "ctorigsrc": 32, "ctorigsrcport": 16,
    "ctorigdst": 32, "ctorigdstport": 16, "oif": 16, "mac_src": 64, "pkttype": 8, "uid": 32, "gid": 32,
    "touched": 8, "notrack": 8,
}
"""Width of every base. ``icmp`` is type << 8 | code, ``ctstate`` a :class:`CtState`, interfaces are ids of the compiled
host, ``touched`` says what the host's OUTPUT rules changed (``TOUCHED_*``), ``notrack`` is 1 behind
NOTRACK; the others are packet columns."""

TOUCHED_MARK, TOUCHED_DST = 1, 2


class CtState:
    """Values of the ``ctstate`` base: the connection-tracking state after conntrack has seen the packet."""

    NEW, ESTABLISHED, REPLY, RELATED, INVALID, UNTRACKED = range(6)


Interval: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Values:
    """A set of non-negative integers as sorted, disjoint, non-adjacent inclusive intervals."""

    intervals: tuple[Interval, ...]

    @classmethod
    def of(cls, intervals: Iterable[Interval]) -> Values:
        """The union of any intervals; those with ``first > last`` are empty."""
        merged: list[Interval] = []
        for first, last in sorted(i for i in intervals if i[0] <= i[1]):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return cls(tuple(merged))

    @classmethod
    def single(cls, *values: int) -> Values:
        """The set of the given values."""
        return cls.of((v, v) for v in values)

    @classmethod
    def masked(cls, value: int, mask: int, bits: int) -> Values:
        """All values ``v`` with ``v & mask == value``, for narrow fields or prefix masks."""
        full = (1 << bits) - 1
        if value & ~mask:
            return cls(())
        host = full & ~mask
        if host & (host + 1) == 0:
            return cls(((value, value | host),))
        if bits > 16:
            raise ValueError("a scattered mask over a wide field needs a masked Field")
        return cls.of((v, v) for v in range(full + 1) if v & mask == value)

    def complement(self, bits: int) -> Values:
        """The values of a field of that width which are not in the set."""
        out: list[Interval] = []
        start = 0
        for first, last in self.intervals:
            if start < first:
                out.append((start, first - 1))
            start = last + 1
        if start < 1 << bits:
            out.append((start, (1 << bits) - 1))
        return Values(tuple(out))

    def intersect(self, other: Values) -> Values:
        """The values in both."""
        out: list[Interval] = []
        a, b = self.intervals, other.intervals
        i = j = 0
        while i < len(a) and j < len(b):
            first, last = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
            if first <= last:
                out.append((first, last))
            if a[i][1] < b[j][1]:
                i += 1
            else:
                j += 1
        return Values(tuple(out))

    def union(self, other: Values) -> Values:
        """The values in either."""
        return Values.of(self.intervals + other.intervals)

    def is_full(self, bits: int) -> bool:
        """True for the set of all values of that width."""
        return self.intervals == ((0, (1 << bits) - 1),)

    def __contains__(self, value: int) -> bool:
        return any(first <= value <= last for first, last in self.intervals)

    def __bool__(self) -> bool:
        return bool(self.intervals)

    def __iter__(self) -> Iterator[Interval]:
        return iter(self.intervals)


@dataclass(frozen=True, slots=True)
class Term:
    """A conjunction of tests, sorted by field; it holds only perhaps where ``unknown``."""

    tests: tuple[tuple[Field, Values], ...] = ()
    unknown: bool = False

    def values(self, field: Field) -> Values | None:
        """What the term wants of `field`, or None where it does not look at it."""
        return next((v for f, v in self.tests if f == field), None)


Condition: TypeAlias = tuple[Term, ...]

TRUE: Condition = (Term(),)
FALSE: Condition = ()
UNKNOWN: Condition = (Term(unknown=True),)


def test(base: str, values: Values, mask: int = -1) -> Condition:
    """The condition that a field's value lies in a set."""
    field = Field(base, mask)
    if not values:
        return FALSE
    if values.is_full(field.bits):
        return TRUE
    return (Term(((field, values),)),)


def equals(base: str, *values: int) -> Condition:
    """The condition that a field has one of the values."""
    return test(base, Values.single(*values))


def masked_equals(base: str, value: int, mask: int) -> Condition:
    """The condition ``field & mask == value``."""
    bits = Field(base).bits
    mask &= (1 << bits) - 1
    if value & ~mask:
        return FALSE
    host = ((1 << bits) - 1) & ~mask
    if bits <= 8 or host & (host + 1) == 0:
        return test(base, Values.masked(value, mask, bits))
    return (Term(((Field(base, mask), Values.single(value)),)),)


def _both(a: Term, b: Term) -> Term | None:
    if not a.tests or not b.tests:
        return Term(a.tests or b.tests, a.unknown or b.unknown)
    tests = dict(a.tests)
    for field, values in b.tests:
        if field in tests:
            values = tests[field].intersect(values)
            if not values:
                return None
        tests[field] = values
    return Term(tuple(sorted(tests.items(), key=lambda t: t[0])), a.unknown or b.unknown)


def all_of(*conditions: Condition) -> Condition:
    """The conjunction of conditions."""
    if all(len(c) == 1 for c in conditions):
        whole: Term | None = conditions[0][0] if conditions else TRUE[0]
        for (term,) in conditions[1:]:
            whole = _both(whole, term) if whole is not None else None
        return FALSE if whole is None else (whole,)
    result = TRUE
    for condition in conditions:
        found = dict.fromkeys(t for a in result for b in condition if (t := _both(a, b)) is not None)
        result = _simplify(tuple(found))
    return result


def any_of(*conditions: Condition) -> Condition:
    """The disjunction of conditions."""
    return _simplify(tuple(dict.fromkeys(t for c in conditions for t in c)))


def none_of(condition: Condition) -> Condition:
    """The negation of a condition; *perhaps* stays perhaps."""
    sure = _outside(tuple(t.tests for t in condition if not t.unknown))
    perhaps = tuple(t.tests for t in condition if t.unknown)
    if not perhaps:
        return sure
    return all_of(sure, any_of(_outside(perhaps), UNKNOWN))


def _outside(boxes: tuple[tuple[tuple[Field, Values], ...], ...]) -> Condition:
    """What lies in none of the boxes, split along one field after the other.

    Values of a field that the same boxes hold are treated as one, so that the result grows with the number of boxes
    and not with its power.
    """
    if not boxes:
        return TRUE
    if () in boxes:
        return FALSE
    field = min(tests[0][0] for tests in boxes)
    changes: dict[int, int] = {0: 0}
    rest = []
    for i, tests in enumerate(boxes):
        values = tests[0][1] if tests[0][0] == field else Values(((0, (1 << field.bits) - 1),))
        rest.append(tests[1:] if tests[0][0] == field else tests)
        for first, last in values:
            changes[first] = changes.get(first, 0) ^ 1 << i
            changes[last + 1] = changes.get(last + 1, 0) ^ 1 << i
    starts = sorted(start for start in changes if start < 1 << field.bits)
    groups: dict[frozenset[tuple[tuple[Field, Values], ...]], list[Interval]] = {}
    holding = 0
    known: dict[int, frozenset[tuple[tuple[Field, Values], ...]]] = {}
    for start, end in zip(starts, [*starts[1:], 1 << field.bits], strict=True):
        holding ^= changes[start]
        if holding not in known:
            known[holding] = frozenset(rest[i] for i in range(len(rest)) if holding >> i & 1)
        groups.setdefault(known[holding], []).append((start, end - 1))
    parts = [
        all_of(test(field.base, Values.of(intervals), field.mask), _outside(tuple(sorted(left, key=repr))))
        for left, intervals in groups.items()
    ]
    return any_of(*parts)


def _simplify(condition: Condition) -> Condition:
    """Joins terms that differ in one field only, and drops what a true term covers."""
    if Term() in condition:
        return TRUE
    terms = list(condition)
    if len(terms) < 2 or len(terms) > 4096:
        return condition
    changed = True
    while changed:
        changed = False
        for field in sorted({f for t in terms for f, _ in t.tests}):
            groups: dict[Term, list[Values]] = {}
            place: dict[Term, int] = {}
            out: list[Term] = []
            for term in terms:
                values = term.values(field)
                if values is not None:
                    key = Term(tuple(t for t in term.tests if t[0] != field), term.unknown)
                    if key in groups:
                        groups[key].append(values)
                        continue
                    groups[key], place[key] = [values], len(out)
                out.append(term)
            for key, sets in groups.items():
                if len(sets) > 1:
                    changed = True
                    joined = Values.of(i for v in sets for i in v)
                    out[place[key]] = key if joined.is_full(field.bits) else _with(out[place[key]], field, joined)
            terms = list(dict.fromkeys(out))
    return TRUE if Term() in terms else tuple(terms)


def _with(term: Term, field: Field, values: Values) -> Term:
    """A term with another set for a field that it tests."""
    return Term(tuple((f, values if f == field else v) for f, v in term.tests), term.unknown)
