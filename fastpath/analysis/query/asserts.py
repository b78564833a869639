"""Assertions about all packets of a kind, for use in tests: they pass with proof, or fail with a packet and its way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastpath.analysis.query.checks import Verdict, check_blocked, check_reaches, check_same
from fastpath.analysis.query.conditions import EVERYTHING, Condition
from fastpath.analysis.query.names import Names
from fastpath.host.model import Host

Assume = Mapping[str | int, str]


def assert_blocked(
    host: Host, where: Condition | str, *, scope: str = "new", assume: Assume | None = None, names: Names | None = None,
) -> None:
    """Asserts that no packet that `where` describes gets through.

    Args:
        host: rules and surroundings.
        where: which packets: a condition, or its text.
        scope: what `where` leaves open (see ``fastpath.analysis.query.scope``): ``new``, all packets of no known flow;
            ``plain``, ordinary first packets; ``any``, any packet.
        assume: what undecided matches are taken for, by module or rule id.
        names: what names in conditions stand for, where the host's folder does not tell.

    Raises:
        AssertionError: some packet gets through, or may; the message shows it and its way.
        QueryError: the condition does not fit the host.
    """
    __tracebackhide__ = True
    _demand(check_blocked(host, where, scope=scope, assume=assume, names=names))


def assert_reaches(
    host: Host, where: Condition | str, *, to: Condition | str | None = None, scope: str = "plain",
    assume: Assume | None = None, names: Names | None = None,
) -> None:
    """Asserts that every packet that `where` describes gets through, and that there are such packets.

    Args:
        to: what else must become of them, for instance ``"post_dst in network backend"``.

    The other arguments and errors are those of :func:`assert_blocked`.
    """
    __tracebackhide__ = True
    _demand(check_reaches(host, where, to=to, scope=scope, assume=assume, names=names))


def assert_same(
    before: Host, after: Host, where: Condition | str = EVERYTHING, *, by: Iterable[str] = ("verdict", "egress", "nat"),
    scope: str = "any", assume: Assume | None = None, names: Names | None = None,
) -> None:
    """Asserts that every packet that `where` describes fares the same on two hosts.

    Args:
        by: what has to be the same: ``verdict``, ``egress``, ``nat``, ``rule``.

    The other arguments and errors are those of :func:`assert_blocked`; the message shows a packet's way on both hosts.
    """
    __tracebackhide__ = True
    _demand(check_same(before, after, where, by=by, scope=scope, assume=assume, names=names))


def _demand(found: Verdict) -> None:
    __tracebackhide__ = True
    if not found.holds:
        raise AssertionError(str(found))
