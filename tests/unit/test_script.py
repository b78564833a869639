"""Scripts of iptables commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastpath.errors import EditError, FastpathError, ParseError
from fastpath.ruleset.model import Ruleset
from fastpath.ruleset.parse import parse_ruleset
from fastpath.ruleset.script import load_script, parse_script

DATA = Path(__file__).parents[2] / "data" / "rulesets"


def filter_rules(text: str, ruleset: Ruleset | None = None) -> list[str]:
    table = parse_script(text, source="rules.sh", ruleset=ruleset).table("filter")
    return [f"{c.name} {r}" for c in table.chains for r in c.rules] if table is not None else []


def test_the_articles_commands_on_empty_tables() -> None:
    ruleset = load_script(DATA / "article.sh")
    assert ruleset == parse_ruleset((DATA / "article.save").read_text())
    assert ruleset.source.endswith("article.sh")


def test_on_given_rules() -> None:
    given = parse_ruleset("*filter\n:INPUT ACCEPT [0:0]\n:X - [0:0]\n-A INPUT -j X\nCOMMIT\n")
    assert filter_rules("iptables -A X -j DROP\n", given) == ["INPUT -j X", "X -j DROP"]


def test_what_scripts_look_like() -> None:
    text = """#!/bin/bash -e
# flush first: iptables -A INPUT -j DROP
set -euo pipefail
export LC_ALL=C
echo "setting up; rules > here # now"

  iptables -F   # everything
sudo iptables -w 5 -N WEB; sudo iptables -A WEB -p tcp \\
    --dport 80 \\
    -j ACCEPT
