"""``fastpath query``, ``lint`` and ``test``: what they print, their exit codes, and what mistakes get."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from fastpath.cli import main

pytestmark = pytest.mark.cli


class Done:
    """What a command in this process left: most of these do not need one of their own."""

    def __init__(self, capsys, *words):
        self.returncode = main([str(word) for word in words])
        self.stdout, self.stderr = capsys.readouterr()


@pytest.fixture
def inside(capsys):
    return lambda *words: Done(capsys, *words)


ASK = ("iif == eth0 and src in 198.51.100.0/24 and dst == 10.0.2.15 and proto == tcp and dport == 8080", "--want",
       "reached")


def test_query(fastpath, inside, host):
    done = fastpath("query", "-H", host, *ASK, "--scope", "plain", "--explain")
    assert done.returncode == 0, done.stderr
    assert "dst 10.0.2.15" in done.stdout and "FORWARD" in done.stdout
    assert "nat PREROUTING" in done.stdout, "--explain shows the witness's way"
    data = json.loads(inside("query", "-H", host, *ASK, "--scope", "plain", "--json").stdout)
    assert data["proved_none"] is False and data["headers"] > 0
    assert data["regions"][0]["witness"]["dport"] == 8080
    done = inside("query", "-H", host, ASK[0], "--want", "egress == eth0")
    assert "proved: there are no such packets" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["iif = eth9"], "no interface 'eth9'"),
        (["dprt = 80"], "WHERE:1: 'dprt' is no field"),
        (["any", "--want", "reachd"], "--want:1: 'reachd' is no field"),
        (["reached"], "goes into want"),
    ],
)
def test_query_mistakes(inside, host, words, message):
    done = inside("query", "-H", host, *words)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_lint(fastpath, inside, host, tmp_path):
    done = fastpath("lint", "-H", host, "--severity", "note")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[undecided-rule]" in done.stdout
    found = json.loads(inside("lint", "-H", host, "--severity", "note", "--json").stdout)
    assert found["rules"] == 8 and found["findings"]
    assert inside("lint", "-H", host, "--fail-on", "note").returncode == 1
    out = tmp_path / "lint.sarif"
    done = inside("lint", "-H", host, "--sarif", "--out", out, "--kind", "undecided-rule")
    assert done.returncode == 0 and not done.stdout
    assert json.loads(out.read_text())["runs"][0]["results"][0]["ruleId"] == "undecided-rule"
    done = inside("lint", "-H", host, "--kind", "dead")
    assert done.returncode == 2 and "dead-rule" in done.stderr


def test_policy(fastpath, inside, host, tmp_path):
    policy, junit = tmp_path / "policy.toml", tmp_path / "junit.xml"
    policy.write_text('[[test]]\nname = "telnet"\nexpect = "none"\nwhere = "iif == eth0"\n'
                      'want = "reached and egress == eth0"\n')
    done = fastpath("test", policy, "-H", host, "--junit", junit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed  telnet" in done.stdout and ElementTree.parse(junit).getroot().get("failures") == "0"
    policy.write_text(policy.read_text().replace("eth0\"\n", 'docker0"\n'))
    assert inside("test", policy, "-H", host).returncode in (0, 1)
    policy.write_text('[[test]]\nname = "web"\nexpect = "blocked"\nwhere = "iif == eth0 and dport == 8080"\n')
    done = inside("test", policy, "-H", host, "--junit", junit)
    assert done.returncode == 1 and "failed  web" in done.stdout and "verdict  " in done.stdout
    assert ElementTree.parse(junit).getroot().get("failures") == "1"
    assert json.loads(inside("test", policy, "-H", host, "--json").stdout)["passed"] is False
    policy.write_text(policy.read_text().replace("eth0", "eth7"))
    assert inside("test", policy, "-H", host).returncode == 2
    policy.write_text(policy.read_text().replace("where", "were"))
    done = inside("test", policy, "-H", host)
    assert done.returncode == 2 and f"{policy}:4: unknown key 'were'" in done.stderr
