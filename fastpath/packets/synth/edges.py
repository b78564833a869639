"""The ``edges`` profile: values on and beside every boundary in the rules, and packets aimed at single rules.

Half of the packets are aimed: a template takes one rule, and the rules that jump to its chain, and fulfils all their
tests; in one template of three, one test gets a value beside its boundary instead. The other half draws each column
by itself from a pool: boundary values of all rules, the host's own addresses, broadcast and network addresses,
martians, unknown interfaces and protocols, every state, TTL 0 to 2, fragments. A column that no rule tests and that
decides nothing else is left at its default.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.host.model import Host
from fastpath.packets.packet import COLUMNS
from fastpath.packets.schema import LOCAL, NO_ID, State
from fastpath.packets.synth.boundaries import EGRESS, Boundaries, Test
from fastpath.packets.synth.draw import Bits, pool
from fastpath.packets.synth.site import Site, interface_names, survey
from fastpath.packets.synth.uniform import clear_ports
from fastpath.packets.text import limit
from fastpath.ruleset.model import Rule

Array = npt.NDArray[Any]

_LEAST_TEMPLATES, _MOST_TEMPLATES = 1 << 11, 1 << 15
_DEEPEST = 12
_MARTIANS = (0, 0x00010203, 0x7F000001, 0x7F000002, 0x7FFFFFFF, 0xE0000001, 0xE0000005, 0xEF010203, 0xF0000001,
             0xFFFFFFFF, 0xA9FE0101)
_ABROAD = (0x08080808, 0xC6336407, 0xCB007109, 0x01010101, 0xDFFFFFFE)
_ALWAYS = ("iif", "src", "dst", "proto", "sport", "dport", "tcp_flags", "icmp_type", "icmp_code", "frag", "ttl",
           "length", "mark", "state")
_OPTIONAL = ("tos", "connmark", "ctdir", "ctstatus", "ctorigdst", "ctorigdstport", "mac_src", "pkttype", "uid", "gid")


class Edges:
    """Makes blocks of the ``edges`` profile for one host and seed."""

    stream = 1

    def __init__(self, host: Host, seed: int) -> None:
        self._site = survey(host)
        named = [name for name in dict.fromkeys([*interface_names(host), self._site.uplink]) if name != LOCAL]
        unknown = next(name for name in (f"other{i}" for i in range(len(named) + 1)) if name not in named)
        self.interfaces: tuple[str, ...] = (*named, unknown, LOCAL)
        self._unknown = len(named)
        self._arriving = [i for i, name in enumerate(named) if name != "lo"]
        self._host = host
        self._boundaries = Boundaries(host, self.interfaces)
        self._rng = random.Random(seed)
        self._chains = _collect(host, self._boundaries)
        tested = {column for chain in self._chains.values() for _, tests in chain for test in tests
                  for column in test.columns}
        written = {column for t in host.ruleset.tables for c in t.chains for r in c.rules
                   for column, _ in self._boundaries.targets(r)}
        self.columns: tuple[str, ...] = (*_ALWAYS, *(c for c in _OPTIONAL if c in tested or c in written),
                                         *(() if host.complete else (EGRESS,)))
        self._own = [a.address for i in host.interfaces for a in i.addresses if a.family == 4 and i.name != "lo"]
        self._own = self._own or list(self._site.addresses)
        self._pools = {name: values for name, values in self._make_pools().items() if name in self.columns}
        self._own_pool = pool(np.uint32, (1, [*self._own, *self._own, 0x7F000001]))
        self._aimed, self._set = self._make_templates()

    def fill(self, bits: Bits, out: dict[str, Array]) -> None:
        """Fills one block: `out` has an array of BLOCK values for each of ``columns``."""
        row = bits.below(len(self._set["iif"]))
        aimed = bits.take(np.uint8) < 128
        own = bits.take(np.uint8) < 192
        for name in self.columns:
            values = self._pools[name]
            target = out[name]
            np.take(values, bits.below(len(values)), out=target, mode="clip")
            fixed = self._set[name]
            if fixed.any():
                np.copyto(target, self._aimed[name][row], where=fixed[row] & aimed)
        local = out["iif"] == self.interfaces.index(LOCAL)
        here = local & own & ~(self._set["src"][row] & aimed)
        np.copyto(out["src"], self._own_pool[bits.below(len(self._own_pool))], where=here)
        clear_ports(out)

    # ---------------------------------------------------------------------------------------- pools

    def _make_pools(self) -> dict[str, Array]:
        inside: dict[str, dict[int, None]] = {name: {} for name in COLUMNS}
        beside: dict[str, dict[int, None]] = {name: {} for name in COLUMNS}
        for chain in self._chains.values():
            for rule, tests in chain:
                for test in tests:
                    for target, rows in ((inside, test.inside), (beside, test.outside)):
                        for values in rows:
                            for column, value in zip(test.columns, values, strict=True):
                                target[column].setdefault(value)
                for column, value in self._boundaries.targets(rule):
                    inside[column].setdefault(value)

        def known(name: str, more: Iterable[int] = ()) -> list[int]:
            return _in_range(name, dict.fromkeys([*inside[name], *more]))

        def near(name: str) -> list[int]:
            both = [*inside[name], *beside[name]]
            return _in_range(name, dict.fromkeys([*beside[name], *(v + d for v in both for d in (-1, 1))]))

        code = {name: i for i, name in enumerate(self.interfaces)}
        members = [m for s in self._site.subnets for m in s.members[:16]]
        ends = [a for s in self._subnets() for a in (s[0], s[0] - 1, s[1], s[1] + 1, s[0] + 1, s[1] - 1)]
        ends = _in_range("src", ends)
        ports = known("sport", known("dport"))
        near_ports = near("sport") + near("dport")
        other_ports = (0, 1, 22, 53, 80, 443, 1023, 1024, 8080, 32768, 40000, 65535)
        count = max(State) + 1
        pools = {
            "iif": pool(np.int16, (85, self._arriving), (10, [code[LOCAL]]), (3, [self._unknown]),
                        (2, [code["lo"]] if "lo" in code else [])),
            "src": pool(np.uint32, (30, known("src")), (10, near("src")), (25, members), (8, ends), (5, self._own),
                        (15, _ABROAD), (7, _MARTIANS)),
            "dst": pool(np.uint32, (30, known("dst")), (10, near("dst")), (15, members), (10, ends), (20, self._own),
                        (10, _ABROAD), (5, _MARTIANS)),
            "proto": pool(np.uint8, (45, (6,)), (20, (17,)), (13, (1,)), (14, known("proto")),
                          (8, (0, 2, 33, 47, 50, 51, 132, 136, 255))),
            "sport": pool(np.uint16, (30, ports), (20, near_ports), (50, other_ports)),
            "dport": pool(np.uint16, (50, ports), (25, near_ports), (25, other_ports)),
            "tcp_flags": pool(np.uint8, (50, (2,)), (20, (16, 24, 18, 17, 4, 0)), (20, known("tcp_flags")),
                              (5, near("tcp_flags")), (5, range(256))),
            "icmp_type": pool(np.uint8, (50, (8, 8, 0, 3, 11)), (25, known("icmp_type")), (15, near("icmp_type")),
                              (10, range(20))),
            "icmp_code": pool(np.uint8, (70, (0,)), (15, known("icmp_code")), (10, near("icmp_code")), (5, range(16))),
            "frag": pool(np.uint8, (90, (0,)), (10, (1, 2))),
            "ttl": pool(np.uint8, (75, (64, 128, 255)), (10, (0, 1, 2)), (10, known("ttl")), (5, near("ttl"))),
            "tos": pool(np.uint8, (40, (0,)), (35, known("tos")), (20, near("tos")), (5, range(256))),
            "length": pool(np.uint16, (60, (40, 52, 60, 84, 1500)), (20, known("length")), (10, near("length")),
                           (10, (20, 0xFFFF))),
            "mark": pool(np.uint32, (60, (0,)), (20, known("mark")), (10, near("mark")), (10, (1, 0xFFFF, NO_ID))),
            "connmark": pool(np.uint32, (40, (0,)), (35, known("connmark")), (15, near("connmark")), (10, (1, NO_ID))),
            "state": pool(np.uint8, (50, (State.AUTO,)), (50, range(count))),
            "ctdir": pool(np.uint8, (60, (0,)), (40, (1, 2))),
            "ctstatus": pool(np.uint16, (50, (0,)), (25, known("ctstatus")), (25, (1, 2, 8, 14, 16, 32, 48))),
            "ctorigdst": pool(np.uint32, (50, (0,)), (30, known("ctorigdst")), (20, near("ctorigdst"))),
            "ctorigdstport": pool(np.uint16, (50, (0,)), (30, known("ctorigdstport")), (20, near("ctorigdstport"))),
            "mac_src": pool(np.uint64, (20, (0,)), (60, known("mac_src")), (20, near("mac_src"))),
            "pkttype": pool(np.uint8, (60, (0,)), (40, (1, 2))),
            "uid": pool(np.uint32, (30, (NO_ID,)), (50, known("uid")), (20, near("uid"))),
            "gid": pool(np.uint32, (30, (NO_ID,)), (50, known("gid")), (20, near("gid"))),
            EGRESS: pool(np.int16, (75, [c for c in code.values() if c != code[LOCAL]]), (25, [code[LOCAL]])),
        }
        return pools

    def _subnets(self) -> list[tuple[int, int]]:
        """First and last address of every subnet and route."""
        site: Site = self._site
        found = [(s.first, s.last) for s in (*site.subnets, *([site.lan] if site.lan else ()))]
        for route in self._host.routes:
            net = route.destination
            if net.family == 4 and net.mask:
                found.append((net.address, net.address | ~net.mask & 0xFFFFFFFF))
        return found

    # ---------------------------------------------------------------------------------------- templates

    def _make_templates(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Values, and whether there is one, by column: one row a template."""
        rules = [(key, i) for key, chain in self._chains.items() for i in range(len(chain))]
        count = min(_MOST_TEMPLATES, max(_LEAST_TEMPLATES, 4 * len(rules)))
        self._rng.shuffle(rules)
        values = {name: np.zeros(count, COLUMNS[name].dtype) for name in self.columns}
        given = {name: np.zeros(count, np.bool_) for name in self.columns}
        parents = _parents(self._chains)
        for row in range(count if rules else 0):
            (table, chain), index = rules[row % len(rules)]
            for column, value in self._aim(table, chain, index, parents).items():
                if column in values and 0 <= value <= limit(COLUMNS[column], 4):
                    values[column][row] = value
                    given[column][row] = True
        return values, given

    def _aim(self, table: str, chain: str, index: int, parents: _Parents) -> dict[str, int]:
        """Column values that take a packet to one rule, as far as its tests and the jumps to its chain tell."""
        rng = self._rng
        tests = list(self._chains[table, chain][index][1])
        name = chain
        for _ in range(_DEEPEST):
            jumps = parents.get((table, name))
            if not jumps:
                break
            name, place = jumps[0] if len(jumps) == 1 else rng.choice(jumps)
            tests += self._chains[table, name][place][1]
        miss = rng.randrange(len(tests)) if tests and rng.random() < 1 / 3 else -1
        row: dict[str, int] = {}
        for i, test in enumerate(tests):
            choices = (test.outside or test.inside) if i == miss else (test.inside or test.outside)
            if not any(column in row for column in test.columns):
                row.update(zip(test.columns, choices[0] if len(choices) == 1 else rng.choice(choices), strict=True))
        self._complete(row, table, name)
        return row

    def _complete(self, row: dict[str, int], table: str, hook: str) -> None:
        """Adds what brings a packet to a hook and table: interface, destination, state."""
        rng = self._rng
        local = self.interfaces.index(LOCAL)
        made_here = hook == "OUTPUT" or (hook == "POSTROUTING" and "iif" not in row and rng.random() < 0.3)
        if made_here:
            row["iif"] = local
            row.setdefault("src", rng.choice(self._own))
        elif "iif" not in row:
            row["iif"] = rng.choice(self._arriving) if rng.random() < 0.97 else self._unknown
        if hook == "INPUT":
            row.setdefault("dst", rng.choice(self._own))
            row[EGRESS] = local
        elif "dst" not in row and EGRESS in row:
            name = self.interfaces[row[EGRESS]]
            beyond = [m for s in self._site.subnets if s.interface == name for m in s.members]
            if not beyond and name == self._site.uplink:
                beyond = list(_ABROAD)
            if beyond:
                row["dst"] = rng.choice(beyond)
        if "src" not in row and not made_here:
            name = self.interfaces[row["iif"]]
            near = [m for s in self._site.subnets if s.interface == name for m in s.members]
            row["src"] = rng.choice(near or _ABROAD)
        if table == "nat":
            row.setdefault("state", State.AUTO)
        if row.get("state") in (State.AUTO, State.NEW) and rng.random() < 0.9:
            row.setdefault("tcp_flags", 2)
        if "ttl" not in row and rng.random() < 0.95:
            row["ttl"] = 64
        if "frag" not in row and rng.random() < 0.95:
            row["frag"] = 0


_Chains = dict[tuple[str, str], list[tuple[Rule, list[Test]]]]
_Parents = dict[tuple[str, str], list[tuple[str, int]]]


def _collect(host: Host, boundaries: Boundaries) -> _Chains:
    return {(table.name, chain.name): [(rule, boundaries.tests(rule)) for rule in chain.rules]
            for table in host.ruleset.tables for chain in table.chains}


def _parents(chains: _Chains) -> _Parents:
    """The rules that jump or go to each user chain, as (chain, index)."""
    found: _Parents = {}
    for (table, name), rules in chains.items():
        for i, (rule, _) in enumerate(rules):
            if rule.target is not None and (table, rule.target.name) in chains:
                found.setdefault((table, rule.target.name), []).append((name, i))
    return found


def _in_range(name: str, values: Iterable[int]) -> list[int]:
    top = limit(COLUMNS[name], 4)
    return [v for v in values if 0 <= v <= top]
