"""Matches that read the packet's headers. One function per module; each states the kernel's rule.

Where a header is missing (a later fragment, another protocol) the kernel's functions answer False before they look
at ``!``, and so do these.
"""

from __future__ import annotations

from collections.abc import Callable

from fastpath.packets.text import PKTTYPES, PORT_PROTOCOLS, format_address, format_flags
from fastpath.reference.builtin import sign
from fastpath.reference.state import PacketState
from fastpath.reference.test import Check, Surroundings, Test
from fastpath.ruleset.model import AddressRange, IcmpType, Masked, Match, Option, PortRange

Number = Callable[[PacketState], int]


def option_text(match: Match, option: Option) -> str:
    """An option as iptables prints it."""
    return f"-m {match.module} {sign(option.negated)}--{' '.join((option.name, *option.text))}"


def undecided(match: Match, option: Option | None, reason: str) -> Test:
    """A test that has no answer."""
    text = option_text(match, option) if option is not None else f"-m {match.module}"
    return Test(text, lambda p: None, lambda p: reason, sure=False, module=match.module, reason=reason)


def in_range(number: Number, bounds: PortRange, negated: bool) -> Check:
    """``number`` within the bounds, or not."""
    first, last = bounds.first, bounds.last
    return lambda p: (first <= number(p) <= last) != negated


def has_ports(p: PacketState) -> bool:
    """Whether there are ports to read: a protocol that has them, and not a later fragment."""
    return p.frag != 2 and p.proto in PORT_PROTOCOLS


def port_test(match: Match, option: Option) -> Test:
    """``--sport``, ``--dport`` of -m tcp, udp, sctp, dccp, udplite: within the range; False on later fragments."""
    assert isinstance(option.value, PortRange)
    first, last, negated = option.value.first, option.value.last, option.negated
    check: Check
    if option.name == "sport":
        check = lambda p: p.frag != 2 and (first <= p.sport <= last) != negated  # noqa: E731
        return Test(option_text(match, option), check, lambda p: _ports_seen(p, f"source port is {p.sport}"),
                    telling=not negated)
    if first == last and not negated:
        check = lambda p: p.dport == first and p.frag != 2  # noqa: E731
    else:
        check = lambda p: p.frag != 2 and (first <= p.dport <= last) != negated  # noqa: E731
    return Test(option_text(match, option), check, lambda p: _ports_seen(p, f"destination port is {p.dport}"),
                telling=not negated)


def _ports_seen(p: PacketState, ports: str) -> str:
    return ports if p.frag != 2 else "it is a later fragment, which has no ports"


def _header(match: Match) -> Test:
    """The module without an option: there is a header to read."""
    return Test(f"-m {match.module}", lambda p: p.frag != 2,
                lambda p: "it is a later fragment" if p.frag == 2 else "its header is there")


def transport(match: Match, around: Surroundings) -> list[Test]:
    """-m udp, udplite, sctp, dccp: ``udp_mt()`` and its like. What lies behind the ports is not a column."""
    tests = [_header(match)] if not match.options else []
    for option in match.options:
        if option.name in ("sport", "dport"):
            tests.append(port_test(match, option))
        else:
            tests.append(undecided(match, option, f"packets have no column for --{option.name}"))
    return tests


def tcp(match: Match, around: Surroundings) -> list[Test]:
    """-m tcp: ports as everywhere; ``--tcp-flags MASK COMP``: exactly the flags COMP of those in MASK are set
    (``tcp_mt()``). TCP options are not a column."""
    tests = [_header(match)] if not match.options else []
    for option in match.options:
        if option.name in ("sport", "dport"):
            tests.append(port_test(match, option))
        elif option.name == "tcp-flags" and isinstance(option.value, Masked):
            tests.append(_flags(match, option, option.value))
        else:
            tests.append(undecided(match, option, f"packets have no column for --{option.name}"))
    return tests


def _flags(match: Match, option: Option, wanted: Masked) -> Test:
    value, mask, negated = wanted.value, wanted.mask, option.negated
    return Test(option_text(match, option),
                lambda p: p.frag != 2 and (p.tcp_flags & mask == value) != negated,
                lambda p: f"TCP flags are {format_flags(p.tcp_flags) or 'none'}")


def icmp(match: Match, around: Surroundings) -> list[Test]:
    """-m icmp and icmp6: type equal and code within the range, type 255 is any; False on later fragments
    (``icmp_match()``)."""
    tests = []
    for option in match.options:
        if isinstance(option.value, IcmpType):
            tests.append(_icmp_type(match, option, option.value))
        else:
            tests.append(undecided(match, option, "not understood"))
    return tests


def _icmp_type(match: Match, option: Option, wanted: IcmpType) -> Test:
    kind, first, last, negated = wanted.type, wanted.code_first, wanted.code_last, option.negated
    return Test(option_text(match, option),
                lambda p: p.frag != 2 and (
                    kind == 255 or (p.icmp_type == kind and first <= p.icmp_code <= last)) != negated,
                lambda p: f"ICMP type is {p.icmp_type} code {p.icmp_code}")


def multiport(match: Match, around: Surroundings) -> list[Test]:
    """-m multiport: the port is in one of the ranges, ``--ports``: one of both ports is; False on later fragments
    even with ``!`` (``multiport_mt()``)."""
    return [_multiport(match, option) for option in match.options]


