"""What the capacity commands share: hosts, packets, calibrations and how figures are written."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastpath.capacity.cpu.model import CostModel
    from fastpath.host.model import Host
    from fastpath.packets import PacketBatch


class BackendName(StrEnum):
    """The back ends of iptables."""

    nft = "nft"
    legacy = "legacy"


BackendOption = Annotated[BackendName, typer.Option("--backend", "-b", help="Which iptables the host runs.")]
ModelOption = Annotated[
    Path | None,
    typer.Option("--calibration", help="Figures that `fastpath capacity calibrate --out` wrote; those that come with "
                                       "fastpath where not given.", show_default=False),
]


def load_model(path: Path | None) -> CostModel:
    """The calibration that a command is to use."""
    from fastpath.capacity.cpu.model import CostModel

    return CostModel.load(path) if path is not None else CostModel.default()


def load_packets(host: Host, packets: Path | None, count: int, seed: int, profile: str) -> PacketBatch:
    """Packets of a file, or made up."""
    if packets is not None:
        from fastpath.packets.files import read_packets

        return read_packets(packets)
    from fastpath.packets import synth

    return synth.packets(host, count, seed=seed, profile=profile)


def duration(ns: float) -> str:
    """Nanoseconds for people: ``834 ns``, ``5.21 us``, ``1.2 ms``."""
    if ns < 1000:
        return f"{ns:.0f} ns"
    if ns < 1e6:
        return f"{ns / 1e3:.3g} us" if ns < 1e5 else f"{ns / 1e3:.0f} us"
    return f"{ns / 1e6:.3g} ms"


def rate(per_second: float) -> str:
    """Packets a second for people: ``412k/s``, ``1.31M/s``."""
    return f"{per_second / 1e6:.2f}M/s" if per_second >= 1e6 else f"{per_second / 1e3:.0f}k/s"
