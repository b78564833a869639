"""What a host's surroundings look like to its traffic: the uplink, the networks behind it, the published services.

Read from routes and addresses where the host has them, and guessed from the rules where not (a host made from a rules
file alone). A wrong guess makes traffic less lifelike, never invalid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fastpath.host.model import Host, Interface
from fastpath.packets.text import PORT_PROTOCOLS
from fastpath.ruleset.model import NatRange, Negatable, Network, PortRange, Rule

_INNER = re.compile(r"docker|br-|virbr|cni|veth|podman|lxc|cali|flannel|wg|tun|tap")
_MADE_UP_MEMBERS = 4
_UNKNOWN_HOST = 0xC0000201
"""192.0.2.1, of a block reserved for documentation: stands for the address of a host whose addresses are not known."""

ALL = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Subnet:
    """A network that the host is attached to.

    Attributes:
        interface: the host's interface in it.
        first, last: its lowest and highest address.
        own: the host's address in it.
        members: addresses of other machines in it, at least one unless the network has no room.
    """

    interface: str
    first: int
    last: int
    own: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """A port that nat passes on: packets to `address` (None: any of the host's) and `ports` go to `target`:`port`.

    ``subnet`` indexes the site's subnets, None where the target is in none of them.
    """

    proto: int
    address: int | None
    ports: tuple[int, int]
    target: int
    port: int
    subnet: int | None


@dataclass(frozen=True, slots=True)
class Site:
    """A host's surroundings.

    Attributes:
        uplink: the interface towards the rest of the world.
        addresses: the host's own addresses on the uplink.
        lan: the uplink's subnet, None where not known.
        subnets: the networks behind the other interfaces.
        services: published ports, in order of their rules.
        local_ports: (protocol, port) that the host itself serves.
    """

    uplink: str
    addresses: tuple[int, ...]
    lan: Subnet | None
    subnets: tuple[Subnet, ...]
    services: tuple[Service, ...]
    local_ports: tuple[tuple[int, int], ...]


def survey(host: Host) -> Site:
    """Looks around a host."""
    uplink = _uplink(host)
    mentioned = sorted(set(_mentioned(host)))
    subnets: list[Subnet] = []
    lan: Subnet | None = None
    addresses: list[int] = []
    for interface in host.interfaces:
        for address in interface.addresses:
            if address.family != 4 or interface.name == "lo":
                continue
            bits = 32 - address.prefixlen
            first = address.address >> bits << bits
            found = _subnet(interface.name, first, first | (1 << bits) - 1, address.address, mentioned)
            if interface.name == uplink:
                addresses.append(address.address)
                lan = lan or found
            else:
                subnets.append(found)
    if not host.complete:
        subnets += _guessed_subnets(host, uplink, mentioned)
    if not addresses:
        addresses = sorted({n.address for n in _nat_destinations(host) if n.mask == ALL}) or [_UNKNOWN_HOST]
    return Site(uplink, tuple(addresses), lan, tuple(subnets), tuple(_services(host, subnets)),
                tuple(_local_ports(host)))


def interface_names(host: Host) -> tuple[str, ...]:
    """Names of the host's interfaces and of those that its rules test; ``br+`` gives ``br0`` unless one matches.

    A bridge's ports are left out unless a rule names them: the packets that they receive arrive on the bridge.
    """
    names = dict.fromkeys(i.name for i in host.interfaces if i.master is None)
    for rule in rules_of(host):
        for test in (rule.in_interface, rule.out_interface):
            if test is None:
                continue
            name = str(test.value)
            if not name.endswith("+"):
                names.setdefault(name)
            elif not any(n.startswith(name[:-1]) for n in names):
                names.setdefault((name[:-1] or "eth") + "0")
    return tuple(names)


def rules_of(host: Host) -> Iterator[Rule]:
    """Every rule."""
    for table in host.ruleset.tables:
        for chain in table.chains:
            yield from chain.rules


def plain(test: Negatable | None) -> Negatable | None:
    """A test that is not negated, else None."""
    return None if test is None or test.negated else test


def ports_of(rule: Rule, *names: str) -> list[PortRange]:
    """The port ranges of a rule's options of those names, negated ones left out."""
    found: list[PortRange] = []
    for match in rule.matches:
        for option in match.options:
            if option.name in names and not option.negated:
                values = option.value if isinstance(option.value, tuple) else (option.value,)
                found += [v for v in values if isinstance(v, PortRange) and v.first <= v.last]
    return found


def _uplink(host: Host) -> str:
    defaults = [r for r in host.routes if r.destination.mask == 0 and r.dev and r.type == "unicast"
                and r.destination.family == 4 and r.table == "main"]
    if defaults:
        return min(defaults, key=lambda r: r.metric).dev or ""

    def rank(interface: Interface) -> tuple[bool, bool]:
        return bool(_INNER.match(interface.name)), not interface.addresses

    outer = [i for i in host.interfaces if i.name != "lo" and i.master is None]
    if outer and host.complete:
        return min(outer, key=rank).name
    names = [n for n in interface_names(host) if n != "lo" and not _INNER.match(n)]
    return names[0] if names else "eth0"


def _mentioned(host: Host) -> Iterator[int]:
    """Single addresses that rules test or rewrite to."""
    for rule in rules_of(host):
        for test in (rule.source, rule.destination):
            if test is not None and isinstance(test.value, Network) and test.value.mask == ALL:
                yield test.value.address
        target = nat_range(rule)
        if target is not None and target.address is not None and target.address.family == 4:
            yield target.address.first
            yield target.address.last


def nat_range(rule: Rule) -> NatRange | None:
    """Where a DNAT rule sends packets, else None."""
    if rule.target is None or rule.target.name != "DNAT":
        return None
    option = rule.target.get("to-destination")
    return option.value if option is not None and isinstance(option.value, NatRange) else None


def _nat_destinations(host: Host) -> Iterator[Network]:
    table = host.ruleset.table("nat")
    for chain in table.chains if table else ():
        for rule in chain.rules:
            test = plain(rule.destination)
            if nat_range(rule) is not None and test is not None and isinstance(test.value, Network):
                yield test.value


def _subnet(interface: str, first: int, last: int, own: int, mentioned: list[int]) -> Subnet:
    members = [a for a in mentioned if first < a < last and a != own]
    for made_up in range(own + 1, own + 1 + _MADE_UP_MEMBERS):
        if len(members) < 2 and first < made_up < last and made_up not in members:
            members.append(made_up)
    if not members:
        members = [a for a in range(first, min(last, first + 3) + 1) if a != own]
    return Subnet(interface, first, last, own, tuple(members))


def _guessed_subnets(host: Host, uplink: str, mentioned: list[int]) -> Iterator[Subnet]:
    """Subnets from ``-s NET ! -o BRIDGE`` rules of nat, as Docker writes them for each of its networks; then one of
    private addresses for every other interface that looks like a network behind the host."""
    seen: set[str] = set()
    table = host.ruleset.table("nat")
    for chain in table.chains if table else ():
        for rule in chain.rules:
            source, out = plain(rule.source), rule.out_interface
            if source is None or out is None or not out.negated or not isinstance(source.value, Network):
                continue
            name, net = str(out.value), source.value
            if name not in seen and not name.endswith("+") and net.mask not in (0, ALL):
                seen.add(name)
                yield _subnet(name, net.address, net.address | ~net.mask & ALL, net.address + 1, mentioned)
    free = 0xAC100000  # 172.16.0.0
    for name in interface_names(host):
        if name not in seen and name not in ("lo", uplink):
            free += 1 << 16
            yield _subnet(name, free, free | 0xFFFF, free + 1, [])


def _services(host: Host, subnets: list[Subnet]) -> Iterator[Service]:
    table = host.ruleset.table("nat")
    for chain in table.chains if table else ():
        for rule in chain.rules:
            target, protocol = nat_range(rule), plain(rule.protocol)
            if target is None or target.address is None or protocol is None or protocol.value not in PORT_PROTOCOLS:
                continue
            where = rule.destination
            if where is not None and (where.negated or not isinstance(where.value, Network)):
                continue
            address = where.value.address if where is not None and isinstance(where.value, Network) else None
            if address is not None and address >> 24 == 127:
                continue
            to = target.address.first
            subnet = next((i for i, s in enumerate(subnets) if s.first <= to <= s.last), None)
            for ports in ports_of(rule, "dport", "dports", "ports"):
                port = target.ports.first if target.ports is not None else ports.first
                yield Service(int(protocol.value), address, (ports.first, ports.last), to, port, subnet)


def _local_ports(host: Host) -> Iterator[tuple[int, int]]:
    yield from ((6, 22), (6, 443), (17, 53))
    table = host.ruleset.table("filter")
    chain = table.chain("INPUT") if table else None
    for rule in chain.rules if chain else ():
        protocol = plain(rule.protocol)
        if protocol is not None and protocol.value in PORT_PROTOCOLS:
            for ports in ports_of(rule, "dport", "dports", "ports"):
                yield int(protocol.value), ports.first
