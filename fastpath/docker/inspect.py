"""Topologies from what `docker network inspect` and `docker inspect` print.

The order of events is what the rules' order follows from. Networks tell when they were created, containers when they
were started; when a container joined a further network is not written anywhere, but addresses are given lowest first,
so who has the higher address of a network came later. What that leaves open counts as late: it happened after every
start.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from fastpath.docker.addresses import parse_address
from fastpath.docker.errors import TopologyError
from fastpath.docker.options import network_options
from fastpath.docker.plan import GATEWAY_BRIDGE, bridge_name
from fastpath.docker.topology import DRIVERS, Container, Daemon, Endpoint, Machine, Network, Port, Swarm, Topology
from fastpath.host.load import load_host
from fastpath.host.model import Interface, Route


def read_inspect(
    networks: Path, containers: Path, *, daemon: Daemon | None = None, machine: Machine | None = None
) -> Topology:
    """See :meth:`Topology.from_inspect`."""
    remarks: list[str] = []
    created: dict[str, str] = {}
    swarm = False
    found_networks: list[Network] = []
    for number, item in enumerate(_objects(networks)):
        where = f"{networks}: [{number}]"
        swarm = swarm or item.get("Ingress") is True
        network = _network(item, where, remarks)
        if network is not None:
            found_networks.append(network)
            created[network.name] = str(item.get("Created", ""))
    found_networks.sort(key=lambda n: (created[n.name], n.name != "bridge"))
    starts: dict[str, str] = {}
    found_containers: list[Container] = []
    items = _objects(containers)
    names = {str(item.get("Id", "")): str(item.get("Name", "")).lstrip("/") for item in items}
    known = {network.name for network in found_networks}
    explicit: set[tuple[str, str]] = set()
    for number, item in enumerate(items):
        where = f"{containers}: [{number}]"
        state = _part(item, "State", where)
        if not state.get("Running", state.get("Status") == "running"):
            continue
        container = _container(item, names, known, explicit, where)
        found_containers.append(container)
        starts[container.name] = str(state.get("StartedAt") or item.get("Created", ""))
    found_containers.sort(key=lambda c: starts[c.name])
    daemon = daemon or Daemon()
    if swarm and daemon.swarm is None:
        daemon = replace(daemon, swarm=Swarm())
        remarks.append("swarm: the inspect files do not say which ports ingress publishes; give them in Swarm")
    if GATEWAY_BRIDGE in known:
        found_networks = [
            replace(n, icc=False) if n.name == GATEWAY_BRIDGE and n.icc is None else n for n in found_networks]
    ordered = _ordered(found_networks, found_containers, created, starts, explicit)
    return Topology(*ordered, daemon, machine or Machine(), str(networks.parent), tuple(remarks))


def read_capture(folder: Path) -> Topology:
    """See :meth:`Topology.from_capture`."""
    command = folder / "dockerd-cmdline.txt"
    daemon = Daemon.from_command_line(command.read_text(encoding="utf-8")) if command.is_file() else None
    found = read_inspect(folder / "networks.json", folder / "containers.json", daemon=daemon)
    if (folder / "ip-addr.json").is_file():
        found = replace(found, machine=_machine(folder, found))
    return replace(found, source=str(folder))


# ------------------------------------------------------------------------------------------------------- parts


def _objects(path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TopologyError(f"{path}: {error}") from None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise TopologyError(f"{path}: should be an array of objects, as `docker inspect` prints")
    return data


def _part(item: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """An object inside `item`; what is missing or null is empty."""
    value = item.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TopologyError(f"{where}.{key}: {value!r} should be an object")
    return value


def _parts(item: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """A list of objects inside `item`; what is missing or null is empty."""
    value = item.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise TopologyError(f"{where}.{key}: {value!r} should be a list of objects")
    return value


def _text(item: dict[str, Any], key: str, where: str) -> str | None:
    """A text inside `item`; what is missing, null or empty is None."""
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise TopologyError(f"{where}.{key}: {value!r} should be a text")
    return value or None


def _number(value: Any, where: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise TopologyError(f"{where}: {value!r} should be a number") from None


def _network(item: dict[str, Any], where: str, remarks: list[str]) -> Network | None:
    name, driver = str(item.get("Name", "")), str(item.get("Driver", ""))
    if not name:
        raise TopologyError(f"{where}.Name: is missing")
    if driver not in DRIVERS:
        if driver not in ("host", "null"):
            remarks.append(f"network {name!r}: driver {driver!r} is not known and was left out")
        return None
    options = network_options(_part(item, "Options", where), f"{where}.Options")
    configs = _parts(_part(item, "IPAM", where), "Config", f"{where}.IPAM")
    config = next((c for c in configs if ":" not in str(c.get("Subnet", ":"))), None)
    if config is None:
        if driver != "overlay":
            remarks.append(f"network {name!r}: has no IPv4 subnet and was left out")
        return None
    place = f"{where}.IPAM.Config"
    return Network(
        name, driver, subnet=_text(config, "Subnet", place), gateway=_text(config, "Gateway", place),
        ip_range=_text(config, "IPRange", place), internal=item.get("Internal") is True, id=_text(item, "Id", where),
        reserved=tuple(str(address) for address in _part(config, "AuxiliaryAddresses", place).values()), **options)


def _container(
    item: dict[str, Any], names: dict[str, str], known: set[str], explicit: set[tuple[str, str]], where: str
) -> Container:
    name = str(item.get("Name", "")).lstrip("/")
    if not name:
        raise TopologyError(f"{where}.Name: is missing")
    settings = _part(item, "HostConfig", where)
    network_settings = _part(item, "NetworkSettings", where)
    mode = str(settings.get("NetworkMode", "default"))
    kind, _, other = mode.partition(":")
    exposed = tuple(sorted(_port_key(key, where) for key in _part(_part(item, "Config", where), "ExposedPorts", where)))
    if kind == "container":
        return Container(name, mode=f"container:{names.get(other, other)}", exposed=exposed)
    if mode in ("host", "none"):
        return Container(name, mode=mode, exposed=exposed, ports=tuple(_ports(settings, {}, where)))
    at = f"{where}.NetworkSettings.Networks"
    networks = _part(network_settings, "Networks", where)
    places = {network: _part(networks, network, at) for network in networks}
    primary = "bridge" if mode in ("default", "") else mode
    primary = next((n for n, place in places.items() if n == primary or place.get("NetworkID") == primary), primary)
    endpoints = []
    for network in sorted(places, key=lambda n: n != primary):
        address = _text(places[network], "IPAddress", f"{at}.{network}")
        if network not in known or address is None:
            continue
        parse_address(address, f"{at}.{network}.IPAddress")
        if _part(places[network], "IPAMConfig", f"{at}.{network}").get("IPv4Address"):
            explicit.add((name, network))
        priority = _number(places[network].get("GwPriority") or 0, f"{at}.{network}.GwPriority")
        endpoints.append(Endpoint(network, address, priority))
    return Container(
        name, tuple(endpoints), ports=tuple(_ports(settings, _part(network_settings, "Ports", where), where)),
        links=tuple(_links(settings.get("Links"), f"{where}.HostConfig.Links")), exposed=exposed,
        publish_all=settings.get("PublishAllPorts") is True, mode="" if endpoints else "none",
        service=str(_part(_part(item, "Config", where), "Labels", where).get("com.docker.compose.service", "")))


def _links(links: Any, where: str) -> list[str]:
    """``/db:/web/alias`` as ``db:alias``."""
    found: list[str] = []
    if links is None:
        return found
    if not isinstance(links, list):
        raise TopologyError(f"{where}: {links!r} should be a list")
    for link in links:
        target, _, alias = str(link).partition(":")
        found.append(f"{target.lstrip('/')}:{alias.rpartition('/')[2]}")
    return found


def _port_key(key: str, where: str) -> tuple[int, str]:
    number, _, protocol = str(key).partition("/")
    if not number.isdecimal():
        raise TopologyError(f"{where}: {key!r} is not a port such as 80/tcp")
    return int(number), protocol or "tcp"


def _ports(settings: dict[str, Any], actual: dict[str, Any], where: str) -> list[Port]:
    """The wanted bindings, and with them what became of those that left dockerd the choice."""
    found: list[Port] = []
    wanted = _part(settings, "PortBindings", where)
    for key in [*wanted, *(key for key in actual if key not in wanted)]:
        number, protocol = _port_key(key, where)
        at = f"{where}: port {key}"
        bound = [b for b in _parts(actual, key, at) if ":" not in str(b.get("HostIp", ""))]
        bindings = _parts(wanted, key, at)
        for place, binding in enumerate(bindings or bound):
            first, _, last = (_text(binding, "HostPort", at) or "").partition("-") if bindings else ("", "", "")
            open_choice = not first or bool(last)
            chosen = _number(bound[place].get("HostPort"), at) if open_choice and place < len(bound) else None
            found.append(Port(
                number, protocol, _number(first, at) if first else None, _number(last, at) if last else None,
                _text(binding, "HostIp", at), chosen))
    return found


# ------------------------------------------------------------------------------------------------------- order


@dataclass(frozen=True, slots=True)
class _Event:
    network: str
    container: str = ""
    address: int = 0


def _ordered(
    networks: list[Network], containers: list[Container], created: dict[str, str], starts: dict[str, str],
    explicit: set[tuple[str, str]],
) -> tuple[tuple[Network, ...], tuple[Container, ...]]:
    """Networks and endpoints with their places in the sequence of events."""
    def event(container: Container, endpoint: Endpoint) -> _Event:
        free = (container.name, endpoint.network) not in explicit
        return _Event(endpoint.network, container.name, int(IPv4Address(endpoint.address or 0)) if free else 0)

    timed = [(created[network.name], _Event(network.name)) for network in networks]
    timed += [(starts[c.name], event(c, c.networks[0])) for c in containers if c.networks]
    events = [e for _, e in sorted(timed, key=lambda item: item[0])]
    for container in containers:
        for endpoint in container.networks[1:]:
            late = event(container, endpoint)
            earliest = 1 + max(
                i for i, e in enumerate(events)
                if e.container == container.name or (e.network == late.network and not e.container))
            after = [i for i, e in enumerate(events) if e.network == late.network and e.address > late.address > 0]
            events.insert(max(earliest, min(after, default=len(events))), late)
    place = {(e.network, e.container): number for number, e in enumerate(events, 1)}
    return (
        tuple(replace(n, order=place[n.name, ""]) for n in networks),
        tuple(
            replace(c, networks=tuple(replace(e, order=place[e.network, c.name]) for e in c.networks))
            for c in containers),
    )


# ------------------------------------------------------------------------------------------------------- machine


def _machine(folder: Path, topology: Topology) -> Machine:
    """The machine under a capture: what is neither a bridge of Docker's nor the cable to a container."""
    host = load_host(folder)
    bridges = {bridge_name(n, topology.daemon) for n in topology.networks if n.driver == "bridge"}
    made = bridges | {i.name for i in host.interfaces if i.master in bridges}
    own = [i for i in host.interfaces if i.name not in made]
    connected = {(r.dev, r.prefsrc) for r in host.routes if r.gateway is None and r.prefsrc is not None}
    routes = tuple(
        _route_text(r) for r in host.routes if r.dev not in made and (r.dev, r.prefsrc) not in connected)
    names = {i.name for i in own} | {"all", "default"}
    sysctls = tuple(
        (key, value) for key, value in host.sysctls
        if key != "net.ipv4.ip_forward" and (not key.startswith("net.ipv4.conf.") or key.split(".")[3] in names))
    return Machine(tuple((i.name, _addresses(i)) for i in own), routes, sysctls=sysctls)


def _addresses(interface: Interface) -> tuple[str, ...]:
    return tuple(f"{IPv4Address(a.address)}/{a.prefixlen}" for a in interface.addresses if a.family == 4)


def _route_text(route: Route) -> str:
    words = [route.type] if route.type != "unicast" else []
    words.append(f"{IPv4Address(route.destination.address)}/{route.destination.mask.bit_count()}"
                 if route.destination.mask else "default")
    if route.gateway is not None:
        words += ["via", str(IPv4Address(route.gateway))]
    if route.dev is not None:
        words += ["dev", route.dev]
    if route.prefsrc is not None:
        words += ["src", str(IPv4Address(route.prefsrc))]
    if route.metric:
        words += ["metric", str(route.metric)]
    return " ".join(words)
