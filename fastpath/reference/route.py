"""The kernel's routing decisions around netfilter.

What arrives goes through the checks of ``ip_route_input_slow()`` and ``fib_validate_source()`` (net/ipv4/route.c,
fib_frontend.c), in their order; what is forwarded through those of ``ip_forward()``; what the host makes itself
through ``ip_route_output_key()``, and again through ``ip_route_me_harder()`` where OUTPUT rules changed it.

With policy rules (``ip rule``) only the local table is sure; everything else is :attr:`Way.UNDECIDED`.
``send_redirects`` is not looked at: it would only add a check of the source where a packet leaves the way it came.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from fastpath.errors import PacketError
from fastpath.host.fib import ERROR_TYPES, Fib, Lookup
from fastpath.host.model import Host
from fastpath.packets.schema import LOCAL
from fastpath.packets.text import format_address
from fastpath.reference.state import PacketState

LIMITED_BROADCAST = 0xFFFFFFFF
ALL_HOSTS = 0xE0000001
IGMP = 2


class Way(Enum):
    """Where a packet goes."""

    HERE = "delivered to this host"
    OUT = "sent on"
    DROP = "dropped"
    ICMP_ERROR = "answered with an ICMP error"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Decision:
    """A routing decision; ``oif`` is set for :attr:`Way.OUT`, ``reason`` says why, for people."""

    way: Way
    reason: str
    oif: str = ""
    next_hop: int | None = None


def is_multicast(address: int, family: int) -> bool:
    """224.0.0.0/4 or ff00::/8."""
    return address >> 28 == 0xE if family == 4 else address >> 120 == 0xFF


def is_loopback(address: int, family: int) -> bool:
    """127.0.0.0/8 or ::1."""
    return address >> 24 == 127 if family == 4 else address == 1


class Router:
    """The routing of one host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.family = host.ruleset.family
        self.fib = Fib(host)
        self.policy_rules = bool(host.policy_rules)
        self.find = lru_cache(maxsize=1 << 16)(self.fib.lookup)
        self.type_of = lru_cache(maxsize=1 << 16)(self.fib.local_type)
        self.own = frozenset(
            a.address for i in host.interfaces for a in i.addresses if a.family == self.family)
        self._sysctls = dict(host.sysctls)
        self.setting = lru_cache(maxsize=None)(self._setting)
        self._bare = {i.name for i in host.interfaces if not any(a.family == self.family for a in i.addresses)}

    def _number(self, key: str) -> int | None:
        try:
            return int(self._sysctls[key])
        except (KeyError, ValueError):
            return None

    def _setting(self, name: str, interface: str) -> int:
        """A per-interface sysctl of an interface as the kernel uses it: the larger of `all` and its own."""
        own = self._number(f"net.ipv4.conf.{interface}.{name}")
        if own is None:
            own = self._number(f"net.ipv4.conf.default.{name}")
        return max(self._number(f"net.ipv4.conf.all.{name}") or 0, own or 0)

    def forwards(self, interface: str) -> bool:
        """Whether packets that came in on an interface may be forwarded."""
        own = self._number(f"net.ipv4.conf.{interface}.forwarding")
        return bool(own if own is not None else self._number("net.ipv4.ip_forward") or 0)

    # ---------------------------------------------------------------------------------------------- what arrives

    def arriving(self, p: PacketState) -> Decision:
        """Where a packet goes that came in on an interface, after PREROUTING.

        Raises:
            PacketError: the host's routes are not known and the packet brings no egress interface.
        """
        if p.given_oif is not None:
            return given(p.given_oif)
        self._need_routes()
        if self.family != 4:
            return self._arriving6(p)
        src, dst, here = p.src, p.dst, p.ingress
        if is_multicast(dst, 4):
            return self._multicast(p)
        if is_multicast(src, 4) or src == LIMITED_BROADCAST:
            return Decision(Way.DROP, "the source is a multicast or broadcast address")
        if dst == LIMITED_BROADCAST or src == dst == 0:
            return self._if_source_valid(p, Decision(Way.HERE, "broadcast"), unless=src == 0)
        if src == 0:
            return Decision(Way.DROP, "the source is 0.0.0.0")
        if dst == 0:
            return Decision(Way.DROP, "the destination is 0.0.0.0")
        for address, what in ((dst, "destination"), (src, "source")):
            if is_loopback(address, 4):
                if not self.setting("route_localnet", here):
                    return Decision(Way.DROP, f"the {what} is in 127.0.0.0/8 and route_localnet is off on {here}")
                break
        if self.policy_rules and self.type_of(dst) not in ("LOCAL", "BROADCAST"):
            return Decision(Way.UNDECIDED, "the host has policy rules (ip rule)")
        return self._by_table(p, self.find(dst))

    def _by_table(self, p: PacketState, found: Lookup | None) -> Decision:
        if found is None or found.type in ERROR_TYPES:
            what = "no route" if found is None else f"a {found.type} route"
            if not self.forwards(p.ingress):
                return Decision(Way.DROP, f"{what}, and forwarding is off on {p.ingress}")
            if found is not None and found.type == "blackhole":
                return Decision(Way.DROP, "a blackhole route")
            return Decision(Way.ICMP_ERROR, f"{what} to {format_address(p.dst, p.family)}")
        if found.type == "broadcast":
            return self._if_source_valid(p, Decision(Way.HERE, f"a broadcast address of {found.dev}"))
        if found.type == "local":
            return self._if_source_valid(p, Decision(Way.HERE, f"an address of {found.dev}"))
        if not self.forwards(p.ingress):
            return Decision(Way.DROP, f"not addressed to this host, and forwarding is off on {p.ingress}")
        if found.type != "unicast" or found.dev is None:
            return Decision(Way.DROP, f"the route is of type {found.type}")
        return self._if_source_valid(p, Decision(Way.OUT, route_text(found), found.dev, found.gateway))

    def _multicast(self, p: PacketState) -> Decision:
        """Only the all-hosts group is joined everywhere; of other groups a host is not known to be a member."""
        if p.dst != ALL_HOSTS:
            return Decision(Way.DROP, "a multicast group that nobody here has joined")
        if is_multicast(p.src, 4) or p.src == LIMITED_BROADCAST:
            return Decision(Way.DROP, "the source is a multicast or broadcast address")
        if is_loopback(p.src, 4) and not self.setting("route_localnet", p.ingress):
            return Decision(Way.DROP, f"the source is in 127.0.0.0/8 and route_localnet is off on {p.ingress}")
        return self._if_source_valid(p, Decision(Way.HERE, "the all-hosts group"), unless=p.src == 0)

    def _if_source_valid(self, p: PacketState, decision: Decision, *, unless: bool = False) -> Decision:
        fault = None if unless else self.source_fault(p.src, p.ingress)
        return decision if fault is None else Decision(Way.DROP, fault)

    def source_fault(self, source: int, interface: str) -> str | None:
        """Why a source address may not come in on an interface, or None (``fib_validate_source()``)."""
        accept_local = bool(self.setting("accept_local", interface))
        strictness = self.setting("rp_filter", interface)
        if strictness == 0:
            if source in self.own and not accept_local:
                return "the source is one of the host's own addresses"
            return None
        found = self.find(source)
        if found is None or found.type in ERROR_TYPES:
            return f"no route back to the source, and rp_filter is {strictness} on {interface}"
        if found.type != "unicast" and not (found.type == "local" and accept_local):
            return f"the source's route is of type {found.type}"
        if found.dev == interface or (found.type == "local" and interface == "lo"):
            return None
        if interface in self._bare:
            return f"{interface} has no address, and rp_filter is {strictness} there"
        if strictness == 1:
            return f"the route back to the source leaves by {found.dev}, and rp_filter is 1 on {interface}"
        return None

    def _arriving6(self, p: PacketState) -> Decision:
        """IPv6 has no martian checks of this kind; what is not for this host is forwarded where a route leads on."""
        if is_multicast(p.dst, 6):
            joined = p.dst & 0xFFFF == 1 and p.dst >> 16 == 0xFF02 << 96
            return Decision(Way.HERE, "the all-nodes group") if joined else Decision(
                Way.DROP, "a multicast group that nobody here has joined")
        if self.policy_rules and self.type_of(p.dst) != "LOCAL":
            return Decision(Way.UNDECIDED, "the host has policy rules (ip rule)")
        found = self.find(p.dst)
        if found is not None and found.type == "local":
            return Decision(Way.HERE, f"an address of {found.dev}")
        if not (self._number("net.ipv6.conf.all.forwarding") or 0):
            return Decision(Way.DROP, "not addressed to this host, and forwarding is off")
        if found is None or found.type in ("unreachable", "prohibit"):
            return Decision(Way.ICMP_ERROR, "no route")
        if found.type != "unicast" or found.dev is None:
            return Decision(Way.DROP, f"the route is of type {found.type}")
        return Decision(Way.OUT, route_text(found), found.dev, found.gateway)

    # ---------------------------------------------------------------------------------------------- what leaves

    def leaving(self, p: PacketState, *, again: bool = False) -> Decision:
        """Where a packet goes that the host made; ``lo`` for its own addresses.

        The first look-up takes the destination alone. The one after OUTPUT's rules (`again`) also refuses to let a
        loopback source out of another interface than lo, unless that one has route_localnet; a source that is no
        host's address (127.255.255.255) plays no part in it.

        Raises:
            PacketError: the host's routes are not known and the packet brings no egress interface.
        """
        if p.given_oif is not None:
            decision = given(p.given_oif)
            return decision if decision.way is Way.OUT else Decision(Way.OUT, f"dev lo, {decision.reason}", "lo")
        self._need_routes()
        if p.dst == 0:
            return Decision(Way.OUT, "dev lo, the unspecified address is this host", "lo")
        if self.policy_rules and self.type_of(p.dst) != "LOCAL":
            return Decision(Way.UNDECIDED, "the host has policy rules (ip rule)")
        found = self.find(p.dst)
        if found is None or found.type in ERROR_TYPES:
            what = "no route" if found is None else f"a {found.type} route"
            return Decision(Way.DROP, f"{what} to {format_address(p.dst, p.family)}")
        if found.type == "local" or found.dev is None:
            return Decision(Way.OUT, f"dev lo, to an address of {found.dev}", "lo")
        if (again and found.dev != "lo" and is_loopback(p.src, self.family)
                and self.type_of(p.src) in ("LOCAL", "UNICAST") and not self.setting("route_localnet", found.dev)):
            return Decision(Way.DROP, f"a loopback source may not leave by {found.dev}, where route_localnet is off")
        return Decision(Way.OUT, route_text(found), found.dev, found.gateway)

    def egress(self, p: PacketState) -> str:
        """The egress interface that a rule of a chain evaluated alone sees; empty for local delivery and no route.

        Raises:
            PacketError: the host's routes are not known and the packet brings no egress interface.
        """
        if p.given_oif is not None:
            return "" if p.given_oif == LOCAL else p.given_oif
        self._need_routes()
        if p.local:
            return self.leaving(p).oif
        found = self.find(p.dst)
        if self.policy_rules or found is None or found.dev is None or found.type in ("local", "broadcast"):
            return ""
        return found.dev

    def _need_routes(self) -> None:
        if not self.host.complete:
            raise PacketError("the host's routes are not known: give every packet its egress interface in the column "
                              "oif (a name, or local for delivery to the host)")


def given(oif: str) -> Decision:
    """The decision that a packet's ``oif`` column makes."""
    if oif == LOCAL:
        return Decision(Way.HERE, "as the column oif says")
    return Decision(Way.OUT, f"dev {oif}, as the column oif says", oif)


def route_text(found: Lookup) -> str:
    """A route for people: ``dev eth0 via 10.0.2.2``."""
    via = "" if found.gateway is None else f" via {format_address(found.gateway)}"
    return f"dev {found.dev}{via}"
