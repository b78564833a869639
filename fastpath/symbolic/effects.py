"""What rules change on a packet, as functions of the header that arrived.

The same effects as in ``kernels/effects.py``, one function each, on diagrams instead of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastpath.compiler.fields import TOUCHED_MARK, CtState, Field, Values
from fastpath.compiler.program import Effect
from fastpath.errors import CompileError
from fastpath.kernels import codes
from fastpath.symbolic.header import CONFIRMED, DST_NAT, PORT_PROTOCOLS, SRC_NAT, Bits, Header, Origin, constant

CONNECTED = Values.of([(CtState.NEW, CtState.RELATED)])


class Effects:
    """Applies effects to headers.

    Attributes:
        looked: the bases that some op looks at; of the others only those that a fate shows are kept up.
    """

    SHOWN = frozenset({"src", "dst", "sport", "dport", "mark", "choice"})

    def __init__(self, origin: Origin, looked: Iterable[str]) -> None:
        self.origin, self.store = origin, origin.store
        self._set = 1
        self.kept = self.SHOWN | set(looked)
        if "touched" in self.kept:
            self.kept |= {"tos", "old_mark", "old_tos"}
        if "mark" in self.kept or "connmark" in self.kept:
            self.kept |= {"connmark"}

    def apply(self, header: Header, effects: Iterable[Effect], where: int) -> Header:
        """The header behind some effects, for packets of the set `where`; for others it may hold anything."""
        self._set = where
        for effect in effects:
            header = self._one(header, effect)
        return header

    def _sure(self, diagram: int) -> int:
        """A condition as simple as it is within the set at hand: constant if it always or never holds there."""
        if diagram < 2:
            return diagram
        inside = self.store.both(self._set, diagram)
        return 0 if inside == 0 else 1 if inside == self._set else diagram

    def _with(self, header: Header, **values: Bits) -> Header:
        origin = self.origin
        changed = dict(header.changed)
        for base, bits in values.items():
            if base not in self.kept:
                continue
            before = origin.bits(base)
            bits = (0,) * (len(before) - len(bits)) + bits
            if bits == before:
                changed.pop(base, None)
            else:
                changed[base] = bits
        return Header(origin, changed, header.egress)

    def _where(self, header: Header, where: int, **values: Bits) -> Header:
        """With other values where a diagram holds."""
        choose = self.origin.choose
        return self._with(header, **{
            base: choose(where, bits, header.bits(base)) for base, bits in values.items() if base in self.kept
        })

    def _one(self, header: Header, e: Effect) -> Header:
        bits = header.bits
        match e.code:
            case codes.DST_NAT | codes.SRC_NAT:
                return self._nat(header, e, e.code == codes.SRC_NAT)
            case codes.DST_MAP | codes.SRC_MAP:
                base, bit = ("dst", DST_NAT) if e.code == codes.DST_MAP else ("src", SRC_NAT)
                new = self._masked(bits(base), e.a, constant(e.b, 32))
                return self._translated(header, bit, **{base: new})
            case codes.MARK:
                return self._with(header, mark=self._masked(bits("mark"), e.a, constant(e.b, 32)))
            case codes.CONNMARK if "connmark" in self.kept:
                new = self._masked(bits("connmark"), e.a, constant(e.b, 32))
                return self._where(header, self._connected(header), connmark=new)
            case codes.MARK_RESTORE:
                other = self._and(bits("connmark"), e.b)
                new = self._xor(self._and(bits("mark"), e.a), other)
                return self._where(header, self._connected(header), mark=new)
            case codes.MARK_SAVE if "connmark" in self.kept:
                other = self._and(bits("mark"), e.b)
                new = self._xor(self._and(bits("connmark"), e.a), other)
                return self._where(header, self._connected(header), connmark=new)
            case codes.TTL_SET:
                return self._with(header, ttl=constant(e.a & 255, 8))
            case codes.TTL_ADD if "ttl" in self.kept:
                return self._with(header, ttl=self._by_value(header, "ttl", lambda v: min(255, v + e.a), 8))
            case codes.TTL_SUB if "ttl" in self.kept:
                return self._with(header, ttl=self._by_value(header, "ttl", lambda v: max(0, v - e.a), 8))
            case codes.TOS if "tos" in self.kept:
                return self._with(header, tos=self._masked(bits("tos"), e.a, constant(e.b, 8)))
            case codes.NOTRACK:
                return self._with(header, ctstate=constant(CtState.UNTRACKED, 3), notrack=constant(1, 8))
            case codes.NOTRACK_LATE:
                without = self.store.negated(self._connected(header))
                state = constant(CtState.UNTRACKED, 3)
                return self._where(header, without, ctstate=state, notrack=constant(1, 8))
            case codes.CHOICE:
                return self._with(header, choice=constant(1, 8))
            case codes.SET_OIF:
                return self._with(header, oif=constant(e.a, 16))
            case codes.NOTE_MARK if "touched" in self.kept:
                return self._with(header, old_mark=bits("mark"), old_tos=bits("tos"))
            case codes.TOUCH if "touched" in self.kept:
                return self._touch(header, e.a)
            case codes.CONFIRM if "ctstatus" in self.kept:
                confirmed = self._with_bits(bits("ctstatus"), CONFIRMED)
                return self._where(header, self._connected(header), ctstatus=confirmed)
            case codes.FORGET | codes.CONNMARK | codes.MARK_SAVE | codes.TTL_ADD | codes.TTL_SUB | codes.TOS | (
                codes.NOTE_MARK | codes.TOUCH | codes.CONFIRM
            ):
                return header
        raise CompileError(f"sets of packets cannot follow effect {e.code} yet")

    # -------------------------------------------------------------------------------------------- arithmetic

    def _connected(self, header: Header) -> int:
        value = header.constant("ctstate")
        if value is not None:
            return int(value in CONNECTED)
        return self._sure(self.store.within(header.bits("ctstate"), CONNECTED.intervals))

    @staticmethod
    def _and(bits: Bits, mask: int) -> Bits:
        return tuple(b if mask >> (len(bits) - 1 - i) & 1 else 0 for i, b in enumerate(bits))

    def _masked(self, bits: Bits, keep: int, other: Bits) -> Bits:
        """``bits & keep ^ other``."""
        return self._xor(self._and(bits, keep), other)

    def _xor(self, a: Bits, b: Bits) -> Bits:
        out = []
        for x, y in zip(a, b, strict=True):
            if y == 0:
                out.append(x)
            elif x == 0:
                out.append(y)
            else:
                out.append(self.store.differ(x, y))
        return tuple(out)

    @staticmethod
    def _with_bits(bits: Bits, mask: int) -> Bits:
        return tuple(1 if mask >> (len(bits) - 1 - i) & 1 else b for i, b in enumerate(bits))

    def _by_value(self, header: Header, base: str, change: Callable[[int], int], bits: int) -> Bits:
        """A number that is a function of a base's value."""
        value = header.constant(base)
        if value is not None:
            return constant(change(value), bits)
        present = header.bits(base)
        return self.store.mapped(present, [change(v) for v in range(1 << len(present))], bits)

    # ------------------------------------------------------------------------------------------------- NAT

    def _translated(self, header: Header, status: int, **values: Bits) -> Header:
        """With another address or port, and the connection's NAT bit where that changed anything."""
        if "ctstatus" in self.kept:
            changed = self._sure(self.store.any_of(
                self.origin.differ(bits, header.bits(base)) for base, bits in values.items() if base != "choice"
            ))
            marked = self._with_bits(header.bits("ctstatus"), status)
            values["ctstatus"] = self.origin.choose(changed, marked, header.bits("ctstatus"))
        return self._with(header, **values)

    def _nat(self, header: Header, e: Effect, source: bool) -> Header:
        """The first address and port that a NAT rule allows (``_nat()`` of ``kernels/effects.py``)."""
        store, choose = self.store, self.origin.choose
        first, last, packed = e.a, e.b, e.c
        address_base, port_base = ("src", "sport") if source else ("dst", "dport")
        old_address, old_port = header.bits(address_base), header.bits(port_base)
        ports = self._sure(header.test(Field("proto"), PORT_PROTOCOLS))
        to_ports, random = bool(packed & codes.HAS_PORTS), bool(packed & codes.RANDOM)
        low, high = packed & 0xFFFF, packed >> 16 & 0xFFFF
        port_inside = self._sure(header.test(Field(port_base), Values.of([(low, high)]))) if to_ports else 1
        stays = 0
        if source and not random:
            inside = 1 if first < 0 else header.test(Field(address_base), Values.of([(first, last)]))
            stays = self._sure(store.both(inside, store.either(port_inside, store.negated(ports))))
        address = old_address if first < 0 else constant(first, 32)
        chosen = int(first >= 0 and first != last)
        port = old_port
        if not to_ports:
            if source and random:
                port = self._by_value(header, port_base, lambda p: 1 if p < 512 else 600 if p < 1024 else 1024, 16)
                chosen = store.either(chosen, ports)
        elif packed & codes.HAS_BASE:
            base = packed >> 32 & 0xFFFF
            port = self._by_value(header, port_base, lambda p: low + (p - base & 0xFFFF) % (high - low + 1), 16)
        else:
            moved = 1 if random else store.negated(port_inside)
            port = choose(moved, constant(low, 16), old_port)
            if high > low and (source or random):
                chosen = store.either(chosen, store.both(ports, moved))
        if random:
            chosen = store.either(chosen, self._sure(header.test(Field("proto"), Values.single(1))))
        port = choose(ports, port, old_port)
        if to_ports or random:
            port = choose(stays, old_port, port)
        if first != last:  # where it stays it already is the only address there is
            address = choose(stays, old_address, address)
        flag = store.without(chosen, stays)
        values = {address_base: address, port_base: port}
        if flag:
            values["choice"] = choose(flag, constant(1, 8), header.bits("choice"))
        return self._translated(header, SRC_NAT if source else DST_NAT, **values)

    def _touch(self, header: Header, bit: int) -> Header:
        """Notes what the host's OUTPUT rules changed: mark or TOS, or the destination."""
        differ, bits = self.origin.differ, header.bits
        if bit == TOUCHED_MARK:
            changed = self.store.either(differ(bits("mark"), bits("old_mark")), differ(bits("tos"), bits("old_tos")))
        else:
            changed = differ(bits("dst"), self.origin.bits("dst"))
        return self._where(header, self._sure(changed), touched=self._with_bits(bits("touched"), bit))
