"""What the bulk kernel takes from compiled tables: the places on a packet's way, one diagram or cross product each.

Stages that packets are in at the same time, those that arrive and those the host makes, share a place: their diagrams
become one over a common sequence of levels, entered at different roots. A packet that has ended at an earlier place
goes through the later ones on words that nothing changes, to a record that stands for the one it ended with. So every
packet takes the same passes, and the last place's record says everything.

Records whose effects are more than one constant address and port, that undecided rules have a say in, or that lead to
a stage which is at no place, are *hard*: the general kernel does these packets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.diagram import TESTS
from fastpath.compiler.fused import fuse
from fastpath.compiler.memory import in_large_pages
from fastpath.kernels import codes
from fastpath.kernels.layout import (
    B_DPORT,
    B_LENGTH,
    B_NOTRACK,
    B_SPORT,
    B_TOUCHED,
    C_SLOT,
    E_COLUMNS,
    E_RECORD,
    E_SLOT,
    F_BASE,
    F_CLASSES,
    F_COUNT,
    F_KIND,
    F_MASK,
    F_TABLE,
    FATE_DNAT,
    FATE_HARD,
    FATE_PLAIN,
    K_DIRECT,
    K_TRIE,
    LINEAR,
    P_LOCAL_STAGE,
    S_KIND,
    S_LEAVES,
    S_LEVEL,
    S_LEVELS,
    S_LOOKUP,
    S_LOOKUPS,
    S_RECORD,
    S_ROOT,
    S_ROWS,
)
from fastpath.packets.schema import Verdict

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

MOST_LOOKUPS = 8
"""Cross products of a place: all of its packets go through all of them."""

KEEP_OIF = -(1 << 30)
"""Interface id that stands for: what was written before stays."""


@dataclass(frozen=True)
class Place:
    """Stages that packets are in at the same time.

    Attributes:
        stages: numbers of the stages.
        levels: field slots of the levels.
        base: where the place's rows begin in the plan's ``steps``.
        roots: for each stage the word that packets begin with.
        lookups: numbers of the cross products.
        first: where its records begin in the arrays of the plan.
        own: records of its own; behind them come those that packets ended with before.
        records: numbers of its own records in the compiled tables; where it stands for two places, those of the records
            of both, -1 for none; int64 of shape (places, own).
        first_leaf: leaves of a cross product in the plan.
    """

    stages: tuple[int, ...]
    levels: tuple[int, ...]
    base: int
    roots: tuple[int, ...]
    lookups: tuple[int, ...]
    first: int
    own: int
    size: int
    records: Array
    first_leaf: int = 0


@dataclass
class BulkPlan:
    """Places, and what their records mean; arrays over all records of all places.

    ``fused``: the one place stands for two (``fused``), and its records say what NAT makes of every packet.
    ``kind``: what a record does to a packet (``FATE_*``); ``oif``: interface ids, -1 for none, ``KEEP_OIF``.
    ``small``: the compiled tables of small fields, and behind them for each field of 16 bits the class of every value;
    ``direct[slot]`` is where it begins, and the value from which on all have one class, where it ends.
    ``programs``: those of kinds of batches met before.
    """

    places: list[Place] = field(default_factory=list)
    steps: Array = field(default_factory=lambda: np.zeros(1, np.uint32))
    enter: Array = field(default_factory=lambda: np.zeros(1, np.uint32))
    columns: Arrays = field(default_factory=dict)
    fused: bool = False
    leaves: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    small: Array = field(default_factory=lambda: np.zeros(0, np.uint16))
    direct: dict[int, tuple[int, int]] = field(default_factory=dict)
    programs: dict[object, Any] = field(default_factory=dict)


def plan(arrays: Arrays, record_stage: Array) -> BulkPlan | None:
    """The places of compiled tables, None where the first stage is none for this kernel."""
    stages = arrays["stages"]
    local = int(arrays["params"][P_LOCAL_STAGE])
    here = [0, local] if local else [0]
    if here != _together(stages, here):
        return None
    ways: list[list[int]] = []
    while here:
        ways.append(here)
        following = sorted({
            int(s) for stage in here for s in np.unique(_records(arrays, record_stage, stage)[1][:, codes.R_NEXT])
            if s != codes.FINAL})
        here = _together(stages, following)
    return _Planner(arrays, record_stage).run(ways)


def _together(stages: Array, wanted: Sequence[int]) -> list[int]:
    """Those of some stages that a place can have: none that is walked, and not too many cross products."""
    found: list[int] = []
    for s in wanted:
        lookups = sum(int(stages[x, S_LOOKUPS]) for x in (*found, s))
        if stages[s, S_KIND] != LINEAR and lookups <= MOST_LOOKUPS:
            found.append(s)
    return found


def _records(arrays: Arrays, record_stage: Array, stage: int) -> tuple[Array, Array]:
    """(numbers, rows) of a stage's records."""
    first = int(arrays["stages"][stage, S_RECORD])
    count = int((record_stage == stage).sum())
    return np.arange(first, first + count), arrays["records"][first:first + count]


