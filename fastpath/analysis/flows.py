"""Whether connections work: the compiled engine over first packets, answers, and later packets of both directions.

Every kind of packet is one batch. The first packets are evaluated as they are; what became of them says who answers,
and through what NAT. The engine itself gives an established packet no mapping, so a packet that nat would rewrite on
its way is evaluated in two halves: up to nat with its own addresses (``raw`` and ``mangle`` alone), and from there on
with the rewritten ones, by an engine that lacks the rules of the first half. What is rewritten at the very end of the
way is put into the result.

Invariants: every column, counter and rule id equals what ``reference/flows.py`` finds connection by connection.
Whatever two halves cannot show (``Limits`` in ``flow_engines.py``) is walked by it instead, slowly: nothing is guessed.
So are a few connections on a host that is not compiled yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastpath.analysis.flow_engines import FlowEngines, Limits, Part
from fastpath.analysis.flow_result import COLUMNS, FlowLeg, FlowResult, as_batch
from fastpath.errors import PacketError
from fastpath.host.fib import Fib
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.result import Result
from fastpath.packets.schema import LOCAL, PACKET_COLUMNS, RESULT_COLUMNS, Hook, Leg, Outcome, State, Verdict
from fastpath.packets.text import PORT_PROTOCOLS
from fastpath.reference import Reference, conntrack
from fastpath.reference.flows import (
    ACK,
    ARRIVED,
    ASSURED_PROTOCOLS,
    DATA,
    SYN,
    SYN_ACK,
    bridged,
    on_link,
    walk_flow,
)

if TYPE_CHECKING:
    from fastpath.engine import Engine

Array = npt.NDArray[Any]
_SRC_NAT, _DST_NAT = 16, 32
_SEEN_REPLY, _ASSURED, _CONFIRMED = 2, 4, 8
FEW = 1000
"""Connections up to which walking them one by one takes less time than compiling the host."""


def evaluate_flows(
    host: Host,
    flows: Any,
    *,
    engine: Engine | FlowEngines | None = None,
    assume: Mapping[str | int, str] | None = None,
    threads: int | None = None,
) -> FlowResult:
    """Whether the connections that first packets open work: the packets themselves, the answers, and later packets.

    Args:
        host: rules and surroundings, IPv4.
        flows: a :class:`PacketBatch` of first packets, or one or several flows as ``Topology.flow`` gives them.
        engine: the compiled host, where there is one already; a :class:`FlowEngines` keeps what more this takes.
        assume: what to take undecided matches for, as :func:`fastpath.compile` takes it.
        threads: worker threads, by default one for each processor.

    Returns:
        A row a connection: whether it works, through what NAT, and which rule stops which of its packets.

    Raises:
        PacketError: packets without an egress interface on a host whose routes are not known, or IPv6.
        CompileError: an assumption that cannot be.
    """
    packets = as_batch(flows)
    if packets.family != 4 or host.ruleset.family != 4:
        raise PacketError("connections are evaluated for IPv4 only")
    engines = engine if isinstance(engine, FlowEngines) else FlowEngines(host, engine, assume)
    return _Evaluation(engines, packets, threads).run(one_by_one=not engines.ready and len(packets) <= FEW)


class _Evaluation:
    """One call of :func:`evaluate_flows`. Interfaces are coded by one list of names throughout."""

    def __init__(self, engines: FlowEngines, packets: PacketBatch, threads: int | None) -> None:
        self.host = host = engines.host
        self.packets = packets = _without_connection(packets)
        self.assume = engines.assume
        self.threads = threads
        self.engines = engines
        self.refs = self.engines.refs
        self.limits = Limits(host.ruleset)
        self.tracking = conntrack.in_use(host.ruleset)
        self.names: list[str] = list(dict.fromkeys((*packets.interfaces, LOCAL, *(i.name for i in host.interfaces))))
        n = len(packets)
        self.columns: dict[str, Array] = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items()}
        self.columns["leg"][:], self.columns["rule"][:] = -1, -1
        self.parts: list[list[tuple[Array, PacketBatch, dict[str, Array]]]] = [[] for _ in Leg]
        self.counts = [np.zeros((2, len(self.refs)), np.int64) for _ in Leg]
        self.walked: list[int] = []

    def run(self, *, one_by_one: bool = False) -> FlowResult:
        rows = np.arange(len(self.packets))
        if one_by_one or self.limits.every:
            self.walked = rows.tolist()
        else:
            self._connections(rows)
        self._walk_rest()
        return FlowResult(self.host, self.packets, self.columns, [self._leg(leg) for leg in Leg], self.assume)

    # ------------------------------------------------------------------------------------------ the four packets

    def _connections(self, rows: Array) -> None:
        c = self.packets.column
        first = self._evaluate(self.engines.whole, self.packets)
        nat = self._nat(self.packets, first)
        got, here = np.isin(first["verdict"], list(ARRIVED)), first["verdict"] == Verdict.LOCAL_IN
        local = self._is(c("iif"), LOCAL)
        slow = (nat != 0) & (local & here | self.limits.translated)
        slow |= self._unfit(local, (nat & _DST_NAT) != 0, got)
        slow |= self._unfit(here, (nat & _SRC_NAT) != 0, got) | here & ((nat & _SRC_NAT) != 0)
        if self.tracking:
            slow |= c("state") == State.UNTRACKED  # whose answers open a connection of their own
        slow &= got
        self.walked = rows[slow].tolist()
        if self.walked:
            rows, nat = rows[~slow], nat[~slow]
            first = self._evaluate(self.engines.whole, self.packets.take(rows))
        self._connections_of(rows, first, nat)

    @staticmethod
    def _nat(packets: PacketBatch, first: dict[str, Array]) -> Array:
        """Status bits of what the first packets underwent."""
        c = packets.column
        source = (first["src"] != c("src")) | (first["sport"] != c("sport"))
        destination = (first["dst"] != c("dst")) | (first["dport"] != c("dport"))
        found: Array = np.where(source, _SRC_NAT, 0) | np.where(destination, _DST_NAT, 0)
        return found

    def _unfit(self, local: Array, rewritten: Array, got: Array) -> Array:
        """Packets that would have to be evaluated in halves and cannot be; `local` are the host's own."""
        here = got & rewritten
        unfit = here & local & self.limits.local
        for hook, these in ((Hook.PREROUTING, here & ~local), (Hook.OUTPUT, here & local)):
            if these.any():
                halves = self.engines.halves(hook)
                if halves is not None and (self.limits.halved or halves[0].unsure):
                    unfit |= these
        return unfit

    def _connections_of(self, rows: Array, first: dict[str, Array], nat: Array) -> None:
        packets = self.packets.take(rows) if len(rows) < len(self.packets) else self.packets
        stateful = np.full(len(rows), self.tracking) & (packets.column("state") != State.UNTRACKED)
        self._keep(Leg.FIRST, rows, packets, first)
        for name in ("src", "dst", "sport", "dport"):
            self.columns[f"mapped_{name}"][rows] = first[name]
        on = self._arrives(Leg.FIRST, rows, first)
        nothing = self._opens_nothing(packets, first, stateful) & on
        self._end(rows[nothing], Outcome.NO_FLOW, Leg.FIRST)
        on &= ~nothing
        nat = np.where(on & stateful, nat, 0).astype(np.uint8)
        self.columns["nat"][rows] = nat
        past = self._bypassed(packets, first, nat) & on
        self._end(rows[past], Outcome.BYPASSED, Leg.REPLY)
        on &= ~past

        rows, packets, first = rows[on], packets.take(on), _taken(first, on)
        nat, stateful, c = nat[on], stateful[on], packets.column
        ports = np.isin(c("proto"), list(PORT_PROTOCOLS))
        turned = (c("dst"), c("src"), np.where(ports, c("dport"), c("sport")), np.where(ports, c("sport"), c("dport")))
        mapped = (first["src"], first["dst"], first["sport"], first["dport"])
        home_in = self._is(c("iif"), LOCAL, "lo")
        home = np.where(home_in, -1, c("iif"))
        there_in, there = first["verdict"] == Verdict.LOCAL_IN, first["oif"]

        answers = self._answers(packets, first, nat, stateful, ports)
        result = self._rewritten(answers, nat, stateful, original=False, to=turned)
        on = self._ends(Leg.REPLY, rows, answers, result, home_in, home, turned)

        later = self._later(packets, nat, stateful).take(on)
        result = self._rewritten(later, nat[on], stateful[on], original=True, to=tuple(m[on] for m in mapped))
        still = self._ends(Leg.LATER, rows[on], later, result, there_in[on], there[on], tuple(m[on] for m in mapped))
        on[np.flatnonzero(on)[~still]] = False

        last = _with(answers.take(on), {
            "tcp_flags": np.where(answers.column("proto")[on] == 6, DATA, answers.column("tcp_flags")[on]),
            "ctstatus": np.where(stateful[on], self._steady(answers.column("proto")[on], nat[on]), 0)})
        result = self._rewritten(last, nat[on], stateful[on], original=False, to=tuple(t[on] for t in turned))
        self._ends(Leg.LATER_REPLY, rows[on], last, result, home_in[on], home[on], tuple(t[on] for t in turned))

    def _answers(self, packets: PacketBatch, first: dict[str, Array], nat: Array, stateful: Array,
                 ports: Array) -> PacketBatch:
        """The answers as they set out."""
        c = packets.column
        proto = c("proto")
        kinds = np.arange(256, dtype=np.uint8)
        for kind, answer in conntrack.ICMP_REPLY.items():
            kinds[kind] = answer
        flags = np.where(c("tcp_flags") & SYN != 0, SYN_ACK, ACK)
        tracked_ports = np.isin(proto, list(conntrack.TRACKED_PORTS))
        columns: dict[str, Any] = {
            "iif": np.where(first["verdict"] == Verdict.LOCAL_IN, self._code(LOCAL), first["oif"]).astype(np.int16),
            "src": first["dst"], "dst": first["src"], "proto": proto,
            "sport": np.where(ports, first["dport"], first["sport"]),
            "dport": np.where(ports, first["sport"], first["dport"]),
            "tcp_flags": np.where(proto == 6, flags, c("tcp_flags")),
            "icmp_type": kinds[c("icmp_type")], "icmp_code": c("icmp_code"),
            "state": np.where(stateful, State.REPLY, State.AUTO),
            "ctstatus": np.where(stateful, _SEEN_REPLY | _CONFIRMED | nat, 0),
            "ctorigdst": np.where(stateful, c("dst"), 0),
            "ctorigdstport": np.where(stateful & tracked_ports, c("dport"), 0),
            "connmark": np.where(stateful, c("connmark"), 0),
        }
        if packets.has("oif"):
            columns["oif"] = np.where(c("oif") >= 0, self._coded(packets, "iif"), -1)
        return _batch(columns, self.names, packets.extra)

    def _later(self, packets: PacketBatch, nat: Array, stateful: Array) -> PacketBatch:
        """Later packets from where the first ones came."""
        c = packets.column
        proto = c("proto")
        tracked_ports = np.isin(proto, list(conntrack.TRACKED_PORTS))
        return _with(packets, {
            "tcp_flags": np.where(proto == 6, DATA, c("tcp_flags")),
            "state": np.where(stateful, State.ESTABLISHED, c("state")),
            "ctstatus": np.where(stateful, self._steady(proto, nat), c("ctstatus")),
            "ctorigdst": np.where(stateful, c("dst"), c("ctorigdst")),
            "ctorigdstport": np.where(
                stateful, np.where(tracked_ports, c("dport"), 0), c("ctorigdstport")),
        })

    @staticmethod
    def _steady(proto: Array, nat: Array) -> Array:
        assured = np.where(np.isin(proto, list(ASSURED_PROTOCOLS)), _ASSURED, 0)
        found: Array = _SEEN_REPLY | _CONFIRMED | assured | nat
        return found

    # ------------------------------------------------------------------------------------------ one kind of packet

    def _evaluate(self, part: Part, packets: PacketBatch) -> dict[str, Array]:
        """Result columns with the whole's rule ids and this evaluation's interface codes, and the counters."""
        result = part.engine.evaluate(packets, threads=self.threads)
        for name in result.interfaces:
            if name not in self.names:
                self.names.append(name)
        code = np.array([self._code(name) for name in result.interfaces] + [-1], np.int16)
        columns = {column.name: np.array(result.column(column.name)) for column in RESULT_COLUMNS}
        columns["oif"], columns["rule"] = code[columns["oif"]], part.ids[columns["rule"]].astype(np.int32)
        counts = np.zeros((2, len(self.refs)), np.int64)
        counts[0, part.ids[:-1]], counts[1, part.ids[:-1]] = result.rule_packets, result.rule_bytes
        columns["counts"] = counts
        return columns

    def _rewritten(self, packets: PacketBatch, nat: Array, stateful: Array, *, original: bool,
                   to: tuple[Array, ...]) -> dict[str, Array]:
        """What becomes of packets of connections whose NAT is known; `to` is what they are rewritten to in all."""
        early = stateful & ((nat & (_DST_NAT if original else _SRC_NAT)) != 0)
        late = stateful & ((nat & (_SRC_NAT if original else _DST_NAT)) != 0)
        n = len(packets)
        columns: dict[str, Array] = {}
        counts = np.zeros((2, len(self.refs)), np.int64)

        def put(rows: Array, found: dict[str, Array]) -> None:
            nonlocal counts
            counts = counts + found.pop("counts")
            for name, values in found.items():
                columns.setdefault(name, np.zeros(n, values.dtype))[rows] = values

        plain = np.flatnonzero(~early)
        if len(plain) or not n:
            put(plain, self._evaluate(self.engines.whole, packets.take(plain) if len(plain) < n else packets))
        local = self._is(packets.column("iif"), LOCAL)
        for hook, rows in ((Hook.PREROUTING, np.flatnonzero(early & ~local)), (Hook.OUTPUT,
                                                                               np.flatnonzero(early & local))):
            if len(rows):
                put(rows, self._in_halves(packets.take(rows), hook, tuple(t[rows] for t in to)))
        got = late & np.isin(columns["verdict"], list(ARRIVED))
        columns["src"][got], columns["sport"][got] = to[0][got], to[2][got]
        self._own_again(packets, columns)
        columns["counts"] = counts
        return columns

    def _in_halves(self, packets: PacketBatch, hook: Hook, to: tuple[Array, ...]) -> dict[str, Array]:
        """Packets whose destination nat rewrites at `hook`."""
        halves = self.engines.halves(hook)
        change: dict[str, Any] = {"dst": to[1], "dport": to[3]}
        if halves is None:
            return self._evaluate(self.engines.whole, _with(packets, change))
        found = self._evaluate(halves[0], packets)
        ended = (found["verdict"] == Verdict.DROP) & (found["hook"] == hook)
        if hook is Hook.OUTPUT:  # what the first look-up of a route refuses never gets there
            ended |= (found["verdict"] == Verdict.DROP) & (found["hook"] == Hook.ROUTE)
        on = ~ended
        rest = _with(packets, change | {"mark": found["mark"]}).take(on)
        second = self._evaluate(halves[1], rest)
        counts = found.pop("counts") + second.pop("counts")
        second["rules_walked"] = second["rules_walked"] + found["rules_walked"][on]
        for name, values in second.items():
            found[name][on] = values
        found["counts"] = counts
        return found

    @staticmethod
    def _own_again(packets: PacketBatch, columns: dict[str, Array]) -> None:
        """Undecided packets show what they arrived with."""
        lost = columns["verdict"] == Verdict.UNDECIDED
        for name in ("src", "dst", "sport", "dport", "mark"):
            columns[name][lost] = packets.column(name)[lost]

    # ------------------------------------------------------------------------------------------ ends

    def _arrives(self, leg: Leg, rows: Array, result: dict[str, Array]) -> Array:
        """Which packets get through; the ends of the others' connections are noted."""
        verdict = result["verdict"]
        on = np.isin(verdict, list(ARRIVED))
        undecided = verdict == Verdict.UNDECIDED
        for where, outcome in ((undecided, Outcome.UNDECIDED), (~on & ~undecided, Outcome.STOPPED)):
            self._end(rows[where], outcome, leg)
            self.columns["rule"][rows[where]] = result["rule"][where]
        return on

    def _ends(self, leg: Leg, rows: Array, packets: PacketBatch, result: dict[str, Array], here: Array, oif: Array,
              ends: tuple[Array, ...]) -> Array:
        """Keeps a leg, and says which packets arrive where and as what they should."""
        self._keep(leg, rows, packets, result)
        on = self._arrives(leg, rows, result)
        astray = on & (((result["verdict"] == Verdict.LOCAL_IN) != here) | (result["oif"] != np.where(here, -1, oif)))
        self._end(rows[astray], Outcome.ASTRAY, leg)
        on &= ~astray
        same = np.ones(len(rows), bool)
        for name, values in zip(("src", "dst", "sport", "dport"), ends, strict=True):
            same &= result[name] == values
        self._end(rows[on & ~same], Outcome.UNTRANSLATED, leg)
        found: Array = on & same
        return found

    def _end(self, rows: Array, outcome: Outcome, leg: Leg) -> None:
        self.columns["outcome"][rows] = outcome
        self.columns["leg"][rows] = leg

    def _opens_nothing(self, packets: PacketBatch, first: dict[str, Array], stateful: Array) -> Array:
        c = packets.column
        state, proto = c("state"), c("proto")
        nothing = np.zeros(len(packets), bool)
        if self.tracking:
            flags = list(conntrack.SYN_ONLY | (conntrack.PICKED_UP if self.host.sysctl(
                "net.netfilter.nf_conntrack_tcp_loose", 1) else frozenset()))
            invalid = ((proto == 6) & ~np.isin(c("tcp_flags") & 0x3F, flags)) | (
                (proto == 1) & ~np.isin(c("icmp_type"), (8, 13, 15, 17)))
            nothing |= (state == State.INVALID) | ((state == State.AUTO) & invalid)
            nothing |= np.isin(state, (State.ESTABLISHED, State.REPLY, State.RELATED))
        nothing |= (first["dst"] >> 28 == 0xE) | np.isin(first["dst"], self._broadcasts)
        return nothing

    @cached_property
    def _broadcasts(self) -> list[int]:
        fib = Fib(self.host)
        found = {0, 0xFFFFFFFF}
        for interface in self.host.interfaces:
            for a in interface.addresses:
                if a.family == 4:
                    last = a.network_address | (1 << 32 - a.prefixlen) - 1
                    found |= {last, a.broadcast if a.broadcast is not None else last}
        return sorted(a for a in found if fib.local_type(a) == "BROADCAST")

    def _bypassed(self, packets: PacketBatch, first: dict[str, Array], nat: Array) -> Array:
        c = packets.column
        iif = self._coded(packets, "iif")
        there = (nat == _DST_NAT) & (first["oif"] == iif) & (c("oif") < 0)
        found = np.zeros(len(packets), bool)
        for code in np.unique(iif[there]).tolist():
            name = self.names[code]
            if bridged(self.host, name):
                continue
            here = there & (iif == code)
            for values in (first["src"], first["dst"]):
                near = np.zeros(len(packets), bool)
                for network, mask in on_link(self.host, name):
                    near |= values & np.uint32(mask) == np.uint32(network)
                here &= near
            found |= here
        return found

    # ------------------------------------------------------------------------------------------ bookkeeping

    def _code(self, name: str) -> int:
        return self.names.index(name)

    def _coded(self, packets: PacketBatch, name: str) -> Array:
        table = np.array([self._code(n) for n in packets.interfaces] + [-1], np.int16)
        found: Array = table[packets.column(name)]
        return found

    def _is(self, codes: Array, *names: str) -> Array:
        """Which codes are of one of `names`. The batches' own codes are a beginning of this evaluation's."""
        found: Array = np.isin(codes, [self._code(name) for name in names if name in self.names])
        return found

    def _keep(self, leg: Leg, rows: Array, packets: PacketBatch, result: dict[str, Array]) -> None:
        self.counts[leg] = self.counts[leg] + result.pop("counts")
        self.parts[leg].append((rows, packets, result))

    def _walk_rest(self) -> None:
        """The connections that batches cannot show, one by one."""
        if not self.walked:
            return
        reference = Reference(self.host, assume=self.assume)
        legs: list[list[tuple[int, Any]]] = [[] for _ in Leg]
        for row in self.walked:
            walk = walk_flow(reference, self.packets[row])
            values = (walk.outcome, -1 if walk.leg is None else walk.leg, walk.rule, walk.nat, *walk.mapped)
            for name, value in zip(COLUMNS, values, strict=True):
                self.columns[name][row] = value
            for leg, walked in enumerate(walk.legs):
                legs[leg].append((row, walked))
        for leg in Leg:
            if not legs[leg]:
                continue
            fates = [walked.fate for _, walked in legs[leg]]
            for fate in fates:
                if fate.oif is not None and fate.oif not in self.names:
                    self.names.append(fate.oif)
            columns = {column.name: np.array([getattr(fate, column.name) for fate in fates], column.dtype)
                       for column in RESULT_COLUMNS if column.name != "oif"}
            columns["oif"] = np.array([-1 if f.oif is None else self._code(f.oif) for f in fates], np.int16)
            counts = np.zeros((2, len(self.refs)), np.int64)
            for _, walked in legs[leg]:
                for rule in walked.hits:
                    counts[0, rule] += 1
                    counts[1, rule] += walked.packet.length
            columns["counts"] = counts
            self._keep(leg, np.array([row for row, _ in legs[leg]]),
                       PacketBatch.from_packets([walked.packet for _, walked in legs[leg]]), columns)

    def _leg(self, leg: Leg) -> FlowLeg:
        parts = self.parts[leg]
        names = tuple(self.names)
        empty = {column.name: np.zeros(0, column.dtype) for column in RESULT_COLUMNS}
        rows, packets, columns = parts[0] if parts else (np.zeros(0, np.int64), PacketBatch.empty(), empty)
        if len(parts) > 1:
            rows = np.concatenate([part[0] for part in parts])
            order = np.argsort(rows, kind="stable")
            rows = rows[order]
            packets = PacketBatch.concat([part[1] for part in parts]).take(order)
            columns = {name: np.concatenate([part[2][name] for part in parts])[order] for name in columns}
        return FlowLeg(rows, packets, Result(columns, names, self.refs, *self.counts[leg]))


