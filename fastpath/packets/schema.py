"""The packet columns and the result columns: one table each, which everything else reads.

A packet is a row. Names, dtypes and codes here are also those of files (CSV, Parquet), where interfaces
are names, addresses are text and ``state`` is a word. An address column is ``uint32`` of shape (n,) for
IPv4 and of shape (n, 4), most significant word first, for IPv6.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    """Connection-tracking state a packet arrives with.

    AUTO is a packet of no known flow: it becomes NEW or INVALID as conntrack decides from its TCP flags or
    ICMP type. REPLY is ESTABLISHED in reply direction.
    """

    AUTO = 0
    NEW = 1
    ESTABLISHED = 2
    REPLY = 3
    RELATED = 4
    INVALID = 5
    UNTRACKED = 6


class Verdict(IntEnum):
    """A packet's fate. ACCEPT and RETURN occur only where one chain is evaluated alone."""

    FORWARD = 0
    LOCAL_OUT = 1
    LOCAL_IN = 2
    DROP = 3
    REJECT = 4
    ICMP_ERROR = 5
    UNDECIDED = 6
    ACCEPT = 7
    RETURN = 8


class Hook(IntEnum):
    """Where a packet's way ended. What routing drops ends at ROUTE."""

    PREROUTING = 0
    ROUTE = 1
    INPUT = 2
    FORWARD = 3
    OUTPUT = 4
    POSTROUTING = 5


class Flag(IntEnum):
    """Bits of the result column ``flags``."""

    NAT_CHOICE = 1
    """The kernel may choose another address or port from the NAT rule's range; the first possible one is shown."""


class Leg(IntEnum):
    """One of the four packets that a connection is judged by: its first, the answer to it, and a later one each way."""

    FIRST = 0
    REPLY = 1
    LATER = 2
    LATER_REPLY = 3


class Outcome(IntEnum):
    """What becomes of a connection.

    STOPPED: a rule or routing stops a packet. UNDECIDED: a packet's fate is. ASTRAY: a packet gets through, but not to
    where the connection's other end is. UNTRANSLATED: it gets there with addresses that the other end does not know.
    BYPASSED: the answer goes past this host (both ends are on one link), so that nothing undoes the NAT. NO_FLOW: the
    first packet opens no connection.
    """

    WORKS = 0
    STOPPED = 1
    UNDECIDED = 2
    ASTRAY = 3
    UNTRANSLATED = 4
    BYPASSED = 5
    NO_FLOW = 6


LOCAL = "local"
"""Name of the pseudo interface: as ``iif`` a packet the host makes itself, as ``oif`` one delivered to it."""

NO_ID = 0xFFFFFFFF
"""``uid``/``gid`` of a packet whose owner is not known."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``kind`` says how files write it: number, address, interface or state."""

    name: str
    dtype: str
    unit: str
    default: int | None
    meaning: str
    kind: str = "number"


PACKET_COLUMNS: tuple[Column, ...] = (
    Column("iif", "int16", "interface", None, "ingress interface; local = made by the host itself", "interface"),
    Column("src", "uint32", "address", None, "source address", "address"),
    Column("dst", "uint32", "address", None, "destination address", "address"),
    Column("proto", "uint8", "IP protocol", None, "6 TCP, 17 UDP, 1 ICMP, 132 SCTP, ..."),
    Column("sport", "uint16", "port", 0, "source port; for ICMP the echo id"),
    Column("dport", "uint16", "port", 0, "destination port; empty (0) for ICMP"),
    Column("tcp_flags", "uint8", "bits", 2, "FIN 1 SYN 2 RST 4 PSH 8 ACK 16 URG 32 ECE 64 CWR 128"),
    Column("icmp_type", "uint8", "type", 8, "ICMP type"),
    Column("icmp_code", "uint8", "code", 0, "ICMP code"),
    Column("frag", "uint8", "code", 0, "0 whole packet, 1 first fragment, 2 later fragment"),
    Column("ttl", "uint8", "hops", 64, "time to live on arrival"),
    Column("tos", "uint8", "bits", 0, "type of service byte (DSCP and ECN)"),
    Column("length", "uint16", "bytes", 60, "length of the IP packet"),
    Column("mark", "uint32", "bits", 0, "packet mark before the rules run"),
    Column("connmark", "uint32", "bits", 0, "mark of the packet's connection"),
    Column("state", "uint8", "State", 0, "connection-tracking state", "state"),
    Column("ctdir", "uint8", "code", 0, "0 from state, 1 original, 2 reply direction"),
    Column("ctstatus", "uint16", "bits", 0, "status bits of the connection (EXPECTED 1, SEEN_REPLY 2, ASSURED 4, "
           "CONFIRMED 8, SRC_NAT 16, DST_NAT 32); 0 = from state"),
    Column("ctorigdst", "uint32", "address", 0, "destination of the flow's first packet before NAT; 0 = from the "
           "packet", "address"),
    Column("ctorigdstport", "uint16", "port", 0, "destination port of the flow's first packet before NAT; 0 = from the "
           "packet"),
    Column("oif", "int16", "interface", -1, "egress interface: overrides routing; local = delivered to the host; -1 = "
           "routing decides", "interface"),
    Column("mac_src", "uint64", "address", 0, "source MAC address, 48 bits; 0 = none"),
    Column("pkttype", "uint8", "code", 0, "link-layer type: 0 unicast, 1 broadcast, 2 multicast"),
    Column("uid", "uint32", "id", NO_ID, "owner of the sending socket (packets the host makes)"),
    Column("gid", "uint32", "id", NO_ID, "group of the sending socket (packets the host makes)"),
)
"""Every packet column; ``default`` None means that the column is required."""

RESULT_COLUMNS: tuple[Column, ...] = (
    Column("verdict", "uint8", "Verdict", 0, "the packet's fate"),
    Column("hook", "uint8", "Hook", 0, "where its way ended"),
    Column("rule", "int32", "rule id", -1, "the rule or policy that decided; -1 = none (routing)"),
    Column("oif", "int16", "interface", -1, "egress interface; -1 = none", "interface"),
    Column("src", "uint32", "address", 0, "source address after NAT", "address"),
    Column("dst", "uint32", "address", 0, "destination address after NAT", "address"),
    Column("sport", "uint16", "port", 0, "source port after NAT"),
    Column("dport", "uint16", "port", 0, "destination port after NAT"),
    Column("mark", "uint32", "bits", 0, "packet mark at the end"),
    Column("rules_walked", "uint32", "rules", 0, "rules examined, in all tables and chains"),
    Column("flags", "uint8", "Flag", 0, "remarks on the result"),
)
"""Every result column. In files the tuple columns are called post_src, post_dst, post_sport, post_dport, post_mark."""

FILE_NAMES: dict[str, str] = {
    "src": "post_src", "dst": "post_dst", "sport": "post_sport", "dport": "post_dport", "mark": "post_mark",
}
"""Result columns whose name in files differs, so that they can stand beside the packet's own."""
