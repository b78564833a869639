"""The table of match modules, and why those that are not in it have no answer."""

from __future__ import annotations

from collections.abc import Callable

from fastpath.reference import header_matches as header
from fastpath.reference import host_matches as known
from fastpath.reference.test import Surroundings, Test
from fastpath.ruleset.model import Match

Reader = Callable[[Match, Surroundings], list[Test]]

MATCHES: dict[str, Reader] = {
    "addrtype": known.addrtype,
    "comment": header.comment,
    "connmark": known.connmark,
    "conntrack": known.conntrack,
    "dccp": header.transport,
    "dscp": header.dscp,
    "ecn": header.ecn,
    "hl": header.ttl,
    "icmp": header.icmp,
    "icmp6": header.icmp,
    "iprange": header.iprange,
    "length": header.length,
    "mac": header.mac,
    "mark": header.mark,
    "multiport": header.multiport,
    "owner": known.owner,
    "pkttype": header.pkttype,
    "sctp": header.transport,
    "set": known.ipset,
    "state": known.state,
    "tcp": header.tcp,
    "tos": header.tos,
    "ttl": header.ttl,
    "udp": header.transport,
    "udplite": header.transport,
}
"""Modules that are decided, at least in part."""

REASONS: dict[str, str] = {
    **dict.fromkeys(("limit", "hashlimit"), "depends on the rate of earlier packets"),
    **dict.fromkeys(("rateest", "nfacct", "quota", "connbytes"), "depends on how much traffic has passed before"),
    **dict.fromkeys(("recent", "osf", "helper", "connlabel"), "depends on earlier packets"),
    **dict.fromkeys(("statistic", "cpu", "cluster"), "depends on chance"),
    "time": "depends on the time of day",
    "connlimit": "depends on the connections that are open",
    **dict.fromkeys(("cgroup", "socket"), "depends on a process of the host"),
    **dict.fromkeys(("string", "u32", "bpf", "esp", "ah", "ipcomp"), "reads bytes that packets have no column for"),
    "physdev": "depends on the bridge port",
    **dict.fromkeys(("policy", "rpfilter", "realm", "devgroup"), "depends on state of the host that is not captured"),
}
"""Why a module is undecided."""


def tests_of(match: Match, around: Surroundings) -> list[Test]:
    """The tests of one ``-m``. A module or option that is not understood gives an undecided test, never none."""
    reader = MATCHES.get(match.module)
    if reader is not None and match.known:
        return reader(match, around)
    words = " ".join(w for o in match.options for w in (("!",) if o.negated else ()) + (f"--{o.name}", *o.text))
    reason = REASONS.get(match.module, "a module that is not understood")
    return [Test(f"-m {match.module} {words}".rstrip(), lambda p: None, lambda p: reason, sure=False,
                 module=match.module, reason=reason)]
