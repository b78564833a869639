"""Decision diagrams against truth tables: every operation on all functions of a few variables that come along."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from fastpath.analysis.diff import diff
from fastpath.kernels import bdd as kernels
from fastpath.symbolic.bdd import Store
from tests.edges import edge_packets
from tests.symbolic_checks import check_diff
from tests.unit.reference_host import make_host

pytestmark = pytest.mark.kernels

VARIABLES = 5
ROWS = tuple(itertools.product((0, 1), repeat=VARIABLES))


class Table:
    """A function as the list of its values, and the diagram that should be the same."""

    def __init__(self, store: Store, diagram: int, values: tuple[int, ...]) -> None:
        self.store, self.diagram, self.values = store, diagram, values

    def check(self) -> None:
        columns = np.array(ROWS, np.uint64).T.copy()
        places = np.array([(i, 0) for i in range(VARIABLES)], np.int64)
        found = self.store.contains(self.diagram, columns, places)
        assert found.astype(int).tolist() == list(self.values)


def drawn(store: Store, rng: random.Random, count: int) -> list[Table]:
    """Functions made by operations on others, beginning with constants and variables."""
    made = [Table(store, 0, (0,) * len(ROWS)), Table(store, 1, (1,) * len(ROWS))]
    made += [Table(store, store.variable(i), tuple(r[i] for r in ROWS)) for i in range(VARIABLES)]
    while len(made) < count:
        f, g, h = (rng.choice(made) for _ in range(3))
        which = rng.randrange(7)
        pairs = list(zip(f.values, g.values, strict=True))
        if which == 0:
            new = store.both(f.diagram, g.diagram), [a & b for a, b in pairs]
        elif which == 1:
            new = store.either(f.diagram, g.diagram), [a | b for a, b in pairs]
        elif which == 2:
            new = store.without(f.diagram, g.diagram), [a & ~b & 1 for a, b in pairs]
        elif which == 3:
            new = store.differ(f.diagram, g.diagram), [a ^ b for a, b in pairs]
        elif which == 4:
            new = store.negated(f.diagram), [1 - a for a in f.values]
        elif which == 5:
            triples = zip(f.values, g.values, h.values, strict=True)
            new = store.choose(f.diagram, g.diagram, h.diagram), [b if a else c for a, b, c in triples]
        else:
            triples = zip(f.values, g.values, h.values, strict=True)
            new = store.any_of([f.diagram, g.diagram, h.diagram]), [a | b | c for a, b, c in triples]
        made.append(Table(store, new[0], tuple(new[1])))
    return made


def test_operations_and_canonical_form():
    store = Store(16)  # so that it has to grow
    made = drawn(store, random.Random(1), 150)
    by_values: dict[tuple[int, ...], int] = {}
    for f in made:
        f.check()
        assert by_values.setdefault(f.values, f.diagram) == f.diagram, "equal functions are one diagram"
        assert store.count(f.diagram, VARIABLES) == sum(f.values)
    assert len(set(by_values.values())) == len(by_values)
    assert len(store) > 16


def test_nodes_are_reduced_and_ordered():
    store = Store(16)
    drawn(store, random.Random(2), 100)
    rows = store.nodes[2:len(store)]
    assert (rows[:, 1] != rows[:, 2]).all()
    assert (store.nodes[rows[:, 1], 0] > rows[:, 0]).all() and (store.nodes[rows[:, 2], 0] > rows[:, 0]).all()
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert (rows[:, 1:] < np.arange(2, len(store))[:, None]).all(), "children come before parents"


@pytest.mark.parametrize("action", [kernels.LOW, kernels.HIGH, kernels.SOME, kernels.ALL])
def test_transform(action):
    store = Store(16)
    rng = random.Random(action)
    for f in drawn(store, rng, 40):
        chosen = set(rng.sample(range(VARIABLES), 2))
        actions = np.array([action if i in chosen else kernels.KEEP for i in range(VARIABLES)], np.int8)
        values = []
        for row in ROWS:
            cases = [f.values[ROWS.index(tuple(other))] for other in ROWS
                     if all(other[i] == row[i] for i in range(VARIABLES) if i not in chosen)]
            fixed = [f.values[ROWS.index(tuple(int(action == kernels.HIGH) if i in chosen else b
                                               for i, b in enumerate(row)))]]
            values.append(max(cases) if action == kernels.SOME else min(cases) if action == kernels.ALL else fixed[0])
        Table(store, store.transform(f.diagram, actions), tuple(values)).check()


def test_intervals_and_tables():
    store = Store(16)
    bits = [store.variable(i) for i in range(VARIABLES)]
    for first, last, lone in ((0, 31, 5), (3, 7, 30), (0, 0, 31), (16, 31, 1), (9, 9, 9)):
        found = store.within(bits, ((first, last), (lone, lone)))
        Table(store, found, tuple(int(first <= n <= last or n == lone) for n in range(32))).check()
    assert store.within((0, 1, 1), ((3, 3),)) == 1 and store.within((0, 1, 1), ((4, 9),)) == 0
    table = [(7 * n + 3) % 32 for n in range(32)]
    for place, bit in enumerate(store.mapped(bits, table, 5)):
        Table(store, bit, tuple(v >> (4 - place) & 1 for v in table)).check()


def test_support_and_reachable():
    store = Store(16)
    f = store.both(store.variable(1), store.either(store.variable(3), store.variable(4)))
    assert store.support(f) == {1, 3, 4}
    assert store.reachable(f).tolist() == sorted(set(store.reachable(f).tolist()))
    assert store.support(0) == store.support(1) == frozenset()


def test_a_small_host_from_end_to_end():
    """Fates, a difference and its regions, with whatever runs the kernels."""
    host = make_host(
        nat="""-A PREROUTING -d 10.0.2.15 -p tcp -m tcp --dport 8080:8081 -j DNAT --to-destination 172.17.0.2:80
            -A POSTROUTING -s 172.17.0.0/16 -o eth0 -p tcp -j MASQUERADE --to-ports 1024-2047""",
        mangle="-A PREROUTING -i eth0 -j CONNMARK --restore-mark --mask 0xf",
        filter="""-P FORWARD DROP
            -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
            -A FORWARD -m mark --mark 2 -m limit --limit 1/s -j REJECT
            -A FORWARD -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT""")
    after = host.edit("iptables -I FORWARD -i eth0 -p tcp --dport 80 -j DROP")
    found = diff(host, after, where="state == auto and frag == 0 and ttl == 64 and mark == 0")
    packets = edge_packets(host, 60, 1)
    asked = found.asked.contains(packets)
    fates = {(d.before.verdict.name, d.after.verdict.name) for d in found}
    assert fates == {("FORWARD", "DROP"), ("UNDECIDED", "DROP")}
    assert check_diff(host, after, packets.take(np.flatnonzero(asked)), found) >= 0
