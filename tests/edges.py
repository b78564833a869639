"""Packets at the edges of a host's rules, for the property tests.

Not the package's own synthesis: what is tested here must not choose its own questions.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastpath.host.model import Host, PortElement
from fastpath.packets import PacketBatch
from fastpath.packets.schema import NO_ID, State
from fastpath.ruleset.model import AddressRange, IcmpType, Masked, NatRange, Network, PortRange, Rule

FULL = 0xFFFFFFFF
PROTOCOLS = (6, 17, 1, 132, 33, 136, 47, 50, 2, 0, 255)
MACS = (0x020000000001, 0x020000000002, 0x0242AC110002)


def number(text: str) -> int:
    """A dotted address as an integer."""
    return int(ipaddress.IPv4Address(text))


class Edges:
    """Values on and beside every boundary of a host's rules, by packet column."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.addresses: dict[int, None] = {}
        self.ports: dict[int, None] = dict.fromkeys((0, 80, 1024, 65535))
        self.marks: dict[int, None] = dict.fromkeys((0, 1))
        self.protocols: dict[int, None] = dict.fromkeys((6, 17, 1))
        self.numbers: dict[str, dict[int, None]] = {
            "ttl": dict.fromkeys((64, 0, 1, 2, 255)), "tos": dict.fromkeys((0, 1, 2, 3, 0x28)),
            "length": dict.fromkeys((60, 59, 61, 20, 1500)), "tcp_flags": dict.fromkeys((2, 0, 0x12, 0x10, 0x18, 4, 1)),
            "icmp_type": dict.fromkeys((8, 0, 3, 13)), "icmp_code": dict.fromkeys((0, 1)),
            "uid": dict.fromkeys((NO_ID, 0, 999, 1000, 2000, 2001)), "gid": dict.fromkeys((NO_ID, 0, 1000)),
            "mac_src": dict.fromkeys((0, *MACS)),
        }
        for interface in host.interfaces:
            for a in interface.addresses:
                if a.family == 4:
                    size = 1 << (32 - a.prefixlen)
                    self.span(a.address, a.address)
                    self.span(a.address & -size, a.address & -size | (size - 1))
        for route in host.routes:
            self.value(route.destination)
        for text in ("8.8.8.8", "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "240.0.0.1"):
            self.addresses[number(text)] = None
        for ipset in host.ipsets:
            for entry in ipset.entries:
                for element in entry.elements:
                    self.value(element)
        for table in host.ruleset.tables:
            for chain in table.chains:
                for rule in chain.rules:
                    self.rule(rule)

    def span(self, first: int, last: int) -> None:
        for address in (first, last, first - 1, last + 1):
            self.addresses[address & FULL] = None

    def value(self, value: object) -> None:
        """Adds the boundaries of any parsed value."""
        if isinstance(value, Network):
            self.span(value.address, value.address | (value.mask ^ FULL))
        elif isinstance(value, AddressRange):
            self.span(value.first, value.last)
        elif isinstance(value, (PortRange, PortElement)):
            for port in (value.first, value.last, value.first - 1, value.last + 1):
                self.ports[port & 0xFFFF] = None
        elif isinstance(value, NatRange):
            self.value(value.address)
            self.value(value.ports)
        elif isinstance(value, tuple):
            for item in value:
                self.value(item)

    def rule(self, rule: Rule) -> None:
        for test in (rule.source, rule.destination):
            self.value(test.value if test is not None else None)
        if rule.protocol is not None and isinstance(rule.protocol.value, int):
            self.protocols[rule.protocol.value] = None
        options = [(m.module, o) for m in rule.matches for o in m.options]
        options += [(rule.target.name, o) for o in rule.target.options] if rule.target is not None else []
        for module, option in options:
            value = option.value
            column = {"ttl-eq": "ttl", "ttl-lt": "ttl", "ttl-gt": "ttl", "ttl-set": "ttl", "length": "length",
                      "uid-owner": "uid", "gid-owner": "gid", "mac-source": "mac_src"}.get(option.name)
            if module in ("mark", "connmark", "MARK", "CONNMARK") and isinstance(value, Masked):
                for mark in (value.value, value.value ^ (value.mask & -value.mask), value.value | (value.mask ^ FULL)):
                    self.marks[mark & FULL] = None
            elif option.name == "tcp-flags" and isinstance(value, Masked):
                for flags in (value.value, value.value ^ value.mask, value.value | (value.mask ^ 0x3F)):
                    self.numbers["tcp_flags"][flags] = None
            elif isinstance(value, IcmpType):
                if value.type != 255:
                    self.numbers["icmp_type"][value.type] = None
                    for code in (value.code_first, value.code_last, value.code_last + 1):
                        self.numbers["icmp_code"][code & 0xFF] = None
            elif module in ("tos", "TOS") and isinstance(value, Masked):
                self.numbers["tos"][value.value] = None
            elif module in ("dscp", "DSCP") and isinstance(value, int):
                self.numbers["tos"][value << 2] = None
            elif column is not None:
                most = {"ttl": 0xFF, "length": 0xFFFF, "mac_src": 0xFFFFFFFFFFFF}.get(column, FULL)
                ends = (value.first, value.last) if isinstance(value, PortRange) else (value,)
                for end in ends:
                    for near in (end - 1, end, end + 1) if isinstance(end, int) else ():
                        self.numbers[column][min(max(near, 0), most)] = None
            else:
                self.value(value)

    def template(self, rule: Rule, rng: np.random.Generator) -> dict[str, int]:
        """Column values with which a packet is likely to match a rule."""
        found: dict[str, int] = {}
        for column, test in (("src", rule.source), ("dst", rule.destination)):
            if test is not None and isinstance(test.value, Network) and not test.negated:
                found[column] = test.value.address | (int(rng.integers(0, FULL)) & (test.value.mask ^ FULL))
        if rule.protocol is not None and not rule.protocol.negated and isinstance(rule.protocol.value, int):
            found["proto"] = rule.protocol.value
        test = rule.in_interface
        if test is not None and not test.negated:
            names = [i.name for i in self.host.interfaces]
            fits = [c for c, n in enumerate(names) if n == test.value
                    or (str(test.value).endswith("+") and n.startswith(str(test.value)[:-1]))]
            if fits:
                found["iif"] = fits[int(rng.integers(0, len(fits)))]
        for match in rule.matches:
            for option in match.options:
                value = option.value
                place = {"dport": "dport", "sport": "sport", "dports": "dport", "ports": "dport", "sports": "sport",
                         "src-range": "src", "dst-range": "dst", "length": "length"}.get(option.name)
                if isinstance(value, tuple) and value and isinstance(value[0], PortRange):
                    value = value[int(rng.integers(0, len(value)))]
                if place is not None and isinstance(value, (PortRange, AddressRange)) and not option.negated:
                    found[place] = (value.first, value.last)[int(rng.integers(0, 2))]
                elif match.module == "mark" and isinstance(value, Masked) and not option.negated:
                    found["mark"] = value.value
                elif isinstance(value, IcmpType) and value.type != 255 and not option.negated:
                    found["icmp_type"], found["icmp_code"] = value.type, value.code_first
                elif option.name in ("ctstate", "state") and isinstance(value, frozenset) and not option.negated:
                    states = sorted(int(State[w]) for w in value if w in State.__members__)
                    if states:
                        found["state"] = states[int(rng.integers(0, len(states)))]
                elif option.name == "tcp-flags" and isinstance(value, Masked) and not option.negated:
                    found["tcp_flags"] = value.value
        return found


def edge_packets(
    host: Host, n: int, seed: int = 0, *, egress: bool = False, outcomes: Sequence[str] = ()
) -> PacketBatch:
    """`n` packets at the edges of a host's rules: two of three are aimed at a rule, some of their columns changed,
    the others are drawn column by column. Everything follows from `seed` alone.

    With `egress` the packets bring an ``oif`` column; `outcomes` names boolean columns to draw.
    """
    edges = Edges(host)
    rng = np.random.default_rng(seed)
    names = [i.name for i in host.interfaces] + ["local"]

    def draw(values: Sequence[int] | dict[int, None], dtype: str, usual: float = 0.0) -> npt.NDArray[np.generic]:
        """Values from a pool; the first one with probability `usual` besides."""
        pool = np.array(list(values), dtype)
        drawn = pool[rng.integers(0, len(pool), n)]
        return np.where(rng.random(n) < usual, pool[0], drawn)

    own = [a.address for i in host.interfaces for a in i.addresses if a.family == 4]
    plain = [a for a in edges.addresses if 0x01000000 <= a < 0xE0000000 and a >> 24 != 127]
    guests = [a for a in plain if a not in own] or plain
    where = [code for code, i in enumerate(host.interfaces) if i.master is None] + [len(names) - 1] * 2
    kind = rng.random(n)
    own_or_plain = np.where(kind < 0.3, draw(own or plain, "uint32"), draw(plain, "uint32"))
    columns: dict[str, npt.NDArray[np.generic]] = {
        "iif": np.where(rng.random(n) < 0.9, draw(where, "int16"), draw(range(len(names)), "int16")),
        "src": np.where(rng.random(n) < 0.8, draw(guests, "uint32"), draw(edges.addresses, "uint32")),
        "dst": np.where(kind < 0.8, own_or_plain, draw(edges.addresses, "uint32")),
        "proto": draw([*edges.protocols, *edges.protocols, *PROTOCOLS], "uint8"),
        "sport": draw(edges.ports, "uint16"), "dport": draw(edges.ports, "uint16"),
        "tcp_flags": draw(edges.numbers["tcp_flags"], "uint8", 0.6),
        "icmp_type": draw(edges.numbers["icmp_type"], "uint8", 0.4),
        "icmp_code": draw(edges.numbers["icmp_code"], "uint8", 0.5),
        "frag": draw((0, 1, 2), "uint8", 0.94), "ttl": draw(edges.numbers["ttl"], "uint8", 0.85),
        "tos": draw(edges.numbers["tos"], "uint8", 0.6), "length": draw(edges.numbers["length"], "uint16", 0.5),
        "mark": draw(edges.marks, "uint32", 0.6), "connmark": draw(edges.marks, "uint32", 0.6),
        "state": draw([int(s) for s in State], "uint8", 0.6),
        "ctdir": draw((0, 1, 2), "uint8", 0.85), "ctstatus": draw((0, 1, 2, 8, 14, 16, 32, 48), "uint16", 0.8),
        "ctorigdst": draw([0, *edges.addresses], "uint32", 0.8),
        "ctorigdstport": draw([0, *edges.ports], "uint16", 0.8),
        "mac_src": draw(edges.numbers["mac_src"], "uint64"), "pkttype": draw((0, 1, 2), "uint8", 0.9),
        "uid": draw(edges.numbers["uid"], "uint32"), "gid": draw(edges.numbers["gid"], "uint32"),
    }
    rules = [r for t in host.ruleset.tables for c in t.chains for r in c.rules]
    if rules:
        aimed = rng.random(n) < 0.67
        which = rng.integers(0, len(rules), n)
        templates = [edges.template(rule, rng) for rule in rules]
        for name, column in columns.items():
            has = np.array([name in t for t in templates])
            value = np.array([t.get(name, 0) for t in templates], column.dtype)
            keep = aimed & has[which] & (rng.random(n) < 0.9)
            columns[name] = np.where(keep, value[which], column)
    if egress:
        columns["oif"] = draw(range(len(names)), "int16")
    extra = {name: rng.random(n) < 0.5 for name in outcomes}
    return PacketBatch.from_columns(columns, n, extra=extra, interfaces=names)
