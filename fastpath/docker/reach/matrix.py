"""The matrix of who reaches what, evaluated as connections.

Each cell is one connection through :func:`fastpath.evaluate_flows`, so that answers and later packets count too. A
connection that ends at the host itself needs a socket there: the userland proxy, which makes a connection of its own to
the container, or a container that uses the host's stack. What never passes the host's rules (one stack, macvlan,
overlay) is decided by who is on which network.

Invariant: ``reach`` is YES only where every packet of the connection arrives and somebody is known to take it, or (for
``*`` and a container's own ports) where the container itself is reached; whether a program listens in it is its own
affair. Safe direction of error: NO or MAYBE, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastpath.docker.ends import CLIENT_PORT, OUTSIDE, PROTOCOL_NUMBERS, Beside, End, Ends, Sent
from fastpath.docker.flows import ends_of, first_row
from fastpath.docker.listeners import Listener, port_listeners
from fastpath.docker.reach.parties import sources, targets
from fastpath.docker.topology import Topology
from fastpath.docker.version import Engine, EngineLike, as_engine
from fastpath.errors import FastpathError
from fastpath.host.model import Host
from fastpath.packets.schema import LOCAL, Leg, Outcome, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

    from fastpath.analysis.flow_result import FlowResult
    from fastpath.packets.batch import PacketBatch

Array = npt.NDArray[Any]
CHUNK = 1 << 19
"""Cells that are evaluated at a time."""

NO, YES, MAYBE = 0, 1, 2


class How(IntEnum):
    """By what a cell is decided: the host's rules, beside them, or a process on the host."""

    RULES = 0
    NAT = 1
    BESIDE = 2
    PROXY = 3
    HELD = 4
    NOBODY = 5
    ELSEWHERE = 6
    PROXY_STOPPED = 7


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: ``reach`` is True, False, or None where it is undecided; ``mark`` is one word for tables."""

    source: str
    target: str
    reach: bool | None
    mark: str
    reason: str


def reachability(topology: Topology, engine: EngineLike, *, outside: str = OUTSIDE, host: Host | None = None,
                 threads: int | None = None) -> Reachability:
    """See :meth:`Topology.reachability`."""
    return Reachability(topology, as_engine(engine), outside, host, threads)


class Reachability:
    """Who reaches what. Rows are sources, columns targets.

    Attributes:
        topology, engine, host: what was evaluated; ``engines`` is the host compiled, as far as that was needed.
        sources: containers, the host, the outside.
        targets: ports.
        reach: int8 of shape (sources, targets): 0 no, 1 yes, 2 undecided.
        how: uint8, :class:`How`.
    """

    def __init__(self, topology: Topology, engine: Engine, outside: str, host: Host | None,
                 threads: int | None) -> None:
        self.topology = topology
        self.engine = engine
        self.ends = ends_of(topology, engine)
        if host is not None:
            self.ends = Ends(topology, self.ends.plan, host)
        self.host = self.ends.host
        self.sources = sources(self.ends, outside)
        self.targets = targets(self.ends)
        self.listeners = port_listeners(topology, engine)
        shape = (len(self.sources), len(self.targets))
        self.reach = np.zeros(shape, np.int8)
        self.how = np.zeros(shape, np.uint8)
        self._kept: dict[str, Array] = {
            name: np.full(shape, -1, dtype) for name, dtype in (
                ("outcome", np.int8), ("leg", np.int8), ("rule", np.int32), ("accepted", np.int32),
                ("verdict", np.int8), ("hook", np.int8), ("listener", np.int32), ("dst", np.int64), ("dport", np.int32),
                ("src", np.int64))}
        self._beside: dict[tuple[int, int], str] = {}
        self._threads = threads
        self._evaluate()

    # ------------------------------------------------------------------------------------------- evaluation

    def _evaluate(self) -> None:
        from fastpath.analysis.flow_engines import FlowEngines
        from fastpath.analysis.flows import evaluate_flows

        self.engines = engine = FlowEngines(self.host)
        self._proxied = evaluate_flows(self.host, self._proxy_packets(), engine=engine, threads=self._threads)
        step = max(1, CHUNK // max(1, len(self.targets)))
        for start in range(0, len(self.sources), step):
            rows, columns, packets = self._packets(range(start, min(start + step, len(self.sources))))
            found = evaluate_flows(self.host, packets, engine=engine, threads=self._threads)
            self._judge(rows, columns, found)

    def _packets(self, chosen: range) -> tuple[Array, Array, PacketBatch]:
        """First packets of the cells of some sources that come to the host, with their places."""
        from fastpath.packets.batch import PacketBatch

        names = [LOCAL, *(i.name for i in self.host.interfaces)]
        codes = {name: code for code, name in enumerate(names)}
        known: dict[End, int] = {}
        which = np.array([known.setdefault(t.end, len(known)) for t in self.targets], np.int64)
        proto = np.array([PROTOCOL_NUMBERS[t.protocol] for t in self.targets], np.uint8)
        dport = np.array([t.port for t in self.targets], np.uint16)
        rows: list[Array] = [np.zeros(0, np.int64)]
        columns: list[Array] = [np.zeros(0, np.int64)]
        parts: list[Array] = [np.zeros((0, 4), np.int64)]
        for row in chosen:
            sent = [self.ends.connect(self.sources[row].end, end) for end in known]
            values = np.array([
                (codes.setdefault(s.iif, len(codes)), int(s.src), int(s.dst),
                 -1 if s.oif is None else codes.setdefault(s.oif, len(codes))) if isinstance(s, Sent) else (-1,) * 4
                for s in sent], np.int64).reshape(-1, 4)[which]
            here = values[:, 0] >= 0
            for aside in np.flatnonzero(~here).tolist():
                self._aside(row, aside, sent[int(which[aside])])
            rows.append(np.full(int(here.sum()), row))
            columns.append(np.flatnonzero(here))
            parts.append(values[here])
        values, column = np.concatenate(parts), np.concatenate(columns)
        arrays: dict[str, Any] = {
            "iif": values[:, 0].astype(np.int16), "src": values[:, 1], "dst": values[:, 2], "proto": proto[column],
            "sport": CLIENT_PORT, "dport": dport[column]}
        if (values[:, 3] >= 0).any():
            arrays["oif"] = values[:, 3].astype(np.int16)
        packets = PacketBatch.from_columns(arrays, len(values), interfaces=tuple(codes))
        return np.concatenate(rows), column, packets

    def _aside(self, row: int, column: int, found: Sent | Beside) -> None:
        assert isinstance(found, Beside)
        self.how[row, column] = How.BESIDE
        self.reach[row, column] = YES if found.works else NO
        self._beside[row, column] = found.reason

    def _proxy_packets(self) -> PacketBatch:
        """What each userland proxy sends: the host's own connection to the container's port."""
        from fastpath.packets.batch import PacketBatch

        rows = []
        for listener in self.listeners:
            sent = self.ends.connect(End("host", "host"), self.ends.parse(listener.container_address))
            address = int(sent.src) if isinstance(sent, Sent) else 0x7F000001
            rows.append({"iif": LOCAL, "src": address, "dst": listener.container_address,
                         "proto": PROTOCOL_NUMBERS[listener.protocol], "sport": CLIENT_PORT,
                         "dport": listener.container_port})
        return PacketBatch.from_dicts(rows)

    def _judge(self, rows: Array, columns: Array, found: FlowResult) -> None:
        """Fills in the cells of evaluated connections."""
        first = found.legs[Leg.FIRST].result
        place = (rows, columns)
        for name, values in (
            ("outcome", found.outcome), ("leg", found.leg), ("rule", found.rule), ("accepted", first.rule),
            ("dst", found.mapped_dst), ("dport", found.mapped_dport), ("src", found.mapped_src),
        ):
            self._kept[name][place] = values
        for leg in Leg:
            held = found.legs[leg]
            here = found.leg[held.rows] == leg
            at = (rows[held.rows[here]], columns[held.rows[here]])
            self._kept["verdict"][at], self._kept["hook"][at] = held.result.verdict[here], held.result.hook[here]
        works = found.works
        undecided = found.outcome == Outcome.UNDECIDED
        reach = np.where(undecided, MAYBE, np.where(works, YES, NO)).astype(np.int8)
        how = np.where(found.nat & 32 != 0, How.NAT, How.RULES).astype(np.uint8)
        here = works & (first.verdict == Verdict.LOCAL_IN)
        kinds = np.array([t.kind for t in self.targets])[columns]
        strange = works & ~here & ~self._at_home(columns, found.mapped_dst)
        reach[strange], how[strange] = NO, How.ELSEWHERE
        listening = np.full(len(rows), -1, np.int32)
        for one in np.flatnonzero(here & (kinds != "host-other")).tolist():
            reach[one], how[one], listening[one] = self._at_socket(
                int(columns[one]), int(found.mapped_dst[one]), int(found.mapped_dport[one]))
        self.reach[place], self.how[place], self._kept["listener"][place] = reach, how, listening

    def _at_home(self, columns: Array, dst: Array) -> Array:
        """Whether connections that leave the host's stack end at the container that their target means."""
        owners = [p for places in self.ends.places.values() for p in places]
        stacks = list(self.ends.places)
        number = {int(p.address): stacks.index(p.container) for p in owners}
        wanted = np.array([
            stacks.index(stack) if (stack := self.ends.plan.stacks.get(t.container, t.container)) in stacks else -2
            for t in self.targets])[columns]
        unique, inverse = np.unique(dst, return_inverse=True)
        found: Array = np.array([number.get(a, -1) for a in unique.tolist()], np.int64)[inverse] == wanted
        return found

    @cached_property
    def _sockets(self) -> dict[tuple[int, str], list[int]]:
        found: dict[tuple[int, str], list[int]] = {}
        for number, listener in enumerate(self.listeners):
            found.setdefault((listener.port, listener.protocol), []).append(number)
        return found

    @cached_property
    def _in_host_stack(self) -> set[tuple[int, str]]:
        """Ports of containers that use the host's stack."""
        return {(port, protocol) for c in self.topology.containers if c.running
                and self.ends.plan.stacks[c.name] == "host"
                for port, protocol in (*((p.container_port, p.protocol) for p in c.ports), *c.exposed)}

    def _at_socket(self, column: int, dst: int, dport: int) -> tuple[int, How, int]:
        """Who takes a connection that is delivered to the host."""
        protocol = self.targets[column].protocol
        if (dport, protocol) in self._in_host_stack:
            return YES, How.RULES, -1
        for number in self._sockets.get((dport, protocol), ()):
            listener = self.listeners[number]
            if listener.address not in ("0.0.0.0", _dotted(dst)):
                continue
            if not listener.answers:
                return NO, How.HELD, number
            if listener.container != self.targets[column].container:
                return NO, How.ELSEWHERE, number
            outcome = self._proxied.outcome[number]
            reach = YES if outcome == Outcome.WORKS else MAYBE if outcome == Outcome.UNDECIDED else NO
            return reach, How.PROXY if reach == YES else How.PROXY_STOPPED, number
        return NO, How.NOBODY, -1

    # ------------------------------------------------------------------------------------------- reading it

    def index(self, source: str | int, target: str | int) -> tuple[int, int]:
        """Row and column of a cell.

        Raises:
            FastpathError: no such source or target.
        """
        row = source if isinstance(source, int) else self._place(source, [s.name for s in self.sources], "source")
        column = target if isinstance(target, int) else self._place(target, [t.name for t in self.targets], "target")
        return row, column

    @staticmethod
    def _place(name: str, names: list[str], what: str) -> int:
        if name not in names:
            raise FastpathError(f"the matrix has no {what} {name!r}; there are {', '.join(names[:20])}"
                                f"{' ...' if len(names) > 20 else ''}")
        return names.index(name)

    def cell(self, source: str | int, target: str | int) -> Cell:
        """A cell by the names (or numbers) of its source and target.

        Raises:
            FastpathError: no such source or target.
        """
        row, column = self.index(source, target)
        reach = {NO: False, YES: True, MAYBE: None}[int(self.reach[row, column])]
        return Cell(self.sources[row].name, self.targets[column].name, reach, self.mark(row, column),
                    self.reason(row, column))

    def __iter__(self) -> Iterator[Cell]:
        """Every cell, source by source."""
        for row in range(len(self.sources)):
            for column in range(len(self.targets)):
                yield self.cell(row, column)

    def mark(self, row: int, column: int) -> str:
        """A cell in one word: yes, nat, proxy, -, or ? where it is undecided."""
        if self.reach[row, column] != YES:
            return "?" if self.reach[row, column] == MAYBE else "-"
        return {How.NAT: "nat", How.PROXY: "proxy"}.get(How(int(self.how[row, column])), "yes")

    def reason(self, row: int, column: int) -> str:
        """A cell's reason in one sentence."""
        from fastpath.docker.reach.reasons import sentence

        return sentence(self, row, column)

    def kept(self, name: str, row: int, column: int) -> int:
        """A number of a cell's connection (outcome, leg, rule, ...); -1 for connections beside the rules."""
        return int(self._kept[name][row, column])

    def beside(self, row: int, column: int) -> str:
        """Why a connection beside the host's rules works or not."""
        return self._beside[row, column]

    def listener(self, row: int, column: int) -> Listener | None:
        """The socket on the host that a connection comes to."""
        number = self.kept("listener", row, column)
        return self.listeners[number] if number >= 0 else None

    def proxied(self, row: int, column: int) -> str:
        """What becomes of the connection that the userland proxy makes."""
        return self._proxied.reason(self.kept("listener", row, column))

    def packet(self, row: int, column: int) -> PacketBatch | None:
        """The first packet of a cell's connection, None where none comes to the host."""
        from fastpath.packets.batch import PacketBatch

        sent = self.sent(row, column)
        target = self.targets[column]
        return None if sent is None else PacketBatch.from_dicts([
            first_row(sent, target.protocol, CLIENT_PORT, target.port)])

    def sent(self, row: int, column: int) -> Sent | None:
        """How a cell's connection comes to the host, None where it does not."""
        found = self.ends.connect(self.sources[row].end, self.targets[column].end)
        return found if isinstance(found, Sent) else None

    def explain(self, source: str, target: str) -> str:
        """A cell's connection, packet by packet and rule by rule."""
        from fastpath.analysis.flows import evaluate_flows

        row, column = self.index(source, target)
        packet = self.packet(row, column)
        told = "" if packet is None else "\n\n" + evaluate_flows(self.host, packet).explain(0)
        return f"{self.sources[row].name} -> {self.targets[column].name}: {self.reason(row, column)}{told}"

    # ------------------------------------------------------------------------------------------- as files

    def __str__(self) -> str:
        from fastpath.docker.reach.table import as_text

        return as_text(self)

    def to_arrow(self) -> pa.Table:
        """A row a cell: source, target, kind, container, protocol, port, reach (null: undecided), how, reason."""
        from fastpath.docker.reach.table import as_arrow

        return as_arrow(self)

    def to_html(self, path: str | Path | None = None) -> str:
        """One page that needs nothing else; written to `path` where that is given."""
        from fastpath.docker.reach.page import as_html

        text = as_html(self)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text


def _dotted(address: int) -> str:
    return ".".join(str(byte) for byte in address.to_bytes(4))
