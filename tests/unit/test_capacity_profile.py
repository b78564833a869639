"""Traffic profiles: what they may say, and the packets and pools that follow on a host."""

from __future__ import annotations

import numpy as np
import pytest

from fastpath.capacity import Duration, Profile, ProfileError, names_of, snat_ports
from fastpath.docker import Container, Endpoint, Network, Port, Topology
from fastpath.engine import compile
from fastpath.host.model import Host
from fastpath.packets import State, Verdict

SEED = Host.load("data/hosts/docker28-seed")
MINIMAL = {"from": "docker0", "to": "203.0.113.20", "port": 443, "connections": 100}


def profile(*classes: dict[str, object], **rest: object) -> Profile:
    return Profile.from_dict({"classes": list(classes), **rest}, "p.yaml")


def test_the_shop_is_read():
    read = Profile.load("data/docker/shop-traffic.yaml")
    shoppers = read.classes[0]
    assert (shoppers.rate, shoppers.packets, shoppers.sources) == (300, 24, 20_000)
    assert shoppers.duration == Duration("lognormal", 12, 3)
    assert shoppers.packet_rate == pytest.approx(300 * (0.995 * 24 + 0.005))
    assert read.rate == sum(each.rate for each in read.classes)
    assert read.text.startswith("# What the shop's host")


def test_growth_multiplies():
    read = profile(MINIMAL | {"growth": 3}, growth=2)
    assert read.classes[0].rate == 600
    assert read.scaled(0.5).rate == 300


@pytest.mark.parametrize(("change", "words"), [
    ({"port": 70_000}, r"p.yaml: classes\[0\].port: 70000: input should be less than or equal to 65535"),
    ({"colour": 1}, r"classes\[0\].colour: there is no such key; there are from, to"),
    ({"port": None}, "a tcp class needs a port"), ({"protocol": "icmp"}, "has no ports"),
    ({"protocol": "quic"}, "should be one of icmp, tcp"), ({"duration": "long"}, "no duration"),
    ({"duration": {"distribution": "normal"}}, "there are fixed"), ({"connections": -1}, "greater than or equal to 0"),
    ({"endings": {"fin": 0.5}}, "they should make 1"), ({"endings": {"fin": 1, "reset": 0}}, "there are fin, rst"),
    ({"size": 5}, r"classes\[0\].size: 5"), ({"packets": 0}, r"classes\[0\].packets"),
    ({"answered": 1.5}, r"classes\[0\].answered: 1.5"),
])
def test_errors_name_file_path_and_value(change, words):
    with pytest.raises(ProfileError, match=words):
        profile(MINIMAL | change)


def test_what_is_missing_or_twice():
    with pytest.raises(ProfileError, match=r"classes\[0\].from: is missing"):
        profile({"to": "host", "connections": 1, "port": 1})
    with pytest.raises(ProfileError, match=r"p.yaml: classes: "):
        Profile.from_dict({"classes": []}, "p.yaml")
    with pytest.raises(ProfileError, match="is there twice"):
        profile(MINIMAL, MINIMAL)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ProfileError, match="cannot be read"):
        Profile.load(tmp_path / "none.yaml")
    path = tmp_path / "p.yaml"
    path.write_text("classes: [\n")
    with pytest.raises(ProfileError, match=r"p.yaml:2"):
        Profile.load(path)


@pytest.mark.parametrize(("change", "words"), [
    ({"from": "web"}, r"classes\[0\].from: 'web' is no place on .*docker28-seed; give internet, host"),
    ({"to": "eth1"}, r"classes\[0\].to: 'eth1' is no place"),
])
def test_places_that_a_host_lacks(change, words):
    with pytest.raises(ProfileError, match=words):
        profile(MINIMAL | change).on(SEED)


def test_a_host_without_routes_cannot_tell():
    bare = Host.load("data/hosts/docker28-seed/iptables-save.txt")
    with pytest.raises(ProfileError, match="addresses and routes are not known"):
        profile(MINIMAL).on(bare)


def test_rows_stand_for_packets_per_second():
    read = profile(MINIMAL | {"name": "a", "packets": 20}, {"from": "internet", "to": "host", "port": 6380,
                   "connections": 10, "packets": 5, "answered": 0.5, "name": "b"})
    made = read.on(SEED, 10_000)
    assert made.packet_rate == pytest.approx(read.packet_rate) == pytest.approx(2000 + 10 * (0.5 * 5 + 0.5))
    assert len(made.packets) == pytest.approx(10_000, abs=5)
    state = made.packets.column("state")
    for kind, (rate, new) in enumerate([(2000, 100), (30, 10)]):
        mine = made.kind == kind
        assert made.weight[mine].sum() == pytest.approx(rate)
        assert made.weight[mine & (state == State.AUTO)].sum() == pytest.approx(new)
    ways = [made.weight[state == s].sum() for s in (State.ESTABLISHED, State.REPLY)]
    assert ways[0] == pytest.approx(ways[1])


