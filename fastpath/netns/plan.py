"""A host and packets as a job for the judge's child: `ip` commands, sysctl paths, save files and plain columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fastpath.errors import HostError
from fastpath.host.ipset import DIMENSIONS
from fastpath.host.model import Host, Interface, IpSet, PortElement, Route, SetElement
from fastpath.netns.job import Array, Job, Sysctl
from fastpath.netns.namespace import REJECTED
from fastpath.netns.wire import LONGEST
from fastpath.netns.worker import COLUMNS, LOCAL_CODE
from fastpath.packets.batch import PacketBatch
from fastpath.packets.schema import LOCAL
from fastpath.packets.text import format_address
from fastpath.ruleset.model import AddressRange, Chain, Network, Option, Rule, Ruleset, Target

_TRACKING_MATCHES = frozenset({
    "conntrack", "state", "connmark", "connbytes", "connlimit", "connlabel", "helper", "cluster",
})
_TRACKING_TARGETS = frozenset({
    "CONNMARK", "CONNSECMARK", "CT", "NOTRACK", "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "SYNPROXY",
    "CLUSTERIP",
})
_SYSCTLS = re.compile(
    r"net\.ipv4\.(ip_forward|fwmark_reflect|conf\..+\.(forwarding|rp_filter|accept_local|route_localnet|src_valid_mark"
    r"|ignore_routes_with_linkdown|drop_unicast_in_l2_multicast|bc_forwarding|mc_forwarding))"
    r"|net\.netfilter\.nf_conntrack_(tcp_loose|tcp_be_liberal|checksum)")
"""Sysctls that may change an IPv4 packet's way (Documentation/networking/ip-sysctl.rst, nf_conntrack-sysctl.rst)."""

_DEFAULTS = (
    ("net.ipv4.ip_forward", "0"), ("net.ipv4.conf.all.rp_filter", "0"), ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.accept_local", "0"), ("net.ipv4.conf.default.accept_local", "0"),
    ("net.ipv4.conf.all.route_localnet", "0"), ("net.ipv4.conf.default.route_localnet", "0"),
)
"""What a host that does not say otherwise is taken to have; a new namespace would take over the machine's values."""


@dataclass(frozen=True, slots=True)
class Uses:
    """What a ruleset needs from the kernel and from packets.

    Attributes:
        modules, targets: names of matches and targets.
        tracked: whether conntrack is in use; without, a packet has no state.
        nat: whether there is a nat table.
        connmarks, owners, macs, flow_protocols: whether a rule looks at connection marks, at the owner of packets, at
            MAC addresses, or at the protocol of a packet's flow.
    """

    modules: frozenset[str]
    targets: frozenset[str]
    tracked: bool
    nat: bool
    connmarks: bool
    owners: bool
    macs: bool
    flow_protocols: bool


def uses(host: Host) -> Uses:
    """What a host's ruleset needs from the kernel and from packets."""
    rules = [rule for table in host.ruleset.tables for chain in table.chains for rule in chain.rules]
    modules = frozenset(match.module for rule in rules for match in rule.matches)
    targets = frozenset(rule.target.name for rule in rules if rule.target is not None)
    return Uses(
        modules, targets,
        tracked=bool(modules & _TRACKING_MATCHES or targets & _TRACKING_TARGETS),
        nat=host.ruleset.table("nat") is not None,
        connmarks="connmark" in modules or "CONNMARK" in targets,
        owners="owner" in modules,
        flow_protocols=any(match.module == "conntrack" and match.get("ctproto") is not None
                           for rule in rules for match in rule.matches),
        macs="mac" in modules or any("mac" in DIMENSIONS[s.type] for s in host.ipsets),
    )


def devices(host: Host) -> tuple[Interface, ...]:
    """Interfaces through which IP packets can arrive: up, and no port of a bridge; ``lo`` is not among them."""
    return tuple(i for i in host.interfaces if i.up and i.master is None and i.name != "lo")


