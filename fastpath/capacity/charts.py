"""Charts of capacity results, as Vega-Lite specifications, and these as SVG or PNG.

altair writes the specifications and vl-convert draws them, without a browser or a network; both are loaded when the
first chart is made. Every chart is drawn for light and for dark surroundings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpath.capacity.connections.model import ConntrackResult
    from fastpath.capacity.cpu.result import CostResult
    from fastpath.capacity.growth.result import SweepResult
    from fastpath.capacity.ports.model import SnatResult

Row = dict[str, Any]
WIDTH = 660
NEAR = 2.0
"""What bears less than this many times the traffic is shown as scarce."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
_COLORS = {
    False: ("#2563a8", "#d9701e", "#2a8c6d", "#a3478f", "#8a6d1d", "#5b6470", "#c43d4b", "#3aa0c9"),
    True: ("#6ea8e8", "#f2a05c", "#5fc7a3", "#d58cc6", "#d8bd62", "#a7b0bc", "#f07f8a", "#7fd0ee"),
}
_INK = {False: ("#1c2430", "#5b6470", "#dfe3e8", "#c43d4b"), True: ("#e8ebef", "#a7b0bc", "#39424e", "#f07f8a")}
"""Text, quieter text, lines, and what must not be passed; light and dark."""


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        name: a file's name without its ending.
        title: what it shows, in a few words.
        text: what to see in it, one or two sentences.
        spec: its Vega-Lite specification, as plain JSON types, without colours.
        rows: what it is drawn from.
    """

    name: str
    title: str
    text: str
    spec: Row
    rows: tuple[Row, ...]

    def svg(self, *, dark: bool = False) -> str:
        """An SVG image with a transparent background."""
        import vl_convert

        return str(vl_convert.vegalite_to_svg(self._themed(dark)))

    def png(self, *, dark: bool = False, scale: float = 2.0) -> bytes:
        """A PNG image, `scale` pixels for each unit."""
        import vl_convert

        spec = self._themed(dark) | {"background": "#14181e" if dark else "#ffffff", "padding": 16}
        return bytes(vl_convert.vegalite_to_png(spec, scale=scale))

    def _themed(self, dark: bool) -> Row:
        ink, quiet, line, _ = _INK[dark]
        axis = {"labelColor": quiet, "titleColor": quiet, "gridColor": line, "domainColor": line, "tickColor": line,
                "labelFont": _FONT, "titleFont": _FONT, "labelFontSize": 12, "titleFontSize": 12,
                "titleFontWeight": "normal", "labelLimit": 320, "titlePadding": 8}
        config = {
            "font": _FONT, "background": "transparent", "view": {"stroke": None}, "axis": axis,
            "legend": {"labelColor": quiet, "titleColor": quiet, "labelFont": _FONT, "titleFont": _FONT,
                       "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 260},
            "range": {"category": list(_COLORS[dark]),
                      "heatmap": ["#2a3f58", "#a9d2f7"] if dark else ["#cfe0f3", "#123a66"]},
            "text": {"color": ink, "font": _FONT, "fontSize": 12}, "bar": {"color": _COLORS[dark][0]},
            "line": {"strokeWidth": 2.2}, "rule": {"color": _INK[dark][3]},
        }
        return {**self.spec, "config": config}


def _of(rows: Sequence[Row]) -> Any:
    """An empty chart of `rows`."""
    import altair as alt

    data: Any = alt.InlineData
    return alt.Chart(data(values=list(rows)))


def _names(labels: Iterable[str]) -> Any:
    """An axis of names, with room for them in a font wider than the one that they are measured in."""
    import altair as alt

    room = min(340, 14 + 7.4 * max((len(label) for label in labels), default=0))
    return alt.Axis(ticks=False, domain=False, labelPadding=8, minExtent=room, maxExtent=room, labelLimit=room)


def _chart(name: str, title: str, text: str, chart: Any, rows: Sequence[Row]) -> Chart:
    spec: Row = chart.to_dict(validate=False)
    spec.pop("config", None)
    return Chart(name, title, text, spec, tuple(rows))


def headroom(factors: Mapping[str, float]) -> Chart:
    """How many times today's traffic each resource bears, on a logarithmic scale."""
    import altair as alt

    most = 10_000.0
    rows: list[Row] = [{
        "what": what, "factor": min(max(factor, 0.01), most), "label": factor_text(factor),
        "state": "over" if factor < 1 else "near" if factor < NEAR else "enough"} for what, factor in factors.items()]
    base = _of(rows).encode(
        y=alt.Y("what:N", sort=None, title=None, axis=_names(row["what"] for row in rows)))
    low = min(0.1, *(row["factor"] / 2 for row in rows))
    high = max(20.0, *(row["factor"] * 2 for row in rows))
    points = base.mark_bar(height=18, cornerRadiusEnd=3).encode(
        x=alt.X("factor:Q", title="times today's traffic", scale=alt.Scale(type="log", domain=[low, high]),
                axis=alt.Axis(format="~g", values=[10.0**power for power in range(-3, 6)])),
        x2=alt.datum(low), color=alt.Color("state:N", legend=None, scale=alt.Scale(
            domain=["enough", "near", "over"], range=["#2f9c79", "#c98a1b", "#d2505d"])))
    labels = base.mark_text(align="left", dx=6).encode(x="factor:Q", text="label:N")
    today = _of([{"x": 1}]).mark_rule(strokeDash=[5, 4], strokeWidth=1.5).encode(x="x:Q")
    return _chart("headroom", "Where it runs out", "Each bar ends where the resource is used up; the dashed line is "
                  "the profile's traffic.", alt.layer(points, labels, today).properties(
                      width=WIDTH, height=alt.Step(32)), rows)


