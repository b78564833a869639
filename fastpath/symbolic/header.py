"""What the fields of a packet hold on its way, as functions of the header that arrived.

A :class:`Header` gives for each base (``compiler.fields``) a tuple of diagrams, one a bit, the highest first.
Constants, unchanged columns, masks, sums and choices between them are thus one kind of thing; every effect of a rule is
exact, and equal functions are equal tuples. Upper bits that a tuple lacks are zero.

:class:`Origin` knows the header as it arrives at the first hook, with what connection tracking makes of it
(``kernels/connection.py`` says the same for the compiled engine).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from fastpath.compiler.fields import CtState, Field, Values
from fastpath.host.model import Host
from fastpath.symbolic.space import HeaderSpace

Bits: TypeAlias = tuple[int, ...]
"""A number, bit by bit, the highest first."""

PORT_PROTOCOLS = Values.single(6, 17, 132, 136)
"""Protocols whose ports NAT changes and connections know."""

WITH_ID = (0, 8, *range(13, 19))
ICMP_ERRORS = Values.of([(3, 5), (11, 12)])
SRC_NAT, DST_NAT, CONFIRMED = 16, 32, 8

READS: dict[str, tuple[str, ...]] = {
    "icmp": ("icmp_type", "icmp_code"), "ctstate": ("state", "proto", "tcp_flags", "icmp_type"),
}
"""Packet columns that a base is made of, where it is not a column itself."""
READS["ctdir"] = ("ctdir", *READS["ctstate"])
READS["ctstatus"] = ("ctstatus", *READS["ctstate"])
READS["ctorigsrc"] = ("src", "dst", *READS["ctdir"])
READS["ctorigdst"] = ("src", "dst", "ctorigdst", *READS["ctdir"])
READS["ctorigsrcport"] = ("sport", "dport", "icmp_code", *READS["ctdir"])
READS["ctorigdstport"] = ("sport", "dport", "ctorigdstport", "icmp_code", *READS["ctdir"])


def constant(value: int, width: int) -> Bits:
    """A number that does not depend on the header."""
    return tuple(value >> i & 1 for i in range(width - 1, -1, -1))


def constant_of(bits: Bits) -> int | None:
    """The value of a number that does not depend on the header, else None."""
    value = 0
    for bit in bits:
        if bit > 1:
            return None
        value = value << 1 | bit
    return value


class Origin:
    """The header as it arrives at a host."""

    def __init__(self, space: HeaderSpace, host: Host) -> None:
        self.space = space
        self.store = space.store
        self.loose = host.sysctl("net.netfilter.nf_conntrack_tcp_loose", 1)
        self._known: dict[str, Bits] = {}

    def bits(self, base: str) -> Bits:
        """The value of a base."""
        found = self._known.get(base)
        if found is None:
            found = self._known[base] = self._bits(base)
        return found

    def _bits(self, base: str) -> Bits:
        column = self.space.bits_of
        match base:
            case "icmp":
                return column("icmp_type") + column("icmp_code")
            case "ctstate":
                return self._state()
            case "ctdir":
                turned = self._either(self._state_in(CtState.REPLY), self._error())
                return self._given("ctdir", self.choose(turned, constant(2, 2), constant(1, 2)))
            case "ctstatus":
                flow = self._either(self._state_in(CtState.ESTABLISHED, CtState.REPLY), self._error())
                related = self._state_in(CtState.RELATED)
                zero = constant(0, 16)
                usual = self.choose(flow, constant(14, 16), self.choose(related, constant(9, 16), zero))
                return self._given("ctstatus", usual)
            case "ctorigsrc":
                return self.choose(self._turned(), column("dst"), column("src"))
            case "ctorigdst":
                return self._given("ctorigdst", self.choose(self._turned(), column("src"), column("dst")))
            case "ctorigsrcport":
                return self._numbers()[0]
            case "ctorigdstport":
                return self._given("ctorigdstport", self._numbers()[1])
            case "oif" if not self.space.given_oif:
                return constant(0, 16)
            case "touched" | "notrack" | "choice":
                return constant(0, 8)
            case "old_mark":
                return column("mark")
            case "old_tos":
                return column("tos")
        return column(base)

    def choose(self, where: int, yes: Bits, no: Bits) -> Bits:
        """One number where a diagram holds, else another; the shorter one is filled up with zeros."""
        width = max(len(yes), len(no))
        yes, no = (0,) * (width - len(yes)) + yes, (0,) * (width - len(no)) + no
        return tuple(a if a == b else self.store.choose(where, a, b) for a, b in zip(yes, no, strict=True))

    def differ(self, a: Bits, b: Bits) -> int:
        """Where two numbers are not the same."""
        if a == b:
            return 0
        width = max(len(a), len(b))
        a, b = (0,) * (width - len(a)) + a, (0,) * (width - len(b)) + b
        return self.store.any_of(self.store.differ(x, y) for x, y in zip(a, b, strict=True))

    # ------------------------------------------------------------------------------------- connection tracking

    def _either(self, *parts: int) -> int:
        return self.store.any_of(parts)

    def _both(self, *parts: int) -> int:
        return self.store.all_of(parts)

    def _is(self, column: str, *values: int) -> int:
        return self.space.values_of(column, Values.single(*values))

    def _given(self, column: str, otherwise: Bits) -> Bits:
        """A column where it is not zero."""
        return self.choose(self._is(column, 0), otherwise, self.space.bits_of(column))

    def _state_in(self, *states: int) -> int:
        return self.store.within(self.bits("ctstate"), Values.single(*states).intervals)

    def _state(self) -> Bits:
        """As given, or NEW or INVALID as conntrack decides for a first packet."""
        opening = [v for v in range(256) if v & 0x17 == 2 or (v & 0x17 == 16 and self.loose)]
        fresh = self._either(
            self.store.negated(self._is("proto", 1, 6)),
            self._both(self._is("proto", 6), self._is("tcp_flags", *opening)),
            self._both(self._is("proto", 1), self._is("icmp_type", 8, 13, 15, 17)),
        )
        first = self.choose(fresh, constant(CtState.NEW, 3), constant(CtState.INVALID, 3))
        state = self.space.bits_of("state")
        given = self.store.mapped(state, [0, 0, 1, 2, 3, 4, 5, 6], 3)
        return self.choose(self._is("state", 0), first, given)

    def _error(self) -> int:
        """A RELATED ICMP error: it runs against its flow."""
        return self._both(
            self._state_in(CtState.RELATED), self._is("proto", 1), self.space.values_of("icmp_type", ICMP_ERRORS)
        )

    def _turned(self) -> int:
        return self.store.within(self.bits("ctdir"), ((2, 2),))

    def _numbers(self) -> tuple[Bits, Bits]:
        """The two port-like numbers of the connection's original tuple."""
        column = self.space.bits_of
        ports = self.space.values_of("proto", PORT_PROTOCOLS)
        with_id = self._both(self._is("proto", 1), self._is("icmp_type", *WITH_ID))
        turned = self._turned()
        reply = [(8 - t if t <= 8 else ((t - 13) ^ 1) + 13) & 255 for t in range(256)]
        kind = column("icmp_type")
        shown = self.choose(turned, self.store.mapped(kind, reply, 8), kind)
        zero = constant(0, 16)
        sport = self.choose(ports, self.choose(turned, column("dport"), column("sport")),
                            self.choose(with_id, column("sport"), zero))
        dport = self.choose(ports, self.choose(turned, column("sport"), column("dport")),
                            self.choose(with_id, shown + column("icmp_code"), zero))
        return sport, dport


