"""``fastpath capacity``: what netfilter will cost, how that grows, and where it runs out. One file a subcommand."""

from __future__ import annotations

import typer

from fastpath.cli.capacity.calibrate import calibrate
from fastpath.cli.capacity.conntrack import conntrack
from fastpath.cli.capacity.cost import cost
from fastpath.cli.capacity.report import report
from fastpath.cli.capacity.snat import snat
from fastpath.cli.capacity.sweep import sweep

app = typer.Typer(
    name="capacity",
    help="What netfilter will cost a host: nanoseconds a packet, growth, connections, ports.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("cost")(cost)
app.command("sweep")(sweep)
app.command("calibrate")(calibrate)
app.command("conntrack")(conntrack)
app.command("snat")(snat)
app.command("report")(report)
