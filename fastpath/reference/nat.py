"""Network address translation: which address and port a NAT rule gives a flow's first packet, and later packets.

Follows ``get_unique_tuple()`` and ``nf_nat_l4proto_unique_tuple()`` in net/netfilter/nf_nat_core.c with no other
connections around: a port that is taken and must be replaced does not occur here. Where the kernel picks by hash or
at random the first possible value is shown and the result flagged.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastpath.packets.schema import Flag, Hook
from fastpath.reference import state as st
from fastpath.reference.conntrack import TRACKED_PORTS
from fastpath.reference.route import Router
from fastpath.reference.state import PacketState
from fastpath.ruleset.model import AddressRange, NatRange, Network, PortRange, Target

NAT_TARGETS = frozenset({"DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"})
ICMP = (1, 58)


@dataclass(frozen=True, slots=True)
class Mapping:
    """What a rule asks for.

    Attributes:
        source: rewrites the source, else the destination.
        addresses, ports: ranges, None where the rule leaves them alone.
        port_base: ``/base`` of a shifted port range.
        random: ``--random`` or ``--random-fully``.
    """

    source: bool
    addresses: AddressRange | None
    ports: PortRange | None = None
    port_base: int | None = None
    random: bool = False


def apply(target: Target, p: PacketState, hook: Hook, router: Router) -> bool:
    """Rewrites the packet as a NAT rule says; False where the kernel drops it instead (no address to give)."""
    random = target.get("random") is not None or target.get("random-fully") is not None
    if target.name in ("DNAT", "SNAT"):
        option = target.get("to-destination") or target.get("to-source")
        to = option.value if option is not None else None
        if isinstance(to, NatRange):
            rewrite(p, Mapping(target.name == "SNAT", to.address, to.ports, to.port_base, random))
        return True
    if target.name == "NETMAP":
        return _netmap(target, p, hook)
    option = target.get("to-ports")
    ports = option.value if option is not None and isinstance(option.value, PortRange) else None
    if target.name == "REDIRECT":
        return _to_address(p, _redirect_address(p, router), Mapping(False, None, ports, None, random), router)
    if p.src == 0 and p.family == 4:
        return True
    next_hop = p.next_hop if p.next_hop is not None else p.dst
    address = router.fib.masquerade_address(p.oif, next_hop)
    return _to_address(p, address, Mapping(True, None, ports, None, random), router)


def _to_address(p: PacketState, address: int | None, mapping: Mapping, router: Router) -> bool:
    if address is None and router.host.complete:
        return False
    if address is None:
        p.flags |= Flag.NAT_CHOICE
    else:
        addresses = AddressRange(p.family, address, address)
        mapping = Mapping(mapping.source, addresses, mapping.ports, None, mapping.random)
    rewrite(p, mapping)
    return True


def _redirect_address(p: PacketState, router: Router) -> int | None:
    """The loopback address for the host's own packets, else the first address of the ingress interface."""
    if p.local:
        return 0x7F000001 if p.family == 4 else 1
    return router.fib.first_address(p.iif)


def _netmap(target: Target, p: PacketState, hook: Hook) -> bool:
    option = target.get("to")
    assert option is not None and isinstance(option.value, Network)
    network = option.value
    source = hook in (Hook.POSTROUTING, Hook.INPUT)
    old = p.src if source else p.dst
    new = (old & ~network.mask) | network.address
    rewrite(p, Mapping(source, AddressRange(p.family, new, new)))
    return True


def rewrite(p: PacketState, mapping: Mapping) -> None:
    """Gives the packet the first address and port that a mapping allows, and its connection the NAT status bit where
    that changed anything."""
    before = (p.src, p.sport) if mapping.source else (p.dst, p.dport)
    if mapping.source and not mapping.random and _inside(p, mapping, *before):
        return
    address, port = before
    choice = False
    if mapping.addresses is not None:
        address = mapping.addresses.first
        choice = mapping.addresses.first != mapping.addresses.last
    if p.proto in TRACKED_PORTS:
        port, chosen = _port(mapping, port)
        choice = choice or chosen
    elif p.proto in ICMP and mapping.random:
        choice = True
    if choice:
        p.flags |= Flag.NAT_CHOICE
    if (address, port) == before:
        return
    if mapping.source:
        p.src, p.sport = address, port
        p.status |= st.SRC_NAT
    else:
        p.dst, p.dport = address, port
        p.status |= st.DST_NAT


def translate(p: PacketState, hook: Hook) -> None:
    """Carries out the mapping of the packet's connection, as nat's hooks do with all but the first packet
    (``nf_nat_packet()``): destinations in PREROUTING and OUTPUT, sources in INPUT and POSTROUTING; what one direction
    had done to its source is undone to the other's destination."""
    known = p.connection
    assert known is not None
    destination, original = hook in (Hook.PREROUTING, Hook.OUTPUT), p.direction == st.ORIGINAL
    if not known.nat & (st.DST_NAT if destination == original else st.SRC_NAT):
        return
    other = known.reply if original else known.original
    address, port = (other[0], other[2]) if destination else (other[1], other[3])
    with_ports = p.proto in TRACKED_PORTS
    if destination:
        p.dst, p.dport = address, port if with_ports else p.dport
    else:
        p.src, p.sport = address, port if with_ports else p.sport


def _inside(p: PacketState, mapping: Mapping, address: int, port: int) -> bool:
    """Whether a source already is what the mapping asks for (``nf_in_range()``): then it stays."""
    if mapping.addresses is not None and not mapping.addresses.first <= address <= mapping.addresses.last:
        return False
    if mapping.ports is None or p.proto not in TRACKED_PORTS:
        return True
    return mapping.ports.first <= port <= mapping.ports.last


def _port(mapping: Mapping, port: int) -> tuple[int, bool]:
    """The new port, and whether the kernel may choose another."""
    if mapping.ports is None:
        if not (mapping.source and mapping.random):
            return port, False
        return (1 if port < 512 else 600 if port < 1024 else 1024), True
    low, high = sorted((mapping.ports.first, mapping.ports.last))
    size = high - low + 1
    if mapping.port_base is not None:
        return low + ((port - mapping.port_base) & 0xFFFF) % size, False
    if not mapping.random and low <= port <= high:
        return port, False
    return low, size > 1 and (mapping.source or mapping.random)