def _without_connection(packets: PacketBatch) -> PacketBatch:
    """First packets have no connection yet: what columns say of one is left aside."""
    given = [name for name in ("ctdir", "ctstatus", "ctorigdst", "ctorigdstport") if packets.has(name)]
    if not given:
        return packets
    return _with(packets, {name: np.zeros(len(packets), np.uint32) for name in given})


def _taken(columns: dict[str, Array], where: Array) -> dict[str, Array]:
    return {name: values[where] for name, values in columns.items()}


def _batch(columns: Mapping[str, Any], names: list[str], extra: Mapping[str, Array]) -> PacketBatch:
    dtypes = {column.name: column.dtype for column in PACKET_COLUMNS}
    arrays = {name: np.ascontiguousarray(values, dtypes[name]) for name, values in columns.items()}
    return PacketBatch(len(arrays["src"]), arrays, {}, names, extra=extra)


def _with(packets: PacketBatch, change: Mapping[str, Any]) -> PacketBatch:
    """The packets with some columns replaced."""
    dtypes = {column.name: column.dtype for column in PACKET_COLUMNS}
    arrays: dict[str, Array] = {}
    constants: dict[str, int] = {}
    for column in PACKET_COLUMNS:
        name = column.name
        if name in change or not packets.has(name):
            continue
        constant = packets.constant(name)
        if constant is None:
            arrays[name] = packets.column(name)
        else:
            constants[name] = constant
    arrays |= {name: np.ascontiguousarray(values, dtypes[name]) for name, values in change.items()}
    return PacketBatch(len(packets), arrays, constants, packets.interfaces, extra=packets.extra)
