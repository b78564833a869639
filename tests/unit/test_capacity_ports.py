"""Source ports: formulas against known values and against the simulation of the kernel's search."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastpath.capacity import PortRange, SnatFlow, snat_ports
from fastpath.capacity.ports import search
from fastpath.capacity.ports.known import KNOWN
from fastpath.capacity.ports.search import erlang, failing, highest, lost, lost_evicting, regions
from fastpath.capacity.ports.simulate import fill, simulate
from fastpath.errors import FastpathError

OWN = (32768, 60999)


def test_erlangs_formula():
    assert erlang(10, 10) == pytest.approx(0.214582, abs=1e-6)
    assert erlang(1, 1) == 0.5
    assert erlang(0, 5) == 0


@pytest.mark.parametrize("part", [0.95, 1.1, 1.5])
def test_where_all_ports_are_looked_at_the_loss_is_erlangs_whatever_the_holding_times(part):
    for active, closing in ((10, 0), (0, 10)):
        found = simulate(part * 100 / 10, 5000, 5099, active=active, closing=closing, connections=250_000, seed=4)
        assert found.lost == pytest.approx(lost(part * 100, 100, regions(5000, 5099, None)), rel=0.05, abs=0.002)


@pytest.mark.parametrize("own", [None, (5000, 6999)])
@pytest.mark.parametrize("active", [0, 10])
@pytest.mark.parametrize("part", [0.85, 1.0, 1.2])
def test_of_a_larger_range_as_many_get_a_port_as_simulated(own, active, part):
    found = simulate(part * 2000 / 10, 5000, 6999, own=own, active=active, closing=0 if active else 10,
                     connections=40_000, seed=5)
    said = lost(part * 2000, 2000, regions(5000, 6999, own))
    assert 1 - said == pytest.approx(1 - found.lost, rel=0.05)
    if part >= 1.2:
        assert said == pytest.approx(found.lost, rel=0.05, abs=0.002)
    assert found.taken == pytest.approx(part * 2000 * (1 - found.lost), rel=0.03)


def test_the_rate_at_which_one_in_a_thousand_fails():
    parts = regions(5000, 8999, None)
    most = highest(lambda load: lost(load, 4000, parts), 1e-3, 4000)
    for factor, above in ((0.95, False), (1.05, True)):
        found = simulate(most * factor / 10, 5000, 8999, active=10, closing=0, connections=150_000, seed=6)
        assert (found.lost > 1e-3) is above


@pytest.mark.parametrize(("ports", "part"), [(100, 1.0), (100, 1.3), (1000, 0.95), (1000, 1.2)])
def test_where_closing_connections_give_up_their_ports(ports, part):
    last = 5000 + ports - 1
    found = simulate(part * ports / 60, 5000, last, active=60, closing=120, evicting=True, connections=90_000,
                     seed=7)
    said = lost_evicting(3 * part * ports, part * ports, ports, regions(5000, last, None))
    assert said == pytest.approx(found.lost, rel=0.05, abs=0.003)


def test_with_many_closing_connections_all_get_a_port():
    found = simulate(2000 * 3 / 130, 5000, 6999, active=10, closing=120, evicting=True, connections=20_000, seed=8)
    assert found.lost == 0
    assert lost_evicting(6000, 6000 / 13, 2000, regions(5000, 6999, None)) < 1e-9


@pytest.mark.parametrize("bounds", [(1024, 65535, OWN), (1024, 65535, None), (32768, 60999, OWN), (5000, 5099, None)])
def test_regions_are_the_whole_range(bounds):
    parts = regions(*bounds)
    assert sum(p.share for p in parts) == pytest.approx(1)
    assert sum(p.start for p in parts) == pytest.approx(1)
    assert sum(p.own for p in parts) in (0, pytest.approx(1))


@pytest.mark.slow
def test_what_is_known_beforehand_is_what_comes_out(monkeypatch):
    key = (5000, 8999, None)
    monkeypatch.setattr(search, "_known", lambda: {})
    taken, fails = failing.__wrapped__(regions(*key))
    np.testing.assert_allclose(taken, KNOWN[key][0], rtol=1e-4)
    np.testing.assert_allclose(fails, KNOWN[key][1], rtol=1e-3)


def test_a_range_that_fills_up_fails_before_it_is_full_only_if_it_is_large():
    assert fill(300, 5000, 5099) == 100
    assert fill(128, 5000, 5127) == 128
    assert fill(1000, 5000, 5999, seed=1) < 1000


def flow(**given: object) -> SnatFlow:
    values: dict[str, object] = {"address": "192.0.2.1", "destination": "203.0.113.9", "port": 443, "protocol": "tcp",
                                 "rate": 100.0, "duration": 2.0, "sources": 20}
    return SnatFlow(**(values | given))  # type: ignore[arg-type]


def test_old_and_new_kernels():
    (old,) = snat_ports([flow()], kernel=(6, 4)).pools
    assert old.ports == 64_512 and old.in_use == pytest.approx(12_200)
    assert old.max_rate == pytest.approx(64_512 / 122)
    assert 0.9 < old.safe_rate / old.max_rate < 1
    (new,) = snat_ports([flow()], kernel=(6, 5)).pools
    assert new.max_rate == pytest.approx(64_512 / 2)
    assert new.evicting and not old.evicting
    assert new.share == pytest.approx(200 / 64_512)


def test_ranges_and_protocols():
    (pool,) = snat_ports([flow(ports=PortRange(5000, 5099), protocol="udp", after=30.0)]).pools
    assert pool.ports == 100 and not pool.evicting
    assert pool.lost == pytest.approx(erlang(3200, 100))
    (low,) = snat_ports([flow(own=(600, 700))]).pools
    assert low.ports == 424
    (random,) = snat_ports([flow(ports=PortRange(random=True))], kernel=(5, 15)).pools
    assert random.safe_rate < snat_ports([flow()], kernel=(5, 15)).pools[0].safe_rate * 1.05


def test_flows_to_one_destination_share_a_pool_and_others_do_not():
    found = snat_ports([flow(), flow(name="b"), flow(destination="203.0.113.10"), flow(port=80),
                        flow(protocol="udp", after=30.0), flow(address="192.0.2.2")])
    assert len(found.pools) == 5
    assert max(pool.rate for pool in found.pools) == 200
    assert found.rate == 600
    many = snat_ports([flow(destinations=50)])
    assert many.pools[0].rate == 2 and many.rate == 100


def test_addresses_help_many_sources_only():
    tight = {"ports": PortRange(5000, 5099), "protocol": "udp", "after": 30.0, "rate": 5.0}  # 160 wanted
    one = snat_ports([flow(**tight)]).pools[0]
    alone = snat_ports([flow(**tight, addresses=4, sources=1)]).pools[0]
    many = snat_ports([flow(**tight, addresses=4, sources=300)]).pools[0]
    assert alone.lost == pytest.approx(one.lost)
    assert many.lost < 0.01 < one.lost
    assert many.ports * many.addresses == 400


def test_clients_have_ports_of_their_own():
    (pool,) = snat_ports([flow(sources=1)]).pools
    assert pool.client_rate == pytest.approx(28_232 / 62)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: flow(protocol="icmp"), "no ports"), (lambda: flow(rate=-1.0), "rate"),
    (lambda: flow(sources=0), "sources"), (lambda: flow(own=(0, 5)), "own"),
    (lambda: PortRange(5, 4), "range within"), (lambda: PortRange(5), "both its ends"),
])
def test_errors_say_what_would_be_right(call, words):
    with pytest.raises(FastpathError, match=words):
        call()


def test_plain_forms():
    found = snat_ports([flow(rate=0.0), flow(port=80)])
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["pools"][-1]["growth"] is None
    assert found.to_arrow().num_rows == 2
    assert snat_ports([]).growth == float("inf")
