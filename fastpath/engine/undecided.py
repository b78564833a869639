"""Packets whose fate depends on undecided rules.

A plain pass lets no undecided rule match. Every packet that met one is then tried with choices: first each undecided
rule of its way alone, in walking order, and the first that changes the fate is named; then combinations, only for
packets that no single rule changes. What differs in verdict, hook, egress, tuple or mark is UNDECIDED.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastpath.compiler.tables import Compiled
from fastpath.engine.runner import Array, Run, Runner
from fastpath.kernels.codes import R_VERDICT
from fastpath.kernels.layout import ACT_UNDECIDED, O_ACT, O_VERDICT
from fastpath.packets.batch import PacketBatch
from fastpath.packets.schema import Verdict

MAX_TRIES = 4096
"""Combinations tried for a batch before the packets still open are UNDECIDED for good."""

MAX_LINEAR = 62
"""Undecided rules that a linear walk can be forced through."""

FATE = ("verdict", "hook", "oif", "src", "dst", "sport", "dport", "mark")


def may_be_undecided(compiled: Compiled) -> bool:
    """True where some packet may meet an undecided rule."""
    return bool(compiled.arrays["alternatives"].any()) or bool(compiled.arrays["terms"][:, 2].any())


def may_end_undecided(compiled: Compiled) -> bool:
    """True where some packet's verdict may be UNDECIDED: by a choice, or by reaching a target nobody can tell."""
    if may_be_undecided(compiled):
        return True
    if bool((compiled.arrays["records"][:, R_VERDICT] == Verdict.UNDECIDED).any()):
        return True
    ops = compiled.arrays["ops"]
    return bool(((ops[:, O_ACT] == ACT_UNDECIDED) | (ops[:, O_VERDICT] == Verdict.UNDECIDED)).any())


@dataclass(frozen=True)
class Try:
    """A combination of choices (``force[stage]`` as the kernel takes it) for some packets."""

    rows: Array
    force: tuple[int, ...]


class Chooser:
    """Tries the choices of one plain run and marks its UNDECIDED packets in place."""

    def __init__(
        self, compiled: Compiled, packets: PacketBatch, interfaces: list[str], plain: Run, rules: int,
        threads: int | None,
    ) -> None:
        self.compiled, self.packets, self.interfaces, self.plain = compiled, packets, interfaces, plain
        self.rules, self.threads = rules, threads
        self.stages = len(compiled.stages)
        self.linear = [s == "linear" for s in compiled.structures]
        met = (plain.choices > 0).any(axis=0)
        self.open = np.flatnonzero(met & (plain.columns["verdict"] != Verdict.UNDECIDED))

    def run(self) -> None:
        """Marks every packet whose fate is undecided."""
        left: list[list[Try]] = [[] for _ in range(self.stages)]
        for stage in range(self.stages):
            choice = 1
            while len(rows := self.open[self.plain.choices[stage, self.open] & 0xFFFF >= choice]):
                if self.linear[stage] and choice > MAX_LINEAR:
                    self.give_up(rows)
                    break
                trial = Try(rows, self.forced((0,) * self.stages, stage, choice))
                differs, _ = self.attempt(trial)
                left[stage].append(Try(rows[~differs], trial.force))
                choice += 1
        for stage in range(self.stages):
            self.combinations(left[stage] + (self.combined(stage) if not self.linear[stage] else []))

    def combined(self, stage: int) -> list[Try]:
        """The choices of a diagram's records that take more than one undecided rule."""
        counts = self.plain.choices[stage, self.open]
        found = []
        for choice in range(1, int((counts >> 16).max(initial=0)) + 1):
            which = (counts >> 16 >= choice) & (counts & 0xFFFF < choice)
            if which.any():
                found.append(Try(self.open[which], self.forced((0,) * self.stages, stage, choice)))
        return found

    def combinations(self, pending: list[Try]) -> None:
        """Depth-first search through what follows each choice."""
        tried = 0
        while pending and len(self.open):
            trial = pending.pop(0)
            rows = np.intersect1d(trial.rows, self.open)
            if not len(rows):
                continue
            tried += 1
            if tried > MAX_TRIES:
                self.give_up(np.unique(np.concatenate([rows, *(np.intersect1d(t.rows, self.open) for t in pending)])))
                return
            differs, run = self.attempt(Try(rows, trial.force))
            pending[:0] = self.following(Try(rows, trial.force), run, ~differs)

    def following(self, trial: Try, run: Run, left: Array) -> list[Try]:
        """The combinations that add one choice behind those of `trial`."""
        found = []
        for stage in range(self.stages):
            behind = not any(trial.force[stage + 1:])
            if not behind or (trial.force[stage] and not self.linear[stage]):
                continue
            most = int((run.choices[stage, left] >> 16).max(initial=0))
            for choice in range(trial.force[stage].bit_length() + 1, min(most, MAX_LINEAR) + 1):
                which = left & (run.choices[stage] >> 16 >= choice)
                if which.any():
                    found.append(Try(trial.rows[which], self.forced(trial.force, stage, choice)))
        return found

    def forced(self, force: tuple[int, ...], stage: int, choice: int) -> tuple[int, ...]:
        """`force` with a choice added at a stage."""
        value = force[stage] | 1 << (choice - 1) if self.linear[stage] else choice
        return (*force[:stage], value, *force[stage + 1:])

    def attempt(self, trial: Try) -> tuple[Array, Run]:
        """Evaluates a combination and marks the packets that it leads elsewhere -> (which those are, the run)."""
        run = self.forced_run(trial)
        differs = np.zeros(len(trial.rows), bool)
        for name in FATE:
            differs |= run.columns[name] != self.plain.columns[name][trial.rows]
        self.mark(trial.rows, run, differs)
        return differs, run

    def forced_run(self, trial: Try) -> Run:
        """The kernel's answer with choices forced."""
        force = np.zeros((max(2, self.stages), len(trial.rows)), np.int64)
        force[:self.stages] = np.array(trial.force, np.int64)[:, None]
        runner = Runner(self.compiled, self.packets.take(trial.rows), self.interfaces, self.rules)
        return runner.run(self.threads, lambda _: None, trying=True, force=force)

    def mark(self, rows: Array, run: Run, which: Array) -> None:
        """Makes the chosen ones of `rows` UNDECIDED by the rule that the run was forced at first."""
        chosen = rows[which]
        columns = self.plain.columns
        columns["verdict"][chosen] = Verdict.UNDECIDED
        columns["rule"][chosen] = run.forced_rule[which]
        columns["hook"][chosen] = run.forced_hook[which]
        self.open = np.setdiff1d(self.open, chosen)

    def give_up(self, rows: Array) -> None:
        """Marks packets as UNDECIDED that were not tried to the end, with the first undecided rule of their way."""
        for stage in range(self.stages):
            here = np.intersect1d(rows, self.open)
            here = here[self.plain.choices[stage, here] > 0]
            if len(here):
                run = self.forced_run(Try(here, self.forced((0,) * self.stages, stage, 1)))
                self.mark(here, run, np.ones(len(here), bool))
