"""What the scripts share: arguments, traffic, charts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastpath as fp
from fastpath.capacity.cpu.model import CostModel
from fastpath.capacity.cpu.walk import walk
from fastpath.host.model import Host
from fastpath.packets import PacketBatch, Verdict

ENGINES = ("20.10", "27", "28", "29")
Row = dict[str, Any]


def arguments(text: str | None) -> argparse.Namespace:
    """The arguments of a script: ``out``, ``backend``, and ``model`` for the calibration."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the chart")
    parser.add_argument("--calibration", type=Path, help="figures of another machine")
    parser.add_argument("--backend", choices=("nft", "legacy"), default="nft")
    given = parser.parse_args()
    given.model = CostModel.load(given.calibration) if given.calibration else CostModel.default()
    given.out.mkdir(parents=True, exist_ok=True)
    return given


def forwarded(host: Host, n: int, seed: int = 1) -> PacketBatch:
    """The usual mix, less what is not forwarded or does not get through."""
    packets = fp.synth.packets(host, 3 * n, seed=seed)
    walked = walk(host, packets, "nft", CostModel.default().backend("nft"))
    return packets.take(np.flatnonzero(walked.columns["verdict"] == Verdict.FORWARD)[:n])


def filter_ns(host: Host, packets: PacketBatch, given: argparse.Namespace) -> tuple[float, float]:
    """Nanoseconds that the filter table's rules cost each packet, and the whole."""
    found = fp.capacity.cost(host, packets, backend=given.backend, model=given.model)
    return sum(c.ns for c in found.by_chain if c.table == "filter"), found.mean_ns


def crossing(sizes: Sequence[float], values: Sequence[float], limit: float) -> float | None:
    """Where a curve passes a limit, interpolated."""
    for i, value in enumerate(values):
        if value > limit:
            if i == 0:
                return float(sizes[0])
            part = (limit - values[i - 1]) / (value - values[i - 1])
            return float(sizes[i - 1] + part * (sizes[i] - sizes[i - 1]))
    return None


def chart(path: Path, rows: Sequence[Row], x: str, y: str, color: str, title: str, *, log: bool = False,
          rule: float | None = None) -> None:
    """A chart of lines as PNG."""
    import altair as alt

    scale = alt.Scale(type="log") if log else alt.Undefined
    made: Any = alt.Chart(alt.Data(values=list(rows))).mark_line(point=True).encode(
        x=alt.X(f"{x}:Q", title=x, scale=scale), y=alt.Y(f"{y}:Q", title=y, scale=scale), color=f"{color}:N")
    if rule is not None:
        made += alt.Chart(alt.Data(values=[{y: rule}])).mark_rule(strokeDash=[4, 4]).encode(y=f"{y}:Q")
    made.properties(title=title, width=560, height=320).save(str(path))
    print(f"chart: {path}")


def table(rows: Sequence[Row]) -> None:
    """Rows as text."""
    heads = list(rows[0])
    cells = [[f"{row[h]:.5g}" if isinstance(row[h], float) else str(row[h]) for h in heads] for row in rows]
    widths = [max(len(h), *(len(c[i]) for c in cells)) for i, h in enumerate(heads)]
    for line in (heads, *cells):
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def says(text: str) -> None:
    """The paragraph of a result."""
    print("\n" + " ".join(text.split()))
