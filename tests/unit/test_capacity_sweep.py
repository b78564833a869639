"""Sweeps: rows, knees, budgets, and what is refused."""

from __future__ import annotations

import json

import pytest

import fastpath as fp
from fastpath.capacity.growth import shapes
from fastpath.capacity.growth.result import SweepRow
from fastpath.capacity.growth.sweep import crossing, knee, mpps_budget, sweep
from fastpath.cli.capacity.sweep import parse_sizes
from fastpath.errors import FastpathError
from fastpath.host.text import make_host
from fastpath.ruleset.parse import parse_ruleset


def row(size: float, ns: float) -> SweepRow:
    return SweepRow("e", size, "nft", 1, 1, 1, ns, ns, ns, 1.0, None, None, 0.0)


def test_rows_are_those_of_single_hosts():
    found = sweep(shapes.networks, [2, 1], 300, ["20.10", "28"], name="networks", compile=True, processes=1)
    assert [(r.engine, r.size) for r in found.rows] == [("20.10", 1), ("20.10", 2), ("28", 1), ("28", 2)]
    for each in found.rows:
        host = shapes.networks(int(each.size)).host(each.engine)
        cost = fp.capacity.cost(host, fp.synth.packets(host, 300, seed=0))
        engine = fp.compile(host)
        assert each.mean_ns == pytest.approx(cost.mean_ns) and each.p99_ns == pytest.approx(cost.percentiles[99.0])
        assert each.rules_examined == pytest.approx(cost.rules_examined)
        assert each.table_bytes == engine.nbytes and each.restore_bytes == len(str(host.ruleset))
        assert each.rules == sum(1 for r in host.ruleset.refs() if r.number)
    assert json.loads(json.dumps(found.to_dict()))["rows"][0]["engine"] == "20.10"
    assert found.to_arrow().num_rows == 4


def test_processes_give_the_same_and_report_progress():
    seen: list[tuple[int, int]] = []
    one = sweep(shapes.containers, [1, 5, 9], 200, ["28"], processes=1)
    many = sweep(shapes.containers, [1, 5, 9], 200, ["28"], processes=2, progress=lambda *done: seen.append(done))
    assert [(r.size, r.mean_ns) for r in one.rows] == [(r.size, r.mean_ns) for r in many.rows]
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_hosts_without_engines_and_traffic_of_ones_own():
    def made(n: int) -> fp.Host:
        rules = "\n".join(f"-A FORWARD -s 1.2.3.{i}/32 -j DROP" for i in range(n))
        text = f"*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n"
        return make_host(parse_ruleset(text), {"a": ["10.0.0.1/24"], "b": ["10.0.1.1/24"]}, [],
                         sysctls={"net.ipv4.ip_forward": "1"})

    packets = fp.PacketBatch.from_columns({"iif": "a", "src": ["10.0.0.2"] * 3, "dst": "10.0.1.2", "proto": "udp"})
    one = sweep(made, [0, 10, 20], packets, processes=1)
    other = sweep(made, [0, 10, 20], lambda host: packets, processes=1)
    assert [r.mean_ns for r in one.rows] == [r.mean_ns for r in other.rows]
    assert [r.rules_examined for r in one.rows] == [0, 10, 20]
    assert one.knees[0].size is None


def test_a_knee_is_where_two_lines_meet():
    bent = [row(x, 10 * x if x <= 50 else 500 + 40 * (x - 50)) for x in range(0, 101, 5)]
    found = knee("e", bent)
    assert found.size == 50 and found.before == pytest.approx(10) and found.after == pytest.approx(40)
    straight = knee("e", [row(x, 7 * x + (x % 3)) for x in range(0, 101, 5)])
    assert straight.size is None and straight.after == pytest.approx(7, rel=0.02)
    assert knee("e", [row(1, 5.0)]).size is None


def test_a_budget_breaks_between_two_sizes():
    rows = [row(0, 1000), row(10, 2000), row(20, 4000)]
    assert crossing("e", rows, 3000, "x").size == pytest.approx(15)
    assert crossing("e", rows, 500, "x").size == 0
    assert crossing("e", rows, 9000, "x").size is None
    assert mpps_budget(1.0) == 1000 and mpps_budget(2.0, cores=8) == 4000


@pytest.mark.parametrize(("make", "sizes", "engines", "complaint"), [
    (shapes.networks, [], ["28"], "needs sizes"),
    (shapes.networks, [1], [], "name the engines"),
    (lambda n: shapes.networks(n).host("28"), [1], ["28"], "no engine can change"),
])
def test_what_cannot_be_swept_is_refused(make, sizes, engines, complaint):
    with pytest.raises(FastpathError, match=complaint):
        sweep(make, sizes, 100, engines, processes=1)
    if sizes:
        with pytest.raises(FastpathError, match="no traffic"):
            sweep(shapes.networks, sizes, fp.PacketBatch.empty(), ["28"], processes=1)


def test_shapes_grow_what_they_say():
    counts = [sum(i.name.startswith("br-") for i in shapes.networks(n).host("28").interfaces) for n in (1, 3)]
    assert counts[1] - counts[0] == 2
    for shape, table, chain in ((shapes.ports, "nat", "DOCKER"), (shapes.rules, "filter", "DOCKER-USER"),
                                (shapes.containers, "nat", "DOCKER")):
        few, many = (len(shape(n).host("28").ruleset.table(table).chain(chain).rules) for n in (3, 13))
        assert many - few == 10


def test_sizes_as_words():
    assert parse_sizes("10:30:10") == [10, 20, 30] and parse_sizes("1:3") == [1, 2, 3] and parse_sizes("5,1") == [5, 1]
