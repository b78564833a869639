"""From the target of a rule to an action and effects."""

from __future__ import annotations

from fastpath.compiler.program import Act, Effect
from fastpath.kernels import codes
from fastpath.ruleset.model import Masked, NatRange, Network, PortRange, Target

VERDICTS = {"ACCEPT": Act.ACCEPT, "DROP": Act.DROP, "REJECT": Act.REJECT, "RETURN": Act.RETURN}

UNDECIDED = frozenset({"NFQUEUE", "QUEUE", "TPROXY", "SYNPROXY", "CLUSTERIP", "HMARK"})
"""Targets whose outcome a process or the network decides."""

WITHOUT_EFFECT = frozenset({
    "AUDIT", "CHECKSUM", "CLASSIFY", "CONNSECMARK", "ECN", "IDLETIMER", "LED", "LOG", "NFLOG", "RATEEST", "SECMARK",
    "SET", "TCPMSS", "TCPOPTSTRIP", "TEE", "TRACE", "ULOG",
})
"""Targets behind which the walk goes on as if they were not there."""

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
        case "TTL" | "HL":
            for name, code in (("set", codes.TTL_SET), ("inc", codes.TTL_ADD), ("dec", codes.TTL_SUB)):
                full = f"{target.name.lower()}-{name}"
                if target.get(full) is not None:
                    return (Effect(code, _int(target, full)),)
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


def packed_ports(ports: PortRange | None, base: int | None, random: bool) -> int:
    """A NAT rule's ports as ``kernels.codes`` packs them."""
    packed = codes.RANDOM if random else 0
    if ports is not None:
        low, high = sorted((ports.first, ports.last))
        packed |= low | high << 16 | codes.HAS_PORTS
        if base is not None:
            packed |= base << 32 | codes.HAS_BASE
    return packed


def is_random(target: Target) -> bool:
    """True where the target lets the kernel pick the port at random."""
    return any(target.get(n) is not None for n in ("random", "random-fully"))


def nat_effects(target: Target, source: bool) -> tuple[Effect, ...]:
    """Effects of DNAT and SNAT."""
    option = target.get("to-source" if source else "to-destination")
    to = option.value if option is not None else None
    if not isinstance(to, NatRange):
        return ()
    first, last = (to.address.first, to.address.last) if to.address is not None else (-1, -1)
    ports = packed_ports(to.ports, to.port_base, is_random(target))
    return (Effect(codes.SRC_NAT if source else codes.DST_NAT, first, last, ports),)


def netmap_effects(target: Target, source: bool) -> tuple[Effect, ...]:
    """Effects of NETMAP: the network part of the address is replaced."""
    option = target.get("to")
    if option is None or not isinstance(option.value, Network):
        return ()
    net = option.value
    keep = (~net.mask) & ((1 << (32 if net.family == 4 else 128)) - 1)
    return (Effect(codes.SRC_MAP if source else codes.DST_MAP, keep, net.address),)


def to_ports(target: Target) -> int:
    """The ``--to-ports`` of MASQUERADE and REDIRECT, packed."""
    option = target.get("to-ports")
    ports = option.value if option is not None and isinstance(option.value, PortRange) else None
    return packed_ports(ports, None, is_random(target))


def is_undecided(target: Target) -> bool:
    """True for a target whose outcome nobody can tell, or that nobody listed."""
    name = target.name
    if not target.known or name in UNDECIDED:
        return True
    if name == "CONNMARK" and (target.get("left-shift-mark") or target.get("right-shift-mark")):
        return True
    if name == "SET" and target.get("map-mark") is not None:
        return True
    return name not in WITHOUT_EFFECT and name not in ("CT", "NOTRACK") and not mark_effects(target)
