"""The machine: a packet's walk through rules, chains and hooks.

A way is a tuple of steps; a step is a chain of a table at a hook, or something the kernel does between hooks. A
:class:`~fastpath.reference.state.PacketState` knows its place on its way, so that a walk can be copied at a rule and
gone on with twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from fastpath.packets.schema import Hook, Verdict
from fastpath.reference import conntrack, nat
from fastpath.reference import state as st
from fastpath.reference.program import Act, CompiledChain, CompiledRule, Program
from fastpath.reference.route import Decision, Router, Way
from fastpath.reference.state import PacketState


@dataclass(frozen=True, slots=True, eq=False)
class TableStep:
    """A table's builtin chain at a hook; nothing happens where the ruleset lacks it."""

    table: str
    hook: Hook
    chain: CompiledChain | None


Action: TypeAlias = Callable[[PacketState], None]
Step: TypeAlias = TableStep | Action


class Machine:
    """Walks packets through one host."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.router: Router = program.router
        steps = self._table_steps
        self.arriving: tuple[Step, ...] = (
            self.defragment, *steps(Hook.PREROUTING, "raw"), self.track, *steps(Hook.PREROUTING, "mangle", "nat"),
            self.route_arriving,
        )
        self.local_in: tuple[Step, ...] = (
            self.reassemble, *steps(Hook.INPUT, "mangle", "filter", "security", "nat"), self.deliver,
        )
        self.forward: tuple[Step, ...] = (
            self.start_forwarding, *steps(Hook.FORWARD, "mangle", "filter", "security"),
            *steps(Hook.POSTROUTING, "mangle", "nat"), self.send,
        )
        self.leaving: tuple[Step, ...] = (
            self.route_leaving, self.defragment, *steps(Hook.OUTPUT, "raw"), self.track,
            self.note_mark, *steps(Hook.OUTPUT, "mangle"), self.reroute_marked, *steps(Hook.OUTPUT, "nat"),
            self.reroute_translated,
            *steps(Hook.OUTPUT, "filter", "security"), self.leave_output, *steps(Hook.POSTROUTING, "mangle", "nat"),
            self.send,
        )
        self.looped: tuple[Step, ...] = (
            *steps(Hook.PREROUTING, "raw"), self.track, *steps(Hook.PREROUTING, "mangle"), self.reassemble,
            *steps(Hook.INPUT, "mangle", "filter", "security"), self.deliver,
        )

    def _table_steps(self, hook: Hook, *tables: str) -> tuple[Step, ...]:
        """The steps of tables at a hook; nat's hooks are there as soon as its table is, with a chain or without."""
        found = ((table, self.program.chain(table, hook.name)) for table in tables)
        nat_table = self.program.host.ruleset.table("nat") is not None
        return tuple(TableStep(table, hook, chain) for table, chain in found
                     if chain is not None or (table == "nat" and nat_table))

    # ---------------------------------------------------------------------------------------------- running

    def start(self, p: PacketState) -> None:
        """Puts a packet at the beginning of its way."""
        p.steps = self.leaving if p.local else self.arriving
        p.hook = Hook.OUTPUT if p.local else Hook.PREROUTING

    def start_alone(self, p: PacketState, chain: CompiledChain, hook: Hook) -> None:
        """Puts a packet at the head of one chain that is to be evaluated alone."""
        conntrack.track(p, self.program.loose)
        if hook in (Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING):
            p.oif = self.router.egress(p)
        p.steps, p.alone, p.hook = (TableStep(chain.table, hook, chain), self.fall_out), True, hook

    def run(self, p: PacketState) -> None:
        """Goes on from where the packet is to the end of its way."""
        if p.chain is not None:
            self.walk(p)
        while p.verdict is None:
            step = p.steps[p.position]
            p.position += 1
            if isinstance(step, TableStep):
                self.enter(p, step)
            else:
                step(p)

    def enter(self, p: PacketState, step: TableStep) -> None:
        """Walks a table's chain; nat's only for the first packet of a flow, and others are translated as it was."""
        if step.table == "nat" and p.connection is not None and p.tracked and not self.walks_nat(p, step):
            before = (p.src, p.dst, p.sport, p.dport)
            nat.translate(p, step.hook)
            if p.recorder is not None and before != (p.src, p.dst, p.sport, p.dport):
                p.recorder.translated(p)
            return
        if step.chain is None or (step.table == "nat" and not self.walks_nat(p, step)):
            return
        p.hook = step.hook
        p.chain, p.index, p.stack = step.chain, 0, ()
        if p.recorder is not None:
            p.recorder.enter(p, step.table, step.chain.name)
        self.walk(p)

    def walks_nat(self, p: PacketState, step: TableStep) -> bool:
        """The nat table is asked once per flow, about its first packet, and only where connections are tracked."""
        return p.alone or (self.program.conntrack and step.hook in p.unbound)

    # ---------------------------------------------------------------------------------------------- chains

    def walk(self, p: PacketState) -> None:
        """Walks from the packet's place in a chain until the chain's table has decided.

        A rule that matches counts, and its target acts. At the end of a user's chain, or at RETURN, the walk goes on
        behind the rule that jumped there; a goto leaves nothing to come back to. At the end of a builtin chain the
        policy counts and decides.
        """
        chain, index, stack, walked = p.chain, p.index, p.stack, p.walked
        assert chain is not None
        rules, hits, recorder = chain.rules, p.hits, p.recorder
        forced, p.forced = p.forced, None
        while True:
            returned = -1
            if index < len(rules):
                rule = rules[index]
                index += 1
                walked += 1
                if rule is forced:
                    forced = None
                else:
                    matched: bool | None = True
                    for check in rule.sure:
                        if not check(p):
                            matched = False
                            break
                    if matched and rule.unsure:
                        matched = three_valued(rule, p)
                        if matched is None and rule.effect and p.doubts is not None:
                            p.chain, p.index, p.stack, p.walked = chain, index - 1, stack, walked - 1
                            p.doubts.append(p.copy())
                    if recorder is not None:
                        recorder.examine(p, rule, matched, len(stack))
                    if not matched:
                        continue
                if hits is not None:
                    hits.append(rule.id)
                act = rule.act
                if act is Act.NOTHING:
                    continue
                if act is Act.CHANGE:
                    assert rule.change is not None
                    rule.change(p)
                    continue
                if act is Act.JUMP or act is Act.GOTO:
                    assert rule.to is not None
                    if act is Act.JUMP:
                        stack = (*stack, (chain, index))
                    chain, index = rule.to, 0
                    rules = chain.rules
                    continue
                if act is not Act.RETURN:
                    p.chain, p.stack, p.walked = None, (), walked
                    self.decide(p, chain, rule)
                    return
                returned = rule.id
            if stack:
                (chain, index), stack = stack[-1], stack[:-1]
                rules = chain.rules
                continue
            p.chain, p.stack, p.walked = None, (), walked
            self.leave(p, chain, returned)
            return

    def decide(self, p: PacketState, chain: CompiledChain, rule: CompiledRule) -> None:
        """A target that ends its table's walk."""
        act = rule.act
        if act is Act.ACCEPT:
            self.accept(p, chain.table, rule.id)
        elif act is Act.DROP:
            p.end(Verdict.DROP, p.hook, rule.id)
        elif act is Act.REJECT:
            p.end(Verdict.REJECT, p.hook, rule.id)
        elif act is Act.NAT:
            assert rule.target is not None
            before = (p.src, p.dst, p.sport, p.dport, p.flags)
            if not nat.apply(rule.target, p, p.hook, self.router):
                p.end(Verdict.DROP, p.hook, rule.id)
                return
            if p.recorder is not None:
                p.recorder.rewritten(p, rule, before)
            self.accept(p, chain.table, rule.id)
        else:
            p.end(Verdict.UNDECIDED, p.hook, rule.id)

    def leave(self, p: PacketState, chain: CompiledChain, returned: int) -> None:
        """The end of the outermost chain of a walk: the builtin chain's policy, even behind a goto."""
        step = p.steps[p.position - 1]
        assert isinstance(step, TableStep) and step.chain is not None
        builtin = step.chain
        if builtin.policy is None:
            p.end(Verdict.RETURN, p.hook, returned)
            return
        if p.hits is not None:
            p.hits.append(builtin.policy_id)
        if p.recorder is not None:
            p.recorder.policy(p, builtin)
        if builtin.policy == "DROP":
            p.end(Verdict.DROP, p.hook, builtin.policy_id)
        else:
            self.accept(p, chain.table, builtin.policy_id)

    def accept(self, p: PacketState, table: str, rule: int) -> None:
        """Ends a table's walk; the packet goes on. What the filter table accepted last is what a result names."""
        if table == "filter" or p.alone:
            p.accepted_by = rule

    def fall_out(self, p: PacketState) -> None:
        """The end of a chain evaluated alone."""
        p.end(Verdict.ACCEPT, p.hook, p.accepted_by)

    # ---------------------------------------------------------------------------------------------- between hooks

    def defragment(self, p: PacketState) -> None:
        """Connection tracking needs whole packets: a fragment alone waits for the others in vain, before raw."""
        if p.frag and self.program.conntrack:
            p.end(Verdict.DROP, Hook.OUTPUT if p.local else Hook.PREROUTING)
            self._say(p, "a fragment alone is held back until the rest arrives (conntrack needs whole packets)")

    def reassemble(self, p: PacketState) -> None:
        """So does local delivery, before INPUT."""
        if p.frag:
            p.end(Verdict.DROP, Hook.ROUTE)
            self._say(p, "a fragment alone is held back until the rest arrives (local delivery needs whole packets)")

    def track(self, p: PacketState) -> None:
        """Connection tracking, between raw and mangle."""
        conntrack.track(p, self.program.loose)
        if p.recorder is not None:
            p.recorder.tracked(p, self.program.conntrack)

    def route_arriving(self, p: PacketState) -> None:
        """The routing decision on what came in."""
        decision = self.router.arriving(p)
        if p.recorder is not None:
            p.recorder.routed(p, decision, again=False)
        if decision.way is Way.HERE:
            p.steps, p.position = self.local_in, 0
        elif decision.way is Way.OUT:
            p.oif, p.next_hop = decision.oif, decision.next_hop
            p.steps, p.position = self.forward, 0
        else:
            self._end_by_route(p, decision)

    def _end_by_route(self, p: PacketState, decision: Decision) -> None:
        verdict = {Way.DROP: Verdict.DROP, Way.ICMP_ERROR: Verdict.ICMP_ERROR, Way.UNDECIDED: Verdict.UNDECIDED}
        p.oif = ""
        p.end(verdict[decision.way], Hook.ROUTE)

    def start_forwarding(self, p: PacketState) -> None:
        """``ip_forward()``: only what was addressed to this host on the link, and lives for another hop."""
        if p.pkttype:
            p.oif = ""
            p.end(Verdict.DROP, Hook.ROUTE)
            self._say(p, "a link-layer broadcast or multicast is not forwarded")
        elif p.ttl <= 1:
            p.oif = ""
            p.end(Verdict.ICMP_ERROR, Hook.ROUTE)
            self._say(p, f"TTL {p.ttl} is too small to be forwarded")
        else:
            p.ttl -= 1

    def route_leaving(self, p: PacketState) -> None:
        """The first routing decision on what the host makes."""
        self._leave_by(p, self.router.leaving(p), again=False)

    def note_mark(self, p: PacketState) -> None:
        """Before mangle OUTPUT: what its rules may change."""
        p.routed_mark = (p.mark, p.tos)

    def reroute_marked(self, p: PacketState) -> None:
        """A second look at the route where mangle OUTPUT changed mark or type of service (``ipt_mangle_out()``)."""
        if p.given_oif is None and p.routed_mark != (p.mark, p.tos):
            self._leave_by(p, self.router.leaving(p, again=True), again=True)

    def reroute_translated(self, p: PacketState) -> None:
        """And where nat OUTPUT gave it another destination (``nf_nat_ipv4_local_fn()``)."""
        if p.given_oif is None and p.routed_dst != p.dst:
            self._leave_by(p, self.router.leaving(p, again=True), again=True)

    def _leave_by(self, p: PacketState, decision: Decision, *, again: bool) -> None:
        if p.recorder is not None:
            p.recorder.routed(p, decision, again=again)
        if decision.way is Way.OUT:
            p.egress, p.next_hop, p.routed_dst = decision.oif, decision.next_hop, p.dst
            if not again:
                p.oif = p.egress
        else:
            self._end_by_route(p, decision)

    def leave_output(self, p: PacketState) -> None:
        """Behind OUTPUT the egress interface is the one that was decided last (``nf_hook_state`` is made per hook)."""
        p.oif = p.egress

    def send(self, p: PacketState) -> None:
        """The end of POSTROUTING. Out through lo is in again through lo."""
        if not p.local:
            p.end(Verdict.FORWARD, Hook.POSTROUTING, p.accepted_by)
        elif p.oif != "lo":
            p.end(Verdict.LOCAL_OUT, Hook.POSTROUTING, p.accepted_by)
        else:
            if p.recorder is not None:
                p.recorder.looped(p)
            p.iif, p.oif, p.looped, p.owned, p.pkttype = "lo", "", True, False, 0
            p.accepted_by = -1
            if p.direction == st.ORIGINAL and p.tracked:
                p.status |= st.CONFIRMED
            p.steps, p.position = self.looped, 0

    def deliver(self, p: PacketState) -> None:
        """The end of INPUT."""
        p.end(Verdict.LOCAL_IN, Hook.INPUT, p.accepted_by)

    @staticmethod
    def _say(p: PacketState, text: str) -> None:
        if p.recorder is not None:
            p.recorder.say(p, text)


def three_valued(rule: CompiledRule, p: PacketState) -> bool | None:
    """The outcome of a rule's unsure tests: False if any is, else None if any is."""
    outcome: bool | None = True
    for check in rule.unsure:
        answer = check(p)
        if answer is False:
            return False
        if answer is None:
            outcome = None
    return outcome
