"""What runs on a Docker host: its machine, its daemon's settings, networks, containers and published ports.

Data only, frozen; nothing here is resolved. What the user leaves open (subnets, addresses, bridge names, ephemeral
ports) ``plan.py`` chooses as Docker does, and ``layouts/`` writes the rules of an engine's generation. Addresses are
texts (``172.18.0.2``, ``172.18.0.0/16``), so that a topology reads like the files that it comes from.

Order counts, because it shows in the rules: networks stand in the order of their creation, containers in the order of
their start. Unless ``order`` says otherwise every network is there before the first container starts, and a container
joins all its networks when it starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpath.analysis.query import Names
    from fastpath.docker.flows import NamedFlow
    from fastpath.docker.listeners import Listener
    from fastpath.docker.reach import Reachability
    from fastpath.docker.version import EngineLike
    from fastpath.host.model import Host, Interface, Route

PROTOCOLS = ("tcp", "udp", "sctp")
"""Protocols that a port can be published for."""
GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")
"""Values of ``com.docker.network.bridge.gateway_mode_ipv4``."""
DRIVERS = ("bridge", "overlay", "macvlan", "ipvlan")
"""Network drivers whose containers have a stack of their own."""


@dataclass(frozen=True, slots=True)
class Port:
    """A published port.

    Attributes:
        container_port: 1 to 65535.
        protocol: ``tcp``, ``udp`` or ``sctp``.
        host_port: None where Docker chooses one of the ephemeral range.
        host_port_last: end of a range out of which Docker takes the first free port.
        host_ip: address it is bound to; None for the network's own choice, else every address.
        chosen: the port that Docker took where it had the choice, as far as known.
    """

    container_port: int
    protocol: str = "tcp"
    host_port: int | None = None
    host_port_last: int | None = None
    host_ip: str | None = None
    chosen: int | None = None

    @classmethod
    def parse(cls, text: str) -> tuple[Port, ...]:
        """The ports of a short form such as ``8080:80``, ``127.0.0.1:5000-5010:5000-5010/udp`` or ``80``.

        Raises:
            TopologyError: it cannot be read.
        """
        from fastpath.docker.ports import parse_short

        return parse_short(text)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place in a network.

    Attributes:
        network: the network's name.
        address: IPv4 address, None for the lowest free one.
        priority: gateway priority; of several networks the highest carries the default route and the published
            ports, and of equals the one whose name comes first.
        order: place in the sequence of everything that happened (see :class:`Network`).
    """

    network: str
    address: str | None = None
    priority: int = 0
    order: int | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """A container.

    Attributes:
        name: unique.
        networks: its endpoints; empty for the default bridge.
        mode: ``host``, ``none`` or ``container:NAME`` (the stack is shared), empty for a stack of its own.
        ports: published ports.
        links: legacy links, ``NAME`` or ``NAME:ALIAS``; they open ports where the default bridge has no icc.
        exposed: (port, protocol) pairs that the image or `--expose` names.
        publish_all: every exposed port gets an ephemeral host port (`-P`).
        extra_hosts: (name, address) pairs.
        service: the Compose service it belongs to.
        running: a container that does not run has no address and no rules.
    """

    name: str
    networks: tuple[Endpoint, ...] = ()
    mode: str = ""
    ports: tuple[Port, ...] = ()
    links: tuple[str, ...] = ()
    exposed: tuple[tuple[int, str], ...] = ()
    publish_all: bool = False
    extra_hosts: tuple[tuple[str, str], ...] = ()
    service: str = ""
    running: bool = True

    @classmethod
    def from_run(cls, command: str) -> Container:
        """The container of a command line such as ``docker run -d --name redis01 -p 6380:6379 redis``; what does not
        concern packets is left aside. Without ``--name`` it gets its image's.

        Raises:
            TopologyError: an option that `docker run` does not have, or a value that cannot be.
        """
        from fastpath.docker.run import parse_run

        return parse_run(command)


