"""``packets(host, n, seed, profile)``: profiles, and the loop over blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastpath.errors import PacketError
from fastpath.host.model import Host
from fastpath.packets.batch import PacketBatch
from fastpath.packets.packet import COLUMNS
from fastpath.packets.synth.draw import BLOCK, Bits
from fastpath.packets.synth.edges import Edges
from fastpath.packets.synth.traffic import Traffic
from fastpath.packets.synth.uniform import Uniform

Array = npt.NDArray[Any]


class Profile(Protocol):
    """What makes the blocks of one profile; `stream` keeps profiles of one seed apart."""

    stream: int
    interfaces: tuple[str, ...]
    columns: tuple[str, ...]

    def __init__(self, host: Host, seed: int) -> None: ...

    def fill(self, bits: Bits, out: dict[str, Array]) -> None:
        """Fills one block: `out` has an array of BLOCK values for each of ``columns``."""


PROFILES: dict[str, type[Profile]] = {"traffic": Traffic, "edges": Edges, "uniform": Uniform}
"""The profiles by name."""


def packets(host: Host, n: int, seed: int = 0, profile: str = "traffic") -> PacketBatch:
    """Makes packets for a host.

    The same arguments give the same packets, and the first k packets do not depend on `n`. A host without addresses
    and routes (``complete`` False) gets an ``oif`` column, as evaluating it needs one.

    Args:
        host: the host, IPv4.
        n: how many packets.
        seed: any number from 0 on.
        profile: ``traffic`` is a realistic mix for a Docker host; ``edges`` are values on and beside every boundary in
            the rules, and packets aimed at single rules; ``uniform`` is evenly random addresses and ports.

    Raises:
        PacketError: an unknown profile, a negative number, or an IPv6 host.
    """
    return next(stream(host, n, seed, profile, rows=max(n, 1)))


def stream(
    host: Host, n: int, seed: int = 0, profile: str = "traffic", rows: int = 1 << 20
) -> Iterator[PacketBatch]:
    """The packets of :func:`packets`, in batches of `rows` (a multiple of 16,384 unless it is `n` or more).

    Raises:
        PacketError: as :func:`packets`.
    """
    source = _maker(host, n, seed, profile)
    if rows < n and rows % BLOCK:
        raise PacketError(f"batches of {rows} packets: a multiple of {BLOCK} is needed")
    return _batches(source, n, seed, rows)


def _maker(host: Host, n: int, seed: int, profile: str) -> Profile:
    maker = PROFILES.get(profile)
    if maker is None:
        raise PacketError(f"unknown profile {profile!r}; the profiles are {', '.join(PROFILES)}")
    if n < 0 or seed < 0:
        raise PacketError(f"the number of packets {n} and the seed {seed} must not be negative")
    if host.ruleset.family != 4:
        raise PacketError("packets can be made for IPv4 hosts only")
    return maker(host, seed)


def _batches(source: Profile, n: int, seed: int, rows: int) -> Iterator[PacketBatch]:
    spare: dict[str, Array] = {name: np.empty(BLOCK, COLUMNS[name].dtype) for name in source.columns}
    for first in range(0, max(n, 1), rows):
        size = min(rows, n - first)
        out: dict[str, Array] = {name: np.empty(size, values.dtype) for name, values in spare.items()}
        for start in range(0, size, BLOCK):
            bits = Bits(seed, source.stream, (first + start) // BLOCK)
            if start + BLOCK <= size:
                source.fill(bits, {name: values[start:start + BLOCK] for name, values in out.items()})
            else:
                source.fill(bits, spare)
                for name, values in out.items():
                    values[start:] = spare[name][:size - start]
        yield PacketBatch(size, out, {}, source.interfaces)
