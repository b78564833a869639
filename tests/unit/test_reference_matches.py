"""What each match says of a packet. The truths are those that Linux 6.18 gave for the same rules."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.reference_host import counted, make_host, packet

IPSETS = """create nets hash:net family inet
add nets 172.17.0.0/16
add nets 172.17.0.2 nomatch
create pairs hash:ip,port family inet
add pairs 172.17.0.2,tcp:80
"""


def matches(test: str, table: str = "filter", chain: str = "FORWARD", sysctl: dict[str, str] | None = None,
            **change: Any) -> bool:
    """Whether a rule with this test counts the packet."""
    tables: dict[str, Any] = {table: f"-A {chain} {test}"}
    host = make_host(sysctl=sysctl, ipset=IPSETS, **tables)
    return f"{table} {chain} 1" in counted(host, packet(**change))


@pytest.mark.parametrize(("test", "change", "truth"), [
    ("-s 198.51.100.0/24", {}, True),
    ("! -s 198.51.100.0/24", {}, False),
    ("-s 198.0.100.0/255.0.255.0", {}, True),
    ("-d 172.17.0.2", {}, True),
    ("! -d 172.17.0.3", {}, True),
    ("-i eth0", {}, True),
    ("-i eth", {}, False),
    ("-i eth+", {}, True),
    ("! -i docker0", {}, True),
    ("-o docker0", {}, True),
    ("-o dock+", {}, True),
    ("! -o docker0", {}, False),
    ("-p tcp", {}, True),
    ("! -p tcp", {}, False),
    ("-p udp", {"proto": "udp"}, True),
    ("-f", {}, False),
    ("! -f", {}, True),
    ("-f", {"frag": 1}, False),
    ("-f", {"frag": 2}, True),
    ("! -f", {"frag": 2}, False),
])
def test_builtin(test: str, change: dict[str, Any], truth: bool) -> None:
    assert matches(test, **change) is truth


@pytest.mark.parametrize(("test", "change", "truth"), [
    ("-p tcp -m tcp --dport 80", {}, True),
    ("-p tcp -m tcp ! --dport 80", {}, False),
    ("-p tcp -m tcp --dport 79:81", {}, True),
    ("-p tcp -m tcp --sport 4001:", {}, False),
    ("-p tcp -m tcp --dport 80", {"frag": 1}, True),
    ("-p tcp -m tcp --dport 80", {"frag": 2}, False),
    ("-p tcp -m tcp ! --dport 80", {"frag": 2}, False),
    ("-p udp -m udp", {"proto": "udp", "frag": 2}, False),
    ("-p tcp -m tcp --syn", {"tcp_flags": "SYN"}, True),
    ("-p tcp -m tcp --syn", {"tcp_flags": "SYN,ACK"}, False),
    ("-p tcp -m tcp ! --syn", {"tcp_flags": "ACK"}, True),
    ("-p tcp -m tcp --tcp-flags ALL NONE", {"tcp_flags": 0}, True),
    ("-p tcp -m tcp --tcp-flags SYN,RST SYN", {"tcp_flags": "SYN,ACK,URG"}, True),
    ("-p tcp -m tcp --tcp-flags SYN,RST SYN", {"tcp_flags": 2, "frag": 2}, False),
    ("-p icmp -m icmp --icmp-type 8", {"proto": "icmp", "icmp_type": 8, "icmp_code": 3}, True),
    ("-p icmp -m icmp --icmp-type 3/1", {"proto": "icmp", "icmp_type": 3, "icmp_code": 1}, True),
    ("-p icmp -m icmp --icmp-type 3/1", {"proto": "icmp", "icmp_type": 3, "icmp_code": 0}, False),
    ("-p icmp -m icmp ! --icmp-type 3/1", {"proto": "icmp", "icmp_type": 3, "icmp_code": 0}, True),
    ("-p icmp -m icmp ! --icmp-type 8", {"proto": "icmp", "frag": 2}, False),
    ("-p icmp -m icmp --icmp-type any", {"proto": "icmp", "icmp_type": 77}, True),
    ("-p tcp -m multiport --dports 22,79:81", {}, True),
    ("-p tcp -m multiport ! --dports 22,79:81", {}, False),
    ("-p tcp -m multiport --sports 22,79:81", {}, False),
    ("-p tcp -m multiport --ports 4000", {}, True),
    ("-p tcp -m multiport --dports 80", {"frag": 2}, False),
    ("-p tcp -m multiport ! --dports 81", {"frag": 2}, False),
    ("-m iprange --src-range 198.51.100.6-198.51.100.7", {}, True),
    ("-m iprange ! --dst-range 172.17.0.3-172.17.0.9", {}, True),
    ("-m length --length 60", {}, True),
    ("-m length ! --length 0:59", {}, True),
    ("-m length --length 61:", {}, False),
    ("-m tos --tos 0x10/0x10", {"tos": 0x1C}, True),
    ("-m tos ! --tos 0x10/0x10", {"tos": 0x1C}, False),
    ("-m dscp --dscp 0x04", {"tos": 0x13}, True),
    ("-m ecn --ecn-ip-ect 3", {"tos": 0x13}, True),
    ("-p tcp -m ecn --ecn-tcp-ece", {"tcp_flags": "SYN,ECE"}, True),
    ("-p tcp -m ecn ! --ecn-tcp-cwr", {"tcp_flags": "SYN,ECE"}, True),
    ("-m mark --mark 0x1/0x1", {"mark": 3}, True),
    ("-m mark ! --mark 0x1", {"mark": 3}, True),
    ("-m mac --mac-source 02:00:00:00:00:01", {"mac_src": "02:00:00:00:00:01"}, True),
    ("-m mac ! --mac-source 02:00:00:00:00:01", {"mac_src": "02:00:00:00:00:02"}, True),
    ("-m mac ! --mac-source 02:00:00:00:00:01", {}, False),
    ("-m pkttype --pkt-type unicast", {}, True),
    ("-m comment --comment \"two words\"", {}, True),
    ("-m set --match-set nets dst", {"dst": "172.17.0.3"}, True),
    ("-m set --match-set nets dst", {}, False),
    ("-m set ! --match-set nets dst", {}, True),
    ("-m set --match-set pairs dst,dst", {}, True),
    ("-m set --match-set pairs dst,dst", {"dport": 81}, False),
])
def test_header(test: str, change: dict[str, Any], truth: bool) -> None:
    assert matches(test, **change) is truth


def test_ttl_is_one_less_behind_forwarding() -> None:
    assert matches("-m ttl --ttl-eq 64", "mangle", "PREROUTING")
    assert matches("-m ttl --ttl-eq 63", "mangle", "FORWARD")
    assert matches("-m ttl --ttl-lt 64", "mangle", "POSTROUTING")
    assert matches("-m ttl --ttl-gt 63", "mangle", "INPUT", dst="10.0.2.15")


def test_interfaces_where_there_are_none() -> None:
    """The host's own packets come in nowhere, forwarded ones keep their ingress up to POSTROUTING."""
    chain = "-N X\n-A POSTROUTING -j X\n-A X -i eth0\n-A X ! -i eth0\n"
    assert set(counted(make_host(mangle=chain), packet())) >= {"mangle X 1"}
    own = counted(make_host(mangle=chain), packet(iif="local", src="10.0.2.15"))
    assert "mangle X 2" in own and "mangle X 1" not in own
    egress = "-N Y\n-A PREROUTING -j Y\n-A Y -o docker0\n-A Y ! -o docker0\n"
    arriving = counted(make_host(mangle=egress), packet())
    assert "mangle Y 2" in arriving and "mangle Y 1" not in arriving


