"""The rules that a calibration times: one pattern a line, each of which isolates something that costs.

A pattern is one rule, repeated in FORWARD a few hundred and then some more times. All its tests but the last
hold for the packet and the last fails; where ``matches`` says so all hold, and ``fails`` names another that fails. What
the rule costs is then the slope of time over number, and the model's parameters are fitted to the slopes of all
patterns (see ``calibrate``).
"""

from __future__ import annotations

from dataclasses import dataclass

PACKET = {"iif": "in0", "src": "198.51.100.7", "dst": "198.18.0.9", "proto": "tcp", "sport": 40000, "dport": 8080,
          "tcp_flags": "SYN", "mac_src": "02:00:00:00:00:01"}
"""What passes; forwarded from in0 to out0."""

UDP = PACKET | {"proto": "udp", "tcp_flags": ""}
ICMP = {"iif": "in0", "src": "198.51.100.7", "dst": "198.18.0.9", "proto": "icmp", "icmp_type": 8,
        "mac_src": "02:00:00:00:00:01"}
SCTP = PACKET | {"proto": "sctp", "tcp_flags": "", "length": 100}

IPSETS = {
    "ip4": "create ip4 hash:ip\nadd ip4 203.0.113.5\n",
    "net1": "create net1 hash:net\nadd net1 203.0.113.0/24\n",
    "net4": "create net4 hash:net\nadd net4 203.0.113.0/24\nadd net4 10.9.0.0/16\nadd net4 192.168.0.0/17\n"
            "add net4 172.20.0.0/14\n",
    "ipport": "create ipport hash:ip,port\nadd ipport 203.0.113.5,tcp:80\n",
    "netport": "create netport hash:net,port\nadd netport 203.0.113.0/24,tcp:80\n",
    "ports": "create ports bitmap:port range 0-65535\nadd ports 22\n",
    "bits": "create bits bitmap:ip range 203.0.113.0-203.0.113.255\nadd bits 203.0.113.7\n",
    "netnet": "create netnet hash:net,net\nadd netnet 203.0.113.0/24,203.0.113.0/24\n",
}
"""The ipsets that patterns ask, by name, as ``ipset restore`` reads them; none holds the packet."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A rule to repeat.

    Attributes:
        rule: its text behind ``-A FORWARD``; every ``%d`` takes a running number below 250.
        packet: columns of the packet.
        matches: all tests hold.
        fails: else the header test that fails; empty for the last test of the rule.
        table: ``filter`` or ``mangle``.
    """

    rule: str
    packet: dict[str, object]
    matches: bool = False
    table: str = "filter"
    fails: str = ""

    def text(self, number: int) -> str:
        """The rule for its place in the chain."""
        return "-A FORWARD " + self.rule.replace("%d", str(number % 250 + 1))


_FAILS = """
-s 203.0.113.%d/32
-s 203.0.112.0/20
-d 203.0.113.%d/32
-d 203.0.112.0/20
-s 203.0.%d.0/24
-d 203.0.%d.0/24
-s 203.%d.0.0/16
-d 9.0.0.0/8
-s 198.51.100.0/24 -d 203.0.113.%d/32
-s 198.51.0.0/16 -d 203.0.113.%d/32
-i xyz%d
-i br-+
-o xyz%d
-o br-+
-p udp
-f
-s 198.51.100.7/32 -d 203.0.113.%d/32
-d 198.18.0.9/32 -i xyz%d
-i in0 -o xyz%d
! -i xyz%d -o xyz%d
-i in0 ! -o out0
-i in+ -o xyz%d
-s 198.51.96.0/20 -d 203.0.113.%d/32
-i in0 -o out0 -p udp
-d 198.18.0.9/32 ! -i xyz%d -o out0 -p udp
-d 198.18.0.9/32 ! -i xyz -o out0 -p tcp -m tcp --dport 2%d
-p tcp -m tcp --dport 2%d
-p tcp -m tcp --sport 2%d
-p tcp -m tcp --dport 2%d:3000
-p tcp -m tcp --dport 8000:9000 -m mark --mark 0xdead
-p tcp -m tcp --dport 8080 -m mark --mark 0xdead
-p tcp -m tcp --sport 40000 --dport 2%d
-p tcp -m tcp -m mark --mark 0xdead
-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK ACK
-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m mark --mark 0xdead
-p tcp -m multiport --dports 2%d
-p tcp -m multiport --dports 21,22,23,25,53,80,110,143,443,993,995,3306,5432,6379,2%d
-p tcp -m multiport --dports 8080 -m mark --mark 0xdead
-m iprange --src-range 203.0.113.%d-203.0.113.255
-m iprange --dst-range 198.18.0.0-198.18.0.255 -m mark --mark 0xdead
-m set --match-set ip4 src
-m set --match-set net1 src
-m set --match-set net4 src
-m set --match-set ipport src,dst
-m set --match-set netport src,dst
-m set --match-set ports dst
-m set --match-set bits src
-m set --match-set netnet src,dst
-m set ! --match-set net1 src -m mark --mark 0xdead
-m addrtype --dst-type LOCAL
-m addrtype --src-type LOCAL
-m addrtype ! --dst-type LOCAL -m mark --mark 0xdead
-m conntrack --ctstate INVALID
-m conntrack --ctstate NEW -m mark --mark 0xdead
-m conntrack --ctstate RELATED,ESTABLISHED
-o out0 -m conntrack --ctstate RELATED,ESTABLISHED
-m conntrack --ctorigdst 203.0.113.%d
-m conntrack --ctdir REPLY
-m state --state ESTABLISHED
-m mark --mark 0x%d
-m mark --mark 0x%d/0xffff
-m mark --mark 0x0 -m mark --mark 0xdead
-m connmark --mark 0x%d
-m comment --comment "rule number %d" -m mark --mark 0xdead
-p tcp -m comment --comment "rule number %d" -m tcp --dport 2%d
-m mac --mac-source 02:00:00:00:99:99
-m mac --mac-source 02:00:00:00:00:01 -m mark --mark 0xdead
-m pkttype --pkt-type broadcast
-m length --length 1000:1500
-m ttl --ttl-eq 9
-m tos --tos 0x10/0xff
-m dscp --dscp 0x0a
-m ecn --ecn-ip-ect 1
-m limit --limit 1/day --limit-burst 1
-m statistic --mode random --probability 0.0
-m time --datestop 2001-01-01
-m string --string "zzzzzzzz" --algo bm
-m u32 --u32 "0x0=0x1"
-m recent --rcheck --name fp --rsource
-m hashlimit --hashlimit-upto 1/day --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-name fp
-m connbytes --connbytes 100000 --connbytes-dir both --connbytes-mode bytes
-m cpu --cpu 63
-m quota --quota 0
""".strip().splitlines()

