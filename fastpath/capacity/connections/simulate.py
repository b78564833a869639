"""A discrete-event simulation of the connection table, to check the formulas by: packets and timers, nothing else.

Every connection is drawn with its packets; each packet sets the entry's state and starts a timer, as the kernel's
protocol trackers do; an entry ends with its timer. Vectorized: an array of connections, a column for each packet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.capacity.connections.lifetimes import UDP_STREAM_AFTER, ConnectionClass
from fastpath.capacity.connections.timeouts import Timeouts

Array = npt.NDArray[Any]
_PACKETS = 24
"""Packets that a connection spreads over its duration; gaps stay under the timeouts for durations up to ten minutes of
UDP and weeks of TCP."""


def simulate(
    classes: Sequence[ConnectionClass], timeouts: Timeouts | None = None, *, seconds: float = 300, before: float = 2000,
    seed: int = 0,
) -> dict[tuple[str, str], float]:
    """Mean entries by (class, state), over `seconds`.

    Args:
        classes: connections; TCP, UDP, ICMP and unknown protocols.
        timeouts: the kernel's.
        seconds: how long is watched.
        before: how long before that connections have been coming; at least as long as entries live.
        seed: of the random numbers.
    """
    times = timeouts or Timeouts()
    rng = np.random.default_rng(seed)
    found: dict[tuple[str, str], float] = {}
    for kind in classes:
        start, at, state, timer, names = _events(kind, times, rng, seconds + before)
        begin = start[:, None] - before + at
        end = np.minimum(np.concatenate([begin[:, 1:], np.full((len(start), 1), np.inf)], 1), begin + timer)
        inside = np.clip(end, 0, seconds) - np.clip(begin, 0, seconds)
        sums = np.bincount(state.ravel(), inside.ravel(), len(names)) / seconds
        found.update({(kind.name, name): float(value) for name, value in zip(names, sums, strict=True) if value > 0})
    return found


def time_to_full(kind: ConnectionClass, room: int, timeouts: Timeouts | None = None, *, seconds: float,
                 seed: int = 0) -> float:
    """Seconds after which connections that begin to come at 0 have `room` entries at once; infinite where they do not
    within `seconds`."""
    times = timeouts or Timeouts()
    start, at, _, timer, _ = _events(kind, times, np.random.default_rng(seed), seconds)
    begin = start[:, None] + at
    end = begin[:, -1] + timer[:, -1]
    moments = np.concatenate([start, end])
    steps = np.concatenate([np.ones(len(start)), -np.ones(len(start))])
    order = np.argsort(moments, kind="stable")
    full = np.flatnonzero(np.cumsum(steps[order]) >= room)
    return float(moments[order][full[0]]) if len(full) else float("inf")


def _events(kind: ConnectionClass, t: Timeouts, rng: np.random.Generator,
            seconds: float) -> tuple[Array, Array, Array, Array, list[str]]:
    """Connections that start within `seconds`: start, then for each packet its time after it, the state that it sets
    and the timer that it starts; and the states' names. Packets that a connection lacks repeat the one before."""
    n = rng.poisson(kind.rate * seconds)
    start = np.sort(rng.uniform(0, seconds, n))
    lasts = kind.duration.draw(rng, n)
    fate = rng.random(n)
    answered = fate < kind.answered
    spread = lasts[:, None] * np.linspace(0, 1, _PACKETS)
    if kind.protocol == "tcp":
        half_open = ~answered & (fate < kind.answered + kind.half_open)
        return start, *_tcp_events(kind, t, rng, spread, answered, half_open)
    if kind.protocol == "udp":
        answer = np.where(answered, np.minimum(kind.round_trip, lasts), np.inf)
        # one packet as soon as the flow may count as a stream: what lasts so long sends all the time
        extra = np.minimum(np.stack([answer, np.full(n, UDP_STREAM_AFTER + 1e-3)], 1), lasts[:, None])
        at = np.sort(np.concatenate([spread, extra], 1), 1)
        replied = at >= answer[:, None]
        stream = replied & (at > UDP_STREAM_AFTER)
        state = np.where(stream, 2, np.where(replied, 1, 0))
        return start, at, state, np.where(stream, t.udp_timeout_stream, t.udp_timeout), ["UNREPLIED", "REPLIED",
                                                                                         "STREAM"]
    name, timer = ("ICMP", t.icmp_timeout) if kind.protocol == "icmp" else ("GENERIC", t.generic_timeout)
    return start, spread, np.zeros(spread.shape, np.intp), np.full(spread.shape, timer), [name]


def _tcp_events(kind: ConnectionClass, t: Timeouts, rng: np.random.Generator, spread: Array,
                answered: Array, half_open: Array) -> tuple[Array, Array, Array, list[str]]:
    names = ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"]
    timers = np.array([t.tcp_timeout_syn_sent, t.tcp_timeout_syn_recv, t.tcp_timeout_established,
                       t.tcp_timeout_fin_wait, t.tcp_timeout_last_ack, t.tcp_timeout_time_wait, t.tcp_timeout_close])
    n, half = len(spread), kind.round_trip / 2
    ending = np.searchsorted(np.cumsum([kind.fin, kind.rst]), rng.random(n), side="right")
    handshake = np.broadcast_to([0.0, half], (n, 2))
    data = 2 * half + spread
    last = data[:, -1:]
    closing = np.where((ending == 0)[:, None], last + [0.0, half, 2 * half], last)
    at = np.concatenate([handshake, data, closing], 1)
    state = np.concatenate([np.broadcast_to([0, 1], (n, 2)), np.full(spread.shape, 2),
                            np.array([[3, 4, 5], [6, 6, 6], [2, 2, 2]])[ending]], 1)
    step = np.arange(at.shape[1])
    again = np.array([r for r in (0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0) if r < kind.syn_repeats] + [kind.syn_repeats])
    silent = again[np.minimum(step, len(again) - 1)]
    answers = np.concatenate([[0.0], half + np.array([0.0, 1.0, 3.0, 7.0, 15.0, 31.0])])[np.minimum(step, 6)]
    at = np.where(answered[:, None], at, np.where(half_open[:, None], answers, silent))
    state = np.where(answered[:, None], state, np.where(half_open[:, None], np.minimum(step, 1), 0))
    return at, state, timers[state], names
