"""``fastpath capacity cost``: what netfilter costs a host's packets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastpath.cli.capacity.model import (
    BackendName,
    BackendOption,
    ModelOption,
    duration,
    load_model,
    load_packets,
    rate,
)
from fastpath.cli.evaluate import Profile
from fastpath.cli.values import parse_assumptions, parse_count

if TYPE_CHECKING:
    from fastpath.capacity.cpu.result import CostResult


def cost(
    host: Annotated[
        Path, typer.Option("--host", "-H", help="Capture folder, or one iptables-save file.", show_default=False)
    ],
    packets: Annotated[
        Path | None, typer.Option("--packets", help="Packets to read: a .parquet or .csv file.", show_default=False)
    ] = None,
    synth: Annotated[Profile, typer.Option(help="Without --packets: which packets to make up.")] = Profile.traffic,
    count: Annotated[
        int, typer.Option("-n", parser=parse_count, metavar="COUNT", help="How many to make up: 200k, 1M ...")
    ] = 100_000,
    seed: Annotated[int, typer.Option(help="Seed of the made-up packets.")] = 0,
    backend: BackendOption = BackendName.nft,
    reorder: Annotated[
        bool, typer.Option("--reorder", help="Also find out what a better order of the rules would save.")
    ] = False,
    assume: Annotated[
        list[str] | None,
        typer.Option(help="Decide what the header does not, as for fastpath eval.", show_default=False),
    ] = None,
    calibration: ModelOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to use.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What netfilter costs packets on a host: nanoseconds, by flow class, chain and rule.

    Every packet is followed through every rule that it examines, test by test.

    Examples:

        fastpath capacity cost --host data/hosts/docker28-big --backend nft

        fastpath capacity cost --host firewall.save --packets seen.parquet --reorder
    """
    from fastpath.capacity.cpu.evaluate import cost as evaluate
    from fastpath.host.model import Host

    loaded = Host.load(host)
    batch = load_packets(loaded, packets, count, seed, synth.value)
    found = evaluate(loaded, batch, backend=backend.value, model=load_model(calibration),
                     assume=parse_assumptions(assume or []), reorder=reorder, threads=threads)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
    else:
        _show(found)


def _show(found: CostResult) -> None:
    points = ", ".join(f"{'max' if p == 100 else f'p{p:g}'} {duration(ns)}" for p, ns in found.percentiles.items())
    typer.echo(f"{duration(found.mean_ns)} a packet with iptables-{found.backend}: {duration(found.rules_ns)} of it in "
               f"rules ({found.rules_examined:.0f} examined), {rate(found.packets_per_second)} on one core")
    typer.echo(f"{found.packets} packets: {points}")
    _table(("ns", "share", "p99 ns", "packets", "rules"), "flow class", [
        ((f"{c.mean_ns:.0f}", f"{c.share:.1%}", f"{c.p99_ns:.0f}", str(c.packets), f"{c.rules:.0f}"), c.name)
        for c in found.by_class[:12]])
    _table(("ns", "share", "rules"), "chain", [
        ((f"{c.ns:.0f}", f"{c.share:.1%}", f"{c.examined:.1f}"), f"{c.table} {c.chain}") for c in found.by_chain[:12]])
    _table(("ns", "share", "examined", "matched"), "rule", [
        ((f"{r.ns:.1f}", f"{r.share:.1%}", str(r.examined), str(r.matched)),
         f"{r.table} {r.chain} {r.number}: {r.text}") for r in found.top_rules])
    if found.reordering is not None:
        r = found.reordering
        if r.moves:
            typer.echo(f"\nanother order of the rules saves {duration(r.saved_ns)} a packet: {r.proof}")
            for move in r.moves:
                typer.echo(f"  {move.table} {move.chain}: rule {move.number} before rule {move.before}: {move.text}")
        else:
            typer.echo("\nno other order of the rules that is known to change nothing would save anything")
    typer.echo(f"\ncalibration: {found.calibration}")
    for line in found.assumptions:
        typer.echo(f"assumed: {line}")


def _table(heads: tuple[str, ...], last: str, rows: list[tuple[tuple[str, ...], str]]) -> None:
    if not rows:
        return
    widths = [max(len(head), *(len(cells[i]) for cells, _ in rows)) for i, head in enumerate(heads)]
    typer.echo("\n" + "  ".join(head.rjust(width) for head, width in zip(heads, widths, strict=True)) + f"  {last}")
    for cells, text in rows:
        typer.echo("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) + f"  {text}")
