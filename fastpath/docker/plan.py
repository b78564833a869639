"""A topology with everything chosen: subnets, addresses, bridge names, host ports, and the order in which it happened.

:func:`make_plan` replays what dockerd does (networks are created, containers join them, the container's gateway
endpoint publishes its ports) and records each act as a step. A layout turns the steps into rules one by one, so that
the order of rules follows from the order of acts, as it does on a real host.

Two things depend on the engine: the order in which the ports of one container are published, and which settings exist.
Up to 26 dockerd sorts ports with a comparison that is no order (higher host port, *or* higher container port, first),
and begins with the random order of a map: for ports where the two disagree, the order on a real host is a matter of
luck. The plan takes the likeliest one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from typing import TypeAlias

from fastpath.docker.addresses import Addresses, Pools, parse_address, parse_subnet
from fastpath.docker.errors import TopologyError, about
from fastpath.docker.topology import (
    DRIVERS,
    GATEWAY_MODES,
    PROTOCOLS,
    Container,
    Daemon,
    Endpoint,
    Machine,
    Network,
    Port,
    Topology,
)
from fastpath.docker.version import Engine

DEFAULT_NETWORK = "bridge"
GATEWAY_BRIDGE = "docker_gwbridge"
EPHEMERAL = (32768, 60999)
"""Linux' default ``net.ipv4.ip_local_port_range``, out of which dockerd takes host ports."""
_ANY = IPv4Address(0)


@dataclass(frozen=True)
class Segment:
    """A network with its choices made. ``bridge`` is the host's interface, None for drivers without one; ``gateway`` is
    None where the bridge has no address (``isolated``)."""

    name: str
    driver: str
    bridge: str | None
    subnet: IPv4Network
    gateway: IPv4Address | None
    internal: bool
    icc: bool
    masquerade: bool
    mode: str
    host_ip: IPv4Address | None
    bind_ip: IPv4Address | None
    trusted_interfaces: tuple[str, ...]

    @cached_property
    def text(self) -> str:
        """The subnet as rules print it."""
        return str(self.subnet)


@dataclass(frozen=True)
class Attachment:
    """A container's (or the ingress sandbox's) place in a segment."""

    container: str
    segment: Segment
    address: IPv4Address

    @cached_property
    def text(self) -> str:
        """The address as rules print it, without prefix length."""
        return str(self.address)


@dataclass(frozen=True, slots=True)
class Published:
    """A port as it is published: ``host_ip`` is None for every address."""

    attachment: Attachment
    protocol: str
    container_port: int
    host_ip: IPv4Address | None
    host_port: int


@dataclass(frozen=True, slots=True)
class Linked:
    """A legacy link: `parent` reaches the exposed `port` of `child`."""

    parent: Attachment
    child: Attachment
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Ingress:
    """A port that swarm publishes on every node: DNAT to the ingress sandbox on ``docker_gwbridge``."""

    protocol: str
    port: int
    address: IPv4Address


Step: TypeAlias = Segment | Attachment | Published | Linked | Ingress
"""An act: a network is created, a container joins, a port is published, a link opened, an ingress port published."""


@dataclass(frozen=True)
class Plan:
    """Everything resolved.

    Attributes:
        engine, daemon, machine: what it was made for.
        segments: networks with an address range, in order of creation.
        attachments: every container's places, in order of joining.
        published: published ports that are in effect.
        steps: what a layout has to write rules for, in order.
        stacks: container -> the container, or ``host``, or ``none``, whose network stack it uses.
        ineffective: published ports without effect, as (container, port, reason).
        gateways: container -> the segment that carries its default route; containers without one are not in it.
    """

    engine: Engine
    daemon: Daemon
    machine: Machine
    segments: tuple[Segment, ...]
    attachments: tuple[Attachment, ...]
    published: tuple[Published, ...]
    steps: tuple[Step, ...]
    stacks: dict[str, str]
    ineffective: tuple[tuple[str, Port, str], ...]
    gateways: dict[str, str]

    @property
    def bridges(self) -> tuple[Segment, ...]:
        """Segments with a bridge interface on the host."""
        return tuple(segment for segment in self.segments if segment.bridge is not None)


def make_plan(topology: Topology, engine: Engine) -> Plan:
    """What `engine` makes of a topology.

    Raises:
        TopologyError: what Docker would refuse; see :meth:`Topology.check`.
    """
    return _Builder(topology, engine).build()


