"""Readers of option values: words as written in, the parsed value and the words that iptables-save prints out.

A :data:`Kind` is a function of the option's words and the address family. It raises ``ValueFault`` with a message
that names the wrong value and what would be right; it never raises anything else. Two spellings of one value give
equal results, which is what makes rulesets comparable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from fastpath.ruleset import names
from fastpath.ruleset.addresses import (
    ValueFault,
    format_address,
    format_network,
    parse_address,
    parse_network,
)
from fastpath.ruleset.model import (
    AddressRange,
    IcmpType,
    Masked,
    NatRange,
    PortRange,
    SetReference,
    Value,
)

Parsed: TypeAlias = tuple[Value, tuple[str, ...]]
Kind: TypeAlias = Callable[[Sequence[str], int], Parsed]

U32 = 0xFFFFFFFF
_NUMBER = re.compile(r"(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)\Z", re.ASCII)


def parse_number(text: str, low: int = 0, high: int = U32) -> int:
    """A number as C's strtoul takes it (decimal, 0x hexadecimal, 0 octal) within `low` to `high`.

    Raises:
        ValueFault: anything else.
    """
    if len(text) <= 24 and _NUMBER.match(text):
        base = 16 if text[:2] in ("0x", "0X") else 8 if text[0] == "0" else 10
        value = int(text, base)
        if low <= value <= high:
            return value
    raise ValueFault(f"'{text}' is not a number from {low} to {high}")


def parse_port(text: str) -> int:
    """A port number or a service name. Raises ValueFault."""
    port = names.SERVICES.get(text)
    if port is not None:
        return port
    try:
        return parse_number(text, 0, 65535)
    except ValueFault:
        raise ValueFault(f"'{text}' is neither a port (0-65535) nor a known service name") from None


def parse_protocol(text: str) -> int:
    """A protocol number or name; 0 means any. Raises ValueFault."""
    number = names.PROTOCOL_NUMBERS.get(text.lower())
    if number is not None:
        return number
    try:
        return parse_number(text, 0, 255)
    except ValueFault:
        raise ValueFault(f"'{text}' is neither a protocol number (0-255) nor a known protocol name") from None


def interface_name(text: str) -> str:
    """An interface name of at most 15 characters, perhaps with a trailing ``+``. Raises ValueFault."""
    if not text:
        raise ValueFault("an empty interface name matches nothing: name an interface")
    if len(text.encode("utf-8", "surrogatepass")) > 15:
        raise ValueFault(f"the interface name '{text}' is longer than 15 characters")
    if re.search(r"\s", text):
        raise ValueFault(f"the interface name '{text}' contains a blank")
    return text


def _split_range(text: str, low: int, high: int, number: Callable[[str], int]) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    if not colon:
        value = number(first)
        return value, value
    return (number(first) if first else low), (number(last) if last else high)


def _range_text(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}:{last}"


def flag(words: Sequence[str], family: int) -> Parsed:
    """An option without argument."""
    return None, ()


def text(words: Sequence[str], family: int) -> Parsed:
    """Any text, kept as it is."""
    return " ".join(words), tuple(words)


def limited_text(longest: int, *, empty: bool = True) -> Kind:
    """Any text of at most `longest` bytes; `empty` text may be refused."""

    def kind(words: Sequence[str], family: int) -> Parsed:
        if not words[0] and not empty:
            raise ValueFault("the text is empty: at least one character is needed")
        if len(words[0].encode("utf-8", "surrogatepass")) > longest:
            raise ValueFault(f"the text is longer than {longest} bytes")
        return words[0], (words[0],)

    return kind


def cut_text(longest: int, *, empty: bool = True) -> Kind:
    """Any text, cut to `longest` bytes as iptables does; `empty` text may be refused."""

    def kind(words: Sequence[str], family: int) -> Parsed:
        if not words[0] and not empty:
            raise ValueFault("the text is empty: at least one character is needed")
        kept = words[0].encode("utf-8", "surrogatepass")[:longest].decode("utf-8", "ignore")
        return kept, (kept,)

    return kind


def number(low: int = 0, high: int = U32, form: str = "d") -> Kind:
    """A number from `low` to `high`, printed with the format specification `form`."""
    prefix = "0x" if form.endswith("x") else ""

    def kind(words: Sequence[str], family: int) -> Parsed:
        value = parse_number(words[0], low, high)
        return value, (f"{prefix}{value:{form}}",)

    return kind


def number_range(high: int, *, ordered: bool = True, single: bool = False, dash: bool = False) -> Kind:
    """``N`` or ``N:M`` with open ends.

    Args:
        high: largest number, also the open upper end.
        ordered: refuse a range whose first number is the larger.
        single: no range allowed.
        dash: the ends stand apart by ``-``, and both are needed.
    """

    def one(word: str) -> int:
        return parse_number(word, 0, high)

    def kind(words: Sequence[str], family: int) -> Parsed:
        word = words[0]
        if single:
            first = last = one(word)
        elif dash:
            start, separator, end = word.partition("-")
            first = one(start)
            last = one(end) if separator else first
            if first > last:
                raise ValueFault(f"the range '{word}' is upside down")
            return PortRange(first, last), (str(first) if first == last else f"{first}-{last}",)
        else:
            first, last = _split_range(word, 0, high, one)
        if ordered and first > last:
            raise ValueFault(f"the range '{word}' is upside down: write the smaller number first")
        return PortRange(first, last), (_range_text(first, last),)

    return kind


def any_port_range(words: Sequence[str], family: int) -> Parsed:
    """``PORT`` or ``PORT:PORT`` with open ends; service names are known. One that is upside down matches nothing."""
    first, last = _split_range(words[0], 0, 65535, parse_port)
    return PortRange(first, last), (_range_text(first, last),)


def port_range(words: Sequence[str], family: int) -> Parsed:
    """The same, the smaller port first."""
    first, last = _split_range(words[0], 0, 65535, parse_port)
    if first > last:
        raise ValueFault(f"the port range '{words[0]}' is upside down: write the smaller port first")
    return PortRange(first, last), (_range_text(first, last),)


def dashed_ports(words: Sequence[str], family: int) -> Parsed:
    """``PORT`` or ``PORT-PORT``, as MASQUERADE and REDIRECT take it."""
    ports = _nat_ports(words[0])
    return ports, (_nat_ports_text(ports),)


def one_port(words: Sequence[str], family: int) -> Parsed:
    """A single port as a number."""
    value = parse_port(words[0])
    return value, (str(value),)


def port_list(words: Sequence[str], family: int) -> Parsed:
    """multiport's list: at most 15 ports, a range counting twice."""
    ranges: list[PortRange] = []
    slots = 0
    for word in words[0].split(","):
        start, colon, end = word.partition(":")
        first = parse_port(start)
        last = parse_port(end) if colon else first
        if colon and first >= last:
            raise ValueFault(f"the port range '{word}' needs a smaller port before a larger one")
        slots += 2 if colon else 1
        ranges.append(PortRange(first, last))
    if slots > 15:
        raise ValueFault(f"{slots} ports are too many: multiport takes 15, and a range counts as two")
    return tuple(ranges), (",".join(_range_text(r.first, r.last) for r in ranges),)


