"""Lint: what is wrong or useless in a host's rules, each finding proved with sets of packets.

``registry.py`` lists the kinds of findings; each group has a file of its own. ``context.py`` is what they look at,
``model.py`` what they give, ``sarif.py`` one way to write it.

Safe direction of error: what is not proved is not reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fastpath.analysis.lint.model import Finding, Kind, LintReport, Severity
from fastpath.errors import QueryError

if TYPE_CHECKING:
    from fastpath.host.model import Host
    from fastpath.ruleset.model import Ruleset

__all__ = ["Finding", "Kind", "LintReport", "Severity", "lint"]


def lint(
    host: Host,
    *,
    kinds: Iterable[str] | None = None,
    assume: Mapping[str | int, str] | None = None,
    other: Ruleset | None = None,
) -> LintReport:
    """What is wrong or useless in the rules of a host.

    Args:
        host: rules and surroundings; with routes and addresses more can be said.
        kinds: ids of the kinds to look for (see ``fastpath.analysis.lint.registry``); all by default.
        assume: what undecided matches are taken for, by module or rule id.
        other: the rules of the machine's other back end (legacy or nft), where it has any.

    Raises:
        QueryError: an unknown kind.
        CompileError: a ruleset of IPv6, or rules whose sets of packets outgrow memory.
    """
    from fastpath.analysis.lint.context import Context
    from fastpath.analysis.lint.registry import KINDS, SEARCHES

    wanted = list(KINDS if kinds is None else kinds)
    for kind in wanted:
        if kind not in KINDS:
            raise QueryError(f"there is no kind of finding {kind!r}; the kinds are {', '.join(KINDS)}")
    context = Context(host, assume, other)
    found: list[Finding] = []
    for kinds_here, search in SEARCHES:
        if any(kind.id in wanted for kind in kinds_here):
            found += [f for f in search(context) if f.kind.id in wanted]
    found.sort(key=lambda f: (-f.severity, f.rule.id if f.rule is not None else -1))
    return LintReport(
        host.source, host.ruleset.source, tuple(found), sum(1 for _ in context.all_rules()),
        tuple(KINDS[kind] for kind in wanted))
