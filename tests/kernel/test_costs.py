"""The cost model's counting against the kernel: which rules are examined, how large rules are, that times can be taken.

No test looks at how long anything takes: machines differ, and this one may be busy.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fastpath as fp
from fastpath import netns
from fastpath.capacity.cpu import calibrate
from fastpath.capacity.cpu.calibrate import chain, router
from fastpath.capacity.cpu.meter import Meter
from fastpath.capacity.cpu.model import BASE, TRACK, BackendCosts, CostModel
from fastpath.capacity.cpu.patterns import MIXES, PACKET, PATTERNS
from fastpath.capacity.cpu.steps import table_bytes
from fastpath.capacity.cpu.walk import walk
from fastpath.errors import UnavailableError
from fastpath.host.model import Host
from fastpath.packets import PacketBatch
from fastpath.packets.packet import Packet
from fastpath.ruleset.model import Rule, Ruleset
from fastpath.ruleset.parse import parse_ruleset
from tests.kernel.conftest import require

pytestmark = pytest.mark.kernel
DATA = Path(__file__).parents[2] / "data" / "hosts"
FREE = BackendCosts(dict.fromkeys(BASE, 0.0), {"filter": 0.0}, dict.fromkeys(TRACK, 0.0), {"new": 0.0, "known": 0.0},
                    {}, 0.0, 0, 0.0, 0, 0.0)


def with_counting_rules(ruleset: Ruleset) -> Ruleset:
    """In front of every rule one without tests and target: it counts how often the next is examined."""
    return replace(ruleset, tables=tuple(
        replace(table, chains=tuple(
            replace(chain, rules=tuple(r for rule in chain.rules for r in (Rule(), rule))) for chain in table.chains))
        for table in ruleset.tables))


@pytest.mark.parametrize("name", ["docker28-modes", "docker20-seed"])
def test_rules_examined_and_matched_are_the_kernels(
    name: str, backend: netns.Backend, judge: netns.Judge
) -> None:
    host = Host.load(DATA / name)
    packets = netns.enough(host, fp.synth.packets(host, 4000, seed=11, profile="edges"), 400)
    counted = host.with_ruleset(with_counting_rules(host.ruleset))
    found = judge.evaluate(counted, packets, backend)
    asked = packets.take(np.flatnonzero(found.judged))
    walked = walk(host, asked, backend, FREE)
    of_kernel = {(r.table, r.chain, r.number): int(n) for r, n in zip(found.rules, found.rule_packets, strict=True)}
    for ref in walked.refs:
        if ref.number:
            examined = of_kernel[ref.table, ref.chain, 2 * ref.number - 1]
            assert (int(walked.examined[ref.id]), int(walked.matched[ref.id])) == (
                examined, of_kernel[ref.table, ref.chain, 2 * ref.number]), ref
    assert int(walked.examined.sum()) == int(walked.columns["rules_walked"].sum()) > len(asked)


SIZES = """
import ctypes, json, socket, struct, sys
from fastpath.netns import namespace
namespace.unshare()
namespace.fresh_network()
text = sys.stdin.read()
namespace.run(["iptables-legacy-restore"], text)
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
sizes = {}
for name in [line[1:] for line in text.splitlines() if line.startswith("*")]:
    buffer = bytearray(name.encode().ljust(32, b"\\0") + bytes(52))
    raw = (ctypes.c_char * 84).from_buffer(buffer)
    size = ctypes.c_uint(84)
    if ctypes.CDLL(None, use_errno=True).getsockopt(s.fileno(), 0, 64, raw, ctypes.byref(size)):
        raise OSError(ctypes.get_errno(), "IPT_SO_GET_INFO")
    sizes[name] = struct.unpack_from("=I", buffer, 80)[0]
