"""Lint: every kind of finding fires where it should and not where it nearly would."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import fastpath as fp
from fastpath.analysis.lint import LintReport, Severity
from fastpath.analysis.lint.registry import KINDS
from fastpath.host.text import make_host

OLD, NEW = "data/hosts/docker20-seed", "data/hosts/docker28-seed"
USER = "iptables -I DOCKER-USER"
NAT = "iptables -t nat"
IN = "iptables -A INPUT"


def found(kind: str, *edits: str, base: str = OLD, assume: dict | None = None, **more) -> tuple[fp.Host, LintReport]:
    host = fp.Host.load(base).edit(*edits)
    return host, fp.lint(host, kinds=[kind], assume=assume, **more)


# Kind, base, edits, and texts of the rules that are found (a part of each, in order of their ids); none is a near miss.
CASES = [
    ("dead-rule", OLD, [IN + " -s 10.0.0.0/8 -j DROP", IN + " -s 10.1.0.0/16 -j ACCEPT"],
     ["-s 10.1.0.0/16"]),
    ("dead-rule", OLD, [IN + " -s 10.1.0.0/16 -j DROP", IN + " -s 10.0.0.0/8 -j ACCEPT"], []),
    ("dead-rule", OLD, [IN + " -p tcp --dport 1:100 -j DROP", IN + " -p tcp --dport 101:200 -j DROP",
                        IN + " -p tcp --dport 50:150 -j ACCEPT"], ["50:150"]),
    ("dead-rule", OLD, [IN + " -p tcp --dport 1:100 -j DROP", IN + " -p tcp --dport 102:200 -j DROP",
                        IN + " -p tcp --dport 50:150 -j ACCEPT"], []),
    ("dead-rule", OLD, ["iptables -A FORWARD -i eth0 -o lo -j DROP"], ["-i eth0 -o lo"]),
    ("dead-rule", OLD, ["iptables -A FORWARD -i eth0 -o docker0 -j DROP"], []),
    ("dead-rule", OLD, [IN + " -m limit --limit 1/s -j DROP", IN + " -j ACCEPT",
                        IN + " -s 10.0.0.1 -j DROP"], ["-s 10.0.0.1"]),
    ("dead-rule", OLD, ["iptables -N A", "iptables -A A -s 10.0.0.1 -j DROP",
                        IN + " -m limit --limit 1/s -j A"], []),  # only if the limit matches, but then
    ("dead-rule", OLD, [IN + " -j LOG", IN + " -s 10.0.0.1 -j DROP"], []),
    ("behind-return", OLD, ["iptables -A DOCKER-USER -i eth0 -s 192.0.2.0/24 -j DROP"], ["-s 192.0.2.0/24"]),
    ("behind-return", OLD, [USER + " -i eth0 -s 192.0.2.0/24 -j DROP"], []),
    ("behind-return", NEW, ["iptables -A DOCKER-USER -i eth0 -s 192.0.2.0/24 -j DROP"], []),  # 28.5 has no RETURN
    ("redundant-rule", OLD, [IN + " -s 10.1.0.0/16 -j ACCEPT"], ["-s 10.1.0.0/16"]),  # so does the policy
    ("redundant-rule", OLD, [IN + " -s 10.1.0.0/16 -j DROP"], []),
    ("redundant-rule", OLD, [IN + " -s 10.1.0.0/16 -j ACCEPT", IN + " -j LOG"], []),
    ("redundant-rule", OLD, [IN + " -s 10.1.0.0/16 -m limit --limit 1/s -j ACCEPT"], []),  # not proved
    ("redundant-rule", OLD, ["iptables -t mangle -A PREROUTING -j MARK --set-mark 0"], []),  # arriving marks are lost
    ("redundant-rule", OLD, ["iptables -t mangle -A PREROUTING -m mark --mark 7 -j MARK --set-mark 7"], ["--mark 0x7"]),
    ("redundant-rule", OLD, [IN + " -s 10.1.0.0/16 -j DROP", IN + " -s 10.0.0.0/8 -j DROP"],
     ["-s 10.1.0.0/16"]),
    ("redundant-rule", OLD, [IN + " -s 10.1.0.0/16 -j REJECT", IN + " -s 10.0.0.0/8 -j DROP"],
     []),
    ("unreached-chain", OLD, ["iptables -N A", "iptables -A A -j DROP"], ["A"]),
    ("unreached-chain", OLD, ["iptables -N A", "iptables -A A -j DROP", IN + " -s 10.0.0.1 -j A"], []),
    ("unreached-chain", OLD, ["iptables -N A", "iptables -A A -j DROP",
                             "iptables -A FORWARD -i eth0 -o lo -j A"], ["A"]),
    ("unreached-chain", OLD, ["iptables -D FORWARD -j DOCKER-USER"], ["DOCKER-USER"]),
    ("jump-only-returns", OLD, ["iptables -N A", "iptables -A A -s 10.0.0.1 -j RETURN", IN + " -j A"],
     ["-A INPUT -j A"]),
    ("jump-only-returns", OLD, ["iptables -N A", "iptables -A A -d 172.17.0.1 -j DROP",
                                IN + " -d 10.0.2.15 -j A"], ["-d 10.0.2.15/32 -j A"]),
    ("jump-only-returns", OLD, ["iptables -N A", "iptables -A A -d 10.0.2.15 -j DROP",
                                IN + " -d 10.0.2.15 -j A"], []),
    ("jump-only-returns", OLD, ["iptables -N A", "iptables -A A -j LOG", IN + " -j A"], []),
    ("nat-to-nowhere", OLD, [NAT + " -A PREROUTING -i eth0 -p tcp --dport 81 -j DNAT --to-destination 172.17.0.2:81"],
     ["--dport 81"]),  # FORWARD drops it
    ("nat-to-nowhere", OLD, [NAT + " -A PREROUTING -i eth0 -p tcp --dport 81 -j DNAT --to-destination 172.17.0.2:81",
                             USER + " -d 172.17.0.2 -p tcp --dport 81 -j ACCEPT"], []),
    ("nat-to-nowhere", OLD, [NAT + " -A PREROUTING -p tcp --dport 82 -j DNAT --to-destination 240.0.0.1"], []),
    ("nat-to-nowhere", OLD, [NAT + " -A PREROUTING -p tcp --dport 82 -j DNAT --to-destination 224.0.0.9"],
     ["--dport 82"]),
    ("nat-to-nowhere", OLD, [NAT + " -A PREROUTING -i eth0 -p tcp --dport 83 -j DNAT --to-destination 172.17.0.77:80",
                             USER + " -d 172.17.0.77 -j ACCEPT"], ["--dport 83"]),  # no container has that address
    ("open-published-port", OLD, [], ["--dport 6380"]),
    ("open-published-port", OLD, [USER + " -i eth0 ! -s 192.0.2.0/24 -j DROP"], []),
    ("open-published-port", OLD, [USER + " -i eth0 -s 8.8.8.8 -j DROP"], []),  # not every address any more
    ("open-published-port", OLD, [USER + " -i eth0 -s 10.0.0.0/8 -j DROP"], ["--dport 6380"]),  # every public one
    ("open-published-port", OLD, [USER + " -i eth0 -p tcp -m conntrack --ctorigdstport 6380 -j DROP"], []),
    ("input-bypassed", OLD, [IN + " -i eth0 -p tcp --dport 6380 -j DROP"], ["--dport 6380"]),
    ("input-bypassed", OLD, [IN + " -i eth0 -p tcp --dport 6379 -j DROP"], []),
    ("input-bypassed", OLD, ["iptables -P INPUT DROP"], ["-P INPUT DROP"]),
    ("input-bypassed", OLD, ["iptables -P INPUT DROP", USER + " -i eth0 -j DROP"], []),
    ("input-bypassed", OLD, ["iptables -N ufw-user-input", IN + " -j ufw-user-input",
                             "iptables -A ufw-user-input -p tcp --dport 6380 -j REJECT"], ["ufw-user-input -p tcp"]),
    ("replies-dropped", OLD, [USER + " -i eth0 ! -s 192.0.2.0/24 -j DROP"], ["! -s 192.0.2.0/24"]),
    ("replies-dropped", OLD, [USER + " -i eth0 ! -s 192.0.2.0/24 -m conntrack --ctstate NEW -j DROP"], []),
    ("replies-dropped", OLD, [USER + " -i eth0 ! -s 192.0.2.0/24 -m conntrack --ctdir ORIGINAL -j DROP"], []),
    ("replies-dropped", OLD, [USER + " -i eth0 ! -s 192.0.2.0/24 -j DROP",
                              USER + " -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"], []),
    ("replies-dropped", OLD, [USER + " -i eth0 ! -s 192.0.2.0/24 -j DROP", USER + " -i docker0 -j DROP"],
     []),  # containers are not let out
    ("bridge-as-inbound", OLD, [USER + " -i docker0 ! -s 192.0.2.0/24 -j DROP"], ["-i docker0"]),
    ("bridge-as-inbound", OLD, [USER + " -i docker0 -m iprange --src-range 192.0.2.1-192.0.2.9 -j ACCEPT"],
     ["iprange"]),
    ("bridge-as-inbound", OLD, [USER + " -i docker0 -d 172.17.0.2 -p tcp --dport 6379 -j DROP"], ["-i docker0"]),
    ("bridge-as-inbound", OLD, [USER + " -i docker0 -p tcp --dport 6379 -j DROP"], ["--dport 6379"]),
    ("bridge-as-inbound", OLD, [USER + " -i docker0 -p tcp --dport 25 -j DROP"], []),  # no mail from containers
    ("bridge-as-inbound", OLD, [USER + " -i docker0 -s 172.17.0.2 -d 192.0.2.0/24 -j DROP"], []),
    ("bridge-as-inbound", OLD, [USER + " -i docker0 -o docker0 -d 172.17.0.2 -j DROP"], []),  # between containers
    ("bridge-as-inbound", OLD, [USER + " -i eth0 ! -s 192.0.2.0/24 -j DROP"], []),
    ("docker-user-skipped", OLD, [USER + " -i eth0 -s 192.0.2.0/24 -j DROP",
                                  "iptables -I FORWARD -o docker0 -j ACCEPT"],
     ["-A FORWARD -o docker0 -j ACCEPT"]),
    ("docker-user-skipped", OLD, [USER + " -i eth0 -s 192.0.2.0/24 -j DROP"], []),
    ("undecided-rule", OLD, [IN + " -p tcp --dport 22 -m limit --limit 3/min -j DROP"], ["--limit 3/min"]),
    ("undecided-rule", OLD, [IN + " -p tcp --dport 22 -m length --length 60 -j DROP"], []),
]


@pytest.mark.parametrize(("kind", "base", "edits", "texts"), CASES)
def test_each_kind_fires_and_does_not(kind, base, edits, texts):
    host, report = found(kind, *edits, base=base)
    mine = [f for f in report if not f.managed]
    shown = [f.rule.text if f.rule is not None else f.chain[1] for f in sorted(
        mine, key=lambda f: f.rule.id if f.rule is not None else -1)]
    assert len(shown) == len(texts) and all(t in s for t, s in zip(texts, shown, strict=True)), str(report)
    for finding in mine:
        assert finding.kind is KINDS[kind]
        assert finding.message
        if finding.witness is not None:
            fp.explain(host, finding.witness)


def test_every_kind_has_a_case_that_fires_and_a_near_miss():
    fires = {kind for kind, _, _, texts in CASES if texts} | {"unknown-extension", "two-backends"}
    misses = {kind for kind, _, _, texts in CASES if not texts} | {"unknown-extension", "two-backends"}
    assert fires == misses == set(KINDS)


def test_every_kind_is_in_the_guide():
    guide = Path("docs/checking-rules.md").read_text()
    assert [kind for kind in KINDS if f"`{kind}`" not in guide] == []


# ------------------------------------------------------------------------------------------------ what findings say


def test_dead_rules_name_what_covers_them():
    _, report = found("dead-rule", "iptables -A INPUT -p tcp --dport 1:100 -j DROP", "iptables -A INPUT -p udp -j DROP",
                      "iptables -A INPUT -p tcp --dport 101:200 -j DROP",
                      "iptables -A INPUT -p tcp --dport 50:150 -j ACCEPT")
    (finding,) = [f for f in report if not f.managed]
    assert [ref.number for ref, _ in finding.related] == [1, 3]
    assert finding.witness is not None and 50 <= finding.witness.dport <= 150 and finding.witness.proto == 6


def test_a_rule_behind_a_jump_that_decides_is_covered_by_the_jump():
    _, report = found("dead-rule", "iptables -N A", "iptables -A A -p tcp -j DROP", "iptables -A INPUT -j A",
                      "iptables -A INPUT -p tcp --dport 22 -j ACCEPT")
    (finding,) = [f for f in report if not f.managed]
    assert [ref.text for ref, _ in finding.related] == ["-A INPUT -j A"]


def test_the_ufw_trap_has_a_witness_that_gets_through():
    host, report = found("input-bypassed", "iptables -A INPUT -i eth0 -p tcp --dport 6380 -j DROP")
    (finding,) = report
    assert finding.severity is Severity.ERROR and finding.witness is not None
    assert fp.explain(host, finding.witness).fate.verdict == fp.Verdict.FORWARD
    assert "DNAT" in finding.related[0][0].text
    host = fp.lint(host.edit(f"{NAT} -F DOCKER"), kinds=["input-bypassed"])
    assert not host


def test_dropped_replies_have_a_witness():
    host, report = found("replies-dropped", USER + " -i eth0 ! -s 192.0.2.0/24 -j DROP")
    (finding,) = report
    reply = finding.witness
    assert reply is not None and reply.state == fp.State.REPLY
    assert fp.explain(host, reply).fate.verdict == fp.Verdict.DROP
    first = fp.Packet.make(iif="docker0", src=reply.dst, dst=reply.src, proto=reply.proto, sport=reply.dport,
                           dport=reply.sport)
    assert fp.explain(host, first).fate.verdict == fp.Verdict.FORWARD


def test_undecided_rules_say_what_hangs_on_them():
    edit = "iptables -A INPUT -p tcp --dport 22 -m limit --limit 3/min -j DROP"
    host, report = found("undecided-rule", edit)
    (finding,) = report
    assert finding.severity is Severity.WARNING and finding.witness is not None
    assert fp.explain(host, finding.witness).fate.verdict == fp.Verdict.UNDECIDED
    _, report = found("undecided-rule", edit.replace("DROP", "ACCEPT"))
    (finding,) = report
    assert finding.severity is Severity.NOTE and "fares the same either way" in finding.message
    _, report = found("undecided-rule", edit.replace("DROP", "LOG"))
    assert "changes no packet's fate" in report.findings[0].message
    assert not found("undecided-rule", edit, assume={"limit": "match"})[1]


def test_unknown_extensions():
    save = Path(OLD, "iptables-save.txt").read_text().replace(
        "-A FORWARD -j DOCKER-USER\n", "-A FORWARD -m frobnicate --level 3 -j DROP\n-A FORWARD -j DOCKER-USER\n")
    host = fp.Host.load(OLD).with_ruleset(fp.parse_ruleset(save, unknown="undecided"))
    (finding,) = fp.lint(host, kinds=["unknown-extension"])
    assert "match frobnicate is not known" in finding.message and finding.witness is not None
    assert finding.line == 1 + next(n for n, line in enumerate(save.splitlines()) if "frobnicate" in line)
    assert not fp.lint(fp.Host.load(OLD), kinds=["unknown-extension"])


def test_two_backends(tmp_path):
    host = fp.Host.load(OLD)
    assert not fp.lint(host, kinds=["two-backends"])
    empty = fp.parse_ruleset("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")
    assert not fp.lint(host, kinds=["two-backends"], other=empty)
    other = fp.parse_ruleset("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j DROP\nCOMMIT\n")
    (finding,) = fp.lint(host, kinds=["two-backends"], other=other)
    assert finding.severity is Severity.ERROR
    assert finding.witness is not None and finding.witness.dport == 22
    alike = fp.parse_ruleset("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n")
    (finding,) = fp.lint(host, kinds=["two-backends"], other=alike)
    assert finding.severity is Severity.WARNING and finding.witness is None


def test_two_backends_from_files(tmp_path):
    for path in Path(OLD).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())

    def lint() -> LintReport:
        return fp.lint(fp.Host.load(tmp_path), kinds=["two-backends"])

    nft = tmp_path / "nft-ruleset.txt"
    nft.write_text("table ip filter {\n chain INPUT { tcp dport 22 drop\n }\n}\n")  # what iptables-nft itself shows
    assert not lint()
    nft.write_text("table inet firewalld {\n chain x { tcp dport 22 drop\n }\n}\n")
    assert "inet firewalld" in lint().findings[0].message
    nft.unlink()
    (tmp_path / "iptables-legacy-save.txt").write_text("*filter\n:INPUT DROP [0:0]\nCOMMIT\n")
    assert lint().findings[0].severity is Severity.ERROR
    (tmp_path / "iptables-legacy-save.txt").unlink()
    save = tmp_path / "iptables-save.txt"
    warning = "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"
    save.write_text(save.read_text() + warning)
    assert "other back end" in lint().findings[0].message


def test_docker_writes_what_is_only_a_note():
    report = fp.lint(fp.Host.load(OLD))
    assert all(f.severity is Severity.NOTE for f in report if f.managed)
    assert {f.rule.text for f in report.of("redundant-rule") if f.rule} >= {"-A DOCKER-USER -j RETURN"}
    assert not [f for f in report if f.severity is Severity.ERROR]


def test_one_save_file_without_routes():
    host = fp.Host.load(f"{OLD}/iptables-save.txt").edit(
        "iptables -A INPUT -s 10.0.0.0/8 -j DROP", "iptables -A INPUT -s 10.1.0.0/16 -j DROP")
    report = fp.lint(host)
    assert any("10.1.0.0/16" in f.rule.text for f in report.of("dead-rule") if f.rule)


def test_no_rules_nothing_found():
    host = make_host(fp.parse_ruleset(""), {"eth0": ["10.0.2.15/24"]})
    report = fp.lint(host)
    assert not report and "nothing found" in str(report)
    assert fp.lint(replace(host, ruleset=fp.parse_ruleset("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"))) is not None


def test_an_unknown_kind_is_refused():
    with pytest.raises(fp.QueryError, match="dead-rule"):
        fp.lint(fp.Host.load(OLD), kinds=["dead"])


# ------------------------------------------------------------------------------------------------ JSON and SARIF


@pytest.fixture(scope="module")
def report() -> LintReport:
    return fp.lint(fp.Host.load(OLD).edit("iptables -A INPUT -i eth0 -p tcp --dport 6380 -j DROP",
                                          "iptables -A DOCKER-USER -s 10.0.0.1 -j DROP"))


def test_json(report):
    data = json.loads(json.dumps(report.to_dict()))
    assert data["counts"]["error"] == 2 and len(data["findings"]) == len(report)
    first = data["findings"][0]
    assert {"kind", "severity", "message", "rule", "line", "witness", "suggestion", "related"} <= first.keys()


def test_sarif_has_the_structure_of_2_1_0(report):
    log = json.loads(json.dumps(report.to_sarif()))
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "fastpath"
    assert [r["id"] for r in rules] == list(KINDS)
    assert all(r["shortDescription"]["text"] and r["help"]["text"] for r in rules)
    lines = Path(OLD, "iptables-save.txt").read_text().splitlines()
    located = 0
    for result, finding in zip(run["results"], report, strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == finding.kind.id
        assert result["level"] in ("note", "warning", "error") and result["message"]["text"]
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"]["uri"] == f"{OLD}/iptables-save.txt"
        if "region" in place and finding.rule is not None:
            located += 1
            assert finding.rule.text in lines[place["region"]["startLine"] - 1].replace("[0:0] ", "")
        for related in result.get("relatedLocations", ()):
            assert related["message"]["text"] and related["logicalLocations"][0]["fullyQualifiedName"].count("/") == 2
    assert located >= 5
