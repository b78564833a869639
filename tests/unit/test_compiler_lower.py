"""Conditions that rules are lowered to, evaluated at single packets, against the reference's tests of the same rules.

Neither the kernel nor a table takes part: a condition is looked at term by term, at the values of a packet.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import product

import pytest

from fastpath.compiler.fields import FALSE, TRUE, UNKNOWN, Condition, Field, Values, all_of, any_of, equals, none_of
from fastpath.compiler.fields import test as value_in
from fastpath.compiler.flow import Builder, conntrack_in_use
from fastpath.compiler.lower import MODULES, Context, rule_condition
from fastpath.host.model import Host, IpSet
from fastpath.host.text import make_host
from fastpath.packets import PacketBatch
from fastpath.packets.schema import Hook
from fastpath.reference import state as st
from fastpath.reference.evaluate import states_of
from fastpath.reference.program import CompiledRule, Program
from fastpath.reference.state import PacketState
from fastpath.reference.walk import Machine, three_valued
from fastpath.ruleset.parse import parse_ruleset
from tests.strategies import Generator, edge_packets, random_drawn

CT_STATES = {st.NEW: 0, st.RELATED: 3, st.INVALID: 4, st.UNTRACKED: 5}


def point(p: PacketState, builder: Builder) -> dict[str, int]:
    """The value of every base for a packet of the reference."""
    state = (2 if p.given == 3 else 1) if p.ctbits == st.ESTABLISHED else CT_STATES[p.ctbits]
    return {
        "iif": builder.interfaces.id(p.ingress), "src": p.src, "dst": p.dst, "proto": p.proto, "sport": p.sport,
        "dport": p.dport, "tcp_flags": p.tcp_flags, "icmp": p.icmp_type << 8 | p.icmp_code, "frag": p.frag,
        "ttl": p.ttl, "tos": p.tos, "length": p.length, "mark": p.mark, "connmark": p.connmark, "ctstate": state,
        "ctdir": p.direction, "ctstatus": p.status, "ctorigsrc": p.origin[0], "ctorigdst": p.origin[1],
        "ctorigsrcport": p.origin[2], "ctorigdstport": p.origin[3], "mac_src": p.mac_src, "pkttype": p.pkttype,
        "uid": p.uid, "gid": p.gid, "notrack": int(p.ctbits == st.UNTRACKED),
        "oif": builder.interfaces.id(p.given_oif or ""),
        **{f"extra:{name}": int(value) for name, value in p.extra.items()},
    }


def holds(condition: Condition, at: Mapping[str, int]) -> bool | None:
    """The truth of a condition at a point."""
    found: bool | None = False
    for term in condition:
        if all((at[f.base] & f.mask if f.mask != -1 else at[f.base]) in values for f, values in term.tests):
            if not term.unknown:
                return True
            found = None
    return found


def reference_truth(rule: CompiledRule, p: PacketState) -> bool | None:
    """What the reference says of a rule's tests."""
    return all(check(p) for check in rule.sure) and three_valued(rule, p)


def check_rules(
    host: Host, packets: PacketBatch, *, assume: Mapping[str | int, str] | None = None, given_oif: bool = False,
    about: object = "",
) -> Counter[tuple[str, bool | None]]:
    """Compares every rule at every packet, each chain alone -> how often each module's rules had which truth."""
    program = Program(host, assume)
    machine = Machine(program)
    builder = Builder(host, assume or {}, given_oif, conntrack_in_use(host))
    seen: Counter[tuple[str, bool | None]] = Counter()
    for table in host.ruleset.tables:
        for chain in table.chains:
            hook = chain.name if chain.name in Hook.__members__ else "FORWARD"
            context = builder.context(hook, alone=True)
            ready = program.chains[table.name, chain.name]
            conditions = [rule_condition(r, c.id, context) for r, c in zip(chain.rules, ready.rules, strict=True)]
            for row, p in enumerate(states_of(packets, program.columns)):
                machine.start_alone(p, ready, Hook[hook])
                at = point(p, builder)
                for rule, compiled, condition in zip(chain.rules, ready.rules, conditions, strict=True):
                    found, expected = holds(condition, at), reference_truth(compiled, p)
                    assert found is expected, f"{compiled.ref}: {packets[row]}\n{about}"
                    for match in rule.matches:
                        seen[match.module, found] += 1
    return seen


# ------------------------------------------------------------------------------------------------- drawn rules


