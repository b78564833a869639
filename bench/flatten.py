"""One chain as first-match rules of a few fields, as a packet classifier takes them: jumps and returns written out.

A packet's first matching box names the rule or policy that decides its walk through the chain. Where a box returns to
a calling chain under a condition, what follows there is written out once more for it; a box that is empty is left out.
Only tests that the fields can hold are known, everything else is refused, so that no comparison is won by leaving
something out. The boxes see whole packets (no fragments), as such a classifier does. Whether a destination is
the host's own is a field too, which headers bring ready-made: else such tests would be written out for every address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.host.model import Host
from fastpath.packets import State
from fastpath.ruleset.model import Chain, Match, Network, PortRange, Rule, RuleRef

Array = npt.NDArray[Any]

FIELDS = ("src", "dst", "sport", "dport", "proto", "iif", "oif", "state", "local")
TOPS = (0xFFFFFFFF, 0xFFFFFFFF, 65535, 65535, 255, 255, 255, 255, 1)
WHOLE = tuple((0, top) for top in TOPS)

Interval = tuple[int, int]
Box = tuple[Interval, ...]
STATES = {
    "NEW": (State.NEW,), "ESTABLISHED": (State.ESTABLISHED, State.REPLY), "RELATED": (State.RELATED,),
    "INVALID": (State.INVALID,), "UNTRACKED": (State.UNTRACKED,),
}
DECIDING = frozenset({"ACCEPT", "DROP", "REJECT", "DNAT", "SNAT", "MASQUERADE", "REDIRECT"})
PASSING = frozenset({"LOG", "NFLOG"})


@dataclass(frozen=True)
class FirstMatch:
    """Boxes in the order of their priority.

    Attributes:
        lo, hi: uint32 of shape (n, 9), ends included, in the order of FIELDS. The last box covers everything.
        rule: int32, the id of the rule or policy that decides.
        interfaces: names that ``iif`` and ``oif`` stand for; 0 is an unknown one or none, 1 the first name.
        local: intervals of the host's own addresses.
    """

    lo: Array
    hi: Array
    rule: Array
    interfaces: tuple[str, ...]
    local: tuple[Interval, ...]

    def __len__(self) -> int:
        return len(self.lo)


def flatten(host: Host, table: str, chain: str) -> FirstMatch:
    """A builtin chain as first-match rules.

    Args:
        host: its addresses and ipsets are what ``addrtype`` and ``set`` look at.
        table, chain: the chain.

    Raises:
        ValueError: a test or target that the fields cannot hold, named in the message.
    """
    found = host.ruleset.table(table)
    start = found.chain(chain) if found is not None else None
    if found is None or start is None:
        raise ValueError(f"there is no chain {chain} in table {table}")
    chains = {c.name: c for c in found.chains}
    names = tuple(sorted({
        str(test.value) for c in found.chains for rule in c.rules for test in (rule.in_interface, rule.out_interface)
        if test is not None}))
    refs = {(r.chain, r.number): r for r in host.ruleset.refs() if r.table == table}
    walk = _Walk(host, chains, refs, names)
    policy = refs[chain, 0].id
    if not walk.chain(start, 0, WHOLE, lambda box: walk.emit(box, policy)):
        walk.emit(WHOLE, policy)
    boxes = np.array([box for box, _ in walk.out], np.uint32)
    return FirstMatch(np.ascontiguousarray(boxes[:, :, 0]), np.ascontiguousarray(boxes[:, :, 1]),
                      np.array([rule for _, rule in walk.out], np.int32), names, _local(host))


@dataclass
class _Walk:
    host: Host
    chains: Mapping[str, Chain]
    refs: Mapping[tuple[str, int], RuleRef]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        self.out: list[tuple[Box, int]] = []

    def emit(self, box: Box, rule: int) -> None:
        self.out.append((box, rule))

    def chain(self, chain: Chain, begin: int, context: Box, after: Callable[[Box], None]) -> bool:
        """Writes out a chain from a rule on for the packets of a box -> whether all of them are decided there.

        `after` writes out, to the end, what follows for packets that return to the caller.
        """
        gone: list[list[Interval]] = [[] for _ in FIELDS]
        for at in range(begin, len(chain.rules)):
            rule = chain.rules[at]
            if rule.target is None or rule.target.name in PASSING:
                self.tests(rule)  # refuses what it does not know
                continue
            target = rule.target.name
            fields = self.tests(rule)
            for i, intervals in enumerate(fields):
                wider = _merged([*intervals, *gone[i]])  # what was decided before may be covered again
                if len(wider) < len(intervals):
                    fields[i] = wider
            for tested in _boxes(fields):
                box = _both(context, tested)
                if box is None:
                    continue
                whole = box == context
                differ = [i for i in range(len(FIELDS)) if box[i] != context[i]]
                if len(differ) == 1 and (target in DECIDING or target == "RETURN"):
                    gone[differ[0]].append(box[differ[0]])
                if target in DECIDING:
                    self.emit(box, self.refs[chain.name, at + 1].id)
                    if whole:
                        return True
                elif target == "RETURN":
                    if whole:
                        return False
                    after(box)
                elif target in self.chains:
                    if rule.target.goto:
                        closed = self.chain(self.chains[target], 0, box, after)
                        if not closed:
                            after(box)
                        closed = True
                    else:
                        def behind(inner: Box, chain: Chain = chain, at: int = at) -> None:
                            if not self.chain(chain, at + 1, inner, after):
                                after(inner)

                        closed = self.chain(self.chains[target], 0, box, behind)
                    if closed and whole:
                        return True
                else:
                    raise ValueError(f"no first-match form of: {rule}")
        return False

    def tests(self, rule: Rule) -> list[list[Interval]]:
        """What a rule tests: the values that each field may have."""
        fields: list[list[Interval]] = [[w] for w in WHOLE]

        def test(name: str, intervals: list[Interval], negated: bool = False) -> None:
            i = FIELDS.index(name)
            if negated:
                intervals = _complement(intervals, TOPS[i])
            fields[i] = [(max(a, c), min(b, d)) for a, b in fields[i] for c, d in intervals if max(a, c) <= min(b, d)]

        for name, address in (("src", rule.source), ("dst", rule.destination)):
            if address is not None:
                test(name, [_network(address.value, rule)], address.negated)
        for name, interface in (("iif", rule.in_interface), ("oif", rule.out_interface)):
            if interface is not None:
                if str(interface.value).endswith("+"):
                    raise ValueError(f"no first-match form of: {rule}")
                code = 1 + self.names.index(str(interface.value))
                test(name, [(code, code)], interface.negated)
        if rule.protocol is not None:
            number = int(rule.protocol.value)
            test("proto", [(number, number)], rule.protocol.negated)
        if rule.fragment:
            raise ValueError(f"no first-match form of: {rule}")
        for match in rule.matches:
            self.match(match, rule, test)
        return fields

    def match(self, match: Match, rule: Rule, test: Callable[..., None]) -> None:
        for option in match.options:
            value = option.value
            if match.module == "conntrack" and option.name == "ctstate" and isinstance(value, frozenset):
                if not value <= STATES.keys():
                    raise ValueError(f"no first-match form of: {rule}")
                test("state", sorted((int(s), int(s)) for word in value for s in STATES[word]), option.negated)
            elif match.module in ("tcp", "udp") and option.name in ("sport", "dport") and isinstance(value, PortRange):
                test(option.name, [(value.first, value.last)], option.negated)
            elif match.module == "addrtype" and option.name == "dst-type" and value == frozenset({"LOCAL"}):
                test("local", [(1, 1)], option.negated)
            else:
                raise ValueError(f"no first-match form of: {rule}")


def _local(host: Host) -> tuple[Interval, ...]:
    own = {a.address for i in host.interfaces for a in i.addresses if a.family == 4}
    loopback = (127 << 24, (128 << 24) - 2)  # the last one is a broadcast address
    return tuple(_merged([loopback, *((a, a) for a in own)]))


def _network(value: Any, rule: Rule) -> Interval:
    if not isinstance(value, Network) or value.mask & (~value.mask & 0xFFFFFFFF) >> 1:
        raise ValueError(f"no first-match form of: {rule}")
    return value.address, value.address | ~value.mask & 0xFFFFFFFF


def _merged(intervals: list[Interval]) -> list[Interval]:
    out: list[Interval] = []
    for low, high in sorted(intervals):
        if out and low <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], high))
        else:
            out.append((low, high))
    return out


def _complement(intervals: list[Interval], top: int) -> list[Interval]:
    out, at = [], 0
    for low, high in _merged(intervals):
        if low > at:
            out.append((at, low - 1))
        at = high + 1
    return [*out, (at, top)] if at <= top else out


def _boxes(fields: list[list[Interval]]) -> list[Box]:
    out: list[Box] = [()]
    for intervals in fields:
        out = [(*box, interval) for box in out for interval in intervals]
    return out


def _both(a: Box, b: Box) -> Box | None:
    box = tuple((max(p, r), min(q, s)) for (p, q), (r, s) in zip(a, b, strict=True))
    return None if any(low > high for low, high in box) else box
