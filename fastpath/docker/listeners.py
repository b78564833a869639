"""Who holds a published port on the host itself, and whether it answers there.

The rules in nat redirect what arrives from elsewhere before any socket sees it. What is left for a socket is what the
rules skip: with the userland proxy, connections of the host to 127.0.0.0/8 and of containers to a port of their own
bridge. Without the proxy the rules redirect these too, and dockerd only holds the port so that nobody else takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastpath.docker.topology import Topology
    from fastpath.docker.version import EngineLike


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket on the host for a published port.

    Attributes:
        address: what it is bound to, ``0.0.0.0`` for every address of the host.
        port, protocol: the host's side.
        process: ``docker-proxy`` or ``dockerd``.
        answers: True where the process forwards what it gets to the container, False where it only holds the port.
        container, container_address, container_port: where it leads.
    """

    address: str
    port: int
    protocol: str
    process: str
    answers: bool
    container: str
    container_address: str
    container_port: int


def port_listeners(topology: Topology, engine: EngineLike) -> tuple[Listener, ...]:
    """See :meth:`Topology.listeners`."""
    from fastpath.docker.plan import make_plan
    from fastpath.docker.version import as_engine

    plan = make_plan(topology, as_engine(engine))
    proxy = plan.daemon.userland_proxy or not plan.engine.since(1, 7)
    return tuple(
        Listener(
            str(port.host_ip or "0.0.0.0"), port.host_port, port.protocol,
            "docker-proxy" if proxy else "dockerd", proxy,
            port.attachment.container, port.attachment.text, port.container_port)
        for port in plan.published if port.attachment.segment.mode != "routed")
