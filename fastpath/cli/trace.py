"""``fastpath trace``: one packet, hook by hook and rule by rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastpath.cli.values import parse_assumptions, parse_icmp_type

if TYPE_CHECKING:
    from fastpath.packets import Fate
    from fastpath.reference.tracing import Event, Trace
    from fastpath.ruleset.model import RuleRef


def trace(
    host: Annotated[
        Path, typer.Option("--host", "-H", help="Capture folder, or one iptables-save file.", show_default=False)
    ],
    src: Annotated[str, typer.Option("--src", "-s", help="Source address.", show_default=False)],
    dst: Annotated[str, typer.Option("--dst", "-d", help="Destination address.", show_default=False)],
    in_interface: Annotated[
        str, typer.Option("--in", "-i", help="Interface it arrives on; local = the host makes it itself.")
    ] = "local",
    protocol: Annotated[str, typer.Option("--proto", "-p", help="Protocol: name or number.")] = "tcp",
    sport: Annotated[int, typer.Option("--sport", min=0, max=65535, help="Source port.")] = 40000,
    dport: Annotated[int, typer.Option("--dport", min=0, max=65535, help="Destination port.")] = 0,
    flags: Annotated[str, typer.Option("--flags", help="TCP flags: names such as SYN,ACK, or bits.")] = "SYN",
    icmp_type: Annotated[str, typer.Option("--icmp-type", help="ICMP type, or type/code.")] = "8",
    state: Annotated[
        str,
        typer.Option(
            help="Connection-tracking state: auto (no known flow), new, established, reply, related, invalid or "
            "untracked."
        ),
    ] = "auto",
    mark: Annotated[str, typer.Option(help="Packet mark, decimal or 0x...")] = "0",
    ttl: Annotated[int, typer.Option(min=0, max=255, help="Time to live on arrival.")] = 64,
    length: Annotated[int, typer.Option(min=20, max=65535, help="Length of the IP packet in bytes.")] = 60,
    tos: Annotated[str, typer.Option(help="Type of service byte, decimal or 0x...")] = "0",
    frag: Annotated[int, typer.Option(min=0, max=2, help="0 whole packet, 1 first fragment, 2 later fragment.")] = 0,
    out_interface: Annotated[
        str | None,
        typer.Option(
            "--out-interface", help="Egress interface in place of routing; local = to the host.", show_default=False
        ),
    ] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(help="MODULE=match, MODULE=no-match; or a rule's id for MODULE. Repeatable.", show_default=False),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Also list every rule that did not match, and why.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as one JSON object.")] = False,
) -> None:
    """Follow one packet through the host's rules: what it met, what matched, what was rewritten, and its fate.

    Examples:

        fastpath trace --host data/hosts/docker28-seed --in eth0 --src 198.51.100.7 --dst 10.0.2.15 -p tcp --dport 6380

        fastpath trace --host data/hosts/docker28-seed --in local --src 10.0.2.15 --dst 172.17.0.2 -p icmp --full
    """
    kind, code = parse_icmp_type(icmp_type)
    columns: dict[str, Any] = {
        "iif": in_interface,
        "src": src,
        "dst": dst,
        "proto": protocol,
        "sport": sport,
        "dport": dport,
        "tcp_flags": flags,
        "icmp_type": kind,
        "icmp_code": code,
        "state": state,
        "mark": mark,
        "tos": tos,
        "ttl": ttl,
        "length": length,
        "frag": frag,
        "oif": out_interface,
    }
    assumed = parse_assumptions(assume or [])

    from fastpath.host.model import Host
    from fastpath.packets import Packet

    loaded, packet = Host.load(host), Packet.make(**columns)
    if as_json:
        from fastpath.reference import trace as follow

        typer.echo(json.dumps(_plain(follow(loaded, packet, assume=assumed)), indent=2))
    else:
        from fastpath.analysis.explain import explain

        typer.echo(str(explain(loaded, packet, assume=assumed)))


def _plain(told: Trace) -> dict[str, Any]:
    """A packet's way as plain values."""
    return {
        "packet": told.packet.as_dict(),
        "fate": _fate(told.fate),
        "rule": _rule(told.rule),
        "undecided": told.undecided or None,
        "hangs_on": _rule(told.hangs_on),
        "if_it_matches": _fate(told.otherwise),
        "if_none_matches": _fate(told.plain),
        "events": [_event(event) for event in told.events],
    }


def _fate(fate: Fate | None) -> dict[str, Any] | None:
    from fastpath.packets.text import format_address

    if fate is None:
        return None
    return {
        "verdict": fate.verdict.name,
        "hook": fate.hook.name,
        "rule": fate.rule,
        "oif": fate.oif,
        "post_src": format_address(fate.src, fate.family),
        "post_dst": format_address(fate.dst, fate.family),
        "post_sport": fate.sport,
        "post_dport": fate.dport,
        "post_mark": fate.mark,
        "rules_walked": fate.rules_walked,
        "flags": fate.flags,
    }


def _rule(ref: RuleRef | None) -> dict[str, Any] | None:
    if ref is None:
        return None
    return {"rule": ref.id, "table": ref.table, "chain": ref.chain, "number": ref.number, "text": ref.text}


def _event(event: Event) -> dict[str, Any]:
    """One event: its kind under ``event``, and what it holds."""
    from dataclasses import fields
    from enum import Enum

    from fastpath.ruleset.model import RuleRef

    row: dict[str, Any] = {"event": type(event).__name__}
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(value, RuleRef):
            value = _rule(value)
        elif isinstance(value, Enum):
            value = value.name
        elif field.name == "checks":
            value = [{"test": c.text, "answer": c.answer, "seen": c.seen, "reason": c.reason} for c in value]
        row[field.name] = value
    return row
