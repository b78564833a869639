"""What the judge's parent hands to its child, and what comes back: plain values and arrays, no host and no rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

Sysctl = tuple[str, str, bool]
"""A path below /proc/sys, its value, and whether the kernel must have it."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything the child needs to know of a host and of packets.

    Attributes:
        backend: ``nft`` or ``legacy``.
        devices: names of the Ethernet devices to create.
        links: `ip -batch` commands that give them addresses and routes.
        sysctls: in order; the first ``early_sysctls`` of them are set before there are devices.
        ipsets: an `ipset restore` text.
        rules: an iptables-restore text, rule for rule as the host's apart from ``twins``.
        tables: its tables.
        twins: (table, chain, number) of rules that stand in `rules` only to log what the next rule rejects.
        names: interface names that the ``iif`` column indexes.
        columns: packet columns by name, of one length each.
        tracked: whether conntrack is in use.
        nat: whether there is a nat table.
        marks_connections: whether the rules look at connection marks.
        connections: for each packet the number of its connection, or None where packets have nothing to do with each
            other. The packets of a connection follow one another, and the kernel tracks it by itself.
    """

    backend: str
    devices: tuple[str, ...]
    links: str
    sysctls: tuple[Sysctl, ...]
    early_sysctls: int
    ipsets: str
    rules: str
    tables: tuple[str, ...]
    twins: frozenset[tuple[str, str, int]]
    names: tuple[str, ...]
    columns: dict[str, Array]
    tracked: bool
    nat: bool
    marks_connections: bool
    connections: Array | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """What the child saw.

    Attributes:
        columns: result columns by name; ``oif`` indexes ``interfaces``.
        refused: packets that could not be made after all, row to reason.
        interfaces: names of egress interfaces.
        counters: (table, chain, number) to (packets, bytes); number 0 is a builtin chain's policy.
    """

    columns: dict[str, Array]
    refused: dict[int, str]
    interfaces: tuple[str, ...]
    counters: dict[tuple[str, str, int], tuple[int, int]] = field(default_factory=dict)
