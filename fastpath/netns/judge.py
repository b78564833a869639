"""The judge's parent side: starting the child, handing it jobs, and turning what it saw into a result."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np

from fastpath.errors import HostError, UnavailableError
from fastpath.host.model import Host, Interface
from fastpath.netns.child import Child
from fastpath.netns.job import Array, Findings
from fastpath.netns.limits import reasons
from fastpath.netns.plan import plan
from fastpath.packets.batch import PacketBatch
from fastpath.packets.result import Result
from fastpath.packets.schema import LOCAL, RESULT_COLUMNS, Verdict
from fastpath.ruleset.model import Chain, RuleRef, Ruleset, Table

Backend = Literal["nft", "legacy"]
BACKENDS: tuple[Backend, ...] = ("nft", "legacy")

Progress = Callable[[int, int], None]


class Judgement(Result):
    """What the kernel did to packets: a result whose ``rule`` is always -1 and ``rules_walked`` 0, since the kernel
    tells only the rules' counters. A packet that could not be judged has verdict UNDECIDED.

    Attributes:
        judged: boolean, whether the kernel was asked about each packet.
        reasons: int16, why not: an index into ``reason_texts``, 0 for judged packets.
        reason_texts: the reasons; the first is empty.
        backend: ``nft`` or ``legacy``.
    """

    def __init__(
        self, columns: dict[str, Array], rules: tuple[RuleRef, ...], interfaces: tuple[str, ...], packets: Array,
        bytes_: Array, codes: Array, texts: tuple[str, ...], backend: Backend,
    ) -> None:
        super().__init__(columns, interfaces, rules, packets, bytes_)
        self.reasons = codes
        self.reason_texts = texts
        self.backend: Backend = backend

    @property
    def judged(self) -> Array:
        """Whether the kernel was asked about each packet."""
        found: Array = self.reasons == 0
        return found

    def take(self, rows: Array) -> Judgement:
        """Some packets' rows of the judgement; the counters are still of all."""
        columns = {column.name: self.column(column.name)[rows] for column in RESULT_COLUMNS}
        return Judgement(columns, self.rules, self.interfaces, self.rule_packets, self.rule_bytes, self.reasons[rows],
                         self.reason_texts, self.backend)

    def reason(self, row: int) -> str:
        """Why a packet could not be judged; empty where it was."""
        return self.reason_texts[int(self.reasons[row])]


class Judge(Child):
    """A child process that asks the kernel, each time in a network namespace of its own.

    The process that owns a Judge stays where it is; the child leaves the machine's network before its first job, and
    what it builds ends with it: when the judge is closed, and when the thread that made it ends in any way. Not to be
    shared between threads.
    """

    def __init__(self) -> None:
        """Starts the child.

        Raises:
            UnavailableError: it cannot have namespaces of its own here.
        """
        super().__init__("fastpath.netns.worker", "judge", "asked")

    def evaluate(self, host: Host, packets: PacketBatch, backend: Backend = "nft", *,
                 connections: Array | None = None, progress: Progress | None = None) -> Judgement:
        """See :func:`evaluate`.

        Args:
            connections: the number of each packet's connection; its packets follow one another and have state AUTO, and
                the kernel tracks and translates them by itself. None: packets have nothing to do with each other.
        """
        if host.ruleset.family != 4 or packets.family != 4:
            raise HostError("the kernel judge knows IPv4 only")
        if backend not in BACKENDS:
            raise HostError(f"there is no backend {backend!r}; the kernel has nft and legacy")
        codes, texts, broken = reasons(host, packets)
        rows = np.flatnonzero(codes == 0)
        job = plan(host, packets.take(rows), broken[rows], backend,
                   None if connections is None else connections[rows])
        found: Findings = self.ask(job, (lambda done: progress(done, len(rows))) if progress is not None else None)
        return _judgement(host, packets, backend, found, rows, codes, texts)


def evaluate(host: Host, packets: PacketBatch, backend: Backend = "nft", *,
             progress: Progress | None = None) -> Judgement:
    """What the running Linux kernel does to packets on a host like `host`.

    A child process moves into new user (unless root), network and mount namespaces, builds the host's interfaces,
    addresses, routes, sysctls, sets and rules there, and sends every packet through it. Nothing of this machine's own
    network is read or changed, and nothing is left behind.

    Args:
        host: an IPv4 host.
        packets: packets with their connection-tracking states; those that cannot be made are told apart.
        backend: ``nft`` (iptables-nft) or ``legacy``.
        progress: called with (packets done, packets to judge) now and then.

    Returns:
        A result with verdict, hook, oif, tuple and mark, and the kernel's own counters. Counters are of the host's
        rules for these packets alone: the kernel's own answers (ICMP errors, RST) are stopped in front of OUTPUT.

    Raises:
        UnavailableError: the kernel cannot be asked here, or refuses the rules; the message says why.
        HostError: not IPv4, or something that `ip` or `ipset` has no words for.
    """
    with Judge() as judge:
        return judge.evaluate(host, packets, backend, progress=progress)


@cache
def available(backend: Backend = "nft") -> str | None:
    """Why the kernel cannot be asked here, or None where it can (the answer is kept)."""
    ruleset = Ruleset((Table("filter", (Chain("FORWARD", "DROP"),)),))
    try:
        evaluate(Host(ruleset, (Interface("eth0"),)), PacketBatch.empty(), backend)
    except UnavailableError as error:
        return str(error)
    return None




def _judgement(host: Host, packets: PacketBatch, backend: Backend, found: Findings, rows: Array, codes: Array,
               texts: tuple[str, ...]) -> Judgement:
    """Findings on the rows that were judged, spread over all packets."""
    for row, text in found.refused.items():
        if text not in texts:
            texts = (*texts, text)
        codes[rows[row]] = texts.index(text)
    names = list(dict.fromkeys((*packets.interfaces, *found.interfaces, LOCAL)))
    recode = np.array([names.index(name) for name in found.interfaces] + [-1], np.int16)
    columns: dict[str, Array] = {"verdict": np.full(len(packets), Verdict.UNDECIDED, np.uint8)}
    for name in ("src", "dst", "sport", "dport", "mark"):
        columns[name] = packets.column(name).copy()
    columns["hook"] = np.zeros(len(packets), np.uint8)
    columns["oif"] = np.full(len(packets), -1, np.int16)
    columns["rule"] = np.full(len(packets), -1, np.int32)
    for name, values in found.columns.items():
        columns[name][rows] = recode[values] if name == "oif" else values
    columns["verdict"][codes != 0] = Verdict.UNDECIDED
    refs = host.ruleset.refs()
    counts = [found.counters.get((ref.table, ref.chain, ref.number), (0, 0)) for ref in refs]
    packets_, bytes_ = (np.array([count[i] for count in counts], np.int64) for i in (0, 1))
    return Judgement(columns, refs, tuple(names), packets_, bytes_, codes, texts, backend)