def protocol_number(words: Sequence[str], family: int) -> Parsed:
    """A protocol, printed as a number."""
    value = parse_protocol(words[0])
    return value, (str(value),)


def protocol_name(words: Sequence[str], family: int) -> Parsed:
    """A protocol, printed by name."""
    value = parse_protocol(words[0])
    return value, (names.PROTOCOLS.get(value, str(value)),)


def interface(words: Sequence[str], family: int) -> Parsed:
    """An interface name."""
    value = interface_name(words[0])
    return value, (value,)


def network(words: Sequence[str], family: int) -> Parsed:
    """An address with an optional mask; the mask of a single address is not printed."""
    value = parse_network(words[0], family)
    return value, (format_network(value, full=False),)


def network_with_mask(words: Sequence[str], family: int) -> Parsed:
    """An address with an optional mask; the mask is always printed."""
    value = parse_network(words[0], family)
    return value, (format_network(value),)


def address(words: Sequence[str], family: int) -> Parsed:
    """One address, kept as its text."""
    shown = format_address(parse_address(words[0], family), family)
    return shown, (shown,)


def address_range(words: Sequence[str], family: int) -> Parsed:
    """``ADDRESS`` or ``ADDRESS-ADDRESS``; a range that is upside down is kept and matches nothing."""
    start, dash, end = words[0].partition("-")
    first = parse_address(start, family)
    last = parse_address(end, family) if dash else first
    value = AddressRange(family, first, last)
    return value, (f"{format_address(first, family)}-{format_address(last, family)}",)


