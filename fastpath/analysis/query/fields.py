"""The fields of a condition: what can be asked of a packet as it arrives, and of what becomes of it.

Arriving fields are the packet columns of ``fastpath.packets.schema`` and ``ctstate``, the state that connection
tracking gives the packet (``state`` is the column itself, in which ``auto`` stands for a packet of no known flow).
Result fields are the result columns by the names that files have for them, with ``egress`` for the interface that the
packet leaves by.

    >>> from fastpath.analysis.query import field
    >>> str(field.tcp_flags.has("SYN") & (field.ttl < 2) & field.dst.within("container web"))
    'tcp_flags has SYN and ttl in 0-1 and dst in container web'

Direction of error: a value that a field cannot have is a :class:`QueryError` that says what would be right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from fastpath.analysis.query.conditions import Bits, Comparison, Condition, Item, Name, Not, Span
from fastpath.errors import FastpathError, PacketError, QueryError
from fastpath.host.text import parse_prefix
from fastpath.packets.schema import PACKET_COLUMNS, Column, Hook, State, Verdict
from fastpath.packets.text import format_address, format_flags, limit, parse_flags, parse_value
from fastpath.ruleset.names import PROTOCOLS

Value: TypeAlias = "int | str | State | Verdict | Hook"
"""What a comparison takes: a number, a name, or text as files and the command line write it."""

CTSTATES = ("new", "established", "related", "invalid", "untracked")
"""Words of ``ctstate``, by code."""

REACHED = (Verdict.FORWARD, Verdict.LOCAL_IN, Verdict.LOCAL_OUT, Verdict.ACCEPT)
"""Verdicts of packets that got through (ACCEPT where one chain is looked at alone)."""
BLOCKED = (Verdict.DROP, Verdict.REJECT, Verdict.ICMP_ERROR)
"""Verdicts of packets that did not."""

_NAMED: dict[str, tuple[str, ...]] = {
    "state": tuple(s.name.lower() for s in State), "ctstate": CTSTATES,
    "verdict": tuple(v.name for v in Verdict), "hook": tuple(h.name for h in Hook),
    "pkttype": ("unicast", "broadcast", "multicast"),
}


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """What a field is.

    Attributes:
        name: its name.
        kind: ``number``, ``address``, ``interface``, ``name`` (a word of a fixed list) or ``rule``.
        top: largest value.
        result: True for what becomes of a packet.
        meaning: one line of help.
    """

    name: str
    kind: str
    top: int
    result: bool
    meaning: str


def _arriving(column: Column) -> FieldInfo:
    kind = "name" if column.name in _NAMED else column.kind if column.name != "mac_src" else "number"
    return FieldInfo(column.name, kind, limit(column, 4), False, column.meaning)


FIELDS: dict[str, FieldInfo] = {
    f.name: f for f in (
        *(_arriving(c) for c in PACKET_COLUMNS if c.name != "oif"),
        FieldInfo("ctstate", "name", len(CTSTATES) - 1, False, "state that connection tracking gives the packet"),
        FieldInfo("oif", "interface", (1 << 15) - 1, False, "egress interface that the packet brings, where it does"),
        FieldInfo("verdict", "name", len(Verdict) - 1, True, "the packet's fate"),
        FieldInfo("hook", "name", len(Hook) - 1, True, "where its way ended"),
        FieldInfo("rule", "rule", (1 << 31) - 1, True, "the rule or policy that decided"),
        FieldInfo("egress", "interface", (1 << 15) - 1, True, "interface that the packet leaves by"),
        FieldInfo("post_src", "address", (1 << 32) - 1, True, "source address after NAT"),
        FieldInfo("post_dst", "address", (1 << 32) - 1, True, "destination address after NAT"),
        FieldInfo("post_sport", "number", 65535, True, "source port after NAT"),
        FieldInfo("post_dport", "number", 65535, True, "destination port after NAT"),
        FieldInfo("post_mark", "number", (1 << 32) - 1, True, "packet mark at the end"),
    )
}
"""Every field by name."""

RESULT_COLUMN = {"egress": "oif", "post_src": "src", "post_dst": "dst", "post_sport": "sport", "post_dport": "dport",
                 "post_mark": "mark", "verdict": "verdict", "hook": "hook", "rule": "rule"}
"""The result column that a result field reads."""

_COLUMNS = {c.name: c for c in PACKET_COLUMNS}


def info(name: str) -> FieldInfo:
    """The field called `name`.

    Raises:
        QueryError: there is none.
    """
    found = FIELDS.get(name)
    if found is None:
        raise QueryError(f"there is no field {name!r}; the fields are {', '.join(FIELDS)}")
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A field to build conditions with; ``fp.field.dport`` and so on.

    Comparisons (``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``) and the methods give conditions. Values are numbers, or
    text as the command line writes them.
    """

    name: str

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return self.isin([value])  # type: ignore[list-item]

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return Not(self.isin([value]))  # type: ignore[list-item]

    def __hash__(self) -> int:
        return hash(self.name)

    def __lt__(self, value: Value) -> Condition:
        return self._span(0, self._number(value) - 1, f"< {value}")

    def __le__(self, value: Value) -> Condition:
        return self._span(0, self._number(value), f"<= {value}")

    def __gt__(self, value: Value) -> Condition:
        return self._span(self._number(value) + 1, info(self.name).top, f"> {value}")

    def __ge__(self, value: Value) -> Condition:
        return self._span(self._number(value), info(self.name).top, f">= {value}")

    def isin(self, values: Iterable[Value]) -> Condition:
        """The value is one of these; each may also be a range (``"8000-8010"``), a prefix or a name."""
        if isinstance(values, str):
            values = [values]
        items = tuple(dict.fromkeys(read_item(self.name, value) for value in values))
        if not items:
            raise QueryError(f"{self.name}: there is no value to compare with")
        return Comparison(self.name, items)

    def between(self, first: Value, last: Value) -> Condition:
        """The value lies in the range, both ends included."""
        return self._span(self._number(first), self._number(last), f"{first}-{last}")

    def within(self, *networks: str) -> Condition:
        """The address lies in one of the networks: ``10.0.0.0/8``, a range, ``network NAME`` or ``container NAME``."""
        if info(self.name).kind != "address":
            raise QueryError(f"{self.name} is no address: use isin or between")
        return self.isin(networks)

    def masked(self, value: int, mask: int) -> Condition:
        """``field & mask == value``."""
        top = info(self.name).top
        if info(self.name).kind == "interface" or not 0 <= mask <= top or not 0 <= value <= top:
            raise QueryError(f"{self.name}: {value:#x}/{mask:#x} is no value and mask of a number up to {top}")
        return Comparison(self.name, (Bits(value, mask),))

    def has(self, flags: str) -> Condition:
        """All of these TCP flags are set: ``"SYN,ACK"``."""
        bits = self._flags(flags)
        return Comparison(self.name, (Bits(bits, bits),))

    def lacks(self, flags: str) -> Condition:
        """None of these TCP flags is set."""
        return Comparison(self.name, (Bits(0, self._flags(flags)),))

    def _flags(self, text: str) -> int:
        if self.name != "tcp_flags":
            raise QueryError(f"{self.name} has no flags: has and lacks are for tcp_flags")
        try:
            return parse_flags(text)
        except PacketError as error:
            raise QueryError(f"tcp_flags: {error}") from None

    def _number(self, value: Value) -> int:
        item = read_item(self.name, value)
        if not isinstance(item, Span) or item.first != item.last or info(self.name).kind not in ("number", "address"):
            raise QueryError(f"{self.name}: {value!r} cannot be compared by size")
        return item.first

    def _span(self, first: int, last: int, shown: str) -> Condition:
        if first > last:
            raise QueryError(f"{self.name} {shown}: there are no such values; they go from 0 to {info(self.name).top}")
        return Comparison(self.name, (Span(first, last),))


