"""Reading `ipset save`, and membership as the kernel's sets have it (compared with a kernel's packets by hand)."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from fastpath.errors import ParseError
from fastpath.host.ipset import IpSetTester, SetQuery, parse_ipsets
from fastpath.host.model import Host, IpSet, PortElement, SetEntry
from fastpath.ruleset.model import AddressRange, Network, Ruleset


def ip(text: str) -> int:
    return int(ipaddress.ip_address(text))


def one(text: str) -> IpSet:
    """The last set of a text."""
    return parse_ipsets(text)[-1]


def query(src: str = "10.0.0.1", dst: str = "10.0.0.2", protocol: int = 6, **more: int | str | bool) -> SetQuery:
    return SetQuery(ip(src), ip(dst), protocol, **more)  # type: ignore[arg-type]


def has(text: str, directions: str, q: SetQuery, *, return_nomatch: bool = False) -> bool | None:
    """Membership in the last set of a text."""
    sets = parse_ipsets(text)
    tester = IpSetTester(Host(Ruleset(), ipsets=sets))
    return tester.contains(sets[-1].name, tuple(directions.split(",")), q, return_nomatch=return_nomatch)


# ------------------------------------------------------------------------------------------------------- reading


def test_reads_what_ipset_prints() -> None:
    text = (
        "create a hash:net,port family inet hashsize 1024 maxelem 65536 counters comment bucketsize 12 initval 0xcc27\n"
        'add a 10.1.0.0/16,tcp:80 nomatch packets 0 bytes 0 comment "two words"\n'
        "add a 10.1.0.0/24,icmp:echo-request packets 3 bytes 90\n"
        "add a 10.1.0.7,gre:0 timeout 49\n"
        "\n"
        "create l list:set size 8\n"
        "add l a\n"
    )
    first, second = parse_ipsets(text)
    assert (first.name, first.type, first.family) == ("a", "hash:net,port", 4)
    assert first.entries == (
        SetEntry((Network(4, ip("10.1.0.0"), 0xFFFF0000), PortElement(6, 80, 80)), True),
        SetEntry((Network(4, ip("10.1.0.0"), 0xFFFFFF00), PortElement(1, 0x800, 0x800))),
        SetEntry((Network(4, ip("10.1.0.7"), 0xFFFFFFFF), PortElement(47, 0, 0))),
    )
    assert second == IpSet("l", "list:set", 4, (SetEntry(("a",)),), ("size", "8"))


@pytest.mark.parametrize(("create", "element", "expected"), [
    ("hash:ip", "10.0.0.1", AddressRange(4, ip("10.0.0.1"), ip("10.0.0.1"))),
    ("hash:ip", "10.0.0.1-10.0.0.9", AddressRange(4, ip("10.0.0.1"), ip("10.0.0.9"))),
    ("hash:ip", "10.0.0.9/30", AddressRange(4, ip("10.0.0.8"), ip("10.0.0.11"))),
    ("hash:ip netmask 24", "10.0.0.9", Network(4, ip("10.0.0.0"), 0xFFFFFF00)),
    ("hash:ip bitmask 255.0.255.0", "10.1.2.3", Network(4, ip("10.0.2.0"), 0xFF00FF00)),
    ("hash:ip family inet6", "2001:db8::1", AddressRange(6, ip("2001:db8::1"), ip("2001:db8::1"))),
    ("hash:net family inet6", "2001:db8::/32", Network(6, ip("2001:db8::"), (2**32 - 1) << 96)),
    ("bitmap:ip range 10.0.0.0/16 netmask 24", "10.0.3.0", AddressRange(4, ip("10.0.3.0"), ip("10.0.3.255"))),
    ("bitmap:port range 0-100", "4-7", PortElement(None, 4, 7)),
    ("hash:mac", "02:AA:bb:CC:DD:EE", 0x02AABBCCDDEE),
])
def test_one_dimension(create: str, element: str, expected: object) -> None:
    assert one(f"create x {create}\nadd x {element}").entries == (SetEntry((expected,)),)  # type: ignore[arg-type]


def test_more_dimensions() -> None:
    assert one("create x hash:ip,mark markmask 0xff\nadd x 10.0.0.1,0x110").entries[0].elements[1] == 0x10
    assert one("create x bitmap:ip,mac range 10.0.0.0/24\nadd x 10.0.0.2").entries[0].elements == (
        AddressRange(4, ip("10.0.0.2"), ip("10.0.0.2")),)
    assert one("create x hash:net,iface\nadd x 10.0.0.0/8,veth wildcard").entries[0].elements[1] == "veth+"
    assert one("create x hash:net,iface\nadd x 10.0.0.0/8,wildcard:veth wildcard").entries[0].elements[1] == "veth+"
    assert one("create x hash:ip,port\nadd x 10.0.0.1,80-90").entries[0].elements[1] == PortElement(6, 80, 90)
    assert one("create x hash:ip,port\nadd x 10.0.0.1,icmp:3/4").entries[0].elements[1] == PortElement(1, 0x304, 0x304)


def test_a_range_in_a_net_dimension_becomes_networks() -> None:
    entries = one("create x hash:net\nadd x 10.0.0.0-10.0.5.0").entries
    assert [str(ipaddress.ip_network((e.elements[0].address, e.elements[0].mask.bit_count())))  # type: ignore[union-attr]
            for e in entries] == ["10.0.0.0/22", "10.0.4.0/24", "10.0.5.0/32"]


def test_a_second_add_takes_the_place_of_the_first() -> None:
    assert one("create x hash:net\nadd x 10.0.0.0/8\nadd x 10.0.0.0/8 nomatch").entries == (
        SetEntry((Network(4, ip("10.0.0.0"), 0xFF000000),), True),)


@pytest.mark.parametrize(("text", "line", "shown"), [
    ("flush x", 1, "flush"),
    ("create x", 1, "create x"),
    ("create x hash:what", 1, "hash:what"),
    ("create x hash:ip\ncreate x hash:ip", 2, "x"),
    ("create x hash:ip colour 3", 1, "colour"),
    ("create x hash:ip family inet5", 1, "inet5"),
    ("create x hash:ip netmask 33", 1, "create x hash:ip netmask 33"),
    ("create x bitmap:ip", 1, "create x bitmap:ip"),
    ("add x 10.0.0.1", 1, "x"),
    ("create x hash:ip\nadd x 10.0.0.300", 2, "10.0.0.300"),
    ("create x hash:ip\nadd x 2001:db8::1", 2, "2001:db8::1"),
    ("create x hash:ip\nadd x 10.0.0.9-10.0.0.1", 2, "10.0.0.9-10.0.0.1"),
    ("create x hash:ip\nadd x 10.0.0.1/33", 2, "10.0.0.1/33"),
    ("create x hash:ip\nadd x 10.0.0.1,80", 2, "10.0.0.1,80"),
    ("create x hash:ip\nadd x 10.0.0.1 sometimes", 2, "sometimes"),
    ("create x hash:ip\nadd x 10.0.0.1 timeout", 2, "timeout"),
    ("create x hash:ip,port\nadd x 10.0.0.1,tcp:http", 2, "10.0.0.1,tcp:http"),
    ("create x hash:ip,port\nadd x 10.0.0.1,tcp:65536", 2, "10.0.0.1,tcp:65536"),
    ("create x hash:ip,port\nadd x 10.0.0.1,nonsense:1", 2, "10.0.0.1,nonsense:1"),
    ("create x hash:mac\nadd x 02:00:00:00:00", 2, "02:00:00:00:00"),
    ("create x bitmap:port range 5-9\nadd x 10", 2, "10"),
    ("create x bitmap:ip range 10.0.0.0/24\nadd x 10.0.1.0", 2, "10.0.1.0"),
    ("create x list:set\nadd x nowhere", 2, "nowhere"),
    ("create x hash:ip netmask 32\nadd x 0.0.0.0/0", 2, "0.0.0.0/0"),
])
def test_errors_point_at_the_word(text: str, line: int, shown: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_ipsets(text, source="ipset.txt")
    assert (caught.value.source, caught.value.line) == ("ipset.txt", line)
    assert caught.value.text[caught.value.start:caught.value.end] == shown


# -------------------------------------------------------------------------------------------------------- asking


def test_directions_say_which_side_of_the_packet_is_read() -> None:
    text = "create x hash:ip,port\nadd x 10.0.0.1,tcp:80"
    assert has(text, "src,src", query(sport=80))
    assert not has(text, "src,dst", query(sport=80))
    assert has(text, "src,dst", query(dport=80))
    assert not has(text, "dst,dst", query(dport=80))
    assert not has(text, "src", query(sport=80, dport=80))  # fewer directions than dimensions
    assert has(text, "src,dst,dst", query(dport=80))


def test_the_most_specific_network_decides() -> None:
    text = ("create x hash:net\nadd x 10.0.0.0/8\nadd x 10.1.0.0/16 nomatch\nadd x 10.1.2.0/24\nadd x 10.1.2.3 nomatch")
    answers = {a: has(text, "src", query(src=a)) for a in ("10.9.0.1", "10.1.0.1", "10.1.2.1", "10.1.2.3", "11.0.0.1")}
    assert answers == {"10.9.0.1": True, "10.1.0.1": False, "10.1.2.1": True, "10.1.2.3": False, "11.0.0.1": False}
    turned = {a: has(text, "src", query(src=a), return_nomatch=True) for a in answers}
    assert turned == {"10.9.0.1": False, "10.1.0.1": True, "10.1.2.1": False, "10.1.2.3": True, "11.0.0.1": False}


def test_an_exception_for_another_port_does_not_decide() -> None:
    text = "create x hash:net,port\nadd x 10.0.0.0/8,tcp:80\nadd x 10.0.0.0/24,tcp:81 nomatch"
    assert has(text, "src,dst", query(dport=80))
    assert not has(text, "src,dst", query(dport=81))


def test_in_pairs_of_networks_the_first_dimension_comes_first() -> None:
    text = "create x hash:net,net\nadd x 10.0.0.0/24,0.0.0.0/1\nadd x 10.0.0.0/8,10.0.0.2 nomatch"
    assert has(text, "src,dst", query())
    assert not has(text, "src,dst", query(src="10.9.0.1"))


def test_the_most_specific_network_with_any_interface_hides_wider_ones() -> None:
    text = "create x hash:net,iface\nadd x 10.0.0.0/8,eth0\nadd x 10.0.0.0/24,eth1\nadd x 10.0.0.0/24,veth wildcard"
    assert has(text, "src,src", query(src="10.9.0.1", in_interface="eth0"))
    assert not has(text, "src,src", query(src="10.0.0.1", in_interface="eth0"))
    assert has(text, "src,src", query(src="10.0.0.1", in_interface="eth1"))
    assert has(text, "src,src", query(src="10.0.0.1", in_interface="veth12"))
    assert has(text, "src,dst", query(src="10.0.0.1", out_interface="eth1"))
    assert not has(text, "src,dst", query(src="10.0.0.1", in_interface="eth1"))  # no interface in this direction


@pytest.mark.parametrize(("element", "protocol", "more", "expected"), [
    ("tcp:0", 6, {}, True),
    ("udp:53", 17, {"dport": 53}, True),
    ("udp:53", 6, {"dport": 53}, False),
    ("icmp:8/0", 1, {"icmp_type": 8}, True),
    ("icmp:8/0", 1, {"icmp_type": 8, "icmp_code": 1}, False),
    ("gre:0", 47, {"dport": 7}, True),  # without ports every packet has port 0
    ("dccp:0", 33, {"dport": 7}, True),  # ipset reads no ports of DCCP
    ("sctp:7", 132, {"dport": 7}, True),
    ("udplite:7", 136, {"dport": 7}, True),
    ("udp:53", 17, {"dport": 53, "later_fragment": True}, False),
    ("icmp:8/0", 1, {"icmp_type": 8, "later_fragment": True}, False),
    ("gre:0", 47, {"later_fragment": True}, True),
])
def test_ports(element: str, protocol: int, more: dict[str, Any], expected: bool) -> None:
    text = f"create x hash:ip,port\nadd x 10.0.0.1,{element}"
    assert has(text, "src,dst", query(protocol=protocol, **more)) is expected


def test_bitmap_port_knows_tcp_and_udp_only() -> None:
    text = "create x bitmap:port range 0-100\nadd x 80"
    assert has(text, "dst", query(dport=80))
    assert has(text, "dst", query(protocol=17, dport=80))
    assert not has(text, "dst", query(protocol=132, dport=80))
    assert not has(text, "src", query(dport=80))


def test_masked_sets() -> None:
    assert has("create x hash:ip netmask 24\nadd x 10.0.0.0", "src", query(src="10.0.0.77"))
    assert not has("create x hash:ip netmask 24\nadd x 10.0.0.0", "src", query(src="10.0.1.77"))
    assert has("create x hash:ip bitmask 255.0.255.0\nadd x 10.0.2.0", "src", query(src="10.9.2.77"))
    assert has("create x hash:ip,mark markmask 0xff\nadd x 10.0.0.1,0x10", "src,src", query(mark=0x710))


def test_mac_addresses() -> None:
    text = "create x bitmap:ip,mac range 10.0.0.0/24\nadd x 10.0.0.1,02:00:00:00:00:01\nadd x 10.0.0.7"
    assert has(text, "src,src", query(mac_src=0x020000000001))
    assert not has(text, "src,src", query(mac_src=0x020000000002))
    assert has(text, "src,src", query(src="10.0.0.7", mac_src=0x020000000002))  # any MAC address
    assert not has(text, "src,src", query(src="10.0.0.7"))  # without an Ethernet header
    assert has(text, "src,dst", query(mac_src=1)) is None  # the destination's is not known
    assert has(text, "src,dst", query(src="10.0.0.9", mac_src=1)) is False
    assert has("create x hash:mac\nadd x 02:00:00:00:00:01", "src", query(mac_src=0x020000000001))


def test_lists_ask_their_members() -> None:
    text = ("create n hash:net\nadd n 10.0.0.0/8 nomatch\ncreate p hash:ip,port\nadd p 10.0.0.1,tcp:80\n"
            "create l list:set\nadd l n\nadd l p")
    assert has(text, "src,dst", query(dport=80))
    assert not has(text, "src", query(dport=80))  # the pair of p needs two directions
    assert not has(text, "src,dst", query(dport=81))
    assert has(text, "src", query(), return_nomatch=True)


def test_the_other_family_is_never_in() -> None:
    sets = parse_ipsets("create x hash:ip family inet6\nadd x ::a00:1\ncreate y bitmap:port range 0-99\nadd y 80")
    tester = IpSetTester(Host(Ruleset(), ipsets=sets))
    assert tester.contains("x", ("src",), query()) is False
    assert tester.contains("x", ("src",), query(), family=6) is True
    assert tester.contains("y", ("dst",), query(dport=80), family=6) is True


def test_an_unlisted_set_is_not_decided() -> None:
    assert IpSetTester(Host(Ruleset())).contains("x", ("src",), query()) is None
