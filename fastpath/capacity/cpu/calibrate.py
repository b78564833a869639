"""Measuring this machine: readings of the meter, and the parameters that explain them.

Rules: each pattern's rule is repeated in FORWARD, and its cost is the slope of time between two lengths of the chain,
in which everything else cancels. All parameters of a back end are then fitted at once to all slopes (``fit``). Ways:
differences between hosts that have one table, or connection tracking, more than another. Targets that end a packet's
walk, and NAT, are differences of one rule.
"""

from __future__ import annotations

import itertools
import os
import platform
import random
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastpath.capacity.cpu.fit import LINES, SWITCH, Observation, fit, weights_of
from fastpath.capacity.cpu.meter import Meter
from fastpath.capacity.cpu.model import BACKENDS, BackendCosts, CostModel
from fastpath.capacity.cpu.patterns import IPSETS, MIXES, PACKET, PATTERNS, UDP, Pattern
from fastpath.capacity.cpu.steps import Backend, Weights, plan_of
from fastpath.errors import UnavailableError
from fastpath.host.model import Host
from fastpath.host.text import make_host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.packet import Packet
from fastpath.ruleset.model import BUILTIN_CHAINS
from fastpath.ruleset.parse import parse_ruleset

Progress = Callable[[int, int, str], None]
"""Called with (readings done, readings expected, what is read now)."""

SHORT, LONG = 300, 1000
"""Lengths of the chains whose difference is a slope."""

NEAR = (10, 160)
"""Lengths of chains that stay in the first cache: what a light rule costs where its memory costs nothing more."""

DEEP = (4000, 10_000)
"""Lengths for what the next cache costs."""

DEEP_RULES = ("-i xyz%d -j ACCEPT", "-s 203.0.113.%d/32 -j ACCEPT", "-p tcp -m tcp --dport 2%d -j ACCEPT",
              "-m conntrack --ctstate INVALID -j ACCEPT")

RARE = frozenset({
    "string", "u32", "quota", "cpu", "connbytes", "time", "recent", "hashlimit", "statistic", "ecn", "dscp", "tos",
    "length", "pkttype", "mac", "sctp",
})
"""Modules that a quick calibration leaves out."""

WAYS = 26
"""Readings of ways for a back end."""

TRACKING = "-A OUTPUT -m conntrack --ctstate INVALID -j DROP"
"""A rule that has connections tracked, where no packet of a calibration comes by."""

LOCAL_PACKET: dict[str, object] = {
    "iif": "local", "src": "198.18.0.1", "dst": "198.18.0.9", "proto": "udp", "sport": 40000, "dport": 8080}


@dataclass(frozen=True)
class Calibration:
    """A finished calibration.

    Attributes:
        model: the cost model.
        observed: by back end, what every pattern's rule cost.
        explained: by back end, what the model says of each, in the same order.
        refused: patterns that this machine cannot run, with its words.
    """

    model: CostModel
    observed: Mapping[str, tuple[Observation, ...]]
    explained: Mapping[str, tuple[float, ...]]
    refused: tuple[str, ...]


def calibrate(*, quick: bool = False, progress: Progress | None = None) -> Calibration:
    """Measures this machine in network namespaces of its own; nothing of its network is read or changed.

    Args:
        quick: fewer and shorter rounds, and the rarer modules left out.
        progress: called before each reading.

    Raises:
        UnavailableError: no namespaces here, or neither back end works.
    """
    with Meter() as meter:
        return _Run(meter, quick, progress).all()


def router(rules: Mapping[str, list[str]], ipsets: str = "", *, forward: bool = True) -> Host:
    """A router with in0 (198.51.100.1/24) and out0 (198.18.0.1/16): tables with rules, builtin chains ACCEPT."""
    lines: list[str] = []
    for table, body in rules.items():
        lines += [f"*{table}", *(f":{chain} ACCEPT [0:0]" for chain in BUILTIN_CHAINS[table])]
        if any(re.search(r"-j (EMPTY|RETURNS)", rule) for rule in body):
            lines += [":EMPTY - [0:0]", ":RETURNS - [0:0]", "-A RETURNS -j RETURN"]
        lines += [*body, "COMMIT", ""]
    return make_host(parse_ruleset("\n".join(lines)), {"in0": ["198.51.100.1/24"], "out0": ["198.18.0.1/16"]}, [],
                     ipsets=ipsets, sysctls={"net.ipv4.ip_forward": "1" if forward else "0"})


