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

from fastpath.cli.values import parse_assumptions, parse_count

if TYPE_CHECKING:
    from fastpath.engine import Engine
    from fastpath.host.model import Host
    from fastpath.packets import PacketBatch, Result
    from fastpath.ruleset.model import RuleRef

TOP_RULES = 20

Progress = Callable[[int, int], None]


class Profile(StrEnum):
    """The synthetic packet mixes."""

    traffic = "traffic"
    edges = "edges"
    uniform = "uniform"


def evaluate(
    host: Annotated[
        Path, typer.Option("--host", "-H", help="Capture folder, or one iptables-save file.", show_default=False)
    ],
    packets: Annotated[
        Path | None, typer.Option("--packets", help="Packets to read: a .parquet or .csv file.", show_default=False)
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
        typer.Option("--out", "-o", help="Write packets and results to a .parquet or .csv file.", show_default=False),
    ] = None,
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

    Examples:

        fastpath eval --host data/hosts/docker28-big --synth traffic -n 10M --seed 1

        fastpath eval --host firewall.save --packets seen.csv --out fates.parquet

        fastpath eval --host data/hosts/docker28-seed --synth edges --assume limit=match --counters
    """
    if (packets is None) == (synth is None):
        raise typer.BadParameter("give either --packets FILE or --synth PROFILE", param_hint="--packets / --synth")
    if (table is None) != (chain is None):
        raise typer.BadParameter("--table and --chain go together", param_hint="--table / --chain")
    _check_suffix(packets, "--packets")
    _check_suffix(out, "--out")
    assumed = parse_assumptions(assume or [])

    from fastpath.engine import compile
    from fastpath.host.model import Host

    loaded = Host.load(host)
    batch = _read(packets) if packets is not None else _make(loaded, count, seed, synth)
    engine = compile(loaded, table=table, chain=chain, assume=assumed)
    engine.evaluate(batch[:1], threads=1)  # the first call loads the kernels; it is not the packets' time
    with _progress(len(batch)) as progress:
        start = time.perf_counter()
        result = engine.evaluate(batch, threads=threads, progress=progress)
        seconds = time.perf_counter() - start
    if out is not None:
        _write(result, out, batch)
    summary = _summarise(loaded, engine, result, seconds, counters)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        _print(summary)


def _check_suffix(path: Path | None, option: str) -> None:
    if path is not None and path.suffix.lower() not in (".parquet", ".csv"):
        raise typer.BadParameter(f"{str(path)!r} is neither a .parquet nor a .csv file", param_hint=option)


def _read(path: Path) -> PacketBatch:
    from fastpath.packets import PacketBatch

    return PacketBatch.read_csv(path) if path.suffix.lower() == ".csv" else PacketBatch.read_parquet(path)


def _make(host: Host, count: int, seed: int, profile: Profile | None) -> PacketBatch:
    from fastpath.packets import synth

    return synth.packets(host, count, seed=seed, profile=(profile or Profile.traffic).value)


def _write(result: Result, path: Path, packets: PacketBatch) -> None:
    if path.suffix.lower() == ".csv":
        result.to_csv(path, packets=packets)
    else:
        result.to_parquet(path, packets=packets)


@contextmanager
def _progress(total: int) -> Iterator[Progress | None]:
    """A progress bar on standard error where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluating", total=total)

        def show(done: int, _total: int) -> None:
            bar.update(task, completed=done)

        yield show


def _summarise(host: Host, engine: Engine, result: Result, seconds: float, counters: bool) -> dict[str, Any]:
    """What the command prints, as plain values; most packets first."""
    import numpy as np

    from fastpath.packets.schema import Flag, Hook, Verdict

    brief = result.summary(TOP_RULES)
    hooks = np.bincount(result.hook.astype(np.intp) + len(Hook) * result.verdict.astype(np.intp))
    summary: dict[str, Any] = {
        "host": host.source,
        "packets": brief.packets,
        "seconds": seconds,
        "packets_per_second": brief.packets / seconds if seconds > 0 else None,
        "compile_seconds": engine.compile_seconds,
        "table_bytes": engine.nbytes,
        "verdicts": {verdict.name: packets for verdict, packets in brief.verdicts},
        "ended_at": {
            f"{Verdict(i // len(Hook)).name} {Hook(i % len(Hook)).name}": int(hooks[i])
            for i in np.argsort(-hooks, kind="stable").tolist()
            if hooks[i]
        },
        "nat_choices": int(np.count_nonzero(result.flags & Flag.NAT_CHOICE)),
        "deciding_rules": brief.deciding,
        "rules": [
            {"packets": found.packets, "verdict": found.verdict.name} | _rule(found.ref) for found in brief.decisions
        ],
    }
    if counters:
        summary["counters"] = [
            {"packets": counter.packets, "bytes": counter.bytes} | _rule(counter.ref) for counter in result.counters()
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

    ended = Table(box=box.SIMPLE, title=title("Verdicts"), title_justify="left")
    ended.add_column("verdict")
    ended.add_column("ended at")
    ended.add_column("packets", justify="right")
    ended.add_column("share", justify="right")
    for name, packets in summary["ended_at"].items():
        verdict, hook = name.split()
        ended.add_row(verdict, hook, f"{packets:,}", percent(packets, n))
    screen.print(ended)

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

    if "counters" in summary:
        counts = Table(box=box.SIMPLE, title=title("Counters"), title_justify="left")
        for column in ("packets", "bytes"):
            counts.add_column(column, justify="right")
        counts.add_column("table")
        counts.add_column("rule", overflow="fold")
        for row in summary["counters"]:
            counts.add_row(f"{row['packets']:,}", f"{row['bytes']:,}", row["table"], row["text"])
        screen.print(counts)

    if choices := summary["nat_choices"]:
        screen.print(f"{choices:,} packets met NAT where the kernel has a choice: the first possible value is taken.")
    rate = summary["packets_per_second"]
    speed = f" ({quantity(rate)} packets/s)" if rate else ""
    screen.print(
        f"{n:,} packets in {summary['seconds']:.2f} s{speed}; "
        f"{quantity(summary['table_bytes'])}B of tables compiled in {summary['compile_seconds']:.2f} s"
    )
