"""The outcome of a policy as JUnit XML, the form that CI systems read.

There is no standard, but the schema of the Jenkins xUnit plugin (junit-10.xsd) is what others follow: ``testsuites`` >
``testsuite`` > ``testcase`` > ``failure`` or ``error``, with counts on the first two. Nothing else is written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from fastpath.analysis.policy.run import PolicyReport

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped."""


def to_junit(report: PolicyReport) -> str:
    """The report as an XML document, with its declaration."""
    counts = {
        "tests": str(len(report.outcomes)), "failures": str(sum(o.status == "failed" for o in report.outcomes)),
        "errors": str(sum(o.status == "error" for o in report.outcomes)),
        "time": f"{sum(o.seconds for o in report.outcomes):.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "fastpath", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {
        "name": _clean(report.policy.name), **counts, "skipped": "0", "timestamp": report.started,
        "hostname": _clean(report.host) or "host"})
    for outcome in report.outcomes:
        case = ElementTree.SubElement(suite, "testcase", {
            "classname": _clean(report.policy.name), "name": _clean(outcome.statement.name),
            "time": f"{outcome.seconds:.3f}"})
        if outcome.status != "passed":
            kind = "failure" if outcome.status == "failed" else "error"
            found = ElementTree.SubElement(case, kind, {
                "message": _clean(outcome.summary), "type": outcome.statement.expect})
            found.text = _clean(outcome.text)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
