"""Targets that let the packet go on to the next rule, and what they change on it."""

from __future__ import annotations

from collections.abc import Callable

from fastpath.reference.conntrack import notrack
from fastpath.reference.state import PacketState
from fastpath.ruleset.model import Masked, Target

Change = Callable[[PacketState], None]

WITHOUT_EFFECT = frozenset({
    "AUDIT", "CHECKSUM", "CLASSIFY", "CONNSECMARK", "ECN", "IDLETIMER", "LED", "LOG", "NFLOG", "RATEEST", "SECMARK",
    "SET", "TCPMSS", "TCPOPTSTRIP", "TEE", "TRACE", "ULOG",
})
"""Targets after which the packet is, for every rule behind them, what it was before."""

UNDECIDED = {
    "NFQUEUE": "a program outside the kernel decides",
    "QUEUE": "a program outside the kernel decides",
    "TPROXY": "depends on the sockets that are open",
    "SYNPROXY": "the kernel answers in the server's name first",
    "CLUSTERIP": "depends on which node of the cluster this host is",
    "HMARK": "the mark depends on a hash",
}
"""Targets whose outcome cannot be told, and why."""

ALL = 0xFFFFFFFF


def change_of(target: Target) -> Change | None:
    """What a non-terminal target does to the packet, None where it does nothing that later rules could see."""
    for option in target.options:
        change = _CHANGES.get((target.name, option.name))
        if change is not None:
            return change(target, option.value)
    if target.name == "NOTRACK":
        return notrack
    return None


def _mark(target: Target, value: object) -> Change:
    """``-j MARK``: clear the mask's bits, then exclusive-or the value."""
    assert isinstance(value, Masked)
    keep, bits = ~value.mask & ALL, value.value

    def change(p: PacketState) -> None:
        p.mark = (p.mark & keep) ^ bits
    return change


def _connmark(target: Target, value: object) -> Change:
    """``-j CONNMARK --set-xmark``: as MARK, on the connection's mark; nothing without a connection."""
    assert isinstance(value, Masked)
    keep, bits = ~value.mask & ALL, value.value

    def change(p: PacketState) -> None:
        if p.tracked:
            p.connmark = (p.connmark & keep) ^ bits
    return change


def _masks(target: Target) -> tuple[int, int]:
    nfmask, ctmask = target.get("nfmask"), target.get("ctmask")
    return (nfmask.value if nfmask is not None and isinstance(nfmask.value, int) else ALL,
            ctmask.value if ctmask is not None and isinstance(ctmask.value, int) else ALL)


def _save_mark(target: Target, value: object) -> Change:
    """``--save-mark``: the packet's mark, masked, into the connection's."""
    nfmask, ctmask = _masks(target)

    def change(p: PacketState) -> None:
        if p.tracked:
            p.connmark = (p.connmark & ~ctmask & ALL) ^ (p.mark & nfmask)
    return change


def _restore_mark(target: Target, value: object) -> Change:
    """``--restore-mark``: the connection's mark, masked, into the packet's."""
    nfmask, ctmask = _masks(target)

    def change(p: PacketState) -> None:
        if p.tracked:
            p.mark = (p.mark & ~nfmask & ALL) ^ (p.connmark & ctmask)
    return change


def _tos(target: Target, value: object) -> Change:
    """``-j TOS``: clear the mask's bits, then exclusive-or the value."""
    assert isinstance(value, Masked)
    keep, bits = ~value.mask & 0xFF, value.value

    def change(p: PacketState) -> None:
        p.tos = (p.tos & keep) ^ bits
    return change


def _dscp(target: Target, value: object) -> Change:
    """``-j DSCP``: the upper six bits; the ECN bits stay."""
    assert isinstance(value, int)
    bits = value << 2

    def change(p: PacketState) -> None:
        p.tos = (p.tos & 3) | bits
    return change


def _ttl_set(target: Target, value: object) -> Change:
    """``-j TTL --ttl-set``."""
    assert isinstance(value, int)
    number = value

    def change(p: PacketState) -> None:
        p.ttl = number
    return change


def _ttl_inc(target: Target, value: object) -> Change:
    """``-j TTL --ttl-inc``: not beyond 255."""
    assert isinstance(value, int)
    number = value

    def change(p: PacketState) -> None:
        p.ttl = min(255, p.ttl + number)
    return change


def _ttl_dec(target: Target, value: object) -> Change:
    """``-j TTL --ttl-dec``: not below 0."""
    assert isinstance(value, int)
    number = value

    def change(p: PacketState) -> None:
        p.ttl = max(0, p.ttl - number)
    return change


def _notrack(target: Target, value: object) -> Change:
    """``-j CT --notrack``."""
    return notrack


_CHANGES: dict[tuple[str, str], Callable[[Target, object], Change]] = {
    ("MARK", "set-xmark"): _mark,
    ("CONNMARK", "set-xmark"): _connmark,
    ("CONNMARK", "save-mark"): _save_mark,
    ("CONNMARK", "restore-mark"): _restore_mark,
    ("TOS", "set-tos"): _tos,
    ("DSCP", "set-dscp"): _dscp,
    ("TTL", "ttl-set"): _ttl_set,
    ("TTL", "ttl-inc"): _ttl_inc,
    ("TTL", "ttl-dec"): _ttl_dec,
    ("HL", "hl-set"): _ttl_set,
    ("HL", "hl-inc"): _ttl_inc,
    ("HL", "hl-dec"): _ttl_dec,
    ("CT", "notrack"): _notrack,
}


def undecided_reason(target: Target) -> str | None:
    """Why a target's outcome cannot be told, or None. A target that nobody listed is undecided."""
    if target.name in UNDECIDED:
        return UNDECIDED[target.name]
    if not target.known:
        return "a target that is not understood"
    if target.name == "CONNMARK" and (target.get("left-shift-mark") or target.get("right-shift-mark")):
        return "shifted marks are not followed"
    if target.name == "SET" and target.get("map-mark") is not None:
        return "what the set maps to is not known"
    if target.name in WITHOUT_EFFECT or target.name in ("CT", "NOTRACK") or change_of(target) is not None:
        return None
    return "a target that is not understood"
