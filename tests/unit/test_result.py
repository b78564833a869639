"""Results: rows, counters, summaries, differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastpath.errors import PacketError
from fastpath.packets import Fate, Hook, Result, Verdict
from fastpath.ruleset.model import RuleRef

RULES = (RuleRef(0, "filter", "FORWARD", 0, "-P FORWARD DROP"), RuleRef(1, "filter", "FORWARD", 1, "-A FORWARD -j A"),
         RuleRef(2, "nat", "A", 1, "-A A -j DNAT"))


def make(rules: tuple[RuleRef, ...] = RULES, interfaces: tuple[str, ...] = ("eth0", "br0"), **change: Any) -> Result:
    columns: dict[str, Any] = {
        "verdict": np.array([0, 3, 0, 3, 0], np.uint8), "hook": np.array([5, 3, 5, 1, 5], np.uint8),
        "rule": np.array([1, 0, 1, -1, 1], np.int32), "oif": np.array([0, -1, 1, -1, 0], np.int16),
        "src": np.arange(5, dtype=np.uint32), "mark": np.full(5, 7, np.uint32),
    }
    packets = change.pop("packets", np.arange(len(rules)))
    return Result(columns | change, interfaces, rules, packets, np.arange(len(rules)) * 60)


def test_rows() -> None:
    r = make()
    assert len(r) == 5
    assert r[2] == Fate(Verdict.FORWARD, Hook.POSTROUTING, 1, "br0", 2, 0, 0, 0, 7, 0)
    assert r[-2].verdict is Verdict.DROP and r[3].rule == -1 and r[3].oif is None
    assert "FORWARD at POSTROUTING out br0" in str(r[2])
    assert r.rules_walked.dtype == np.uint32 and r.rules_walked.tolist() == [0] * 5
    with pytest.raises(IndexError):
        r[5]


def test_counters_follow_the_rules() -> None:
    assert [(c.ref.id, c.packets, c.bytes) for c in make().counters()] == [(0, 0, 0), (1, 1, 60), (2, 2, 120)]


def test_summary_by_verdict_and_by_rule() -> None:
    s = make().summary()
    assert s.packets == 5 and s.verdicts == ((Verdict.FORWARD, 3), (Verdict.DROP, 2))
    assert [(d.ref.id if d.ref else None, d.verdict, d.packets) for d in s.decisions] == [
        (1, Verdict.FORWARD, 3), (None, Verdict.DROP, 1), (0, Verdict.DROP, 1)]
    top = make().summary(top=1)
    assert len(top.decisions) == 1 and top.deciding == 3
    assert "60.00 %" in str(top) and "and 2 more" in str(top) and "(routing)" in str(s)


def test_summary_of_nothing() -> None:
    empty = Result({"verdict": np.zeros(0, np.uint8)}, (), (), np.zeros(0), np.zeros(0))
    assert empty.summary().packets == 0 and empty.summary().verdicts == () and "0 packets" in str(empty.summary())
    assert not empty.differences(empty)


def test_equal_results_do_not_differ() -> None:
    d = make().differences(make())
    assert not d and str(d) == "no difference" and d.rows.tolist() == [] and d.columns == {}


def test_differences_name_rows_columns_and_values() -> None:
    other = make(mark=np.array([7, 7, 8, 7, 9], np.uint32), verdict=np.array([0, 4, 0, 3, 0], np.uint8))
    d = make().differences(other)
    assert d and d.rows.tolist() == [1, 2, 4]
    assert {name: rows.tolist() for name, rows in d.columns.items()} == {"verdict": [1], "mark": [2, 4]}
    assert [(e.row, e.column, e.ours, e.theirs) for e in d.examples] == [
        (1, "verdict", "DROP", "REJECT"), (2, "mark", "7", "8"), (4, "mark", "7", "9")]
    assert "3 packets differ (verdict 1, mark 2)" in str(d) and "packet 1: verdict DROP != REJECT" in str(d)
    assert make().differences(other, ["verdict"]).rows.tolist() == [1]
    assert not make().differences(other, ["hook", "rule"])
    assert len(make().differences(other, examples=1).examples) == 1


def test_interfaces_and_rules_are_compared_by_name() -> None:
    swapped = make(interfaces=("br0", "eth0"), oif=np.array([1, -1, 0, -1, 1], np.int16))
    assert not make().differences(swapped)
    wrong = make(interfaces=("br0", "eth0"))
    assert make().differences(wrong).rows.tolist() == [0, 2, 4]
    fewer = tuple(RuleRef(i, r.table, r.chain, r.number, r.text) for i, r in enumerate(RULES[1:]))
    renumbered = make(rules=fewer, rule=np.array([0, -1, 0, -1, 0], np.int32), packets=np.array([1, 2]))
    d = make().differences(renumbered, ["rule"], counters=False)
    assert d.rows.tolist() == [1]
    assert [(e.ours, e.theirs) for e in d.examples] == [("filter FORWARD 0", "")]


def test_counters_are_compared() -> None:
    d = make().differences(make(packets=np.array([0, 1, 5])))
    assert d and len(d.rows) == 0 and d.counters == (("nat A 1", (2, 120), (5, 120)),)
    assert "1 counters differ" in str(d)
    assert not make().differences(make(packets=np.array([0, 1, 5])), counters=False)


def test_what_cannot_be_a_result_or_be_compared() -> None:
    with pytest.raises(PacketError, match="verdict is missing"):
        Result({}, (), (), np.zeros(0), np.zeros(0))
    with pytest.raises(PacketError, match="unknown result column 'dest'"):
        make(dest=np.zeros(5))
    with pytest.raises(PacketError, match="result column mark has shape"):
        make(mark=np.zeros(4, np.uint32))
    with pytest.raises(PacketError, match="rule_packets has shape"):
        make(packets=np.zeros(2))
    with pytest.raises(PacketError, match="5 and 0 packets"):
        make().differences(Result({"verdict": np.zeros(0, np.uint8)}, (), (), np.zeros(0), np.zeros(0)))
    with pytest.raises(PacketError, match="unknown result column"):
        make().differences(make(), ["dest"])


def test_ipv6_results() -> None:
    src = np.array([[0x20010DB8, 0, 0, 7], [0, 0, 0, 1]], np.uint32)
    a = Result({"verdict": np.zeros(2, np.uint8), "src": src}, (), (), np.zeros(0), np.zeros(0), family=6)
    assert a[0].src == 0x20010DB8 << 96 | 7 and a.cell("src", 0) == "2001:db8::7"
    changed = src.copy()
    changed[1, 0] = 1
    b = Result({"verdict": np.zeros(2, np.uint8), "src": changed}, (), (), np.zeros(0), np.zeros(0), family=6)
    assert a.differences(b).rows.tolist() == [1]
    assert a.to_arrow()["post_src"].to_pylist() == ["2001:db8::7", "::1"]
