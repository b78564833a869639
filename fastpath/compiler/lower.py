"""From the matches of a rule to a condition over fields.

One function per match module, each stating in field sets what ``reference`` states packet by packet. Nothing here
knows of chains. Safe direction: a match that cannot be decided from the fields becomes *unknown*, never true or false.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fastpath.compiler import ipsets
from fastpath.compiler.fields import (
    BASES,
    FALSE,
    TRUE,
    UNKNOWN,
    Condition,
    CtState,
    Values,
    all_of,
    any_of,
    equals,
    masked_equals,
    none_of,
    test,
)
from fastpath.compiler.interfaces import NONE, InterfaceTable
from fastpath.compiler.routes import RouteMap
from fastpath.host.model import Host
from fastpath.packets.schema import LOCAL, NO_ID
from fastpath.ruleset.model import (
    AddressRange,
    IcmpType,
    Masked,
    Match,
    Network,
    Option,
    PortRange,
    Rule,
    SetReference,
)

PORT_PROTOCOLS = (6, 17, 33, 132, 136)
"""Protocols whose header starts with source and destination port."""

CT_STATUS = {"NONE": 0, "EXPECTED": 1, "SEEN_REPLY": 2, "ASSURED": 4, "CONFIRMED": 8}
SRC_NAT, DST_NAT = 16, 32


@dataclass(frozen=True)
class Context:
    """Where a chain is walked: what its rules can see.

    Attributes:
        host: the host.
        interfaces: interface ids.
        routes: the routing of the address space.
        hook: PREROUTING, INPUT, FORWARD, OUTPUT or POSTROUTING.
        iif: fixed id of the ingress interface, or None where packets bring it.
        oif: condition that the egress interface is in a set of ids.
        tracked: False before connection tracking has seen the packet.
        whole: True where conntrack puts fragments together first, so that none are seen.
        made_here: the host made the packet and it has not been looped back.
        looped: it has been looped back through lo.
        alone: the chain is walked by itself, so that packets of either kind come by.
        assume: module name or rule id -> ``match``, ``no-match`` or ``column:NAME``.
        asked: interface tests lowered so far.
    """

    host: Host
    interfaces: InterfaceTable
    routes: RouteMap
    hook: str
    iif: int | None
    oif: Callable[[Values], Condition]
    tracked: bool
    whole: bool
    made_here: bool
    looped: bool
    alone: bool
    assume: Mapping[str | int, str]
    asked: dict[tuple[str, str, bool], Condition] = field(default_factory=dict, compare=False, repr=False)

    def iif_in(self, ids: Values) -> Condition:
        """The condition that the ingress interface is one of `ids`."""
        if self.iif is not None:
            return TRUE if self.iif in ids else FALSE
        if self.alone:
            local = Values.single(self.interfaces.id(LOCAL))
            ids = ids.intersect(local.complement(BASES["iif"]))
            ids = ids.union(local) if NONE in ids else ids
        return test("iif", ids)


def _maybe_not(condition: Condition, negated: bool) -> Condition:
    return none_of(condition) if negated else condition


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"an integer was expected, not {value!r}")
    return value


def address_in(base: str, network: Network) -> Condition:
    """The condition that an address lies in a network; its mask may be scattered."""
    return masked_equals(base, network.address, network.mask)


def _range(base: str, value: object) -> Condition:
    if not isinstance(value, PortRange | AddressRange):
        raise TypeError(f"a range was expected, not {value!r}")
    return test(base, Values.of([(value.first, min(value.last, (1 << BASES[base]) - 1))]))


def _masked(base: str, value: object) -> Condition:
    if not isinstance(value, Masked):
        raise TypeError(f"value/mask was expected, not {value!r}")
    return masked_equals(base, value.value, value.mask)


def _readable(context: Context) -> Condition:
    """Transport headers can be read: not in a later fragment."""
    return TRUE if context.whole else equals("frag", 0, 1)


def _ports(match: Match, context: Context) -> Condition:
    parts = [_readable(context)]
    for option in match.options:
        if option.name in ("sport", "dport"):
            part = _range(option.name, option.value)
        elif option.name == "tcp-flags":
            part = _masked("tcp_flags", option.value)
        else:
            part = UNKNOWN
        parts.append(_maybe_not(part, option.negated))
    return all_of(*parts)


def _icmp(match: Match, context: Context) -> Condition:
    parts = [_readable(context)]
    for option in match.options:
        value = option.value
        if not isinstance(value, IcmpType):
            parts.append(UNKNOWN)
            continue
        if value.type == 255:
            part = TRUE
        else:
            part = test("icmp", Values.of([(value.type << 8 | value.code_first, value.type << 8 | value.code_last)]))
        parts.append(_maybe_not(part, option.negated))
    return all_of(*parts)


def _multiport(match: Match, context: Context) -> Condition:
    parts = [_readable(context), equals("proto", *PORT_PROTOCOLS)]
    for option in match.options:
        ranges = option.value
        if not isinstance(ranges, tuple):
            raise TypeError(f"port ranges were expected, not {ranges!r}")
        values = Values.of((r.first, r.last) for r in ranges if isinstance(r, PortRange))
        bases = {"sports": ("sport",), "dports": ("dport",), "ports": ("sport", "dport")}[option.name]
        parts.append(_maybe_not(any_of(*(test(b, values) for b in bases)), option.negated))
    return all_of(*parts)


def _iprange(match: Match, context: Context) -> Condition:
    bases = {"src-range": "src", "dst-range": "dst"}
    return all_of(*(_maybe_not(_range(bases[o.name], o.value), o.negated) for o in match.options))


def _addrtype(match: Match, context: Context) -> Condition:
    if not context.host.complete:
        return UNKNOWN
    limit_in = match.get("limit-iface-in") is not None
    limit_out = match.get("limit-iface-out") is not None
    parts: list[Condition] = []
    for option in match.options:
        if option.name not in ("src-type", "dst-type"):
            continue
        types = option.value
        assert isinstance(types, frozenset)
        base = option.name[:3]
        if limit_in or limit_out:
            choices: list[Condition] = []
            for i in range(len(context.interfaces.names)):
                here = context.iif_in(Values.single(i)) if limit_in else context.oif(Values.single(i))
                if here:
                    of_type = context.routes.of_type(types, context.interfaces.names[i] if i else None)
                    choices.append(all_of(here, test(base, of_type)))
            part = any_of(*choices)
        else:
            part = test(base, context.routes.of_type(types, None))
        parts.append(_maybe_not(part, option.negated))
    return all_of(*parts)


def _has_connection(context: Context) -> Condition:
    if not context.tracked:
        return FALSE
    return equals("ctstate", CtState.NEW, CtState.ESTABLISHED, CtState.REPLY, CtState.RELATED)


STATES = {
    "NEW": (CtState.NEW,),
    "ESTABLISHED": (CtState.ESTABLISHED, CtState.REPLY),
    "RELATED": (CtState.RELATED,),
    "INVALID": (CtState.INVALID,),
    "UNTRACKED": (CtState.UNTRACKED,),
}


def _ctstate(option: Option, context: Context) -> Condition:
    names = option.value
    assert isinstance(names, frozenset)
    if not context.tracked:
        marked = equals("notrack", 1)
        untracked, invalid = (TRUE if name in names else FALSE for name in ("UNTRACKED", "INVALID"))
        return _maybe_not(any_of(all_of(marked, untracked), all_of(none_of(marked), invalid)), option.negated)
    found = equals("ctstate", *(s for n in names for s in STATES.get(n, ())))
    for name, bit in (("SNAT", SRC_NAT), ("DNAT", DST_NAT)):
        if name in names and option.name == "ctstate":
            set_ = none_of(masked_equals("ctstatus", 0, bit))
            found = any_of(found, all_of(_has_connection(context), set_))
    return _maybe_not(found, option.negated)


def _state(match: Match, context: Context) -> Condition:
    return all_of(*(_ctstate(o, context) for o in match.options))


def _by_direction(original: Condition, reply: Condition) -> Condition:
    return any_of(all_of(equals("ctdir", 1), original), all_of(equals("ctdir", 2), reply))


ICMP_REPLY = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17}
"""ICMP types whose packets have an id, and the type of the answer."""

NAT_PROTOCOLS = (6, 17, 132, 136)
"""Protocols whose ports conntrack and NAT know."""


def _present_port(which: int, reply: bool, ports: Values) -> Condition:
    """Port `which` (0 source, 1 destination) of a packet's tuple, or of the reversed one, is among `ports`."""
    of_tuple = all_of(equals("proto", *NAT_PROTOCOLS), test(("sport", "dport")[which ^ reply], ports))
    with_id = all_of(equals("proto", 1), test("icmp", Values.of((t << 8, t << 8 | 255) for t in ICMP_REPLY)))
    if which == 0:
        of_icmp = all_of(with_id, test("sport", ports))
    else:
        seen = {t: ICMP_REPLY[t] if reply else t for t in ICMP_REPLY}
        of_icmp = all_of(with_id, test("icmp", Values.single(
            *(t << 8 | code for t, shown in seen.items() for code in range(256) if shown << 8 | code in ports)
        )))
    other = all_of(none_of(any_of(equals("proto", *NAT_PROTOCOLS), with_id)), TRUE if 0 in ports else FALSE)
    return any_of(of_tuple, of_icmp, other)


