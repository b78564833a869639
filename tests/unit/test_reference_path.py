"""The way through the hooks: routing, NAT, loopback, fragments, answers. Truths measured on Linux 6.18."""

from __future__ import annotations

from typing import Any

import pytest

from fastpath.errors import PacketError
from fastpath.packets import Flag, Verdict
from fastpath.packets.text import format_address
from tests.unit.reference_host import brief, counted, fate, make_host, packet, rule_name

OPEN = make_host(filter="")
LOCALNET = {"net.ipv4.conf.all.route_localnet": "1"}
OWN: dict[str, Any] = {"iif": "local", "src": "10.0.2.15"}

HERE, OUT, LOST = ("LOCAL_IN", "INPUT", None), ("FORWARD", "POSTROUTING", "docker0"), ("DROP", "ROUTE", None)
ERROR = ("ICMP_ERROR", "ROUTE", None)


@pytest.mark.parametrize(("change", "expected"), [
    ({}, OUT),
    ({"dst": "10.0.2.15"}, HERE),
    ({"dst": "172.17.0.1"}, HERE),
    ({"dst": "172.17.255.255"}, HERE),
    ({"dst": "255.255.255.255"}, HERE),
    ({"dst": "255.255.255.255", "src": "0.0.0.0"}, HERE),
    ({"dst": "224.0.0.1"}, HERE),
    ({"dst": "239.1.1.1"}, LOST),
    ({"dst": "0.0.0.0"}, LOST),
    ({"dst": "127.0.0.1"}, LOST),
    ({"dst": "172.17.0.0"}, OUT),
    ({"dst": "8.8.8.8"}, ("FORWARD", "POSTROUTING", "eth0")),
    ({"dst": "7.1.1.1"}, LOST),
    ({"dst": "6.1.1.1"}, ERROR),
    ({"src": "127.0.0.1"}, LOST),
    ({"src": "0.0.0.0"}, LOST),
    ({"src": "255.255.255.255"}, LOST),
    ({"src": "224.0.0.5"}, LOST),
    ({"src": "10.0.2.15"}, LOST),
    ({"src": "172.17.0.1"}, LOST),
    ({"src": "0.1.2.3"}, OUT),
    ({"src": "240.0.0.1"}, OUT),
    ({"src": "172.17.255.255"}, OUT),
    ({"src": "172.17.0.9"}, OUT),
    ({"ttl": 1}, ERROR),
    ({"ttl": 1, "dst": "10.0.2.15"}, HERE),
    ({"ttl": 2}, OUT),
    ({"pkttype": 1}, LOST),
    ({"iif": "docker0", "src": "172.17.0.3"}, OUT),
])
def test_arriving(change: dict[str, Any], expected: tuple[str, str, str | None]) -> None:
    assert brief(fate(OPEN, **change)) == expected


@pytest.mark.parametrize(("sysctl", "change", "expected"), [
    ({"net.ipv4.ip_forward": "0"}, {}, LOST),
    ({"net.ipv4.ip_forward": "0"}, {"dst": "6.1.1.1"}, LOST),
    ({"net.ipv4.ip_forward": "0"}, {"dst": "10.0.2.15"}, HERE),
    (LOCALNET, {"dst": "127.0.0.1"}, HERE),
    (LOCALNET, {"src": "127.0.0.1"}, LOST),
    ({"net.ipv4.conf.eth0.accept_local": "1"}, {"src": "10.0.2.15"}, OUT),
    ({"net.ipv4.conf.eth0.rp_filter": "1"}, {"src": "172.17.0.9"}, LOST),
    ({"net.ipv4.conf.default.rp_filter": "1"}, {"src": "172.17.0.9"}, LOST),
    ({"net.ipv4.conf.eth0.rp_filter": "1"}, {}, OUT),
    ({"net.ipv4.conf.all.rp_filter": "2", "net.ipv4.conf.eth0.rp_filter": "1"}, {"src": "172.17.0.9"}, OUT),
    ({"net.ipv4.conf.all.rp_filter": "2"}, {"src": "7.1.1.1"}, LOST),
    ({"net.ipv4.conf.all.rp_filter": "2"}, {"iif": "tun0"}, LOST),
    ({"net.ipv4.conf.tun0.rp_filter": "1"}, {"iif": "tun0", "src": "9.1.1.1"}, OUT),
])
def test_settings(sysctl: dict[str, str], change: dict[str, Any], expected: tuple[str, str, str | None]) -> None:
    assert brief(fate(make_host(sysctl=sysctl, filter=""), **change)) == expected


