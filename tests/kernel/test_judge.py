"""The judge itself: that packets reach the kernel as their columns say, and that nothing else happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastpath as fp
from fastpath import netns
from fastpath.errors import FastpathError, HostError, UnavailableError
from fastpath.host.model import Host
from fastpath.host.text import make_host
from fastpath.netns.minimise import Minimiser, as_text, matched_rules
from fastpath.packets import PacketBatch
from fastpath.packets.packet import Packet
from fastpath.packets.schema import Hook, Verdict
from fastpath.reference import evaluate
from fastpath.ruleset.parse import parse_ruleset

pytestmark = pytest.mark.kernel

INTERFACES = {"eth0": ["10.0.2.15/24"], "docker0": ["172.17.0.1/16"]}
ROUTES = ["default via 10.0.2.2 dev eth0"]
OUT = {"iif": "docker0", "src": "172.17.0.2", "dst": "198.51.100.7", "proto": "tcp", "sport": 40000, "dport": 80}


def host(*rules: str, table: str = "filter", ipsets: str = "", sysctls: dict[str, str] | None = None) -> Host:
    chains = {"filter": ("INPUT", "FORWARD", "OUTPUT"), "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
              "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"), "raw": ("PREROUTING", "OUTPUT")}
    lines = [f"*{table}", *(f":{chain} ACCEPT [0:0]" for chain in chains[table]), *rules, "COMMIT", ""]
    return make_host(parse_ruleset("\n".join(lines)), INTERFACES, ROUTES, ipsets=ipsets, sysctls=sysctls)


def batch(*packets: dict[str, Any]) -> PacketBatch:
    return PacketBatch.from_packets([Packet.make(**packet) for packet in packets])


def counted(judgement: netns.Judgement) -> list[int]:
    """Packets that each rule counted, policies left out."""
    return [int(n) for ref, n in zip(judgement.rules, judgement.rule_packets, strict=True) if ref.number]


# ------------------------------------------------------------------------------------------------ what packets are

TRACKED = ("udp", "sctp", "udplite", "dccp", "gre", 50)
STATES = ("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED")
SHOW_STATE = host(*(f"-A FORWARD -m conntrack --ctstate {state}" for state in STATES),
                  "-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED,RELATED --ctdir ORIGINAL",
                  "-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED,RELATED --ctdir REPLY")


@pytest.mark.parametrize(("packet", "state", "direction"), [
    ({"tcp_flags": "SYN"}, "NEW", 0),
    ({"tcp_flags": "ACK"}, "NEW", 0),
    ({"tcp_flags": "FIN,ACK"}, "INVALID", None),
    *(({"tcp_flags": flags, "state": "established"}, "ESTABLISHED", 0)
      for flags in ("SYN", "SYN,ACK", "ACK", "PSH,ACK", "FIN,ACK", "RST", "RST,ACK", "URG,ACK", "SYN,ECE,CWR")),
    *(({"tcp_flags": flags, "state": "reply"}, "ESTABLISHED", 1)
      for flags in ("SYN", "SYN,ACK", "ACK", "PSH,ACK", "FIN,ACK", "RST", "RST,ACK")),
    ({"tcp_flags": "SYN", "state": "related"}, "RELATED", 0),
    ({"state": "invalid"}, "INVALID", None),
    ({"state": "untracked"}, "UNTRACKED", None),
    *(({"proto": proto, "state": "auto"}, "NEW", 0) for proto in ("udp", "sctp", "udplite", "dccp", "gre", 50, 2, 99)),
    *(({"proto": proto, "state": "established"}, "ESTABLISHED", 0) for proto in TRACKED),
    *(({"proto": proto, "state": "reply"}, "ESTABLISHED", 1) for proto in TRACKED),
    *(({"proto": proto, "state": "related"}, "RELATED", 0) for proto in TRACKED),
    *(({"proto": proto, "state": "invalid"}, "INVALID", None) for proto in ("udp", "sctp", "udplite", "icmp")),
    *(({"proto": "icmp", "icmp_type": kind}, "NEW" if kind in (8, 13, 15, 17) else "INVALID",
       0 if kind in (8, 13, 15, 17) else None) for kind in (0, 3, 5, 8, 11, 13, 14, 15, 17, 18, 40)),
    *(({"proto": "icmp", "icmp_type": kind, "state": "established"}, "ESTABLISHED", 0) for kind in (8, 13, 15, 17)),
    *(({"proto": "icmp", "icmp_type": kind, "state": "reply"}, "ESTABLISHED", 1) for kind in (0, 14, 16, 18)),
    *(({"proto": "icmp", "icmp_type": kind, "state": "related"}, "RELATED", 1) for kind in (3, 4, 5, 11, 12)),
    ({"proto": "udp", "length": 1500}, "NEW", 0),
    ({"proto": "udplite", "length": 1500}, "NEW", 0),
    ({"proto": "sctp", "length": 1501}, "NEW", 0),
])
def test_state(packet: dict[str, Any], state: str, direction: int | None, judge: netns.Judge) -> None:
    found = judge.evaluate(SHOW_STATE, batch(OUT | packet))
    expected = [int(state == s) for s in STATES] + [int(direction == d) for d in (0, 1)]
    assert found.reason(0) == ""
    assert counted(found) == expected


def test_flows_do_not_meet(judge: netns.Judge, backend: netns.Backend) -> None:
    """Equal tuples in every order of states: none sees what an earlier one left."""
    order = ["auto", "established", "auto", "reply", "auto", "related", "untracked", "auto", "invalid", "established"]
    packets = batch(*(OUT | {"proto": "udp", "state": state} for state in order * 30))
    assert counted(judge.evaluate(SHOW_STATE, packets, backend)) == [120, 90, 30, 30, 30, 210, 30]


def test_nat_does_not_clash(judge: netns.Judge, backend: netns.Backend) -> None:
    """Every packet is the first that the kernel sees, so that no port has to change."""
    masked = host("-A POSTROUTING -o eth0 -j MASQUERADE", table="nat")
    clients = [f"172.17.0.{n}" for n in range(2, 200)]
    found = judge.evaluate(masked, batch(*(OUT | {"src": client} for client in clients)), backend)
    assert set(found.sport.tolist()) == {40000}
    assert set(found.src.tolist()) == {0x0A00020F}


def test_marks(judge: netns.Judge, backend: netns.Backend) -> None:
    """Any number of marks of packets and of connections."""
    n = 3000
    rules = host("-A FORWARD -m mark --mark 0x2/0x2", "-A FORWARD -m connmark --mark 0x4/0x4",
                 "-A FORWARD -j MARK --set-xmark 0x10000/0x10000", table="mangle")
    packets = PacketBatch.from_columns({
        "iif": "docker0", "src": "172.17.0.2", "dst": "198.51.100.7", "proto": 17, "mark": np.arange(n),
        "connmark": np.arange(n), "state": [("auto", "established", "reply")[i % 3] for i in range(n)]})
    found = judge.evaluate(rules, packets, backend)
    assert counted(found) == [sum(bool(i & 2) for i in range(n)), sum(bool(i & 4) for i in range(n)), n]
    assert found.mark.tolist() == [i | 0x10000 for i in range(n)]


@pytest.mark.parametrize(("test", "packet"), [
    ("-m mac --mac-source 02:00:00:00:00:07", {"mac_src": 0x020000000007}),
    ("-m pkttype --pkt-type broadcast", {"pkttype": 1, "dst": "172.17.0.1"}),
    ("-m pkttype --pkt-type multicast", {"pkttype": 2, "dst": "172.17.0.1"}),
    ("-m ttl --ttl-eq 77", {"ttl": 77}),
    ("-m tos --tos 0x48/0xff", {"tos": 0x48}),
    ("-m length --length 777", {"length": 777}),
    ("-m length --length 65521", {"length": 65521}),
    ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG FIN,PSH,URG", {"tcp_flags": "FIN,PSH,URG"}),
    ("-p icmp -m icmp --icmp-type 3/7", {"proto": "icmp", "icmp_type": 3, "icmp_code": 7}),
    ("-m set --match-set web dst,dst", {}),
    ("-f", {"frag": 2}),
    ("-i lo", {"iif": "lo", "src": "192.0.2.9"}),
    ("-m addrtype --src-type UNICAST -s 172.17.0.2/32", {}),
])
def test_header(test: str, packet: dict[str, Any], judge: netns.Judge, backend: netns.Backend) -> None:
    sets = "create web hash:ip,port\nadd web 198.51.100.7,tcp:80\n" if "--match-set" in test else ""
    found = judge.evaluate(host(f"-A PREROUTING {test}", table="mangle", ipsets=sets), batch(OUT | packet), backend)
    length = packet.get("length", 60)
    assert counted(found) == [1]
    assert found.rule_bytes[found.rule_packets > 0].tolist()[-1] == length


@pytest.mark.parametrize(("test", "packet", "count"), [
    ("-m owner --uid-owner 4711", {"uid": 4711}, 1),
    ("-m owner --uid-owner 4711", {"uid": 4712}, 0),
    ("-m owner --gid-owner 12", {"gid": 12}, 1),
    ("-m owner --uid-owner 0", {}, 1),
])
def test_owner(test: str, packet: dict[str, Any], count: int, judge: netns.Judge) -> None:
    if os.geteuid():
        pytest.skip("another user's sockets need root")
    mine = OUT | {"iif": "local", "src": "10.0.2.15"} | packet
    assert counted(judge.evaluate(host(f"-A OUTPUT {test}"), batch(mine))) == [count]


@pytest.mark.parametrize(("packet", "verdict", "hook", "oif"), [
    ({}, Verdict.FORWARD, Hook.POSTROUTING, "eth0"),
    ({"iif": "local", "src": "10.0.2.15"}, Verdict.LOCAL_OUT, Hook.POSTROUTING, "eth0"),
    ({"iif": "local", "src": "10.0.2.15", "dst": "172.17.0.1"}, Verdict.LOCAL_IN, Hook.INPUT, None),
    ({"iif": "local", "src": "10.0.2.15", "dst": "10.0.2.255"}, Verdict.LOCAL_OUT, Hook.POSTROUTING, "eth0"),
    ({"dst": "10.0.2.15"}, Verdict.LOCAL_IN, Hook.INPUT, None),
    ({"dst": "255.255.255.255"}, Verdict.LOCAL_IN, Hook.INPUT, None),
    ({"dst": "127.0.0.1"}, Verdict.DROP, Hook.ROUTE, None),
    ({"src": "10.0.2.15"}, Verdict.DROP, Hook.ROUTE, None),
    ({"ttl": 1}, Verdict.ICMP_ERROR, Hook.ROUTE, None),
    ({"ttl": 1, "proto": "icmp", "icmp_type": 3}, Verdict.ICMP_ERROR, Hook.ROUTE, None),
    ({"dst": "192.0.2.1"}, Verdict.ICMP_ERROR, Hook.ROUTE, None),
    ({"dst": "192.0.2.65"}, Verdict.DROP, Hook.ROUTE, None),
    ({"iif": "local", "src": "10.0.2.15", "dst": "192.0.2.1"}, Verdict.DROP, Hook.ROUTE, None),
    ({"pkttype": 1}, Verdict.DROP, Hook.ROUTE, None),
    ({"dst": "198.51.100.50"}, Verdict.DROP, Hook.FORWARD, "eth0"),
    ({"dst": "198.51.100.51"}, Verdict.REJECT, Hook.FORWARD, "eth0"),
    ({"dst": "198.51.100.51", "proto": "icmp", "icmp_type": 11}, Verdict.REJECT, Hook.FORWARD, "eth0"),
    ({"iif": "local", "src": "10.0.2.15", "dst": "198.51.100.51"}, Verdict.REJECT, Hook.OUTPUT, "eth0"),
])
def test_fate(packet: dict[str, Any], verdict: Verdict, hook: Hook, oif: str | None, judge: netns.Judge,
              backend: netns.Backend) -> None:
    rules = "\n".join([
        "*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]",
        "-A FORWARD -d 198.51.100.50/32 -j DROP", "-A FORWARD -d 198.51.100.51/32 -j REJECT",
        "-A OUTPUT -d 198.51.100.51/32 -j REJECT", "COMMIT", ""])
    routes = [*ROUTES, "unreachable 192.0.2.0/26", "blackhole 192.0.2.64/26"]
    here = make_host(parse_ruleset(rules), INTERFACES, routes)
    found = judge.evaluate(here, batch(*[OUT | packet] * 20), backend)  # the kernel answers only some of 20 in a row
    for row in range(20):
        fate = found[row]
        assert (fate.verdict, fate.hook, fate.oif) == (verdict, hook, oif)


def test_no_answer_counts(judge: netns.Judge, backend: netns.Backend) -> None:
    """What the kernel itself sends in answer does not walk OUTPUT and POSTROUTING."""
    rules = "\n".join([
        "*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]",
        "-A FORWARD -p tcp -j REJECT --reject-with tcp-reset", "-A FORWARD -j REJECT", "COMMIT", ""])
    here = make_host(parse_ruleset(rules), INTERFACES, ROUTES)
    found = judge.evaluate(here, batch(
        OUT, OUT | {"proto": "udp"}, OUT | {"ttl": 1}, OUT | {"dst": "10.0.2.15"}), backend)
    assert {str(c.ref).split(":")[0]: c.packets for c in found.counters()} == {
        "filter INPUT policy": 1, "filter FORWARD policy": 0, "filter FORWARD rule 1": 1, "filter FORWARD rule 2": 1,
        "filter OUTPUT policy": 0}


# -------------------------------------------------------------------------------------------- what cannot be judged


@pytest.mark.parametrize(("packet", "reason"), [
    ({"iif": "wlan0"}, "nothing arrives there"),
    ({"oif": "eth0"}, "the egress is given"),
    ({"length": 39}, "shorter than its headers"),
    ({"length": 65535}, "longer than"),
    ({"state": "new", "tcp_flags": "RST"}, "first packet of this kind"),
    ({"state": "invalid", "proto": 99}, "no checksum"),
    ({"state": "invalid", "iif": "local"}, "the host's own packets"),
    ({"state": "established", "tcp_flags": "SYN,FIN"}, "TCP flags"),
    ({"state": "established", "proto": "icmp", "icmp_type": 0}, "ICMP packet of this type"),
    ({"state": "established", "dst": "172.17.0.2", "dport": 40000}, "look alike"),
    ({"state": "established", "ctstatus": 1}, "the status contradicts"),
    ({"state": "established", "ctdir": 2}, "the direction contradicts"),
    ({"ctorigdst": "192.0.2.7"}, "the destination its flow began with"),
    ({"iif": "local", "src": "0.0.0.0"}, "fills in the source"),
    ({"iif": "lo", "src": "192.0.2.9", "pkttype": 1}, "no link layer"),
])
def test_told_apart(packet: dict[str, Any], reason: str, judge: netns.Judge) -> None:
    found = judge.evaluate(SHOW_STATE, batch(OUT | packet, OUT))
    assert reason in found.reason(0)
    assert found.judged.tolist() == [False, True]
    assert found.verdict.tolist() == [Verdict.UNDECIDED, Verdict.FORWARD]
    assert int(found.rule_packets.sum()) == 3  # the policy, the state, the direction: of the judged packet alone


def test_hosts_that_cannot_be_judged(judge: netns.Judge) -> None:
    for here, reason in (
        (Host(SHOW_STATE.ruleset, SHOW_STATE.interfaces, complete=False), "are not known"),
        (Host(SHOW_STATE.ruleset, SHOW_STATE.interfaces, SHOW_STATE.routes, ("5: from all lookup 5",)), "policy"),
        (host("-A FORWARD -j SET --add-set seen src", ipsets="create seen hash:ip\n"), "changes ipsets"),
        (host("-A FORWARD -m mac --mac-source 02:00:00:00:00:07"), "MAC address"),
    ):
        assert reason in judge.evaluate(here, batch(OUT)).reason(0)


def test_enough(judge: netns.Judge) -> None:
    packets = batch(OUT, OUT | {"length": 10}, OUT, OUT, OUT)
    assert len(netns.enough(SHOW_STATE, packets, 2)) == 3
    assert len(netns.enough(SHOW_STATE, packets, 9)) == 5


def test_bad_questions(judge: netns.Judge) -> None:
    with pytest.raises(HostError, match="IPv4 only"):
        judge.evaluate(SHOW_STATE, PacketBatch.empty(6))
    with pytest.raises(HostError, match="no backend"):
        judge.evaluate(SHOW_STATE, batch(OUT), "ebtables")  # type: ignore[arg-type]


def test_refused_rules(judge: netns.Judge, backend: netns.Backend) -> None:
    """iptables' own words come back, and the judge goes on."""
    with pytest.raises(UnavailableError, match=f"iptables-{backend}-restore failed"):
        judge.evaluate(host("-A FORWARD -m set --match-set nowhere src"), batch(OUT), backend)
    assert judge.evaluate(SHOW_STATE, batch(OUT), backend)[0].verdict == Verdict.FORWARD


