"""Real output of iptables-save reads and prints back unchanged, and rules come out as iptables itself prints them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastpath.errors import ParseError
from fastpath.ruleset.load import load_ruleset
from fastpath.ruleset.parse import parse_ruleset
from fastpath.ruleset.printer import format_ruleset

HOSTS = Path(__file__).parents[2] / "data" / "hosts"
SAVED = sorted(HOSTS.glob("*/ip*tables-save.txt"))
RESTORED = Path(__file__).parent / "iptables-1.8.9.txt"


def without_counters(text: str) -> list[str]:
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [re.sub(r" \[\d+:\d+\]$", " [0:0]", re.sub(r"^\[\d+:\d+\] ", "", line)) for line in lines]


def test_there_are_captures() -> None:
    assert len([p for p in SAVED if p.name == "iptables-save.txt"]) >= 6


@pytest.mark.parametrize("path", SAVED, ids=lambda p: f"{p.parent.name}-{p.name.split('-')[0]}")
def test_captures_print_back(path: Path) -> None:
    family = 6 if path.name.startswith("ip6") else 4
    rules = load_ruleset(path, family=family)
    assert str(rules).splitlines() == without_counters(path.read_text())
    assert parse_ruleset(str(rules), family=family) == rules
    again = parse_ruleset(format_ruleset(rules, counters=True), family=family)
    assert format_ruleset(again, counters=True) == format_ruleset(rules, counters=True)


def restored() -> Iterator[tuple[int, str, str, list[str]]]:
    """Family, table, rule as given, and what iptables-save printed; nothing where iptables refused the rule."""
    entry: tuple[int, str, str, list[str]] | None = None
    for line in RESTORED.read_text(encoding="utf-8").splitlines():
        if line.startswith("= "):
            assert entry is not None
            entry[3].append(line[2:])
        elif line[:1] in ("4", "6"):
            if entry is not None:
                yield entry
            family, table, rule = line.split(" ", 2)
            entry = (int(family), table, rule, [])
    if entry is not None:
        yield entry


ENTRIES = list(restored())


def save_file(table: str, rule: str) -> str:
    return f"*{table}\n:U1 - [0:0]\n:U2 - [0:0]\n{rule}\nCOMMIT\n"


def test_there_are_many_rules() -> None:
    assert len(ENTRIES) > 750
    assert len([e for e in ENTRIES if not e[3]]) > 150


@pytest.mark.parametrize("family", [4, 6])
def test_rules_print_as_iptables_prints_them(family: int) -> None:
    wrong = []
    for _, table, rule, printed in (e for e in ENTRIES if e[3] and e[0] == family):
        rules = parse_ruleset(save_file(table, rule), family=family)
        lines = [line for line in str(rules).splitlines() if line.startswith("-A")]
        if lines != printed or parse_ruleset(str(rules), family=family) != rules:
            wrong.append((rule, printed, lines))
    assert wrong == []


@pytest.mark.parametrize("family", [4, 6])
def test_rules_that_iptables_refuses_are_refused(family: int) -> None:
    for _, table, rule, printed in (e for e in ENTRIES if not e[3] and e[0] == family):
        with pytest.raises(ParseError):
            print(rule, parse_ruleset(save_file(table, rule), family=family), printed)