def _built(host: Host) -> tuple[Interface, ...]:
    """Interfaces that are built: also those that only lend their addresses, which are the host's own even when down."""
    arriving = devices(host)
    return arriving + tuple(i for i in host.interfaces
                            if i.name != "lo" and i not in arriving and any(a.family == 4 for a in i.addresses))


def plan(host: Host, packets: PacketBatch, broken: Array, backend: str, connections: Array | None = None) -> Job:
    """The job of asking the kernel what `host` does to `packets`.

    Args:
        host: the host.
        packets: packets that the judge can make.
        broken: for each, whether its checksum is to be wrong.
        backend: ``nft`` or ``legacy``.
        connections: as in :class:`Job`.

    Raises:
        HostError: the host needs something that the judge has no words for.
    """
    used = uses(host)
    rules, twins = _with_twins(host.ruleset)
    early, late = _sysctls(host)
    if connections is not None:  # made-up segments have no sequence numbers to go by
        early.append(("net/netfilter/nf_conntrack_tcp_be_liberal", "1", used.tracked))
    columns = {name: packets.column(name) for name in COLUMNS if name != "broken"}
    codes = [LOCAL_CODE if name == LOCAL else code for code, name in enumerate(packets.interfaces)]
    columns["iif"] = np.array([*codes, LOCAL_CODE], np.int16)[packets.column("iif")]
    columns["broken"] = broken
    return Job(
        backend=backend,
        devices=tuple(i.name for i in _built(host)),
        links="".join(f"{line}\n" for line in _links(host, quiet=connections is not None)),
        sysctls=(*early, *late),
        early_sysctls=len(early),
        ipsets="".join(f"{line}\n" for s in host.ipsets for line in ipset_lines(s)),
        rules=str(rules),
        tables=tuple(t.name for t in rules.tables),
        twins=twins,
        names=packets.interfaces,
        columns={name: np.ascontiguousarray(values) for name, values in columns.items()},
        tracked=used.tracked, nat=used.nat, marks_connections=used.connmarks,
        connections=connections,
    )


def _with_twins(ruleset: Ruleset) -> tuple[Ruleset, frozenset[tuple[str, str, int]]]:
    """The rules with a twin in front of each REJECT: the same tests, but it only logs. It tells a REJECT from a DROP
    where the kernel sends no answer (to ICMP errors, fragments, broadcasts, wrong checksums)."""
    log = Target("NFLOG", (Option("nflog-group", REJECTED, text=(str(REJECTED),)),
                           Option("nflog-threshold", 1, text=("1",))))
    found: set[tuple[str, str, int]] = set()
    tables = []
    for table in ruleset.tables:
        chains: list[Chain] = []
        for chain in table.chains:
            rules: list[Rule] = []
            for rule in chain.rules:
                if rule.target is not None and rule.target.name == "REJECT":
                    rules.append(replace(rule, target=log))
                    found.add((table.name, chain.name, len(rules)))
                rules.append(rule)
            chains.append(replace(chain, rules=tuple(rules)))
        tables.append(replace(table, chains=tuple(chains)))
    return replace(ruleset, tables=tuple(tables)), frozenset(found)


def _sysctls(host: Host) -> tuple[list[Sysctl], list[Sysctl]]:
    """Sysctls before and after there are devices; ``all`` and ``default`` change others, so they are early."""
    wanted = dict(_DEFAULTS) | {k: v for k, v in host.sysctls if _SYSCTLS.fullmatch(k)}
    names = {i.name for i in _built(host)} | {"lo"}
    early: list[Sysctl] = []
    late: list[Sysctl] = []
    for key, value in wanted.items():
        conf = re.fullmatch(r"net\.ipv4\.conf\.(.+)\.(\w+)", key)
        if conf is None:
            early.append((key.replace(".", "/"), value, not key.startswith("net.netfilter.")))
        elif conf[1] in ("all", "default"):
            early.append((f"net/ipv4/conf/{conf[1]}/{conf[2]}", value, True))
        elif conf[1] in names:
            late.append((f"net/ipv4/conf/{conf[1]}/{conf[2]}", value, True))
    return early, late


