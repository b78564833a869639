"""Conditions: how they are built and read, their written form, names, and what they hold for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastpath as fp
from fastpath.analysis.query import Condition, Names, field, mask, parse_condition
from fastpath.analysis.query.conditions import EVERYTHING, All, Any, Bits, Comparison, Name, Not, Span
from fastpath.analysis.query.fields import FIELDS

HOST = "data/hosts/docker28-compose"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("src in 10.0.0.0/8 and dport in {80,443} and not iif == eth0",
         field.src.within("10.0.0.0/8") & field.dport.isin([80, 443]) & ~(field.iif == "eth0")),
        ("dport = 80", field.dport == 80),
        ("dport != 80", field.dport != 80),
        ("dport not in {80, 8000-8010}", ~field.dport.isin([80, "8000-8010"])),
        ("ttl < 2 or ttl >= 64", (field.ttl < 2) | (field.ttl >= 64)),
        ("src in 10.0.0.1-10.0.0.9", field.src.between("10.0.0.1", "10.0.0.9")),
        ("tcp_flags has SYN|ACK and tcp_flags lacks RST",
         field.tcp_flags.has("SYN,ACK") & field.tcp_flags.lacks("RST")),
        ("tcp_flags == SYN", field.tcp_flags == "SYN"),
        ("proto == tcp", field.proto == 6),
        ("proto == ipv6-icmp", field.proto == 58),
        ("mark in 0x1/0xff", field.mark.masked(1, 0xFF)),
        ("state in {auto,new}", field.state.isin(["auto", fp.State.NEW])),
        ("dst in {network back, container web}", field.dst.within("network back", "container web")),
        ('iif == "a b" and (proto == udp or any)', (field.iif == "a b") & ((field.proto == "udp") | EVERYTHING)),
        ("reached and egress == docker0", field.reached & (field.egress == "docker0")),
        ('rule == "filter DOCKER-USER 1"', field.rule == "filter DOCKER-USER 1"),
        ("not not dport == 1", field.dport == 1),
    ],
)
def test_text_and_operators_say_the_same(text, same):
    assert parse_condition(text) == same
    assert parse_condition(str(same)) == same


@pytest.mark.parametrize(
    ("text", "marked", "message"),
    [
        ("sprot == 80", "sprot", "is no field"),
        ("dport == 70000", "70000", "out of range"),
        ("dport == http", "http", "not a number"),
        ("src in 10.0.0.1/8", "10.0.0.1/8", "10.0.0.0/8 would be right"),
        ("src == here", "here", "no address"),
        ("dport == 80 and", " ", "a condition is missing"),
        ("dport == 80 sport == 1", "sport", "one word too many"),
        ("(dport == 80", "(", "not closed"),
        ("dport in {80,443", "{", "not closed"),
        ("dport in {80 443}", "443", "separated by commas"),
        ("dport not == 80", "==", "comes 'in'"),
        ("dport is 80", "is", "comes =="),
        ("dst in network", " ", "comes its name"),
        ("state == nwe", "nwe", "none of auto, new"),
        ("tcp_flags has SYM", "SYM", "not a TCP flag"),
        ('iif == "eth0', '"eth0', "not closed"),
        ("iif < eth0", "eth0", "compared by size"),
        ("rule == DOCKER", "DOCKER", "TABLE CHAIN NUMBER"),
        ("dport > 65535", "65535", "no such values"),
        ("sport in 90-80", "90-80", "smaller number comes first"),
        ("", " ", "empty"),
        ("dport\n== 80\nor x == 1", "x", "is no field"),
    ],
)
def test_mistakes_are_marked(text, marked, message):
    with pytest.raises(fp.ParseError) as caught:
        parse_condition(text)
    error = caught.value
    assert message in error.message
    assert error.text.ljust(error.end)[error.start:error.end].strip() == marked.strip()


def test_mistakes_in_python():
    for wrong in (
        lambda: field.dport == "x", lambda: field.dport.isin([]), lambda: field.iif.within("10.0.0.0/8"),
        lambda: field.sport.has("SYN"), lambda: field.dport == 1.5, lambda: field.iif == 3, lambda: field.dport < 0,
    ):
        with pytest.raises(fp.QueryError):
            wrong()
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(field.dport == 80)
    with pytest.raises(TypeError, match="parentheses"):
        (field.dport == 80) & 5
    with pytest.raises(AttributeError, match="no field"):
        field.port  # noqa: B018
    with pytest.raises(fp.ParseError, match="nest deeper"):
        parse_condition("(" * 500 + "any" + ")" * 500)


def _items(name: str) -> st.SearchStrategy:
    info = FIELDS[name]
    if info.kind == "interface":
        return st.sampled_from(["eth0", "br-+", "a b", 'q"x', "not", "container"]).map(lambda n: Name("interface", n))
    if info.kind == "rule":
        return st.sampled_from(["none", "filter FORWARD 0", "17"]).map(lambda n: Name("rule", n))
    one = st.integers(0, info.top)
    if info.kind == "name":
        return one.map(lambda v: Span(v, v))
    ranges = st.tuples(one, one).map(lambda ends: Span(min(ends), max(ends)))
    if info.kind == "address":
        return st.one_of(ranges, st.sampled_from(["network", "container"]).flatmap(
            lambda kind: st.sampled_from(["web", "a b", "shop_back-end"]).map(lambda n: Name(kind, n))))
    return st.one_of(one.map(lambda v: Span(v, v)), ranges, st.tuples(one, one).map(lambda p: Bits(p[0] & p[1], p[1])))


def comparisons() -> st.SearchStrategy:
    return st.sampled_from(sorted(FIELDS)).flatmap(
        lambda name: st.lists(_items(name), min_size=1, max_size=3, unique=True).map(
            lambda items: Comparison(name, tuple(items))))


def conditions() -> st.SearchStrategy:
    return st.recursive(
        comparisons() | st.just(EVERYTHING),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda p: p[0] & p[1]), st.tuples(inner, inner).map(lambda p: p[0] | p[1]),
            inner.map(lambda c: ~c)),
        max_leaves=8)


@given(conditions())
@settings(max_examples=300, deadline=None)
def test_the_written_form_reads_back(condition: Condition):
    assert parse_condition(str(condition)) == condition


@given(st.text(alphabet='abin dport=<>!{}(),"\\/-0189.|#\n\t', max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text):
    try:
        found = parse_condition(text)
    except fp.ParseError:
        return
    assert parse_condition(str(found)) == found


def test_public_names():
    names = ("assert_blocked", "assert_reaches", "assert_same", "diff", "field", "lint", "parse_condition", "query")
    for name in names:
        assert name in fp.__all__ and getattr(fp, name) is not None


# ------------------------------------------------------------------------------------------------ names and masks


def test_names_of_a_capture():
    names = Names.of(fp.Host.load(HOST))
    (whole,) = names.networks["shop_backend"]
    assert names.resolve(field.dst.within("network backend")) == Comparison("dst", (whole,))
    assert names.resolve(field.dst.within("network shop_backend")) == Comparison("dst", (whole,))
    web = names.resolve(field.src.within("container web"))
    assert isinstance(web, Comparison) and len(web.items) >= 2, "both replicas of the service"
    assert names.resolve(field.iif == "br-+") == (field.iif == "br-+")
    bridge = names.bridges["shop_backend"]
    assert bridge.startswith("br-")
    assert names.resolve(parse_condition("iif in network backend")) == (field.iif == bridge)
    assert names.bridges["bridge"] == "docker0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("iif == eht0", "no interface 'eht0'; there are local, lo"),
        ("dst in network backened", "no network 'backened'; there are bridge"),
        ("dst in container x", "no container 'x'"),
        ("dst in network host", "no IPv4 address"),
        ("iif in network host", "with an interface of its own"),
        ('rule == "filter NOWHERE 1"', "no rule"),
        ("rule == 99999", "no rule"),
    ],
)
def test_unknown_names_are_refused(text, message):
    with pytest.raises(fp.QueryError, match=message):
        Names.of(fp.Host.load(HOST)).resolve(parse_condition(text))


def test_docker_names_without_a_folder(tmp_path):
    names = Names.of(fp.Host(fp.parse_ruleset("")))
    with pytest.raises(fp.QueryError, match="no Docker networks are known"):
        names.resolve(field.dst.within("network web"))
    more = names.with_docker({"web": ["10.1.0.0/16", "2001:db8::/64"]}, {"db": ["10.1.0.2"]})
    assert more.resolve(field.dst.within("network web")) == field.dst.within("10.1.0.0/16")
    assert more.resolve(field.dst.within("container db")) == (field.dst == "10.1.0.2")


def test_damaged_docker_files(tmp_path):
    (tmp_path / "iptables-save.txt").write_text("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")
    (tmp_path / "networks.json").write_text("{")
    with pytest.raises(fp.HostError, match=r"networks\.json"):
        Names.of(fp.Host.load(tmp_path))
    (tmp_path / "networks.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(fp.HostError, match="array of objects"):
        Names.of(fp.Host.load(tmp_path))
    for odd in ([{"Name": "x", "IPAM": "none"}], [{"Name": "x", "IPAM": {"Config": [7]}}], [{"Labels": ["a"]}]):
        (tmp_path / "networks.json").write_text(json.dumps(odd))
        with pytest.raises(fp.HostError, match="docker inspect"):
            Names.of(fp.Host.load(tmp_path))


def _by_hand(condition: Condition, packet: fp.Packet) -> bool:
    """One packet at a time, without columns."""
    if isinstance(condition, All):
        return all(_by_hand(p, packet) for p in condition.parts)
    if isinstance(condition, Any):
        return any(_by_hand(p, packet) for p in condition.parts)
    if isinstance(condition, Not):
        return not _by_hand(condition.part, packet)
    value = getattr(packet, condition.field)
    for item in condition.items:
        if isinstance(item, Name):
            wild = item.text.endswith("+")
            if value is not None and (value.startswith(item.text[:-1]) if wild else value == item.text):
                return True
        elif isinstance(item, Bits):
            if value & item.mask == item.value:
                return True
        elif value is not None and item.first <= value <= item.last:
            return True
    return False


@given(st.integers(0, 2**32 - 1), conditions().filter(
    lambda c: not any(FIELDS[f].result or f == "ctstate" for f in c.fields())
    and not any(isinstance(i, Name) and i.kind != "interface" for t in c.tests() for i in t.items)))
@settings(max_examples=60, deadline=None)
def test_masks_follow_the_packets(seed, condition):
    host = fp.Host.load(HOST)
    packets = fp.synth.packets(host, 40, seed=seed, profile="edges")
    assert mask(condition, packets).tolist() == [_by_hand(condition, p) for p in packets]


def test_masks_on_results():
    host = fp.Host.load(HOST)
    packets = fp.synth.packets(host, 5000, seed=3)
    result = fp.compile(host).evaluate(packets)
    names = Names.of(host)

    def holds(text):
        return mask(parse_condition(text), packets, result, names)

    assert np.array_equal(holds("reached"), result.verdict <= fp.Verdict.LOCAL_IN)
    assert np.array_equal(holds("verdict == DROP and rule == none"),
                          (result.verdict == fp.Verdict.DROP) & (result.rule == -1))
    ref = next(r for r in result.rules if r.table == "filter" and r.chain == "FORWARD" and r.number == 0)
    assert np.array_equal(holds('rule == "filter FORWARD 0"'), result.rule == ref.id)
    out = [name.startswith("br-") for name in result.interfaces]
    assert np.array_equal(holds("egress == br-+"), np.isin(result.oif, np.flatnonzero(out)))
    assert np.array_equal(holds("post_dport == 6379"), result.dport == 6379)
    with pytest.raises(fp.QueryError, match="once packets are evaluated"):
        mask(parse_condition("reached"), packets)


@pytest.mark.parametrize("loose", [0, 1])
def test_ctstate_is_what_the_reference_tracks(loose):
    """A rule that tests a state counts the packets for which the condition says so."""
    rules = "*filter\n:INPUT ACCEPT [0:0]\n" + "".join(
        f"-A INPUT -m conntrack --ctstate {s}\n" for s in ("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED")
    ) + "COMMIT\n"
    from fastpath.host.text import make_host

    host = make_host(fp.parse_ruleset(rules), {"eth0": ["10.0.2.15/24"]},
                     sysctls={"net.netfilter.nf_conntrack_tcp_loose": loose})
    draw = np.random.default_rng(7)
    n = 4000
    packets = fp.PacketBatch.from_columns({
        "iif": "eth0", "src": 0x0A000203, "dst": 0x0A00020F, "proto": draw.choice([6, 1, 17], n).astype(np.uint8),
        "tcp_flags": draw.integers(0, 256, n).astype(np.uint8), "icmp_type": draw.integers(0, 20, n).astype(np.uint8),
        "state": draw.integers(0, 7, n).astype(np.uint8)}, n)
    counted = {c.ref.text.split()[-1].lower(): c.packets for c in fp.reference.evaluate(host, packets).counters()
               if c.ref.number}
    assert counted == {word: int(mask(parse_condition(f"ctstate == {word}"), packets, names=Names.of(host)).sum())
                       for word in counted}
