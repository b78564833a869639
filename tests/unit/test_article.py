"""Advice on Docker and iptables as it goes round, run: what it does, and what it does not do.

The commands are those of a well-read blog article (published ports, host, bridge, none and joined containers, extra
hosts, DOCKER-USER, ``--iptables=false``). ``docs/article.md`` tells the same to readers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import fastpath as fp
from fastpath.docker import Container, Daemon, Endpoint, Machine, Network, Topology, TopologyError
from fastpath.docker.notes import FORWARDING_OFF
from fastpath.host.model import Host
from fastpath.packets.schema import Leg

ROOT = Path(__file__).resolve().parents[2]
REDIS = Topology((), (Container.from_run("docker run -d --name redis01 -p 6380:6379 redis"),))
ENGINES = ("17.06", "18.05", "20.10", "28.2.1", "28.5", "29")
RETURNS = ("17.06", "18.05", "20.10", "28.2.1")
"""Engines whose DOCKER-USER ends in a RETURN."""
ALLOWED, OTHER = "external 192.168.1.1", "external 198.51.100.7"
TESTS = ("! -s 192.168.1.1", "! -s 192.168.1.0/24", "-m iprange ! --src-range 192.168.1.1-192.168.1.3")


def connects(host: Host, source: str, destination: str, topology: Topology = REDIS, engine: str = "29") -> str:
    """How a connection fares, in one sentence."""
    return fp.evaluate_flows(host, topology.flow(source, destination, engine=engine)).reason(0)


# ------------------------------------------------------------------------------------------- published ports


@pytest.mark.parametrize("engine", ["1.4", "1.8", "1.12", *ENGINES])
def test_docker_run_p_leads_every_source_to_the_container(engine: str) -> None:
    host = REDIS.host(engine)
    assert connects(host, OTHER, "host:6380", engine=engine) == "works, translated to 172.17.0.2:6379"
    table, chain = ("filter", "FORWARD") if engine == "1.4" else ("filter", "DOCKER")
    rules = [str(rule) for rule in host.ruleset.table(table).chain(chain).rules]  # type: ignore[union-attr]
    assert "-d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 6379 -j ACCEPT" in rules


def test_forwarding_off_is_told_and_turning_it_on_is_enough() -> None:
    off = replace(REDIS, daemon=Daemon(ip_forward=False))
    assert FORWARDING_OFF in off.notes("20.10")
    assert "forwarding is off" in connects(off.host("20.10"), OTHER, "host:6380", off)
    on = replace(off, machine=replace(off.machine, ip_forward=True))
    assert connects(on.host("20.10"), OTHER, "host:6380", on) == "works, translated to 172.17.0.2:6379"
    assert off.host("20.10").ruleset.table("nat") == on.host("20.10").ruleset.table("nat")


def test_host_bridge_none_and_joined_containers() -> None:
    topology = Topology((), tuple(Container.from_run(f"docker run -d {words}") for words in (
        "--name bridged --net bridge nginx", "--name hosted --net=host --expose 8000 nginx",
        "--name cut --network none nginx", "--name joined --net container:bridged nginx",
        "--name published -p 80:80 --net container:bridged nginx")))
    matrix = topology.reachability("20.10")
    assert matrix.cell("external", "hosted:8000").reach and matrix.cell("bridged", "hosted:8000").reach
    assert not matrix.cell("external", "bridged:*").reach and not matrix.cell("external", "cut:*").reach
    assert matrix.cell("host", "bridged:*").reach and matrix.cell("host", "joined:*").reach
    assert matrix.cell("joined", "bridged:*").reason == "both are one network stack; it never leaves the container"
    assert any("'published': port 80/tcp: it uses the stack of 'bridged', so nothing is published" in note
               for note in topology.notes("20.10"))


def test_extra_hosts_lead_to_the_host() -> None:
    machine = Machine((("en0", ("192.168.1.100/24",)),), ("default via 192.168.1.1 dev en0",))
    topology = Topology.from_compose(ROOT / "data" / "docker" / "extra-hosts.yaml", {}, project="a", machine=machine)
    for engine in ENGINES:
        host = topology.host(engine)
        flows = [topology.flow("fpm", f"{name}:9000", engine=engine) for name in ("test.com", "192.168.1.100")]
        found = fp.evaluate_flows(host, flows)
        assert found.works.all() and found.answerer(0) == "local"
        assert connects(host, OTHER, "host:8080", topology, engine).startswith("works, translated to 172.18.0.2:8080")


# ------------------------------------------------------------------------------------------- the plain commands


def test_input_and_output_rules_are_for_the_host_alone() -> None:
    host = REDIS.host("20.10").edit(
        "iptables -A INPUT -p icmp -j REJECT", "iptables -I INPUT -p tcp --dport 9501 -j ACCEPT",
        "iptables -A OUTPUT -p tcp --dport 80 -j REJECT")
    assert "rejected in INPUT" in connects(host, OTHER, "host/icmp")
    assert connects(host, "redis01", "external 8.8.8.8/icmp").startswith("works")
    assert connects(host, OTHER, "host:9501") == "works"
    assert "rejected in OUTPUT" in connects(host, "host", "external 8.8.8.8:80")
    assert connects(host, "redis01", "external 8.8.8.8:80").startswith("works"), "forwarded, not OUTPUT's"
    assert connects(host, OTHER, "host:6380").startswith("works"), "published ports pass INPUT by"
    closed = REDIS.host("20.10").edit("-P INPUT DROP")
    assert connects(closed, OTHER, "host:6380").startswith("works, translated")


def test_a_rule_in_output_stops_the_userland_proxy_too() -> None:
    web = Topology((), (Container.from_run("docker run --name web -p 8080:80 nginx"),))
    host = web.host("29").edit("-A OUTPUT -p tcp --dport 80 -j REJECT")
    cell = web.reachability("29", host=host).cell("host", "localhost:8080")
    assert not cell.reach and "docker-proxy answers on 0.0.0.0:8080, but its own connection" in cell.reason


# ------------------------------------------------------------------------------------------- Docker's chains


@pytest.mark.parametrize(("engine", "chains"), [
    ("1.9", {"DOCKER"}), ("1.12", {"DOCKER", "DOCKER-ISOLATION"}),
    ("17.06", {"DOCKER", "DOCKER-ISOLATION", "DOCKER-USER"}),
    ("18.03.0", {"DOCKER", "DOCKER-ISOLATION", "DOCKER-USER"}),
    ("18.05", {"DOCKER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-USER"}),
])
def test_chains_by_version(engine: str, chains: set[str]) -> None:
    table = REDIS.host(engine).ruleset.table("filter")
    assert table is not None
    assert {chain.name for chain in table.chains if chain.policy is None} == chains


def test_the_complete_list_of_default_rules() -> None:
    listed = """
        iptables -N DOCKER
        iptables -N DOCKER-ISOLATION-STAGE-1
        iptables -N DOCKER-ISOLATION-STAGE-2
        iptables -N DOCKER-USER
        iptables -A FORWARD -j DOCKER-USER
        iptables -A FORWARD -j DOCKER-ISOLATION-STAGE-1
        iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables -A FORWARD -o docker0 -j DOCKER
        iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
        iptables -A FORWARD -i docker0 -o docker0 -j ACCEPT
        iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
        iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
        iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
        iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
        iptables -A DOCKER-USER -j RETURN
    """
    made = fp.Ruleset().edit(*(line.strip() for line in listed.strip().splitlines())).table("filter")
    written = Topology(machine=Machine(ip_forward=True)).host("20.10").ruleset.table("filter")
    assert made is not None and written is not None
    assert {c.name: (c.policy, c.rules) for c in made.chains} == {c.name: (c.policy, c.rules) for c in written.chains}


@pytest.mark.parametrize("engine", ENGINES)
def test_networks_are_kept_apart(engine: str) -> None:
    topology = Topology((Network("one"), Network("two")), (
        Container("a", (Endpoint("one"),)), Container("b", (Endpoint("two"),)), Container("c", (Endpoint("two"),))))
    matrix = topology.reachability(engine)
    assert not matrix.cell("a", "b:*").reach and not matrix.cell("b", "a:*").reach and matrix.cell("b", "c:*").reach


# ------------------------------------------------------------------------------------------- DOCKER-USER


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_rules_as_they_are_advised(engine: str, test: str) -> None:
    """``-A DOCKER-USER -i docker0 ! -s X -j DROP``, meant to let only X in. Behind a RETURN it does nothing. Where it
    is reached it drops everybody's answers, X's too: what comes in from docker0 is what containers send."""
    host = REDIS.host(engine).edit(f"iptables -A DOCKER-USER -i docker0 {test} -j DROP")
    for source in (ALLOWED, OTHER):
        found = fp.evaluate_flows(host, REDIS.flow(source, "host:6380", engine=engine))
        if engine in RETURNS:
            assert found.works[0], "the rule stands behind RETURN"
        else:
            assert found.leg[0] == Leg.REPLY and found.rules[found.rule[0]].chain == "DOCKER-USER"
    out = connects(host, "redis01", "external 8.8.8.8:443", engine=engine)
    assert out.startswith("works") == (engine in RETURNS)


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_meant(engine: str, test: str) -> None:
    """``-I`` and the interface that clients come in by: X connects, nobody else, and containers still get out."""
    host = REDIS.host(engine).edit(f"iptables -I DOCKER-USER -i eth0 {test} -j DROP")
    assert connects(host, ALLOWED, "host:6380", engine=engine) == "works, translated to 172.17.0.2:6379"
    assert "dropped in FORWARD by filter DOCKER-USER rule 1" in connects(host, OTHER, "host:6380", engine=engine)
    answer = connects(host, "redis01", "external 8.8.8.8:443", engine=engine)
    assert answer.startswith("the answer is dropped in FORWARD by filter DOCKER-USER rule 1")
    let_in = host.edit("iptables -I DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
    assert connects(let_in, "redis01", "external 8.8.8.8:443", engine=engine).startswith("works")
    assert "DOCKER-USER rule 2" in connects(let_in, OTHER, "host:6380", engine=engine)


def test_the_published_port_is_gone_by_the_time_docker_user_sees_it() -> None:
    wrong = REDIS.host("28.5").edit("-I DOCKER-USER -i eth0 -p tcp --dport 6380 -j DROP")
    assert connects(wrong, OTHER, "host:6380").startswith("works")
    right = REDIS.host("28.5").edit("-I DOCKER-USER -i eth0 -p tcp -m conntrack --ctorigdstport 6380 -j DROP")
    assert "DOCKER-USER rule 1" in connects(right, OTHER, "host:6380")


# ------------------------------------------------------------------------------------------- without iptables


@pytest.mark.parametrize("engine", ENGINES)
def test_iptables_false(engine: str) -> None:
    """No rules: the userland proxy still serves the port, and containers get no further than somebody masquerades."""
    bare = replace(REDIS, daemon=Daemon.from_command_line("dockerd --iptables=false"))
    assert not bare.host(engine).ruleset.tables
    matrix = bare.reachability(engine)
    assert matrix.cell("external", "host:6380").mark == "proxy"
    out = fp.evaluate_flows(bare.host(engine), bare.flow("redis01", "external 8.8.8.8:443", engine=engine))
    assert out.works[0] and not out.nat[0], "leaves with an address that nobody outside can answer to"
    advised = bare.host(engine).edit("iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE")
    assert connects(advised, "redis01", "external 8.8.8.8:443", bare, engine) == (
        "works, translated from 10.0.2.15:40000")


def test_iptables_false_in_quotes_is_no_setting(tmp_path: Path) -> None:
    """``"iptables": "false"``, as advised: dockerd wants a JSON boolean and does not start."""
    file = tmp_path / "daemon.json"
    file.write_text('{"iptables": "false"}')
    with pytest.raises(TopologyError, match='iptables: "false" should be true or false without quotes'):
        Daemon.from_json(file)
    file.write_text('{"iptables": false}')
    assert not Daemon.from_json(file).iptables