@pytest.mark.parametrize(("test", "change", "truth"), [
    ("--dst-type LOCAL", {"dst": "10.0.2.15"}, True),
    ("--dst-type LOCAL", {"dst": "127.8.9.1"}, True),
    ("--dst-type LOCAL", {}, False),
    ("--dst-type BROADCAST", {"dst": "172.17.255.255"}, True),
    ("--dst-type BROADCAST", {"dst": "0.0.0.0"}, True),
    ("--dst-type MULTICAST", {"dst": "239.1.1.1"}, True),
    ("--dst-type UNICAST", {"dst": "7.1.1.1"}, True),
    ("--dst-type BLACKHOLE", {"dst": "7.1.1.1"}, False),
    ("! --dst-type LOCAL", {}, True),
    ("--dst-type LOCAL --limit-iface-in", {"dst": "172.17.0.1"}, False),
    ("--dst-type LOCAL --limit-iface-in", {"dst": "10.0.2.15"}, True),
    ("--src-type UNICAST --dst-type LOCAL,UNICAST", {}, True),
])
def test_addrtype(test: str, change: dict[str, Any], truth: bool) -> None:
    assert matches(f"-m addrtype {test}", "mangle", "PREROUTING", **change) is truth


@pytest.mark.parametrize(("state", "names"), [
    ({}, "NEW"),
    ({"tcp_flags": "SYN,PSH"}, "NEW"),
    ({"tcp_flags": "ACK"}, "NEW"),
    ({"tcp_flags": "ACK,PSH,URG"}, "NEW"),
    ({"tcp_flags": "SYN,ECE,CWR"}, "NEW"),
    ({"tcp_flags": "SYN,ACK"}, "INVALID"),
    ({"tcp_flags": "FIN,ACK"}, "INVALID"),
    ({"tcp_flags": "RST"}, "INVALID"),
    ({"tcp_flags": 0}, "INVALID"),
    ({"proto": "icmp", "icmp_type": 8}, "NEW"),
    ({"proto": "icmp", "icmp_type": 17}, "NEW"),
    ({"proto": "icmp", "icmp_type": 0}, "INVALID"),
    ({"proto": "icmp", "icmp_type": 3}, "INVALID"),
    ({"proto": "gre"}, "NEW"),
    ({"state": "established", "tcp_flags": "ACK"}, "ESTABLISHED"),
    ({"state": "reply"}, "ESTABLISHED"),
    ({"state": "related"}, "RELATED"),
    ({"state": "invalid"}, "INVALID"),
    ({"state": "untracked"}, "UNTRACKED"),
])
def test_connection_state(state: dict[str, Any], names: str) -> None:
    for name in ("NEW", "INVALID", "ESTABLISHED", "RELATED", "UNTRACKED"):
        assert matches(f"-m conntrack --ctstate {name}", **state) is (name == names), name
        assert matches(f"-m conntrack ! --ctstate {name}", **state) is (name != names), name


