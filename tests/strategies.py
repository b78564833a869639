"""Drawn hosts and packets for the property tests.

One generator writes a host as text (an iptables-save file, addresses, routes, sysctls, ipsets), so that a drawn host
can be shown to iptables-restore, to the kernel, and be kept as a case. It draws from a ``random.Random``: a seeded
one for speed (:func:`random_host`), or Hypothesis' own, which shrinks (:func:`hosts`).

Everything comes from small pools of addresses, ports and marks, so that rules overlap and shadow one another, and
every rule is one that iptables accepts: protocols for the matches that need one, hooks for the targets that need one,
no loops.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import strategies as st

from fastpath.host.model import Host
from fastpath.host.text import make_host
from fastpath.ruleset.model import BUILTIN_CHAINS
from fastpath.ruleset.parse import parse_ruleset
from tests.edges import FULL, MACS, edge_packets, number

__all__ = ["Drawn", "drawn_hosts", "edge_packets", "hosts", "random_drawn", "random_host"]

T = TypeVar("T")

PORTS = (80, 443, 0, 22, 53, 81, 1023, 1024, 6379, 6380, 8080, 32768, 65534, 65535)
MARKS = (0, 1, 2, 3, 0x10, 0x11, 0xFF, 0x8000, 0x80000000, 0xFFFFFFFF)
MARK_MASKS = (FULL, 1, 3, 0xFF, 0xF0, 0x8000)
TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")
STATES = ("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "SNAT", "DNAT")
ADDRESS_TYPES = ("LOCAL", "UNICAST", "BROADCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT")


@dataclass
class Drawn:
    """A host as text, the arguments of :func:`fastpath.host.text.make_host`."""

    rules: str
    interfaces: dict[str, list[str]]
    routes: list[str]
    sysctls: dict[str, str]
    ipsets: str = ""
    features: set[str] = field(default_factory=set)

    def host(self) -> Host:
        """The host itself."""
        return make_host(
            parse_ruleset(self.rules), self.interfaces, self.routes, sysctls=self.sysctls, ipsets=self.ipsets)

    def __str__(self) -> str:
        lines = [f"# {name}: {' '.join(addresses)}" for name, addresses in self.interfaces.items()]
        lines += [f"# route {route}" for route in self.routes]
        lines += [f"# {key} = {value}" for key, value in self.sysctls.items()]
        lines += [f"# ipset {line}" for line in self.ipsets.splitlines()]
        return "\n".join(lines) + "\n" + self.rules


def dotted(address: int) -> str:
    """An address as text."""
    return str(ipaddress.IPv4Address(address & FULL))


class Generator:
    """Draws one host. Options that come first in a list are the simple ones: shrinking goes towards them."""

    def __init__(self, rnd: random.Random, *, size: int, undecided: bool = True) -> None:
        self.rnd = rnd
        self.size = size
        self.undecided = undecided
        self.features: set[str] = set()
        self.interfaces: dict[str, list[str]] = {}
        self.sets: list[tuple[str, int]] = []

    # ------------------------------------------------------------------------------------------------ drawing

    def chance(self, p: float) -> bool:
        return self.rnd.random() > 1 - p

    def pick(self, items: Sequence[T]) -> T:
        return items[self.rnd.randrange(len(items))]

    def some(self, items: Sequence[T], most: int) -> list[T]:
        """One to `most` different items, in their order."""
        count = self.rnd.randrange(min(most, len(items))) + 1
        chosen = {self.rnd.randrange(len(items)) for _ in range(count)}
        return [items[i] for i in sorted(chosen)]

    def negation(self, p: float = 0.2) -> str:
        return "! " if self.chance(p) else ""

    # ------------------------------------------------------------------------------------------- surroundings

    def surroundings(self) -> None:
        layouts: list[tuple[str, list[str]]] = [
            ("eth0", ["10.0.2.15/24"]),
            ("docker0", ["172.17.0.1/16"]),
            ("br-a1", ["172.18.0.1/16"]),
            ("eth1", ["10.0.3.1/25", "10.0.3.200/25"]),
            ("br-b2", ["172.18.128.1/17", "192.168.7.1/30"]),
        ]
        count = 2 + self.rnd.randrange(4)
        for name, addresses in layouts[:count]:
            self.interfaces[name] = addresses[:1] if self.chance(0.5) else list(addresses)
        if self.chance(0.15):
            self.interfaces["eth0"].append("10.0.2.16/24")
        if self.chance(0.1):
            self.interfaces["docker0"].append("203.0.113.9/32")
        self.names = list(self.interfaces)
        own = [number(a.partition("/")[0]) for addresses in self.interfaces.values() for a in addresses]
        self.own = own
        networks = [ipaddress.IPv4Interface(a).network for addresses in self.interfaces.values() for a in addresses]
        pool = list(own)
        for network in networks:
            first, last = int(network.network_address), int(network.broadcast_address)
            pool += [min(first + 2, last), min(first + 3, last), last, first]
        pool += [number(a) for a in ("8.8.8.8", "198.51.100.7", "192.0.2.1", "10.0.0.0", "127.0.0.1", "224.0.0.1",
                                     "172.31.255.255", "1.0.0.0", "240.0.0.1", "0.0.0.0", "255.255.255.255")]
        self.addresses = list(dict.fromkeys(pool))
        self.usable = [a for a in self.addresses if 0x01000000 < a < 0xE0000000 and a >> 24 != 127]

    def routes(self) -> list[str]:
        found = ["default via 10.0.2.2 dev eth0"] if not self.chance(0.08) else []
        if self.chance(0.25):
            dev = self.pick(self.names)
            found.append(f"192.0.2.0/24 via {dotted(self.own[0] + 3)} dev {dev}")
        if self.chance(0.15):
            found.append(f"198.51.100.0/24 dev {self.pick(self.names)} metric 5")
            found.append(f"198.51.100.0/24 dev {self.pick(self.names)} metric 3")
        if self.chance(0.15):
            found.append(f"{self.pick(('blackhole', 'unreachable', 'prohibit', 'throw'))} 198.51.96.0/20")
        if self.chance(0.1):
            found.append(f"8.8.8.8 dev {self.pick(self.names)}")
        return found

    def sysctls(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for key, values, p in (
            ("net.ipv4.ip_forward", ("0",), 0.06),
            ("net.ipv4.conf.all.rp_filter", ("1", "2"), 0.15),
            ("net.ipv4.conf.eth0.rp_filter", ("1", "2"), 0.1),
            ("net.ipv4.conf.all.route_localnet", ("1",), 0.08),
            ("net.ipv4.conf.docker0.route_localnet", ("1",), 0.08),
            ("net.ipv4.conf.all.accept_local", ("1",), 0.06),
            ("net.ipv4.conf.eth0.accept_local", ("1",), 0.06),
            ("net.netfilter.nf_conntrack_tcp_loose", ("0",), 0.1),
        ):
            if self.chance(p):
                found[key] = self.pick(values)
        return found

    def ipsets(self) -> str:
        """Some sets of different types with elements from the pools; ``self.sets`` gets names and dimensions."""
        lines: list[str] = []
        kinds: list[tuple[str, str, Callable[[], str], int]] = [
            ("hash:net", "", self.network, 1),
            ("hash:ip", "", self.plain_address, 1),
            ("hash:ip,port", "", lambda: f"{self.plain_address()},{self.set_port()}", 2),
            ("hash:net,port", "", lambda: f"{self.network()},{self.set_port()}", 2),
            ("hash:ip,port,ip", "", lambda: f"{self.plain_address()},{self.set_port()},{self.plain_address()}", 3),
            ("hash:ip,port,net", "", lambda: f"{self.plain_address()},{self.set_port()},{self.network()}", 3),
            ("bitmap:port", "range 0-65535", lambda: str(self.pick(PORTS)), 1),
            ("bitmap:ip", "range 172.17.0.0/16", lambda: f"172.17.{self.pick((0, 1, 255))}.{self.pick((1, 2, 3))}", 1),
            ("hash:ip", "netmask 24", lambda: dotted(self.pick(self.usable) & 0xFFFFFF00), 1),
            ("hash:net,iface", "", lambda: f"{self.network()},{self.pick(self.names)}", 2),
        ]
        for i in range(self.rnd.randrange(3) + 1):
            type_, options, element, dimensions = self.pick(kinds)
            lines.append(f"create s{i} {type_} {options}".rstrip())
            seen: set[str] = set()
            for _ in range(self.rnd.randrange(8)):
                text = element()
                if text in seen:
                    continue
                seen.add(text)
                exception = " nomatch" if "net" in type_ and self.chance(0.3) else ""
                lines.append(f"add s{i} {text}{exception}")
            self.sets.append((f"s{i}", dimensions))
        if self.chance(0.2):
            members = [name for name, _ in self.sets]
            lines.append("create all list:set")
            lines += [f"add all {name}" for name in members]
            self.sets.append(("all", 3))
        self.features.add("ipset")
        return "\n".join(lines) + "\n"

    def plain_address(self) -> str:
        return dotted(self.pick(self.usable))

    def set_port(self) -> str:
        kind = self.pick(("tcp", "udp", "sctp", "icmp", "gre"))
        if kind == "icmp":
            return self.pick(("icmp:8/0", "icmp:3/1"))
        return f"{kind}:{self.pick(PORTS) if kind != 'gre' else 0}"

    # ------------------------------------------------------------------------------------------------- values

    def network(self) -> str:
        """A prefix around a pool address, from 1 to 32 bits."""
        length = self.pick((32, 24, 16, 31, 30, 25, 17, 12, 8, 4, 1))
        return str(ipaddress.IPv4Network((self.pick(self.addresses), length), strict=False)).removesuffix("/32")

    def span(self) -> str:
        first, last = sorted((self.pick(self.addresses), self.pick(self.addresses)))
        if self.chance(0.5):
            last = min(first + self.pick((0, 1, 2, 255)), FULL)
        return f"{dotted(first)}-{dotted(last)}"

    def ports(self, sep: str = ":") -> str:
        first = self.pick(PORTS)
        if self.chance(0.7):
            return str(first)
        last = self.pick(PORTS)
        return f"{min(first, last)}{sep}{max(first, last)}" if first != last else str(first)

    def interface(self) -> str:
        """A name of the host, a wildcard, or a name that the host has not."""
        kind = self.pick((0, 0, 0, 0, 1, 1, 2))
        if kind == 0:
            return self.pick(self.names)
        if kind == 1:
            return self.pick(("eth+", "br-+", "docker+", "e+"))
        return self.pick(("wlan0", "lo", "veth1a2b3c4"))

    def masked(self) -> str:
        value, mask = self.pick(MARKS), self.pick(MARK_MASKS)
        return f"{value & mask:#x}" if mask == FULL else f"{value & mask:#x}/{mask:#x}"

    # ------------------------------------------------------------------------------------------------ matches

    def builtin_tests(self, hooks: frozenset[str], builtin: bool) -> tuple[list[str], int | None]:
        """``-s -d -i -o -p -f``; returns words and the protocol that later matches may rely on."""
        words: list[str] = []
        if self.chance(0.25):
            words.append(f"{self.negation()}-s {self.address_test()}")
        if self.chance(0.35):
            words.append(f"{self.negation()}-d {self.address_test()}")
        if self.chance(0.25) and not (builtin and hooks & {"OUTPUT", "POSTROUTING"}):
            words.append(f"{self.negation(0.3)}-i {self.interface()}")
        if self.chance(0.25) and not (builtin and hooks & {"INPUT", "PREROUTING"}):
            words.append(f"{self.negation(0.3)}-o {self.interface()}")
        protocol: int | None = None
        if self.chance(0.5):
            value = self.pick((6, 6, 6, 17, 17, 1, 132, 33, 136, 47))
            if self.chance(0.12):
                words.append(f"! -p {value}")
            else:
                protocol = value
                words.append(f"-p {value}")
        if self.chance(0.04):
            words.append(f"{self.negation(0.5)}-f")
            self.features.add("fragment")
        return words, protocol

    def address_test(self) -> str:
        if self.chance(0.04):
            self.features.add("holes")
            return f"{dotted(self.pick(self.addresses))}/{self.pick(('255.0.255.0', '0.0.0.255', '255.255.0.255'))}"
        return self.network()

    def protocol_match(self, protocol: int) -> str:
        """A match on what comes with the protocol."""
        if protocol == 1:
            return f"-m icmp {self.negation()}--icmp-type {self.pick(('8', '0', '3', '3/1', '8/0', '13', 'any'))}"
        if protocol not in (6, 17, 132, 33, 136):
            return ""
        if self.chance(0.25):
            which = self.pick(("--dports", "--sports", "--ports"))
            values = [self.ports() for _ in range(self.rnd.randrange(4) + 1)]
            return f"-m multiport {self.negation()}{which} {','.join(values)}"
        module = {6: "tcp", 17: "udp", 132: "sctp", 33: "dccp"}.get(protocol)
        if module is None:
            return ""
        words = [f"-m {module}"]
        if self.chance(0.7):
            words.append(f"{self.negation()}--dport {self.ports()}")
        if self.chance(0.3) or (len(words) == 1 and protocol != 6):
            words.append(f"{self.negation()}--sport {self.ports()}")
        if protocol == 6 and (len(words) == 1 or self.chance(0.15)):
            mask = self.some(TCP_FLAGS, 4)
            compare = [f for f in mask if self.chance(0.5)]
            words.append(f"{self.negation()}--tcp-flags {','.join(mask)} {','.join(compare) or 'NONE'}")
            self.features.add("tcp-flags")
        return " ".join(words)

    def extra_match(self, table: str, hooks: frozenset[str], builtin: bool, protocol: int | None) -> str:
        """One more ``-m``, of a kind allowed here."""
        kinds = ["conntrack", "mark", "addrtype", "conntrack", "iprange", "state", "connmark", "length", "ttl", "tos",
                 "dscp", "pkttype", "ecn", "comment"]
        if self.sets:
            kinds += ["set", "set", "set"]
        if builtin and hooks <= {"PREROUTING", "INPUT", "FORWARD"}:
            kinds.append("mac")
        if builtin and hooks <= {"OUTPUT", "POSTROUTING"}:
            kinds.append("owner")
        if self.undecided:
            kinds += ["undecided"] * 6
        kind = self.pick(kinds)
        self.features.add(kind)
        if kind == "conntrack":
            return self.conntrack()
        if kind == "undecided":
            return self.pick((
                "-m limit --limit 5/min", "-m statistic --mode random --probability 0.50000000000",
                "-m recent --rcheck --seconds 60 --name x --mask 255.255.255.255 --rsource",
                "-m connlimit --connlimit-above 3 --connlimit-mask 32 --connlimit-saddr",
                "-m quota --quota 1000",
            ))
        if kind == "addrtype":
            words = ["-m addrtype"]
            which = self.pick(("dst", "dst", "src", "both"))
            if which in ("src", "both"):
                words.append(f"{self.negation()}--src-type {','.join(self.some(ADDRESS_TYPES, 2))}")
            if which in ("dst", "both"):
                words.append(f"{self.negation()}--dst-type {','.join(self.some(ADDRESS_TYPES, 2))}")
            if self.chance(0.1) and builtin and hooks <= {"PREROUTING", "INPUT", "FORWARD"}:
                words.append("--limit-iface-in")
            elif self.chance(0.1) and builtin and hooks <= {"POSTROUTING", "OUTPUT", "FORWARD"}:
                words.append("--limit-iface-out")
            return " ".join(words)
        if kind == "set":
            name, dimensions = self.pick(self.sets)
            directions = ",".join(self.pick(("src", "dst")) for _ in range(dimensions))
            inverted = " --return-nomatch" if self.chance(0.1) else ""
            return f"-m set {self.negation()}--match-set {name} {directions}{inverted}"
        simple: dict[str, Callable[[], str]] = {
            "mark": lambda: f"-m mark {self.negation()}--mark {self.masked()}",
            "connmark": lambda: f"-m connmark {self.negation()}--mark {self.masked()}",
            "state": lambda: f"-m state {self.negation()}--state {','.join(self.some(STATES[:5], 3))}",
            "iprange": lambda: f"-m iprange {self.negation()}--{self.pick(('src', 'dst'))}-range {self.span()}",
            "length": lambda: f"-m length {self.negation()}--length {self.pick(('60', '0:59', '61:65535', '40:1500'))}",
            "ttl": lambda: f"-m ttl {self.pick(('--ttl-eq 64', '! --ttl-eq 64', '--ttl-lt 3', '--ttl-gt 1'))}",
            "tos": lambda: f"-m tos {self.negation()}--tos {self.pick(('0x10/0x3f', '0x00/0xff', '0x28/0xfc'))}",
            "dscp": lambda: f"-m dscp {self.negation()}--dscp {self.pick(('0x00', '0x0a', '0x2e'))}",
            "ecn": lambda: f"-m ecn {self.negation()}--ecn-ip-ect {self.pick((0, 1, 2, 3))}",
            "pkttype": lambda: f"-m pkttype {self.negation()}--pkt-type "
                               f"{self.pick(('unicast', 'broadcast', 'multicast'))}",
            "mac": lambda: f"-m mac {self.negation()}--mac-source {mac_text(self.pick(MACS))}",
            "owner": lambda: f"-m owner {self.negation()}--{self.pick(('uid', 'gid'))}-owner "
                             f"{self.pick(('0', '1000', '1000-2000'))}",
            "comment": lambda: '-m comment --comment "it\'s a \\"drawn\\" rule"',
        }
        return simple[kind]()

    def conntrack(self) -> str:
        words = ["-m conntrack"]
        if self.chance(0.75):
            words.append(f"{self.negation()}--ctstate {','.join(self.some(STATES, 3))}")
        if len(words) == 1 or self.chance(0.2):
            option = self.pick(("ctdir", "ctorigdst", "ctorigdstport", "ctstatus", "ctproto", "ctorigsrc", "ctreplsrc",
                                "ctrepldst", "ctorigsrcport", "ctreplsrcport", "ctrepldstport"))
            value: Callable[[], str] = {
                "ctdir": lambda: self.pick(("ORIGINAL", "REPLY")),
                "ctstatus": lambda: ",".join(self.some(("NONE", "EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"), 2)),
                "ctproto": lambda: str(self.pick((6, 17, 1))),
            }.get(option, self.ports if option.endswith("port") else self.network)
            negation = "" if option == "ctdir" else self.negation()
            words.append(f"{negation}--{option} {value()}")
            self.features.add(option)
        return " ".join(words)

    # ------------------------------------------------------------------------------------------------ targets

    def target(
        self, table: str, hooks: frozenset[str], builtin: bool, protocol: int | None, jumps: Sequence[str]
    ) -> str:
        """``-j ...`` or ``-g ...``, or nothing."""
        kinds = ["ACCEPT", "effect", "none"]
        kinds += ["jump"] * (3 if builtin else 2) if jumps else []
        if not builtin or self.chance(0.1):
            kinds.append("RETURN")
        by_table = {"nat": ["nat"] * 5, "filter": ["ACCEPT", "verdict", "verdict", "DROP"]}
        kinds += by_table.get(table, ["effect", "verdict"])
        kind = self.pick(kinds)
        if kind == "jump":
            return f"{'-g' if self.chance(0.2) else '-j'} {self.pick(jumps)}"
        if kind == "nat":
            return self.nat(hooks, protocol)
        if kind == "effect":
            return self.effect(table, hooks)
        if kind == "none":
            return ""
        if kind == "verdict":
            if table == "filter" and self.chance(0.4):
                answers = ["icmp-port-unreachable", "icmp-admin-prohibited"]
                if protocol == 6:
                    answers.append("tcp-reset")
                return f"-j REJECT --reject-with {self.pick(answers)}"
            if self.undecided and self.chance(0.08):
                self.features.add("NFQUEUE")
                return "-j NFQUEUE --queue-num 0"
            kind = "DROP"
        return f"-j {kind}"

    def effect(self, table: str, hooks: frozenset[str]) -> str:
        """A target after which the rules go on."""
        kinds = ["MARK", "MARK", "LOG", "CONNMARK"]
        if table == "mangle":
            kinds += ["TTL", "TOS", "DSCP", "MARK"]
        if table == "raw":
            kinds += ["CT"] * 4
        kind = self.pick(kinds)
        self.features.add(kind)
        if kind == "MARK":
            return f"-j MARK --{self.pick(('set-xmark', 'set-mark', 'set-xmark'))} {self.masked()}"
        if kind == "CONNMARK":
            masks = f"--nfmask {self.pick(MARK_MASKS):#x} --ctmask {self.pick(MARK_MASKS):#x}"
            return "-j CONNMARK " + self.pick((f"--set-xmark {self.masked()}", f"--save-mark {masks}",
                                               f"--restore-mark {masks}"))
        return "-j " + {
            "LOG": 'LOG --log-prefix "a b"',
            "TTL": f"TTL {self.pick(('--ttl-set 1', '--ttl-dec 1', '--ttl-inc 2', '--ttl-set 64'))}",
            "TOS": f"TOS --set-tos {self.pick(('0x10/0x3f', '0x00/0xff'))}",
            "DSCP": f"DSCP --set-dscp {self.pick(('0x0a', '0x2e'))}",
            "CT": "CT --notrack",
        }[kind]

    def nat(self, hooks: frozenset[str], protocol: int | None) -> str:
        ports = protocol in (6, 17, 132, 33)
        if hooks <= {"PREROUTING", "OUTPUT"}:
            kinds = ["DNAT", "DNAT", "DNAT", "REDIRECT", "NETMAP"]
        elif "INPUT" in hooks:
            kinds = ["SNAT"]
        else:
            kinds = ["MASQUERADE", "SNAT", "SNAT", "NETMAP"]
        kind = self.pick(kinds)
        self.features.add(kind)
        flags = "".join(f" --{f}" for f in ("random", "persistent") if self.chance(0.06))
        if kind == "NETMAP":
            return f"-j NETMAP --to {self.pick(('172.17.0.0/24', '10.9.0.0/16', '192.0.2.1/32'))}"
        if kind in ("REDIRECT", "MASQUERADE"):
            words = f" --to-ports {self.ports('-')}" if ports and self.chance(0.5) else ""
            return f"-j {kind}{words}{' --random' if self.chance(0.05) else ''}"
        where = self.nat_address() if not ports or self.chance(0.85) else ""
        if ports and (not where or self.chance(0.6)):
            where += f":{self.ports('-')}"
        return f"-j {kind} --to-{'destination' if kind == 'DNAT' else 'source'} {where}{flags}"

    def nat_address(self) -> str:
        first = self.pick(self.usable)
        return f"{dotted(first)}-{dotted(first + self.pick((0, 1, 7)))}" if self.chance(0.15) else dotted(first)

    # -------------------------------------------------------------------------------------------------- rules

    def rule(self, table: str, hooks: frozenset[str], builtin: bool, jumps: Sequence[str]) -> str:
        words, protocol = self.builtin_tests(hooks, builtin)
        if not words and self.chance(0.7):
            words.append(f"-{self.pick(('d', 's'))} {self.network()}")
        if protocol is not None and self.chance(0.6):
            words.append(self.protocol_match(protocol))
        while self.chance(0.27):
            words.append(self.extra_match(table, hooks, builtin, protocol))
        words.append(self.target(table, hooks, builtin, protocol, jumps))
        return " ".join(w for w in words if w)

    def table(self, name: str) -> list[str]:
        """One table as iptables-save prints it."""
        chains = BUILTIN_CHAINS[name]
        users = [f"U{i}" for i in range(self.rnd.randrange(4))]
        groups: dict[str, frozenset[str]] = {}
        for user in users:
            if name == "nat":
                groups[user] = frozenset(self.pick((("PREROUTING", "OUTPUT"), ("POSTROUTING",), ("INPUT",))))
            else:
                groups[user] = frozenset(chains)
        lines = [f"*{name}"]
        bodies: list[str] = []
        for chain in chains:
            hooks = frozenset({chain})
            jumps = [u for u in users if chain in groups[u]]
            body = [self.rule(name, hooks, True, jumps) for _ in range(self.rnd.randrange(self.size))]
            if not body and self.chance(0.1):
                continue
            policy = "DROP" if name != "nat" and self.chance(0.05 if name != "filter" else 0.3) else "ACCEPT"
            lines.append(f":{chain} {policy} [0:0]")
            bodies += [f"-A {chain} {rule}".rstrip() for rule in body]
        for i, user in enumerate(users):
            lines.append(f":{user} - [0:0]")
            jumps = [u for u in users[i + 1:] if groups[user] <= groups[u]]
            body = [self.rule(name, groups[user], False, jumps) for _ in range(self.rnd.randrange(self.size))]
            bodies += [f"-A {user} {rule}".rstrip() for rule in body]
        return [*lines, *bodies, "COMMIT"]

    def draw(self) -> Drawn:
        """The whole host."""
        self.surroundings()
        self.undecided = self.undecided and self.chance(0.35)
        ipsets = self.ipsets() if self.chance(0.3) else ""
        tables = [name for name, p in (("filter", 0.95), ("nat", 0.65), ("mangle", 0.35), ("raw", 0.35),
                                       ("security", 0.1)) if self.chance(p)]
        lines: list[str] = []
        for name in tables:
            lines += self.table(name)
        rules = "\n".join(lines) + "\n" if lines else ""
        return Drawn(rules, self.interfaces, self.routes(), self.sysctls(), ipsets, self.features)


def mac_text(value: int) -> str:
    return ":".join(f"{value >> shift & 0xFF:02x}" for shift in range(40, -1, -8))


def random_drawn(seed: int, *, size: int = 7, undecided: bool = True) -> Drawn:
    """The drawn host of a seed, as text. `size` bounds the rules of a chain."""
    return Generator(random.Random(seed), size=size, undecided=undecided).draw()


def random_host(seed: int, *, size: int = 7, undecided: bool = True) -> Host:
    """The drawn host of a seed."""
    return random_drawn(seed, size=size, undecided=undecided).host()


def drawn_hosts(*, size: int = 4, undecided: bool = True) -> st.SearchStrategy[Drawn]:
    """Hosts as text, drawn and shrunk by Hypothesis."""
    return st.randoms(use_true_random=False).map(lambda rnd: Generator(rnd, size=size, undecided=undecided).draw())


def hosts(*, size: int = 4, undecided: bool = True) -> st.SearchStrategy[Host]:
    """Hosts, drawn and shrunk by Hypothesis."""
    return drawn_hosts(size=size, undecided=undecided).map(Drawn.host)
