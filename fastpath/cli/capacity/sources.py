"""Where the planning commands take their host and traffic from: a capture, or a Compose file and a Docker engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastpath.capacity.traffic.packets import Traffic
    from fastpath.capacity.traffic.profile import Profile
    from fastpath.docker import Topology
    from fastpath.host.model import Host

DEFAULT_ENGINE = "28.5"

HostOption = Annotated[Path | None, typer.Option("--host", "-H", help="Capture folder.", show_default=False)]
ComposeOption = Annotated[
    list[Path] | None,
    typer.Option("--compose", "-f", show_default=False,
                 help="Instead of --host: Compose file (repeatable: merged), or a topology in YAML or JSON."),
]
EngineOption = Annotated[str, typer.Option("--engine", "-e", help="With --compose: Docker version.")]
TrafficOption = Annotated[
    Path, typer.Option("--traffic", "-t", help="Traffic profile, a YAML file.", show_default=False)
]
KernelOption = Annotated[str, typer.Option("--kernel", help="Linux version that the host runs.")]
LimitOption = Annotated[
    int | None, typer.Option("--max", min=1, help="nf_conntrack_max; by default the host's own where its sysctls are "
                             "known, else 262144.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True)
class Source:
    """A host, and what its things are called.

    Attributes:
        host: the host.
        names: containers and networks, for a profile.
        topology: where it was made from one.
        words: the options that say so, as they were given.
    """

    host: Host
    names: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    topology: Topology | None = None
    words: tuple[str, ...] = ()


def load_source(host: Path | None, compose: list[Path] | None, engine: str) -> Source:
    """The host that the options name.

    Raises:
        typer.BadParameter: neither or both are given.
    """
    if (host is None) == (not compose):
        raise typer.BadParameter("give one of them", param_hint="--host / --compose")
    if host is not None:
        from fastpath.host.model import Host

        return Source(Host.load(host), words=("--host", str(host)))
    import os

    from fastpath.capacity.traffic.places import names_of
    from fastpath.docker.files import read_any

    topology = read_any(compose or [], env=os.environ)
    words = tuple(word for path in compose or [] for word in ("--compose", str(path)))
    return Source(topology.host(engine), names_of(topology, engine), topology, (*words, "--engine", engine))


def load_traffic(source: Source, profile: Profile, count: int = 100_000, seed: int = 0) -> Traffic:
    """The profile's packets on that host."""
    return profile.on(source.host, count, names=source.names, seed=seed)


def kernel_version(text: str) -> tuple[int, int]:
    """``6.12`` or ``6.12.3-generic`` as a pair.

    Raises:
        typer.BadParameter: not a version.
    """
    parts = text.split(".")
    try:
        return int(parts[0]), int(parts[1].split("-")[0])
    except (IndexError, ValueError):
        raise typer.BadParameter(f"{text!r} should be a Linux version such as 6.12", param_hint="--kernel") from None
