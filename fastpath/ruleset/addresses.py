"""IPv4 and IPv6 addresses and networks as text, the way iptables reads and prints them.

Reading is wider than printing: ``10/8``, ``0x0a000001`` and ``10.0.0.0/255.0.0.0`` are all understood. Host names are
not: what they mean depends on a resolver, and this reader works offline.
"""

from __future__ import annotations

import re
import socket

from fastpath.ruleset.model import Network

_PART = re.compile(r"(?:0[xX][0-9a-fA-F]{1,8}|[0-9]{1,11})\Z", re.ASCII)

_SOCKET_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

BITS = {4: 32, 6: 128}
"""Width of an address by family."""


class ValueFault(ValueError):
    """A value that iptables would refuse; the message says what would be right."""


def parse_address(text: str, family: int, *, padded: bool = False) -> int:
    """The integer of an address.

    Args:
        text: dotted or in the C library's short, octal and hexadecimal forms (family 4), or IPv6 text.
        family: 4 or 6.
        padded: missing parts are zeros on the right, as iptables reads the address of a network (``10/8``).

    Raises:
        ValueFault: no address of that family.
    """
    try:
        return int.from_bytes(socket.inet_pton(_SOCKET_FAMILY[family], text), "big")
    except (OSError, ValueError):
        if family == 6:
            raise ValueFault(f"'{text}' is not an IPv6 address") from None
    return _short_address(text, padded)


def _short_address(text: str, padded: bool) -> int:
    words = text.split(".")
    wrong = ValueFault(f"'{text}' is not an IPv4 address (host names are not looked up)")
    if not 1 <= len(words) <= 4 or not all(_PART.match(w) for w in words):
        raise wrong
    try:
        parts = [int(w, 16) if w[:2] in ("0x", "0X") else int(w, 8 if w[0] == "0" else 10) for w in words]
    except ValueError:
        raise wrong from None
    if padded and (len(parts) > 1 or parts[0] < 256):
        parts += [0] * (4 - len(parts))
    *front, last = parts
    room = 32 - 8 * len(front)
    if any(p > 255 for p in front) or last >= 1 << room:
        raise wrong
    value = 0
    for p in front:
        value = value << 8 | p
    return value << room | last


def format_address(address: int, family: int) -> str:
    """An address as the C library prints it."""
    if family == 4:
        return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"
    return socket.inet_ntop(socket.AF_INET6, address.to_bytes(16, "big"))


def prefix_mask(length: int, family: int) -> int:
    """The mask of `length` leading ones."""
    bits = BITS[family]
    return ((1 << length) - 1) << (bits - length)


_MASKS = {4: {prefix_mask(n, 4): n for n in range(33)}, 6: {prefix_mask(n, 6): n for n in range(129)}}


def prefix_length(mask: int, family: int) -> int | None:
    """The prefix length of a mask, or None where the mask is not contiguous."""
    return _MASKS[family].get(mask)


def parse_mask(text: str, family: int) -> int:
    """A mask written as a length or as an address.

    Raises:
        ValueFault: neither.
    """
    if text.isascii() and text.isdigit() and len(text) <= 3:
        length = int(text)
        if length > BITS[family]:
            raise ValueFault(f"the prefix length {text} is more than {BITS[family]}")
        return prefix_mask(length, family)
    try:
        return parse_address(text, family)
    except ValueFault:
        raise ValueFault(f"'{text}' is neither a prefix length (0-{BITS[family]}) nor a mask") from None


def parse_network(text: str, family: int) -> Network:
    """``ADDRESS`` or ``ADDRESS/MASK``; address bits outside the mask are cleared.

    Raises:
        ValueFault: a bad address or mask.
    """
    address, slash, mask_text = text.partition("/")
    mask = parse_mask(mask_text, family) if slash else (1 << BITS[family]) - 1
    return Network(family, parse_address(address, family, padded=bool(slash)) & mask, mask)


def format_network(network: Network, *, full: bool = True) -> str:
    """A network as iptables prints it: ``/length``, or the mask in full where it is not contiguous.

    Args:
        network: what to print.
        full: print the length of a single address too (``-s`` does, ``--ctorigsrc`` does not).
    """
    text = format_address(network.address, network.family)
    length = _MASKS[network.family].get(network.mask)
    if length is None:
        return f"{text}/{format_address(network.mask, network.family)}"
    return text if length == BITS[network.family] and not full else f"{text}/{length}"
