"""``fastpath capacity sweep``: what Docker hosts cost as they grow, engine by engine."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastpath.cli.capacity.model import BackendName, BackendOption, ModelOption, duration, load_model

if TYPE_CHECKING:
    from fastpath.capacity.growth.result import SweepResult


class Grows(StrEnum):
    """What a sweep can make larger."""

    networks = "networks"
    containers = "containers"
    ports = "ports"
    rules = "rules"


def sweep(
    grow: Annotated[
        Grows, typer.Option(help="networks (of three containers, two of them with a published port), containers of "
                                 "one network, published ports of one container, or DOCKER-USER rules.")
    ] = Grows.networks,
    sizes: Annotated[
        str, typer.Option(help="Sizes: FIRST:LAST:STEP, or some with commas between.")
    ] = "10:200:10",
    engine: Annotated[
        list[str] | None, typer.Option("--engine", "-e", help="Docker version. Repeatable.", show_default=False)
    ] = None,
    backend: BackendOption = BackendName.nft,
    packets: Annotated[int, typer.Option("-n", min=1, help="Packets to make up for each host.")] = 2000,
    budget_ns: Annotated[
        list[float] | None, typer.Option("--budget-ns", help="Mean ns a packet may take. Repeatable.",
                                         show_default=False)
    ] = None,
    budget_mpps: Annotated[
        list[float] | None, typer.Option("--budget-mpps", help="Million packets/s that must pass. Repeatable.",
                                         show_default=False)
    ] = None,
    cores: Annotated[int, typer.Option(min=1, help="Cores that --budget-mpps may use.")] = 1,
    compile_tables: Annotated[
        bool, typer.Option("--compile", help="Also compile fastpath's tables: their size, and how long it takes.")
    ] = False,
    calibration: ModelOption = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Processes to use.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the rows to a .csv or .parquet file.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What netfilter costs Docker hosts as they grow, where that bends, and where a budget breaks.

    Examples:

        fastpath capacity sweep --engine 20.10 --engine 28 --engine 29 --budget-ns 5000

        fastpath capacity sweep --grow ports --sizes 1,10,100,1000 --engine 28 --backend legacy --budget-mpps 1
    """
    from fastpath.capacity.growth.shapes import SHAPES
    from fastpath.capacity.growth.sweep import mpps_budget
    from fastpath.capacity.growth.sweep import sweep as run

    _check_out(out)
    budgets = {f"{ns:g} ns": ns for ns in budget_ns or ()}
    budgets |= {f"{mpps:g} Mpps on {cores} core{'s' * (cores > 1)}": mpps_budget(mpps, cores)
                for mpps in budget_mpps or ()}
    found = run(SHAPES[grow.value], parse_sizes(sizes), packets, engine or ["20.10", "27", "28", "29"],
                name=grow.value, backend=backend.value, model=load_model(calibration), budgets=budgets,
                compile=compile_tables, processes=processes, progress=_progress if sys.stderr.isatty() else None)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if out is not None:
        _write(found, out)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
    else:
        _show(found)


def parse_sizes(text: str) -> list[int]:
    """The sizes of ``10:200:10`` (the last one included) or ``1,10,100``."""
    try:
        if ":" in text:
            first, last, *step = (int(part) for part in text.split(":"))
            found = list(range(first, last + 1, step[0] if step else 1))
        else:
            found = [int(part) for part in text.split(",")]
    except (ValueError, IndexError):
        found = []
    if not found or min(found) < 0:
        raise typer.BadParameter(f"{text!r} should be sizes such as 10:200:10 or 1,10,100", param_hint="--sizes")
    return found


def _progress(done: int, total: int) -> None:
    print(f"\r{done} of {total} hosts ", end="", file=sys.stderr, flush=True)


def _check_out(out: Path | None) -> None:
    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter(f"{out} should end in .csv or .parquet", param_hint="--out")


def _write(found: SweepResult, out: Path) -> None:
    if out.suffix == ".csv":
        from pyarrow import csv

        csv.write_csv(found.to_arrow(), out)
    else:
        import pyarrow.parquet as pq

        pq.write_table(found.to_arrow(), out)


def _show(found: SweepResult) -> None:
    compiled = any(row.table_bytes is not None for row in found.rows)
    typer.echo(f"{'engine':8} {found.name:>10} {'rules':>7} {'walked':>7} {'mean':>9} {'p50':>9} {'p99':>9} "
               f"{'restore':>9} {'kernel':>9}" + ("   tables  compile" if compiled else ""))
    for row in found.rows:
        tables = ""
        if row.table_bytes is not None and row.compile_seconds is not None:
            tables = f" {row.table_bytes >> 10:>5} KiB {row.compile_seconds:>6.1f} s"
        typer.echo(f"{row.engine:8} {row.size:>10g} {row.rules:>7} {row.rules_examined:>7.0f} "
                   f"{duration(row.mean_ns):>9} {duration(row.p50_ns):>9} {duration(row.p99_ns):>9} "
                   f"{row.restore_bytes >> 10:>5} KiB {row.kernel_bytes >> 10:>5} KiB{tables}")
    for knee in found.knees:
        if knee.size is None:
            typer.echo(f"engine {knee.engine}: {knee.after:.3g} ns more for each of {found.name}, all along the curve")
        else:
            typer.echo(f"engine {knee.engine}: {knee.before:.3g} ns more for each of {found.name} up to "
                       f"{knee.size:g}, {knee.after:.3g} ns beyond")
    for crossing in found.crossings:
        where = "not reached" if crossing.size is None else f"broken at {crossing.size:.0f} {found.name}"
        typer.echo(f"engine {crossing.engine}: {crossing.what} {where}")
    typer.echo(f"calibration: {found.calibration}")
