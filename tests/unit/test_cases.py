"""The cases of data/cases: the reference and the compiled engine answer what was reasoned by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastpath import engine
from fastpath.analysis.case import Case, load_cases, write_case
from fastpath.errors import FastpathError, ParseError
from fastpath.packets.batch import PacketBatch
from fastpath.reference import evaluate

DATA = Path(__file__).parents[2] / "data"
CASES = load_cases(DATA / "cases")
by_name = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)

SMALL = """
why = "small"
[host]
interfaces = {eth0 = ["10.0.2.15/24"], docker0 = ["172.17.0.1/16"]}
rules = '''
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
'''
[[packet]]
name = "web"
why = "rule 1"
in = {iif = "eth0", src = "10.0.2.99", dst = "172.17.0.2", proto = "tcp", dport = 80}
out = {verdict = "FORWARD", hook = "POSTROUTING", oif = "docker0", post_dport = 80, rule = "filter FORWARD 1", flags=0}
[[packet]]
name = "ssh"
why = "the policy"
in = {iif = "eth0", src = "10.0.2.99", dst = "172.17.0.2", proto = "tcp", dport = 22}
out = {verdict = "DROP", rule = "filter FORWARD 0"}
[[counter]]
rule = "filter FORWARD 1"
packets = 1
bytes = 60
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "small.toml"
    path.write_text(text)
    return path


@by_name
def test_reference(case: Case) -> None:
    assert case.mismatches(evaluate(case.host, case.packets, assume=case.assume)) == []


@by_name
def test_compiled(case: Case) -> None:
    compiled = engine.compile(case.host, assume=case.assume)
    assert case.mismatches(compiled.evaluate(case.packets)) == []


def test_there_are_enough_and_each_is_reasoned() -> None:
    names = [e.name for case in CASES for e in case.expected]
    assert len(names) >= 60
    assert len(set(names)) == len(names)
    assert [e.name for case in CASES for e in case.expected if len(e.why) < 5] == []
    assert [case.name for case in CASES if not case.why] == []


def test_every_verdict_and_hook_is_expected_somewhere() -> None:
    expected = [e.values for case in CASES for e in case.expected]
    assert {v.get("verdict") for v in expected} >= {
        "FORWARD", "LOCAL_OUT", "LOCAL_IN", "DROP", "REJECT", "ICMP_ERROR", "UNDECIDED"}
    assert {v.get("hook") for v in expected} >= {"PREROUTING", "ROUTE", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}


@pytest.mark.parametrize(("old", "new", "message"), [
    ('verdict = "DROP"', 'verdict = "FORWARD"', "small/ssh: verdict is DROP, not FORWARD"),
    ("filter FORWARD 0", "filter FORWARD 1", "small/ssh: rule is filter FORWARD 0, not filter FORWARD 1"),
    ('rule = "filter FORWARD 0"', 'rule = "none"', "small/ssh: rule is filter FORWARD 0, not none"),
    ('oif = "docker0"', 'oif = "none"', "small/web: oif is docker0, not none"),
    ("post_dport = 80", "post_dport = 81", "small/web: dport is 80, not 81"),
    ("flags=0", 'flags = "NAT_CHOICE"', "small/web: flags is 0, not 1"),
    ("packets = 1", "packets = 2", "small: filter FORWARD 1 counts 1 packets, not 2"),
    ("bytes = 60", "bytes = 61", "small: filter FORWARD 1 counts 60 bytes, not 61"),
])
def test_a_wrong_expectation_is_noticed(tmp_path: Path, old: str, new: str, message: str) -> None:
    right, = load_cases(write(tmp_path, SMALL))
    result = evaluate(right.host, right.packets)
    assert right.mismatches(result) == []
    assert old in SMALL
    wrong, = load_cases(write(tmp_path, SMALL.replace(old, new, 1)))
    assert wrong.mismatches(result) == [message]