def bridge_name(network: Network, daemon: Daemon) -> str:
    """The host's interface of a bridge network."""
    if network.bridge is not None:
        return network.bridge
    if network.name == DEFAULT_NETWORK:
        return daemon.bridge
    if network.name == GATEWAY_BRIDGE:
        return GATEWAY_BRIDGE
    return f"br-{(network.id or hashlib.sha256(network.name.encode()).hexdigest())[:12]}"


def stacks(containers: Iterable[Container]) -> dict[str, str]:
    """Container -> whose network stack it uses: itself, another container, ``host`` or ``none``.

    Raises:
        TopologyError: a mode that is not understood, an unknown container, or a cycle.
    """
    by_name = {container.name: container for container in containers}
    found: dict[str, str] = {}
    for name in by_name:
        seen = [name]
        while True:
            mode = by_name[seen[-1]].mode
            if mode in ("", "host", "none"):
                found[name] = mode or seen[-1]
                break
            kind, _, other = mode.partition(":")
            with about("container", seen[-1], "mode"):
                if kind != "container" or not other:
                    raise TopologyError(f"container {seen[-1]!r}: mode {mode!r} should be host, none or container:NAME")
                if other not in by_name:
                    raise TopologyError(f"container {seen[-1]!r}: mode {mode!r} names an unknown container")
                if other in seen:
                    raise TopologyError(
                        f"container {name!r}: shared stacks form a cycle: {' -> '.join([*seen, other])}")
            seen.append(other)
    return found


def _check(container: Container) -> None:
    """Refuse what a container cannot be by itself."""
    where = f"container {container.name!r}"
    if container.mode and container.networks:
        raise TopologyError(f"{where}: mode {container.mode!r} and networks exclude each other")
    for port in container.ports:
        numbers = (port.container_port, port.host_port, port.host_port_last, port.chosen)
        if not all(number is None or 1 <= number <= 65535 for number in numbers):
            raise TopologyError(f"{where}: {port} has a port outside 1 to 65535")
        if port.protocol not in PROTOCOLS:
            raise TopologyError(f"{where}: protocol {port.protocol!r} should be one of {', '.join(PROTOCOLS)}")


