"""Docker: from a topology (networks, containers, ports, daemon settings) to the host that an engine makes of it.

    >>> from fastpath.docker import Container, Port, Topology
    >>> topology = Topology(containers=(Container("redis01", ports=Port.parse("6380:6379")),))
    >>> host = topology.host(engine="28.5")
    >>> [str(rule) for rule in host.ruleset.table("nat").chain("DOCKER").rules][-1]
    '! -i docker0 -p tcp -m tcp --dport 6380 -j DNAT --to-destination 172.17.0.2:6379'
"""

from fastpath.docker.errors import TopologyError
from fastpath.docker.listeners import Listener
from fastpath.docker.topology import (
    AddressPool,
    Container,
    Daemon,
    Endpoint,
    Machine,
    Network,
    Port,
    Swarm,
    Topology,
)
from fastpath.docker.version import Engine

__all__ = [
    "AddressPool", "Container", "Daemon", "Endpoint", "Engine", "Listener", "Machine", "Network", "Port", "Swarm",
    "Topology", "TopologyError",
]
