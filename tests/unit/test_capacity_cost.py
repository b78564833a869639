"""Costs of whole hosts: sums, classes, errors, reordering; the model's file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fastpath as fp
from fastpath.capacity.cpu.model import BackendCosts, CostModel
from fastpath.capacity.cpu.steps import plan_of, rule_bytes
from fastpath.errors import FastpathError, HostError, PacketError
from fastpath.host.model import Host
from fastpath.host.text import make_host
from fastpath.packets import PacketBatch
from fastpath.packets.packet import Packet
from fastpath.ruleset.parse import parse_ruleset

DATA = Path(__file__).parents[2] / "data" / "hosts"
WAYS = {"prerouting": 100.0, "route": 200.0, "input": 300.0, "forward": 400.0, "postrouting": 500.0, "output": 600.0,
        "leave": 700.0, "loop": 800.0}
RULES = {
    "fail:src": 1.0, "fail:dst": 2.0, "fail:in": 3.0, "fail:out": 4.0, "fail:proto": 5.0, "rule": 6.0, "count": 7.0,
    "fail:tcp": 20.0, "pass:tcp": 21.0, "fail:mark": 30.0, "jump": 8.0, "fail:set:hash:net": 90.0,
    "fail:conntrack": 40.0,
}
TRACK = {"new": 50.0, "established": 25.0, "invalid": 30.0, "untracked": 0.0}
FLAT = BackendCosts(WAYS, {"filter": 10.0, "nat": 11.0}, TRACK, {"new": 60.0, "known": 15.0}, RULES, 0.0, 1 << 20, 0.0,
                    1 << 24, 0.0)
MODEL = CostModel({"cpu": "made up", "kernel": "0", "iptables": "1", "date": "never"}, {"legacy": FLAT})


def host(*rules: str, policy: str = "ACCEPT") -> Host:
    lines = ["*filter", ":INPUT ACCEPT [0:0]", f":FORWARD {policy} [0:0]", ":OUTPUT ACCEPT [0:0]", ":SUB - [0:0]",
             *rules, "COMMIT", ""]
    return make_host(parse_ruleset("\n".join(lines)), {"eth0": ["10.0.2.15/24"], "docker0": ["172.17.0.1/16"]},
                     ["default via 10.0.2.2 dev eth0"], sysctls={"net.ipv4.ip_forward": "1"})


def packet(**columns: object) -> Packet:
    return Packet.make(**{"iif": "docker0", "src": "172.17.0.2", "dst": "198.51.100.7", "proto": "tcp", "sport": 40000,
                          "dport": 80} | columns)


def ns_of(made: Host, *packets: Packet) -> list[float]:
    found = fp.capacity.cost(made, PacketBatch.from_packets(packets), backend="legacy", model=MODEL)
    return [float(x) for x in found.ns]


def test_the_sum_is_that_of_the_tests_up_to_the_first_that_fails():
    forward = 500 + 10
    assert ns_of(host(), packet()) == [forward]
    assert ns_of(host("-A FORWARD -s 1.2.3.4/32 -d 1.2.3.4/32 -j DROP"), packet()) == [forward + 1]
    assert ns_of(host("-A FORWARD -d 1.2.3.4/32 -i eth0 -p udp -j DROP"), packet()) == [forward + 2]
    assert ns_of(host("-A FORWARD -i docker0 -o lo -p udp -j DROP"), packet()) == [forward + 4]
    assert ns_of(host("-A FORWARD -p tcp -m tcp --dport 81 -j DROP"), packet()) == [forward + 6 + 20]
    assert ns_of(host("-A FORWARD -p tcp -m tcp --dport 80 -m mark --mark 0x1 -j DROP"), packet()) == [
        forward + 6 + 21 + 30]
    assert ns_of(host("-A FORWARD -p tcp -m tcp --dport 80"), packet()) == [forward + 6 + 21 + 7]
    assert ns_of(host("-A FORWARD -j SUB", "-A SUB -p udp"), packet()) == [forward + 6 + 7 + 8 + 5]
    assert ns_of(host("-A FORWARD -i docker0 -j DROP"), packet()) == [400 + 10 + 6 + 7]


def test_ways_states_and_nat():
    tracked = host("-A OUTPUT -m conntrack --ctstate INVALID -j DROP")
    assert ns_of(tracked, packet(), packet(state="established", tcp_flags="ACK"), packet(state="untracked"),
                 packet(state="invalid")) == [560, 535, 510, 540]
    assert ns_of(host(), packet(dst="172.17.0.1"), packet(src="127.0.0.1"),
                 packet(iif="local", src="10.0.2.15"), packet(iif="local", src="10.0.2.15", dst="10.0.2.15")) == [
                     310, 200, 710, 820]
    text = str(tracked.ruleset) + "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n"
    nat = tracked.with_ruleset(parse_ruleset(text))
    assert ns_of(nat, packet(), packet(state="established", tcp_flags="ACK")) == [560 + 60 + 2 * 11, 535 + 15]
    assert ns_of(nat.edit("iptables -A FORWARD -j DROP"), packet()) == [400 + 10 + 50 + 30 + 11 + 6 + 7]


def test_chains_and_rules_share_out_what_rules_cost():
    made = host("-A FORWARD -s 1.2.3.4/32 -j DROP", "-A FORWARD -p tcp -m tcp --dport 80 -j SUB",
                "-A SUB -d 1.2.3.4/32 -j DROP")
    packets = PacketBatch.from_packets([packet(), packet(dport=81)])
    found = fp.capacity.cost(made, packets, backend="legacy", model=MODEL)
    assert found.rules_ns == pytest.approx(sum(c.ns for c in found.by_chain))
    assert found.mean_ns == pytest.approx(found.base_ns + found.rules_ns)
    assert [(c.chain, c.ns, c.examined) for c in found.by_chain] == [
        ("FORWARD", pytest.approx((1 + 6 + 21 + 7 + 8 + 1 + 6 + 20) / 2), 2.0), ("SUB", pytest.approx(1.0), 0.5)]
    assert [(r.chain, r.number, r.examined, r.matched) for r in found.top_rules] == [
        ("FORWARD", 2, 2, 1), ("FORWARD", 1, 2, 0), ("SUB", 1, 1, 0)]
    assert found.percentiles[50.0] == pytest.approx(float(np.median(found.ns)))
    assert found.packets_per_second == pytest.approx(1e9 / found.mean_ns)
    assert sum(c.packets for c in found.by_class) == 2 and sum(c.share for c in found.by_class) == pytest.approx(1)
    assert json.loads(json.dumps(found.to_dict()))["by_chain"][0]["chain"] == "FORWARD"
    assert found.to_arrow().column_names[:3] == ["table", "chain", "ns"]


def test_classes_name_the_way_the_state_and_the_end():
    made = host("-A FORWARD -i eth0 -j DROP", "-A OUTPUT -m conntrack --ctstate INVALID -j DROP")
    found = fp.capacity.cost(made, PacketBatch.from_packets([
        packet(), packet(iif="eth0", src="9.9.9.9", dst="172.17.0.2"), packet(iif="local", src="10.0.2.15"),
        packet(dst="172.17.0.1", state="established", tcp_flags="ACK")]), backend="legacy", model=MODEL)
    assert {c.name for c in found.by_class} == {
        "FORWARD containers -> outside new", "FORWARD outside -> containers new, DROP", "OUTPUT host -> outside new",
        "INPUT containers -> host established"}


def test_memory_beyond_the_cache_costs():
    made = host(*(f"-A FORWARD -s 1.2.{i // 256}.{i % 256}/32 -j DROP" for i in range(1000)))
    costs = BackendCosts(**{**{f: getattr(FLAT, f) for f in FLAT.__dataclass_fields__}, "cache_bytes": 100 * 152,
                            "line_ns": 6.4, "deep_bytes": 900 * 152, "deep_ns": 64.0})
    found = fp.capacity.cost(made, PacketBatch.from_packets([packet()]), backend="legacy",
                             model=CostModel({}, {"legacy": costs}))
    assert found.mean_ns == pytest.approx(510 + 1000 + 900 * 152 * 0.1 + 100 * 152 * 1.0)
    assert found.rules_ns == pytest.approx(found.mean_ns - 510)


@pytest.mark.parametrize(("rule", "backend", "names"), [
    ("-s 1.2.3.4/32 -i eth0 -p tcp -m tcp --dport 80 -j ACCEPT", "legacy", ["src", "in", "proto", ""]),
    ("-s 1.2.3.4/32 -i eth0 -p tcp -m tcp --sport 1 --dport 80 -j ACCEPT", "nft", ["in", "proto", "src", ""]),
    ("-p udp -m udp --sport 1:9 --dport 80 -j ACCEPT", "nft", ["proto", "", ""]),
    ("-p tcp -m tcp -j ACCEPT", "nft", ["proto", ""]),
    ("-s 0.0.0.0/0 -i + -j ACCEPT", "nft", []),
    ("-p tcp -m tcp --tcp-flags SYN,ACK SYN --dport 80", "nft", ["proto", "", ""]),
])
def test_steps_follow_the_back_end(rule: str, backend: str, names: list[str]):
    made = host(f"-A FORWARD {rule}")
    parsed = made.ruleset.table("filter").chain("FORWARD").rules[0]
    assert [step.name for step in plan_of(parsed, made, backend).steps] == names


def test_a_rule_takes_what_the_kernel_gives_it():
    rules = host("-A FORWARD -i eth0 -j ACCEPT", "-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT",
                 "-A FORWARD -j REJECT").ruleset.table("filter").chain("FORWARD").rules
    assert [rule_bytes(rule) for rule in rules] == [152, 200, 152]


def test_what_was_not_measured_takes_a_stand_in_and_is_named():
    made = host("-A FORWARD -m string --string abc --algo bm -j DROP", "-A FORWARD -m ttl --ttl-eq 3 -j DROP")
    found = fp.capacity.cost(made, PacketBatch.from_packets([packet()]), backend="legacy", model=MODEL)
    assert found.outside == ("string", "ttl")
    assert any("string, ttl" in line for line in found.assumptions)
    assert FLAT.stand_in("fail:set:hash:ip") == 90.0
    assert FLAT.stand_in("pass:mark") == 30.0


def test_unmeasurable_input_is_refused_with_a_reason():
    made = host()
    with pytest.raises(FastpathError, match="needs packets"):
        fp.capacity.cost(made, PacketBatch.empty(), backend="legacy", model=MODEL)
    with pytest.raises(FastpathError, match="no back end 'nft'"):
        fp.capacity.cost(made, PacketBatch.from_packets([packet()]), backend="nft", model=MODEL)
    bare = Host(made.ruleset, complete=False)
    with pytest.raises(PacketError, match="oif"):
        fp.capacity.cost(bare, PacketBatch.from_packets([packet()]), backend="legacy", model=MODEL)


def test_a_model_is_saved_and_loaded(tmp_path: Path):
    MODEL.save(tmp_path / "m.json")
    assert CostModel.load(tmp_path / "m.json") == MODEL
    for text, complaint in (("{}", "no calibration"), ("nonsense", "no calibration"),
                            (json.dumps(MODEL.to_dict() | {"version": 99}), "version 99"),
                            (json.dumps(MODEL.to_dict() | {"backends": {"nft": {}}}), "damaged")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(HostError, match=complaint):
            CostModel.load(tmp_path / "bad.json")
    with pytest.raises(HostError, match="cannot be read"):
        CostModel.load(tmp_path / "none.json")


def test_the_calibration_that_comes_along_is_sound():
    model = CostModel.default()
    assert set(model.backends) == {"legacy", "nft"}
    for costs in model.backends.values():
        assert costs.fit is not None and costs.fit.median_error < 0.05
        assert all(ns >= 0 for ns in costs.rules.values())
        assert costs.rules["fail:conntrack"] > 5 and costs.rules["fail:addrtype"] > costs.rules["fail:conntrack"]
    assert model.machine["kernel"] and model.machine["cpu"]


# ------------------------------------------------------------------------------------------------- reordering


def test_a_hot_rule_moves_up_past_rules_that_nothing_matches_with_it():
    made = host(*(f"-A FORWARD -s 10.9.{i}.0/24 -j DROP" for i in range(50)), "-A FORWARD -s 172.17.0.0/16 -j ACCEPT",
                policy="DROP")
    packets = PacketBatch.from_packets([packet()] * 20)
    found = fp.capacity.cost(made, packets, backend="legacy", model=MODEL, reorder=True)
    order = found.reordering
    assert order is not None and [(m.number, m.before) for m in order.moves] == [(51, 1)]
    assert order.saved_ns == pytest.approx(50.0) and order.mean_ns == pytest.approx(found.mean_ns - 50)
    after = parse_ruleset(order.ruleset).table("filter").chain("FORWARD").rules
    assert str(after[0]) == "-s 172.17.0.0/16 -j ACCEPT" and len(after) == 51


@pytest.mark.parametrize("first", [
    "-A FORWARD -p tcp -m tcp --dport 22 -j DROP",  # may match the same packet, and does something else
    "-A FORWARD -s 10.0.0.0/8 -m limit --limit 1/sec -j DROP",  # sees fewer packets
    "-A FORWARD -j SUB",
    "-A FORWARD -p tcp -j MARK --set-mark 1",
])
def test_what_may_change_something_stays(first: str):
    made = host(*[first] * 5, "-A FORWARD -s 172.17.0.0/16 -j ACCEPT", "-A SUB -p udp -j DROP", policy="DROP")
    packets = PacketBatch.from_packets([packet()] * 20)
    found = fp.capacity.cost(made, packets, backend="legacy", model=MODEL, reorder=True)
    assert found.reordering is not None and found.reordering.moves == ()
    assert found.reordering.saved_ns == 0 and parse_ruleset(found.reordering.ruleset) == made.ruleset


def test_rules_that_do_the_same_change_places():
    made = host(*(f"-A FORWARD -p tcp -m tcp --dport {p} -j ACCEPT" for p in range(1000, 1040)),
                "-A FORWARD -i docker0 -j ACCEPT", policy="DROP")
    packets = PacketBatch.from_packets([packet()] * 20)
    found = fp.capacity.cost(made, packets, backend="legacy", model=MODEL, reorder=True)
    assert found.reordering is not None and found.reordering.moves[0].number == 41


def test_reordering_a_captured_host_keeps_every_fate():
    made = Host.load(DATA / "docker26-bridges")
    packets = fp.synth.packets(made, 5000, seed=4)
    found = fp.capacity.cost(made, packets, reorder=True)
    assert found.reordering is not None and len(found.reordering.moves) > 10
    assert 0 < found.reordering.saved_ns < found.rules_ns and "fastpath diff" in found.reordering.proof
    after = made.with_ruleset(parse_ruleset(found.reordering.ruleset))
    edges = fp.synth.packets(made, 20_000, seed=5, profile="edges")
    one, other = fp.compile(made).evaluate(edges), fp.compile(after).evaluate(edges)
    for name in ("verdict", "hook", "src", "dst", "sport", "dport", "mark"):
        assert np.array_equal(one.column(name), other.column(name)), name