def _nat_ports(word: str) -> PortRange:
    first, dash, last = word.partition("-")
    start = parse_port(first)
    end = parse_port(last) if dash else start
    if start > end:
        raise ValueFault(f"the port range '{word}' is upside down: write the smaller port first")
    return PortRange(start, end)


def _nat_ports_text(ports: PortRange) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"


def nat_range(*, shifted: bool) -> Kind:
    """``[ADDRESS[-ADDRESS]][:PORT[-PORT]]``; with `shifted` a ``/BASE`` may follow the port range.

    An IPv6 address stands in brackets where ports follow.
    """

    def kind(words: Sequence[str], family: int) -> Parsed:
        addresses_text, ports_text = _split_nat(words[0], family)
        if not addresses_text and ports_text is None:
            raise ValueFault("an address, a :port or both are needed, as in 192.0.2.1:80")
        addresses: AddressRange | None = None
        shown = ""
        if addresses_text:
            start, dash, end = addresses_text.partition("-")
            first = parse_address(start, family)
            last = parse_address(end, family) if dash else first
            addresses = AddressRange(family, first, last)
            shown = format_address(first, family)
            if last != first:
                shown += "-" + format_address(last, family)
        if ports_text is None:
            return NatRange(addresses, None), (shown,)
        range_text, slash, base_text = ports_text.partition("/")
        if slash and not shifted:
            raise ValueFault(f"'/{base_text}': a shifted port range is only for --to-destination")
        ports = _nat_ports(range_text)
        base = parse_number(base_text, 0, 65535) if slash else None
        if family == 6 and shown:
            shown = f"[{shown}]"
        shown += ":" + _nat_ports_text(ports) + (f"/{base}" if base is not None else "")
        return NatRange(addresses, ports, base), (shown,)

    return kind


def _split_nat(word: str, family: int) -> tuple[str, str | None]:
    if family == 4:
        addresses, colon, ports = word.partition(":")
        return addresses, ports if colon else None
    if word.startswith("["):
        addresses, closed, rest = word[1:].partition("]")
        if not closed or (rest and rest[0] != ":"):
            raise ValueFault(f"'{word}': write [ADDRESS]:PORT")
        return addresses, rest[1:] if rest else None
    if word.startswith(":") and not word.startswith("::"):
        return "", word[1:]
    return word, None


def masked(form: str = "x", high: int = U32, *, always: bool = False) -> Kind:
    """``VALUE`` or ``VALUE/MASK`` in hexadecimal; a full mask is printed only with `always`."""

    def kind(words: Sequence[str], family: int) -> Parsed:
        word, slash, mask_text = words[0].partition("/")
        value = parse_number(word, 0, high)
        mask = parse_number(mask_text, 0, high) if slash else high
        return masked_result(value, mask, form=form, full=high, always=always)

    return kind


def masked_result(value: int, mask: int, *, form: str = "x", full: int = U32, always: bool = True) -> Parsed:
    """The value and text of a :class:`Masked`."""
    shown = f"0x{value:{form}}"
    return Masked(value, mask), (shown if mask == full and not always else f"{shown}/0x{mask:{form}}",)


def bit_operation(make: Callable[[int, int, bool], tuple[int, int]], form: str, high: int, *, mask: bool) -> Kind:
    """A value, with a mask where `mask`, turned into the value/mask pair of a set operation by `make`.

    `make` gets the value, the mask, and whether a mask was given.
    """

    def kind(words: Sequence[str], family: int) -> Parsed:
        word, slash, mask_text = words[0].partition("/")
        if slash and not mask:
            raise ValueFault(f"'{words[0]}': this option takes bits without a mask")
        value = parse_number(word, 0, high)
        given = parse_number(mask_text, 0, high) if slash else high
        return masked_result(*make(value, given, bool(slash)), form=form, full=high)

    return kind


def tos(words: Sequence[str], family: int) -> Parsed:
    """``--tos`` and ``--set-tos``: a value with an optional mask, or a name."""
    value = names.TOS_NAMES.get(words[0].lower())
    if value is not None:
        return masked_result(value, 0x3F, form="02x", full=0xFF)
    return masked("02x", 0xFF, always=True)(words, family)


