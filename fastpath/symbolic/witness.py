"""A packet that stands for a set: as ordinary as the set allows."""

from __future__ import annotations

from collections.abc import Iterator

from fastpath.compiler.fields import Values
from fastpath.errors import PacketError
from fastpath.packets.packet import COLUMNS, Packet
from fastpath.packets.schema import LOCAL, NO_ID, State
from fastpath.symbolic.space import HeaderSpace, PacketSet

TYPICAL: dict[str, tuple[Values, ...]] = {
    "state": tuple(Values.single(s) for s in (State.AUTO, State.NEW, State.ESTABLISHED, State.REPLY, State.RELATED)),
    "proto": (Values.single(6), Values.single(17), Values.single(1)),
    "dport": (Values.single(443), Values.single(80), Values.of([(1, 32767)]), Values.of([(1, 65535)])),
    "sport": (Values.single(40000), Values.of([(32768, 60999)]), Values.of([(1024, 65535)])),
    "frag": (Values.single(0),), "pkttype": (Values.single(0),), "ttl": (Values.single(64), Values.of([(2, 255)])),
    "tos": (Values.single(0),), "length": (Values.single(60), Values.of([(60, 1500)])),
    "mark": (Values.single(0),), "connmark": (Values.single(0),), "ctdir": (Values.single(0),),
    "ctstatus": (Values.single(0),), "ctorigdst": (Values.single(0),), "ctorigdstport": (Values.single(0),),
    "mac_src": (Values.single(0),), "uid": (Values.single(NO_ID), Values.single(1000)),
    "gid": (Values.single(NO_ID), Values.single(1000)),
    "icmp_type": (Values.single(8), Values.single(0)), "icmp_code": (Values.single(0),),
    "tcp_flags": tuple(Values.single(f) for f in (2, 16, 24, 18)),
}
"""What a column should hold, the first choice first."""

BRIDGES = ("docker", "br-", "veth", "virbr")

KNOWN_FLOW = (State.ESTABLISHED, State.REPLY)

ADDRESSES = tuple(
    Values.of([(a, b)]) for a, b in (
        (0xC6336407, 0xC6336407), (0xC0000201, 0xC00002FE), (0x0A000001, 0x0AFFFFFE), (0xAC100001, 0xAC1FFFFE),
        (0xC0A80001, 0xC0A8FFFE), (0x01000001, 0x7EFFFFFE), (0x80000001, 0xDFFFFFFE),
    )
)
"""Documentation addresses, private ones, any unicast."""


def witness(found: PacketSet) -> Packet:
    """A packet of the set.

    Raises:
        PacketError: the set is empty.
    """
    if not found:
        raise PacketError("an empty set has no packet to show")
    space = found.space
    values: dict[str, object] = {}
    extra: dict[str, bool] = {}
    left = found
    for column in space.places:
        for wish in _wishes(space, column, values):
            better = left & space.set_of(wish)
            if better:
                left = better
                break
        number = _smallest(left, column)
        left = left & space.test(column, Values.single(number))
        if column in ("iif", "oif"):
            values[column] = space.interface_name(number)
        elif column.startswith("extra:"):
            extra[column[6:]] = bool(number)
        else:
            values[column] = State(number) if column == "state" else number
    kept = {n: v for n, v in values.items() if v != COLUMNS[n].default}
    return Packet.make(**kept, extra=extra)


def _wishes(space: HeaderSpace, column: str, values: dict[str, object]) -> Iterator[int]:
    """What a column should hold, as diagrams, the first choice first; `values` are those of earlier columns."""
    wishes: list[Values] = []
    if column in ("iif", "oif"):
        known = [i for host in space.hosts for i in host.interfaces if i.name not in ("lo", LOCAL)]
        outer = [i.name for i in known if i.master is None and not i.name.startswith(BRIDGES)]
        names = [*outer, *(i.name for i in known), LOCAL, "lo"]
        wishes = [Values.single(space.interface_id(name)) for name in dict.fromkeys(names)]
    elif column in ("src", "dst"):
        last_byte = space.store.within(space.bits_of(column)[-8:], ((2, 254),))
        for addresses in ADDRESSES:
            found = space.values_of(column, addresses)
            yield space.store.both(found, last_byte)
            yield found
    elif column == "tcp_flags" and values.get("state") in KNOWN_FLOW:
        wishes = [Values.single(16)]
    for wish in (*wishes, *TYPICAL.get(column, ())):
        yield space.values_of(column, wish)


def _smallest(found: PacketSet, column: str) -> int:
    """A small value of a column in a set that holds one value only of every column in front of it.

    Every node but 0 can be satisfied, so the low child is taken wherever it is another.
    """
    bits = {v: 1 << i for i, v in enumerate(reversed(found.space.places[column].variables))}
    last = max(bits)
    nodes = found.space.store.nodes
    here, value = found.diagram, 0
    while here > 1:
        variable, low, high = nodes[here].tolist()
        if variable > last:
            break
        if low == 0:
            value |= bits.get(variable, 0)
        here = low or high
    return value
