"""Checks of whole rulesets: jumps, loops, and what may stand in which table and hook."""

from __future__ import annotations

import pytest

from fastpath.errors import EditError, ParseError
from fastpath.ruleset.check import check_ruleset, find_problem, hooks_of_chains
from fastpath.ruleset.model import Chain, Rule, Ruleset, Table, Target
from fastpath.ruleset.parse import parse_ruleset


def jumps(*pairs: tuple[str, str], table: str = "filter") -> Ruleset:
    names = dict.fromkeys(["INPUT", *(n for pair in pairs for n in pair)])
    chains = tuple(
        Chain(
            name,
            "ACCEPT" if name in ("INPUT", "FORWARD", "OUTPUT") else None,
            tuple(Rule(target=Target(to)) for at, to in pairs if at == name),
        )
        for name in names
        if name != "GONE"
    )
    return Ruleset((Table(table, chains),))


def test_chains_may_meet_but_not_return() -> None:
    assert find_problem(jumps(("INPUT", "A"), ("INPUT", "B"), ("A", "C"), ("B", "C"))) is None
    problem = find_problem(jumps(("INPUT", "A"), ("A", "B"), ("B", "C"), ("C", "A")))
    assert problem is not None
    assert problem.message == "a loop of jumps: A -> B -> C -> A"
    assert (problem.chain, problem.number, problem.word) == ("C", 1, "A")


def test_a_loop_of_one_and_one_that_nothing_leads_to() -> None:
    assert "A -> A" in find_problem(jumps(("A", "A"))).message  # type: ignore[union-attr]
    assert "A -> B -> A" in find_problem(jumps(("A", "B"), ("B", "A"))).message  # type: ignore[union-attr]


def test_goto_makes_loops_too() -> None:
    text = "*filter\n:A - [0:0]\n:B - [0:0]\n-A A -g B\n-A B -j A\nCOMMIT\n"
    with pytest.raises(ParseError, match="loop") as caught:
        parse_ruleset(text)
    assert (caught.value.line, caught.value.text[caught.value.start : caught.value.end]) == (5, "A")


def test_thousands_of_chains_deep() -> None:
    pairs = [(f"c{n}", f"c{n + 1}") for n in range(5000)]
    assert find_problem(jumps(("INPUT", "c0"), *pairs)) is None
    assert find_problem(jumps(("INPUT", "c0"), *pairs, ("c5000", "c0"))) is not None


def test_missing_and_builtin_chains() -> None:
    with pytest.raises(EditError, match=r"filter INPUT rule 1 .*no chain or target 'GONE'"):
        check_ruleset(jumps(("INPUT", "GONE")))
    with pytest.raises(EditError, match="'FORWARD' is a builtin chain"):
        check_ruleset(jumps(("INPUT", "FORWARD")))


def test_hooks_reach_through_user_chains() -> None:
    rules = jumps(("INPUT", "A"), ("FORWARD", "B"), ("A", "C"), ("B", "C"), ("D", "C"))
    assert hooks_of_chains(rules.tables[0]) == {
        "INPUT": {"INPUT"},
        "FORWARD": {"FORWARD"},
        "A": {"INPUT"},
        "B": {"FORWARD"},
        "C": {"INPUT", "FORWARD"},
        "D": set(),
    }


@pytest.mark.parametrize(
    ("table", "rules", "message"),
    [
        (
            "nat",
            "-A POSTROUTING -j DNAT --to-destination 1.2.3.4",
            "DNAT works in OUTPUT, PREROUTING; POSTROUTING leads",
        ),
        ("nat", "-A PREROUTING -j SNAT --to-source 1.2.3.4", "SNAT works in INPUT, POSTROUTING"),
        ("nat", "-A OUTPUT -j MASQUERADE", "MASQUERADE works in POSTROUTING"),
        ("nat", "-A U -j MASQUERADE\n-A PREROUTING -j U", "PREROUTING leads to it"),
        ("nat", "-A POSTROUTING -j REDIRECT", "REDIRECT works in"),
        ("nat", "-A PREROUTING -j REJECT", "REJECT is only for the table filter, not nat"),
        ("filter", "-A FORWARD -j CT --notrack", "CT is only for the table raw"),
        ("filter", "-A FORWARD -m rpfilter", "rpfilter is only for the table mangle or raw"),
        ("filter", "-A INPUT -m owner --uid-owner 0", "owner works in OUTPUT, POSTROUTING"),
        ("filter", "-A OUTPUT -m mac --mac-source 00:11:22:33:44:55", "mac works in"),
        ("filter", "-A OUTPUT -m addrtype --dst-type LOCAL --limit-iface-in", "--limit-iface-in works in"),
        ("filter", "-A OUTPUT -m policy --dir in", "policy with such options works in"),
        ("filter", "-A OUTPUT -m physdev --physdev-out eth0", "physdev with such options works in"),
        ("mangle", "-A FORWARD -p tcp -j TPROXY --on-port 1", "TPROXY works in PREROUTING"),
    ],
)
def test_wrong_places(table: str, rules: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_ruleset(f"*{table}\n:U - [0:0]\n{rules}\nCOMMIT\n")
    assert message in caught.value.message
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("table", "rules"),
    [
        ("nat", "-A U -j MASQUERADE"),
        ("nat", "-A INPUT -j SNAT --to-source 1.2.3.4"),
        ("nat", "-A OUTPUT -j DNAT --to-destination 1.2.3.4"),
        ("filter", "-A OUTPUT -m physdev --physdev-out eth0 --physdev-is-bridged"),
        ("filter", "-A U -m owner --uid-owner 0\n-A OUTPUT -j U"),
    ],
)
def test_right_places(table: str, rules: str) -> None:
    check_ruleset(parse_ruleset(f"*{table}\n:U - [0:0]\n{rules}\nCOMMIT\n"))