_EARLY = {
    "-d 203.0.113.%d/32 ! -i xyz -o out0 -p tcp -m tcp --dport 80": "dst",
    "-d 203.0.113.%d/32 -p tcp -m tcp --dport 80 -m comment --comment x": "dst",
    "-s 203.0.113.%d/32 -p tcp -m tcp --dport 80": "src",
    "-s 203.0.113.%d/32 -m comment --comment x": "src",
    "-o xyz%d -m conntrack --ctstate RELATED,ESTABLISHED": "out",
    "-i xyz%d -m comment --comment x": "in",
    "-i xyz%d -p tcp -m tcp --dport 80": "in",
    "-p udp -m udp --dport 53": "proto",
}
"""Rules that fail at a test before the last: what stands behind it is only memory to leap over."""

_MATCHES = """

-j EMPTY
-s 198.51.100.7/32
-d 198.18.0.9/32
-i in0
-o out0
-p tcp
-p tcp -m tcp --dport 8080
-m mark --mark 0x0
-i in0 ! -o xyz%d
-i in0 ! -o xyz%d -j EMPTY
-m comment --comment "rule number %d"
-m conntrack --ctstate NEW
-j RETURNS
""".strip("\n").splitlines()

_CHANGES = """
-j MARK --set-xmark 0x1/0xffffffff
-j CONNMARK --save-mark
-j TOS --set-tos 0x10/0xff
-j DSCP --set-dscp 0x0a
-j TTL --ttl-set 64
-j CLASSIFY --set-class 1:1
-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
""".strip().splitlines()

PATTERNS: tuple[Pattern, ...] = (
    *(Pattern(f"{rule} -j ACCEPT", PACKET) for rule in _FAILS),
    *(Pattern(f"{rule} -j ACCEPT", PACKET, fails=test) for rule, test in _EARLY.items()),
    Pattern("-p udp -m udp --dport 2%d -j ACCEPT", UDP),
    Pattern("-p udp -m udp --sport 2%d:3000 -j ACCEPT", UDP),
    Pattern("-p sctp -m sctp --dport 2%d -j ACCEPT", SCTP),
    Pattern("-p icmp -m icmp --icmp-type 0 -j ACCEPT", ICMP),
    Pattern("-p icmp -m icmp --icmp-type 8 -m mark --mark 0xdead -j ACCEPT", ICMP),
    *(Pattern(rule, PACKET, matches=True) for rule in _MATCHES),
    *(Pattern(rule, PACKET, matches=True, table="mangle") for rule in _CHANGES),
)

_LIGHT = ("-s 203.0.113.%d/32", "-d 203.0.113.%d/32", "-s 203.0.112.0/20", "-d 203.0.%d.0/24")
_LINKS = ("-i xyz%d", "-o xyz%d", "-i br-+", "-i in0 -o xyz%d", "! -i xyz%d -o xyz%d")
_PORTS = ("-p tcp -m tcp --dport 2%d", "-p udp", "-p tcp -m tcp --dport 2%d:3000", "-p tcp -m multiport --dports 2%d",
          "-d 198.18.0.9/32 ! -i xyz -o out0 -p tcp -m tcp --dport 2%d")
_STATES = ("-m conntrack --ctstate INVALID", "-m mark --mark 0x%d", "-m connmark --mark 0x%d")
_ASKED = ("-m set --match-set net1 src", "-m addrtype --dst-type LOCAL", "-m set --match-set ipport src,dst")

MIXES: tuple[tuple[str, ...], ...] = (
    _LIGHT, _LINKS, _PORTS, (*_LIGHT, *_LINKS), (*_LIGHT, *_PORTS), (*_STATES, *_LIGHT), (*_ASKED, *_LIGHT),
    (*_LIGHT, *_LINKS, *_PORTS, *_STATES, *_ASKED),
)
"""Rules of :data:`PATTERNS` that a calibration also times in a random order: real chains are no repetition of one."""