def _reply_tuple(name: str, value: object) -> Condition:
    """The reply tuple: what the packet's present addresses say of it."""
    source = name.startswith("ctreplsrc")
    if isinstance(value, Network):
        return _by_direction(
            address_in("dst" if source else "src", value), address_in("src" if source else "dst", value)
        )
    assert isinstance(value, PortRange)
    ports = Values.of([(value.first, value.last)])
    which = 0 if source else 1
    return _by_direction(_present_port(which, True, ports), _present_port(which, False, ports))


def _conntrack_detail(option: Option) -> Condition:
    value = option.value
    if option.name == "ctproto":
        return equals("proto", _number(value))
    if option.name == "ctdir":
        return equals("ctdir", 1 if value == "ORIGINAL" else 2)
    if option.name == "ctstatus":
        assert isinstance(value, frozenset)
        mask = 0
        for name in value:
            mask |= CT_STATUS[name]
        return none_of(masked_equals("ctstatus", 0, mask)) if mask else FALSE
    if option.name.startswith("ctorig"):
        return address_in(option.name, value) if isinstance(value, Network) else _range(option.name, value)
    if option.name.startswith("ctrepl"):
        return _reply_tuple(option.name, value)
    return UNKNOWN


def _conntrack(match: Match, context: Context) -> Condition:
    states = [o for o in match.options if o.name == "ctstate"]
    state = all_of(*(_ctstate(o, context) for o in states))
    known = _has_connection(context)
    details = all_of(
        *(_maybe_not(_conntrack_detail(o), o.negated) for o in match.options if o.name != "ctstate")
    )
    if states:
        return all_of(state, any_of(none_of(known), details))
    return all_of(known, details)


