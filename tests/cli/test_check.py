"""``fastpath check``: the report and the exit codes."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.cli


def test_report(fastpath, host):
    done = fastpath("check", host, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rules"] == 8
    tables = {table["table"]: {c["chain"]: (c["policy"], c["rules"]) for c in table["chains"]}
              for table in report["tables"]}
    assert tables["nat"] == {"PREROUTING": ("ACCEPT", 1), "POSTROUTING": ("ACCEPT", 1)}
    assert tables["filter"]["FORWARD"] == ("DROP", 4)
    assert tables["filter"]["WEB"] == (None, 2)
    assert [(row["chain"], row["number"]) for row in report["undecided"]] == [("FORWARD", 3)]
    assert any("limit" in why for why in report["undecided"][0]["why"])
    assert report["unknown"] == []


def test_rule_ids_are_those_of_results(fastpath, host):
    report = json.loads(fastpath("check", host, "--json").stdout)
    # nat: 2 policies and 2 rules; filter: INPUT's policy, FORWARD's policy and its rules
    assert report["undecided"][0]["rule"] == 4 + 1 + 3


def test_printed(fastpath, host):
    done = fastpath("check", host / "iptables-save.txt")
    assert done.returncode == 0, done.stderr
    assert "8 rules in 6 chains of 2 tables; 1 undecided, 0 with unknown extensions" in done.stdout
    assert "-A FORWARD -i docker0 -m limit --limit 10/min -j DROP" in done.stdout


def test_unknown_extensions_are_exit_code_1(fastpath, tmp_path):
    path = tmp_path / "rules.save"
    path.write_text("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m mystery --depth 3 -j DROP\n-A INPUT -j BEAM\nCOMMIT\n")
    done = fastpath("check", path, "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert [row["why"] for row in report["unknown"]] == [["match mystery"], ["target BEAM"]]
    assert [row["number"] for row in report["undecided"]] == [1, 2]


def test_unreadable_rules_are_exit_code_2(fastpath, tmp_path):
    path = tmp_path / "rules.save"
    path.write_text("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -s 10.0.0.300 -j DROP\nCOMMIT\n")
    done = fastpath("check", path)
    assert done.returncode == 2
    assert f"{path}:3:" in done.stderr
    assert "Traceback" not in done.stderr


def test_script(fastpath, tmp_path):
    path = tmp_path / "setup.sh"
    path.write_text(
        "#!/bin/sh\n# one chain\nsudo iptables -w -N WEB\niptables -A FORWARD -o docker0 -j WEB\n"
        "iptables -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2\n"
    )
    done = fastpath("check", path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rules"] == 2
