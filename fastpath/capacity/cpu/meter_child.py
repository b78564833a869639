"""The meter's child: builds hosts in namespaces of its own and times packets through them (see ``meter``).

It talks pickles over its standard streams: ("ready", None) or ("unavailable", why) first, then for each
:class:`~fastpath.capacity.cpu.meter.Task` ("done", [nanoseconds]), ("unavailable", why) or ("failed", traceback).
"""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from fastpath.errors import UnavailableError
from fastpath.netns import namespace
from fastpath.netns.child import serve
from fastpath.netns.netlink import Flows
from fastpath.netns.wire import build
from fastpath.netns.worker import COLUMNS, LOCAL_CODE, original_of, turned
from fastpath.packets.schema import State

if TYPE_CHECKING:
    from fastpath.capacity.cpu.meter import Task

_FLOW_STATUS = 14  # SEEN_REPLY, ASSURED, CONFIRMED
_PASS_NS = 250_000
"""How long a pass goes on, about: shorter than a scheduler's slice, so that some passes are never interrupted."""

REFUSED = -1
"""What sending gives where the kernel drops a packet of the host's own."""

Sending = tuple[Callable[..., Any], tuple[Any, ...]]
"""A system call and its arguments."""


def main() -> None:
    """Serves tasks until standard input ends."""
    serve(lambda task, _: measure(task), _settle)


def _settle() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    gc.disable()


def measure(task: Task) -> list[float]:
    """Does a task in a network namespace of its own: nanoseconds a packet, one figure a round."""
    namespace.fresh_network()
    devices = namespace.build(task.job, probes=False)
    sockets: list[socket.socket] = []
    flows = Flows()
    try:
        stops = (f"chain {hook} {{ type filter hook {hook} priority 450; policy drop; }}\n" for hook in task.stops)
        namespace.run(["nft", "-f", "-"], f"table ip fastpath {{\n{''.join(stops)}}}\n")
        sends = list(_sends(task, devices, flows, sockets))
        raised = sum(function(*arguments) == REFUSED for function, arguments in sends)
        correction = raised / len(sends) * _exception_ns() if raised else 0.0
        return [_round(sends, task.seconds) - correction for _ in range(task.rounds)]
    finally:
        flows.close()
        for each in sockets:
            each.close()
        devices.close()


def _sends(
    task: Task, devices: namespace.Devices, flows: Flows, sockets: list[socket.socket]
) -> Iterator[Sending]:
    """One system call for each packet, as (function, arguments)."""
    columns = task.job.columns
    for ident, row in enumerate(zip(*(columns[name].tolist() for name in COLUMNS), strict=True), 1):
        iif, dst, (state, broken, mac, pkttype) = row[0], row[2], row[13:17]
        packet = build(row[1:13], ident & 0xFFFF or 1, broken)
        if task.job.tracked and state in (State.ESTABLISHED, State.REPLY):
            this = original_of(row)
            original, reply = (this, turned(this)) if state == State.ESTABLISHED else (turned(this), this)
            flows.insert(original, reply, status=_FLOW_STATUS, bound=task.job.nat)
        if iif == LOCAL_CODE:
            if not sockets:
                sockets.append(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
            yield _sendto(sockets[0]), (packet, (socket.inet_ntoa(dst.to_bytes(4)), 0))
            continue
        name = task.job.names[iif]
        if name not in devices.files:
            raise UnavailableError(f"packets that come in on {name} are not timed")
        own = devices.addresses[name]
        head = (own, b"\xff" * 6, b"\1\0\x5e" + own[3:])[pkttype] + mac.to_bytes(6) + b"\x08\0"
        yield os.write, (devices.files[name], head + packet)


def _exception_ns() -> float:
    """What it takes Python to raise and catch the error of a system call: no time of the kernel's."""
    def failing() -> None:
        try:
            os.close(-1)
        except OSError:
            pass

    return max(0.0, _round([(failing, ())], 0.01) - _round([(os.getppid, ())], 0.01))


def _sendto(sender: socket.socket) -> Callable[[bytes, tuple[str, int]], int]:
    def send(packet: bytes, address: tuple[str, int]) -> int:
        try:
            return sender.sendto(packet, address)
        except OSError:  # a rule's DROP in OUTPUT, or the meter's own behind POSTROUTING
            return REFUSED
    return send


def _round(sends: list[Sending], seconds: float) -> float:
    """Nanoseconds a packet. Packets are sent in groups that take about ``_PASS_NS`` together, over and over; what
    counts of each group is the fastest time."""
    clock = time.perf_counter_ns
    end = clock() + int(seconds * 1e9)
    warm = [min(_time(clock, [send]) for _ in range(5)) for send in sends]
    groups: list[list[Sending]] = [[]]
    filled = 0.0
    for send, ns in zip(sends, warm, strict=True):
        if filled + ns > _PASS_NS and groups[-1]:
            groups.append([])
            filled = 0.0
        groups[-1].append(send)
        filled += ns
    times = max(1, min(100, int(_PASS_NS / sum(warm)))) if len(groups) == 1 else 1
    best = [1 << 62] * len(groups)
    passes = 0
    while passes < 5 or clock() < end:
        for place, group in enumerate(groups):
            best[place] = min(best[place], _time(clock, group * times))
        passes += 1
    return sum(best) / (times * len(sends))


def _time(clock: Callable[[], int], sends: list[Sending]) -> int:
    """Nanoseconds that some system calls take."""
    if all(send is sends[0] for send in sends):
        function, arguments = sends[0]
        start = clock()
        for _ in sends:
            function(*arguments)
        return clock() - start
    start = clock()
    for function, arguments in sends:
        function(*arguments)
    return clock() - start
