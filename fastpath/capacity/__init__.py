"""What netfilter will cost a host, before it exists: nanoseconds for each packet, how they grow, and what runs out.

A folder for each question: ``cpu`` (nanoseconds a packet), ``growth`` (the same as a host grows). The folders are named
other than the functions, because a module would hide a function of its name; names are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpath.capacity.cpu.result import CostResult
    from fastpath.capacity.growth.result import SweepResult

_WHERE = {
    "CostResult": "cpu.result", "SweepResult": "growth.result",
}
"""Public name -> module of this package."""

__all__ = ["CostResult", "SweepResult"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