@pytest.mark.parametrize(("dst", "expected"), [
    ("172.17.0.2", ("LOCAL_OUT", "POSTROUTING", "docker0")),
    ("8.8.8.8", ("LOCAL_OUT", "POSTROUTING", "eth0")),
    ("10.0.2.15", HERE),
    ("127.0.0.1", HERE),
    ("0.0.0.0", HERE),
    ("7.1.1.1", LOST),
    ("6.1.1.1", LOST),
    ("172.17.255.255", ("LOCAL_OUT", "POSTROUTING", "docker0")),
])
def test_leaving(dst: str, expected: tuple[str, str, str | None]) -> None:
    assert brief(fate(OPEN, dst=dst, **OWN)) == expected


def test_no_route_comes_before_any_rule() -> None:
    host = make_host(raw="-A OUTPUT", filter="")
    assert counted(host, packet(dst="7.1.1.1", **OWN)) == {}


def test_given_egress_replaces_routing() -> None:
    host = make_host(filter="-A FORWARD -o br1 -j REJECT")
    assert brief(fate(host, src="127.0.0.1", oif="br1")) == ("REJECT", "FORWARD", "br1")
    assert brief(fate(host, oif="local")) == HERE
    assert brief(fate(host, oif="br1", ttl=1)) == ERROR
    assert brief(fate(host, oif="eth0", **OWN)) == ("LOCAL_OUT", "POSTROUTING", "eth0")
    unknown = make_host(filter="", complete=False)
    assert brief(fate(unknown, oif="docker0")) == OUT
    with pytest.raises(PacketError, match="oif"):
        fate(unknown)


def test_policy_rules_leave_only_the_local_table_sure() -> None:
    host = make_host(filter="", policy_rules=("100: from all fwmark 0x1 lookup 7",))
    assert brief(fate(host)) == ("UNDECIDED", "ROUTE", None)
    assert brief(fate(host, dst="10.0.2.15")) == HERE
    assert brief(fate(host, **OWN)) == ("UNDECIDED", "ROUTE", None)


# ------------------------------------------------------------------------------------------------- fragments


def test_conntrack_swallows_lone_fragments() -> None:
    tracked = make_host(raw="-A PREROUTING", filter="-A INPUT -m conntrack --ctstate NEW")
    for frag in (1, 2):
        assert brief(fate(tracked, frag=frag)) == ("DROP", "PREROUTING", None)
        assert brief(fate(tracked, frag=frag, dst="8.8.8.8", **OWN)) == ("DROP", "OUTPUT", "eth0")
        assert counted(tracked, packet(frag=frag)) == {}


@pytest.mark.parametrize(("tables", "tracked"), [
    ({"nat": ""}, False),
    ({"nat": "-A PREROUTING -p tcp -j ACCEPT"}, False),
    ({"raw": "-A PREROUTING -d 1.2.3.4 -j CT --notrack"}, False),
    ({"filter": "-A FORWARD -d 1.2.3.4 -j REJECT"}, False),
    ({"nat": "-N X\n-A X -j DNAT --to-destination 1.2.3.4"}, True),
    ({"mangle": "-A PREROUTING -d 1.2.3.4 -j CONNMARK --save-mark"}, True),
    ({"filter": "-A INPUT -m state --state NEW"}, True),
])
def test_what_puts_conntrack_into_use(tables: dict[str, str], tracked: bool) -> None:
    """Seen by what becomes of a fragment, and by whether the nat table is walked."""
    given: dict[str, Any] = {"nat": ""} | tables
    host = make_host(**given)
    assert (fate(host, frag=1).verdict is Verdict.DROP) is tracked
    assert ("nat PREROUTING 0" in counted(host, packet(proto="udp"))) is tracked


