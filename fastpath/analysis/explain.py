"""Why a packet fares as it does: its way through the hooks, told rule by rule.

The walk is the reference's (`fastpath.reference.trace`); this module only puts it into words. Where the packet's fate
is undecided, the walk that is told takes every undecided match for "no match", and the end says what hangs on what.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastpath.host.model import Host
from fastpath.packets.packet import Packet
from fastpath.packets.result import Fate
from fastpath.packets.schema import Flag, Hook, Verdict
from fastpath.packets.text import PORT_PROTOCOLS, format_address
from fastpath.reference import trace
from fastpath.reference.tracing import (
    Event,
    PolicyApplied,
    Remark,
    Rewritten,
    Routed,
    RuleExamined,
    TableEntered,
    Trace,
    Tracked,
)
from fastpath.ruleset.model import RuleRef

SHOWN_RUN = 2
"""Runs of more rules that do not match than this are folded into one line."""


def explain(
    host: Host,
    packet: Packet,
    *,
    assume: Mapping[str | int, str] | None = None,
    table: str | None = None,
    chain: str | None = None,
    full: bool = False,
) -> Explanation:
    """What a packet meets on its way through a host, and why it ends as it does.

    Args:
        host: rules and surroundings.
        packet: the packet.
        assume: what to take undecided matches for: module or rule id -> ``match``, ``no-match`` or ``column:NAME``.
        table, chain: tell the walk of this chain alone.
        full: list every rule that does not match, instead of folding runs of them.

    Raises:
        CompileError: an assumption or a chain that does not exist.
        PacketError: a packet whose egress cannot be known (see :attr:`Host.complete`).
    """
    return Explanation(trace(host, packet, assume=assume, table=table, chain=chain), full)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A packet's way in words: ``str()`` for people, :meth:`to_dict` for programs."""

    trace: Trace
    full: bool = False

    @property
    def fate(self) -> Fate:
        """What became of the packet."""
        return self.trace.fate

    def __str__(self) -> str:
        told = self.trace
        lines = [f"packet   {told.packet}", ""]
        lines += self._way()
        lines += ["", *_ending(told)]
        return "\n".join(lines)

    def _way(self) -> Iterator[str]:
        hook: Hook | None = None
        events = list(self.trace.events)
        at = 0
        while at < len(events):
            event = events[at]
            if isinstance(event, TableEntered) and event.hook is not hook:
                hook = event.hook
                yield hook.name
            run = _misses(events, at)
            if not self.full and len(run) > SHOWN_RUN:
                yield _folded(run)
                at += len(run)
                continue
            yield from _told(event, self.trace.packet)
            at += 1

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        told = self.trace
        return {
            "packet": told.packet.as_dict(),
            "fate": _fate_dict(told.fate),
            "rule": _rule_dict(told.rule),
            "undecided": told.undecided or None,
            "hangs_on": _rule_dict(told.hangs_on),
            "if_it_matches": _fate_dict(told.otherwise),
            "if_none_matches": _fate_dict(told.plain),
            "events": [_event_dict(event) for event in told.events],
        }


# -------------------------------------------------------------------------------------------------- words


def _misses(events: list[Event], at: int) -> list[RuleExamined]:
    """The rules from here on that do not match, as long as they follow each other in one chain."""
    run: list[RuleExamined] = []
    for event in events[at:]:
        if not isinstance(event, RuleExamined) or event.matched is not False:
            break
        if run and (event.ref.chain != run[0].ref.chain or event.depth != run[0].depth):
            break
        run.append(event)
    return run


def _indent(depth: int) -> str:
    return "      " + "  " * depth


def _folded(run: list[RuleExamined]) -> str:
    first, last = run[0], run[-1]
    return (f"{_indent(first.depth)}  {first.ref.chain} {first.ref.number}-{last.ref.number}: {len(run)} rules do not "
            f"match")


def _told(event: Event, packet: Packet) -> Iterator[str]:
    if isinstance(event, TableEntered):
        yield f"    {event.table} {event.chain}"
    elif isinstance(event, RuleExamined):
        yield from _told_rule(event)
    elif isinstance(event, PolicyApplied):
        yield f"{_indent(0)}* {event.ref.chain} policy {event.policy}"
    elif isinstance(event, Rewritten):
        yield from _told_nat(event, packet)
    elif isinstance(event, Routed):
        yield f"  route{' again' if event.again else ''}: {event.text}"
    elif isinstance(event, Tracked):
        yield f"  conntrack: {event.state}"
    else:
        yield f"  {event.text}"


def rule_text(ref: RuleRef) -> str:
    """A rule without the ``-A CHAIN`` in front."""
    return ref.text.removeprefix(f"-A {ref.chain}").strip() or "(no test, no target)"


