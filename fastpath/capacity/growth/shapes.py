"""Hosts of a size, Docker's first: what the sweeps of the command line and the benchmarks grow.

All of them stay the same apart from what grows, and leave addresses to be chosen as a user would who plans for many:
every network a /24 of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastpath.docker.topology import Container, Endpoint, Network, Port, Topology
from fastpath.host.model import Host
from fastpath.host.text import make_host
from fastpath.ruleset.parse import parse_ruleset

if TYPE_CHECKING:
    from fastpath.docker.version import EngineLike

OUT_OF = 250
"""Networks in a /16, and containers in a network."""


def _network(i: int) -> Network:
    return Network(f"net{i}", subnet=f"10.{100 + i // OUT_OF}.{i % OUT_OF}.0/24")


def networks(n: int) -> Topology:
    """`n` networks of three containers, two of which publish a port."""
    containers = tuple(
        Container(f"c{i}-{j}", (Endpoint(f"net{i}"),), ports=Port.parse(f"{10_000 + 2 * i + j}:80") if j < 2 else ())
        for i in range(n) for j in range(3))
    return Topology(tuple(_network(i) for i in range(n)), containers)


def containers(n: int) -> Topology:
    """One network (a /16) of `n` containers that publish a port each."""
    return Topology((Network("net", subnet="10.100.0.0/16"),), tuple(
        Container(f"c{i}", (Endpoint("net"),), ports=Port.parse(f"{10_000 + i}:80")) for i in range(n)))


def ports(n: int) -> Topology:
    """One container that publishes `n` ports, ``10000-...:10000-...``."""
    published = Port.parse(f"10000-{10_000 + n - 1}:10000-{10_000 + n - 1}") if n else ()
    return Topology((Network("net", subnet="10.100.0.0/24"),), (Container("c", (Endpoint("net"),), ports=published),))


@dataclass(frozen=True)
class Guarded:
    """A topology, and iptables commands that are given once Docker has written its rules."""

    topology: Topology
    commands: tuple[str, ...]

    def host(self, engine: EngineLike) -> Host:
        """The host that an engine makes of it."""
        return self.topology.host(engine).edit(*self.commands)


def rules(n: int) -> Guarded:
    """Ten networks, and `n` rules in DOCKER-USER that each drop what comes from one address."""
    return Guarded(networks(10), tuple(
        f"iptables -I DOCKER-USER {i + 1} -s 203.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}/32 -j DROP"
        for i in range(n)))


def kube_services(n: int, endpoints: int = 2) -> Host:
    """A Kubernetes node with `n` services of `endpoints` pods each: the nat rules that kube-proxy writes in iptables
    mode (chains KUBE-SERVICES, KUBE-SVC-*, KUBE-SEP-*, as its syncProxyRules() has them), masquerading left out."""
    heads, jumps, service_rules, pod_rules = [], [], [], []
    for i in range(n):
        service, name = f"KUBE-SVC-{i:016X}", f"default/svc-{i}:http"
        heads.append(f":{service} - [0:0]")
        jumps.append(f'-A KUBE-SERVICES -d 10.{96 + (i >> 16)}.{i >> 8 & 255}.{i & 255}/32 -p tcp -m comment --comment '
                     f'"{name} cluster IP" -m tcp --dport 80 -j {service}')
        for j in range(endpoints):
            pod = i * endpoints + j
            chain = f"KUBE-SEP-{pod:016X}"
            address = f"10.{244 + (pod >> 16)}.{pod >> 8 & 255}.{pod & 255}"
            heads.append(f":{chain} - [0:0]")
            left = endpoints - j
            chance = f"-m statistic --mode random --probability {1 / left:.11f} " if left > 1 else ""
            service_rules.append(f'-A {service} -m comment --comment "{name} -> {address}:8080" {chance}-j {chain}')
            pod_rules += [f'-A {chain} -s {address}/32 -m comment --comment "{name}" -j KUBE-MARK-MASQ',
                          f'-A {chain} -p tcp -m comment --comment "{name}" -m tcp -j DNAT '
                          f'--to-destination {address}:8080']
    text = "\n".join([
        "*nat", ":PREROUTING ACCEPT [0:0]", ":INPUT ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", ":POSTROUTING ACCEPT [0:0]",
        ":KUBE-MARK-MASQ - [0:0]", ":KUBE-SERVICES - [0:0]", *heads,
        '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000", *jumps, *service_rules, *pod_rules, "COMMIT", ""])
    return make_host(parse_ruleset(text), {"eth0": ["192.0.2.10/24"], "cni0": ["10.244.0.1/16"]},
                     ["default via 192.0.2.1 dev eth0"], sysctls={"net.ipv4.ip_forward": "1"})


SHAPES: dict[str, Callable[[int], Topology | Guarded]] = {
    "networks": networks, "containers": containers, "ports": ports, "rules": rules}
"""What `fastpath capacity sweep --grow` takes."""
