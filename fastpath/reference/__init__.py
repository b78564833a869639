"""The reference: netfilter's semantics in plain Python, one packet and one rule at a time, written to be read."""

from __future__ import annotations

from fastpath.reference.evaluate import Reference, evaluate, trace
from fastpath.reference.tracing import Trace

__all__ = ["Reference", "Trace", "evaluate", "trace"]
