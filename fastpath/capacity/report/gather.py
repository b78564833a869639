"""Puts together what is known of a host under a traffic profile: CPU, connections, source ports, how far each goes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpath.capacity.connections.lifetimes import ConnectionClass
from fastpath.capacity.connections.model import LARGEST_DEFAULT, ConntrackResult, conntrack, syn_flood
from fastpath.capacity.connections.timeouts import Timeouts
from fastpath.capacity.ports.model import SnatResult, snat_ports
from fastpath.capacity.report import numbers
from fastpath.capacity.traffic.packets import Traffic
from fastpath.host.model import Host

if TYPE_CHECKING:
    from fastpath.capacity.charts import Chart
    from fastpath.capacity.cpu.result import CostResult
    from fastpath.capacity.growth.result import SweepResult

FLOODS = (10_000.0, 100_000.0)
"""SYN floods that every report asks about, packets per second."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One resource.

    Attributes:
        what: its name.
        now: what the profile's traffic takes of it, in words.
        factor: how many times that traffic uses it up; infinite where it never does.
        advice: what to do, in words; empty where there is nothing to be done.
    """

    what: str
    now: str
    factor: float
    advice: str = ""


@dataclass(frozen=True)
class CapacityReport:
    """What :func:`gather` finds; :meth:`html` and :meth:`pngs` hand it on.

    Attributes:
        host: the host.
        traffic: the profile's packets on it.
        conntrack, snat: connections and source ports.
        cost: nanoseconds a packet; None where they were not asked for.
        sweep: the same as the host grows; None likewise.
        heat: packets per second by rule: ``chain``, ``number``, ``rate``.
        cores: cores that may be spent on netfilter.
        answers: where each resource runs out, the scarcest first.
        inputs: what it takes to make the report again, name to text.
    """

    host: Host
    traffic: Traffic
    conntrack: ConntrackResult
    snat: SnatResult
    cost: CostResult | None
    sweep: SweepResult | None
    heat: tuple[dict[str, Any], ...]
    cores: float
    answers: tuple[Answer, ...]
    inputs: dict[str, str] = field(default_factory=dict)

    def charts(self) -> tuple[Chart, ...]:
        """Its charts, in the page's order."""
        from fastpath.capacity import charts

        found = [charts.headroom({each.what: each.factor for each in self.answers})]
        if self.sweep is not None:
            found.append(charts.cost_by_size(self.sweep))
        if self.cost is not None:
            found.append(charts.cost_by_chain(self.cost))
        if any(row["rate"] > 0 for row in self.heat):
            found.append(charts.rule_heat(self.heat))
        found.append(charts.connections(self.conntrack))
        if any(burst.seconds > 0 for burst in self.conntrack.bursts):
            found.append(charts.filling(self.conntrack))
        if self.snat.pools:
            found.append(charts.ports(self.snat))
        return tuple(found)

    def html(self) -> str:
        """One page that needs nothing beside it: no script, no network."""
        from fastpath.capacity.report.page import render

        return render(self)

    def assumptions(self) -> tuple[str, ...]:
        """What was taken for granted."""
        kernel = ".".join(map(str, self.snat.kernel))
        found = [
            "Connections come independently of one another at the profile's rates (Poisson); what is called a peak is "
            "exceeded once in a million looks.",
            "conntrack's timeouts are " + ("those of the host's sysctls" if self.conntrack.timeouts != Timeouts() else
                                           "the kernel's defaults (nf_conntrack-sysctl.rst)") + "; an open connection "
            "sends something at least once in each.",
            "An entry takes 256 bytes, one that is masqueraded 128 more, a bucket 8 (Linux 6.18, x86-64).",
            f"Source ports are chosen as Linux {kernel} does it; a connection that gets none is dropped, not repeated.",
            "Established packets take the NAT mapping of their connection's first packet.",
        ]
        if self.cost is not None:
            found.append(f"Nanoseconds are those of the calibration: {self.cost.calibration}.")
            found += self.cost.assumptions
            if self.cost.outside:
                found.append("Without a figure of their own in the cost model: " + ", ".join(self.cost.outside) + ".")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; what is infinite is null."""
        return {
            "answers": [{"what": a.what, "now": a.now, "factor": a.factor if math.isfinite(a.factor) else None,
                         "advice": a.advice} for a in self.answers],
            "profile": self.traffic.profile.to_dict(), "packets_per_second": self.traffic.packet_rate,
            "cores": self.cores, "fates": {kind.name: fates for kind, fates in zip(
                self.traffic.profile.classes, self.traffic.fates, strict=True)},
            "conntrack": self.conntrack.to_dict(), "snat": self.snat.to_dict(),
            "cost": None if self.cost is None else self.cost.to_dict(),
            "sweep": None if self.sweep is None else self.sweep.to_dict(),
            "assumptions": list(self.assumptions()), "inputs": self.inputs,
        }


def gather(
    host: Host, traffic: Traffic, *, cost: CostResult | None = None, sweep: SweepResult | None = None,
    cores: float = 1.0, limit: int | None = None, kernel: tuple[int, int] = (6, 12),
    bursts: Iterable[ConnectionClass] | None = None, inputs: dict[str, str] | None = None,
) -> CapacityReport:
    """Everything about a host under a profile's traffic.

    Args:
        host: the host.
        traffic: ``profile.on(host)``.
        cost: what ``capacity.cost`` finds for it.
        sweep: what ``capacity.sweep`` finds.
        cores: cores that may be spent on netfilter.
        limit: ``nf_conntrack_max``; that of the host's sysctls, else the default of a machine with 4 GiB.
        kernel: Linux version, for the choice of source ports.
        bursts: what else may come; two SYN floods by default.
        inputs: what it takes to make the report again.
    """
    if limit is None:
        known = host.sysctl("net.netfilter.nf_conntrack_max", -1)
        limit = known if known > 0 else LARGEST_DEFAULT
    waves = [syn_flood(rate) for rate in FLOODS] if bursts is None else list(bursts)
    waves = [wave if bursts is not None else _named(wave) for wave in waves]
    table = conntrack(traffic.connections(), timeouts=Timeouts.of_host(host), limit=limit, bursts=waves)
    ports = snat_ports(traffic.snat, kernel=kernel)
    answers = sorted((*_cpu(traffic, cost, cores), _table(table), *_ports(ports)), key=lambda answer: answer.factor)
    return CapacityReport(host, traffic, table, ports, cost, sweep, _heat(host, traffic), cores, tuple(answers),
                          inputs or {})


def _named(flood: ConnectionClass) -> ConnectionClass:
    from dataclasses import replace

    return replace(flood, name=f"SYN flood, {flood.rate:,.0f}/s")


def _cpu(traffic: Traffic, cost: CostResult | None, cores: float) -> list[Answer]:
    if cost is None:
        return []
    used = traffic.packet_rate * cost.mean_ns / 1e9
    text = (f"{numbers.count(traffic.packet_rate)} packets/s at {numbers.count(cost.mean_ns)} ns take "
            f"{numbers.share(used / cores)} of {cores:g} core{'s' if cores != 1 else ''}")
    advice = ""
    if cost.reordering is not None and cost.reordering.saved_ns > 0:
        advice = f"another order of the rules saves {numbers.share(cost.reordering.saved_ns / cost.mean_ns)}"
    return [Answer("CPU", text, cores / used if used else math.inf, advice)]


def _table(table: ConntrackResult) -> Answer:
    text = (f"{numbers.count(table.peak)} entries at peak, {numbers.share(table.share)} of nf_conntrack_max "
            f"{numbers.count(table.limit)}")
    advice = ""
    if table.wanted_max > table.limit:
        advice = (f"set nf_conntrack_max and nf_conntrack_buckets to {numbers.count(table.wanted_max)}: "
                  f"{numbers.size(table.limit_bytes)} when full")
    states = table.by_state()
    waiting = sum(row.entries for row in table.rows if row.state == "ESTABLISHED")
    silent = sum(kind.rate * kind.answered * kind.silent * table.timeouts.tcp_timeout_established
                 for kind in table.classes if kind.protocol == "tcp")
    if states and silent > table.entries / 3:
        advice += ("; " if advice else "") + (
            f"{numbers.share(silent / max(waiting, silent))} of the ESTABLISHED entries are of connections that ended "
            f"silently: tcp_timeout_established is {numbers.span(table.timeouts.tcp_timeout_established)}")
    return Answer("connection table", text, table.growth, advice)


def _ports(ports: SnatResult) -> list[Answer]:
    if not ports.pools:
        return []
    worst = ports.pools[0]
    whole = worst.ports * worst.addresses
    text = (f"{numbers.count(worst.share * whole)} of {numbers.count(whole)} ports needed towards "
            f"{worst.destination}:{worst.port}/{worst.protocol}; good for "
            f"{numbers.count(worst.safe_rate)} connections/s")
    advice = ""
    if worst.lost > 1e-6:
        advice = f"{numbers.share(worst.lost)} of its connections get no port: more addresses, or a wider range"
    return [Answer("source ports", text, ports.growth, advice)]


def _heat(host: Host, traffic: Traffic) -> tuple[dict[str, Any], ...]:
    """Packets per second that each rule matches."""
    from fastpath.engine import compile

    engine = compile(host)
    refs = host.ruleset.refs()
    rates = np.zeros(len(refs))
    for weight in np.unique(traffic.weight):  # a handful: one for each class and direction
        rows = np.flatnonzero(traffic.weight == weight)
        rates += engine.evaluate(traffic.packets.take(rows)).rule_packets * weight
    return tuple({"chain": f"{ref.table} {ref.chain}", "number": ref.number, "rate": float(rate)}
                 for ref, rate in zip(refs, rates.tolist(), strict=True) if ref.number)