@dataclass(frozen=True, slots=True)
class Network:
    """A network.

    Attributes:
        name: unique; ``bridge`` is the default one (``docker0``).
        driver: ``bridge``, ``overlay``, ``macvlan`` or ``ipvlan``.
        subnet: IPv4 subnet; None for the next free one of the pools.
        gateway: address of the bridge; None for the lowest one.
        ip_range: part of the subnet out of which addresses are given.
        internal: no way out.
        icc: whether its containers reach each other; None is the default (the daemon's `icc` for the default bridge).
        masquerade: outgoing connections get the host's address.
        gateway_mode: ``nat``, ``nat-unprotected``, ``routed`` or ``isolated``.
        host_ip: address that outgoing connections get instead of the egress interface's (SNAT, 20.10).
        bind_ip: address that ports are published on where they do not name one.
        trusted_interfaces: host interfaces from which containers are reached directly (28.2).
        bridge: name of the bridge interface; None for ``br-`` and the id's first 12 digits.
        parent: the host interface under a macvlan or ipvlan network.
        id: the network's id; None for one that follows from the name.
        reserved: addresses that are not given to containers.
        order: place in the sequence of network creations and joins, where it is known; None is before all joins.
    """

    name: str
    driver: str = "bridge"
    subnet: str | None = None
    gateway: str | None = None
    ip_range: str | None = None
    internal: bool = False
    icc: bool | None = None
    masquerade: bool | None = None
    gateway_mode: str = "nat"
    host_ip: str | None = None
    bind_ip: str | None = None
    trusted_interfaces: tuple[str, ...] = ()
    bridge: str | None = None
    parent: str | None = None
    id: str | None = None
    reserved: tuple[str, ...] = ()
    order: int | None = None


@dataclass(frozen=True, slots=True)
class AddressPool:
    """An entry of ``default-address-pools``: `base` is cut into subnets of prefix length `size`."""

    base: str
    size: int


@dataclass(frozen=True, slots=True)
class Swarm:
    """Swarm mode on this node.

    Attributes:
        ports: ports published through the ingress network (``host_port`` is the published one).
        ingress_subnet: subnet of the ingress overlay network.
        gateway_address: address of the ingress sandbox on ``docker_gwbridge``; None for the lowest free one.
    """

    ports: tuple[Port, ...] = ()
    ingress_subnet: str = "10.0.0.0/24"
    gateway_address: str | None = None


