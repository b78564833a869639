"""``fastpath docker``: the rules and the host that a Docker engine makes of a Compose file, a capture or a plan, who
reaches what there, and what changes with another engine or file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastpath.docker import Topology

app = typer.Typer(
    name="docker",
    help="The rules and the host that a Docker engine makes of a Compose file, a capture or a plan; who reaches what.",
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


@app.command()
def reach(
    source: From,
    engine: EngineOption,
    only: Annotated[list[str] | None, typer.Option(
        "--source", "-s", help="Only this container, host or external. Repeatable.", show_default=False)] = None,
    target: Annotated[list[str] | None, typer.Option(
        "--target", "-t", help="Only targets whose name begins so. Repeatable.", show_default=False)] = None,
    why: Annotated[bool, typer.Option("--why", "-w", help="Print every cell's reason below the matrix.")] = False,
    edit: Annotated[list[str] | None, typer.Option(
        help="iptables command to apply to the rules first, such as '-I DOCKER-USER -i eth0 -j DROP'. Repeatable.",
        show_default=False)] = None,
    outside: Annotated[str, typer.Option(help="The address that stands for the outside.")] = "203.0.113.9",
    out: Annotated[Path | None, typer.Option(
        "--out", "-o", help="Write the matrix with all reasons: .html, .csv, .parquet or .arrow.",
        show_default=False)] = None,
    env: Env = None,
    profile: Profile = None,
    project: Project = None,
    daemon: DaemonFile = None,
) -> None:
    """Print who reaches what: every container, the host and the outside against every port.

    Examples:

        fastpath docker reach --from data/docker/shop.yaml --engine 29

        fastpath docker reach --from data/docker/shop.yaml --engine 27 --source external --why

        fastpath docker reach --from data/docker/shop.yaml --engine 29 --out shop.html
    """
    from fastpath.docker.reach.table import as_text, write_matrix

    topology = _topology(source, env, profile, project, daemon)
    changed = topology.host(engine).edit(*edit) if edit else None
    matrix = topology.reachability(engine, outside=outside, host=changed)
    _notes(topology, engine)
    rows = [matrix.index(name, 0)[0] for name in only] if only else list(range(len(matrix.sources)))
    columns = [i for i, t in enumerate(matrix.targets) if not target or t.name.startswith(tuple(target))]
    if not columns:
        raise typer.BadParameter(f"no target begins so; there are {', '.join(t.name for t in matrix.targets)}",
                                 param_hint="--target")
    typer.echo(as_text(matrix, columns, rows))
    if why:
        for row in rows:
            for column in columns:
                cell = matrix.cell(row, column)
                typer.echo(f"{cell.source} -> {cell.target}: {cell.mark}: {cell.reason}")
    if out is not None:
        write_matrix(matrix, out)
        typer.echo(f"fastpath: wrote {out}", err=True)


@app.command()
def compare(
    source: From,
    engine: Annotated[list[str], typer.Option(
        "--engine", "-e", show_default=False,
        help="Docker version; twice for before and after, once where two topologies are compared.")],
    to: Annotated[list[Path] | None, typer.Option(
        help="The other topology (repeatable: Compose files that are merged).", show_default=False)] = None,
    outside: Annotated[str, typer.Option(help="The address that stands for the outside.")] = "203.0.113.9",
    env: Env = None,
    profile: Profile = None,
    project: Project = None,
    daemon: DaemonFile = None,
) -> None:
    """Print what changes between two engines, or between two topologies: rules by chain, and who reaches what.

    Examples:

        fastpath docker compare --from data/docker/shop.yaml --engine 27 --engine 29

        fastpath docker compare --from compose.yaml --to compose.new.yaml --engine 28.5
    """
    from fastpath.docker.reach import compare_topologies

    if len(engine) > 2 or (len(engine) == 1 and not to):
        raise typer.BadParameter("give --engine twice, or once together with --to", param_hint="--engine")
    before = _topology(source, env, profile, project, daemon)
    after = _topology(to, env, profile, project, daemon) if to else before
    typer.echo(str(compare_topologies(before, engine[0], after, engine[-1], outside=outside)))


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