def test_local_delivery_reassembles_too() -> None:
    host = make_host(mangle="-A PREROUTING\n-A INPUT")
    assert brief(fate(host, frag=1, dst="10.0.2.15")) == LOST
    assert "mangle PREROUTING 1" in counted(host, packet(frag=1, dst="10.0.2.15"))
    assert "mangle INPUT 1" not in counted(host, packet(frag=1, dst="10.0.2.15"))


# ------------------------------------------------------------------------------------------------- NAT


def flow(found: Any) -> str:
    return f"{format_address(found.src)}:{found.sport}>{format_address(found.dst)}:{found.dport}"


def test_dnat_changes_the_route_and_what_rules_see() -> None:
    host = make_host(nat="-A PREROUTING -d 10.0.2.15 -p tcp --dport 80 -j DNAT --to-destination 172.18.0.9:8080",
                     filter="-P FORWARD DROP\n-A FORWARD -o br1 -d 172.18.0.9 -p tcp --dport 8080 -m conntrack "
                            "--ctstate DNAT --ctorigdst 10.0.2.15 --ctorigdstport 80 --ctstatus ASSURED -j DROP\n"
                            "-A FORWARD -o br1 -p tcp --dport 8080 -m conntrack --ctorigdst 10.0.2.15 -j ACCEPT")
    found = fate(host, dst="10.0.2.15")
    assert brief(found) == ("FORWARD", "POSTROUTING", "br1")
    assert flow(found) == "198.51.100.7:4000>172.18.0.9:8080"
    assert rule_name(host, found.rule) == "filter FORWARD 2"
    for state in ("established", "reply", "related", "invalid", "untracked"):
        assert brief(fate(host, dst="10.0.2.15", state=state)) == HERE, state


@pytest.mark.parametrize(("target", "change", "expected", "choice"), [
    ("DNAT --to-destination 172.17.0.2:1000-2000", {}, "198.51.100.7:4000>172.17.0.2:1000", False),
    ("DNAT --to-destination 172.17.0.2:70-90", {}, "198.51.100.7:4000>172.17.0.2:80", False),
    ("DNAT --to-destination 172.17.0.2:70-90 --random", {}, "198.51.100.7:4000>172.17.0.2:70", True),
    ("DNAT --to-destination 172.17.0.2 --random", {}, "198.51.100.7:4000>172.17.0.2:80", False),
    ("DNAT --to-destination 172.17.0.2:90-100/50", {}, "198.51.100.7:4000>172.17.0.2:98", False),
    ("DNAT --to-destination 172.17.0.2:90-100/500", {}, "198.51.100.7:4000>172.17.0.2:97", False),
    ("DNAT --to-destination 172.17.0.4-172.17.0.6", {}, "198.51.100.7:4000>172.17.0.4:80", True),
    ("REDIRECT", {}, "198.51.100.7:4000>10.0.2.15:80", False),
    ("REDIRECT --to-ports 99", {}, "198.51.100.7:4000>10.0.2.15:99", False),
    ("REDIRECT", {"iif": "br1"}, "198.51.100.7:4000>172.18.0.1:80", False),
    ("NETMAP --to 172.18.0.0/16", {}, "198.51.100.7:4000>172.18.0.2:80", False),
])
def test_destinations(target: str, change: dict[str, Any], expected: str, choice: bool) -> None:
    found = fate(make_host(nat=f"-A PREROUTING -p tcp -j {target}"), **change)
    assert flow(found) == expected
    assert bool(found.flags & Flag.NAT_CHOICE) is choice


