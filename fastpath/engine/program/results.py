"""Passes from records to result columns and counts, and what records mean for a batch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.bulk import KEEP_OIF
from fastpath.compiler.memory import in_large_pages
from fastpath.engine.names import AS_GIVEN, read_only
from fastpath.engine.program.ways import Ways
from fastpath.kernels import codes
from fastpath.kernels import layout as at
from fastpath.packets.schema import RESULT_COLUMNS

Array = npt.NDArray[Any]


LANES, MOST_LANED = 4, 1 << 12
"""Arrays of counts taken in turn, for places of fewer records than that."""


KEEP_CODE = -(1 << 15)
"""Interface code that stands for: what was written before stays."""

FATES = {"verdict", "hook", "rule", "oif", "rules_walked"}
"""Columns that every record says something about."""

DTYPES = {c.name: c.dtype for c in RESULT_COLUMNS}


class Program(Ways):
    """A program: :meth:`ways`, then :meth:`results` for what is wanted."""

    def results(self, records: list[int], wanted: Collection[str], *, counters: bool) -> dict[str, int | None]:
        """Adds the passes that write what is wanted -> the columns, and the value that those begin with for which it
        matters: passes may leave it."""
        columns: dict[str, int | None] = {}
        passes, self.passes = self.passes, []
        for where in self.affects:
            passes[where][3] |= ("dst" in wanted) * 1 | ("dport" in wanted) * 2
        self.ends = len(records) == 1 and set(wanted) >= FATES
        listing = self.ends and self.plan.fused  # then the pass of all columns lists hard packets
        if listing:
            passes = [p for number, p in enumerate(passes) if number not in self.affects]
        elif not {"dst", "dport"} & set(wanted):
            passes = [p for number, p in enumerate(passes) if number not in self.for_results]
        by_record = {"src", *(("dst", "dport") if self.plan.fused else ())}
        for name in at.COPIED:
            if name not in wanted or name not in self.compiled.written:
                continue
            value = self.constant(name)
            if value is not None and name not in by_record:
                columns[name] = value
                continue
            columns[name] = None
            self.column(name)
            if name not in by_record:
                self.add(at.OP_COPY, 0, at.COPIED.index(name))
        self.passes += passes
        if "flags" in wanted and "flags" in self.compiled.written:
            columns["flags"] = 0
        rewritten = by_record & set(columns)
        for name in FATES & set(wanted):
            columns[name] = None
        given = int(self.compiled.given_oif and self.constant("oif") is None)
        if given and "oif" in wanted:
            self.column("oif")
        if self.ends:
            nat = len(rewritten) == 3
            self.add(at.OP_ENDS, records[0], 0, AS_GIVEN, int(nat), given, int(listing))
            rewritten -= rewritten if nat else set()
        else:
            self.fate_columns(records, wanted, given)
        for name in sorted(rewritten):
            if name == "dport":
                self.add(at.OP_PORT, records[-1], self.plan.places[-1].first)
            else:
                self.add(at.OP_ADDRESS, records[-1], self.plan.places[-1].first, at.COPIED.index(name))
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

    def fate_columns(self, records: list[int], wanted: Collection[str], given: int) -> None:
        """Adds the passes for what records say, one column after the other as far as places differ in them."""
        last, place = records[-1], self.plan.places[-1]
        of_rule, of_oif = self.kept("rule", codes.KEEP_RULE), self.kept("oif", KEEP_OIF)
        if {"verdict", "hook", "rule", "oif"} <= set(wanted) and len(of_rule) == len(of_oif) == 1:
            self.packed = True
            self.add(at.OP_FATES, last, place.first, AS_GIVEN, 0, given)
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

    def fates(self) -> at.Fates:
        """What records mean, with the interface codes of the kind."""
        means = self.plan.columns
        given = self.constant("oif") if self.compiled.given_oif else None
        oif: Array = self.names[np.maximum(means["oif"], 0)]
        oif[means["oif"] < 0] = -1
        oif[means["oif"] == KEEP_OIF] = KEEP_CODE
        if given is not None:
            oif[oif == AS_GIVEN] = given
        packed = np.zeros(1, np.uint64)
        if self.packed or self.ends:
            packed = means["rule"].astype(np.uint32).astype(np.uint64)
            packed |= oif.astype(np.uint16).astype(np.uint64) << 32
            packed |= means["verdict"].astype(np.uint64) << 48 | means["hook"].astype(np.uint64) << 56
        ends = np.zeros(4, np.uint64)
        if self.ends:
            ends = np.zeros((len(oif), 4), np.uint64)
            ends[:, 0] = packed
            ends[:, 1] = means["walked"]
            if self.plan.fused:
                source, port = (means[name].astype(np.uint64) << 32 for name in ("source", "port"))
                ends[:, 1] |= source
                ends[:, 2] = means["target"] | port | (means["kind"] == at.FATE_HARD).astype(np.uint64) << 48
        enter = self.enter[0] if len(self.enter) == 1 else np.concatenate(self.enter)
        return at.Fates(
            packed=read_only(in_large_pages(packed)), ends=read_only(in_large_pages(ends.reshape(-1))),
            enter=read_only(in_large_pages(enter)), oif=read_only(in_large_pages(oif)),
            leaves=read_only(self.plan.leaves if len(self.plan.leaves) else np.zeros(1, np.int64)),
            paged=read_only(in_large_pages(self.paged)),
            **{name: read_only(means[name]) for name in (
                "verdict", "hook", "rule", "walked", "kind", "dnat", "source", "target", "port")},
        )
