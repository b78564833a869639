"""``fastpath capacity report``: everything on one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fastpath.cli.capacity.model import BackendName, BackendOption, ModelOption, load_model
from fastpath.cli.capacity.sources import (
    DEFAULT_ENGINE,
    ComposeOption,
    EngineOption,
    HostOption,
    JsonOption,
    KernelOption,
    LimitOption,
    TrafficOption,
    kernel_version,
    load_source,
    load_traffic,
)
from fastpath.cli.values import parse_count


def report(
    traffic: TrafficOption,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page to write, report.html.", show_default=False)
    ] = None,
    host: HostOption = None,
    compose: ComposeOption = None,
    engine: EngineOption = DEFAULT_ENGINE,
    cores: Annotated[float, typer.Option(min=0.01, help="Cores that may be spent on netfilter.")] = 1.0,
    limit: LimitOption = None,
    kernel: KernelOption = "6.12",
    backend: BackendOption = BackendName.nft,
    calibration: ModelOption = None,
    grow: Annotated[
        bool, typer.Option("--grow/--no-grow", help="Also see what a packet costs as the host grows: more networks on "
                           "several Docker engines for --compose, more rules for --host.")
    ] = True,
    reorder: Annotated[
        bool, typer.Option("--reorder", help="Also find out what a better order of the rules would save.")
    ] = False,
    png: Annotated[
        Path | None, typer.Option("--png", help="Folder to write the charts to, as PNG.", show_default=False)
    ] = None,
    count: Annotated[
        int, typer.Option("-n", parser=parse_count, metavar="COUNT", help="Packets to evaluate: 20k, 100k ...")
    ] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Where a host runs out under a profile's traffic: one page of answers, charts, assumptions and inputs.

    The page is one file that fetches nothing; it is made for screens, light and dark, and for paper.

    Examples:

        fastpath capacity report --compose data/docker/shop.yaml --traffic data/docker/shop-traffic.yaml -o report.html

        fastpath capacity report --host data/hosts/docker28-big --traffic profile.yaml --json
    """
    from fastpath.capacity.cpu.evaluate import cost
    from fastpath.capacity.report import numbers
    from fastpath.capacity.report.gather import gather
    from fastpath.capacity.report.grow import by_networks, by_rules
    from fastpath.capacity.traffic.profile import Profile

    version = kernel_version(kernel)
    source = load_source(host, compose, engine)
    profile = Profile.load(traffic)
    packets = load_traffic(source, profile, count, seed)
    model = load_model(calibration)
    nanoseconds = cost(source.host, packets.packets, backend=backend.value, model=model, reorder=reorder)
    sweep = None
    budgets = {f"{cores:g} core{'s' if cores != 1 else ''} for this traffic": 1e9 * cores / packets.packet_rate}
    if grow and source.topology is not None:
        sweep = by_networks(source.topology, profile, backend=backend.value, model=model, budgets=budgets, seed=seed)
    elif grow:
        sweep = by_rules(source.host, profile, backend=backend.value, model=model, budgets=budgets, seed=seed)
    words = ["fastpath capacity report", *source.words, "--traffic", str(traffic), f"--cores {cores:g}",
             f"--kernel {kernel}", f"--backend {backend.value}", f"-n {count}", f"--seed {seed}",
             *([f"--max {limit}"] if limit is not None else []), *(["--reorder"] if reorder else []),
             *([f"--calibration {calibration}"] if calibration is not None else [])]
    found = gather(source.host, packets, cost=nanoseconds, sweep=sweep, cores=cores, limit=limit, kernel=version,
                   inputs={"Command": " ".join(words), "Traffic profile": profile.text})
    if out is not None:
        out.write_text(found.html(), encoding="utf-8")
    if png is not None:
        png.mkdir(parents=True, exist_ok=True)
        for chart in found.charts():
            (png / f"{chart.name}.png").write_bytes(chart.png())
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    for answer in found.answers:
        typer.echo(f"{answer.what}: {numbers.times(answer.factor)} this traffic; {answer.now}")
        if answer.advice:
            typer.echo(f"  {answer.advice}")
    if out is not None:
        typer.echo(f"written to {out}")
    elif png is None:
        typer.echo("give -o report.html for the page", err=True)
