"""From the target of a rule to an action and effects."""

from __future__ import annotations

from fastpath.compiler.program import Act, Effect
from fastpath.kernels import codes
from fastpath.ruleset.model import AddressRange, Masked, NatRange, Network, PortRange, Target

VERDICTS = {"ACCEPT": Act.ACCEPT, "DROP": Act.DROP, "REJECT": Act.REJECT, "RETURN": Act.RETURN}

UNDECIDED = frozenset({"NFQUEUE", "QUEUE", "TPROXY", "SYNPROXY", "CLUSTERIP", "HMARK"})
"""Targets whose outcome a process or the network decides."""

SOURCE_NAT = frozenset({"SNAT", "MASQUERADE"})
FULL = 0xFFFFFFFF


def _int(target: Target, name: str) -> int:
    option = target.get(name)
    return option.value if option is not None and isinstance(option.value, int) else FULL


def _masked(target: Target, name: str) -> Masked | None:
    option = target.get(name)
    return option.value if option is not None and isinstance(option.value, Masked) else None


def mark_effects(target: Target) -> tuple[Effect, ...]:
    """Effects of the targets that change header bits or marks; empty for all other targets."""
    match target.name:
        case "MARK":
            if (m := _masked(target, "set-xmark")) is not None:
                return (Effect(codes.MARK, ~m.mask & FULL, m.value),)
        case "CONNMARK":
            if (m := _masked(target, "set-xmark")) is not None:
                return (Effect(codes.CONNMARK, ~m.mask & FULL, m.value),)
            nfmask, ctmask = _int(target, "nfmask"), _int(target, "ctmask")
            if target.get("restore-mark") is not None:
                return (Effect(codes.MARK_RESTORE, ~nfmask & FULL, ctmask),)
            if target.get("save-mark") is not None:
                return (Effect(codes.MARK_SAVE, ~ctmask & FULL, nfmask),)
        case "TTL":
            for name, code in (("ttl-set", codes.TTL_SET), ("ttl-inc", codes.TTL_ADD), ("ttl-dec", codes.TTL_SUB)):
                if target.get(name) is not None:
                    return (Effect(code, _int(target, name)),)
        case "TOS":
            if (m := _masked(target, "set-tos")) is not None:
                return (Effect(codes.TOS, ~m.mask & 0xFF, m.value),)
        case "DSCP":
            if target.get("set-dscp") is not None:
                return (Effect(codes.TOS, 0x03, _int(target, "set-dscp") << 2),)
        case "CT" if target.get("notrack") is not None:
            return (Effect(codes.NOTRACK),)
        case "NOTRACK":
            return (Effect(codes.NOTRACK),)
    return ()


def port_effects(ports: PortRange | None, base: int | None, random: bool, source: bool) -> tuple[Effect, ...]:
    """Effects of a NAT port range; without one the port stays, unless ``--random`` lets the kernel choose."""
    if ports is None:
        return (Effect(codes.CHOICE),) if random else ()
    if base is not None and not source:
        return (Effect(codes.DST_SHIFT, ports.first, base, ports.last - ports.first + 1),)
    if ports.first == ports.last:
        return (Effect(codes.SRC_PORT if source else codes.DST_PORT, ports.first),)
    kept = Effect(codes.SRC_PORTS if source else codes.DST_PORTS, ports.first, ports.last)
    return (kept, Effect(codes.CHOICE)) if random else (kept,)


def address_effects(addresses: AddressRange | None, source: bool) -> tuple[Effect, ...]:
    """Effects of a NAT address range: its first address, flagged where there are several."""
    if addresses is None:
        return ()
    first = Effect(codes.SRC_ADDR if source else codes.DST_ADDR, addresses.first)
    return (first,) if addresses.first == addresses.last else (first, Effect(codes.CHOICE))


def is_random(target: Target) -> bool:
    """True where the target lets the kernel pick the port at random."""
    return any(target.get(n) is not None for n in ("random", "random-fully"))


def nat_effects(target: Target, source: bool) -> tuple[Effect, ...]:
    """Effects of DNAT and SNAT."""
    option = target.get("to-source" if source else "to-destination")
    to = option.value if option is not None else None
    if not isinstance(to, NatRange):
        return ()
    status = Effect(codes.STATUS_SRC if source else codes.STATUS_DST)
    ports = port_effects(to.ports, to.port_base, is_random(target), source)
    return (*address_effects(to.address, source), *ports, status)


def netmap_effects(target: Target, source: bool) -> tuple[Effect, ...]:
    """Effects of NETMAP: the network part of the address is replaced."""
    option = target.get("to")
    if option is None or not isinstance(option.value, Network):
        return ()
    net = option.value
    keep = (~net.mask) & ((1 << (32 if net.family == 4 else 128)) - 1)
    status = Effect(codes.STATUS_SRC if source else codes.STATUS_DST)
    return (Effect(codes.SRC_MAP if source else codes.DST_MAP, keep, net.address), status)


def to_ports(target: Target, source: bool) -> tuple[Effect, ...]:
    """Effects of the ``--to-ports`` of MASQUERADE and REDIRECT."""
    option = target.get("to-ports")
    ports = option.value if option is not None and isinstance(option.value, PortRange) else None
    return port_effects(ports, None, is_random(target), source)
