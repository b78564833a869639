"""Listings of Docker's own documentation of its rules, and every captured host, where that material is at hand.

Neither is part of this project: the tests look for ``shared/docker/golden`` (listings by engine version) and
``shared/captures`` (capture folders) beside it, or where FASTPATH_SHARED says, and skip where there is nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fastpath.docker import Container, Daemon, Endpoint, Engine, Machine, Network, Port, Swarm, Topology
from fastpath.docker.plan import make_plan
from fastpath.host.model import Host
from fastpath.ruleset import load_ruleset
from tests.golden.test_docker_captures import Chains, by_luck, chains, settled

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FASTPATH_SHARED", ROOT.parent / "shared"))
LISTINGS = SHARED / "docker" / "golden"
CAPTURES = SHARED / "captures"
NAMES = sorted(path.parent.name for path in CAPTURES.glob("*/networks.json")) or ["none"]
VERSIONS = ("v28.2.2", "v29.7.2")
MACHINE = Machine(ip_forward=True)


def bridge(**options: object) -> Topology:
    """A user's network with one container and one port, as the listings have it."""
    host_ip = options.pop("host_ip", None)
    daemon = options.pop("daemon", Daemon())
    assert isinstance(daemon, Daemon)
    network = Network("bridge1", bridge="bridge1", subnet="192.0.2.0/24", **options)  # type: ignore[arg-type]
    port = Port(80, "tcp", 8080, host_ip=host_ip if isinstance(host_ip, str) else None)
    return Topology((network,), (Container("c1", (Endpoint("bridge1"),), ports=(port,)),), daemon, MACHINE)


TOPOLOGIES = {
    "new-daemon": Topology(machine=MACHINE),
    "swarm-portmap": Topology(daemon=Daemon(swarm=Swarm((Port(80, host_port=8080),))), machine=MACHINE),
    "usernet-internal": Topology((
        Network("bridgeICC", bridge="bridgeICC", subnet="192.0.2.0/24", internal=True),
        Network("bridgeNoICC", bridge="bridgeNoICC", subnet="198.51.100.0/24", internal=True, icc=False)),
        machine=MACHINE),
    "usernet-portmap": bridge(),
    "usernet-portmap-lo": bridge(host_ip="127.0.0.1"),
    "usernet-portmap-natunprot": bridge(gateway_mode="nat-unprotected"),
    "usernet-portmap-noicc": bridge(icc=False),
    "usernet-portmap-noproxy": bridge(daemon=Daemon(userland_proxy=False)),
    "usernet-portmap-routed": bridge(gateway_mode="routed"),
}


@pytest.mark.parametrize("name", sorted(TOPOLOGIES))
@pytest.mark.parametrize("version", VERSIONS)
def test_listings_come_out(version: str, name: str) -> None:
    path = LISTINGS / version / f"{name}.iptables-save"
    if not path.is_file():
        pytest.skip(f"no listings at {LISTINGS}")
    listed = load_ruleset(path)
    made = chains(TOPOLOGIES[name].host(version).ruleset)
    found = chains(listed)
    if listed.table("raw") is None:  # pages that show filter and nat alone
        made = {key: value for key, value in made.items() if key[0] != "raw"}
    assert made == found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_listing_has_its_topology(version: str) -> None:
    if not LISTINGS.is_dir():
        pytest.skip(f"no listings at {LISTINGS}")
    assert {path.stem for path in (LISTINGS / version).iterdir()} == set(TOPOLOGIES)


def captured(name: str) -> tuple[Topology, Engine, Chains]:
    folder = CAPTURES / name
    if not folder.is_dir():
        pytest.skip(f"no captures at {CAPTURES}")
    printed = (folder / "docker-version.txt").read_text(encoding="utf-8")
    version = re.search(r"Server:.*?Version:\s+(\S+)", printed, re.DOTALL)
    engine = Engine.parse(version[1] if version is not None else printed)
    return Topology.from_capture(folder), engine, chains(Host.load(folder).ruleset)


@pytest.mark.parametrize("name", NAMES)
def test_captures_come_out(name: str) -> None:
    topology, engine, expected = captured(name)
    made = chains(topology.host(engine).ruleset)
    luck = by_luck(topology, engine)
    assert settled(made, luck) == settled(expected, luck)
    if not luck:
        assert made == expected
    assert make_plan(topology, engine).bridges
