"""The kernel judge: what the running Linux kernel itself does to packets, asked in a network namespace.

The third of three engines that must agree. See :func:`evaluate`, :class:`Judge` for many questions, and
:func:`available` for whether this machine can be asked at all.
"""

from __future__ import annotations

from fastpath.netns.compare import Agreement, CounterDifference, compare
from fastpath.netns.judge import BACKENDS, Backend, Judge, Judgement, available, evaluate
from fastpath.netns.limits import enough

__all__ = [
    "BACKENDS", "Agreement", "Backend", "CounterDifference", "Judge", "Judgement", "available", "compare", "enough",
    "evaluate",
]
