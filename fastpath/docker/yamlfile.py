"""YAML as Compose reads it: version 1.2's plain values, no key twice, and the tags ``!reset`` and ``!override``.

PyYAML follows YAML 1.1, where ``22:22`` is a number to base 60 and ``on`` is true; a port or a name must stay what it
is.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fastpath.docker.errors import TopologyError


@dataclass(frozen=True, slots=True)
class Override:
    """A value under ``!override``: it replaces what earlier files say. ``!reset`` is one that holds None."""

    value: Any


class _Loader(yaml.SafeLoader):
    """SafeLoader with the resolvers of YAML 1.2's core schema, and merge keys."""

    yaml_implicit_resolvers = {}


_PLAIN: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?(?:[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?\Z", "-+.0123456789"),
    ("tag:yaml.org,2002:null", r"(?:~|null|Null|NULL|)\Z", "~nN\0"),
    ("tag:yaml.org,2002:merge", r"<<\Z", "<"),
)
for _tag, _pattern, _first in _PLAIN:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), [c if c != "\0" else "" for c in _first])


def _integer(loader: yaml.SafeLoader, node: yaml.nodes.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).lower()
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    base = {"0x": 16, "0o": 8}.get(digits[:2], 10)
    return sign * int(digits[2:] if base != 10 else digits, base)


def _mapping(loader: yaml.SafeLoader, node: yaml.nodes.MappingNode) -> dict[Hashable, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.nodes.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _override(loader: yaml.SafeLoader, node: yaml.nodes.Node) -> Override:
    if isinstance(node, yaml.nodes.MappingNode):
        return Override(_mapping(loader, node))
    if isinstance(node, yaml.nodes.SequenceNode):
        return Override(loader.construct_sequence(node, deep=True))
    assert isinstance(node, yaml.nodes.ScalarNode), "there are three kinds of nodes"
    tag = str(loader.resolve(yaml.nodes.ScalarNode, node.value, (True, False)))  # type: ignore[no-untyped-call]
    return Override(loader.construct_object(yaml.nodes.ScalarNode(tag, node.value)))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("!override", _override)
_Loader.add_constructor("!reset", lambda loader, node: Override(None))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping of a YAML (or JSON) file; an empty file is an empty mapping.

    Raises:
        TopologyError: it cannot be read; the message names the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(f"{path}: cannot be read: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """As :func:`read_yaml`, of a text.

    Raises:
        TopologyError: as there.
    """
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark is not None else source
        raise TopologyError(f"{place}: {error.problem or error.context or 'is not YAML'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TopologyError(f"{source}: is not YAML: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise TopologyError(f"{source}: should be a mapping of names")
    return data
