"""What the tests of packet sets share: sets held against the reference, packet by packet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fastpath.analysis.diff import Diff
from fastpath.analysis.diff.compute import THROUGH, rule_names
from fastpath.host.model import Host
from fastpath.packets import PacketBatch, Result
from fastpath.packets.schema import Verdict
from fastpath.reference import evaluate
from fastpath.reference.evaluate import Reference
from fastpath.reference.tracing import PolicyApplied, RuleExamined
from fastpath.symbolic import HeaderSpace, HostSets, PacketSet

REWRITTEN = ("src", "dst", "sport", "dport", "mark")

Assume = Mapping[str | int, str]


def numbers(space: HeaderSpace, bits: tuple[int, ...], packets: PacketBatch) -> np.ndarray[Any, Any]:
    """The value of a number given bit by bit, for each packet."""
    value = np.zeros(len(packets), np.uint64)
    for bit in bits:
        value = value * np.uint64(2) + PacketSet(space, bit).contains(packets)
    return value


def check_fates(
    host: Host, packets: PacketBatch, *, about: object = "", given_oif: bool = False, **options: Any
) -> HostSets:
    """Every packet lies in exactly one fate's set, that of the reference; its tuple and mark are the reference's."""
    space = HeaderSpace.of(host, given_oif=given_oif)
    sets = HostSets(space, host, **options)
    expected = evaluate(host, packets, **options)
    interfaces = [*expected.interfaces, None]
    seen = np.zeros(len(packets), int)
    for fate, here in sets.fates(("verdict", "hook", "egress", "rule")).items():
        for row in np.flatnonzero(here.contains(packets)).tolist():
            seen[row] += 1
            told = (expected.verdict[row], expected.hook[row], interfaces[expected.oif[row]], expected.rule[row])
            if fate != told:
                pytest.fail(f"packet {row}: {packets[row]}\n  sets      {fate}\n  reference {told}\n{about}",
                            pytrace=False)
    assert (seen == 1).all(), f"fates are no partition\n{about}"
    for ending, diagram in sets.each_fate(rules=False):
        rows = np.flatnonzero(PacketSet(space, diagram).contains(packets))
        inside = packets.take(rows)
        for name, bits in zip(REWRITTEN, (*ending.rewrite.bits, ending.mark), strict=True):
            wrong = rows[numbers(space, bits, inside) != getattr(expected, name)[rows]]
            assert not len(wrong), f"{name} of packet {wrong[0]}: {packets[int(wrong[0])]}, {ending.rewrite}\n{about}"
    whole = space.nothing
    for here in sets.fates().values():
        assert not whole & here
        whole = whole | here
    assert whole == space.everything
    return sets


def check_rules(host: Host, sets: HostSets, packets: PacketBatch, *, about: object = "", **options: Any) -> None:
    """The rules that a packet's way examines and matches are those whose sets hold it."""
    reference = Reference(host, **options)
    examined = {i: here.contains(packets) for i, here in sets.examined.items()}
    counted = {i: here.contains(packets) for i, here in sets.counted.items()}
    for row, packet in enumerate(packets):
        seen: set[int] = set()
        matched: set[int] = set()
        for event in reference.trace(packet).events:
            if isinstance(event, RuleExamined | PolicyApplied):
                seen.add(event.ref.id)
                if isinstance(event, PolicyApplied) or event.matched:
                    matched.add(event.ref.id)
        assert {i for i, here in examined.items() if here[row]} == seen, f"{packet}\n{about}"
        assert {i for i, here in counted.items() if here[row]} == matched, f"{packet}\n{about}"
    for i, here in sets.examined.items():
        assert here <= sets.reached[i] and sets.counted[i] <= sets.matched[i] and sets.matched[i] <= sets.reached[i]


def fates_of(host: Host, result: Result, packets: PacketBatch, by: tuple[str, ...]) -> list[tuple[object, ...]]:
    """What is compared of each packet's fate, as the reference has it."""
    names = rule_names(host)
    interfaces = [*result.interfaces, None]
    found = []
    for i in range(len(packets)):
        verdict = Verdict(result.verdict[i])
        through = verdict in THROUGH
        values: dict[str, object] = {
            "verdict": verdict, "rule": names.get(int(result.rule[i])),
            "egress": interfaces[result.oif[i]] if through else None,
            "nat": tuple(int(getattr(result, c)[i]) for c in ("src", "dst", "sport", "dport")) if through else None,
        }
        found.append(tuple(values[b] for b in by))
    return found


def check_diff(before: Host, after: Host, packets: PacketBatch, found: Diff, *, about: object = "",
               assume: Assume | None = None) -> int:
    """Regions are disjoint, and hold a packet if and only if the reference's fates differ -> how many do."""
    sides = [evaluate(host, packets, assume=assume) for host in (before, after)]
    first, second = (
        fates_of(host, side, packets, found.by) for host, side in zip((before, after), sides, strict=True)
    )
    differ = np.array([a != b for a, b in zip(first, second, strict=True)], bool)
    inside = np.zeros(len(packets), int)
    for difference in found:
        here = difference.region.packets.contains(packets)
        inside += here
        for row in np.flatnonzero(here).tolist():
            assert Verdict(sides[0].verdict[row]) is difference.before.verdict, about
            assert Verdict(sides[1].verdict[row]) is difference.after.verdict, about
            for side, told in zip((difference.before, difference.after), sides, strict=True):
                rule = int(told.rule[row])
                assert side.routed if rule < 0 else rule in {r.id for r in side.rules}, about
    wrong = np.flatnonzero(inside != differ)
    if len(wrong):
        row = int(wrong[0])
        pytest.fail(f"packet {row} lies in {inside[row]} regions, by {found.by}: {packets[row]}\n"
                    f"  before {first[row]}\n  after  {second[row]}\n{about}", pytrace=False)
    return int(differ.sum())
