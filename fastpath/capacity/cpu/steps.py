"""A rule as the kernel evaluates it: tests in order, each with a name under which the model knows what it costs.

The two back ends differ. Legacy iptables compares the whole IP header at one go (``ip_packet_match()``: source,
destination, interfaces, protocol, fragment, all of them compared whether the rule asks or not) and then calls each
match module in the rule's order. iptables-nft writes a rule as expressions: interfaces, protocol, addresses, fragment,
then native ones for tcp, udp and mark, and a call of the legacy module for every other match (the order was read from
`nft --debug=netlink list ruleset` of iptables 1.8.9). Both stop at the first test that fails.

Costs are sums of parameters by name, each with a weight. A parameter ``fail:X`` is a test that ends the rule,
``pass:X`` one that holds; what a rule costs in every case, what counting and each target cost have names of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from fastpath.host.model import Host
from fastpath.ruleset.model import Masked, Match, Network, Option, PortRange, Rule, SetReference, Target

Backend = Literal["legacy", "nft"]
Weights = tuple[tuple[str, float], ...]
"""Parameters with their weights."""

HEADER = frozenset({"src", "dst", "in", "out", "proto", "frag", "iface", "iface+", "address", "address&",
                    "address/24", "address/16", "address/8", "port", "ports", "flags", "mark&"})
"""Names of tests that are no call of a match module."""

NATIVE = ("tcp", "udp", "mark", "limit")
"""Matches that iptables-nft 1.8.9 writes as expressions of nftables."""

NATIVE_OPTIONS = frozenset({"sport", "dport", "tcp-flags"})
"""Options of tcp and udp that it has expressions for; with any other, and with none, it calls the module."""

WHOLE_BYTES = {0xFFFFFFFF: "", 0xFFFFFF00: "/24", 0xFFFF0000: "/16", 0xFF000000: "/8"}
"""Masks of whole bytes: iptables-nft compares just these bytes, for any other mask it applies it first. Three bytes are
no load that nftables has a short way for."""

VERDICTS = frozenset({"ACCEPT", "DROP"})


@dataclass(frozen=True, slots=True)
class Step:
    """One test of a rule.

    Attributes:
        name: of a header test ``src``, ``dst``, ``in``, ``out``, ``proto`` or ``frag``; else empty.
        match: the match, with only those options that this step looks at; None for a header test.
        fail, pass_: what it costs when it fails, and when it holds.
    """

    name: str
    match: Match | None
    fail: Weights
    pass_: Weights


@dataclass(frozen=True, slots=True)
class Plan:
    """A rule as steps.

    Attributes:
        steps: its tests, in the order of evaluation.
        matched: what is added when all hold: counting, and the target.
        bytes: how much memory the rule takes: what is read to find out where the next one is.
    """

    steps: tuple[Step, ...]
    matched: Weights
    bytes: int

    @property
    def shape(self) -> tuple[Weights, ...]:
        """What two rules have in common that the processor takes for the same: a rule of another shape than the one
        before costs ``switch``, for branches that were predicted wrong."""
        return tuple(step.fail for step in self.steps)


def plan_of(rule: Rule, host: Host, backend: Backend, *, user_chain: bool = False) -> Plan:
    """A rule's steps.

    Args:
        rule: the rule.
        host: for its ipsets.
        backend: whose.
        user_chain: the target is a chain of the user's.
    """
    steps = [*(_legacy(rule, host) if backend == "legacy" else _nft(rule, host))]
    paid = any(name == "rule" for step in steps for name, _ in step.pass_)
    matched: Weights = (*(() if paid else (("rule", 1.0),)), ("count", 1.0), *_target(rule.target, user_chain))
    return Plan(tuple(steps), matched, rule_bytes(rule, backend))


def _target(target: Target | None, user_chain: bool) -> Weights:
    if target is None:
        return ()
    if user_chain:
        return (("goto" if target.goto else "jump", 1.0),)
    if target.name in VERDICTS:
        return ()
    return ((target.name, 1.0),)


# ------------------------------------------------------------------------------------------------------ legacy

def _legacy(rule: Rule, host: Host) -> Iterator[Step]:
    """Header tests cost what the comparison up to there takes; one that holds is paid with the first that follows."""
    for name, side in (("src", rule.source), ("dst", rule.destination), ("in", rule.in_interface),
                       ("out", rule.out_interface)):
        if side is not None:
            yield Step(name, None, ((f"fail:{name}", 1.0),), ())
    if rule.protocol is not None and (rule.protocol.value or rule.protocol.negated):
        yield Step("proto", None, (("fail:proto", 1.0),), ())
    if rule.fragment is not None:
        yield Step("frag", None, (("fail:frag", 1.0),), ())
    before: Weights = (("rule", 1.0),)
    for match in rule.matches:
        kinds = _module(match, host)
        yield Step("", match, (*before, *_prefixed("fail:", kinds)), (*before, *_prefixed("pass:", kinds)))
        before = ()


def _prefixed(outcome: str, weights: Weights) -> Weights:
    """The first weight's name is that of the match; those that follow count something, whatever the outcome."""
    (name, weight), *rest = weights
    return ((f"{outcome}{name}", weight), *rest)


