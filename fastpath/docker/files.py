"""A topology from whatever a path is: Compose files, a capture folder, a topology of its own format, a daemon.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fastpath.docker.errors import TopologyError
from fastpath.docker.topology import Daemon, Topology
from fastpath.docker.yamlfile import read_yaml


def read_any(
    paths: Sequence[Path],
    *,
    env: Mapping[str, str] | None = None,
    project: str | None = None,
    profiles: Sequence[str] = (),
    daemon: Daemon | None = None,
) -> Topology:
    """The topology of `paths`; several are Compose files that are merged.

    Args:
        paths: at least one.
        env, project, profiles: as :meth:`Topology.from_compose` takes them.
        daemon: the daemon's settings in place of those found there.

    Raises:
        TopologyError: nothing that can be read, with what would be right.
    """
    if len(paths) == 1 and paths[0].is_dir():
        found = Topology.from_capture(paths[0])
        return found if daemon is None else replace(found, daemon=daemon)
    if len(paths) > 1 or _is_compose(paths[0]):
        return Topology.from_compose(list(paths), env, project=project, profiles=profiles, daemon=daemon)
    found = Topology.load(paths[0])
    return found if daemon is None else replace(found, daemon=daemon)


def _is_compose(path: Path) -> bool:
    data = read_yaml(path)
    if "services" in data:
        return True
    if data.keys() & {"containers", "networks", "daemon", "machine"}:
        return False
    raise TopologyError(
        f"{path}: has neither services (a Compose file) nor networks, containers, daemon or machine (a topology)")
