"""Which packets can tell two hosts apart at all.

Two hosts whose rules are mostly the same are walked as one: chains are laid side by side, rule by rule, and what both
have in common is followed once. A packet that matches a rule which only one of them has, or falls to a policy that
differs, is *affected* and followed no further; any other passes the same rules on both and has the same fate. So the
hosts themselves need to be walked with the affected packets only, and nothing at all behind the last place at which
they differ.

Safe direction: a packet that is taken for affected costs time; one that is not though it is would be a wrong answer.
Rules count as common only if they are the same op in every respect (but for the rule's id).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from difflib import SequenceMatcher

from fastpath.compiler.flow import Step, Ways
from fastpath.compiler.program import Act, Block, Op
from fastpath.symbolic.header import Header, Origin
from fastpath.symbolic.walk import ORDER, Live, Sets, Walker

Names = Mapping[int, object]
"""What rules are told apart by, beside what they do: by rule id."""


class Merged:
    """The ways of two hosts as one.

    Attributes:
        ways: the steps and ops of both, in an order that is right for either.
        differing: ids (``id()``) of ops that only one host has.
        policies: ids of blocks whose policies differ.
        unmatched: keys of steps that only one host has, or that begin differently.
    """

    def __init__(self, first: Ways, second: Ways, names: tuple[Names, Names] | None) -> None:
        self.names = names
        self.differing: set[int] = set()
        self.policies: set[int] = set()
        self.unmatched: set[str] = set()
        self._numbers: dict[object, int] = {}
        self._kept: list[object] = []
        self.ways = Ways({}, dict(first.ends))
        self.same_ends = first.ends == second.ends and set(first.steps) == set(second.steps)
        if self.same_ends:
            for way in first.steps:
                self.ways.steps[way] = self._steps(first.steps[way], second.steps[way])
            self._cut()

    # ---------------------------------------------------------------------------------------- side by side

    def _steps(self, first: list[Step], second: list[Step]) -> list[Step]:
        """The steps of a way: those of one host alone are marked."""
        mine, other = ([s.key for s in steps] for steps in (first, second))
        merged: list[Step] = []
        for what, a0, a1, b0, b1 in SequenceMatcher(None, mine, other, autojunk=False).get_opcodes():
            if what != "equal":
                for step in (*first[a0:a1], *second[b0:b1]):
                    merged.append(self._alone(step))
                continue
            for ours, theirs in zip(first[a0:a1], second[b0:b1], strict=True):
                if ours.guard != theirs.guard or ours.to != theirs.to:
                    merged.append(self._alone(ours))
                else:
                    merged.append(self._step(ours, theirs))
        return merged

    def _alone(self, step: Step) -> Step:
        marked = replace(step, key=f"{step.key}!", blocks={f"{step.key}!": step.blocks[step.key]})
        self.unmatched.add(marked.key)
        return marked

    def _step(self, ours: Step, theirs: Step) -> Step:
        blocks = {}
        for key, block in ours.blocks.items():
            other = theirs.blocks.get(key)
            blocks[key] = block if other is None else self._block(block, other)
        for key, block in theirs.blocks.items():
            blocks.setdefault(key, block)
        return replace(ours, blocks=blocks)

    def _block(self, ours: Block, theirs: Block) -> Block:
        mine, other = ([self._number(op, side) for op in b.ops] for side, b in enumerate((ours, theirs)))
        same_ending = (ours.policy, ours.hook, ours.decides) == (theirs.policy, theirs.hook, theirs.decides)
        if same_ending and self.names is not None and ours.policy is not None:
            same_ending = self.names[0].get(ours.policy_ref) == self.names[1].get(theirs.policy_ref)
        if mine == other and same_ending:
            return ours
        start = 0
        while start < min(len(mine), len(other)) and mine[start] == other[start]:
            start += 1
        ops = list(ours.ops[:start])
        for what, a0, a1, b0, b1 in SequenceMatcher(None, mine[start:], other[start:], autojunk=False).get_opcodes():
            if what == "equal":
                ops += ours.ops[start + a0:start + a1]
                continue
            for op in (*ours.ops[start + a0:start + a1], *theirs.ops[start + b0:start + b1]):
                if op.act is not Act.NEXT or op.effects or op.oif is not None:
                    ops.append(op)
                    self.differing.add(id(op))
        merged = replace(ours, ops=tuple(ops))
        if not same_ending:
            self.policies.add(id(merged))
        self._kept += [merged, ours, theirs]
        return merged

    def _number(self, op: Op, side: int) -> int:
        """A number for all that an op does; the name of its rule counts where rules are told apart."""
        name = None if self.names is None or op.ref < 0 else self.names[side].get(op.ref)
        key = (op.condition, op.act, op.chain, op.counted, op.effects, op.end, op.oif, name)
        return self._numbers.setdefault(key, len(self._numbers))

    # ------------------------------------------------------------------------------------ only as far as needed

    def _cut(self) -> None:
        """Leaves out what no difference stands behind."""
        needed: dict[str, bool] = {}
        for way in reversed(ORDER):
            steps = self.ways.steps.get(way)
            if steps is None:
                continue
            last = -1
            for index, step in enumerate(steps):
                if self._differs(step) or any(needed.get(to, False) for to in _onward(step)):
                    last = index
            needed[way] = last >= 0
            kept = steps[:last + 1]
            if kept and not any(needed.get(to, False) for to in _onward(kept[-1])):
                kept[-1] = self._tail(kept[-1])
            self.ways.steps[way] = kept
            self.ways.ends.pop(way, None)

    def _interesting(self, step: Step) -> set[str]:
        """The blocks from which an op that differs can be reached."""
        found = {
            key for key, b in step.blocks.items()
            if id(b) in self.policies or any(id(op) in self.differing for op in b.ops)
        }
        while True:
            more = {
                key for key, b in step.blocks.items() if key not in found and any(op.chain in found for op in b.ops)
            }
            if not more:
                return found
            found |= more

    def _differs(self, step: Step) -> bool:
        return step.key in self.unmatched or step.key in self._interesting(step)

    def _tail(self, step: Step) -> Step:
        """A step behind which nothing differs: chains end with their last op that leads to a difference."""
        interesting = self._interesting(step)
        if step.key in self.unmatched or any(id(step.blocks[key]) in self.policies for key in interesting):
            return step
        blocks = dict(step.blocks)

        def cut(key: str, name: str) -> None:
            block = step.blocks[key]
            last = max(i for i, op in enumerate(block.ops) if id(op) in self.differing or op.chain in interesting)
            ops = list(block.ops[:last + 1])
            below = ops[-1].chain
            if id(ops[-1]) not in self.differing and below in interesting:
                ops[-1] = replace(ops[-1], chain=f"{below}!")
                if f"{below}!" not in blocks:
                    cut(below, f"{below}!")
            blocks[name] = replace(block, ops=tuple(ops))

        cut(step.key, step.key)
        return replace(step, blocks=blocks)


def _onward(step: Step) -> set[str]:
    """The ways that a step leads to."""
    ends = (op.end for b in step.blocks.values() for op in b.ops if op.end is not None)
    return {end.stage for end in ends if end.stage is not None}


class Together(Walker):
    """Walks two hosts at once; what tells them apart is taken out and kept."""

    def __init__(self, origin: Origin, merged: Merged) -> None:
        super().__init__(origin, merged.ways)
        self.merged = merged
        self.affected: list[int] = []

    def _step(self, step: Step, sets: Sets, path: tuple[int, ...]) -> Sets:
        if step.key in self.merged.unmatched:
            self.affected += sets.values()
            return {}
        return super()._step(step, sets, path)

    def _split(self, op: Op, block: Block, live: Live, present: int, path: tuple[int, ...]) -> tuple[int, int]:
        if id(op) not in self.merged.differing:
            return super()._split(op, block, live, present, path)
        leaving = self.store.either(live.sure, live.perhaps)
        self.affected.append(self.store.both(present, leaving))
        return 0, self.store.without(present, leaving)

    def _policy(
        self, root: Block, header: Header, parts: list[int], returned: int, onward: dict[Header, list[int]]
    ) -> None:
        if id(root) in self.merged.policies:
            self.affected += parts
        else:
            super()._policy(root, header, parts, returned, onward)


def affected(
    origins: tuple[Origin, Origin], ways: tuple[Ways, Ways], entries: Mapping[str, int],
    names: tuple[Names, Names] | None,
) -> int:
    """The headers that two hosts of one space may treat differently, as a diagram.

    Args:
        origins: the headers as they arrive.
        ways: the hosts' programs.
        entries: the sets that go in, by way.
        names: names of the rules by id, where rules with other names count as different.
    """
    store = origins[0].store
    everything = store.any_of(entries.values())
    merged = Merged(*ways, names)
    if not merged.same_ends or origins[0].loose != origins[1].loose:
        return everything
    together = Together(origins[0], merged)
    waiting: dict[str, int] = defaultdict(int)
    waiting.update({way: here for way, here in entries.items() if merged.ways.steps[way]})
    walked = together.run(waiting)
    return store.some(store.any_of(together.affected), [m.variable for m in walked.meetings.values()])
