"""Topologies as YAML or JSON of their own: the keys are the fields of the classes in ``topology.py``.

    networks:
      - {name: back, subnet: 10.1.0.0/24, internal: true}
    containers:
      - name: web
        networks: [back, {network: front, address: 10.2.0.9}]
        ports: ["8080:80", {container_port: 53, protocol: udp, host_port: 53}]
    daemon: {userland_proxy: false}

A published port may be a short form, an endpoint just its network's name, and pairs may be written as a mapping.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fastpath.docker.errors import TopologyError
from fastpath.docker.ports import parse_short
from fastpath.docker.topology import Endpoint, Port, Topology
from fastpath.docker.yamlfile import read_yaml

_LEFT_OUT = ("source", "remarks")


def read_topology(path: Path) -> Topology:
    """See :meth:`Topology.load`."""
    made: Topology = _made(Topology, read_yaml(path), f"{path}")
    return dataclasses.replace(made, source=str(path))


def topology_from_dict(data: Mapping[str, Any]) -> Topology:
    """See :meth:`Topology.from_dict`."""
    made: Topology = _made(Topology, data, "topology")
    return made


def topology_to_dict(topology: Topology) -> dict[str, Any]:
    """See :meth:`Topology.to_dict`."""
    found: dict[str, Any] = _plain(topology)
    return found


def write_topology(topology: Topology, path: Path) -> None:
    """See :meth:`Topology.save`."""
    data = topology_to_dict(topology)
    text = json.dumps(data, indent=2) + "\n" if path.suffix == ".json" else yaml.safe_dump(data, sort_keys=False)
    path.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        made = {}
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            if field.name not in _LEFT_OUT and item != default:
                made[field.name] = _plain(item)
        return made
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _types(cls: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.name not in _LEFT_OUT}


def _made(cls: type[Any], data: Any, where: str) -> Any:
    """A dataclass of a mapping."""
    if cls is Endpoint and isinstance(data, str):
        return Endpoint(data)
    if not isinstance(data, Mapping):
        raise TopologyError(f"{where}: {data!r} should be a mapping with the fields of {cls.__name__}")
    known = _types(cls)
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise TopologyError(f"{where}: unknown key {key!r}; {hint}")
    inside = f"{where}: " if cls is Topology else f"{where}."
    values = {key: _value(known[key], value, f"{inside}{key}") for key, value in data.items()}
    missing = [
        field.name for field in dataclasses.fields(cls)
        if field.name not in values and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING]
    if missing:
        raise TopologyError(f"{where}: {missing[0]} is missing")
    return cls(**values)


def _value(kind: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _value(next(argument for argument in arguments if argument is not types.NoneType), value, where)
    if origin is tuple:
        return _tuple(arguments, value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _made(kind, value, where)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        name = {str: "a text", int: "a whole number", bool: "true or false"}.get(kind, kind.__name__)
        raise TopologyError(f"{where}: {value!r} should be {name}")
    return value


def _tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if isinstance(value, Mapping):
        value = list(value.items())
    if not isinstance(value, list | tuple):
        raise TopologyError(f"{where}: {value!r} should be a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        if arguments[0] is Port:
            return tuple(
                port for i, item in enumerate(value)
                for port in ((_value(Port, item, f"{where}[{i}]"),) if isinstance(item, Mapping)
                             else parse_short(str(item), f"{where}[{i}]")))
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise TopologyError(f"{where}: {value!r} should have {len(arguments)} parts")
    return tuple(_value(kind, item, where) for kind, item in zip(arguments, value, strict=True))