class _Run:
    """One calibration under way."""

    def __init__(self, meter: Meter, quick: bool, progress: Progress | None) -> None:
        self.meter = meter
        self.patterns = [p for p in PATTERNS if not (quick and set(re.findall(r"-m (\S+)", p.rule)) & RARE)]
        self.how: dict[str, Any] = {"rounds": 3, "seconds": 0.015} if quick else {"rounds": 5, "seconds": 0.03}
        self.progress = progress
        self.done = 0
        self.lengths = [(p, (SHORT, LONG)) for p in self.patterns] + [(p, NEAR) for p in self.patterns if light(p)]
        self.total = len(BACKENDS) * (2 * len(self.lengths) + 2 * len(MIXES) + 2 * len(DEEP_RULES) + WAYS)
        self.refused: list[str] = []

    def all(self) -> Calibration:
        backends: dict[str, BackendCosts] = {}
        observed: dict[str, tuple[Observation, ...]] = {}
        explained: dict[str, tuple[float, ...]] = {}
        for backend in BACKENDS:
            try:
                ways = self.ways(backend)
            except UnavailableError as error:
                self.refused.append(f"{backend}: {_last_line(error)}")
                continue
            observed[backend] = self.observe(backend)
            rules, explained[backend], quality = fit(observed[backend])
            line_ns, switch_ns = rules.pop(LINES, 0.0), rules.pop(SWITCH, 0.0)
            costs = BackendCosts(**ways, rules=rules, switch_ns=switch_ns, cache_bytes=cache_bytes(1), line_ns=line_ns,
                                 deep_bytes=cache_bytes(2), deep_ns=0.0, fit=quality)
            costs = replace(costs, deep_ns=self.deep(backend, costs))
            backends[backend] = replace(costs, rules=rules | self.ends(backend, costs))
        if not backends:
            raise UnavailableError("neither back end can be timed here: " + "; ".join(self.refused))
        return Calibration(CostModel(machine(), backends), observed, explained, tuple(dict.fromkeys(self.refused)))

    def read(
        self, backend: Backend, host: Host, packet: Mapping[str, object] = PACKET, *stops: str
    ) -> tuple[float, float]:
        """Nanoseconds of a packet on a host, and their spread."""
        if self.progress is not None:
            self.progress(self.done, max(self.total, self.done), backend)
        self.done += 1
        batch = PacketBatch.from_packets([Packet.make(**packet)])
        found = self.meter.read(host, batch, backend, stops=stops or ("input", "postrouting"), **self.how)
        return found.ns, found.spread

    # --------------------------------------------------------------------------------------------------- rules

    def observe(self, backend: Backend) -> tuple[Observation, ...]:
        """The slope of every pattern that this machine can run; of the light ones also that of short chains."""
        found = []
        for pattern, lengths in self.lengths:
            try:
                short, before = self.read(backend, chain(pattern, lengths[0]), pattern.packet)
                long, after = self.read(backend, chain(pattern, lengths[1]), pattern.packet)
            except UnavailableError as error:
                self.refused.append(f"{backend}: {pattern.rule}: {_last_line(error)}")
                continue
            rules = lengths[1] - lengths[0]
            wanted, name = weights(pattern, backend), pattern.rule
            if lengths == NEAR:
                wanted, name = tuple(w for w in wanted if w[0] != LINES), f"{name} (short)"
            found.append(Observation(name, wanted, max(0.05, (long - short) / rules), (before + after) / rules))
        for mix in MIXES:
            patterns = [Pattern(f"{rule} -j ACCEPT", PACKET) for rule in mix]
            try:
                short, before = self.read(backend, mixed(patterns, SHORT))
                long, after = self.read(backend, mixed(patterns, LONG))
            except UnavailableError as error:
                self.refused.append(f"{backend}: {' | '.join(mix)}: {_last_line(error)}")
                continue
            found.append(Observation(f"in random order: {' | '.join(mix)}", mixed_weights(patterns, backend),
                                     (long - short) / (LONG - SHORT), (before + after) / (LONG - SHORT)))
        return tuple(found)

    def deep(self, backend: Backend, costs: BackendCosts) -> float:
        """Nanoseconds of a line beyond the second cache: what long chains cost more than the parameters explain."""
        over = []
        for text in DEEP_RULES:
            pattern = Pattern(text, PACKET)
            short, _ = self.read(backend, chain(pattern, DEEP[0]))
            long, _ = self.read(backend, chain(pattern, DEEP[1]))
            wanted = weights(pattern, backend)
            lines = dict(wanted)[LINES]
            explained = costs.ns(tuple(w for w in wanted if w[0] != LINES)) + costs.line_ns * lines
            beyond = [max(0.0, n * lines - costs.deep_bytes / 64) for n in DEEP]
            if beyond[1] > beyond[0]:
                over.append((long - short - explained * (DEEP[1] - DEEP[0])) / (beyond[1] - beyond[0]))
        return max(0.0, float(np.median(over))) if over else 0.0

    def ends(self, backend: Backend, costs: BackendCosts) -> dict[str, float]:
        """What targets that end a walk, or change what routing sees, cost more than ACCEPT."""
        found: dict[str, float] = {}
        tracked = {"filter": [TRACKING]}

        def single(name: str, table: str, rule: str, plain: str, packet: Mapping[str, object] = PACKET) -> None:
            body = tracked | {table: [*tracked.get(table, []), rule]}
            other = tracked | {table: [*tracked.get(table, []), plain]}
            try:
                found[name] = max(0.0, self.read(backend, router(body), packet)[0]
                                  - self.read(backend, router(other), packet)[0])
            except UnavailableError as error:
                self.refused.append(f"{backend}: {rule}: {_last_line(error)}")

        single("REJECT", "filter", "-A FORWARD -j REJECT", "-A FORWARD -j DROP", UDP)
        single("DNAT", "nat", "-A PREROUTING -j DNAT --to-destination 198.18.0.10", "-A PREROUTING -j ACCEPT")
        single("REDIRECT", "nat", "-A PREROUTING -p udp -j REDIRECT --to-ports 9090",
               "-A PREROUTING -p udp -j ACCEPT", UDP | {"dst": "198.51.100.1"})
        single("SNAT", "nat", "-A POSTROUTING -j SNAT --to-source 198.18.0.1", "-A POSTROUTING -j ACCEPT")
        single("MASQUERADE", "nat", "-A POSTROUTING -j MASQUERADE", "-A POSTROUTING -j ACCEPT")
        return found

    # ---------------------------------------------------------------------------------------------------- ways

    def ways(self, backend: Backend) -> dict[str, dict[str, float]]:
        """``base``, ``hook``, ``track`` and ``nat`` of a :class:`BackendCosts`."""
        none: dict[str, list[str]] = {"filter": []}

        def ns(host: Host, packet: Mapping[str, object] = PACKET, *stops: str) -> float:
            return self.read(backend, host, packet, *stops)[0]

        here = PACKET | {"dst": "198.51.100.1"}
        looped = LOCAL_PACKET | {"dst": "198.18.0.1"}
        forward = ns(router({}))
        hook = {"filter": max(0.0, ns(router(none)) - forward)}
        base = {
            "postrouting": forward,
            "prerouting": ns(router({}), PACKET, "prerouting"),
            "route": ns(router({}, forward=False)),
            "forward": ns(router({}), PACKET, "forward"),
            "input": ns(router({}), here, "input"),
            "output": ns(router({}), LOCAL_PACKET, "output"),
            "leave": ns(router({}), LOCAL_PACKET, "postrouting"),
            "loop": ns(router({}), looped, "input"),
        }
        for table, hooks in (("raw", 1), ("mangle", 3), ("security", 1)):
            try:
                hook[table] = max(0.0, ns(router({table: []})) - forward) / hooks
            except UnavailableError as error:
                self.refused.append(f"{backend}: table {table}: {_last_line(error)}")
        tracked = {"filter": [TRACKING]}
        plain = forward + hook["filter"]
        track = {
            "new": ns(router(tracked)) - plain,
            "established": ns(router(tracked), PACKET | {"state": "established", "tcp_flags": "ACK"}) - plain,
            "invalid": ns(router(tracked), PACKET | {"tcp_flags": "RST"}) - plain,
            "untracked": 0.0,
        }
        both = router(tracked | {"nat": []})
        rewriting = router(tracked | {"nat": ["-A OUTPUT -d 203.0.113.9/32 -j DNAT --to-destination 203.0.113.10"]})
        hook["nat"] = hook["filter"]
        nat = {
            "new": max(0.0, ns(rewriting) - plain - track["new"] - 2 * hook["nat"]),
            "known": max(0.0, ns(both, PACKET | {"state": "established", "tcp_flags": "ACK"}) - plain
                         - track["established"]),
        }
        return {"base": base, "hook": hook, "track": {k: max(0.0, v) for k, v in track.items()}, "nat": nat}