def connections(result: ConntrackResult) -> Chart:
    """Entries of the connection table by class and state, against its limit."""
    import altair as alt

    least = result.entries / 2000
    rows: list[Row] = [{"class": row.name, "state": f"{row.protocol} {row.state}".replace("other GENERIC", "other"),
             "entries": row.entries} for row in result.rows if row.entries > least]
    order = list(dict.fromkeys(row["class"] for row in sorted(
        rows, key=lambda r: -result.by_class().get(r["class"], 0.0))))
    bars = _of(rows).mark_bar(height=18).encode(
        y=alt.Y("class:N", sort=order, title=None, axis=_names(order)),
        x=alt.X("sum(entries):Q", title="entries, on average", axis=alt.Axis(format="~s", tickCount=6)),
        color=alt.Color("state:N", title=None, legend=alt.Legend(orient="bottom", columns=4)))
    return _chart("connections", "Connection table", "Entries by class of traffic, coloured by conntrack's state.",
                  bars.properties(width=WIDTH, height=alt.Step(30)), rows)


def filling(result: ConntrackResult) -> Chart:
    """How the table fills in each burst, until it is full."""
    import altair as alt

    from fastpath.capacity.connections.lifetimes import limited

    kinds = result.burst_classes
    ends = [min(burst.seconds, 240.0) * 1.15 for burst in result.bursts]
    rows: list[Row] = [{"burst": burst.name, "seconds": end * i / 60,
             "entries": min(result.limit, result.entries + kind.rate * limited(kind, result.timeouts, end * i / 60))}
            for burst, kind, end in zip(result.bursts, kinds, ends, strict=True) for i in range(61)]
    lines = _of(rows).mark_line().encode(
        x=alt.X("seconds:Q", title="seconds after the burst begins", axis=alt.Axis(grid=False, tickCount=8)),
        y=alt.Y("entries:Q", title="entries", axis=alt.Axis(format="~s", tickCount=5)),
        color=alt.Color("burst:N", title=None, sort=None, legend=alt.Legend(orient="bottom", columns=3)))
    limit = _of([{"y": result.limit}]).mark_rule(strokeDash=[5, 4], strokeWidth=1.5).encode(
        y="y:Q")
    return _chart("bursts", "How long a burst lasts out", "Entries after a burst begins on top of the usual "
                  "traffic; the dashed line is nf_conntrack_max.",
                  alt.layer(lines, limit).properties(width=WIDTH, height=240), rows)


