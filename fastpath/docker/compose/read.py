"""From Compose files to a topology.

What Compose decides and the files do not say: networks that no service uses are not created; networks are created in
the order in which the files declare them, the implicit default one first; services start in the order of their
dependencies, and otherwise in the order in which they are written; a service joins its networks by priority, then by
name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastpath.docker.compose import keys
from fastpath.docker.compose.interpolate import interpolate
from fastpath.docker.compose.merge import merge, normalise, strip
from fastpath.docker.compose.services import Services
from fastpath.docker.errors import TopologyError
from fastpath.docker.topology import Daemon, Machine, Topology
from fastpath.docker.yamlfile import read_yaml

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*\Z", re.ASCII)


def read_compose(
    files: list[Path],
    env: Mapping[str, str] | None = None,
    *,
    project: str | None = None,
    profiles: tuple[str, ...] = (),
    daemon: Daemon | None = None,
    machine: Machine | None = None,
) -> Topology:
    """See :meth:`Topology.from_compose`."""
    if not files:
        raise TopologyError("no Compose file was given")
    variables = {**_env_file(files[0].resolve().parent / ".env"), **(os.environ if env is None else env)}
    unset: list[str] = []
    data: dict[str, Any] = {}
    for file in files:
        read = interpolate(read_yaml(file), variables, f"{file}: ", unset)
        keys.mapping(strip(read), keys.TOP, str(file))
        if "include" in read:
            raise TopologyError(f"{file}: include: is not supported; give the included files beside this one")
        read = normalise(read, str(file))
        data = merge(data, read) if data else strip(read)
    where = ", ".join(str(file) for file in files)
    name = project or variables.get("COMPOSE_PROJECT_NAME") or data.get("name")
    if name is None:
        name = re.sub(r"[^a-z0-9_-]", "", files[0].resolve().parent.name.lower()).lstrip("_-") or "default"
    if not _PROJECT.match(str(name)):
        raise TopologyError(f"{where}: project name {name!r} should be of a-z, 0-9, - and _, a letter or digit first")
    active = {*profiles, *filter(None, variables.get("COMPOSE_PROFILES", "").split(","))}
    services = Services(data, str(name), active, where, files[0].resolve().parent, variables, unset)
    remarks = [f"{where}: variable {name} is not set and stands for nothing" for name in dict.fromkeys(unset)]
    topology = Topology(
        services.networks(), services.containers(), daemon or Daemon(), machine or Machine(), where,
        (*remarks, *services.remarks))
    try:
        topology.check()
    except TopologyError as error:
        path = services.path_of(error.subject) if error.subject is not None else ""
        raise TopologyError(f"{where}: {path}{error}") from None
    return topology


def _env_file(path: Path) -> dict[str, str]:
    """The variables of a ``.env`` file: NAME=value lines, values bare or in quotes."""
    if not path.is_file():
        return {}
    try:
        lines: Iterable[str] = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(f"{path}: cannot be read: {error}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals:
            raise TopologyError(f"{path}:{number}: {line!r} should be NAME=value")
        value = value.strip()
        if value[:1] in ("'", '"') and value.endswith(value[0]) and len(value) > 1:
            value = value[1:-1]
        else:
            value = re.split(r"\s+#", value)[0]
        found[name.strip()] = value
    return found