class Fields:
    """All fields as attributes: ``fp.field.src``; see :data:`FIELDS` for their names.

    ``fp.field.reached``, ``fp.field.blocked`` and ``fp.field.undecided`` are conditions on the verdict.
    """

    def __getattr__(self, name: str) -> Field:
        if name not in FIELDS:
            raise AttributeError(f"there is no field {name!r}; the fields are {', '.join(FIELDS)}")
        return Field(name)

    def __dir__(self) -> list[str]:
        return [*FIELDS, "reached", "blocked", "undecided"]

    @property
    def reached(self) -> Condition:
        """The packet got through: forwarded, delivered to the host, or sent by it."""
        return WORDS["reached"]

    @property
    def blocked(self) -> Condition:
        """The packet did not get through: dropped, rejected, or answered with an ICMP error."""
        return WORDS["blocked"]

    @property
    def undecided(self) -> Condition:
        """What becomes of the packet depends on what its header does not tell."""
        return WORDS["undecided"]


field = Fields()

WORDS: dict[str, Condition] = {
    "reached": Comparison("verdict", tuple(Span(v, v) for v in REACHED)),
    "blocked": Comparison("verdict", tuple(Span(v, v) for v in BLOCKED)),
    "undecided": Comparison("verdict", (Span(Verdict.UNDECIDED, Verdict.UNDECIDED),)),
}
"""Conditions that are one word in the written form."""


