"""Chains: jumps, gotos, returns, policies; what rules change on a packet; what is counted."""

from __future__ import annotations

import pytest

from fastpath.errors import CompileError
from fastpath.host.model import Host
from fastpath.packets import Verdict
from fastpath.ruleset.model import Chain, Rule, Ruleset, Table, Target
from tests.unit.reference_host import brief, counted, fate, make_host, packet, rule_name


def test_return_goes_on_behind_the_jump() -> None:
    host = make_host(filter="-N A\n-N B\n-A FORWARD -j A\n-A FORWARD -j DROP\n-A A -j B\n-A A -j ACCEPT\n"
                            "-A B -j RETURN\n-A B -j DROP")
    found = fate(host)
    assert brief(found) == ("FORWARD", "POSTROUTING", "docker0")
    assert rule_name(host, found.rule) == "filter A 2"
    assert found.rules_walked == 4
    assert counted(host, packet()) == {
        "filter FORWARD 1": (1, 60), "filter A 1": (1, 60), "filter A 2": (1, 60), "filter B 1": (1, 60)}


def test_goto_leaves_nothing_to_come_back_to() -> None:
    host = make_host(filter="-P FORWARD DROP\n-N A\n-A FORWARD -g A\n-A FORWARD -j ACCEPT\n-A A -p udp -j ACCEPT")
    found = fate(host)
    assert brief(found) == ("DROP", "FORWARD", "docker0")
    assert rule_name(host, found.rule) == "filter FORWARD 0"


def test_goto_within_a_jump_returns_to_the_jump() -> None:
    host = make_host(filter="-N A\n-N B\n-A FORWARD -j A\n-A FORWARD -j REJECT\n-A A -g B\n-A A -j ACCEPT\n-A B -p udp")
    found = fate(host)
    assert (found.verdict, rule_name(host, found.rule)) == (Verdict.REJECT, "filter FORWARD 2")
    assert "filter A 2" not in counted(host, packet())


def test_return_from_a_builtin_chain_is_its_policy() -> None:
    host = make_host(filter="-P FORWARD DROP\n-A FORWARD -j RETURN\n-A FORWARD -j ACCEPT")
    assert rule_name(host, fate(host).rule) == "filter FORWARD 0"
    assert counted(host, packet()) == {"filter FORWARD 1": (1, 60), "filter FORWARD 0": (1, 60)}


def test_accept_ends_the_table_not_the_way() -> None:
    host = make_host(mangle="-A FORWARD -j ACCEPT\n-A FORWARD -j DROP", filter="-A FORWARD -j ACCEPT",
                     security="-P FORWARD DROP")
    found = fate(host)
    assert (found.verdict, rule_name(host, found.rule)) == (Verdict.DROP, "security FORWARD 0")


def test_marks_are_seen_by_later_rules_and_tables() -> None:
    host = make_host(
        mangle="-A PREROUTING -j MARK --set-xmark 0x6/0xff\n"
               "-A PREROUTING -m mark --mark 0x6/0xff -j CONNMARK --save-mark",
        filter="-A FORWARD -m mark --mark 0x106 -m connmark --mark 0x106 -j DROP")
    found = fate(host, mark=0x1F0)
    assert found.verdict is Verdict.DROP and found.mark == 0x106


@pytest.mark.parametrize(("target", "mark", "connmark"), [
    ("MARK --set-xmark 0x1/0x0", 3, None),
    ("MARK --set-xmark 0x3/0x1", 1, None),
    ("CONNMARK --restore-mark --nfmask 0xf --ctmask 0xff", 0x34, None),
    ("CONNMARK --set-xmark 0x8/0xf", None, 0x38),
    ("CONNMARK --save-mark --nfmask 0xf --ctmask 0xf0", None, 0x6),
])
def test_mark_arithmetic(target: str, mark: int | None, connmark: int | None) -> None:
    """Clear the mask's bits, then exclusive-or: marks 2 and 0x34 come in."""
    test = f"-m mark --mark {mark}" if mark is not None else f"-m connmark --mark {connmark}"
    host = make_host(mangle=f"-A PREROUTING -j {target}\n-A PREROUTING {test}")
    assert "mangle PREROUTING 2" in counted(host, packet(mark=2, connmark=0x34))


def test_header_changes() -> None:
    host = make_host(mangle="-A PREROUTING -j TOS --set-tos 0x10/0x1c\n-A PREROUTING -m tos --tos 0x13/0xff\n"
                            "-A PREROUTING -j DSCP --set-dscp 0x04\n-A PREROUTING -m tos --tos 0x13/0xff\n"
                            "-A PREROUTING -j TTL --ttl-inc 250\n-A PREROUTING -m ttl --ttl-eq 255\n"
                            "-A PREROUTING -j TTL --ttl-dec 200\n-A PREROUTING -m ttl --ttl-eq 55\n"
                            "-A PREROUTING -j TTL --ttl-set 9\n-A FORWARD -m ttl --ttl-eq 8")
    found = counted(host, packet(tos=0x0F))
    assert {f"mangle PREROUTING {n}" for n in (2, 4, 6, 8)} <= set(found)
    assert "mangle FORWARD 1" in found


def test_notrack() -> None:
    host = make_host(raw="-A PREROUTING -p tcp -j CT --notrack",
                     nat="-A PREROUTING -j DNAT --to-destination 172.17.0.9",
                     filter="-A FORWARD -m conntrack --ctstate UNTRACKED -j DROP")
    assert fate(host).verdict is Verdict.DROP
    assert fate(host, proto="udp").dst == packet(dst="172.17.0.9").dst


def test_missing_chains_and_tables_are_not_walked() -> None:
    host = make_host(raw="-A PREROUTING -p udp -j DROP")
    found = fate(host)
    assert brief(found) == ("FORWARD", "POSTROUTING", "docker0")
    assert found.rule == -1 and found.rules_walked == 1


def test_loops_are_refused() -> None:
    chains = tuple(Chain(name, None, (Rule(target=Target(other)),)) for name, other in (("A", "B"), ("B", "A")))
    with pytest.raises(CompileError, match="A -> B -> A"):
        fate(Host(Ruleset((Table("filter", chains),))))


def test_one_chain_alone() -> None:
    host = make_host(filter="-P FORWARD DROP\n-N A\n-A FORWARD -o docker0 -j A\n-A A -m conntrack --ctstate NEW -p tcp "
                            "-m tcp --dport 80 -j ACCEPT\n-A A -p udp -j RETURN",
                     nat="-N N\n-A N -p tcp -j DNAT --to-destination 172.17.0.9:99")
    assert brief(fate(host, chain="FORWARD")) == ("ACCEPT", "FORWARD", "docker0")
    assert brief(fate(host, chain="FORWARD", dport=81)) == ("DROP", "FORWARD", "docker0")
    fallen = fate(host, chain="A", dport=81)
    assert (fallen.verdict, fallen.rule) == (Verdict.RETURN, -1)
    returned = fate(host, chain="A", proto="udp")
    assert (returned.verdict, rule_name(host, returned.rule)) == (Verdict.RETURN, "filter A 2")
    rewritten = fate(host, table="nat", chain="N")
    assert (rewritten.verdict, rewritten.dport) == (Verdict.ACCEPT, 99)
    with pytest.raises(CompileError, match="no chain NONE in table nat"):
        fate(host, table="nat", chain="NONE")


def test_counters_add_up_lengths() -> None:
    host = make_host(filter="-A FORWARD -p tcp")
    assert counted(host, packet(length=40), packet(length=1500), packet(proto="udp")) == {
        "filter FORWARD 1": (2, 1540), "filter FORWARD 0": (3, 1600)}
