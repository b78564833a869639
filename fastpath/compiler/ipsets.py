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
    TRUE,
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
from fastpath.compiler.interfaces import NONE, InterfaceTable
from fastpath.host.model import Host, IpSet, PortElement, SetElement, SetEntry
from fastpath.ruleset.model import AddressRange, Network, SetReference

WITH_PORTS = (6, 17, 132, 136)
DIMENSIONS = frozenset({"ip", "net", "port", "iface", "mac", "mark"})


@dataclass(frozen=True)
class View:
    """What the rule that asks can see: its interfaces, and whether transport headers can be read; with `exceptions`
    it asks for the ``nomatch`` entries of network sets."""

    iif_in: Callable[[Values], Condition]
    oif_in: Callable[[Values], Condition]
    interfaces: InterfaceTable
    readable: Condition
    exceptions: bool = False


def _port(element: PortElement, base: str, only_tcp_udp: bool, view: View) -> Condition:
    values = Values.of([(element.first, element.last)])
    ports = all_of(equals("proto", *WITH_PORTS), view.readable, test(base, values))
    icmp = all_of(equals("proto", 1), view.readable, test("icmp", values))
    portless = all_of(none_of(equals("proto", 1, *WITH_PORTS)), TRUE if 0 in values else FALSE)
    found = any_of(ports, icmp, portless)
    if element.protocol is not None:
        found = all_of(found, equals("proto", element.protocol))
    return all_of(found, equals("proto", 6, 17)) if only_tcp_udp else found


def _dimension(found: IpSet, kind: str, element: SetElement, direction: str, view: View) -> Condition:
    address, port = ("src", "sport") if direction == "src" else ("dst", "dport")
    if isinstance(element, Network):
        return masked_equals(address, element.address, element.mask)
    if isinstance(element, AddressRange):
        return test(address, Values.of([(element.first, element.last)]))
    if isinstance(element, PortElement):
        return _port(element, port, found.type == "bitmap:port", view)
    if kind == "iface":
        where = view.iif_in if direction == "src" else view.oif_in
        ids = view.interfaces.matching(str(element))
        return where(Values.of((a, b) for a, b in ids.intersect(Values.of([(NONE + 1, 0xFFFF)]))))
    if kind == "mac" and isinstance(element, int):
        with_mac = none_of(equals("mac_src", 0))
        return all_of(with_mac, equals("mac_src", element) if direction == "src" else UNKNOWN)
    if kind == "mark" and isinstance(element, int):
        options = dict(zip(found.options, found.options[1:], strict=False))
        mask = options.get("markmask", "0xffffffff")
        return masked_equals("mark", element, int(mask, 0))
    return UNKNOWN


def _most_specific_first(entries: tuple[SetEntry, ...]) -> list[SetEntry]:
    return sorted(entries, key=lambda e: [-n.mask.bit_count() for n in e.elements if isinstance(n, Network)])


def _entries(found: IpSet, directions: tuple[str, ...], view: View) -> Condition:
    kinds = found.type.partition(":")[2].split(",")
    if not set(kinds) <= DIMENSIONS:
        return UNKNOWN
    if len(directions) < len(kinds):
        return FALSE

    def box(entry: SetEntry) -> Condition:
        return all_of(*(_dimension(found, *p, view) for p in zip(kinds, entry.elements, directions, strict=False)))

    if "net" not in kinds:
        return any_of(*(box(e) for e in found.entries))
    parts: list[Condition] = []
    ordered = _most_specific_first(found.entries)
    opposite: list[Condition] = []
    nets: dict[SetElement, Condition] = {}
    for entry in ordered:
        here = box(entry)
        if entry.nomatch != view.exceptions:
            opposite.append(here)
        else:
            for hole in opposite:
                if all_of(here, hole):
                    here = all_of(here, none_of(hole))
            for net, there in nets.items():
                if net != entry.elements[0] and all_of(here, there):
                    here = all_of(here, none_of(there))
            parts.append(here)
        if found.type == "hash:net,iface" and not str(entry.elements[1]).startswith("physdev:"):
            nets[entry.elements[0]] = _dimension(found, "net", entry.elements[0], directions[0], view)
    return any_of(*parts)


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