def _multiport(match: Match, option: Option) -> Test:
    assert isinstance(option.value, tuple)
    ranges = tuple((r.first, r.last) for r in option.value if isinstance(r, PortRange))
    negated, use_source, use_destination = option.negated, option.name != "dports", option.name != "sports"

    def check(p: PacketState) -> bool:
        if not has_ports(p):
            return False
        for first, last in ranges:
            if (use_source and first <= p.sport <= last) or (use_destination and first <= p.dport <= last):
                return not negated
        return negated

    return Test(option_text(match, option), check,
                lambda p: _ports_seen(p, f"ports are {p.sport} and {p.dport}" if p.proto in PORT_PROTOCOLS
                                      else "its protocol has no ports"))


def iprange(match: Match, around: Surroundings) -> list[Test]:
    """-m iprange: the address lies between both ends (``iprange_mt4()``)."""
    return [_iprange(match, option) for option in match.options]


def _iprange(match: Match, option: Option) -> Test:
    assert isinstance(option.value, AddressRange)
    first, last, negated, family = option.value.first, option.value.last, option.negated, option.value.family
    if option.name == "src-range":
        return Test(option_text(match, option), lambda p: (first <= p.src <= last) != negated,
                    lambda p: f"source is {format_address(p.src, family)}")
    return Test(option_text(match, option), lambda p: (first <= p.dst <= last) != negated,
                lambda p: f"destination is {format_address(p.dst, family)}")


def length(match: Match, around: Surroundings) -> list[Test]:
    """-m length: the IP packet's length in bytes, header included."""
    return [Test(option_text(match, o), in_range(lambda p: p.length, o.value, o.negated),
                 lambda p: f"length is {p.length}") for o in match.options if isinstance(o.value, PortRange)]


def ttl(match: Match, around: Surroundings) -> list[Test]:
    """-m ttl, hl: equal, less or greater; forwarding has counted down before FORWARD sees it."""
    compare: dict[str, Callable[[int, int], bool]] = {
        "eq": lambda a, b: a == b, "lt": lambda a, b: a < b, "gt": lambda a, b: a > b}
    tests = []
    for option in match.options:
        assert isinstance(option.value, int)
        tests.append(_ttl(match, option, compare[option.name[-2:]], option.value))
    return tests


def _ttl(match: Match, option: Option, compare: Callable[[int, int], bool], value: int) -> Test:
    negated = option.negated
    return Test(option_text(match, option), lambda p: compare(p.ttl, value) != negated, lambda p: f"TTL is {p.ttl}")


def tos(match: Match, around: Surroundings) -> list[Test]:
    """-m tos: the masked type-of-service byte equals the value."""
    return [_masked(match, o, lambda p: p.tos, lambda p: f"TOS is {p.tos:#04x}") for o in match.options]


def _masked(match: Match, option: Option, number: Number, seen: Callable[[PacketState], str]) -> Test:
    assert isinstance(option.value, Masked)
    value, mask, negated = option.value.value, option.value.mask, option.negated
    return Test(option_text(match, option), lambda p: (number(p) & mask == value) != negated, seen)


def mark(match: Match, around: Surroundings) -> list[Test]:
    """-m mark: the packet's mark masked equals the value."""
    return [_masked(match, o, lambda p: p.mark, lambda p: f"mark is {p.mark:#x}") for o in match.options]


def dscp(match: Match, around: Surroundings) -> list[Test]:
    """-m dscp: the upper six bits of the type-of-service byte."""
    return [_dscp(match, o, o.value) for o in match.options if isinstance(o.value, int)]


def _dscp(match: Match, option: Option, value: int) -> Test:
    negated = option.negated
    return Test(option_text(match, option), lambda p: (p.tos >> 2 == value) != negated,
                lambda p: f"DSCP is {p.tos >> 2:#04x}")


def ecn(match: Match, around: Surroundings) -> list[Test]:
    """-m ecn: the lower two bits of the type-of-service byte, and TCP's ECE (64) and CWR (128) flags."""
    tests = []
    for option in match.options:
        if option.name == "ecn-ip-ect":
            tests.append(_ect(match, option))
        else:
            tests.append(_ecn_flag(match, option, 64 if option.name == "ecn-tcp-ece" else 128))
    return tests


def _ect(match: Match, option: Option) -> Test:
    value, negated = option.value, option.negated
    return Test(option_text(match, option), lambda p: (p.tos & 3 == value) != negated,
                lambda p: f"ECN bits are {p.tos & 3}")


def _ecn_flag(match: Match, option: Option, bit: int) -> Test:
    negated = option.negated
    return Test(option_text(match, option),
                lambda p: p.proto == 6 and p.frag != 2 and bool(p.tcp_flags & bit) != negated,
                lambda p: f"TCP flags are {format_flags(p.tcp_flags) or 'none'}")


def mac(match: Match, around: Surroundings) -> list[Test]:
    """-m mac: the Ethernet source; False even with ``!`` where the packet has none."""
    return [_mac(match, option) for option in match.options]


def _mac(match: Match, option: Option) -> Test:
    value, negated = option.value, option.negated
    return Test(option_text(match, option), lambda p: p.mac_src != 0 and (p.mac_src == value) != negated,
                lambda p: f"source MAC address is {p.mac_src:012x}" if p.mac_src else "it has no source MAC address")


def pkttype(match: Match, around: Surroundings) -> list[Test]:
    """-m pkttype: how the packet was addressed on the link; what the host makes is unicast."""
    return [_pkttype(match, option) for option in match.options]


def _pkttype(match: Match, option: Option) -> Test:
    value, negated = option.value, option.negated
    return Test(option_text(match, option), lambda p: (PKTTYPES[p.pkttype] == value) != negated,
                lambda p: f"link-layer type is {PKTTYPES[p.pkttype]}")


def comment(match: Match, around: Surroundings) -> list[Test]:
    """-m comment: always holds."""
    return []