def _module(match: Match, host: Host) -> Weights:
    """What a call of a match module costs."""
    if match.module == "multiport":
        ports = next((len(o.value) for o in match.options if isinstance(o.value, tuple)), 1)
        return (("multiport", 1.0), ("multiport:port", float(ports - 1)))
    if match.module == "set":
        kinds: list[tuple[str, float]] = []
        for option in match.options:
            if isinstance(option.value, SetReference):
                kinds += set_weights(host, option.value.name)
        return tuple(kinds) or (("set", 1.0),)
    if match.module == "addrtype":
        looks = sum(o.name in ("src-type", "dst-type") for o in match.options)
        return (("addrtype", 1.0), ("addrtype:type", float(max(0, looks - 1))))
    return ((match.module, 1.0),)


def set_weights(host: Host, name: str) -> Weights:
    """A look-up in an ipset: by its type, and for networks by how many prefix lengths have to be tried."""
    found = next((s for s in host.ipsets if s.name == name), None)
    if found is None:
        return (("set", 1.0),)
    lengths = {e.mask for entry in found.entries for e in entry.elements if isinstance(e, Network)}
    more = float(max(0, len(lengths) - 1)) if "net" in found.type else 0.0
    return ((f"set:{found.type}", 1.0), ("set:prefix", more))


# --------------------------------------------------------------------------------------------------------- nft

def _nft(rule: Rule, host: Host) -> Iterator[Step]:
    """Expressions; what any rule costs is paid with the first, or where it matches."""
    before: Weights = (("rule", 1.0),)
    for step in _expressions(rule, host):
        yield replace(step, fail=(*before, *step.fail), pass_=(*before, *step.pass_))
        before = ()


def _both(name: str, match: Match | None, kind: str) -> Step:
    return Step(name, match, ((f"fail:{kind}", 1.0),), ((f"pass:{kind}", 1.0),))


def _expressions(rule: Rule, host: Host) -> Iterator[Step]:
    for name, side in (("in", rule.in_interface), ("out", rule.out_interface)):
        if side is not None:
            pattern = str(side.value)
            if pattern != "+" or side.negated:
                yield _both(name, None, "iface+" if pattern.endswith("+") else "iface")
    if rule.protocol is not None and (rule.protocol.value or rule.protocol.negated):
        yield _both("proto", None, "proto")
    for name, side in (("src", rule.source), ("dst", rule.destination)):
        if side is not None:
            assert isinstance(side.value, Network)
            if side.value.mask or side.negated:
                yield _both(name, None, f"address{WHOLE_BYTES.get(side.value.mask, '&')}")
    if rule.fragment is not None:
        yield _both("frag", None, "frag")
    for match in rule.matches:
        yield from _nft_match(match, host)


def _one_port(option: Option) -> bool:
    return isinstance(option.value, PortRange) and option.value.first == option.value.last