@pytest.mark.parametrize("engine", ["20.10", "27", "28.5", "29"])
def test_packets_of_connections_that_get_through_get_through(engine):
    topology = Topology(
        networks=(Network("front"), Network("back")),
        containers=(Container("web", networks=(Endpoint("front"), Endpoint("back")), ports=Port.parse("8080:80")),
                    Container("db", networks=(Endpoint("back"),))))
    host, names = topology.host(engine), names_of(topology, engine)
    made = profile(
        {"name": "in", "from": "internet", "to": "host", "port": 8080, "connections": 50},
        {"name": "across", "from": "web", "to": "db", "port": 5432, "connections": 50},
        {"name": "out", "from": "db", "to": "internet", "port": 443, "connections": 50},
        {"name": "self", "from": "host", "to": "web", "port": 80, "connections": 5},
        {"name": "ping", "from": "web", "to": "internet", "protocol": "icmp", "connections": 5},
        {"name": "closed", "from": "internet", "to": "web", "port": 22, "connections": 5},
    ).on(host, 4000, names=names)
    assert [set(fates) for fates in made.fates[:3]] == [{"FORWARD"}] * 3
    assert set(made.fates[3]) == {"LOCAL_OUT"}
    assert made.masqueraded[2] == made.masqueraded[4] == 1 and made.masqueraded[0] == 0
    result = compile(host).evaluate(made.packets)
    through = np.isin(result.verdict, (Verdict.FORWARD, Verdict.LOCAL_IN, Verdict.LOCAL_OUT))
    assert through[made.kind < 5].all()
    if engine != "20.10":
        assert set(made.fates[5]) == {"DROP"}
        assert (made.packets.column("state")[made.kind == 5] == State.AUTO).all()  # nothing follows
    assert {kind.name for kind in made.connections()} >= {"in", "across", "out", "self", "ping"}


def snat(rule: str, **change: object):
    host = SEED.edit("iptables -t nat -F POSTROUTING", f"iptables -t nat -A POSTROUTING -o eth0 {rule}")
    made = profile(MINIMAL | {"duration": 2, "sources": 10} | change).on(host)
    return made, snat_ports(made.snat, kernel=(6, 1))


@pytest.mark.parametrize(("rule", "ports", "addresses", "random"), [
    ("-j MASQUERADE", 64_512, 1, False), ("-p tcp -j MASQUERADE --to-ports 5000-5999", 1000, 1, False),
    ("-j MASQUERADE --random-fully", 64_512, 1, True), ("-j SNAT --to-source 192.0.2.7", 64_512, 1, False),
    ("-p tcp -j SNAT --to-source 192.0.2.1-192.0.2.4:2000-2999 --random", 1000, 4, True),
])
def test_pools_are_what_the_rule_says(rule, ports, addresses, random):
    made, found = snat(rule)
    (pool,) = found.pools
    assert (pool.ports, pool.addresses, made.snat[0].ports.random) == (ports, addresses, random)
    assert (pool.destination, pool.port, pool.rate) == ("203.0.113.20", 443, 100)
    assert pool.hold == pytest.approx(122, abs=0.1)
    assert made.masqueraded == (float("MASQUERADE" in rule),)


def test_without_a_rule_no_port_is_used_up():
    _, found = snat("-d 192.0.2.0/24 -j MASQUERADE")
    assert found.pools == () and found.rate == 0


def test_two_rules_share_the_traffic():
    host = SEED.edit(
        "iptables -t nat -F POSTROUTING",
        "iptables -t nat -A POSTROUTING -s 172.17.0.2 -p tcp -j SNAT --to-source 192.0.2.7:4000-4999",
        "iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE")
    made = profile(MINIMAL | {"sources": 4}).on(host)
    assert {(flow.address, flow.ports.first) for flow in made.snat} == {("192.0.2.7", 4000), ("10.0.2.15", None)}
    assert sum(flow.rate for flow in made.snat) == pytest.approx(100)
    assert 0.65 < made.masqueraded[0] < 0.85


def test_many_destinations_have_a_pool_each():
    made, found = snat("-j MASQUERADE", to="internet", destinations=500)
    (pool,) = found.pools
    assert pool.rate == pytest.approx(0.2) and pool.destinations == 500
    assert found.rate == pytest.approx(100)
    _, few = snat("-j MASQUERADE", to="internet", destinations=4)
    assert len(few.pools) == 4
