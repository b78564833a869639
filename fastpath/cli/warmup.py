"""``fastpath warmup``: compiles the kernels for this machine, so that no later command has to wait for it."""

from __future__ import annotations

import time

import typer

CHAIN = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{}COMMIT\n"
SEVERAL = "-A FORWARD -p tcp\n-A FORWARD -i eth0\n-A FORWARD -m mark --mark 0x1\n"
RULE = "-A FORWARD -s 10.0.{0}.0/24 -d 10.{0}.0.0/16 -p tcp -m tcp --dport 10{0} -j ACCEPT\n"
RULES = CHAIN.format(SEVERAL + "".join(RULE.format(i) for i in range(10, 80)))
"""Rules that take every kernel of the compiler, with large tables and with small ones."""


def warmup() -> None:
    """Compile the kernels and keep them, as an installation or an image build may want to.

    These are all kernels that compiling a host and evaluating packets take. What other commands need besides (lint,
    diff and query need a few) is compiled with their first use.

    Compiled kernels are kept in the user's cache folder, or in FASTPATH_CACHE_DIR. They are used by the same
    processor, versions and sources only; where they are there already, this takes a second or two.

    Examples:

        fastpath warmup

        FASTPATH_CACHE_DIR=/var/cache/fastpath fastpath warmup
    """
    from fastpath.compiler.config import Config
    from fastpath.engine import compile
    from fastpath.host.model import Host
    from fastpath.kernels._jit import FOLDER
    from fastpath.packets import PacketBatch
    from fastpath.ruleset import parse_ruleset

    start = time.perf_counter()
    host = Host(parse_ruleset(RULES), complete=False)
    for config in (Config(), Config(structure="candidates"), Config(structure="cross-product"),
                   Config(structure="cross-product", max_table_bytes=0)):
        engine = compile(host, config=config)
        engine.warm_up()
        engine.evaluate(PacketBatch.from_columns({"iif": "eth0", "src": 1, "dst": 2, "proto": 6, "oif": "eth1"}, 2))
    seconds = time.perf_counter() - start
    held = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    typer.echo(f"kernels ready after {seconds:.1f} s, {held / 1e6:.1f} MB in {FOLDER}")
