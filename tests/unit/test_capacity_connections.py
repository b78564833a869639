"""The connection table: formulas against numbers worked out by hand, and against the simulation of packets."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from fastpath.capacity import ConnectionClass, Duration, Timeouts, conntrack, syn_flood
from fastpath.capacity.connections.lifetimes import held, limited
from fastpath.capacity.connections.simulate import simulate, time_to_full
from fastpath.errors import FastpathError
from fastpath.host.model import Host

DURATIONS = [
    Duration("fixed", 7), Duration("exponential", 20), Duration("uniform", 2, 9), Duration("lognormal", 20, 5),
    Duration("lognormal", 5, 5), Duration("fixed", 0),
]
CLASSES = (
    ConnectionClass("web", "tcp", 80, Duration("lognormal", 20, 5), answered=0.97, fin=0.9, rst=0.1),
    ConnectionClass("long", "tcp", 20, Duration("exponential", 60), rst=1.0, fin=0.0),
    ConnectionClass("given up", "tcp", 10, Duration("fixed", 0), answered=0.2, half_open=0.5),
    ConnectionClass("dns", "udp", 200, Duration("exponential", 1.5)),
    ConnectionClass("voice", "udp", 100, Duration("uniform", 1, 200), answered=0.9),
    ConnectionClass("ping", "icmp", 30, Duration("fixed", 10)),
    ConnectionClass("tunnel", "other", 5, Duration("fixed", 3)),
)


@pytest.mark.parametrize("duration", DURATIONS, ids=str)
def test_durations_are_what_is_drawn(duration):
    drawn = duration.draw(np.random.default_rng(1), 400_000)
    assert drawn.mean() == pytest.approx(duration.mean, rel=0.02)
    for t in (0.0, 1.0, 4.0, 5.5, 30.0, 1000.0):
        assert np.minimum(drawn, t).mean() == pytest.approx(duration.limited(t), rel=0.01, abs=1e-9)
        assert (drawn > t).mean() == pytest.approx(duration.longer(t), abs=0.005)


@pytest.mark.parametrize(("given", "words"), [
    ("ten", "no duration"), (True, "no duration"), (-1, "0 or more"), ({"distribution": "pareto"}, "there are fixed"),
    ({"distribution": "exponential"}, "takes mean"), ({"distribution": "uniform", "from": 3, "to": 1}, "less than"),
    ({"distribution": "lognormal", "mean": 1, "median": 2}, "median"), (math.inf, "0 or more"),
])
def test_what_is_no_duration_is_refused(given, words):
    with pytest.raises(FastpathError, match=words):
        Duration.read(given)


def test_entries_are_rate_times_time_in_each_state():
    found = conntrack({"tcp": 100, "udp": 50, "icmp": 2}, {"tcp": 10, "udp": 5})
    states = found.by_state()
    assert states["tcp ESTABLISHED"] == pytest.approx(1000)
    assert states["tcp TIME_WAIT"] == pytest.approx(100 * 120)
    assert states["tcp SYN_SENT"] == pytest.approx(1)  # half a round trip of 20 ms
    assert states["udp REPLIED"] == pytest.approx(50 * 2)  # until they count as a stream
    assert states["udp STREAM"] == pytest.approx(50 * (3 + 120))
    assert states["icmp ICMP"] == pytest.approx(60)
    assert found.entries == pytest.approx(sum(states.values())) == pytest.approx(sum(found.by_protocol().values()))
    assert sum(found.by_class().values()) == pytest.approx(found.entries)


def test_a_short_answer_by_udp_waits_half_a_minute_and_a_question_without_one_as_well():
    assert conntrack({"udp": 10}, {"udp": 0.02}).entries == pytest.approx(10 * 30.02)
    alone = ConnectionClass("probe", "udp", 10, Duration("fixed", 0), answered=0.0)
    assert conntrack([alone]).by_state() == {"udp UNREPLIED": pytest.approx(300)}


def test_connections_that_end_silently_wait_for_five_days():
    one = ConnectionClass("mobile", "tcp", 1, Duration("fixed", 60), fin=0.99, silent=0.01)
    assert conntrack([one]).by_state()["tcp ESTABLISHED"] == pytest.approx(60 + 0.01 * 432_000)
    day = conntrack([one], timeouts={"net.netfilter.nf_conntrack_tcp_timeout_established": 86_400})
    assert day.by_state()["tcp ESTABLISHED"] == pytest.approx(60 + 0.01 * 86_400)


def test_formulas_agree_with_the_simulation():
    found = conntrack(CLASSES)
    simulated = simulate(CLASSES, seconds=400, before=800, seed=3)
    by_class: dict[str, float] = {}
    for (name, _), entries in simulated.items():
        by_class[name] = by_class.get(name, 0) + entries
    for name, entries in found.by_class().items():
        assert by_class[name] == pytest.approx(entries, rel=0.05), name
    for row in found.rows:
        if row.entries > 500:
            assert simulated[row.name, row.state] == pytest.approx(row.entries, rel=0.05), row
    assert sum(simulated.values()) == pytest.approx(found.entries, rel=0.02)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_time_until_full_agrees_with_the_simulation(kind, part):
    kind = replace(kind, rate=8 * kind.rate if kind.protocol != "other" else 50)
    room = kind.rate * held(kind, Timeouts()) * part
    base = conntrack([kind], limit=round(room), bursts=[]).bursts
    assert base == ()
    burst = conntrack([], limit=round(room), bursts=[kind]).bursts[0]
    watched = 700 if kind.protocol == "other" else 300
    assert burst.seconds == pytest.approx(time_to_full(kind, round(room), seconds=watched, seed=5), rel=0.05)
    assert kind.rate * limited(kind, Timeouts(), burst.seconds) == pytest.approx(room, rel=0.01)


def test_bursts():
    floods = [syn_flood(10_000), syn_flood(100), syn_flood(10_000, answered=True)]
    found = conntrack({"tcp": 10}, {"tcp": 1}, limit=100_000, bursts=floods)
    quick, slow, answered = found.bursts
    assert quick.seconds == pytest.approx((100_000 - found.entries) / 10_000, rel=1e-3)
    assert slow.seconds == math.inf and slow.adds == pytest.approx(12_000)
    assert answered.adds == pytest.approx(10_000 * (0.01 + 31 + 60))
    assert json.loads(json.dumps(found.to_dict()))["bursts"][1]["seconds"] is None


def test_what_to_set():
    found = conntrack({"tcp": 1000}, {"tcp": 30}, limit=100_000)
    assert found.peak == pytest.approx(found.entries + 4.75 * found.entries**0.5, rel=1e-3)
    assert found.share > 1 > found.growth
    assert found.wanted_max >= 1.25 * found.peak
    again = conntrack({"tcp": 1000 * found.growth}, {"tcp": 30}, limit=100_000)
    assert again.peak == pytest.approx(100_000, rel=1e-3)
    assert found.sysctls()[1] == f"net.netfilter.nf_conntrack_max = {found.wanted_max}"
    assert found.limit_bytes == found.wanted_max * (256 + 8)
    nat = conntrack([ConnectionClass("a", "tcp", 1000, Duration("fixed", 30), masqueraded=1.0)])
    assert nat.limit_bytes == nat.wanted_max * (256 + 128 + 8)
    assert conntrack({"tcp": 0}).peak == 0


def test_a_peak_is_passed_once_in_a_million():
    mean = 400.0
    peak = conntrack({"icmp": mean / 30}).peak
    term, below = math.exp(-mean), 0.0
    for n in range(peak + 1):
        below += term
        term *= mean / (n + 1)
    assert 1e-7 < 1 - below < 2e-6


def test_timeouts_of_a_host():
    host = Host.load("data/hosts/docker28-seed")
    known = Host(host.ruleset, sysctls=(("net.netfilter.nf_conntrack_udp_timeout", "7"),))
    assert Timeouts.of_host(known) == Timeouts(udp_timeout=7)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: conntrack({"http": 1}), "no protocol 'http'"), (lambda: conntrack({"tcp": 1}, {"udp": 1}), "no rate"),
    (lambda: conntrack({"tcp": -1}), "rate -1"), (lambda: conntrack({"tcp": 1}, limit=0), "nf_conntrack_max"),
    (lambda: conntrack({"tcp": 1}, timeouts={"tcp": 1}), "there is no timeout 'tcp'"),
    (lambda: conntrack({"tcp": 1}, timeouts={"udp_timeout": 0}), "above 0"),
    (lambda: ConnectionClass("x", "tcp", 1, Duration("fixed", 1), fin=0.5), "make 1"),
    (lambda: ConnectionClass("x", "tcp", 1, Duration("fixed", 1), answered=2), "0 to 1"),
    (lambda: ConnectionClass("x", "tcp", 1, Duration("fixed", 1), half_open=0.5), "more than 1"),
])
def test_errors_say_what_would_be_right(call, words):
    with pytest.raises(FastpathError, match=words):
        call()


def test_tables_of_results():
    table = conntrack({"tcp": 5, "udp": 5}).to_arrow()
    assert table.column_names == ["name", "protocol", "state", "seconds", "entries"]
