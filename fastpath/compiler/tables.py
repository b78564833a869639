"""The compiled form of a host: flat arrays, and how they are made, saved and loaded.

:func:`compile_tables` runs the whole compilation: ways, stages, partitions, one structure for each stage, packing.
The arrays are those of ``kernels.layout.Tables``; beside them stands what turns record numbers back into rules.
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler import addresses, bulk, classes, diagram
from fastpath.compiler.bulk import BulkPlan
from fastpath.compiler.cells import Cells
from fastpath.compiler.classes import Partition
from fastpath.compiler.config import Config
from fastpath.compiler.fields import BASES, Field
from fastpath.compiler.flow import MUTATES, Builder, conntrack_in_use
from fastpath.compiler.machine import Machine
from fastpath.compiler.memory import in_large_pages
from fastpath.compiler.plan import MOST_TERMS, plan
from fastpath.compiler.program import Act, Stage
from fastpath.compiler.progress import CompileProgress, Meter
from fastpath.compiler.reach import Reach
from fastpath.compiler.records import EffectPool, Records, short
from fastpath.compiler.segments import MOST_RUNS, Expansion, Leaf, Segment, expansion, ranked
from fastpath.compiler.sizes import TooLargeError
from fastpath.compiler.stages import as_given, stages_of_chain, stages_of_host
from fastpath.errors import CompileError
from fastpath.host.model import Host
from fastpath.kernels import codes
from fastpath.kernels.layout import (
    B_EXTRA,
    B_SEGMENT,
    C_COLUMNS,
    COUNTED,
    E_COLUMNS,
    E_RANKED,
    E_RANKS,
    E_RECORD,
    E_SLOT,
    F_BASE,
    F_BOUNDS,
    F_CLASSES,
    F_COLUMNS,
    F_COUNT,
    F_EXTRA,
    F_KIND,
    F_LAST,
    F_LOW,
    F_MASK,
    F_OF_RANK,
    F_OF_RANK_WIDE,
    F_PARTS,
    F_SKIP,
    F_SPLIT,
    F_TABLE,
    F_WORDS,
    G_COLUMNS,
    K_DIRECT,
    K_PAGES,
    K_PRODUCT,
    K_RANKS,
    K_SEARCH,
    K_SEGMENT,
    K_TRIE,
    L_COLUMNS,
    LINEAR,
    M_COLUMNS,
    O_COLUMNS,
    O_OIF,
    QUIET,
    S_BLOCK,
    S_COLUMNS,
    S_EFFECTS,
    S_KIND,
    S_LEAVES,
    S_LEVEL,
    S_LEVELS,
    S_LOOKUP,
    S_LOOKUPS,
    S_NEXT,
    S_RECORD,
    S_ROOT,
    S_ROWS,
    SEVERAL,
    Tables,
)
from fastpath.packets.schema import LOCAL

VERSION = 6
"""Format of saved tables; raised with every change of a layout or of a code."""

LABEL = "fastpath tables"

BASE_NUMBER = {name: i for i, name in enumerate(BASES)}
MAX_PARTS = 12
INTERFACES = ("iif", "oif")
SMALL = frozenset({"iif", "oif", "ctstate", "ctdir", "proto", "tcp_flags", "frag", "pkttype", "tos", "ttl"})
"""Bases that may be parts of a product."""

ACT_NUMBER = {act: i for i, act in enumerate(
    (Act.NEXT, Act.ACCEPT, Act.DROP, Act.REJECT, Act.RETURN, Act.JUMP, Act.GOTO, Act.CALL, Act.END, Act.UNDECIDED)
)}
KEPT = ("mark", "sport", "flags", "src", "dst", "dport")
"""Result columns that are not written where no effect can change them, in the order of the kernel's bits."""

SMALLER_PRODUCT = 256
"""Combinations of small fields merged at a second attempt: more levels, and rows that are shorter."""

MOST_PLACES = (1 << 16) - 1
"""Combinations of small fields that 16 bits can count."""

LOOKED_UP = ("rows", "trie", "cells16", "cells32")
"""Arrays that are read at random places for every packet."""

MANY_TERMS = 3000
"""Terms of a stage above which one failed attempt at a diagram is enough."""

MANY_LEAVES = 8
"""Leaves that depend on rules of segments from which on it is worked out which rules can meet them."""

RECORD_BYTES = 100
"""About what a record takes, with the ids of the rules that it counts."""

PAGED_SHARE = 64
"""Part of the memory for tables that pages of one field of 32 bits may take, in bytes: one of this many."""

