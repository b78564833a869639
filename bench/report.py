"""The figures of a run as tables (Markdown, JSON) and charts (HTML in one file, PNG)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OURS = "fastpath"


@dataclass(frozen=True)
class Row:
    """One figure: what was measured of which subject and variant, by which engine."""

    group: str
    subject: str
    variant: str
    engine: str
    value: float
    unit: str
    remark: str = ""


def tables(rows: Sequence[Row]) -> str:
    """One Markdown table for each group and unit; behind the engines, how many times a peer we are."""
    parts = []
    for group, unit in dict.fromkeys((r.group, r.unit) for r in rows):
        here = [r for r in rows if (r.group, r.unit) == (group, unit)]
        engines = list(dict.fromkeys(r.engine for r in here))
        peers = [e for e in engines if not e.startswith(OURS)] if OURS in engines else []
        values = {(r.subject, r.variant, r.engine): r.value for r in here}
        lines = [f"\n**{group}** ({unit})\n"]
        heads = ["", "", *engines, *(f"times {p}" for p in peers)]
        lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for subject, variant in dict.fromkeys((r.subject, r.variant) for r in here):
            cells = [subject, variant]
            found = [values.get((subject, variant, e)) for e in engines]
            cells += ["" if v is None else number(v) for v in found]
            ours = values.get((subject, variant, OURS))
            for peer in peers:
                theirs = values.get((subject, variant, peer))
                better = (ours / theirs if unit.endswith("/s") else theirs / ours) if ours and theirs else None
                cells.append("" if better is None else number(better))
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n".join(parts) + "\n"


def number(value: float) -> str:
    """Three figures."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(rows: Sequence[Row], remarks: Sequence[str], machine: dict[str, object], folder: Path) -> list[str]:
    """Writes everything; returns what to say about it."""
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(
        {"machine": machine, "remarks": list(remarks), "rows": [asdict(r) for r in rows]}, indent=1))
    about = ", ".join(f"{key} {value}" for key, value in machine.items())
    text = "\n".join([f"Medians. {about}.", *(f"\n{r}" for r in remarks), tables(rows)])
    (folder / "results.md").write_text(text)
    said = [f"written: {folder}/results.md, results.json"]
    try:
        import altair
        import vl_convert
    except ImportError as error:
        return [*said, f"no charts: {error} (pip install '.[bench]')"]
    drawn = _charts(altair, [asdict(r) for r in rows])
    if drawn is None:
        return said
    spec = drawn.to_json()
    (folder / "results.html").write_text(vl_convert.vegalite_to_html(spec, bundle=True))
    (folder / "results.png").write_bytes(vl_convert.vegalite_to_png(spec, scale=1.5))
    return [*said, f"written: {folder}/results.html, results.png"]


def _charts(alt: Any, rows: list[dict[str, Any]]) -> Any:
    """Bars for rates by engine, lines for scaling; None where there are no rates."""
    charts = []
    rates = [r for r in rows if r["unit"].endswith("/s")]
    for group in dict.fromkeys(r["group"] for r in rates):
        here = [dict(r, row=f"{r['subject']}, {r['variant']}") for r in rates if r["group"] == group]
        values = alt.Data(values=here)
        if group.startswith("scaling"):
            for r in here:
                r["x"] = float(r["variant"].split()[0].replace(",", ""))
            line = alt.Chart(values, title=group, width=520, height=240).mark_line(point=True)
            charts.append(line.encode(
                x=alt.X("x:Q", scale=alt.Scale(type="log"), title=group.removeprefix("scaling with ")),
                y=alt.Y("value:Q", scale=alt.Scale(type="log"), title="million packets/s"),
                color=alt.Color("subject:N", title=""), strokeDash=alt.StrokeDash("engine:N", title="")))
        else:
            bar = alt.Chart(values, title=group, width=520).mark_bar()
            charts.append(bar.encode(
                x=alt.X("value:Q", scale=alt.Scale(type="symlog"), title="million packets/s"),
                y=alt.Y("row:N", sort=None, title=None), yOffset=alt.YOffset("engine:N", sort=None),
                color=alt.Color("engine:N", sort=None, title="")))
    return alt.vconcat(*charts).resolve_scale(color="independent") if charts else None
