"""The records of leaves: what happens to the packets that come to one, a row of numbers each, and the rules they count.

A leaf that depends on a segment's rule is one record for each rule, which differ in ids and places only; there may be
hundreds of thousands, so they are made as whole arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fastpath.compiler.classes import Partition
from fastpath.compiler.fields import Field
from fastpath.compiler.interfaces import NONE
from fastpath.compiler.machine import Outcome
from fastpath.compiler.program import Effect
from fastpath.compiler.segments import Expansion, Leaf
from fastpath.kernels import codes
from fastpath.kernels.layout import AFFECTED, Q_COLUMNS, Q_END, Q_OIF, Q_RULE, Q_WALKED
from fastpath.packets.schema import Hook, Verdict

Rows = npt.NDArray[np.int32]


@dataclass
class EffectPool:
    """Effects of records and ops, and the addresses that NAT writes; equal ones are there once."""

    effects: list[list[int]] = field(default_factory=list)
    at: dict[tuple[Effect, ...], int] = field(default_factory=dict)
    pool: dict[int, int] = field(default_factory=dict)

    def address(self, value: int) -> int:
        """The place of an address."""
        return self.pool.setdefault(value, len(self.pool))

    def add(self, effects: tuple[Effect, ...]) -> int:
        """The place of the first of some effects."""
        if effects not in self.at:
            self.at[effects] = len(self.effects)
            for e in effects:
                a, b = e.a, e.b
                if e.code in (codes.DST_NAT, codes.SRC_NAT) and a >= 0:
                    a, b = self.address(a), self.address(b)
                self.effects.append([e.code, a, b, e.c])
        return self.at[effects]


class Records:
    """Collects records, stage by stage.

    Attributes:
        alternatives: rows of alternatives: record, rule, hook, whether it takes one undecided rule only.
    """

    def __init__(self, effects: EffectPool) -> None:
        self.effects = effects
        self.count = 0
        self.alternatives: list[list[int]] = []
        self._rows: list[Rows] = []
        self._stages: list[tuple[int, int]] = []
        self._lengths: list[npt.NDArray[np.int64]] = []
        self._paths: list[Rows] = []
        self._single: list[list[int]] = []
        self._single_paths: list[tuple[int, ...]] = []

    def add_stage(
        self, leaves: Sequence[Leaf | Expansion], stage: int, stage_index: Mapping[str, int],
        partitions: Mapping[Field, Partition],
    ) -> Rows:
        """The records of a stage's leaves, in their order, with those of their alternatives behind them."""
        first = len(self._rows)
        begin = self.count
        at = begin + sum(len(entry.refs) if isinstance(entry, Expansion) else 1 for entry in leaves)
        waiting: list[Outcome] = []
        for entry in leaves:
            if isinstance(entry, Expansion):
                self._expand(entry, self._row(entry.first[0], stage_index, partitions))
                continue
            row = self._row(entry[0], stage_index, partitions)
            if entry[1]:
                row[codes.R_ALT], row[codes.R_ALTS] = len(self.alternatives), len(entry[1])
                row[codes.R_ALONE] = sum(a.alone for a in entry[1])
                for a in entry[1]:
                    self.alternatives.append([at + len(waiting), a.rule, int(a.hook), int(a.alone)])
                    waiting.append(a.outcome)
            self._add(row, entry[0].path)
        for outcome in waiting:
            self._add(self._row(outcome, stage_index, partitions), outcome.path)
        self._flush()
        self._stages.append((stage, self.count - begin))
        rows = self._rows[first:]
        return np.concatenate(rows) if rows else np.zeros((0, codes.R_COLUMNS), np.int32)

    def arrays(self) -> tuple[Rows, npt.NDArray[np.int64], Rows, Rows]:
        """(records, where each one's rules begin, rules of all, stage of each)."""
        if not self.count:
            none = np.zeros(0, np.int32)
            return np.zeros((1, codes.R_COLUMNS), np.int32), np.zeros(1, np.int64), none, none
        starts = np.concatenate([np.zeros(1, np.int64), *self._lengths])
        stages, counts = zip(*self._stages, strict=True)
        return (
            np.concatenate(self._rows), np.cumsum(starts), np.concatenate(self._paths),
            np.repeat(np.array(stages, np.int32), np.array(counts, np.int64)),
        )

    def _add(self, row: list[int], path: tuple[int, ...]) -> None:
        self._single.append(row)
        self._single_paths.append(path)
        self.count += 1

    def _flush(self) -> None:
        if self._single:
            self._rows.append(np.array(self._single, np.int32))
            self._lengths.append(np.array([len(p) for p in self._single_paths], np.int64))
            self._paths.append(np.array([ref for path in self._single_paths for ref in path], np.int32))
            self._single, self._single_paths = [], []

    def _expand(self, entry: Expansion, like: list[int]) -> None:
        """Records that are like one but for ids and places."""
        self._flush()
        outcome, n = entry.first[0], len(entry.refs)
        rows = np.empty((n, codes.R_COLUMNS), np.int32)
        rows[:] = like
        rows[:, codes.R_WALKED] = outcome.walked + (entry.places + 1) * outcome.path.count(entry.mark)
        if outcome.rule == entry.mark:
            rows[:, codes.R_RULE] = entry.refs
        paths = np.empty((n, len(outcome.path)), np.int32)
        for column, ref in enumerate(outcome.path):
            paths[:, column] = entry.refs if ref == entry.mark else ref
        self._rows.append(rows)
        self._lengths.append(np.full(n, len(outcome.path), np.int64))
        self._paths.append(paths.reshape(-1))
        self.count += n

    def _row(self, o: Outcome, stage_index: Mapping[str, int], partitions: Mapping[Field, Partition]) -> list[int]:
        row = [0] * codes.R_COLUMNS
        row[codes.R_NEXT] = codes.FINAL if o.stage is None else stage_index[o.stage]
        row[codes.R_VERDICT], row[codes.R_HOOK] = int(o.verdict), int(o.hook)
        row[codes.R_RULE] = codes.KEEP_RULE if o.rule is None else o.rule
        forgets = o.stage is None and (o.hook < Hook.FORWARD or o.verdict is Verdict.UNDECIDED)
        row[codes.R_OIF], row[codes.R_WALKED] = NONE if forgets else o.oif, o.walked
        if o.effects:
            row[codes.R_EFFECTS] = len(o.effects)
            fast = _fast_dnat(o.effects, partitions, self.effects)
            if fast is not None:
                row[codes.R_FAST] = 1
                row[codes.R_DST:codes.R_DPORT_CLASS + 1] = fast
            elif o.stage is None and (constant := _constant_nat(o.effects, codes.SRC_NAT)) and constant[1] < 0:
                row[codes.R_FAST] = 2
                row[codes.R_DST] = self.effects.address(constant[0])
            else:
                row[codes.R_EFFECT] = self.effects.add(o.effects)
        return row