@pytest.mark.parametrize(("old", "new", "message"), [
    ("why = ", "wyh = ", "no key 'wyh'"),
    ("[host]", "[host", "not TOML"),
    ("interfaces = ", "interface = ", "no key 'interface'"),
    ("172.17.0.1/16", "172.17.0.1/99", "172.17.0.1/99"),
    ("-j ACCEPT", "-j ACEPT", "'ACEPT'"),
    ('name = "web"', 'nmae = "web"', "no key 'nmae'"),
    ('name = "web"', "name = 7", "name must be a text"),
    ('dst = "172.17.0.2"', 'dst = "172.17.0"', "small/web: column dst"),
    ("dport = 80}", "dports = 80}", "unknown packet column 'dports'"),
    ('verdict = "FORWARD"', 'verdict = "PASS"', "verdict 'PASS' is none of"),
    ('hook = "POSTROUTING"', 'hook = "OUT"', "hook 'OUT' is none of"),
    ("post_dport = 80", "dport = 80", "'out' has no column 'dport'"),
    ('"filter FORWARD 1", flags', '"filter FORWARD 2", flags', "no rule 'filter FORWARD 2'"),
    ("flags=0", 'flags = "NAT"', "flags 'NAT' are none of NAT_CHOICE"),
    ("flags=0", "flags = 1.5", "flags is a number or a text"),
    ('rule = "filter FORWARD 1"\npackets', 'rule = "filter FORWARD 9"\npackets', "no rule 'filter FORWARD 9' to count"),
    ("packets = 1\nbytes = 60", "", "needs packets or bytes"),
    ("packets = 1", 'packets = "1"', "needs whole numbers"),
    ("[[counter]]", "[counter]", "counter must be written as [[counter]]"),
    ("[host]", '[host]\nbase = "nowhere"', "base has that folder's interfaces"),
    ("[host]", '[host]\nedits = ["-F NOWHERE"]', "no chain NOWHERE"),
    ("[host]", "[host]\nsysctl = {a = 1}", "the values of sysctl must be texts"),
    ("[host]", '[host]\nipset = "create"', "create"),
    ("[host]", '[host]\nroutes = ["over the hills"]', "small: 'over' is not a network"),
])
def test_what_is_not_understood_is_an_error(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SMALL
    path = write(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(FastpathError) as caught:
        load_cases(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_packet_without_expectation(tmp_path: Path) -> None:
    lines = [line for line in SMALL.splitlines() if not line.startswith("out =")]
    with pytest.raises(ParseError, match="small/web expects nothing"):
        load_cases(write(tmp_path, "\n".join(lines)))


def test_defaults_of_a_file_and_bases(tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts" / "one").mkdir()
    (tmp_path / "hosts" / "one" / "iptables-save.txt").write_text("*raw\n:PREROUTING DROP [0:0]\nCOMMIT\n")
    (tmp_path / "cases").mkdir()
    packet = 'in = {iif = "eth0", src = "10.0.2.99", dst = "10.0.2.15", proto = "udp", oif = "local"}'
    path = write(tmp_path / "cases", f"""
why = "two"
[host]
interfaces = {{eth0 = ["10.0.2.15/24"]}}
rules = "*raw\\n:PREROUTING ACCEPT [0:0]\\nCOMMIT\\n"
[[case]]
name = "default"
[[case.packet]]
name = "a"
{packet}
out = {{verdict = "LOCAL_IN"}}
[[case]]
name = "edited"
host.edits = ["-t raw -P PREROUTING DROP"]
[[case.packet]]
name = "b"
{packet}
out = {{verdict = "DROP", rule = "raw PREROUTING 0"}}
[[case]]
name = "based"
host.base = "one"
host.sysctl = {{"net.ipv4.ip_forward" = "0"}}
[[case.packet]]
name = "c"
{packet}
out = {{verdict = "DROP"}}
""")
    cases = load_cases(path)
    assert [c.name for c in cases] == ["small/default", "small/edited", "small/based"]
    assert [c.mismatches(evaluate(c.host, c.packets)) for c in cases] == [[], [], []]
    assert cases[0].host.interface("eth0") is not None
    assert dict(cases[2].host.sysctls)["net.ipv4.ip_forward"] == "0"
    assert [c.name for c in load_cases(tmp_path / "cases")] == [c.name for c in cases]


def test_assume_by_module_and_by_rule(tmp_path: Path) -> None:
    text = SMALL.replace("--dport 80 -j", "--dport 80 -m limit --limit 1/sec -j")
    by_module, = load_cases(write(tmp_path, text.replace("[host]", '[host]\nassume = {limit = "match"}')))
    by_rule, = load_cases(write(tmp_path, text.replace("[host]", '[host]\nassume = {"filter FORWARD 1" = "match"}')))
    number = next(r.id for r in by_rule.host.ruleset.refs() if r.chain == "FORWARD" and r.number == 1)
    assert (by_module.assume, by_rule.assume) == ({"limit": "match"}, {number: "match"})
    for case in (by_module, by_rule):
        assert case.mismatches(evaluate(case.host, case.packets, assume=case.assume)) == []


@pytest.mark.parametrize("name", ["masquerade/to-ports", "ipsets/ipsets", "undecided/assumed", "nat/postrouting"])
def test_written_cases_read_back(tmp_path: Path, name: str) -> None:
    case = next(c for c in CASES if c.name == name)
    host = case.host
    result = evaluate(host, case.packets, assume=case.assume)
    sets = next((s for s in (DATA / "cases" / "ipsets.toml").read_text().split("'''") if s.startswith("\ncreate")), "")
    path = tmp_path / "kept.toml"
    write_case(
        path, why='kept: "why" \\ and more', packets=case.packets, result=result, rules=str(host.ruleset),
        interfaces={"eth0": ["10.0.2.15/24"], "docker0": ["172.17.0.1/16"]}, routes=["default via 10.0.2.2 dev eth0"],
        sysctl={"net.ipv4.conf.eth0.rp_filter": "0"}, ipset=sets if name.startswith("ipsets") else "",
        assume={str(k): v for k, v in case.assume.items()},
    )
    kept, = load_cases(path)
    assert kept.why == 'kept: "why" \\ and more'
    assert kept.host.ruleset == host.ruleset
    assert kept.packets.equals(case.packets) if not case.packets.extra else len(kept.packets) == len(case.packets)
    assert kept.mismatches(evaluate(kept.host, kept.packets, assume=kept.assume)) == []
    assert all(set(e.values) == set(kept.expected[0].values) for e in kept.expected)
    assert len(kept.expected[0].values) == 11


def test_written_case_of_a_base(tmp_path: Path) -> None:
    case = next(c for c in CASES if c.name == "docker-user/port-after-dnat")
    path = tmp_path / "kept.toml"
    edits = ["iptables -I DOCKER-USER -i eth0 -p tcp --dport 6380 -j DROP"]
    write_case(path, why="kept", packets=case.packets, result=evaluate(case.host, case.packets), base="docker20-seed",
               edits=edits, name="kept", columns=("verdict", "src", "oif"))
    kept, = load_cases(path, hosts=DATA / "hosts")
    assert kept.host == case.host
    assert kept.expected[0].values == {"verdict": "FORWARD", "src": "198.51.100.7", "oif": "docker0"}
    assert ("filter DOCKER 1", 1) in [(c.rule, c.packets) for c in kept.counters]
    assert [e.name for e in kept.expected] == ["kept-0"]


def test_writing_where_nothing_can_be_written(tmp_path: Path) -> None:
    case = CASES[0]
    with pytest.raises(FastpathError, match="cannot be written"):
        write_case(tmp_path / "no" / "kept.toml", why="", packets=PacketBatch.empty(),
                   result=evaluate(case.host, PacketBatch.empty()))
