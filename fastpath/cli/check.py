"""``fastpath check``: read a ruleset and report what is in it, and what cannot be decided from a packet's header."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fastpath.host.model import Host
    from fastpath.reference.program import CompiledRule
    from fastpath.ruleset.model import Rule

EXIT_UNKNOWN = 1


class Family(StrEnum):
    """Address families, as the command line writes them."""

    ipv4 = "4"
    ipv6 = "6"


def check(
    rules: Annotated[
        Path,
        typer.Argument(
            metavar="RULES", help="An iptables-save file, a capture folder, or a .sh script of iptables commands."
        ),
    ],
    family: Annotated[Family, typer.Option(help="4 for iptables, 6 for ip6tables.")] = Family.ipv4,
    as_json: Annotated[bool, typer.Option("--json", help="Print as one JSON object.")] = False,
) -> None:
    """Read rules and report their tables, chains, undecided rules and unknown extensions.

    Exit code 0: read and understood; 1: read, but with modules, targets or options that are unknown here (they are
    treated as undecided); 2: cannot be read, with the place and the reason.

    Examples:

        fastpath check /etc/iptables/rules.v4

        fastpath check data/hosts/docker28-seed

        fastpath check setup.sh --json
    """
    report = _report(rules, _load(rules, int(family.value)))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)
    if report["unknown"]:
        raise typer.Exit(EXIT_UNKNOWN)


def _load(path: Path, family: int) -> Host:
    """What the rules stand in: nothing but themselves, unless `path` is a capture folder."""
    from fastpath.host.model import Host

    if path.is_dir():
        return Host.load(path)
    if path.suffix == ".sh":
        from fastpath.ruleset.script import load_script

        return Host(load_script(path), complete=False)
    from fastpath.ruleset.load import load_ruleset

    return Host(load_ruleset(path, family=family, unknown="undecided"), complete=False)


def _report(path: Path, host: Host) -> dict[str, Any]:
    """Counts per table and chain, and the rules to know about, as plain values."""
    from fastpath.reference.program import Program

    program = Program(host)
    report: dict[str, Any] = {
        "source": str(path),
        "family": host.ruleset.family,
        "rules": 0,
        "tables": [],
        "undecided": [],
        "unknown": [],
    }
    for table in host.ruleset.tables:
        chains = []
        for chain in table.chains:
            chains.append({"chain": chain.name, "policy": chain.policy, "rules": len(chain.rules)})
            report["rules"] += len(chain.rules)
            for rule, compiled in zip(chain.rules, program.chains[table.name, chain.name].rules, strict=True):
                ref = compiled.ref
                row = {"rule": ref.id, "table": ref.table, "chain": ref.chain, "number": ref.number, "text": ref.text}
                unknown = _unknown(rule)
                if unknown:
                    report["unknown"].append(row | {"why": unknown})
                why = _undecided(compiled)
                if why:
                    report["undecided"].append(row | {"why": why, "changes_fate": compiled.effect})
        report["tables"].append({"table": table.name, "chains": chains})
    return report


def _unknown(rule: Rule) -> list[str]:
    """What of a rule the option table lacks."""
    names = [f"match {match.module}" for match in rule.matches if not match.known]
    if rule.target is not None and not rule.target.known:
        names.append(f"target {rule.target.name}")
    return names


def _undecided(rule: CompiledRule) -> list[str]:
    """Why a packet's columns do not decide the rule; empty where they do."""
    reasons = [f"{test.text}: {test.reason}" for test in rule.tests if not test.sure]
    if rule.why:
        assert rule.target is not None
        reasons.append(f"-j {rule.target.name}: {rule.why}")
    return reasons


def _print(report: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from fastpath.cli.render import console, title

    screen = console()
    chains = Table(box=box.SIMPLE, title=title("Chains"), title_justify="left")
    chains.add_column("table")
    chains.add_column("chain", overflow="fold")
    chains.add_column("policy")
    chains.add_column("rules", justify="right")
    for table in report["tables"]:
        for chain in table["chains"]:
            chains.add_row(table["table"], chain["chain"], chain["policy"] or "-", str(chain["rules"]))
    screen.print(chains)
    for key, heading in (("undecided", "Undecided rules"), ("unknown", "Rules with unknown extensions")):
        if report[key]:
            found = Table(box=box.SIMPLE, title=title(heading), title_justify="left")
            found.add_column("table")
            found.add_column("no.", justify="right")
            found.add_column("rule", overflow="fold")
            found.add_column("why", overflow="fold")
            for row in report[key]:
                why = "; ".join(row["why"])
                if not row.get("changes_fate", True):
                    why += " (makes no difference to a packet)"
                found.add_row(row["table"], str(row["number"]), row["text"], why)
            screen.print(found)
    counted = sum(len(table["chains"]) for table in report["tables"])
    screen.print(
        f"{report['source']}: {report['rules']:,} rules in {counted:,} chains of {len(report['tables'])} tables; "
        f"{len(report['undecided']):,} undecided, {len(report['unknown']):,} with unknown extensions"
    )
