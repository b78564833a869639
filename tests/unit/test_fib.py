"""Route look-ups, address types and address selection, against answers that the Linux kernel gave (`ip route get`)."""

from __future__ import annotations

import ipaddress
import random

import pytest

from fastpath.host.fib import Fib, connected_routes, prefix_mask
from fastpath.host.model import Host, Interface, InterfaceAddress, Route
from fastpath.host.text import make_host, make_interface, parse_route
from fastpath.ruleset.model import Network, Ruleset

HOST = make_host(
    Ruleset(),
    {"eth0": ["10.0.2.15/24", "10.0.2.16/24"], "docker0": ["172.17.0.1/16"], "p2p0": ["192.168.9.1/32"]},
    ["default via 10.0.2.2 dev eth0", "172.17.4.0/24 via 172.17.0.9 dev docker0", "blackhole 198.18.0.0/15",
     "203.0.113.0/24 dev docker0 metric 9", "203.0.113.0/24 via 10.0.2.7 dev eth0 metric 5",
     "unreachable 203.0.113.128/25", "throw 192.0.2.0/24"],
)


def ip(text: str) -> int:
    return int(ipaddress.ip_address(text))


@pytest.mark.parametrize(("address", "type_", "dev", "gateway"), [
    ("8.8.8.8", "unicast", "eth0", "10.0.2.2"),
    ("10.0.2.2", "unicast", "eth0", None),
    ("172.17.3.3", "unicast", "docker0", None),
    ("172.17.4.3", "unicast", "docker0", "172.17.0.9"),
    ("203.0.113.1", "unicast", "eth0", "10.0.2.7"),  # the smaller metric
    ("203.0.113.200", "unreachable", None, None),
    ("198.19.0.1", "blackhole", None, None),
    ("10.0.2.15", "local", "eth0", None),
    ("10.0.2.16", "local", "eth0", None),
    ("10.0.2.255", "broadcast", "eth0", None),
    ("172.17.255.255", "broadcast", "docker0", None),
    ("10.0.2.0", "unicast", "eth0", None),  # a network's first address is an ordinary one since Linux 5.14
    ("127.8.8.8", "local", "lo", None),
    ("127.255.255.255", "broadcast", "lo", None),
    ("192.168.9.1", "local", "p2p0", None),
])
def test_lookup(address: str, type_: str, dev: str | None, gateway: str | None) -> None:
    found = Fib(HOST).lookup(ip(address))
    assert found is not None
    assert (found.type, found.dev, found.gateway) == (type_, dev, None if gateway is None else ip(gateway))


def test_no_route() -> None:
    assert Fib(HOST).lookup(ip("192.0.2.9")) is None  # throw: this table has no answer, and no other one does
    assert Fib(make_host(Ruleset(), {"eth0": ["10.0.0.1/24"]})).lookup(ip("8.8.8.8")) is None


def test_on_link_says_whether_a_gateway_is_in_between() -> None:
    fib = Fib(HOST)
    direct, far, nowhere = (fib.lookup(ip(a)) for a in ("10.0.2.9", "8.8.8.8", "198.18.0.1"))
    assert direct is not None and direct.on_link
    assert far is not None and not far.on_link
    assert nowhere is not None and not nowhere.on_link


def test_throw_goes_on_to_the_default_table() -> None:
    host = make_host(Ruleset(), {"eth0": ["10.0.0.1/24"], "eth1": ["10.0.1.1/24"]},
                     ["default via 10.0.0.2 dev eth0", "throw 192.0.2.0/24", "default dev eth1 table default"])
    found = Fib(host).lookup(ip("192.0.2.1"))
    assert found is not None and found.dev == "eth1"


def test_longest_prefix_of_local_and_main_together() -> None:
    """Without `ip rule` lines of its own a host has local and main in one trie."""
    host = make_host(Ruleset(), {"eth0": ["10.0.0.1/24"]}, ["127.1.0.0/16 dev eth0", "10.0.0.1 dev eth0"])
    fib = Fib(host)
    more_specific, equal = fib.lookup(ip("127.1.2.3")), fib.lookup(ip("10.0.0.1"))
    assert more_specific is not None and more_specific.type == "unicast"
    assert equal is not None and equal.type == "local"


@pytest.mark.parametrize(("address", "expected"), [
    ("10.0.2.15", "LOCAL"), ("127.0.0.1", "LOCAL"), ("127.9.9.9", "LOCAL"), ("172.17.255.255", "BROADCAST"),
    ("255.255.255.255", "BROADCAST"), ("0.0.0.0", "BROADCAST"), ("0.0.0.1", "UNICAST"), ("224.0.0.1", "MULTICAST"),
    ("239.255.255.255", "MULTICAST"), ("240.0.0.1", "UNICAST"), ("8.8.8.8", "UNICAST"), ("198.18.0.1", "UNICAST"),
    ("203.0.113.200", "UNICAST"), ("192.0.2.1", "UNICAST"),
])
def test_local_type(address: str, expected: str) -> None:
    assert Fib(HOST).local_type(ip(address)) == expected


