"""Statements about all packets of a kind, proved or refuted: what assertions and policy files are made of.

A statement that fails shows a packet that refutes it, and that packet's way through the host. Where it hangs on a rule
that no header decides, it is neither proved nor refuted and fails, naming the rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fastpath.analysis.explain import explain
from fastpath.analysis.query.answer import Answer, query
from fastpath.analysis.query.conditions import EVERYTHING, Condition
from fastpath.analysis.query.fields import WORDS
from fastpath.analysis.query.names import Names
from fastpath.analysis.query.scope import SCOPES
from fastpath.analysis.query.text import as_condition
from fastpath.host.model import Host
from fastpath.packets.packet import Packet

Assume = Mapping[str | int, str]

_HANGS = "hangs on a rule that no header decides"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a statement.

    Attributes:
        holds: True where it is proved.
        summary: one line.
        witness: a packet that refutes it, or that shows on what it hangs (for ``some``: that proves it).
        details: the witness's way, and further lines.
    """

    holds: bool
    summary: str
    witness: Packet | None = None
    details: str = ""

    def __str__(self) -> str:
        return f"{self.summary}\n\n{self.details}" if self.details else self.summary


def check_none(
    host: Host, where: Condition | str, want: Condition | str, *, scope: str = "new", assume: Assume | None = None,
    names: Names | None = None, said: str = "fare as asked",
) -> Verdict:
    """No packet that `where` describes fares as `want` says."""
    answer = query(host, where, want, scope=scope, assume=assume, names=names)
    about = f"{SCOPES[scope]} where {answer.where}"
    if not answer:
        return Verdict(True, f"proved: of {about}, none {said}")
    if answer.packets:
        return _refuted(answer, f"{answer.packets.count():,} headers of {about} {said}", host, assume)
    return _refuted(answer, f"undecided: whether some of {about} {said} {_HANGS}", host, assume, maybe=True)


def check_some(
    host: Host, where: Condition | str, want: Condition | str, *, scope: str = "new", assume: Assume | None = None,
    names: Names | None = None,
) -> Verdict:
    """Some packet that `where` describes surely fares as `want` says."""
    answer = query(host, where, want, scope=scope, assume=assume, names=names)
    about = f"{SCOPES[scope]} where {answer.where}"
    if answer.packets:
        return Verdict(True, f"for instance {answer.packets.witness()}", answer.packets.witness())
    if not answer:
        return Verdict(False, f"proved: of {about}, none fare as {answer.want} says")
    return _refuted(answer, f"undecided: whether some of {about} fare as {answer.want} says {_HANGS}", host, assume,
                    maybe=True)


def check_blocked(
    host: Host, where: Condition | str, *, scope: str = "new", assume: Assume | None = None, names: Names | None = None,
) -> Verdict:
    """Every packet that `where` describes is dropped, rejected, or answered with an ICMP error by routing."""
    return check_none(host, where, ~WORDS["blocked"], scope=scope, assume=assume, names=names, said="get through")


def check_reaches(
    host: Host, where: Condition | str, *, to: Condition | str | None = None, scope: str = "plain",
    assume: Assume | None = None, names: Names | None = None,
) -> Verdict:
    """Every packet that `where` describes gets through, and fares as `to` says; and there are such packets."""
    wanted = WORDS["reached"] if to is None else WORDS["reached"] & as_condition(to)
    said = "do not get through" if to is None else f"do not get through as {to} says"
    found = check_none(host, where, ~wanted, scope=scope, assume=assume, names=names, said=said)
    if not found.holds:
        return found
    about = f"{SCOPES[scope]} where {as_condition(where)}"
    if not query(host, where, scope=scope, names=names).packets:
        return Verdict(False, f"there are no {about}")
    return Verdict(True, f"proved: all {about} get through" + ("" if to is None else f" as {to} says"))


def check_same(
    before: Host, after: Host, where: Condition | str = EVERYTHING, *, by: Iterable[str] = ("verdict", "egress", "nat"),
    scope: str = "any", assume: Assume | None = None, names: Names | None = None,
) -> Verdict:
    """Every packet that `where` describes fares the same on both hosts, by what `by` lists."""
    from fastpath.analysis.query.compare import compare

    found = compare(before, after, where, by=tuple(by), scope=scope, assume=assume, names=names)
    about = f"{SCOPES[scope]} where {as_condition(where)}"
    what = ", ".join(by)
    if not found.packets and not found.undecided:
        return Verdict(True, f"proved: {about} fare the same ({what})")
    witness = (found.packets or found.undecided).witness()
    way = "\n\n".join(f"{side}:\n{explain(host, witness, assume=dict(assume or {}))}"
                      for side, host in (("before", before), ("after", after)))
    if not found.packets:
        return Verdict(False, f"undecided: whether {about} fare the same ({what}) {_HANGS}", witness, way)
    return Verdict(False, f"{found.packets.count():,} headers of {about} fare differently ({what})", witness, way)


def _refuted(answer: Answer, summary: str, host: Host, assume: Assume | None, *, maybe: bool = False) -> Verdict:
    witness = (answer.maybe if maybe else answer.packets).witness()
    return Verdict(False, summary, witness, f"for instance\n{explain(host, witness, assume=dict(assume or {}))}")