class _Builder:
    def __init__(self, topology: Topology, engine: Engine) -> None:
        self.topology = topology
        self.engine = engine
        self.daemon = topology.daemon
        interfaces, routes = topology.machine_interfaces()
        machine = [
            IPv4Network((a.address, a.prefixlen), strict=False)
            for interface in interfaces for a in interface.addresses if a.family == 4 and interface.name != "lo"
        ]
        machine += [
            IPv4Network((r.destination.address, r.destination.mask.bit_count()))
            for r in routes if r.destination.family == 4 and r.destination.mask
        ]
        self.pools = Pools(self.daemon.default_address_pools, machine)
        self.segments: dict[str, Segment] = {}
        self.addresses: dict[str, Addresses] = {}
        self.attachments: list[Attachment] = []
        self.places: dict[str, list[tuple[Endpoint, Attachment]]] = {}
        self.gateways: dict[str, str] = {}
        self.publications: dict[str, list[Step]] = {}
        self.acts: list[Segment | Attachment | tuple[str, str]] = []
        self.holders: dict[tuple[str, int], list[tuple[IPv4Address, str]]] = {}
        self.next_ephemeral: dict[str, int] = {}
        self.ineffective: list[tuple[str, Port, str]] = []
        self.ingress: list[Step] = []

    def build(self) -> Plan:
        for kind, names in (
            ("network", [network.name for network in self.topology.networks]),
            ("container", [container.name for container in self.topology.containers]),
        ):
            if len({*names}) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise TopologyError(f"{kind} {twice!r} is there twice; names should be unique")
        stack_of = stacks(self.topology.containers)
        for container in self.topology.containers:
            with about("container", container.name):
                _check(container)
        for act in self._sequence():
            if isinstance(act, Network):
                with about("network", act.name):
                    self._create(act)
            else:
                with about("container", act[0].name, "networks", act[1].network):
                    self._join(*act)
        self._unused_ports(stack_of)
        return Plan(
            self.engine, self.daemon, self.topology.machine, tuple(self.segments.values()), tuple(self.attachments),
            tuple(step for steps in self.publications.values() for step in steps if isinstance(step, Published)),
            tuple(self._steps()), stack_of, tuple(self.ineffective), dict(self.gateways))

    # ------------------------------------------------------------------------------------------- order of acts

    def _sequence(self) -> list[Network | tuple[Container, Endpoint]]:
        """Network creations and joins in order: those without a place of their own first and last."""
        networks = list(self.topology.networks)
        known = {network.name for network in networks}
        if DEFAULT_NETWORK not in known and self.daemon.bridge != "none":
            networks.insert(0, Network(DEFAULT_NETWORK))
        overlays = any(network.driver == "overlay" for network in networks)
        if (self.daemon.swarm is not None or overlays) and GATEWAY_BRIDGE not in known:
            first = 1 if networks and networks[0].name == DEFAULT_NETWORK else 0
            networks.insert(first, Network(GATEWAY_BRIDGE, icc=False))
        acts: list[tuple[int, Network | tuple[Container, Endpoint]]] = [(n.order or 0, n) for n in networks]
        last = 1 << 62
        for container in self.topology.containers:
            if container.mode or not container.running:
                continue
            if not container.networks and self.daemon.bridge == "none":
                continue
            for endpoint in container.networks or (Endpoint(DEFAULT_NETWORK),):
                acts.append((last if endpoint.order is None else endpoint.order, (container, endpoint)))
        return [act for _, act in sorted(acts, key=lambda item: item[0])]

    def _steps(self) -> Iterable[Step]:
        for act in self.acts:
            if isinstance(act, tuple):
                container, network = act
                if self.gateways.get(container) == network:
                    yield from self.publications.get(container, ())
            else:
                yield act
                if isinstance(act, Segment) and act.name == GATEWAY_BRIDGE:
                    yield from self.ingress

    # ------------------------------------------------------------------------------------------------ networks

    def _create(self, network: Network) -> None:
        where = f"network {network.name!r}"
        with about("network", network.name, "driver"):
            if network.driver not in DRIVERS:
                raise TopologyError(f"{where}: driver {network.driver!r} should be one of {', '.join(DRIVERS)}")
        if network.gateway_mode not in GATEWAY_MODES:
            raise TopologyError(
                f"{where}: gateway mode {network.gateway_mode!r} should be one of {', '.join(GATEWAY_MODES)}")
        if network.gateway_mode == "isolated" and not network.internal:
            raise TopologyError(f"{where}: gateway mode 'isolated' is for internal networks only")
        default = network.name == DEFAULT_NETWORK
        subnet, gateway, ip_range = self._ranges(network, default, where)
        addresses = Addresses(subnet, ip_range, where)
        self.addresses[network.name] = addresses
        for text in network.reserved:
            addresses.take(parse_address(text, where), where)
        if gateway is not None:
            with about("network", network.name, "gateway"):
                addresses.take(gateway, where)
        elif network.gateway_mode != "isolated" or not self.engine.since(28, 0):
            gateway = addresses.next(where)
        bridge = bridge_name(network, self.daemon) if network.driver == "bridge" else None
        if bridge is not None:
            with about("network", network.name, "bridge"):
                if len(bridge) > 15:
                    raise TopologyError(f"{where}: bridge name {bridge!r} is longer than Linux' 15 characters")
                other = next((s.name for s in self.segments.values() if s.bridge == bridge), None)
                if other is not None:
                    raise TopologyError(f"{where}: bridge {bridge!r} is taken by network {other!r}")
        mode = network.gateway_mode if self.engine.since(28, 0) or network.gateway_mode == "routed" else "nat"
        segment = Segment(
            network.name, network.driver, bridge, subnet, gateway, network.internal,
            network.icc if network.icc is not None else (self.daemon.icc if default else True),
            network.masquerade if network.masquerade is not None else (self.daemon.ip_masq if default else True),
            mode if self.engine.since(27, 0) else "nat",
            parse_address(network.host_ip, where) if network.host_ip else None,
            self._bind_ip(network, default, where), network.trusted_interfaces)
        self.segments[network.name] = segment
        self.acts.append(segment)
        swarm = self.daemon.swarm
        if network.name == GATEWAY_BRIDGE and swarm is not None:
            address = (addresses.take(parse_address(swarm.gateway_address, "swarm"), "ingress sandbox")
                       if swarm.gateway_address else addresses.next("ingress sandbox"))
            place = Attachment("ingress-sbox", segment, address)
            self.attachments.append(place)
            self.acts.append(place)
            for port in swarm.ports:
                if port.host_port is None:
                    raise TopologyError(f"swarm: ingress port {port.container_port} lacks the port it is published on")
                self.ingress.append(Ingress(port.protocol, port.host_port, address))

    def _ranges(
        self, network: Network, default: bool, where: str
    ) -> tuple[IPv4Network, IPv4Address | None, IPv4Network | None]:
        """Subnet, gateway (None: not named) and range of a network."""
        subnet_text, gateway_text, range_text = network.subnet, network.gateway, network.ip_range
        if default and subnet_text is None and self.daemon.bip is not None:
            address, slash, length = self.daemon.bip.partition("/")
            if not slash or not length.isdecimal() or int(length) > 32:
                raise TopologyError(f"daemon: bip {self.daemon.bip!r} should be an address such as 10.9.0.1/24")
            gateway_text = gateway_text or address
            subnet_text = str(IPv4Network((int(parse_address(address, "daemon: bip")), int(length)), strict=False))
        if default and range_text is None:
            range_text = self.daemon.fixed_cidr
        if subnet_text is None:
            subnet = self.pools.next(where)
        else:
            with about("network", network.name, "subnet"):
                subnet = parse_subnet(subnet_text, where)
                for other in self.segments.values():
                    if subnet.overlaps(other.subnet):
                        raise TopologyError(
                            f"{where}: subnet {subnet} overlaps {other.subnet} of network {other.name!r}; "
                            "give it another one, or none to let Docker choose")
            self.pools.reserve(subnet)
        with about("network", network.name, "gateway"):
            gateway = parse_address(gateway_text, where) if gateway_text else None
        with about("network", network.name, "ip_range"):
            ip_range = parse_subnet(range_text, where) if range_text else None
            if ip_range is not None and not ip_range.subnet_of(subnet):
                raise TopologyError(f"{where}: range {ip_range} should lie within the subnet {subnet}")
        return subnet, gateway, ip_range

    def _bind_ip(self, network: Network, default: bool, where: str) -> IPv4Address | None:
        text = network.bind_ip or (self.daemon.ip if default else None)
        address = parse_address(text, where) if text else None
        return None if address == _ANY else address

    # -------------------------------------------------------------------------------------------------- joins

    def _join(self, container: Container, endpoint: Endpoint) -> None:
        where = f"container {container.name!r}"
        segment = self.segments.get(endpoint.network)
        if segment is None:
            raise TopologyError(
                f"{where}: network {endpoint.network!r} does not exist (yet); there are {', '.join(self.segments)}")
        places = self.places.setdefault(container.name, [])
        if any(known.network == endpoint.network for known, _ in places):
            raise TopologyError(f"{where}: joins network {endpoint.network!r} twice")
        self._attach(container, endpoint, segment)
        if segment.driver == "overlay" and self._gateway(container.name) is None and not segment.internal:
            self._attach(container, Endpoint(GATEWAY_BRIDGE), self.segments[GATEWAY_BRIDGE])
        gateway = self._gateway(container.name)
        if gateway is not None and gateway != self.gateways.get(container.name):
            self.gateways[container.name] = gateway
            place = next(p for _, p in self.places[container.name] if p.segment.name == gateway)
            self.publications[container.name] = self._publish(container, place)

    def _attach(self, container: Container, endpoint: Endpoint, segment: Segment) -> None:
        where = f"container {container.name!r}"
        addresses = self.addresses[segment.name]
        address = (addresses.take(parse_address(endpoint.address, where), where)
                   if endpoint.address else addresses.next(where))
        place = Attachment(container.name, segment, address)
        self.attachments.append(place)
        self.places.setdefault(container.name, []).append((endpoint, place))
        if segment.bridge is not None:
            self.acts.append(place)
        self.acts.append((container.name, segment.name))

    def _gateway(self, container: str) -> str | None:
        """The network with a container's default route and published ports: highest priority (28), then first name."""
        candidates = [
            (-endpoint.priority if self.engine.since(28, 0) else 0, place.segment.name)
            for endpoint, place in self.places.get(container, ())
            if not place.segment.internal and place.segment.driver != "overlay"
        ]
        return min(candidates)[1] if candidates else None

    # -------------------------------------------------------------------------------------------------- ports

    def _publish(self, container: Container, place: Attachment) -> list[Step]:
        if container.name in self.publications:
            self._release(container.name)
        segment = place.segment
        if segment.bridge is None:
            self.ineffective += [
                (container.name, port, f"{segment.driver} networks bypass the host, so nothing is published")
                for port in container.ports]
            return []
        steps: list[Step] = []
        for port in sort_ports(self._wanted(container), self.engine):
            with about("container", container.name, "ports", port):
                address = parse_host_ip(port, segment)
            if address is None:
                continue
            host_ip = None if address == _ANY else address
            if segment.mode == "routed":
                steps.append(Published(place, port.protocol, port.container_port, host_ip, port.container_port))
                continue
            with about("container", container.name, "ports", port):
                number = self._take_port(container.name, port, address)
            steps.append(Published(place, port.protocol, port.container_port, host_ip, number))
        with about("container", container.name, "links"):
            return steps + self._links(container, place)

    def _wanted(self, container: Container) -> list[Port]:
        ports = list(container.ports)
        if container.publish_all:
            known = {(port.container_port, port.protocol) for port in ports}
            ports += [Port(port, protocol) for port, protocol in container.exposed if (port, protocol) not in known]
        return ports

    def _release(self, container: str) -> None:
        """Give back the host ports that the container held at its former gateway endpoint."""
        for held in self.holders.values():
            held[:] = [(address, owner) for address, owner in held if owner != container]

    def _take_port(self, container: str, port: Port, address: IPv4Address) -> int:
        if port.chosen is not None:
            choices: Iterable[int] = (port.chosen,)
        elif port.host_port is None:
            first = self.next_ephemeral.get(port.protocol, EPHEMERAL[0])
            choices = (*range(first, EPHEMERAL[1] + 1), *range(EPHEMERAL[0], first))
        else:
            choices = range(port.host_port, (port.host_port_last or port.host_port) + 1)
        holder = ""
        for number in choices:
            held = self.holders.setdefault((port.protocol, number), [])
            taken = [owner for other, owner in held if other == address or _ANY in (other, address)]
            if not taken:
                held.append((address, container))
                if port.host_port is None and port.chosen is None:
                    self.next_ephemeral[port.protocol] = number + 1
                return number
            holder = taken[0]
        shown = f"{port.host_port or 'ephemeral'}" + (f"-{port.host_port_last}" if port.host_port_last else "")
        raise TopologyError(
            f"container {container!r}: host port {shown}/{port.protocol} on {address} is taken by {holder!r}")

    def _links(self, container: Container, place: Attachment) -> list[Step]:
        """Legacy links of the default bridge; dockerd writes rules for them only where icc is off."""
        if place.segment.name != DEFAULT_NETWORK or place.segment.icc:
            return []
        steps: list[Step] = []
        for link in container.links:
            name = link.partition(":")[0]
            child = next((c for c in self.topology.containers if c.name == name), None)
            target = next((p for _, p in self.places.get(name, ()) if p.segment is place.segment), None)
            if child is None:
                raise TopologyError(f"container {container.name!r}: link {link!r} names an unknown container")
            if target is None:
                raise TopologyError(
                    f"container {container.name!r}: link {link!r}: container {name!r} is not on the default bridge, "
                    "or starts later")
            exposed = {*child.exposed, *((port.container_port, port.protocol) for port in child.ports)}
            steps += [Linked(place, target, protocol, port) for port, protocol in sorted(exposed)]
        return steps

    def _unused_ports(self, stack_of: dict[str, str]) -> None:
        for container in self.topology.containers:
            if not container.running or not container.ports:
                continue
            if container.mode:
                whose = {"host": "it uses the host's stack", "none": "it has no network"}.get(
                    stack_of[container.name], f"it uses the stack of {stack_of[container.name]!r}")
                self.ineffective += [(container.name, port, f"{whose}, so nothing is published")
                                     for port in container.ports]
            elif self._gateway(container.name) is None:
                self.ineffective += [(container.name, port, "it is on internal networks only, so nothing is published")
                                     for port in container.ports]


