"""``fastpath eval``: many packets through a host's rules, and a summary of what became of them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastpath.cli.compiling import compiling
from fastpath.cli.values import parse_assumptions, parse_count

if TYPE_CHECKING:
    from fastpath.engine import Engine
    from fastpath.host.model import Host
    from fastpath.packets import Totals
    from fastpath.ruleset.model import RuleRef

TOP_RULES = 20

Progress = Callable[[int, int], None]


class Profile(StrEnum):
    """The synthetic packet mixes."""

    traffic = "traffic"
    edges = "edges"
    uniform = "uniform"


class Addresses(StrEnum):
    """How addresses are written."""

    text = "text"
    int = "int"


def evaluate(
    host: Annotated[
        Path, typer.Option("--host", "-H", help="Capture folder, or one iptables-save file.", show_default=False)
    ],
    packets: Annotated[
        Path | None,
        typer.Option("--packets", help="Packets to read: a .parquet or .csv file, or a folder of them.",
                     show_default=False),
    ] = None,
    synth: Annotated[
        Profile | None,
        typer.Option(help="Make packets up: a realistic mix, the edges of the rules, or uniform.", show_default=False),
    ] = None,
    count: Annotated[
        int, typer.Option("-n", parser=parse_count, metavar="COUNT", help="How many to make up: 200k, 10M, 1e6 ...")
    ] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seed of the made-up packets.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write packets and results to a .parquet or .csv file, or to a new folder.",
                     show_default=False),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Only these result columns, with commas between them: verdict,rule ... Others cost nothing.",
                     show_default=False),
    ] = None,
    results_only: Annotated[
        bool, typer.Option("--results-only", help="With --out: leave the packets' own columns out.")
    ] = False,
    addresses: Annotated[
        Addresses, typer.Option(help="With --out: addresses as text, or as numbers (smaller and much faster).")
    ] = Addresses.text,
    counters: Annotated[bool, typer.Option("--counters", help="Print the rules' packet and byte counts.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to use; all cores where not given.", show_default=False)
    ] = None,
    table: Annotated[str | None, typer.Option(help="With --chain: evaluate this one chain alone.")] = None,
    chain: Annotated[str | None, typer.Option(help="With --table: evaluate this one chain alone.")] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(
            help="Decide what the header does not: MODULE=match, MODULE=no-match, MODULE=column:NAME, or a rule's id "
            "in place of the module. May be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Evaluate packets: each one's verdict, the rule that decided, its egress and its tuple after NAT.

    Prints how many packets met each verdict and which rules decided most of them; --out keeps every packet's result.
    Packets are read, evaluated and written piece by piece, so that their number does not matter to memory.

    Examples:

        fastpath eval --host data/hosts/docker28-big --synth traffic -n 10M --seed 1

        fastpath eval --host firewall.save --packets seen.csv --out fates.parquet

        fastpath eval --host firewall.save --packets month/ --out fates/ --columns verdict,rule

        fastpath eval --host data/hosts/docker28-seed --synth edges --assume limit=match --counters
    """
    if (packets is None) == (synth is None):
        raise typer.BadParameter("give either --packets FILE or --synth PROFILE", param_hint="--packets / --synth")
    if (table is None) != (chain is None):
        raise typer.BadParameter("--table and --chain go together", param_hint="--table / --chain")
    if packets is not None and not packets.is_dir():
        _check_suffix(packets, "--packets")
    if out is not None and out.suffix and not out.is_dir():
        _check_suffix(out, "--out")
    assumed = parse_assumptions(assume or [])

    from fastpath.engine import compile
    from fastpath.host.model import Host
    from fastpath.packets import synth as made
    from fastpath.packets.result import wanted_columns

    names = [name.strip() for name in columns.split(",")] if columns is not None else None
    wanted_columns(names)
    loaded = Host.load(host)
    source: Any = packets
    if synth is not None:
        source = made.stream(loaded, count, seed, synth.value)
    with compiling() as building:
        engine = compile(loaded, table=table, chain=chain, assume=assumed, progress=building)
    engine.warm_up()  # loading the kernels is not the packets' time
    with _progress() as progress:
        def show(done: int, total: int) -> None:
            if progress is not None:
                progress(done, count if synth is not None else total)

        start = time.perf_counter()
        stream = engine.evaluate_stream(source, columns=names, threads=threads, progress=show)
        if out is not None:
            totals = stream.write(out, packets=not results_only, addresses=addresses.value)
        else:
            totals = stream.run()
        elapsed = time.perf_counter() - start
    summary = _summarise(loaded, engine, totals, stream.seconds, elapsed, counters)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        _print(summary)


def _check_suffix(path: Path, option: str) -> None:
    if path.suffix.lower() not in (".parquet", ".pq", ".csv"):
        raise typer.BadParameter(f"{str(path)!r} is neither a .parquet nor a .csv file", param_hint=option)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A progress bar on standard error where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluating", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        yield show


