"""A host as a folder that :meth:`Host.load` reads: the files that `iptables-save`, `ip -j` and `sysctl` would print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from fastpath.host.model import Host, InterfaceAddress, IpSet, Route
from fastpath.ruleset.printer import format_ruleset


def write_host(host: Host, folder: Path) -> tuple[Path, ...]:
    """Write an IPv4 host; the folder is made where it is missing, and its files are replaced.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "iptables-save.txt": format_ruleset(host.ruleset),
        "ip-addr.json": _lines([
            {
                "ifname": i.name, "flags": ["UP"] if i.up else [], **({"master": i.master} if i.master else {}),
                **({"linkinfo": {"info_kind": i.kind}} if i.kind else {}),
                "addr_info": [_address(a) for a in i.addresses if a.family == 4],
            }
            for i in host.interfaces]),
        "ip-route.json": _lines([_route(r) for r in host.routes]),
        "sysctl.txt": "".join(f"{key}={value}\n" for key, value in host.sysctls),
    }
    if host.ipsets:
        files["ipset.txt"] = "".join(line + "\n" for each in host.ipsets for line in _ipset(each))
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return tuple(folder / name for name in files)


def _lines(items: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(item, separators=(",", ":")) for item in items) + "\n]\n"


def _address(a: InterfaceAddress) -> dict[str, Any]:
    made: dict[str, Any] = {
        "family": "inet", "local": str(IPv4Address(a.address)), "prefixlen": a.prefixlen, "scope": a.scope}
    if a.broadcast is not None:
        made["broadcast"] = str(IPv4Address(a.broadcast))
    if a.secondary:
        made["secondary"] = True
    if a.peer is not None:
        made["address"] = str(IPv4Address(a.peer))
    return made


def _route(r: Route) -> dict[str, Any]:
    length = r.destination.mask.bit_count()
    made: dict[str, Any] = {"dst": f"{IPv4Address(r.destination.address)}/{length}" if length else "default"}
    if r.type != "unicast":
        made["type"] = r.type
    if r.gateway is not None:
        made["gateway"] = str(IPv4Address(r.gateway))
    if r.dev is not None:
        made["dev"] = r.dev
    if r.prefsrc is not None:
        made["prefsrc"] = str(IPv4Address(r.prefsrc))
    if r.metric:
        made["metric"] = r.metric
    if r.table != "main":
        made["table"] = r.table
    return made


def _ipset(each: IpSet) -> Iterator[str]:
    """An ipset of networks, the only kind that Docker makes."""
    yield " ".join(("create", each.name, each.type, *each.options))
    for entry in each.entries:
        for element in entry.elements:
            first = getattr(element, "address", getattr(element, "first", 0))
            mask = getattr(element, "mask", 0xFFFFFFFF)
            yield f"add {each.name} {IPv4Address(first)}/{mask.bit_count()}"
