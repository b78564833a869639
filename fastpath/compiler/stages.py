"""Cutting the ways of a host into stages.

A stage is as long as it can be: steps join it while none of them looks at a value that an earlier one may have
changed. A step whose own ops see its own effects (a mark set and tested in one chain) is a linear stage by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from fastpath.compiler.fields import TRUE, Field, Values, test
from fastpath.compiler.flow import Builder, Step, Ways, mutated, tested
from fastpath.compiler.program import Act, Block, End, Op, Stage
from fastpath.packets.schema import Hook, Verdict


def _place(way: str, index: int) -> str:
    return way if index == 0 else f"{way}+{index}"


class Cutter:
    """Cuts ways; ``stages`` collects what is reachable from the entries."""

    def __init__(self, ways: Ways) -> None:
        self.ways = ways
        self.pending: list[tuple[str, int]] = []
        self.stages: dict[str, Stage] = {}

    def cut(self, entries: Iterable[str]) -> list[Stage]:
        """Every stage, entries first, each before the stages that it leads to."""
        for entry in entries:
            self.pending.append((entry, 0))
            while self.pending:
                way, index = self.pending.pop(0)
                if _place(way, index) not in self.stages:
                    self.stages[_place(way, index)] = self.stage(way, index)
        return self.ordered(entries)

    def ordered(self, entries: Iterable[str]) -> list[Stage]:
        """Topological order: a stage comes after all that lead to it."""
        done: list[str] = []

        def visit(name: str) -> None:
            if name in done:
                return
            for block in self.stages[name].blocks.values():
                for op in block.ops:
                    if op.end is not None and op.end.stage is not None:
                        visit(op.end.stage)
            done.append(name)

        for entry in reversed(list(entries)):
            visit(entry)
        return [self.stages[name] for name in reversed(done)]

    def stage(self, way: str, index: int) -> Stage:
        """The stage that begins with step `index` of a way."""
        blocks: dict[str, Block] = {}
        linear = self.fill("root", way, index, set(), blocks)
        return Stage(_place(way, index), "root", blocks, linear)

    def fill(self, key: str, way: str, index: int, changed: set[str], blocks: dict[str, Block]) -> bool:
        """Writes the block `key` with the steps of a way from `index` on; True where they must be walked linearly."""
        ops: list[Op] = []
        steps = self.ways.steps[way]
        linear = False
        at = index
        while at < len(steps):
            step = steps[at]
            alone = bool(mutated(step, terminal=False) & tested(step))
            first = at == index and key == "root"
            if not first and (alone or tested(step) & changed):
                break
            changed = changed | mutated(step, terminal=True)
            self.add(step, key, ops, changed, blocks)
            at += 1
            if alone:
                linear = True
                break
        if at < len(steps):
            ops.append(Op(TRUE, Act.END, end=End(stage=_place(way, at))))
            self.pending.append((way, at))
        elif way in self.ways.ends:
            ops.append(Op(TRUE, Act.END, end=self.ways.ends[way]))
        blocks[key] = Block(tuple(ops), Hook.PREROUTING)
        return linear

    def add(self, step: Step, key: str, ops: list[Op], changed: set[str], blocks: dict[str, Block]) -> None:
        """Appends a step to a block's ops; the ways that it branches to become blocks of this stage."""
        root = step.blocks[step.key]
        if root.policy is not None:
            blocks.update(step.blocks)
            ops.append(Op(step.guard, Act.CALL, chain=step.key))
            return
        for op in root.ops:
            onward = op.end.stage if op.end is not None else None
            if onward is None:
                ops.append(op)
                continue
            inline = f"{key}/{onward}"
            if inline not in blocks:
                self.fill(inline, onward, 0, changed, blocks)
            ops.append(replace(op, act=Act.GOTO, chain=inline, end=None))


def stages_of_host(builder: Builder) -> list[Stage]:
    """The stages of the whole path, ``arriving`` first."""
    return Cutter(builder.ways()).cut(["arriving", "local"])


def ways_of_chain(builder: Builder, table: str, chain: str) -> Ways:
    """The one way, ``alone``, of a chain evaluated alone: what falls out of a user chain has verdict RETURN."""
    hook = chain if chain in Hook.__members__ else "FORWARD"
    context = builder.context(hook, alone=True)
    step = builder.table_step(table, chain, context, "alone", always=True)
    if step is None:
        raise LookupError(chain)
    blocks = dict(step.blocks)
    root = blocks[step.key]
    blocks[step.key] = replace(root, policy=root.policy or Act.RETURN, decides=True)
    steps = [Step(step.key, blocks)]
    if Hook[hook] >= Hook.FORWARD:
        ids = range(1, len(builder.interfaces.names))
        ops = tuple(Op(context.oif(Values.single(i)), oif=i) for i in ids)
        steps.insert(0, Step("egress", {"egress": Block(ops, Hook[hook])}))
    return Ways({"alone": steps}, {"alone": End(Verdict.ACCEPT, Hook[hook])})


def stages_of_chain(builder: Builder, table: str, chain: str) -> list[Stage]:
    """The stage of a chain evaluated alone."""
    return Cutter(ways_of_chain(builder, table, chain)).cut(["alone"])


def as_given(stages: Iterable[Stage], names: Sequence[str]) -> list[Stage]:
    """Stages of packets that bring their egress interface, where results show what they brought.

    Ops that differ in the interface only, and say nothing but which it is, become one: results need not tell them
    apart. An id stands for all of them.

    Args:
        names: interface names by id; "no interface" and lo are shown by themselves.
    """

    def alike(op: Op) -> tuple[object, ...] | None:
        tests = [t.tests for t in op.condition]
        by_itself = len(tests) == 1 and len(tests[0]) == 1 and tests[0][0][0] == Field("oif")
        if not by_itself or op.condition[0].unknown or op.oif is None or names[op.oif] in ("", "lo") or op.effects:
            return None
        return (op.act, op.chain, op.ref, op.counted, op.end, op.weight)

    found = []
    for stage in stages:
        blocks = {}
        for key, block in stage.blocks.items():
            ops: list[Op] = []
            for what, group in groupby(block.ops, key=alike):
                members = list(group)
                if what is not None and len(members) > 1:
                    ids = Values.of(i for op in members for i in op.condition[0].tests[0][1])
                    members = [replace(members[0], condition=test("oif", ids))]
                ops.extend(members)
            blocks[key] = replace(block, ops=tuple(ops))
        found.append(replace(stage, blocks=blocks))
    return found
