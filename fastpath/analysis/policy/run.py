"""Checks the statements of a policy against a host."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastpath.analysis.policy.read import Policy, Statement
from fastpath.analysis.query.checks import (
    Verdict,
    check_blocked,
    check_none,
    check_reaches,
    check_same,
    check_some,
)
from fastpath.errors import FastpathError, QueryError
from fastpath.host.model import Host

DEFAULT_SCOPE = {"blocked": "new", "none": "new", "some": "new", "reaches": "plain", "same": "any"}
"""The scope of a statement that names none, by what it expects: that of the assertions."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one statement.

    Attributes:
        statement: it.
        status: ``passed``, ``failed``, or ``error`` where it could not be checked (a name that the host lacks, say).
        summary: one line.
        text: everything there is to say, with the witness and its trace where it failed.
        seconds: how long it took.
    """

    statement: Statement
    status: str
    summary: str
    text: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"name": self.statement.name, "line": self.statement.line, "expect": self.statement.expect,
                "status": self.status, "summary": self.summary, "text": self.text, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """What came of a policy. ``started`` is UTC, in ISO 8601 without a zone."""

    policy: Policy
    host: str
    outcomes: tuple[Outcome, ...]
    started: str

    @property
    def passed(self) -> bool:
        """Whether every statement holds."""
        return all(o.status == "passed" for o in self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"policy": self.policy.name, "host": self.host, "passed": self.passed,
                "tests": [o.to_dict() for o in self.outcomes]}

    def __str__(self) -> str:
        lines = []
        for outcome in self.outcomes:
            lines.append(f"{outcome.status:<7} {outcome.statement.name}")
            if outcome.status != "passed":
                lines += [f"        {line}".rstrip() for line in outcome.text.splitlines()]
            elif outcome.summary:
                lines.append(f"        {outcome.summary}")
        count = {s: sum(o.status == s for o in self.outcomes) for s in ("passed", "failed", "error")}
        lines.append(", ".join(f"{n} {s}" for s, n in count.items() if n or s == "passed"))
        return "\n".join(lines)


def run_policy(policy: Policy, host: Host) -> PolicyReport:
    """Checks every statement; those that cannot be checked are reported as errors and do not stop the others."""
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return PolicyReport(policy, host.source, tuple(_outcomes(policy, host)), started)


def _outcomes(policy: Policy, host: Host) -> Iterator[Outcome]:
    for statement in policy.statements:
        begun = time.perf_counter()
        try:
            verdict = _check(statement, host)
            status, summary, text = "passed" if verdict.holds else "failed", verdict.summary, str(verdict)
        except FastpathError as error:
            status, summary, text = "error", str(error).splitlines()[0], str(error)
        yield Outcome(statement, status, summary, text, time.perf_counter() - begun)


def _check(statement: Statement, host: Host) -> Verdict:
    assume = _assumptions(statement, host)
    scope = statement.scope or DEFAULT_SCOPE[statement.expect]
    if statement.expect == "same":
        assert statement.before is not None
        before = Host.load(statement.before)
        return check_same(before, host, statement.where, by=statement.by, assume=assume, scope=scope)
    if statement.expect == "blocked":
        return check_blocked(host, statement.where, assume=assume, scope=scope)
    if statement.expect == "reaches":
        return check_reaches(host, statement.where, to=statement.want, assume=assume, scope=scope)
    assert statement.want is not None
    check = check_none if statement.expect == "none" else check_some
    return check(host, statement.where, statement.want, assume=assume, scope=scope)


def _assumptions(statement: Statement, host: Host) -> dict[str | int, str]:
    """Modules as they are; rules, given as ``table chain number``, by their ids."""
    found: dict[str | int, str] = {}
    places = {f"{r.table} {r.chain} {r.number}": r.id for r in host.ruleset.refs()}
    for key, how in statement.assume.items():
        if " " not in key:
            found[key] = how
        elif key in places:
            found[places[key]] = how
        else:
            raise QueryError(f"assume: there is no rule {key!r}; give a module, or TABLE CHAIN NUMBER")
    return found
