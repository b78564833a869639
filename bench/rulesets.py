"""The rulesets that are measured: hosts of ``data/hosts``, a large Docker host, rules of classifiers."""

from __future__ import annotations

import gzip
import os
from functools import lru_cache
from pathlib import Path

from bench import classbench
from bench.flatten import FirstMatch, flatten
from fastpath.docker import Container, Endpoint, Network, Port, Topology
from fastpath.host.model import Host
from fastpath.ruleset import parse_ruleset

ROOT = Path(__file__).resolve().parents[1]
HOSTS = tuple(sorted(path.name for path in (ROOT / "data" / "hosts").iterdir() if path.is_dir()))

NETWORKS, CONTAINERS = 50, 20


@lru_cache(maxsize=1)
def docker_host(networks: int = NETWORKS, containers: int = CONTAINERS) -> Host:
    """A generated Docker host, engine 28: by default 50 networks of 20 containers, each with one published port."""
    nets = tuple(Network(f"net{i:02d}", subnet=f"10.{100 + i // 250}.{i % 250}.0/24") for i in range(networks))
    running = tuple(
        Container(f"c{i:04d}", (Endpoint(nets[i // containers].name),),
                  ports=(Port((80, 443, 5432, 6379, 8080)[i % 5], "udp" if i % 7 == 3 else "tcp", 10_000 + i),))
        for i in range(networks * containers))
    return Topology(nets, running).host("28.5")


@lru_cache(maxsize=16)
def host(name: str) -> Host:
    """A host of ``data/hosts``, or ``docker50``."""
    return docker_host() if name == "docker50" else Host.load(ROOT / "data" / "hosts" / name)


@lru_cache(maxsize=8)
def rules_host(name: str) -> Host:
    """The rules of ``style_size`` (``fw_10k``), or of an original (``fw1_10k``), as a host of nothing but rules."""
    original = originals().get(name)
    if original is not None:
        return Host(parse_ruleset(gzip.decompress(original.read_bytes()).decode()), complete=False)
    style, size = name.split("_")
    n = int(float(size.removesuffix("k")) * 1000) if size.endswith("k") else int(size)
    return Host(parse_ruleset(classbench.save_text(*classbench.generate(style, n))), complete=False)


@lru_cache(maxsize=8)
def chain_rules(name: str, table: str, chain: str) -> FirstMatch:
    """A chain of a host as first-match rules."""
    return flatten(host(name), table, chain)


@lru_cache(maxsize=8)
def classifier_rules(name: str) -> FirstMatch:
    """The rules of :func:`rules_host` as first-match rules."""
    return flatten(rules_host(name), "filter", "FORWARD")


def originals() -> dict[str, Path]:
    """Rulesets that the ClassBench generator itself made, by name, where a folder of them is at hand.

    ``FASTPATH_CLASSBENCH`` names it; else it is ``shared/classbench`` beside the repository.
    """
    folder = Path(os.environ.get("FASTPATH_CLASSBENCH") or ROOT.parent / "shared" / "classbench")
    return {path.name.partition(".")[0]: path for path in sorted(folder.glob("*.iptables.gz"))}
