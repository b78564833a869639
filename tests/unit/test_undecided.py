"""Packets whose fate hangs on rules that nobody can tell: which they are, and which rule the engine names.

Each host also goes through the reference, which explores all choices packet by packet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastpath.engine import Config
from fastpath.engine import compile as compile_host
from fastpath.host.model import Host
from fastpath.packets import Fate, PacketBatch, Result
from fastpath.packets.schema import Hook, Verdict
from fastpath.reference import evaluate
from tests.strategies import edge_packets, random_drawn
from tests.unit.reference_host import brief, make_host, number, packet, rule_name

LIMIT = "-m limit --limit 5/min"
RECENT = "-m recent --rcheck --name x"


def check_agreement(host: Host, packets: PacketBatch, config: Config | None = None) -> Result:
    """Evaluates with the engine; everything must be as the reference has it."""
    found = compile_host(host, config=config).evaluate(packets)
    expected = evaluate(host, packets)
    difference = found.differences(expected)
    assert not difference, str(difference)
    assert np.array_equal(found.rule_packets, expected.rule_packets)
    return found


def fate(host: Host, config: Config | None = None, **change: Any) -> Fate:
    return check_agreement(host, PacketBatch.from_packets([packet(**change)]), config)[0]


def named(host: Host, config: Config | None = None, **change: Any) -> tuple[str, str]:
    """Rule and hook that an UNDECIDED packet hangs on."""
    found = fate(host, config, **change)
    assert found.verdict is Verdict.UNDECIDED
    return rule_name(host, found.rule), found.hook.name


BOTH = [pytest.param(None, id="diagram"), pytest.param(Config(structure="linear"), id="linear")]
both_structures = pytest.mark.parametrize("config", BOTH)


# ------------------------------------------------------------------------------------------------- decided


@both_structures
@pytest.mark.parametrize("count", [1, 30])
def test_logging_makes_no_difference(count: int, config: Config | None) -> None:
    host = make_host(filter=f"-A FORWARD {LIMIT} -j LOG\n" * count + f"-A FORWARD {RECENT}\n-A FORWARD -p tcp -j DROP")
    found = fate(host, config)
    assert (found.verdict, rule_name(host, found.rule)) == (Verdict.DROP, f"filter FORWARD {count + 2}")
    assert found.rules_walked == count + 2


@both_structures
def test_jumps_to_chains_that_only_log_make_no_difference(config: Config | None) -> None:
    host = make_host(filter="-N L\n-A L -j LOG\n-A L -j RETURN\n" + f"-A FORWARD {LIMIT} -j L\n" * 30)
    assert fate(host, config).verdict is Verdict.FORWARD


@both_structures
def test_both_outcomes_may_be_the_same(config: Config | None) -> None:
    host = make_host(filter=f"-A FORWARD {LIMIT} -j DROP\n-A FORWARD -j DROP")
    found = fate(host, config)
    assert (found.verdict, rule_name(host, found.rule)) == (Verdict.DROP, "filter FORWARD 2")


@both_structures
def test_an_undecided_accept_before_an_accepting_policy_makes_no_difference(config: Config | None) -> None:
    host = make_host(filter=f"-A FORWARD {LIMIT} -j ACCEPT")
    found = fate(host, config)
    assert (found.verdict, rule_name(host, found.rule)) == (Verdict.FORWARD, "filter FORWARD 0")
    strict = make_host(filter=f"-P FORWARD DROP\n-A FORWARD {LIMIT} -j ACCEPT")
    assert named(strict, config) == ("filter FORWARD 1", "FORWARD")


@both_structures
def test_a_rule_whose_decided_tests_fail_makes_no_difference(config: Config | None) -> None:
    host = make_host(filter=f"-A FORWARD -p udp {LIMIT} -j DROP")
    assert fate(host, config).verdict is Verdict.FORWARD
    assert named(host, config, proto="udp") == ("filter FORWARD 1", "FORWARD")


@both_structures
def test_a_mark_that_is_overwritten_makes_no_difference(config: Config | None) -> None:
    host = make_host(mangle=f"-A PREROUTING {LIMIT} -j MARK --set-mark 1\n" * 3 + "-A PREROUTING -j MARK --set-mark 7",
                     filter="-A FORWARD -m mark --mark 1 -j DROP")
    found = fate(host, config)
    assert (found.verdict, found.mark) == (Verdict.FORWARD, 7)


def test_many_different_marks_that_are_overwritten_make_no_difference() -> None:
    """Twelve undecided marks are 4,096 ways, but all of them end with the same mark."""
    marks = "".join(f"-A PREROUTING {LIMIT} -j MARK --set-mark {i}\n" for i in range(12))
    host = make_host(mangle=marks + "-A PREROUTING -j MARK --set-mark 77", filter="-A FORWARD -m mark --mark 1 -j DROP")
    assert fate(host).mark == 77


# ---------------------------------------------------------------------------------------------- which rule is named


@both_structures
def test_the_rule_that_matters_is_named(config: Config | None) -> None:
    host = make_host(filter=f"-A FORWARD {LIMIT} -j LOG\n-A FORWARD -p udp {LIMIT} -j DROP\n"
                            f"-A FORWARD {LIMIT} -j DROP\n-A FORWARD {LIMIT} -j DROP")
    assert named(host, config) == ("filter FORWARD 3", "FORWARD")


@both_structures
@pytest.mark.parametrize(("tables", "change", "hook"), [
    ({"raw": f"-A PREROUTING {LIMIT} -j DROP"}, {}, "PREROUTING"),
    ({"mangle": f"-A PREROUTING {LIMIT} -j DROP"}, {}, "PREROUTING"),
    ({"filter": f"-A INPUT {LIMIT} -j REJECT"}, {"dst": "10.0.2.15"}, "INPUT"),
    ({"filter": f"-A FORWARD {LIMIT} -j REJECT"}, {}, "FORWARD"),
    ({"filter": f"-A OUTPUT {LIMIT} -j DROP"}, {"iif": "local", "src": "10.0.2.15"}, "OUTPUT"),
    ({"mangle": f"-A POSTROUTING {LIMIT} -j DROP"}, {}, "POSTROUTING"),
    ({"nat": f"-A POSTROUTING {LIMIT} -j MASQUERADE"}, {"iif": "docker0", "src": "172.17.0.2", "dst": "8.8.8.8"},
     "POSTROUTING"),
])
def test_the_hook_is_where_the_rule_stands(
    tables: dict[str, str], change: dict[str, Any], hook: str, config: Config | None
) -> None:
    host = make_host(**tables)
    rule, found = named(host, config, **change)
    assert found == hook and rule.endswith(f"{hook} 1")


@both_structures
def test_a_rule_in_a_user_chain_stands_at_the_hook_that_led_there(config: Config | None) -> None:
    host = make_host(filter=f"-N U\n-A U {LIMIT} -j DROP\n-A INPUT -j U\n-A FORWARD -j U")
    assert named(host, config) == ("filter U 1", "FORWARD")
    assert named(host, config, dst="10.0.2.15") == ("filter U 1", "INPUT")


@both_structures
def test_rules_that_only_matter_together(config: Config | None) -> None:
    """No single rule changes anything: the first from which a combination does is named."""
    host = make_host(mangle=f"-A PREROUTING {LIMIT} -j TOS --set-tos 0x10/0xff",
                     filter=f"-A FORWARD {LIMIT} -j LOG\n-A FORWARD -m tos --tos 0x10/0xff {RECENT} -j DROP")
    assert named(host, config) == ("mangle PREROUTING 1", "PREROUTING")


@both_structures
def test_rules_that_only_matter_together_in_one_chain(config: Config | None) -> None:
    host = make_host(filter=f"-N A\n-A FORWARD {LIMIT} -j A\n-A A {RECENT} -j DROP")
    assert named(host, config) == ("filter FORWARD 1", "FORWARD")


@both_structures
def test_a_rule_that_matters_alone_goes_before_one_that_needs_help(config: Config | None) -> None:
    host = make_host(mangle=f"-A PREROUTING {LIMIT} -j TOS --set-tos 0x10/0xff",
                     filter=f"-A FORWARD -m tos --tos 0x10/0xff {RECENT} -j ACCEPT\n-A FORWARD {LIMIT} -j DROP")
    assert named(host, config) == ("filter FORWARD 2", "FORWARD")


@both_structures
def test_three_rules_over_three_stages(config: Config | None) -> None:
    host = make_host(mangle=f"-A PREROUTING {LIMIT} -j TOS --set-tos 0x10/0x10\n"
                            f"-A FORWARD -m tos --tos 0x10/0x10 {LIMIT} -j TOS --set-tos 0x20/0x20",
                     filter=f"-A FORWARD -m tos --tos 0x30/0x30 {LIMIT} -j DROP")
    assert named(host, config) == ("mangle PREROUTING 1", "PREROUTING")


@both_structures
def test_a_combination_that_begins_earlier_is_named_first(config: Config | None) -> None:
    """Two combinations change the fate: one within the first chain, one that begins behind it."""
    host = make_host(
        mangle=f"-A PREROUTING {LIMIT} -j TOS --set-tos 0x04/0x04\n-A PREROUTING {LIMIT} -j TOS --set-tos 0x08/0x08\n"
               f"-A FORWARD -m tos --tos 0x00/0x0c {LIMIT} -j TOS --set-tos 0x40/0x40",
        filter=f"-A FORWARD -m tos --tos 0x0c/0x0c -j DROP\n-A FORWARD -m tos --tos 0x40/0x40 {LIMIT} -j DROP")
    assert named(host, config) == ("mangle PREROUTING 1", "PREROUTING")


@both_structures
def test_an_undecided_rewrite_that_changes_the_way(config: Config | None) -> None:
    """Only where the packet goes differs; the rule that accepts it is the same."""
    host = make_host(nat=f"-A PREROUTING -p tcp {LIMIT} -j DNAT --to-destination 172.18.0.5", filter="")
    assert named(host, config) == ("nat PREROUTING 1", "PREROUTING")
    assert fate(host, config, proto="udp").verdict is Verdict.FORWARD
    same = make_host(nat=f"-A PREROUTING -p tcp {LIMIT} -j DNAT --to-destination 172.17.0.2", filter="")
    assert fate(same, config).verdict is Verdict.FORWARD


@pytest.mark.parametrize("count", [8, 20, 70])
def test_what_was_given_up_names_the_first_undecided_rule(count: int) -> None:
    """A linear stage with more undecided rules than anyone tries: the answer may be UNDECIDED, but it says why."""
    marks = f"-A PREROUTING {LIMIT} -j MARK --set-mark 1\n" * count
    host = make_host(
        mangle=f"-A PREROUTING -p udp\n{marks}-A PREROUTING -m mark --mark 9 -j DROP\n"
               "-A PREROUTING -j MARK --set-mark 7")
    engine = compile_host(host)
    assert engine.structures["arriving"] == "linear"
    found = engine.evaluate(PacketBatch.from_packets([packet()]))[0]
    if count > 8 and found.verdict is Verdict.UNDECIDED:
        assert (rule_name(host, found.rule), found.hook) == ("mangle PREROUTING 2", Hook.PREROUTING)
        assert (found.mark, found.oif) == (0, None)
    else:
        assert (found.verdict, found.mark) == (Verdict.FORWARD, 7)


# -------------------------------------------------------------------------------------------- undecided targets


@both_structures
def test_a_queue_that_is_reached_is_undecided(config: Config | None) -> None:
    host = make_host(filter="-A FORWARD -p tcp -j NFQUEUE --queue-num 1\n-A FORWARD -p sctp -j QUEUE")
    assert named(host, config) == ("filter FORWARD 1", "FORWARD")
    assert named(host, config, proto="sctp") == ("filter FORWARD 2", "FORWARD")
    assert fate(host, config, proto="udp").verdict is Verdict.FORWARD


@both_structures
def test_a_queue_behind_an_undecided_rule(config: Config | None) -> None:
    """Whether the packet gets to the queue is itself not known: the rule that may send it there is named."""
    host = make_host(filter=f"-N Q\n-A FORWARD {LIMIT} -j Q\n-A Q -p tcp -j NFQUEUE --queue-num 1")
    assert named(host, config) == ("filter FORWARD 1", "FORWARD")
    assert fate(host, config, proto="udp").verdict is Verdict.FORWARD
    direct = make_host(filter=f"-A FORWARD {LIMIT} -j NFQUEUE")
    assert named(direct, config) == ("filter FORWARD 1", "FORWARD")
    behind = make_host(filter=f"-A FORWARD {LIMIT} -j DROP\n-A FORWARD -j NFQUEUE")
    assert named(behind, config) == ("filter FORWARD 2", "FORWARD")


def test_policy_rules_leave_forwarded_packets_undecided() -> None:
    host = make_host(policy_rules=("100: from 172.17.0.0/16 lookup 7",), filter="-A INPUT -p udp -j DROP")
    found = fate(host)
    assert (found.verdict, found.hook, found.rule) == (Verdict.UNDECIDED, Hook.ROUTE, -1)
    assert fate(host, dst="10.0.2.15").verdict is Verdict.LOCAL_IN


# ----------------------------------------------------------------------------------------- what else is answered


@both_structures
def test_an_undecided_packet_is_shown_as_it_arrived(config: Config | None) -> None:
    host = make_host(mangle="-A PREROUTING -j MARK --set-mark 5",
                     nat="-A PREROUTING -p tcp -j DNAT --to-destination 172.18.0.5-172.18.0.9:81",
                     filter=f"-A FORWARD {LIMIT} -j DROP")
    found = fate(host, config, mark=3)
    assert brief(found) == ("UNDECIDED", "FORWARD", None)
    assert (found.dst, found.dport, found.mark, found.flags) == (number("172.17.0.2"), 80, 3, 0)
    assert found.rules_walked == 3


@both_structures
def test_counters_are_those_of_no_match(config: Config | None) -> None:
    host = make_host(filter=f"-A FORWARD {LIMIT} -j DROP\n-A FORWARD -p tcp\n-A FORWARD {RECENT} -j LOG")
    found = check_agreement(host, PacketBatch.from_packets([packet(), packet(proto="udp"), packet()]), config)
    counts = {(r.ref.chain, r.ref.number): r.packets for r in found.counters() if r.packets}
    assert counts == {("FORWARD", 2): 2, ("FORWARD", 0): 3}


def test_decided_and_undecided_packets_of_one_batch() -> None:
    """Tries of some packets leave the others as they are."""
    host = make_host(filter=f"-A FORWARD -p tcp {LIMIT} -j DROP\n-A FORWARD -p udp {RECENT} -j DROP\n"
                            "-A FORWARD -p sctp -j DROP")
    changes = [{"proto": p, "sport": i} for i, p in enumerate(("tcp", "udp", "sctp", "icmp") * 500)]
    found = check_agreement(host, PacketBatch.from_packets([packet(**c) for c in changes]))
    assert [Verdict(v).name for v in found.verdict[:4]] == ["UNDECIDED", "UNDECIDED", "DROP", "FORWARD"]
    assert [rule_name(host, int(r)) for r in found.rule[:3]] == [f"filter FORWARD {i}" for i in (1, 2, 3)]


@pytest.mark.parametrize("seed", range(20))
def test_drawn_hosts_full_of_undecided_rules(seed: int) -> None:
    """A limit in front of every third rule of a drawn host."""
    drawn = random_drawn(seed, size=6)
    lines = drawn.rules.splitlines()
    spoilt = [
        line.replace(" -j ", f" {LIMIT} -j ", 1) if i % 3 == 0 and line.startswith("-A") else line
        for i, line in enumerate(lines)
    ]
    drawn.rules = "\n".join(spoilt) + "\n"
    host = drawn.host()
    found = check_agreement(host, edge_packets(host, 60, seed))
    check_agreement(host, edge_packets(host, 60, seed), Config(structure="linear"))
    assert len(found) == 60