def test_strict_tcp_pickup() -> None:
    strict = {"net.netfilter.nf_conntrack_tcp_loose": "0"}
    assert matches("-m conntrack --ctstate INVALID", sysctl=strict, tcp_flags="ACK")
    assert matches("-m conntrack --ctstate NEW", sysctl=strict, tcp_flags="SYN")


@pytest.mark.parametrize(("test", "change", "truth"), [
    ("--ctdir ORIGINAL", {}, True),
    ("--ctdir REPLY", {"state": "reply"}, True),
    ("--ctdir REPLY", {"state": "related", "proto": "icmp", "icmp_type": 3}, True),
    ("--ctdir ORIGINAL", {"state": "reply", "ctdir": 1}, True),
    ("--ctstatus NONE", {}, False),
    ("! --ctstatus NONE", {}, True),
    ("--ctstatus CONFIRMED", {}, False),
    ("--ctstatus ASSURED", {"state": "established"}, True),
    ("--ctstatus EXPECTED", {"state": "related"}, True),
    ("--ctstatus ASSURED", {"state": "established", "ctstatus": 10}, False),
    ("--ctproto 6", {}, True),
    ("! --ctproto 6", {}, False),
    ("--ctorigdst 172.17.0.2", {}, True),
    ("--ctorigdst 10.0.2.15", {"state": "established", "ctorigdst": "10.0.2.15"}, True),
    ("--ctorigdstport 6380", {"state": "established", "ctorigdstport": 6380}, True),
    ("--ctorigsrc 172.17.0.2", {"state": "reply"}, True),
    ("--ctorigsrcport 80", {"state": "reply"}, True),
    ("--ctreplsrc 172.17.0.2", {}, True),
    ("--ctrepldst 198.51.100.7", {}, True),
    ("--ctreplsrcport 80", {}, True),
    ("-p icmp -m conntrack --ctorigdstport 2048", {"proto": "icmp", "sport": 7}, True),
    ("-p icmp -m conntrack --ctreplsrcport 7", {"proto": "icmp", "sport": 7}, True),
    ("-p icmp -m conntrack --ctrepldstport 0", {"proto": "icmp", "sport": 7}, True),
    ("--ctstate INVALID --ctdir REPLY", {"state": "invalid"}, True),
    ("--ctdir REPLY", {"state": "invalid"}, False),
    ("! --ctorigdst 1.2.3.4", {"state": "untracked"}, False),
])
def test_conntrack(test: str, change: dict[str, Any], truth: bool) -> None:
    """Without a connection only --ctstate counts; whatever stands beside it is not asked."""
    assert matches(test if test.startswith("-p") else f"-m conntrack {test}", **change) is truth


def test_raw_comes_before_conntrack() -> None:
    for state in ("new", "established", "untracked"):
        assert matches("-m conntrack --ctstate INVALID", "raw", "PREROUTING", state=state)
    assert not matches("-m connmark ! --mark 1", "raw", "PREROUTING")


def test_connmark_needs_a_connection() -> None:
    assert matches("-m connmark --mark 5", connmark=5)
    assert matches("-m connmark ! --mark 6", connmark=5)
    assert not matches("-m connmark ! --mark 6", connmark=5, state="untracked")


def test_owner() -> None:
    own: dict[str, Any] = {"iif": "local", "src": "10.0.2.15"}
    assert matches("-m owner --uid-owner 1000", "filter", "OUTPUT", uid=1000, **own)
    assert matches("-m owner ! --uid-owner 0-999", "filter", "OUTPUT", uid=1000, **own)
    assert not matches("-m owner --gid-owner 5", "filter", "OUTPUT", gid=4, **own)
    assert matches("-m owner ! --uid-owner 0", "mangle", "POSTROUTING")
    assert not matches("-m owner --uid-owner 0 ! --gid-owner 0", "mangle", "POSTROUTING")
