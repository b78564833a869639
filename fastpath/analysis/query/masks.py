"""Conditions evaluated on columns of packets and results: one boolean for each packet.

This shares nothing with the sets of packets in ``sets.py`` but the tree, so that each checks the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any as Numpy

import numpy as np
import numpy.typing as npt

from fastpath.analysis.query.conditions import All, Any, Bits, Comparison, Condition, Name, Not, Span
from fastpath.analysis.query.fields import RESULT_COLUMN, info
from fastpath.analysis.query.names import Names
from fastpath.compiler.interfaces import matches
from fastpath.errors import QueryError
from fastpath.packets.batch import PacketBatch
from fastpath.packets.result import Result

Mask = npt.NDArray[np.bool_]


def mask(condition: Condition, packets: PacketBatch, result: Result | None = None, names: Names | None = None) -> Mask:
    """Which packets a condition holds for.

    Args:
        condition: what to test.
        packets: n packets of family 4.
        result: what became of them, where the condition asks for it.
        names: what names stand for; without it, there are no networks and containers.

    Returns:
        Booleans of shape (n,).

    Raises:
        QueryError: a name that is not known, or a condition on results without a result.
    """
    names = names or Names(rules=result.rules if result is not None else ())
    return _mask(names.resolve(condition), packets, result, names)


def _mask(condition: Condition, packets: PacketBatch, result: Result | None, names: Names) -> Mask:
    if isinstance(condition, Not):
        return ~_mask(condition.part, packets, result, names)
    if isinstance(condition, All | Any):
        found: Mask = np.full(len(packets), isinstance(condition, All))
        for part in condition.parts:
            here = _mask(part, packets, result, names)
            found = found & here if isinstance(condition, All) else found | here
        return found
    assert isinstance(condition, Comparison)
    if not info(condition.field).result:
        return _among(packets.column(condition.field), condition, packets.interfaces, names)
    if result is None:
        raise QueryError(f"{condition.field} is known only once packets are evaluated")
    values = result.column(RESULT_COLUMN[condition.field])
    return _among(values, condition, result.interfaces, names)


def _among(values: npt.NDArray[Numpy], test: Comparison, interfaces: Sequence[str], names: Names) -> Mask:
    found: Mask = np.zeros(len(values), np.bool_)
    for item in test.items:
        if isinstance(item, Span):
            found |= (values >= item.first) & (values <= item.last)
        elif isinstance(item, Bits):
            found |= (values.astype(np.uint64) & np.uint64(item.mask)) == np.uint64(item.value)
        elif item.kind == "rule":
            found |= np.isin(values, names.rule_ids(item))
        else:
            assert isinstance(item, Name) and item.kind == "interface"
            codes = [code for code, name in enumerate(interfaces) if matches(item.text, name)]
            found |= np.isin(values, codes)
    return found
