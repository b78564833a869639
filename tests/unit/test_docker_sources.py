"""Where topologies come from besides Compose, how addresses and ports are chosen, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastpath.docker import (
    AddressPool,
    Container,
    Daemon,
    Endpoint,
    Machine,
    Network,
    Port,
    Swarm,
    Topology,
    TopologyError,
)
from fastpath.docker.folder import write_host
from fastpath.docker.plan import Plan, make_plan
from fastpath.docker.version import Engine
from fastpath.host.model import Host

ROOT = Path(__file__).resolve().parents[2]


def plan(topology: Topology, engine: str = "28.5") -> Plan:
    return make_plan(topology, Engine.parse(engine))


def subnets(topology: Topology) -> dict[str, str]:
    return {segment.name: segment.text for segment in plan(topology).segments}


def addresses(topology: Topology, engine: str = "28.5") -> dict[tuple[str, str], str]:
    return {(place.container, place.segment.name): place.text for place in plan(topology, engine).attachments}


# ------------------------------------------------------------------------------------------------ addresses


def test_default_pools_in_dockers_order() -> None:
    found = subnets(Topology(tuple(Network(f"n{i}") for i in range(16))))
    assert list(found.values())[:2] == ["172.17.0.0/16", "172.18.0.0/16"]
    assert (found["n13"], found["n14"], found["n15"]) == ("172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20")


def test_pools_pass_over_the_machine_and_over_named_subnets() -> None:
    topology = Topology(
        (Network("named", subnet="172.19.0.0/16"), Network("next")),
        machine=Machine((("eth0", ("172.17.4.4/24",)),), ("default via 172.17.4.1 dev eth0", "172.18.0.0/15 dev eth0")))
    assert subnets(topology) == {"bridge": "172.20.0.0/16", "named": "172.19.0.0/16", "next": "172.21.0.0/16"}


def test_bip_fixed_cidr_and_own_pools() -> None:
    pools = (AddressPool("10.8.0.0/23", 24),)
    daemon = Daemon(bip="10.200.0.1/22", fixed_cidr="10.200.2.0/24", default_address_pools=pools)
    topology = Topology((Network("a"), Network("b")), (Container("c"),), daemon)
    assert subnets(topology) == {"bridge": "10.200.0.0/22", "a": "10.8.0.0/24", "b": "10.8.1.0/24"}
    assert addresses(topology) == {("c", "bridge"): "10.200.2.0"}
    with pytest.raises(TopologyError, match="network 'c': the address pools are used up"):
        replace(topology, networks=(*topology.networks, Network("c"))).host("28")


def test_the_lowest_free_address_of_the_range() -> None:
    network = Network(
        "n", subnet="10.1.0.0/24", gateway="10.1.0.254", ip_range="10.1.0.8/30", reserved=("10.1.0.9",))
    containers = (
        Container("a", (Endpoint("n"),)), Container("b", (Endpoint("n", "10.1.0.77"),)),
        Container("c", (Endpoint("n"),)))
    assert addresses(Topology((network,), containers)) == {
        ("a", "n"): "10.1.0.8", ("b", "n"): "10.1.0.77", ("c", "n"): "10.1.0.10"}
    with pytest.raises(TopologyError, match="no free address left in 10.1.0.8/30"):
        Topology((network,), (*containers, *(Container(x, (Endpoint("n"),)) for x in "de"))).host("28")


def test_several_networks_publish_on_the_gateway_endpoint() -> None:
    def published(engine: str, *endpoints: Endpoint) -> str:
        networks = (Network("a"), Network("b"), Network("in", internal=True))
        topology = Topology(networks, (Container("c", endpoints, ports=Port.parse("80:80")),))
        (port,) = plan(topology, engine).published
        return port.attachment.segment.name

    assert published("28", Endpoint("b"), Endpoint("a")) == "a"
    assert published("28", Endpoint("in"), Endpoint("b")) == "b"
    assert published("28", Endpoint("a"), Endpoint("b", priority=1)) == "b"
    assert published("27", Endpoint("a"), Endpoint("b", priority=1)) == "a"


def test_modes_share_a_stack_or_have_none() -> None:
    topology = Topology(
        (Network("mv", "macvlan", subnet="10.0.3.0/24", parent="eth0"),),
        (
            Container("own", ports=Port.parse("80:80")), Container("joined", mode="container:own"),
            Container("twice", mode="container:joined", ports=Port.parse("81:81")), Container("h", mode="host"),
            Container("n", mode="none"), Container("m", (Endpoint("mv"),), ports=Port.parse("82:82")),
            Container("off", ports=Port.parse("80:80"), running=False),
        ))
    found = plan(topology)
    assert found.stacks == {
        "own": "own", "joined": "own", "twice": "own", "h": "host", "n": "none", "m": "m", "off": "off"}
    assert [port.attachment.container for port in found.published] == ["own"]
    assert [(name, port.container_port) for name, port, _ in found.ineffective] == [("m", 82), ("twice", 81)]
    assert [i.name for i in topology.host("28").interfaces if i.kind == "bridge"] == ["docker0"]


def test_overlay_networks_use_the_gateway_bridge() -> None:
    topology = Topology(
        (Network("over", "overlay", subnet="10.0.1.0/24"),), (Container("c", (Endpoint("over"),)),),
        Daemon(swarm=Swarm()))
    assert addresses(topology) == {
        ("ingress-sbox", "docker_gwbridge"): "172.18.0.2", ("c", "over"): "10.0.1.2",
        ("c", "docker_gwbridge"): "172.18.0.3"}


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        (Topology((Network("a"), Network("a"))), "network 'a' is there twice"),
        (Topology((), (Container("a"), Container("a"))), "container 'a' is there twice"),
        (Topology((), (Container("a", (Endpoint("x"),)),)), "network 'x' does not exist"),
        (Topology((), (Container("a", (Endpoint("bridge"), Endpoint("bridge"))),)), "joins network 'bridge' twice"),
        (Topology((), (Container("a", mode="container:b"),)), "names an unknown container"),
        (Topology((), (Container("a", mode="container:b"), Container("b", mode="container:a"))), "a -> b -> a"),
        (Topology((), (Container("a", mode="weird"),)), "mode 'weird' should be host, none or container:NAME"),
        (Topology((), (Container("a", (Endpoint("bridge"),), "host"),)), "exclude each other"),
        (Topology((), (Container("a", ports=(Port(80, host_port=70000),)),)), "outside 1 to 65535"),
        (Topology((), (Container("a", ports=(Port(80, "icmp"),)),)), "protocol 'icmp' should be one of"),
        (Topology((), (Container("a", ports=(Port(1, host_port=80, host_ip="127.0.0.1"),)),
                       Container("b", ports=(Port(2, host_port=80),)))), "80/tcp on 0.0.0.0 is taken by 'a'"),
        (Topology((), (Container("a", links=("b",)),), Daemon(icc=False)), "link 'b' names an unknown container"),
        (Topology(daemon=Daemon(bip="10.0.0.1/x")), "bip '10.0.0.1/x' should be"),
        (Topology((Network("a", "weave"),)), "driver 'weave' should be one of bridge"),
        (Topology((Network("a", gateway_mode="x"),)), "gateway mode 'x' should be one of nat"),
        (Topology((Network("a", gateway_mode="isolated"),)), "for internal networks only"),
        (Topology((Network("a", subnet="10.0.0.1/24"),)), "'10.0.0.1/24' is not an IPv4 subnet"),
        (Topology((Network("a", subnet="10.0.0.0/24", ip_range="10.1.0.0/24"),)), "should lie within the subnet"),
        (Topology((Network("a", subnet="10.0.0.0/24", gateway="10.1.0.1"),)), "outside network 'a'"),
        (Topology((Network("a", bridge="docker0"),)), "bridge 'docker0' is taken by network 'bridge'"),
        (Topology((Network("a", bridge="br-0123456789abcdef"),)), "15 characters"),
        (Topology((Network("a", subnet="10.0.0.0/24"),),
                  (Container("c", (Endpoint("a", "10.0.0.1"),)),)), "10.0.0.1 on network 'a' is taken by network 'a'"),
    ],
)
def test_what_docker_would_refuse(topology: Topology, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        topology.check()


def test_the_nftables_backend_writes_no_iptables_rules() -> None:
    with pytest.raises(TopologyError, match="firewall-backend 'nftables' writes no iptables rules"):
        Topology(daemon=Daemon(firewall_backend="nftables")).host("29")


def test_settings_that_an_engine_lacks_are_noted() -> None:
    topology = Topology(
        (Network("r", gateway_mode="routed", host_ip="10.0.2.15", trusted_interfaces=("eth0",)),),
        daemon=Daemon(allow_direct_routing=True))
    assert [note.rpartition("came with ")[2] for note in topology.notes("20.09")] == ["28.2", "27.0", "20.10", "28.2"]
    assert topology.notes("28.5") == ()


# ------------------------------------------------------------------------------------------------ the daemon


def test_a_daemon_json(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({
        "userland-proxy": False, "icc": False, "bip": "10.1.0.1/24", "log-driver": "json-file", "ip": "127.0.0.1",
        "default-address-pools": [{"base": "10.9.0.0/16", "size": 24}, {"base": "fd00::/48", "size": 64}]}))
    daemon = Daemon.from_json(file)
    assert daemon == Daemon(userland_proxy=False, icc=False, bip="10.1.0.1/24", ip="127.0.0.1",
                            default_address_pools=(AddressPool("10.9.0.0/16", 24),))
    assert Topology.from_daemon_json(file).daemon == daemon


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"iptables": "false"}', r'daemon.json: iptables: "false" should be true or false without quotes'),
        ('{"bip": 1}', "bip: 1 should be a text"),
        ('{"default-address-pools": [{"base": 1}]}', r"default-address-pools\[0\]: should be"),
        ("[]", "should be a JSON object"),
        ("{", "daemon.json: Expecting"),
    ],
)
def test_a_bad_daemon_json(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "daemon.json").write_text(text)
    with pytest.raises(TopologyError, match=message):
        Daemon.from_json(tmp_path / "daemon.json")


def test_a_command_line() -> None:
    text = ("dockerd --icc=false --iptables=FALSE --userland-proxy --bip 10.1.0.1/24 -b br9 -H fd:// "
            "--default-address-pool base=10.9.0.0/16,size=24 --ip=10.0.2.15")
    assert Daemon.from_command_line(text) == Daemon(
        icc=False, iptables=False, bip="10.1.0.1/24", bridge="br9", ip="10.0.2.15",
        default_address_pools=(AddressPool("10.9.0.0/16", 24),))
    for bad, message in (("--icc=no", "should be true or false"), ("--bip", "value is missing"),
                         ("--default-address-pool x", "should be base=")):
        with pytest.raises(TopologyError, match=message):
            Daemon.from_command_line(f"dockerd {bad}")


# ------------------------------------------------------------------------------------------------ inspect


def inspect(tmp_path: Path, networks: list[Any], containers: list[Any]) -> Topology:
    (tmp_path / "n.json").write_text(json.dumps(networks))
    (tmp_path / "c.json").write_text(json.dumps(containers))
    return Topology.from_inspect(tmp_path / "n.json", tmp_path / "c.json")


def network(name: str, second: int, subnet: str, **fields: Any) -> dict[str, Any]:
    return {"Name": name, "Id": f"{second:064x}", "Created": f"2026-01-01T00:00:{second:02d}Z", "Driver": "bridge",
            "IPAM": {"Config": [{"Subnet": subnet}]}, **fields}


def container(name: str, second: int, places: dict[str, str], **fields: Any) -> dict[str, Any]:
    state = {"Running": True, "StartedAt": f"2026-01-01T00:00:{second:02d}Z"}
    return {"Name": f"/{name}", "Id": name * 8, "State": state,
            "HostConfig": {"NetworkMode": next(iter(places), "none"), **fields.pop("HostConfig", {})},
            "NetworkSettings": {"Ports": fields.pop("Ports", {}),
                                "Networks": {n: {"IPAddress": a} for n, a in places.items()}}, **fields}


def test_later_joins_are_placed_by_their_addresses(tmp_path: Path) -> None:
    topology = inspect(
        tmp_path,
        [network("b", 2, "10.2.0.0/24"), network("a", 1, "10.1.0.0/24")],
        [container("late", 9, {"b": "10.2.0.4"}), container("one", 5, {"a": "10.1.0.2", "b": "10.2.0.3"}),
         container("two", 6, {"b": "10.2.0.2", "a": "10.1.0.3"})])
    assert [n.name for n in topology.networks] == ["a", "b"]
    order = sorted((e.order or 0, c.name, e.network) for c in topology.containers for e in c.networks)
    assert [item[1:] for item in order] == [
        ("one", "a"), ("two", "b"), ("one", "b"), ("late", "b"), ("two", "a")]


def test_what_became_of_ephemeral_ports_is_kept(tmp_path: Path) -> None:
    bindings = {"80/tcp": [{"HostIp": "", "HostPort": ""}], "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}]}
    bound = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "40001"}, {"HostIp": "::", "HostPort": "40001"}],
             "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
             "9/tcp": [{"HostIp": "0.0.0.0", "HostPort": "40002"}]}
    topology = inspect(
        tmp_path, [network("a", 1, "10.1.0.0/24")],
        [container("c", 2, {"a": "10.1.0.2"}, HostConfig={"PortBindings": bindings}, Ports=bound)])
    assert topology.containers[0].ports == (
        Port(80, chosen=40001), Port(53, "udp", 5353, host_ip="127.0.0.1"), Port(9, host_ip="0.0.0.0", chosen=40002))
    assert sorted(x.port for x in topology.listeners("28")) == [5353, 40001, 40002]


def test_modes_options_and_what_is_left_out(tmp_path: Path) -> None:
    options = {"com.docker.network.bridge.name": "br7", "com.docker.network.bridge.gateway_mode_ipv4": "routed",
               "com.docker.network.bridge.trusted_host_interfaces": "eth1:tun0",
               "com.docker.network.bridge.enable_ip_masquerade": "false", "com.docker.network.host_ipv4": "10.0.2.9"}
    topology = inspect(
        tmp_path,
        [network("a", 1, "10.1.0.0/24", Options=options), network("six", 2, "fd00::/64"),
         {"Name": "host", "Driver": "host"}, network("odd", 3, "10.3.0.0/24", Driver="weave")],
        [container("main", 4, {"a": "10.1.0.2"}),
         container("side", 5, {}, HostConfig={"NetworkMode": "container:" + "main" * 8}),
         container("h", 6, {}, HostConfig={"NetworkMode": "host"}), {"Name": "/off", "State": {"Running": False}}])
    (found,) = topology.networks
    assert (found.bridge, found.gateway_mode, found.trusted_interfaces, found.masquerade, found.host_ip) == (
        "br7", "routed", ("eth1", "tun0"), False, "10.0.2.9")
    assert [(c.name, c.mode) for c in topology.containers] == [
        ("main", ""), ("side", "container:main"), ("h", "host")]
    assert len(topology.remarks) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "n.json: Expecting"), ("{}", "should be an array of objects"),
     ('[{"Driver": "bridge"}]', r"\[0\].Name: is missing"),
     ('[{"Name": "a", "Driver": "bridge", "IPAM": 5}]', r"\[0\].IPAM: 5 should be an object"),
     ('[{"Name": "a", "Driver": "bridge", "Options": {"com.docker.network.bridge.enable_icc": "x"}}]', "or false")],
)
def test_bad_inspect_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "n.json").write_text(text)
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(TopologyError, match=message):
        Topology.from_inspect(tmp_path / "n.json", tmp_path / "c.json")


# ------------------------------------------------------------------------------------------------ own format, folders


def test_the_own_format_round_trips(tmp_path: Path) -> None:
    for name in ("docker28-compose", "docker20-icc-false", "docker28-subnets"):
        topology = Topology.from_capture(ROOT / "data" / "hosts" / name)
        assert Topology.from_dict(topology.to_dict()) == topology
        for suffix in ("yaml", "json"):
            topology.save(tmp_path / f"t.{suffix}")
            assert Topology.load(tmp_path / f"t.{suffix}") == topology


def test_the_example_plan_reads() -> None:
    topology = Topology.load(ROOT / "data" / "docker" / "plan.yaml")
    assert topology.machine.interfaces == (("eth0", ("192.0.2.10/24",)),)
    assert [e.network for e in topology.containers[0].networks] == ["edge", "vault"]
    assert topology.containers[0].ports == (Port(8443, host_port=443), Port(8125, "udp", 8125))
    assert subnets(topology)["edge"] == "10.210.1.0/24"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network: []", "t.yaml: unknown key 'network'; did you mean 'networks'"),
        ("networks: [{nam: a}]", r"t.yaml: networks\[0\]: unknown key 'nam'; did you mean 'name'"),
        ("networks: [{subnet: a}]", r"networks\[0\]: name is missing"),
        ("networks: [{name: a, internal: 1}]", r"networks\[0\].internal: 1 should be true or false"),
        ("containers: [{name: a, ports: ['x']}]", r"containers\[0\].ports\[0\]: port 'x'"),
        ("containers: a", "containers: 'a' should be a list"),
        ("daemon: {swarm: {ports: [{container_port: true}]}}", r"daemon.swarm.ports\[0\].container_port: True should"),
    ],
)
def test_errors_of_the_own_format(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(TopologyError, match=message):
        Topology.load(tmp_path / "t.yaml")


@pytest.mark.parametrize("engine", ["1.9", "20.10", "28.0.0", "29"])
def test_a_written_host_folder_reads_as_the_same_host(tmp_path: Path, engine: str) -> None:
    host = Topology.from_capture(ROOT / "data" / "hosts" / "docker28-compose").host(engine)
    write_host(host, tmp_path / "host")
    assert Host.load(tmp_path / "host") == host
