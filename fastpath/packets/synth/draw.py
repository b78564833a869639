"""Random numbers by the block, and drawing from weighted pools with them.

Packets are made in blocks of a fixed size, each with its own generator, seeded with the user's seed and the block's
number. Hence the first k packets of n are the same for every n, and blocks could be made in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BLOCK = 1 << 14
"""Packets in a block: small enough for a block's columns to stay in the processor's second-level cache."""


def generator(seed: int, *stream: int) -> np.random.Generator:
    """A generator for one seed and one stream of it."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, *stream])))


class Bits:
    """The random numbers of one block, handed out as full-range arrays of BLOCK values."""

    def __init__(self, seed: int, stream: int, block: int) -> None:
        self._generator = generator(seed, stream, block)

    def take(self, dtype: npt.DTypeLike) -> Array:
        """BLOCK random values that fill the unsigned `dtype`."""
        kind = np.dtype(dtype)
        words = self._generator.integers(0, 1 << 64, BLOCK * kind.itemsize // 8, np.uint64)
        return words.view(kind)

    def below(self, count: int) -> Array:
        """BLOCK random indices (int64) in 0..count-1, for a count of at most 2**32."""
        if count <= 1 << 16:
            return (self.take(np.uint16).astype(np.uint32) * np.uint32(count) >> np.uint32(16)).astype(np.int64)
        return (self.take(np.uint32).astype(np.uint64) * np.uint64(count) >> np.uint64(32)).astype(np.int64)


def pool(dtype: npt.DTypeLike, *parts: tuple[float, Iterable[int]]) -> Array:
    """Values to draw from evenly, so that each part comes up with its share and each value of a part as often.

    Args:
        dtype: of the values.
        parts: a weight and the values it goes to; a part without values gives its weight to the others.
    """
    filled = [(weight, np.array(list(values), np.dtype(dtype))) for weight, values in parts]
    filled = [(weight, values) for weight, values in filled if len(values)]
    total = sum(weight for weight, _ in filled)
    size = max(64.0, *(len(values) * total / weight for weight, values in filled))
    size = min(size * (1 if size > 4096 else 4), 1 << 20)
    return np.concatenate([np.resize(values, max(1, round(size * weight / total))) for weight, values in filled])


def zipf(count: int, exponent: float = 1.1) -> Array:
    """Probabilities of `count` things by popularity: the k-th is proportional to ``k ** -exponent``."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    probabilities: Array = weights / weights.sum()
    return probabilities


def pick(rng: np.random.Generator, values: Sequence[int] | Array, size: int) -> Array:
    """`size` values drawn evenly (int64)."""
    return np.asarray(values, np.int64)[rng.integers(0, len(values), size)]