@pytest.mark.parametrize(("target", "change", "expected", "choice"), [
    ("SNAT --to-source 1.1.1.1", {}, "1.1.1.1:4000", False),
    ("SNAT --to-source 172.17.0.2-172.17.0.5", {}, "172.17.0.2:4000", False),
    ("SNAT --to-source 172.17.0.10-172.17.0.12", {}, "172.17.0.10:4000", True),
    ("SNAT --to-source 1.1.1.1:1000-5000", {}, "1.1.1.1:4000", False),
    ("SNAT --to-source 1.1.1.1:1000-2000", {}, "1.1.1.1:1000", True),
    ("SNAT --to-source 1.1.1.1 --random", {}, "1.1.1.1:1024", True),
    ("SNAT --to-source 1.1.1.1 --random-fully", {"sport": 700}, "1.1.1.1:600", True),
    ("SNAT --to-source 1.1.1.1 --random", {"sport": 100}, "1.1.1.1:1", True),
    ("MASQUERADE", {}, "10.0.2.15:4000", False),
    ("MASQUERADE --to-ports 5000", {}, "10.0.2.15:5000", False),
    ("MASQUERADE", {"dst": "192.168.9.7"}, "192.168.9.1:4000", False),
    ("MASQUERADE", {"dst": "172.18.0.7"}, "172.18.0.1:4000", False),
    ("MASQUERADE", {"dst": "9.1.1.1"}, "10.0.2.15:4000", False),
    ("NETMAP --to 9.9.0.0/16", {}, "9.9.0.2:4000", False),
])
def test_sources(target: str, change: dict[str, Any], expected: str, choice: bool) -> None:
    values = {"iif": "docker0", "src": "172.17.0.2", "dst": "8.8.8.8"} | change
    found = fate(make_host(nat=f"-A POSTROUTING -p tcp -j {target}"), **values)
    assert flow(found).split(">")[0] == expected
    assert bool(found.flags & Flag.NAT_CHOICE) is choice


def test_nat_bits_only_where_something_changed() -> None:
    host = make_host(nat="-A PREROUTING -p tcp -j DNAT --to-destination 172.17.0.2:80",
                     filter="-A FORWARD -m conntrack --ctstate DNAT -j DROP")
    assert fate(host).verdict is Verdict.FORWARD
    assert fate(host, dport=81).verdict is Verdict.DROP


def test_redirect_without_an_address_drops() -> None:
    host = make_host(nat="-A PREROUTING -p tcp -j REDIRECT")
    found = fate(host, iif="tun0")
    assert (brief(found), rule_name(host, found.rule)) == (("DROP", "PREROUTING", None), "nat PREROUTING 1")


def test_dnat_to_nowhere() -> None:
    for address, expected in (("127.0.0.1", LOST), ("0.0.0.0", LOST), ("172.17.255.255", HERE), ("224.0.0.1", HERE)):
        host = make_host(nat=f"-A PREROUTING -p tcp -j DNAT --to-destination {address}")
        found = fate(host)
        assert brief(found) == expected
        assert format_address(found.dst) == address


# ------------------------------------------------------------------------------------------------- loopback


def test_own_address_is_reached_through_lo() -> None:
    host = make_host(mangle="-A OUTPUT -o lo\n-A POSTROUTING -o lo\n-A PREROUTING -i lo\n-A INPUT -i lo",
                     nat="-A POSTROUTING -p tcp -j MASQUERADE",
                     filter="-A INPUT -m conntrack --ctstate NEW --ctstatus CONFIRMED -j ACCEPT")
    found = fate(host, dst="127.0.0.1", **OWN)
    assert brief(found) == HERE and rule_name(host, found.rule) == "filter INPUT 1"
    counts = counted(host, packet(dst="127.0.0.1", **OWN))
    assert {f"mangle {c} 1" for c in ("OUTPUT", "POSTROUTING", "PREROUTING", "INPUT")} <= set(counts)
    assert "nat PREROUTING 0" not in counts and "nat INPUT 0" not in counts


def test_masquerade_on_lo_takes_the_first_global_address() -> None:
    host = make_host(nat="-A POSTROUTING -p tcp -j MASQUERADE")
    assert format_address(fate(host, iif="local", src="127.0.0.1", dst="127.0.0.1").src) == "10.0.2.15"


