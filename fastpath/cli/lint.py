"""``fastpath lint``: what is wrong or useless in a host's rules."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastpath.cli.values import parse_assumptions

EXIT_FOUND = 1


class Level(StrEnum):
    """Severities, as the command line writes them."""

    note = "note"
    warning = "warning"
    error = "error"


def lint(
    host: Annotated[
        Path, typer.Option("--host", "-H", help="Capture folder, or one iptables-save file.", show_default=False)
    ],
    severity: Annotated[
        Level | None,
        typer.Option(help="Show findings of this severity and worse; by default warnings, and all of them with --kind, "
                     "--json or --sarif.", show_default=False),
    ] = None,
    fail_on: Annotated[
        Level, typer.Option("--fail-on", help="Exit with 1 where there are findings of this severity or worse.")
    ] = Level.error,
    kind: Annotated[
        list[str] | None, typer.Option(help="Look for this kind of finding only. Repeatable.", show_default=False)
    ] = None,
    also: Annotated[
        Path | None,
        typer.Option(help="Save file of the machine's other back end (legacy or nft).", show_default=False),
    ] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(help="MODULE=match, MODULE=no-match; or a rule's id for MODULE. Repeatable.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as one JSON object.")] = False,
    as_sarif: Annotated[bool, typer.Option("--sarif", help="Print as a SARIF 2.1.0 log.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write to a file instead.", show_default=False)
    ] = None,
) -> None:
    """Report rules that do nothing or not what they seem to do; every finding is proved for all packets.

    Rules that Docker writes are reported as notes. Exit code 0, or 1 where a finding is as bad as --fail-on.

    Examples:

        fastpath lint --host data/hosts/docker28-seed

        fastpath lint --host /etc/iptables/rules.v4 --severity note --kind dead-rule

        fastpath lint --host data/hosts/docker28-seed --sarif --out lint.sarif
    """
    if as_json and as_sarif:
        raise typer.BadParameter("choose one of --json and --sarif", param_hint="--json / --sarif")
    assumed = parse_assumptions(assume or [])

    from fastpath.analysis.lint import Severity
    from fastpath.analysis.lint import lint as search
    from fastpath.host.model import Host
    from fastpath.ruleset.load import load_ruleset

    other = load_ruleset(also, unknown="undecided") if also is not None else None
    whole = search(Host.load(host), kinds=kind, assume=assumed, other=other)
    everything = kind is not None or as_json or as_sarif
    shown = severity or (Level.note if everything else Level.warning)
    report = whole.at_least(Severity[shown.value.upper()])
    if as_sarif:
        text = json.dumps(report.to_sarif(), indent=2)
    elif as_json:
        text = json.dumps(report.to_dict(), indent=2)
    else:
        hidden = len(whole) - len(report)
        text = str(report) + (f" ({hidden} of lesser severity not shown)" if hidden else "")
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    else:
        typer.echo(text)
    if any(f.severity >= Severity[fail_on.value.upper()] for f in whole):
        raise typer.Exit(EXIT_FOUND)
