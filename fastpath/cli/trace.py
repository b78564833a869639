"""``fastpath trace``: one packet, hook by hook and rule by rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fastpath.cli.values import parse_assumptions, parse_icmp_type


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
    full: Annotated[bool, typer.Option("--full", help="List every rule that does not match, too.")] = False,
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

    from fastpath.analysis.explain import explain
    from fastpath.host.model import Host
    from fastpath.packets import Packet

    explanation = explain(Host.load(host), Packet.make(**columns), assume=assumed, full=full)
    typer.echo(json.dumps(explanation.to_dict(), indent=2) if as_json else str(explanation))
