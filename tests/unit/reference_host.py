"""A small host, and a packet's fate on it, for the tests of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from fastpath.host.fib import connected_routes
from fastpath.host.ipset import parse_ipsets
from fastpath.host.model import Host, Interface, InterfaceAddress, Route
from fastpath.packets import Fate, Packet, PacketBatch
from fastpath.reference import evaluate
from fastpath.ruleset.model import Network
from fastpath.ruleset.parse import parse_ruleset

DEFAULTS: dict[str, tuple[str, ...]] = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}


def number(address: str) -> int:
    """An address as an integer."""
    return int(ip_address(address))


def network(text: str) -> Network:
    """A network from its text."""
    found = ip_network(text)
    return Network(4, int(found.network_address), int(found.netmask))


def interface(name: str, *addresses: str, scope: str = "global") -> Interface:
    """An interface with addresses such as ``10.0.2.15/24``."""
    split = [a.split("/") for a in addresses]
    return Interface(name, tuple(InterfaceAddress(4, number(a), int(n), scope=scope) for a, n in split))


INTERFACES = (
    interface("lo", "127.0.0.1/8", scope="host"),
    interface("eth0", "10.0.2.15/24"),
    interface("docker0", "172.17.0.1/16"),
    interface("br1", "172.18.0.1/16", "192.168.9.1/24"),
    interface("tun0"),
)
ROUTES = (
    Route(network("0.0.0.0/0"), "eth0", number("10.0.2.2")),
    Route(network("9.0.0.0/8"), "tun0"),
    Route(network("7.0.0.0/8"), type="blackhole"),
    Route(network("6.0.0.0/8"), type="unreachable"),
)


def rules(**tables: str) -> str:
    """A save file: for each table its rule lines (``-P CHAIN DROP`` and ``-N CHAIN`` too), all builtin chains there."""
    parts = []
    for table, text in tables.items():
        lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        policies = dict.fromkeys(DEFAULTS[table], "ACCEPT")
        policies |= {line.split()[1]: line.split()[2] for line in lines if line.startswith("-P")}
        heads = [f":{chain} {policy} [0:0]" for chain, policy in policies.items()]
        heads += [f":{line.split()[1]} - [0:0]" for line in lines if line.startswith("-N")]
        parts += [f"*{table}", *heads, *(line for line in lines if line.startswith("-A")), "COMMIT"]
    return "\n".join(parts) + "\n"


def make_host(
    sysctl: Mapping[str, str] | None = None, ipset: str = "", routes: tuple[Route, ...] = ROUTES, complete: bool = True,
    policy_rules: tuple[str, ...] = (), **tables: str,
) -> Host:
    """A forwarding host with eth0 (10.0.2.15, the world), docker0 (172.17.0.1/16), br1 (two networks) and tun0."""
    settings = {"net.ipv4.ip_forward": "1"} | dict(sysctl or {})
    return Host(parse_ruleset(rules(**tables)), INTERFACES, connected_routes(INTERFACES) + routes,
                sysctls=tuple(settings.items()), ipsets=parse_ipsets(ipset), complete=complete,
                policy_rules=policy_rules)


ARRIVING: dict[str, Any] = {"iif": "eth0", "src": "198.51.100.7", "dst": "172.17.0.2", "proto": "tcp", "sport": 4000,
                            "dport": 80}
"""A packet from the world to a container; tests change what they are about."""


def packet(**change: Any) -> Packet:
    """:data:`ARRIVING` with changes."""
    return Packet.make(**(ARRIVING | change))


def fate(host: Host, assume: Mapping[str | int, str] | None = None, table: str | None = None,
         chain: str | None = None, **change: Any) -> Fate:
    """What becomes of :data:`ARRIVING` with changes."""
    batch = PacketBatch.from_packets([packet(**change)])
    return evaluate(host, batch, assume=assume, table=table, chain=chain)[0]


def brief(found: Fate) -> tuple[str, str, str | None]:
    """Verdict, hook and egress."""
    return found.verdict.name, found.hook.name, found.oif


def counted(host: Host, *packets: Packet, answers: bool = False) -> dict[str, tuple[int, int]]:
    """Packets and bytes of every rule and policy that counted, by ``table chain number``."""
    result = evaluate(host, PacketBatch.from_packets(packets), answers=answers)
    return {f"{c.ref.table} {c.ref.chain} {c.ref.number}": (c.packets, c.bytes) for c in result.counters() if c.packets}


def rule_name(host: Host, rule: int) -> str:
    """``table chain number`` of a rule id; "" for -1."""
    if rule < 0:
        return ""
    ref = host.ruleset.refs()[rule]
    return f"{ref.table} {ref.chain} {ref.number}"
