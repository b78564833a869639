"""Size limits of a compilation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """How large the tables of one stage may become before a linear walk takes the stage over.

    Attributes:
        max_words: 32-bit words of one stage's decision diagram.
        max_work: steps that may be taken to build it, one for each node and distinct class of its level, and one for
            each term that a node keeps; a second or two of compilation for a million.
        max_product: values of the product that small fields are merged into.
        linear: walk every stage linearly: slow and small, for tests.
    """

    max_words: int = 4_000_000
    max_work: int = 4_000_000
    max_product: int = 1 << 14
    linear: bool = False
