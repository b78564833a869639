"""How the kernel chooses a source port, and what follows for a pool of them: how likely it finds none.

The kernel (net/netfilter/nf_nat_core.c, ``get_unique_tuple`` and ``nf_nat_l4proto_unique_tuple``, Linux 6.2 and later):

1. Without ``--random`` and ``--random-fully`` (which are one and the same there) the connection keeps its own source
   port where that lies in the range and is free for this destination.
2. Otherwise it looks at up to 128 ports one after the other from a random offset, at 64 from a new one, then at 32, 16
   and 8; the first free one is taken. Where the range has 128 ports or fewer, all are looked at once. The range is
   that of ``--to-ports`` (or of ``--to-source ADDRESS:PORTS``); without one it goes by the connection's own port:
   1-511, 600-1023, or 1024-65535.
3. The offset is 16 random bits modulo the range's size. A size that does not divide 65,536 makes the first ports of
   the range more likely: of 28,232 ports the first 9,072 by half.
4. Since Linux 6.5 (``nf_nat_used_tuple_harder``) the last 32 looks of a round also take the port of a TCP connection
   that is in TIME_WAIT or closed, if the new connection's sequence number is ahead of the old one's: one in two.
5. Where nothing is found the packet goes on with a port that is taken, and is dropped when its connection would be
   entered into the table.

So a connection may fail though there are free ports. The search fills the first free port behind a random place: taken
ports form runs, and long runs grow fastest. :func:`failing` follows them: the density of free ports behind a run of
each length, in each region of the range, under connections that come and go at a given load (runs are taken to be
independent of their neighbours; a mean-field description). :func:`lost` weighs that with how the number of taken ports
fluctuates, a birth-and-death chain as in Erlang's loss formula, which it is where all ports are looked at.

Stated range, checked with ``simulate.py``: the part of connections that get a port is right to 5 % at any load; the
part that get none is right to 5 % where all ports are looked at (128 or fewer), and elsewhere from 1.2 times as many
connections as ports. In between it depends on how holding times are spread: where all are equal it is up to 0.03 more
than said here. The load at which one in a thousand fails is right to 5 % where they are spread exponentially.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fastpath.capacity.ports.known import KNOWN

FIRST_ROUND = 128
ROUNDS = (128, 64, 32, 16, 8)
EVICTING = sum(min(attempts, 32) for attempts in ROUNDS)
"""Looks that may evict a closing connection: 120 of the 248."""

_LONGEST = 2048
_LOADS = (0.8, 0.87, 0.92, 0.95, 0.97, 0.985, 1.0, 1.05, 1.15, 1.4, 2.0, 4.0)
_SMALL = 8192
_LEAST = 0.75
"""Loads below this have lost nothing that could be measured: fewer than one in 10**9."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the range whose ports are alike.

    Attributes:
        share: part of the range's ports.
        start: probability that a round's offset lies here.
        own: probability that a connection's own port lies here.
    """

    share: float
    start: float
    own: float


@lru_cache(maxsize=64)
def regions(first: int, last: int, own: tuple[int, int] | None) -> tuple[Region, ...]:
    """The range `first` to `last` in parts: where connections' own ports lie (`own`; None where they are not kept), and
    where offsets are likelier. Ranges of up to 8,192 ports are taken as one part without either: there, offsets differ
    by an eighth at most, and next to none of the usual own ports lie inside."""
    size = last - first + 1
    if size <= _SMALL:
        return (Region(1.0, 1.0, 0.0),)
    edge = 65_536 % size
    cuts = {0, edge, size}
    low = high = 0
    if own is not None:
        low, high = (min(max(port - first, 0), size) for port in (own[0], own[1] + 1))
        cuts |= {low, high}
    found = []
    for start, end in zip(sorted(cuts), sorted(cuts)[1:], strict=False):
        ports = end - start
        likely = (65_536 // size + (1 if end <= edge else 0)) / 65_536
        mine = ports / (own[1] - own[0] + 1) if own is not None and low <= start and end <= high else 0.0
        found.append(Region(ports / size, ports * likely, mine))
    return tuple(found)


@lru_cache(maxsize=64)
def failing(parts: tuple[Region, ...]) -> tuple[Array, Array]:
    """The search's failures in a large range; up to half a minute's work, but for the ranges of ``known.py``.

    Returns:
        Parts of the ports that are taken, ascending, and the probability that a new connection then gets none; both of
        shape (len(_LOADS),).
    """
    if parts in _known():
        return _known()[parts]
    share = np.array([p.share for p in parts])[:, None]
    start = np.array([p.start for p in parts])
    own = np.array([p.own for p in parts])
    length = np.arange(_LONGEST, dtype=np.float64)
    hits = np.minimum(length + 1, np.array(ROUNDS)[:, None])
    beyond = np.maximum(0, length + 1 - np.array(ROUNDS)[:, None])
    free = np.zeros((len(parts), _LONGEST))  # by region and length of the run in front: free ports for each port
    free[:, 0] = 1.0
    taken, fails = [], []
    for load in _LOADS:
        now = 0.0
        while now < 40:
            empty = free.sum(1)
            missed = start @ (free @ beyond.T)  # by round: probability that it finds nothing
            reach = np.concatenate([[1.0], np.cumprod(missed)])
            scanning = 1 - float(own @ empty)
            rate = load * (own[:, None] / share + scanning * (start[:, None] / share) * (reach[:-1] @ hits))
            filled = rate * free
            spectrum = np.fft.rfft(free, 2 * _LONGEST, axis=1)
            joined = np.fft.irfft(np.fft.rfft(filled, 2 * _LONGEST, axis=1) * spectrum, 2 * _LONGEST, axis=1)
            gain = 2 * (np.cumsum(free[:, ::-1], axis=1)[:, ::-1] - free)
            gain[:, 1:] += np.maximum(joined[:, :_LONGEST - 1], 0) / empty[:, None]
            swallowed = filled.sum(1) / empty
            step = min(0.05, 0.3 / max(float(swallowed.max()), 1e-12))
            new = (free + step * gain) / (1 + step * (rate + swallowed[:, None] + length))
            new /= ((length + 1) * new).sum(1)[:, None]
            change = float(np.abs(new - free).sum() / step)
            free = new
            now += step
            if now > 3 and change < 1e-3 * float(empty.sum()):
                break
        taken.append(float(1 - (share[:, 0] * free.sum(1)).sum()))
        fails.append(float((1 - own @ free.sum(1)) * np.prod(start @ (free @ beyond.T))))
    return np.maximum.accumulate(np.array(taken)), np.maximum(np.array(fails), 1e-300)


@lru_cache(maxsize=1)
def _known() -> dict[tuple[Region, ...], tuple[Array, Array]]:
    return {regions(first, last, own): (np.array(taken), np.array(fails))
            for (first, last, own), (taken, fails) in KNOWN.items()}


def lost(load: float, ports: int, parts: tuple[Region, ...]) -> float:
    """The part of connections that get no port: `load` connections at once where all got one, of `ports`."""
    if ports <= FIRST_ROUND:
        return erlang(load, ports)
    if load < _LEAST * ports:
        return 0.0
    known, fails = failing(parts)

    def at(taken: Array) -> Array:
        share = taken / ports
        found = np.exp(np.interp(share, known, np.log(fails)))
        rest = (share - known[-1]) / (1 - known[-1])
        full: Array = np.where(rest > 0, fails[-1] + (1 - fails[-1]) * rest, found)
        return np.where(share < known[0], 0.0, full)

    return _chain(load, ports, at)


def lost_evicting(load: float, active: float, ports: int, parts: tuple[Region, ...]) -> float:
    """As :func:`lost`, where ports of closing TCP connections may be taken (Linux 6.5 and later).

    Args:
        load: connections at once, closing ones among them, where all got a port.
        active: those among them that are not closing.
        ports, parts: the pool.
    """
    if ports <= FIRST_ROUND:
        looks = min(ports, 32)
        plain = None
    else:
        if load < _LEAST * ports:
            return 0.0
        looks = EVICTING
        plain = failing(parts)
    closing = load - active

    def at(used: Array) -> Array:
        share = np.minimum(1.0, (used + closing) / ports)
        evicts = np.exp(looks * np.log1p(-np.clip(1 - used / ports, 0, 1) / 2))
        if plain is None:
            return np.where(used + closing >= ports, evicts, 0.0)
        known, fails = plain
        found = np.exp(np.interp(share, known, np.log(fails)))
        found = np.where(share < known[0], 0.0, np.where(share > known[-1], 1.0, found))
        result: Array = found * evicts
        return result

    return _chain(active, ports, at)


def _chain(load: float, ports: int, fails: Callable[[Array], Array]) -> float:
    """The part lost of a chain whose state is how many are taken."""
    if load <= 0:
        return 0.0
    low = max(0, min(ports - 1, math.floor(load - 12 * math.sqrt(load) - 50)))  # fewer are as good as never taken
    if load > ports:
        low = max(0, ports - 4 * FIRST_ROUND - ports // 4)
    count = np.arange(low, ports + 1, dtype=np.float64)
    failure = np.clip(fails(count), 0, 1)
    failure[-1] = 1.0
    with np.errstate(divide="ignore"):
        weight = np.concatenate([[0.0], np.cumsum(math.log(load) + np.log1p(-failure[:-1]) - np.log(count[1:]))])
    chance = np.exp(weight - weight.max())
    return float(chance @ failure / chance.sum())


def erlang(load: float, ports: int) -> float:
    """Erlang's loss formula (B): exact where every free port is found, whatever the holding times."""
    if load <= 0:
        return 0.0
    inverse = 1.0
    for count in range(1, ports + 1):
        inverse = 1 + inverse * count / load
    return 1 / inverse


def highest(loss: Callable[[float], float], wanted: float, ports: int) -> float:
    """The load at which `loss` reaches `wanted`, by bisection."""
    low, high = 0.0, 1.0 * ports
    while loss(high) < wanted and high < 64 * ports:
        low, high = high, 2 * high
    for _ in range(24):
        middle = (low + high) / 2
        if loss(middle) < wanted:
            low = middle
        else:
            high = middle
    return low
