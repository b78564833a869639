"""``cost(host, packets)``: what netfilter costs these packets on this host.

Every packet is walked (``walk``); the rest is sums. A packet's way, hooks and connection tracking come from the model's
figures for how it ended and in which state it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.capacity.cpu.model import BackendCosts, CostModel
from fastpath.capacity.cpu.result import PERCENTILES, ChainCost, ClassCost, CostResult, RuleCost
from fastpath.capacity.cpu.steps import Backend
from fastpath.capacity.cpu.walk import Walked, walk
from fastpath.errors import FastpathError
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.schema import LOCAL, Hook, Verdict

Array = npt.NDArray[Any]

TOP = 10
MANY_INTERFACES = 8
"""Interfaces above which flow classes speak of kinds of them only."""

STATE_WORDS = ("new", "established", "established", "related", "invalid", "untracked")
"""Words for ``compiler.fields.CtState``."""

TRACK_OF = ("new", "established", "established", "new", "invalid", "untracked")
"""The model's name for each state; a related packet has a new connection made for it."""

PATH_WORDS = ("INPUT", "FORWARD", "OUTPUT", "PREROUTING", "routing")


def cost(
    host: Host, packets: PacketBatch, *, backend: Backend = "nft", model: CostModel | None = None,
    assume: Mapping[str | int, str] | None = None, reorder: bool = False, threads: int | None = None,
) -> CostResult:
    """What netfilter costs packets on a host.

    Exact, as far as the model goes: every packet given is followed through every rule that it examines, test by test.

    Args:
        host: the host, IPv4.
        packets: packets with their states, in the mix that is wanted.
        backend: ``nft`` (iptables-nft) or ``legacy``.
        model: a calibration; None for the one that comes with fastpath.
        assume: what to assume of undecided matches, as for ``fp.compile``; without, they cost their test and do not
            match.
        reorder: also find out what a better order of the rules would save (see ``reorder``).
        threads: worker threads, by default one for each processor.

    Raises:
        FastpathError: no packets, or a back end that the calibration lacks.
        CompileError, PacketError: as ``fp.compile`` and ``Engine.evaluate``.
    """
    if not len(packets):
        raise FastpathError("a cost needs packets: give some, or make some up with fp.synth.packets")
    calibration = model or CostModel.default()
    costs = calibration.backend(backend)
    walked = walk(host, packets, backend, costs, assume=assume, threads=threads)
    found = summary(host, packets, walked, costs, backend, calibration)
    if reorder:
        from fastpath.capacity.cpu.reorder import reordered

        found = replace(found, reordering=reordered(host, packets, found, walked, calibration, assume, threads))
    return found


def packet_ns(host: Host, packets: PacketBatch, walked: Walked, costs: BackendCosts) -> Array:
    """Nanoseconds of every packet, float64."""
    ns: Array = walked.ns + costs.memory_ns(walked.read) + way_ns(host, packets, walked, costs)
    return ns


def way_ns(host: Host, packets: PacketBatch, walked: Walked, costs: BackendCosts) -> Array:
    """The part of each packet's nanoseconds that is neither rules nor builtin chains: its way, tracking, NAT."""
    hook = walked.columns["hook"].astype(np.int64)
    local = is_local(packets)
    base = costs.base
    arriving = np.array([base["prerouting"], base["route"], base["input"], base["forward"], base["output"],
                         base["postrouting"]])
    leaving = np.array([base["output"], base["output"], base["loop"], base["leave"], base["output"], base["leave"]])
    order = [Hook.PREROUTING, Hook.ROUTE, Hook.INPUT, Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING]
    place = np.zeros(max(int(h) for h in Hook) + 1, np.int64)
    for i, each in enumerate(order):
        place[int(each)] = i
    ns: Array = np.where(local, leaving[place[hook]], arriving[place[hook]])
    if not walked.tracked:
        return ns
    state = np.minimum(walked.state, len(TRACK_OF) - 1)
    in_raw = np.array([ref.table == "raw" for ref in walked.refs] + [False])
    rule = walked.columns["rule"]
    tracked = ~(in_raw[rule] & (walked.columns["verdict"] == Verdict.DROP))
    ns = ns + tracked * np.array([costs.track[name] for name in TRACK_OF])[state]
    if host.ruleset.table("nat") is not None:
        nat = np.array([costs.nat["new"] if name == "new" else costs.nat["known"] if name == "established" else 0.0
                        for name in TRACK_OF])[state]
        whole = np.isin(walked.columns["verdict"], (Verdict.FORWARD, Verdict.LOCAL_IN, Verdict.LOCAL_OUT))
        ns = ns + tracked * nat * np.where(whole, 1.0, 0.5)
    return ns


def is_local(packets: PacketBatch) -> Array:
    """Which packets the host makes itself."""
    named = np.array([name == LOCAL for name in packets.interfaces] + [False])
    found: Array = named[packets.column("iif")]
    return found


