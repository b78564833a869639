"""``fastpath bench``: how fast this machine evaluates packets through these rules."""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from fastpath.cli.compiling import compiling
from fastpath.cli.values import parse_count

ROUNDS = 5
PROFILES = ("traffic", "edges", "uniform")


def bench(
    host: Annotated[
        Path, typer.Option("--host", "-H", help="Capture folder, or one iptables-save file.", show_default=False)
    ],
    count: Annotated[
        int, typer.Option("-n", parser=parse_count, metavar="COUNT", help="How many packets: 200k, 10M, 1e6 ...")
    ] = 1_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Measure how fast packets go through a host's rules on this machine.

    Compiles the rules, makes packets up, evaluates each kind five times and prints the medians: on one core with all
    result columns and counters, with verdicts alone, and on all cores.

    Examples:

        fastpath bench --host data/hosts/docker28-big

        fastpath bench --host firewall.save -n 10M
    """
    from fastpath.engine import compile
    from fastpath.host.model import Host
    from fastpath.packets import synth

    loaded = Host.load(host)
    with compiling() as building:
        engine = compile(loaded, progress=building)
    engine.warm_up()
    rows = []
    for profile in PROFILES:
        packets = synth.packets(loaded, count, seed=1, profile=profile)
        engine.evaluate(packets)

        def rate(n: int = len(packets), given: Any = packets, **how: Any) -> float:
            times = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                engine.evaluate(given, **how)
                times.append(time.perf_counter() - start)
            return n / median(times)

        rows.append({
            "packets": profile, "one_core": rate(threads=1), "all_cores": rate(),
            "verdicts": rate(threads=1, columns=["verdict"], counters=False),
        })
    found = {
        "host": loaded.source, "rules": len(engine.rules), "compile_seconds": engine.compile_seconds,
        "table_bytes": engine.nbytes, "structures": engine.structures, "count": count, "rates": rows,
    }
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from fastpath.cli.render import console, quantity, title

    screen = console()
    table = Table(box=box.SIMPLE, title=title(f"Packets/s, {found['count']:,} packets, medians"), title_justify="left")
    for column in ("packets", "one core", "one core, verdicts only", "all cores"):
        table.add_column(column, justify="left" if column == "packets" else "right")
    for row in found["rates"]:
        table.add_row(row["packets"], *(quantity(row[key]) for key in ("one_core", "verdicts", "all_cores")))
    screen.print(table)
    screen.print(f"{found['rules']:,} rules and policies compiled in {found['compile_seconds']:.2f} s, "
                 f"{quantity(found['table_bytes'])}B of tables")
