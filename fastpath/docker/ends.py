"""Ends of connections by name: containers, services, the host, its addresses, the outside; and what they send.

    end      = name [ " " address ] [ ":" port ] [ "/" protocol ]
    name     = container | service | "host" | "localhost" | "external" | address
    protocol = "tcp" | "udp" | "sctp" | "icmp"

A service is its first container. ``host`` is the address of the interface that the default route leaves by,
``localhost`` is 127.0.0.1, and ``external`` 203.0.113.9 unless an address follows. An address by itself is the host's
or a container's where it is one of theirs, else an external one. Names of a container's extra hosts are known to it.

What a container sends comes to the host through the bridge of the network that leads to the destination. Traffic that
never passes the host's rules has no packets here; :class:`Beside` says what becomes of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address

from fastpath.docker.errors import TopologyError
from fastpath.docker.plan import DEFAULT_NETWORK, GATEWAY_BRIDGE, Attachment, Plan, Segment
from fastpath.docker.topology import Container, Topology
from fastpath.host.fib import Fib
from fastpath.host.model import Host
from fastpath.packets.schema import LOCAL

OUTSIDE = "203.0.113.9"
"""The external address where none is given (TEST-NET-3, RFC 5737)."""
PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1}
CLIENT_PORT = 40000
"""Source port of connections that do not name one."""
_LOOPBACK = IPv4Address("127.0.0.1")
_END = re.compile(r"(?P<name>[^\s:/]+)(?:\s+(?P<address>[0-9.]+))?(?::(?P<port>\d+))?(?:/(?P<protocol>\w+))?\Z")


@dataclass(frozen=True, slots=True)
class End:
    """An end of a connection.

    Attributes:
        text: as it was named.
        stack: whose network stack it is: a container's name, ``host``, ``none`` or ``external``.
        address: None for a container or host that picks the one that fits the other end.
        port: None where none is named.
        protocol: empty where none is named.
    """

    text: str
    stack: str
    address: IPv4Address | None = None
    port: int | None = None
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """How a connection's first packet comes to the host: interface, addresses, and ``oif`` where the bridge itself
    carries it on, whatever routing says."""

    iif: str
    src: IPv4Address
    dst: IPv4Address
    oif: str | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """A connection that the host's rules never see, and whether it works."""

    works: bool
    reason: str


