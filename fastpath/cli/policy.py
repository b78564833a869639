"""``fastpath test``: a policy file checked against a host, for CI pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EXIT_FAILED = 1
EXIT_ERROR = 2


def test(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="A policy file (TOML).")],
    host: Annotated[
        Path, typer.Option("--host", "-H", help="Capture folder, or one iptables-save file.", show_default=False)
    ],
    junit: Annotated[
        Path | None, typer.Option("--junit", help="Write the outcome as JUnit XML, too.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as one JSON object.")] = False,
) -> None:
    """Check the statements of a policy file against a host; each is proved for all packets, or refuted by one.

    Exit code 0: all hold; 1: some do not; 2: the policy or the host cannot be read, or a statement cannot be checked.

    A statement:

        [[test]]

        name = "ssh is closed from outside"

        expect = "blocked"    (or reaches, none, some, same)

        where = "iif == eth0 and proto == tcp and dport == 22"

    Examples:

        fastpath test policy.toml --host data/hosts/docker28-seed

        fastpath test policy.toml --host capture/ --junit report.xml
    """
    from fastpath.analysis.policy import load_policy, run_policy, to_junit
    from fastpath.host.model import Host

    statements = load_policy(policy)
    report = run_policy(statements, Host.load(host))
    if junit is not None:
        junit.write_text(to_junit(report), encoding="utf-8")
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else str(report))
    if any(o.status == "error" for o in report.outcomes):
        raise typer.Exit(EXIT_ERROR)
    if not report.passed:
        raise typer.Exit(EXIT_FAILED)