def summary(
    host: Host, packets: PacketBatch, walked: Walked, costs: BackendCosts, backend: str, calibration: CostModel
) -> CostResult:
    """Sums and shares of walks."""
    n = len(packets)
    memory = costs.memory_ns(walked.read)
    ns = walked.ns + memory + way_ns(host, packets, walked, costs)
    total = float(ns.sum())
    read = walked.rule_bytes * walked.examined
    rule_ns = walked.rule_ns + float(memory.sum()) * read / max(1.0, float(read.sum()))
    rules = float(rule_ns.sum()) / n
    mean = total / n
    return CostResult(
        backend=backend, packets=n, ns=ns.astype(np.float32), mean_ns=mean,
        percentiles={p: float(v) for p, v in zip(PERCENTILES, np.percentile(ns, PERCENTILES), strict=True)},
        base_ns=mean - rules, rules_ns=rules, rules_examined=float(walked.columns["rules_walked"].mean()),
        packets_per_second=1e9 / mean, by_class=classes(host, packets, walked, ns),
        by_chain=chains(walked, rule_ns, n, total), top_rules=top(walked, rule_ns, n, total),
        calibration=str(calibration), outside=walked.unknown, assumptions=assumptions(walked))


def chains(walked: Walked, rule_ns: Array, n: int, total: float) -> tuple[ChainCost, ...]:
    """Every chain that packets came to, the dearest first."""
    sums: dict[tuple[str, str], list[float]] = {}
    for ref in walked.refs:
        if ref.number:
            here = sums.setdefault((ref.table, ref.chain), [0.0, 0.0])
            here[0] += float(rule_ns[ref.id])
            here[1] += float(walked.examined[ref.id])
    found = [ChainCost(table, chain, ns / n, ns / total, examined / n)
             for (table, chain), (ns, examined) in sums.items() if examined]
    return tuple(sorted(found, key=lambda c: -c.ns))


def top(walked: Walked, rule_ns: Array, n: int, total: float) -> tuple[RuleCost, ...]:
    """The rules that cost most."""
    found = []
    for i in np.argsort(-rule_ns, kind="stable")[:TOP]:
        if i < len(walked.refs) and rule_ns[i] > 0:
            ref = walked.refs[int(i)]
            found.append(RuleCost(ref.id, ref.table, ref.chain, ref.number, ref.text, float(rule_ns[i]) / n,
                                  float(rule_ns[i]) / total, int(walked.examined[i]), int(walked.matched[i])))
    return tuple(found)


def classes(host: Host, packets: PacketBatch, walked: Walked, ns: Array) -> tuple[ClassCost, ...]:
    """The flow classes: hook, from where to where, state, and whether it got through; the dearest first."""
    verdict, hook = walked.columns["verdict"], walked.columns["hook"]
    local = is_local(packets)
    path = np.select(
        [hook == Hook.PREROUTING, hook == Hook.ROUTE, local, hook == Hook.INPUT], [3, 4, 2, 0], 1)
    kinds = kinds_of(host, walked.interfaces)
    words = sorted({*kinds, "host", ""})
    code = np.array([words.index(kind) for kind in kinds] + [words.index("")])
    source = np.where(local, words.index("host"), code[packets.column("iif")])
    target = np.where((path == 0) | (verdict == Verdict.LOCAL_IN), words.index("host"), code[walked.columns["oif"]])
    state = np.minimum(walked.state, len(STATE_WORDS) - 1) if walked.tracked else np.full(len(packets), 99)
    ended = np.isin(verdict, (Verdict.FORWARD, Verdict.LOCAL_IN, Verdict.LOCAL_OUT))
    reason = np.where(ended, 0, verdict.astype(np.int64) + 1)
    keys = np.stack([path, source, target, state, reason], axis=1)
    distinct, which = np.unique(keys, axis=0, return_inverse=True)
    which = which.reshape(-1)
    found: dict[str, list[Array]] = {}
    for i, (p, s, t, ct, r) in enumerate(distinct.tolist()):
        name = f"{PATH_WORDS[p]} {words[s] or '?'}" + (f" -> {words[t]}" if words[t] else "")
        if ct < len(STATE_WORDS):
            name += f" {STATE_WORDS[ct]}"
        if r:
            name += f", {Verdict(r - 1).name}"
        found.setdefault(name, []).append(np.flatnonzero(which == i))
    total = float(ns.sum())
    out = []
    for name, parts in found.items():
        rows = np.concatenate(parts)
        here = ns[rows]
        p50, p99 = np.percentile(here, (50, 99))
        out.append(ClassCost(name, len(rows), float(here.sum()) / total, float(here.mean()), float(p50), float(p99),
                             float(walked.columns["rules_walked"][rows].mean())))
    return tuple(sorted(out, key=lambda c: -c.share))


def kinds_of(host: Host, names: tuple[str, ...]) -> list[str]:
    """What flow classes call interfaces: ``outside`` where the default route leads, ``containers`` for Docker's
    bridges, else their names; ``other`` where there are many."""
    outside = {route.dev for route in host.routes if route.destination.mask == 0 and route.dev is not None}
    rest = [n for n in names if n not in outside and not _bridge(n)]
    return ["outside" if name in outside else "containers" if _bridge(name)
            else name if len(rest) <= MANY_INTERFACES else "other" for name in names]


def _bridge(name: str) -> bool:
    return name == "docker0" or name == "docker_gwbridge" or name.startswith("br-")


def assumptions(walked: Walked) -> tuple[str, ...]:
    """What a result takes for granted."""
    found = [
        "one core with nothing else to do; figures of the calibration's machine and kernel",
        "up to the end of POSTROUTING or INPUT: no network card, no queue, no socket",
        "every packet of the mix as often as it was given",
    ]
    if walked.unknown:
        found.append(f"no figure of their own, a typical one taken: {', '.join(walked.unknown)}")
    return tuple(found)
