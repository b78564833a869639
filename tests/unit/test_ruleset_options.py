"""The option table: values have the types that engines rely on, and the table itself is sound."""

from __future__ import annotations

import pytest

from fastpath.errors import ParseError
from fastpath.ruleset.match_table import MATCHES
from fastpath.ruleset.model import (
    AddressRange,
    IcmpType,
    Masked,
    NatRange,
    Network,
    Option,
    PortRange,
    SetReference,
    Value,
)
from fastpath.ruleset.options import matches, targets
from fastpath.ruleset.parse import parse_rule
from fastpath.ruleset.target_table import TARGETS
from fastpath.ruleset.tokens import save_words

CHAIN = {"nat": "PREROUTING", "raw": "PREROUTING", "mangle": "FORWARD", "filter": "FORWARD"}


def option(spec: str, table: str = "filter", family: int = 4) -> dict[str, Option]:
    (rule,) = parse_rule(save_words(spec), table=table, chain=CHAIN[table], family=family, text=spec)
    owners = [*rule.matches, *([rule.target] if rule.target else [])]
    return {o.name: o for owner in owners for o in owner.options}


ADDRESS = 0xC0000201  # 192.0.2.1


@pytest.mark.parametrize(
    ("spec", "name", "value"),
    [
        ("-p tcp --sport 80", "sport", PortRange(80, 80)),
        ("-p udp --dport :domain", "dport", PortRange(0, 53)),
        ("-p sctp --dport 5:", "dport", PortRange(5, 65535)),
        ("-p dccp --sport 7", "sport", PortRange(7, 7)),
        ("-p tcp --syn", "tcp-flags", Masked(2, 0x17)),
        ("-p tcp --tcp-flags ALL psh,urg", "tcp-flags", Masked(40, 63)),
        ("-p tcp --tcp-option 8", "tcp-option", 8),
        ("-p icmp --icmp-type 3", "icmp-type", IcmpType(3, 0, 255)),
        ("-p icmp --icmp-type port-unreachable", "icmp-type", IcmpType(3, 3, 3)),
        ("-p icmp --icmp-type any", "icmp-type", IcmpType(255, 0, 255)),
        ("-p tcp -m multiport --dports 1,5:7,http", "dports", (PortRange(1, 1), PortRange(5, 7), PortRange(80, 80))),
        ("-m iprange --src-range 192.0.2.1-192.0.2.9", "src-range", AddressRange(4, ADDRESS, ADDRESS + 8)),
        ("-m addrtype --dst-type LOCAL,BROADCAST", "dst-type", frozenset(("LOCAL", "BROADCAST"))),
        ("-m addrtype --dst-type LOCAL --limit-iface-in", "limit-iface-in", None),
        ("-m conntrack --ctstate NEW,DNAT", "ctstate", frozenset(("NEW", "DNAT"))),
        ("-m conntrack --ctproto udp", "ctproto", 17),
        ("-m conntrack --ctorigdst 192.0.2.1/24", "ctorigdst", Network(4, ADDRESS & ~255, 0xFFFFFF00)),
        ("-m conntrack --ctrepldstport 9", "ctrepldstport", PortRange(9, 9)),
        ("-m conntrack --ctorigsrcport 9:8", "ctorigsrcport", PortRange(9, 8)),
        ("-m conntrack --ctstatus NONE,ASSURED", "ctstatus", frozenset(("ASSURED",))),
        ("-m conntrack --ctstatus NONE", "ctstatus", frozenset(("NONE",))),
        ("-m conntrack --ctexpire 5", "ctexpire", PortRange(5, 5)),
        ("-m conntrack --ctdir original", "ctdir", "ORIGINAL"),
        ("-m state --state RELATED", "state", frozenset(("RELATED",))),
        ("-m mark --mark 5", "mark", Masked(5, 0xFFFFFFFF)),
        ("-m connmark --mark 0x105/0xff", "mark", Masked(0x105, 0xFF)),
        ("-m set --match-set s src,dst", "match-set", SetReference("s", ("src", "dst"))),
        ("-m set --match-set s src --packets-gt 5", "packets-gt", 5),
        ("-m mac --mac-source 02:42:ac:11:00:02", "mac-source", 0x0242AC110002),
        ("-m pkttype --pkt-type mcast", "pkt-type", "multicast"),
        ("-m length --length 100:", "length", PortRange(100, 65535)),
        ("-m ttl --ttl 64", "ttl-eq", 64),
        ("-m tos --tos 0x10", "tos", Masked(0x10, 0xFF)),
        ("-m tos --tos Minimize-Delay", "tos", Masked(0x10, 0x3F)),
        ("-m dscp --dscp-class AF21", "dscp", 18),
        ("-m ecn --ecn-ip-ect 2", "ecn-ip-ect", 2),
        ("-m owner --uid-owner 1000-1010", "uid-owner", PortRange(1000, 1010)),
        ("-m owner --gid-owner docker", "gid-owner", "docker"),
        ("-m comment --comment x", "comment", "x"),
        ("-m limit --limit 5/minute", "limit", "5/min"),
        ("-m statistic --mode random --probability 0.5", "probability", "0.50000000000"),
        ("-j REJECT", "reject-with", "icmp-port-unreachable"),
        ("-j MARK --set-mark 1/6", "set-xmark", Masked(1, 7)),
        ("-j MARK --and-mark 0xf", "set-xmark", Masked(0, 0xFFFFFFF0)),
        ("-j MARK --or-mark 0xf", "set-xmark", Masked(0xF, 0xF)),
        ("-j MARK --xor-mark 0xf", "set-xmark", Masked(0xF, 0)),
        ("-j CONNMARK --set-xmark 1/2", "set-xmark", Masked(1, 2)),
        ("-j CONNMARK --save-mark --mask 0xf0", "nfmask", 0xF0),
        ("-j CONNMARK --restore-mark", "ctmask", 0xFFFFFFFF),
        ("-j LOG --log-level debug", "log-level", 7),
    ],
)
def test_values_of_the_filter_table(spec: str, name: str, value: Value) -> None:
    found = option(spec)[name].value
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("table", "spec", "name", "value"),
    [
        (
            "nat",
            "-p tcp -j DNAT --to-destination 192.0.2.1-192.0.2.3:80-90",
            "to-destination",
            NatRange(AddressRange(4, ADDRESS, ADDRESS + 2), PortRange(80, 90)),
        ),
        ("nat", "-p tcp -j DNAT --to-destination :8080", "to-destination", NatRange(None, PortRange(8080, 8080))),
        (
            "nat",
            "-p tcp -j DNAT --to-destination :1000-2000/3000",
            "to-destination",
            NatRange(None, PortRange(1000, 2000), 3000),
        ),
        ("nat", "-p tcp -j REDIRECT --to-ports 80-81", "to-ports", PortRange(80, 81)),
        ("nat", "-j NETMAP --to 192.0.2.0/24", "to", Network(4, ADDRESS - 1, 0xFFFFFF00)),
        ("mangle", "-j TTL --ttl-dec 3", "ttl-dec", 3),
        ("mangle", "-j TOS --and-tos 0x0f", "set-tos", Masked(0, 0xF0)),
        ("mangle", "-j TOS --set-tos Minimize-Cost", "set-tos", Masked(2, 0x3F)),
        ("mangle", "-j DSCP --set-dscp-class EF", "set-dscp", 46),
        ("raw", "-j CT --notrack", "notrack", None),
    ],
)
def test_values_of_other_tables(table: str, spec: str, name: str, value: Value) -> None:
    assert option(spec, table)[name].value == value


