"""``fastpath docker``: the rules and the host that a Docker engine makes of a Compose file, a capture or a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastpath.docker import Topology

app = typer.Typer(
    name="docker",
    help="The rules and the host that a Docker engine makes of a Compose file, a capture or a plan.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

From = Annotated[
    list[Path],
    typer.Option(
        "--from", "-f", show_default=False,
        help="Compose file (repeatable: merged), capture folder with networks.json and containers.json, or a topology "
        "in YAML or JSON.",
    ),
]
EngineOption = Annotated[
    str, typer.Option("--engine", "-e", help="Docker version, such as 28.5, 27 or 17.06.", show_default=False)
]
Env = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE for a Compose file, before the environment's. Repeatable.",
                                   show_default=False)
]
Profile = Annotated[list[str] | None, typer.Option(help="Active Compose profile. Repeatable.", show_default=False)]
Project = Annotated[str | None, typer.Option(help="Compose project name.", show_default=False)]
DaemonFile = Annotated[
    Path | None, typer.Option("--daemon", help="The daemon's settings, a daemon.json.", show_default=False)
]


@app.command()
def rules(
    source: From,
    engine: EngineOption,
    table: Annotated[str | None, typer.Option("--table", "-t", help="Only this table.", show_default=False)] = None,
    env: Env = None,
    profile: Profile = None,
    project: Project = None,
    daemon: DaemonFile = None,
) -> None:
    """Print the iptables rules that the engine writes, as iptables-save does.

    Examples:

        fastpath docker rules --from data/docker/shop.yaml --engine 27

        fastpath docker rules --from compose.yaml --from compose.prod.yaml --engine 29 --table nat
    """
    topology = _topology(source, env, profile, project, daemon)
    ruleset = topology.host(engine).ruleset
    if table is not None:
        from dataclasses import replace

        ruleset = replace(ruleset, tables=tuple(t for t in ruleset.tables if t.name == table))
    _notes(topology, engine)
    typer.echo(str(ruleset), nl=False)


@app.command()
def host(
    source: From,
    engine: EngineOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.", show_default=False)],
    env: Env = None,
    profile: Profile = None,
    project: Project = None,
    daemon: DaemonFile = None,
) -> None:
    """Write the host that the engine makes as a folder, which every other command takes as --host.

    Examples:

        fastpath docker host --from data/docker/shop.yaml --engine 28.5 --out /tmp/shop
    """
    from fastpath.docker.folder import write_host

    topology = _topology(source, env, profile, project, daemon)
    made = topology.host(engine)
    files = write_host(made, out)
    _notes(topology, engine)
    count = sum(len(chain.rules) for each in made.ruleset.tables for chain in each.chains)
    typer.echo(f"{out}: {count} rules, {len(made.interfaces)} interfaces, in {', '.join(file.name for file in files)}")


def _topology(
    source: list[Path], env: list[str] | None, profiles: list[str] | None, project: str | None, daemon: Path | None
) -> Topology:
    import os

    from fastpath.docker import Daemon
    from fastpath.docker.files import read_any

    given: dict[str, str] = {}
    for item in env or ():
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{item!r} should be NAME=VALUE", param_hint="--env")
        given[name] = value
    return read_any(
        source, env={**os.environ, **given}, project=project, profiles=profiles or (),
        daemon=Daemon.from_json(daemon) if daemon is not None else None)


def _notes(topology: Topology, engine: str) -> None:
    for note in topology.notes(engine):
        typer.echo(f"fastpath: {note}", err=True)