def dscp_class(words: Sequence[str], family: int) -> Parsed:
    """A DiffServ class name as its code point."""
    value = names.DSCP_CLASSES.get(words[0].lower())
    if value is None:
        raise ValueFault(f"'{words[0]}' is no DiffServ class: BE, EF, CS0-CS7 or AF11-AF43")
    return value, (f"0x{value:02x}",)


def name_set(allowed: Iterable[str], what: str, aliases: Mapping[str, str] | None = None) -> Kind:
    """A comma-separated list of names in any case, printed in the order of `allowed`."""
    order = tuple(allowed)
    known = {name.upper(): name for name in order} | {k.upper(): v for k, v in (aliases or {}).items()}

    def kind(words: Sequence[str], family: int) -> Parsed:
        found = set()
        for word in words[0].split(","):
            name = known.get(word.upper())
            if name is None:
                raise ValueFault(f"'{word}' is no {what}: {', '.join(order)}")
            found.add(name)
        return frozenset(found), (",".join(name for name in order if name in found),)

    return kind


def choice(allowed: Iterable[str], aliases: Mapping[str, str] | None = None) -> Kind:
    """One of some names, in any case."""
    order = tuple(allowed)
    known = {name.lower(): name for name in order} | dict(aliases or {})

    def kind(words: Sequence[str], family: int) -> Parsed:
        name = known.get(words[0].lower())
        if name is None:
            raise ValueFault(f"'{words[0]}' is none of {', '.join(order)}")
        return name, (name,)

    return kind


def reject_type(words: Sequence[str], family: int) -> Parsed:
    """``--reject-with`` of the family."""
    table = names.REJECT_TYPES[family]
    return choice(table.values(), table)(words, family)


_FLAG_NAMES = names.TCP_FLAGS | {"ALL": 63, "NONE": 0}


def _tcp_flag_bits(word: str) -> int:
    bits = 0
    for name in word.split(","):
        bit = _FLAG_NAMES.get(name.upper())
        if bit is None:
            raise ValueFault(f"'{name}' is no TCP flag: {', '.join(_FLAG_NAMES)}")
        bits |= bit
    return bits


def _tcp_flag_text(bits: int) -> str:
    return ",".join(name for name, bit in names.TCP_FLAGS.items() if bits & bit) or "NONE"


def tcp_flags(words: Sequence[str], family: int) -> Parsed:
    """``--tcp-flags MASK COMPARED``."""
    mask, compared = _tcp_flag_bits(words[0]), _tcp_flag_bits(words[1])
    return Masked(compared, mask), (_tcp_flag_text(mask), _tcp_flag_text(compared))


def syn(words: Sequence[str], family: int) -> Parsed:
    """``--syn`` as the flags test it stands for."""
    return tcp_flags(("FIN,SYN,RST,ACK", "SYN"), family)


def icmp_type(table: Mapping[str, tuple[int, int, int]]) -> Kind:
    """A type, ``TYPE/CODE``, or a name (an unambiguous beginning will do)."""

    def named(word: str) -> IcmpType | None:
        low = word.lower()
        if low in table:
            return IcmpType(*table[low])
        found = {table[name]: name for name in table if low and name.startswith(low)}
        if len(found) > 1:
            raise ValueFault(f"'{word}' is ambiguous: {' or '.join(sorted(found.values()))}")
        return IcmpType(*next(iter(found))) if found else None

    def kind(words: Sequence[str], family: int) -> Parsed:
        word = words[0]
        value = None if word[:1].isdigit() else named(word)
        if value is None:
            type_text, slash, code_text = word.partition("/")
            try:
                type_ = parse_number(type_text, 0, 255)
                code = parse_number(code_text, 0, 255) if slash else None
            except ValueFault:
                raise ValueFault(f"'{word}' is neither TYPE, TYPE/CODE (0-255) nor a known ICMP name") from None
            value = IcmpType(type_, code or 0, 255 if code is None else code)
        if value.type == 255 and family == 4:
            return IcmpType(255, 0, 255), ("any",)
        if value.code_first == value.code_last:
            return value, (f"{value.type}/{value.code_first}",)
        return value, (str(value.type),)

    return kind


