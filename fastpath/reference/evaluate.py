"""The reference's two questions: what becomes of these packets, and what did this one meet on its way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.errors import CompileError, PacketError
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.packet import Packet
from fastpath.packets.result import Fate, Result
from fastpath.packets.schema import PACKET_COLUMNS, Hook, Verdict
from fastpath.packets.text import is_ip_address, words_of
from fastpath.reference.answers import answer_to
from fastpath.reference.program import Assumptions, CompiledChain, Program
from fastpath.reference.state import Connection, PacketState
from fastpath.reference.tracing import Recorder, Trace
from fastpath.reference.undecided import deciding_doubt, egress_of
from fastpath.reference.walk import Machine


def evaluate(
    host: Host,
    packets: PacketBatch,
    *,
    assume: Assumptions | None = None,
    table: str | None = None,
    chain: str | None = None,
    answers: bool = False,
) -> Result:
    """What becomes of each packet, and what every rule counts.

    Args:
        host: rules and surroundings.
        packets: the packets.
        assume: what to take undecided matches for: a match module's name or a rule's id -> ``"match"``, ``"no-match"``
            or ``"column:NAME"`` (a boolean column of `packets.extra`).
        table, chain: evaluate this chain alone instead of the whole way. The verdict is then ACCEPT, DROP, REJECT,
            UNDECIDED, or RETURN where a user's chain fell through.
        answers: let the counters include what the host's own answers count on their way out: REJECT's, and the ICMP
            errors of routing.

    Returns:
        A result whose interface names are those of `packets`, followed by others that occur.

    Raises:
        CompileError: an assumption or a chain that does not exist, or chains that lead back to themselves.
        PacketError: a packet whose egress cannot be known (see :attr:`Host.complete`), a missing boolean column, or
            packets of the other family.
    """
    reference = Reference(host, assume=assume, table=table, chain=chain)
    return reference.evaluate(packets, answers=answers)


def trace(
    host: Host,
    packet: Packet,
    *,
    assume: Assumptions | None = None,
    table: str | None = None,
    chain: str | None = None,
) -> Trace:
    """What one packet meets on its way, rule by rule; arguments and errors as for :func:`evaluate`."""
    return Reference(host, assume=assume, table=table, chain=chain).trace(packet)


class Reference:
    """The reference made ready for one host, to ask it more than once. Arguments as for :func:`evaluate`."""

    def __init__(
        self, host: Host, *, assume: Assumptions | None = None, table: str | None = None, chain: str | None = None,
    ) -> None:
        self.program = Program(host, assume)
        self.machine = Machine(self.program)
        self.alone: tuple[CompiledChain, Hook] | None = None
        if table is not None or chain is not None:
            found = self.program.chain(table or "filter", chain or "")
            if found is None:
                raise CompileError(f"there is no chain {chain} in table {table or 'filter'}")
            self.alone = (found, Hook[found.name] if found.name in Hook.__members__ else Hook.FORWARD)

    def evaluate(self, packets: PacketBatch, *, answers: bool = False) -> Result:
        """See :func:`evaluate`."""
        family = self.program.router.family
        if len(packets) and packets.family != family:
            raise PacketError(f"these are IPv{packets.family} packets, and the ruleset is of family {family}")
        counts, octets = [0] * len(self.program.refs), [0] * len(self.program.refs)
        codes = {name: code for code, name in enumerate(packets.interfaces)}
        rows = []
        for p in states_of(packets, self.program.columns):
            arrived = (p.src, p.dst, p.sport, p.dport, p.mark)
            self._run(p)
            if p.hits:
                for rule in p.hits:
                    counts[rule] += 1
                    octets[rule] += p.length
            if answers:
                for rule, length in answer_to(self.machine, p):
                    counts[rule] += 1
                    octets[rule] += length
            rows.append(self._row(p, arrived, codes))
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(ROW)
        arrays = {name: _column(name, values, family) for name, values in zip(ROW, columns, strict=True)}
        names = sorted(codes, key=lambda name: codes[name])
        return Result(arrays, names, self.program.refs, np.array(counts, np.int64), np.array(octets, np.int64),
                      family=family)

    def _start(self, p: PacketState) -> None:
        if self.alone is None:
            self.machine.start(p)
        else:
            self.machine.start_alone(p, *self.alone)

    def _run(self, p: PacketState) -> None:
        """Runs the baseline and, where it met undecided rules, whatever decides whether they matter."""
        p.hits, p.doubts = [], []
        self._start(p)
        self.machine.run(p)

    def _row(self, p: PacketState, arrived: tuple[int, int, int, int, int], codes: dict[str, int]) -> tuple[int, ...]:
        verdict, hook, rule = self._outcome(p)
        if verdict is Verdict.UNDECIDED:
            return (verdict, hook, rule, -1, *arrived, p.walked, 0)
        oif = egress_of(p)
        code = -1 if oif is None else codes.setdefault(oif, len(codes))
        return (verdict, hook, rule, code, p.src, p.dst, p.sport, p.dport, p.mark, p.walked, p.flags)

    def _outcome(self, p: PacketState) -> tuple[Verdict, Hook, int]:
        assert p.verdict is not None
        if p.doubts and p.verdict is not Verdict.UNDECIDED:
            doubt = deciding_doubt(self.machine, p)
            if doubt is not None:
                return Verdict.UNDECIDED, doubt.hook, doubt.rule
        return p.verdict, p.hook, p.rule

    def walk(self, packet: Packet, connection: Connection | None = None) -> tuple[PacketState, Fate]:
        """One packet's end: its state there, and its fate.

        Args:
            packet: the packet.
            connection: the connection that it belongs to, whose NAT mapping it takes.
        """
        p = state_of(packet, self.program.columns)
        p.connection = connection
        self._run(p)
        verdict, hook, rule = self._outcome(p)
        if verdict is Verdict.UNDECIDED:
            return p, Fate(verdict, hook, rule, None, packet.src, packet.dst, packet.sport, packet.dport, packet.mark,
                           p.walked, 0, packet.family)
        return p, _fate(p)

    def trace(self, packet: Packet, connection: Connection | None = None) -> Trace:
        """See :func:`trace`; `connection` as for :meth:`walk`."""
        refs = self.program.refs
        p = state_of(packet, self.program.columns)
        p.connection = connection
        p.recorder = recorder = Recorder(refs)
        self._run(p)
        plain = _fate(p)
        arrived = (packet.src, packet.dst, packet.sport, packet.dport, packet.mark)
        if p.verdict is Verdict.UNDECIDED:
            fate = Fate(Verdict.UNDECIDED, p.hook, p.rule, None, *arrived, p.walked, 0, packet.family)
            reason = _reason(self.program, p.rule)
            return Trace(packet, tuple(recorder.events), fate, refs[p.rule] if p.rule >= 0 else None, reason,
                         refs[p.rule] if p.rule >= 0 else None)
        doubt = deciding_doubt(self.machine, p)
        if doubt is None:
            return Trace(packet, tuple(recorder.events), plain, refs[p.rule] if p.rule >= 0 else None)
        fate = Fate(Verdict.UNDECIDED, doubt.hook, doubt.rule, None, *arrived, p.walked, 0, packet.family)
        otherwise = _fate(doubt.alternative) if doubt.alternative is not None else None
        return Trace(packet, tuple(recorder.events), fate, refs[doubt.rule], _reason(self.program, doubt.rule),
                     refs[doubt.rule], otherwise, plain)


def _column(name: str, values: tuple[int, ...], family: int) -> npt.NDArray[Any]:
    """A result column; addresses of family 6 as rows of four words."""
    if family == 6 and name in ("src", "dst"):
        return np.array([words_of(v) for v in values], np.uint32).reshape(len(values), 4)
    return np.array(values, np.int64)


def _fate(p: PacketState) -> Fate:
    assert p.verdict is not None
    return Fate(p.verdict, p.hook, p.rule, egress_of(p), p.src, p.dst, p.sport, p.dport, p.mark, p.walked, p.flags,
                p.family)


def _reason(program: Program, rule: int) -> str:
    """Why a rule cannot be told."""
    found = program.rules.get(rule)
    if found is not None:
        return found.why or "; ".join(f"{t.text}: {t.reason}" for t in found.tests if not t.sure)
    return "the host has policy rules (ip rule), which are not followed"


ROW = ("verdict", "hook", "rule", "oif", "src", "dst", "sport", "dport", "mark", "rules_walked", "flags")

_ORDER = tuple(c.name for c in PACKET_COLUMNS)


def states_of(packets: PacketBatch, columns: set[str]) -> Iterator[PacketState]:
    """The packets of a batch, each before its first hook.

    Raises:
        PacketError: a boolean column that is needed is missing.
    """
    for name in sorted(columns):
        if name not in packets.extra:
            raise PacketError(f"the packets lack the boolean column {name!r} that an assumption names")
    names: list[str | None] = [*packets.interfaces, None]
    values: list[list[Any]] = []
    for column in PACKET_COLUMNS:
        array = packets.column(column.name)
        if column.kind == "interface":
            values.append([names[code] for code in array.tolist()])
        elif packets.family == 6 and is_ip_address(column):
            values.append([a << 96 | b << 64 | c << 32 | d for a, b, c, d in array.tolist()])
        else:
            values.append(array.tolist())
    extra = {name: packets.extra[name].tolist() for name in columns}
    family = packets.family
    for row, fields in enumerate(zip(*values, strict=True)):
        values_of_row = {name: column[row] for name, column in extra.items()} if extra else None
        yield PacketState(*[*fields, family, values_of_row])


def state_of(packet: Packet, columns: set[str]) -> PacketState:
    """One packet before its first hook.

    Raises:
        PacketError: a boolean column that is needed is missing.
    """
    for name in sorted(columns):
        if name not in packet.extra:
            raise PacketError(f"the packet lacks the boolean column {name!r} that an assumption names")
    fields = [getattr(packet, name) for name in _ORDER]
    return PacketState(*[*fields, packet.family, packet.extra])
