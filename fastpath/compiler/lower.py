"""From the matches of a rule to a condition over fields.

One function per match module, each stating in field sets what ``reference`` states packet by packet. Nothing here
knows of chains. Safe direction: a match that cannot be decided from the fields becomes *unknown*, never true or false.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
from fastpath.compiler.interfaces import InterfaceTable
from fastpath.compiler.routes import RouteMap
from fastpath.host.model import Host
from fastpath.packets.schema import NO_ID
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
        made_here: the host made the packet.
        assume: module name or rule id -> ``match``, ``no-match`` or ``column:NAME``.
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
    assume: Mapping[str | int, str]

    def iif_in(self, ids: Values) -> Condition:
        """The condition that the ingress interface is one of `ids`."""
        if self.iif is not None:
            return TRUE if self.iif in ids else FALSE
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
    parts = [_readable(context)]
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
        return _maybe_not(TRUE if "INVALID" in names else FALSE, option.negated)
    found = equals("ctstate", *(s for n in names for s in STATES.get(n, ())))
    for name, bit in (("SNAT", SRC_NAT), ("DNAT", DST_NAT)):
        if name in names:
            set_ = none_of(masked_equals("ctstatus", 0, bit))
            found = any_of(found, all_of(_has_connection(context), set_))
    return _maybe_not(found, option.negated)


def _state(match: Match, context: Context) -> Condition:
    return all_of(*(_ctstate(o, context) for o in match.options))


def _by_direction(original: Condition, reply: Condition) -> Condition:
    return any_of(all_of(equals("ctdir", 1), original), all_of(equals("ctdir", 2), reply))


CT_TUPLE = {
    "ctorigsrc": ("src", "dst"), "ctorigdst": ("ctorigdst", "ctorigdst"),
    "ctreplsrc": ("dst", "src"), "ctrepldst": ("src", "dst"),
    "ctorigsrcport": ("sport", "dport"), "ctorigdstport": ("ctorigdstport", "ctorigdstport"),
    "ctreplsrcport": ("dport", "sport"), "ctrepldstport": ("sport", "dport"),
}
"""Where the parts of a connection's tuples are found, in a packet of original and of reply direction."""


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
    if option.name in CT_TUPLE:
        original, reply = CT_TUPLE[option.name]
        if isinstance(value, Network):
            return _by_direction(address_in(original, value), address_in(reply, value))
        return _by_direction(_range(original, value), _range(reply, value))
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
    for option in match.options:
        if option.name == "match-set" and isinstance(option.value, SetReference):
            view = ipsets.View(context.iif_in, context.oif, context.interfaces, _readable(context))
            parts.append(_maybe_not(ipsets.contains(context.host, option.value, view), option.negated))
        else:
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
    return all_of(*(_maybe_not(equals("pkttype", PKT_TYPES[str(o.value)]), o.negated) for o in match.options))


def _length(match: Match, context: Context) -> Condition:
    return all_of(*(_maybe_not(_range("length", o.value), o.negated) for o in match.options))


def _ttl(match: Match, context: Context) -> Condition:
    parts = []
    for option in match.options:
        n = _number(option.value)
        first, last = {"ttl-eq": (n, n), "ttl-lt": (0, n - 1), "ttl-gt": (n + 1, 255)}[option.name]
        parts.append(_maybe_not(test("ttl", Values.of([(first, last)])), option.negated))
    return all_of(*parts)


def _tos(match: Match, context: Context) -> Condition:
    return all_of(*(_maybe_not(_masked("tos", o.value), o.negated) for o in match.options))


def _dscp(match: Match, context: Context) -> Condition:
    return all_of(
        *(_maybe_not(masked_equals("tos", _number(o.value) << 2, 0xFC), o.negated) for o in match.options)
    )


def _owner(match: Match, context: Context) -> Condition:
    tested = [o for o in match.options if o.name in ("uid-owner", "gid-owner")]
    if len(tested) != len(match.options) or not all(isinstance(o.value, PortRange) for o in tested):
        return UNKNOWN
    parts: list[Condition] = []
    for option in tested:
        base = option.name[:3]
        named = _maybe_not(_range(base, option.value), option.negated)
        nobody = equals(base, NO_ID)
        parts.append(any_of(all_of(nobody, UNKNOWN), all_of(none_of(nobody), named)))
    of_local = all_of(*parts)
    of_others = TRUE if all(o.negated for o in tested) else FALSE
    return of_local if context.made_here else of_others


def _always(match: Match, context: Context) -> Condition:
    return TRUE


MODULES: dict[str, Callable[[Match, Context], Condition]] = {
    "tcp": _ports, "udp": _ports, "udplite": _ports, "sctp": _ports, "dccp": _ports, "icmp": _icmp,
    "multiport": _multiport, "iprange": _iprange, "addrtype": _addrtype, "conntrack": _conntrack, "state": _state,
    "mark": _mark, "connmark": _connmark, "set": _set, "mac": _mac, "pkttype": _pkttype, "length": _length,
    "ttl": _ttl, "tos": _tos, "dscp": _dscp, "owner": _owner, "comment": _always,
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


def rule_condition(rule: Rule, ref: int, context: Context) -> Condition:
    """The condition of a whole rule: its builtin tests and all its matches."""
    parts: list[Condition] = []
    for base, side in (("src", rule.source), ("dst", rule.destination)):
        if side is not None:
            assert isinstance(side.value, Network)
            parts.append(_maybe_not(address_in(base, side.value), side.negated))
    for where, side in ((context.iif_in, rule.in_interface), (context.oif, rule.out_interface)):
        if side is not None:
            ids = context.interfaces.matching(str(side.value))
            if side.negated:
                ids = Values.single(*(i for i in range(len(context.interfaces.names)) if i not in ids))
            parts.append(where(ids))
    if rule.protocol is not None and (rule.protocol.value or rule.protocol.negated):
        parts.append(_maybe_not(equals("proto", _number(rule.protocol.value)), rule.protocol.negated))
    if rule.fragment is not None:
        later = FALSE if context.whole else equals("frag", 2)
        parts.append(_maybe_not(later, not rule.fragment))
    of_rule = context.assume.get(ref)
    for match in rule.matches:
        condition = match_condition(match, context)
        parts.append(_assumed(condition, of_rule or context.assume.get(match.module)))
    return all_of(*parts)
