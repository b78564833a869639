"""Connections by the names of their ends: which packets they are, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import fastpath as fp
from fastpath.docker import Container, Daemon, Endpoint, Machine, Network, Port, Topology, TopologyError
from fastpath.packets.schema import Leg, Outcome, State

TOPOLOGY = Topology(
    (Network("front", bridge="br-front"), Network("back", bridge="br-back"),
     Network("vault", bridge="br-vault", internal=True), Network("lan", "macvlan", "10.0.2.0/24", "10.0.2.2",
                                                               "10.0.2.128/25", parent="eth0")),
    (
        Container("web", (Endpoint("front"),), ports=Port.parse("8080:80") + Port.parse("127.0.0.1:5353:53/udp")),
        Container("api", (Endpoint("front"), Endpoint("back")), service="api"),
        Container("db", (Endpoint("back"), Endpoint("vault")), exposed=((5432, "tcp"),)),
        Container("side", mode="container:web"),
        Container("agent", mode="host", exposed=((9100, "tcp"),)),
        Container("alone", mode="none"),
        Container("safe", (Endpoint("vault"),)),
        Container("plain", (Endpoint("lan"),)),
    ), machine=Machine(
        (("eth0", ("10.0.2.15/24",)), ("eth1", ("192.0.2.15/24",))), ("default via 10.0.2.2 dev eth0",)))
HOST = TOPOLOGY.host("29")


def row(source: str, destination: str, **rest: str) -> str:
    return str(TOPOLOGY.flow(source, destination, **rest).first[0])


@pytest.mark.parametrize(("source", "destination", "packet"), [
    ("external 203.0.113.9", "host:8080", "in eth0 203.0.113.9:40000 -> 10.0.2.15:8080 tcp flags SYN"),
    ("external 192.0.2.7", "192.0.2.15:8080", "in eth1 192.0.2.7:40000 -> 192.0.2.15:8080 tcp flags SYN"),
    ("203.0.113.10:500", "host:53/udp", "in eth0 203.0.113.10:500 -> 10.0.2.15:53 udp"),
    ("web", "api:9000", "in br-front 172.18.0.2:40000 -> 172.18.0.3:9000 tcp flags SYN"),
    ("api", "db:5432", "in br-back 172.19.0.2:40000 -> 172.19.0.3:5432 tcp flags SYN"),
    ("safe", "db:5432", "in br-vault 172.20.0.3:40000 -> 172.20.0.2:5432 tcp flags SYN"),
    ("web", "db:5432", "in br-front 172.18.0.2:40000 -> 172.19.0.3:5432 tcp flags SYN"),
    ("side", "api:9000", "in br-front 172.18.0.2:40000 -> 172.18.0.3:9000 tcp flags SYN"),
    ("web", "agent:9100", "in br-front 172.18.0.2:40000 -> 10.0.2.15:9100 tcp flags SYN"),
    ("agent", "web:80", "in local 172.18.0.1:40000 -> 172.18.0.2:80 tcp flags SYN"),
    ("host", "localhost:8080", "in local 127.0.0.1:40000 -> 127.0.0.1:8080 tcp flags SYN"),
    ("host", "172.18.0.1:8080", "in local 172.18.0.1:40000 -> 172.18.0.1:8080 tcp flags SYN"),
    ("host", "external 198.51.100.1:443", "in local 10.0.2.15:40000 -> 198.51.100.1:443 tcp flags SYN"),
    ("web", "external 8.8.8.8:53/udp", "in br-front 172.18.0.2:40000 -> 8.8.8.8:53 udp"),
    ("web", "172.19.0.3:5432/sctp", "in br-front 172.18.0.2:40000 -> 172.19.0.3:5432 sctp"),
    ("web", "db/icmp", "in br-front 172.18.0.2 -> 172.19.0.3 icmp type 8 code 0 sport 40000"),
])
def test_names_are_packets(source: str, destination: str, packet: str) -> None:
    shown = str(TOPOLOGY.flow(source, destination).first[0])
    assert shown.removesuffix(" sport 40000") == packet.removesuffix(" sport 40000")


def test_both_directions() -> None:
    flow = TOPOLOGY.flow("api", "db:5432")
    assert str(flow.reply[0]) == "in br-back 172.19.0.3:5432 -> 172.19.0.2:40000 tcp flags SYN,ACK state reply"
    assert TOPOLOGY.flow("web", "external 8.8.8.8:53/udp").reply[0].iif == "eth0"
    assert TOPOLOGY.flow("external", "host:8080").reply[0].iif == "local"
    ping = TOPOLOGY.flow("web:7", "db", "icmp").reply[0]
    assert (ping.icmp_type, ping.sport, ping.state) == (0, 7, State.REPLY)


@pytest.mark.parametrize(("source", "destination", "message"), [
    ("web", "nobody:80", "there is no container or service 'nobody'; there are web, api, db"),
    ("web", "db", "the destination's port is missing, such as db:80"),
    ("web", "db:99999", "port 99999 should lie within 1 to 65535"),
    ("web", "db:80/quic", "protocol 'quic' should be one of tcp, udp, sctp, icmp"),
    ("web", "d b:80", "should be like web, db:5432"),
    ("web", "300.1.1.1:80", "'300.1.1.1' is not an IPv4 address"),
    ("web", "side:80", "works: both are one network stack"),
    ("alone", "web:80", "does not work: alone has no network"),
    ("safe", "host:22", "does not work: safe has no default route"),
    ("web", "localhost:80", "does not work: 127.0.0.1 is the loopback address of web itself"),
    ("host", "plain:80", "does not work: macvlan: the parent interface carries nothing between the host"),
    ("plain", "host:22", "does not work: macvlan"),
    ("plain", "external:443", "works: leaves by the parent interface"),
    ("external", "plain:80", "works: the container is on the parent's link itself"),
])
def test_what_has_no_packets_says_why(source: str, destination: str, message: str) -> None:
    with pytest.raises(TopologyError, match="flow") as error:
        TOPOLOGY.flow(source, destination)
    assert message in str(error.value)


def outcome(engine: str, source: str, destination: str, *edits: str, topology: Topology = TOPOLOGY) -> tuple[str, str]:
    host = topology.host(engine)
    found = fp.evaluate_flows(host.edit(*edits) if edits else host, topology.flow(source, destination, engine=engine))
    return Outcome(int(found.outcome[0])).name, found.reason(0)


def test_a_published_port_and_the_nat_it_goes_through() -> None:
    assert outcome("29", "external", "host:8080") == ("WORKS", "works, translated to 172.18.0.2:80")
    assert outcome("29", "web", "external 8.8.8.8:53/udp") == ("WORKS", "works, translated from 10.0.2.15:40000")


def test_a_rule_that_drops_only_answers() -> None:
    name, why = outcome("27", "external", "host:8080", "-I DOCKER-USER -s 172.18.0.2 -o eth0 -j DROP")
    assert name == "STOPPED"
    assert why == ("the answer is dropped in FORWARD by filter DOCKER-USER rule 1: "
                   "-A DOCKER-USER -s 172.18.0.2/32 -o eth0 -j DROP")


@pytest.mark.parametrize(("edit", "stopped"), [
    ("-I DOCKER-USER -m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j DROP", Leg.FIRST),
    ("-I DOCKER-USER -m conntrack --ctorigdstport 8080 --ctdir REPLY -j DROP", Leg.REPLY),
    ("-I DOCKER-USER -m conntrack --ctstate DNAT -m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL -j DROP",
     Leg.LATER),
    ("-I DOCKER-USER -m conntrack --ctstatus ASSURED --ctdir REPLY -j DROP", Leg.LATER_REPLY),
    ("-I DOCKER-USER -m conntrack --ctorigdstport 80 -j DROP", None),
])
def test_rules_on_the_connection_see_what_it_began_as(edit: str, stopped: Leg | None) -> None:
    found = fp.evaluate_flows(HOST.edit(edit), TOPOLOGY.flow("external", "host:8080"))
    assert found.leg[0] == (-1 if stopped is None else stopped)
    if stopped is not None:
        assert found.rules[found.rule[0]].chain == "DOCKER-USER"


def test_reverse_path_filtering_drops_what_comes_in_the_wrong_way() -> None:
    machine = replace(TOPOLOGY.machine, sysctls=(("net.ipv4.conf.default.rp_filter", "1"),))
    strict = replace(TOPOLOGY, machine=machine)
    packets = fp.PacketBatch.from_dicts([{
        "iif": "eth1", "src": "203.0.113.9", "dst": "192.0.2.15", "proto": "tcp", "sport": 40000, "dport": 8080}])
    found = fp.evaluate_flows(strict.host("28.5"), packets)
    assert "rp_filter is 1" in found.reason(0)
    loose = fp.evaluate_flows(TOPOLOGY.host("28.5"), packets)
    assert loose.reason(0) == "the answer leaves by eth0, which is not where it belongs"


def test_the_bridge_carries_containers_of_one_network_even_without_forwarding() -> None:
    closed = replace(TOPOLOGY, daemon=Daemon(ip_forward=False))
    assert outcome("27", "web", "api:9000", topology=closed)[0] == "WORKS"
    assert "forwarding is off" in outcome("27", "web", "external 8.8.8.8:53", topology=closed)[1]


def test_two_on_one_link_behind_a_translated_port_bypass_the_host() -> None:
    rules = HOST.edit("-t nat -A PREROUTING -i eth0 -p tcp --dport 9000 -j DNAT --to-destination 10.0.2.99:80",
                      "-I FORWARD -i eth0 -o eth0 -j ACCEPT")
    packets = fp.PacketBatch.from_dicts([
        {"iif": "eth0", "src": src, "dst": "10.0.2.15", "proto": "tcp", "sport": 40000, "dport": 9000}
        for src in ("10.0.2.50", "203.0.113.9")])
    found = fp.evaluate_flows(rules, packets)
    assert [Outcome(o).name for o in found.outcome] == ["BYPASSED", "WORKS"]
    assert "answers from 10.0.2.99:80, which the client did not ask" in found.reason(0)


def test_several_flows_columns_and_words() -> None:
    flows = [TOPOLOGY.flow(*ends) for ends in (("external", "host:8080"), ("web", "db:5432"), ("api", "db:5432"))]
    found = fp.evaluate_flows(HOST, flows)
    assert found.works.tolist() == [True, False, True]
    table = found.to_arrow().to_pylist()
    assert [row["nat"] for row in table] == ["dst", "", ""]
    assert table[1]["stopped_by"] == "raw PREROUTING 5" and table[1]["leg"] == "first"
    assert table[0]["mapped_dst"] == "172.18.0.2" and table[0]["mapped_dport"] == 80
    assert found.answerer(0) == "br-front" and found.answerer(1) == ""
    assert found.summary().splitlines()[0] == "3 connections, 2 work"
    assert "stopped: the first packet by raw PREROUTING rule" in found.summary()
    told = found.explain(0)
    assert told.startswith("works, translated to 172.18.0.2:80")
    for word in ("THE FIRST PACKET", "THE ANSWER", "A LATER PACKET", "A LATER ANSWER",
                 "nat: translated as its connection is"):
        assert word in told
    with pytest.raises(fp.PacketError, match="neither a PacketBatch nor a flow"):
        fp.evaluate_flows(HOST, ["web"])


def test_extra_hosts_are_names_for_their_container() -> None:
    topology = Topology((Network("web-network", bridge="br-web"),), (
        Container("fpm", (Endpoint("web-network"),), extra_hosts=(
            ("test.com", "192.168.1.100"), ("host.docker.internal", "host-gateway"), ("six", "fd00::1"))),
        Container("other")))
    assert "in br-web 172.18.0.2:40000 -> 192.168.1.100:80" in str(topology.flow("fpm", "test.com:80").first[0])
    assert "-> 172.17.0.1:80" in str(topology.flow("fpm", "host.docker.internal:80").first[0])
    for source, destination in (("other", "test.com:80"), ("fpm", "six:80")):
        with pytest.raises(TopologyError, match="no container or service"):
            topology.flow(source, destination)
