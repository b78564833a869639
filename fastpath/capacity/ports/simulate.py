"""A discrete-event simulation of one pool of source ports: the kernel's search, port by port (see ``search.py``)."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

from fastpath.capacity.ports.search import FIRST_ROUND

_FREE, _OPEN, _CLOSING = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Simulated:
    """Attributes: connections that were watched, the part of them that got no port, and ports taken on average."""

    connections: int
    lost: float
    taken: float


class _Pool:
    """Ports and the kernel's way of choosing one."""

    def __init__(self, first: int, last: int, own: tuple[int, int] | None, evicting: bool, seed: int) -> None:
        self.draw = random.Random(seed)
        self.first, self.size, self.own, self.evicting = first, last - first + 1, own, evicting
        self.ports = bytearray(self.size)

    def choose(self) -> int:
        """A port that a new connection may have, as an index; -1 where none is found."""
        if self.own is not None:
            mine = self.draw.randint(*self.own) - self.first
            if 0 <= mine < self.size and self.ports[mine] == _FREE:
                return mine
        attempts, offset = min(self.size, FIRST_ROUND), self.draw.getrandbits(16)
        while True:
            start = offset % self.size
            if not self.evicting and offset + attempts <= 0x10000:  # the same as below, looked up faster
                port = self.ports.find(_FREE, start, min(self.size, start + attempts))
                if port < 0 and start + attempts > self.size:
                    port = self.ports.find(_FREE, 0, start + attempts - self.size)
                if port >= 0:
                    return port
            else:
                port = self._one_by_one(attempts, offset)
                if port >= 0:
                    return port
            if attempts >= self.size or attempts < 16:
                return -1
            attempts, offset = attempts // 2, self.draw.getrandbits(16)

    def _one_by_one(self, attempts: int, offset: int) -> int:
        for i in range(attempts):
            port = (offset + i & 0xFFFF) % self.size
            if self.ports[port] == _FREE:
                return port
            if self.evicting and attempts - i <= 32 and self.ports[port] == _CLOSING and self.draw.random() < 0.5:
                return port
        return -1


def fill(connections: int, first: int, last: int, *, own: tuple[int, int] | None = None, seed: int = 0) -> int:
    """How many of so many connections get a port of a range that is empty at first, where none ends."""
    pool = _Pool(first, last, own, False, seed)
    done = 0
    for _ in range(connections):
        port = pool.choose()
        if port >= 0:
            pool.ports[port] = _OPEN
            done += 1
    return done


def simulate(
    rate: float, first: int, last: int, *, own: tuple[int, int] | None = None, active: float = 0.0,
    closing: float = 120, evicting: bool = False, connections: int = 100_000, seed: int = 0,
) -> Simulated:
    """Connections to one destination through one address.

    Args:
        rate: new connections per second, a Poisson stream.
        first, last: the range of ports.
        own: where the connections' own ports lie, each as likely as another; None where they are not kept.
        active: mean seconds that a connection is active, exponentially distributed.
        closing: seconds that its entry stays afterwards.
        evicting: whether ports of closing connections may be taken.
        connections: how many to watch, after three holding times during which nobody looks.
        seed: of the random numbers.
    """
    pool = _Pool(first, last, own, evicting, seed)
    draw, ports = pool.draw, pool.ports
    owner = [0] * pool.size
    events: list[tuple[float, int, int, int]] = []
    now, begin = 0.0, 3 * (active + closing)
    seen = failed = number = used = 0
    area, last_time = 0.0, begin

    while seen < connections:
        now += draw.expovariate(rate)
        while events and events[0][0] <= now:
            when, port, what, who = heapq.heappop(events)
            if owner[port] != who:
                continue  # evicted in the meantime
            if when > last_time:
                area, last_time = area + used * (when - last_time), when
            if what == _OPEN and closing:
                ports[port] = _CLOSING
                heapq.heappush(events, (when + closing, port, _CLOSING, who))
            else:
                ports[port] = _FREE
                used -= 1
        if now > begin:
            area, last_time = area + used * (now - last_time), now
            seen += 1
        port = pool.choose()
        if port < 0:
            failed += now > begin
            continue
        used += ports[port] == _FREE
        number += 1
        owner[port] = number
        ports[port] = _OPEN if active else _CLOSING
        heapq.heappush(events, (now + (draw.expovariate(1 / active) if active else closing), port,
                                _OPEN if active else _CLOSING, number))
    return Simulated(seen, failed / seen, area / (last_time - begin) if last_time > begin else 0.0)
