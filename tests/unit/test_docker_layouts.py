"""The layout of each generation: its chains, its counts, and what its particular settings write."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastpath.docker import Container, Daemon, Endpoint, Engine, Machine, Network, Port, Swarm, Topology, TopologyError
from fastpath.docker.layouts import GENERATIONS, generation
from fastpath.ruleset.model import Ruleset

ONE = Topology((), (Container("redis01", ports=Port.parse("6380:6379")),))
ALL = ("1.0", "1.5", "1.9", "1.10", "1.13", "17.06", "18.03.0", "18.05", "20.10", "27", "28.0.0", "28.1", "28.2", "29")


def listing(ruleset: Ruleset, table: str, chain: str) -> list[str]:
    """The rules of a chain; none where there is no such table."""
    found = ruleset.table(table)
    inside = found.chain(chain) if found is not None else None
    return [str(rule) for rule in inside.rules] if inside is not None else []


def user_chains(ruleset: Ruleset, table: str) -> list[str]:
    found = ruleset.table(table)
    return [chain.name for chain in found.chains if chain.policy is None] if found is not None else []


def bridge(name: str = "b1", subnet: str = "192.0.2.0/24", **fields: object) -> Network:
    return replace(Network(name, subnet=subnet, bridge=name), **fields)  # type: ignore[arg-type]


def web(network: str = "b1", ports: str = "8080:80") -> Container:
    return Container("web", (Endpoint(network),), ports=Port.parse(ports))


# ------------------------------------------------------------------------------------------------------ chains


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("1.4", []),
        ("1.8", ["DOCKER"]),
        ("1.9", ["DOCKER"]),
        ("1.10", ["DOCKER", "DOCKER-ISOLATION"]),
        ("17.05", ["DOCKER", "DOCKER-ISOLATION"]),
        ("17.06", ["DOCKER", "DOCKER-ISOLATION", "DOCKER-USER"]),
        ("18.03.0", ["DOCKER", "DOCKER-ISOLATION", "DOCKER-USER"]),
        ("18.04.0-ce", ["DOCKER", "DOCKER-ISOLATION", "DOCKER-USER"]),
        ("18.03.1", ["DOCKER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-USER"]),
        ("18.05", ["DOCKER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-USER"]),
        ("27", ["DOCKER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-USER"]),
        ("28.0.0", ["DOCKER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-USER"]),
        ("28", ["DOCKER", "DOCKER-BRIDGE", "DOCKER-CT", "DOCKER-FORWARD", "DOCKER-ISOLATION-STAGE-1",
                "DOCKER-ISOLATION-STAGE-2", "DOCKER-USER"]),
        ("29", ["DOCKER", "DOCKER-BRIDGE", "DOCKER-CT", "DOCKER-FORWARD", "DOCKER-INTERNAL", "DOCKER-USER"]),
    ],
)
def test_chains_of_the_filter_table_by_version(engine: str, expected: list[str]) -> None:
    assert user_chains(ONE.host(engine).ruleset, "filter") == expected


def test_the_default_rules_of_18_05_are_the_well_known_listing() -> None:
    ruleset = Topology().host("20.10").ruleset
    found = [
        f"-A {chain} {rule}"
        for chain in ("FORWARD", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-USER")
        for rule in listing(ruleset, "filter", chain)
    ]
    assert found == [
        "-A FORWARD -j DOCKER-USER",
        "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
        "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD -o docker0 -j DOCKER",
        "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
        "-A FORWARD -i docker0 -o docker0 -j ACCEPT",
        "-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2",
        "-A DOCKER-ISOLATION-STAGE-1 -j RETURN",
        "-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP",
        "-A DOCKER-ISOLATION-STAGE-2 -j RETURN",
        "-A DOCKER-USER -j RETURN",
    ]


@pytest.mark.parametrize(
    ("engine", "one", "ten"),
    [  # filter/nat/raw rules for 50 networks of one container, with one and with ten published ports
        ("1.9", (2700, 152, 0), (3150, 1052, 0)),
        ("17.05", (2702, 202, 0), (3152, 1102, 0)),
        ("20.10", (355, 202, 0), (805, 1102, 0)),
        ("28.0.0", (255, 152, 50), (705, 602, 500)),
        ("28.1", (356, 152, 50), (806, 602, 500)),
        ("28.5", (355, 152, 50), (805, 602, 50)),
        ("29", (255, 102, 50), (705, 552, 50)),
    ],
)
def test_rule_counts_of_fifty_networks(engine: str, one: tuple[int, int, int], ten: tuple[int, int, int]) -> None:
    for ports, expected in ((1, one), (10, ten)):
        topology = Topology(
            tuple(Network(f"n{i}", subnet=f"10.{i}.0.0/16") for i in range(50)),
            tuple(
                Container(f"c{i}", (Endpoint(f"n{i}"),), ports=tuple(Port(100 + p, host_port=9000 + 10 * i + p)
                                                                     for p in range(ports)))
                for i in range(50)),
            Daemon(bridge="none"))
        ruleset = topology.host(engine).ruleset
        counts = tuple(
            sum(len(chain.rules) for chain in table.chains) if (table := ruleset.table(name)) is not None else 0
            for name in ("filter", "nat", "raw"))
        assert counts == expected


# ------------------------------------------------------------------------------------------------------ order


def test_1_0_puts_everything_at_the_head_of_forward() -> None:
    ruleset = ONE.host("1.0").ruleset
    assert listing(ruleset, "filter", "FORWARD") == [
        "-d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 6379 -j ACCEPT",
        "-o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-i docker0 ! -o docker0 -j ACCEPT",
        "-i docker0 -o docker0 -j ACCEPT",
    ]
    assert listing(ruleset, "nat", "POSTROUTING") == ["-s 172.17.0.0/16 ! -d 172.17.0.0/16 -j MASQUERADE"]
    assert listing(ONE.host("1.3").ruleset, "nat", "POSTROUTING") == ["-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"]


def test_docker_jump_and_answers_changed_places_in_17_04() -> None:
    def first_two(engine: str) -> list[str]:
        rules = listing(Topology().host(engine).ruleset, "filter", "FORWARD")
        return [rule.split(" -m ")[0] for rule in rules if rule.startswith("-o docker0")]

    assert first_two("17.03.2") == ["-o docker0 -j DOCKER", "-o docker0"]
    assert first_two("17.04") == ["-o docker0", "-o docker0 -j DOCKER"]


def test_isolation_by_pairs_names_every_pair_twice() -> None:
    topology = Topology((bridge("b1"), bridge("b2", "198.51.100.0/24"), bridge("in", "10.9.0.0/24", internal=True)),
                        daemon=Daemon(bridge="none"))
    assert listing(topology.host("1.12").ruleset, "filter", "DOCKER-ISOLATION") == [
        "! -s 10.9.0.0/24 -o in -j DROP",
        "! -d 10.9.0.0/24 -i in -j DROP",
        "-i b1 -o b2 -j DROP",
        "-i b2 -o b1 -j DROP",
        "-j RETURN",
    ]
    by_subnet = [rule for rule in listing(topology.host("1.9").ruleset, "filter", "FORWARD") if "-s " in rule]
    assert sorted(by_subnet)[0] == "-s 10.9.0.0/24 -d 192.0.2.0/24 -j DROP"
    assert len(by_subnet) == 6


def test_28_0_0_stands_on_an_ipset() -> None:
    host = Topology((bridge(), bridge("in", "10.9.0.0/24", internal=True)), (web(),)).host("28.0.0")
    assert listing(host.ruleset, "filter", "FORWARD") == [
        "-j DOCKER-USER",
        "-m set --match-set docker-ext-bridges-v4 dst -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-j DOCKER-ISOLATION-STAGE-1",
        "-m set --match-set docker-ext-bridges-v4 dst -j DOCKER",
        "-i docker0 -j ACCEPT",
        "-i b1 -j ACCEPT",
        "-i in -o in -j ACCEPT",
    ]
    assert listing(host.ruleset, "raw", "PREROUTING") == [
        "-d 192.0.2.2/32 ! -i b1 -p tcp -m tcp --dport 80 -j DROP"]
    members = host.ipset("docker-ext-bridges-v4")
    assert members is not None and len(members.entries) == 2
    assert not Topology().host("28.0.1").ipsets


def test_29_isolates_in_docker_alone() -> None:
    ruleset = Topology((bridge(), bridge("in", "10.9.0.0/24", internal=True, icc=False)), (web(),)).host("29").ruleset
    assert listing(ruleset, "filter", "DOCKER-FORWARD") == [
        "-j DOCKER-CT", "-j DOCKER-INTERNAL", "-j DOCKER-BRIDGE", "-i docker0 -j ACCEPT", "-i b1 -j ACCEPT",
        "-i in -o in -j DROP"]
    assert listing(ruleset, "filter", "DOCKER-INTERNAL") == [
        "! -s 10.9.0.0/24 -o in -j DROP", "! -d 10.9.0.0/24 -i in -j DROP"]
    assert listing(ruleset, "filter", "DOCKER")[-2:] == ["! -i docker0 -o docker0 -j DROP", "! -i b1 -o b1 -j DROP"]
    assert listing(ruleset, "nat", "DOCKER") == [
        "! -i b1 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.2:80"]


@pytest.mark.parametrize("engine", ["17.06", "20.10", "28.2.1"])
def test_docker_user_ended_in_return(engine: str) -> None:
    assert listing(ONE.host(engine).ruleset, "filter", "DOCKER-USER") == ["-j RETURN"]


def test_docker_user_is_empty_since_28_2_2() -> None:
    assert listing(ONE.host("28.2.2").ruleset, "filter", "DOCKER-USER") == []


def test_ports_are_published_downwards_to_26_and_upwards_since_27() -> None:
    topology = Topology((), (Container("c", ports=Port.parse("9000-9002:9000-9002")),))

    def dports(engine: str) -> list[str]:
        return [rule.split("--dport ")[1][:4] for rule in listing(topology.host(engine).ruleset, "nat", "DOCKER")
                if "DNAT" in rule]

    assert dports("26") == ["9002", "9001", "9000"]
    assert dports("27") == ["9000", "9001", "9002"]


# ------------------------------------------------------------------------------------------------------ settings


def test_forward_policy_follows_who_turned_forwarding_on() -> None:
    def policy(engine: str, **parts: Machine | Daemon) -> str | None:
        table = replace(Topology(), **parts).host(engine).ruleset.table("filter")  # type: ignore[arg-type]
        chain = table.chain("FORWARD") if table is not None else None
        return chain.policy if chain is not None else None

    assert policy("1.12") == "ACCEPT"
    assert policy("1.13") == "DROP"
    assert policy("29") == "DROP"
    assert policy("29", machine=Machine(ip_forward=True)) == "ACCEPT"
    assert policy("29", daemon=Daemon(ip_forward=False)) == "ACCEPT"


def test_without_the_proxy_the_rules_answer_the_host_itself() -> None:
    topology = replace(ONE, daemon=Daemon(userland_proxy=False))
    for engine in ("1.7", "20.10", "28", "29"):
        host = topology.host(engine)
        assert listing(host.ruleset, "nat", "OUTPUT") == ["-m addrtype --dst-type LOCAL -j DOCKER"]
        assert "-o docker0 -m addrtype --src-type LOCAL -j MASQUERADE" in listing(host.ruleset, "nat", "POSTROUTING")
        assert "-s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 6379 -j MASQUERADE" in listing(
            host.ruleset, "nat", "POSTROUTING")
        assert listing(host.ruleset, "nat", "DOCKER") == [
            "-p tcp -m tcp --dport 6380 -j DNAT --to-destination 172.17.0.2:6379"]
        assert host.sysctl("net.ipv4.conf.docker0.route_localnet") == 1
        assert [listener.answers for listener in topology.listeners(engine)] == [False]
    older = topology.host("1.6")
    assert listing(older.ruleset, "nat", "OUTPUT") == ["! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER"]
    assert older.sysctl("net.ipv4.conf.docker0.route_localnet") == 0


def test_with_the_proxy_it_answers_where_the_rules_do_not() -> None:
    (listener,) = ONE.listeners("28.5")
    assert (listener.process, listener.answers, listener.address, listener.port) == (
        "docker-proxy", True, "0.0.0.0", 6380)
    assert (listener.container, listener.container_address, listener.container_port) == (
        "redis01", "172.17.0.2", 6379)
    rules = listing(ONE.host("28.5").ruleset, "nat", "POSTROUTING")
    assert rules == ["-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"]


def test_iptables_false_writes_nothing_and_still_forwards() -> None:
    topology = replace(ONE, daemon=Daemon(iptables=False))
    for engine in ALL:
        host = topology.host(engine)
        assert not host.ruleset.tables
        assert host.sysctl("net.ipv4.ip_forward") == 1
        assert host.interface("docker0") is not None
    assert any("iptables is false" in note for note in topology.notes("28"))


def test_forwarding_off_repeats_dockers_warning() -> None:
    topology = replace(ONE, daemon=Daemon(ip_forward=False))
    assert topology.host("28").sysctl("net.ipv4.ip_forward", 7) == 0
    assert "WARNING: IPv4 forwarding is disabled. Networking will not work." in topology.notes("28")
    assert not replace(topology, machine=Machine(ip_forward=True)).notes("28")


def test_gateway_modes() -> None:
    def rules(mode: str, engine: str) -> Ruleset:
        return Topology((bridge(gateway_mode=mode),), (web(),)).host(engine).ruleset

    accept = "-d 192.0.2.2/32 ! -i b1 -o b1 -p tcp -m tcp --dport 80 -j ACCEPT"
    routed = rules("routed", "28.5")
    assert not any("b1" in rule for rule in listing(routed, "nat", "POSTROUTING"))
    assert not any("DNAT" in rule for rule in listing(routed, "nat", "DOCKER"))
    assert not listing(routed, "raw", "PREROUTING")
    docker = listing(routed, "filter", "DOCKER")
    assert [docker[0], *docker[-2:]] == [accept, "-o b1 -p icmp -j ACCEPT", "! -i b1 -o b1 -j DROP"]
    assert listing(routed, "filter", "DOCKER-ISOLATION-STAGE-1")[:2] == [
        "-i b1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-o b1 -j RETURN"]
    unprotected = rules("nat-unprotected", "29")
    assert listing(unprotected, "filter", "DOCKER") == ["! -i docker0 -o docker0 -j DROP", "! -i b1 -o b1 -j ACCEPT"]
    assert not listing(unprotected, "raw", "PREROUTING")
    assert listing(unprotected, "nat", "DOCKER")
    assert accept in listing(rules("routed", "27"), "filter", "DOCKER")
    assert rules("routed", "26") == rules("nat", "26")
    assert rules("nat-unprotected", "27") == rules("nat", "27")
    isolated = Topology((bridge(internal=True, gateway_mode="isolated"),), (web(),)).host("28")
    found = isolated.interface("b1")
    assert found is not None and not found.addresses


def test_raw_protection_of_containers() -> None:
    def raw(network: Network, engine: str = "28.5", **settings: object) -> list[str]:
        daemon = replace(Daemon(bridge="none"), **settings)  # type: ignore[arg-type]
        return listing(Topology((network,), (web(),), daemon).host(engine).ruleset, "raw", "PREROUTING")

    drop = "-d 192.0.2.2/32 ! -i b1 -j DROP"
    assert raw(bridge()) == [drop]
    assert raw(bridge(trusted_interfaces=("eth1", "tun0"))) == [
        "-d 192.0.2.2/32 -i eth1 -j ACCEPT", "-d 192.0.2.2/32 -i tun0 -j ACCEPT", drop]
    assert raw(bridge(), allow_direct_routing=True) == []
    assert raw(bridge(), insecure_no_raw=True) == []
    assert raw(bridge(internal=True)) == []
    by_port = "-d 192.0.2.2/32 ! -i b1 -p tcp -m tcp --dport 80 -j DROP"
    assert raw(bridge(), "28.1") == [by_port]
    assert raw(bridge(), "28.1", allow_direct_routing=True) == [by_port]
    assert raw(bridge(), "27") == []
    assert raw(bridge(bind_ip="127.0.0.1")) == [drop, "-d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8080 -j DROP"]


def test_a_host_ip_is_a_source_nat_since_20_10() -> None:
    topology = Topology((bridge(host_ip="10.0.2.99"),))
    assert "-s 192.0.2.0/24 ! -o b1 -j SNAT --to-source 10.0.2.99" in listing(
        topology.host("20.10").ruleset, "nat", "POSTROUTING")
    assert "-s 192.0.2.0/24 ! -o b1 -j MASQUERADE" in listing(topology.host("19.03").ruleset, "nat", "POSTROUTING")


def test_links_open_ports_only_where_icc_is_off() -> None:
    containers = (
        Container("db", exposed=((5432, "tcp"),)), Container("app", links=("db:database",)))
    assert not [r for r in listing(Topology((), containers).host("20.10").ruleset, "filter", "DOCKER") if "-s " in r]
    closed = Topology((), containers, Daemon(icc=False))
    pair = [
        "-s 172.17.0.3/32 -d 172.17.0.2/32 -i docker0 -o docker0 -p tcp -m tcp --dport 5432 -j ACCEPT",
        "-s 172.17.0.2/32 -d 172.17.0.3/32 -i docker0 -o docker0 -p tcp -m tcp --sport 5432 -j ACCEPT",
    ]
    assert listing(closed.host("20.10").ruleset, "filter", "DOCKER") == pair
    assert listing(closed.host("29").ruleset, "filter", "DOCKER") == ["! -i docker0 -o docker0 -j DROP", *pair]


@pytest.mark.parametrize(
    ("engine", "forward"),
    [
        ("1.12", ["-j DOCKER-INGRESS", "-j DOCKER-ISOLATION"]),
        ("20.10", ["-j DOCKER-USER", "-j DOCKER-INGRESS", "-j DOCKER-ISOLATION-STAGE-1"]),
        ("28.5", ["-j DOCKER-USER", "-j DOCKER-FORWARD"]),
    ],
)
def test_swarm_publishes_through_docker_ingress(engine: str, forward: list[str]) -> None:
    ruleset = Topology(daemon=Daemon(swarm=Swarm(Port.parse("8080:80")))).host(engine).ruleset
    assert listing(ruleset, "filter", "FORWARD")[:len(forward)] == forward
    assert listing(ruleset, "nat", "PREROUTING")[0] == "-m addrtype --dst-type LOCAL -j DOCKER-INGRESS"
    assert listing(ruleset, "nat", "OUTPUT")[0] == "-m addrtype --dst-type LOCAL -j DOCKER-INGRESS"
    assert listing(ruleset, "nat", "DOCKER-INGRESS") == [
        "-p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:8080", "-j RETURN"]
    assert listing(ruleset, "filter", "DOCKER-INGRESS") == [
        "-p tcp -m tcp --dport 8080 -j ACCEPT",
        "-p tcp -m tcp --sport 8080 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-j RETURN"]
    assert listing(ruleset, "nat", "POSTROUTING")[0] == (
        "-o docker_gwbridge -m addrtype --src-type LOCAL -j MASQUERADE")
    if engine == "28.5":
        assert listing(ruleset, "filter", "DOCKER-FORWARD")[0] == "-j DOCKER-INGRESS"


# ------------------------------------------------------------------------------------------------------ versions


@pytest.mark.parametrize(
    ("text", "name"),
    [("1.0.1", "v1_0"), ("1.9.1", "v1_9"), ("17.06.0-ce", "v17_06"), ("20.10.24+dfsg1", "v18_05"),
     ("v27.0.3", "v18_05"), ("28.0", "v28_0_1"), ("28.0.0", "v28_0_0"), ("28", "v28_2"), ("29.7.2", "v29"),
     ("17", "v17_06"), ("18", "v18_05")],
)
def test_versions_find_their_generation(text: str, name: str) -> None:
    assert generation(Engine.parse(text)) == name


@pytest.mark.parametrize("text", ["", "latest", "0.9", "2.0", "16.04", "30", "28.x"])
def test_unknown_versions_are_refused(text: str) -> None:
    with pytest.raises(TopologyError, match=r"engine"):
        Topology().host(text)


def test_every_generation_is_written_by_a_module_of_its_own() -> None:
    assert len({name for _, name in GENERATIONS}) == 10
    assert [since for since, _ in GENERATIONS] == sorted((since for since, _ in GENERATIONS), reverse=True)
