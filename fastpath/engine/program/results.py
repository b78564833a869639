"""Passes from records to result columns and counts, and what records mean for a batch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.bulk import KEEP_OIF
from fastpath.compiler.memory import in_large_pages
from fastpath.engine import memory
from fastpath.engine.names import AS_GIVEN, read_only
from fastpath.engine.program.classes import NARROW, filled
from fastpath.engine.program.ways import Ways
from fastpath.kernels import codes
from fastpath.kernels import layout as at
from fastpath.packets.schema import RESULT_COLUMNS

Array = npt.NDArray[Any]


LANES, MOST_LANED = 4, 1 << 12
"""Arrays of counts taken in turn, for places of fewer records than that."""


MOST_RULES = 1 << 23
"""Rules whose numbers fit beside those of what else records show."""

KEEP_CODE = -(1 << 15)
"""Interface code that stands for: what was written before stays."""

DTYPES = {c.name: c.dtype for c in RESULT_COLUMNS}


class Program(Ways):
    """A batch's program: :meth:`ways`, then :meth:`results` for what is wanted."""

    def results(self, records: list[int], wanted: Collection[str], *, counters: bool) -> dict[str, Array]:
        """Adds the passes that write what is wanted -> the columns, which may hold their values already."""
        n = len(self.packets)
        written = self.compiled.written
        columns: dict[str, Array] = {}
        passes, self.passes = self.passes, []
        for where in self.affects:
            passes[where][3] |= ("dst" in wanted) * 1 | ("dport" in wanted) * 2
        if not {"dst", "dport"} & set(wanted):
            passes = [p for number, p in enumerate(passes) if number not in self.for_results]
        for name in at.COPIED:
            if name not in wanted or name not in written:
                continue
            value = self.constant(name)
            if value is not None and name != "src":
                columns[name] = memory.full(n, value, DTYPES[name])
                continue
            columns[name] = memory.empty(n, DTYPES[name])
            self.column(name)
            if name != "src":
                self.add(at.OP_COPY, 0, at.COPIED.index(name))
        self.passes += passes
        if "flags" in wanted and "flags" in written:
            columns["flags"] = memory.full(n, 0, "uint8")
        last, place = records[-1], self.plan.places[-1]
        if "src" in columns:
            self.add(at.OP_SOURCES, last, place.first)
        given = int(self.compiled.given_oif and self.constant("oif") is None)
        of_rule, of_oif = self.kept("rule", codes.KEEP_RULE), self.kept("oif", KEEP_OIF)
        for name in ("verdict", "hook", "rule", "oif", "rules_walked"):
            if name in wanted:
                columns[name] = memory.empty(n, DTYPES[name])
        if given and "oif" in wanted:
            self.column("oif")
        together = {"verdict", "hook", "rule", "oif"} <= set(wanted) and len(of_rule) == len(of_oif) == 1
        if together and self.packs():
            parts = [filled(self.shown() >> bits & most) for bits, most in ((0, 0xFFFF), (16, 0xFF), (24, 0xFF))]
            self.add(at.OP_FATES, last, place.first, self.add_small(np.concatenate(parts)), AS_GIVEN, given)
        else:
            for name, op in (("verdict", at.OP_VERDICT), ("hook", at.OP_HOOK)):
                if name in wanted:
                    self.add(op, last, place.first)
            for number, keep in of_rule if "rule" in wanted else ():
                self.add(at.OP_RULE, records[number], self.plan.places[number].first, codes.KEEP_RULE, int(keep))
            for number, keep in of_oif if "oif" in wanted else ():
                self.add(at.OP_OIF, records[number], self.plan.places[number].first, KEEP_CODE, int(keep),
                         int(given and number == of_oif[-1][0]), AS_GIVEN)
        if "rules_walked" in wanted and len(records) == 2:
            self.add(at.OP_WALKED_BOTH, records[1], records[0], 0, place.first)
        elif "rules_walked" in wanted:
            for number, row in enumerate(records):
                self.add(at.OP_WALKED, row, self.plan.places[number].first, int(number > 0))
        if counters:
            bytes_too = self.constant("length") is None
            if bytes_too:
                self.column("length")
            for number, row in enumerate(records):
                place = self.plan.places[number]
                lanes = LANES if place.size < MOST_LANED else 1
                self.add(at.OP_COUNT, row, self.counts, place.size, int(bytes_too), lanes)
                self.counted.append((self.counts, lanes))
                self.counts += lanes * (place.size + 1)
        return columns

    def kept(self, name: str, mark: int) -> list[tuple[int, bool]]:
        """The places whose records write a column, and whether some of them leave what an earlier one wrote."""
        found: list[tuple[int, bool]] = []
        for number in range(len(self.plan.places) - 1, -1, -1):
            place = self.plan.places[number]
            values = self.plan.columns[name][place.first:place.first + place.size]
            keeps = number > 0 and bool((values == mark).any())
            found.append((number, keeps))
            if not keeps:
                break
        return found[::-1]

    def packs(self) -> bool:
        """Whether every record's rule and number among :meth:`shown` fit into 32 bits."""
        self.packed = len(self.shown()) <= NARROW and int(self.plan.columns["rule"].max()) < MOST_RULES
        return self.packed

    def kind(self) -> tuple[object, ...]:
        """What makes batches show the same for a record."""
        return self.names.tobytes(), self.constant("oif") if self.compiled.given_oif else None

    def oif(self) -> Array:
        """The egress interface that every record shows, in the batch's codes."""

        def of_oif() -> Array:
            means, given = self.plan.columns, self.kind()[1]
            oif: Array = self.names[np.maximum(means["oif"], 0)]
            oif[means["oif"] < 0] = -1
            oif[means["oif"] == KEEP_OIF] = KEEP_CODE
            if given is not None:
                oif[oif == AS_GIVEN] = given
            return oif

        return self.remembered(("oif", *self.kind()), of_oif)

    def fate(self) -> Array:
        """Egress interface, verdict and hook of every record, in 16, 8 and 8 bits from the lowest on."""
        fate: Array = self.oif().astype(np.uint16).astype(np.uint32)
        fate |= self.plan.columns["verdict"].astype(np.uint32) << 16 | self.plan.columns["hook"].astype(np.uint32) << 24
        return fate

    def shown(self) -> Array:
        """The different ones of :meth:`fate`."""
        return self.remembered(("shown", *self.kind()), lambda: np.unique(self.fate()))

    def fates(self) -> at.Fates:
        """What records mean, with the batch's interface codes."""
        means = self.plan.columns

        def of_all() -> Array:
            number = np.searchsorted(self.shown(), self.fate()).astype(np.uint32)
            return means["rule"].astype(np.uint32) << 8 | number

        packed = self.remembered(("packed", *self.kind()), of_all) if self.packed else np.zeros(1, np.uint32)
        enter = self.enter[0] if len(self.enter) == 1 else np.concatenate(self.enter)
        return at.Fates(
            packed=read_only(packed), enter=read_only(in_large_pages(enter)), oif=read_only(self.oif()),
            leaves=read_only(self.plan.leaves if len(self.plan.leaves) else np.zeros(1, np.int64)),
            **{name: read_only(means[name]) for name in (
                "verdict", "hook", "rule", "walked", "kind", "dnat", "source")},
        )
