"""``fastpath warmup``: compiles the kernels for this machine, so that no later command has to wait for it."""

from __future__ import annotations

import time

import typer

RULES = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"


def warmup() -> None:
    """Compile the kernels and keep them, as an installation or an image build may want to.

    Compiled kernels are kept in the user's cache folder, or in FASTPATH_CACHE_DIR. They are used by the same
    processor, versions and sources only; where they are there already, this takes a second.

    Examples:

        fastpath warmup

        FASTPATH_CACHE_DIR=/var/cache/fastpath fastpath warmup
    """
    from fastpath.engine import compile
    from fastpath.host.model import Host
    from fastpath.kernels._jit import FOLDER
    from fastpath.ruleset import parse_ruleset

    start = time.perf_counter()
    compile(Host(parse_ruleset(RULES), complete=False)).warm_up()
    seconds = time.perf_counter() - start
    held = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    typer.echo(f"kernels ready after {seconds:.1f} s, {held / 1e6:.1f} MB in {FOLDER}")
