"""Merging of Compose files: mappings key by key, lists one behind the other, everything else by the last word.

Parts that have two spellings (``networks``, ``depends_on``, ``extra_hosts``, ``labels`` as a list or a mapping) are
brought to one before they meet.
"""

from __future__ import annotations

from typing import Any

from fastpath.docker.errors import TopologyError
from fastpath.docker.yamlfile import Override

_REPLACED = frozenset({"command", "entrypoint", "test", "profiles"})
"""Lists that a later file replaces as a whole."""


def merge(first: Any, second: Any, key: str = "") -> Any:
    """`second` laid over `first`."""
    if isinstance(second, Override):
        return strip(second.value)
    if isinstance(first, dict) and isinstance(second, dict):
        merged = dict(first)
        for name, value in second.items():
            if isinstance(value, Override) and value.value is None:
                merged.pop(name, None)
            else:
                merged[name] = merge(merged[name], value, name) if name in merged else strip(value)
        return merged
    if isinstance(first, list) and isinstance(second, list) and key not in _REPLACED:
        return first + [item for item in second if item not in first]
    return first if second is None else second


def strip(value: Any) -> Any:
    """`value` without the marks of ``!reset`` and ``!override``, which mean nothing in a first file."""
    if isinstance(value, Override):
        return strip(value.value)
    if isinstance(value, dict):
        return {
            key: strip(item) for key, item in value.items() if not (isinstance(item, Override) and item.value is None)}
    if isinstance(value, list):
        return [strip(item) for item in value]
    return value


def normalise(data: dict[str, Any], where: str) -> dict[str, Any]:
    """A file whose services spell their lists one way.

    Raises:
        TopologyError: ``services`` or one of them is no mapping.
    """
    services = data.get("services")
    if services is None:
        return data
    if not isinstance(services, dict):
        raise TopologyError(f"{where}: services: {services!r} should be a mapping of services")
    made: dict[str, Any] = {}
    for name, service in services.items():
        if isinstance(service, Override):
            made[name] = service
            continue
        if not isinstance(service, dict):
            raise TopologyError(f"{where}: services.{name}: {service!r} should be a mapping")
        made[name] = {key: _one_spelling(key, value) for key, value in service.items()}
    return {**data, "services": made}


def _one_spelling(key: str, value: Any) -> Any:
    if isinstance(value, Override):
        return Override(_one_spelling(key, value.value))
    if key in ("networks", "depends_on") and isinstance(value, list):
        return {str(name): None for name in value}
    if key == "extra_hosts" and isinstance(value, dict):
        return [
            f"{name}={address}" for name, addresses in value.items()
            for address in (addresses if isinstance(addresses, list) else [addresses])]
    return value
