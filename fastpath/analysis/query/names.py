"""What names in conditions stand for: interfaces, Docker networks and containers, rules.

A capture folder has ``networks.json`` and ``containers.json`` (`docker network inspect`, `docker inspect`) beside the
rules; :meth:`Names.of` reads names and addresses from there. A network or container may be called by its full name, or
as its Compose file calls it where only one is meant: ``backend`` for ``shop_backend``, ``web`` for every container of
the service ``web``.

Direction of error: a name that nothing has is a :class:`QueryError` that lists those there are; a typing error must
not become a proof that no packet exists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any as Json

from fastpath.analysis.query.conditions import All, Any, Bits, Comparison, Condition, Item, Name, Not, Span
from fastpath.analysis.query.fields import CTSTATES, FIELDS
from fastpath.compiler.interfaces import matches
from fastpath.errors import HostError, QueryError
from fastpath.host.model import Host
from fastpath.host.text import parse_address, parse_prefix
from fastpath.packets.schema import LOCAL, State
from fastpath.ruleset.model import RuleRef

COMPOSE_NETWORK, COMPOSE_SERVICE = "com.docker.compose.network", "com.docker.compose.service"


@dataclass(frozen=True, slots=True)
class Names:
    """Names that conditions about one host may use.

    Attributes:
        interfaces: names of the host's interfaces and of those that its rules speak of; None where any name will do.
        networks: Docker networks with their address ranges.
        containers: containers with their addresses.
        bridges: the interface of each Docker network that has one.
        aliases: other names of networks (``network NAME``) and containers (``container NAME``) -> full names.
        rules: rules and policies by id.
        loose: nf_conntrack_tcp_loose, on which it hangs what ``ctstate`` is.
    """

    interfaces: tuple[str, ...] | None = None
    networks: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    containers: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    bridges: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rules: tuple[RuleRef, ...] = ()
    loose: bool = True

    @classmethod
    def of(cls, host: Host) -> Names:
        """The names of a host, and of Docker's objects where its folder tells them.

        Raises:
            HostError: a file that `docker inspect` did not print.
        """
        found = cls(_interfaces(host), rules=host.ruleset.refs(),
                    loose=bool(host.sysctl("net.netfilter.nf_conntrack_tcp_loose", 1)))
        folder = Path(host.source) if host.source else None
        if folder is None or not folder.is_dir():
            return found
        try:
            return found._with_files(_objects(folder / "networks.json"), _objects(folder / "containers.json"))
        except (AttributeError, KeyError, TypeError) as error:
            raise HostError(f"{folder}: networks.json or containers.json is not what `docker inspect` prints: "
                            f"{error}") from None

    def _with_files(self, networks_file: list[dict[str, Json]], containers_file: list[dict[str, Json]]) -> Names:
        """The same with what `docker network inspect` and `docker inspect` tell."""
        networks: dict[str, tuple[Span, ...]] = {}
        containers: dict[str, tuple[Span, ...]] = {}
        bridges: dict[str, str] = {}
        aliases: dict[str, list[str]] = {}
        for item in networks_file:
            name = str(item.get("Name", ""))
            networks[name] = _subnets(item)
            if item.get("Driver") == "bridge":
                options = item.get("Options") or {}
                own = options.get("com.docker.network.bridge.name")
                bridges[name] = str(own or f"br-{str(item.get('Id', ''))[:12]}")
            short = (item.get("Labels") or {}).get(COMPOSE_NETWORK) or name.partition("_")[2]
            if short and short != name:
                aliases.setdefault(f"network {short}", []).append(name)
        for item in containers_file:
            name = str(item.get("Name", "")).lstrip("/")
            containers[name] = _addresses(item)
            service = ((item.get("Config") or {}).get("Labels") or {}).get(COMPOSE_SERVICE)
            if service and service != name:
                aliases.setdefault(f"container {service}", []).append(name)
        kept = {name: tuple(full) for name, full in aliases.items()}
        return replace(self, networks=networks, containers=containers, bridges=bridges, aliases=kept)

    def with_docker(
        self, networks: Mapping[str, Iterable[str]], containers: Mapping[str, Iterable[str]],
        bridges: Mapping[str, str] | None = None,
    ) -> Names:
        """The same with networks (name -> subnets), containers (name -> addresses) and networks' interfaces added."""
        def spans(texts: Iterable[str]) -> tuple[Span, ...]:
            found = (parse_prefix(text) for text in texts)
            return tuple(Span(n.address, n.address | (~n.mask & 0xFFFFFFFF)) for n in found if n.family == 4)

        return replace(
            self, bridges={**self.bridges, **(bridges or {})},
            networks={**self.networks, **{name: spans(texts) for name, texts in networks.items()}},
            containers={**self.containers, **{name: spans(texts) for name, texts in containers.items()}})

    # ------------------------------------------------------------------------------------------------ looking up

    def resolve(self, condition: Condition) -> Condition:
        """The condition with networks and containers as addresses, and ``ctstate`` spelt out; interfaces and rules are
        checked and stay names.

        Raises:
            QueryError: a name that nothing has.
        """
        if isinstance(condition, All | Any):
            return type(condition)(tuple(self.resolve(part) for part in condition.parts))
        if isinstance(condition, Not):
            return Not(self.resolve(condition.part))
        assert isinstance(condition, Comparison)
        if condition.field == "ctstate":
            codes = [i for item in condition.items if isinstance(item, Span) for i in range(item.first, item.last + 1)]
            return Any(tuple(self.ctstate(CTSTATES[code]) for code in codes))
        items: list[Item] = []
        for item in condition.items:
            if isinstance(item, Name) and item.kind in ("network", "container"):
                of_interface = FIELDS[condition.field].kind == "interface"
                items += [self._bridge(item)] if of_interface else self._docker(item)
            else:
                if isinstance(item, Name):
                    self._check(condition.field, item)
                items.append(item)
        return Comparison(condition.field, tuple(items))

    def ctstate(self, word: str) -> Condition:
        """What connection tracking makes of a packet (before any NOTRACK), in terms of columns."""
        states = {"new": (State.NEW,), "established": (State.ESTABLISHED, State.REPLY), "related": (State.RELATED,),
                  "invalid": (State.INVALID,), "untracked": (State.UNTRACKED,)}[word]
        given = Comparison("state", tuple(Span(s, s) for s in states))
        if word not in ("new", "invalid"):
            return given
        unknown = Comparison("state", (Span(State.AUTO, State.AUTO),))
        opens = self.opens_a_flow()
        return Any((given, All((unknown, opens if word == "new" else Not(opens)))))

    def opens_a_flow(self) -> Condition:
        """A packet of no known flow that conntrack takes as the first of a new one."""
        flags = (Bits(0x02, 0x17), Bits(0x10, 0x17)) if self.loose else (Bits(0x02, 0x17),)
        tcp, icmp = Comparison("proto", (Span(6, 6),)), Comparison("proto", (Span(1, 1),))
        asks = tuple(Span(t, t) for t in (8, 13, 15, 17))
        return Any((
            All((tcp, Comparison("tcp_flags", flags))), All((icmp, Comparison("icmp_type", asks))),
            Not(Comparison("proto", (Span(1, 1), Span(6, 6)))),
        ))

    def _bridge(self, item: Name) -> Name:
        """The interface of a Docker network."""
        known = self.bridges
        (full, *more) = (item.text,) if item.text in known else self.aliases.get(f"network {item.text}", ("",))
        if more or full not in known:
            raise QueryError(f"there is no network {item.text!r} with an interface of its own on the host; there are "
                             f"{_listed(known) or 'none'}")
        return Name("interface", known[full])

    def _docker(self, item: Name) -> tuple[Span, ...]:
        known = self.networks if item.kind == "network" else self.containers
        full = (item.text,) if item.text in known else self.aliases.get(f"{item.kind} {item.text}", ())
        if not full:
            if not known:
                raise QueryError(f"no Docker {item.kind}s are known, so {item.kind} {item.text!r} cannot be looked up: "
                                 f"the host folder has no {item.kind}s.json")
            raise QueryError(f"there is no {item.kind} {item.text!r}; there are {_listed(known)}")
        if item.kind == "network" and len(full) > 1:
            raise QueryError(f"network {item.text!r} may be any of {_listed(full)}; give the full name")
        found = tuple(span for name in full for span in known[name])
        if not found:
            raise QueryError(f"{item.kind} {item.text!r} has no IPv4 address")
        return found

    def _check(self, name: str, item: Name) -> None:
        if item.kind == "interface" and self.interfaces is not None:
            if not any(matches(item.text, known) for known in self.interfaces):
                raise QueryError(f"{name}: there is no interface {item.text!r}; there are {_listed(self.interfaces)}")
        if item.kind == "rule" and self.rules and not self.rule_ids(item):
            raise QueryError(f"rule: there is no rule {item.text!r} in this ruleset; give TABLE CHAIN NUMBER, an id "
                             f"below {len(self.rules)}, or none")

    def rule_ids(self, item: Name) -> tuple[int, ...]:
        """The ids that a rule's name stands for; -1 is none."""
        if item.text == "none":
            return (-1,)
        if item.text.isdigit():
            return (int(item.text),) if int(item.text) < len(self.rules) else ()
        return tuple(r.id for r in self.rules if f"{r.table} {r.chain} {r.number}" == item.text)


