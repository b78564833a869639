"""IP sets: reading what `ipset save` prints, and asking whether a packet is in a set.

Grammar of a save file, one command a line, blank lines and lines starting with ``#`` skipped::

    create NAME TYPE [OPTION [VALUE]]...
    add NAME ELEMENT[,ELEMENT]... [nomatch] [OPTION VALUE]...

Entries are normalised so that they say by themselves which packets they hold: an ``ip`` dimension is an
:class:`AddressRange`, or a :class:`Network` where the set has a ``netmask`` or ``bitmask``; a ``net`` dimension is a
:class:`Network` (a range of addresses gives several entries); a port is a :class:`PortElement`, ICMP types being
``type * 256 + code`` as in the kernel; an interface name ends in ``+`` where it is a wildcard; a MAC address or a
mark is an int. Entries with a timeout count as present: a host is a snapshot.

:class:`IpSetTester` follows the kernel's ``*_kadt`` functions (net/netfilter/ipset): the most specific network
decides, ``nomatch`` entries are exceptions, and what a packet lacks (a port, an interface) is never in a set. It
answers None where the packet's columns cannot say (a destination MAC address).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from fastpath.errors import ParseError
from fastpath.host.model import Host, IpSet, PortElement, SetElement, SetEntry
from fastpath.ruleset.model import AddressRange, Network

DIMENSIONS: dict[str, tuple[str, ...]] = {
    "bitmap:ip": ("ip",),
    "bitmap:ip,mac": ("ip", "mac"),
    "bitmap:port": ("port",),
    "hash:ip": ("ip",),
    "hash:mac": ("mac",),
    "hash:ip,mac": ("ip", "mac"),
    "hash:net": ("net",),
    "hash:net,net": ("net", "net"),
    "hash:ip,port": ("ip", "port"),
    "hash:net,port": ("net", "port"),
    "hash:ip,port,ip": ("ip", "port", "ip"),
    "hash:ip,port,net": ("ip", "port", "net"),
    "hash:ip,mark": ("ip", "mark"),
    "hash:net,port,net": ("net", "port", "net"),
    "hash:net,iface": ("net", "iface"),
    "list:set": ("set",),
}
"""Set types of ipset(8) and what each of their dimensions holds."""

_CREATE_FLAGS = frozenset({"counters", "comment", "forceadd", "skbinfo", "wildcard"})
_CREATE_VALUES = frozenset({
    "family", "hashsize", "maxelem", "timeout", "netmask", "bitmask", "range", "bucketsize", "initval", "markmask",
    "size",
})
_ADD_FLAGS = frozenset({"nomatch", "wildcard"})
_ADD_VALUES = frozenset({"timeout", "packets", "bytes", "comment", "skbmark", "skbprio", "skbqueue", "before", "after"})

_PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipencap": 4, "tcp": 6, "egp": 8, "udp": 17, "dccp": 33, "ipv6": 41, "rsvp": 46, "gre": 47,
    "esp": 50, "ah": 51, "icmpv6": 58, "ipv6-icmp": 58, "eigrp": 88, "ospf": 89, "ipip": 94, "pim": 103, "vrrp": 112,
    "l2tp": 115, "sctp": 132, "udplite": 136, "mpls-in-ip": 137,
}
_WITH_PORTS = frozenset({6, 17, 132, 136})

_ICMP_NAMES: dict[str, tuple[int, int]] = {
    "echo-reply": (0, 0), "pong": (0, 0), "network-unreachable": (3, 0), "host-unreachable": (3, 1),
    "protocol-unreachable": (3, 2), "port-unreachable": (3, 3), "fragmentation-needed": (3, 4),
    "source-route-failed": (3, 5), "network-unknown": (3, 6), "host-unknown": (3, 7), "network-prohibited": (3, 9),
    "host-prohibited": (3, 10), "TOS-network-unreachable": (3, 11), "TOS-host-unreachable": (3, 12),
    "communication-prohibited": (3, 13), "host-precedence-violation": (3, 14), "precedence-cutoff": (3, 15),
    "source-quench": (4, 0), "network-redirect": (5, 0), "host-redirect": (5, 1), "TOS-network-redirect": (5, 2),
    "TOS-host-redirect": (5, 3), "echo-request": (8, 0), "ping": (8, 0), "router-advertisement": (9, 0),
    "router-solicitation": (10, 0), "ttl-zero-during-transit": (11, 0), "ttl-zero-during-reassembly": (11, 1),
    "ip-header-bad": (12, 0), "required-option-missing": (12, 1), "timestamp-request": (13, 0),
    "timestamp-reply": (14, 0), "address-mask-request": (17, 0), "address-mask-reply": (18, 0),
}
"""ICMP names as ipset prints them (`ipset save` of a set with every type and code, ipset 7.17)."""

_MOST_ELEMENTS = 1 << 20

_WORD = re.compile(r'"[^"]*"|\S+')


# ---------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class _Line:
    """One line under reading: for errors that point at a word."""

    source: str
    number: int
    text: str

    def error(self, message: str, word: re.Match[str] | None = None) -> ParseError:
        start, end = word.span() if word is not None else (0, len(self.text))
        return ParseError(message, source=self.source, line=self.number, text=self.text, start=start, end=end)


def parse_ipsets(text: str, *, source: str = "<string>") -> tuple[IpSet, ...]:
    """The sets of an `ipset save` text, in its order. An element that is added again takes the place of the first.

    Raises:
        ParseError: a line that is not understood; it names source and line and shows the word.
    """
    sets: dict[str, IpSet] = {}
    entries: dict[str, dict[tuple[SetElement, ...], SetEntry]] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = _Line(source, number, raw)
        words = list(_WORD.finditer(raw))
        if not words or words[0].group().startswith("#"):
            continue
        command = words[0].group()
        if command not in ("create", "add"):
            raise line.error(f"ipset command {command!r}; a save file holds 'create' and 'add'", words[0])
        if len(words) < 3:
            raise line.error(f"{command!r} needs a set name and {'a type' if command == 'create' else 'an element'}")
        name = words[1].group()
        if command == "create":
            if name in sets:
                raise line.error(f"set {name!r} is created a second time", words[1])
            sets[name] = _create(line, words)
            entries[name] = {}
        elif name not in sets:
            raise line.error(f"set {name!r} has not been created above", words[1])
        else:
            if sets[name].type == "list:set" and words[2].group() not in sets:
                raise line.error(f"set {words[2].group()!r} has not been created above", words[2])
            entries[name].update((entry.elements, entry) for entry in _add(line, words, sets[name]))
    return tuple(replace(s, entries=tuple(entries[s.name].values())) for s in sets.values())


def _create(line: _Line, words: list[re.Match[str]]) -> IpSet:
    name, type_ = words[1].group(), words[2].group()
    if type_ not in DIMENSIONS:
        raise line.error(f"unknown set type {type_!r}; known are {', '.join(DIMENSIONS)}", words[2])
    family = 4
    rest = iter(words[3:])
    for word in rest:
        option = word.group()
        if option in _CREATE_FLAGS:
            continue
        value = next(rest, None) if option in _CREATE_VALUES else None
        if value is None:
            raise line.error(f"unknown option {option!r}, or its value is missing", word)
        if option == "family":
            if value.group() not in ("inet", "inet6"):
                raise line.error(f"family {value.group()!r} is neither inet nor inet6", value)
            family = 6 if value.group() == "inet6" else 4
    created = IpSet(name, type_, family, (), tuple(w.group() for w in words[3:]))
    _mask(line, created)
    if type_.startswith("bitmap:"):
        _bounds(line, created)
    return created


def _option(ipset: IpSet, name: str) -> str | None:
    """The value of a create option, or None."""
    try:
        return ipset.options[ipset.options.index(name) + 1]
    except (ValueError, IndexError):
        return None


def _mask(line: _Line, ipset: IpSet) -> int | None:
    """The mask of the ``netmask`` (a length) or ``bitmask`` (an address) option, or None."""
    bits = 32 if ipset.family == 4 else 128
    length, mask = _option(ipset, "netmask"), _option(ipset, "bitmask")
    if length is not None:
        if not length.isascii() or not length.isdigit() or not 0 < int(length) <= bits:
            raise line.error(f"netmask {length!r} is not a length from 1 to {bits}")
        return ((1 << int(length)) - 1) << (bits - int(length))
    return _address(line, mask, ipset.family, None) if mask is not None else None


def _bounds(line: _Line, ipset: IpSet) -> tuple[int, int]:
    """First and last member of a bitmap's ``range``."""
    text = _option(ipset, "range")
    if text is None:
        raise line.error(f"a {ipset.type} set needs 'range FIRST-LAST'")
    if ipset.type == "bitmap:port":
        return _ports(line, text, None)
    found = _addresses(line, text, ipset.family, None)
    return found.first, found.last