# ------------------------------------------------------------------------------------------------ values


def read_item(name: str, value: object) -> Item:
    """One value of a field, from a number or from text.

    Raises:
        QueryError: the field has no such value; the message says what would be right.
    """
    field = info(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise QueryError(f"{name}: {value!r} is neither a number nor text")
    if field.kind == "interface":
        if not isinstance(value, str) or not value:
            raise QueryError(f"{name}: {value!r} is no interface name such as eth0")
        kind, _, network = value.partition(" ")
        return Name("network", network.strip()) if kind == "network" and network.strip() else Name("interface", value)
    if field.kind == "rule":
        return _rule(value)
    if isinstance(value, int):
        return _checked(field, int(value), int(value))
    text = value.strip()
    if field.kind == "address":
        return _address(field, text)
    if field.kind == "name":
        return _word(field, text)
    if name == "tcp_flags" and not text[:1].isdigit():
        try:
            bits = parse_flags(text)
        except PacketError as error:
            raise QueryError(f"tcp_flags: {error}") from None
        return Span(bits, bits)
    return _numbers(field, text)


def _checked(field: FieldInfo, first: int, last: int) -> Span:
    if not 0 <= first <= field.top or not 0 <= last <= field.top:
        raise QueryError(f"{field.name}: {first if not 0 <= first <= field.top else last} is out of range, 0 to "
                         f"{field.top}")
    if first > last:
        raise QueryError(f"{field.name}: the range {first}-{last} is empty; the smaller number comes first")
    return Span(first, last)


def _rule(value: int | str) -> Item:
    if isinstance(value, int):
        return Name("rule", str(value))
    words = value.replace("policy", "0").replace("rule", " ").split()
    if value.strip() == "none" or value.strip().isdigit() or (len(words) == 3 and words[2].isdigit()):
        return Name("rule", " ".join(words))
    raise QueryError(f"rule: {value!r} is no rule; give TABLE CHAIN NUMBER such as 'filter DOCKER-USER 1' (0 is the "
                     "policy), an id, or none")


def _word(field: FieldInfo, text: str) -> Span:
    words = _NAMED[field.name]
    lower = [w.lower() for w in words]
    if text.lower().replace("-", "_") in lower:
        code = lower.index(text.lower().replace("-", "_"))
        return Span(code, code)
    if text.isdigit():
        return _checked(field, int(text), int(text))
    raise QueryError(f"{field.name}: {text!r} is none of {', '.join(words)}")


def _address(field: FieldInfo, text: str) -> Item:
    words = text.split(None, 1)
    if words and words[0] in ("network", "container"):
        if len(words) < 2:
            raise QueryError(f"{field.name}: {words[0]} needs a name, as in '{words[0]} web'")
        return Name(words[0], words[1])
    first, dash, last = text.partition("-")
    if dash:
        return _checked(field, _one_address(field, first), _one_address(field, last))
    if "/" not in text:
        value = _one_address(field, text)
        return Span(value, value)
    try:
        network = parse_prefix(text, 4)
    except FastpathError:
        network = None
    if network is None or network.family != 4:
        raise QueryError(f"{field.name}: {text!r} is no IPv4 network such as 10.0.0.0/8")
    if _one_address(field, text.partition("/")[0]) != network.address:
        raise QueryError(f"{field.name}: {text!r} has bits behind its prefix; {format_address(network.address)}/"
                         f"{text.partition('/')[2]} would be right")
    return Span(network.address, network.address | (~network.mask & 0xFFFFFFFF))


def _one_address(field: FieldInfo, text: str) -> int:
    try:
        return parse_value(_COLUMNS["src"], text.strip())
    except PacketError:
        raise QueryError(f"{field.name}: {text!r} is no address such as 10.0.2.15, no network such as 10.0.0.0/8, and "
                         "no 'network NAME' or 'container NAME'") from None


def _numbers(field: FieldInfo, text: str) -> Item:
    if "/" in text:
        value, mask = (_one_number(field, part) for part in text.split("/", 1))
        return Bits(value, mask)
    first, dash, last = text.partition("-")
    if dash and first.strip().isdigit():
        return _checked(field, _one_number(field, first), _one_number(field, last))
    number = _one_number(field, text)
    return _checked(field, number, number)


def _one_number(field: FieldInfo, text: str) -> int:
    try:
        return parse_value(_COLUMNS.get(field.name) or _COLUMNS["sport"], text)
    except PacketError as error:
        raise QueryError(f"{field.name}: {error}") from None


# ------------------------------------------------------------------------------------------------ back to text


def show_test(test: Comparison) -> str:
    """A comparison in the written form."""
    for word, condition in WORDS.items():
        if test == condition:
            return word
    texts = [show_item(test.field, item) for item in test.items]
    if test.field == "tcp_flags" and len(test.items) == 1 and isinstance(item := test.items[0], Bits):
        if item.value == item.mask:
            return f"tcp_flags has {_flags_text(item.mask)}"
        if item.value == 0:
            return f"tcp_flags lacks {_flags_text(item.mask)}"
    if len(texts) != 1:
        return f"{test.field} in {{{','.join(texts)}}}"
    single = isinstance(test.items[0], Span) and test.items[0].first == test.items[0].last
    named = isinstance(test.items[0], Name) and test.items[0].kind in ("interface", "rule")
    return f"{test.field} {'==' if single or named else 'in'} {texts[0]}"


def _flags_text(bits: int) -> str:
    return format_flags(bits).replace(",", "|")


def show_item(name: str, item: Item) -> str:
    """One value of a field in the written form."""
    if isinstance(item, Name):
        text = _quoted(item.text)
        return text if item.kind in ("interface", "rule") else f"{item.kind} {text}"
    if isinstance(item, Bits):
        return f"{item.value:#x}/{item.mask:#x}"
    kind = info(name).kind
    if kind == "address":
        return show_addresses(item)
    if kind == "name":
        return _NAMED[name][item.first]
    if item.first == item.last:
        if name == "proto":
            return PROTOCOLS.get(item.first, str(item.first))
        return _flags_text(item.first) if name == "tcp_flags" else str(item.first)
    return f"{item.first}-{item.last}"


def show_addresses(span: Span) -> str:
    """An address, a prefix, or a range."""
    size = span.last - span.first + 1
    if size == 1:
        return format_address(span.first)
    if size & (size - 1) == 0 and span.first % size == 0:
        return f"{format_address(span.first)}/{33 - size.bit_length()}"
    return f"{format_address(span.first)}-{format_address(span.last)}"


def _quoted(text: str) -> str:
    plain = text and all(c.isalnum() or c in "._-+:@" for c in text) and text not in RESERVED
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


RESERVED = frozenset({"and", "or", "not", "in", "any", "has", "lacks", "network", "container", *WORDS})
"""Words of the written form that a name must be quoted to equal."""
