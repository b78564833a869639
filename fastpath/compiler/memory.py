"""Where tables lie: in large pages of memory, so that the processor knows the page of a look-up at a random place.

numpy asks for large pages for allocations from four megabytes on (Linux, where ``transparent_hugepage`` is ``madvise``
or ``always``); elsewhere this is a copy like any other. Pages that nobody touches take no memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

PAGE, LEAST_ALLOCATION = 2 << 20, 4 << 20
"""Bytes."""

LEAST = 1 << 18
"""Bytes of an array that is worth it."""


def in_large_pages(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, or an equal one that begins at a large page."""
    if array.nbytes < LEAST or array.ctypes.data % PAGE == 0:
        return array
    room = np.empty(array.nbytes + PAGE + LEAST_ALLOCATION, np.uint8)
    begin = -room.ctypes.data % PAGE
    found = room[begin:begin + array.nbytes].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found