print(json.dumps(sizes))
"""


def test_table_sizes_are_the_kernels() -> None:
    """IPT_SO_GET_INFO (include/uapi/linux/netfilter_ipv4/ip_tables.h) tells a table's bytes."""
    require("legacy")
    rules = ["-A FORWARD -i a -j ACCEPT", "-A FORWARD -p tcp -m tcp --dport 80 -j DROP",
             "-A FORWARD -p udp -m udp --sport 1", "-A FORWARD -m conntrack --ctstate NEW -j X",
             "-A FORWARD -m addrtype --dst-type LOCAL -g X",
             "-A FORWARD -p tcp -m multiport --dports 1,2 -m comment --comment hello -m mark --mark 0x1 -j REJECT",
             "-A FORWARD -m iprange --src-range 10.0.0.1-10.0.0.9 -m limit --limit 1/sec -j LOG",
             "-A X -m ttl --ttl-eq 1 -m length --length 1:2 -m pkttype --pkt-type unicast -j RETURN",
             "-A X -m connmark --mark 0x1 -j RETURN",
             "-A X -p icmp -m icmp --icmp-type 8 -m mac --mac-source 02:00:00:00:00:01 -m dscp --dscp 0x01 -j ACCEPT"]
    text = "\n".join(["*filter", ":INPUT ACCEPT [0:0]", ":FORWARD DROP [0:0]", ":OUTPUT ACCEPT [0:0]", ":X - [0:0]",
                      *rules, "COMMIT", ""])
    for host in (router({}).with_ruleset(parse_ruleset(text)), Host.load(DATA / "docker28-seed")):
        done = subprocess.run([sys.executable, "-c", SIZES], input=str(host.ruleset), capture_output=True, text=True,
                              check=True, cwd=DATA.parents[1])
        sizes = json.loads(done.stdout)
        assert table_bytes(host) == sum(sizes.values()), sizes


def test_a_meter_times_every_way(backend: netns.Backend) -> None:
    packets = PacketBatch.from_packets([
        Packet.make(**PACKET),
        Packet.make(**PACKET | {"dst": "198.51.100.1"}),
        Packet.make(**PACKET | {"state": "established", "tcp_flags": "ACK"}),
        Packet.make(iif="local", src="198.18.0.1", dst="198.18.0.9", proto="udp", sport=4000, dport=53),
    ])
    host = router({"filter": ["-A FORWARD -m conntrack --ctstate INVALID -j DROP"]})
    with Meter() as meter:
        reading = meter.read(host, packets, backend, rounds=3, seconds=0.005)
        assert reading.kept == (0, 1, 2, 3) and len(reading.rounds) == 3
        assert 100 < reading.ns < 1e9 and reading.spread >= 0
        with pytest.raises(UnavailableError, match="none of the packets"):
            meter.read(host, packets.take([0])[:0], backend)
        with pytest.raises(UnavailableError, match="cannot be timed here"):
            meter.read(router({"filter": ["-A FORWARD -m set --match-set nothere src -j DROP"]}), packets, backend)


def test_every_pattern_does_what_it_says(judge: netns.Judge) -> None:
    """A pattern's rule matches the packet or does not, as it claims: else the fit would explain something else. A limit
    lets the first packet pass."""
    missing = 0
    for pattern in PATTERNS:
        host = chain(pattern, 1)
        ref = next(r for r in host.ruleset.refs() if r.chain == "FORWARD" and r.number == 1)
        try:
            found = judge.evaluate(host, PacketBatch.from_packets([Packet.make(**pattern.packet)]), "nft")
        except UnavailableError:  # this kernel lacks the module, or the ipset's type
            missing += 1
            continue
        assert bool(found.rule_packets[ref.id]) == (pattern.matches or "limit" in pattern.rule), pattern.rule
    assert missing < len(PATTERNS) // 2


def test_a_calibration_is_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A calibration of a few patterns: everything the model needs is there, whatever the figures are."""
    require("nft")
    require("legacy")
    few = ("-s 203.0.113.%d/32", "-i xyz%d", "-p tcp -m tcp --dport 2%d", "-m conntrack --ctstate INVALID", "-j EMPTY",
           "")
    monkeypatch.setattr(calibrate, "PATTERNS", [p for p in PATTERNS if p.rule.removesuffix(" -j ACCEPT") in few])
    monkeypatch.setattr(calibrate, "MIXES", MIXES[:1])
    monkeypatch.setattr(calibrate, "DEEP_RULES", calibrate.DEEP_RULES[:1])
    seen: list[tuple[int, int]] = []
    found = calibrate.calibrate(quick=True, progress=lambda done, total, what: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(len(seen)))
    assert set(found.model.backends) == {"legacy", "nft"} and not found.refused
    for backend, costs in found.model.backends.items():
        assert set(costs.base) == set(BASE) and set(costs.track) == set(TRACK)
        assert set(costs.hook) == {"raw", "mangle", "nat", "filter", "security"}
        parts = (costs.base, costs.hook, costs.track, costs.nat, costs.rules)
        assert all(ns >= 0 for part in parts for ns in part.values())
        assert {"fail:conntrack", "count", "jump", "DNAT", "MASQUERADE", "SNAT", "REDIRECT", "REJECT"} <= {*costs.rules}
        assert costs.fit is not None and costs.fit.patterns == len(found.observed[backend])
    found.model.save(tmp_path / "c.json")
    assert CostModel.load(tmp_path / "c.json").machine == found.model.machine
