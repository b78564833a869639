"""Conditions on packets and on what becomes of them: a small frozen tree, built with operators or read from text.

    >>> from fastpath.analysis.query import field
    >>> str(field.src.within("10.0.0.0/8") & field.dport.isin([80, 443]) & ~(field.iif == "eth0"))
    'src in 10.0.0.0/8 and dport in {80,443} and not iif == eth0'

A :class:`Comparison` compares one field with a set of items; items are numbers, masked bits, or names that only a host
can tell (interfaces, Docker networks and containers). ``names.py`` looks names up, ``masks.py`` evaluates a condition
on columns of packets, ``sets.py`` turns it into a set of packets, ``text.py`` reads the written form. ``str()`` gives a
text that reads back as the same condition.

Invariant: every value in the tree is one that its field can have. Safe direction of error: refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Span:
    """The values ``first`` to ``last``, both inclusive."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Bits:
    """The values ``v`` with ``v & mask == value``."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class Name:
    """Something that is looked up when the condition meets a host or packets.

    Attributes:
        kind: ``interface`` (a trailing ``+`` matches every name with that prefix), ``network``, ``container`` or
            ``rule`` (``TABLE CHAIN NUMBER``, number 0 for a policy, or ``none``).
        text: the name.
    """

    kind: str
    text: str


Item: TypeAlias = Span | Bits | Name


class Condition:
    """Base of all conditions; combine them with ``&``, ``|`` and ``~``."""

    __slots__ = ()

    def __and__(self, other: Condition) -> Condition:
        return _joined(All, self, other)

    def __or__(self, other: Condition) -> Condition:
        return _joined(Any, self, other)

    def __invert__(self) -> Condition:
        return self.part if isinstance(self, Not) else Not(self)

    def __bool__(self) -> bool:
        raise TypeError("a condition is neither true nor false: combine conditions with &, | and ~ (each comparison in "
                        "parentheses), not with and, or and not")

    def tests(self) -> Iterator[Comparison]:
        """Every comparison in the condition."""
        raise NotImplementedError

    def fields(self) -> frozenset[str]:
        """Names of the fields that the condition looks at."""
        return frozenset(test.field for test in self.tests())


@dataclass(frozen=True, slots=True)
class Comparison(Condition):
    """The field's value is among the items. Names are those of ``fields.py``."""

    field: str
    items: tuple[Item, ...]

    def tests(self) -> Iterator[Comparison]:
        yield self

    def __str__(self) -> str:
        from fastpath.analysis.query.fields import show_test

        return show_test(self)


@dataclass(frozen=True, slots=True)
class All(Condition):
    """Every part holds; without parts it always does."""

    parts: tuple[Condition, ...] = ()

    def tests(self) -> Iterator[Comparison]:
        for part in self.parts:
            yield from part.tests()

    def __str__(self) -> str:
        return " and ".join(_inside(p, Any) for p in self.parts) or "any"


@dataclass(frozen=True, slots=True)
class Any(Condition):
    """Some part holds; without parts none does."""

    parts: tuple[Condition, ...] = ()

    def tests(self) -> Iterator[Comparison]:
        for part in self.parts:
            yield from part.tests()

    def __str__(self) -> str:
        return " or ".join(_inside(p) for p in self.parts) or "not any"


@dataclass(frozen=True, slots=True)
class Not(Condition):
    """The part does not hold."""

    part: Condition

    def tests(self) -> Iterator[Comparison]:
        yield from self.part.tests()

    def __str__(self) -> str:
        return f"not {_inside(self.part, All, Any)}"


EVERYTHING = All()
"""The condition that always holds; written ``any``."""


def _joined(kind: type[All] | type[Any], *parts: Condition) -> Condition:
    found: list[Condition] = []
    for part in parts:
        if not isinstance(part, Condition):
            raise TypeError(f"{part!r} is no condition; a comparison has to stand in parentheses: (field.dport == 80) "
                            "& (field.iif == 'eth0')")
        found += part.parts if isinstance(part, kind) else [part]
    return found[0] if len(found) == 1 else kind(tuple(found))


def _inside(part: Condition, *wrapped: type[Condition]) -> str:
    """A part's text, in parentheses where it would bind less than what stands around it."""
    several = isinstance(part, wrapped) and len(getattr(part, "parts", ())) > 1
    return f"({part})" if several else str(part)
