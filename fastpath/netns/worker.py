"""The judge's child: a process of its own that leaves the machine's network for good and then does jobs.

It talks pickles over its standard streams: first ("ready", None) or ("unavailable", why); then for each :class:`Job`
any number of ("progress", packets done), and ("done", Findings), ("unavailable", why) or ("failed", traceback).
It dies with its parent.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fastpath.netns import namespace
from fastpath.netns.child import serve
from fastpath.netns.job import Array, Findings, Job
from fastpath.netns.netlink import UNREACHABLE, Flows, PacketLog, Report, Routing, Tuple
from fastpath.netns.wire import FIELDS, HEAD, ICMP, ICMP_ANSWERS, ICMP_ERRORS, TCP, TRACKED_BY_PORTS, UDP, build, read
from fastpath.packets.schema import NO_ID, Hook, State, Verdict

_IDENTS, _IDENTS_WITHOUT_ROOT = 60_000, 2_000
"""Packets that are prepared at a time: they are told apart by their identification field, which has 16 bits, and
their marks go to the kernel in one message, which without real root must not be long."""

_MASTER = Tuple(0x01020301, 0x01020302, 253, 0, 0)
_SEEN_REPLY, _ASSURED, _CONFIRMED = 2, 4, 8
_EXPECTING = frozenset({State.ESTABLISHED, State.REPLY, State.RELATED})
_TCP_SYN_SENT, _TCP_SYN_RECEIVED, _TCP_ESTABLISHED = 1, 2, 3

_ENDS: dict[int, tuple[Verdict, Hook]] = {
    namespace.PREROUTING_IN: (Verdict.DROP, Hook.PREROUTING),
    namespace.PREROUTING_OUT: (Verdict.DROP, Hook.ROUTE),
    namespace.FORWARD_IN: (Verdict.DROP, Hook.FORWARD),
    namespace.FORWARD_OUT: (Verdict.DROP, Hook.POSTROUTING),
    namespace.INPUT_IN: (Verdict.DROP, Hook.INPUT),
    namespace.INPUT_OUT: (Verdict.LOCAL_IN, Hook.INPUT),
    namespace.OUTPUT_IN: (Verdict.DROP, Hook.OUTPUT),
    namespace.OUTPUT_OUT: (Verdict.DROP, Hook.POSTROUTING),
    namespace.POSTROUTING_OUT: (Verdict.FORWARD, Hook.POSTROUTING),
}
"""What became of a packet, by the last probe that saw it."""

Row = tuple[Any, ...]


def main() -> None:
    """Serves jobs until standard input ends."""
    serve(judge)


def judge(job: Job, progress: Callable[[int], None]) -> Findings:
    """Does a job in a network namespace of its own."""
    namespace.fresh_network()
    devices = namespace.build(job)
    try:
        court = _Court(job, devices)
        try:
            return court.run(progress)
        finally:
            court.close()
    finally:
        devices.close()


class _Court:
    """Sends packets one after the other and gathers what the probes say."""

    def __init__(self, job: Job, devices: namespace.Devices) -> None:
        self.job = job
        self.devices = devices
        self.log = PacketLog(namespace.GROUPS, HEAD)
        self.routing = Routing()
        self.flows = Flows()
        self.loop: socket.socket | None = None
        self.senders: dict[tuple[int, int], socket.socket] = {}
        self.connection: tuple[int, Tuple] | None = None
        self.index = dict(socket.if_nameindex())
        self.number = {name: number for number, name in self.index.items()}
        self.interfaces = tuple(name for _, name in sorted(self.index.items()))
        self.code = {number: self.interfaces.index(name) for number, name in self.index.items()}
        self.forwards = {number: _reads_one(f"/proc/sys/net/ipv4/conf/{name}/forwarding")
                         for number, name in self.index.items()}
        if job.tracked:
            self._insert(_MASTER, turned(_MASTER), status=_CONFIRMED)
        # a message takes about 1 KiB of the receive buffer, a packet leads to 8 of them at most
        self.batch = max(1, min(256, self.log.room // (16 * 1024)))
        self.idents = _IDENTS if self.log.privileged else _IDENTS_WITHOUT_ROOT

    def close(self) -> None:
        """Gives every socket back; with the devices this ends the namespace."""
        for thing in (self.log, self.routing, self.flows):
            thing.close()
        for sender in (self.loop, *self.senders.values()):
            if sender is not None:
                sender.close()

    # ------------------------------------------------------------------------------------------------ sending

    def run(self, progress: Callable[[int], None]) -> Findings:
        """All packets of the job."""
        columns = self.job.columns
        total = len(columns["iif"])
        out: dict[str, Array] = {
            "verdict": np.full(total, Verdict.UNDECIDED, np.uint8), "hook": np.zeros(total, np.uint8),
            "oif": np.full(total, -1, np.int16), "mark": columns["mark"].copy(),
            **{name: columns[name].copy() for name in ("src", "dst", "sport", "dport")},
        }
        refused: dict[int, str] = {}
        for start in range(0, total, self.idents):
            stop = min(total, start + self.idents)
            self._identify(start, stop)
            for first, rows in self._batches(start, stop):
                errors = [self._send(ident, row, refused, first + i) for i, (ident, row) in enumerate(rows)]
                self._gather(first, rows, errors, out, refused)
                progress(first + len(rows))
        return Findings(out, refused, self.interfaces, namespace.counters(self.job))

    def _identify(self, start: int, stop: int) -> None:
        def chosen(name: str) -> dict[int, int]:
            values = self.job.columns[name][start:stop]
            where = np.flatnonzero(values)
            return dict(zip((where + 1).tolist(), values[where].tolist(), strict=True))

        untracked = np.flatnonzero(self.job.columns["state"][start:stop] == State.UNTRACKED) + 1
        marks, connmarks = chosen("mark"), chosen("connmark")
        if marks or connmarks or len(untracked) or start:
            namespace.set_identities(marks, untracked.tolist(), connmarks, self.job)

    def _batches(self, start: int, stop: int) -> Iterator[tuple[int, list[tuple[int, Row]]]]:
        columns = self.job.columns
        for first in range(start, stop, self.batch):
            last = min(stop, first + self.batch)
            rows = zip(*(columns[name][first:last].tolist() for name in COLUMNS), strict=True)
            yield first, [(first - start + i + 1, row) for i, row in enumerate(rows)]

    def _send(self, ident: int, row: Row, refused: dict[int, str], number: int) -> int:
        """Sends one packet with the flow that its state asks for; the errno of sending."""
        iif, dst, (state, broken, mac, pkttype, uid, gid) = row[0], row[2], row[13:19]
        packet = build(row[1:13], ident, broken)
        flow: Tuple | None = None
        local = iif == LOCAL_CODE
        if self.job.connections is not None:
            self._open(int(self.job.connections[number]), row)
        elif self.job.tracked:
            if state in _EXPECTING:
                flow, number_of_error = self._prepare(row)
                if number_of_error:
                    refused[number] = f"conntrack refuses the flow ({errno.errorcode.get(number_of_error)})"
                    return -1
            elif local:
                flow = original_of(row)  # confirmed when it comes back in over lo
        error = 0
        try:
            if local:
                self._sender(uid, gid).sendto(packet, (socket.inet_ntoa(dst.to_bytes(4)), 0))
            elif self.job.names[iif] == "lo":
                self.loop = self.loop or socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
                self.loop.sendto(packet, ("lo", 0x0800, 0, 0, bytes(6)))
            else:
                name = self.job.names[iif]
                own = self.devices.addresses[name]
                os.write(self.devices.files[name],
                         (own, b"\xff" * 6, b"\1\0\x5e" + own[3:])[pkttype] + mac.to_bytes(6) + b"\x08\0" + packet)
        except OSError as failed:
            error = failed.errno or errno.EIO
        if flow is not None:
            self.flows.delete(flow)
        return error

    def _open(self, connection: int, row: Row) -> None:
        """Forgets the connection before, where this packet is the first of another."""
        if self.connection is not None and self.connection[0] != connection:
            self.flows.delete(self.connection[1])
            self.connection = None
        if self.connection is None:
            self.connection = connection, original_of(row)

    def _sender(self, uid: int, gid: int) -> socket.socket:
        """A raw socket of that owner."""
        found = self.senders.get((uid, gid))
        if found is None:
            libc = ctypes.CDLL(None)
            libc.setfsgid(0 if gid == NO_ID else gid)
            libc.setfsuid(0 if uid == NO_ID else uid)
            try:
                found = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            finally:
                libc.setfsuid(0)
                libc.setfsgid(0)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, namespace.PRIORITY)
            self.senders[uid, gid] = found
        return found

    def _prepare(self, row: Row) -> tuple[Tuple, int]:
        """Inserts the flow that makes conntrack see the packet in its state: the entry to delete, and the errno."""
        (_, src, dst, proto, sport, dport, flags, icmp_type, _, _, _, _, _, state, _, _, _, _, _, status, connmark,
         origdst, origdport, _) = row
        this = original_of(row)
        original, reply, master = this, turned(this), None
        error = state == State.RELATED and proto == ICMP and icmp_type in ICMP_ERRORS
        if error:  # it goes against the flow of the packet that it quotes
            this = Tuple(src, dst, UDP, 0, 0)
        if state == State.REPLY or error:
            original, reply = turned(this), this
            original = replace(original, dst=origdst or original.dst, dport=origdport or original.dport)
        if state == State.RELATED and not error:
            master, status = _MASTER, _CONFIRMED
        else:
            status = status or _SEEN_REPLY | _ASSURED | _CONFIRMED
        tcp_state = _TCP_ESTABLISHED
        if proto == TCP and flags & 0x12 == 0x12 and state != State.REPLY:
            tcp_state = _TCP_SYN_RECEIVED
        elif proto == TCP and flags & 0x12 == 0x02 and state == State.REPLY:
            tcp_state = _TCP_SYN_SENT
        return original, self._insert(original, reply, status=status, mark=connmark, tcp_state=tcp_state, master=master)

    def _insert(self, original: Tuple, reply: Tuple, **rest: Any) -> int:
        return self.flows.insert(original, reply, bound=self.job.nat, **rest)

    # ------------------------------------------------------------------------------------------------ gathering

    def _gather(self, first: int, rows: list[tuple[int, Row]], errors: list[int], out: dict[str, Array],
                refused: dict[int, str]) -> None:
        """Reads the probes' messages and fills in the packets' rows."""
        group_of, ident_of = self.log.group, self.log.ident
        base = rows[0][0]
        last: list[tuple[int, bytes] | None] = [None] * len(rows)
        answered, rejected = set(), set()
        current = -1
        for message in self.log.take():
            group = group_of(message)
            if group == namespace.ANSWER:  # follows the packet that it answers
                answered.add(current)
                continue
            current = ident_of(message) - base
            if group == namespace.REJECTED:
                rejected.add(current)
            else:
                last[current] = group, message
        for i, ((_, row), seen, error) in enumerate(zip(rows, last, errors, strict=True)):
            number = first + i
            if number in refused:
                continue
            if seen is None:
                if row[0] != LOCAL_CODE:
                    refused[number] = ("the kernel dropped it before netfilter" if not error else
                                       f"the device refuses it ({errno.errorcode.get(error)})")
                else:  # sendto() says that there is no way out, before any rule
                    out["verdict"][number], out["hook"][number] = Verdict.DROP, Hook.ROUTE
                    if not error:
                        refused[number] = "sent, but never seen in OUTPUT"
                continue
            group, message = seen
            report = self.log.report(message)
            verdict, hook = _ENDS[group]
            local = row[0] == LOCAL_CODE
            if hook == Hook.OUTPUT and error not in (0, errno.EPERM):
                hook = Hook.ROUTE  # EPERM is a rule's DROP; others are from the look-up after rules changed the packet
            if i in rejected:
                verdict = Verdict.REJECT
            elif group == namespace.PREROUTING_OUT and (i in answered or self._would_answer(row, report)):
                verdict = Verdict.ICMP_ERROR
            elif verdict == Verdict.FORWARD and local:
                verdict = Verdict.LOCAL_OUT
            out["verdict"][number], out["hook"][number] = verdict, hook
            if report.out and verdict != Verdict.LOCAL_IN:
                out["oif"][number] = self.code[report.out]
            head = read(report.packet)
            out["src"][number], out["dst"][number], out["mark"][number] = head.src, head.dst, report.mark
            if head.sport is not None:
                out["sport"][number] = head.sport
            if head.dport is not None:
                out["dport"][number] = head.dport

    def _would_answer(self, row: Row, report: Report) -> bool:
        """Whether routing refused a packet in a way that asks for an ICMP error, though none was seen: ICMP errors
        are not answered, nor are fragments, and errors for missing routes are held back when there are many."""
        iif, tos, pkttype = row[0], row[11], row[16]
        number = self.number["lo" if iif == LOCAL_CODE else self.job.names[iif]]
        head = read(report.packet)
        refusal, forwarded = self.routing.ask(head.src, head.dst, number, report.mark, tos & 0x1C)
        if refusal:
            return refusal in UNREACHABLE and self.forwards[number]
        return forwarded and head.ttl <= 1 and not pkttype


COLUMNS = (
    "iif", *FIELDS, "state", "broken", "mac_src", "pkttype", "uid", "gid", "ctstatus", "connmark", "ctorigdst",
    "ctorigdstport", "mark",
)
"""Columns of a job's packets, in the order of a row; ``broken`` says whether the checksum is to be wrong."""

LOCAL_CODE = -1
"""``iif`` of packets that the host makes itself, in a job."""


def original_of(row: Row) -> Tuple:
    """The packet's own direction as conntrack's tuple."""
    _, src, dst, proto, sport, dport, _, icmp_type, icmp_code, *_ = row
    if proto == ICMP:
        return Tuple(src, dst, proto, sport, icmp_type << 8 | icmp_code)
    return Tuple(src, dst, proto, sport, dport) if proto in TRACKED_BY_PORTS else Tuple(src, dst, proto, 0, 0)


def turned(this: Tuple) -> Tuple:
    """The other direction."""
    if this.proto == ICMP:
        kind, code = this.dport >> 8, this.dport & 0xFF
        return Tuple(this.dst, this.src, ICMP, this.sport, ICMP_ANSWERS.get(kind, kind) << 8 | code)
    return Tuple(this.dst, this.src, this.proto, this.dport, this.sport)


def _reads_one(path: str) -> bool:
    try:
        with open(path) as file:
            return file.read().strip() == "1"
    except OSError:
        return False

