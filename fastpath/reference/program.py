"""A ruleset made ready to walk: every rule's tests as functions, every target as an :class:`Act`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from fastpath.errors import CompileError
from fastpath.host.ipset import IpSetTester
from fastpath.host.model import Host
from fastpath.reference import builtin, conntrack, targets
from fastpath.reference.matches import tests_of
from fastpath.reference.nat import NAT_TARGETS
from fastpath.reference.route import Router
from fastpath.reference.state import PacketState
from fastpath.reference.test import Check, Surroundings, Test
from fastpath.ruleset.model import Rule, RuleRef, Table, Target

Assumptions = Mapping[str | int, str]
"""What to take undecided matches for: a module's name or a rule's id -> ``match``, ``no-match`` or ``column:NAME``."""


class Act(Enum):
    """What a rule that matches does."""

    NOTHING = "goes on"
    CHANGE = "changes the packet and goes on"
    JUMP = "jumps"
    GOTO = "goes to a chain"
    RETURN = "returns"
    ACCEPT = "accepts"
    DROP = "drops"
    REJECT = "rejects"
    NAT = "rewrites and accepts"
    UNDECIDED = "cannot be told"


@dataclass(slots=True, eq=False)
class CompiledRule:
    """A rule.

    Attributes:
        id, number: the id of its RuleRef, and its place in the chain from 1.
        tests: every test, in the kernel's order.
        sure: the tests that always have an answer, as bare functions, the telling ones first.
        unsure: those that may have none.
        act: what it does when it matches.
        change: for :attr:`Act.CHANGE`.
        to: for :attr:`Act.JUMP` and :attr:`Act.GOTO`.
        effect: False where it makes no difference to the packet whether the rule matches.
        why: for :attr:`Act.UNDECIDED`, the reason.
    """

    id: int
    number: int
    ref: RuleRef
    target: Target | None
    tests: tuple[Test, ...]
    sure: tuple[Check, ...]
    unsure: tuple[Check, ...]
    act: Act
    change: Callable[[PacketState], None] | None = None
    to: CompiledChain | None = None
    effect: bool = True
    why: str = ""


@dataclass(slots=True, eq=False)
class CompiledChain:
    """A chain. ``policy`` is None for a user's chain; ``policy_id`` is the policy's RuleRef."""

    table: str
    name: str
    policy: str | None
    policy_id: int
    rules: list[CompiledRule] = field(default_factory=list)


class Program:
    """Everything that evaluating packets on one host needs, compiled once.

    Attributes:
        refs: rules and policies by id.
        chains: by table and name.
        conntrack: whether the kernel tracks connections with this ruleset.
        loose: nf_conntrack_tcp_loose.
        columns: boolean packet columns that assumptions name.
        rules: the rules by id.
    """

    def __init__(self, host: Host, assume: Assumptions | None = None) -> None:
        self.host = host
        self.router = Router(host)
        self.refs = host.ruleset.refs()
        self.conntrack = conntrack.in_use(host.ruleset)
        self.loose = bool(host.sysctl("net.netfilter.nf_conntrack_tcp_loose", 1))
        self.assume = dict(assume or {})
        self.columns: set[str] = set()
        self._check_assumptions()
        self._around = Surroundings(host, self.router, IpSetTester(host))
        self._ids = {(r.table, r.chain, r.number): r for r in self.refs}
        self.chains: dict[tuple[str, str], CompiledChain] = {}
        self.rules: dict[int, CompiledRule] = {}
        for table in host.ruleset.tables:
            self._add_table(table)
        self._mark_without_effect()

    def chain(self, table: str, name: str) -> CompiledChain | None:
        """The chain, or None where the ruleset has none of that name."""
        return self.chains.get((table, name))

    def _check_assumptions(self) -> None:
        for key, value in self.assume.items():
            if value.startswith("column:"):
                self.columns.add(value.removeprefix("column:"))
            elif value not in ("match", "no-match"):
                raise CompileError(f"assume {key!r}: {value!r} is none of match, no-match and column:NAME")
            if isinstance(key, int) and not 0 <= key < len(self.refs):
                raise CompileError(f"assume {key!r}: there is no rule of that id; ids are below {len(self.refs)}")

    def _add_table(self, table: Table) -> None:
        for chain in table.chains:
            policy = self._ids.get((table.name, chain.name, 0))
            self.chains[table.name, chain.name] = CompiledChain(
                table.name, chain.name, chain.policy, policy.id if policy is not None else -1)
        for chain in table.chains:
            compiled = self.chains[table.name, chain.name]
            for number, rule in enumerate(chain.rules, 1):
                ready = self._rule(rule, self._ids[table.name, chain.name, number])
                compiled.rules.append(ready)
                self.rules[ready.id] = ready

    def _rule(self, rule: Rule, ref: RuleRef) -> CompiledRule:
        tests = [*builtin.tests(rule), *(t for m in rule.matches for t in tests_of(m, self._around))]
        tests = [self._assumed(t, ref.id) for t in tests]
        act, to, why = self._act(rule.target, ref.table)
        return CompiledRule(
            id=ref.id, number=ref.number, ref=ref, target=rule.target, tests=tuple(tests),
            sure=tuple(t.check for t in sorted(tests, key=lambda t: not t.telling) if t.sure),
            unsure=tuple(t.check for t in tests if not t.sure),
            act=act, change=targets.change_of(rule.target) if rule.target is not None and act is Act.CHANGE else None,
            to=to, effect=act is not Act.NOTHING, why=why)

    def _assumed(self, test: Test, rule: int) -> Test:
        """The test with the caller's assumption in place of "undecided"."""
        assumption = None if test.sure else self.assume.get(rule, self.assume.get(test.module))
        if assumption is None:
            return test
        check = test.check
        text = f"{test.text} (assumed: {assumption})"
        if assumption.startswith("column:"):
            column = assumption.removeprefix("column:")
            return Test(text, lambda p: _first_answer(check(p), bool(p.extra[column])), test.seen)
        answer = assumption == "match"
        return Test(text, lambda p: _first_answer(check(p), answer), test.seen)

    def _act(self, target: Target | None, table: str) -> tuple[Act, CompiledChain | None, str]:
        if target is None:
            return Act.NOTHING, None, ""
        if target.name in ("ACCEPT", "DROP", "RETURN", "REJECT"):
            return Act[target.name], None, ""
        to = self.chains.get((table, target.name))
        if to is not None:
            return Act.GOTO if target.goto else Act.JUMP, to, ""
        if target.name in NAT_TARGETS and target.known:
            return Act.NAT, None, ""
        why = targets.undecided_reason(target)
        if why is not None:
            return Act.UNDECIDED, None, why
        return (Act.NOTHING if targets.change_of(target) is None else Act.CHANGE), None, ""

    def _mark_without_effect(self) -> None:
        """A jump makes no difference where all that its chain can do is count and return."""
        quiet: dict[int, bool] = {}

        def is_quiet(chain: CompiledChain, above: tuple[CompiledChain, ...]) -> bool:
            if chain in above:
                names = " -> ".join(c.name for c in (*above[above.index(chain):], chain))
                raise CompileError(f"table {chain.table}: the chains lead back to themselves: {names}")
            if id(chain) not in quiet:
                parts = [rule.act in (Act.NOTHING, Act.RETURN) if rule.to is None
                         else is_quiet(rule.to, (*above, chain)) for rule in chain.rules]
                quiet[id(chain)] = all(parts)
            return quiet[id(chain)]

        for chain in self.chains.values():
            is_quiet(chain, ())
        for chain in self.chains.values():
            for rule in chain.rules:
                if rule.act is Act.JUMP and rule.to is not None:
                    rule.effect = not quiet[id(rule.to)]


def _first_answer(answer: bool | None, otherwise: bool) -> bool:
    return otherwise if answer is None else answer
