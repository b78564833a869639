"""Long runs of rules of which the first that matches ends the walk: segments.

Which rule of a segment matches first is a function of the packet alone, so it is one more field: its value is the
number of that rule, and a structure of its own finds it (``crossproduct.py``). In the stage, a segment is replaced by
one op for each *kind* of its rules, rules that do the same but for their ids and the addresses they write. What the
stage's diagram says of a kind holds for each of its rules, once the rule's own id, effects and place are put in
(:func:`expansion`).

Invariants: all conditions of a segment are decided (no unknown term), all its ops are counted rules that stop the walk
through their chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from fastpath.compiler.crossproduct import CrossProduct
from fastpath.compiler.fields import FALSE, Field, Values, test
from fastpath.compiler.machine import Alternative, Outcome
from fastpath.compiler.program import Act, Block, Effect, Op, Stage
from fastpath.kernels import codes

SHORTEST = 64
"""Rules of the shortest segment that is worth a structure of its own."""

STOPS = frozenset({Act.ACCEPT, Act.DROP, Act.REJECT, Act.RETURN, Act.GOTO, Act.UNDECIDED})
NAT = frozenset({codes.DST_NAT, codes.SRC_NAT, codes.DST_MAP, codes.SRC_MAP, codes.CHOICE})
MOST_KINDS = 64

OWN = -(1 << 40)
"""Operand of an effect of a kind: the rule's own stands there."""

_FIRST_MARK = -1000


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


def reduced(
    stage: Stage, first_number: int, build: Callable[[Sequence[Op]], CrossProduct | None], shortest: int = SHORTEST
) -> tuple[Stage, list[Segment]]:
    """A stage with its segments replaced by one op a kind, and the segments; runs for which `build` gives none stay."""
    segments: list[Segment] = []
    blocks: dict[str, Block] = {}
    for key, block in stage.blocks.items():
        ops: list[Op] = []
        at = 0
        while at < len(block.ops):
            end = at
            kinds: dict[tuple[object, ...], list[int]] = {}
            while end < len(block.ops) and _belongs(block.ops[end]):
                kind = _kind(block.ops[end])
                if kind not in kinds and len(kinds) == MOST_KINDS:
                    break
                kinds.setdefault(kind, []).append(end - at)
                end += 1
            product = build(block.ops[at:end]) if end - at >= shortest else None
            if product is None:
                ops.extend(block.ops[at:max(end, at + 1)])
                at = max(end, at + 1)
                continue
            number = first_number + len(segments)
            of_op = [0] * (end - at)
            for which, members in enumerate(kinds.values()):
                for member in members:
                    of_op[member] = which
            found = Segment(
                Field(f"segment:{number}"), block.ops[at:end], tuple(of_op), tuple(map(tuple, kinds.values())), number,
                product,
            )
            ops.extend(_op_of_kind(found, kind) for kind in range(len(found.kinds)))
            ops.append(Op(FALSE, weight=end - at))
            segments.append(found)
            at = end
        blocks[key] = replace(block, ops=tuple(ops)) if len(ops) != len(block.ops) else block
    return (replace(stage, blocks=blocks) if segments else stage), segments


def _op_of_kind(segment: Segment, kind: int) -> Op:
    like = segment.ops[segment.kinds[kind][0]]
    effects = tuple(Effect(e.code, OWN, segment.mark(kind), i) for i, e in enumerate(like.effects))
    holds = test(segment.field.base, Values.single(kind))
    return replace(like, condition=holds, ref=segment.mark(kind), effects=effects, weight=0)


Leaf: TypeAlias = tuple[Outcome, tuple[Alternative, ...]]


def ranked(leaf: Leaf, segments: list[Segment]) -> tuple[Segment, int] | None:
    """The segment and the kind on whose rule a leaf depends, None for none.

    Raises:
        ValueError: it depends on the rules of two segments.
    """
    found: set[int] = set()
    for outcome in (leaf[0], *(a.outcome for a in leaf[1])):
        found.update(ref for ref in outcome.path if ref <= _FIRST_MARK)
    if len(found) > 1:
        raise ValueError(leaf)
    for mark in found:
        number, kind = divmod(_FIRST_MARK - mark, MOST_KINDS)
        return next(s for s in segments if s.number == number), kind
    return None


@dataclass(frozen=True)
class Expansion:
    """A leaf for each of many rules that differ in their ids and places only.

    Attributes:
        first: the leaf as the diagram has it, with `mark` for the rule's id.
        ops, places: the rules, and where in the segment they stand.
    """

    first: Leaf
    mark: int
    ops: tuple[Op, ...]
    places: tuple[int, ...]


def expansion(leaf: Leaf, segment: Segment, kind: int) -> list[Leaf | Expansion]:
    """What a leaf says for each rule of a kind, in their order."""
    mark = segment.mark(kind)
    places = segment.kinds[kind]
    ops = tuple(segment.ops[place] for place in places)
    if not leaf[1] and not any(e.a == OWN for e in leaf[0].effects):
        return [Expansion(leaf, mark, ops, places)]

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
        for op, place in zip(ops, places, strict=True)
    ]