def _mark(match: Match, context: Context) -> Condition:
    return all_of(*(_maybe_not(_masked("mark", o.value), o.negated) for o in match.options))


def _connmark(match: Match, context: Context) -> Condition:
    tests = [_maybe_not(_masked("connmark", o.value), o.negated) for o in match.options]
    return all_of(_has_connection(context), *tests)


def _set(match: Match, context: Context) -> Condition:
    parts: list[Condition] = []
    view = ipsets.View(
        context.iif_in, context.oif, context.interfaces, _readable(context), match.get("return-nomatch") is not None
    )
    for option in match.options:
        if option.name == "match-set" and isinstance(option.value, SetReference):
            parts.append(_maybe_not(ipsets.contains(context.host, option.value, view), option.negated))
        elif option.name != "return-nomatch" and not option.name.startswith(("update-", "!")):
            parts.append(UNKNOWN)
    return all_of(*parts)


def _mac(match: Match, context: Context) -> Condition:
    parts = []
    for option in match.options:
        value = _number(option.value)
        part = test("mac_src", Values.single(value)) if value else FALSE
        parts.append(all_of(none_of(equals("mac_src", 0)), _maybe_not(part, option.negated)))
    return all_of(*parts)


PKT_TYPES = {"unicast": 0, "broadcast": 1, "multicast": 2}


def _pkttype(match: Match, context: Context) -> Condition:
    parts = []
    for option in match.options:
        kind = PKT_TYPES[str(option.value)]
        part = (FALSE if kind else TRUE) if context.looped else equals("pkttype", kind)
        parts.append(_maybe_not(part, option.negated))
    return all_of(*parts)


def _length(match: Match, context: Context) -> Condition:
    return all_of(*(_maybe_not(_range("length", o.value), o.negated) for o in match.options))


def _ttl(match: Match, context: Context) -> Condition:
    parts = []
    for option in match.options:
        n = _number(option.value)
        first, last = {"eq": (n, n), "lt": (0, n - 1), "gt": (n + 1, 255)}[option.name[-2:]]
        parts.append(_maybe_not(test("ttl", Values.of([(first, last)])), option.negated))
    return all_of(*parts)


def _tos(match: Match, context: Context) -> Condition:
    return all_of(*(_maybe_not(_masked("tos", o.value), o.negated) for o in match.options))


def _dscp(match: Match, context: Context) -> Condition:
    return all_of(
        *(_maybe_not(masked_equals("tos", _number(o.value) << 2, 0xFC), o.negated) for o in match.options)
    )


def _owner_option(option: Option, supplementary: bool) -> Condition:
    """One option for a packet whose socket exists; a user or group by name is not known."""
    base = "gid" if option.name == "gid-owner" else "uid"
    nobody = equals(base, NO_ID)
    named = none_of(nobody)
    if option.name == "socket-exists":
        return any_of(all_of(nobody, UNKNOWN), FALSE if option.negated else named)
    value = PortRange(0, 0) if option.value == "root" else option.value
    if not isinstance(value, PortRange):
        return UNKNOWN
    inside = all_of(named, _range(base, value))
    outside = all_of(named, none_of(_range(base, value)))
    unknown = any_of(nobody, outside) if supplementary and base == "gid" else nobody
    return any_of(all_of(unknown, UNKNOWN), outside if option.negated else inside)


