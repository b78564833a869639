"""Size limits of a compilation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """How large the tables of one stage may become before a linear walk takes the stage over.

    Attributes:
        max_words: 32-bit words of one stage's decision diagram.
        max_nodes: nodes of it while it is built.
        max_product: values of the product that small fields are merged into.
        linear: walk every stage linearly: slow and small, for tests.
    """

    max_words: int = 4_000_000
    max_nodes: int = 200_000
    max_product: int = 1 << 14
    linear: bool = False
