"""What conntrack makes of one connection: the states that its entry goes through, and how long it stays in each.

This is the model's side. ``simulate.py`` has the other: packets and timers. What is taken for granted:

- A connection that lasts sends something at least once in every timeout, so its entry does not go before it ends.
- TCP: SYN and SYN-ACK are half a round trip apart, SYN-ACK and ACK as well; a connection ends by FINs of both sides
  within one round trip (then TIME_WAIT), by RST (CLOSE), or silently: its entry waits for the ESTABLISHED timeout.
- A SYN without an answer is repeated for ``syn_repeats`` seconds: 63 is Linux' ``tcp_syn_retries=6``, tcp(7). The entry
  outlives the last one by the SYN_SENT timeout. A flood's SYNs do not repeat: 0.
- UDP: up to two seconds after its first packet an entry lives by ``udp_timeout``, later, if there were answers, by
  ``udp_timeout_stream`` (nf_conntrack_proto_udp.c, Linux 6.x, ``stream_ts``).
- Every ICMP query, and every packet of an unknown protocol, starts the entry's timeout anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastpath.capacity.connections.timeouts import Timeouts
from fastpath.capacity.durations import Duration
from fastpath.errors import FastpathError

PROTOCOLS = ("tcp", "udp", "icmp", "sctp", "gre", "other")
ENDINGS = ("fin", "rst", "silent")
UDP_STREAM_AFTER = 2.0
"""Seconds after its first packet from which a UDP flow counts as a stream."""

SYN_REPEATS = 63.0
SYN_ACK_REPEATS = 31.0
"""Seconds over which a Linux server repeats its SYN-ACK: ``tcp_synack_retries=5``, tcp(7)."""


@dataclass(frozen=True, slots=True)
class ConnectionClass:
    """Connections of one kind.

    Attributes:
        name: for people.
        protocol: one of PROTOCOLS.
        rate: new connections per second.
        duration: from the first packet to the last (TCP: from the handshake to the first FIN or RST), seconds.
        answered: part of the connections that get an answer and go on, 0 to 1.
        half_open: TCP: part that gets a SYN-ACK and never goes on; with ``answered`` at most 1.
        fin, rst, silent: TCP and SCTP: parts of the answered that end so; they add up to 1.
        round_trip: seconds from one end to the other and back.
        syn_repeats: seconds over which an unanswered SYN is repeated.
        masqueraded: part whose source a MASQUERADE rule changes; their entries take more memory.
    """

    name: str
    protocol: str
    rate: float
    duration: Duration
    answered: float = 1.0
    half_open: float = 0.0
    fin: float = 1.0
    rst: float = 0.0
    silent: float = 0.0
    round_trip: float = 0.02
    syn_repeats: float = SYN_REPEATS
    masqueraded: float = 0.0

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise FastpathError(
                f"{self.name}: there is no protocol {self.protocol!r} here; there are {', '.join(PROTOCOLS)}")
        for name in ("rate", "round_trip", "syn_repeats"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise FastpathError(f"{self.name}: {name} {value!r} should be a number, 0 or more")
        for name in ("answered", "half_open", "masqueraded", *ENDINGS):
            if not 0 <= getattr(self, name) <= 1:
                raise FastpathError(f"{self.name}: {name} {getattr(self, name)!r} should be a part, 0 to 1")
        if self.answered + self.half_open > 1 + 1e-9:
            raise FastpathError(f"{self.name}: answered and half_open add up to {self.answered + self.half_open:g}; "
                                "they should not make more than 1")
        if abs(self.fin + self.rst + self.silent - 1) > 1e-6:
            raise FastpathError(f"{self.name}: fin, rst and silent add up to {self.fin + self.rst + self.silent:g}; "
                                "they should make 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "name": self.name, "protocol": self.protocol, "rate": self.rate, "duration": self.duration.to_dict(),
            "answered": self.answered, "half_open": self.half_open, "fin": self.fin, "rst": self.rst,
            "silent": self.silent, "round_trip": self.round_trip, "syn_repeats": self.syn_repeats,
            "masqueraded": self.masqueraded,
        }


@dataclass(frozen=True, slots=True)
class Life:
    """One way that connections of a class go.

    Attributes:
        share: part of the connections that go it.
        states: states with mean seconds in each, in order.
        fixed: seconds that every such entry lives.
        lasting: whether the connection's duration comes on top.
        above, upto: only durations in this range go this way; the share is then of all connections before that choice.
    """

    share: float
    states: Mapping[str, float]
    fixed: float
    lasting: bool = True
    above: float = -1.0
    upto: float = float("inf")

    def limited(self, duration: Duration, t: float) -> float:
        """E[min(L, t)] of an entry's lifetime L, times this way's part of all connections."""
        if not self.lasting:
            return self.share * min(self.fixed, t)
        # P(L > u) is P(above < D <= upto) while u < fixed + above, then P(u - fixed < D <= upto)
        def within(low: float) -> float:
            return duration.longer(low) - (duration.longer(self.upto) if self.upto < float("inf") else 0.0)

        low = max(self.above, 0.0)
        flat = min(t, self.fixed + low) * within(self.above)
        if t <= self.fixed + low:
            return self.share * flat
        end = min(t - self.fixed, self.upto)
        rest = duration.limited(end) - duration.limited(low)
        if self.upto < float("inf"):
            rest -= (end - low) * duration.longer(self.upto)
        return self.share * (flat + rest)


def lives(kind: ConnectionClass, timeouts: Timeouts) -> list[Life]:
    """The ways that connections of a class go; together they are all of them."""
    return [life for life in _MAKERS[kind.protocol](kind, timeouts) if life.share > 0]


def states(kind: ConnectionClass, timeouts: Timeouts) -> dict[str, float]:
    """Mean seconds that one connection's entry spends in each state."""
    found: dict[str, float] = {}
    for life in lives(kind, timeouts):
        for state, seconds in life.states.items():
            found[state] = found.get(state, 0.0) + life.share * seconds
    return found


