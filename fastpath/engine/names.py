"""Interfaces of a batch and of the tables: ids for the packets' codes, codes for the results."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.compiler.interfaces import InterfaceTable
from fastpath.compiler.tables import Compiled
from fastpath.packets.batch import PacketBatch

Array = npt.NDArray[Any]

AS_GIVEN = -2
"""Stands for the egress interface that the packet brought."""


def interface_codes(compiled: Compiled, packets: PacketBatch, interfaces: list[str]) -> tuple[Array, Array]:
    """(id of every interface code of the packets, shifted by one, uint32; code to show for every id, int16).

    Args:
        interfaces: names of the codes that results show; egress interfaces that are not among them are added.
    """
    table = InterfaceTable(
        compiled.interfaces, compiled.known, compiled.prefixes,
        {name: i for i, name in enumerate(compiled.interfaces[:compiled.known])},
    )
    codes = {name: i for i, name in enumerate(interfaces)}
    ids = np.array([0, *(table.id(name) for name in packets.interfaces)], np.uint32)
    for i in compiled.egress:
        if 0 < i < compiled.known and compiled.interfaces[i] not in codes:
            codes[compiled.interfaces[i]] = len(interfaces)
            interfaces.append(compiled.interfaces[i])
    names = [codes.get(name, -1) for name in compiled.interfaces]
    if compiled.given_oif:
        known = zip(compiled.interfaces, names, strict=True)
        names = [code if name in ("", "lo") else AS_GIVEN for name, code in known]
    return read_only(ids), read_only(np.array(names, np.int16))


def read_only(array: Array) -> Array:
    """A view that cannot be written through; kernels are compiled for one kind of array."""
    view = array.view()
    view.setflags(write=False)
    return view
