"""From slopes to parameters: one linear system for all patterns of a back end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastpath.capacity.cpu.model import Fit
from fastpath.capacity.cpu.steps import Plan, Weights

LINES = "line"
"""The parameter of a line of 64 bytes of rules."""

SWITCH = "switch"
"""The parameter of a rule that is of another shape than the one before."""

TIE = 0.02
"""Weight of the wish that a test costs the same whether it fails or holds, where only one of both was measured."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one rule of a pattern cost.

    Attributes:
        name: the pattern's rule.
        weights: the parameters that explain it.
        ns: nanoseconds a rule.
        spread: half the distance between the quartiles, in nanoseconds.
    """

    name: str
    weights: Weights
    ns: float
    spread: float


def weights_of(plan: Plan, matches: bool, fails: str = "", then: Weights = ()) -> Weights:
    """What explains a pattern's rule: the tests that hold, the one that fails (the header test `fails`, else the last)
    or what a match does, and what follows behind a jump."""
    end = len(plan.steps) if matches else len(plan.steps) - 1
    if fails:
        end = next(i for i, step in enumerate(plan.steps) if step.name == fails)
    found = [w for step in plan.steps[:end] for w in step.pass_]
    found += [*plan.matched, *then] if matches else plan.steps[end].fail
    return (*found, (LINES, plan.bytes / 64))


def fit(observations: Sequence[Observation]) -> tuple[dict[str, float], tuple[float, ...], Fit]:
    """Parameters, none below zero, with the least sum of squared relative errors.

    Returns:
        The parameters by name, what they say of each observation, and how well they fit.
    """
    names = sorted({name for o in observations for name, _ in o.weights})
    index = {name: i for i, name in enumerate(names)}
    rows = np.zeros((len(observations), len(names)))
    for row, o in zip(rows, observations, strict=True):
        for name, weight in o.weights:
            row[index[name]] += weight
    wanted = np.array([o.ns for o in observations])
    scaled = rows / wanted[:, None]
    ties = []
    for name in names:
        if name.startswith("fail:") and f"pass:{name[5:]}" in index:
            tie = np.zeros(len(names))
            tie[index[name]], tie[index[f"pass:{name[5:]}"]] = TIE, -TIE
            ties.append(tie / max(1.0, float(np.median(wanted))) * 20)
    system = np.vstack([scaled, *ties]) if ties else scaled
    target = np.concatenate([np.ones(len(observations)), np.zeros(len(ties))])
    values = non_negative(system, target)
    explained = rows @ values
    errors = np.abs(explained - wanted) / wanted
    worst = int(np.argmax(errors))
    quality = Fit(len(observations), float(np.median(errors)), float(errors[worst]), observations[worst].name,
                  float(np.median([o.spread / o.ns for o in observations])))
    return {name: float(v) for name, v in zip(names, values, strict=True)}, tuple(explained.tolist()), quality


def non_negative(system: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares with no unknown below zero: those that want to be are taken out, one after the other."""
    active = np.ones(system.shape[1], bool)
    while True:
        found = np.zeros(system.shape[1])
        found[active] = np.linalg.lstsq(system[:, active], target, rcond=1e-10)[0]
        lowest = int(np.argmin(found))
        if found[lowest] >= -1e-9:
            return np.maximum(found, 0.0)
        active[lowest] = False
