"""Driver options of networks, as `docker network create -o` and Compose's ``driver_opts`` name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastpath.docker.errors import TopologyError
from fastpath.docker.topology import GATEWAY_MODES

_BRIDGE = "com.docker.network.bridge."
_TEXTS = {
    f"{_BRIDGE}name": "bridge",
    f"{_BRIDGE}host_binding_ipv4": "bind_ip",
    f"{_BRIDGE}gateway_mode_ipv4": "gateway_mode",
    "com.docker.network.host_ipv4": "host_ip",
    "parent": "parent",
}
_FLAGS = {f"{_BRIDGE}enable_icc": "icc", f"{_BRIDGE}enable_ip_masquerade": "masquerade"}
_TRUSTED = f"{_BRIDGE}trusted_host_interfaces"


def network_options(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of :class:`Network` that driver options set; options without influence on packets are passed over.

    Raises:
        TopologyError: a value that cannot be; `where` says whose it is.
    """
    found: dict[str, Any] = {}
    for key, value in options.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if key in _TEXTS and text:
            found[_TEXTS[key]] = text
        elif key in _FLAGS:
            if text not in ("true", "false", "1", "0"):
                raise TopologyError(f"{where}.{key}: {text!r} should be true or false")
            found[_FLAGS[key]] = text in ("true", "1")
        elif key == _TRUSTED:
            found["trusted_interfaces"] = tuple(name for name in text.split(":") if name)
    mode = found.get("gateway_mode", "nat")
    if mode not in GATEWAY_MODES:
        raise TopologyError(f"{where}: gateway mode {mode!r} should be one of {', '.join(GATEWAY_MODES)}")
    return found
