"""Which structure finds what each stage does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastpath.compiler import crossproduct
from fastpath.compiler.classes import Partition
from fastpath.compiler.config import Config
from fastpath.compiler.crossproduct import CrossProduct
from fastpath.compiler.fields import Field
from fastpath.compiler.machine import Machine
from fastpath.compiler.program import Stage
from fastpath.compiler.segments import Run, Segment, reduced, runs
from fastpath.compiler.sizes import TooLargeError


@dataclass(frozen=True)
class Plan:
    """How a stage is to be looked up.

    Attributes:
        stage: the stage as it is.
        machine: the stage with its segments replaced.
        segments: what was replaced.
    """

    stage: Stage
    machine: Machine
    segments: list[Segment]


def plan(stages: Sequence[Stage], partitions: Mapping[Field, Partition], config: Config) -> list[Plan]:
    """One plan for each stage."""
    plans: list[Plan] = []
    number = 0
    for stage in stages:
        taken: dict[Run, CrossProduct] = {}
        if config.shortest is not None and not stage.linear:
            for run in runs(stage, config.shortest):
                with contextlib.suppress(TooLargeError):
                    taken[run] = crossproduct.build(stage.blocks[run.block].ops[run.start:run.end], partitions)
        short, segments = reduced(stage, number, taken)
        number += len(segments)
        plans.append(Plan(stage, Machine(short), segments))
    return plans
