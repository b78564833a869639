"""Connections by name: ``topology.flow("web", "db:5432")`` as packet columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from fastpath.docker.ends import CLIENT_PORT, PROTOCOL_NUMBERS, Beside, Ends, Sent
from fastpath.docker.errors import TopologyError
from fastpath.docker.plan import make_plan
from fastpath.docker.topology import Topology
from fastpath.docker.version import Engine, EngineLike, as_engine

if TYPE_CHECKING:
    from fastpath.packets.batch import PacketBatch


@dataclass(frozen=True)
class NamedFlow:
    """A connection between two ends.

    Attributes:
        source, destination: as they were named.
        first: the first packet, a batch of one row.
        reply: the answer as the destination that was named sends it, a batch of one row with state ``reply``. Where NAT
            leads the first packet elsewhere, somebody else answers: :func:`fastpath.evaluate_flows` finds out.
    """

    source: str
    destination: str
    first: PacketBatch
    reply: PacketBatch

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination}: {self.first[0]}"


@lru_cache(maxsize=8)
def ends_of(topology: Topology, engine: Engine) -> Ends:
    """The ends of a topology; the last few are kept, as flows are rarely asked for one by one."""
    from fastpath.docker.host import build_host

    return Ends(topology, make_plan(topology, engine), build_host(topology, engine))


def named_flow(
    topology: Topology, source: str, destination: str, protocol: str | None, engine: EngineLike
) -> NamedFlow:
    """See :meth:`Topology.flow`."""
    from fastpath.packets.batch import PacketBatch
    from fastpath.packets.schema import State

    ends = ends_of(topology, as_engine(engine))
    one, other = ends.parse(source), ends.parse(destination, source)
    wanted = protocol or other.protocol or one.protocol or "tcp"
    if wanted not in PROTOCOL_NUMBERS:
        raise TopologyError(f"flow {source!r} -> {destination!r}: protocol {wanted!r} should be one of "
                            f"{', '.join(PROTOCOL_NUMBERS)}")
    if wanted != "icmp" and other.port is None:
        raise TopologyError(f"flow {source!r} -> {destination!r}: the destination's port is missing, such as "
                            f"{destination}:80")
    sent = ends.connect(one, other)
    if isinstance(sent, Beside):
        verdict = "works" if sent.works else "does not work"
        raise TopologyError(
            f"flow {source!r} -> {destination!r} has no packets on the host and {verdict}: {sent.reason}")
    row = first_row(sent, wanted, one.port or CLIENT_PORT, other.port or 0)
    back = ends.connect(other, one) if other.stack != "external" else None
    back_iif = back.iif if isinstance(back, Sent) else sent.iif if other.stack != "external" else _out(ends, sent)
    answer = row | {
        "iif": back_iif, "src": row["dst"], "dst": row["src"], "sport": row["dport"], "dport": row["sport"],
        "tcp_flags": 0x12, "icmp_type": 0, "state": State.REPLY}
    if wanted == "icmp":
        answer |= {"sport": row["sport"], "dport": 0}
    return NamedFlow(source, destination, PacketBatch.from_dicts([row]), PacketBatch.from_dicts([answer]))


def first_row(sent: Sent, protocol: str, sport: int, dport: int) -> dict[str, object]:
    """The columns of a connection's first packet."""
    row: dict[str, object] = {
        "iif": sent.iif, "src": int(sent.src), "dst": int(sent.dst), "proto": PROTOCOL_NUMBERS[protocol],
        "sport": sport, "dport": 0 if protocol == "icmp" else dport}
    return row | ({"oif": sent.oif} if sent.oif is not None else {})


def _out(ends: Ends, sent: Sent) -> str:
    found = ends.fib.lookup(int(sent.dst))
    return found.dev if found is not None and found.dev is not None else sent.iif
