"""Membership in an ipset as a condition over fields.

Every entry is a box: one value set for each dimension of the set's type. Exceptions (``nomatch``) cut their box out
of the entries that are no more specific than they are, as the kernel's longest-prefix search of ``hash:net`` sets has
it. A set that is missing, or of a type that is not listed here, gives an unknown condition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastpath.compiler.fields import (
    FALSE,
    UNKNOWN,
    Condition,
    Values,
    all_of,
    any_of,
    equals,
    masked_equals,
    none_of,
    test,
)
from fastpath.compiler.interfaces import InterfaceTable
from fastpath.host.model import Host, IpSet, PortElement, SetElement, SetEntry
from fastpath.ruleset.model import AddressRange, Network, SetReference

WITH_PORTS = (6, 17, 132, 136)
DIMENSIONS = frozenset({"ip", "net", "port", "iface", "mac", "mark"})


@dataclass(frozen=True)
class View:
    """What the rule that asks can see: its interfaces, and whether transport headers can be read."""

    iif_in: Callable[[Values], Condition]
    oif_in: Callable[[Values], Condition]
    interfaces: InterfaceTable
    readable: Condition


def _port(element: PortElement, base: str, view: View) -> Condition:
    first, last = element.first, element.last
    ports = test(base, Values.of([(first, last)]))
    if element.protocol is None:
        return all_of(equals("proto", 6, 17), view.readable, ports)
    protocol = equals("proto", element.protocol)
    if element.protocol in WITH_PORTS:
        return all_of(protocol, view.readable, ports)
    if element.protocol == 1:
        return all_of(protocol, view.readable, test("icmp", Values.of([(first, last)])))
    return protocol


def _dimension(kind: str, element: SetElement, direction: str, view: View) -> Condition:
    address, port = ("src", "sport") if direction == "src" else ("dst", "dport")
    if isinstance(element, Network):
        return masked_equals(address, element.address, element.mask)
    if isinstance(element, AddressRange):
        return test(address, Values.of([(element.first, element.last)]))
    if isinstance(element, PortElement):
        return _port(element, port, view)
    if kind == "iface":
        where = view.iif_in if direction == "src" else view.oif_in
        return where(view.interfaces.matching(str(element)))
    if kind == "mac" and isinstance(element, int):
        return equals("mac_src", element) if direction == "src" else FALSE
    if kind == "mark" and isinstance(element, int):
        return equals("mark", element)
    return UNKNOWN


def _specificity(entry: SetEntry) -> tuple[int, ...]:
    sizes = []
    for element in entry.elements:
        if isinstance(element, Network):
            sizes.append(element.mask.bit_count())
        elif isinstance(element, AddressRange):
            sizes.append(-(element.last - element.first + 1).bit_length())
    return tuple(sizes)


def _entries(found: IpSet, directions: tuple[str, ...], view: View) -> Condition:
    kinds = found.type.partition(":")[2].split(",")
    if not set(kinds) <= DIMENSIONS or len(directions) < len(kinds):
        return UNKNOWN

    def box(entry: SetEntry) -> Condition:
        parts = (_dimension(*p, view) for p in zip(kinds, entry.elements, directions, strict=False))
        return all_of(*parts)

    exceptions = [(e, box(e)) for e in found.entries if e.nomatch]
    plain: list[Condition] = []
    for entry in found.entries:
        if entry.nomatch:
            continue
        here = box(entry)
        for exception, hole in exceptions:
            if _specificity(exception) >= _specificity(entry) and all_of(here, hole):
                here = all_of(here, none_of(hole))
        plain.append(here)
    return any_of(*plain)


def contains(host: Host, reference: SetReference, view: View) -> Condition:
    """The condition that a packet is in the set."""
    found = host.ipset(reference.name)
    if found is None:
        return UNKNOWN
    if found.type != "list:set":
        return _entries(found, reference.directions, view)
    parts: list[Condition] = []
    for entry in found.entries:
        member = host.ipset(str(entry.elements[0]))
        parts.append(UNKNOWN if member is None else _entries(member, reference.directions, view))
    return any_of(*parts) if parts else FALSE


