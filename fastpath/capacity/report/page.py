"""The report as one HTML page: styles and drawings inside, no script, nothing fetched.

Every chart stands there twice, drawn for light and for dark; the style sheet shows the one that fits (light on paper).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from fastpath.capacity.charts import NEAR, Chart
from fastpath.capacity.report import numbers
from fastpath.capacity.report.gather import Answer, CapacityReport


def render(report: CapacityReport) -> str:
    """The page."""
    profile = report.traffic.profile
    title = f"Capacity: {profile.name}"
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    drawn = {chart.name: _figure(chart) for chart in report.charts()}
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(report.host.source or "a host")}: '
        f"{numbers.count(profile.rate)} new connections and {numbers.count(report.traffic.packet_rate)} packets a "
        "second. How many times that each resource bears, the scarcest first:</p>",
        '<div class="answers">', *map(_answer, report.answers), "</div>", drawn["headroom"],
        _section("Traffic", _traffic(report)),
    ]
    if report.cost is not None:
        body.append(_section("CPU", _cost(report, drawn)))
    elif "rule-heat" in drawn:
        body.append(_section("Rules", drawn["rule-heat"]))
    body += [_section("Connection table", _connections(report, drawn)),
             _section("Source ports", _ports(report, drawn)),
             _section("Assumptions", _list(report.assumptions())), _section("To make it again", _inputs(report))]
    return "\n".join([
        "<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">', f"<title>{escape(title)}</title>", f"<style>\n{style}</style>", "</head>",
        "<body>", "<main>", *body, f"<footer>{escape(_versions())}</footer>", "</main>", "</body>", "</html>", ""])


def _section(title: str, *parts: str) -> str:
    return "\n".join(["<section>", f"<h2>{escape(title)}</h2>", *parts, "</section>"])


def _answer(answer: Answer) -> str:
    state = " over" if answer.factor < 1 else " near" if answer.factor < NEAR else ""
    advice = f'<p class="advice">{escape(_sentence(answer.advice))}</p>' if answer.advice else ""
    return (f'<div class="answer{state}"><div class="what">{escape(answer.what)}</div>'
            f'<div class="factor">{escape(numbers.times(answer.factor))}</div>'
            f"<p>{escape(_sentence(answer.now))}</p>{advice}</div>")


def _figure(chart: Chart) -> str:
    label = f'role="img" aria-label="{escape(chart.title)}"'
    return (f"<figure>\n<h3>{escape(chart.title)}</h3>\n<figcaption>{escape(chart.text)}</figcaption>\n"
            f'<div class="scroll light" {label}>{_inline(chart.svg())}</div>\n'
            f'<div class="scroll dark" {label}>{_inline(chart.svg(dark=True), "d")}</div>\n</figure>')


def _inline(svg: str, prefix: str = "l") -> str:
    """A drawing to stand inside a page: without a head of its own, its identifiers made unlike the other's."""
    start = svg.index("<svg")
    global _drawn
    _drawn += 1
    for what in ('id="', "url(#", 'href="#'):
        svg = svg.replace(what, f"{what}{prefix}{_drawn}-")
    return svg[start:]


_drawn = 0


def _traffic(report: CapacityReport) -> str:
    rows = []
    for kind, fates in zip(report.traffic.profile.classes, report.traffic.fates, strict=True):
        port = f":{kind.port}" if kind.port else ""
        fate = ", ".join(f"{verdict.lower().replace('_', ' ')}" + (f" {numbers.share(part)}" if part < 1 else "")
                         for verdict, part in sorted(fates.items(), key=lambda item: -item[1]))
        rows.append((kind.name, f"{kind.source} to {kind.to}{port}", kind.protocol, numbers.count(kind.rate),
                     numbers.count(kind.packet_rate), str(kind.duration), fate))
    return _table(("class", "from, to", "protocol", "#connections/s", "#packets/s", "duration", "first packet"), rows)