class _Planner:
    def __init__(self, arrays: Arrays, record_stage: Array) -> None:
        self.arrays, self.record_stage = arrays, record_stage
        self.plan = BulkPlan()
        self.parts: list[Array] = []
        self.size = 0
        self.columns: dict[str, list[Array]] = {}

    def run(self, ways: Sequence[Sequence[int]]) -> BulkPlan:
        alone = len(ways) == 1 and len(ways[0]) == 1
        before: Place | None = None
        enter: list[Array] = []
        for here, following in zip(ways, [*ways[1:], ()], strict=True):
            place = self.place(here, following, before, whole=alone)
            if before is not None:
                enter.append(self.entries(before, place))
            self.plan.places.append(place)
            before = place
        if alone:
            self.plan.steps = self.arrays["rows"]
        else:
            self.plan.steps = in_large_pages(np.concatenate(self.parts)) if self.parts else np.zeros(1, np.uint32)
        self.halves()
        self.plan.columns = {name: in_large_pages(np.concatenate(parts)) for name, parts in self.columns.items()}
        self.plan.columns |= {"target": np.zeros(1, np.uint32), "port": np.zeros(1, np.uint32)}
        # The entries into a place stand where the records of the place before do.
        self.plan.enter = np.concatenate([*enter, np.zeros(1, np.uint32)])
        if len(self.plan.places) == 2 and not any(place.lookups for place in self.plan.places):
            self.fuse(*self.plan.places)
        return self.plan

    def fuse(self, first: Place, second: Place) -> None:
        """Makes one place of two where their diagram stays small."""
        plan = self.plan
        kind, dnat = plan.columns["kind"][:first.size], plan.columns["dnat"][:first.size]
        rewrites = kind == FATE_DNAT
        ports = rewrites & (dnat[:, 2] >= 0)
        found = fuse(
            self.arrays, plan.steps, first.levels, first.roots, second.levels,
            _common([list(first.levels), list(second.levels)]), plan.enter[:first.size],
            np.where(rewrites, dnat[:, 1], -1), np.where(ports, dnat[:, 3], -1), ports)
        if found is None:
            return
        of_second = np.append(second.records[0], -1)
        numbers = np.stack([first.records[0][found.first], of_second[np.minimum(found.second, second.own)]])
        size = len(found.first)
        plan.columns = _of_both(plan.columns, found.first, second.first + found.second)
        plan.places = [Place(first.stages + second.stages, found.levels, 0, found.roots, (), 0, size, size, numbers)]
        plan.steps, plan.enter, plan.fused = in_large_pages(found.rows), np.zeros(1, np.uint32), True

    def place(self, here: Sequence[int], following: Sequence[int], before: Place | None, *, whole: bool) -> Place:
        first = before.first + before.size if before is not None else 0
        numbers, rows = zip(*(_records(self.arrays, self.record_stage, s) for s in here), strict=True)
        own = np.concatenate(rows)
        ended = before.size if before is not None else 0
        stages = self.arrays["stages"]
        at = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
        lookups = tuple(
            x for s in here for x in range(stages[s, S_LOOKUP], stages[s, S_LOOKUP] + stages[s, S_LOOKUPS]))
        first_leaf, shifts = len(self.plan.leaves) // E_COLUMNS, at
        if lookups:
            shifts = self.leaves(here, lookups, at, ended)
        self.keep(own, before, following)
        base = int(stages[here[0], S_ROWS]) if whole else 0
        levels, roots = self.as_it_is(here[0]) if whole else self.joined(here, shifts, ended)
        return Place(tuple(here), levels, base, roots, lookups, first, len(own), len(own) + ended,
                     np.concatenate(numbers)[None, :], first_leaf)

    def leaves(self, here: Sequence[int], lookups: Sequence[int], at: Array, ended: int) -> Array:
        """Adds the leaves of a place with cross products: a stage's own, or one for each of its records, and one for
        each record that packets ended with before -> where each stage's begin, and those of the latter.

        ``E_SLOT`` is the place of a leaf's cross product among `lookups` here."""
        slots = self.arrays["lookups"][list(lookups), C_SLOT]
        found, shifts = [], [0]
        for stage, first, behind in zip(here, at, at[1:], strict=False):
            if self.arrays["stages"][stage, S_LOOKUPS]:
                begin = int(self.arrays["stages"][stage, S_LEAVES])
                ends = [int(s) for s in self.arrays["stages"][:, S_LEAVES] if s > begin]
                own = self.arrays["leaves"][begin:min(ends, default=len(self.arrays["leaves"]))].copy()
                own[:, E_RECORD] += first
                own[:, E_SLOT] = np.argmax(own[:, E_SLOT, None] == slots, axis=1)
            else:
                own = np.zeros((behind - first, E_COLUMNS), np.int64)
                own[:, E_RECORD] = np.arange(first, behind)
            found.append(own)
            shifts.append(shifts[-1] + len(own))
        more = np.zeros((ended, E_COLUMNS), np.int64)
        more[:, E_RECORD] = at[-1] + np.arange(ended)
        self.plan.leaves = np.concatenate([self.plan.leaves, *(f.reshape(-1) for f in found), more.reshape(-1)])
        return np.array(shifts)

    def keep(self, own: Array, before: Place | None, following: Sequence[int]) -> None:
        """Adds what the records of a place mean."""
        kind = np.zeros(len(own), np.uint8)
        fast = own[:, codes.R_FAST]
        kind[fast == 1] = FATE_DNAT
        hard = (own[:, codes.R_EFFECTS] > 0) & (fast == 0)
        hard |= (own[:, codes.R_ALTS] > 0) | (own[:, codes.R_VERDICT] == Verdict.UNDECIDED)
        hard |= ~np.isin(own[:, codes.R_NEXT], [codes.FINAL, *following])
        address = self.arrays["pool"][np.where(fast > 0, own[:, codes.R_DST], 0), 0]
        hard |= (fast == 2) & (address == 0)  # which stands for what NAT leaves
        kind[hard] = FATE_HARD
        dnat = np.stack([address, *(own[:, c] for c in (codes.R_DST_CLASS, codes.R_DPORT, codes.R_DPORT_CLASS))], 1)
        rule, oif = own[:, codes.R_RULE].copy(), own[:, codes.R_OIF].copy()
        if before is None:
            rule[rule == codes.KEEP_RULE] = -1
        else:
            oif[oif < 0] = KEEP_OIF
        mine = {
            "verdict": own[:, codes.R_VERDICT].astype(np.uint8), "hook": own[:, codes.R_HOOK].astype(np.uint8),
            "rule": rule, "oif": oif, "walked": own[:, codes.R_WALKED].astype(np.uint32), "kind": kind,
            "dnat": dnat.astype(np.int64), "next": own[:, codes.R_NEXT],
            "source": np.where(fast == 2, address, 0).astype(np.uint32),
        }
        for name, values in mine.items():
            parts = self.columns.setdefault(name, [])
            if before is None:
                parts.append(values)
                continue
            earlier = np.concatenate(parts)[before.first:before.first + before.size]
            if name in ("walked", "kind"):
                earlier = np.zeros_like(earlier)
            elif name == "next":
                earlier = np.full_like(earlier, codes.FINAL)
            parts.extend([values, earlier])

    def entries(self, before: Place, place: Place) -> Array:
        """The word with which each record of the place before goes on; what leads elsewhere becomes hard."""
        kind = np.concatenate(self.columns["kind"])[before.first:before.first + before.size]
        following = np.concatenate(self.columns["next"])[before.first:before.first + before.size]
        words = self.carried + np.arange(before.size, dtype=np.int64)
        for stage, root in zip(place.stages, place.roots, strict=True):
            words[(following == stage) & (kind != FATE_HARD)] = root
        return words.astype(np.uint32)

    def as_it_is(self, stage: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(levels, roots) of a stage that stands alone."""
        return tuple(self.slots(stage)), (int(self.arrays["stages"][stage, S_ROOT]),)

    def joined(
        self, here: Sequence[int], shifts: Array, ended: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Lays out the diagrams of a place over common levels -> (levels, roots).

        Sets ``carried``: the first of the words, one after the other, for records that packets ended with before.
        """
        slots = [self.slots(s) for s in here]
        levels = _common([[s for s in own if untouched(self.arrays, s) < 0] for own in slots])
        roots = [
            self.laid_out(stage, _aligned(own, levels, self.arrays), levels, int(shift))
            for stage, own, shift in zip(here, slots, shifts, strict=False)
        ]
        carried = int(shifts[-1]) + np.arange(ended, dtype=np.int64)
        for _ in levels:
            self.add(carried.astype(np.uint32))
            carried = self.size - ended + np.arange(ended, dtype=np.int64)
        self.carried = int(carried[0]) if ended else 0
        return levels, tuple(roots)

    def halves(self) -> None:
        """Spreads out the tries of 16-bit fields: one look-up for each packet instead of two."""
        tables = [self.arrays["maps"]]
        size = len(tables[0])
        trie = self.arrays["trie"]
        for slot, row in enumerate(self.arrays["fields"].tolist()):
            if row[F_KIND] != K_TRIE or row[F_COUNT] != 16 or row[F_BASE] not in (B_SPORT, B_DPORT, B_LENGTH):
                continue
            value = np.arange(1 << 16) & (row[F_MASK] & 0xFFFF)
            table = trie[row[F_TABLE] + (trie[row[F_TABLE] + (value >> 8)].astype(np.int64) << 8 | value & 255)]
            most = int(np.flatnonzero(np.diff(table, prepend=table[0] + 1))[-1])  # from there on all is of one class
            self.plan.direct[slot] = size, most
            tables.append(table[:most + 1].astype(np.uint16))
            size += most + 1
        self.plan.small = in_large_pages(np.concatenate(tables))

    def slots(self, stage: int) -> list[int]:
        row = self.arrays["stages"][stage]
        return [int(s) for s in self.arrays["levels"][row[S_LEVEL]:row[S_LEVEL] + row[S_LEVELS]]]

    def add(self, words: Array) -> None:
        self.parts.append(words)
        self.size += len(words)

    def laid_out(self, stage: int, aligned: Sequence[int], levels: Sequence[int], shift: int) -> int:
        """Copies a stage's diagram to other levels -> its root.

        Args:
            aligned: for each layer its class count where it is tested, 0 where it is passed by, and -1 - class where
                all packets have one class and the layer is left out.
            shift: added to records, or to leaves.
        """
        row = self.arrays["stages"][stage]
        rows = self.arrays["rows"][row[S_ROWS]:]
        words = np.array([row[S_ROOT]], np.int64)
        layers: list[tuple[Array, Array]] = []
        for count in aligned:
            offsets, tests = words & (TESTS - 1), (words >= TESTS)[:, None]
            if count == 0:
                children = words[:, None]
            elif count < 0:
                children = rows[offsets[:, None] + np.where(tests, -1 - count, 0)].astype(np.int64)
            else:
                children = rows[offsets[:, None] + np.where(tests, np.arange(count), 0)].astype(np.int64)
            layers.append((words, children))
            words = np.unique(children)
        known, to = words, words + shift
        for count, (words, children) in zip(reversed(aligned), reversed(layers), strict=True):
            mapped = to[np.searchsorted(known, children)]
            known = words
            if count < 0:
                to = mapped[:, 0]
                continue
            tests = (words >= TESTS) & (count > 0)
            lengths = np.where(tests, count, 1)
            starts = np.cumsum(lengths) - lengths
            block = np.empty(int(lengths.sum()), np.uint32)
            block[starts[~tests]] = mapped[~tests, 0]
            block[(starts[tests][:, None] + np.arange(mapped.shape[1])).reshape(-1)] = mapped[tests].reshape(-1)
            to = self.size + starts + np.where(tests, TESTS, 0)
            self.add(block)
        return int(to[0])


def untouched(arrays: Arrays, slot: int) -> int:
    """The class of a field that only hard records change, -1 for any other field."""
    row = arrays["fields"][slot]
    if row[F_KIND] != K_DIRECT or row[F_BASE] not in (B_TOUCHED, B_NOTRACK):
        return -1
    return int(arrays["maps"][row[F_TABLE]])


def _aligned(own: Sequence[int], levels: Sequence[int], arrays: Arrays) -> list[int]:
    """How the levels of a stage lie in common ones (see :meth:`_Planner.laid_out`)."""
    found: list[int] = []
    rest = list(own)

    def constants() -> None:
        while rest and (constant := untouched(arrays, rest[0])) >= 0:
            found.append(-1 - constant)
            del rest[0]

    for slot in levels:
        constants()
        if rest and rest[0] == slot:
            found.append(int(arrays["fields"][slot, F_CLASSES]))
            del rest[0]
        else:
            found.append(0)
    constants()
    return found


def _common(sequences: Sequence[list[int]]) -> tuple[int, ...]:
    """The shortest sequence found in which each of the given ones is contained in order."""
    joined: list[int] = []
    for sequence in sequences:
        joined = _supersequence(joined, sequence)
    return tuple(joined)


def _supersequence(a: list[int], b: list[int]) -> list[int]:
    if not a or not b:
        return a + b
    if a[0] == b[0]:
        return [a[0], *_supersequence(a[1:], b[1:])]
    return min([a[0], *_supersequence(a[1:], b)], [b[0], *_supersequence(a, b[1:])], key=len)


def _of_both(of: Arrays, first: Array, second: Array) -> Arrays:
    """What pairs of records, the second of which follows the first, mean together."""
    address, port = np.full(len(first), -1), np.full(len(first), -1)
    for x in (first, second):
        to, rewrites = of["dnat"][x], of["kind"][x] == FATE_DNAT
        address = np.where(rewrites, to[:, 0], address)
        port = np.where(rewrites & (to[:, 2] >= 0), to[:, 2], port)
    hard = (of["kind"][first] == FATE_HARD) | (of["kind"][second] == FATE_HARD)
    hard |= (address == 0) | (port == 0)  # which stand for what NAT leaves
    rule, oif = of["rule"][second], of["oif"][second]
    found = {
        "verdict": of["verdict"][second], "hook": of["hook"][second],
        "rule": np.where(rule == codes.KEEP_RULE, of["rule"][first], rule),
        "oif": np.where(oif == KEEP_OIF, of["oif"][first], oif),
        "walked": of["walked"][first] + of["walked"][second],
        "kind": np.where(hard, FATE_HARD, FATE_PLAIN).astype(np.uint8), "dnat": np.zeros((1, 4), np.int64),
        "source": of["source"][second], "target": np.maximum(address, 0).astype(np.uint32),
        "port": np.maximum(port, 0).astype(np.uint32),
    }
    return {name: in_large_pages(values) for name, values in found.items()}
