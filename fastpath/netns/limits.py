"""Which packets the judge can make, and why not the others.

Safe direction of error: to refuse. A packet that is refused is told apart with its reason; one that would reach the
kernel in another shape than its columns say would be a wrong judgement.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from fastpath.host.model import Host
from fastpath.netns.job import Array
from fastpath.netns.plan import devices, uses
from fastpath.netns.wire import (
    ICMP,
    ICMP_ANSWERS,
    ICMP_ERRORS,
    ICMP_QUESTIONS,
    LONGEST,
    QUOTING,
    SHORTEST,
    TCP,
    TRACKED_BY_PORTS,
)
from fastpath.packets.batch import PacketBatch
from fastpath.packets.schema import LOCAL, NO_ID, State

_CHECKED = (1, 6, 17, 132, 136)
"""Protocols whose checksum conntrack verifies."""

_TCP_NEW = frozenset({2, 10, 34, 42, 16, 24, 48, 56})
_TCP_NEW_STRICT = frozenset({2, 10, 34, 42})
"""TCP flags of a flow's first packet, without and with nf_conntrack_tcp_loose=0; measured."""

_TCP_POSSIBLE = frozenset({0x02, 0x22, 0x12, 0x04, 0x14, 0x11, 0x31, 0x10, 0x30})
"""TCP flags, less PSH, ECE and CWR, that conntrack lets pass at all (tcp_valid_flags, nf_conntrack_proto_tcp.c)."""

_SEEN_REPLY, _CONFIRMED, _EXPECTED = 2, 8, 1

Refuse = Callable[[Array | bool, str], None]


def first_is_invalid(host: Host, packets: PacketBatch) -> Array:
    """Whether conntrack takes a packet of no known flow for INVALID rather than NEW, from TCP flags and ICMP type."""
    proto = packets.column("proto")
    allowed = _TCP_NEW if host.sysctl("net.netfilter.nf_conntrack_tcp_loose", 1) else _TCP_NEW_STRICT
    tcp = (proto == TCP) & ~np.isin(packets.column("tcp_flags") & 63, list(allowed))
    icmp = (proto == ICMP) & ~np.isin(packets.column("icmp_type"), ICMP_QUESTIONS)
    found: Array = tcp | icmp
    return found


def enough(host: Host, packets: PacketBatch, count: int) -> PacketBatch:
    """The first of `packets`, as many as hold `count` that the judge can make; all where they hold fewer."""
    judged = np.cumsum(reasons(host, packets)[0] == 0)
    return packets[:int(np.searchsorted(judged, count)) + 1]


def reasons(host: Host, packets: PacketBatch) -> tuple[Array, tuple[str, ...], Array]:
    """Why the judge cannot make packets.

    Returns:
        An int16 array of codes (0: it can), the reasons that the codes index (the first is empty), and a boolean
        array: packets that must have a wrong checksum to be INVALID.
    """
    used = uses(host)
    codes = np.zeros(len(packets), np.int16)
    texts = [""]

    def refuse(where: Array | bool, text: str) -> None:
        chosen = (codes == 0) & where
        if chosen.any():
            texts.append(text)
            codes[chosen] = len(texts) - 1

    c = packets.column
    iif = c("iif")
    local = _named(packets, iif, (LOCAL,))
    looped = _named(packets, iif, ("lo",))
    arriving = _named(packets, iif, tuple(i.name for i in devices(host)))
    refuse(not host.complete, "the host's addresses and routes are not known")
    refuse("connlimit" in used.modules, "connlimit drops, by itself, packets that it cannot count")
    refuse("SET" in used.targets, "a rule changes ipsets as packets pass")
    refuse(bool(host.policy_rules), "the host has policy routing rules")
    refuse(c("oif") >= 0, "the egress is given, and the kernel routes by itself")
    refuse(~(local | looped | arriving), "nothing arrives there: the interface is unknown, down, or a bridge's port")

    proto, length = c("proto"), c("length")
    shortest = np.full(256, 20, np.int32)
    for number, size in SHORTEST.items():
        shortest[number] = size
    needed = np.where(c("frag") == 2, 20, shortest[proto])
    refuse(length < needed, "it is shorter than its headers")
    refuse(length > LONGEST, f"it is longer than {LONGEST} bytes, the largest MTU of a device")
    framed = (c("mac_src") != 0) & used.macs | (c("pkttype") != 0) & (looped | ("pkttype" in used.modules))
    refuse((local | looped) & framed, "the host's own packets have no link layer")
    refuse(arriving & (c("mac_src") == 0) & used.macs, "a rule asks for a MAC address, and on Ethernet all have one")
    refuse(local & (c("src") == 0), "the kernel fills in the source of the host's own packets")
    refuse(local & (c("dst") >> 28 == 0xE) & (c("ttl") == 0), "of a multicast with TTL 0 only the host's copy goes on")
    if used.owners and os.geteuid():
        refuse(local & ((c("uid") != NO_ID) | (c("gid") != NO_ID)), "another user's sockets need root")
    if used.flow_protocols:
        refuse((c("state") == State.RELATED) & (proto == ICMP), "a rule asks for the protocol of its flow")
    broken = _tracking(host, packets, local, refuse) if used.tracked else np.zeros(len(packets), np.bool_)
    return codes, tuple(texts), broken


