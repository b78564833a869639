"""Hosts from capture folders and save files.

A folder holds what standard programs print: ``iptables-save.txt``, ``ip-addr.json`` (`ip -j addr`),
``ip-route.json`` (`ip -j route`), ``ip-rule.json`` (`ip -j rule`), ``sysctl.txt`` (`sysctl`) and ``ipset.txt``
(`ipset save`). Any of them may be missing; addresses and routes together make a host complete.

Nothing that would change a packet's way is passed over in silence: routes by type of service and routes with
several next hops are refused, `ip rule` lines beyond the standard ones end up in ``Host.policy_rules``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastpath.errors import HostError, ParseError
from fastpath.host.ipset import parse_ipsets
from fastpath.host.model import Host, Interface, InterfaceAddress, Route
from fastpath.host.text import ROUTE_TYPES, parse_address, parse_prefix
from fastpath.ruleset.model import Ruleset
from fastpath.ruleset.parse import parse_ruleset

_STANDARD_RULES = {
    "local": "0: from all lookup local",
    "main": "32766: from all lookup main",
    "default": "32767: from all lookup default",
}
_FAMILIES = {"inet": 4, "inet6": 6}


def load_host(path: Path) -> Host:
    """The host of a capture folder or of one ``iptables-save`` file; see :meth:`Host.load`.

    Raises:
        HostError: nothing readable there, or JSON of another shape than the programs print.
        ParseError: a file with an error; it names file and line.
    """
    if not path.is_dir():
        return _save_only(parse_ruleset(_read(path), source=str(path)), str(path))
    rules, addresses = path / "iptables-save.txt", path / "ip-addr.json"
    if not rules.is_file() and not addresses.is_file():
        raise HostError(f"{path} holds neither iptables-save.txt nor ip-addr.json, so it is no host folder")
    ruleset = parse_ruleset(_read(rules), source=str(rules)) if rules.is_file() else Ruleset(source=str(path))

    def text(name: str) -> str | None:
        return _read(path / name) if (path / name).is_file() else None

    return build_host(
        ruleset,
        addresses=text("ip-addr.json"), routes=text("ip-route.json"), rules=text("ip-rule.json"),
        sysctls=text("sysctl.txt"), ipsets=text("ipset.txt"), source=str(path),
    )


def build_host(
    ruleset: Ruleset,
    *,
    addresses: str | None = None,
    routes: str | None = None,
    rules: str | None = None,
    sysctls: str | None = None,
    ipsets: str | None = None,
    source: str = "",
) -> Host:
    """A host from the programs' output; `source` is the folder to name in errors.

    Raises:
        HostError, ParseError: as :func:`load_host`.
    """
    def named(name: str) -> str:
        return f"{source}/{name}" if source else name

    known_sysctls = parse_sysctls(sysctls or "", source=named("sysctl.txt"))
    known_sets = parse_ipsets(ipsets or "", source=named("ipset.txt"))
    if addresses is None:
        bare = _save_only(ruleset, source)
        return Host(ruleset, bare.interfaces, (), (), known_sysctls, known_sets, False, source)
    return Host(
        ruleset,
        parse_interfaces(addresses, source=named("ip-addr.json")),
        parse_routes(routes, source=named("ip-route.json")) if routes is not None else (),
        parse_policy_rules(rules, source=named("ip-rule.json")) if rules is not None else (),
        known_sysctls, known_sets,
        complete=routes is not None, source=source,
    )


def mentioned_interfaces(ruleset: Ruleset) -> tuple[str, ...]:
    """Interface names that the rules test with ``-i`` and ``-o``, wildcards left out, in order of appearance."""
    found: dict[str, None] = {}
    for table in ruleset.tables:
        for chain in table.chains:
            for rule in chain.rules:
                for test in (rule.in_interface, rule.out_interface):
                    if test is not None and not str(test.value).endswith("+"):
                        found[str(test.value)] = None
    return tuple(found)


def _save_only(ruleset: Ruleset, source: str) -> Host:
    interfaces = tuple(Interface(name) for name in mentioned_interfaces(ruleset))
    return Host(ruleset, interfaces, complete=False, source=source)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise HostError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror or error}") from None


# ------------------------------------------------------------------------------------------------------- JSON


def _json_objects(text: str, source: str) -> Iterator[dict[str, Any]]:
    """The objects of a JSON array, as `ip -j` prints them; empty ones (filtered out by `ip`) are skipped."""
    try:
        data = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1] if text else ""
        start = max(0, error.colno - 1 - 40)
        raise ParseError(f"not JSON: {error.msg}", source=source, line=error.lineno, text=line[start:start + 80],
                         start=error.colno - 1 - start, end=error.colno - start) from None
    except RecursionError:
        raise HostError(f"{source}: JSON nested too deeply") from None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise HostError(f"{source}: expected an array of objects, as `ip -j` prints")
    return (item for item in data if item)


def _value(item: dict[str, Any], key: str, kind: type, default: Any, where: str) -> Any:
    """``item[key]``, which must be of type `kind` (a bool is no number), or `default`."""
    value = item.get(key, default)
    if value is not default and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise HostError(f"{where}: {key!r} is {value!r}, which is no {kind.__name__}")
    return value


def _address(text: str, family: int, where: str) -> int:
    try:
        found, address = parse_address(text)
    except HostError as error:
        raise HostError(f"{where}: {error}") from None
    if found != family:
        raise HostError(f"{where}: {text!r} is not an IPv{family} address")
    return address


def parse_interfaces(text: str, *, source: str = "<string>") -> tuple[Interface, ...]:
    """Interfaces from `ip -j addr`, in its order.

    Raises:
        ParseError: not JSON.
        HostError: JSON of another shape.
    """
    found: dict[str, Interface] = {}
    for item in _json_objects(text, source):
        name = _value(item, "ifname", str, None, source)
        if not name:
            raise HostError(f"{source}: an interface without 'ifname'")
        where = f"{source}: interface {name!r}"
        flags = _value(item, "flags", list, ["UP"], where)
        infos = _value(item, "addr_info", list, [], where)
        addresses = [_interface_address(info, where) for info in infos if info]
        link = _value(item, "linkinfo", dict, {}, where)
        found[name] = Interface(
            name, tuple(a for a in addresses if a is not None), "UP" in flags,
            _value(item, "master", str, None, where), _value(link, "info_kind", str, "", where))
    return tuple(found.values())


def _interface_address(info: Any, where: str) -> InterfaceAddress | None:
    """One ``addr_info`` object; None for families other than IP."""
    if not isinstance(info, dict):
        raise HostError(f"{where}: an address is {info!r}, which is no object")
    family = _FAMILIES.get(_value(info, "family", str, "", where))
    if family is None:
        return None
    local = _value(info, "local", str, None, where)
    length = _value(info, "prefixlen", int, 32 if family == 4 else 128, where)
    if local is None:
        raise HostError(f"{where}: an address without 'local'")
    if not 0 <= length <= (32 if family == 4 else 128):
        raise HostError(f"{where}: prefix length {length} of {local} is out of range")
    broadcast = _value(info, "broadcast", str, None, where)
    peer = _value(info, "address", str, None, where)
    return InterfaceAddress(
        family, _address(local, family, where), length,
        _address(broadcast, family, where) if broadcast is not None else None,
        bool(_value(info, "secondary", bool, False, where)),
        str(info.get("scope", "global")),
        _address(peer, family, where) if peer is not None else None,
    )


def parse_routes(text: str, *, source: str = "<string>", family: int = 4) -> tuple[Route, ...]:
    """Routes from `ip -j route`, in its order.

    Raises:
        ParseError: not JSON.
        HostError: JSON of another shape, a route by type of service or with several next hops.
    """
    routes: list[Route] = []
    for item in _json_objects(text, source):
        destination = _value(item, "dst", str, None, source)
        if destination is None:
            raise HostError(f"{source}: a route without 'dst'")
        where = f"{source}: route {destination!r}"
        if "nexthops" in item:
            raise HostError(f"{where} has several next hops, of which the kernel chooses by a hash: not supported")
        if "tos" in item:
            raise HostError(f"{where} is for one type of service: not supported")
        routes.append(_route(item, destination, family, where))
    return tuple(routes)


def _route(item: dict[str, Any], destination: str, family: int, where: str) -> Route:
    type_ = _value(item, "type", str, "unicast", where)
    if type_ not in ROUTE_TYPES:
        raise HostError(f"{where}: unknown type {type_!r}")
    dev = _value(item, "dev", str, None, where)
    if dev is None and type_ not in ("blackhole", "unreachable", "prohibit", "throw"):
        raise HostError(f"{where} has no 'dev'")
    gateway = _value(item, "gateway", str, None, where)
    prefsrc = _value(item, "prefsrc", str, None, where)
    try:
        network = parse_prefix(destination, family)
    except HostError as error:
        raise HostError(f"{where}: {error}") from None
    if network.family != family:
        raise HostError(f"{where} is not of IPv{family}")
    return Route(
        network, dev,
        _address(gateway, family, where) if gateway is not None else None,
        type_, _value(item, "metric", int, 0, where),
        _address(prefsrc, family, where) if prefsrc is not None else None,
        str(item.get("table", "main")),
    )


def parse_policy_rules(text: str, *, source: str = "<string>") -> tuple[str, ...]:
    """`ip -j rule` as lines of text, the three standard rules left out; a standard rule that is missing is a line too.

    Raises:
        ParseError: not JSON.
        HostError: JSON of another shape.
    """
    lines = [_policy_rule(item, source) for item in _json_objects(text, source)]
    if not lines:
        return ()
    missing = [f"missing {standard}" for standard in _STANDARD_RULES.values() if standard not in lines]
    return (*missing, *(line for line in lines if line not in _STANDARD_RULES.values()))


def _policy_rule(item: dict[str, Any], source: str) -> str:
    priority = _value(item, "priority", int, 0, source)
    words = ["not"] if "not" in item else []
    for key, word in (("src", "from"), ("dst", "to")):
        if key in item:
            length = f"/{item[key + 'len']}" if key + "len" in item else ""
            words += [word, f"{item[key]}{length}"]
    shown = {"priority", "src", "srclen", "dst", "dstlen", "table", "protocol", "not"}
    for key, value in item.items():
        if key not in shown:
            words += [key] if value is None else [key, str(value)]
    if "table" in item:
        words += ["lookup", str(item["table"])]
    return f"{priority}: {' '.join(words)}"


def parse_sysctls(text: str, *, source: str = "<string>") -> tuple[tuple[str, str], ...]:
    """``key = value`` lines as `sysctl` prints them, with or without blanks.

    Keys are kept with dots between their parts and ``/`` for a dot inside an interface's name, as `sysctl` prints
    them (``net.ipv4.conf.eth0/5.rp_filter``); keys written as paths are turned into that.

    Raises:
        ParseError: a line without ``=``.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise ParseError("expected KEY = VALUE", source=source, line=number, text=line)
        found[sysctl_key(key.strip())] = value.strip()
    return tuple(found.items())


def sysctl_key(text: str) -> str:
    """A sysctl's key with dots between its parts, whether it was written with dots or as a path."""
    slash, dot = text.find("/"), text.find(".")
    as_path = slash >= 0 and (dot < 0 or slash < dot)
    return text.translate(str.maketrans("/.", "./")) if as_path else text
