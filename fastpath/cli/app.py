"""The typer application: every command's name, in the order that ``--help`` lists them."""

from __future__ import annotations

from typing import Annotated

import typer

from fastpath.cli.bench import bench
from fastpath.cli.capacity import app as capacity
from fastpath.cli.check import check
from fastpath.cli.diff import diff
from fastpath.cli.docker import app as docker
from fastpath.cli.evaluate import evaluate
from fastpath.cli.lint import lint
from fastpath.cli.policy import test
from fastpath.cli.query import query
from fastpath.cli.trace import trace
from fastpath.cli.verify import verify
from fastpath.cli.warmup import warmup

app = typer.Typer(
    name="fastpath",
    help="Says what a host's iptables rules do to packets, without sending one.",
    epilog="A host is a capture folder (iptables-save.txt and, as far as known, ip-addr.json, ip-route.json, "
    "sysctl.txt, ipset.txt) or one iptables-save file.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"fastpath {version('fastpath')}")
        except PackageNotFoundError:
            typer.echo("fastpath (not installed)")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Says what a host's iptables rules do to packets, without sending one."""


app.command("eval")(evaluate)
app.command("trace")(trace)
app.command("check")(check)
app.command("diff")(diff)
app.command("query")(query)
app.command("lint")(lint)
app.command("test")(test)
app.command("verify")(verify)
app.command("warmup")(warmup)
app.command("bench")(bench)
app.add_typer(docker)
app.add_typer(capacity)
