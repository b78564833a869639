"""Which headers' fates depend on undecided rules.

The rule is the reference's (``reference/undecided.py``): the baseline takes every undecided match for "no match". A
packet is decided if all outcomes lead to the baseline's fate. Otherwise the rule to name is the first one on its way
that changes the fate when it alone matches; failing that, the first from which some outcomes of later ones do.

Outcomes are variables here (see ``walk.py``), so each of these is a question about functions: set all to 0, set one to
1, ask whether some values of the later ones exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from fastpath.packets.schema import Verdict
from fastpath.symbolic.header import Origin
from fastpath.symbolic.walk import Meeting, Place

SHOWN = ("src", "dst", "sport", "dport", "mark")

Shown: TypeAlias = tuple[object, ...]
"""Verdict, hook and egress of an end, and the functions of what a result shows."""


class Doubts:
    """The ends of a walk, as sets of headers and choices, asked about the choices.

    Args:
        origin: the header as it arrives.
        ends: end -> set.
        shown: what of an end makes a difference to a packet: (verdict, hook, egress), then the bits of its fields.
        meetings: every undecided rule that was met.
        met: meeting's variable -> the set that meets it.
    """

    def __init__(
        self, origin: Origin, ends: dict[Place, int], shown: Callable[[Place], Shown], meetings: Iterable[Meeting],
        met: dict[int, int],
    ) -> None:
        self.origin = origin
        self.store = origin.store
        self.meetings = sorted(meetings, key=lambda m: m.order)
        self.variables = [m.variable for m in self.meetings]
        self.met = met
        grouped: dict[Shown, list[int]] = {}
        for place, here in ends.items():
            grouped.setdefault(shown(place), []).append(here)
        self.fates = {fate: self.store.any_of(parts) for fate, parts in grouped.items()}
        self.plain = {fate: self.baseline(here) for fate, here in self.fates.items()}

    def baseline(self, here: int) -> int:
        """A set where no undecided rule matches."""
        return self.store.assign(here, dict.fromkeys(self.variables, 0))

    def _differing(self, others: dict[Shown, int]) -> int:
        """The headers whose baseline's fate is another than one of those in `others` (sets by fate, not disjoint)."""
        store = self.store
        found = []
        for fate, here in self.plain.items():
            if here == 0 or fate[0] is Verdict.UNDECIDED:
                continue
            for other, there in others.items():
                if other == fate:
                    continue
                both = store.both(here, there)
                if both and other[:3] == fate[:3]:
                    both = store.both(both, store.any_of(
                        self.origin.differ(a, b) for a, b in zip(fate[3:], other[3:], strict=True)  # type: ignore[arg-type]
                    ))
                found.append(both)
        return store.any_of(found)

    def named(self) -> list[tuple[Meeting, int]]:
        """The undecided headers, by the rule to name; disjoint sets."""
        store = self.store
        possible = {fate: store.some(here, self.variables) for fate, here in self.fates.items()}
        left = self._differing(possible)
        found: list[tuple[Meeting, int]] = []
        nothing = dict.fromkeys(self.variables, 0)
        for meeting in self.meetings:
            if not left:
                return found
            alone = nothing | {meeting.variable: 1}
            chosen = store.both(left, self._differing({f: store.assign(s, alone) for f, s in self.fates.items()}))
            if chosen:
                found.append((meeting, chosen))
                left = store.without(left, chosen)
        for i, meeting in enumerate(self.meetings):
            if not left:
                break
            earlier = dict.fromkeys(self.variables[:i], 0) | {meeting.variable: 1}
            later = self.variables[i + 1:]
            taken = {f: store.some(store.assign(s, earlier), later) for f, s in self.fates.items()}
            here = store.all_of((left, self.baseline(self.met[meeting.variable]), self._differing(taken)))
            if here:
                found.append((meeting, here))
                left = store.without(left, here)
        assert not left, "a fate that depends on undecided rules has a first one"
        return found