def _constant_nat(effects: tuple[Effect, ...], code: int) -> tuple[int, int] | None:
    """(address, port or -1) where the effects are NAT to one address and at most one port, and nothing else."""
    if len(effects) != 1 or effects[0].code != code:
        return None
    first, last, packed = effects[0].a, effects[0].b, effects[0].c
    low, high = packed & 0xFFFF, packed >> 16 & 0xFFFF
    if first < 0 or first != last or packed & (codes.RANDOM | codes.HAS_BASE) or low != high:
        return None
    return first, low if packed & codes.HAS_PORTS else -1


def _fast_dnat(
    effects: tuple[Effect, ...], partitions: Mapping[Field, Partition], known: EffectPool
) -> tuple[int, int, int, int] | None:
    """(pool index, class, port, class) where the effects are one constant DNAT and nothing else sees it."""
    constant = _constant_nat(effects, codes.DST_NAT)
    if constant is None or any(
        f.base == "ctstatus" or (f.base in ("dst", "dport") and f.mask != -1) for f in partitions
    ):
        return None
    address, port = constant
    of_dst, of_port = partitions.get(Field("dst")), partitions.get(Field("dport"))
    return (
        known.address(address),
        of_dst.class_of_value(address) if of_dst is not None else -1,
        port,
        of_port.class_of_value(port) if of_port is not None and port >= 0 else -1,
    )


def short(records: Rows) -> Rows:
    """What every packet needs of its record, in a quarter of the room."""
    found = np.empty((len(records), Q_COLUMNS), np.int32)
    found[:, Q_RULE] = records[:, codes.R_RULE]
    found[:, Q_WALKED] = records[:, codes.R_WALKED]
    found[:, Q_OIF] = records[:, codes.R_OIF]
    end = records[:, codes.R_VERDICT] | records[:, codes.R_HOOK] << 8 | records[:, codes.R_NEXT] + 1 << 16
    found[:, Q_END] = end | np.where(records[:, codes.R_EFFECTS] > 0, AFFECTED, 0)
    return found
