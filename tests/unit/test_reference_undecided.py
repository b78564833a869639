"""Rules that cannot be told: when they matter, which one is named, and what callers may assume."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastpath.errors import CompileError, PacketError
from fastpath.packets import PacketBatch, Verdict
from fastpath.reference import evaluate
from tests.unit.reference_host import brief, counted, fate, make_host, packet, rule_name

LIMIT = "-m limit --limit 5/min"
RECENT = "-m recent --rcheck --name x"


def test_the_rule_that_matters_is_named() -> None:
    host = make_host(filter=f"-A FORWARD {LIMIT} -j LOG\n-A FORWARD -p udp {LIMIT} -j DROP\n"
                            f"-A FORWARD {LIMIT} -j DROP\n-A FORWARD {LIMIT} -j DROP")
    found = fate(host, mark=9)
    assert brief(found) == ("UNDECIDED", "FORWARD", None)
    assert rule_name(host, found.rule) == "filter FORWARD 3"
    assert found.mark == 9 and found.rules_walked == 4
    assert counted(host, packet()) == {"filter FORWARD 0": (1, 60)}


def test_logging_makes_no_difference_however_often() -> None:
    host = make_host(filter="-N L\n-A L -j LOG\n-A L -j RETURN\n" + f"-A FORWARD {LIMIT} -j L\n" * 40)
    found = fate(host)
    assert found.verdict is Verdict.FORWARD and found.rules_walked == 40


def test_both_outcomes_may_be_the_same() -> None:
    host = make_host(filter=f"-A FORWARD {LIMIT} -j DROP\n-A FORWARD -j DROP")
    found = fate(host)
    assert found.verdict is Verdict.DROP and rule_name(host, found.rule) == "filter FORWARD 2"


def test_many_choices_that_meet_again_are_followed_once() -> None:
    """Forty undecided marks give 2**40 walks but only as many states as there are places and marks."""
    host = make_host(mangle=f"-A PREROUTING {LIMIT} -j MARK --set-mark 1\n" * 40
                            + "-A PREROUTING -j MARK --set-mark 7", filter="-A FORWARD -m mark --mark 1 -j DROP")
    assert fate(host).verdict is Verdict.FORWARD


def test_choices_that_only_matter_together() -> None:
    """No single rule changes anything: the first from which a combination does is named."""
    host = make_host(mangle=f"-A PREROUTING {LIMIT} -j TOS --set-tos 0x10/0xff",
                     filter=f"-A FORWARD {LIMIT} -j LOG\n-A FORWARD -m tos --tos 0x10/0xff {RECENT} -j DROP")
    found = fate(host)
    assert found.verdict is Verdict.UNDECIDED
    assert (rule_name(host, found.rule), found.hook.name) == ("mangle PREROUTING 1", "PREROUTING")


def test_a_rule_that_matters_alone_goes_before_one_that_needs_help() -> None:
    host = make_host(mangle=f"-A PREROUTING {LIMIT} -j TOS --set-tos 0x10/0xff",
                     filter=f"-A FORWARD -m tos --tos 0x10/0xff {RECENT} -j ACCEPT\n-A FORWARD {LIMIT} -j DROP")
    assert rule_name(host, fate(host).rule) == "filter FORWARD 2"


def test_decided_tests_of_an_undecided_rule_count() -> None:
    host = make_host(filter=f"-A FORWARD -p udp {LIMIT} -j DROP")
    assert fate(host).verdict is Verdict.FORWARD
    assert fate(host, proto="udp").verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("target", ["NFQUEUE --queue-num 1", "NFQUEUE"])
def test_undecided_targets(target: str) -> None:
    host = make_host(filter=f"-A FORWARD -p tcp -j {target}\n-A FORWARD {LIMIT} -j NFQUEUE")
    found = fate(host)
    assert (found.verdict, rule_name(host, found.rule)) == (Verdict.UNDECIDED, "filter FORWARD 1")
    assert rule_name(host, fate(host, proto="udp").rule) == "filter FORWARD 2"
    assert fate(make_host(filter=f"-A FORWARD -p udp -j {target}")).verdict is Verdict.FORWARD


def test_assumptions() -> None:
    host = make_host(filter=f"-A FORWARD {LIMIT} -j DROP\n-A FORWARD {RECENT} -j REJECT")
    assert fate(host, assume={"limit": "match"}).verdict is Verdict.DROP
    assert fate(host, assume={"limit": "no-match", "recent": "no-match"}).verdict is Verdict.FORWARD
    assert fate(host, assume={"limit": "no-match", "recent": "match"}).verdict is Verdict.REJECT
    first = next(r.id for r in host.ruleset.refs() if (r.chain, r.number) == ("FORWARD", 1))
    assert fate(host, assume={"limit": "match", first: "no-match", "recent": "match"}).verdict is Verdict.REJECT
    half = fate(host, assume={"limit": "no-match"})
    assert rule_name(host, half.rule) == "filter FORWARD 2"


def test_assumed_columns() -> None:
    host = make_host(filter=f"-A FORWARD {LIMIT} -j DROP")
    one = packet()
    batch = PacketBatch.from_columns(
        {"iif": [one.iif] * 2, "src": [one.src] * 2, "dst": [one.dst] * 2, "proto": 6}, 2,
        extra={"burst": np.array([True, False])})
    result = evaluate(host, batch, assume={"limit": "column:burst"})
    assert [v.name for v in map(Verdict, result.verdict.tolist())] == ["DROP", "FORWARD"]
    with pytest.raises(PacketError, match="'other'"):
        evaluate(host, batch, assume={"limit": "column:other"})


def test_bad_assumptions() -> None:
    host = make_host(filter="")
    with pytest.raises(CompileError, match="maybe"):
        fate(host, assume={"limit": "maybe"})
    with pytest.raises(CompileError, match="no rule of that id"):
        fate(host, assume={99: "match"})


def test_owner_without_a_column_is_undecided() -> None:
    host = make_host(filter="-A OUTPUT -m owner --uid-owner 0 -j DROP")
    own: dict[str, Any] = {"iif": "local", "src": "10.0.2.15", "dst": "8.8.8.8"}
    assert fate(host, **own).verdict is Verdict.UNDECIDED
    assert fate(host, uid=0, **own).verdict is Verdict.DROP
    assert fate(host, uid=1, **own).verdict is Verdict.LOCAL_OUT


def test_address_types_of_an_unknown_host_are_undecided() -> None:
    host = make_host(filter="-A FORWARD -m addrtype --dst-type LOCAL -j DROP", complete=False)
    assert fate(host, oif="docker0").verdict is Verdict.UNDECIDED
    assert fate(host, oif="docker0", assume={"addrtype": "no-match"}).verdict is Verdict.FORWARD
