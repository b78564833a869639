"""What lint calls dead counts nothing in the kernel either."""

from __future__ import annotations

from pathlib import Path

import pytest

import fastpath as fp
from fastpath import netns
from fastpath.packets import synth

pytestmark = pytest.mark.kernel
HOSTS = Path(__file__).parents[2] / "data" / "hosts"
NAMES = sorted(p.name for p in HOSTS.iterdir() if p.is_dir() and not p.name.endswith("-big"))

SHADOWED = (
    "iptables -A INPUT -p tcp --dport 1:1000 -j DROP", "iptables -A INPUT -p tcp --dport 20:80 -j ACCEPT",
    "iptables -A INPUT -s 10.0.0.0/8 -j ACCEPT", "iptables -A INPUT -s 10.0.2.0/24 -p udp -j DROP",
    "iptables -A FORWARD -i eth0 -o lo -j DROP", "iptables -A DOCKER-USER -i eth0 -s 198.51.100.0/24 -j DROP",
)
"""Edits that bring dead rules of every kind."""


def dead_rules(host: fp.Host) -> list[int]:
    report = fp.lint(host, kinds=["dead-rule", "behind-return", "unreached-chain"])
    chains = {f.chain for f in report.of("unreached-chain")}
    return [f.rule.id for f in report if f.rule is not None] + [
        r.id for r in host.ruleset.refs() if r.number and (r.table, r.chain) in chains]


@pytest.mark.parametrize("name", NAMES)
def test_dead_rules_of_captures_count_nothing(name: str, judge: netns.Judge) -> None:
    host = fp.Host.load(HOSTS / name)
    dead = dead_rules(host)
    if not dead:
        pytest.skip("no rule is dead")
    count_nothing(host, dead, judge)


def test_dead_rules_behind_others_count_nothing(judge: netns.Judge, backend: netns.Backend) -> None:
    host = fp.Host.load(HOSTS / "docker20-seed").edit(*SHADOWED)
    dead = dead_rules(host)
    assert len(dead) >= 5
    count_nothing(host, dead, judge, backend)


def count_nothing(host: fp.Host, dead: list[int], judge: netns.Judge, backend: netns.Backend = "nft") -> None:
    packets = netns.enough(host, synth.packets(host, 4000, seed=5, profile="edges"), 2000)
    found = judge.evaluate(host, packets, backend)
    counts = found.rule_packets
    assert counts.sum() > len(packets)
    refs = host.ruleset.refs()
    assert not counts[dead].any(), [str(refs[i]) for i in dead if counts[i]]