@cache
def drawn_truths(seed: int) -> Counter[tuple[str, bool | None]]:
    drawn = random_drawn(seed, size=9)
    host = drawn.host()
    return check_rules(host, edge_packets(host, 60, seed), about=f"seed {seed}\n{drawn}")


@pytest.mark.parametrize("seed", range(25))
def test_drawn_rules(seed: int) -> None:
    drawn_truths(seed)


def test_drawn_rules_say_yes_and_no() -> None:
    """The comparison is worth something: nearly every module was seen to match and not to match."""
    seen = sum((drawn_truths(seed) for seed in range(25)), Counter[tuple[str, bool | None]]())
    both = {m for m in MODULES if seen[m, True] and seen[m, False]}
    assert both >= {"tcp", "udp", "icmp", "multiport", "iprange", "addrtype", "conntrack", "state", "mark", "connmark",
                    "set", "pkttype", "length", "ttl", "tos", "dscp", "ecn"}
    assert seen["limit", None] and seen["owner", None]


@pytest.mark.parametrize("seed", range(30, 36))
def test_drawn_rules_with_given_egress(seed: int) -> None:
    drawn = random_drawn(seed, size=9)
    host = drawn.host()
    packets = edge_packets(host, 60, seed, egress=True)
    check_rules(host, packets, given_oif=True, about=f"seed {seed}\n{drawn}")


@pytest.mark.parametrize("seed", range(40, 46))
def test_assumptions(seed: int) -> None:
    drawn = random_drawn(seed, size=9)
    host = drawn.host()
    assume: dict[str | int, str] = {"limit": "match", "recent": "no-match", "statistic": "column:chosen"}
    assume |= {r.id: "column:other" for r in host.ruleset.refs() if "-m connlimit" in r.text}
    assume |= {r.id: "no-match" for r in host.ruleset.refs() if "-m limit" in r.text and r.id % 2}
    packets = edge_packets(host, 60, seed, outcomes=("chosen", "other"))
    seen = check_rules(host, packets, assume=assume, about=f"seed {seed}\n{drawn}")
    assert not any(seen[m, None] for m in ("limit", "recent", "statistic", "connlimit"))


# ------------------------------------------------------------------------------------------- rules before conntrack


@pytest.mark.parametrize("seed", range(50, 60))
def test_the_raw_table_sees_no_connection(seed: int) -> None:
    """Before conntrack has run every packet is INVALID to a rule, or UNTRACKED behind NOTRACK."""
    drawn = random_drawn(seed, size=9)
    host = drawn.host()
    program = Program(host)
    builder = Builder(host, {}, False, conntrack_in_use(host))
    context = builder.context("PREROUTING", tracked=False)
    for name in ("raw", "mangle", "filter"):
        for (table, chain), ready in program.chains.items():
            if table != name:
                continue
            rules = [r for t in host.ruleset.tables if t.name == table for c in t.chains if c.name == chain
                     for r in c.rules]
            conditions = [rule_condition(r, c.id, context) for r, c in zip(rules, ready.rules, strict=True)]
            for p in states_of(edge_packets(host, 30, seed), set()):
                if p.local or (context.whole and p.frag):
                    continue
                for bits in (st.INVALID, st.UNTRACKED):
                    p.ctbits = bits
                    at = point(p, builder)
                    for compiled, condition in zip(ready.rules, conditions, strict=True):
                        assert holds(condition, at) is reference_truth(compiled, p), (seed, compiled.ref)


# ------------------------------------------------------------------------------------------------------- ipsets


@pytest.mark.parametrize("seed", range(20))
def test_drawn_ipsets(seed: int) -> None:
    """Every set of a host, asked in every direction, negated and for its exceptions."""
    generator = Generator(random.Random(1000 + seed), size=1)
    generator.surroundings()
    ipsets = generator.ipsets()
    rules = [
        f"-A FORWARD -m set {negation}--match-set {name} {','.join(directions)}{inverted}"
        for name, dimensions in generator.sets
        for directions in product(("src", "dst"), repeat=dimensions)
        for negation in ("", "! ") for inverted in ("", " --return-nomatch")
    ]
    text = "\n".join(["*filter", ":FORWARD ACCEPT [0:0]", *rules, "COMMIT", ""])
    host = make_host(parse_ruleset(text), generator.interfaces, ["default via 10.0.2.2 dev eth0"], ipsets=ipsets)
    seen = check_rules(host, edge_packets(host, 150, seed), about=f"{ipsets}\n{generator.interfaces}")
    assert seen["set", True] and seen["set", False]