def limited(kind: ConnectionClass, timeouts: Timeouts, t: float) -> float:
    """E[min(L, t)]: seconds of its first `t` that a connection's entry lives, on average."""
    return sum(life.limited(kind.duration, t) for life in lives(kind, timeouts))


def held(kind: ConnectionClass, timeouts: Timeouts) -> float:
    """Mean seconds that a connection's entry lives."""
    return sum(states(kind, timeouts).values())


def _tcp(kind: ConnectionClass, t: Timeouts) -> Iterator[Life]:
    half = kind.round_trip / 2
    mean = kind.duration.mean
    begin = {"SYN_SENT": half, "SYN_RECV": half, "ESTABLISHED": mean}
    yield Life(kind.answered * kind.fin, begin | {"FIN_WAIT": half, "LAST_ACK": half,
                                                  "TIME_WAIT": t.tcp_timeout_time_wait},
               4 * half + t.tcp_timeout_time_wait)
    yield Life(kind.answered * kind.rst, begin | {"CLOSE": t.tcp_timeout_close}, 2 * half + t.tcp_timeout_close)
    yield Life(kind.answered * kind.silent, begin | {"ESTABLISHED": mean + t.tcp_timeout_established},
               2 * half + t.tcp_timeout_established)
    waits = kind.syn_repeats + t.tcp_timeout_syn_sent
    yield Life(max(0.0, 1 - kind.answered - kind.half_open), {"SYN_SENT": waits}, waits, lasting=False)
    waits = SYN_ACK_REPEATS + t.tcp_timeout_syn_recv
    yield Life(kind.half_open, {"SYN_SENT": half, "SYN_RECV": waits}, half + waits, lasting=False)


def _udp(kind: ConnectionClass, t: Timeouts) -> Iterator[Life]:
    mean, after = kind.duration.mean, UDP_STREAM_AFTER
    yield Life(1 - kind.answered, {"UNREPLIED": mean + t.udp_timeout}, t.udp_timeout)
    # connections that end before they count as a stream, and the others; E[D; D <= 2] = E[min(D, 2)] - 2 P(D > 2)
    longer = kind.duration.longer(after)
    short = kind.duration.limited(after) - after * longer
    if longer < 1:
        yield Life(kind.answered, {"REPLIED": short + (1 - longer) * t.udp_timeout}, t.udp_timeout, upto=after)
    if longer > 0:
        yield Life(kind.answered, {"REPLIED": longer * after,
                                   "STREAM": mean - short - longer * after + longer * t.udp_timeout_stream},
                   t.udp_timeout_stream, above=after)


def _icmp(kind: ConnectionClass, t: Timeouts) -> Iterator[Life]:
    yield Life(1.0, {"ICMP": kind.duration.mean + t.icmp_timeout}, t.icmp_timeout)


def _gre(kind: ConnectionClass, t: Timeouts) -> Iterator[Life]:
    mean = kind.duration.mean
    yield Life(kind.answered, {"STREAM": mean + t.gre_timeout_stream}, t.gre_timeout_stream)
    yield Life(1 - kind.answered, {"UNREPLIED": mean + t.gre_timeout}, t.gre_timeout)


def _sctp(kind: ConnectionClass, t: Timeouts) -> Iterator[Life]:
    mean = kind.duration.mean
    closing = kind.answered * (kind.fin + kind.rst)
    begin = {"COOKIE": 2 * kind.round_trip, "ESTABLISHED": mean}
    yield Life(closing, begin | {"CLOSED": t.sctp_timeout_closed}, 2 * kind.round_trip + t.sctp_timeout_closed)
    yield Life(kind.answered * kind.silent, begin | {"ESTABLISHED": mean + t.sctp_timeout_established},
               2 * kind.round_trip + t.sctp_timeout_established)
    yield Life(1 - kind.answered, {"COOKIE": t.sctp_timeout_cookie_wait}, t.sctp_timeout_cookie_wait, lasting=False)


def _other(kind: ConnectionClass, t: Timeouts) -> Iterator[Life]:
    yield Life(1.0, {"GENERIC": kind.duration.mean + t.generic_timeout}, t.generic_timeout)


_MAKERS = {"tcp": _tcp, "udp": _udp, "icmp": _icmp, "gre": _gre, "sctp": _sctp, "other": _other}
