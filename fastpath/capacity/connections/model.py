"""Entries of the connection table: how many, in which states, their memory, and when the table is full.

Formulas. Entries of a class in a state are its new connections per second times the mean seconds in that state
(Little's law), whatever the durations' distribution. As connections come independently of one another, the number of
entries at a moment is Poisson-distributed around that mean (M/G/infinity), which gives the peak. A burst that begins at
0 has brought ``rate * E[min(L, t)]`` entries by ``t``, L being an entry's lifetime.

Stated range: any rates and durations for which a table of ``nf_conntrack_max`` is not full; within it the formulas
agree with ``simulate.py`` to 5 %. Direction of error: too many entries, since entries that the kernel drops early (of a
table over 95 % full, and of connections that die with data under way) are counted to their end.

Sources: sizes are those of /proc/slabinfo on Linux 6.18 (x86-64): 256 bytes a ``nf_conntrack`` object. An entry with
an extension has 128 more (nf_conntrack_extend.c, ``NF_CT_EXT_PREALLOC``): masqueraded ones, and all where accounting,
time stamps or labels are on. The hash table has 8 bytes a bucket (``struct hlist_nulls_head``), each entry is in it
twice; by default ``nf_conntrack_max`` equals the buckets (nf_conntrack-sysctl.rst).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fastpath.capacity.connections.lifetimes import PROTOCOLS, ConnectionClass, held, limited, states
from fastpath.capacity.connections.timeouts import Timeouts
from fastpath.capacity.durations import Duration
from fastpath.errors import FastpathError

if TYPE_CHECKING:
    import pyarrow as pa

ENTRY_BYTES, EXTENSION_BYTES, BUCKET_BYTES = 256, 128, 8
LARGEST_DEFAULT = 262_144
"""``nf_conntrack_buckets``, and so ``nf_conntrack_max``, of a machine with 4 GiB of memory or more (same source)."""

_PEAK_SIGMAS = 4.75
"""Of a Poisson number, more than mean + 4.75 standard deviations occur once in a million looks."""


@dataclass(frozen=True, slots=True)
class StateEntries:
    """Entries of one class in one state.

    Attributes:
        name, protocol: of the class.
        state: conntrack's name for TCP and SCTP; UNREPLIED, REPLIED (under two seconds old) and STREAM for UDP.
        seconds: mean time that a connection's entry spends in it.
        entries: mean number of entries.
    """

    name: str
    protocol: str
    state: str
    seconds: float
    entries: float


@dataclass(frozen=True, slots=True)
class Burst:
    """How a table fills when connections come on top of the usual ones.

    Attributes:
        name: for people.
        rate: more connections per second.
        adds: entries that they come to in the end.
        seconds: until the table is full; infinite where it never is.
    """

    name: str
    rate: float
    adds: float
    seconds: float


@dataclass(frozen=True)
class ConntrackResult:
    """What :func:`conntrack` finds.

    Attributes:
        classes: the connections that were counted.
        timeouts: the kernel's, as they were taken.
        rows: entries by class and state.
        entries: mean number of entries.
        peak: entries that are exceeded once in a million looks.
        limit: ``nf_conntrack_max`` that was asked about.
        share: ``peak / limit``.
        growth: factor on all rates at which the peak reaches the limit.
        wanted_max: ``nf_conntrack_max`` to set: the peak and a quarter more, rounded up to a power of two or one and
            a half of it; never less than 65,536.
        wanted_buckets: ``nf_conntrack_buckets`` for that: as many.
        bytes: memory of the peak's entries and of ``wanted_buckets``.
        limit_bytes: memory of a full table of ``wanted_max`` entries, with its buckets.
        bursts: what was asked about bursts.
        burst_classes: their connections.
    """

    classes: tuple[ConnectionClass, ...]
    timeouts: Timeouts
    rows: tuple[StateEntries, ...]
    entries: float
    peak: int
    limit: int
    share: float
    growth: float
    wanted_max: int
    wanted_buckets: int
    bytes: int
    limit_bytes: int
    bursts: tuple[Burst, ...]
    burst_classes: tuple[ConnectionClass, ...] = ()

    def by_protocol(self) -> dict[str, float]:
        """Mean entries by protocol, the most first."""
        return _sums((row.protocol, row.entries) for row in self.rows)

    def by_state(self) -> dict[str, float]:
        """Mean entries by protocol and state (``tcp TIME_WAIT``), the most first."""
        return _sums((f"{row.protocol} {row.state}", row.entries) for row in self.rows)

    def by_class(self) -> dict[str, float]:
        """Mean entries by class, the most first."""
        return _sums((row.name, row.entries) for row in self.rows)

    def sysctls(self) -> tuple[str, ...]:
        """The lines to put into sysctl.conf."""
        return (f"net.netfilter.nf_conntrack_buckets = {self.wanted_buckets}",
                f"net.netfilter.nf_conntrack_max = {self.wanted_max}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; what is infinite is null."""
        return {
            "entries": self.entries, "peak": self.peak, "limit": self.limit, "share": self.share,
            "growth": _finite(self.growth), "wanted_max": self.wanted_max, "wanted_buckets": self.wanted_buckets,
            "bytes": self.bytes, "limit_bytes": self.limit_bytes, "by_protocol": self.by_protocol(),
            "by_state": self.by_state(), "rows": [asdict(row) for row in self.rows],
            "bursts": [asdict(burst) | {"seconds": _finite(burst.seconds)} for burst in self.bursts],
            "classes": [each.to_dict() for each in self.classes], "timeouts": self.timeouts.to_dict(),
        }

    def to_arrow(self) -> pa.Table:
        """The rows as a table: name, protocol, state, seconds, entries."""
        import pyarrow as pa

        return pa.Table.from_pylist([asdict(row) for row in self.rows])


