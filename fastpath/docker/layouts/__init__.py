"""The layouts of Docker's rules, one module per generation; :func:`layout_for` says which one an engine writes.

Every layout turns the steps of a plan into rules. The parts that generations share are in ``common.py``; a module holds
what is particular to its generation, above all what goes to a chain's head and what to its end.
"""

from __future__ import annotations

from importlib import import_module

from fastpath.docker.layouts.common import Layout
from fastpath.docker.version import Engine

GENERATIONS: tuple[tuple[tuple[int, int, int], str], ...] = (
    ((29, 0, 0), "v29"),
    ((28, 2, 0), "v28_2"),
    ((28, 0, 1), "v28_0_1"),
    ((28, 0, 0), "v28_0_0"),
    ((18, 5, 0), "v18_05"),
    ((18, 4, 0), "v17_06"),
    ((18, 3, 1), "v18_05"),
    ((17, 6, 0), "v17_06"),
    ((1, 10, 0), "v1_10"),
    ((1, 9, 0), "v1_9"),
    ((1, 5, 0), "v1_5"),
    ((1, 0, 0), "v1_0"),
)
"""First version of each generation, newest first. The two stages came with 18.05; 18.03.1 has them too, 18.04 not."""


def generation(engine: Engine) -> str:
    """The name of the module that holds the layout of `engine`."""
    return next(name for since, name in GENERATIONS if engine.since(*since))


def layout_for(engine: Engine) -> type[Layout]:
    """The layout of `engine`."""
    found: type[Layout] = import_module(f"{__name__}.{generation(engine)}").Rules
    return found