def _address(line: _Line, text: str, family: int, word: re.Match[str] | None) -> int:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise line.error(f"{text!r} is not an address", word) from None
    if address.version != family:
        raise line.error(f"{text!r} is not an IPv{family} address, as the set wants", word)
    return int(address)


def _addresses(line: _Line, text: str, family: int, word: re.Match[str] | None) -> AddressRange:
    """``10.0.0.1``, ``10.0.0.0/24`` or ``10.0.0.1-10.0.0.9``."""
    bits = 32 if family == 4 else 128
    if "-" in text:
        first, last = (_address(line, part, family, word) for part in text.split("-", 1))
        if first > last:
            raise line.error(f"the range {text!r} is empty; its ends are swapped", word)
        return AddressRange(family, first, last)
    base, _, length = text.partition("/")
    first = _address(line, base, family, word)
    if not _:
        return AddressRange(family, first, first)
    if not length.isascii() or not length.isdigit() or int(length) > bits:
        raise line.error(f"{length!r} is not a prefix length from 0 to {bits}", word)
    size = 1 << (bits - int(length))
    first -= first % size
    return AddressRange(family, first, first + size - 1)


def _networks(found: AddressRange) -> Iterator[Network]:
    """The fewest networks that make up a range."""
    bits = 32 if found.family == 4 else 128
    first = found.first
    while first <= found.last:
        size = first & -first if first else 1 << bits
        while first + size - 1 > found.last:
            size >>= 1
        yield Network(found.family, first, (1 << bits) - size)
        first += size


