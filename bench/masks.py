"""A plain numpy baseline: netfilter's whole path, or one chain of it, by one boolean mask a rule.

What one would write with numpy alone. A chain takes the columns that its rules test, of the packets that reach it;
every rule is a mask over them, built test by test until nothing is left of it; a jump takes the packets that match
along as a smaller batch; packets that have left a chain are cut from its columns once they are the larger part. Routes
and address types are intervals, found by binary search. Its plainest form, ``Masks(host, plain=True)``, does without
smaller batches: every mask is over all packets.

It knows the tests and targets that Docker's rules consist of and refuses anything else, so that it can never be fast by
leaving something out. Its answers are the engine's, in every result column and counter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.flatten import STATES
from fastpath.host.fib import ERROR_TYPES, Fib
from fastpath.host.model import Host
from fastpath.packets import Hook, PacketBatch, Result, State, Verdict
from fastpath.packets.schema import LOCAL, RESULT_COLUMNS
from fastpath.reference.conntrack import PICKED_UP, SYN_ONLY, in_use
from fastpath.reference.route import ALL_HOSTS, Router
from fastpath.ruleset.model import Match, NatRange, Negatable, Network, PortRange, Rule, RuleRef, Target

Array = npt.NDArray[Any]
Test = Callable[[Array], Array]

CHUNK = 1 << 19
"""Packets that are walked together, of 2^12 to 2^21 the fastest: what a rule costs at least is spread over them."""

COLUMNS = ("iif", "oif", "src", "dst", "proto", "sport", "dport", "tcp_flags", "icmp_type", "state", "frag", "ttl",
           "length", "pkttype", "mark")
CHANGING = ("src", "dst", "sport", "dport", "state")
TYPES = ("UNICAST", "LOCAL", "BROADCAST", "MULTICAST", "ANYCAST")
NONE = -1
UNSET = 255
EVERYBODY = 0xFFFFFFFF
DROPPED, ERROR, HERE, OUT = range(4)  # what routing decides


@dataclass(frozen=True)
class _Rule:
    """A rule. Its tests are a column and a mask of its values each; `last` is one that is worth asking of few packets
    only."""

    id: int
    tests: tuple[tuple[str, Test], ...]
    last: tuple[str, Test] | None
    target: Target | None


@dataclass(frozen=True)
class _Chain:
    policy: str | None
    policy_id: int
    rules: list[_Rule] = field(default_factory=list)
    columns: tuple[str, ...] = ()


class _Packets:
    """Packets under way: columns as rules see them, who is still in the table being walked, and how they end."""

    def __init__(self, batch: PacketBatch, codes: Array) -> None:
        self.at = {name: batch.column(name) for name in COLUMNS}
        self.at |= {name: codes[self.at[name]] for name in ("iif", "oif")}
        self.at |= {name: self.at[name].copy() for name in CHANGING}
        n = len(batch)
        self.walking = np.ones(n, bool)
        self.verdict = np.full(n, UNSET, np.uint8)
        self.hook = np.zeros(n, np.uint8)
        self.rule = np.full(n, NONE, np.int32)
        self.egress = np.full(n, NONE, np.int16)
        self.walked = np.zeros(n, np.uint32)

    def end(self, rows: Array, verdict: Verdict, hook: Hook, rule: int | None = None) -> None:
        """Ends packets; without `rule` they keep the one that the filter table accepted them by."""
        self.verdict[rows], self.hook[rows], self.walking[rows] = verdict, hook, False
        if rule is not None:
            self.rule[rows] = rule
        if hook is Hook.ROUTE:
            self.egress[rows] = NONE

    def under_way(self, rows: Array) -> Array:
        left: Array = rows[self.verdict[rows] == UNSET]
        return left


class Masks:
    """A host made ready.

    Args:
        host: the host.
        plain: every mask is over all packets of a chunk, wherever they are.

    Raises:
        ValueError: a test, target or setting that the baseline lacks.
    """

    def __init__(self, host: Host, *, plain: bool = False) -> None:
        self.plain = plain
        if not in_use(host.ruleset) or host.policy_rules or not host.complete:
            raise ValueError("no baseline without connection tracking or routes, or with policy rules")
        self.fib, self.router = Fib(host), Router(host)
        self.names = list(dict.fromkeys([LOCAL, "lo", *(i.name for i in host.interfaces)]))
        self.loose = bool(host.sysctl("net.netfilter.nf_conntrack_tcp_loose", 1))
        self.own = np.array(sorted(self.router.own), np.uint32)
        self._routes(host)
        self.refs = host.ruleset.refs()
        self.counts, self.octets = np.zeros(len(self.refs), np.int64), np.zeros(len(self.refs), np.int64)
        refs = {(r.table, r.chain, r.number): r for r in self.refs}
        self.chains: dict[tuple[str, str], _Chain] = {}
        for table in host.ruleset.tables:
            for chain in table.chains:
                rules = [self._rule(rule, refs[table.name, chain.name, number], host)
                         for number, rule in enumerate(chain.rules, 1)]
                tests = [test for r in rules for test in (*r.tests, *([r.last] if r.last else []))]
                columns = tuple(dict.fromkeys(name for name, _ in tests))
                if table.name == "raw" and "state" in columns:
                    raise ValueError("no baseline for states in raw, where no packet has one")
                policy = refs[table.name, chain.name, 0].id if chain.policy else NONE
                self.chains[table.name, chain.name] = _Chain(chain.policy, policy, rules, columns)

    # ---------------------------------------------------------------------------------------------- in and out

    def evaluate(self, packets: PacketBatch) -> Result:
        """What becomes of packets without an ``oif`` column: all result columns, and counters."""
        return self._evaluate(packets, self._whole)

    def evaluate_chain(self, packets: PacketBatch, chain: str) -> Result:
        """What a builtin chain of the filter table does to packets whose states, and egress for FORWARD, are given."""
        def alone(p: _Packets) -> None:
            everything = np.arange(len(p.verdict))
            p.egress = p.at["oif"]
            p.end(self._table(p, "filter", Hook[chain], everything), Verdict.ACCEPT, Hook[chain])

        return self._evaluate(packets, alone)

    def _evaluate(self, packets: PacketBatch, way: Callable[[_Packets], None]) -> Result:
        self.counts[:], self.octets[:] = 0, 0
        codes = np.array([self._code(name) for name in packets.interfaces] + [NONE], np.int16)
        self.settings = {name: np.array([self.router.setting(name, i) for i in self.names], bool)
                         for name in ("route_localnet", "accept_local", "rp_filter")}
        self.settings["forwards"] = np.array([self.router.forwards(i) for i in self.names], bool)
        if self.settings["rp_filter"].any():
            raise ValueError("no baseline for rp_filter")
        out = {c.name: np.empty(len(packets), c.dtype) for c in RESULT_COLUMNS}
        for first in range(0, len(packets), CHUNK):
            chunk = slice(first, min(first + CHUNK, len(packets)))
            p = _Packets(packets[chunk], codes)
            way(p)
            ends = {"verdict": p.verdict, "hook": p.hook, "rule": p.rule, "oif": p.egress, "rules_walked": p.walked,
                    "flags": 0} | {name: p.at[name] for name in ("src", "dst", "sport", "dport", "mark")}
            for name, values in ends.items():
                out[name][chunk] = values
        return Result(out, self.names, self.refs, self.counts.copy(), self.octets.copy())

    def _code(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    # ---------------------------------------------------------------------------------------------- hooks

    def _whole(self, p: _Packets) -> None:
        made_here = p.at["iif"] == self._code(LOCAL)
        self._arriving(p, np.flatnonzero(~made_here))
        self._leaving(p, np.flatnonzero(made_here))

    def _arriving(self, p: _Packets, rows: Array) -> None:
        rows = self._defragmented(p, rows, Hook.PREROUTING)
        rows = self._table(p, "raw", Hook.PREROUTING, rows)
        self._track(p, rows)
        rows = self._tables(p, ("mangle", "nat"), Hook.PREROUTING, rows)
        way, oif = self._arriving_way(p, rows)
        p.end(rows[way == DROPPED], Verdict.DROP, Hook.ROUTE)
        p.end(rows[way == ERROR], Verdict.ICMP_ERROR, Hook.ROUTE)
        here = self._tables(p, ("mangle", "filter", "security", "nat"), Hook.INPUT, rows[way == HERE])
        p.end(here, Verdict.LOCAL_IN, Hook.INPUT)
        rows, oif = rows[way == OUT], oif[way == OUT]
        p.at["oif"][rows] = p.egress[rows] = oif
        p.end(rows[p.at["ttl"][rows] <= 1], Verdict.ICMP_ERROR, Hook.ROUTE)
        p.end(rows[p.at["pkttype"][rows] != 0], Verdict.DROP, Hook.ROUTE)
        rows = self._tables(p, ("mangle", "filter", "security"), Hook.FORWARD, p.under_way(rows))
        rows = self._tables(p, ("mangle", "nat"), Hook.POSTROUTING, rows)
        p.end(rows, Verdict.FORWARD, Hook.POSTROUTING)

    def _leaving(self, p: _Packets, rows: Array) -> None:
        p.at["iif"][rows] = NONE
        rows, oif = self._leaving_way(p, rows)
        p.at["oif"][rows] = p.egress[rows] = oif
        rows = self._defragmented(p, rows, Hook.OUTPUT)
        rows = self._table(p, "raw", Hook.OUTPUT, rows)
        self._track(p, rows)
        rows = self._table(p, "mangle", Hook.OUTPUT, rows)
        before = p.at["dst"].copy()
        rows = self._table(p, "nat", Hook.OUTPUT, rows)
        moved, oif = self._leaving_way(p, rows[p.at["dst"][rows] != before[rows]], again=True)
        rows = self._tables(p, ("filter", "security"), Hook.OUTPUT, p.under_way(rows))
        p.at["oif"][moved] = oif  # which OUTPUT's rules do not see yet
        p.egress[rows] = p.at["oif"][rows]
        rows = self._tables(p, ("mangle", "nat"), Hook.POSTROUTING, rows)
        looped = p.at["oif"][rows] == self._code("lo")
        p.end(rows[~looped], Verdict.LOCAL_OUT, Hook.POSTROUTING)
        rows = rows[looped]
        p.at["iif"][rows], p.at["oif"][rows], p.egress[rows], p.rule[rows] = self._code("lo"), NONE, NONE, NONE
        rows = self._tables(p, ("raw", "mangle"), Hook.PREROUTING, rows)
        p.end(self._tables(p, ("mangle", "filter", "security"), Hook.INPUT, rows), Verdict.LOCAL_IN, Hook.INPUT)

    def _defragmented(self, p: _Packets, rows: Array, hook: Hook) -> Array:
        p.end(rows[p.at["frag"][rows] != 0], Verdict.DROP, hook)
        return p.under_way(rows)

    def _track(self, p: _Packets, rows: Array) -> None:
        """States of packets that arrive with none."""
        rows = rows[p.at["state"][rows] == State.AUTO]
        proto, flags = p.at["proto"][rows], p.at["tcp_flags"][rows] & 0x3F
        opens = np.isin(flags, [*SYN_ONLY, *(PICKED_UP if self.loose else ())])
        asks = np.isin(p.at["icmp_type"][rows], (8, 13, 15, 17))
        new = np.where(proto == 6, opens, np.where(proto == 1, asks, True))
        p.at["state"][rows] = np.where(new, State.NEW, State.INVALID)

    # ---------------------------------------------------------------------------------------------- tables and chains

    def _tables(self, p: _Packets, tables: tuple[str, ...], hook: Hook, rows: Array) -> Array:
        for table in tables:
            rows = self._table(p, table, hook, rows)
        return rows

    def _table(self, p: _Packets, table: str, hook: Hook, rows: Array) -> Array:
        """Walks packets through a table's chain at a hook -> those that go on."""
        chain = self.chains.get((table, hook.name))
        if chain is None:
            return rows
        walkers = rows[p.at["state"][rows] == State.NEW] if table == "nat" else rows
        p.walking[walkers] = True
        self._walk(p, table, hook, chain, walkers)
        rest = walkers[p.walking[walkers]]
        self._count(p, chain.policy_id, rest)
        self._decide(p, table, hook, chain.policy or "ACCEPT", chain.policy_id, rest)
        return p.under_way(rows)

    def _walk(self, p: _Packets, table: str, hook: Hook, chain: _Chain, rows: Array) -> None:
        """Walks packets through a chain; those that come to its end, or return, are `walking` still."""
        left = np.ones(len(rows), bool)
        if self.plain:
            left = np.zeros(len(p.verdict), bool)
            left[rows] = True
            rows = np.arange(len(left))
        columns = {name: p.at[name] if self.plain else p.at[name][rows] for name in chain.columns}
        for number, rule in enumerate(chain.rules, 1):
            hit = _mask(rule, columns, left)
            if hit is None:
                continue
            hits = rows[hit]
            self._count(p, rule.id, hits)
            if rule.target is None:
                continue
            if (table, rule.target.name) in self.chains:
                self._walk(p, table, hook, self.chains[table, rule.target.name], hits)
                hit[hit] = ~p.walking[hits]
                hits = rows[hit]
            elif rule.target.name != "RETURN":
                self._decide(p, table, hook, rule.target, rule.id, hits)
            p.walked[hits] += np.uint32(number)
            left &= ~hit
            remain = np.count_nonzero(left)
            if not remain:
                return
            if 2 * remain < len(rows) and not self.plain:
                rows, columns, left = rows[left], {k: v[left] for k, v in columns.items()}, np.ones(remain, bool)
        p.walked[rows[left]] += np.uint32(len(chain.rules))

    def _count(self, p: _Packets, rule: int, rows: Array) -> None:
        self.counts[rule] += len(rows)
        self.octets[rule] += p.at["length"][rows].sum(dtype=np.int64)

    def _decide(self, p: _Packets, table: str, hook: Hook, target: Target | str, rule: int, rows: Array) -> None:
        """What ends a table's walk."""
        name = target if isinstance(target, str) else target.name
        p.walking[rows] = False
        if name in ("DROP", "REJECT"):
            p.end(rows, Verdict[name], hook, rule)
        elif table == "filter":
            p.rule[rows] = rule
        elif isinstance(target, Target) and name == "DNAT":
            to = target.options[0].value
            assert isinstance(to, NatRange)
            if to.address is not None:
                p.at["dst"][rows] = to.address.first
            if to.ports is not None:
                p.at["dport"][rows] = to.ports.first
        elif name == "MASQUERADE":
            rows = rows[p.at["src"][rows] != 0]
            p.at["src"][rows] = self.masquerade[p.at["oif"][rows]]

    # ---------------------------------------------------------------------------------------------- routes

    def _routes(self, host: Host) -> None:
        """Routing's answers and address types by intervals of addresses, and MASQUERADE's address by interface."""
        starts = sorted({start for start in _bounds(host) if 0 <= start <= EVERYBODY})
        self.starts = np.array(starts, np.uint32)
        found = [self.fib.lookup(start) for start in starts]
        self.type_of = np.array([TYPES.index(self.fib.local_type(start)) for start in starts], np.uint8)
        self.in_way, self.out_way = (np.full(len(starts), DROPPED, np.uint8) for _ in range(2))
        self.in_oif, self.out_oif = (np.full(len(starts), NONE, np.int16) for _ in range(2))
        for i, (start, to) in enumerate(zip(starts, found, strict=True)):
            if to is None or to.type in ERROR_TYPES:
                self.in_way[i] = DROPPED if to is not None and to.type == "blackhole" else ERROR
            elif to.type in ("local", "broadcast"):
                self.in_way[i] = HERE
            elif to.type == "unicast" and to.dev is not None:
                self.in_way[i], self.in_oif[i] = OUT, self._code(to.dev)
            if start == 0 or (to is not None and to.type not in ERROR_TYPES):
                lo = start == 0 or to is None or to.type == "local" or to.dev is None
                self.out_way[i], self.out_oif[i] = OUT, self._code("lo" if lo or to is None else str(to.dev))
        self.masquerade = np.array([self._masquerade(host, name) for name in self.names], np.uint32)

    def _masquerade(self, host: Host, name: str) -> int:
        interface = host.interface(name)
        primary = [] if interface is None else [
            a for a in interface.addresses if a.family == 4 and not a.secondary and a.scope == "global"]
        address = self.fib.masquerade_address(name, 0)
        if len(primary) > 1 or address is None:
            raise ValueError(f"no baseline for masquerading on {name}: it has several addresses, or none")
        return address

    def _interval(self, addresses: Array) -> Array:
        return np.searchsorted(self.starts, addresses, "right") - 1

    def _arriving_way(self, p: _Packets, rows: Array) -> tuple[Array, Array]:
        src, dst, iif = (p.at[name][rows] for name in ("src", "dst", "iif"))
        set_on = {name: values[iif] for name, values in self.settings.items()}
        at = self._interval(dst)
        way, oif = self.in_way[at], self.in_oif[at]
        way[~set_on["forwards"] & (way != HERE)] = DROPPED
        group, everybody = dst >> 28 == 0xE, (dst == EVERYBODY) | ((src == 0) & (dst == 0))
        way[group] = DROPPED
        way[(dst == ALL_HOSTS) | everybody] = HERE
        loopback = (src >> 24 == 127) | (dst >> 24 == 127)
        way[(src >> 28 == 0xE) | (src == EVERYBODY) | (loopback & ~set_on["route_localnet"] & ~everybody)
            | (((src == 0) | (dst == 0)) & (dst != ALL_HOSTS) & ~everybody)] = DROPPED
        way[np.isin(src, self.own) & ~set_on["accept_local"] & (way != ERROR)] = DROPPED
        return way, oif

    def _leaving_way(self, p: _Packets, rows: Array, *, again: bool = False) -> tuple[Array, Array]:
        """Ends the packets without a way out -> the others, and their interfaces."""
        at = self._interval(p.at["dst"][rows])
        way, oif = self.out_way[at].copy(), self.out_oif[at]
        if again:
            src = p.at["src"][rows]
            bound = (src >> 24 == 127) & (self.type_of[self._interval(src)] != TYPES.index("BROADCAST"))
            way[bound & (oif != self._code("lo")) & ~self.settings["route_localnet"][oif]] = DROPPED
        p.end(rows[way == DROPPED], Verdict.DROP, Hook.ROUTE, NONE)
        return rows[way == OUT], oif[way == OUT]

    # ---------------------------------------------------------------------------------------------- rules

    def _rule(self, rule: Rule, ref: RuleRef, host: Host) -> _Rule:
        tests: list[tuple[str, Test]] = []
        last: list[tuple[str, Test]] = []
        for name, address in (("src", rule.source), ("dst", rule.destination)):
            if address is not None:
                tests.append((name, _network(address)))
        for name, interface in (("iif", rule.in_interface), ("oif", rule.out_interface)):
            if interface is not None:
                if str(interface.value).endswith("+"):
                    raise ValueError(f"no baseline for: {rule}")
                tests.append((name, _equal(self._code(str(interface.value)), interface.negated)))
        if rule.protocol is not None:
            tests.append(("proto", _equal(int(rule.protocol.value), rule.protocol.negated)))  # type: ignore[arg-type]
        for match in rule.matches:
            tests += self._header(match, rule)
            last += self._addrtype(match)
        known = {c.name for t in host.ruleset.tables if t.name == ref.table for c in t.chains}
        if rule.fragment is not None or len(last) > 1 or not _is_known(rule, known):
            raise ValueError(f"no baseline for: {rule}")
        return _Rule(ref.id, tuple(tests), last[0] if last else None, rule.target)

    def _header(self, match: Match, rule: Rule) -> Iterator[tuple[str, Test]]:
        for option in match.options:
            value = option.value
            if match.module == "conntrack" and option.name == "ctstate" and isinstance(value, frozenset):
                if not value <= STATES.keys():
                    raise ValueError(f"no baseline for: {rule}")
                holds = np.isin(np.arange(len(State)), [s for word in value for s in STATES[word]]) ^ option.negated
                yield "state", holds.__getitem__
            elif match.module in ("tcp", "udp") and option.name in ("sport", "dport") and isinstance(value, PortRange):
                yield option.name, _between(value, option.negated)
            elif match.module != "addrtype" or option.name not in ("src-type", "dst-type"):
                raise ValueError(f"no baseline for: {rule}")

    def _addrtype(self, match: Match) -> Iterator[tuple[str, Test]]:
        for option in match.options:
            if match.module == "addrtype" and isinstance(option.value, frozenset):
                holds = np.isin(self.type_of, [TYPES.index(str(t)) for t in option.value]) ^ option.negated

                def test(addresses: Array, holds: Array = holds) -> Array:
                    found: Array = holds[self._interval(addresses)]
                    return found

                yield option.name.removesuffix("-type"), test