def _nft_match(match: Match, host: Host) -> Iterator[Step]:
    if match.module in ("tcp", "udp") and match.options and all(o.name in NATIVE_OPTIONS for o in match.options):
        flags = tuple(o for o in match.options if o.name == "tcp-flags")
        ports = sorted((o for o in match.options if isinstance(o.value, PortRange)), key=lambda o: o.name != "sport")
        if flags:
            yield _both("", replace(match, options=flags), "flags")
        if len(ports) == 2 and all(map(_one_port, ports)) and ports[0].negated == ports[1].negated:
            yield _both("", replace(match, options=tuple(ports)), "port")  # both in one comparison of four bytes
            return
        for option in ports:
            yield _both("", replace(match, options=(option,)), "port" if _one_port(option) else "ports")
    elif match.module == "mark":
        option = match.options[0]
        masked = isinstance(option.value, Masked) and option.value.mask != 0xFFFFFFFF
        yield _both("", match, "mark&" if masked else "mark")
    elif match.module == "limit":
        yield _both("", match, "limit")
    else:
        kinds = _module(match, host)
        yield Step("", match, _prefixed("fail:", kinds), _prefixed("pass:", kinds))


# ------------------------------------------------------------------------------------------------------ memory

_ENTRY, _STANDARD_TARGET, _MATCH_HEAD, _TARGET_HEAD = 112, 40, 32, 32
_MATCH_SIZE = {
    "tcp": 12, "udp": 10, "udplite": 10, "sctp": 72, "dccp": 18, "icmp": 4, "multiport": 48, "iprange": 68,
    "addrtype": 8, "conntrack": 164, "state": 4, "mark": 12, "connmark": 12, "comment": 256, "mac": 12, "pkttype": 8,
    "length": 6, "ttl": 2, "tos": 3, "dscp": 2, "ecn": 8, "limit": 40, "set": 48, "statistic": 24, "string": 160,
    "u32": 2024, "recent": 224, "hashlimit": 336, "time": 24, "owner": 20, "connlimit": 40, "quota": 24, "cpu": 8,
    "connbytes": 24, "physdev": 72, "helper": 36,
}
"""Bytes of the modules' data in the kernel's rule (the structures in include/uapi/linux/netfilter/xt_*.h)."""

_TARGET_SIZE = {
    "DNAT": 44, "SNAT": 20, "MASQUERADE": 20, "REDIRECT": 20, "NETMAP": 20, "REJECT": 4, "LOG": 32, "MARK": 8,
    "CONNMARK": 13, "TOS": 2, "DSCP": 1, "TTL": 2, "CLASSIFY": 4, "TCPMSS": 2, "NFLOG": 80, "NFQUEUE": 6, "CT": 64,
    "NOTRACK": 0, "SET": 32, "TPROXY": 28, "TRACE": 0,
}


def _aligned(size: int) -> int:
    return size + 7 & ~7


def rule_bytes(rule: Rule, backend: Backend = "legacy") -> int:
    """Memory of a rule: of a legacy rule (struct ipt_entry with its matches and target), for nft about what its
    expressions take."""
    if backend == "nft":
        return _nft_bytes(rule)
    size = _ENTRY + sum(_MATCH_HEAD + _aligned(_MATCH_SIZE.get(m.module, 64)) for m in rule.matches)
    name = rule.target.name if rule.target is not None else ""
    if name in _TARGET_SIZE:
        return size + _TARGET_HEAD + _aligned(_TARGET_SIZE[name])
    return size + _STANDARD_TARGET


def _nft_bytes(rule: Rule) -> int:
    size = 8 + 16 + 40  # head, counter, verdict
    size += 64 * ((rule.in_interface is not None) + (rule.out_interface is not None))
    size += 40 * ((rule.source is not None) + (rule.destination is not None) + (rule.protocol is not None))
    for match in rule.matches:
        if match.module in NATIVE:
            size += 48 * max(1, len(match.options))
        else:
            size += 16 + _aligned(_MATCH_SIZE.get(match.module, 64))
    return size


def table_bytes(host: Host) -> int:
    """Memory of a host's rules, one copy, as legacy iptables lays out its tables: what IPT_SO_GET_INFO says, summed.

    A builtin chain ends with its policy, a user's chain begins with a head and ends with a return, a table ends with
    an error entry.
    """
    total = 0
    for table in host.ruleset.tables:
        total += 176
        for chain in table.chains:
            total += _ENTRY + _STANDARD_TARGET + (176 if chain.policy is None else 0)
            total += sum(rule_bytes(rule) for rule in chain.rules)
    return total