def _number(line: _Line, text: str, most: int, word: re.Match[str] | None) -> int:
    try:
        value = int(text, 0) if not re.fullmatch(r"0\d+", text) else int(text)
    except ValueError:
        raise line.error(f"{text!r} is not a number", word) from None
    if not 0 <= value <= most:
        raise line.error(f"{text!r} is not between 0 and {most}", word)
    return value


def _ports(line: _Line, text: str, word: re.Match[str] | None) -> tuple[int, int]:
    first, _, last = text.partition("-")
    low = _number(line, first, 65535, word)
    high = _number(line, last, 65535, word) if _ else low
    if low > high:
        raise line.error(f"the range {text!r} is empty; its ends are swapped", word)
    return low, high


def _port(line: _Line, text: str, word: re.Match[str]) -> PortElement:
    """``80``, ``tcp:80-90``, ``icmp:8/0``, ``icmp:echo-request``, ``gre:0``; without a protocol it is TCP."""
    protocol_text, colon, rest = text.partition(":")
    if not colon:
        return PortElement(6, *_ports(line, text, word))
    protocol = _PROTOCOLS.get(protocol_text)
    if protocol is None:
        protocol = _number(line, protocol_text, 255, word)
    if protocol in (1, 58) and rest in _ICMP_NAMES:
        type_, code = _ICMP_NAMES[rest]
        return PortElement(protocol, type_ << 8 | code, type_ << 8 | code)
    if protocol in (1, 58) and "/" in rest:
        type_, code = (_number(line, part, 255, word) for part in rest.split("/", 1))
        return PortElement(protocol, type_ << 8 | code, type_ << 8 | code)
    return PortElement(protocol, *_ports(line, rest, word))


def _interface(line: _Line, text: str, wildcard: bool, word: re.Match[str]) -> str:
    kind, colon, rest = text.partition(":")
    if colon and kind == "wildcard":
        text, wildcard = rest, True
    if not text or len(text) > 15 + len("physdev:") or text.endswith("+"):
        raise line.error(f"{text!r} is not an interface name", word)
    return text + "+" if wildcard else text