def _cost(report: CapacityReport, drawn: dict[str, str]) -> str:
    cost = report.cost
    assert cost is not None
    parts = [f"<p>A packet costs {numbers.count(cost.mean_ns)} ns on average, "
             f"{numbers.count(cost.percentiles.get(99.0, cost.mean_ns))} ns at the 99th percentile; "
             f"{numbers.count(cost.base_ns)} ns of that are its way through the kernel without any rule. One core "
             f"takes {numbers.count(cost.packets_per_second)} of them a second ({escape(cost.backend)} back end).</p>"]
    parts.append(drawn.get("cost-by-size", ""))
    if report.sweep is not None:
        name = report.sweep.name
        rows = [(knee.engine, "none" if knee.size is None else f"{numbers.count(knee.size)} {name}",
                 f"{knee.before:.3g}", f"{knee.after:.3g}") for knee in report.sweep.knees]
        parts.append(_table(("engine", "#bend at", "#ns for each one before", "#ns for each one after"),
                            rows))
        if report.sweep.crossings:
            crossings = [(c.engine, c.what, f"{numbers.count(c.budget)} ns",
                          "not reached" if c.size is None else f"{numbers.count(c.size)} {report.sweep.name}")
                         for c in report.sweep.crossings]
            parts.append(_table(("engine", "budget", "#of", "#breaks at"), crossings))
    parts += [drawn[name] for name in ("cost-by-chain", "rule-heat") if name in drawn]
    parts.append("<h3>The rules that cost most</h3>")
    parts.append(_table(("rule", "#ns for each packet", "#part of all", "#examined", "#matched"), [
        (f"{r.table}: {r.text}", f"{r.ns:.3g}", numbers.share(r.share), numbers.count(r.examined),
         numbers.count(r.matched)) for r in cost.top_rules]))
    if cost.reordering is not None and cost.reordering.moves:
        moves = [f"{m.table} {m.chain}: rule {m.number} before rule {m.before}: {m.text}"
                 for m in cost.reordering.moves]
        parts.append(f"<p>Another order of the rules saves {numbers.count(cost.reordering.saved_ns)} ns a packet "
                     f"({escape(cost.reordering.proof)}):</p>{_list(moves)}")
    return "\n".join(parts)


def _connections(report: CapacityReport, drawn: dict[str, str]) -> str:
    table = report.conntrack
    parts = [f"<p>{numbers.count(table.entries)} entries on average, {numbers.count(table.peak)} at peak. To set:</p>",
             f"<pre>{escape(chr(10).join(table.sysctls()))}</pre>",
             f"<p>Such a table takes {numbers.size(table.limit_bytes)} when it is full, "
             f"{numbers.size(table.bytes)} at the peak.</p>", drawn["connections"]]
    rows = [(row.name, f"{row.protocol} {row.state}", numbers.span(row.seconds), numbers.count(row.entries))
            for row in sorted(table.rows, key=lambda row: -row.entries) if row.entries >= 0.5]
    parts.append(f"<details><summary>All states</summary>{_table(('class', 'state', '#stays', '#entries'), rows)}"
                 "</details>")
    parts.append(drawn.get("bursts", ""))
    parts.append(_table(("burst", "#more connections/s", "#adds at most", "#full after"), [
        (burst.name, numbers.count(burst.rate), numbers.count(burst.adds), numbers.span(burst.seconds))
        for burst in table.bursts]))
    parts.append('<p class="note">A full table drops entries that were never answered before it refuses new ones: what '
                 "a flood left behind makes room, established connections stay.</p>")
    return "\n".join(parts)


def _ports(report: CapacityReport, drawn: dict[str, str]) -> str:
    if not report.snat.pools:
        return "<p>No rule changes the source of this traffic: no ports are used up.</p>"
    rows = [(f"{pool.name}: {pool.address} to {pool.destination}:{pool.port}/{pool.protocol}", numbers.count(pool.rate),
             numbers.span(pool.hold), f"{numbers.count(pool.in_use)} of {numbers.count(pool.ports * pool.addresses)}",
             numbers.share(pool.lost), numbers.count(pool.safe_rate), numbers.count(pool.max_rate))
            for pool in report.snat.pools]
    head = ("pool", "#per second", "#held for", "#ports in use", "#get none", "#safe rate", "#at most")
    note = ("Rates are connections per second. At the safe rate one connection in a thousand gets no port; at most is "
            "ports over the time that each is held")
    if any(pool.evicting for pool in report.snat.pools):
        note += "; ports of closed TCP connections may be taken over at once (Linux 6.5 and later)"
    note += "."
    return "\n".join([drawn.get("ports", ""), _table(head, rows), f'<p class="note">{note}</p>'])


def _inputs(report: CapacityReport) -> str:
    parts = []
    for name, text in report.inputs.items():
        if "\n" in text:
            parts.append(f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>")
        else:
            parts.append(f"<p>{escape(name)}: <code>{escape(text)}</code></p>")
    parts.append(f"<details><summary>Rules</summary><pre>{escape(str(report.host.ruleset))}</pre></details>")
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns whose title starts with # hold numbers."""
    right = [title.startswith("#") for title in head]

    def line(cell: str, values: Sequence[str]) -> str:
        return "<tr>" + "".join(
            f'<{cell} class="n">{escape(value)}</{cell}>' if number else f"<{cell}>{escape(value)}</{cell}>"
            for value, number in zip(values, right, strict=True)) + "</tr>"

    titles = [title.removeprefix("#") for title in head]
    return "\n".join(['<div class="scroll"><table>', f"<thead>{line('th', titles)}</thead>", "<tbody>",
                      *(line("td", row) for row in rows), "</tbody></table></div>"])


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _versions() -> str:
    import fastpath

    return f"Made by fastpath {fastpath.__version__}. No packet was sent."