iptables -A INPUT -m comment --comment "a;b && c || d > e # f" -j WEB && echo done
iptables -C INPUT -j DROP 2>/dev/null || iptables -A INPUT -j DROP >>/tmp/log 2>&1
iptables -C INPUT -j DROP &> /dev/null || iptables -A INPUT -j DROP
iptables -N WEB 2> /dev/null || true
iptables -D INPUT -j LOG || :
sysctl -w net.ipv4.ip_forward=1
ip6tables -P INPUT DROP
LANG=C iptables -A OUTPUT -j ACCEPT
exit 0
this is never read
"""
    for variant in (text, text.replace("\n", "\r\n"), text.rstrip("\n")):
        assert filter_rules(variant) == [
            'INPUT -m comment --comment "a;b && c || d > e # f" -j WEB', "INPUT -j DROP", "OUTPUT -j ACCEPT",
            "WEB -p tcp -m tcp --dport 80 -j ACCEPT",
        ]


@pytest.mark.parametrize("prompt", [
    "$ ", "[root@localhost ~]# ", "[root@localhost ~] # ", "root@host:~# ", "me@my-host.example:/etc$ ", "  $ ",
])
def test_prompts(prompt: str) -> None:
    assert filter_rules(f"{prompt}iptables -A INPUT -j DROP\n{prompt}sudo iptables -A INPUT -j ACCEPT") == [
        "INPUT -j DROP", "INPUT -j ACCEPT"]


def test_hash_alone_is_a_comment_not_a_prompt() -> None:
    assert filter_rules("# iptables -A INPUT -j DROP\n") == []


@pytest.mark.parametrize(("line", "expected"), [
    ("iptables -N X && iptables -A X -j DROP", ["X -j DROP"]),
    ("iptables -F X || iptables -N X", []),
    ("iptables -F X && iptables -A INPUT -j DROP || iptables -A INPUT -j ACCEPT", ["INPUT -j ACCEPT"]),
    ("iptables -N X && iptables -A X -j DROP || iptables -A X -j ACCEPT", ["X -j DROP"]),
    ("iptables -N X || iptables -N X || iptables -N X; iptables -A X -j DROP", ["X -j DROP"]),
    ("false || iptables -A INPUT -j DROP", ["INPUT -j DROP"]),
    ("true || iptables -A INPUT -j DROP", []),
    ("iptables -A INPUT -j DROP; exit 1; iptables -A INPUT -j ACCEPT", ["INPUT -j DROP"]),
])
def test_and_or(line: str, expected: list[str]) -> None:
    assert filter_rules(line) == expected


@pytest.mark.parametrize(("line", "message"), [
    ("iptables -F X", "no chain X"),
    ("iptables -F X; true", "no chain X"),
    ("iptables -F X && true", "no chain X"),
    ("true && iptables -F X", "no chain X"),
    ("iptables -F X || iptables -F Y", "no chain Y"),
    ("iptables -N X || false", None),
    ("false", "false"),
])
def test_failure_is_an_error(line: str, message: str | None) -> None:
    text = f"# first\n\n{line}\n"
    if message is None:
        parse_script(text)
        return
    with pytest.raises(EditError) as caught:
        parse_script(text, source="rules.sh")
    assert str(caught.value).startswith("rules.sh:3: ")
    assert message in str(caught.value)
    assert str(caught.value).endswith(f"\n    {line}")


@pytest.mark.parametrize(("line", "message", "marked"), [
    ("docker run -p 80:80 nginx", "'docker' is not iptables", "docker"),
    ("systemctl restart docker", "'systemctl' is not iptables", "systemctl"),
    ("iptables-restore rules", "'iptables-restore' is not iptables", "iptables-restore"),
    ("nft flush ruleset", "'nft' is not iptables", "nft"),
    ("sudo ufw enable", "'ufw' is not iptables", "ufw"),
    ("true && ufw enable", "'ufw' is not iptables", "ufw"),
    ("true || ufw enable", "'ufw' is not iptables", "ufw"),
    ("iptables -A INPUT -s $NET -j DROP", "variables and substitutions", "$"),
    ('iptables -A INPUT -s "$NET" -j DROP', "variables and substitutions", "$"),
    ("iptables -A INPUT -s `hostname` -j DROP", "variables and substitutions", "`"),
    ("$IPT -F", "variables and substitutions", "$"),
    ("for c in INPUT OUTPUT; do iptables -F; done", "'for': loops", "for"),
    ("if iptables -C INPUT -j DROP; then true; fi", "'if': loops", "if"),
    ("test -f /etc/x && iptables -F", "'test': loops", "test"),
    ("flush() { iptables -F; }", "'('", "("),
    ("iptables -L | grep DROP", "'|'", "|"),
    ("iptables -F &", "'&'", "&"),
    ("iptables-restore < rules", "'<'", "<"),
    ("-A INPUT -j DROP", "begin the line with iptables", "-A"),
    ("iptables -F ||", "a command is missing", None),
    ("&& iptables -F", "a command is missing", None),
    ("iptables -A INPUT -j 'DROP", "a single quote is not closed", "'DROP"),
    ("iptables -A INPUT -j \"DROP", "a double quote is not closed", '"DROP'),
    ("iptables -A INPUT -m nothing", "unknown match 'nothing'", "nothing"),
    ("iptables -F; iptables -A INPUT --bogus", "--bogus", "--bogus"),
    ("iptables -F \\", "a backslash continues the last line", None),
])
def test_unreadable(line: str, message: str, marked: str | None) -> None:
    with pytest.raises(ParseError) as caught:
        parse_script(f"iptables -F\n{line}", source="rules.sh")
    error = caught.value
    assert message in error.message
    assert (error.source, error.line) == ("rules.sh", 2)
    if marked is not None:
        assert error.text == line
        assert error.text[error.start : error.end] == marked


def test_joined_lines_are_reported_where_they_begin() -> None:
    with pytest.raises(ParseError) as caught:
        parse_script("iptables -F\niptables -A INPUT \\\n  -p tcp \\\n  --bogus 7\n")
    assert caught.value.line == 2
    assert caught.value.text[caught.value.start : caught.value.end] == "--bogus"


def test_backslash_in_a_comment_joins_nothing() -> None:
    assert filter_rules("# a comment \\\niptables -A INPUT -j DROP # and \\\niptables -A INPUT -j ACCEPT") == [
        "INPUT -j DROP", "INPUT -j ACCEPT"]


def test_family_6_takes_the_other_program() -> None:
    ruleset = parse_script("iptables -A INPUT -j DROP\nip6tables -A INPUT -s 2001:db8::1 -j DROP\n",
                           ruleset=Ruleset(family=6))
    table = ruleset.table("filter")
    assert table is not None
    assert [str(r) for c in table.chains for r in c.rules] == ["-s 2001:db8::1/128 -j DROP"]


def test_empty_script_leaves_the_rules_alone() -> None:
    given = parse_ruleset("*filter\n:INPUT DROP [0:0]\nCOMMIT\n")
    assert parse_script("\n# nothing\n   \n", ruleset=given) is given
    assert parse_script("") == Ruleset()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FastpathError, match="cannot be read"):
        load_script(tmp_path / "none.sh")


def test_many_commands_are_read_in_passable_time() -> None:
    lines = [f"iptables -N C{n}" for n in range(150)]
    lines += [f"iptables -A C{n % 150} -s 10.{n >> 8}.{n & 255}.0/24 -p tcp --dport {n} -j ACCEPT" for n in range(450)]
    assert len(filter_rules("\n".join(lines))) == 450