def _mask(rule: _Rule, columns: dict[str, Array], left: Array) -> Array | None:
    """Which packets of those left match; None where none does."""
    hit = left.copy()
    for name, test in rule.tests:
        hit &= test(columns[name])
        if not hit.any():
            return None
    if rule.last is not None:
        name, test = rule.last
        rows = np.flatnonzero(hit)
        hit[rows] = test(columns[name][rows])
    return hit if hit.any() else None


def _equal(value: int, negated: bool) -> Test:
    return (lambda values: values != value) if negated else (lambda values: values == value)


def _network(test: Negatable) -> Test:
    assert isinstance(test.value, Network)
    address, mask = np.uint32(test.value.address), np.uint32(test.value.mask)
    if mask == EVERYBODY:
        return _equal(int(address), test.negated)
    return (lambda values: values & mask != address) if test.negated else (lambda values: values & mask == address)


def _between(ports: PortRange, negated: bool) -> Test:
    first, last = ports.first, ports.last
    if first == last:
        return _equal(first, negated)
    if negated:
        return lambda values: (values < first) | (values > last)
    return lambda values: (values >= first) & (values <= last)


def _is_known(rule: Rule, chains: set[str]) -> bool:
    """Whether the target can be followed: NAT gives one address and port, and ports to TCP and UDP only."""
    target = rule.target
    if target is None or target.name in ("ACCEPT", "DROP", "REJECT", "RETURN"):
        return True
    if target.name in chains:
        return not target.goto
    if target.name == "MASQUERADE":
        return not target.options
    if target.name != "DNAT" or len(target.options) != 1 or not isinstance(target.options[0].value, NatRange):
        return False
    to = target.options[0].value
    protocol = rule.protocol.value if rule.protocol is not None and not rule.protocol.negated else None
    return (to.port_base is None and (to.address is None or to.address.first == to.address.last)
            and (to.ports is None or (to.ports.first == to.ports.last and protocol in (6, 17))))


def _bounds(host: Host) -> Iterator[int]:
    """Where intervals of addresses begin that routing tells apart."""
    yield from (0, 1, 127 << 24, 128 << 24, 224 << 24, 240 << 24, EVERYBODY)
    networks = [route.destination for route in host.routes if route.destination.family == 4]
    for interface in host.interfaces:
        for a in interface.addresses:
            if a.family == 4:
                mask = EVERYBODY << (32 - a.prefixlen) & EVERYBODY
                networks += [Network(4, address, EVERYBODY) for address in
                             (a.address, a.network_address & mask, a.network_address | mask ^ EVERYBODY,
                              *(() if a.broadcast is None else (a.broadcast,)))]
                networks.append(Network(4, a.network_address & mask, mask))
    for network in networks:
        yield network.address
        yield (network.address | network.mask ^ EVERYBODY) + 1
