"""``fastpath trace``: one packet's story."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.cli

PUBLISHED = ["--in", "eth0", "--src", "198.51.100.7", "--dst", "10.0.2.15", "-p", "tcp", "--dport", "8080"]
OUTGOING = ["--in", "docker0", "--src", "172.17.0.2", "--dst", "192.0.2.1", "-p", "udp", "--dport", "53"]


def test_published_port(fastpath, host):
    done = fastpath("trace", "--host", host, *PUBLISHED)
    assert done.returncode == 0, done.stderr
    assert "172.17.0.2" in done.stdout
    assert "FORWARD" in done.stdout
    assert "-A WEB -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j ACCEPT" in done.stdout
    assert "198.51.100.7:40000 -> 172.17.0.2:80" in done.stdout


def test_json(fastpath, host):
    done = fastpath("trace", "--host", host, *PUBLISHED, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["fate"]["verdict"] == "FORWARD"
    assert told["fate"]["oif"] == "docker0"
    assert told["fate"]["post_dst"] == "172.17.0.2"
    assert told["fate"]["post_dport"] == 80


def test_full_lists_what_did_not_match(fastpath, tmp_path):
    misses = "".join(f"-A INPUT -p tcp -m tcp --dport {port} -j ACCEPT\n" for port in range(1, 9))
    path = tmp_path / "rules.save"
    path.write_text(f"*filter\n:INPUT DROP [0:0]\n{misses}COMMIT\n")
    words = ["trace", "--host", path, "--in", "eth0", "--src", "192.0.2.1", "--dst", "192.0.2.2", "--dport", "9",
             "--out-interface", "local"]
    short, full = fastpath(*words).stdout, fastpath(*words, "--full").stdout
    assert "--dport 5 -j ACCEPT" not in short
    assert "8 rules do not match" in short
    assert "--dport 5 -j ACCEPT" in full


def test_undecided_rule_says_why(fastpath, host):
    done = fastpath("trace", "--host", host, *OUTGOING)
    assert done.returncode == 0, done.stderr
    assert "UNDECIDED" in done.stdout
    assert "limit" in done.stdout


def test_assumption(fastpath, host):
    done = fastpath("trace", "--host", host, *OUTGOING, "--assume", "limit=match", "--json")
    assert json.loads(done.stdout)["fate"]["verdict"] == "DROP"


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        (["--state", "invalid"], "LOCAL_IN"),
        (["--flags", "SYN,ACK"], "LOCAL_IN"),
        (["--ttl", "1"], "ICMP_ERROR"),
        (["--out-interface", "docker0"], "FORWARD"),
        (["--src", "203.0.113.1"], "REJECT"),
    ],
)
def test_options_reach_the_packet(fastpath, host, words, verdict):
    done = fastpath("trace", "--host", host, *PUBLISHED, *words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fate"]["verdict"] == verdict


def test_from_the_host_itself(fastpath, host):
    done = fastpath("trace", "--host", host, "--src", "10.0.2.15", "--dst", "172.17.0.2", "-p", "icmp", "--json")
    assert json.loads(done.stdout)["fate"]["verdict"] == "LOCAL_OUT"
