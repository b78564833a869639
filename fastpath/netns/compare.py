"""Another engine's answers against the kernel's, packet by packet and counter by counter.

Left out, and told apart: packets that the judge cannot make, packets that iptables' two back ends treat differently,
packets that the engine calls UNDECIDED, and packets for which the kernel may choose an address or a port
(``Flag.NAT_CHOICE``). Counters are compared over exactly the packets
that were, unless some rule tests what no packet's columns tell: such a rule counts as it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fastpath.host.model import Host
from fastpath.netns.backends import differences
from fastpath.netns.job import Array
from fastpath.netns.judge import Backend, Judge, Judgement, Progress
from fastpath.netns.limits import reasons
from fastpath.packets.batch import PacketBatch
from fastpath.packets.result import Result
from fastpath.packets.schema import LOCAL, Flag, Hook, Verdict
from fastpath.ruleset.model import Rule, RuleRef

Evaluate = Callable[[PacketBatch], Result]
"""An engine, bound to a host."""

_SURE_MATCHES = frozenset({
    "addrtype", "comment", "connmark", "conntrack", "dccp", "dscp", "ecn", "icmp", "iprange", "length", "mac", "mark",
    "multiport", "pkttype", "sctp", "set", "state", "tcp", "tos", "ttl", "udp", "udplite",
})
_UNSURE_OPTIONS = frozenset({"tcp-option", "chunk-types", "dccp-types", "dccp-option", "ctexpire"})
_ACCEPTED = (Verdict.FORWARD, Verdict.LOCAL_OUT, Verdict.LOCAL_IN)
_LEAVING = (Hook.FORWARD, Hook.POSTROUTING)


@dataclass(frozen=True, slots=True)
class CounterDifference:
    """A rule or policy that counted (packets, bytes) in the kernel other than the engine says."""

    ref: RuleRef
    engine: tuple[int, int]
    kernel: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How an engine and the kernel agree on a host and packets.

    Attributes:
        packets: the packets that were compared.
        engine, kernel: the two results on them.
        differing: for each result column in which they differ, the rows, ascending.
        counters: counters that differ.
        counters_compared: whether counters could be compared.
        left_out: reason to number of packets that were not compared.
    """

    packets: PacketBatch
    engine: Result
    kernel: Judgement
    differing: Mapping[str, Array]
    counters: tuple[CounterDifference, ...]
    counters_compared: bool
    left_out: Mapping[str, int]

    @property
    def rows(self) -> Array:
        """Rows of packets on which they disagree, ascending."""
        found: Array = np.unique(np.concatenate([np.zeros(0, np.int64), *self.differing.values()]))
        return found

    def __bool__(self) -> bool:
        return not self.differing and not self.counters

    def __str__(self) -> str:
        lines = [f"{len(self.packets)} packets compared, {len(self.rows)} disagreements, "
                 f"{len(self.counters)} counters differ"]
        for row in self.rows[:10].tolist():
            columns = ", ".join(name for name, rows in self.differing.items() if row in rows)
            lines += [f"{self.packets[row]}: {columns}", f"  engine {self.engine[row]}", f"  kernel {self.kernel[row]}"]
        lines += [f"{d.ref}: engine {d.engine}, kernel {d.kernel}" for d in self.counters[:10]]
        return "\n".join(lines)


