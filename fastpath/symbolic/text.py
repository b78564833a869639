"""Regions and values as text: prefixes, ranges, names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from fastpath.compiler.fields import Values
from fastpath.packets.schema import State
from fastpath.packets.text import format_address, format_flags
from fastpath.ruleset.names import PROTOCOLS
from fastpath.symbolic.space import LARGEST, HeaderSpace

if TYPE_CHECKING:
    from fastpath.symbolic.regions import Region

ADDRESSES = frozenset({"src", "dst", "ctorigdst"})
HEXADECIMAL = frozenset({"mark", "connmark", "tos", "ctstatus"})
MOST_WORDS = 12
"""Values of a column that are written out; of more the first ones and their number."""


def prefixes(values: Values, bits: int) -> Iterator[tuple[int, int]]:
    """The fewest (address, length) whose union a set is."""
    for first, last in values:
        while first <= last:
            size = min(first & -first if first else 1 << bits, 1 << (last - first + 1).bit_length() - 1)
            yield first, bits - size.bit_length() + 1
            first += size


def _address_words(values: Values) -> list[str]:
    words = []
    for first, last in values:
        of_range = list(prefixes(Values(((first, last),)), 32))
        if len(of_range) > 2:
            words.append(f"{format_address(first, 4)}-{format_address(last, 4)}")
            continue
        for address, length in of_range:
            words.append(format_address(address, 4) + (f"/{length}" if length < 32 else ""))
    return words


def _words(space: HeaderSpace, column: str, values: Values) -> list[str]:
    if column in ADDRESSES:
        return _address_words(values)
    if column in ("iif", "oif"):
        return [_interface(space, i) for first, last in values for i in range(first, last + 1)]
    if column == "state":
        return [State(i).name.lower() for first, last in values for i in range(first, last + 1)]
    if column == "proto":
        return [
            PROTOCOLS.get(first, str(first)) if first == last else f"{first}-{last}"
            for first, last in values
        ]
    if column == "tcp_flags" and sum(last - first + 1 for first, last in values) <= 4:
        return [format_flags(i) or "none" for first, last in values for i in range(first, last + 1)]

    def one(value: int) -> str:
        return f"{value:#x}" if column in HEXADECIMAL else str(value)

    return [one(first) if first == last else f"{one(first)}-{one(last)}" for first, last in values]


def _interface(space: HeaderSpace, number: int) -> str:
    name = space.interfaces.names[number]
    if name == "\0":
        return "any other"
    return f"any other {name[:-1]}+" if name.endswith("\0") else name


def _shortened(words: list[str]) -> str:
    if len(words) <= MOST_WORDS:
        return ",".join(words)
    return ",".join(words[:MOST_WORDS - 2]) + f",... ({len(words)} in all)"


def values_text(space: HeaderSpace, column: str, values: Values) -> str:
    """A set of a column's values: ``10.0.0.0/8``, ``not 80,443``, ``eth0``."""
    bits = space.places[column].bits
    top = LARGEST.get(column, (1 << bits) - 1)
    first = 0
    if column in ("iif", "oif"):
        first, top = 1, len(space.interfaces.names) - 1
    outside = values.complement(bits).intersect(Values(((first, top),)))
    plain, turned = _words(space, column, values), _words(space, column, outside)
    if outside and sum(map(len, turned)) < sum(map(len, plain)):
        return "not " + _shortened(turned)
    return _shortened(plain)


def column_text(region: Region, column: str) -> str:
    """The values of one of a region's columns."""
    if column.startswith("extra:"):
        return "true" if region.masks(column) == ((1, 1),) else "false"
    values = region.values(column)
    if values is not None:
        return values_text(region.space, column, values)

    def one(value: int, mask: int) -> str:
        if column in ADDRESSES:
            return f"{format_address(value, 4)}/{format_address(mask, 4)}"
        return f"{value:#x}/{mask:#x}"

    return _shortened([one(v, m) for v, m in region.masks(column)])


SHOWN_ORDER = ("iif", "oif", "state", "proto", "src", "sport", "dst", "dport")


def region_text(region: Region) -> str:
    """A region in one line: ``iif eth0  proto tcp  dst 10.0.2.15  dport 80,443``."""
    names = [c for c in SHOWN_ORDER if c in region.columns]
    names += [c for c in region.columns if c not in SHOWN_ORDER]
    return "  ".join(f"{c.removeprefix('extra:')} {column_text(region, c)}" for c in names) or "all packets"


def joined_words(words: Iterable[str]) -> str:
    """A list for a sentence, shortened."""
    return _shortened(list(words))
