"""``fastpath query``: which packets fare as asked, of all there are."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastpath.cli.values import parse_assumptions


class Scope(StrEnum):
    """What a condition leaves open."""

    new = "new"
    plain = "plain"
    any = "any"


def query(
    host: Annotated[
        Path, typer.Option("--host", "-H", help="Capture folder, or one iptables-save file.", show_default=False)
    ],
    where: Annotated[
        str, typer.Argument(metavar="WHERE", help="Which packets, for instance 'iif == eth0 and dport in {80,443}'.")
    ] = "any",
    want: Annotated[
        str | None,
        typer.Option("--want", "-w", help="What becomes of them, for instance 'reached and post_dport == 5432'; "
                     "without it, whatever does.", show_default=False),
    ] = None,
    scope: Annotated[
        Scope, typer.Option(help="Packets of no known flow, ordinary first packets, or any packets.")
    ] = Scope.new,
    assume: Annotated[
        list[str] | None,
        typer.Option(help="MODULE=match, MODULE=no-match; or a rule's id for MODULE. Repeatable.", show_default=False),
    ] = None,
    regions: Annotated[int, typer.Option("--regions", min=1, help="How many regions to print.")] = 20,
    explain: Annotated[bool, typer.Option("--explain", help="Show the way of the first witness.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as one JSON object.")] = False,
) -> None:
    """Find all packets that fare as asked, as regions of headers with a witness each; or prove that there are none.

    Conditions compare fields of the packet (iif, src, dst, proto, sport, dport, tcp_flags, ctstate ...) in WHERE, and
    also of its fate (verdict, egress, rule, post_dst ..., or the words reached, blocked, undecided) in --want.

    Examples:

        fastpath query -H data/hosts/docker28-seed 'iif == eth0' --want 'reached and post_dport == 6379'

        fastpath query -H data/hosts/docker28-compose 'iif == eth0' --want 'reached and post_dst in network backend'
    """
    assumed = parse_assumptions(assume or [])

    from fastpath.analysis.query import parse_condition, query
    from fastpath.host.model import Host

    answer = query(
        Host.load(host), parse_condition(where, source="WHERE"),
        parse_condition(want, source="--want") if want is not None else None, scope=scope.value, assume=assumed)
    if as_json:
        typer.echo(json.dumps(answer.to_dict(), indent=2))
        return
    typer.echo(answer.text(regions))
    if explain and answer.regions:
        typer.echo("")
        typer.echo(str(answer.regions[0].explain()))