@dataclass(frozen=True, slots=True)
class Daemon:
    """Settings of dockerd, named as in ``daemon.json`` with ``_`` for ``-``.

    ``bridge`` is ``docker0``, another bridge's name, or ``none``; ``ip`` is what ports of the default bridge are bound
    to; ``insecure_no_raw`` is the environment's DOCKER_INSECURE_NO_IPTABLES_RAW.
    """

    iptables: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    icc: bool = True
    userland_proxy: bool = True
    bip: str | None = None
    fixed_cidr: str | None = None
    default_address_pools: tuple[AddressPool, ...] = ()
    ip: str | None = None
    bridge: str = "docker0"
    allow_direct_routing: bool = False
    firewall_backend: str = "iptables"
    insecure_no_raw: bool = False
    swarm: Swarm | None = None

    @classmethod
    def from_json(cls, path: str | Path) -> Daemon:
        """Settings of a ``daemon.json``; keys that do not concern packets are passed over.

        Raises:
            TopologyError: not JSON, or a value of the wrong type.
        """
        from fastpath.docker.daemon import read_daemon_json

        return read_daemon_json(Path(path))

    @classmethod
    def from_command_line(cls, text: str) -> Daemon:
        """Settings of a command line such as ``dockerd --icc=false --bip 10.200.0.1/22``.

        Raises:
            TopologyError: an option that concerns packets and cannot be read.
        """
        from fastpath.docker.daemon import parse_command_line

        return parse_command_line(text)


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine before Docker came.

    Attributes:
        interfaces: (name, addresses) pairs, ``lo`` left out.
        routes: routes beside those that the addresses bring, as `ip route` prints them.
        ip_forward: forwarding was on before dockerd started; where it was not, dockerd 1.13 and later turns it on and
            sets the policy of FORWARD to DROP.
        sysctls: further (key, value) pairs; new interfaces take theirs from ``net.ipv4.conf.default``.
    """

    interfaces: tuple[tuple[str, tuple[str, ...]], ...] = (("eth0", ("10.0.2.15/24",)),)
    routes: tuple[str, ...] = ("default via 10.0.2.2 dev eth0",)
    ip_forward: bool = False
    sysctls: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """A Docker host: networks, containers and settings. See the module's text for what the orders mean.

    ``remarks`` are things that the reader of a file has to tell its user; :meth:`notes` repeats them.
    """

    networks: tuple[Network, ...] = ()
    containers: tuple[Container, ...] = ()
    daemon: Daemon = field(default_factory=Daemon)
    machine: Machine = field(default_factory=Machine)
    source: str = field(default="", compare=False)
    remarks: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def from_inspect(
        cls,
        networks: str | Path,
        containers: str | Path,
        *,
        daemon: Daemon | None = None,
        machine: Machine | None = None,
    ) -> Topology:
        """The topology of two files: what `docker network inspect` and `docker inspect` print.

        Networks are ordered by ``Created``, containers by ``State.StartedAt`` (``Created`` where it is missing);
        containers that do not run are left out.

        Raises:
            TopologyError: not JSON, or JSON of another shape.
        """
        from fastpath.docker.inspect import read_inspect

        return read_inspect(Path(networks), Path(containers), daemon=daemon, machine=machine)

    @classmethod
    def from_capture(cls, folder: str | Path) -> Topology:
        """The topology of a capture folder: ``networks.json`` and ``containers.json``, and as far as they are there
        ``dockerd-cmdline.txt`` (the daemon) and ``ip-addr.json``, ``ip-route.json``, ``sysctl.txt`` (the machine).

        Raises:
            TopologyError, HostError, ParseError: a file that cannot be read as what it is.
        """
        from fastpath.docker.inspect import read_capture

        return read_capture(Path(folder))

    @classmethod
    def from_compose(
        cls,
        files: str | Path | Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        *,
        project: str | None = None,
        profiles: Iterable[str] = (),
        daemon: Daemon | None = None,
        machine: Machine | None = None,
    ) -> Topology:
        """The topology that Compose files bring up; several files are merged in their order.

        Args:
            files: one path, or several.
            env: variables for interpolation; None for the process's own. A ``.env`` beside the first file gives
                those that are not set.
            project: project name; None for ``COMPOSE_PROJECT_NAME``, the file's ``name``, or its folder's name.
            profiles: active profiles.
            daemon, machine: what it runs on.

        Raises:
            TopologyError: it names the file, the path in it and the value.
        """
        from fastpath.docker.compose import read_compose

        paths = [files] if isinstance(files, str | Path) else list(files)
        return read_compose(
            [Path(path) for path in paths], env, project=project, profiles=tuple(profiles), daemon=daemon,
            machine=machine)

    @classmethod
    def from_daemon_json(cls, path: str | Path, *, machine: Machine | None = None) -> Topology:
        """A host without containers whose daemon has the settings of a ``daemon.json``.

        Raises:
            TopologyError: as :meth:`Daemon.from_json`.
        """
        return cls(daemon=Daemon.from_json(path), machine=machine or Machine(), source=str(path))

    @classmethod
    def load(cls, path: str | Path) -> Topology:
        """A topology of its own format: a YAML or JSON file whose keys are the fields of these classes.

        Raises:
            TopologyError: it names the file, the path in it and the value.
        """
        from fastpath.docker.plain import read_topology

        return read_topology(Path(path))

    def save(self, path: str | Path) -> None:
        """Write what :meth:`load` reads; JSON where the name ends in ``.json``, else YAML."""
        from fastpath.docker.plain import write_topology

        write_topology(self, Path(path))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Topology:
        """A topology of nested dicts and lists, as :meth:`load` finds them in a file.

        Raises:
            TopologyError: it names the path in it and the value.
        """
        from fastpath.docker.plain import topology_from_dict

        return topology_from_dict(data)

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts and lists of what differs from the defaults; :meth:`from_dict` gives an equal topology."""
        from fastpath.docker.plain import topology_to_dict

        return topology_to_dict(self)

    def host(self, engine: EngineLike) -> Host:
        """The host that this engine makes of the topology: interfaces, addresses, routes, sysctls, rules (IPv4).

        Raises:
            TopologyError: the topology cannot be (see :meth:`check`), or the engine's rules are not known.
        """
        from fastpath.docker.host import build_host

        return build_host(self, engine)

    def check(self) -> None:
        """Refuse what Docker would refuse: unknown names, overlapping subnets, taken addresses and ports, cycles.

        Raises:
            TopologyError: it names the offenders.
        """
        from fastpath.docker.plan import make_plan
        from fastpath.docker.version import Engine

        make_plan(self, Engine.parse("29"))

    def notes(self, engine: EngineLike) -> tuple[str, ...]:
        """What the user should know: Docker's own warnings, and settings that this engine does not have."""
        from fastpath.docker.notes import topology_notes

        return topology_notes(self, engine)

    def listeners(self, engine: EngineLike) -> tuple[Listener, ...]:
        """Which process holds each published port on the host's own addresses, and whether it answers."""
        from fastpath.docker.listeners import port_listeners

        return port_listeners(self, engine)

    def flow(
        self, source: str, destination: str, protocol: str | None = None, *, engine: EngineLike = "29"
    ) -> NamedFlow:
        """A connection by the names of its ends, as packet columns: ``flow("web", "db:5432")``,
        ``flow("external 203.0.113.9", "host:8080")``, ``flow("host", "localhost:53/udp")``.

        Ends are containers, services, ``host``, ``localhost``, ``external`` (with an address if it matters) and
        addresses; a container's port is its own, the host's is the published one.

        Args:
            source, destination: ``NAME[ ADDRESS][:PORT][/PROTOCOL]``.
            protocol: ``tcp``, ``udp``, ``sctp`` or ``icmp``; by default the ends' own, else TCP.
            engine: whose addresses; they rarely differ.

        Raises:
            TopologyError: an end that is not there, or a connection that never passes the host's rules (one stack,
                macvlan, no network); the message says whether that one works.
        """
        from fastpath.docker.flows import named_flow

        return named_flow(self, source, destination, protocol, engine)

    def reachability(self, engine: EngineLike, *, outside: str = "203.0.113.9", host: Host | None = None
                     ) -> Reachability:
        """Every container, the host and the outside against every published and unpublished port, with the reasons.

        Args:
            engine: whose rules.
            outside: the address that stands for the outside.
            host: the topology's host with other rules, such as ``topology.host(engine).edit(...)``.

        Raises:
            TopologyError: as :meth:`host`.
        """
        from fastpath.docker.reach import reachability

        return reachability(self, engine, outside=outside, host=host)

    def names(self, engine: EngineLike) -> Names:
        """The networks and containers by name, for conditions: ``fp.query(host, ..., names=topology.names("29"))``.

        Raises:
            TopologyError: as :meth:`host`.
        """
        from fastpath.docker.names import names_of

        return names_of(self, engine)

    def network(self, name: str) -> Network | None:
        """The network called `name`, or None."""
        return next((n for n in self.networks if n.name == name), None)

    def container(self, name: str) -> Container | None:
        """The container called `name`, or None."""
        return next((c for c in self.containers if c.name == name), None)

    def machine_interfaces(self) -> tuple[tuple[Interface, ...], tuple[Route, ...]]:
        """The machine's interfaces, ``lo`` first, and its routes.

        Raises:
            HostError: an address or a route that cannot be read.
        """
        from fastpath.docker.host import machine_interfaces

        return machine_interfaces(self.machine)
