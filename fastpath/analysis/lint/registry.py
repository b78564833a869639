"""Every kind of finding, with the function that looks for it: the one list."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fastpath.analysis.lint import backends, dead, docker_user, published, redundant, unknown
from fastpath.analysis.lint.context import Context
from fastpath.analysis.lint.model import Finding, Kind

SEARCHES: tuple[tuple[tuple[Kind, ...], Callable[[Context], Iterator[Finding]]], ...] = (
    ((published.BYPASSED, published.NOWHERE, published.OPEN), published.find),
    ((docker_user.REPLIES, docker_user.INBOUND, docker_user.SKIPPED), docker_user.find),
    ((dead.BEHIND_RETURN, dead.DEAD, dead.UNREACHED), dead.find),
    ((redundant.REDUNDANT, redundant.ONLY_RETURNS), redundant.find),
    ((unknown.UNKNOWN, unknown.UNDECIDED), unknown.find),
    ((backends.TWO,), backends.find),
)
"""Kinds that are looked for together, and how."""

KINDS: dict[str, Kind] = {kind.id: kind for kinds, _ in SEARCHES for kind in kinds}
"""Every kind by its id."""
