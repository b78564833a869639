"""What one packet met on its way, event by event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from fastpath.packets.packet import Packet
from fastpath.packets.result import Fate
from fastpath.packets.schema import Flag, Hook
from fastpath.packets.text import format_address
from fastpath.reference.host_matches import state_words
from fastpath.ruleset.model import RuleRef

if TYPE_CHECKING:
    from fastpath.reference.program import CompiledChain, CompiledRule
    from fastpath.reference.route import Decision
    from fastpath.reference.state import PacketState
    from fastpath.reference.test import Test


@dataclass(frozen=True, slots=True)
class Check:
    """One test of a rule: its text, its answer (None: undecided), and what the packet showed."""

    text: str
    answer: bool | None
    seen: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TableEntered:
    """The packet came to a table's chain at a hook."""

    hook: Hook
    table: str
    chain: str


@dataclass(frozen=True, slots=True)
class RuleExamined:
    """A rule was looked at; ``depth`` is the number of jumps that led to its chain, ``matched`` None is undecided
    (and the walk went on as if it did not match). ``checks`` stops at the first test that does not hold."""

    ref: RuleRef
    depth: int
    matched: bool | None
    checks: tuple[Check, ...]
    action: str


@dataclass(frozen=True, slots=True)
class PolicyApplied:
    """A builtin chain's end was reached."""

    ref: RuleRef
    policy: str


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A NAT rule gave the packet other addresses or ports; ``choice``: the kernel may choose others."""

    rule: RuleRef
    before: tuple[int, int, int, int]
    after: tuple[int, int, int, int]
    choice: bool


@dataclass(frozen=True, slots=True)
class Routed:
    """A routing decision; ``oif`` is empty where the packet does not leave."""

    text: str
    oif: str
    again: bool


@dataclass(frozen=True, slots=True)
class Tracked:
    """Connection tracking gave the packet its state."""

    state: str


@dataclass(frozen=True, slots=True)
class Remark:
    """Something else that the kernel did."""

    text: str


Event: TypeAlias = TableEntered | RuleExamined | PolicyApplied | Rewritten | Routed | Tracked | Remark


@dataclass(frozen=True, slots=True)
class Trace:
    """A packet's way.

    Attributes:
        packet: the packet as it arrived.
        events: what it met, in order, with every undecided match taken for "no match".
        fate: what became of it.
        rule: the rule or policy that decided, None where none did.
        undecided: for an UNDECIDED packet, why.
        hangs_on: for an UNDECIDED packet, the rule that its fate hangs on.
        otherwise: its fate if that rule matches, where that rule alone makes the difference.
        plain: its fate if no undecided rule matches.
    """

    packet: Packet
    events: tuple[Event, ...]
    fate: Fate
    rule: RuleRef | None
    undecided: str = ""
    hangs_on: RuleRef | None = None
    otherwise: Fate | None = None
    plain: Fate | None = None


@dataclass(slots=True)
class Recorder:
    """Takes down the events of one walk."""

    refs: tuple[RuleRef, ...]
    events: list[Event] = field(default_factory=list)

    def enter(self, p: PacketState, table: str, chain: str) -> None:
        """A table's chain begins."""
        self.events.append(TableEntered(p.hook, table, chain))

    def examine(self, p: PacketState, rule: CompiledRule, matched: bool | None, depth: int) -> None:
        """A rule was looked at."""
        checks = []
        for test in rule.tests:
            check = self._check(test, p)
            checks.append(check)
            if check.answer is False:
                break
        action = rule.act.value if rule.target is None else _target_text(rule)
        self.events.append(RuleExamined(rule.ref, depth, matched, tuple(checks), action))

    @staticmethod
    def _check(test: Test, p: PacketState) -> Check:
        answer = test.check(p)
        return Check(test.text, answer, test.seen(p), test.reason if answer is None else "")

    def policy(self, p: PacketState, chain: CompiledChain) -> None:
        """A builtin chain's policy decides."""
        self.events.append(PolicyApplied(self.refs[chain.policy_id], str(chain.policy)))

    def rewritten(self, p: PacketState, rule: CompiledRule, before: tuple[int, int, int, int, int]) -> None:
        """A NAT rule acted."""
        choice = bool(p.flags & Flag.NAT_CHOICE) and not before[4] & Flag.NAT_CHOICE
        self.events.append(Rewritten(rule.ref, before[:4], (p.src, p.dst, p.sport, p.dport), choice))

    def translated(self, p: PacketState) -> None:
        """The packet took the mapping of its connection."""
        end = format_address
        self.events.append(Remark(
            f"nat: translated as its connection is, to {end(p.src, p.family)}:{p.sport} -> "
            f"{end(p.dst, p.family)}:{p.dport}"))

    def routed(self, p: PacketState, decision: Decision, *, again: bool) -> None:
        """A routing decision."""
        text = f"{decision.way.value}: {decision.reason}" if not decision.oif else decision.reason
        self.events.append(Routed(text, decision.oif, again))

    def tracked(self, p: PacketState, in_use: bool) -> None:
        """Connection tracking ran."""
        if in_use:
            self.events.append(Tracked(state_words(p)))

    def looped(self, p: PacketState) -> None:
        """The packet comes in again through lo."""
        self.events.append(Remark("loops back: goes out through lo and comes in on lo"))

    def say(self, p: PacketState, text: str) -> None:
        """Something else happened."""
        self.events.append(Remark(text))


def _target_text(rule: CompiledRule) -> str:
    assert rule.target is not None
    options = [w for o in rule.target.options for w in (f"--{o.name}", *o.text)]
    return " ".join(("-g" if rule.target.goto else "-j", rule.target.name, *options))
