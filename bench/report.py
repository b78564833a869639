"""The figures of a run as tables (Markdown, JSON) and charts (HTML in one file, PNG)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OURS = "fastpath"
TIMES = "times"
"""Unit of ratios: engine ``fastpath / PEER``, how many times better than the peer we are."""


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


def ratios(rows: Sequence[Row]) -> dict[tuple[str, str, str, str, str], float]:
    """How many times better than each peer we are, by group, unit, subject, variant and peer.

    A ratio that was measured round by round is taken as it is; else it is that of the two figures.
    """
    measured = {(r.group, r.subject, r.variant, r.engine): r.value for r in rows if r.unit == TIMES}
    ours = {(r.group, r.unit, r.subject, r.variant): r.value for r in rows if r.engine == OURS}
    found = {}
    for r in rows:
        mine = ours.get((r.group, r.unit, r.subject, r.variant))
        if r.engine.startswith(OURS) or not mine or not r.value:
            continue
        rate = r.unit.endswith("/s")
        known = measured.get((r.group, r.subject, r.variant, f"{OURS} / {r.engine}")) if rate else None
        found[r.group, r.unit, r.subject, r.variant, r.engine] = (
            known if known is not None else mine / r.value if rate else r.value / mine)
    return found


def tables(rows: Sequence[Row]) -> str:
    """One Markdown table for each group and unit; behind the engines, how many times a peer we are."""
    parts = []
    times = ratios(rows)
    for group, unit in dict.fromkeys((r.group, r.unit) for r in rows if r.unit != TIMES):
        here = [r for r in rows if (r.group, r.unit) == (group, unit)]
        engines = list(dict.fromkeys(r.engine for r in here))
        peers = [e for e in engines if any(key[:2] == (group, unit) and key[4] == e for key in times)]
        values = {(r.subject, r.variant, r.engine): r.value for r in here}
        heads = ["", "", *engines, *(f"times {p}" for p in peers)]
        lines = [f"\n**{group}** ({unit})\n", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for subject, variant in dict.fromkeys((r.subject, r.variant) for r in here):
            found = [values.get((subject, variant, e)) for e in engines]
            cells = [subject, variant, *("" if v is None else number(v) for v in found)]
            found = [times.get((group, unit, subject, variant, p)) for p in peers]
            cells += ["" if v is None else f"**{number(v)}**" for v in found]
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
    drawn = _charts(altair, rows)
    if drawn is None:
        return said
    spec = drawn.to_json()
    (folder / "results.html").write_text(vl_convert.vegalite_to_html(spec, bundle=True))
    (folder / "results.png").write_bytes(vl_convert.vegalite_to_png(spec, scale=1.5))
    return [*said, f"written: {folder}/results.html, results.png"]


def _charts(alt: Any, rows: Sequence[Row]) -> Any:
    """A line of charts for each group of rates: the rates by engine, and how many times each peer we are."""
    rates = [r for r in rows if r.unit.endswith("/s")]
    times = ratios(rates + [r for r in rows if r.unit == TIMES])
    lines = []
    apart = dict.fromkeys(("color", "yOffset", "strokeDash"), "independent")
    for group in dict.fromkeys(r.group for r in rates):
        here = [_point(r.subject, r.variant, r.engine, r.value) for r in rates if r.group == group]
        beside = [_point(subject, variant, peer, value)
                  for (of, _, subject, variant, peer), value in times.items() if of == group]
        draw = _lines if group.startswith("scaling") else _bars
        charts = [draw(alt, here, group, "million packets/s", 520)]
        if beside:
            charts.append(draw(alt, beside, "how many times a peer", f"rate of {OURS} / rate of the peer", 300))
        lines.append(alt.hconcat(*charts).resolve_scale(**apart))
    return alt.vconcat(*lines).resolve_scale(**apart) if lines else None


def _point(subject: str, variant: str, engine: str, value: float) -> dict[str, Any]:
    number_of = variant.split()[0].replace(",", "") if variant else ""
    return {"subject": subject, "row": f"{subject}, {variant}", "engine": engine, "value": value, "said": number(value),
            "x": float(number_of) if number_of.isdigit() else None}


def _lines(alt: Any, points: list[dict[str, Any]], title: str, unit: str, width: int) -> Any:
    line = alt.Chart(alt.Data(values=points), title=title, width=width, height=240).mark_line(point=True)
    return line.encode(
        x=alt.X("x:Q", scale=alt.Scale(type="log"), title="number"),
        y=alt.Y("value:Q", scale=alt.Scale(type="log"), title=unit),
        color=alt.Color("subject:N", title=""), strokeDash=alt.StrokeDash("engine:N", title=""))


def _bars(alt: Any, points: list[dict[str, Any]], title: str, unit: str, width: int) -> Any:
    engines, rows = (list(dict.fromkeys(p[key] for p in points)) for key in ("engine", "row"))
    step = alt.Step(11, **{"for": "offset"})
    base = alt.Chart(alt.Data(values=points), title=title, width=width, height=step).encode(
        x=alt.X("value:Q", scale=alt.Scale(type="symlog"), title=unit),
        y=alt.Y("row:N", sort=rows, title=None), yOffset=alt.YOffset("engine:N", sort=engines))
    bars = base.mark_bar().encode(color=alt.Color("engine:N", sort=engines, title=""))
    return bars + base.mark_text(align="left", dx=3, fontSize=8).encode(text="said:N")