def dotted(address: int) -> str:
    """An IPv4 address as people write it."""
    return ".".join(str(byte) for byte in address.to_bytes(4))


def _prefix(network: Network) -> str:
    bits = 32 if network.family == 4 else 128
    length = network.mask.bit_count()
    if network.mask != (1 << bits) - (1 << bits - length):
        raise HostError(f"the mask {network.mask:#x} of a route or an ipset entry is no prefix")
    return f"{format_address(network.address, network.family)}/{length}"


def _links(host: Host, *, quiet: bool) -> Iterator[str]:
    """`ip` commands; a quiet device asks for no neighbour's address before it sends."""
    built = _built(host)
    yield "link set dev lo up"
    for interface in (*(i for i in host.interfaces if i.name == "lo"), *built):
        name = interface.name
        if name != "lo":
            words = [" arp off"] * quiet + [" up"] * interface.up
            yield f"link set dev {name} mtu {LONGEST}{''.join(words)}"
        for a in interface.addresses:
            if a.family != 4 or (name == "lo" and a.address == 0x7F000001):
                continue
            local = f"{dotted(a.address)} peer {dotted(a.peer)}" if a.peer is not None else dotted(a.address)
            broadcast = f" brd {dotted(a.broadcast)}" if a.broadcast is not None else ""
            yield f"addr add {local}/{a.prefixlen}{broadcast} dev {name} scope {a.scope}"
    if not host.complete:
        return
    usable = {i.name for i in built if i.up} | {"lo"}
    yield "route flush table main"
    for route in host.routes:
        if route.destination.family == 4 and (route.dev is None or route.dev in usable):
            yield f"route append {route_text(route)}"


def route_text(route: Route) -> str:
    """A route as `ip route` takes it."""
    words = [route.type, _prefix(route.destination)]
    if route.gateway is not None:
        words += ["via", dotted(route.gateway)]
    if route.dev is not None:
        words += ["dev", route.dev]
    if route.gateway is not None and route.dev is not None:
        words.append("onlink")
    if route.prefsrc is not None:
        words += ["src", dotted(route.prefsrc)]
    if route.metric:
        words += ["metric", str(route.metric)]
    return " ".join([*words, "table", route.table])


def ipset_lines(ipset: IpSet) -> Iterator[str]:
    """An ipset as `ipset restore` reads it."""
    yield " ".join(["create", ipset.name, ipset.type, *ipset.options])
    kinds = DIMENSIONS[ipset.type]
    for entry in ipset.entries:
        parts = [_element(element, kind) for element, kind in zip(entry.elements, kinds, strict=False)]
        flags = [" nomatch"] if entry.nomatch else []
        if any(isinstance(e, str) and k == "iface" and e.endswith("+")
               for e, k in zip(entry.elements, kinds, strict=False)):
            flags.append(" wildcard")
        yield f"add {ipset.name} {','.join(parts)}{''.join(flags)}"


def _element(element: SetElement, kind: str) -> str:
    if isinstance(element, AddressRange):
        first, last = (format_address(a, element.family) for a in (element.first, element.last))
        return first if first == last else f"{first}-{last}"
    if isinstance(element, Network):
        if kind == "ip":  # of a set with a netmask
            return format_address(element.address, element.family)
        return _prefix(element)
    if isinstance(element, PortElement):
        ports = str(element.first) if element.first == element.last else f"{element.first}-{element.last}"
        if element.protocol is None:
            return ports
        if element.protocol in (1, 58):
            return f"{'icmp' if element.protocol == 1 else 'icmpv6'}:{element.first >> 8}/{element.first & 0xFF}"
        return f"{_PORT_PROTOCOLS.get(element.protocol, element.protocol)}:{ports}"
    if isinstance(element, str):
        return element.removesuffix("+") if kind == "iface" else element
    if kind == "mac":
        return ":".join(f"{byte:02x}" for byte in element.to_bytes(6))
    return f"{element:#x}"


_PORT_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp", 136: "udplite"}