def test_a_set_that_is_missing_or_of_an_unknown_type() -> None:
    host = one_rule("-m set --match-set nowhere src")
    assert lowered(host) == UNKNOWN
    odd = replace(one_rule("-m set --match-set odd src"), ipsets=(IpSet("odd", "hash:unheard"),))
    assert lowered(odd) == UNKNOWN


@pytest.mark.parametrize(("type_", "element", "directions"), [
    ("hash:ip,port", "10.0.{0}.1,tcp:{0}", "src,dst"),
    ("hash:ip,port,ip", "10.0.{0}.1,udp:{0},10.1.{0}.1", "src,dst,dst"),
])
def test_the_negation_of_a_set_is_not_much_larger_than_the_set(type_: str, element: str, directions: str) -> None:
    """Every entry fails in one of two or three ways: the negation must not multiply them."""
    entries = "".join(f"add s {element.format(i)}\n" for i in range(60))
    host = one_rule(f"-m set ! --match-set s {directions}", ipsets=f"create s {type_}\n{entries}")
    assert 60 <= len(lowered(host)) < 400


# ------------------------------------------------------------------------------------------------------ by hand


def one_rule(
    spec: str, chain: str = "FORWARD", ipsets: str = "", complete: bool = True, table: str = "filter"
) -> Host:
    """A host with one rule."""
    text = f"*{table}\n:{chain} ACCEPT [0:0]\n-A {chain} {spec}\nCOMMIT\n"
    host = make_host(parse_ruleset(text, unknown="undecided"), {"eth0": ["10.0.2.15/24"], "br0": ["172.17.0.1/16"]},
                     ["default via 10.0.2.2 dev eth0"], ipsets=ipsets)
    return host if complete else Host(host.ruleset, host.interfaces, complete=False)


def lowered(host: Host, assume: Mapping[str | int, str] | None = None, **view: bool) -> Condition:
    """The condition of a host's first rule; arriving at its chain unless `view` says otherwise."""
    builder = Builder(host, assume or {}, False, conntrack_in_use(host))
    chain = host.ruleset.tables[0].chains[0]
    context: Context = builder.context(chain.name, **view)
    return rule_condition(chain.rules[0], 0, context)


WHOLE = equals("frag", 0, 1)


@pytest.mark.parametrize(("spec", "expected"), [
    ("", TRUE),
    ("-s 0.0.0.0/0", TRUE),
    ("-s 10.0.0.0/8", value_in("src", Values(((10 << 24, (11 << 24) - 1),)))),
    ("! -d 10.0.0.1", none_of(equals("dst", 0x0A000001))),
    ("-p tcp", equals("proto", 6)),
    ("! -p tcp", none_of(equals("proto", 6))),
    ("-p all", TRUE),
    ("-f", equals("frag", 2)),
    ("! -f", none_of(equals("frag", 2))),
    ("-p tcp -m tcp --dport 80:81", all_of(equals("proto", 6), WHOLE, equals("dport", 80, 81))),
    ("-p tcp -m tcp --dport 0:65535", all_of(equals("proto", 6), WHOLE)),
    ("-p tcp -m tcp ! --dport 0:65535", FALSE),
    ("-p tcp -m multiport --dports 80,443", all_of(equals("proto", 6), WHOLE, equals("dport", 80, 443))),
    ("-p icmp -m icmp --icmp-type any", all_of(equals("proto", 1), WHOLE)),
    ("-p icmp -m icmp --icmp-type 8/0", all_of(equals("proto", 1), WHOLE, equals("icmp", 0x800))),
    ("-m ttl --ttl-lt 1", equals("ttl", 0)),
    ("-m ttl --ttl-gt 255", FALSE),
    ("-m mark --mark 0x0/0x0", TRUE),
    ("-m comment --comment x", TRUE),
    ("-m mac --mac-source 02:00:00:00:00:01", equals("mac_src", 0x020000000001)),
    ("-m mac ! --mac-source 02:00:00:00:00:01", none_of(equals("mac_src", 0, 0x020000000001))),
    ("-m limit --limit 1/s", UNKNOWN),
    ("-m sorcery --spell 9", UNKNOWN),
    ("-m pkttype --pkt-type unicast", equals("pkttype", 0)),
    ("-m dscp --dscp 0x2e", value_in("tos", Values(((0xB8, 0xBB),)))),
])
def test_rules(spec: str, expected: Condition) -> None:
    assert lowered(one_rule(spec)) == expected


