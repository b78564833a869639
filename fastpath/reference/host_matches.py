"""Matches that read what the host knows: connections, address types, sets, owners. One function per module."""

from __future__ import annotations

from collections.abc import Callable

from fastpath.host.ipset import SetQuery
from fastpath.packets.schema import NO_ID
from fastpath.packets.text import format_address
from fastpath.reference import state as st
from fastpath.reference.conntrack import reply_tuple
from fastpath.reference.header_matches import option_text, undecided
from fastpath.reference.state import PacketState
from fastpath.reference.test import Surroundings, Test
from fastpath.ruleset.model import Masked, Match, Network, Option, PortRange, SetReference

STATE_BITS = {
    "INVALID": st.INVALID, "ESTABLISHED": st.ESTABLISHED, "RELATED": st.RELATED, "NEW": st.NEW, "SNAT": st.SNAT,
    "DNAT": st.DNAT, "UNTRACKED": st.UNTRACKED,
}
STATUS_BITS = {"NONE": 0, "EXPECTED": st.EXPECTED, "SEEN_REPLY": st.SEEN_REPLY, "ASSURED": st.ASSURED,
               "CONFIRMED": st.CONFIRMED}


def state_words(p: PacketState) -> str:
    """The connection state for people: ``NEW,DNAT``."""
    bits = p.ctbits | (p.status & (st.SNAT | st.DNAT))
    return ",".join(name for name, bit in STATE_BITS.items() if bits & bit)


def _state_seen(p: PacketState) -> str:
    return f"connection state is {state_words(p)}"


def _bits(names: object, table: dict[str, int]) -> int:
    assert isinstance(names, frozenset)
    return sum(table[str(name)] for name in names)


def conntrack(match: Match, around: Surroundings) -> list[Test]:
    """-m conntrack (``conntrack_mt()``): ``--ctstate`` first, with SNAT and DNAT as bits beside the state.

    A packet without a connection (INVALID, UNTRACKED) then matches exactly where ``--ctstate`` was given; the other
    options are not looked at, negated or not.
    """
    by_state = match.get("ctstate") is not None
    return [_conntrack_option(match, option, by_state) for option in match.options]


def _conntrack_option(match: Match, option: Option, by_state: bool) -> Test:
    text, negated, value = option_text(match, option), option.negated, option.value
    if option.name == "ctstate":
        wanted = _bits(value, STATE_BITS)
        return Test(text, lambda p: bool((p.ctbits | (p.status & 48)) & wanted) != negated, _state_seen)
    if option.name == "ctexpire":
        return Test(text, lambda p: None if p.tracked else by_state,
                    lambda p: "the connection's remaining time is not known" if p.tracked else _state_seen(p),
                    sure=False, module=match.module, reason="depends on how long the connection has been idle")
    ask, seen = _conntrack_question(option)
    return Test(text, lambda p: (ask(p) != negated) if p.tracked else by_state,
                lambda p: seen(p) if p.tracked else _state_seen(p))


def _conntrack_question(option: Option) -> tuple[Callable[[PacketState], bool], Callable[[PacketState], str]]:
    """The question of an option to a packet with a connection, and what it shows."""
    name, value = option.name, option.value
    if name == "ctproto":
        return lambda p: p.flow_proto == value, lambda p: f"the connection's protocol is {p.flow_proto}"
    if name == "ctstatus":
        wanted = _bits(value, STATUS_BITS)
        return lambda p: bool(p.status & wanted), lambda p: f"connection status is {p.status:#x}"
    if name == "ctdir":
        direction = st.REPLY if value == "REPLY" else st.ORIGINAL
        return (lambda p: p.direction == direction,
                lambda p: f"direction is {'REPLY' if p.direction == st.REPLY else 'ORIGINAL'}")
    read, what = _TUPLE_FIELDS[name]
    if isinstance(value, Network):
        address, mask, family = value.address, value.mask, value.family
        return (lambda p: read(p) & mask == address,
                lambda p: f"the connection's {what} is {format_address(read(p), family)}")
    assert isinstance(value, PortRange)
    first, last = value.first, value.last
    return lambda p: first <= read(p) <= last, lambda p: f"the connection's {what} is {read(p)}"


_TUPLE_FIELDS: dict[str, tuple[Callable[[PacketState], int], str]] = {
    "ctorigsrc": (lambda p: p.origin[0], "original source"),
    "ctorigdst": (lambda p: p.origin[1], "original destination"),
    "ctorigsrcport": (lambda p: p.origin[2], "original source port"),
    "ctorigdstport": (lambda p: p.origin[3], "original destination port"),
    "ctreplsrc": (lambda p: reply_tuple(p)[0], "reply source"),
    "ctrepldst": (lambda p: reply_tuple(p)[1], "reply destination"),
    "ctreplsrcport": (lambda p: reply_tuple(p)[2], "reply source port"),
    "ctrepldstport": (lambda p: reply_tuple(p)[3], "reply destination port"),
}


def state(match: Match, around: Surroundings) -> list[Test]:
    """-m state: as ``--ctstate``, without SNAT and DNAT."""
    return [_state(match, option) for option in match.options]


def _state(match: Match, option: Option) -> Test:
    wanted, negated = _bits(option.value, STATE_BITS), option.negated
    return Test(option_text(match, option), lambda p: bool(p.ctbits & wanted) != negated, _state_seen)