def conntrack(
    rates: Mapping[str, float] | Iterable[ConnectionClass],
    durations: Mapping[str, Any] | None = None,
    timeouts: Mapping[str, float] | Timeouts | None = None,
    *,
    limit: int = LARGEST_DEFAULT,
    bursts: Iterable[ConnectionClass] = (),
) -> ConntrackResult:
    """How big the connection table gets.

    Args:
        rates: new connections per second, by protocol (``{"tcp": 500, "udp": 1000}``), or whole classes.
        durations: with rates by protocol: seconds, or a distribution as :class:`Duration` reads it. A protocol that is
            missing has connections of one packet: 0.
        timeouts: seconds by sysctl, such as ``{"tcp_timeout_established": 86400}``, in place of the defaults.
        limit: ``nf_conntrack_max``.
        bursts: connections that come on top at one moment, from then on.

    Raises:
        FastpathError: unknown protocols or timeouts, or numbers out of range.
    """
    if limit < 1:
        raise FastpathError(f"limit {limit}: nf_conntrack_max should be 1 or more")
    times = Timeouts.read(timeouts)
    classes = _by_protocol(rates, durations or {}) if isinstance(rates, Mapping) else tuple(rates)
    if durations and not isinstance(rates, Mapping):
        raise FastpathError("durations go with rates by protocol; classes have their own")
    rows = tuple(StateEntries(kind.name, kind.protocol, state, seconds, kind.rate * seconds)
                 for kind in classes for state, seconds in states(kind, times).items())
    mean = sum(row.entries for row in rows)
    waves = tuple(bursts)
    peak = _peak(mean)
    wanted = max(65_536, _round_up(1.25 * peak))
    extended = sum(kind.rate * held(kind, times) * kind.masqueraded for kind in classes) / mean if mean else 0.0
    each = ENTRY_BYTES + extended * EXTENSION_BYTES
    return ConntrackResult(
        classes=classes, timeouts=times, rows=rows, entries=mean, peak=peak, limit=limit, share=peak / limit,
        growth=_growth(mean, limit), wanted_max=wanted, wanted_buckets=wanted,
        bytes=round(peak * each) + wanted * BUCKET_BYTES, limit_bytes=round(wanted * each) + wanted * BUCKET_BYTES,
        bursts=tuple(_burst(kind, times, limit - mean) for kind in waves), burst_classes=waves)


def syn_flood(rate: float, *, answered: bool = False) -> ConnectionClass:
    """A SYN flood of `rate` packets per second from addresses that never go on.

    Without an answer (the SYNs are dropped behind the firewall, or go to nowhere) an entry waits in SYN_SENT. With one
    it waits in SYN_RECV, for ``tcp_timeout_syn_recv`` after the server's last SYN-ACK.
    """
    return ConnectionClass("SYN flood" + (", answered" if answered else ""), "tcp", rate, Duration("fixed", 0),
                           answered=0.0, half_open=float(answered), syn_repeats=0.0)


def _by_protocol(rates: Mapping[str, float], durations: Mapping[str, Any]) -> tuple[ConnectionClass, ...]:
    for name in (*rates, *durations):
        if name not in PROTOCOLS:
            raise FastpathError(f"there is no protocol {name!r} here; there are {', '.join(PROTOCOLS)}")
    if extra := [name for name in durations if name not in rates]:
        raise FastpathError(f"a duration is given for {extra[0]}, but no rate")
    return tuple(ConnectionClass(name, name, float(rate), Duration.read(durations.get(name, 0)))
                 for name, rate in rates.items())


def _burst(kind: ConnectionClass, timeouts: Timeouts, room: float) -> Burst:
    adds = kind.rate * held(kind, timeouts)
    if room <= 0:
        return Burst(kind.name, kind.rate, adds, 0.0)
    if adds <= room:
        return Burst(kind.name, kind.rate, adds, math.inf)
    low, high = 0.0, 1.0
    while kind.rate * limited(kind, timeouts, high) < room:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        if kind.rate * limited(kind, timeouts, middle) < room:
            low = middle
        else:
            high = middle
    return Burst(kind.name, kind.rate, adds, high)


def _peak(mean: float) -> int:
    """A Poisson number's one-in-a-million quantile, with the first correction for its skewness."""
    return math.ceil(mean + _PEAK_SIGMAS * math.sqrt(mean) + (_PEAK_SIGMAS**2 - 1) / 6) if mean > 0 else 0


def _growth(mean: float, limit: int) -> float:
    """The factor on `mean` at which the peak reaches `limit`."""
    if mean <= 0:
        return math.inf
    room = limit - (_PEAK_SIGMAS**2 - 1) / 6
    if room <= 0:
        return 0.0
    root = (-_PEAK_SIGMAS + math.sqrt(_PEAK_SIGMAS**2 + 4 * room)) / 2
    return root**2 / mean


def _round_up(number: float) -> int:
    """The next power of two, or one and a half of it."""
    power = 1 << max(0, math.ceil(math.log2(max(number, 1))))
    return power * 3 // 4 if power * 3 // 4 >= number else power


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, number in pairs:
        found[key] = found.get(key, 0.0) + number
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def scaled(classes: Iterable[ConnectionClass], factor: float) -> tuple[ConnectionClass, ...]:
    """The same connections, `factor` times as many."""
    return tuple(replace(kind, rate=kind.rate * factor) for kind in classes)
