"""Every packet's way through the rules, test by test, in bulk.

The host is compiled as the engine compiles it, into stages of ops over classes of values, but each rule becomes one op
for each of its tests, in the order of the back end's kernel. A kernel (``kernels/cost.py``) walks every packet through
the ops and adds up nanoseconds. Nothing is sampled: each packet that is given is walked, over the same lowered
conditions as the compiled engine's, so that rules examined and rule counters are the engine's own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.capacity.cpu.model import BackendCosts
from fastpath.capacity.cpu.steps import Backend, Plan, Step, plan_of
from fastpath.compiler.config import Config
from fastpath.compiler.fields import TRUE, Condition
from fastpath.compiler.flow import Builder, conntrack_in_use
from fastpath.compiler.lower import Context, assumed_condition, header_conditions
from fastpath.compiler.program import Act, Block, Op, Stage
from fastpath.compiler.stages import stages_of_host
from fastpath.compiler.tables import BASE_NUMBER, Compiled, compile_stages
from fastpath.engine.names import AS_GIVEN
from fastpath.engine.runner import CHUNK, COLUMNS_OF, Runner
from fastpath.errors import CompileError, PacketError
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.schema import RESULT_COLUMNS, Hook
from fastpath.ruleset.model import Chain, Rule, RuleRef

Array = npt.NDArray[Any]

NO_RULE = (-1, (0.0, 0.0, 0.0))
"""Skip and numbers of an op that is no rule."""


class CostBuilder(Builder):
    """Lowers rules to one op for each test; ``numbers`` has what they cost, by block and place."""

    def __init__(
        self, host: Host, assume: Mapping[str | int, str], given_oif: bool, backend: Backend, costs: BackendCosts
    ) -> None:
        super().__init__(host, assume, given_oif, conntrack_in_use(host))
        self.backend: Backend = backend
        self.costs = costs
        self.numbers: dict[str, list[tuple[int, tuple[float, float, float]]]] = {}
        self.unknown: set[str] = set()
        self.plans: dict[int, Plan] = {}
        self.chains = {(t.name, c.name) for t in host.ruleset.tables for c in t.chains}

    def block(self, table: str, chain: Chain, context: Context, name: str, blocks: dict[str, Block]) -> Block:
        """One chain, a few ops for each rule."""
        ops: list[Op] = []
        numbers = self.numbers.setdefault(f"{name}:{table}:{chain.name}", [])
        before: Plan | None = None
        for number, rule in enumerate(chain.rules, 1):
            ref = self.refs[table, chain.name, number]
            plan = self.plan(table, rule, ref)
            conditions = dict(header_conditions(rule, context))
            switch = self.costs.switch_ns if before is not None and before.shape != plan.shape else 0.0
            before = plan
            steps = list(plan.steps) or [Step("", None, (), ())]
            for place, step in enumerate(steps):
                last = place == len(steps) - 1
                condition = self.condition(step, conditions, ref, context)
                if last:
                    ops.append(self.rule_op(table, rule, ref, condition, context, name, blocks))
                else:
                    ops.append(Op(condition, ref=ref))
                extra = switch if place == 0 else 0.0
                numbers.append((len(steps) - 1 - place, (
                    self.costs.ns(step.fail) + extra,
                    self.costs.ns(step.pass_) + (self.costs.ns(plan.matched) if last else 0.0) + extra,
                    float(plan.bytes) if place == 0 else 0.0,
                )))
        return Block(
            tuple(ops), Hook[context.hook], None if chain.policy is None else Act(chain.policy.lower()),
            self.refs.get((table, chain.name, 0), -1), table == "filter")

    def plan(self, table: str, rule: Rule, ref: int) -> Plan:
        """A rule's steps; what the calibration has no figure for is noted in ``unknown``."""
        if ref in self.plans:
            return self.plans[ref]
        user_chain = rule.target is not None and (table, rule.target.name) in self.chains
        plan = plan_of(rule, self.host, self.backend, user_chain=user_chain)
        for weights in (*(s.fail for s in plan.steps), *(s.pass_ for s in plan.steps), plan.matched):
            for name, weight in weights:
                if weight and not self.costs.known(((name, weight),)):
                    self.unknown.add(name.removeprefix("fail:").removeprefix("pass:"))
        self.plans[ref] = plan
        return plan

    @staticmethod
    def condition(step: Step, header: Mapping[str, Condition], ref: int, context: Context) -> Condition:
        """What a step asks."""
        if step.match is not None:
            return assumed_condition(step.match, ref, context)
        return header[step.name] if step.name else TRUE

    def arrays(self, stages: list[Stage]) -> tuple[Array, Array]:
        """The kernel's ``numbers`` and ``skips`` for all ops of linear stages, in the order of their packing."""
        numbers: list[tuple[float, float, float]] = []
        skips: list[int] = []
        for stage in stages:
            for key, block in stage.blocks.items():
                known = self.numbers.get(key)
                for place, op in enumerate(block.ops):
                    skip, three = known[place] if known is not None else NO_RULE
                    if known is None and op.act is Act.CALL:
                        table = op.chain.split(":")[1]
                        three = (0.0, self.costs.hook.get(table, self.costs.hook["filter"]), 0.0)
                    skips.append(skip)
                    numbers.append(three)
        return (np.array(numbers or [(0.0, 0.0, 0.0)], np.float64).reshape(-1, 3), np.array(skips or [-1], np.int32))