def _add(line: _Line, words: list[re.Match[str]], ipset: IpSet) -> list[SetEntry]:
    flags: set[str] = set()
    rest = iter(words[3:])
    for option in rest:
        name = option.group()
        if name in _ADD_FLAGS:
            flags.add(name)
        elif name not in _ADD_VALUES or next(rest, None) is None:
            raise line.error(f"unknown option {name!r}, or its value is missing", option)
    word = words[2]
    parts = word.group().split(",")
    dimensions = DIMENSIONS[ipset.type]
    if len(parts) != len(dimensions) and not (ipset.type == "bitmap:ip,mac" and len(parts) == 1):
        raise line.error(f"a {ipset.type} set takes {len(dimensions)} elements, here are {len(parts)}", word)
    choices: list[tuple[SetElement, ...]] = [()]
    for part, kind in zip(parts, dimensions, strict=False):
        found = _element(line, part, kind, ipset, "wildcard" in flags, word)
        choices = [(*chosen, element) for chosen in choices for element in found]
    return [SetEntry(elements, "nomatch" in flags) for elements in choices]


def _element(
    line: _Line, text: str, kind: str, ipset: IpSet, wildcard: bool, word: re.Match[str]
) -> list[SetElement]:
    if kind in ("ip", "net"):
        found = _addresses(line, text, ipset.family, word)
        mask = _mask(line, ipset)
        if ipset.type.startswith("bitmap:"):
            return [_bitmap_addresses(line, found, mask, ipset, word)]
        if mask is not None and ipset.type in ("hash:ip", "hash:ip,port"):
            step = (mask & -mask) or 1
            firsts = range(found.first - found.first % step, found.last + 1, step)
            if len(firsts) > _MOST_ELEMENTS:
                raise line.error(f"{text!r} would be more than {_MOST_ELEMENTS} elements", word)
            return list(dict.fromkeys(Network(ipset.family, first & mask, mask) for first in firsts))
        if kind == "ip":
            return [found]
        networks = list(_networks(found))
        if mask is not None:
            networks = [Network(n.family, n.address & mask, n.mask & mask) for n in networks]
        return list(networks)
    if kind == "port":
        if ipset.type == "bitmap:port":
            first, last = _ports(line, text, word)
            low, high = _bounds(line, ipset)
            if first < low or last > high:
                raise line.error(f"port {text!r} is outside the set's range {low}-{high}", word)
            return [PortElement(None, first, last)]
        return [_port(line, text, word)]
    if kind == "mac":
        if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", text):
            raise line.error(f"{text!r} is not a MAC address", word)
        return [int(text.replace(":", ""), 16)]
    if kind == "mark":
        return [_number(line, text, 0xFFFFFFFF, word) & _number(line, _option(ipset, "markmask") or "0xffffffff",
                                                                0xFFFFFFFF, word)]
    return [_interface(line, text, wildcard, word) if kind == "iface" else text]


def _bitmap_addresses(
    line: _Line, found: AddressRange, mask: int | None, ipset: IpSet, word: re.Match[str]
) -> AddressRange:
    low, high = _bounds(line, ipset)
    if mask is not None:
        found = AddressRange(found.family, found.first & mask, found.last | (mask ^ 0xFFFFFFFF))
    if found.first < low or found.last > high:
        raise line.error(f"{word.group()!r} is outside the set's range", word)
    return found


# ---------------------------------------------------------------------------------------------------- asking


@dataclass(frozen=True, slots=True)
class SetQuery:
    """What a packet shows to a set. Interface names are empty where the hook has none (``-o`` in PREROUTING)."""

    src: int
    dst: int
    protocol: int
    sport: int = 0
    dport: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    later_fragment: bool = False
    in_interface: str = ""
    out_interface: str = ""
    mac_src: int = 0
    """0 for a packet without an Ethernet header, which is in no set of MAC addresses."""
    mark: int = 0


PacketValue: TypeAlias = int | str | tuple[int, int] | None
"""A packet's value in one dimension: address, MAC or mark, interface, ``(protocol, port)``; None is not known."""


def is_network_set(ipset: IpSet) -> bool:
    """True for types with a ``net`` dimension: their most specific entry decides, and ``nomatch`` counts."""
    return "net" in DIMENSIONS.get(ipset.type, ())


