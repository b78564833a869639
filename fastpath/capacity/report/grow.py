"""The same traffic on a host that grows: more networks for a topology, more rules of one's own for a captured host.

What is added comes after what is there, so the profile's packets stay what they are: they are made once, on the host as
it is, and evaluated on all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fastpath.capacity.cpu.model import CostModel
from fastpath.capacity.cpu.steps import Backend
from fastpath.capacity.growth.result import SweepResult
from fastpath.capacity.growth.sweep import sweep
from fastpath.capacity.traffic.places import names_of
from fastpath.capacity.traffic.profile import Profile
from fastpath.docker import Container, Endpoint, Network, Port, Topology
from fastpath.host.model import Host
from fastpath.ruleset.parse import parse_ruleset

ENGINES = ("20.10", "27", "28.5", "29")
NETWORKS = (0, 10, 25, 50, 75, 100)
RULES = (0, 30, 100, 300, 1000, 3000)
_PACKETS = 4000

Progress = Callable[[int, int], None]


def grown_topology(topology: Topology, more: int) -> Topology:
    """The topology with `more` networks, each with one container that publishes a port; their subnets are of the block
    for benchmarks (RFC 2544), so that Docker's pools do not run out."""
    networks = tuple(Network(f"more-{n}", subnet=f"198.{18 + (n >> 8)}.{n & 255}.0/24") for n in range(1, more + 1))
    containers = tuple(
        Container(f"more-{n}", networks=(Endpoint(f"more-{n}"),), ports=(Port(80, host_port=20_000 + n),))
        for n in range(1, more + 1))
    return replace(topology, networks=(*topology.networks, *networks), containers=(*topology.containers, *containers))


def grown_host(host: Host, more: int) -> Host:
    """The host with `more` rules that drop single sources, in front of DOCKER-USER or, without it, of FORWARD."""
    table = host.ruleset.table("filter")
    if table is None or not more:
        return host
    names = [chain.name for chain in table.chains]
    where = "DOCKER-USER" if "DOCKER-USER" in names else "FORWARD"
    lines = [f"-A FORWARD -s 198.{18 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/32 -j DROP" for n in range(more)]
    made = parse_ruleset("\n".join(["*filter", ":FORWARD ACCEPT [0:0]", *lines, "COMMIT", ""]))
    rules = made.tables[0].chains[0].rules
    chains = tuple(replace(chain, rules=(*rules, *chain.rules)) if chain.name == where else chain
                   for chain in table.chains)
    tables = tuple(replace(each, chains=chains) if each.name == "filter" else each for each in host.ruleset.tables)
    return host.with_ruleset(replace(host.ruleset, tables=tables))


def by_networks(
    topology: Topology, profile: Profile, engines: Sequence[str] = ENGINES, sizes: Sequence[int] = NETWORKS, *,
    backend: Backend = "nft", model: CostModel | None = None, budgets: Mapping[str, float] | None = None,
    seed: int = 0, progress: Progress | None = None,
) -> SweepResult:
    """A sweep over networks, for several Docker engines."""
    found = []
    for number, engine in enumerate(engines):
        packets = profile.on(topology.host(engine), _PACKETS, names=names_of(topology, engine), seed=seed).packets
        found.append(sweep(
            lambda more: grown_topology(topology, int(more)), sizes, packets, [engine], name="more networks",
            backend=backend, model=model, budgets=budgets or {}, processes=1))
        if progress is not None:
            progress(number + 1, len(engines))
    first = found[0]
    return replace(
        first, rows=tuple(row for each in found for row in each.rows), knees=tuple(k for e in found for k in e.knees),
        crossings=tuple(c for each in found for c in each.crossings), seconds=sum(each.seconds for each in found))


def by_rules(
    host: Host, profile: Profile, sizes: Sequence[int] = RULES, *, backend: Backend = "nft",
    model: CostModel | None = None, budgets: Mapping[str, float] | None = None, seed: int = 0,
) -> SweepResult:
    """A sweep over rules of one's own, for a host as it was captured."""
    packets = profile.on(host, _PACKETS, seed=seed).packets
    found = sweep(lambda more: grown_host(host, int(more)), sizes, packets, name="more rules",
                  backend=backend, model=model, budgets=budgets or {}, processes=1)
    return replace(found, rows=tuple(replace(row, engine="this host") for row in found.rows),
                   knees=tuple(replace(knee, engine="this host") for knee in found.knees),
                   crossings=tuple(replace(each, engine="this host") for each in found.crossings))
