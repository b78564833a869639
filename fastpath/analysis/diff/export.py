"""Differences as plain values and as an Arrow table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastpath.symbolic.text import column_text

if TYPE_CHECKING:
    import pyarrow as pa

    from fastpath.analysis.diff.model import Diff, Difference, Side


def _side(side: Side) -> dict[str, Any]:
    return {
        "verdict": side.verdict.name, "egress": list(side.egress), "nat": [str(r) for r in side.rewrites],
        "rules": [
            {"rule": r.id, "table": r.table, "chain": r.chain, "number": r.number, "text": r.text} for r in side.rules
        ],
        "routing": side.routed,
    }


def region_dict(difference: Difference) -> dict[str, Any]:
    """One region."""
    region = difference.region
    columns: dict[str, Any] = {}
    for name in region.columns:
        values = region.values(name)
        columns[name] = {
            "text": column_text(region, name),
            **({"ranges": [list(i) for i in values]} if values is not None and name not in ("iif", "oif") else {}),
            **({"masks": [list(m) for m in region.masks(name)]} if values is None else {}),
        }
    return {
        "columns": columns, "before": _side(difference.before), "after": _side(difference.after),
        "headers": difference.headers, "packets": difference.packets, "undecided": difference.undecided,
        "witness": difference.witness.as_dict(),
    }


def to_dict(diff: Diff) -> dict[str, Any]:
    """A diff; ``headers`` are exact integers, ranges of values inclusive."""
    return {
        "before": diff.before.source, "after": diff.after.source, "by": list(diff.by), "same": not diff.differences,
        "headers": diff.headers, "headers_compared": diff.asked.count(), "packets": diff.packets,
        "packets_changed": diff.changed_packets, "regions": [region_dict(d) for d in diff.differences],
    }


def to_arrow(diff: Diff) -> pa.Table:
    """One row a region."""
    import pyarrow as pa

    names = [c for c in diff.asked.space.places if any(c in d.region.columns for d in diff.differences)]
    table: dict[str, Any] = {
        name: pa.array(
            [column_text(d.region, name) if name in d.region.columns else None for d in diff.differences], pa.string()
        )
        for name in names
    }
    for which in ("before", "after"):
        sides = [getattr(d, which) for d in diff.differences]
        table[f"{which}_verdict"] = pa.array([s.verdict.name for s in sides], pa.string())
        table[f"{which}_egress"] = pa.array([list(s.egress) for s in sides], pa.list_(pa.string()))
        table[f"{which}_nat"] = pa.array([[str(r) for r in s.rewrites] for s in sides], pa.list_(pa.string()))
        table[f"{which}_rules"] = pa.array([[r.id for r in s.rules] for s in sides], pa.list_(pa.int32()))
    table["headers"] = pa.array([float(d.headers) for d in diff.differences], pa.float64())
    table["packets"] = pa.array([d.packets for d in diff.differences], pa.int64())
    table["witness"] = pa.array([str(d.witness) for d in diff.differences], pa.string())
    return pa.table(table)