MAX_DEPTH = 250
CONNECTION = frozenset({
    "ctstate", "ctdir", "ctstatus", "ctorigsrc", "ctorigsrcport", "ctorigdst", "ctorigdstport",
})
DERIVED = frozenset({"icmp", "ctstate", "touched", "notrack", "ctorigsrc", "ctorigsrcport"})
"""Bases that are no packet columns themselves."""

DETAILS = CONNECTION - {"ctstate"}


@dataclass
class Compiled:
    """Tables of one way of a host.

    Attributes:
        arrays: the kernel's arrays, by their name in ``kernels.layout.Tables``.
        stages: names of the stages, in the kernel's order.
        structures: ``candidates``, ``cross-product``, ``diagram`` or ``linear`` for each stage; that of the
            longest segment where there are any.
        interfaces: id -> interface name (``InterfaceTable.names``), with ``known`` real ones and wildcard prefixes.
        extras: names of the callers' boolean columns that are read, in the kernel's order.
        columns: names of the packet columns that the kernel reads.
        written: result columns that the kernel writes, of those that may stay as the packets brought them.
        given_oif: the packets bring their egress interface.
        path_start, path_rules: rules and policies counted by record i: ``path_rules[path_start[i]:path_start[i+1]]``.
        record_stage: stage of every record.
    """

    arrays: dict[str, npt.NDArray[Any]]
    stages: tuple[str, ...]
    structures: tuple[str, ...]
    interfaces: tuple[str, ...]
    known: int
    prefixes: tuple[str, ...]
    extras: tuple[str, ...]
    columns: frozenset[str]
    written: frozenset[str]
    given_oif: bool
    path_start: npt.NDArray[np.int64]
    path_rules: npt.NDArray[np.int32]
    record_stage: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        for name in LOOKED_UP:
            self.arrays[name] = in_large_pages(self.arrays[name])

    @cached_property
    def plain(self) -> bool:
        """True where no stage is walked linearly and every effect is a constant address and port: the kernel then needs
        no result column that nobody asked for."""
        records = self.arrays["records"]
        return LINEAR not in self.arrays["stages"][:, S_KIND] and not bool(
            ((records[:, codes.R_EFFECTS] > 0) & (records[:, codes.R_FAST] == 0)).any())

    @cached_property
    def bulk(self) -> BulkPlan | None:
        """What the bulk kernel takes from these tables; None where the first stage is walked linearly."""
        return bulk.plan(self.arrays, self.record_stage)

    @cached_property
    def egress(self) -> tuple[int, ...]:
        """Ids of the interfaces that packets may be said to leave through; 0 and negative ones stand for none."""
        return tuple(sorted({*self.arrays["records"][:, codes.R_OIF].tolist(), *self.arrays["ops"][:, O_OIF].tolist()}))

    @property
    def nbytes(self) -> int:
        """Memory of all tables, in bytes."""
        rest = self.path_start.nbytes + self.path_rules.nbytes + self.record_stage.nbytes
        return sum(a.nbytes for a in self.arrays.values()) + rest