class Header:
    """What the fields of a packet hold at one point of its way; what is not in ``changed`` is as it arrived.

    Attributes:
        origin: the header that arrived.
        changed: bases that hold something else, or may.
        egress: the interface id that routing chose, -1 before it has.
    """

    __slots__ = ("_constants", "changed", "egress", "origin")

    def __init__(self, origin: Origin, changed: Mapping[str, Bits], egress: int) -> None:
        self.origin = origin
        self.changed = dict(changed)
        self.egress = egress
        self._constants: dict[str, int | None] = {}

    def key(self) -> tuple[object, ...]:
        """Equal keys: equal headers."""
        return (self.egress, *sorted(self.changed.items()))

    def bits(self, base: str) -> Bits:
        """The present value of a base."""
        found = self.changed.get(base)
        return self.origin.bits(base) if found is None else found

    def constant(self, base: str) -> int | None:
        """The value of a base where it does not depend on the header, else None."""
        found = self._constants.get(base, -1)
        if found == -1:
            found = self._constants[base] = constant_of(self.bits(base))
        return found

    def test(self, field: Field, values: Values) -> int:
        """The diagram of the headers for which a field's present value is among some values."""
        value = self.constant(field.base)
        if value is not None:
            return int((value & field.mask if field.mask >= 0 else value) in values)
        bits = self.bits(field.base)
        if field.mask >= 0:
            bits = tuple(b if field.mask >> (len(bits) - 1 - i) & 1 else 0 for i, b in enumerate(bits))
        return self.origin.store.within(bits, values.intervals)
