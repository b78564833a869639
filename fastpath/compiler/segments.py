"""Long runs of rules of which the first that matches ends the walk: segments.

Which rule of a segment matches first is a function of the packet alone, so it is one more field: its value is the
number of that rule, and a structure of its own finds it (``crossproduct.py``). In the stage, a segment is replaced by
one op for each *kind* of its rules, rules that do the same but for their ids and the addresses they write. What the
stage's diagram says of a kind holds for each of its rules, once the rule's own id, effects and place are put in
(:func:`expansion`).

Invariants: all conditions of a segment are decided (no unknown term), all its ops are counted rules that stop the walk
through their chain, and no walk through a stage matches rules of two segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fastpath.compiler.crossproduct import CrossProduct
from fastpath.compiler.fields import FALSE, Field, Values, test
from fastpath.compiler.machine import Alternative, Outcome
from fastpath.compiler.program import Act, Effect, Op, Stage
from fastpath.kernels import codes

STOPS = frozenset({Act.ACCEPT, Act.DROP, Act.REJECT, Act.RETURN, Act.GOTO, Act.UNDECIDED})
NAT = frozenset({codes.DST_NAT, codes.SRC_NAT, codes.DST_MAP, codes.SRC_MAP, codes.CHOICE})
MOST_KINDS = 64
MOST_RUNS = 16
"""Segments of a stage: more would only slow it down. Where rules are undecided there is but one, because what happens
if they match may depend on another segment than what happens if they do not."""


OWN = -(1 << 40)
"""Operand of an effect of a kind: the rule's own stands there."""

_FIRST_MARK = -1000

Matched: TypeAlias = frozenset[frozenset[int]]
"""Sets of runs of which rules may have matched by then."""


@dataclass(frozen=True)
class Segment:
    """A run of rules.

    Attributes:
        field: the field whose value is the kind of the first rule that matches, ``len(kinds)`` for none.
        ops: its rules.
        kind_of: kind of every rule.
        kinds: the rules of each kind, by their place in ``ops``.
        number: which of the host's segments it is.
        product: the structure that finds the rule.
    """

    field: Field
    ops: tuple[Op, ...]
    kind_of: tuple[int, ...]
    kinds: tuple[tuple[int, ...], ...]
    number: int
    product: CrossProduct

    @cached_property
    def refs(self) -> npt.NDArray[np.int64]:
        """Ids of its rules."""
        return np.array([op.ref for op in self.ops], np.int64)

    def mark(self, kind: int) -> int:
        """The id that stands for those of the kind's rules."""
        return _FIRST_MARK - self.number * MOST_KINDS - kind


def _belongs(op: Op) -> bool:
    return (
        op.counted and op.act in STOPS and op.oif is None and all(e.code in NAT for e in op.effects)
        and not any(t.unknown for t in op.condition)
    )


def _kind(op: Op) -> tuple[object, ...]:
    return (op.act, op.chain, op.end, tuple(e.code for e in op.effects))


@dataclass(frozen=True)
class Run:
    """Where a segment may stand: ops `start` to `end` of a block."""

    block: str
    start: int
    end: int


def runs(stage: Stage, shortest: int) -> list[Run]:
    """Runs of at least `shortest` rules that may be segments, of which no walk meets two; the longest ones first."""
    found: list[Run] = []
    for key, block in stage.blocks.items():
        at = 0
        while at < len(block.ops):
            end = at
            kinds: set[tuple[object, ...]] = set()
            while end < len(block.ops) and _belongs(block.ops[end]):
                kinds.add(_kind(block.ops[end]))
                if len(kinds) > MOST_KINDS:
                    break
                end += 1
            if end - at >= shortest and end > at:
                found.append(Run(key, at, end))
            at = max(end, at + 1)
    found.sort(key=lambda run: run.start - run.end)
    undecided = any(
        term.unknown for block in stage.blocks.values() for op in block.ops if op.act is not Act.NEXT or op.effects
        for term in op.condition
    )
    taken = found[:1 if undecided else MOST_RUNS]
    while taken:
        pairs = _meetings(stage, taken)
        if not pairs:
            break
        del taken[max(max(pair) for pair in pairs)]
    return taken