def parse_host_ip(port: Port, segment: Segment) -> IPv4Address | None:
    """The IPv4 address that a port is published on (0.0.0.0 for every one); None where it is for IPv6 only.

    Raises:
        TopologyError: no address.
    """
    if port.host_ip is None:
        return segment.bind_ip or _ANY
    if ":" in port.host_ip:
        return None
    return parse_address(port.host_ip, f"port {port.container_port}/{port.protocol}")


def sort_ports(ports: Iterable[Port], engine: Engine) -> list[Port]:
    """The ports of one container in the order in which `engine` publishes them."""
    if engine.since(27, 0):
        number = {"tcp": 6, "udp": 17, "sctp": 132}
        return sorted(ports, key=lambda p: (
            p.host_port is None or p.host_port_last is not None, p.container_port, number.get(p.protocol, 0),
            p.host_port or 0))
    found: list[Port] = []
    for port in sorted(ports, key=lambda p: f"{p.container_port}/{p.protocol}"):
        place = len(found)
        while place and goes_first(port, found[place - 1]):
            place -= 1
        found.insert(place, port)
    return found


def goes_first(one: Port, other: Port) -> bool:
    """dockerd's comparison up to 26: it holds both ways where host and container ports disagree."""
    return (
        (one.host_port or 0) > (other.host_port or 0)
        or one.container_port > other.container_port
        or (one.container_port == other.container_port and one.protocol == "tcp")
    )