def test_ipv6_values() -> None:
    found = option("-p tcp -j DNAT --to-destination [2001:db8::1]:80", "nat", 6)["to-destination"]
    address = 0x20010DB8 << 96 | 1
    assert found.value == NatRange(AddressRange(6, address, address), PortRange(80, 80))
    assert found.text == ("[2001:db8::1]:80",)
    assert option("-p ipv6-icmp --icmpv6-type no-route", family=6)["icmpv6-type"].value == IcmpType(1, 0, 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("-p tcp -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15:16", "16 ports are too many"),
        ("-p tcp -m multiport --dports 5:5", "smaller port before"),
        ("-p tcp -m multiport --dports 1:", "neither a port"),
        ("-p tcp --dport 65536", "neither a port"),
        ("-p tcp --dport 80-90", "neither a port"),
        ("-p tcp --tcp-flags SYN,XXX SYN", "no TCP flag"),
        ("-m mark --mark 0x100000000", "not a number"),
        ("-m mark --mark -1", "not a number"),
        ("-m ttl --ttl-eq 256", "0 to 255"),
        ("-m ttl --ttl-lt 5 --ttl-gt 3", "do not go together"),
        ("-m dscp --dscp-class AF44", "DiffServ"),
        ("-m conntrack --ctstatus SNAT", "no connection status"),
        ("-m addrtype --dst-type LOCAL --limit-iface-in --limit-iface-out", "do not go together"),
        ("-m set --match-set s src,dst,src,dst,src,dst,src", "at most six"),
        ("-m statistic --mode nth --every 3 --packet 3", "never comes"),
        ("-m statistic --mode random --every 3", "needs --probability"),
        ("-m limit --limit 10001/s", "too fast"),
        ("-m hashlimit --hashlimit-upto 1mb/s --hashlimit-burst 1kb --hashlimit-name x", "smaller than the rate"),
        ("-m recent --rcheck --reap", "needs --seconds"),
        ("-m policy --dir in --next --reqid 1", "--next needs --strict"),
        ("-m string --string x", "needs --algo"),
        ("-j REJECT --reject-with tcp-reset", "needs -p tcp"),
        ("-j MARK --set-mark 1 --or-mark 2", "twice"),
        ("-j CONNMARK --mask 3", "needs --set-xmark or --save-mark"),
        ("-j NFQUEUE --queue-balance 3:3", "at least two queues"),
    ],
)
def test_refused_values(spec: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        option(spec)
    assert message in caught.value.message


def test_nat_ports_need_a_protocol() -> None:
    for spec in ("-j DNAT --to-destination :80", "-j REDIRECT --to-ports 80"):
        with pytest.raises(ParseError, match="needs -p"):
            option(spec, "nat")


def test_every_extension_of_iptables_is_there() -> None:
    assert len(MATCHES) + len(TARGETS) >= 100
    assert {"icmp", "ttl", "ah", "realm"} <= matches(4).keys()
    assert {"icmp6", "hl", "ah", "srh"} <= matches(6).keys()
    assert {"TTL", "CLUSTERIP", "MASQUERADE"} <= targets(4).keys()
    assert {"HL", "DNPT", "MASQUERADE"} <= targets(6).keys()


@pytest.mark.parametrize("extension", [*MATCHES, *TARGETS], ids=lambda x: f"{x.name}-{sorted(x.families)}")
def test_the_table_is_sound(extension) -> None:  # type: ignore[no-untyped-def]
    names = [n for spec in extension.options for n in (spec.name, *spec.aliases)]
    assert len(names) == len(set(names)), "an option name is listed twice"
    stored = {spec.stored for spec in extension.options}
    assert stored <= {spec.name for spec in extension.options}
    for group in (*extension.required, *extension.exclusive, *extension.requires):
        assert set(group) <= {spec.name for spec in extension.options}, group
    assert extension.families
    assert all(spec.words >= 0 and not spec.name.startswith("-") for spec in extension.options)
