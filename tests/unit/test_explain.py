"""The words and the plain values of an explanation."""

from __future__ import annotations

import json
from typing import Any

from fastpath.analysis.explain import explain
from fastpath.packets import PacketBatch, Verdict
from fastpath.reference import evaluate
from tests.unit.reference_host import make_host, packet

HOST = make_host(
    nat="-N DOCKER\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A DOCKER -i docker0 -j RETURN\n"
        "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:8080",
    filter="-P FORWARD DROP\n" + "".join(f"-A FORWARD -s 10.9.{n}.0/24 -j DROP\n" for n in range(5))
           + "-A FORWARD -m limit --limit 1/sec -j LOG\n-A FORWARD -o docker0 -j ACCEPT")
PUBLISHED = packet(dst="10.0.2.15")


def test_the_story_of_a_published_port() -> None:
    text = str(explain(HOST, PUBLISHED))
    for part in (
        "packet   in eth0 198.51.100.7:4000 -> 10.0.2.15:80 tcp flags SYN",
        "conntrack: NEW",
        "* PREROUTING 1: -m addrtype --dst-type LOCAL -j DOCKER",
        "yes: destination 10.0.2.15 is LOCAL",
        "no: -i docker0, but packet came in on eth0",
        "* DOCKER 2: ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:8080",
        "nat: 198.51.100.7:4000 -> 10.0.2.15:80",
        "to: 198.51.100.7:4000 -> 172.17.0.2:8080",
        "route: dev docker0",
        "FORWARD 1-5: 5 rules do not match",
        "undecided: -m limit --limit 1/sec depends on the rate of earlier packets",
        "verdict  FORWARD at POSTROUTING out docker0: 198.51.100.7:4000 -> 172.17.0.2:8080",
        "by filter FORWARD rule 7: -A FORWARD -o docker0 -j ACCEPT",
        "10 rules examined",
    ):
        assert part in text, part


def test_chains_are_indented_by_their_depth() -> None:
    lines = str(explain(HOST, PUBLISHED)).splitlines()
    jump = next(line for line in lines if "PREROUTING 1:" in line)
    inner = next(line for line in lines if "DOCKER 2:" in line)
    assert inner.index("*") == jump.index("*") + 2


def test_full_shows_every_rule() -> None:
    text = str(explain(HOST, PUBLISHED, full=True))
    assert "rules do not match" not in text
    assert "no: -s 10.9.3.0/24, but source is 198.51.100.7" in text


def test_undecided_says_what_hangs_on_what() -> None:
    host = make_host(filter="-A FORWARD -m recent --rcheck --name bad -j DROP")
    found = explain(host, packet())
    assert found.fate.verdict is Verdict.UNDECIDED
    text = str(found)
    assert "hangs on filter FORWARD rule 1" in text
    assert "if it matches: DROP at FORWARD" in text
    assert "if not:        FORWARD at POSTROUTING out docker0" in text


def test_routing_and_loopback_are_told() -> None:
    own: dict[str, Any] = {"iif": "local", "src": "10.0.2.15"}
    assert "loops back" in str(explain(HOST, packet(dst="172.17.0.1", dport=1, **own)))
    assert "the source is one of the host's own addresses" in str(explain(HOST, packet(src="10.0.2.15")))
    assert "TTL 1 is too small" in str(explain(HOST, packet(ttl=1)))
    assert "held back" in str(explain(HOST, packet(frag=1)))


def test_one_chain_alone() -> None:
    found = explain(HOST, packet(dport=81), table="nat", chain="DOCKER")
    assert found.fate.verdict is Verdict.RETURN
    assert "FORWARD\n    filter" not in str(found)


def test_plain_values() -> None:
    row = json.loads(json.dumps(explain(HOST, PUBLISHED).to_dict()))
    assert row["packet"]["dst"] == "10.0.2.15"
    assert row["fate"]["verdict"] == "FORWARD" and row["fate"]["post_dport"] == 8080
    assert row["rule"]["chain"] == "FORWARD" and row["rule"]["number"] == 7
    kinds = {event["event"] for event in row["events"]}
    assert kinds == {"TableEntered", "Tracked", "RuleExamined", "PolicyApplied", "Rewritten", "Routed"}
    assert row["hangs_on"] is None


def test_an_explanation_ends_as_the_evaluation_does() -> None:
    for change in ({}, {"dst": "10.0.2.15"}, {"dst": "8.8.8.8"}, {"iif": "local", "src": "10.0.2.15"}, {"ttl": 1}):
        one = packet(**change)
        assert explain(HOST, one).fate == evaluate(HOST, PacketBatch.from_packets([one]))[0]
