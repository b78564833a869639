"""From a profile and a host to packets for the engine, their weights, and what source NAT makes of them.

First packets are drawn and evaluated. What follows them is made from the outcome, as conntrack translates it in a real
kernel before any rule of filter is met: later packets go to the address that DNAT gave (or, where a
rule before conntrack minds that, keep their own and are told their egress), answers come from there through
the interface that the first packet left by and go to the original source. Connections whose first packet is dropped or
rejected consist of that packet.

Every row of :class:`Traffic` stands for ``weight`` packets per second; rows are so many by class and direction that the
weights are nearly alike, hence an unweighted mean over the rows is close to the weighted one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.capacity.connections.lifetimes import ConnectionClass, states
from fastpath.capacity.connections.timeouts import Timeouts
from fastpath.capacity.ports.model import EPHEMERAL, PortRange, SnatFlow
from fastpath.capacity.traffic.places import Names, Place, Places
from fastpath.capacity.traffic.profile import WITH_PORTS, FlowClass, Profile, ProfileError
from fastpath.engine import Engine, compile
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.result import Result
from fastpath.packets.schema import LOCAL, PACKET_COLUMNS, Hook, State, Verdict
from fastpath.packets.text import format_address
from fastpath.ruleset.model import NatRange, Rule
from fastpath.ruleset.model import PortRange as Ports

Array = npt.NDArray[Any]
_SAMPLE = 512
"""First packets that are drawn for each class: from them all else follows."""

_MANY = 8
"""More destinations than this are one line: pools that are alike."""

_ACK = 16
_THROUGH = (Verdict.FORWARD, Verdict.LOCAL_IN, Verdict.LOCAL_OUT)
_SEEN, _SRC_NAT, _DST_NAT = 14, 16, 32
_SHORTEST = {6: 40, 17: 28, 1: 28, 132: 52, 47: 28}


@dataclass(frozen=True)
class Traffic:
    """A profile's packets on a host.

    Attributes:
        profile: where they come from.
        packets: the rows, for ``Engine.evaluate``.
        weight: packets per second that each row stands for, float64.
        kind: index into ``profile.classes`` for each row, int16.
        fates: for each class, the verdicts of its first packets and their parts.
        snat: connections whose source a rule changes.
        masqueraded: for each class, the part of its connections that MASQUERADE changes.
    """

    profile: Profile
    packets: PacketBatch
    weight: Array
    kind: Array
    fates: tuple[dict[str, float], ...]
    snat: tuple[SnatFlow, ...]
    masqueraded: tuple[float, ...]

    @property
    def packet_rate(self) -> float:
        """Packets per second."""
        return float(self.weight.sum())

    def connections(self) -> tuple[ConnectionClass, ...]:
        """The classes for conntrack: those parts whose first packet gets through; what is dropped makes no entry."""
        found = []
        for kind, fates, part in zip(self.profile.classes, self.fates, self.masqueraded, strict=True):
            through = sum(fates.get(verdict.name, 0.0) for verdict in (*_THROUGH, Verdict.UNDECIDED))
            if through > 0:
                one = kind.connections(min(1.0, part / through))
                found.append(one if through == 1 else _scaled(one, through))
        return tuple(found)


def traffic(
    host: Host, profile: Profile, n: int = 100_000, *, names: Names | None = None, timeouts: Timeouts | None = None,
    engine: Engine | None = None, seed: int = 0,
) -> Traffic:
    """The profile's packets on a host.

    Args:
        host: with addresses and routes.
        profile: the classes of connections.
        n: about how many rows to make.
        names: of containers and networks (see ``places.names_of``).
        timeouts: the kernel's, which say how long a source port is held; those of the host's sysctls by default.
        engine: the host, compiled, where it is there already.
        seed: of the random numbers.

    Raises:
        ProfileError: a word that means nothing on this host; it names the file and the path.
    """
    engine = engine or compile(host)
    maker = _Maker(host, engine, Places(host, names), timeouts or Timeouts.of_host(host),
                   np.random.default_rng(seed))
    for number, kind in enumerate(profile.classes):
        maker.add(kind, f"{profile.source}: classes[{number}]")
    return maker.finish(profile, n)


class _Maker:
    def __init__(self, host: Host, engine: Engine, places: Places, timeouts: Timeouts,
                 rng: np.random.Generator) -> None:
        self.host, self.engine, self.places, self.timeouts, self.rng = host, engine, places, timeouts, rng
        self.parts: list[tuple[PacketBatch, float, int]] = []  # rows, packets per second, class
        self.fates: list[dict[str, float]] = []
        self.flows: list[SnatFlow] = []
        self.masqueraded: list[float] = []

    def add(self, kind: FlowClass, where: str) -> None:
        """Draws a class's first packets, evaluates them, and makes what follows."""
        source = self.places.find(kind.source, f"{where}.from", kind.sources, self.rng, target=False,
                                  other=kind.to)
        target = self.places.find(kind.to, f"{where}.to", kind.destinations, self.rng, target=True,
                                  other=kind.source)
        if source.interface == LOCAL:
            source = self.places.sender(source, target)
        first = self._first(kind, source, target)
        result = self.engine.evaluate(first)
        verdicts, counts = np.unique(result.verdict, return_counts=True)
        self.fates.append({Verdict(v).name: c / len(first) for v, c in zip(verdicts.tolist(), counts.tolist(),
                                                                          strict=True)})
        number = len(self.fates) - 1
        self.parts.append((first, kind.rate, number))
        alive = np.flatnonzero(np.isin(result.verdict, _THROUGH))
        later = kind.rate * kind.answered * (kind.packets - 1) * len(alive) / len(first)
        if later > 0:
            forward, back = self._later(kind, first.take(alive), result, alive)
            self.parts += [(forward, later / 2, number), (back, later / 2, number)]
        self._nat(kind, first, result, source, target)

    def _first(self, kind: FlowClass, source: Place, target: Place) -> PacketBatch:
        pick = self.rng.integers
        columns: dict[str, Any] = {
            "iif": np.zeros(_SAMPLE, np.int16),
            "src": source.addresses[pick(0, len(source.addresses), _SAMPLE)],
            "dst": target.addresses[np.arange(_SAMPLE) % len(target.addresses)],
            "proto": np.uint8(kind.number), "length": max(60, _SHORTEST.get(kind.number, 20)),
        }
        if kind.protocol in WITH_PORTS:
            columns |= {"sport": pick(EPHEMERAL[0], EPHEMERAL[1] + 1, _SAMPLE).astype(np.uint16), "dport": kind.port}
        elif kind.protocol == "icmp":
            columns |= {"sport": pick(1, 65536, _SAMPLE).astype(np.uint16), "icmp_type": 8}
        return PacketBatch.from_columns(columns, _SAMPLE, interfaces=(source.interface,))

    def _later(
        self, kind: FlowClass, first: PacketBatch, result: Result, rows: Array
    ) -> tuple[PacketBatch, PacketBatch]:
        """Packets of open connections: in the direction of the first, and answers."""
        dst, dport, out = result.dst[rows], result.dport[rows], result.oif[rows]
        changed = (dst != first.column("dst")) | (dport != first.column("dport"))
        status = _SEEN + np.where(result.src[rows] != first.column("src"), _SRC_NAT, 0) + np.where(changed, _DST_NAT, 0)
        local_in = result.verdict[rows] == Verdict.LOCAL_IN
        names = [*dict.fromkeys((*first.interfaces, *result.interfaces, LOCAL))]
        code = np.array([names.index(name) for name in result.interfaces] + [-1])
        origin = {"ctorigdst": np.where(changed, first.column("dst"), 0).astype(np.uint32),
                  "ctorigdstport": np.where(changed, first.column("dport"), 0).astype(np.uint16),
                  "ctstatus": status.astype(np.uint16)}
        length = max(kind.size, _SHORTEST.get(kind.number, 20))
        shared: dict[str, Any] = {"proto": np.uint8(kind.number), "length": length, "tcp_flags": _ACK, **origin}
        forward = {"iif": first.column("iif"), "src": first.column("src"), "dst": dst, "sport": first.column("sport"),
                   "dport": dport, "state": np.uint8(State.ESTABLISHED), **shared}
        back = {"iif": np.where(local_in, names.index(LOCAL), code[out]).astype(np.int16), "src": dst,
                "dst": first.column("src"), "sport": dport, "dport": first.column("sport"),
                "state": np.uint8(State.REPLY), **shared}
        if kind.protocol == "icmp":
            back |= {"icmp_type": 0, "sport": first.column("sport"), "dport": 0}
        egress = np.where(local_in, names.index(LOCAL), code[out])
        return (self._as_seen(forward, first.column("dst"), first.column("dport"), egress, names),
                self._as_seen(back, result.src[rows], result.sport[rows], forward["iif"], names))

    def _as_seen(self, columns: dict[str, Any], dst: Array, dport: Array, egress: Array,
                 names: list[str]) -> PacketBatch:
        """Packets whose destination conntrack translates, as the rules see them.

        raw and mangle PREROUTING come before that: where they mind the new address (Docker 28 drops what comes from
        outside for a container's own), the packets keep what they arrive with, `dst` and `dport`, and are told their
        egress.
        """
        found = PacketBatch.from_columns(columns, len(dst), interfaces=names)
        stopped = (self.engine.evaluate(found).hook == Hook.PREROUTING) & (
            (columns["dst"] != dst) | (columns["dport"] != dport))
        if not stopped.any():
            return found
        kept = {"dst": np.where(stopped, dst, columns["dst"]).astype(np.uint32),
                "dport": np.where(stopped, dport, columns["dport"]).astype(np.uint16),
                "oif": np.where(stopped, egress, -1).astype(np.int16)}
        return PacketBatch.from_columns(columns | kept, len(dst), interfaces=names)

    # ------------------------------------------------------------------------------------------------ source NAT

    def _nat(self, kind: FlowClass, first: PacketBatch, result: Result, source: Place, target: Place) -> None:
        changed = np.isin(result.verdict, (Verdict.FORWARD, Verdict.LOCAL_OUT)) & self._met_snat(first, result)
        by_rule = self._by_rule(first, np.flatnonzero(changed))
        masqueraded = 0
        for rule, rows in by_rule:
            if rule.target is not None and rule.target.name == "MASQUERADE":
                masqueraded += len(rows)
            if kind.protocol not in WITH_PORTS:
                continue
            share = len(rows) / len(first)
            for address in np.unique(result.src[rows]).tolist():
                mine = rows[result.src[rows] == address]
                self._flow(kind, rule, address, first.take(mine), result, mine, share * len(mine) / len(rows), source,
                           target)
        self.masqueraded.append(masqueraded / len(first))

    def _flow(self, kind: FlowClass, rule: Rule, address: int, first: PacketBatch, result: Result, rows: Array,
              share: float, source: Place, target: Place) -> None:
        ports, addresses, text = _range(rule, address)
        in_state = states(kind.connections(), self.timeouts)
        held = sum(in_state.values())
        after = (in_state.get("TIME_WAIT", 0.0) + in_state.get("CLOSE", 0.0) if kind.protocol == "tcp"
                 else held - kind.duration.mean)  # of TCP, what the kernel may cut short
        sources = len(source.addresses)
        ends = result.dst[rows].astype(np.int64) << 16 | result.dport[rows]
        found, counts = np.unique(ends, return_counts=True)
        if len(found) > _MANY:  # as many pools alike
            self.flows.append(SnatFlow(
                text, f"each of {len(target.addresses)} of {target.text}", found[0] & 0xFFFF, kind.protocol,
                kind.rate * share, held - after, after, sources=sources, addresses=addresses, ports=ports,
                destinations=len(target.addresses), name=kind.name))
            return
        for end, count in zip(found.tolist(), counts.tolist(), strict=True):
            self.flows.append(SnatFlow(
                text, format_address(end >> 16), end & 0xFFFF, kind.protocol, kind.rate * share * count / len(rows),
                held - after, after, sources=sources, addresses=addresses, ports=ports, name=kind.name))

    def _met_snat(self, first: PacketBatch, result: Result) -> Array:
        """Packets whose source changed, or may have been mapped to itself by a rule that asks for ports."""
        changed: Array = (result.src != first.column("src")) | (result.sport != first.column("sport"))
        return changed

    def _by_rule(self, first: PacketBatch, rows: Array) -> Iterable[tuple[Rule, Array]]:
        """The SNAT and MASQUERADE rules that packets met, told by the counters: all at once, or where they met several
        rules, halves of them."""
        if not len(rows):
            return []
        counted = self.engine.evaluate(first.take(rows))
        found = [rule for number, rule in self._snat_rules() if counted.rule_packets[number]]
        if len(found) == 1:
            return [(found[0], rows)]
        if not found or len(rows) == 1:
            return [(found[-1], rows)] if found else []
        merged: dict[int, tuple[Rule, Array]] = {}
        for half in (rows[:len(rows) // 2], rows[len(rows) // 2:]):
            for rule, these in self._by_rule(first, half):
                before = merged.get(id(rule))
                merged[id(rule)] = (rule, these if before is None else np.concatenate([before[1], these]))
        return merged.values()

    def _snat_rules(self) -> list[tuple[int, Rule]]:
        table = self.host.ruleset.table("nat")
        if table is None:
            return []
        chains = {chain.name: chain for chain in table.chains}
        found = []
        for ref in self.host.ruleset.refs():
            if ref.table == "nat" and ref.number:
                rule = chains[ref.chain].rules[ref.number - 1]
                if rule.target is not None and rule.target.name in ("SNAT", "MASQUERADE"):
                    found.append((ref.id, rule))
        return found

    # ------------------------------------------------------------------------------------------------ putting together

    def _with_egress(self, rows: PacketBatch) -> PacketBatch:
        """The same rows with an ``oif`` column as routing decides: all rows of a batch have one, or none.

        What routing refuses is walked as if it were let through then, which errs on the side of too much work.
        """
        result = self.engine.evaluate(rows)
        names = [*dict.fromkeys((*rows.interfaces, *result.interfaces, LOCAL, "lo"))]
        code = np.array([names.index(name) for name in result.interfaces] + [-1])
        oif = code[result.oif].astype(np.int16)
        looped = rows.column("iif") == (rows.interfaces.index(LOCAL) if LOCAL in rows.interfaces else -2)
        here = result.verdict == Verdict.LOCAL_IN
        oif[here] = np.where(looped[here], names.index("lo"), names.index(LOCAL))
        for row in np.flatnonzero(oif < 0).tolist():
            name = self.places.egress(int(result.dst[row]))
            if name not in names:
                names.append(name)
            oif[row] = names.index(name)
        if rows.has("oif"):
            told = rows.column("oif")
            oif = np.where(told >= 0, told, oif).astype(np.int16)
        columns = {column.name: rows.column(column.name) for column in PACKET_COLUMNS if rows.has(column.name)}
        return PacketBatch.from_columns(columns | {"oif": oif}, len(rows), interfaces=names)

    def finish(self, profile: Profile, n: int) -> Traffic:
        """Rows in proportion to packets per second, at least one for each part."""
        if any(rows.has("oif") for rows, _, _ in self.parts):
            self.parts = [(self._with_egress(rows), rate, kind) for rows, rate, kind in self.parts]
        rates = np.array([rate for _, rate, _ in self.parts])
        total = rates.sum()
        if total <= 0:
            raise ProfileError(f"{profile.source}: all classes together make no connection per second")
        counts = np.where(rates > 0, np.maximum(1, np.rint(rates / total * n)), 0).astype(np.int64)
        batches, weights, kinds = [], [], []
        for (rows, rate, kind), count in zip(self.parts, counts.tolist(), strict=True):
            if count:
                batches.append(rows.take(np.arange(count) % len(rows)))
                weights.append(np.full(count, rate / count))
                kinds.append(np.full(count, kind, np.int16))
        return Traffic(profile, PacketBatch.concat(batches), np.concatenate(weights), np.concatenate(kinds),
                       tuple(self.fates), tuple(self.flows), tuple(self.masqueraded))


def _range(rule: Rule, address: int) -> tuple[PortRange, int, str]:
    """Where a rule lets source ports lie, how many addresses it chooses from, and these in words."""
    assert rule.target is not None
    options = {option.name: option.value for option in rule.target.options}
    ports: object = options.get("to-ports")
    count, text = 1, format_address(address)
    given = options.get("to-source")
    if isinstance(given, NatRange):
        ports = given.ports
        if given.address is not None and given.address.last > given.address.first:
            count = given.address.last - given.address.first + 1
            text = f"{format_address(given.address.first)}-{format_address(given.address.last)}"
    random = "random" in options or "random-fully" in options
    if isinstance(ports, Ports):
        return PortRange(max(1, ports.first), ports.last, random), count, text
    return PortRange(random=random), count, text


def _scaled(kind: ConnectionClass, part: float) -> ConnectionClass:
    from dataclasses import replace

    return replace(kind, rate=kind.rate * part)
