"""Hosts from folders and files: the programs' formats, what may be missing, and errors that say where."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest

from fastpath.errors import HostError, ParseError
from fastpath.host.load import mentioned_interfaces, parse_interfaces, parse_policy_rules, parse_routes, parse_sysctls
from fastpath.host.model import Host, InterfaceAddress, Route
from fastpath.host.text import make_host, make_interface, parse_prefix, parse_route
from fastpath.ruleset.model import Network, Ruleset
from fastpath.ruleset.parse import parse_ruleset

DATA = Path(__file__).parents[2] / "data" / "hosts"
FOLDERS = sorted(p.name for p in DATA.iterdir() if p.is_dir())

RULES = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i eth0 ! -o docker0 -j DROP\n-A FORWARD -i br-+ -j DROP\nCOMMIT\n"
STANDARD = [
    {"priority": 0, "src": "all", "table": "local"}, {"priority": 32766, "src": "all", "table": "main"},
    {"priority": 32767, "src": "all", "table": "default"},
]


def ip(text: str) -> int:
    return int(ipaddress.ip_address(text))


# ---------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("name", FOLDERS)
def test_every_data_host_loads(name: str) -> None:
    host = Host.load(DATA / name)
    assert host.complete
    assert host.policy_rules == ()
    assert host.sysctl("net.ipv4.ip_forward") == 1
    names = [i.name for i in host.interfaces]
    assert names[0] == "lo" and "eth0" in names and "docker0" in names
    assert parse_route("default via 10.0.2.2 dev eth0") in host.routes
    assert all(i.master in names for i in host.interfaces if i.master is not None)
    assert (len(host.ruleset.refs()) > 0) == (DATA / name / "iptables-save.txt").is_file()


def test_there_are_hosts_of_every_generation() -> None:
    assert len(FOLDERS) >= 8
    assert {name[:8] for name in FOLDERS} == {"docker20", "docker26", "docker28"}


def test_a_data_host_in_detail() -> None:
    host = Host.load(DATA / "docker28-seed")
    docker0 = host.interface("docker0")
    assert docker0 is not None and docker0.up and docker0.master is None
    assert docker0.addresses[0] == InterfaceAddress(4, ip("172.17.0.1"), 16, ip("172.17.255.255"))
    assert [i.name for i in host.interfaces if i.master == "docker0"] == ["vetha731497"]
    assert host.routes == (
        parse_route("default via 10.0.2.2 dev eth0"), parse_route("10.0.2.0/24 dev eth0 src 10.0.2.15"),
        parse_route("172.17.0.0/16 dev docker0 src 172.17.0.1"))
    assert host.sysctl("net.bridge.bridge-nf-call-iptables") == 1
    assert host.sysctl("net.ipv4.no_such_key", 7) == 7
    assert Path(host.source) == DATA / "docker28-seed"


def test_no_absolute_paths_of_the_capturing_machine_are_kept() -> None:
    for path in DATA.glob("*/*"):
        text = path.read_text(encoding="utf-8")
        assert "/var/" not in text and "/home/" not in text and "/run/" not in text, path


def test_a_folder_without_rules_is_a_host_with_none(tmp_path: Path) -> None:
    (tmp_path / "ip-addr.json").write_text('[{"ifname":"eth0","flags":["UP"],"addr_info":[]}]')
    host = Host.load(tmp_path)
    assert host.ruleset.tables == ()
    assert not host.complete  # the routes are not known


def test_a_folder_with_rules_alone_is_like_a_save_file(tmp_path: Path) -> None:
    (tmp_path / "iptables-save.txt").write_text(RULES)
    (tmp_path / "sysctl.txt").write_text("net.ipv4.ip_forward = 1\n")
    (tmp_path / "ipset.txt").write_text("create x hash:ip\nadd x 10.0.0.1\n")
    folder = Host.load(tmp_path)
    assert not folder.complete
    assert [i.name for i in folder.interfaces] == ["eth0", "docker0"]
    assert folder.sysctl("net.ipv4.ip_forward") == 1
    assert folder.ipset("x") is not None and folder.ipset("y") is None


def test_a_save_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "rules.save"
    path.write_text(RULES)
    host = Host.load(path)
    assert not host.complete
    assert [i.name for i in host.interfaces] == ["eth0", "docker0"]
    assert host.routes == ()
    assert str(host.ruleset) == str(parse_ruleset(RULES))
    assert Host.load(str(path)) == host


def test_mentioned_interfaces_leave_out_wildcards() -> None:
    assert mentioned_interfaces(parse_ruleset(RULES)) == ("eth0", "docker0")


def test_an_empty_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"neither iptables-save\.txt nor ip-addr\.json"):
        Host.load(tmp_path)
    with pytest.raises(HostError, match="cannot be read"):
        Host.load(tmp_path / "nothing")
    (tmp_path / "iptables-save.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(HostError, match="not UTF-8"):
        Host.load(tmp_path)


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "iptables-save.txt").write_text("*filter\n-A NOWHERE -j DROP\nCOMMIT\n")
    with pytest.raises(ParseError) as caught:
        Host.load(tmp_path)
    assert caught.value.source == str(tmp_path / "iptables-save.txt")
    (tmp_path / "iptables-save.txt").write_text(RULES)
    (tmp_path / "ip-addr.json").write_text('[{"ifname": "eth0",\n}]')
    with pytest.raises(ParseError) as caught:
        Host.load(tmp_path)
    assert (caught.value.source, caught.value.line) == (str(tmp_path / "ip-addr.json"), 2)


def test_editing_keeps_the_surroundings() -> None:
    host = Host.load(DATA / "docker28-seed")
    edited = host.edit("iptables -I DOCKER-USER -i eth0 -j DROP")
    assert edited.ruleset != host.ruleset
    assert edited.with_ruleset(host.ruleset) == host


# ------------------------------------------------------------------------------------------------ addresses


def test_interfaces_of_every_kind() -> None:
    text = json.dumps([
        {},
        {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "addr_info": [
            {"family": "inet", "local": "127.0.0.1", "prefixlen": 8, "scope": "host"},
            {"family": "inet6", "local": "::1", "prefixlen": 128, "scope": "host"}]},
        {"ifname": "eth0.5", "flags": ["BROADCAST"], "linkinfo": {"info_kind": "vlan"}, "addr_info": [
            {"family": "inet", "local": "10.0.0.1", "prefixlen": 24, "broadcast": "10.0.0.255", "scope": "global"},
            {"family": "inet", "local": "10.0.0.2", "prefixlen": 24, "secondary": True, "scope": "link"},
            {"family": "link", "local": "x"}, {}]},
        {"ifname": "tun0", "flags": ["POINTOPOINT", "UP"], "addr_info": [
            {"family": "inet", "local": "10.8.0.1", "address": "10.8.0.2", "prefixlen": 32, "scope": "global"}]},
        {"ifname": "veth1", "flags": ["UP"], "master": "br0", "addr_info": []},
    ])
    lo, vlan, tun, veth = parse_interfaces(text)
    assert lo.addresses == (InterfaceAddress(4, ip("127.0.0.1"), 8, scope="host"),
                            InterfaceAddress(6, 1, 128, scope="host"))
    assert (vlan.up, vlan.kind) == (False, "vlan")
    assert vlan.addresses == (InterfaceAddress(4, ip("10.0.0.1"), 24, ip("10.0.0.255")),
                              InterfaceAddress(4, ip("10.0.0.2"), 24, secondary=True, scope="link"))
    assert tun.addresses[0].peer == ip("10.8.0.2")
    assert (veth.master, veth.addresses) == ("br0", ())


@pytest.mark.parametrize(("text", "message"), [
    ("{}", "array of objects"),
    ("[1]", "array of objects"),
    ('[{"flags": []}]', "without 'ifname'"),
    ('[{"ifname": 3}]', "'ifname' is 3"),
    ('[{"ifname": "a", "flags": "UP"}]', "'flags' is 'UP'"),
    ('[{"ifname": "a", "addr_info": [7]}]', "which is no object"),
    ('[{"ifname": "a", "addr_info": [{"family": "inet"}]}]', "without 'local'"),
    ('[{"ifname": "a", "addr_info": [{"family": "inet", "local": "10.0.0"}]}]', "'10.0.0' is not an IP address"),
    ('[{"ifname": "a", "addr_info": [{"family": "inet", "local": "::1"}]}]', "not an IPv4 address"),
    ('[{"ifname": "a", "addr_info": [{"family": "inet", "local": "10.0.0.1", "prefixlen": 33}]}]', "out of range"),
    ('[{"ifname": "a", "addr_info": [{"family": "inet", "local": "10.0.0.1", "prefixlen": true}]}]', "is True"),
])
def test_interfaces_of_another_shape(text: str, message: str) -> None:
    with pytest.raises(HostError, match="ip-addr.json") as caught:
        parse_interfaces(text, source="ip-addr.json")
    assert message in str(caught.value)


# --------------------------------------------------------------------------------------------------- routes


def test_routes_of_every_kind() -> None:
    text = json.dumps([
        {"dst": "default", "gateway": "10.0.2.2", "dev": "eth0", "metric": 100, "flags": []},
        {"dst": "172.17.0.0/16", "dev": "docker0", "prefsrc": "172.17.0.1", "flags": ["linkdown"]},
        {"type": "blackhole", "dst": "198.18.0.0/15", "flags": []},
        {"type": "unreachable", "dst": "192.0.2.1", "dev": "lo", "table": "default", "flags": []},
        {"type": "local", "dst": "192.0.2.0/24", "dev": "lo", "table": "local", "flags": []},
        {"dst": "10.9.0.0/16", "dev": "eth0", "table": "100", "flags": []},
    ])
    assert parse_routes(text) == (
        parse_route("default via 10.0.2.2 dev eth0 metric 100"),
        parse_route("172.17.0.0/16 dev docker0 src 172.17.0.1"),
        parse_route("blackhole 198.18.0.0/15"),
        Route(Network(4, ip("192.0.2.1"), 0xFFFFFFFF), "lo", type="unreachable", table="default"),
        parse_route("local 192.0.2.0/24 dev lo"),
        parse_route("10.9.0.0/16 dev eth0 table 100"),
    )
    assert parse_routes("") == ()
    six = parse_routes('[{"dst": "default", "gateway": "fe80::1", "dev": "eth0"}]', family=6)
    assert six == (Route(Network(6, 0, 0), "eth0", ip("fe80::1")),)


@pytest.mark.parametrize(("route", "message"), [
    ({"dev": "eth0"}, "without 'dst'"),
    ({"dst": "10.0.0.0/8"}, "no 'dev'"),
    ({"dst": "nowhere", "dev": "eth0"}, "'nowhere' is not a network"),
    ({"dst": "10.0.0.0/8", "dev": "eth0", "type": "sideways"}, "unknown type 'sideways'"),
    ({"dst": "2001:db8::/32", "dev": "eth0"}, "not of IPv4"),
    ({"dst": "10.0.0.0/8", "dev": "eth0", "gateway": "x"}, "'x' is not an IP address"),
    ({"dst": "default", "nexthops": [{"dev": "a"}, {"dev": "b"}]}, "several next hops"),
    ({"dst": "default", "dev": "eth0", "tos": "0x10"}, "type of service"),
    ({"dst": "default", "dev": "eth0", "metric": "5"}, "'metric' is '5'"),
])
def test_routes_that_are_refused(route: dict[str, object], message: str) -> None:
    with pytest.raises(HostError) as caught:
        parse_routes(json.dumps([route]), source="ip-route.json")
    assert message in str(caught.value)


# ------------------------------------------------------------------------------------- policy rules, sysctls


def test_standard_policy_rules_are_none() -> None:
    assert parse_policy_rules(json.dumps(STANDARD)) == ()
    assert parse_policy_rules("[]") == ()


def test_other_policy_rules_are_kept_as_text() -> None:
    more = [{"priority": 100, "src": "10.0.0.0", "srclen": 8, "fwmark": "0x1", "table": "100"},
            {"priority": 101, "not": None, "src": "all", "dst": "10.1.0.0", "dstlen": 16, "iif": "eth0",
             "table": "main"}]
    assert parse_policy_rules(json.dumps(STANDARD + more)) == (
        "100: from 10.0.0.0/8 fwmark 0x1 lookup 100", "101: not from all to 10.1.0.0/16 iif eth0 lookup main")
    assert parse_policy_rules(json.dumps(STANDARD[:2])) == ("missing 32767: from all lookup default",)


def test_sysctls() -> None:
    text = (
        "# comment\nnet.ipv4.ip_forward=1\nnet.ipv4.conf.eth0/5.rp_filter = 2\n\n"
        "net/ipv4/conf/eth0.6/rp_filter = 1\n"
    )
    assert parse_sysctls(text) == (
        ("net.ipv4.ip_forward", "1"), ("net.ipv4.conf.eth0/5.rp_filter", "2"), ("net.ipv4.conf.eth0/6.rp_filter", "1"))
    with pytest.raises(ParseError, match="KEY = VALUE"):
        parse_sysctls("net.ipv4.ip_forward 1", source="sysctl.txt")
    host = Host(Ruleset(), sysctls=(("a", "1\t2"), ("b", "3")))
    assert (host.sysctl("a", 9), host.sysctl("b"), host.sysctl("c")) == (9, 3, 0)


# ---------------------------------------------------------------------------------------------------- by hand


def test_hosts_by_hand() -> None:
    host = make_host(Ruleset(), {"eth0": ["10.0.2.15/24", "10.0.2.16/24"]}, ["default via 10.0.2.2 dev eth0"],
                     sysctls={"net.ipv4.ip_forward": 0}, ipsets="create x hash:ip")
    assert [i.name for i in host.interfaces] == ["lo", "eth0"]
    assert host.interfaces[1] == make_interface("eth0", ["10.0.2.15/24", "10.0.2.16/24"])
    assert [a.secondary for a in host.interfaces[1].addresses] == [False, True]
    assert [a.broadcast for a in host.interfaces[1].addresses] == [ip("10.0.2.255")] * 2
    assert host.routes == (parse_route("default via 10.0.2.2 dev eth0"),
                           parse_route("10.0.2.0/24 dev eth0 src 10.0.2.15"))
    assert host.sysctl("net.ipv4.ip_forward", 1) == 0
    assert host.ipset("x") is not None
    assert make_host(Ruleset(), {}).sysctl("net.ipv4.ip_forward") == 1


@pytest.mark.parametrize(("text", "message"), [
    ("", "lacks a destination"),
    ("blackhole", "lacks a destination"),
    ("10.0.0.0/8", "lacks 'dev'"),
    ("10.0.0.0/33 dev eth0", "is not a network"),
    ("10.0.0.0/8 dev", "'dev' is not understood"),
    ("10.0.0.0/8 over eth0", "'over' is not understood"),
    ("10.0.0.0/8 dev eth0 metric x", "metric 'x'"),
    ("10.0.0.0/8 via here dev eth0", "'here' is not an IP address"),
])
def test_routes_by_hand_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(HostError) as caught:
        parse_route(text)
    assert message in str(caught.value)


def test_other_mistakes_by_hand() -> None:
    with pytest.raises(HostError, match="uses interface 'eth7'"):
        make_host(Ruleset(), {"eth0": []}, ["default dev eth7"])
    with pytest.raises(HostError, match="no prefix length"):
        make_interface("eth0", ["10.0.0.1/99"])
    with pytest.raises(HostError, match="is not an IP address"):
        make_interface("eth0", ["ten/8"])
    assert parse_prefix("10.1.2.3/8") == Network(4, ip("10.0.0.0"), 0xFF000000)