def test_dnat_in_output_routes_again() -> None:
    host = make_host(nat="-A OUTPUT -d 10.0.2.15 -p tcp -j DNAT --to-destination 172.17.0.2",
                     filter="-A OUTPUT -o docker0\n-A OUTPUT -o lo -d 172.17.0.2", mangle="-A POSTROUTING -o docker0")
    assert brief(fate(host, dst="10.0.2.15", **OWN)) == ("LOCAL_OUT", "POSTROUTING", "docker0")
    counts = counted(host, packet(dst="10.0.2.15", **OWN))
    assert "filter OUTPUT 2" in counts and "mangle POSTROUTING 1" in counts and "filter OUTPUT 1" not in counts


def test_loopback_source_does_not_leave_after_dnat() -> None:
    rules = "-A OUTPUT -d 10.0.2.15 -p tcp -j DNAT --to-destination 172.17.0.2"
    own: dict[str, Any] = {"iif": "local", "src": "127.0.0.1", "dst": "10.0.2.15"}
    assert brief(fate(make_host(nat=rules), **own)) == LOST
    assert fate(make_host(nat=rules, sysctl=LOCALNET), **own).verdict is Verdict.LOCAL_OUT
    assert fate(make_host(nat=""), iif="local", src="127.0.0.1", dst="8.8.8.8").verdict is Verdict.LOCAL_OUT
    marked = make_host(mangle="-A OUTPUT -j MARK --set-mark 5")
    assert brief(fate(marked, iif="local", src="127.0.0.1", dst="8.8.8.8")) == LOST


def test_looped_notrack_only_takes_what_has_no_connection() -> None:
    host = make_host(raw="-A PREROUTING -j CT --notrack",
                     filter="-A INPUT -m conntrack --ctstate NEW -j ACCEPT\n"
                            "-A INPUT -m conntrack --ctstate UNTRACKED -j DROP")
    assert fate(host, dst="10.0.2.15", **OWN).verdict is Verdict.LOCAL_IN
    assert fate(host, dst="10.0.2.15", tcp_flags="FIN", **OWN).verdict is Verdict.DROP


# ------------------------------------------------------------------------------------------------- answers


def test_answers_count_on_their_way_out() -> None:
    host = make_host(raw="-A OUTPUT -m conntrack --ctstate RELATED --ctdir REPLY",
                     filter="-A FORWARD -p udp -j REJECT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n"
                            "-A OUTPUT -o eth0 -d 198.51.100.7 -p icmp -m icmp --icmp-type 3/3")
    sent = packet(proto="udp", length=36)
    assert "filter OUTPUT 1" not in counted(host, sent)
    counts = counted(host, sent, answers=True)
    assert counts["filter OUTPUT 1"] == (1, 64)
    assert counts["raw OUTPUT 1"] == (1, 64)
    assert "filter OUTPUT 1" not in counted(host, packet(), answers=True)


def test_reset_walks_nat_postrouting_for_a_new_flow() -> None:
    host = make_host(nat="-A POSTROUTING -p tcp -m tcp --tcp-flags RST RST -j MASQUERADE",
                     filter="-A FORWARD -p tcp -j REJECT --reject-with tcp-reset")
    assert counted(host, packet(), answers=True)["nat POSTROUTING 1"] == (1, 40)
    assert "nat POSTROUTING 1" not in counted(host, packet(state="established"), answers=True)
    assert "nat POSTROUTING 1" not in counted(host, packet(tcp_flags="RST"), answers=True)


def test_nobody_answers_errors_and_bad_checksums() -> None:
    host = make_host(filter="-A FORWARD -j REJECT\n-A OUTPUT")
    for change in ({"proto": "icmp", "icmp_type": 3}, {"state": "invalid"}, {"frag": 2}):
        assert "filter OUTPUT 1" not in counted(host, packet(**change), answers=True)
    assert counted(OPEN, packet(ttl=1), answers=True) == {"filter OUTPUT 0": (1, 88)}
