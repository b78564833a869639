"""Mutated commands and scripts: a ruleset or an error of ours, never another exception."""

from __future__ import annotations

import random
from pathlib import Path

from fastpath.errors import EditError, ParseError
from fastpath.ruleset.edit import apply
from fastpath.ruleset.model import Ruleset
from fastpath.ruleset.parse import parse_ruleset
from fastpath.ruleset.script import load_script, parse_script

DATA = Path(__file__).parents[2] / "data"

COMMANDS = [
    "iptables -t nat -I PREROUTING 2 ! -i eth0 -d 10.0.2.15/32 -p tcp -m tcp --dport 80:90 -j DNAT --to 1.2.3.4:5-6",
    "sudo iptables -w 5 -A DOCKER-USER -m iprange -i docker0 ! --src-range 192.168.1.1-192.168.1.3 -j DROP",
    "iptables -A INPUT -p tcp -m multiport --dports 1,2,3:4 -m conntrack --ctstate NEW,RELATED -j REJECT",
    "-D DOCKER-USER -j RETURN", "-R FORWARD 1 -s 10.0.0.1,10.0.0.2 -g DOCKER", "-E DOCKER HARBOUR", "-X", "-F FORWARD",
    "-P FORWARD ACCEPT -c 1 2", "-Z FORWARD 1", "-N QUAY", "-C FORWARD -j DOCKER-USER", "-vnL --line-numbers",
    "iptables -A FORWARD -m comment --comment \"it's a 'b' \\\" c\" -m mark --mark 0x1/0xff -j LOG --log-prefix 'x: '",
    "iptables --table=mangle --append=PREROUTING -j MARK --set-xmark 0x1/0xf",
    "-A INPUT -m set --match-set nets src,dst -m limit --limit 5/min --limit-burst 7 -m time --timestart 10:00",
    "-A INPUT -m hashlimit --hashlimit-upto 5/sec --hashlimit-name x -p icmp --icmp-type echo-request -f -j ACCEPT",
]
PIECES = [
    *"-A -I -D -R -N -X -F -P -E -Z -C -L -t nat raw filter INPUT FORWARD DOCKER DOCKER-USER ! -j -g -m -p -s -d -i -o "
    "-c -w -4 -6 -f -- - --- --= --table= 0 1 99999999999999999999 -1 1.2.3.4 1.2.3.4/33 ::1 tcp all --dport 65536 "
    "--to --syn \" ' \\ # ; && || | > $x ` = , : / + sudo iptables ip6tables exit é \U0001f40b".split(),
    "", "\t", "\0", "\x1b", "\u2028", "\udc80", "x" * 300,
]  # fmt: skip


def mutate(rnd: random.Random, line: str) -> str:
    """The line with one to four changes: words dropped, doubled, swapped or put in, characters changed."""
    for _ in range(rnd.randrange(4) + 1):
        kind = rnd.randrange(7)
        words = line.split(" ")
        at = rnd.randrange(len(words))
        if kind == 0:
            del words[at]
        elif kind == 1:
            words.insert(at, rnd.choice(PIECES))
        elif kind == 2:
            words[at] = rnd.choice(PIECES)
        elif kind == 3:
            other = rnd.randrange(len(words))
            words[at], words[other] = words[other], words[at]
        elif kind == 4:
            words.insert(at, words[rnd.randrange(len(words))])
        line = " ".join(words)
        if kind >= 5 and line:
            at = rnd.randrange(len(line))
            piece = rnd.choice(PIECES) if kind == 6 else chr(rnd.randrange(1, 256))
            line = line[:at] + piece + line[at + rnd.randrange(2) :]
    return line


def given() -> Ruleset:
    return parse_ruleset((DATA / "hosts" / "docker28-seed" / "iptables-save.txt").read_text())


def test_mutated_commands() -> None:
    rnd = random.Random(20)
    ruleset = given()
    changed = refused = 0
    for _ in range(10_000):
        command = mutate(rnd, rnd.choice(COMMANDS))
        try:
            after = apply(ruleset, command, unknown=rnd.choice(("error", "undecided")))
        except (ParseError, EditError) as error:
            assert str(error)
            refused += 1
            continue
        changed += after != ruleset
        if after != ruleset and changed % 20 == 0:  # what came out is a ruleset that can be written and read
            assert parse_ruleset(str(after), unknown="undecided") == after
    assert changed > 300
    assert refused > 3000


def test_mutated_commands_one_after_the_other() -> None:
    rnd = random.Random(21)
    ruleset = Ruleset()
    for n in range(2_000):
        try:
            ruleset = apply(ruleset, mutate(rnd, rnd.choice(COMMANDS)))
        except (ParseError, EditError):
            continue
        if n % 50 == 0:
            assert parse_ruleset(str(ruleset)) == ruleset


def test_mutated_scripts() -> None:
    rnd = random.Random(22)
    lines = (DATA / "rulesets" / "article.sh").read_text().splitlines()
    assert load_script(DATA / "rulesets" / "article.sh").tables
    read = 0
    for _ in range(500):
        mutated = [mutate(rnd, line) if rnd.random() < 0.05 else line for line in lines]
        if rnd.random() < 0.3:
            rnd.shuffle(mutated)
        try:
            parse_script(rnd.choice(("\n", "\r\n", " \\\n", ";")).join(mutated))
            read += 1
        except (ParseError, EditError) as error:
            assert str(error)
    assert 20 < read < 480
