"""``fastpath verify``: the engines against the running kernel, packet by packet."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastpath.cli.compiling import compiling
from fastpath.cli.values import parse_count

if TYPE_CHECKING:
    from rich.console import Console

    from fastpath.host.model import Host
    from fastpath.netns import Agreement, Backend, Judge
    from fastpath.netns.compare import Evaluate

EXAMPLES = 5

KNOWN = ("verdict", "hook", "oif", "src", "dst", "sport", "dport", "mark")
"""Result columns that the kernel tells."""

Progress = Callable[[int, int], None]


class Profile(StrEnum):
    """The synthetic packet mixes."""

    edges = "edges"
    traffic = "traffic"


class Backends(StrEnum):
    """Which of iptables' two back ends to load the rules with."""

    both = "both"
    nft = "nft"
    legacy = "legacy"


class EngineName(StrEnum):
    """Which engine to put before the kernel."""

    compiled = "compiled"
    reference = "reference"


def verify(
    host: Annotated[Path, typer.Option("--host", "-H", help="Capture folder.", show_default=False)],
    count: Annotated[
        int, typer.Option("-n", parser=parse_count, metavar="COUNT", help="How many packets to put before it.")
    ] = 20_000,
    profile: Annotated[Profile, typer.Option(help="The edges of the rules, or a realistic mix.")] = Profile.edges,
    backend: Annotated[Backends, typer.Option(help="iptables-nft, iptables-legacy, or one after the other.")] = (
        Backends.both
    ),
    seed: Annotated[int, typer.Option(help="Seed of the packets.")] = 0,
    engine: Annotated[EngineName, typer.Option(help="Which engine to put before the kernel.")] = EngineName.compiled,
    cases: Annotated[
        Path, typer.Option(help="Folder for the case files of disagreements; made when it is needed.")
    ] = Path("disagreements"),
) -> None:
    """Ask the Linux kernel itself, and compare.

    Loads the host's rules into a network namespace of its own, sends packets through it, and compares what became of
    each, and what every rule counted, with the engine's answer. Needs root or user namespaces, and the programs
    iptables, nft, ip and ipset. Nothing of this machine's own network is read or changed.

    Every disagreement is shown with both sides' story, and the first of each kind is kept as a small case file.
    Exits with 1 where there is any.

    Examples:

        fastpath verify --host data/hosts/docker28-big

        fastpath verify --host data/hosts/docker28-seed -n 100k --profile traffic --backend nft
    """
    import fastpath as fp
    from fastpath import netns
    from fastpath.cli.render import console
    from fastpath.packets import synth

    wanted: list[Backend] = [b for b in netns.BACKENDS if backend in (Backends.both, b)]
    loaded = fp.Host.load(host)
    # some cannot be put before the kernel; of twice as many there are enough
    packets = netns.enough(loaded, synth.packets(loaded, 2 * count, seed=seed, profile=profile.value), count)
    answer = _engine_of(engine)(loaded)
    screen = console()
    agreed = True
    with netns.Judge() as judge:
        for name in wanted:
            with _progress(f"{engine} and kernel ({name})") as progress:
                found = netns.compare(loaded, packets, answer, judge, name, progress=progress)
            _print(screen, found, name)
            if not found:
                agreed = False
                _examples(screen, loaded, found, judge, name)
                _keep(screen, loaded, found, judge, name, engine, cases)
    if not agreed:
        raise typer.Exit(1)


def _engine_of(engine: EngineName) -> Callable[[Host], Evaluate]:
    def compiled(host: Host) -> Evaluate:
        import fastpath as fp

        with compiling() as building:
            return fp.compile(host, progress=building).evaluate

    def reference(host: Host) -> Evaluate:
        from fastpath.reference import evaluate

        return lambda packets: evaluate(host, packets)

    return compiled if engine is EngineName.compiled else reference