def _owner(match: Match, context: Context) -> Condition:
    options = [o for o in match.options if o.name != "suppl-groups"]
    supplementary = len(options) < len(match.options)
    with_socket = all_of(*(_owner_option(o, supplementary) for o in options))
    without = TRUE if all(o.negated for o in options) else FALSE
    if context.alone:
        local = equals("iif", context.interfaces.id(LOCAL))
        return any_of(all_of(local, with_socket), all_of(none_of(local), without))
    return with_socket if context.made_here else without


def _ecn(match: Match, context: Context) -> Condition:
    parts = []
    for option in match.options:
        if option.name == "ecn-ip-ect":
            parts.append(_maybe_not(masked_equals("tos", _number(option.value), 3), option.negated))
            continue
        bit = 64 if option.name == "ecn-tcp-ece" else 128
        flag = none_of(masked_equals("tcp_flags", 0, bit))
        parts.append(all_of(equals("proto", 6), _readable(context), _maybe_not(flag, option.negated)))
    return all_of(*parts)


def _always(match: Match, context: Context) -> Condition:
    return TRUE


MODULES: dict[str, Callable[[Match, Context], Condition]] = {
    "tcp": _ports, "udp": _ports, "udplite": _ports, "sctp": _ports, "dccp": _ports, "icmp": _icmp,
    "multiport": _multiport, "iprange": _iprange, "addrtype": _addrtype, "conntrack": _conntrack, "state": _state,
    "mark": _mark, "connmark": _connmark, "set": _set, "mac": _mac, "pkttype": _pkttype, "length": _length,
    "ttl": _ttl, "hl": _ttl, "ecn": _ecn, "tos": _tos, "dscp": _dscp, "owner": _owner, "comment": _always,
}
"""Every module that is decided from the fields; all others are unknown."""


def match_condition(match: Match, context: Context) -> Condition:
    """The condition of one ``-m`` with its options."""
    lower = MODULES.get(match.module) if match.known else None
    if lower is None:
        return UNKNOWN
    return lower(match, context)


def _assumed(condition: Condition, how: str | None) -> Condition:
    """Replaces the unknown part of a condition by what the caller assumes of it."""
    if how is None or not any(t.unknown for t in condition):
        return condition
    sure = tuple(t for t in condition if not t.unknown)
    if how == "no-match":
        return sure
    perhaps = tuple(type(t)(t.tests) for t in condition if t.unknown)
    if how.startswith("column:"):
        perhaps = all_of(perhaps, equals(f"extra:{how[7:]}", 1))
    return any_of(sure, perhaps)


def _interface(name: str, pattern: str, negated: bool, context: Context) -> Condition:
    """``-i`` or ``-o``; on a host with many bridges thousands of rules ask the same."""
    key = name, pattern, negated
    if key not in context.asked:
        ids = context.interfaces.matching(pattern, negated)
        context.asked[key] = (context.iif_in if name == "in" else context.oif)(ids)
    return context.asked[key]


def header_conditions(rule: Rule, context: Context) -> list[tuple[str, Condition]]:
    """The builtin tests that a rule has, by name, in legacy iptables' order (``ip_packet_match()``): ``src``, ``dst``,
    ``in``, ``out``, ``proto``, ``frag``."""
    parts: list[tuple[str, Condition]] = []
    for base, side in (("src", rule.source), ("dst", rule.destination)):
        if side is not None:
            assert isinstance(side.value, Network)
            parts.append((base, _maybe_not(address_in(base, side.value), side.negated)))
    for name, side in (("in", rule.in_interface), ("out", rule.out_interface)):
        if side is not None:
            parts.append((name, _interface(name, str(side.value), side.negated, context)))
    if rule.protocol is not None and (rule.protocol.value or rule.protocol.negated):
        parts.append(("proto", _maybe_not(equals("proto", _number(rule.protocol.value)), rule.protocol.negated)))
    if rule.fragment is not None:
        later = FALSE if context.whole else equals("frag", 2)
        parts.append(("frag", _maybe_not(later, not rule.fragment)))
    return parts


def assumed_condition(match: Match, ref: int, context: Context) -> Condition:
    """The condition of one ``-m`` of rule `ref`, with what the caller assumes of it."""
    how = context.assume.get(ref) or context.assume.get(match.module)
    return _assumed(match_condition(match, context), how)


def rule_condition(rule: Rule, ref: int, context: Context) -> Condition:
    """The condition of a whole rule: its builtin tests and all its matches."""
    header = [condition for _, condition in header_conditions(rule, context)]
    return all_of(*header, *(assumed_condition(match, ref, context) for match in rule.matches))