def ports(result: SnatResult, most: int = 12) -> Chart:
    """Source ports in use, pool by pool, as a part of all."""
    import altair as alt

    rows: list[Row] = []
    for pool in result.pools[:most]:
        whole = pool.ports * pool.addresses
        rows.append({"pool": f"{pool.name or pool.address}: {pool.destination}:{pool.port}/{pool.protocol}",
                     "share": pool.share, "label": f"{pool.share * whole:,.0f} of {whole:,}"})
    base = _of(rows).encode(
        y=alt.Y("pool:N", sort=None, title=None, axis=_names(row["pool"] for row in rows)))
    high = max(1.15, *(1.3 * row["share"] for row in rows))
    bars = base.mark_bar(height=18, cornerRadiusEnd=3).encode(x=alt.X(
        "share:Q", title="ports needed, as a part of the pool", scale=alt.Scale(domain=[0, high]),
        axis=alt.Axis(format="%", tickCount=6)))
    labels = base.mark_text(align="left", dx=6).encode(x="share:Q", text="label:N")
    full = _of([{"x": 1}]).mark_rule(strokeDash=[5, 4], strokeWidth=1.5).encode(x="x:Q")
    return _chart("ports", "Source ports", "One bar for each source address, destination, port and protocol; at the "
                  "dashed line all ports are taken.", alt.layer(bars, labels, full).properties(
                      width=WIDTH, height=alt.Step(32)), rows)


def cost_by_chain(result: CostResult, most: int = 14) -> Chart:
    """Nanoseconds for each packet, by chain."""
    import altair as alt

    rows: list[Row] = [{"chain": f"{each.table} {each.chain}", "ns": each.ns, "label": f"{each.ns:,.0f} ns"}
            for each in result.by_chain[:most]]
    rows.append({"chain": "the way itself", "ns": result.base_ns, "label": f"{result.base_ns:,.0f} ns"})
    base = _of(rows).encode(
        y=alt.Y("chain:N", sort=None, title=None, axis=_names(row["chain"] for row in rows)))
    bars = base.mark_bar(height=16, cornerRadiusEnd=3).encode(
        x=alt.X("ns:Q", title="ns for each packet, on average", axis=alt.Axis(tickCount=6),
                scale=alt.Scale(domain=[0, 1.15 * max(row["ns"] for row in rows)])))
    labels = base.mark_text(align="left", dx=6).encode(x="ns:Q", text="label:N")
    return _chart("cost-by-chain", "CPU by chain", "What the rules of each chain cost a packet, and what it costs "
                  "without any rule.", alt.layer(bars, labels).properties(width=WIDTH, height=alt.Step(27)), rows)


def rule_heat(rows: Sequence[Row]) -> Chart:
    """Packets per second by rule.

    Args:
        rows: ``chain`` (table and name), ``number`` of the rule in it, and ``rate`` in packets per second.
    """
    import altair as alt

    longest = max(row["number"] for row in rows)
    step = max(4.0, min(26.0, WIDTH / longest))
    heat = _of([row for row in rows if row["rate"] > 0]).mark_rect(
        cornerRadius=1 if step > 8 else 0).encode(
        x=alt.X("number:O", title="rule number in its chain", axis=alt.Axis(
            labelAngle=0, labelOverlap="greedy", ticks=False, domain=False), scale=alt.Scale(
                domain=list(range(1, longest + 1)), paddingInner=0.08)),
        y=alt.Y("chain:N", sort=None, title=None, axis=_names(row["chain"] for row in rows)),
        color=alt.Color("rate:Q", title="packets/s that it matched", scale=alt.Scale(type="log"),
                        legend=alt.Legend(orient="bottom", format="~s", gradientLength=220)))
    return _chart("rule-heat", "Rule heat", "Which rules the traffic matches, chain by chain; a rule that matches "
                  "nothing is left blank.", heat.properties(width=max(step * longest, 120), height=alt.Step(22)), rows)


def cost_by_size(result: SweepResult) -> Chart:
    """Nanoseconds for each packet as the host grows, a line for each engine."""
    import altair as alt

    rows: list[Row] = [{"engine": row.engine, "size": row.size, "ns": row.mean_ns} for row in result.rows]
    lines = _of(rows).mark_line(point={"size": 22}).encode(
        x=alt.X("size:Q", title=result.name, axis=alt.Axis(grid=False, tickCount=8)),
        y=alt.Y("ns:Q", title="ns for each packet, on average", axis=alt.Axis(format="~s", tickCount=6)),
        color=alt.Color("engine:N", title=None, sort=None, legend=alt.Legend(orient="bottom", columns=6)))
    return _chart("cost-by-size", "CPU as the host grows",
                  f"What a packet of this traffic costs on average, with {result.name}.",
                  lines.properties(width=WIDTH, height=280), rows)


def factor_text(factor: float) -> str:
    """A growth factor in a few characters."""
    if math.isinf(factor):
        return "no limit met"
    return f"{factor:,.0f} x" if factor >= 100 else f"{factor:.3g} x"