@dataclass
class _Packer:
    """Collects the flat arrays."""

    conntrack_loose: bool
    config: Config
    fields: list[list[int]] = field(default_factory=list)
    maps: list[npt.NDArray[np.uint16]] = field(default_factory=list)
    maps_size: int = 0
    trie: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    trie_size: int = 0
    bounds: list[int] = field(default_factory=list)
    stages: list[list[int]] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    rows: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    rows_size: int = 0
    effects: EffectPool = field(default_factory=EffectPool)
    records: Records = field(init=False)
    blocks: list[list[int]] = field(default_factory=list)
    ops: list[list[int]] = field(default_factory=list)
    terms: list[list[int]] = field(default_factory=list)
    tests: list[list[int]] = field(default_factory=list)
    sets: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    sets_size: int = 0
    set_at: dict[tuple[int, object], int] = field(default_factory=dict)
    cells: Cells = field(init=False)
    leaves: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        most = self.config.max_table_bytes
        self.cells = Cells(most // 2, most * 3 // 4)
        self.records = Records(self.effects)

    def add_map(self, table: npt.NDArray[np.uint16]) -> int:
        at = self.maps_size
        self.maps.append(table)
        self.maps_size += len(table)
        return at

    def add_trie(self, table: npt.NDArray[np.uint32]) -> int:
        at = self.trie_size
        self.trie.append(table)
        self.trie_size += len(table)
        return at

    def add_field(self, found: Partition, interfaces: int, extras: Sequence[str]) -> None:
        f = found.field
        row = [0] * F_COLUMNS
        row[F_CLASSES] = found.count
        if f.base.startswith("segment:"):
            row[F_BASE], row[F_KIND], row[F_SKIP] = B_SEGMENT, K_SEGMENT, 1
            self.fields.append(row)
            return
        row[F_MASK] = f.mask
        if f.base.startswith("extra:"):
            row[F_BASE], row[F_KIND] = B_EXTRA, K_DIRECT
            row[F_TABLE] = self.add_map(classes.direct_table(found, 2))
            row[F_EXTRA] = extras.index(f.base[6:])
        else:
            row[F_BASE] = BASE_NUMBER[f.base]
            if f.bits == 8 or f.base in INTERFACES:
                size = interfaces if f.base in INTERFACES else 256
                row[F_KIND], row[F_TABLE] = K_DIRECT, self.add_map(classes.direct_table(found, size))
            elif f.bits == 16:
                row[F_KIND], row[F_COUNT], row[F_TABLE] = K_TRIE, 16, self.add_trie(classes.trie_table(found))
            elif f.bits == 32:
                self.add_addresses(found, row)
            else:
                row[F_KIND], row[F_TABLE], row[F_COUNT] = K_SEARCH, len(self.bounds), len(found.starts)
                self.bounds.extend(found.starts)
                row[F_EXTRA] = self.add_trie(found.class_of.astype(np.uint32))
        self.fields.append(row)

    def add_addresses(self, found: Partition, row: list[int]) -> None:
        row[F_COUNT] = len(found.starts)
        pages = addresses.pages(found, self.config.max_table_bytes // PAGED_SHARE)
        if pages is not None:
            row[F_KIND], row[F_SPLIT], row[F_TABLE] = K_PAGES, pages.split, self.cells.narrow.add(pages.top)
            self.cells.narrow.add(pages.middle)
            row[F_LAST], row[F_WORDS] = self.cells.narrow.add(pages.last), len(pages.last)
            return
        ranks = addresses.ranks(found)
        row[F_KIND], row[F_TABLE], row[F_LOW] = K_RANKS, self.add_trie(ranks.words), ranks.low
        row[F_BOUNDS] = self.cells.narrow.add(ranks.bounds)
        row[F_OF_RANK_WIDE] = int(found.count > addresses.MOST_CLASSES)
        row[F_OF_RANK] = (self.cells.wide if row[F_OF_RANK_WIDE] else self.cells.narrow).add(found.class_of)

    def add_product(
        self, parts: Sequence[Partition], strides: Sequence[int], interfaces: int, table: npt.NDArray[np.uint16]
    ) -> None:
        row = [0] * F_COLUMNS
        row[F_KIND], row[F_TABLE], row[F_COUNT] = K_PRODUCT, self.add_map(table), len(parts)
        row[F_CLASSES], row[F_EXTRA] = int(table.max()) + 1, len(table)
        for i, (found, stride) in enumerate(zip(parts, strides, strict=True)):
            size = interfaces if found.field.base in INTERFACES else 256
            row[F_PARTS + 2 * i] = BASE_NUMBER[found.field.base]
            strided = classes.direct_table(found, size) * np.uint16(stride)
            row[F_PARTS + 2 * i + 1] = self.add_map(strided.astype(np.uint16))
        self.fields.append(row)


def _ranked(
    packer: _Packer, built: diagram.Diagram, segments: Sequence[Segment], op_slots: Mapping[int, int],
    partitions: Mapping[Field, Partition],
) -> list[Leaf | Expansion]:
    """The leaves of a stage with segments: those that depend on a segment's rule once for each rule that can meet
    them."""
    depends = [ranked(leaf, segments) for leaf in built.leaves]
    chosen = _Ranks(packer, built, depends, segments, partitions)
    found: list[Leaf | Expansion] = []
    records = 0
    for index, (leaf, on) in enumerate(zip(built.leaves, depends, strict=True)):
        number = segments[0].number if on is None else on[0].number
        at, places = chosen.of(index)
        row = [0] * E_COLUMNS
        row[E_RECORD], row[E_SLOT], row[E_RANKS] = records, op_slots[number], at
        row[E_RANKED] = 0 if on is None else -1
        packer.leaves.append(row)
        if on is None:
            found.append(leaf)
            records += 1
            continue
        found.extend(expansion(leaf, *on, places))
        records += len(places)
    return found


class _Ranks:
    """Which record of a leaf each rule of its segment has.

    A leaf has the rules of its kind, or those that can meet it where there are fewer: a table of ranks more is taken
    for them if it is smaller than the records that are spared.
    """

    def __init__(
        self, packer: _Packer, built: diagram.Diagram, depends: Sequence[tuple[Segment, int] | None],
        segments: Sequence[Segment], partitions: Mapping[Field, Partition],
    ) -> None:
        self.packer, self.depends = packer, depends
        self.first = segments[0].number
        self.whole: dict[int, int] = {}
        self.known: dict[tuple[int, bytes], int] = {}
        for segment in segments:
            rank = np.zeros(len(segment.ops) + 1, np.uint32)
            for members in segment.kinds:
                rank[list(members)] = np.arange(len(members))
            self.whole[segment.number] = packer.cells.wide.add(rank)
        leaves = [i for i, on in enumerate(depends) if on is not None]
        self.reach = Reach(built, leaves, partitions) if len(leaves) >= MANY_LEAVES else None
        self.pairs: dict[int, npt.NDArray[np.uint64]] = {}
        if self.reach is not None and self.reach.possible:
            self.pairs = {s.number: self.reach.pairs(s) for s in segments}

    def of(self, leaf: int) -> tuple[int, npt.NDArray[np.int64]]:
        """(place of the table of ranks, the rules that have a record)."""
        on = self.depends[leaf]
        if on is None:
            return self.whole[self.first], np.zeros(0, np.int64)
        segment, kind = on
        every = np.array(segment.kinds[kind], np.int64)
        if self.reach is None or segment.number not in self.pairs:
            return self.whole[segment.number], every
        places = self.reach.meets(self.pairs[segment.number], leaf, every)
        if not len(places):
            places = every[:1]
        spared = (len(every) - len(places)) * RECORD_BYTES
        key = (segment.number, places.tobytes())
        if key not in self.known:
            if spared <= 4 * (len(segment.ops) + 1):
                return self.whole[segment.number], every
            rank = np.zeros(len(segment.ops) + 1, np.uint32)
            rank[places] = np.arange(len(places))
            self.known[key] = self.packer.cells.wide.add(rank)
        return self.known[key], places


def _depth(stage: Stage) -> int:
    found: dict[str, int] = {}

    def depth(key: str) -> int:
        if key not in found:
            found[key] = 0
            below = [depth(op.chain) for op in stage.blocks[key].ops if op.chain]
            found[key] = 1 + max(below, default=0)
        return found[key]

    return depth(stage.root)


def _quiet(stage: Stage) -> dict[str, bool]:
    """Blocks that can only count and return: whether a jump there happens makes no difference to a packet."""
    found: dict[str, bool] = {}

    def quiet(key: str) -> bool:
        if key not in found:
            block = stage.blocks[key]
            found[key] = block.policy is None and all(
                not op.effects and (op.act in (Act.NEXT, Act.RETURN) or (op.act is Act.JUMP and quiet(op.chain)))
                for op in block.ops
            )
        return found[key]

    for key in stage.blocks:
        quiet(key)
    return found


def _add_linear(
    packer: _Packer,
    stage: Stage,
    stage_index: Mapping[str, int],
    partitions: Mapping[Field, Partition],
    slots: Mapping[Field, int],
) -> int:
    """Packs a stage for the linear walk -> number of its root block."""
    if _depth(stage) > MAX_DEPTH:
        raise CompileError(f"chains nest deeper than {MAX_DEPTH} jumps: a linear walk keeps no more open")
    first = len(packer.blocks)
    number = {key: first + i for i, key in enumerate(stage.blocks)}
    quiet = _quiet(stage)
    for block in stage.blocks.values():
        start = len(packer.ops)
        for op in block.ops:
            term_at = len(packer.terms)
            for term in op.condition:
                packer.terms.append([len(packer.tests), len(term.tests), int(term.unknown)])
                for f, values in term.tests:
                    key = (slots[f], values)
                    if key not in packer.set_at:
                        packer.set_at[key] = packer.sets_size
                        members = np.packbits(partitions[f].members(values), bitorder="little")
                        packer.sets.append(members)
                        packer.sets_size += len(members)
                    packer.tests.append([slots[f], packer.set_at[key]])
            end = op.end
            silent = not op.effects and (op.act is Act.NEXT or (op.act is Act.JUMP and quiet[op.chain]))
            flags = COUNTED * op.counted | QUIET * silent
            packer.ops.append([
                term_at, len(op.condition), ACT_NUMBER[op.act], number.get(op.chain, -1), op.ref, flags,
                packer.effects.add(op.effects) if op.effects else 0, len(op.effects),
                stage_index[end.stage] if end is not None and end.stage is not None else codes.FINAL,
                int(end.verdict) if end is not None else 0, int(end.hook) if end is not None else 0,
                -1 if op.oif is None else op.oif,
            ])
        policy = -1 if block.policy is None else ACT_NUMBER[block.policy]
        packer.blocks.append(
            [start, len(packer.ops), policy, block.policy_ref, int(block.hook), int(block.decides)]
        )
    return number[stage.root]


def _merge(
    machines: Sequence[Machine], partitions: Mapping[Field, Partition], fixed: Sequence[Field]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Classes of the product of small fields -> (combinations, class of each, one combination of every class)."""
    combinations = np.array(list(product(*(range(partitions[f].count) for f in fixed))), np.int64)
    signature: list[npt.NDArray[np.uint8]] = []
    for machine in machines:
        n = len(machine.terms)
        holds = np.ones((len(combinations), n), bool)
        for which, f in enumerate(fixed):
            table = np.ones((partitions[f].count, n), bool)
            for t, term in enumerate(machine.terms):
                values = term.values(f)
                if values is not None:
                    table[:, t] = partitions[f].members(values)
            holds &= table[combinations[:, which]]
        signature.append(np.packbits(holds, axis=1))
    _, first, class_of = np.unique(np.concatenate(signature, axis=1), axis=0, return_index=True, return_inverse=True)
    return combinations, class_of.reshape(-1), combinations[first]


def _pick_fixed(
    partitions: Mapping[Field, Partition], changing: frozenset[str], used: Mapping[Field, int], limit: int
) -> list[Field]:
    """Small fields that no effect changes, to be looked up as one; none where there is but one."""
    small = sorted(
        (f for f in used if f.base not in changing and partitions[f].count <= 256 and f.base in SMALL and f.mask == -1),
        key=lambda f: (partitions[f].count, f),
    )
    chosen: list[Field] = []
    size = 1
    for f in small:
        if len(chosen) < MAX_PARTS and size * partitions[f].count <= min(limit, MOST_PLACES):
            chosen.append(f)
            size *= partitions[f].count
    return chosen if len(chosen) > 1 else []


class _Products:
    """Products of small fields, each looked up as one: one for the plain diagrams, one for those with segments.

    Attributes:
        level: the product of the machines begun with last, as a level of their diagrams; None where there is none.
        fields: all fields that products cover.
    """

    def __init__(
        self, packer: _Packer, partitions: Mapping[Field, Partition], changing: frozenset[str], interfaces: int,
        config: Config,
    ) -> None:
        self.packer, self.partitions, self.changing = packer, partitions, changing
        self.interfaces, self.config = interfaces, config
        self.level: diagram.Level | None = None
        self.fields: set[Field] = set()

    def begin(self, machines: Sequence[Machine], limit: int) -> None:
        """Finds the product, of at most `limit` combinations, for some machines."""
        used: dict[Field, int] = {}
        for machine in machines:
            for f in {f for term in machine.terms for f, _ in term.tests}:
                used[f] = used.get(f, 0) + 1
        self.level = None
        fixed = _pick_fixed(self.partitions, self.changing, used, limit)
        if fixed:
            combinations, class_of, members = _merge(machines, self.partitions, fixed)
            self.level = diagram.Level(len(self.packer.fields), tuple(fixed), members, combinations, class_of)

    def keep(self) -> None:
        """Packs the product begun: some diagram uses it."""
        if self.level is not None:
            fixed = self.level.fields
            counts = [self.partitions[f].count for f in fixed]
            strides = [int(np.prod(counts[i + 1:], dtype=np.int64)) for i in range(len(counts))]
            self.packer.add_product([self.partitions[f] for f in fixed], strides, self.interfaces,
                self.level.class_of.astype(np.uint16))
            self.fields |= set(fixed)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Python's cycle collector would look through millions of new objects again and again, none of them in a cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def compile_tables(
    host: Host,
    *,
    table: str | None,
    chain: str | None,
    assume: Mapping[str | int, str],
    given_oif: bool,
    config: Config,
    progress: CompileProgress | None = None,
) -> Compiled:
    """Compiles one way of a host (routing decides the egress interface, or packets bring it)."""
    meter = Meter(progress, sum(len(c.rules) for t in host.ruleset.tables for c in t.chains))
    with _collector_paused():
        builder = Builder(host, assume, given_oif, conntrack_in_use(host))
        builder.on_rule = meter.rule
        if table is not None and chain is not None:
            stages = stages_of_chain(builder, table, chain)
        else:
            stages = stages_of_host(builder)
        if given_oif:
            stages = as_given(stages, builder.interfaces.names)
        return compile_stages(builder, stages, config, meter)


def compile_stages(
    builder: Builder, stages: Sequence[Stage], config: Config, meter: Meter | None = None
) -> Compiled:
    """Tables of stages that are already cut; stages that are walked linearly keep their order, blocks and ops."""
    host = builder.host
    meter = meter or Meter()
    meter.fields()
    wanted: dict[Field, dict[object, None]] = {}
    for stage in stages:
        for block in stage.blocks.values():
            for op in block.ops:
                for term in op.condition:
                    for f, values in term.tests:
                        wanted.setdefault(f, {})[values] = None
    partitions = {f: classes.partition(f, sets) for f, sets in sorted(wanted.items())}  # type: ignore[arg-type]
    slots = {f: i for i, f in enumerate(partitions)}
    extras = tuple(sorted(f.base[6:] for f in partitions if f.base.startswith("extra:")))
    packer = _Packer(conntrack_loose=bool(host.sysctl("net.netfilter.nf_conntrack_tcp_loose", 1)), config=config)
    for found in partitions.values():
        packer.add_field(found, len(builder.interfaces.names), extras)
    changing = frozenset(
        base for s in stages for b in s.blocks.values() for op in b.ops for e in op.effects
        for base in MUTATES.get(e.code, ())
    )
    products = _Products(packer, partitions, changing, len(builder.interfaces.names), config)

    # First the diagrams that stay small as they are; what would not has its segments taken out.
    plans = plan(stages, config)
    meter.stages({p.stage.name: len(p.machine.terms) + 20 for p in plans})
    diagrams: dict[str, diagram.Diagram | None] = {}
    tried: tuple[int, frozenset[Field]] | None = None
    for limit in dict.fromkeys((config.max_product, min(config.max_product, SMALLER_PRODUCT))):
        left = [p for p in plans if p.diagram and diagrams.get(p.stage.name) is None]
        products.begin([p.machine for p in left], limit)
        before, tried = tried, (len(left), frozenset(products.level.fields if products.level is not None else ()))
        if tried == before:
            break  # the same product again
        weights = _weights([p.machine for p in left])
        found_here = False
        for planned in left:
            built = _diagram(planned.machine, products.level, partitions, slots, config, meter, weights,
                             small=bool(planned.runs))
            diagrams[planned.stage.name] = built
            found_here |= built is not None
        if found_here:
            products.keep()
    for i, planned in enumerate(plans):
        if diagrams.get(planned.stage.name) is None:
            plans[i] = planned.with_segments(i * MOST_RUNS, partitions, config)
        meter.stage(planned.stage.name, 0.5)
    for planned in plans:
        for segment in planned.segments:
            n = len(segment.kinds) + 1
            partitions[segment.field] = Partition(segment.field, tuple(range(n)), np.arange(n, dtype=np.int64), n)
            slots[segment.field] = len(packer.fields)
            packer.add_field(partitions[segment.field], 0, extras)
    later = [p for p in plans if p.segments or (p.diagram and p.runs and diagrams[p.stage.name] is None)]
    products.begin([p.machine for p in later], config.max_product)
    weights = _weights([p.machine for p in later])
    for planned in later:
        if len(planned.machine.terms) <= MOST_TERMS:
            diagrams[planned.stage.name] = _diagram(
                planned.machine, products.level, partitions, slots, config, meter, weights)
    if any(diagrams.get(p.stage.name) is not None for p in later):
        products.keep()

    stage_index = {s.name: i for i, s in enumerate(stages)}
    structures: list[str] = []
    op_slots: dict[int, int] = {}
    for planned in plans:
        for segment in planned.segments:
            op_slots[segment.number] = len(packer.fields)
            packer.add_field(partitions[segment.field], 0, extras)
    by_itself: set[Field] = set()
    for index, planned in enumerate(plans):
        row = [0] * S_COLUMNS
        built = diagrams.get(planned.stage.name)
        if built is not None:
            longest = max(planned.segments, key=lambda s: len(s.ops), default=None)
            structures.append("diagram" if longest is None else longest.product.structure)
            row[S_LEVEL], row[S_LEVELS] = len(packer.levels), len(built.levels)
            packer.levels.extend(built.levels)
            by_itself |= {f for f, slot in slots.items() if slot in built.levels}
            row[S_ROWS], row[S_ROOT] = packer.rows_size, built.root
            packer.rows.append(built.rows)
            packer.rows_size += len(built.rows)
            leaves: Sequence[Leaf | Expansion] = built.leaves
            row[S_LOOKUP], row[S_LOOKUPS] = len(packer.cells.lookups), len(planned.segments)
            row[S_LEAVES] = len(packer.leaves)
            if planned.segments:
                for segment in planned.segments:
                    packer.cells.add(segment.product, segment, op_slots[segment.number], slots[segment.field], slots)
                    by_itself |= {f for op in segment.ops for term in op.condition for f, _ in term.tests}
                leaves = _ranked(packer, built, planned.segments, op_slots, partitions)
            row[S_RECORD] = packer.records.count
            made = packer.records.add_stage(leaves, index, stage_index, partitions)
            following = set(np.unique(made[:, codes.R_NEXT]).tolist()) - {codes.FINAL}
            row[S_EFFECTS] = int(made[:, codes.R_EFFECTS].any())
            row[S_NEXT] = SEVERAL if len(following) > 1 else following.pop() if following else codes.FINAL
        else:
            structures.append("linear")
            row[S_KIND] = LINEAR
            row[S_BLOCK] = _add_linear(packer, planned.stage, stage_index, partitions, slots)
            by_itself |= {
                f for b in planned.stage.blocks.values() for op in b.ops for term in op.condition for f, _ in term.tests
            }
        packer.stages.append(row)
        meter.stage(planned.stage.name, 1.0)
    for f in products.fields:
        packer.fields[slots[f]][F_SKIP] = int(f not in by_itself)
    compiled = _finish(packer, builder, stages, structures, partitions, slots, extras, changing)
    meter.done()
    return compiled


def _weights(machines: Iterable[Machine]) -> dict[Field, int]:
    """How many terms look at each field."""
    return dict(Counter(f for machine in machines for term in machine.terms for f, _ in term.tests))


def _diagram(
    machine: Machine,
    merged: diagram.Level | None,
    partitions: dict[Field, Partition],
    slots: Mapping[Field, int],
    config: Config,
    meter: Meter,
    weights: Mapping[Field, int],
    *,
    small: bool = False,
) -> diagram.Diagram | None:
    """The smallest diagram among a few orders of the fields, or None where all are too large (or not `small`).

    Fields of greater weight come first: the same order in all stages, so that those which run side by side have
    levels in common.
    """
    most_words, most_work = (config.max_words, config.max_work) if not small else (
        min(config.max_words, config.small_words), min(config.max_work, config.small_work))
    used = {f for term in machine.terms for f, _ in term.tests}
    alone = [f for f in weights if f in used and (merged is None or f not in merged.fields)]
    plain = {f: diagram.Level.of_field(slots[f], partitions[f]) for f in alone}
    first = [plain[f] for f in alone if f == Field("dst")]
    rest = [plain[f] for f in sorted(alone, key=lambda f: (-weights[f], f)) if f != Field("dst")]
    middle = [merged] if merged is not None else []
    product_first = merged is not None and len(first) > 0 and len(merged.members) > len(first[0].members)
    best: diagram.Diagram | None = None
    orders = [[*first, *middle, *rest], [*middle, *first, *rest]] if first and middle else [[*first, *middle, *rest]]
    for order in reversed(orders) if product_first else orders:
        limit = most_words if best is None else len(best.rows)
        try:
            found = diagram.build(
                machine, order, partitions, max_words=limit, max_work=most_work, slack=1 if small else 4,
                progress=lambda part: meter.stage(machine.stage.name, 0.9 * part),
            )
        except TooLargeError:
            if best is None and (small or len(machine.terms) > MANY_TERMS):
                return None
            continue
        if best is None or len(found.rows) < len(best.rows):
            best = found
        if len(best.rows) < config.max_words // 8:
            break
    return best


def _finish(
    packer: _Packer,
    builder: Builder,
    stages: Sequence[Stage],
    structures: Sequence[str],
    partitions: Mapping[Field, Partition],
    slots: Mapping[Field, int],
    extras: tuple[str, ...],
    changing: frozenset[str],
) -> Compiled:
    bases = {f.base for f in partitions}
    records, path_start, path_rules, record_stage = packer.records.arrays()
    changed = {e[0] for e in packer.effects.effects}
    of_connection = {codes.CONNMARK, codes.MARK_RESTORE, codes.MARK_SAVE}
    if bases & CONNECTION or changed & {codes.NOTRACK, codes.NOTRACK_LATE, codes.CONFIRM, *of_connection}:
        bases |= {"ctstate"}
    if changed & of_connection:
        bases |= {"connmark"}
    if changed & {codes.TTL_ADD, codes.TTL_SUB, codes.TTL_SET}:
        bases |= {"ttl"}
    if changed & {codes.TOS, codes.TOUCH, codes.NOTE_MARK}:
        bases |= {"tos"}
    if bases & DETAILS:
        bases |= DETAILS
    need = sum(1 << BASE_NUMBER[b] for b in bases if b in BASE_NUMBER)
    columns = {"iif", "src", "dst", "proto", "sport", "dport", "mark"}
    columns |= {b for b in bases if b in BASES} - DERIVED
    if "icmp" in bases:
        columns |= {"icmp_type", "icmp_code"}
    if "ctstate" in bases:
        columns |= {"state", "tcp_flags", "icmp_type"}
    if bases & DETAILS:
        columns |= {"icmp_code", "ctdir", "ctstatus", "ctorigdst", "ctorigdstport"}
    written = set()
    if changed & {codes.MARK, codes.MARK_RESTORE, codes.MARK_SAVE, codes.NOTE_MARK}:
        written.add("mark")
    if codes.SRC_NAT in changed:
        written.add("sport")
    if changed & {codes.SRC_NAT, codes.DST_NAT, codes.CHOICE}:
        written.add("flags")
    fast = set(np.unique(records[:, codes.R_FAST]).tolist())
    if 2 in fast or changed & {codes.SRC_NAT, codes.SRC_MAP}:
        written.add("src")
    if 1 in fast or changed & {codes.DST_NAT, codes.DST_MAP, codes.TOUCH}:
        written.add("dst")
    if 1 in fast or codes.DST_NAT in changed:
        written.add("dport")
    local = next((i for i, s in enumerate(stages) if s.name == "local"), 0)
    interfaces = builder.interfaces
    params = [
        interfaces.id(LOCAL), local, need, int(packer.conntrack_loose),
        slots.get(Field("dst"), 0), slots.get(Field("dport"), 0),
        sum(1 << BASE_NUMBER[b] for b in changing | {"touched", "notrack", *(() if builder.given_oif else ("oif",))}),
        sum(1 << i for i, name in enumerate(KEPT) if name in written),
    ]

    def table(rows: Sequence[Sequence[int]], width: int, dtype: type[np.generic]) -> npt.NDArray[Any]:
        return np.array(rows, dtype).reshape(-1, width) if rows else np.zeros((1, width), dtype)

    def flat(parts: Sequence[npt.NDArray[Any]], dtype: type[np.generic]) -> npt.NDArray[Any]:
        return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(1, dtype)

    arrays: dict[str, npt.NDArray[Any]] = {
        "params": np.array(params, np.int64),
        "fields": np.array(packer.fields, np.int64).reshape(-1, F_COLUMNS),
        "maps": flat(packer.maps, np.uint16),
        "trie": flat(packer.trie, np.uint32),
        "bounds": np.array(packer.bounds or [0], np.uint64),
        "stages": table(packer.stages, S_COLUMNS, np.int64),
        "levels": np.array(packer.levels or [0], np.int64),
        "rows": flat(packer.rows, np.uint32),
        "records": records,
        "short": short(records),
        "effects": table(packer.effects.effects, 4, np.int64),
        "pool": np.array(list(packer.effects.pool) or [0], np.uint32)[:, None].copy(),
        "alternatives": table(packer.records.alternatives, 4, np.int32),
        "blocks": table(packer.blocks, L_COLUMNS, np.int64),
        "ops": table(packer.ops, O_COLUMNS, np.int64),
        "terms": table(packer.terms, 3, np.int64),
        "tests": table(packer.tests, 2, np.int64),
        "sets": flat(packer.sets, np.uint8),
        "lookups": table(packer.cells.lookups, C_COLUMNS, np.int64),
        "merges": table(packer.cells.merges, M_COLUMNS, np.int64),
        "groups": table(packer.cells.groups, G_COLUMNS, np.int64),
        "cells16": packer.cells.narrow.flat(),
        "cells32": packer.cells.wide.flat(),
        "leaves": table(packer.leaves, E_COLUMNS, np.int64),
    }
    return Compiled(
        arrays, tuple(s.name for s in stages), tuple(structures), interfaces.names, interfaces.known,
        interfaces.prefixes, extras, frozenset(columns), frozenset(written),
        builder.given_oif, path_start, path_rules, record_stage,
    )


META = ("stages", "structures", "interfaces", "known", "prefixes", "extras", "given_oif")
EXTRA_ARRAYS = ("path_start", "path_rules", "record_stage")


def to_arrays(compiled: Compiled, prefix: str) -> dict[str, npt.NDArray[Any]]:
    """Everything of a compiled way as arrays whose names begin with `prefix`."""
    out = {f"{prefix}{name}": array for name, array in compiled.arrays.items()}
    out |= {f"{prefix}+{name}": getattr(compiled, name) for name in EXTRA_ARRAYS}
    meta: dict[str, Any] = {name: getattr(compiled, name) for name in META} | {
        "columns": sorted(compiled.columns), "written": sorted(compiled.written)}
    out[f"{prefix}meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    return out


def from_arrays(archive: Mapping[str, npt.NDArray[Any]], prefix: str) -> Compiled:
    """The inverse of :func:`to_arrays`."""
    meta = json.loads(bytes(archive[f"{prefix}meta"]))
    arrays = {n: archive[prefix + n] for n in Tables._fields}
    extra = {n: archive[f"{prefix}+{n}"] for n in EXTRA_ARRAYS}
    return Compiled(
        arrays, tuple(meta["stages"]), tuple(meta["structures"]), tuple(meta["interfaces"]), meta["known"],
        tuple(meta["prefixes"]), tuple(meta["extras"]), frozenset(meta["columns"]),
        frozenset(meta["written"]), meta["given_oif"], **extra,
    )
