"""Differences in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from fastpath.packets.schema import Verdict
from fastpath.ruleset.model import RuleRef
from fastpath.symbolic.text import SHOWN_ORDER, column_text, joined_words

if TYPE_CHECKING:
    from fastpath.analysis.diff.kinds import Kind
    from fastpath.analysis.diff.model import Diff, Difference, Side
    from fastpath.symbolic import PacketSet

MOST_RULES = 3
"""Deciding rules of one side that are written out."""


def quantity(count: int) -> str:
    """A number that may be astronomical: ``1,234,567`` or ``4.3e+34``."""
    return f"{count:,}" if count < 10**9 else f"{float(count):.1e}"


def what(by: Iterable[str]) -> str:
    """What was compared, for a sentence."""
    words = {"verdict": "verdict", "egress": "egress", "nat": "NAT", "rule": "deciding rule"}
    *first, last = (words[b] for b in by)
    return f"{', '.join(first)} or {last}" if first else last


def _rules(rules: tuple[RuleRef, ...], routed: bool, verdict: Verdict) -> Iterator[str]:
    by = "hangs on" if verdict is Verdict.UNDECIDED else "by"
    if routed and not rules:
        yield "by routing, not by a rule"
        return
    shown = rules if len(rules) <= MOST_RULES + 1 else rules[:MOST_RULES]
    for ref in shown:
        yield f"{by} {ref}"
    if len(shown) < len(rules):
        yield f"and {len(rules) - len(shown)} rules more"
    if routed:
        yield "and by routing"


def _side(name: str, side: Side) -> Iterator[str]:
    rules = list(_rules(side.rules, side.routed, side.verdict))
    yield f"  {name:<8} {side} {rules[0]}" if len(rules) == 1 else f"  {name:<8} {side}"
    if len(rules) > 1:
        yield from (f"           {line}" for line in rules)


def difference_text(difference: Difference, hidden: frozenset[str] = frozenset()) -> Iterator[str]:
    """One region with its two sides and its witness, without some columns."""
    region = difference.region
    names = [c for c in SHOWN_ORDER if c in region.columns]
    names += [c for c in region.columns if c not in SHOWN_ORDER]
    columns = [(name, column_text(region, name)) for name in names if name not in hidden]
    yield from _told(difference, difference.headers, difference.packets, columns)


def _told(
    difference: Difference, headers: int, packets: int | None, columns: Iterable[tuple[str, str]]
) -> Iterator[str]:
    head = f"{difference.before} -> {difference.after}"
    if packets is not None:
        head += f": {packets:,} of the packets"
    yield f"{head} ({quantity(headers)} headers)"
    shown = False
    for column, text in columns:
        shown = True
        yield f"  {column.removeprefix('extra:'):<8} {text}"
    if not shown:
        yield "  every packet"
    yield from _side("before", difference.before)
    yield from _side("after", difference.after)
    yield f"  packet   {difference.witness}"


def given(asked: PacketSet) -> dict[str, int]:
    """What the packets that were asked about have in each column, as diagrams over its bits; columns that are open are
    left out."""
    space = asked.space
    everything = frozenset(v for p in space.places.values() for v in p.variables)
    return {
        name: space.store.some(asked.diagram, everything.difference(space.places[name].variables))
        for name in asked.columns
    }


def kind_text(kind: Kind, asked: Mapping[str, int]) -> Iterator[str]:
    """One kind of regions, with the sides and the witness of the largest of them; columns that hold whatever was asked
    about are left out."""
    hidden = frozenset(name for name, values in kind.differences[0].region.parts if asked.get(name) == values)
    if len(kind.differences) == 1:
        yield from difference_text(kind.differences[0], hidden)
        return
    columns = [(name, text) for name, text in kind.columns if name not in hidden]
    first, *rest = _told(kind.differences[0], kind.headers, kind.packets, columns)
    yield first
    yield f"  in {len(kind.differences)} regions, for X each of {joined_words(kind.networks)}; the first in full:"
    yield from rest


def diff_text(diff: Diff, most: int) -> str:
    """All of it."""
    which = "all packets" if diff.where is None else "the packets asked about"
    if not diff.differences:
        lines = [f"No packet differs in {what(diff.by)}: that holds for {which} "
                 f"({quantity(diff.asked.count())} headers), not for a sample."]
        if diff.packets:
            lines.append(f"So none of the {diff.packets:,} packets does.")
        return "\n".join(lines)
    count, kinds = len(diff.differences), diff.kinds
    found = f"{count} region{'s' if count > 1 else ''} of packets"
    found += f", of {len(kinds)} kind{'s' if len(kinds) > 1 else ''}," if len(kinds) < count else ""
    found += f" differ{'' if count > 1 else 's'} in {what(diff.by)}"
    lines = [f"{found}; whatever lies in none of them does not change."]
    if diff.packets is not None and diff.changed_packets is not None:
        share = f" ({100 * diff.changed_packets / diff.packets:.2g}%)" if diff.packets else ""
        lines.append(f"{diff.changed_packets:,} of {diff.packets:,} packets change{share}.")
    if any(d.undecided for d in diff.differences):
        lines.append("Some differences hang on rules that a header does not decide (UNDECIDED names them).")
    asked = given(diff.asked)
    for number, kind in enumerate(kinds[:most], 1):
        first, *rest = kind_text(kind, asked)
        lines += ["", f"{number}. {first}", *(f" {line}" for line in rest)]
    if len(kinds) > most:
        lines += ["", f"and {len(kinds) - most} kinds of regions more"]
    return "\n".join(lines)
