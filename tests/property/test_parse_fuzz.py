"""Mutated save files give a ruleset or a ParseError, and what is read prints back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.errors import ParseError
from fastpath.ruleset.match_table import MATCHES
from fastpath.ruleset.parse import Unknown, parse_rule, parse_ruleset
from fastpath.ruleset.target_table import TARGETS
from fastpath.ruleset.tokens import save_words, shell_words

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "iptables-1.8.9.txt"
CAPTURE = ROOT / "data" / "hosts" / "docker28-seed" / "iptables-save.txt"
_VALUE_TEXT = """
    ! - -- --= 0 1 -1 65536 0x 0x10 08 1: :1 1:2 2:1 1,2 , a,b ALL NONE any src src,dst 10.0.0.0/8 1.2.3.4-1.2.3.9
    1.2.3.4:80 :80-90/7 [::1]:80 ::/0 /33 1/2 0xff/0xff 5/sec 5/ 512kb/s 0.5 mark |00| "|0|" "a b" "\\"" \\ ' # é +
    eth+ NEW LOCAL tcp udp icmp 6 U1 INPUT DROP LOG REJECT DNAT 99999999999999999999999999 2020-01-01T 10:00 Mon,Tue
    bm kmp random nth in out none ipsec 02:42:ac:11:00:02 packets both original accept 1:2 ٣ ²"""
VALUES = [*_VALUE_TEXT.split(), "\x0b", "\xa0", '""']
OPTIONS = [f"--{spec.name}" for x in (*MATCHES, *TARGETS) for spec in x.options]
_BUILTIN_TEXT = "-s -d -i -o -p -f -m -j -g -c -4 -6 -v ! -A -t --src --jump=U1 --protocol=tcp"
BUILTIN = _BUILTIN_TEXT.split()
MODULES = [x.name for x in MATCHES]
TARGET_NAMES = [x.name for x in TARGETS]


def seeds() -> list[str]:
    """Small save files: a capture's tables cut short, and every rule of the golden file on its own."""
    files = []
    tables = CAPTURE.read_text().split("*")[1:]
    for table in tables:
        head = [line for line in table.splitlines() if not line.startswith("-A")]
        rules = [line for line in table.splitlines() if line.startswith("-A")]
        files.append("*" + "\n".join([*head[:-2], *rules[:8], *rules[-4:], "COMMIT", ""]))
    for line in GOLDEN.read_text(encoding="utf-8").splitlines():
        if line[:2] in ("4 ", "6 "):
            _, table, rule = line.split(" ", 2)
            files.append(f"*{table}\n:U1 - [0:0]\n:U2 - [0:0]\n{rule}\nCOMMIT\n")
    return files


def mutate(text: str, rng: random.Random) -> str:
    """One or two changes: characters, words or lines added, removed, doubled, swapped or replaced."""
    for _ in range(rng.randint(1, 2)):
        kind = rng.randrange(6)
        if kind == 0:
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice("!\"'\\ \t\n\r-:,/[]*#0a\0é\ud800\u2028") + text[at + rng.randrange(3) :]
            continue
        lines = text.split("\n")
        at = rng.randrange(len(lines))
        if kind == 1:
            lines[at : at + 1] = [lines[at], lines[rng.randrange(len(lines))]]
        elif kind == 2:
            del lines[at]
        else:
            words = lines[at].split(" ")
            place = rng.randrange(len(words))
            word = rng.choice(rng.choice((VALUES, OPTIONS, BUILTIN, MODULES, TARGET_NAMES, words)))
            if kind == 3:
                words[place] = word
            elif kind == 4:
                words.insert(place, word)
            else:
                del words[place]
            lines[at] = " ".join(words)
        text = "\n".join(lines)
    return text


def read(text: str, family: int, unknown: Unknown) -> bool:
    """Whether the text is a ruleset; a ruleset prints back."""
    try:
        rules = parse_ruleset(text, family=family, unknown=unknown)
    except ParseError as error:
        assert str(error)
        assert 0 <= error.start <= error.end <= len(error.text)
        return False
    assert parse_ruleset(str(rules), family=family, unknown=unknown) == rules, text
    return True


@pytest.mark.parametrize("seed", range(5))
def test_mutated_files(seed: int) -> None:
    rng = random.Random(seed)
    files = seeds()
    taken = 0
    for _ in range(2_000):
        text = mutate(rng.choice(files), rng)
        taken += read(text, rng.choice((4, 4, 4, 6)), rng.choice(("error", "undecided")))
    assert 200 < taken < 1_800, "the mutations are too harsh or too mild to say anything"


@pytest.mark.parametrize("seed", range(2))
def test_random_rules(seed: int) -> None:
    """Rules thrown together from the option table's own words reach every reader of values."""
    rng = random.Random(seed)
    taken = 0
    for _ in range(4_000):
        family = rng.choice((4, 6))
        extension = rng.choice([x for x in (*MATCHES, *TARGETS) if family in x.families])
        words = ["-p", rng.choice(("tcp", "udp", "icmp", "icmpv6", "58", "all"))] if rng.random() < 0.5 else []
        words += ["-j" if extension.name.isupper() else "-m", extension.name]
        for spec in rng.sample(extension.options, min(len(extension.options), rng.randint(0, 3))):
            words += ["!"] * (rng.random() < 0.2) + [f"--{rng.choice((spec.name, *spec.aliases))}"]
            words += rng.choices(VALUES, k=spec.words)
        table = rng.choice(sorted(extension.tables or {"filter"}))
        text = f"*{table}\n:U1 - [0:0]\n-A U1 {' '.join(words)}\nCOMMIT\n"
        taken += read(text, family, rng.choice(("error", "undecided")))
    assert taken > 100


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    read(text, 4, "undecided")
    read(f"*filter\n:U1 - [0:0]\n-A U1 {text}\nCOMMIT\n", 4, "undecided")


@given(st.text(alphabet="-smpjg! \"'\\=tcpdort80,/:\n", max_size=40))
def test_any_command_words(text: str) -> None:
    for split in (save_words, shell_words):
        try:
            words = split(text)
            rules = parse_rule(words, table="filter", chain="FORWARD", text=text)
        except ParseError as error:
            assert 0 <= error.start <= error.end <= len(text)
            continue
        assert all(str(r) == str(r).strip() for r in rules)