def _meetings(stage: Stage, taken: Sequence[Run]) -> set[frozenset[int]]:
    """Pairs of runs whose rules one walk may match, whatever its conditions."""
    nothing: Matched = frozenset({frozenset()})
    pairs: set[frozenset[int]] = set()
    number = {(run.block, at): i for i, run in enumerate(taken) for at in range(run.start, run.end)}
    walked: dict[str, tuple[Matched, Matched, Matched]] = {}

    def joined(a: Matched, b: Matched) -> Matched:
        found = {x | y for x in a for y in b}
        pairs.update(x for x in found if len(x) > 1)
        return frozenset(x for x in found if len(x) <= 1)

    def walk(key: str) -> tuple[Matched, Matched, Matched]:
        """What may have matched where the walk falls out of a block, where it is accepted in it, where it ends."""
        if key in walked:
            return walked[key]
        here = nothing
        falls: Matched = frozenset()
        accepts: Matched = frozenset()
        ends: Matched = frozenset()
        for at, op in enumerate(stage.blocks[key].ops):
            own = number.get((key, at))
            there = here if own is None else joined(here, frozenset({frozenset({own})}))
            if op.act is Act.ACCEPT:
                accepts |= there
            elif op.act is Act.RETURN:
                falls |= there
            elif op.act in (Act.JUMP, Act.GOTO, Act.CALL):
                sub_falls, sub_accepts, sub_ends = (joined(there, x) for x in walk(op.chain))
                ends |= sub_ends
                if op.act is Act.CALL:
                    here |= sub_falls | sub_accepts
                elif op.act is Act.JUMP:
                    here |= sub_falls
                    accepts |= sub_accepts
                else:
                    falls |= sub_falls
                    accepts |= sub_accepts
            elif op.act is not Act.NEXT:
                ends |= there
        walked[key] = (falls | here, accepts, ends)
        return walked[key]

    walk(stage.root)
    return pairs


def reduced(stage: Stage, first_number: int, taken: Mapping[Run, CrossProduct]) -> tuple[Stage, list[Segment]]:
    """A stage with the runs that are `taken` replaced by one op a kind, and the segments."""
    segments: list[Segment] = []
    blocks = dict(stage.blocks)
    for run, product in sorted(taken.items(), key=lambda item: (item[0].block, -item[0].start)):
        ops = stage.blocks[run.block].ops[run.start:run.end]
        kinds: dict[tuple[object, ...], list[int]] = {}
        of_op = []
        for place, op in enumerate(ops):
            members = kinds.setdefault(_kind(op), [])
            members.append(place)
        of_op = [0] * len(ops)
        for which, members in enumerate(kinds.values()):
            for member in members:
                of_op[member] = which
        number = first_number + len(segments)
        found = Segment(
            Field(f"segment:{number}"), ops, tuple(of_op), tuple(map(tuple, kinds.values())), number, product)
        stand_in = [*(_op_of_kind(found, kind) for kind in range(len(kinds))), Op(FALSE, weight=len(ops))]
        block = blocks[run.block]
        blocks[run.block] = replace(block, ops=(*block.ops[:run.start], *stand_in, *block.ops[run.end:]))
        segments.append(found)
    return (replace(stage, blocks=blocks) if segments else stage), segments


def _op_of_kind(segment: Segment, kind: int) -> Op:
    like = segment.ops[segment.kinds[kind][0]]
    effects = tuple(Effect(e.code, OWN, segment.mark(kind), i) for i, e in enumerate(like.effects))
    holds = test(segment.field.base, Values.single(kind))
    return replace(like, condition=holds, ref=segment.mark(kind), effects=effects, weight=0)


Leaf: TypeAlias = tuple[Outcome, tuple[Alternative, ...]]


def ranked(leaf: Leaf, segments: Sequence[Segment]) -> tuple[Segment, int] | None:
    """The segment and the kind on whose rule a leaf depends, None for none."""
    found: set[int] = set()
    for outcome in (leaf[0], *(a.outcome for a in leaf[1])):
        found.update(ref for ref in outcome.path if ref <= _FIRST_MARK)
    assert len(found) <= 1, leaf
    for mark in found:
        number, kind = divmod(_FIRST_MARK - mark, MOST_KINDS)
        return next(s for s in segments if s.number == number), kind
    return None


@dataclass(frozen=True)
class Expansion:
    """A leaf for each of many rules that differ in their ids and places only.

    Attributes:
        first: the leaf as the diagram has it, with `mark` for the rule's id.
        refs, places: ids of the rules, and where in the segment they stand; int64.
    """

    first: Leaf
    mark: int
    refs: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]


def expansion(
    leaf: Leaf, segment: Segment, kind: int, places: npt.NDArray[np.int64]
) -> list[Leaf | Expansion]:
    """What a leaf says for each of the rules of a kind at `places`, in their order."""
    mark = segment.mark(kind)
    if not leaf[1] and not any(e.a == OWN for e in leaf[0].effects):
        return [Expansion(leaf, mark, segment.refs[places], places)]

    def own(outcome: Outcome, op: Op, place: int) -> Outcome:
        if mark not in outcome.path:
            return outcome
        effects = tuple(op.effects[e.c] if e.a == OWN and e.b == mark else e for e in outcome.effects)
        return Outcome(
            outcome.verdict, outcome.hook, outcome.stage, op.ref if outcome.rule == mark else outcome.rule,
            outcome.oif, effects, outcome.walked + (place + 1) * outcome.path.count(mark),
            tuple(op.ref if ref == mark else ref for ref in outcome.path),
        )

    return [
        (own(leaf[0], op, place), tuple(
            Alternative(a.rule, a.hook, a.alone, own(a.outcome, op, place)) for a in leaf[1]))
        for place in places.tolist() for op in [segment.ops[place]]
    ]