# ------------------------------------------------------------------------------------------------ nothing else happens


def machine() -> tuple[str, list[str], str, str]:
    """This machine's network, as far as it can be seen."""
    def run(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    return (os.readlink("/proc/self/ns/net"), sorted(os.listdir("/sys/class/net")),
            run("ip", "-o", "addr") + run("ip", "route", "show", "table", "all") + run("ip", "netns"),
            run("nft", "list", "ruleset"))


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}


def test_nothing_is_left_behind(backend: netns.Backend) -> None:
    before, had = machine(), children()
    seen: list[tuple[int, int]] = []
    found = netns.evaluate(SHOW_STATE, batch(*[OUT] * 600), backend, progress=lambda *at: seen.append(at))
    assert found.judged.all()
    assert seen[-1] == (600, 600) and seen == sorted(seen)
    assert machine() == before
    assert children() == had


def test_interrupt() -> None:
    """Ctrl-C in the middle of a job: the child ends, and the judge says so afterwards."""
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    had = children()
    judge = netns.Judge()
    with pytest.raises(KeyboardInterrupt):
        judge.evaluate(SHOW_STATE, batch(*[OUT] * 5000), progress=interrupt)
    assert children() == had
    with pytest.raises((FastpathError, ValueError, OSError)):
        judge.evaluate(SHOW_STATE, batch(OUT))


