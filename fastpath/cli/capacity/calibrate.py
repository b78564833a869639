"""``fastpath capacity calibrate``: measures this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastpath.capacity.cpu.calibrate import Calibration


def calibrate(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer and shorter rounds; rarer matches are left out.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the figures here, for --calibration.", show_default=False)
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Print every reading beside what the fit says of it.")] = False,
) -> None:
    """Measure what rules cost on this machine, in network namespaces of its own, and print the fit and its error.

    Needs root or unprivileged user namespaces, iptables, nft and ipset. Nothing of the machine's own network is read or
    changed. It takes some two minutes (--quick: about one); let the machine do nothing else.

    Examples:

        fastpath capacity calibrate --out here.json

        fastpath capacity cost --host data/hosts/docker28-big --calibration here.json
    """
    from fastpath.capacity.cpu.calibrate import calibrate as measure

    terminal = sys.stderr.isatty()

    def progress(done: int, total: int, what: str) -> None:
        if terminal:
            print(f"\r{what}: {done} of {total} readings ", end="", file=sys.stderr, flush=True)

    found = measure(quick=quick, progress=progress)
    if terminal:
        print(file=sys.stderr)
    _show(found, full)
    if out is not None:
        found.model.save(out)
        typer.echo(f"written to {out}")


def _show(found: Calibration, full: bool) -> None:
    typer.echo(str(found.model))
    for name, costs in found.model.backends.items():
        typer.echo(f"\niptables-{name}, ns")
        for what, figures in (("way", costs.base), ("chain of table", costs.hook), ("connection", costs.track),
                              ("nat", costs.nat), ("rules", costs.rules)):
            words = [f"{key} {ns:.3g}" for key, ns in figures.items()]
            typer.echo(f"  {what}: {', '.join(words)}")
        typer.echo(f"  another shape than the rule before: {costs.switch_ns:.2g}")
        typer.echo(f"  memory: {costs.line_ns:.2g} for each 64 bytes of rules beyond {costs.cache_bytes >> 10} KiB, "
                   f"{costs.deep_ns:.2g} more beyond {costs.deep_bytes >> 10} KiB")
        if costs.fit is not None:
            fit = costs.fit
            typer.echo(f"  fit: {fit.patterns} readings explained to {fit.median_error:.1%} (median), "
                       f"{fit.worst_error:.1%} (worst: {fit.worst}); readings repeat to {fit.spread:.1%}")
        if full:
            for reading, said in zip(found.observed[name], found.explained[name], strict=True):
                typer.echo(f"  {reading.ns:9.2f} {said:9.2f} {said / reading.ns - 1:+7.1%}  {reading.name}")
    for line in found.refused:
        typer.echo(f"not measured: {line}", err=True)
