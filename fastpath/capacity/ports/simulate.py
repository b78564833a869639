"""A discrete-event simulation of one pool of source ports: the kernel's search, port by port (see ``search.py``)."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

from fastpath.capacity.ports.search import FIRST_ROUND


@dataclass(frozen=True, slots=True)
class Simulated:
    """Attributes: connections that were watched, the part of them that got no port, and ports taken on average."""

    connections: int
    lost: float
    taken: float


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
    draw = random.Random(seed)
    size = last - first + 1
    free, busy, shut = 0, 1, 2
    ports = bytearray(size)
    owner = [0] * size
    events: list[tuple[float, int, int, int]] = []
    now, begin = 0.0, 3 * (active + closing)
    seen = failed = number = used = 0
    area, last_time = 0.0, begin

    def search() -> int:
        attempts, offset = min(size, FIRST_ROUND), draw.getrandbits(16)
        while True:
            for i in range(attempts):
                port = (offset + i & 0xFFFF) % size
                if ports[port] == free:
                    return port
                if evicting and attempts - i <= 32 and ports[port] == shut and draw.random() < 0.5:
                    return port
            if attempts >= size or attempts < 16:
                return -1
            attempts, offset = attempts // 2, draw.getrandbits(16)

    while seen < connections:
        now += draw.expovariate(rate)
        while events and events[0][0] <= now:
            when, port, what, who = heapq.heappop(events)
            if owner[port] != who:
                continue  # evicted in the meantime
            if when > last_time:
                area, last_time = area + used * (when - last_time), when
            if what == busy and closing:
                ports[port] = shut
                heapq.heappush(events, (when + closing, port, shut, who))
            else:
                ports[port] = free
                used -= 1
        if now > begin:
            area, last_time = area + used * (now - last_time), now
            seen += 1
        port = -1
        if own is not None:
            mine = draw.randint(*own) - first
            if 0 <= mine < size and ports[mine] == free:
                port = mine
        if port < 0:
            port = search()
        if port < 0:
            failed += now > begin
            continue
        used += ports[port] == free
        number += 1
        owner[port] = number
        ports[port] = busy if active else shut
        heapq.heappush(events, (now + (draw.expovariate(1 / active) if active else closing), port,
                                busy if active else shut, number))
    return Simulated(seen, failed / seen, area / (last_time - begin) if last_time > begin else 0.0)
