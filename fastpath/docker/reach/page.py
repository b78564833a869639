"""The matrix as one HTML page that loads nothing: a table whose cells tell their reasons.

Reasons repeat, so that each is in the page once and cells hold its number. The page's script shows the reason of the
cell under the pointer or the keyboard's focus, and filters rows and columns by name.
"""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastpath.docker.reach.matrix import Reachability

_STYLE = """
body{font:14px/1.4 system-ui,sans-serif;margin:1.5rem;color:#1c2430;background:#fff}
h1{font-size:1.2rem;margin:0 0 .3rem}p{margin:.3rem 0}
#why{position:sticky;top:0;background:#fff;border:1px solid #9aa4b2;padding:.5rem .7rem;min-height:2.8em;z-index:2}
#wrap{overflow:auto;max-height:78vh;margin-top:.6rem}
table{border-collapse:collapse}td,th{border:1px solid #d5dae1;padding:.15rem .45rem;text-align:center}
thead th{position:sticky;top:0;background:#f2f4f7}tbody th{position:sticky;left:0;background:#f2f4f7;text-align:left}
td{cursor:default}td.y{background:#d4edda}td.t{background:#cfe2ff}td.p{background:#fff3cd}td.q{background:#e2d9f3}
td.n{color:#8a1f2b;background:#fbe9eb}td:focus{outline:2px solid #1c2430}input{margin:.2rem .6rem .2rem 0}
"""
_SCRIPT = """
const d=JSON.parse(document.getElementById('data').textContent),why=document.getElementById('why'),
 t=document.getElementById('t'),C={'yes':'y','nat':'t','proxy':'p','-':'n','?':'q'};
function row(tag,head,cells){const r=document.createElement('tr'),h=document.createElement('th');h.textContent=head;
 h.scope=tag==='th'?'col':'row';r.append(h);for(const c of cells)r.append(c);return r}
const word=id=>document.getElementById(id).value.toLowerCase();
function draw(){const a=word('s'),b=word('g');
 const rows=d.sources.map((n,i)=>i).filter(i=>d.sources[i].toLowerCase().includes(a));
 t.replaceChildren();const th=document.createElement('thead'),tb=document.createElement('tbody');
 th.append(row('th','target \\\\ source',rows.map(i=>{const e=document.createElement('th');e.scope='col';
  e.textContent=d.sources[i];return e})));
 d.targets.forEach((n,j)=>{if(!n.toLowerCase().includes(b))return;tb.append(row('td',n,rows.map(i=>{
  const e=document.createElement('td'),m=d.marks[i][j];e.textContent=m;e.className=C[m]||'';e.tabIndex=0;
  e.onmouseenter=e.onfocus=()=>{why.textContent=d.sources[i]+' \\u2192 '+n+': '+d.reasons[d.why[i][j]]};return e})))});
 t.append(th,tb)}
document.getElementById('s').oninput=draw;document.getElementById('g').oninput=draw;draw();
"""


def as_html(matrix: Reachability) -> str:
    """See :meth:`Reachability.to_html`."""
    from fastpath.docker.reach.table import LEGEND

    reasons: dict[str, int] = {}
    rows, columns = range(len(matrix.sources)), range(len(matrix.targets))
    why = [[reasons.setdefault(matrix.reason(row, column), len(reasons)) for column in columns] for row in rows]
    data = {
        "sources": [s.name for s in matrix.sources], "targets": [t.name for t in matrix.targets],
        "marks": [[matrix.mark(row, column) for column in columns] for row in rows], "why": why,
        "reasons": list(reasons)}
    title = html.escape(f"Who reaches what: {matrix.topology.source or 'topology'}, Docker {matrix.engine}")
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{title}</h1><p>{html.escape(LEGEND)}</p>"
        '<label>sources <input id="s" type="search"></label><label>targets <input id="g" type="search"></label>'
        '<div id="why" role="status">A cell says why when it is pointed at.</div>'
        '<div id="wrap"><table id="t"></table></div>'
        f'<script type="application/json" id="data">{text}</script><script>{_SCRIPT}</script></body></html>\n')
