"""Which structure finds what each stage does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fastpath.compiler import candidates, crossproduct
from fastpath.compiler.classes import Partition
from fastpath.compiler.config import Config
from fastpath.compiler.crossproduct import CrossProduct, Terms
from fastpath.compiler.estimate import cost
from fastpath.compiler.fields import Field
from fastpath.compiler.machine import Machine
from fastpath.compiler.program import Op, Stage
from fastpath.compiler.segments import Run, Segment, reduced, runs
from fastpath.compiler.sizes import TooLargeError

MOST_TERMS = 5000
"""Terms of a stage above which no diagram is attempted."""


MOST_PLAIN = 3000
"""Terms of a stage with segments above which no diagram without them is tried."""

GRID_PART = 16
"""Part of ``Config.max_table_bytes`` that is cells of a grid."""

FAST, MANY_OPS = 10.0, 5000
"""Nanoseconds a packet up to which candidates for so many ops are taken without a look at a cross product."""

SLOW = 20.0
"""Nanoseconds a packet from which on a cross product in several groups is tried too, which takes longer to build."""


@dataclass(frozen=True)
class Plan:
    """How a stage is to be looked up.

    Attributes:
        stage: the stage as it is.
        machine: the stage with its segments replaced.
        runs: where segments may be taken.
        segments: what was replaced.
        diagram: a diagram of the machine is to be tried.
    """

    stage: Stage
    machine: Machine
    runs: tuple[Run, ...] = ()
    segments: tuple[Segment, ...] = ()
    diagram: bool = False

    def with_segments(self, number: int, partitions: Mapping[Field, Partition], config: Config) -> Plan:
        """The plan with what can be taken out taken out; segments are numbered from `number`."""
        taken: dict[Run, CrossProduct] = {}
        for run in self.runs:
            with contextlib.suppress(TooLargeError):
                taken[run] = first_match(self.stage.blocks[run.block].ops[run.start:run.end], partitions, config)
        if not taken:
            return self
        short, segments = reduced(self.stage, number, taken)
        return replace(self, machine=Machine(short), segments=tuple(segments))


def first_match(ops: Sequence[Op], partitions: Mapping[Field, Partition], config: Config) -> CrossProduct:
    """What finds the first of a segment's ops that matches.

    Raises:
        TooLargeError: nothing can within the limits.
    """
    cells, most = config.max_table_bytes // GRID_PART, config.max_table_bytes // 2
    if config.structure == "candidates":
        with contextlib.suppress(TooLargeError):
            return candidates.build(Terms(ops, partitions, least=0), cells)
    terms = Terms(ops, partitions)
    if config.structure is not None:
        return crossproduct.build(terms)
    built: list[CrossProduct] = []
    with contextlib.suppress(TooLargeError):
        built.append(candidates.build(terms, cells))
    if not built or len(ops) < MANY_OPS or cost(built[0], most) > FAST:
        with contextlib.suppress(TooLargeError):
            built.append(crossproduct.together(terms))
    if not built or min(cost(found, most) for found in built) > SLOW:
        with contextlib.suppress(TooLargeError):
            built.append(crossproduct.apart(terms))
    if not built:
        raise TooLargeError
    return min(built, key=lambda found: cost(found, most))


def plan(stages: Sequence[Stage], config: Config) -> list[Plan]:
    """One plan for each stage, without segments as yet."""
    plans: list[Plan] = []
    for stage in stages:
        if stage.linear or config.structure == "linear":
            plans.append(Plan(stage, Machine(stage)))
            continue
        found = tuple(runs(stage, config.shortest)) if config.shortest is not None else ()
        terms = sum(len(op.condition) for block in stage.blocks.values() for op in block.ops)
        tried = terms <= (MOST_PLAIN if found else MOST_TERMS) and not (found and config.structure is not None)
        plans.append(Plan(stage, Machine(stage), found, (), tried))
    return plans