def light(pattern: Pattern) -> bool:
    """A rule that fails at its header."""
    return not pattern.matches and (bool(pattern.fails) or "-m" not in pattern.rule.split())


def chain(pattern: Pattern, n: int) -> Host:
    """A router whose FORWARD has a pattern's rule n times."""
    used = "".join(text for name, text in IPSETS.items() if f"--match-set {name} " in pattern.rule)
    return router({pattern.table: [pattern.text(i) for i in range(n)]}, used)


def order_of(rules: Sequence[Pattern], n: int) -> list[Pattern]:
    """The patterns of a mixed chain's n rules; a longer chain begins like a shorter one."""
    chooser = random.Random(1)
    return [chooser.choice(rules) for _ in range(n)]


def mixed(rules: Sequence[Pattern], n: int) -> Host:
    """A router whose FORWARD has n rules, each of one of the patterns."""
    used = "".join(text for name, text in IPSETS.items() if any(f"--match-set {name} " in p.rule for p in rules))
    return router({"filter": [pattern.text(i) for i, pattern in enumerate(order_of(rules, n))]}, used)


def mixed_weights(rules: Sequence[Pattern], backend: Backend) -> Weights:
    """What explains the mean cost of a mixed chain's rules between the two lengths."""
    own = {pattern.rule: weights(pattern, backend) for pattern in rules}
    shapes = {}
    for pattern in rules:
        host = chain(pattern, 1)
        shapes[pattern.rule] = plan_of(host.ruleset.tables[0].chains[1].rules[0], host, backend).shape
    order = order_of(rules, LONG)[SHORT - 1:]
    total: dict[str, float] = {}
    for before, pattern in itertools.pairwise(order):
        for name, weight in own[pattern.rule]:
            total[name] = total.get(name, 0.0) + weight
        total[SWITCH] = total.get(SWITCH, 0.0) + (shapes[before.rule] != shapes[pattern.rule])
    return tuple((name, weight / (LONG - SHORT)) for name, weight in total.items())


