"""The host that an engine makes of a topology: interfaces, addresses, routes, sysctls, ipsets and rules.

The host's side of a container's cable is called ``veth`` and a running number; a real one has a random name, which no
rule mentions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastpath.docker.errors import TopologyError
from fastpath.docker.layouts import layout_for
from fastpath.docker.layouts.v28_0_0 import BRIDGES_SET
from fastpath.docker.plan import Plan, make_plan
from fastpath.docker.topology import Machine, Topology
from fastpath.docker.version import EngineLike, as_engine
from fastpath.host.fib import connected_routes
from fastpath.host.ipset import parse_ipsets
from fastpath.host.model import Host, Interface, Route
from fastpath.host.text import make_interface, parse_route
from fastpath.ruleset.model import Ruleset


def build_host(topology: Topology, engine: EngineLike) -> Host:
    """See :meth:`Topology.host`."""
    plan = make_plan(topology, as_engine(engine))
    source = f"{topology.source or 'topology'}, Docker {plan.engine}"
    machine, routes = machine_interfaces(topology.machine)
    made = (*machine, *_made_interfaces(plan))
    sets = ""
    if plan.daemon.firewall_backend not in ("iptables", ""):
        raise TopologyError(
            f"daemon: firewall-backend {plan.daemon.firewall_backend!r} writes no iptables rules; known is 'iptables'")
    ruleset = Ruleset(source=source)
    if plan.daemon.iptables:
        ruleset = layout_for(plan.engine)(plan).rules(source)
        if any(BRIDGES_SET in str(rule) for rule in _forward_rules(ruleset)):
            subnets = [segment.text for segment in plan.bridges if not segment.internal]
            sets = f"create {BRIDGES_SET} hash:net family inet\n" + "".join(
                f"add {BRIDGES_SET} {subnet}\n" for subnet in subnets)
    connected = connected_routes(made)
    known = {(route.destination, route.dev) for route in routes}
    return Host(
        ruleset, made, (*routes, *(route for route in connected if (route.destination, route.dev) not in known)),
        sysctls=tuple(_sysctls(plan, made)), ipsets=parse_ipsets(sets), source=source)


def machine_interfaces(machine: Machine) -> tuple[tuple[Interface, ...], tuple[Route, ...]]:
    """See :meth:`Topology.machine_interfaces`."""
    given = dict(machine.interfaces)
    names = {"lo": given.pop("lo", ("127.0.0.1/8",)), **given}
    interfaces = tuple(make_interface(name, addresses) for name, addresses in names.items())
    return interfaces, tuple(parse_route(text) for text in machine.routes)


def _made_interfaces(plan: Plan) -> Iterator[Interface]:
    """Bridges in the order of creation, then a cable for every attachment."""
    for segment in plan.bridges:
        addresses = [f"{segment.gateway}/{segment.subnet.prefixlen}"] if segment.gateway is not None else []
        plain = make_interface(segment.bridge or "", addresses)
        yield Interface(plain.name, plain.addresses, kind="bridge")
    cables = (place for place in plan.attachments if place.segment.bridge is not None)
    for number, place in enumerate(cables, 1):
        yield Interface(f"veth{number:07x}", master=place.segment.bridge, kind="veth")


def _sysctls(plan: Plan, interfaces: Iterable[Interface]) -> Iterator[tuple[str, str]]:
    """What decides a packet's way; new interfaces take their values from ``default``.

    Without the userland proxy dockerd lets its bridges carry packets from 127.0.0.0/8 (``route_localnet``, 1.7).
    """
    values = {"net.ipv4.ip_forward": "0", "net.bridge.bridge-nf-call-iptables": "1", **dict(plan.machine.sysctls)}
    if plan.daemon.ip_forward or plan.machine.ip_forward:
        values["net.ipv4.ip_forward"] = "1"
    default = "net.ipv4.conf.default."
    inherited = {key.removeprefix(default): value for key, value in values.items() if key.startswith(default)}
    inherited = {"route_localnet": "0", "rp_filter": "0", **inherited}
    hairpin = plan.daemon.iptables and not plan.daemon.userland_proxy and plan.engine.since(1, 7)
    for interface in interfaces:
        for key, value in inherited.items():
            name = f"net.ipv4.conf.{interface.name.replace('.', '/')}.{key}"
            if key == "route_localnet" and hairpin and interface.kind == "bridge":
                value = "1"
            values.setdefault(name, value)
    yield from values.items()


def _forward_rules(ruleset: Ruleset) -> Iterable[object]:
    table = ruleset.table("filter")
    chain = table.chain("FORWARD") if table is not None else None
    return chain.rules if chain is not None else ()
