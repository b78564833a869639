"""Made-up packets: reproducible, realistic, and on every boundary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastpath.errors import PacketError
from fastpath.host.model import Host, Interface, InterfaceAddress, IpSet, Route, SetEntry
from fastpath.packets import PacketBatch, State, synth
from fastpath.packets.synth.boundaries import Boundaries
from fastpath.packets.synth.draw import BLOCK, Bits, pool
from fastpath.packets.synth.site import interface_names, survey
from fastpath.packets.synth.traffic import MIX
from fastpath.packets.text import parse_address
from fastpath.ruleset.model import (
    AddressRange,
    Chain,
    IcmpType,
    Masked,
    Match,
    NatRange,
    Negatable,
    Network,
    Option,
    PortRange,
    Rule,
    Ruleset,
    SetReference,
    Table,
    Target,
    Value,
)

ip = parse_address
MASK = {8: 0xFF000000, 16: 0xFFFF0000, 24: 0xFFFFFF00, 32: 0xFFFFFFFF, 0: 0}


def net(text: str) -> Network:
    address, _, length = text.partition("/")
    mask = MASK[int(length or 32)]
    return Network(4, ip(address) & mask, mask)


def match(module: str, name: str, value: Value, negated: bool = False) -> Match:
    return Match(module, (Option(name, value, negated),))


def interface(name: str, address: str, length: int, master: str | None = None) -> Interface:
    broadcast = ip(address) | 0xFFFFFFFF >> length
    return Interface(name, (InterfaceAddress(4, ip(address), length, broadcast),), master=master)


def publish(port: int, to: str, to_port: int) -> Rule:
    return Rule(protocol=Negatable(6), in_interface=Negatable("docker0", True),
                matches=(match("tcp", "dport", PortRange(port, port)),),
                target=Target("DNAT", (Option("to-destination", NatRange(
                    AddressRange(4, ip(to), ip(to)), PortRange(to_port, to_port))),)))


def allow(to: str, port: int, bridge: str) -> Rule:
    return Rule(destination=Negatable(net(to)), in_interface=Negatable(bridge, True), out_interface=Negatable(bridge),
                protocol=Negatable(6), matches=(match("tcp", "dport", PortRange(port, port)),), target=Target("ACCEPT"))


def jump(name: str, **tests: Negatable) -> Rule:
    return Rule(target=Target(name), **tests)  # type: ignore[arg-type]


@pytest.fixture
def host() -> Host:
    masquerade = Rule(source=Negatable(net("172.17.0.0/16")), out_interface=Negatable("docker0", True),
                      target=Target("MASQUERADE"))
    nat = Table("nat", (
        Chain("PREROUTING", "ACCEPT", (jump("DOCKER"),)), Chain("POSTROUTING", "ACCEPT", (masquerade,)),
        Chain("DOCKER", None, (publish(8080, "172.17.0.2", 80), publish(5433, "172.18.0.3", 5432))),
    ))
    related = Rule(matches=(match("conntrack", "ctstate", frozenset({"RELATED", "ESTABLISHED"})),),
                   target=Target("ACCEPT"))
    forward = Table("filter", (
        Chain("FORWARD", "DROP", (related, jump("DOCKER", out_interface=Negatable("docker0")),
                                  jump("DOCKER", out_interface=Negatable("br-app")))),
        Chain("DOCKER", None, (allow("172.17.0.2", 80, "docker0"), allow("172.18.0.3", 5432, "br-app"))),
    ))
    return Host(
        Ruleset((nat, forward)),
        interfaces=(interface("lo", "127.0.0.1", 8), interface("eth0", "10.0.2.15", 24),
                    interface("docker0", "172.17.0.1", 16), interface("br-app", "172.18.0.1", 16),
                    Interface("veth1", master="docker0")),
        routes=(Route(net("0.0.0.0/0"), "eth0", ip("10.0.2.2")), Route(net("10.0.2.0/24"), "eth0"),
                Route(net("172.17.0.0/16"), "docker0"), Route(net("172.18.0.0/16"), "br-app")),
    )


@pytest.fixture
def rules_only(host: Host) -> Host:
    names = [i.name for i in host.interfaces if i.name in ("docker0", "br-app")]
    return Host(host.ruleset, tuple(Interface(n) for n in names), complete=False)


@pytest.mark.parametrize("profile", synth.PROFILES)
@pytest.mark.parametrize("complete", [True, False])
def test_packets_depend_on_the_seed_only(host: Host, rules_only: Host, profile: str, complete: bool) -> None:
    chosen = host if complete else rules_only
    n = 2 * BLOCK + 17
    first = synth.packets(chosen, n, 5, profile)
    assert len(first) == n
    assert synth.packets(chosen, n, 5, profile).equals(first)
    assert not synth.packets(chosen, n, 6, profile).equals(first)
    for k in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1):
        assert synth.packets(chosen, k, 5, profile).equals(first[:k])
    assert first.has("oif") is not complete


@pytest.mark.parametrize("profile", synth.PROFILES)
def test_made_packets_pass_the_checks_of_given_ones(host: Host, profile: str) -> None:
    b = synth.packets(host, BLOCK, 1, profile)
    given = {name: b.column(name) for name in synth.PROFILES[profile](host, 1).columns}
    assert PacketBatch.from_columns(given, interfaces=b.interfaces).equals(b)
    no_ports = ~np.isin(b.column("proto"), (6, 17, 33, 132, 136))
    assert no_ports.any() and not b.column("dport")[no_ports].any()
    assert not b.column("sport")[no_ports & (b.column("proto") != 1)].any()


@pytest.mark.parametrize("profile", synth.PROFILES)
def test_hosts_with_nothing_in_them(profile: str) -> None:
    for bare in (Host(Ruleset()), Host(Ruleset(), complete=False)):
        b = synth.packets(bare, 1000, 1, profile)
        assert len(b) == 1000 and "eth0" in b.interfaces


def test_what_cannot_be_made(host: Host) -> None:
    with pytest.raises(PacketError, match="unknown profile 'trafic'; the profiles are traffic, edges, uniform"):
        synth.packets(host, 1, profile="trafic")
    for n, seed in ((-1, 0), (1, -1)):
        with pytest.raises(PacketError, match="must not be negative"):
            synth.packets(host, n, seed)
    with pytest.raises(PacketError, match="IPv4 hosts only"):
        synth.packets(replace(host, ruleset=Ruleset(family=6)), 1)


# ---------------------------------------------------------------------------------------------------- surroundings


def test_survey_of_a_complete_host(host: Host) -> None:
    site = survey(host)
    assert site.uplink == "eth0" and site.addresses == (ip("10.0.2.15"),)
    assert [(s.interface, s.own) for s in site.subnets] == [("docker0", ip("172.17.0.1")), ("br-app", ip("172.18.0.1"))]
    assert ip("172.17.0.2") in site.subnets[0].members and len(site.subnets[0].members) > 1
    assert [(s.ports, s.target, s.port, s.subnet) for s in site.services] == [
        ((8080, 8080), ip("172.17.0.2"), 80, 0), ((5433, 5433), ip("172.18.0.3"), 5432, 1)]
    assert "veth1" not in interface_names(host)


def test_survey_of_rules_alone_guesses(rules_only: Host) -> None:
    site = survey(rules_only)
    assert site.uplink == "eth0"
    assert site.subnets[0].interface == "docker0" and site.subnets[0].first == ip("172.17.0.0")
    assert {s.interface for s in site.subnets} == {"docker0", "br-app"}
    assert [s.port for s in site.services] == [80, 5432]


# ---------------------------------------------------------------------------------------------------- traffic


def shares(b: PacketBatch, host: Host) -> dict[str, float]:
    """Shares of the classes that can be told apart from outside."""
    names = np.array(b.interfaces)[b.column("iif")]
    dst, src, state = b.column("dst"), b.column("src"), b.column("state")
    inner = (dst >> 16 == ip("172.17.0.0") >> 16) | (dst >> 16 == ip("172.18.0.0") >> 16)
    container = np.isin(names, ["docker0", "br-app"])
    published = np.isin(b.column("dport"), [8080, 5433]) & (dst == ip("10.0.2.15")) & (names == "eth0")
    same = dst >> 16 == src >> 16
    own = np.isin(dst, [ip("172.17.0.1"), ip("172.18.0.1"), ip("10.0.2.15")])
    return {name: float(where.mean()) * 100 for name, where in {
        "published": published & (b.column("tcp_flags") == 2),
        "answers": container & ~inner & (state == State.REPLY),
        "bridge": container & inner & same & ~own,
        "across": container & inner & ~same & ~own,
        "egress": container & ~inner & ~own & (state != State.REPLY),
        "to-container": (names == "local") & inner,
        "to-host": container & own,
    }.items()}


def test_traffic_has_the_documented_mix(host: Host) -> None:
    found = shares(synth.packets(host, 200_000, 1), host)
    for name, share in found.items():
        assert abs(share - MIX[name]) < 1, (name, share)


def test_traffic_without_containers_is_the_hosts_own(host: Host) -> None:
    alone = Host(Ruleset(), host.interfaces[:2], host.routes[:2])
    b = synth.packets(alone, 20_000, 1)
    assert {b.interfaces[c] for c in np.unique(b.column("iif")).tolist()} == {"eth0", "local"}


def test_traffic_is_plausible(host: Host) -> None:
    b = synth.packets(host, 100_000, 2)
    names = np.array(b.interfaces)[b.column("iif")]
    src, dst, state, flags = (b.column(c) for c in ("src", "dst", "state", "tcp_flags"))
    for bridge, prefix in (("docker0", "172.17.0.0"), ("br-app", "172.18.0.0")):
        assert np.all(src[names == bridge] >> 16 == ip(prefix) >> 16)
    outside = names == "eth0"
    own = [ip("10.0.2.15"), ip("172.17.0.1"), ip("172.18.0.1")]
    assert not np.isin(src[~np.isin(names, ["local"])], own).any()
    assert np.isin(src[names == "local"], own).all()
    private = (src >> 24 == 10) | (src >> 16 == 0xC0A8) | (src >> 20 == 0xAC1) | (src >> 24 == 127)
    private |= src >= 0xE0000000
    assert np.all((src[outside & private] >> 8) == ip("10.0.2.0") >> 8)
    assert np.all(b.column("ttl")[outside] < 128) and np.all(b.column("ttl")[~outside] == 64)
    tcp = b.column("proto") == 6
    known = np.isin(state, [State.ESTABLISHED, State.REPLY])
    assert np.all(flags[tcp & known] & 16) and np.all(np.isin(state, [0, State.ESTABLISHED, State.REPLY]))
    assert len(np.unique(src[outside])) > 10_000
    assert not np.any(dst[names == "local"] == 0)


def test_popular_services_get_more(host: Host) -> None:
    rules = tuple(publish(9000 + i, "172.17.0.2", 9000 + i) for i in range(100))
    nat = Table("nat", (Chain("PREROUTING", "ACCEPT", rules),))
    b = synth.packets(host.with_ruleset(Ruleset((nat,))), 200_000, 1)
    ports = b.column("dport")[(b.column("dst") == ip("10.0.2.15")) & (b.column("dport") >= 9000)]
    counts = np.sort(np.bincount(ports[ports < 9100] - 9000, minlength=100))[::-1]
    assert counts[-1] > 0 and counts[0] > 20 * counts[-1]


def test_traffic_of_rules_alone_brings_its_egress(rules_only: Host) -> None:
    b = synth.packets(rules_only, 50_000, 1)
    names = np.array(b.interfaces)
    iif, oif = names[b.column("iif")], names[b.column("oif")]
    inbound = (iif == "eth0") & (b.column("dport") == 8080) & (b.column("tcp_flags") == 2)
    assert inbound.any() and np.mean(oif[inbound] == "docker0") > 0.99
    away = (iif == "docker0") & (b.column("dport") == 443) & (b.column("dst") >> 20 != 0xAC1)
    assert away.any() and np.all(oif[away] == "eth0")
    assert not np.any(b.column("oif") < 0)


# ---------------------------------------------------------------------------------------------------- edges


def edges_of(rule: Rule, base: Host, n: int = 20_000) -> PacketBatch:
    ruleset = Ruleset((Table("filter", (Chain("FORWARD", "ACCEPT", (rule,)),)),))
    return synth.packets(base.with_ruleset(ruleset), n, 1, "edges")


@pytest.mark.parametrize(("rule", "column", "values"), [
    (Rule(source=Negatable(net("192.0.2.0/24"))), "src",
     ["192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0", "192.0.2.1"]),
    (Rule(destination=Negatable(net("198.18.4.4"), True)), "dst", ["198.18.4.3", "198.18.4.4", "198.18.4.5"]),
    (Rule(protocol=Negatable(89)), "proto", [89, 6, 17, 1]),
    (Rule(matches=(match("tcp", "dport", PortRange(1000, 1010)),)), "dport", [999, 1000, 1010, 1011]),
    (Rule(matches=(match("multiport", "sports", (PortRange(7, 7), PortRange(20, 30))),)), "sport",
     [6, 7, 8, 19, 20, 30, 31]),
    (Rule(matches=(match("multiport", "ports", (PortRange(700, 700),)),)), "dport", [699, 700, 701]),
    (Rule(matches=(match("tcp", "tcp-flags", Masked(0x21, 0x3F)),)), "tcp_flags", [0x21, 0x20, 0x01, 0xE1]),
    (Rule(matches=(match("icmp", "icmp-type", IcmpType(3, 4, 4)),)), "icmp_code", [3, 4, 5]),
    (Rule(matches=(match("icmp", "icmp-type", IcmpType(13, 0, 255)),)), "icmp_type", [12, 13, 14]),
    (Rule(matches=(match("iprange", "dst-range", AddressRange(4, ip("198.18.0.5"), ip("198.18.0.9"))),)), "dst",
     ["198.18.0.4", "198.18.0.5", "198.18.0.9", "198.18.0.10"]),
    (Rule(matches=(match("mark", "mark", Masked(0x10, 0xF0)),)), "mark", [0x10, 0xFFFFFF1F, 0, 0x0F, 0x20]),
    (Rule(matches=(match("connmark", "mark", Masked(5, 0xFFFFFFFF)),)), "connmark", [4, 5, 6]),
    (Rule(matches=(match("length", "length", PortRange(100, 200)),)), "length", [99, 100, 200, 201]),
    (Rule(matches=(match("ttl", "ttl-lt", 30),)), "ttl", [0, 1, 2, 29, 30]),
    (Rule(matches=(match("ttl", "ttl-gt", 100),)), "ttl", [100, 101]),
    (Rule(matches=(match("tos", "tos", Masked(0x10, 0xFF)),)), "tos", [0x0F, 0x10, 0x11]),
    (Rule(matches=(match("dscp", "dscp", 46),)), "tos", [184, 187, 180]),
    (Rule(matches=(match("mac", "mac-source", 0x020000000001),)), "mac_src", [0x020000000000, 0x020000000001]),
    (Rule(matches=(match("owner", "uid-owner", PortRange(1000, 1000)),)), "uid", [999, 1000, 1001, 0xFFFFFFFF]),
    (Rule(matches=(match("pkttype", "pkt-type", "broadcast"),)), "pkttype", [0, 1, 2]),
    (Rule(matches=(match("conntrack", "ctorigdst", net("203.0.113.77")),)), "ctorigdst",
     ["203.0.113.77", "203.0.113.78"]),
    (Rule(matches=(match("conntrack", "ctstatus", frozenset({"ASSURED"})),)), "ctstatus", [0, 4]),
    (Rule(matches=(match("conntrack", "ctdir", "REPLY"),)), "ctdir", [0, 1, 2]),
    (Rule(fragment=True), "frag", [0, 1, 2]),
    (Rule(target=Target("MARK", (Option("set-xmark", Masked(0x77, 0xFF)),))), "mark", [0x77, 0x76, 0x78]),
    (Rule(), "src", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.0.2.15", "172.17.255.255"]),
    (Rule(), "dst", ["10.0.2.15", "172.17.0.1", "172.17.255.255", "172.17.0.0", "172.18.0.0", "127.0.0.1"]),
    (Rule(), "state", list(range(7))),
    (Rule(), "ttl", [0, 1, 2, 64]),
])
def test_edges_are_on_and_beside_what_rules_test(host: Host, rule: Rule, column: str, values: list[int | str]) -> None:
    found = set(np.unique(edges_of(rule, host).column(column)).tolist())
    assert {ip(v) if isinstance(v, str) else v for v in values} <= found


def test_edges_include_unknown_interfaces_and_wildcards(host: Host) -> None:
    b = edges_of(Rule(in_interface=Negatable("wg+")), host)
    seen = {b.interfaces[c] for c in np.unique(b.column("iif")).tolist()}
    assert seen >= {"eth0", "docker0", "br-app", "wg0", "local", "other0"} and "veth1" not in seen


def test_edges_of_ipsets(host: Host) -> None:
    blocked = IpSet("blocked", "hash:net", entries=(SetEntry((net("203.0.113.0/24"),)),
                                                    SetEntry((net("203.0.113.9"),), nomatch=True)))
    both = IpSet("both", "list:set", entries=(SetEntry(("blocked",)),))
    rule = Rule(matches=(match("set", "match-set", SetReference("both", ("src",))),))
    b = edges_of(rule, replace(host, ipsets=(blocked, both)))
    found = set(np.unique(b.column("src")).tolist())
    assert {ip(a) for a in ("203.0.112.255", "203.0.113.0", "203.0.113.9", "203.0.113.10", "203.0.114.0")} <= found


def test_sets_that_contain_each_other_end(host: Host) -> None:
    sets = (IpSet("a", "list:set", entries=(SetEntry(("b",)),)), IpSet("b", "list:set", entries=(SetEntry(("a",)),)))
    rule = Rule(matches=(match("set", "match-set", SetReference("a", ("src",))),))
    assert len(edges_of(rule, replace(host, ipsets=sets), 100)) == 100


def test_edges_leave_out_columns_that_nothing_tests(host: Host) -> None:
    b = synth.packets(host, 10, 1, "edges")
    assert not any(b.has(name) for name in ("mac_src", "uid", "tos", "connmark", "ctorigdst", "oif"))


def test_aimed_packets_fulfil_whole_rules(host: Host) -> None:
    b = synth.packets(host, 50_000, 1, "edges")
    names = np.array(b.interfaces)[b.column("iif")]
    published = (b.column("dport") == 5433) & (b.column("proto") == 6) & (names != "docker0") & (
        b.column("state") == State.AUTO) & (b.column("tcp_flags") == 2)
    assert published.mean() > 0.01
    allowed = (b.column("dst") == ip("172.18.0.3")) & (b.column("dport") == 5432) & (b.column("proto") == 6) & (
        names != "br-app")
    assert allowed.mean() > 0.01


def test_tests_of_a_rule_tell_inside_from_outside(host: Host) -> None:
    boundaries = Boundaries(host, ("eth0", "docker0", "local"))
    rule = Rule(source=Negatable(net("10.0.0.0/8"), True), in_interface=Negatable("docker+"),
                matches=(match("tcp", "dport", PortRange(80, 90)), match("limit", "limit", "3/hour")))
    src, iif, dport = boundaries.tests(rule)
    assert all(v >> 24 != 10 for (v,) in src.inside) and all(v >> 24 == 10 for (v,) in src.outside)
    assert iif.inside == ((1,),) and iif.outside == ((0,), (2,))
    assert {v for (v,) in dport.inside} == {80, 85, 90} and {v for (v,) in dport.outside} == {79, 91}


def test_masks_inside_and_outside(host: Host) -> None:
    boundaries = Boundaries(host, ("eth0",))
    for value, mask in ((0x10, 0xF0), (0, 1), (0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x80000001, 0x80000001)):
        tests = boundaries.tests(Rule(matches=(match("mark", "mark", Masked(value, mask)),)))
        (test,) = tests
        assert all(v & mask == value for (v,) in test.inside) and test.inside
        assert all(v & mask != value for (v,) in test.outside) and (test.outside or mask == 0)


# ---------------------------------------------------------------------------------------------------- drawing


def test_pools_share_their_weight() -> None:
    values = pool(np.uint16, (75, [1]), (25, range(100, 200)), (50, []))
    assert abs(np.mean(values == 1) - 0.75) < 0.01 and set(range(100, 200)) <= set(values.tolist())


@pytest.mark.parametrize("count", [1, 2, 7, 65536, 65537, 1_000_003])
def test_indices_stay_below_and_cover(count: int) -> None:
    found = np.concatenate([Bits(1, 2, block).below(count) for block in range(4)])
    assert found.min() >= 0 and found.max() < count and found.dtype == np.int64
    assert len(np.unique(found)) >= min(count, 10_000)
    assert abs(found.mean() - (count - 1) / 2) <= 0.01 * count
