"""Conditions on arriving fields as sets of packets.

A comparison becomes a test on the column's bits, and ``and``, ``or`` and ``not`` become the operations of sets; nothing
is approximated. What a condition leaves open is open: see ``scope.py`` for what queries do about that.
"""

from __future__ import annotations

from fastpath.analysis.query.conditions import All, Any, Bits, Comparison, Condition, Item, Name, Not, Span
from fastpath.analysis.query.fields import info
from fastpath.analysis.query.names import Names
from fastpath.compiler.fields import Values
from fastpath.compiler.interfaces import matches
from fastpath.errors import QueryError
from fastpath.symbolic import HeaderSpace, PacketSet


def to_set(condition: Condition, space: HeaderSpace, names: Names) -> PacketSet:
    """The packets that a condition describes.

    Raises:
        QueryError: a name that is not known, or a field that only evaluation tells.
    """
    return _set(names.resolve(condition), space)


def _set(condition: Condition, space: HeaderSpace) -> PacketSet:
    if isinstance(condition, Not):
        return ~_set(condition.part, space)
    if isinstance(condition, All):
        found = space.everything
        for part in condition.parts:
            found = found & _set(part, space)
        return found
    if isinstance(condition, Any):
        found = space.nothing
        for part in condition.parts:
            found = found | _set(part, space)
        return found
    assert isinstance(condition, Comparison)
    if info(condition.field).result:
        raise QueryError(f"{condition.field} is not known of a packet as it arrives: it goes into want, not into where")
    if condition.field == "oif" and not space.given_oif:
        raise QueryError("oif: this host's routes are known, so packets bring no egress interface; want can ask for "
                         "egress")
    spans = Values.of((i.first, i.last) for i in condition.items if isinstance(i, Span))
    found = space.test(condition.field, spans)
    for item in condition.items:
        if isinstance(item, Bits):
            found = found | space.set_of(masked(space, space.bits_of(condition.field), item))
        elif isinstance(item, Name):
            found = found | space.test(condition.field, interface_ids(space, item))
    return found


def masked(space: HeaderSpace, bits: tuple[int, ...], item: Bits) -> int:
    """The diagram of ``number & mask == value`` for the number with these bits, the highest first."""
    wanted = []
    for place, bit in enumerate(reversed(bits)):
        if item.mask >> place & 1:
            wanted.append(bit if item.value >> place & 1 else space.store.negated(bit))
    return 0 if item.value & ~item.mask else space.store.all_of(wanted)


def interface_ids(space: HeaderSpace, item: Name) -> Values:
    """The ids of the interfaces that a name or wildcard stands for."""
    if not item.text.endswith("+"):
        return Values.single(space.interface_id(item.text))
    return Values.single(*(i for i, name in enumerate(space.interfaces.names) if name and matches(item.text, name)))


def items_in(space: HeaderSpace, bits: tuple[int, ...], items: tuple[Item, ...]) -> int:
    """The diagram of a number with these bits being among the items (spans and masked bits)."""
    spans = Values.of((i.first, i.last) for i in items if isinstance(i, Span))
    found = space.store.within(bits, spans.intervals)
    for item in items:
        if isinstance(item, Bits):
            found = space.store.either(found, masked(space, bits, item))
    return found
