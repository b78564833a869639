"""``fastpath capacity``: what netfilter will cost, how that grows, and where it runs out. One file a subcommand."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="capacity",
    help="What netfilter will cost a host: nanoseconds a packet, growth, connections, ports.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