def test_killed_parent() -> None:
    """kill -9 to the process that asks: the child does not outlive it."""
    script = ("import time\nfrom fastpath import netns\nj = netns.Judge()\n"
              "print(open(f'/proc/self/task/{__import__(\"os\").getpid()}/children').read(), flush=True)\n"
              "time.sleep(600)\n")
    paths = os.pathsep.join(p for p in sys.path if p)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
                          env=dict(os.environ, PYTHONPATH=paths)) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.send_signal(signal.SIGKILL)
    while Path(f"/proc/{child}").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------------ disagreements


def liar(word: str, target: str) -> Any:
    """An engine that gives rules with `word` in them another target or protocol."""
    def twisted(here: Host) -> Host:
        text = "\n".join(line.replace(word, target) for line in str(here.ruleset).splitlines()) + "\n"
        return here.with_ruleset(parse_ruleset(text))

    return lambda here: lambda packets: evaluate(twisted(here), packets)


def test_disagreement_is_found_and_made_small(judge: netns.Judge, backend: netns.Backend) -> None:
    rules = [f"-A FORWARD -d 198.51.100.{n}/32 -p tcp -m mark --mark 0x0 -j DROP" for n in range(20)]
    here = host(*rules, "-A FORWARD -p tcp -m tcp --dport 443 -j DROP")
    packets = batch(*(OUT | {"dst": f"198.51.100.{n}", "ttl": 50 + n, "tos": 8} for n in range(40)))
    assert netns.compare(here, packets, lambda p: evaluate(here, p), judge, backend)
    wrong = liar("198.51.100.7/32 -p tcp", "198.51.100.7/32 -p udp")
    found = netns.compare(here, packets, wrong(here), judge, backend)
    assert not found
    assert found.rows.tolist() == [7]
    assert set(found.differing) == {"verdict", "hook"}
    small, packet = Minimiser(wrong, judge, backend).minimise(here, found)
    assert [str(rule) for chain in small.ruleset.tables[0].chains for rule in chain.rules] == [
        "-d 198.51.100.7/32 -p tcp -m mark --mark 0x0 -j DROP"]
    assert packet == Packet.make(iif="docker0", src="172.17.0.2", dst="198.51.100.7", proto="tcp")
    assert "filter FORWARD rule 1" in matched_rules(judge, small, packet, backend)
    again = make_host(parse_ruleset(as_text(small)["rules"]), as_text(small)["interfaces"], as_text(small)["routes"])
    assert not netns.compare(again, batch(OUT), wrong(again), judge, backend)


