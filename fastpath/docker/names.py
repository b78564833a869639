"""What names of networks and containers stand for in conditions about a topology's host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpath.docker.host import build_host
from fastpath.docker.plan import make_plan
from fastpath.docker.version import EngineLike, as_engine

if TYPE_CHECKING:
    from fastpath.analysis.query import Names
    from fastpath.docker.topology import Topology


def names_of(topology: Topology, engine: EngineLike) -> Names:
    """See :meth:`Topology.names`."""
    from fastpath.analysis.query import Names

    plan = make_plan(topology, as_engine(engine))
    containers: dict[str, list[str]] = {}
    for place in plan.attachments:
        containers.setdefault(place.container, []).append(str(place.address))
    networks = {segment.name: [segment.text] for segment in plan.segments}
    bridges = {segment.name: segment.bridge for segment in plan.segments if segment.bridge is not None}
    return Names.of(build_host(topology, engine)).with_docker(networks, containers, bridges)
