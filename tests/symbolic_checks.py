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
from fastpath.symbolic import HeaderSpace, HostSets, PacketSet

COMPARED = ("verdict", "hook", "rule", "oif", "src", "dst", "sport", "dport", "mark")

Assume = Mapping[str | int, str]


def numbers(space: HeaderSpace, bits: tuple[int, ...], packets: PacketBatch) -> np.ndarray[Any, Any]:
    """The value of a number given bit by bit, for each packet."""
    value = np.zeros(len(packets), np.uint64)
    for bit in bits:
        value = value * np.uint64(2) + PacketSet(space, bit).contains(packets)
    return value


def check_fates(host: Host, packets: PacketBatch, *, about: object = "", **options: Any) -> HostSets:
    """Every packet lies in exactly one fate's set, that of the reference; its tuple and mark are the reference's."""
    space = HeaderSpace.of(host, given_oif=packets.has("oif"))
    sets = HostSets(space, host, **options)
    expected = evaluate(host, packets, **options)
    seen = np.zeros(len(packets), int)
    for fate, diagram in sets.each_fate():
        rows = np.flatnonzero(PacketSet(space, diagram).contains(packets))
        seen[rows] += 1
        here = packets.take(rows)
        values = [numbers(space, bits, here) for bits in (*fate.rewrite.bits, fate.mark)]
        for i, row in enumerate(rows.tolist()):
            told = expected[row]
            found = (fate.verdict, fate.hook, fate.rule, fate.egress, *(int(v[i]) for v in values))
            right = tuple(getattr(told, name) for name in COMPARED)
            if found != right:
                pytest.fail(f"packet {row}: {packets[row]}\n  sets      {found}\n  reference {right}\n{about}",
                            pytrace=False)
    assert (seen == 1).all(), f"fates are no partition\n{about}"
    whole = space.nothing
    for here in sets.fates().values():
        assert not whole & here
        whole = whole | here
    assert whole == space.everything
    return sets


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