def set_reference(words: Sequence[str], family: int) -> Parsed:
    """``NAME src,dst,...``: an ipset and one direction for each of its dimensions, at most six."""
    name, sides = words
    if not name or len(name.encode("utf-8", "surrogatepass")) > 31:
        raise ValueFault(f"the set name '{name}' needs 1 to 31 characters")
    directions = tuple(sides.split(","))
    if len(directions) > 6 or any(d not in ("src", "dst") for d in directions):
        raise ValueFault(f"'{sides}' is no list of at most six of src and dst")
    return SetReference(name, directions), (name, sides)


_MAC = re.compile(r"(?:[0-9a-f]{1,2}:){5}[0-9a-f]{1,2}\Z", re.ASCII | re.IGNORECASE)


def mac(words: Sequence[str], family: int) -> Parsed:
    """A MAC address as a 48-bit integer."""
    if not _MAC.match(words[0]):
        raise ValueFault(f"'{words[0]}' is no MAC address such as 02:42:ac:11:00:02")
    octets = [int(part, 16) for part in words[0].split(":")]
    return int.from_bytes(bytes(octets), "big"), (":".join(f"{o:02x}" for o in octets),)


def owner_range(words: Sequence[str], family: int) -> Parsed:
    """A user or group: a number, a range ``N-M``, or a name, which only the host could turn into a number."""
    if words[0][:1].isdigit():
        return number_range(0xFFFFFFFE, dash=True)(words, family)
    if not words[0]:
        raise ValueFault("a user or group is needed: a number, a range N-M or a name")
    return words[0], (words[0],)


_RATE = re.compile(r"([0-9]{1,9})(?:/([a-zA-Z]+))?\Z", re.ASCII)
_RATE_UNITS = (("sec", "second", 1), ("min", "minute", 60), ("hour", "hour", 3600), ("day", "day", 86400))


def rate(scale: int) -> Kind:
    """``N/second`` and the like: kept as the whole number of ticks between packets that the kernel counts.

    Args:
        scale: ticks per second; 10,000 for limit, 1,000,000 for hashlimit. Rates come out as the kernel rounds them.
    """

    def kind(words: Sequence[str], family: int) -> Parsed:
        found = _RATE.match(words[0])
        unit = (found.group(2) or "second").lower() if found else ""
        seconds = next((s for _, long, s in _RATE_UNITS if unit and long.startswith(unit)), None)
        if found is None or seconds is None or int(found.group(1)) == 0:
            raise ValueFault(f"'{words[0]}' is no rate such as 5/second, 5/minute, 5/hour or 5/day")
        ticks = scale * seconds // int(found.group(1))
        if ticks == 0:
            raise ValueFault(f"the rate '{words[0]}' is too fast: at most {scale} per second")
        shown = _rate_text(ticks, scale)
        return shown, (shown,)

    return kind


def _rate_text(ticks: int, scale: int) -> str:
    """The rate in the smallest unit (of day, hour, minute, second) that still says it well, as iptables does."""
    chosen, per_unit = "day", scale * 86400
    for name, _, seconds in reversed(_RATE_UNITS[:-1]):
        unit = scale * seconds
        if ticks > unit or unit // ticks < unit % ticks:
            break
        chosen, per_unit = name, unit
    return f"{per_unit // ticks}/{chosen}"


_BYTES = re.compile(r"([0-9]{1,12})(k|m)?b?\Z", re.ASCII)
_BYTE_UNITS = {None: 1, "k": 1 << 10, "m": 1 << 20}


def byte_count(text: str) -> int:
    """``500``, ``500b``, ``500kb`` or ``5mb`` as bytes. Raises ValueFault."""
    found = _BYTES.match(text)
    if not found:
        raise ValueFault(f"'{text}' is no byte count such as 500b, 512kb or 1mb")
    return int(found.group(1)) * _BYTE_UNITS[found.group(2)]


def hash_rate(words: Sequence[str], family: int) -> Parsed:
    """hashlimit's rate: packets as in ``5/min``, or bytes as in ``512kb/s``, which the kernel counts in sixteens."""
    if not words[0].endswith("b/s"):
        return rate(1_000_000)(words, family)
    count = byte_count(words[0][:-2]) >> 4 << 4
    if count == 0:
        raise ValueFault(f"'{words[0]}' is too slow: at least 16b/s")
    scale, unit = next((n, u) for n, u in ((1 << 20, "mb"), (1 << 10, "kb"), (1, "b")) if count % n == 0)
    shown = f"{count // scale}{unit}/s"
    return shown, (shown,)


