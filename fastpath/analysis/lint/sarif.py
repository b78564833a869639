"""Lint's report as SARIF 2.1.0 (OASIS Static Analysis Results Interchange Format), which code hosts show beside files.

A finding's location is the rule's line in the save file; a rule that an edit made has no line, and then the file alone
is named. The logical location is always the rule's place in the ruleset.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastpath.analysis.lint.model import Finding, Kind, LintReport, Severity

if TYPE_CHECKING:
    from fastpath.ruleset.model import RuleRef

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Severity.NOTE: "note", Severity.WARNING: "warning", Severity.ERROR: "error"}


def to_sarif(report: LintReport) -> dict[str, Any]:
    """The report as a log with one run."""
    kinds = list(report.kinds)
    numbers = {kind.id: i for i, kind in enumerate(kinds)}
    driver = {"name": "fastpath", **_version(), "rules": [_rule(kind) for kind in kinds]}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": driver},
            "columnKind": "unicodeCodePoints",
            "results": [_result(finding, numbers, report.source) for finding in report.findings],
        }],
    }


def _version() -> dict[str, str]:
    try:
        return {"version": version("fastpath")}
    except PackageNotFoundError:
        return {}


def _rule(kind: Kind) -> dict[str, Any]:
    return {
        "id": kind.id, "shortDescription": {"text": kind.title}, "fullDescription": {"text": kind.help},
        "help": {"text": kind.help}, "defaultConfiguration": {"level": _LEVELS[kind.severity]},
    }


def _result(finding: Finding, numbers: dict[str, int], source: str) -> dict[str, Any]:
    text = finding.message
    if finding.suggestion:
        text += f" Suggestion: {finding.suggestion}"
    result: dict[str, Any] = {
        "ruleId": finding.kind.id, "ruleIndex": numbers[finding.kind.id], "level": _LEVELS[finding.severity],
        "message": {"text": text}, "locations": [_location(finding, source)],
        "partialFingerprints": {"finding/v1": _fingerprint(finding)},
        "properties": {"managed": finding.managed},
    }
    if finding.related:
        result["relatedLocations"] = [
            {"id": number, "message": {"text": f"{why}: {ref}"}, "logicalLocations": [_logical(ref)]}
            for number, (ref, why) in enumerate(finding.related)]
    if finding.witness is not None:
        result["properties"]["witness"] = finding.witness.as_dict()
    return result


def _location(finding: Finding, source: str) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": quote(source.replace("\\", "/")) or "iptables-save"}}
    if finding.line:
        place["region"] = {"startLine": finding.line}
    location: dict[str, Any] = {"physicalLocation": place}
    if finding.rule is not None:
        location["logicalLocations"] = [_logical(finding.rule)]
    elif finding.chain is not None:
        location["logicalLocations"] = [{"fullyQualifiedName": "/".join(finding.chain), "kind": "namespace"}]
    return location


def _logical(ref: RuleRef) -> dict[str, Any]:
    place = f"{ref.table}/{ref.chain}/{ref.number or 'policy'}"
    return {"fullyQualifiedName": place, "name": ref.text, "kind": "member"}


def _fingerprint(finding: Finding) -> str:
    """The same for the same finding after rules around it moved."""
    rule = finding.rule
    parts = [finding.kind.id, *((rule.table, rule.chain, rule.text) if rule is not None else finding.chain or ())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
