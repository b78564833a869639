"""``fastpath capacity conntrack``: how big the connection table gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastpath.cli.capacity.sources import DEFAULT_ENGINE, ComposeOption, EngineOption, HostOption, JsonOption

if TYPE_CHECKING:
    from fastpath.capacity.connections.model import ConntrackResult


def conntrack(
    rate: Annotated[
        list[str] | None,
        typer.Option("--rate", "-r", metavar="PROTOCOL=N[,SECONDS]", show_default=False,
                     help="New connections per second, and how long each lasts: tcp=500,30. Repeatable."),
    ] = None,
    traffic: Annotated[
        Path | None, typer.Option("--traffic", "-t", help="Instead of --rate: a traffic profile, with --host or "
                                  "--compose to tell what gets through.", show_default=False)
    ] = None,
    host: HostOption = None,
    compose: ComposeOption = None,
    engine: EngineOption = DEFAULT_ENGINE,
    timeout: Annotated[
        list[str] | None,
        typer.Option("--timeout", metavar="NAME=SECONDS", show_default=False,
                     help="One of the kernel's timeouts: tcp_timeout_established=86400. Repeatable."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--max", min=1, help="nf_conntrack_max; by default the host's, else 262144.",
                                 show_default=False)
    ] = None,
    flood: Annotated[
        list[float] | None,
        typer.Option("--flood", min=0, help="A SYN flood of so many packets per second on top. Repeatable.",
                     show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """How many connections conntrack holds, in which states, and what to set nf_conntrack_max to.

    Examples:

        fastpath capacity conntrack --rate tcp=500,30 --rate udp=2000 --flood 100000

        fastpath capacity conntrack --compose data/docker/shop.yaml --traffic data/docker/shop-traffic.yaml
    """
    from fastpath.capacity.connections.lifetimes import ConnectionClass
    from fastpath.capacity.connections.model import LARGEST_DEFAULT, syn_flood
    from fastpath.capacity.connections.model import conntrack as count
    from fastpath.capacity.connections.timeouts import Timeouts
    from fastpath.capacity.durations import Duration

    times = Timeouts.read(dict(_pair(text, "--timeout") for text in timeout or ()))
    classes: list[ConnectionClass] = []
    for text in rate or ():
        name, _, numbers = text.partition("=")
        first, *rest = numbers.split(",")
        try:
            values = [float(first), *map(float, rest)]
        except ValueError:
            values = []
        if len(values) not in (1, 2):
            raise typer.BadParameter(f"{text!r} should be like tcp=500 or tcp=500,30", param_hint="--rate")
        classes.append(ConnectionClass(name, name, values[0], Duration.read(values[1] if rest else 0.0)))
    if traffic is not None:
        from fastpath.capacity.traffic.profile import Profile
        from fastpath.cli.capacity.sources import load_source, load_traffic

        if classes:
            raise typer.BadParameter("give --rate or --traffic", param_hint="--traffic")
        source = load_source(host, compose, engine)
        classes += load_traffic(source, Profile.load(traffic)).connections()
        if timeout is None:
            times = Timeouts.of_host(source.host)
        known = source.host.sysctl("net.netfilter.nf_conntrack_max", -1)
        limit = limit or (known if known > 0 else None)
    elif host is not None or compose:
        raise typer.BadParameter("a host goes with --traffic", param_hint="--host / --compose")
    if not classes:
        raise typer.BadParameter("give some connections", param_hint="--rate / --traffic")
    floods = [syn_flood(each) for each in flood or ()]
    found = count(classes, timeouts=times, limit=limit or LARGEST_DEFAULT, bursts=floods)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
    else:
        _show(found)


def _pair(text: str, option: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise typer.BadParameter(f"{text!r} should be NAME=SECONDS", param_hint=option) from None


def _show(found: ConntrackResult) -> None:
    from fastpath.capacity.report import numbers

    typer.echo(f"{numbers.count(found.entries)} entries on average, {numbers.count(found.peak)} at peak: "
               f"{numbers.share(found.share)} of nf_conntrack_max {numbers.count(found.limit)}, which is full at "
               f"{numbers.times(found.growth)} this traffic")
    typer.echo("\n     entries      stay  class, state")
    for row in sorted(found.rows, key=lambda row: -row.entries):
        if row.entries >= 0.5:
            name = f"{row.name}, " if row.name != row.protocol else ""
            typer.echo(f"{numbers.count(row.entries):>12}  {numbers.span(row.seconds):>8}  "
                       f"{name}{row.protocol} {row.state}")
    typer.echo(f"\nto set (a quarter above the peak, {numbers.size(found.limit_bytes)} when full):")
    for line in found.sysctls():
        typer.echo(f"  {line}")
    for burst in found.bursts:
        full = f"full after {numbers.span(burst.seconds)}" if burst.seconds < float("inf") else "never full"
        typer.echo(f"\n{burst.name}, {numbers.count(burst.rate)}/s: adds up to {numbers.count(burst.adds)} entries; "
                   f"{full}")