class IpSetTester:
    """Membership in the sets of one host."""

    def __init__(self, host: Host) -> None:
        self._sets = {s.name: s for s in host.ipsets}
        self._ordered = {s.name: _most_specific_first(s) for s in host.ipsets}

    def contains(
        self, name: str, directions: tuple[str, ...], query: SetQuery, *, return_nomatch: bool = False, family: int = 4
    ) -> bool | None:
        """What ``-m set --match-set NAME DIRECTIONS`` says of a packet; None where it cannot be known.

        Fewer directions than the set has dimensions never match, nor does a set of the other family. With
        `return_nomatch` only ``nomatch`` entries match. A set that the host does not list gives None.
        """
        ipset = self._sets.get(name)
        if ipset is None or ipset.type not in DIMENSIONS:
            return None
        kinds = DIMENSIONS[ipset.type]
        if len(directions) < len(kinds):
            return False
        if ipset.type == "list:set":
            return self._in_list(ipset, directions, query, return_nomatch, family)
        if ipset.family != family and ipset.type not in ("bitmap:port", "hash:mac"):
            return False
        values: list[PacketValue] = []
        for kind, direction in zip(kinds, directions, strict=False):
            value = _packet_value(kind, direction, query, ipset)
            if value is False:
                return False
            values.append(value)
        found = self._first_entry(ipset, values)
        if not isinstance(found, SetEntry):
            return found
        return found.nomatch == return_nomatch if is_network_set(ipset) else True

    def _in_list(
        self, ipset: IpSet, directions: tuple[str, ...], query: SetQuery, return_nomatch: bool, family: int
    ) -> bool | None:
        unsure = False
        for entry in ipset.entries:
            member = str(entry.elements[0])
            found = self.contains(member, directions, query, return_nomatch=return_nomatch, family=family)
            if found:
                return True
            unsure = unsure or found is None
        return None if unsure else False

    def _first_entry(self, ipset: IpSet, values: list[PacketValue]) -> SetEntry | Literal[False] | None:
        """The entry that decides, False where none does, None where a value that is not known matters."""
        decided: SetElement | None = None
        for entry in self._ordered[ipset.name]:
            if decided is not None and entry.elements[0] != decided:
                return False
            answers = [_holds(e, v) for e, v in zip(entry.elements, values, strict=False)]
            if ipset.type == "hash:net,iface" and answers[0] and not str(entry.elements[1]).startswith("physdev:"):
                decided = entry.elements[0]
            if all(answers):
                return entry
            if all(a is not False for a in answers):
                return None
        return False


def _most_specific_first(ipset: IpSet) -> tuple[SetEntry, ...]:
    """Entries in the order in which the kernel asks: by prefix length, the first dimension before the second."""
    if not is_network_set(ipset):
        return ipset.entries
    return tuple(sorted(
        ipset.entries, key=lambda entry: [-e.mask.bit_count() for e in entry.elements if isinstance(e, Network)]))


def _packet_value(kind: str, direction: str, query: SetQuery, ipset: IpSet) -> PacketValue | Literal[False]:
    """The packet's value for one dimension: False where it has none, None where it is not known."""
    source = direction == "src"
    if kind in ("ip", "net"):
        return query.src if source else query.dst
    if kind == "port":
        return _packet_port(source, query, ipset)
    if kind == "iface":
        return (query.in_interface if source else query.out_interface) or False
    if kind == "mac":
        if not query.mac_src:
            return False
        return query.mac_src if source else None
    return query.mark & int(_option(ipset, "markmask") or "0xffffffff", 0)


def _packet_port(source: bool, query: SetQuery, ipset: IpSet) -> tuple[int, int] | Literal[False]:
    """``(protocol, port)``, or False. Protocols without ports have port 0, except in a ``bitmap:port``."""
    protocol = query.protocol
    if protocol in _WITH_PORTS:
        port = query.sport if source else query.dport
    elif protocol == 1 and ipset.family == 4 or protocol == 58 and ipset.family == 6:
        port = query.icmp_type << 8 | query.icmp_code
    else:
        port = 0
    if query.later_fragment and protocol in _WITH_PORTS | {1, 58}:
        return False
    if ipset.type == "bitmap:port" and protocol not in (6, 17):
        return False
    return protocol, port


def _holds(element: SetElement, value: PacketValue) -> bool | None:
    if value is None:
        return None
    if isinstance(element, AddressRange):
        return isinstance(value, int) and element.first <= value <= element.last
    if isinstance(element, Network):
        return isinstance(value, int) and value & element.mask == element.address
    if isinstance(element, PortElement):
        if not isinstance(value, tuple):
            return False
        protocol, port = value
        return element.protocol in (None, protocol) and element.first <= port <= element.last
    if isinstance(element, str):
        if element.endswith("+"):
            return isinstance(value, str) and value.startswith(element[:-1])
        return element == value
    return element == value
