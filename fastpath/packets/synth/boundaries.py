"""What the rules test, as values: for every test some values that fulfil it and some beside it that do not.

Each test of a rule becomes a :class:`Test` over packet columns. For ranges and prefixes the values inside are the
first, the last and the middle one, those outside are one off at either end; for masks the bare value and the value
with all free bits set, and values with the mask's lowest and highest bit flipped. Tests that no packet column decides
(rates, time, owners' process names) give none. Missing a boundary makes tests weaker, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fastpath.host.model import Host, IpSet, PortElement, SetElement
from fastpath.packets.schema import State
from fastpath.ruleset.model import (
    AddressRange,
    IcmpType,
    Masked,
    Match,
    NatRange,
    Negatable,
    Network,
    Option,
    PortRange,
    Rule,
    SetReference,
)

Row = tuple[int, ...]
ALL = 0xFFFFFFFF
EGRESS = "oif"
"""The column that an ``-o`` test stands for; most hosts' packets lack it, and the destination has to bring it about."""

_MOST_SET_ENTRIES = 4096

_PORT_COLUMNS: dict[str, tuple[str, ...]] = {
    "sport": ("sport",), "dport": ("dport",), "sports": ("sport",), "dports": ("dport",), "ports": ("sport", "dport"),
    "ctorigsrcport": ("sport",), "ctorigdstport": ("ctorigdstport", "dport"), "ctreplsrcport": ("dport",),
    "ctrepldstport": ("sport",),
}
_NUMBER_COLUMNS: dict[tuple[str, str], str] = {
    ("length", "length"): "length", ("ttl", "ttl-eq"): "ttl", ("mac", "mac-source"): "mac_src",
    ("owner", "uid-owner"): "uid", ("owner", "gid-owner"): "gid", ("conntrack", "ctproto"): "proto",
}
_MASKED_COLUMNS: dict[tuple[str, str], str] = {
    ("tcp", "tcp-flags"): "tcp_flags", ("mark", "mark"): "mark", ("connmark", "mark"): "connmark",
    ("tos", "tos"): "tos",
}
_ADDRESS_COLUMNS: dict[str, tuple[str, ...]] = {
    "ctorigsrc": ("src",), "ctorigdst": ("ctorigdst", "dst"), "ctreplsrc": ("dst",), "ctrepldst": ("src",),
}
_STATES: dict[str, tuple[int, ...]] = {
    "NEW": (State.AUTO, State.NEW), "ESTABLISHED": (State.ESTABLISHED, State.REPLY), "RELATED": (State.RELATED,),
    "INVALID": (State.INVALID,), "UNTRACKED": (State.UNTRACKED,),
}
_STATUS_BITS = {"EXPECTED": 1, "SEEN_REPLY": 2, "ASSURED": 4, "CONFIRMED": 8, "SNAT": 16, "DNAT": 32}
_PKTTYPES = {"unicast": 0, "broadcast": 1, "multicast": 2}


@dataclass(frozen=True, slots=True)
class Test:
    """One test: rows of values for `columns` that fulfil it (`inside`) and that do not (`outside`).

    Negation is already worked in. Values may leave their column's range at its ends; whoever uses them checks.
    """

    columns: tuple[str, ...]
    inside: tuple[Row, ...]
    outside: tuple[Row, ...]


