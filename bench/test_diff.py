"""Exact differences: one rule more on a large host, and two generations of Docker on one topology."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fastpath as fp
from fastpath.docker import Container, Endpoint, Network, Port, Topology

ROOT = Path(__file__).resolve().parents[1]
EDIT = "iptables -I DOCKER-USER -i eth0 ! -s 192.0.2.0/24 -j DROP"


@pytest.mark.parametrize("by", ["verdict", "verdict,nat", "verdict,egress,nat,rule"])
@pytest.mark.parametrize("name", ["docker28-seed", "docker28-big"])
def test_one_rule_inserted(benchmark: Any, name: str, by: str) -> None:
    benchmark.group = "diff: one rule inserted"
    host = fp.Host.load(ROOT / "data" / "hosts" / name)
    after = host.edit(EDIT)
    found = benchmark.pedantic(fp.diff, (host, after), {"by": by.split(",")}, rounds=3, warmup_rounds=1)
    benchmark.extra_info["regions"] = len(found)
    benchmark.extra_info["kinds"] = len(found.kinds)


def topology(networks: int) -> Topology:
    """Networks of three containers, two of which publish a port; every seventh is internal."""
    return Topology(
        networks=tuple(Network(f"net{i:02d}", internal=i % 7 == 6) for i in range(networks)),
        containers=tuple(
            Container(f"c{i}x{j}", networks=(Endpoint(f"net{i:02d}"),),
                      ports=(Port(80, "tcp", 8000 + 10 * i + j),) if j < 2 else ())
            for i in range(networks) for j in range(3)),
    )


@pytest.mark.parametrize("scope", ["any", "new", "plain"])
def test_docker_27_against_29(benchmark: Any, scope: str) -> None:
    benchmark.group = "diff: Docker 27 against 29, 20 networks"
    hosts = [topology(20).host(engine=engine) for engine in ("27", "29")]
    found = benchmark.pedantic(fp.diff, hosts, {"scope": scope}, rounds=1, warmup_rounds=0)
    benchmark.extra_info["regions"] = len(found)
    benchmark.extra_info["kinds"] = len(found.kinds)