@contextmanager
def _progress(what: str) -> Iterator[Progress | None]:
    """A progress bar on standard error where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(screen: Console, found: Agreement, backend: str) -> None:
    import numpy as np
    from rich import box
    from rich.table import Table

    from fastpath.cli.render import title
    from fastpath.packets.schema import Hook, Verdict

    wrong = np.zeros(len(found.packets), np.bool_)
    wrong[found.rows] = True
    table = Table(box=box.SIMPLE, title=title(f"Agreement with the kernel, {backend}"), title_justify="left")
    for column in ("verdict", "ended at"):
        table.add_column(column)
    for column in ("packets", "agree", "disagree"):
        table.add_column(column, justify="right")
    keys = found.kernel.verdict.astype(np.intp) * len(Hook) + found.kernel.hook
    for key in np.unique(keys).tolist():
        here = keys == key
        total, bad = int(here.sum()), int((here & wrong).sum())
        table.add_row(Verdict(key // len(Hook)).name, Hook(key % len(Hook)).name, f"{total:,}", f"{total - bad:,}",
                      f"{bad:,}")
    screen.print(table)
    for reason, number in sorted(found.left_out.items(), key=lambda item: -item[1]):
        screen.print(f"{number:,} packets not compared: {reason}")
    counted = len(found.kernel.rules)
    if found.counters_compared:
        screen.print(f"{counted - len(found.counters):,} of {counted:,} counters of rules and policies agree")
    else:
        screen.print("counters not compared: some rules test what no packet shows")
    screen.print(f"{len(found.packets):,} packets compared, {len(found.rows):,} disagreements\n")


def _examples(screen: Console, host: Host, found: Agreement, judge: Judge, backend: Backend) -> None:
    """The first disagreements, both stories side by side."""
    from rich.panel import Panel
    from rich.table import Table

    from fastpath.analysis.explain import explain
    from fastpath.netns.minimise import matched_rules

    for row in found.rows[:EXAMPLES].tolist():
        packet = found.packets[row]
        sides = Table.grid(expand=True)
        for side in ("ours", "kernel"):
            sides.add_column(side, ratio=1)
        sides.add_row(Panel(f"{found.engine[row]}\n{explain(host, packet)}", title="fastpath"),
                      Panel(matched_rules(judge, host, packet, backend), title=f"kernel, {backend}"))
        screen.print(str(packet))
        screen.print(sides)
    for difference in found.counters[:EXAMPLES]:
        screen.print(f"{difference.ref}\n  fastpath counts {difference.engine[0]:,} packets, {difference.engine[1]:,} "
                     f"bytes; the kernel {difference.kernel[0]:,} packets, {difference.kernel[1]:,} bytes")


def _keep(screen: Console, host: Host, found: Agreement, judge: Judge, backend: Backend, engine: EngineName,
          folder: Path) -> None:
    """A case file of the first disagreement in each set of columns."""
    from dataclasses import replace

    import numpy as np

    from fastpath.analysis.case import write_case
    from fastpath.netns.minimise import Minimiser, as_text
    from fastpath.packets import PacketBatch

    kinds: dict[tuple[str, ...], int] = {}
    for row in found.rows.tolist():
        kinds.setdefault(tuple(name for name, rows in found.differing.items() if row in rows), row)
    if not kinds:
        kinds[("counters",)] = -1
    folder.mkdir(parents=True, exist_ok=True)
    for names, row in kinds.items():
        only = found if row < 0 else replace(found, differing={names[0]: np.array([row])})
        small, packet = Minimiser(_engine_of(engine), judge, backend).minimise(host, only)
        path = folder / f"kernel-{backend}-{'-'.join(names)}-{max(row, 0)}.toml"
        packets = PacketBatch.from_packets([packet])
        write_case(path, why=f"the kernel ({backend}) and the {engine} engine disagree in {', '.join(names)}",
                   packets=packets, result=judge.evaluate(small, packets, backend), columns=KNOWN, **as_text(small))
        screen.print(f"kept as {path}")
