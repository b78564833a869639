"""What lint says: findings, and the report that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from fastpath.packets.packet import Packet
from fastpath.ruleset.model import RuleRef


class Severity(IntEnum):
    """How much a finding matters; larger is worse.

    NOTE is for what is untidy or good to know, WARNING for rules that hardly do what was meant, ERROR for those that
    surely do not.
    """

    NOTE = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding.

    Attributes:
        id: what it is called, as in ``dead-rule``.
        title: one line for lists.
        help: what it means, what proves it, and what may be done; a few sentences.
        severity: how much it matters by default.
    """

    id: str
    title: str
    help: str
    severity: Severity


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        kind: its kind.
        message: what is the matter, one or two sentences.
        rule: the rule or policy it is about; None where it is about a chain or the host.
        chain: ``(table, chain)`` it is about, None where it is about the host.
        severity: how much it matters.
        suggestion: what may be done about it.
        related: further rules with what they have to do with it, such as those that cover a dead rule.
        witness: a packet that shows it.
        witness_note: what the packet shows.
        managed: True where Docker writes the rule: it can be explained, but hardly changed.
        line: line of the rule in the file that the rules came from; 0 where there is none.
    """

    kind: Kind
    message: str
    rule: RuleRef | None = None
    chain: tuple[str, str] | None = None
    severity: Severity = Severity.NOTE
    suggestion: str = ""
    related: tuple[tuple[RuleRef, str], ...] = ()
    witness: Packet | None = None
    witness_note: str = ""
    managed: bool = False
    line: int = 0

    @property
    def place(self) -> str:
        """Where it is, in words."""
        if self.rule is not None:
            return str(self.rule)
        return " ".join(self.chain) if self.chain is not None else "the host"

    def __str__(self) -> str:
        lines = [f"{self.severity.name.lower()}: {self.message} [{self.kind.id}]"]
        where = f" (line {self.line})" if self.line else ""
        if self.rule is not None or self.chain is not None:
            lines.append(f"    {self.place}{where}")
        lines += [f"    {what}: {ref}" for ref, what in self.related]
        if self.witness is not None:
            lines.append(f"    {self.witness_note or 'for instance'}: {self.witness}")
        if self.suggestion:
            lines.append(f"    suggestion: {self.suggestion}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "kind": self.kind.id, "severity": self.severity.name.lower(), "message": self.message,
            "rule": _ref(self.rule), "chain": list(self.chain) if self.chain is not None else None,
            "line": self.line or None, "managed": self.managed, "suggestion": self.suggestion,
            "related": [{"why": why} | (_ref(ref) or {}) for ref, why in self.related],
            "witness": self.witness.as_dict() if self.witness is not None else None,
            "witness_note": self.witness_note or None,
        }


def _ref(ref: RuleRef | None) -> dict[str, Any] | None:
    if ref is None:
        return None
    return {"rule": ref.id, "table": ref.table, "chain": ref.chain, "number": ref.number, "text": ref.text}


@dataclass(frozen=True)
class LintReport:
    """Everything that lint found about one host, worst first.

    Attributes:
        host: where the host came from.
        source: the file with the rules, for locations.
        findings: what was found.
        rules: how many rules were looked at.
        kinds: the kinds that were looked for.
    """

    host: str
    source: str
    findings: tuple[Finding, ...]
    rules: int
    kinds: tuple[Kind, ...] = field(default=())

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __bool__(self) -> bool:
        return bool(self.findings)

    def of(self, kind: str) -> tuple[Finding, ...]:
        """The findings of one kind."""
        return tuple(f for f in self.findings if f.kind.id == kind)

    def at_least(self, severity: Severity) -> LintReport:
        """The same without what matters less."""
        kept = tuple(f for f in self.findings if f.severity >= severity)
        return LintReport(self.host, self.source, kept, self.rules, self.kinds)

    def counts(self) -> dict[Severity, int]:
        """How many findings of each severity, worst first."""
        return {s: sum(f.severity is s for f in self.findings) for s in sorted(Severity, reverse=True)}

    def __str__(self) -> str:
        if not self.findings:
            return f"{self.host or 'host'}: {self.rules} rules, nothing found"
        said = ", ".join(f"{n} {s.name.lower()}{'s' if n != 1 else ''}" for s, n in self.counts().items() if n)
        return "\n".join([*(str(f) for f in self.findings), f"{self.host or 'host'}: {self.rules} rules, {said}"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "host": self.host, "rules": self.rules, "findings": [f.to_dict() for f in self.findings],
            "counts": {s.name.lower(): n for s, n in self.counts().items()},
        }

    def to_sarif(self) -> dict[str, Any]:
        """A SARIF 2.1.0 log, ready for JSON."""
        from fastpath.analysis.lint.sarif import to_sarif

        return to_sarif(self)
