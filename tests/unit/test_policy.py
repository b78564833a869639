"""Policy files: how they are read, what is wrong with wrong ones, what comes of right ones, and JUnit XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

import fastpath as fp
from fastpath.analysis.policy import load_policy, run_policy, to_junit
from fastpath.analysis.policy.read import Policy
from fastpath.docker.folder import write_host
from fastpath.host.text import make_host

RULES = """*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -i eth0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -m limit --limit 3/min -j ACCEPT
-A FORWARD -d 172.17.0.2/32 -i eth0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
"""

POLICY = """name = "edge"
assume = {recent = "match"}

[[test]]
name = "telnet is closed"
expect = "blocked"
where = "iif == eth0 and proto == tcp and dport == 23"

[[test]]
name = "the shop is open"
expect = "reaches"
where = "iif == eth0 and src in 198.51.100.0/24 and dst == 10.0.2.15 and proto == tcp and dport == 8080"
want = "post_dst == 172.17.0.2 and post_dport == 80"

[[test]]
name = "nothing else is forwarded"
expect = "none"
where = "iif == eth0"
want = "verdict == FORWARD and not post_dport == 80"

[[test]]
name = "something is forwarded"
expect = "some"
where = "iif == eth0"
want = "verdict == FORWARD"
scope = "plain"
"""


@pytest.fixture
def host():
    return make_host(fp.parse_ruleset(RULES), {"eth0": ["10.0.2.15/24"], "docker0": ["172.17.0.1/16"]},
                     ["default via 10.0.2.2 dev eth0"])


def read(tmp_path, text: str) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return load_policy(path)


def test_what_is_read(tmp_path):
    policy = read(tmp_path, POLICY)
    assert policy.name == "edge"
    first, second, _, last = policy.statements
    assert (first.name, first.expect, first.line, first.scope) == ("telnet is closed", "blocked", 4, None)
    assert first.where == fp.parse_condition("iif == eth0 and proto == tcp and dport == 23")
    assert first.assume == {"recent": "match"}
    assert second.want == fp.parse_condition("post_dst == 172.17.0.2 and post_dport == 80")
    assert last.scope == "plain"


TEST = '[[test]]\nname = "x"\nexpect = "blocked"\nwhere = "any"\n'


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("name = \n", 1, "not TOML"),
        ("", 0, "there is no test"),
        ("tests = 1\n" + TEST, 1, "unknown key 'tests'"),
        ("[test]\nname = 'x'\n", 1, "written as"),
        (TEST + 'whre = "any"\n', 5, "unknown key 'whre'"),
        (TEST + "\n" + TEST, 7, "two tests called 'x'"),
        ('[[test]]\nexpect = "blocked"\nwhere = "any"\n', 1, "test 1 has no name"),
        ('[[test]]\nname = "x"\nwhere = "any"\n', 1, "test 1 has no expect"),
        ('[[test]]\nname = "x"\nexpect = "blocked"\n', 1, "no where"),
        ('[[test]]\nname = "x"\nexpect = "open"\nwhere = "any"\n', 3, "one of blocked, reaches"),
        ('[[test]]\nname = "x"\nexpect = "none"\nwhere = "any"\n', 3, "needs want"),
        (TEST + 'want = "reached"\n', 3, "takes no want"),
        (TEST.replace("blocked", "same"), 3, "needs before"),
        (TEST + 'before = "there"\n', 3, "takes no before"),
        (TEST + 'scope = "all"\n', 5, "one of new, plain, any"),
        (TEST + 'by = ["fate"]\n', 5, "list of verdict"),
        (TEST + "name = 3\n", 5, "not TOML"),
        ('[[test]]\nname = 3\nexpect = "blocked"\nwhere = "any"\n', 2, "should be text"),
        (TEST + 'assume = {limit = "yes"}\n', 5, "'match' or 'no-match'"),
        (TEST.replace('"any"', '"dport = htp"'), 4, "not a number"),
    ],
)
def test_mistakes_name_file_line_and_what_would_be_right(tmp_path, text, line, message):
    with pytest.raises(fp.ParseError, match=message) as caught:
        read(tmp_path, text)
    assert caught.value.line == line
    assert caught.value.source.endswith("policy.toml")


def test_a_wrong_word_of_a_condition_is_marked_in_its_line(tmp_path):
    with pytest.raises(fp.ParseError) as caught:
        read(tmp_path, TEST.replace('"any"', '"iif == eth0 and dport == htp"'))
    error = caught.value
    assert error.text[error.start:error.end] == "htp"
    long = TEST.replace('"any"', '"""\niif == eth0\nand dport == htp"""')
    with pytest.raises(fp.ParseError, match="test 1, where:2") as caught:
        read(tmp_path, long)


def test_missing_file(tmp_path):
    with pytest.raises(fp.FastpathError, match="cannot be read"):
        load_policy(tmp_path / "none.toml")


def test_outcomes(tmp_path, host):
    report = run_policy(read(tmp_path, POLICY), host)
    assert [o.status for o in report.outcomes] == ["passed"] * 4
    assert report.passed
    closed = host.edit("iptables -I FORWARD -j DROP", "iptables -I INPUT -p tcp --dport 23 -j ACCEPT")
    report = run_policy(read(tmp_path, POLICY), closed)
    assert [o.status for o in report.outcomes] == ["failed", "failed", "passed", "failed"]
    telnet = report.outcomes[0]
    assert "verdict  LOCAL_IN" in telnet.text, "the witness and its way are shown"
    assert "INPUT 1: -p tcp -m tcp --dport 23 -j ACCEPT" in telnet.text
    assert "FORWARD 1: -j DROP" in report.outcomes[1].text


def test_what_hangs_on_a_rate_is_neither_blocked_nor_open(tmp_path, host):
    ssh = TEST.replace('"any"', '"iif == eth0 and dst == 10.0.2.15 and proto == tcp and dport == 22 and '
                       'src in 198.51.100.0/24"')
    for expect in ("blocked", "reaches"):
        (outcome,) = run_policy(read(tmp_path, ssh.replace("blocked", expect)), host).outcomes
        assert outcome.status == "failed"
        assert "filter INPUT rule 2" in outcome.text
        assert "undecided" in outcome.text.lower()
    for how, expect in (("match", "reaches"), ("no-match", "blocked")):
        decided = ssh.replace("blocked", expect) + f'assume = {{limit = "{how}"}}\n'
        assert run_policy(read(tmp_path, decided), host).passed
        by_rule = ssh.replace("blocked", expect) + f'assume = {{"filter INPUT 2" = "{how}"}}\n'
        assert run_policy(read(tmp_path, by_rule), host).passed


def test_what_cannot_be_checked_is_an_error_and_stops_nothing(tmp_path, host):
    text = TEST.replace('"any"', '"iif == wlan0"') + "\n" + TEST.replace('"x"', '"y"').replace(
        '"any"', '"iif == eth0 and dst == 10.0.2.15 and dport == 23"')
    report = run_policy(read(tmp_path, text), host)
    assert [o.status for o in report.outcomes] == ["error", "passed"]
    assert "no interface 'wlan0'" in report.outcomes[0].text


def test_same(tmp_path, host):
    write_host(host, tmp_path / "before")
    text = '[[test]]\nname = "x"\nexpect = "same"\nbefore = "before"\nwhere = "proto == udp"\n'
    assert run_policy(read(tmp_path, text), host).passed
    changed = host.edit("iptables -I INPUT -p tcp --dport 23 -j ACCEPT")
    assert run_policy(read(tmp_path, text), changed).passed, "UDP fares as before"
    (outcome,) = run_policy(read(tmp_path, text.replace("udp", "tcp")), changed).outcomes
    assert outcome.status == "failed"
    assert "LOCAL_IN" in outcome.text and "DROP" in outcome.text


ATTRIBUTES = {
    "testsuites": {"name", "time", "tests", "failures", "errors", "disabled"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"},
    "testcase": {"name", "classname", "time", "status", "assertions"},
    "failure": {"message", "type"}, "error": {"message", "type"},
}
CHILDREN = {"testsuites": {"testsuite"}, "testsuite": {"testcase"}, "testcase": {"failure", "error", "skipped"},
            "failure": set(), "error": set()}


def test_junit_has_the_usual_structure(tmp_path, host):
    text = POLICY + TEST.replace('"any"', '"iif == wlan0"') + "\n" + TEST.replace(
        '"x"', '"<&> \\u0007"').replace('"any"', '"dst == 10.0.2.15"')
    report = run_policy(read(tmp_path, text), host)
    document = to_junit(report)
    assert document.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites')
    root = ElementTree.fromstring(document.encode())
    assert root.tag == "testsuites"
    for element in root.iter():
        assert set(element.attrib) <= ATTRIBUTES[element.tag]
        assert {child.tag for child in element} <= CHILDREN[element.tag]
    (suite,) = root
    assert {k: suite.get(k) for k in ("name", "tests", "failures", "errors", "skipped")} == {
        "name": "edge", "tests": "6", "failures": "1", "errors": "1", "skipped": "0"}
    cases = list(suite)
    names = [*(s.name for s in report.policy.statements[:5]), "<&> \N{REPLACEMENT CHARACTER}"]
    assert [c.get("name") for c in cases] == names
    assert cases[4].find("error") is not None
    failure = cases[5].find("failure")
    assert failure is not None and failure.get("type") == "blocked" and "verdict" in (failure.text or "")
