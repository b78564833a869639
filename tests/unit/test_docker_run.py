"""Containers from `docker run` command lines."""

from __future__ import annotations

import pytest

from fastpath.docker import Container, Endpoint, Network, Port, Topology, TopologyError


@pytest.mark.parametrize(("command", "container"), [
    ("docker run -d --name redis01 -p 6380:6379 redis", Container("redis01", ports=(Port(6379, "tcp", 6380),))),
    ("docker run nginx", Container("nginx")),
    ("docker container create --name=a registry.example:5000/team/web:1.2 sh -c '-p 80:80'", Container("a")),
    ("run -itd -p80:80 --publish 53:53/udp --publish=127.0.0.1:5000-5001:1-2 --rm --name w w", Container("w", ports=(
        Port(80, "tcp", 80), Port(53, "udp", 53), Port(1, "tcp", 5000, host_ip="127.0.0.1"),
        Port(2, "tcp", 5001, host_ip="127.0.0.1")))),
    ("docker run -P --expose 80-81 --expose 53/udp --name w w", Container(
        "w", exposed=((80, "tcp"), (81, "tcp"), (53, "udp")), publish_all=True)),
    ("docker run --net=host --name w w", Container("w", mode="host")),
    ("docker run --network none --name w w", Container("w", mode="none")),
    ("docker run --net container:db --name w w", Container("w", mode="container:db")),
    ("docker run --network bridge --name w w", Container("w")),
    ("docker run --network front --ip 172.18.0.9 --network name=back,alias=x --name w w", Container(
        "w", (Endpoint("front", "172.18.0.9"), Endpoint("back")))),
    ("docker run --link db:database --add-host test.com:192.168.1.100 --add-host h=host-gateway --name w w", Container(
        "w", links=("db:database",), extra_hosts=(("test.com", "192.168.1.100"), ("h", "host-gateway")))),
    ("docker run --rm=false -e 'A=-p 1:1' -v /a:/b -w /a --read-only --sysctl net.ipv4.ip_forward=1 --name w -- w",
     Container("w")),
])
def test_what_concerns_packets(command: str, container: Container) -> None:
    assert Container.from_run(command) == container


@pytest.mark.parametrize(("command", "message"), [
    ("docker run -d", "the image is missing"),
    ("docker run --publsh 80:80 w", "unknown option '--publsh'"),
    ("docker run w -p", None),
    ("docker run -p", "the value of -p is missing"),
    ("docker run -p 80:99999 --name w w", "docker run --name w: port '80:99999': '99999' should lie within 1 to 65535"),
    ("docker run --network host --network front --name w w", "--network host cannot be combined"),
    ("docker run --ip 172.17.0.9 --name w w", "--ip 172.17.0.9 needs a network of one's own"),
    ("docker run --add-host test.com --name w w", "--add-host 'test.com' should be NAME:ADDRESS"),
    ("docker run --expose 80/quic --name w w", "protocol should be one of tcp, udp, sctp"),
])
def test_mistakes(command: str, message: str | None) -> None:
    if message is None:
        assert Container.from_run(command).ports == ()
        return
    with pytest.raises(TopologyError) as error:
        Container.from_run(command)
    assert message in str(error.value)


def test_they_make_a_host() -> None:
    topology = Topology((Network("front"),), tuple(Container.from_run(line) for line in (
        "docker run --name db --network front --expose 5432 postgres",
        "docker run --name web --network front -p 8080:80 nginx")))
    matrix = topology.reachability("28.5")
    assert matrix.cell("web", "db:5432").reach and matrix.cell("external", "host:8080").mark == "nat"
