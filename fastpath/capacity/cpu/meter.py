"""Asking the running kernel how long it takes over packets: the parent's side.

A child process (``meter_child``) leaves the machine's network for good, builds a host in a namespace of its own, as the
kernel judge does but without the judge's probes, and writes the same frames into its devices over and over. A frame
that is written into a TAP device has been through all hooks when the write returns, so that the time of a write is the
time of the packet's whole way. Behind the last hook of INPUT and POSTROUTING everything is dropped: no neighbour is
asked, no flow is ever confirmed, and every packet meets the same state as the one before.

What a figure holds besides netfilter and routing: the system call, and the making of the kernel's packet. What it does
not hold: a network card, the queue of the egress device, and caches that other work has filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastpath.errors import UnavailableError
from fastpath.host.model import Host
from fastpath.netns.child import Child
from fastpath.netns.job import Job
from fastpath.netns.judge import Backend
from fastpath.netns.limits import reasons
from fastpath.netns.plan import plan
from fastpath.packets.batch import PacketBatch


@dataclass(frozen=True, slots=True)
class Task:
    """A host, its packets, and how to time them.

    Attributes:
        job: the host and the packets, as for the judge.
        stops: nftables hooks behind whose last chain packets are dropped.
        rounds: independent figures to give.
        seconds: how long each round goes on.
    """

    job: Job
    stops: tuple[str, ...]
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a meter read.

    Attributes:
        rounds: nanoseconds a packet, one figure a round: each the fastest of many passes over all packets, which leaves
            out interruptions.
        packets: how many packets a pass took; those that the judge cannot make are left out.
        kept: which rows of the batch they were.
    """

    rounds: tuple[float, ...]
    packets: int
    kept: tuple[int, ...]

    @property
    def ns(self) -> float:
        """The median of the rounds."""
        return float(np.median(self.rounds))

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles of the rounds, in ns."""
        low, high = np.percentile(self.rounds, (25, 75))
        return float(high - low) / 2


class Meter(Child):
    """A child process that times packets. Not to be shared between threads."""

    def __init__(self) -> None:
        """Starts the child.

        Raises:
            UnavailableError: it cannot have namespaces of its own here.
        """
        super().__init__("fastpath.capacity.cpu.meter_child", "meter", "timed")

    def read(
        self, host: Host, packets: PacketBatch, backend: Backend, *, rounds: int = 5, seconds: float = 0.05,
        stops: Sequence[str] = ("input", "postrouting"), rules: str | None = None,
    ) -> Reading:
        """Times packets on a host.

        Args:
            host: an IPv4 host.
            packets: packets with their states; they are sent one after the other, over and over.
            backend: ``nft`` or ``legacy``.
            rounds, seconds: how many figures, and how long each takes.
            stops: hooks behind whose last chain everything is dropped.
            rules: the iptables-restore text to load in place of the host's own rules.

        Raises:
            UnavailableError: the kernel refuses the host, or none of the packets can be made.
        """
        codes, texts, broken = reasons(host, packets)
        rows = np.flatnonzero(codes == 0)
        if not len(rows):
            raise UnavailableError(f"none of the packets can be made: {', '.join(t for t in texts if t)}")
        job = plan(host, packets.take(rows), broken[rows], backend)
        job = replace(job, rules=str(host.ruleset) if rules is None else rules, twins=frozenset())
        found: list[float] = self.ask(Task(job, tuple(stops), rounds, seconds))
        return Reading(tuple(found), len(rows), tuple(rows.tolist()))
