"""The tests that every rule has without ``-m``: addresses, interfaces, protocol, fragments.

They follow ``ip_packet_match()`` in net/ipv4/netfilter/ip_tables.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fastpath.packets.text import format_address
from fastpath.reference.state import PacketState
from fastpath.reference.test import Check, Test
from fastpath.ruleset.model import Negatable, Network, Rule
from fastpath.ruleset.names import PROTOCOLS


def tests(rule: Rule) -> Iterator[Test]:
    """The builtin tests of a rule, in the kernel's order."""
    if rule.source is not None:
        yield source(rule.source)
    if rule.destination is not None:
        yield destination(rule.destination)
    if rule.in_interface is not None:
        yield in_interface(rule.in_interface)
    if rule.out_interface is not None:
        yield out_interface(rule.out_interface)
    if rule.protocol is not None:
        yield protocol(rule.protocol)
    if rule.fragment is not None:
        yield fragment(rule.fragment)


def sign(negated: bool) -> str:
    """The ``!`` of a negated option."""
    return "! " if negated else ""


def network_text(network: Network) -> str:
    """A network as people write it: ``10.0.0.0/8``, or with a dotted mask where it is no prefix."""
    bits = 32 if network.family == 4 else 128
    length = network.mask.bit_count()
    prefix = ((1 << length) - 1) << (bits - length)
    mask = str(length) if prefix == network.mask else format_address(network.mask, network.family)
    return f"{format_address(network.address, network.family)}/{mask}"


def source(test: Negatable) -> Test:
    """``-s``: the source address masked equals the network."""
    assert isinstance(test.value, Network)
    value, mask, family = test.value.address, test.value.mask, test.value.family
    single = mask.bit_count() == (32 if family == 4 else 128)
    check: Check
    if test.negated:
        check = lambda p: p.src & mask != value  # noqa: E731
    elif single:
        check = lambda p: p.src == value  # noqa: E731
    else:
        check = lambda p: p.src & mask == value  # noqa: E731
    return Test(f"{sign(test.negated)}-s {network_text(test.value)}", check,
                lambda p: f"source is {format_address(p.src, family)}", telling=single and not test.negated)


def destination(test: Negatable) -> Test:
    """``-d``: the destination address masked equals the network."""
    assert isinstance(test.value, Network)
    value, mask, family = test.value.address, test.value.mask, test.value.family
    single = mask.bit_count() == (32 if family == 4 else 128)
    check: Check
    if test.negated:
        check = lambda p: p.dst & mask != value  # noqa: E731
    elif single:
        check = lambda p: p.dst == value  # noqa: E731
    else:
        check = lambda p: p.dst & mask == value  # noqa: E731
    return Test(f"{sign(test.negated)}-d {network_text(test.value)}", check,
                lambda p: f"destination is {format_address(p.dst, family)}", telling=single and not test.negated)


def interface_matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a name fits: a trailing ``+`` stands for any rest, so that ``+`` alone fits even no name at all."""
    if pattern.endswith("+"):
        prefix = pattern[:-1]
        return lambda name: name.startswith(prefix)
    return lambda name: name == pattern


def in_interface(test: Negatable) -> Test:
    """``-i``: the ingress interface. The host's own packets have none (the name is empty) until they are looped back
    through lo; forwarded packets keep theirs up to POSTROUTING."""
    pattern = str(test.value)
    fits, negated = interface_matcher(pattern), test.negated
    check: Check
    if pattern.endswith("+"):
        check = lambda p: fits(p.iif) != negated  # noqa: E731
    elif negated:
        check = lambda p: p.iif != pattern  # noqa: E731
    else:
        check = lambda p: p.iif == pattern  # noqa: E731
    return Test(f"{sign(negated)}-i {pattern}", check, _ingress)


def out_interface(test: Negatable) -> Test:
    """``-o``: the egress interface; empty where routing has not decided yet (PREROUTING) or delivers here (INPUT)."""
    pattern = str(test.value)
    fits, negated = interface_matcher(pattern), test.negated
    check: Check
    if pattern.endswith("+"):
        check = lambda p: fits(p.oif) != negated  # noqa: E731
    elif negated:
        check = lambda p: p.oif != pattern  # noqa: E731
    else:
        check = lambda p: p.oif == pattern  # noqa: E731
    return Test(f"{sign(negated)}-o {pattern}", check, _egress)


def _ingress(p: PacketState) -> str:
    return f"packet came in on {p.iif}" if p.iif else "packet is the host's own and came in on no interface"


def _egress(p: PacketState) -> str:
    return f"packet goes out on {p.oif}" if p.oif else "packet has no egress interface here"


def protocol_name(number: int) -> str:
    """A protocol for people."""
    return PROTOCOLS.get(number, str(number))


def protocol(test: Negatable) -> Test:
    """``-p``: the protocol number; 0 stands for any."""
    assert isinstance(test.value, int)
    value, negated = test.value, test.negated
    check: Check
    if value == 0:
        check = lambda p: True  # noqa: E731
    elif negated:
        check = lambda p: p.proto != value  # noqa: E731
    else:
        check = lambda p: p.proto == value  # noqa: E731
    return Test(f"{sign(negated)}-p {protocol_name(value)}", check,
                lambda p: f"protocol is {protocol_name(p.proto)}")


def fragment(later: bool) -> Test:
    """``-f``: a second or further fragment; ``! -f``: a whole packet or a first fragment."""
    words = ("a whole packet", "a first fragment", "a later fragment")
    return Test("-f" if later else "! -f", lambda p: (p.frag == 2) == later, lambda p: f"it is {words[p.frag]}")
