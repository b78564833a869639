"""What a host is: its rules and what decides beside them (interfaces, addresses, routes, sysctls, ipsets).

Data only. ``host/load.py`` reads it, ``host/fib.py`` answers single look-ups, the reference and the compiler
each derive what they need. Addresses are integers of 32 (family 4) or 128 (family 6) bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from fastpath.ruleset.model import AddressRange, Network, Ruleset


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of an interface. ``broadcast`` is None where none is set; ``secondary`` as `ip addr` marks it;
    ``peer`` is the other end of a point-to-point link, whose network is then the connected one."""

    family: int
    address: int
    prefixlen: int
    broadcast: int | None = None
    secondary: bool = False
    scope: str = "global"
    peer: int | None = None

    @property
    def network_address(self) -> int:
        """The address that says which network is on the link: the peer's where there is one."""
        return self.address if self.peer is None else self.peer


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface that routing knows. ``master`` names the bridge that it is a port of."""

    name: str
    addresses: tuple[InterfaceAddress, ...] = ()
    up: bool = True
    master: str | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table (or of ``table``). ``type`` is unicast, blackhole, unreachable, prohibit, throw, ..."""

    destination: Network
    dev: str | None = None
    gateway: int | None = None
    type: str = "unicast"
    metric: int = 0
    prefsrc: int | None = None
    table: str = "main"


@dataclass(frozen=True, slots=True)
class PortElement:
    """The port dimension of an ipset entry: ports of a protocol; None is a ``bitmap:port``, which holds TCP and UDP."""

    protocol: int | None
    first: int
    last: int


SetElement: TypeAlias = AddressRange | Network | PortElement | str | int
"""One dimension of an ipset entry: addresses, a port, an interface name or set name (str), a MAC or mark (int)."""


@dataclass(frozen=True, slots=True)
class SetEntry:
    """An entry: one element per dimension of its set's type. ``nomatch`` entries are exceptions."""

    elements: tuple[SetElement, ...]
    nomatch: bool = False


@dataclass(frozen=True, slots=True)
class IpSet:
    """An ipset as `ipset save` prints it. ``type`` is e.g. ``hash:net`` or ``hash:ip,port`` or ``list:set``;
    ``options`` are the words of its ``create`` line after the type."""

    name: str
    type: str
    family: int = 4
    entries: tuple[SetEntry, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Host:
    """A host: a ruleset and the surroundings it runs in.

    Attributes:
        ruleset: IPv4 rules (one family per Host).
        interfaces: every interface; with ``complete`` False only the names that the rules mention.
        routes: routes of the main table, and others with their table's name.
        policy_rules: `ip rule` lines beyond the three standard ones, as text; they are undecided.
        sysctls: keys such as ``net.ipv4.ip_forward``; read them with :meth:`sysctl`.
        ipsets: every ipset.
        complete: True where addresses and routes are known. Where False, address types are undecided and the
            packets must bring an ``oif`` column.
        source: folder or file it came from.
    """

    ruleset: Ruleset
    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    policy_rules: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    ipsets: tuple[IpSet, ...] = ()
    complete: bool = True
    source: str = field(default="", compare=False)

    @classmethod
    def load(cls, path: str | Path) -> Host:
        """The host of a capture folder, or of one ``iptables-save`` file.

        A folder holds ``iptables-save.txt`` and as far as known ``ip-addr.json``, ``ip-route.json``, ``ip-rule.json``,
        ``sysctl.txt`` and ``ipset.txt`` (the output of `iptables-save`, `ip -j addr`, `ip -j route`, `ip -j rule`,
        `sysctl` and `ipset save`).

        Raises:
            HostError: nothing readable there.
            ParseError: a file with an error; it names file and line.
        """
        from fastpath.host.load import load_host

        return load_host(Path(path))

    @classmethod
    def from_system(cls) -> Host:
        """The running machine, read with `iptables-save -c`, `ip -j` and `ipset save`.

        Raises:
            UnavailableError: without the rights or the programs.
        """
        from fastpath.host.system import read_system

        return read_system()

    def edit(self, *commands: str) -> Host:
        """A new host whose rules had iptables commands applied (see :meth:`Ruleset.edit`)."""
        return replace(self, ruleset=self.ruleset.edit(*commands))

    def with_ruleset(self, ruleset: Ruleset) -> Host:
        """The same surroundings with other rules."""
        return replace(self, ruleset=ruleset)

    def sysctl(self, key: str, default: int = 0) -> int:
        """The integer value of a sysctl, or `default` where it is not known."""
        for name, value in self.sysctls:
            if name == key:
                try:
                    return int(value)
                except ValueError:
                    return default
        return default

    def interface(self, name: str) -> Interface | None:
        """The interface called `name`, or None."""
        return next((i for i in self.interfaces if i.name == name), None)

    def ipset(self, name: str) -> IpSet | None:
        """The ipset called `name`, or None."""
        return next((s for s in self.ipsets if s.name == name), None)
