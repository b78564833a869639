"""``fastpath diff``: exit codes, text and JSON."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.cli

EDIT = "iptables -I FORWARD -i eth0 -p tcp --dport 80 ! -s 192.0.2.0/24 -j DROP"


def test_an_edit(fastpath, host):
    done = fastpath("diff", host, "--edit", EDIT, "--scope", "plain")
    assert done.returncode == 1
    assert "differ in verdict; whatever lies in none of them does not change." in done.stdout.splitlines()[0]
    assert "FORWARD out docker0 -> DROP" in done.stdout
    assert "after    DROP by filter FORWARD rule 1" in done.stdout
    assert "192.0.2.0/24" in done.stdout and "packet   in eth0" in done.stdout


def test_nothing_changes(fastpath, host):
    done = fastpath("diff", host, "--edit", "iptables -A FORWARD -j DROP")
    assert done.returncode == 0
    assert done.stdout.startswith("No packet differs in verdict: that holds for all packets")
    assert fastpath("diff", host, "--edit", "iptables -A FORWARD -j DROP", "--by", "rule").returncode == 1


def test_json_and_packets(fastpath, host, tmp_path):
    rows = ["iif,src,dst,proto,sport,dport", "eth0,198.51.100.7,10.0.2.15,tcp,40000,8080",
            "eth0,192.0.2.9,10.0.2.15,tcp,40000,8080", "docker0,172.17.0.2,192.0.2.1,tcp,40000,80"]
    path = tmp_path / "packets.csv"
    path.write_text("\n".join(rows) + "\n")
    done = fastpath("diff", host, "-e", EDIT, "--packets", path, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["packets"], found["packets_changed"], found["same"]) == (3, 1, False)
    assert sum(r["packets"] for r in found["regions"]) == 1
    assert found["headers"] == sum(r["headers"] for r in found["regions"])
    top = found["regions"][0]
    assert top["columns"]["dport"]["ranges"] == [[8080, 8080]] and top["columns"]["iif"]["text"] == "eth0"
    assert top["before"]["verdict"] == "FORWARD" and top["after"]["rules"][0]["number"] == 1


def test_conditions(fastpath, host):
    done = fastpath("diff", host, "-e", EDIT, "--where", "iif == docker0")
    assert done.returncode == 0 and "the packets asked about" in done.stdout


@pytest.mark.parametrize("words", [
    [], ["--edit", "iptables -A NOWHERE -j DROP"], ["--edit", EDIT, "--by", "colour"],
    ["--edit", EDIT, "--where", "colour == 3"], ["--edit", EDIT, "--packets", "packets.txt"], ["nowhere"],
], ids=lambda words: " ".join(words)[:30] or "nothing")
def test_errors(fastpath, host, words):
    done = fastpath("diff", host, *words)
    assert done.returncode == 2 and done.stderr and "Traceback" not in done.stderr
