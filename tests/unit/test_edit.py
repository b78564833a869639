"""iptables commands as edits: what they do, and what is refused as iptables refuses it."""

from __future__ import annotations

import pytest

from fastpath.errors import EditError, FastpathError, ParseError
from fastpath.ruleset.edit import apply
from fastpath.ruleset.model import BUILTIN_CHAINS, Ruleset
from fastpath.ruleset.parse import parse_ruleset

SAVE = """*filter
:INPUT ACCEPT [7:700]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:BLUE - [0:0]
:RED - [0:0]
[3:180] -A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -j DROP
-A FORWARD -i eth0 -j RED
-A RED -s 10.0.0.0/8 -j RETURN
-A RED -j LOG --log-prefix "red: "
COMMIT
"""


def base() -> Ruleset:
    return parse_ruleset(SAVE)


def rules(ruleset: Ruleset, chain: str, table: str = "filter") -> list[str]:
    found = ruleset.table(table)
    assert found is not None
    there = found.chain(chain)
    assert there is not None
    return [str(r) for r in there.rules]


def chains(ruleset: Ruleset, table: str = "filter") -> list[str]:
    found = ruleset.table(table)
    assert found is not None
    return [c.name for c in found.chains]


@pytest.mark.parametrize("command", [
    "-A RED -p udp -m udp --dport 53 -j DROP",
    "--append RED -p udp --dport 53 -j DROP",
    "--app RED --protocol udp --destination-port 53 --jump DROP",
    "iptables -A RED -p udp --dport 53 -j DROP",
    "sudo iptables -w -A RED -p udp --dport 53 -j DROP",
    "sudo -n -E /usr/sbin/iptables -w 5 -A RED -p udp --dport 53 -j DROP",
    "/sbin/iptables-legacy -W 1000 --wait -v -n -4 -A RED -p udp --dport 53 -j DROP",
    "iptables-nft -t filter -A RED -p udp --dport 53 -j DROP",
    "-p udp --dport 53 -j DROP -A RED",
    "-p udp -A RED --dport 53 -t filter -j DROP",
    "-ARED -pudp --dport=53 -jDROP",
    "-vARED -p 17 --dport 53:53 -j DROP",
    "--table=filter --append=RED --protocol=udp --dport 53 -j DROP",
])
def test_spellings_of_one_append(command: str) -> None:
    after = base().edit(command)
    assert rules(after, "RED")[2:] == ["-p udp -m udp --dport 53 -j DROP"]
    assert rules(after, "INPUT") == rules(base(), "INPUT")


@pytest.mark.parametrize(("command", "expected"), [
    ("-I INPUT -j ACCEPT", ["NEW", 1, 2, 3]),
    ("-I INPUT 1 -j ACCEPT", ["NEW", 1, 2, 3]),
    ("--insert INPUT 3 -j ACCEPT", [1, 2, "NEW", 3]),
    ("-I INPUT 4 -j ACCEPT", [1, 2, 3, "NEW"]),
    ("-R INPUT 2 -j ACCEPT", [1, "NEW", 3]),
    ("--replace INPUT 3 -j ACCEPT", [1, 2, "NEW"]),
    ("-D INPUT 1", [2, 3]),
    ("-D INPUT -j DROP", [1, 2]),
    ("--delete INPUT -p tcp --dport 22 -j ACCEPT", [1, 3]),
    ("-F INPUT", []),
    ("-C INPUT -i lo -j ACCEPT", [1, 2, 3]),
    ("-Z INPUT", [1, 2, 3]),
    ("-vnL INPUT --line-numbers", [1, 2, 3]),
    ("-S", [1, 2, 3]),
    ("-L -Z INPUT", [1, 2, 3]),
])
def test_where_rules_go(command: str, expected: list[object]) -> None:
    old = rules(base(), "INPUT")
    wanted = ["-j ACCEPT" if e == "NEW" else old[int(str(e)) - 1] for e in expected]
    assert rules(base().edit(command), "INPUT") == wanted


def test_original_is_untouched() -> None:
    ruleset = base()
    ruleset.edit("-F", "-X BLUE", "-P INPUT DROP")
    assert ruleset == parse_ruleset(SAVE)


