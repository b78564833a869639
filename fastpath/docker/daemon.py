"""The daemon's settings, from ``daemon.json`` and from a command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastpath.docker.errors import TopologyError
from fastpath.docker.topology import AddressPool, Daemon

_FLAGS = ("iptables", "ip-forward", "ip-masq", "icc", "userland-proxy", "allow-direct-routing")
_TEXTS = ("bip", "fixed-cidr", "ip", "bridge", "firewall-backend")
_POOLS = "default-address-pools"


def read_daemon_json(path: Path) -> Daemon:
    """See :meth:`Daemon.from_json`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8") or "{}")
    except (OSError, ValueError) as error:
        raise TopologyError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise TopologyError(f"{path}: should be a JSON object of dockerd's options")
    found: dict[str, Any] = {}
    for key, value in data.items():
        where = f"{path}: {key}"
        if key in _FLAGS:
            if not isinstance(value, bool):
                hint = " without quotes" if isinstance(value, str) else ""
                raise TopologyError(f"{where}: {json.dumps(value)} should be true or false{hint}; dockerd refuses it")
            found[_field(key)] = value
        elif key in _TEXTS:
            if not isinstance(value, str):
                raise TopologyError(f"{where}: {json.dumps(value)} should be a text")
            found[_field(key)] = value or getattr(Daemon(), _field(key))
        elif key == _POOLS:
            found[_field(key)] = tuple(_pools(value, where))
    return Daemon(**found)


def _pools(value: Any, where: str) -> Iterator[AddressPool]:
    if not isinstance(value, list):
        raise TopologyError(f'{where}: should be a list of {{"base": "10.10.0.0/16", "size": 24}}')
    for number, item in enumerate(value):
        if not isinstance(item, dict) or not isinstance(item.get("base"), str) or not isinstance(item.get("size"), int):
            raise TopologyError(f'{where}[{number}]: should be {{"base": "10.10.0.0/16", "size": 24}}')
        if ":" not in item["base"]:
            yield AddressPool(item["base"], item["size"])


def parse_command_line(text: str) -> Daemon:
    """See :meth:`Daemon.from_command_line`."""
    words = shlex.split(text)
    found: dict[str, Any] = {}
    pools: list[AddressPool] = []
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = "bridge" if name == "b" else name
        if name in _FLAGS:
            if value.lower() not in ("", "true", "false"):
                raise TopologyError(f"dockerd --{name}: {value!r} should be true or false")
            found[_field(name)] = value.lower() != "false"
        elif name in _TEXTS or name == "default-address-pool":
            if not equals:
                if not words:
                    raise TopologyError(f"dockerd --{name}: its value is missing")
                value = words.pop(0)
            if name in _TEXTS:
                found[_field(name)] = value
            else:
                pools.append(_pool(value))
    if pools:
        found[_field(_POOLS)] = tuple(pools)
    return Daemon(**found)


def _pool(text: str) -> AddressPool:
    parts = dict(part.partition("=")[::2] for part in text.split(","))
    if set(parts) != {"base", "size"} or not parts["size"].isdecimal():
        raise TopologyError(f"dockerd --default-address-pool: {text!r} should be base=10.10.0.0/16,size=24")
    return AddressPool(parts["base"], int(parts["size"]))


def _field(key: str) -> str:
    return key.replace("-", "_")