def _told_rule(event: RuleExamined) -> Iterator[str]:
    sign = {True: "*", False: " ", None: "?"}[event.matched]
    indent = _indent(event.depth)
    yield f"{indent}{sign} {event.ref.chain} {event.ref.number}: {rule_text(event.ref)}"
    if event.matched is False:
        miss = event.checks[-1]
        yield f"{indent}      no: {miss.text}, but {miss.seen}"
    elif event.matched is None:
        for check in event.checks:
            if check.answer is None:
                yield f"{indent}      undecided: {check.text} {check.reason}; taken as no match"
    elif event.checks:
        yield f"{indent}      yes: {'; '.join(dict.fromkeys(c.seen for c in event.checks))}"


def _told_nat(event: Rewritten, packet: Packet) -> Iterator[str]:
    with_ports = packet.proto in PORT_PROTOCOLS
    if event.before == event.after:
        yield f"{_indent(0)}  nat: nothing changes, {_flow(event.after, packet.family, with_ports)}"
        return
    yield f"{_indent(0)}  nat: {_flow(event.before, packet.family, with_ports)}"
    yield f"{_indent(0)}   to: {_flow(event.after, packet.family, with_ports)}"
    if event.choice:
        yield f"{_indent(0)}       (the kernel may choose others that the rule allows)"


def _end(address: int, port: int, family: int, with_port: bool) -> str:
    text = format_address(address, family)
    if not with_port:
        return text
    return f"{text}:{port}" if family == 4 else f"[{text}]:{port}"


def _flow(flow: tuple[int, int, int, int], family: int, with_ports: bool) -> str:
    src, dst, sport, dport = flow
    return f"{_end(src, sport, family, with_ports)} -> {_end(dst, dport, family, with_ports)}"


def _ending(told: Trace) -> Iterator[str]:
    fate = told.fate
    if fate.verdict is Verdict.UNDECIDED:
        yield f"verdict  UNDECIDED at {fate.hook.name}"
        if told.hangs_on is not None:
            yield f"         hangs on {told.hangs_on}"
        if told.undecided:
            yield f"         {told.undecided}"
        if told.otherwise is not None:
            yield f"         if it matches: {_short(told.otherwise, told.packet)}"
        if told.plain is not None:
            yield f"         if not:        {_short(told.plain, told.packet)}"
    else:
        yield f"verdict  {_short(fate, told.packet)}"
        if told.rule is not None:
            yield f"         by {told.rule}"
        if fate.flags & Flag.NAT_CHOICE:
            yield "         the kernel may choose another address or port than the one shown"
    yield f"         {fate.rules_walked} rules examined"


def _short(fate: Fate, packet: Packet) -> str:
    out = f" out {fate.oif}" if fate.oif is not None else ""
    mark = f", mark {fate.mark:#x}" if fate.mark else ""
    flow = _flow((fate.src, fate.dst, fate.sport, fate.dport), fate.family, packet.proto in PORT_PROTOCOLS)
    return f"{fate.verdict.name} at {fate.hook.name}{out}: {flow}{mark}"


# -------------------------------------------------------------------------------------------------- plain values


def _fate_dict(fate: Fate | None) -> dict[str, Any] | None:
    if fate is None:
        return None
    return {
        "verdict": fate.verdict.name, "hook": fate.hook.name, "rule": fate.rule, "oif": fate.oif,
        "post_src": format_address(fate.src, fate.family), "post_dst": format_address(fate.dst, fate.family),
        "post_sport": fate.sport, "post_dport": fate.dport, "post_mark": fate.mark,
        "rules_walked": fate.rules_walked, "flags": fate.flags,
    }


def _rule_dict(ref: RuleRef | None) -> dict[str, Any] | None:
    if ref is None:
        return None
    return {"rule": ref.id, "table": ref.table, "chain": ref.chain, "number": ref.number, "text": ref.text}


def _event_dict(event: Event) -> dict[str, Any]:
    """An event: its kind under ``event``, and what it holds."""
    row: dict[str, Any] = {"event": type(event).__name__}
    if isinstance(event, TableEntered):
        return row | {"hook": event.hook.name, "table": event.table, "chain": event.chain}
    if isinstance(event, RuleExamined):
        checks = [{"test": c.text, "answer": c.answer, "seen": c.seen, "reason": c.reason} for c in event.checks]
        return row | {"ref": _rule_dict(event.ref), "depth": event.depth, "matched": event.matched, "checks": checks,
                      "action": event.action}
    if isinstance(event, PolicyApplied):
        return row | {"ref": _rule_dict(event.ref), "policy": event.policy}
    if isinstance(event, Rewritten):
        return row | {"rule": _rule_dict(event.rule), "before": list(event.before), "after": list(event.after),
                      "choice": event.choice}
    if isinstance(event, Routed):
        return row | {"text": event.text, "oif": event.oif, "again": event.again}
    if isinstance(event, Tracked):
        return row | {"state": event.state}
    assert isinstance(event, Remark)
    return row | {"text": event.text}