def _tracking(host: Host, packets: PacketBatch, local: Array, refuse: Refuse) -> Array:
    """The reasons that conntrack gives; returns which packets need a wrong checksum."""
    c = packets.column
    proto, state, status = c("proto"), c("state"), c("ctstatus")
    invalid_first = first_is_invalid(host, packets)
    established = (state == State.ESTABLISHED) | (state == State.REPLY)
    related = state == State.RELATED
    fresh = (state == State.NEW) | (state == State.AUTO) & ~invalid_first
    tracked = fresh | established | related

    refuse((state == State.NEW) & invalid_first, "conntrack takes a first packet of this kind for INVALID")
    broken: Array = (state == State.INVALID) & ~invalid_first
    refuse(broken & local, "INVALID: conntrack does not check the checksums of the host's own packets")
    refuse(broken & ~np.isin(proto, _CHECKED), "INVALID: the protocol has no checksum to get wrong")
    refuse((established | related) & (proto == TCP) & ~np.isin(c("tcp_flags") & 0x37, list(_TCP_POSSIBLE)),
           "conntrack takes these TCP flags for INVALID in any flow")

    ports = np.isin(proto, list(TRACKED_BY_PORTS))
    same = (c("src") == c("dst")) & ((c("sport") == c("dport")) | ~ports) & (proto != ICMP)
    refuse((established | related) & same, "both directions of the flow look alike")

    icmp = proto == ICMP
    question = np.isin(c("icmp_type"), ICMP_QUESTIONS)
    answer = np.isin(c("icmp_type"), list(ICMP_ANSWERS)) & ~question
    # the NAT hooks take every related ICMP packet for an error, and drop it where it has no room for a quoted packet
    error = icmp & np.isin(c("icmp_type"), list(ICMP_ERRORS))
    quoting = (question | error) & (c("length") >= QUOTING)
    reply = state == State.REPLY
    refuse(icmp & ((state == State.ESTABLISHED) & ~question | reply & ~answer | related & ~quoting),
           "conntrack cannot see an ICMP packet of this type in that state")

    expected = related & ~error
    refuse(fresh & (status != 0) | expected & (status != 0) & (status != _EXPECTED | _CONFIRMED)
           | (established | related & error) & (status != 0) & ((status & 0x3B) != _SEEN_REPLY | _CONFIRMED),
           "the status contradicts the state, or is one of NAT, which the kernel would carry out")
    back = reply | related & error
    refuse(tracked & (c("ctdir") != 0) & (c("ctdir") != np.where(back, 2, 1)), "the direction contradicts the state")
    other = (c("ctorigdst") != 0) & (c("ctorigdst") != c("dst"))
    ports |= related & error
    refuse(tracked & ~ports & (c("ctorigdstport") != 0), "the protocol's flows have no destination port")
    other |= (c("ctorigdstport") != 0) & (c("ctorigdstport") != c("dport"))
    refuse(tracked & ~back & other, "a packet that is not a reply arrives with the destination its flow began with")
    return broken


def _named(packets: PacketBatch, codes: Array, names: tuple[str, ...]) -> Array:
    """Which codes are of one of `names`."""
    table = np.array([name in names for name in packets.interfaces] + [False])
    found: Array = table[codes]
    return found