def weights(pattern: Pattern, backend: Backend) -> Weights:
    """What explains the cost of a pattern's rule."""
    host = chain(pattern, 1)
    table = host.ruleset.tables[0]
    forward = next(c for c in table.chains if c.name == "FORWARD")
    rule = forward.rules[0]
    target = table.chain(rule.target.name) if rule.target is not None else None
    then: Weights = ()
    if target is not None and target.rules:
        then = plan_of(target.rules[0], host, backend).matched
    return weights_of(plan_of(rule, host, backend, user_chain=target is not None), pattern.matches, pattern.fails, then)


def cache_bytes(level: int) -> int:
    """Size of this machine's data cache of a level, in bytes; a usual one where it does not say."""
    for index in range(8):
        folder = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}")
        try:
            if (folder / "level").read_text().strip() == str(level) and "Instr" not in (folder / "type").read_text():
                size = (folder / "size").read_text().strip()
                return int(size[:-1]) << {"K": 10, "M": 20}[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return {1: 32 << 10, 2: 1 << 20}[level]


def machine() -> dict[str, str]:
    """What a calibration was measured on."""
    names = re.findall(r"^model name\s*: (.*)$", _text("/proc/cpuinfo"), flags=re.MULTILINE)
    version = subprocess.run(["iptables", "--version"], capture_output=True, text=True, check=False,
                             env=dict(os.environ, PATH=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")).stdout
    found = re.search(r"v([\d.]+)", version)
    return {"cpu": names[0] if names else platform.machine(), "kernel": platform.release().split("-")[0],
            "iptables": found[1] if found else "?", "date": time.strftime("%Y-%m-%d"),
            "cores": str(os.cpu_count() or 1)}


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[-1][:200]