def compare(
    host: Host, packets: PacketBatch, engine: Evaluate, judge: Judge, backend: Backend = "nft", *,
    progress: Progress | None = None,
) -> Agreement:
    """Asks an engine and the kernel about the same packets.

    Args:
        host: an IPv4 host.
        packets: any packets.
        engine: evaluates packets on `host`.
        judge: asks the kernel.
        backend: ``nft`` or ``legacy``.
        progress: called with (packets done, packets to judge) now and then.

    Raises:
        UnavailableError, HostError: as :func:`fastpath.netns.evaluate`.
    """
    left_out: dict[str, int] = {}

    def without(chosen: Array, codes: Array, texts: tuple[str, ...]) -> Array:
        for code in range(1, len(texts)):
            count = int((codes[chosen] == code).sum())
            if count:
                left_out[texts[code]] = left_out.get(texts[code], 0) + count
        kept: Array = chosen[codes[chosen] == 0]
        return kept

    codes, texts, _ = reasons(host, packets)
    chosen = without(np.arange(len(packets)), codes, texts)
    chosen = without(chosen, *differences(host, packets, backend))
    chosen = without(chosen, *_not_modelled(host, packets))
    first = engine(packets.take(chosen))
    codes = np.zeros(len(packets), np.int16)
    codes[chosen] = np.where(first.verdict == Verdict.UNDECIDED, 1, np.where(first.flags & Flag.NAT_CHOICE, 2, 0))
    chosen = without(chosen, codes, ("", "the engine calls it undecided", "the kernel may choose an address or a port"))
    kernel = judge.evaluate(host, packets.take(chosen), backend, progress=progress)
    if not kernel.judged.all():  # conntrack would not have some of the flows
        kept = without(np.arange(len(chosen)), kernel.reasons, kernel.reason_texts)
        kernel, chosen = kernel.take(kept), chosen[kept]
    compared = packets.take(chosen)
    ours = engine(compared)
    sure = all(_sure(rule) for t in host.ruleset.tables for chain in t.chains for rule in chain.rules)
    counters = _counters(ours, kernel) if sure else ()
    return Agreement(compared, ours, kernel, _differing(compared, ours, kernel), counters, sure, left_out)


def _not_modelled(host: Host, packets: PacketBatch) -> tuple[Array, tuple[str, ...]]:
    """Where the engines knowingly fall short: the host's own multicasts and limited broadcasts, where mangle OUTPUT
    makes the kernel route them again, leave by the device that has their source address."""
    dst = packets.column("dst")
    mangle = host.ruleset.table("mangle")
    output = mangle.chain("OUTPUT") if mangle is not None else None
    rerouted = output is not None and bool(output.rules)
    where = made_here(packets) & ((dst >> 28 == 0xE) | (dst == 0xFFFFFFFF)) & rerouted
    return where.astype(np.int16), ("", "the engines do not route the host's own multicasts again")


def made_here(packets: PacketBatch) -> Array:
    """Which packets the host makes itself."""
    found: Array = np.array([name == LOCAL for name in packets.interfaces] + [False])[packets.column("iif")]
    return found


def _sure(rule: Rule) -> bool:
    return all(m.known and m.module in _SURE_MATCHES and not any(o.name in _UNSURE_OPTIONS for o in m.options)
               for m in rule.matches)


def visible(packets: PacketBatch, kernel: Judgement) -> dict[str, Array]:
    """In which rows each result column can be compared with the kernel's.

    What a hook changed before it dropped a packet cannot be seen from outside: of dropped packets the mark is not
    compared, of those dropped in or right behind OUTPUT no egress and tuple, and of the host's own dropped in
    POSTROUTING no egress, as the probe behind OUTPUT is told the one before re-routing. Columns that are not named are
    not the kernel's to tell.
    """
    local = made_here(packets)
    accepted = np.isin(kernel.verdict, _ACCEPTED)
    tuples = accepted | ~(local & np.isin(kernel.hook, (Hook.OUTPUT, Hook.ROUTE)))
    return {
        "verdict": kernel.judged,
        "hook": kernel.judged,
        "oif": kernel.judged & (accepted | np.isin(kernel.hook, _LEAVING) & ~local),
        **dict.fromkeys(("src", "dst", "sport", "dport"), kernel.judged & tuples),
        "mark": kernel.judged & accepted,
    }


def _differing(packets: PacketBatch, ours: Result, kernel: Judgement) -> dict[str, Array]:
    """Rows that differ, by column."""
    codes = {name: code for code, name in enumerate(ours.interfaces)}
    recode = np.array([codes.get(name, -2) for name in kernel.interfaces] + [-1], np.int16)
    found = {}
    for name, where in visible(packets, kernel).items():
        theirs = recode[kernel.oif] if name == "oif" else kernel.column(name)
        rows = np.flatnonzero((ours.column(name) != theirs) & where)
        if len(rows):
            found[name] = rows
    return found


def _counters(ours: Result, kernel: Judgement) -> tuple[CounterDifference, ...]:
    unequal = (ours.rule_packets != kernel.rule_packets) | (ours.rule_bytes != kernel.rule_bytes)
    return tuple(
        CounterDifference(ours.rules[i], (int(ours.rule_packets[i]), int(ours.rule_bytes[i])),
                          (int(kernel.rule_packets[i]), int(kernel.rule_bytes[i])))
        for i in np.flatnonzero(unequal).tolist())