def _summarise(
    host: Host, engine: Engine, totals: Totals, seconds: float, elapsed: float, counters: bool
) -> dict[str, Any]:
    """What the command prints, as plain values; most packets first. What needs an absent column is left out."""
    import numpy as np

    from fastpath.packets.schema import Hook, Verdict

    there = set(totals.columns)
    summary: dict[str, Any] = {
        "host": host.source,
        "packets": totals.packets,
        "seconds": seconds,
        "packets_per_second": totals.packets / seconds if seconds > 0 else None,
        "elapsed_seconds": elapsed,
        "compile_seconds": engine.compile_seconds,
        "table_bytes": engine.nbytes,
        "columns": list(totals.columns),
    }
    if "verdict" in there:
        brief = totals.summary(TOP_RULES)
        summary["verdicts"] = {verdict.name: packets for verdict, packets in brief.verdicts}
        if "hook" in there:
            ended = totals.ended.ravel()
            summary["ended_at"] = {
                f"{Verdict(i // len(Hook)).name} {Hook(i % len(Hook)).name}": int(ended[i])
                for i in np.argsort(-ended, kind="stable").tolist()
                if ended[i]
            }
        if "rule" in there:
            summary["deciding_rules"] = brief.deciding
            summary["rules"] = [
                {"packets": found.packets, "verdict": found.verdict.name} | _rule(found.ref)
                for found in brief.decisions
            ]
    if "flags" in there:
        summary["nat_choices"] = totals.choices
    if counters:
        summary["counters"] = [
            {"packets": counter.packets, "bytes": counter.bytes} | _rule(counter.ref) for counter in totals.counters()
        ]
    return summary


def _rule(ref: RuleRef | None) -> dict[str, Any]:
    if ref is None:
        return {"rule": -1, "table": None, "chain": None, "number": None, "text": "(none: routing, or no filter table)"}
    return {"rule": ref.id, "table": ref.table, "chain": ref.chain, "number": ref.number, "text": ref.text}


def _print(summary: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from fastpath.cli.render import console, percent, quantity, title

    screen = console()
    n = summary["packets"]

    if "verdicts" in summary:
        ended = Table(box=box.SIMPLE, title=title("Verdicts"), title_justify="left")
        ended.add_column("verdict")
        ended.add_column("ended at")
        ended.add_column("packets", justify="right")
        ended.add_column("share", justify="right")
        for name, packets in summary.get("ended_at", summary["verdicts"]).items():
            verdict, _, hook = name.partition(" ")
            ended.add_row(verdict, hook, f"{packets:,}", percent(packets, n))
        screen.print(ended)
    if "rules" in summary:
        _print_rules(summary)
    if "counters" in summary:
        counts = Table(box=box.SIMPLE, title=title("Counters"), title_justify="left")
        for column in ("packets", "bytes"):
            counts.add_column(column, justify="right")
        counts.add_column("table")
        counts.add_column("rule", overflow="fold")
        for row in summary["counters"]:
            counts.add_row(f"{row['packets']:,}", f"{row['bytes']:,}", row["table"], row["text"])
        screen.print(counts)

    if choices := summary.get("nat_choices"):
        screen.print(f"{choices:,} packets met NAT where the kernel has a choice: the first possible value is taken.")
    rate = summary["packets_per_second"]
    speed = f" ({quantity(rate)} packets/s)" if rate else ""
    around = summary["elapsed_seconds"] - summary["seconds"]
    longer = f", {around:.2f} s more to read or make and write them" if around > 0.5 else ""
    screen.print(
        f"{n:,} packets in {summary['seconds']:.2f} s{speed}{longer}; "
        f"{quantity(summary['table_bytes'])}B of tables compiled in {summary['compile_seconds']:.2f} s"
    )


def _print_rules(summary: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from fastpath.cli.render import console, percent, title

    screen = console()
    n = summary["packets"]
    rules = Table(box=box.SIMPLE, title=title("Deciding rules"), title_justify="left")
    rules.add_column("packets", justify="right")
    rules.add_column("share", justify="right")
    rules.add_column("verdict")
    rules.add_column("table")
    rules.add_column("no.", justify="right")
    rules.add_column("rule", overflow="fold")
    for row in summary["rules"]:
        number = "-" if row["rule"] < 0 else str(row["number"]) if row["number"] else "policy"
        share = percent(row["packets"], n)
        rules.add_row(f"{row['packets']:,}", share, row["verdict"], row["table"] or "-", number, row["text"])
    screen.print(rules)
    if summary["deciding_rules"] > len(summary["rules"]):
        screen.print(f"and {summary['deciding_rules'] - len(summary['rules']):,} more\n")