def _interfaces(host: Host) -> tuple[str, ...]:
    names = dict.fromkeys([LOCAL, "lo", *(i.name for i in host.interfaces)])
    for table in host.ruleset.tables:
        for chain in table.chains:
            for rule in chain.rules:
                for test in (rule.in_interface, rule.out_interface):
                    if test is not None:
                        names[str(test.value)] = None
    return tuple(names)


def _listed(names: Iterable[str], most: int = 30) -> str:
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _objects(path: Path) -> list[dict[str, Json]]:
    if not path.is_file():
        return []
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HostError(f"{path}: {error}") from None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise HostError(f"{path}: should be an array of objects, as `docker inspect` prints")
    return data


def _subnets(item: dict[str, Json]) -> tuple[Span, ...]:
    configs = (item.get("IPAM") or {}).get("Config") or []
    nets = (parse_prefix(str(c["Subnet"])) for c in configs if c.get("Subnet"))
    return tuple(Span(n.address, n.address | (~n.mask & 0xFFFFFFFF)) for n in nets if n.family == 4)


def _addresses(item: dict[str, Json]) -> tuple[Span, ...]:
    places = ((item.get("NetworkSettings") or {}).get("Networks") or {}).values()
    found = (parse_address(str(p["IPAddress"])) for p in places if p and p.get("IPAddress"))
    return tuple(Span(value, value) for family, value in found if family == 4)


