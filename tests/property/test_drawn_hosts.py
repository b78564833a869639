"""The drawn hosts are what they claim to be: reproducible, printed and read alike, and accepted by iptables itself."""

from __future__ import annotations

import os
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings

from fastpath.host.ipset import parse_ipsets
from fastpath.packets.schema import PACKET_COLUMNS
from fastpath.ruleset.parse import parse_ruleset
from tests.strategies import Drawn, drawn_hosts, edge_packets, random_drawn, random_host

RESTORE = ("iptables-nft-restore", "iptables-legacy-restore")


def _can_restore(program: str) -> bool:
    if os.geteuid() != 0 or any(shutil.which(p) is None for p in ("unshare", "ipset", program)):
        return False
    empty = "*filter\nCOMMIT\n"
    return subprocess.run(["unshare", "-n", program], input=empty, text=True, capture_output=True,
                          check=False).returncode == 0


@pytest.mark.parametrize("seed", range(0, 200, 7))
def test_a_seed_always_draws_the_same(seed: int) -> None:
    assert str(random_drawn(seed)) == str(random_drawn(seed))
    host = random_host(seed)
    first, second = edge_packets(host, 50, seed), edge_packets(host, 50, seed)
    assert all(np.array_equal(first.column(c.name), second.column(c.name)) for c in PACKET_COLUMNS)


def test_seeds_draw_different_hosts() -> None:
    assert len({str(random_drawn(seed)) for seed in range(100)}) == 100


def test_every_feature_is_drawn() -> None:
    """What the engines must agree on occurs in the rules of a few hundred hosts."""
    features = set().union(*(random_drawn(seed).features for seed in range(300)))
    assert features >= {
        "conntrack", "mark", "connmark", "addrtype", "iprange", "state", "length", "ttl", "tos", "dscp", "pkttype",
        "ecn", "mac", "owner", "set", "undecided", "fragment", "holes", "tcp-flags", "ctdir", "ctstatus", "ctorigdst",
        "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "MARK", "CONNMARK", "TTL", "TOS", "DSCP", "CT", "LOG",
        "NFQUEUE",
    }


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_rules_are_printed_and_read_alike(first: int) -> None:
    for seed in range(first, first + 100):
        ruleset = parse_ruleset(random_drawn(seed).rules)
        assert parse_ruleset(str(ruleset)) == ruleset, f"seed {seed}"


@settings(max_examples=50)
@given(drawn_hosts())
def test_shrunk_hosts_are_hosts_too(drawn: Drawn) -> None:
    host = drawn.host()
    assert host.complete
    assert parse_ruleset(str(host.ruleset)) == host.ruleset
    assert len(edge_packets(host, 10)) == 10


@pytest.mark.kernel
@pytest.mark.parametrize("program", RESTORE)
def test_iptables_takes_drawn_rules(program: str) -> None:
    """Loaded for good, into the kernel, with their ipsets: each in a network namespace of its own."""
    if not _can_restore(program):
        pytest.skip(f"needs root, unshare, ipset and {program}")
    for seed in range(0, 1000, 25):
        drawn = random_drawn(seed)
        script = f"ipset restore <<'END' && {program}\n{drawn.ipsets}END\n"
        done = subprocess.run(
            ["unshare", "-n", "sh", "-c", script], input=drawn.rules, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), f"seed {seed}\n{drawn}"


@pytest.mark.kernel
def test_the_kernel_prints_drawn_sets_as_they_were_read() -> None:
    """What `ipset save` prints after `ipset restore` reads as the same sets, order aside."""
    if not _can_restore(RESTORE[0]):
        pytest.skip("needs root, unshare and ipset")
    for seed in range(60):
        drawn = random_drawn(seed)
        if not drawn.ipsets:
            continue
        command = ["unshare", "-n", "sh", "-c", "ipset restore && ipset save"]
        done = subprocess.run(command, input=drawn.ipsets, text=True, capture_output=True, check=True)
        ours, kernels = ({s.name: s for s in parse_ipsets(text)} for text in (drawn.ipsets, done.stdout))
        assert ours.keys() == kernels.keys()
        for name, ipset in ours.items():
            assert (ipset.type, set(ipset.entries)) == (kernels[name].type, set(kernels[name].entries)), f"seed {seed}"