class Ends:
    """The ends of one topology under one engine."""

    def __init__(self, topology: Topology, plan: Plan, host: Host) -> None:
        self.topology = topology
        self.plan = plan
        self.host = host
        self.fib = Fib(host)
        self.places: dict[str, list[Attachment]] = {}
        for place in plan.attachments:
            self.places.setdefault(place.container, []).append(place)
        self.by_address = {int(place.address): place for place in plan.attachments}
        self.own = {a.address for i in host.interfaces for a in i.addresses if a.family == 4}

    # ------------------------------------------------------------------------------------------------ names

    def parse(self, text: str, source: str | None = None) -> End:
        """The end of a text; see the module's.

        Args:
            text: the end.
            source: the other end, as it was named; a container's extra hosts are names for it.

        Raises:
            TopologyError: it cannot be read, or names nothing that is there.
        """
        found = _END.match(text.strip())
        if found is None:
            raise TopologyError(f"flow end {text!r} should be like web, db:5432, host:8080, localhost:53/udp or "
                                "external 203.0.113.9")
        name, address_text, port_text, protocol = found.group("name", "address", "port", "protocol")
        port = int(port_text) if port_text else None
        if port is not None and not 0 < port <= 65535:
            raise TopologyError(f"flow end {text!r}: port {port} should lie within 1 to 65535")
        if protocol is not None and protocol not in PROTOCOL_NUMBERS:
            raise TopologyError(f"flow end {text!r}: protocol {protocol!r} should be one of "
                                f"{', '.join(PROTOCOL_NUMBERS)}")
        address = self._address(address_text, text) if address_text else None
        extra = self._extra_host(name, source) if source is not None and address is None else None
        stack, address = self._stack(str(extra) if extra is not None else name, address, text)
        return End(text, stack, address, port, protocol or "")

    def _extra_host(self, name: str, source: str) -> IPv4Address | None:
        """What a name stands for in the hosts file of the container called `source`; ``host-gateway`` is the default
        bridge's address."""
        found = _END.match(source.strip())
        container = self._container(found["name"]) if found is not None else None
        text = dict(container.extra_hosts).get(name) if container is not None else None
        if text == "host-gateway":
            bridge = next((s for s in self.plan.segments if s.name == DEFAULT_NETWORK), None)
            return bridge.gateway if bridge is not None else None
        return self._address(text, name) if text is not None and ":" not in text else None

    def _container(self, name: str) -> Container | None:
        """A container by its name, or a service's first."""
        return self.topology.container(name) or next(
            (c for c in self.topology.containers if c.service == name and c.running), None)

    def _address(self, text: str, where: str) -> IPv4Address:
        try:
            return IPv4Address(text)
        except ValueError:
            raise TopologyError(f"flow end {where!r}: {text!r} is not an IPv4 address") from None

    def _stack(self, name: str, address: IPv4Address | None, text: str) -> tuple[str, IPv4Address | None]:
        if name == "external":
            return "external", address or IPv4Address(OUTSIDE)
        if name == "host":
            return "host", address
        if name == "localhost":
            return "host", _LOOPBACK
        container = self._container(name)
        if container is not None:
            if not container.running:
                raise TopologyError(f"flow end {text!r}: container {container.name!r} does not run")
            return self.plan.stacks[container.name], address
        if re.fullmatch(r"[0-9.]+", name):
            number = self._address(name, text)
            if int(number) in self.own or number.is_loopback:
                return "host", number
            place = self.by_address.get(int(number))
            return (place.container if place is not None else "external"), number
        known = [*(c.name for c in self.topology.containers), "host", "localhost", "external"]
        raise TopologyError(f"flow end {text!r}: there is no container or service {name!r}; there are "
                            f"{', '.join(known[:12])}{' ...' if len(known) > 12 else ''}")

    # ------------------------------------------------------------------------------------------------ addresses

    @cached_property
    def host_address(self) -> IPv4Address:
        """The host's address for the outside: of the interface that the default route leaves by, else the first."""
        found = self.fib.lookup(int(IPv4Address(OUTSIDE)))
        names = [found.dev] if found is not None and found.dev is not None else []
        names += [name for name, _ in self.topology.machine.interfaces]
        for name in names:
            interface = self.host.interface(name)
            for a in interface.addresses if interface is not None else ():
                if a.family == 4 and name != "lo":
                    return IPv4Address(a.address)
        return _LOOPBACK

    def gateway_place(self, container: str) -> Attachment | None:
        """A container's place with its default route, None where it has no way out."""
        name = self.plan.gateways.get(container)
        return next((place for place in self.places.get(container, ()) if place.segment.name == name), None)

    def towards(self, container: str, destination: IPv4Address) -> Attachment | None:
        """The place from which a container sends to an address: on that network itself, else by its default route."""
        for place in self.places.get(container, ()):
            if destination in place.segment.subnet:
                return place
        return self.gateway_place(container)

    def seen_from(self, source: End, container: str) -> IPv4Address | None:
        """The address by which `source` knows a container: on a network that they share (the first by name, bridges
        first), else the one with its default route, else its first. ``docker_gwbridge`` is nobody's network."""
        places = [p for p in self.places.get(container, []) if p.segment.name != GATEWAY_BRIDGE]
        if source.stack in self.places:
            mine = {place.segment.name for place in self.places[source.stack]}
            shared = [place for place in places if place.segment.name in mine]
            if shared:
                return min(shared, key=lambda p: (p.segment.bridge is None, p.segment.name)).address
        gateway = self.gateway_place(container)
        bridges = (place for place in places if place.segment.bridge is not None)
        place = gateway if gateway in places else next(bridges, places[0] if places else gateway)
        return place.address if place is not None else None

    def destination_of(self, source: End, destination: End) -> IPv4Address | None:
        """The address that a connection is made to; None where the destination has none."""
        if destination.address is not None:
            return destination.address
        if destination.stack == "host":
            return self.host_address
        return self.seen_from(source, destination.stack)

    # ------------------------------------------------------------------------------------------------ what is sent

    def connect(self, source: End, destination: End) -> Sent | Beside:
        """How the first packet of a connection comes to the host."""
        for end in (source, destination):
            if end.stack == "none":
                return Beside(False, f"{end.text} has no network (mode none)")
        dst = self.destination_of(source, destination)
        if dst is None:
            return Beside(False, f"{destination.text} has no address")
        if source.stack == destination.stack and source.stack not in ("host", "external"):
            return Beside(True, "both are one network stack; it never leaves the container")
        if dst.is_loopback and source.stack != "host":
            return Beside(False, f"{dst} is the loopback address of {source.text} itself")
        if source.stack == "external":
            return self._from_outside(source, dst)
        if source.stack == "host":
            return self._from_host(source, dst)
        return self._from_container(source, dst)

    def _from_outside(self, source: End, dst: IPv4Address) -> Sent | Beside:
        assert source.address is not None
        beside = self._lan_place(dst)
        if beside is not None:
            if beside.segment.internal:
                return Beside(False, f"network {beside.segment.name} is internal: its {beside.segment.driver} "
                                     "interfaces have no way to the outside")
            if beside.segment.driver == "overlay":
                return Beside(False, "overlay addresses exist between swarm nodes only")
            return Beside(True, f"the container is on the parent's link itself ({beside.segment.driver}); no rule of "
                                "the host sees it")
        found = self.fib.lookup(int(source.address))
        if found is None or found.dev is None or found.type != "unicast":
            return Beside(False, f"the host has no route to {source.address}")
        return Sent(found.dev, source.address, dst)

    def _from_host(self, source: End, dst: IPv4Address) -> Sent | Beside:
        beside = self._lan_place(dst)
        if beside is not None:
            return Beside(False, _parent_reason(beside.segment))
        src = source.address or self.source_address(dst)
        return Sent(LOCAL, src, dst) if src is not None else Beside(False, f"the host has no route to {dst}")

    def source_address(self, dst: IPv4Address) -> IPv4Address | None:
        """The source address that the host takes for a destination."""
        found = self.fib.lookup(int(dst))
        if found is None or found.dev is None:
            return None
        if found.type == "local":
            return dst
        chosen = found.prefsrc or self.fib.masquerade_address(found.dev, found.gateway or int(dst))
        return IPv4Address(chosen) if chosen is not None else self.host_address

    def _from_container(self, source: End, dst: IPv4Address) -> Sent | Beside:
        place = self.towards(source.stack, dst)
        if source.address is not None:
            place = next((p for p in self.places.get(source.stack, ()) if p.address == source.address), place)
        if place is None:
            return Beside(False, f"{source.text} has no default route: it is on internal networks only")
        segment = place.segment
        if segment.bridge is None:
            return self._beside_bridge(place, dst)
        if dst not in segment.subnet or int(dst) in self.own:
            beside = self._lan_place(dst)
            if beside is not None:
                return Beside(False, _parent_reason(beside.segment))
            return Sent(segment.bridge, place.address, dst)
        if not self.host.sysctl("net.bridge.bridge-nf-call-iptables", 1):
            return Beside(True, f"the bridge {segment.bridge} carries it; bridge-nf-call-iptables is 0, so no rule "
                                "sees it")
        forwards = self.host.sysctl("net.ipv4.ip_forward")
        return Sent(segment.bridge, place.address, dst, None if forwards else segment.bridge)

    def _beside_bridge(self, place: Attachment, dst: IPv4Address) -> Beside:
        """What a container on a macvlan, ipvlan or overlay network sends over that."""
        segment = place.segment
        if dst in segment.subnet and int(dst) in self.by_address:
            return Beside(True, f"both are on network {segment.name} ({segment.driver}); no rule of the host sees it")
        if segment.driver == "overlay":
            return Beside(False, f"nobody has {dst} on overlay network {segment.name}")
        if segment.internal:
            return Beside(False, f"network {segment.name} is internal: it has no way out")
        if int(dst) in self.own or int(dst) in self.by_address:
            return Beside(False, _parent_reason(segment))
        return Beside(True, f"leaves by the parent interface ({segment.driver}); no rule of the host sees it")

    def _lan_place(self, dst: IPv4Address) -> Attachment | None:
        """The place of an address on a network that has no bridge."""
        place = self.by_address.get(int(dst))
        return place if place is not None and place.segment.bridge is None else None


def _parent_reason(segment: Segment) -> str:
    if segment.driver == "overlay":
        return f"overlay network {segment.name} is not on the host: only containers on it reach each other there"
    return (f"{segment.driver}: the parent interface carries nothing between the host and its {segment.driver} "
            "containers")
