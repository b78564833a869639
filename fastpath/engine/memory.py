"""Memory for result columns that is used again.

Fresh memory costs the operating system time for each page, as much as an evaluation itself, and threads wait for each
other there. So the memory of columns that nobody holds any more is kept, up to a limit, for the next columns of the
same size: pieces of a stream, or batch after batch, are written to the same places.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SMALLEST = 1 << 20
"""Bytes below which memory is left to numpy."""

LINE = 64
"""Bytes of a cache line, where all memory that is handed out begins."""

MOST_KEPT = 256 << 20
"""Bytes that are kept for later at most."""


class _Lent:
    """Memory that an array stands on; given back when neither the array nor a view of it is left."""

    def __init__(self, memory: Array) -> None:
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        _give_back(self.memory)


_kept: OrderedDict[int, list[Array]] = OrderedDict()
_lock = threading.RLock()  # a finalizer may run while the same thread holds it
_size = 0


def _give_back(memory: Array) -> None:
    global _size
    with _lock:
        _kept.setdefault(memory.nbytes, []).append(memory)
        _kept.move_to_end(memory.nbytes)
        _size += memory.nbytes
        while _size > MOST_KEPT:
            size, oldest = next(iter(_kept.items()))
            oldest.pop()
            _size -= size
            if not oldest:
                del _kept[size]


def empty(n: int, dtype: str) -> Array:
    """An array of shape (n,) with any content, as ``numpy.empty``."""
    global _size
    size = n * np.dtype(dtype).itemsize
    if size < SMALLEST:
        return np.empty(n, dtype)
    memory = None
    with _lock:
        if _kept.get(size):
            memory = _kept[size].pop()
            _size -= size
            if not _kept[size]:
                del _kept[size]
    if memory is None:
        memory = np.empty(size + LINE, np.uint8)
        begin = -memory.ctypes.data % LINE
        memory = memory[begin:begin + size]
    return np.asarray(_Lent(memory)).view(dtype)


def full(n: int, value: int, dtype: str) -> Array:
    """An array of shape (n,) of one value."""
    if value == 0:
        return np.zeros(n, dtype)  # which the operating system gives without a touch
    found = empty(n, dtype)
    found[:] = value
    return found


def release() -> None:
    """Frees what is kept."""
    global _size
    with _lock:
        _kept.clear()
        _size = 0