def test_local_type_of_one_interface() -> None:
    fib = Fib(HOST)
    assert fib.local_type(ip("10.0.2.15"), "eth0") == "LOCAL"
    assert fib.local_type(ip("10.0.2.15"), "docker0") == "UNICAST"
    assert fib.local_type(ip("10.0.2.255"), "docker0") == "UNICAST"
    assert fib.local_type(ip("224.0.0.1"), "docker0") == "MULTICAST"


def test_an_interface_that_is_down_keeps_its_address_but_routes_nothing() -> None:
    down = make_interface("eth1", ["10.5.0.1/24"], up=False)
    host = Host(Ruleset(), (make_interface("lo", ["127.0.0.1/8"]), down), (parse_route("10.6.0.0/16 dev eth1"),))
    fib = Fib(host)
    assert connected_routes(host.interfaces) == ()
    assert fib.local_type(ip("10.5.0.1")) == "LOCAL"
    assert fib.local_type(ip("10.5.0.255")) == "UNICAST"
    assert fib.lookup(ip("10.6.0.1")) is None


def test_local_routes_make_whole_networks_local() -> None:
    fib = Fib(make_host(Ruleset(), {"eth0": ["10.0.0.1/24"]}, ["local 192.0.2.0/24 dev lo"]))
    assert fib.local_type(ip("192.0.2.77")) == "LOCAL"
    assert not fib.is_own_address(ip("192.0.2.77"))
    assert fib.is_own_address(ip("10.0.0.1"))


def test_masquerade_address() -> None:
    fib = Fib(make_host(Ruleset(), {
        "eth0": ["10.0.2.15/24", "192.0.2.1/24", "192.0.2.2/24"], "lo": ["127.0.0.1/8"], "bare": []}))
    assert fib.masquerade_address("eth0", ip("192.0.2.77")) == ip("192.0.2.1")  # its network holds the next hop
    assert fib.masquerade_address("eth0", ip("8.8.8.8")) == ip("10.0.2.15")
    assert fib.masquerade_address("bare", ip("8.8.8.8")) == ip("10.0.2.15")  # any interface's
    assert fib.masquerade_address("lo", ip("127.0.0.1")) == ip("10.0.2.15")  # 127.0.0.1 has scope host
    assert Fib(make_host(Ruleset(), {"eth0": []})).masquerade_address("eth0", 1) is None


def test_masquerade_skips_secondary_and_narrow_addresses() -> None:
    addresses = (InterfaceAddress(4, ip("169.254.0.1"), 16, scope="link"),
                 InterfaceAddress(4, ip("10.0.0.2"), 24, secondary=True), InterfaceAddress(4, ip("10.1.0.1"), 24))
    fib = Fib(Host(Ruleset(), (Interface("eth0", addresses),)))
    assert fib.masquerade_address("eth0", ip("169.254.0.9")) == ip("10.1.0.1")
    assert fib.first_address("eth0") == ip("169.254.0.1")
    assert fib.first_address("eth9") is None


def test_point_to_point_networks_are_the_peers() -> None:
    address = InterfaceAddress(4, ip("10.8.0.1"), 32, peer=ip("10.8.0.2"))
    host = Host(Ruleset(), (Interface("tun0", (address,)),))
    assert connected_routes(host.interfaces) == (
        Route(Network(4, ip("10.8.0.2"), 0xFFFFFFFF), "tun0", prefsrc=ip("10.8.0.1")),)
    assert Fib(host).masquerade_address("tun0", ip("10.8.0.2")) == ip("10.8.0.1")


def test_ipv6_tables_answer_too() -> None:
    host = make_host(
        Ruleset(family=6), {"eth0": ["2001:db8::1/64", "10.0.0.1/8"]}, ["default via 2001:db8::2 dev eth0"])
    fib = Fib(host)
    assert fib.local_type(ip("2001:db8::1")) == "LOCAL"
    assert fib.local_type(ip("ff02::1")) == "MULTICAST"
    far, near = fib.lookup(ip("2001:db8:1::1")), fib.lookup(ip("2001:db8::7"))
    assert far is not None and far.gateway == ip("2001:db8::2")
    assert near is not None and near.on_link and near.dev == "eth0"


def test_lookup_equals_a_search_through_all_routes() -> None:
    """Random tables against the definition: the longest prefix that holds the address, the least metric."""
    rnd = random.Random(7)
    for _ in range(50):
        routes = []
        for metric in rnd.sample(range(100), 12):
            length = rnd.choice((0, 8, 12, 16, 24, 31, 32))
            mask = prefix_mask(length)
            address = rnd.choice((ip("10.1.2.3"), ip("10.9.0.0"), ip("172.16.0.9"))) & mask
            routes.append(Route(Network(4, address, mask), f"eth{rnd.randrange(3)}", metric=metric))
        fib = Fib(Host(Ruleset(), (), tuple(routes)))
        for text in ("10.1.2.3", "10.1.2.2", "10.9.0.1", "172.16.0.9", "172.31.0.1", "9.9.9.9"):
            fitting = [r for r in routes if ip(text) & r.destination.mask == r.destination.address]
            best = max(fitting, key=lambda r: (r.destination.mask, -r.metric), default=None)
            found = fib.lookup(ip(text))
            assert (None if found is None else found.route) == best
