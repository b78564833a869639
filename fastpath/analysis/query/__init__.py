"""Questions about all packets at once: conditions, queries, and assertions for tests.

``conditions.py`` is the tree that a condition is, ``fields.py`` what it can ask for, ``text.py`` its written form,
``names.py`` what names stand for. A condition has two meanings: on columns of packets (``masks.py``), and as a set of
packets (``sets.py`` for what arrives, ``wants.py`` for what becomes of it). ``answer.py`` (queries), ``checks.py`` and
``asserts.py`` are built on the latter; ``scope.py`` says what they take for granted.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastpath.analysis.query.conditions import Condition
from fastpath.analysis.query.fields import field
from fastpath.analysis.query.masks import mask
from fastpath.analysis.query.names import Names
from fastpath.analysis.query.text import parse_condition

if TYPE_CHECKING:
    from fastpath.analysis.query.answer import Answer, Found, query
    from fastpath.analysis.query.asserts import assert_blocked, assert_reaches, assert_same

__all__ = [
    "Answer", "Condition", "Found", "Names", "assert_blocked", "assert_reaches", "assert_same", "field", "mask",
    "parse_condition", "query",
]

_LATER = {
    "query": "answer", "Answer": "answer", "Found": "answer",
    "assert_blocked": "asserts", "assert_reaches": "asserts", "assert_same": "asserts",
}


def __getattr__(name: str) -> Any:
    """What needs sets of packets, and with them numba, is loaded when it is first used."""
    if name in _LATER:
        return getattr(importlib.import_module(f"fastpath.analysis.query.{_LATER[name]}"), name)
    raise AttributeError(f"module 'fastpath.analysis.query' has no attribute {name!r}")
