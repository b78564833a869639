"""Printing rules: order, quoting, counters."""

from __future__ import annotations

import pytest

from fastpath.ruleset.model import Chain, Match, Negatable, Network, Option, Rule, Ruleset, Table, Target
from fastpath.ruleset.parse import parse_ruleset
from fastpath.ruleset.printer import format_rule, format_ruleset, quote


@pytest.mark.parametrize(
    ("text", "plain", "auto", "always"),
    [
        ("abc-1_2", "abc-1_2", "abc-1_2", '"abc-1_2"'),
        ("a.b", "a.b", '"a.b"', '"a.b"'),
        ("", '""', '""', '""'),
        ("a b", '"a b"', '"a b"', '"a b"'),
        ("it's", "it's", r'"it\'s"', '"it\'s"'),
        ('a"b\\', r'"a\"b\\"', r'"a\"b\\"', r'"a\"b\\"'),
        ("é", "é", '"é"', '"é"'),
    ],
)
def test_quoting(text: str, plain: str, auto: str, always: str) -> None:
    assert (quote(text), quote(text, "auto"), quote(text, "always")) == (plain, auto, always)


def test_order_of_a_rule() -> None:
    rule = Rule(
        source=Negatable(Network(4, 0x0A000000, 0xFF000000), True),
        destination=Negatable(Network(4, 0x0A000001, 0xFFFF00FF)),
        in_interface=Negatable("eth+", True),
        out_interface=Negatable("br0"),
        protocol=Negatable(17, True),
        fragment=False,
        matches=(Match("comment", (Option("comment", "x y", False, ("x y",)),)), Match("mystery", known=False)),
        target=Target("CHAIN", goto=True),
    )
    assert format_rule(rule) == (
        "! -s 10.0.0.0/8 -d 10.0.0.1/255.255.0.255 ! -i eth+ -o br0 ! -p udp ! -f"
        ' -m comment --comment "x y" -m mystery -g CHAIN'
    )
    assert str(rule) == format_rule(rule)


def test_protocols_without_a_name() -> None:
    assert format_rule(Rule(protocol=Negatable(253))) == "-p 253"


def test_a_rule_that_says_nothing() -> None:
    rules = parse_ruleset("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT\nCOMMIT\n")
    assert str(rules) == "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT\nCOMMIT\n"


def test_counters() -> None:
    chain = Chain("INPUT", "DROP", (Rule(target=Target("ACCEPT"), packets=2, bytes=99),), 7, 8)
    rules = Ruleset((Table("filter", (chain, Chain("MINE"))),))
    assert format_ruleset(rules) == "*filter\n:INPUT DROP [0:0]\n:MINE - [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n"
    assert format_ruleset(rules, counters=True) == (
        "*filter\n:INPUT DROP [7:8]\n:MINE - [0:0]\n[2:99] -A INPUT -j ACCEPT\nCOMMIT\n"
    )
    again = parse_ruleset(format_ruleset(rules, counters=True)).tables[0].chains[0]
    assert (again.packets, again.bytes, again.rules[0].packets, again.rules[0].bytes) == (7, 8, 2, 99)
