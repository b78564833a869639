"""Hosts written by hand: addresses, interfaces and routes from short texts, as cases and tests write them.

    make_interface("eth0", ["10.0.2.15/24"])
    parse_route("default via 10.0.2.2 dev eth0")
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from fastpath.errors import HostError
from fastpath.host.fib import connected_routes, prefix_mask
from fastpath.host.ipset import parse_ipsets
from fastpath.host.model import Host, Interface, InterfaceAddress, Route
from fastpath.ruleset.model import Network, Ruleset

ROUTE_TYPES = frozenset({
    "unicast", "local", "broadcast", "multicast", "anycast", "throw", "unreachable", "prohibit", "blackhole", "nat",
})
"""Route types of ip-route(8)."""


def parse_address(text: str) -> tuple[int, int]:
    """``(family, integer)`` of an address.

    Raises:
        HostError: not an address.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise HostError(f"{text!r} is not an IP address such as 10.0.2.15") from None
    return address.version, int(address)


def parse_prefix(text: str, family: int = 4) -> Network:
    """The network of ``default``, ``10.0.0.0/8`` or ``10.1.2.3`` (one address); bits beyond the prefix are cleared.

    Raises:
        HostError: not a network.
    """
    if text in ("default", "any", "all"):
        return Network(family, 0, 0)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise HostError(f"{text!r} is not a network such as 10.0.0.0/8 or 'default'") from None
    return Network(network.version, int(network.network_address), int(network.netmask))


def make_interface(
    name: str, addresses: Iterable[str] = (), *, up: bool = True, master: str | None = None
) -> Interface:
    """An interface with addresses such as ``10.0.2.15/24``; the broadcast address is the network's last one.

    A later address inside an earlier one's network of the same length is marked secondary, as the kernel does.

    Raises:
        HostError: an address that cannot be read.
    """
    found: list[InterfaceAddress] = []
    for text in addresses:
        family, address = parse_address(text.partition("/")[0])
        bits = 32 if family == 4 else 128
        length = text.partition("/")[2] or str(bits)
        if not length.isdecimal() or int(length) > bits:
            raise HostError(f"{text!r} has no prefix length from 0 to {bits}")
        mask = prefix_mask(int(length), family)
        secondary = family == 4 and any(
            a.family == 4 and a.prefixlen == int(length) and (a.address ^ address) & mask == 0 for a in found)
        broadcast = address | (mask ^ 0xFFFFFFFF) if family == 4 and int(length) < 31 and name != "lo" else None
        scope = "host" if name == "lo" else "global"
        found.append(InterfaceAddress(family, address, int(length), broadcast, secondary, scope))
    return Interface(name, tuple(found), up, master)


def parse_route(text: str, family: int = 4) -> Route:
    """A route as `ip route` prints it, of the words type, ``via``, ``dev``, ``src``, ``metric`` and ``table``.

    Words without influence on the way of a packet (``proto``, ``scope``, ``onlink``, ``linkdown``, ``mtu``) are
    accepted and left out.

    Raises:
        HostError: a route that cannot be read; the message shows it.
    """
    words = text.split()
    type_ = words.pop(0) if words and words[0] in ROUTE_TYPES else "unicast"
    if not words:
        raise HostError(f"route {text!r} lacks a destination such as 10.0.0.0/8 or 'default'")
    destination = parse_prefix(words.pop(0), family)
    values: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if word in ("onlink", "linkdown"):
            continue
        if word not in ("via", "dev", "src", "metric", "table", "proto", "scope", "mtu", "pref") or not words:
            raise HostError(f"route {text!r}: {word!r} is not understood")
        values[word] = words.pop(0)
    metric = values.get("metric", "0")
    if not metric.isdecimal():
        raise HostError(f"route {text!r}: metric {metric!r} is not a number")
    gateway = parse_address(values["via"])[1] if "via" in values else None
    prefsrc = parse_address(values["src"])[1] if "src" in values else None
    table = values.get("table", "local" if type_ in ("local", "broadcast") else "main")
    if type_ not in ("blackhole", "unreachable", "prohibit", "throw") and "dev" not in values:
        raise HostError(f"route {text!r} lacks 'dev' and an interface")
    return Route(destination, values.get("dev"), gateway, type_, int(metric), prefsrc, table)


def make_host(
    ruleset: Ruleset,
    interfaces: Mapping[str, Iterable[str]],
    routes: Iterable[str] = (),
    *,
    sysctls: Mapping[str, str | int] | None = None,
    ipsets: str = "",
) -> Host:
    """A complete host: `interfaces` maps names to addresses (``lo`` is added where missing), `routes` are added to
    those that the addresses bring, `ipsets` is the text of `ipset save`.

    ``net.ipv4.ip_forward`` is 1 unless `sysctls` says otherwise.

    Raises:
        HostError: an address or a route that cannot be read, or a route through an unknown interface.
        ParseError: an ipset line that cannot be read.
    """
    given = {name: tuple(addresses) for name, addresses in interfaces.items()}
    if "lo" not in given:
        given = {"lo": ("127.0.0.1/8",), **given}
    made = tuple(make_interface(name, addresses) for name, addresses in given.items())
    parsed = tuple(parse_route(text, ruleset.family) for text in routes)
    for route, text in zip(parsed, routes, strict=True):
        if route.dev is not None and route.dev not in given:
            raise HostError(f"route {text!r} uses interface {route.dev!r}; the host has {', '.join(given)}")
    connected = tuple(r for r in connected_routes(made, ruleset.family) if not _replaced(r, parsed))
    values = {"net.ipv4.ip_forward": "1", **{k: str(v) for k, v in (sysctls or {}).items()}}
    return Host(ruleset, made, parsed + connected, sysctls=tuple(values.items()), ipsets=parse_ipsets(ipsets))


def _replaced(route: Route, given: Iterable[Route]) -> bool:
    return any(g.destination == route.destination and g.dev == route.dev and g.table == "main" for g in given)