def connmark(match: Match, around: Surroundings) -> list[Test]:
    """-m connmark: the connection's mark masked equals the value; False without a connection, even with ``!``."""
    return [_connmark(match, option) for option in match.options]


def _connmark(match: Match, option: Option) -> Test:
    assert isinstance(option.value, Masked)
    value, mask, negated = option.value.value, option.value.mask, option.negated
    return Test(option_text(match, option), lambda p: p.tracked and (p.connmark & mask == value) != negated,
                lambda p: f"connection mark is {p.connmark:#x}" if p.tracked else _state_seen(p))


def addrtype(match: Match, around: Surroundings) -> list[Test]:
    """-m addrtype: what the local table says of an address; with ``--limit-iface-*`` only where it says so through
    that interface. Types of other tables (BLACKHOLE, UNREACHABLE, ...) are never seen (``inet_dev_addr_type()``)."""
    if not around.host.complete:
        return [undecided(match, o, "the host's addresses are not known") for o in match.options
                if not o.name.startswith("limit-iface")]
    limit_in, limit_out = match.get("limit-iface-in") is not None, match.get("limit-iface-out") is not None
    type_of = around.router.type_of

    def limit(p: PacketState) -> str | None:
        return (p.iif or None) if limit_in else (p.oif or None) if limit_out else None

    tests = []
    for option in match.options:
        if option.name in ("src-type", "dst-type"):
            assert isinstance(option.value, frozenset)
            tests.append(_addrtype(match, option, frozenset(map(str, option.value)), type_of, limit))
    return tests


def _addrtype(match: Match, option: Option, wanted: frozenset[str], type_of: Callable[[int, str | None], str],
              limit: Callable[[PacketState], str | None]) -> Test:
    negated = option.negated
    text = option_text(match, option)
    if option.name == "src-type":
        return Test(text, lambda p: (type_of(p.src, limit(p)) in wanted) != negated,
                    lambda p: f"source {format_address(p.src, p.family)} is {type_of(p.src, limit(p))}")
    return Test(text, lambda p: (type_of(p.dst, limit(p)) in wanted) != negated,
                lambda p: f"destination {format_address(p.dst, p.family)} is {type_of(p.dst, limit(p))}")


def ipset(match: Match, around: Surroundings) -> list[Test]:
    """-m set: the packet's values are in the set. Counters and the like of sets are not known."""
    plain = {"match-set", "return-nomatch"}
    return_nomatch = match.get("return-nomatch") is not None
    tests = []
    for option in match.options:
        if option.name == "match-set" and isinstance(option.value, SetReference):
            tests.append(_match_set(match, option, option.value, around, return_nomatch))
        elif option.name not in plain and not (option.name.startswith("update-") or option.name.startswith("!")):
            tests.append(undecided(match, option, f"the set's counters (--{option.name}) are not known"))
    return tests


def _match_set(match: Match, option: Option, reference: SetReference, around: Surroundings, nomatch: bool) -> Test:
    contains, negated, family = around.ipsets.contains, option.negated, around.router.family

    def check(p: PacketState) -> bool | None:
        query = SetQuery(p.src, p.dst, p.proto, p.sport, p.dport, p.icmp_type, p.icmp_code, p.frag == 2, p.iif, p.oif,
                         p.mac_src, p.mark)
        found = contains(reference.name, reference.directions, query, return_nomatch=nomatch, family=family)
        return None if found is None else found != negated

    def seen(p: PacketState) -> str:
        found = check(p)
        if found is None:
            return f"what set {reference.name} holds is not known"
        return f"it is {'in' if found != negated else 'not in'} set {reference.name}"

    return Test(option_text(match, option), check, seen, sure=False, module=match.module,
                reason=f"what set {reference.name} holds is not known")


def owner(match: Match, around: Surroundings) -> list[Test]:
    """-m owner: the socket that sent the packet. Only what the host made, before it is looped back, has one; without
    a socket the match holds exactly if every option is negated (``owner_mt()``)."""
    socketless = all(o.negated for o in match.options if o.name != "suppl-groups")
    supplementary = match.get("suppl-groups") is not None
    return [_owner(match, option, socketless, supplementary) for option in match.options
            if option.name != "suppl-groups"]


def _owner(match: Match, option: Option, socketless: bool, supplementary: bool) -> Test:
    negated, value = option.negated, option.value
    is_user = option.name == "uid-owner"
    bounds = PortRange(0, 0) if value == "root" else value

    def check(p: PacketState) -> bool | None:
        if not p.owned:
            return socketless
        if option.name == "socket-exists":
            return None if p.uid == NO_ID else not negated
        number = p.uid if is_user else p.gid
        if number == NO_ID or not isinstance(bounds, PortRange):
            return None
        if bounds.first <= number <= bounds.last:
            return not negated
        return None if supplementary and not is_user else negated

    def seen(p: PacketState) -> str:
        if not p.owned:
            return "no socket of this host sent it"
        number = p.uid if is_user else p.gid
        return "its owner is not known" if number == NO_ID else f"it is owned by {'uid' if is_user else 'gid'} {number}"

    return Test(option_text(match, option), check, seen, sure=False, module=match.module,
                reason="depends on the process that sends the packet")