def hash_burst(words: Sequence[str], family: int) -> Parsed:
    """hashlimit's burst: packets, or bytes as in ``1mb``."""
    byte_count(words[0])
    return words[0], (words[0],)


_FRACTION = re.compile(r"[0-9]{0,4}(?:\.[0-9]{0,30})?\Z", re.ASCII)


def probability(words: Sequence[str], family: int) -> Parsed:
    """A probability, which the kernel keeps in units of 2**-31; printed with eleven decimals."""
    if words[0] in ("", ".") or not _FRACTION.match(words[0]) or float(words[0]) > 1:
        raise ValueFault(f"'{words[0]}' is no probability from 0.0 to 1.0")
    units = int(float(words[0]) * 0x80000000 + 0.5)
    shown = f"{units / 0x80000000:.11f}"
    return shown, (shown,)


_U32_NUMBER = r"(?:0[xX][0-9a-fA-F]+|[0-9]+)"
_U32_LOCATION = rf"{_U32_NUMBER}(?:(?:&|<<|>>|@){_U32_NUMBER})*"
_U32_RANGE = rf"{_U32_NUMBER}(?::{_U32_NUMBER})?"
_U32_TEST = rf"{_U32_LOCATION}={_U32_RANGE}(?:,{_U32_RANGE})*"
_U32 = re.compile(rf"{_U32_TEST}(?:&&{_U32_TEST})*\Z", re.ASCII)


def u32_tests(words: Sequence[str], family: int) -> Parsed:
    """u32's tests, without blanks and with hexadecimal numbers."""
    program = re.sub(r"\s+", "", words[0])
    if not _U32.match(program):
        raise ValueFault(f"'{words[0]}' is no u32 test such as 6&0xFF=1 or 0>>22&0x3C@0=0:5")
    shown = re.sub(_U32_NUMBER, lambda m: f"0x{parse_number(m.group()):x}", program)
    return shown, (shown,)


def hex_string(words: Sequence[str], family: int) -> Parsed:
    """``--hex-string``: text with hexadecimal parts between bars, printed as one hexadecimal part."""
    pieces = words[0].split("|")
    if len(pieces) % 2 == 0:
        raise ValueFault(f"'{words[0]}': a | is not closed")
    content = bytearray()
    for n, piece in enumerate(pieces):
        if n % 2 == 0:
            content += re.sub(r"\\(.)", r"\1", piece).encode("utf-8", "surrogatepass")
            continue
        try:
            content += bytes.fromhex(piece)
        except ValueError:
            raise ValueFault(f"'|{piece}|' is not made of pairs of hexadecimal digits") from None
    if not 1 <= len(content) <= 128:
        raise ValueFault("the string to search needs 1 to 128 bytes")
    shown = f"|{content.hex()}|"
    return shown, (shown,)


def _calendar(word: str) -> str:
    found = re.match(r"(\d{4})(?:-(\d\d?)(?:-(\d\d?)(?:T(\d\d?)(?::(\d\d?)(?::(\d\d?))?)?)?)?)?\Z", word, re.ASCII)
    if found:
        year, month, day, hour, minute, second = (
            int(g) if g else d for g, d in zip(found.groups(), (0, 1, 1, 0, 0, 0), strict=True)
        )
        if 1970 <= year <= 2038 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60:
            return f"{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    raise ValueFault(f"'{word}' is no date of 1970 to 2038 such as 2030-01-31T10:00:00")


def date(words: Sequence[str], family: int) -> Parsed:
    """A date and time as ISO 8601, filled up from the left."""
    shown = _calendar(words[0])
    return shown, (shown,)


