"""Makes the folders of data/hosts out of full captures: ``python data/trim.py CAPTURES data/hosts [NAME...]``.

Copies rules, sysctls and policy rules as they are, and of the JSON files only the fields that a reader of the
host or of its Docker topology needs. Private keys, process ids, image and log paths do not come along.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

NAMES = (
    "docker20-big", "docker20-compose", "docker20-icc-false", "docker20-iptables-false", "docker20-sctp",
    "docker20-seed", "docker20-seed-live", "docker26-big", "docker26-bridges", "docker26-internal", "docker26-seed",
    "docker28-big", "docker28-bridges-noproxy", "docker28-compose", "docker28-icc-false", "docker28-internal",
    "docker28-ipv6", "docker28-modes", "docker28-seed", "docker28-subnets",
)
COPIED = ("iptables-save.txt", "ip6tables-save.txt", "ip-rule.json", "sysctl.txt", "ipset.txt", "dockerd-cmdline.txt")
LINK = ("ifindex", "ifname", "flags", "mtu", "operstate", "master", "link_type", "address")
ADDRESS = ("family", "local", "address", "prefixlen", "broadcast", "scope", "secondary", "label")
NETWORK = (
    "Name", "Id", "Created", "Scope", "Driver", "EnableIPv4", "EnableIPv6", "IPAM", "Internal", "Attachable",
    "Ingress", "Containers", "Options", "Labels",
)
HOST_CONFIG = ("NetworkMode", "PortBindings", "PublishAllPorts", "Links")
CONFIG = ("Hostname", "ExposedPorts", "Labels")
ENDPOINT = (
    "IPAMConfig", "Links", "Aliases", "MacAddress", "DriverOpts", "GwPriority", "NetworkID", "EndpointID", "Gateway",
    "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "DNSNames",
)


def pick(item: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """The fields of `item` that are there, in the order given."""
    return {field: item[field] for field in fields if field in item}


def addresses(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**pick(link, LINK), "addr_info": [pick(a, ADDRESS) for a in link.get("addr_info", [])]} for link in data]


def containers(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = []
    for item in data:
        settings = item["NetworkSettings"]
        kept.append({
            **pick(item, ("Id", "Name", "Created")),
            "State": pick(item["State"], ("Status", "Running")),
            "Config": pick(item["Config"], CONFIG),
            "HostConfig": pick(item["HostConfig"], HOST_CONFIG),
            "NetworkSettings": {
                "Ports": settings["Ports"],
                "Networks": {name: pick(e, ENDPOINT) for name, e in settings["Networks"].items()},
            },
        })
    return kept


def networks(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [pick(item, NETWORK) for item in data]


def version(text: str) -> str:
    """The engine's version, from `docker version`."""
    server = text.partition("Server:")[2]
    found = re.search(r"Version:\s+(\S+)", server)
    return f"{found.group(1)}\n" if found else ""


def write(path: Path, items: list[dict[str, Any]]) -> None:
    """One object a line: small, and still readable in a diff."""
    lines = ",\n".join(json.dumps(item, separators=(",", ":"), ensure_ascii=False) for item in items)
    path.write_text(f"[\n{lines}\n]\n" if items else "[]\n", encoding="utf-8")


def trim(source: Path, target: Path) -> None:
    """One capture folder into one host folder."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in COPIED:
        if (source / name).is_file():
            (target / name).write_bytes((source / name).read_bytes())
    for name, change in (("ip-addr.json", addresses), ("ip-route.json", list), ("ip6-route.json", list),
                         ("containers.json", containers), ("networks.json", networks)):
        if (source / name).is_file() and (source / name).read_text(encoding="utf-8").strip():
            data = json.loads((source / name).read_text(encoding="utf-8"))
            write(target / name, change(data))
    if (source / "docker-version.txt").is_file():
        text = version((source / "docker-version.txt").read_text(encoding="utf-8"))
        (target / "docker-version.txt").write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> None:
    captures, hosts = Path(arguments[0]), Path(arguments[1])
    for name in arguments[2:] or NAMES:
        trim(captures / name, hosts / name)


if __name__ == "__main__":
    main(sys.argv[1:])
