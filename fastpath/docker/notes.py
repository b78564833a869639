"""What the user of a topology should know beside its rules."""

from __future__ import annotations

from collections.abc import Iterator

from fastpath.docker.plan import Plan, make_plan
from fastpath.docker.topology import Topology
from fastpath.docker.version import EngineLike, as_engine

FORWARDING_OFF = "WARNING: IPv4 forwarding is disabled. Networking will not work."


def topology_notes(topology: Topology, engine: EngineLike) -> tuple[str, ...]:
    """See :meth:`Topology.notes`."""
    plan = make_plan(topology, as_engine(engine))
    return (*topology.remarks, *_daemon_notes(plan), *_network_notes(topology, plan), *(
        f"container {container!r}: port {port.container_port}/{port.protocol}: {reason}"
        for container, port, reason in plan.ineffective))


def _daemon_notes(plan: Plan) -> Iterator[str]:
    daemon, engine = plan.daemon, plan.engine
    if not daemon.ip_forward and not plan.machine.ip_forward:
        yield FORWARDING_OFF
    if not daemon.iptables:
        yield ("iptables is false: dockerd writes no rules; published ports are served by the userland proxy alone, "
               "and containers reach the outside only where somebody else masquerades them")
        if not daemon.userland_proxy:
            yield "userland-proxy is false as well: published ports lead nowhere"
    if not daemon.userland_proxy and not engine.since(1, 7):
        yield f"Docker {engine} always runs the userland proxy; userland-proxy came with 1.7"
    if daemon.allow_direct_routing and not engine.since(28, 2):
        yield f"Docker {engine} does not know allow-direct-routing; it came with 28.2"


def _network_notes(topology: Topology, plan: Plan) -> Iterator[str]:
    engine = plan.engine
    for network in topology.networks:
        where = f"network {network.name!r}"
        if not engine.since(1, 9) and network.name not in ("bridge",):
            yield f"{where}: Docker {engine} has the default bridge only; networks came with 1.9"
        since = {"routed": (27, 0), "nat-unprotected": (28, 0), "isolated": (28, 0)}.get(network.gateway_mode)
        if since is not None and not engine.since(*since):
            yield (f"{where}: Docker {engine} does not know gateway mode {network.gateway_mode!r}; "
                   f"it came with {since[0]}.0")
        if network.host_ip and not engine.since(20, 10):
            yield f"{where}: Docker {engine} does not know host_ipv4; it came with 20.10"
        if network.trusted_interfaces and not engine.since(28, 2):
            yield f"{where}: Docker {engine} does not know trusted_host_interfaces; it came with 28.2"
        if network.internal and not engine.since(1, 10):
            yield f"{where}: Docker {engine} has no internal networks; they came with 1.10"