@dataclass
class Walked:
    """What the walks of a batch cost and met.

    Attributes:
        ns: nanoseconds of tests, targets and builtin chains, float64 a packet.
        read: bytes of the rules examined, float64 a packet.
        state: connection-tracking state at the end (``compiler.fields.CtState``), uint8 a packet.
        columns: result columns by name, as ``Engine.evaluate`` has them; where undecided rules matter, the baseline's.
        interfaces: names of the interface codes in ``columns["oif"]``.
        rule_ns, examined, matched, rule_bytes: by rule id.
        tracked: connections are tracked.
        refs: rules and policies by id.
        unknown: names of tests and targets that the calibration has no figure of its own for.
    """

    ns: Array
    read: Array
    state: Array
    columns: dict[str, Array]
    interfaces: tuple[str, ...]
    rule_ns: Array
    examined: Array
    matched: Array
    rule_bytes: Array
    tracked: bool
    refs: tuple[RuleRef, ...]
    unknown: tuple[str, ...]


def walk(
    host: Host, packets: PacketBatch, backend: Backend, costs: BackendCosts, *,
    assume: Mapping[str | int, str] | None = None, threads: int | None = None,
) -> Walked:
    """Walks all packets.

    Raises:
        CompileError: not IPv4, or chains that nest too deeply.
        PacketError: the host's routes are not known and the packets bring no ``oif``; or only some bring one.
    """
    if host.ruleset.family != 4:
        raise CompileError("costs are known for IPv4 rulesets only")
    given = packets.has("oif") and bool((packets.column("oif") >= 0).any())
    if given and not bool((packets.column("oif") >= 0).all()):
        raise PacketError("either all packets bring an egress interface (oif) or none does")
    if not host.complete and not given and len(packets):
        raise PacketError("the host's routes are not known: give the packets an oif column (an interface name, or "
                          "local for what is delivered to the host)")
    builder = CostBuilder(host, dict(assume or {}), given, backend, costs)
    stages = stages_of_host(builder)
    try:
        compiled = compile_stages(builder, stages, Config(structure="linear"))
    except RecursionError:
        raise CompileError("chains nest too deeply to be walked: some hundred jumps at most") from None
    numbers, skips = builder.arrays(stages)
    refs = host.ruleset.refs()
    return _run(builder, compiled, packets, numbers, skips, refs, threads)


def _run(
    builder: CostBuilder, compiled: Compiled, packets: PacketBatch, numbers: Array, skips: Array,
    refs: tuple[RuleRef, ...], threads: int | None,
) -> Walked:
    from fastpath.kernels.cost import cost
    from fastpath.kernels.layout import P_NEED, Output, Tables

    n, rules = len(packets), max(1, len(refs))
    interfaces = list(packets.interfaces)
    params = compiled.arrays["params"].copy()
    params[P_NEED] |= 1 << BASE_NUMBER["ctstate"]
    compiled = replace(compiled, arrays=compiled.arrays | {"params": params},
                       columns=compiled.columns | {"state", "tcp_flags", "icmp_type", "sport", "mark"})
    runner = Runner(compiled, packets, interfaces, len(refs))
    columns = {c.name: np.zeros(n, c.dtype) for c in RESULT_COLUMNS}
    ns, read, state = np.zeros(n), np.zeros(n), np.zeros(n, np.uint8)
    tables = Tables(**{name: _frozen(compiled.arrays[name]) for name in Tables._fields})
    numbers, skips = _frozen(numbers), _frozen(skips)
    fixed = sum(
        1 << number for base, number in BASE_NUMBER.items()
        if all(packets.constant(name) is not None for name in COLUMNS_OF.get(base, (base,))))
    none = {name: np.zeros(1, dtype) for name, dtype in (
        ("records", np.int64), ("rule_bytes", np.int64), ("forced_rule", np.int32), ("forced_hook", np.int8))}

    def work(bounds: tuple[int, int]) -> tuple[Array, Array, Array]:
        a, b = bounds
        found = np.zeros(rules), np.zeros(rules, np.int64), np.zeros(rules, np.int64)
        here = {name: values[a:b] for name, values in columns.items()}
        output = Output(
            **{name: here[name] for name in Output._fields[:9]}, walked=here["rules_walked"], flags=here["flags"],
            rule_packets=found[2], choices=np.zeros((1, 1), np.int32), **none)
        cost(b - a, runner.columns(a, b, False), tables, output, runner.ids, runner.names, fixed, numbers, skips,
             ns[a:b], read[a:b], state[a:b], found[0], found[1])
        return found

    size = max(1, min(CHUNK, -(-n // (threads or os.cpu_count() or 1))))
    chunks = [(a, min(a + size, n)) for a in range(0, n, size)]
    workers = min(len(chunks), threads or os.cpu_count() or 1)
    if workers <= 1:
        parts = [work(bounds) for bounds in chunks]
    else:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(work, chunks))
    totals = [sum((part[i] for part in parts), np.zeros(rules)) for i in range(3)]
    if compiled.given_oif:
        as_given = np.flatnonzero(columns["oif"] == AS_GIVEN)
        columns["oif"][as_given] = packets.column("oif")[as_given]
    rule_bytes = np.zeros(rules)
    for ref, plan in builder.plans.items():
        rule_bytes[ref] = plan.bytes
    return Walked(ns, read, state, columns, tuple(interfaces), totals[0], totals[1].astype(np.int64),
                  totals[2].astype(np.int64), rule_bytes, builder.conntrack, refs, tuple(sorted(builder.unknown)))


def _frozen(array: Array) -> Array:
    view = array.view()
    view.setflags(write=False)
    return view
