"""``fastpath diff``: which packets two hosts treat differently, all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastpath.cli.query import Scope
from fastpath.cli.values import parse_assumptions, parse_words

EXIT_DIFFERENT = 1


def diff(
    before: Annotated[Path, typer.Argument(help="Capture folder, or one iptables-save file.", show_default=False)],
    after: Annotated[
        Path | None, typer.Argument(help="Another; left out, BEFORE with the edits.", show_default=False)
    ] = None,
    edit: Annotated[
        list[str] | None,
        typer.Option("--edit", "-e", help="An iptables command to apply to the second host. Repeatable.",
                     show_default=False),
    ] = None,
    by: Annotated[
        str, typer.Option(help="What to compare: verdict, egress, nat, rule, or several with commas.")
    ] = "verdict",
    packets: Annotated[
        Path | None,
        typer.Option("--packets", help="Packets to count by region: a .parquet or .csv file.", show_default=False),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", "-w", help="Compare these packets only, for instance 'iif == eth0'.",
                                 show_default=False)
    ] = None,
    scope: Annotated[
        Scope, typer.Option(help="Any packets, those of no known flow, or ordinary first packets.")
    ] = Scope.any,
    assume: Annotated[
        list[str] | None,
        typer.Option(help="MODULE=match, MODULE=no-match or MODULE=column:NAME. Repeatable.", show_default=False),
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Kinds of regions to print in full.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print every region as one JSON object.")] = False,
) -> None:
    """Compare two hosts, or a host with an edit of it: every packet that fares differently, or a proof that none does.

    Exits with 0 where nothing changes, 1 where something does, 2 for errors.

    Examples:

        fastpath diff data/hosts/docker28-seed --edit "iptables -I DOCKER-USER -i eth0 ! -s 192.0.2.0/24 -j DROP"

        fastpath diff data/hosts/docker26-seed data/hosts/docker28-seed --by verdict,nat --scope plain --json
    """
    if after is None and not edit:
        raise typer.BadParameter("give a second host, or at least one --edit", param_hint="AFTER / --edit")
    if packets is not None and packets.suffix.lower() not in (".parquet", ".csv"):
        raise typer.BadParameter(f"{str(packets)!r} is neither a .parquet nor a .csv file", param_hint="--packets")
    aspects = parse_words(by, ("verdict", "egress", "nat", "rule"), "--by")
    assumed = parse_assumptions(assume or [])

    from fastpath.analysis.diff import diff as compare
    from fastpath.analysis.query import parse_condition
    from fastpath.host.model import Host
    from fastpath.packets.files import read_packets

    first = Host.load(before)
    second = first if after is None else Host.load(after)
    second = second.edit(*(edit or ()))
    batch = None if packets is None else read_packets(packets)
    found = compare(
        first, second, batch, by=aspects, assume=assumed, scope=scope.value,
        where=None if where is None else parse_condition(where, source="--where"))
    typer.echo(found.to_json() if as_json else found.text(most))
    if found:
        raise typer.Exit(EXIT_DIFFERENT)