def test_an_undecided_match_leaves_the_others_sure() -> None:
    """Where a decided test fails the rule does not match, whatever the others would say."""
    condition = lowered(one_rule("-p udp -m limit --limit 1/s"))
    assert condition == all_of(equals("proto", 17), UNKNOWN)
    assert holds(condition, {"proto": 6}) is False and holds(condition, {"proto": 17}) is None


def test_interfaces() -> None:
    ids = Builder(one_rule("-i eth0"), {}, False, False).interfaces
    assert lowered(one_rule("-i eth0")) == equals("iif", ids.id("eth0"))
    anything = lowered(one_rule("-i +"))
    assert all(holds(anything, {"iif": i}) for i in range(len(ids.names)))
    assert lowered(one_rule("-i eth0"), made_here=True) == FALSE
    assert lowered(one_rule("! -i eth0"), made_here=True) == TRUE
    assert lowered(one_rule("-i lo"), looped=True) == TRUE
    toward = lowered(one_rule("-o br0"))
    assert holds(toward, {"dst": 0xAC110002}) is True and holds(toward, {"dst": 0x08080808}) is False


def test_owner_needs_a_socket() -> None:
    rule = one_rule("-m owner --uid-owner 0", "POSTROUTING", table="mangle")
    assert lowered(rule) == FALSE
    mine = lowered(rule, made_here=True)
    assert [holds(mine, {"uid": u}) for u in (0, 1, 0xFFFFFFFF)] == [True, False, None]


def test_address_types_need_routes() -> None:
    assert lowered(one_rule("-m addrtype --dst-type LOCAL", complete=False)) == UNKNOWN
    here = lowered(one_rule("-m addrtype --dst-type LOCAL"))
    assert holds(here, {"dst": 0x0A00020F}) is True and holds(here, {"dst": 0x0A000210}) is False


def test_assumptions_by_module_and_by_rule() -> None:
    rule = one_rule("-p udp -m limit --limit 1/s")
    sure = equals("proto", 17)
    assert lowered(rule, {"limit": "match"}) == sure
    assert lowered(rule, {"limit": "no-match"}) == FALSE
    assert lowered(rule, {"limit": "column:burst"}) == all_of(sure, equals("extra:burst", 1))
    assert lowered(rule, {"limit": "match", 0: "no-match"}) == FALSE
    assert lowered(rule, {"recent": "match", 7: "match"}) == all_of(sure, UNKNOWN)


def test_decided_parts_stay_where_an_assumption_is_made() -> None:
    """Only the packets whose owner is not known are assumed anything of."""
    condition = lowered(
        one_rule("-m owner --uid-owner 0", "OUTPUT"), {"owner": "match"}, made_here=True)
    assert [holds(condition, {"uid": u}) for u in (0, 1, 0xFFFFFFFF)] == [True, False, True]


def test_connection_state_without_a_connection() -> None:
    """NEW is never true for a packet without a connection; a detail is neither true nor, negated, true of it."""
    def truths(spec: str) -> list[bool | None]:
        condition = lowered(one_rule(spec))
        fields = {f.base for t in condition for f, _ in t.tests}
        usual = dict.fromkeys(fields, 0)
        return [holds(condition, {**usual, "ctdir": 1, "ctstate": s}) for s in range(6)]

    assert truths("-m conntrack --ctstate NEW") == [True, False, False, False, False, False]
    assert truths("-m conntrack --ctstate ESTABLISHED") == [False, True, True, False, False, False]
    assert truths("-m conntrack ! --ctstate NEW,INVALID") == [False, True, True, True, False, True]
    assert truths("-m conntrack --ctdir ORIGINAL") == [True, True, True, True, False, False]
    assert truths("-m conntrack ! --ctproto 6") == [True, True, True, True, False, False]
    assert truths("-m conntrack --ctstate INVALID,NEW --ctproto 6") == [False] * 4 + [True, False]
    assert truths("-m connmark ! --mark 1") == [True, True, True, True, False, False]


def test_scattered_masks_are_fields_of_their_own() -> None:
    (term,) = lowered(one_rule("-d 10.0.0.1/255.0.0.255"))
    assert term.tests == ((Field("dst", 0xFF0000FF), Values.single(0x0A000001)),)
    assert lowered(one_rule("-m mark --mark 0x1/0x10001")) == (
        any_of(value_in("mark", Values.single(1), 0x10001)))