class Boundaries:
    """Turns rules into tests, for one host.

    Args:
        host: gives ipsets and addresses' types.
        interfaces: names of the interface codes.
    """

    def __init__(self, host: Host, interfaces: tuple[str, ...]) -> None:
        self._host = host
        self._interfaces = interfaces
        self._sets: dict[tuple[str, tuple[str, ...]], Test | None] = {}
        own = [a for i in host.interfaces for a in i.addresses if a.family == 4]
        local = tuple((a.address,) for a in own) + ((0x7F000001,),)
        broadcast = tuple((a.broadcast,) for a in own if a.broadcast is not None) + ((ALL,),)
        multicast = ((0xE0000001,), (0xEF010203,))
        other = ((0x08080808,), (0xC6336407,))
        self._types: dict[str, tuple[Row, ...]] = {
            "LOCAL": local, "BROADCAST": broadcast, "MULTICAST": multicast, "UNICAST": other}

    def tests(self, rule: Rule) -> list[Test]:
        """The tests of one rule that packet columns decide."""
        found = [self._network(column, test) for column, test in (("src", rule.source), ("dst", rule.destination))
                 if test is not None and isinstance(test.value, Network)]
        for column, test in (("iif", rule.in_interface), (EGRESS, rule.out_interface)):
            if test is not None:
                found.append(self._interface(column, test))
        if rule.protocol is not None and isinstance(rule.protocol.value, int):
            number = rule.protocol.value
            found.append(_test(("proto",), [(number,)], [(6 if number != 6 else 17,), (1 if number != 1 else 47,)],
                               rule.protocol.negated))
        if rule.fragment is not None:
            found.append(_test(("frag",), [(2,)], [(0,), (1,)], not rule.fragment))
        for match in rule.matches:
            for option in match.options:
                found += self._option(match, option)
        return [t for t in found if t.inside or t.outside]

    def targets(self, rule: Rule) -> Iterator[tuple[str, int]]:
        """Values that the rule's target writes, as (column, value): a later rule may test them."""
        for option in rule.target.options if rule.target else ():
            value = option.value
            if isinstance(value, NatRange):
                column = "dst" if option.name == "to-destination" else "src"
                if value.address is not None and value.address.family == 4:
                    yield column, value.address.first
                    yield column, value.address.last
                if value.ports is not None:
                    yield ("dport" if column == "dst" else "sport"), value.ports.first
                    yield ("dport" if column == "dst" else "sport"), value.ports.last
            elif option.name == "set-xmark" and isinstance(value, Masked) and rule.target is not None:
                column = "mark" if rule.target.name == "MARK" else "connmark"
                yield column, value.value
                yield column, value.mask
            elif option.name == "to-ports" and isinstance(value, PortRange):
                yield "dport", value.first
                yield "dport", value.last

    # ---------------------------------------------------------------------------------------- kinds of tests

    def _network(self, column: str, test: Negatable) -> Test:
        assert isinstance(test.value, Network)
        net = test.value
        return _test((column,), *_of_mask(net.address, net.mask, ALL), test.negated)

    def _interface(self, column: str, test: Negatable) -> Test:
        name = str(test.value)
        match: Callable[[str], bool] = (
            (lambda n: n.startswith(name[:-1])) if name.endswith("+") else (lambda n: n == name))
        codes = range(len(self._interfaces))
        return _test((column,), [(i,) for i in codes if match(self._interfaces[i])],
                     [(i,) for i in codes if not match(self._interfaces[i])], test.negated)

    def _option(self, match: Match, option: Option) -> list[Test]:
        value, name, negated = option.value, option.name, option.negated
        key = (match.module, name)
        if isinstance(value, SetReference):
            found = self._set(value)
            return [_test(found.columns, found.inside, found.outside, negated)] if found else []
        if key in _MASKED_COLUMNS and isinstance(value, Masked):
            full = 255 if name in ("tcp-flags", "tos") else ALL
            return [_test((_MASKED_COLUMNS[key],), *_of_mask(value.value, value.mask, full), negated)]
        if name in _PORT_COLUMNS and isinstance(value, PortRange | tuple):
            ranges = [r for r in (value if isinstance(value, tuple) else (value,)) if isinstance(r, PortRange)]
            return [_test((column,), *_of_ranges([(r.first, r.last) for r in ranges]), negated)
                    for column in _PORT_COLUMNS[name]]
        if name in _ADDRESS_COLUMNS and isinstance(value, Network):
            return [_test((column,), *_of_mask(value.address, value.mask, ALL), negated)
                    for column in _ADDRESS_COLUMNS[name]]
        if match.module == "iprange" and isinstance(value, AddressRange):
            column = "src" if name == "src-range" else "dst"
            return [_test((column,), *_of_ranges([(value.first, value.last)]), negated)]
        if isinstance(value, IcmpType):
            return [] if value.type == 255 else [_icmp(value, negated)]
        if match.module == "addrtype" and isinstance(value, frozenset):
            column = "src" if name == "src-type" else "dst"
            inside = [row for kind, rows in self._types.items() if kind in value for row in rows]
            outside = [row for kind, rows in self._types.items() if kind not in value for row in rows]
            return [_test((column,), inside, outside, negated)]
        if name in ("ctstate", "state") and isinstance(value, frozenset):
            return list(_states(value, negated))
        if name == "ctstatus" and isinstance(value, frozenset):
            bits = [(bit,) for word, bit in _STATUS_BITS.items() if word in value]
            return [_test(("ctstatus",), bits or [(0,)], [(b,) for b in _STATUS_BITS.values() if (b,) not in bits],
                          negated)]
        if name == "ctdir":
            return [_test(("ctdir",), [(1 if value == "ORIGINAL" else 2,)], [(2 if value == "ORIGINAL" else 1,)],
                          negated)]
        if match.module == "pkttype" and isinstance(value, str):
            code = _PKTTYPES.get(value, 0)
            return [_test(("pkttype",), [(code,)], [(c,) for c in range(3) if c != code], negated)]
        return list(_number(match.module, name, value, negated))

    def _set(self, reference: SetReference) -> Test | None:
        key = (reference.name, reference.directions)
        if key not in self._sets:
            self._sets[key] = None  # ends a cycle of list:set
            found = self._host.ipset(reference.name)
            self._sets[key] = self._entries(found, reference.directions) if found else None
        return self._sets[key]

    def _entries(self, ipset: IpSet, directions: tuple[str, ...]) -> Test | None:
        if ipset.type == "list:set":
            members = [self._set(SetReference(str(e.elements[0]), directions)) for e in ipset.entries]
            known = [m for m in members if m is not None]
            if not known:
                return None
            same = [m for m in known if m.columns == known[0].columns]
            return Test(known[0].columns, tuple(r for m in same for r in m.inside),
                        tuple(r for m in same for r in m.outside))
        columns: tuple[str, ...] = ()
        inside: list[Row] = []
        outside: list[Row] = []
        step = max(1, len(ipset.entries) // _MOST_SET_ENTRIES)
        for entry in ipset.entries[::step]:
            parts = [self._element(e, d, ipset) for e, d in zip(entry.elements, directions, strict=False)]
            if not parts or any(p is None for p in parts):
                continue
            whole = [p for p in parts if p is not None]
            names = tuple(c for p in whole for c in p.columns)
            if columns not in ((), names):
                continue
            columns = names
            middle = tuple(v for p in whole for v in p.inside[0])
            at = 0
            for part in whole:
                width = len(part.columns)
                inside += [middle[:at] + row + middle[at + width:] for row in part.inside]
                outside += [middle[:at] + row + middle[at + width:] for row in part.outside]
                at += width
        return Test(columns, tuple(inside), tuple(outside)) if columns else None

    def _element(self, element: SetElement, direction: str, ipset: IpSet) -> Test | None:
        side = "src" if direction == "src" else "dst"
        if isinstance(element, Network) and element.family == 4:
            return _test((side,), *_of_mask(element.address, element.mask, ALL), False)
        if isinstance(element, AddressRange) and element.family == 4:
            return _test((side,), *_of_ranges([(element.first, element.last)]), False)
        if isinstance(element, PortElement):
            port = "sport" if side == "src" else "dport"
            inside, outside = _of_ranges([(element.first, element.last)])
            if element.protocol is None:
                return Test((port,), tuple(inside), tuple(outside))
            if element.protocol == 1:
                return Test(("icmp_type", "icmp_code", "proto"), ((element.first >> 8, element.first & 255, 1),), ())
            return Test((port, "proto"), tuple((v, element.protocol) for (v,) in inside),
                        tuple((v, element.protocol) for (v,) in outside))
        if isinstance(element, str):
            return self._interface("iif" if side == "src" else EGRESS, Negatable(element))
        if isinstance(element, int):
            return Test(("mac_src" if "mac" in ipset.type else "mark",), ((element,),), ((element ^ 1,),))
        return None


def _test(columns: tuple[str, ...], inside: Iterable[Row], outside: Iterable[Row], negated: bool) -> Test:
    fulfilling, other = tuple(inside), tuple(outside)
    return Test(columns, other, fulfilling) if negated else Test(columns, fulfilling, other)


def _of_mask(value: int, mask: int, full: int) -> tuple[list[Row], list[Row]]:
    free = full & ~mask
    inside = [(value,), (value | free,), (value | free & -free,), (value | (free + 1 >> 1) & free,)]
    outside: list[Row] = []
    if mask:
        low, high = mask & -mask, 1 << mask.bit_length() - 1
        outside = [(value - 1 & full,), ((value | free) + 1 & full,), (value ^ low,), (value ^ high | free,),
                   (value + low & full,), (value - low & full,)]
        outside = [row for row in outside if row[0] & mask != value]
    return list(dict.fromkeys(inside)), list(dict.fromkeys(outside))


def _of_ranges(ranges: list[tuple[int, int]]) -> tuple[list[Row], list[Row]]:
    filled = [(a, b) for a, b in ranges if a <= b]
    inside = [(v,) for a, b in filled for v in (a, b, (a + b) // 2)]
    beside = [(v,) for a, b in ranges for v in (a - 1, b + 1) if v >= 0 and not any(x <= v <= y for x, y in filled)]
    return list(dict.fromkeys(inside)), list(dict.fromkeys(beside))


def _icmp(value: IcmpType, negated: bool) -> Test:
    kind, first, last = value.type, value.code_first, value.code_last
    inside = [(kind, code) for code in dict.fromkeys((first, last))]
    outside = [((kind + 1) & 255, first), ((kind - 1) & 255, first)]
    outside += [(kind, code) for code in (first - 1, last + 1) if 0 <= code <= 255]
    return _test(("icmp_type", "icmp_code"), inside, outside, negated)


def _states(words: frozenset[str], negated: bool) -> Iterator[Test]:
    inside = [(int(s),) for word, states in _STATES.items() if word in words for s in states]
    outside = [(int(s),) for word, states in _STATES.items() if word not in words for s in states]
    if inside:
        yield _test(("state",), inside, outside, negated)
    bits = [(_STATUS_BITS[word],) for word in ("SNAT", "DNAT") if word in words]
    if bits:
        yield _test(("ctstatus",), bits, [(0,), (8,)], negated)


def _number(module: str, name: str, value: object, negated: bool) -> Iterator[Test]:
    column = _NUMBER_COLUMNS.get((module, name))
    if column is not None and isinstance(value, PortRange):
        yield _test((column,), *_of_ranges([(value.first, value.last)]), negated)
    elif not isinstance(value, int):
        return
    elif column is not None:
        yield _test((column,), *_of_ranges([(value, value)]), negated)
    elif (module, name) == ("ttl", "ttl-lt"):
        yield _test(("ttl",), *_of_ranges([(0, value - 1)]), negated)
    elif (module, name) == ("ttl", "ttl-gt"):
        yield _test(("ttl",), *_of_ranges([(value + 1, 255)]), negated)
    elif (module, name) == ("dscp", "dscp"):
        low = value << 2  # the two lowest bits are ECN's
        yield _test(("tos",), [(low,), (low | 3,)], [(low ^ 4,), (low ^ 128 | 3,)], negated)
    elif (module, name) == ("ecn", "ecn-ip-ect"):
        yield _test(("tos",), [(value,), (252 | value,)], [(v,) for v in range(4) if v != value], negated)