def test_counters_alone_can_disagree(judge: netns.Judge) -> None:
    """A rule without effect that the engine walks past."""
    here = host("-A FORWARD -d 198.51.100.0/24", "-A FORWARD -p udp")
    wrong = liar("-p udp", "-p tcp")
    packets = batch(*(OUT | {"proto": proto} for proto in ("sctp", "icmp", "tcp", "sctp")))
    found = netns.compare(here, packets, wrong(here), judge)
    assert not found
    assert not len(found.rows)
    assert [(d.ref.number, d.engine, d.kernel) for d in found.counters] == [(2, (1, 60), (0, 0))]
    small, packet = Minimiser(wrong, judge, "nft").minimise(here, found)
    assert packet.proto == 6
    assert [str(rule) for rule in small.ruleset.tables[0].chains[1].rules] == ["-p udp"]


def test_what_is_not_compared(judge: netns.Judge) -> None:
    masked = host("-A POSTROUTING -o eth0 -j MASQUERADE --random", table="nat")
    found = netns.compare(masked, batch(OUT, OUT | {"length": 9}), lambda p: evaluate(masked, p), judge)
    assert found.left_out == {"it is shorter than its headers": 1, "the kernel may choose an address or a port": 1}
    limited = host("-A FORWARD -m limit --limit 1/sec -j DROP", "-A FORWARD -j ACCEPT")
    found = netns.compare(limited, batch(OUT), lambda p: evaluate(limited, p), judge)
    assert found.left_out == {"the engine calls it undecided": 1}
    assert not found.counters_compared


def test_public_names() -> None:
    assert fp.netns.evaluate is netns.evaluate
    assert netns.available() is None
