"""What generated hosts do to packets, in every generation: published ports, isolation, and the advice one finds."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from fastpath.docker import Container, Daemon, Endpoint, Network, Port, Topology
from fastpath.host.model import Host
from fastpath.packets import Fate, PacketBatch, Verdict
from fastpath.reference import evaluate

ENGINES = ("1.9", "1.10", "1.13", "17.06", "18.05", "20.10", "26", "27", "28.0.0", "28.0.1", "28.2", "28.5", "29")
OUTSIDE = "203.0.113.9"

TWO = Topology(
    (Network("front", bridge="br-front"), Network("back", bridge="br-back"),
     Network("vault", bridge="br-vault", internal=True)),
    (
        Container("web", (Endpoint("front"),), ports=Port.parse("8080:80")),
        Container("api", (Endpoint("front"),)),
        Container("db", (Endpoint("back"),)),
        Container("safe", (Endpoint("vault"),)),
    ))
WEB, API, DB, SAFE = "172.18.0.2", "172.18.0.3", "172.19.0.2", "172.20.0.2"


def fate(host: Host, iif: str, src: str, dst: str, dport: int = 80) -> Fate:
    batch = PacketBatch.from_dicts([{
        "iif": iif, "src": _number(src), "dst": _number(dst), "proto": 6, "sport": 40000, "dport": dport,
        "tcp_flags": 2}])
    return evaluate(host, batch)[0]


def verdict(host: Host, iif: str, src: str, dst: str, dport: int = 80) -> Verdict:
    return Verdict(fate(host, iif, src, dst, dport).verdict)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_published_port_leads_to_its_container(engine: str) -> None:
    found = fate(TWO.host(engine), "eth0", OUTSIDE, "10.0.2.15", 8080)
    assert (Verdict(found.verdict), found.oif, found.dst, found.dport) == (
        Verdict.FORWARD, "br-front", _number(WEB), 80)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_unpublished_port_stays_closed_behind_a_published_one(engine: str) -> None:
    machine = replace(TWO.machine, ip_forward=engine < "28")
    found = verdict(replace(TWO, machine=machine).host(engine), "eth0", OUTSIDE, WEB, 81)
    # Until 28 only the policy of FORWARD stood between the neighbours and an unpublished port.
    assert found == (Verdict.FORWARD if engine < "28" else Verdict.DROP)
    if engine not in ("1.9", "1.10"):
        assert verdict(TWO.host(engine), "eth0", OUTSIDE, WEB, 81) == Verdict.DROP


@pytest.mark.parametrize("engine", ENGINES)
def test_networks_are_kept_apart(engine: str) -> None:
    host = TWO.host(engine)
    assert verdict(host, "br-front", WEB, DB) == Verdict.DROP
    assert verdict(host, "br-back", DB, WEB) == Verdict.DROP
    assert verdict(host, "br-front", WEB, OUTSIDE) == Verdict.FORWARD


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "1.9"])
def test_an_internal_network_has_no_way_out_or_in(engine: str) -> None:
    host = TWO.host(engine)
    assert verdict(host, "br-vault", SAFE, OUTSIDE) == Verdict.DROP
    assert verdict(host, "eth0", OUTSIDE, SAFE) == Verdict.DROP
    assert verdict(host, "br-front", WEB, SAFE) == Verdict.DROP
    assert verdict(host, "br-vault", SAFE, "172.20.0.3") == Verdict.FORWARD


@pytest.mark.parametrize("engine", ENGINES)
def test_icc_false_keeps_containers_of_one_network_apart(engine: str) -> None:
    networks = (replace(TWO.networks[0], icc=False), *TWO.networks[1:])
    closed, opened = replace(TWO, networks=networks).host(engine), TWO.host(engine)
    assert verdict(closed, "br-front", API, WEB) == Verdict.DROP
    assert verdict(opened, "br-front", API, WEB) == Verdict.FORWARD
    assert verdict(closed, "eth0", OUTSIDE, "10.0.2.15", 8080) == Verdict.FORWARD


@pytest.mark.parametrize("engine", ["17.06", "20.10", "28.2.1", "28.5", "29"])
def test_advice_on_docker_user(engine: str) -> None:
    """`-A DOCKER-USER` is dead behind a RETURN; `-i docker0` means what leaves containers; `-I` and `-i eth0` work."""
    host = Topology((), (Container("redis01", ports=Port.parse("6380:6379")),)).host(engine)
    allowed, other = "192.168.1.1", OUTSIDE

    def reaches(changed: Host, src: str) -> bool:
        return verdict(changed, "eth0", src, "10.0.2.15", 6380) == Verdict.FORWARD

    for test in (f"! -s {allowed}", "! -s 192.168.1.0/24", "-m iprange ! --src-range 192.168.1.1-192.168.1.3"):
        for command in ("-A DOCKER-USER", "-I DOCKER-USER"):
            advised = host.edit(f"{command} -i docker0 {test} -j DROP")
            assert reaches(advised, allowed) and reaches(advised, other), "it does not filter who comes in"
            leaves = verdict(advised, "docker0", "172.17.0.2", OUTSIDE)
            dead = command.startswith("-A") and engine in ("17.06", "20.10", "28.2.1")
            assert leaves == (Verdict.FORWARD if dead else Verdict.DROP)
        works = host.edit(f"-I DOCKER-USER -i eth0 {test} -j DROP")
        assert reaches(works, allowed) and not reaches(works, other)
        appended = host.edit(f"-A DOCKER-USER -i eth0 {test} -j DROP")
        assert reaches(appended, other) == (engine in ("17.06", "20.10", "28.2.1"))


@pytest.mark.parametrize("engine", ENGINES)
def test_iptables_false_leaves_containers_open_and_ports_to_the_proxy(engine: str) -> None:
    topology = replace(TWO, daemon=Daemon(iptables=False))
    host = topology.host(engine)
    assert verdict(host, "eth0", OUTSIDE, "10.0.2.15", 8080) == Verdict.LOCAL_IN
    assert verdict(host, "br-front", WEB, DB) == Verdict.FORWARD
    assert [listener.answers for listener in topology.listeners(engine)] == [True]


def test_the_host_reaches_a_published_port_by_the_proxy_or_by_the_rules() -> None:
    assert verdict(TWO.host("28"), "local", "127.0.0.1", "127.0.0.1", 8080) == Verdict.LOCAL_IN
    without = replace(TWO, daemon=Daemon(userland_proxy=False)).host("28")
    found = fate(without, "local", "127.0.0.1", "127.0.0.1", 8080)
    assert (Verdict(found.verdict), found.oif, found.dst, found.src) == (
        Verdict.LOCAL_OUT, "br-front", _number(WEB), _number("172.18.0.1"))


def _number(address: str) -> int:
    return int(IPv4Address(address))