def test_several_addresses_become_several_rules() -> None:
    appended = base().edit("-A BLUE -s 10.1.1.1,10.1.1.2 -d 10.2.2.1,10.2.2.2 -j DROP")
    pairs = [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    assert rules(appended, "BLUE") == [f"-s 10.1.1.{s}/32 -d 10.2.2.{d}/32 -j DROP" for s, d in pairs]
    # each one is inserted at the same place, so that they end up in reverse, as with iptables
    assert rules(base().edit("-I BLUE -s 10.1.1.1,10.1.1.2 -j DROP"), "BLUE") == [
        "-s 10.1.1.2/32 -j DROP", "-s 10.1.1.1/32 -j DROP"]
    assert rules(appended.edit("-D BLUE -s 10.1.1.2,10.1.1.1 -d 10.2.2.2 -j DROP"), "BLUE") == [
        "-s 10.1.1.1/32 -d 10.2.2.1/32 -j DROP", "-s 10.1.1.2/32 -d 10.2.2.1/32 -j DROP"]


def test_delete_takes_the_first_of_equal_rules() -> None:
    ruleset = base().edit("-A BLUE -j DROP", "-A BLUE -j ACCEPT", "-A BLUE -j DROP", "-D BLUE -j DROP")
    assert rules(ruleset, "BLUE") == ["-j ACCEPT", "-j DROP"]


def test_delete_compares_meaning_not_spelling() -> None:
    ruleset = base().edit("-A BLUE -p tcp --dport 80 -m mark --mark 1 -c 5 6",
                          "-A BLUE -p icmp --icmp-type echo-request -j REJECT")
    ruleset = ruleset.edit("-D BLUE --proto 6 -m tcp --destination-port 80:80 -m mark --mark 0x1/0xffffffff")
    assert rules(ruleset, "BLUE") == ["-p icmp -m icmp --icmp-type 8 -j REJECT --reject-with icmp-port-unreachable"]
    ruleset = ruleset.edit("-D BLUE -p icmp -m icmp --icmp-type 8 -j REJECT --reject-with icmp-port-unreachable")
    assert rules(ruleset, "BLUE") == []


def test_new_chains_are_kept_sorted() -> None:
    ruleset = base().edit("-N GREEN", "-N ALPHA", "-N Zed", "--new-chain a")
    assert chains(ruleset)[3:] == ["ALPHA", "BLUE", "GREEN", "RED", "Zed", "a"]
    assert chains(ruleset.edit("-E ALPHA ZULU"))[3:] == ["BLUE", "GREEN", "RED", "ZULU", "Zed", "a"]


def test_rename_moves_jumps_along() -> None:
    ruleset = base().edit("--rename-chain RED ROT")
    assert rules(ruleset, "FORWARD") == ["-i eth0 -j ROT"]
    assert rules(ruleset, "ROT") == rules(base(), "RED")
    assert "RED" not in chains(ruleset)


def test_policies_and_counters() -> None:
    ruleset = base().edit("-P FORWARD ACCEPT", "-P INPUT DROP -c 5 600", "-Z INPUT 1")
    table = ruleset.table("filter")
    assert table is not None
    chain = table.chain("INPUT")
    assert chain is not None
    assert (chain.policy, chain.packets, chain.bytes, chain.rules[0].packets) == ("DROP", 5, 600, 0)
    zeroed = ruleset.edit("-Z").table("filter")
    assert zeroed is not None
    assert all(c.packets == c.bytes == 0 for c in zeroed.chains)
    counted = ruleset.edit("-A BLUE -c 8 900 -j ACCEPT").table("filter")
    assert counted is not None
    blue = counted.chain("BLUE")
    assert blue is not None
    assert (blue.rules[0].packets, blue.rules[0].bytes) == (8, 900)


def test_zero_one_rule_only() -> None:
    ruleset = parse_ruleset(SAVE.replace("-A INPUT -j DROP", "[4:240] -A INPUT -j DROP")).edit("-Z INPUT 1")
    table = ruleset.table("filter")
    assert table is not None
    chain = table.chain("INPUT")
    assert chain is not None
    assert [r.packets for r in chain.rules] == [0, 0, 4]
    assert chain.packets == 7


@pytest.mark.parametrize("table", BUILTIN_CHAINS)
def test_missing_table_comes_with_its_builtin_chains(table: str) -> None:
    ruleset = Ruleset().edit(f"-t {table} -N X")
    found = ruleset.table(table)
    assert found is not None
    assert [(c.name, c.policy) for c in found.chains] == [*((n, "ACCEPT") for n in BUILTIN_CHAINS[table]), ("X", None)]


def test_new_tables_stand_where_iptables_save_prints_them() -> None:
    ruleset = Ruleset().edit(*(f"-t {t} -F" for t in ("nat", "filter", "raw", "security", "mangle")))
    assert [t.name for t in ruleset.tables] == ["mangle", "security", "raw", "filter", "nat"]


def test_listing_does_not_create_a_table() -> None:
    assert base().edit("-t nat -vnL", "-t nat -S POSTROUTING 1") == base()


def test_missing_builtin_chain_is_there_all_the_same() -> None:
    ruleset = parse_ruleset("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n").edit("-A INPUT -j DROP")
    assert chains(ruleset) == ["INPUT", "FORWARD", "OUTPUT"]
    assert rules(ruleset, "INPUT") == ["-j DROP"]


def test_values_that_look_like_options() -> None:
    ruleset = base().edit("-A BLUE -m comment --comment '-t nat -D INPUT 1' -j LOG --log-prefix -X")
    assert rules(ruleset, "BLUE") == ['-m comment --comment "-t nat -D INPUT 1" -j LOG --log-prefix -X']
    assert len(rules(ruleset, "INPUT")) == 3


def test_delete_chains() -> None:
    assert "BLUE" not in chains(base().edit("-X BLUE"))
    assert chains(base().edit("-F", "-X"))[3:] == []
    assert chains(base().edit("-F RED", "-D FORWARD 1", "--delete-chain RED"))[3:] == ["BLUE"]


@pytest.mark.parametrize(("command", "message"), [
    ("-A NOWHERE -j DROP", "no chain NOWHERE in filter"),
    ("-A BLEU -j DROP", "did you mean 'BLUE'"),
    ("-A RED -t nat -j ACCEPT", "no chain RED in nat"),
    ("-I INPUT 5 -j DROP", "4 is the last place"),
    ("-R INPUT 4 -j DROP", "rule number 4 is too big: INPUT has 3 rules"),
    ("-R INPUT 1 -s 10.0.0.1,10.0.0.2 -j DROP", "a replacement is one rule"),
    ("-D INPUT 4", "rule number 4 is too big"),
    ("-D BLUE 1", "BLUE has 0 rules"),
    ("-D INPUT -j ACCEPT", "no rule of INPUT is '-j ACCEPT'"),
    ("-D INPUT -s 10.0.0.1,10.0.0.2 -j ACCEPT", "no rule of INPUT"),
    ("-C INPUT -i lo", "no rule of INPUT is '-i lo'"),
    ("-C NOWHERE -i lo", "no chain NOWHERE"),
    ("-N RED", "chain RED exists already"),
    ("-N INPUT", "chain INPUT exists already"),
    ("-X RED", "RED has 2 rules and cannot be deleted"),
    ("-X INPUT", "INPUT is a builtin chain"),
    ("-X NOWHERE", "no chain NOWHERE"),
    ("-X", "RED has 2 rules and cannot be deleted"),
    ("-F NOWHERE", "no chain NOWHERE"),
    ("-Z NOWHERE", "no chain NOWHERE"),
    ("-Z INPUT 9", "rule number 9 is too big"),
    ("-P RED DROP", "RED is a user chain and has no policy"),
    ("-P INPUT REJECT", "'REJECT' is no policy"),
    ("-P NOWHERE DROP", "no chain NOWHERE"),
    ("-t nat -P OUTPUT DROP", "nat table does not filter"),
    ("-E INPUT BLACK", "INPUT is a builtin chain"),
    ("-E RED BLUE", "chain BLUE exists already"),
    ("-E NOWHERE BLACK", "no chain NOWHERE"),
    ("-A RED -j RED", "a loop of jumps: RED -> RED"),
    ("-A INPUT -j MASQUERADE", "MASQUERADE"),
    ("-t nat -A PREROUTING -j MASQUERADE", "MASQUERADE works in POSTROUTING"),
])
def test_refused_as_iptables_refuses(command: str, message: str) -> None:
    with pytest.raises(EditError) as caught:
        base().edit(command)
    assert message in str(caught.value)
    assert str(caught.value).endswith(f"\n    {command}")


def test_longer_loops() -> None:
    ruleset = base().edit("-A BLUE -j RED")
    for command in ("-A RED -g BLUE", "-I RED -j BLUE", "-R RED 1 -p tcp -j BLUE"):
        with pytest.raises(EditError, match="a loop of jumps"):
            ruleset.edit(command)
    assert rules(ruleset.edit("-F BLUE", "-A RED -j BLUE"), "RED")[-1] == "-j BLUE"


def test_chain_in_use_is_not_deleted() -> None:
    ruleset = base().edit("-A OUTPUT -j BLUE")
    with pytest.raises(EditError, match="BLUE is still jumped to by rule OUTPUT 1"):
        ruleset.edit("-X BLUE")


def test_jump_makes_a_misplaced_target_reachable() -> None:
    ruleset = Ruleset().edit("-t nat -N SOURCE", "-t nat -A SOURCE -j MASQUERADE", "-t nat -A POSTROUTING -j SOURCE")
    with pytest.raises(EditError, match="MASQUERADE works in POSTROUTING"):
        ruleset.edit("-t nat -A PREROUTING -j SOURCE")
    with pytest.raises(EditError, match="PREROUTING leads to it"):
        Ruleset().edit("-t nat -N X", "-t nat -A PREROUTING -j X").edit("-t nat -A X -j MASQUERADE")


@pytest.mark.parametrize(("command", "message", "marked"), [
    ("", "no command", ""),
    ("iptables", "no command", "iptables"),
    ("-j DROP", "no command", "-j DROP"),
    ("-t", "-t needs a value", "-t"),
    ("-t what -F", "no table 'what'", "what"),
    ("-A", "-A needs a value", "-A"),
    ("-A -j DROP", "-A needs a chain", "-j"),
    ("-A INPUT -D INPUT 1", "a command line has one command", "-D"),
    ("-F -X", "a command line has one command", "-X"),
    ("-N X -j DROP", "'-j' does not go with --new-chain", "-j"),
    ("-D INPUT 1 -j DROP", "'-j' does not go with --delete", "-j"),
    ("-F INPUT more", "'more' does not go with --flush", "more"),
    ("-I INPUT 0 -j DROP", "'0' is no rule number", "0"),
    ("-I INPUT one -j DROP", "'one' is no rule number", "one"),
    ("-R INPUT -j DROP", "'-j' is no rule number", "-j"),
    ("-D INPUT 99999999999", "is no rule number", "99999999999"),
    ("-N " + "x" * 29, "1 to 28 characters", "x" * 29),
    ("-E RED " + "x" * 29, "1 to 28 characters", "x" * 29),
    ("-N -X", "may not start with -", "-X"),
    ("-N ACCEPT", "is the name of a target", "ACCEPT"),
    ("-N LOG", "is the name of a target", "LOG"),
    ("-E RED", "-E needs a value", "-E"),
    ("-P INPUT", "-P needs a value", "-P"),
    ("! -A INPUT -j DROP", "'!' cannot stand before -A", "!"),
    ("--del INPUT 1", "--del is ambiguous", "--del"),
    ("-w soon -F", "takes a number", "soon"),
    ("-6 -F", "makes this a command for IPv6", "-6"),
    ("ip6tables -F", "this command is for IPv6", "ip6tables"),
    ("-A INPUT -j NOWHERE", "no chain or target 'NOWHERE'", "NOWHERE"),
    ("-A INPUT -j FORWARD", "builtin chain", "FORWARD"),
    ("-A INPUT -m nothing -j DROP", "unknown match 'nothing'", "nothing"),
    ("-A INPUT --dport 80 -j DROP", "needs -p", "--dport"),
    ("-A INPUT -o eth0 -j DROP", "has no meaning in INPUT", "-o"),
    ("-A INPUT -s 10.0.0.300 -j DROP", "10.0.0.300", "10.0.0.300"),
    ("-A INPUT -j 'DROP", "a single quote is not closed", "'DROP"),
    ("-vQ", "unknown option '-Q'", "-vQ"),
    ("--table=nat --verbose=yes -F", "--verbose takes no value", "--verbose=yes"),
])
def test_unreadable(command: str, message: str, marked: str) -> None:
    with pytest.raises(ParseError) as caught:
        base().edit(command)
    error = caught.value
    assert message in error.message
    assert error.text[error.start : error.end] == marked


def test_unknown_extensions_may_be_kept() -> None:
    command = "-A BLUE -m wizard --spell 7 -j DROP"
    with pytest.raises(ParseError):
        apply(base(), command)
    table = apply(base(), command, unknown="undecided").table("filter")
    assert table is not None
    blue = table.chain("BLUE")
    assert blue is not None
    assert [m.known for m in blue.rules[0].matches] == [False]


def test_family_6() -> None:
    ruleset = Ruleset(family=6).edit("ip6tables -A INPUT -s 2001:db8::/32 -p icmpv6 --icmpv6-type 128 -j DROP")
    assert rules(ruleset, "INPUT") == ["-s 2001:db8::/32 -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j DROP"]
    with pytest.raises(ParseError, match="this command is for IPv4"):
        ruleset.edit("iptables -F")


def test_source_and_line_are_named() -> None:
    with pytest.raises(EditError, match=r"^rules\.sh:12: no chain NOWHERE"):
        apply(base(), "-F NOWHERE", source="rules.sh", line=12)
    with pytest.raises(ParseError) as caught:
        apply(base(), "-F --what", source="rules.sh", line=12)
    assert str(caught.value).startswith("rules.sh:12: ")


def test_what_was_edited_reads_back() -> None:
    ruleset = base().edit("-t nat -A POSTROUTING -s 172.18.0.0/16 -j MASQUERADE", "-N GREEN", "-I FORWARD -j GREEN",
                          "-A GREEN -m comment --comment 'a \"b\"' -j DROP")
    assert parse_ruleset(str(ruleset)) == ruleset


@pytest.mark.parametrize("command", ["-F", "-A INPUT -j ACCEPT", "-X BLUE"])
def test_errors_are_one_family(command: str) -> None:
    with pytest.raises(FastpathError):
        base().edit(command, "-D INPUT 77")