def daytime(words: Sequence[str], family: int) -> Parsed:
    """A time of day, ``HH:MM`` or ``HH:MM:SS``."""
    found = re.match(r"(\d\d?):(\d\d?)(?::(\d\d?))?\Z", words[0], re.ASCII)
    hour, minute, second = (int(g or 0) for g in found.groups()) if found else (24, 0, 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueFault(f"'{words[0]}' is no time of day such as 08:30 or 23:59:59")
    shown = f"{hour:02}:{minute:02}:{second:02}"
    return shown, (shown,)


WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def weekdays(words: Sequence[str], family: int) -> Parsed:
    """Days of the week by name (two letters will do) or number, Monday being 1."""
    days = set()
    for word in words[0].split(","):
        found = [d for n, d in enumerate(WEEKDAYS, 1) if word == str(n) or word[:2].lower() == d[:2].lower()]
        if not found:
            raise ValueFault(f"'{word}' is no day of the week: {', '.join(WEEKDAYS)} or 1-7")
        days.add(found[0])
    return frozenset(days), (",".join(d for d in WEEKDAYS if d in days),)


def monthdays(words: Sequence[str], family: int) -> Parsed:
    """Days of the month."""
    days = {parse_number(word, 1, 31) for word in words[0].split(",")}
    return frozenset(str(d) for d in days), (",".join(str(d) for d in sorted(days)),)


def byte_count_range(words: Sequence[str], family: int) -> Parsed:
    """connbytes' ``FROM[:TO]``; an absent end is endless and not printed."""
    most = (1 << 64) - 1
    first, last = _split_range(words[0], 0, most, lambda w: parse_number(w, 0, most))
    if ":" not in words[0]:
        last = most
    if first > last:
        raise ValueFault(f"the range '{words[0]}' is upside down: write the smaller number first")
    return PortRange(first, last), (str(first) if last == most else f"{first}:{last}",)


def class_id(words: Sequence[str], family: int) -> Parsed:
    """``MAJOR:MINOR``, both hexadecimal with or without 0x."""
    found = re.match(r"(?:0x)?([0-9a-f]{1,4}):(?:0x)?([0-9a-f]{1,4})\Z", words[0], re.ASCII | re.IGNORECASE)
    if not found:
        raise ValueFault(f"'{words[0]}' is no class such as 0001:0010, in hexadecimal")
    major, minor = (int(g, 16) for g in found.groups())
    return major << 16 | minor, (f"{major:04x}:{minor:04x}",)


def log_level(words: Sequence[str], family: int) -> Parsed:
    """A syslog severity by number or name."""
    level = names.LOG_LEVELS.get(words[0].lower())
    if level is None:
        try:
            level = parse_number(words[0], 0, 7)
        except ValueFault:
            raise ValueFault(f"'{words[0]}' is no log level: 0-7 or {', '.join(names.LOG_LEVELS)}") from None
    return level, (str(level),)


_TCP_OPTIONS = {"wscale": 3, "mss": 2, "sack-permitted": 4, "sack": 5, "timestamp": 8, "md5": 19}


def tcp_options(words: Sequence[str], family: int) -> Parsed:
    """TCPOPTSTRIP's list of option names and numbers."""
    found = set()
    for word in words[0].split(","):
        option = _TCP_OPTIONS[word] if word in _TCP_OPTIONS else parse_number(word, 2, 255)
        if option in found:
            raise ValueFault(f"the TCP option '{word}' is listed twice")
        found.add(option)
    by_number = {number: name for name, number in _TCP_OPTIONS.items()}
    shown = ",".join(by_number.get(n, str(n)) for n in sorted(found))
    return shown, (shown,)


DCCP_TYPES = (
    "REQUEST",
    "RESPONSE",
    "DATA",
    "ACK",
    "DATAACK",
    "CLOSEREQ",
    "CLOSE",
    "RESET",
    "SYNC",
    "SYNCACK",
    "INVALID",
)
"""DCCP packet types in the order of RFC 4340, with iptables' name for the rest."""


def dccp_types(words: Sequence[str], family: int) -> Parsed:
    """A list of DCCP packet types."""
    _, shown = name_set(DCCP_TYPES, "DCCP packet type")(words, family)
    return shown[0], shown


CHUNK_TYPES = (
    "DATA",
    "INIT",
    "INIT_ACK",
    "SACK",
    "HEARTBEAT",
    "HEARTBEAT_ACK",
    "ABORT",
    "SHUTDOWN",
    "SHUTDOWN_ACK",
    "ERROR",
    "COOKIE_ECHO",
    "COOKIE_ACK",
    "ECN_ECNE",
    "ECN_CWR",
    "SHUTDOWN_COMPLETE",
    "ASCONF_ACK",
    "FORWARD_TSN",
    "ASCONF",
)
"""SCTP chunk types in the order of their numbers (RFC 4960, 5061, 3758)."""


_CHUNK_FLAGS = {"DATA": "IUBE", "ABORT": "T", "SHUTDOWN_COMPLETE": "T"}


def _chunk(word: str) -> tuple[str, str]:
    name, _, flags = word.partition(":")
    name = name.upper()
    if name not in (*CHUNK_TYPES, "ALL", "NONE"):
        raise ValueFault(f"'{name}' is no SCTP chunk type: {', '.join(CHUNK_TYPES)}, ALL, NONE")
    allowed = _CHUNK_FLAGS.get(name, "")
    if any(f.upper() not in allowed for f in flags) or len({f.upper() for f in flags}) < len(flags):
        raise ValueFault(f"'{flags}' are no flags of {name}: {', '.join(allowed) or 'it has none'}")
    shown = "".join(sorted(flags, key=lambda f: allowed.index(f.upper())))
    return name, f"{name}:{shown}" if shown else name


def chunk_types(words: Sequence[str], family: int) -> Parsed:
    """``all|any|only`` and a list of chunk types, each with optional flags after a colon."""
    how = words[0].lower()
    if how not in ("all", "any", "only"):
        raise ValueFault(f"'{words[0]}' is none of all, any, only")
    found = dict(_chunk(word) for word in words[1].split(","))
    order = ("ALL", "NONE", *CHUNK_TYPES)
    shown = (how, ",".join(found[name] for name in order if name in found))
    return " ".join(shown), shown


_HEADERS = {
    "hop-by-hop": ("hop", "0"),
    "ipv6-opts": ("dst", "60"),
    "ipv6-route": ("route", "43"),
    "ipv6-frag": ("frag", "44"),
    "ah": ("auth", "51"),
    "esp": ("50",),
    "ipv6-nonxt": ("none", "59"),
    "protocol": ("prot", "255"),
}

ipv6_headers = name_set(_HEADERS, "IPv6 header", {short: long for long, all_ in _HEADERS.items() for short in all_})
"""Extension headers by name, short name or number."""

_MOBILITY = (
    ("binding-refresh-request", "brr"),
    ("home-test-init", "hoti"),
    ("careof-test-init", "coti"),
    ("home-test", "hot"),
    ("careof-test", "cot"),
    ("binding-update", "bu"),
    ("binding-acknowledgement", "ba"),
    ("binding-error", "be"),
)


def mobility_type(words: Sequence[str], family: int) -> Parsed:
    """A mobility header type or a range of them, by number or name (RFC 6275)."""

    def one(word: str) -> int:
        for n, known in enumerate(_MOBILITY):
            if word.lower() in known:
                return n
        return parse_number(word, 0, 255)

    first, last = _split_range(words[0], 0, 255, one)
    if first > last:
        raise ValueFault(f"the range '{words[0]}' is upside down: write the smaller type first")
    return PortRange(first, last), (_range_text(first, last),)


def ct_status(words: Sequence[str], family: int) -> Parsed:
    """``--ctstatus``: NONE is the absence of the others and means nothing beside them."""
    value, shown = name_set(names.CT_STATUSES, "connection status")(words, family)
    if isinstance(value, frozenset) and len(value) > 1 and "NONE" in value:
        return value - {"NONE"}, (shown[0].removeprefix("NONE,"),)
    return value, shown


def zone(words: Sequence[str], family: int) -> Parsed:
    """A conntrack zone: a number or ``mark``."""
    if words[0] == "mark":
        return "mark", ("mark",)
    return number(0, 65535)(words, family)


_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(s|sec|secs|ms|msec|msecs|us|usec|usecs)?\Z", re.ASCII)


def duration(words: Sequence[str], family: int) -> Parsed:
    """A time span such as ``250ms`` or ``1s``."""
    found = _DURATION.match(words[0])
    if not found:
        raise ValueFault(f"'{words[0]}' is no time span such as 250ms or 1s")
    unit = found.group(2) or "s"
    micro = round(float(found.group(1)) * {"s": 1_000_000, "m": 1_000, "u": 1}[unit[0]])
    if micro >= 1_000_000:
        shown = f"{micro / 1_000_000:.1f}s"
    elif micro >= 1_000:
        shown = f"{micro / 1_000:.1f}ms"
    else:
        shown = f"{micro}us"
    return shown, (shown,)
