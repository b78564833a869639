"""``fastpath capacity snat``: the source ports that SNAT and MASQUERADE use up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastpath.cli.capacity.sources import (
    DEFAULT_ENGINE,
    ComposeOption,
    EngineOption,
    HostOption,
    JsonOption,
    KernelOption,
    kernel_version,
    load_source,
    load_traffic,
)

if TYPE_CHECKING:
    from fastpath.capacity.ports.model import SnatResult


def snat(
    rate: Annotated[
        float | None, typer.Option("--rate", "-r", min=0, help="New connections per second to one destination, address "
                                   "and port.", show_default=False)
    ] = None,
    duration: Annotated[float, typer.Option(min=0, help="Seconds that a connection lasts.")] = 1.0,
    after: Annotated[
        float | None, typer.Option(min=0, help="Seconds that its entry stays afterwards: by default 120 for TCP "
                                   "(TIME_WAIT), 30 for UDP.", show_default=False)
    ] = None,
    protocol: Annotated[str, typer.Option("--protocol", "-p", help="tcp, udp or sctp.")] = "tcp",
    to_ports: Annotated[
        str | None, typer.Option(metavar="FIRST-LAST", help="The rule's --to-ports.", show_default=False)
    ] = None,
    random: Annotated[bool, typer.Option("--random", help="The rule has --random or --random-fully.")] = False,
    sources: Annotated[int, typer.Option(min=1, help="Different sources (containers).")] = 100,
    addresses: Annotated[int, typer.Option(min=1, help="Source addresses to choose from.")] = 1,
    traffic: Annotated[
        Path | None, typer.Option("--traffic", "-t", help="Instead of --rate: a traffic profile, with --host or "
                                  "--compose, whose rules say what is changed.", show_default=False)
    ] = None,
    host: HostOption = None,
    compose: ComposeOption = None,
    engine: EngineOption = DEFAULT_ENGINE,
    kernel: KernelOption = "6.12",
    as_json: JsonOption = False,
) -> None:
    """How many source ports are in use, how many connections get none, and what rate is the most.

    Examples:

        fastpath capacity snat --rate 400 --duration 2 --kernel 5.15

        fastpath capacity snat --compose data/docker/shop.yaml --traffic data/docker/shop-traffic.yaml
    """
    from fastpath.capacity.ports.model import PortRange, SnatFlow, snat_ports

    if (rate is None) == (traffic is None):
        raise typer.BadParameter("give one of them", param_hint="--rate / --traffic")
    version = kernel_version(kernel)
    if traffic is not None:
        from fastpath.capacity.traffic.profile import Profile

        flows = list(load_traffic(load_source(host, compose, engine), Profile.load(traffic)).snat)
    elif host is not None or compose:
        raise typer.BadParameter("a host goes with --traffic", param_hint="--host / --compose")
    else:
        ports = PortRange(random=random)
        if to_ports is not None:
            first, _, last = to_ports.partition("-")
            try:
                ports = PortRange(int(first), int(last or first), random)
            except ValueError:
                raise typer.BadParameter(f"{to_ports!r} should be like 5000-5999", param_hint="--to-ports") from None
        stays = (30.0 if protocol == "udp" else 120.0) if after is None else after
        flows = [SnatFlow("the host's address", "one destination", 0, protocol, rate or 0.0, duration, stays, sources,
                          addresses, ports=ports)]
    found = snat_ports(flows, kernel=version)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
    else:
        _show(found)


def _show(found: SnatResult) -> None:
    from fastpath.capacity.report import numbers

    if not found.pools:
        typer.echo("no rule changes the source of this traffic")
    for pool in found.pools:
        where = f"{pool.destination}:{pool.port}" if pool.port else pool.destination
        name = f"{pool.name}: " if pool.name else ""
        typer.echo(f"{name}{pool.address} to {where}/{pool.protocol}")
        whole = numbers.count(pool.ports * pool.addresses)
        typer.echo(f"  {numbers.count(pool.in_use)} of {whole} ports in use: {numbers.count(pool.rate)} connections/s "
                   f"hold one for {numbers.span(pool.hold)} each")
        if pool.evicting:
            typer.echo(f"  {numbers.count(pool.active)} of them ({numbers.share(pool.share)} of the ports) by open "
                       "connections; those of closed ones may be taken over")
        typer.echo(f"  {numbers.share(pool.lost)} of them get no port")
        typer.echo(f"  at most {numbers.count(pool.max_rate)}/s; one in a thousand fails at "
                   f"{numbers.count(pool.safe_rate)}/s, {numbers.times(pool.growth)} this traffic")
        if pool.client_rate < pool.safe_rate:
            typer.echo(f"  before that the sources' own ports run out, at {numbers.count(pool.client_rate)}/s")
