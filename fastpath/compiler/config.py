"""How stages are looked up, and size limits of a compilation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fastpath.errors import CompileError

Structure: TypeAlias = Literal["candidates", "cross-product", "diagram", "linear"]
STRUCTURES: tuple[Structure, ...] = ("candidates", "cross-product", "diagram", "linear")


@dataclass(frozen=True, slots=True)
class Config:
    """How large the tables of a host may become, and which structures are taken.

    Compiling never fails for size. What meets a limit gets the next structure, with the same answers: a diagram gives
    way to candidates or a cross product where the stage has a run of rules for one, else to the walk rule by rule.

    Attributes:
        structure: ``candidates``, ``cross-product``, ``diagram`` or ``linear`` for that structure wherever it can
            stand, None for what is estimated to be fastest. ``linear`` is always possible; a stage that cannot have
            the structure asked for, or not within the limits, is linear (for candidates, that look at two fields, a
            cross product).
        max_table_bytes: memory that tables may take to be faster. Tables whose size is a product (of two keys, of
            lists and merged classes) stay below three quarters of it together, and each below half of it; an address
            map below a sixteenth, a grid of candidates below a quarter. Where they would not, they take a slower form
            that grows with the rules only (runs to be searched, lists to be read, ranks of addresses); while a table
            is made smaller, several times as much is taken. There is no limit for what has no smaller form:
            records and lists, and rows of diagrams but for ``max_words``.
        max_words: 32-bit words of one stage's decision diagram; beyond, it is given up.
        max_work: steps that may be taken to build it, one for each node and distinct class of its level, and one for
            each term that a node keeps; a second or less of compilation for a million. Beyond, it is given up.
        small_words, small_work: a diagram within these limits is taken without a look at anything else; where the stage
            has runs of rules for cross products and the diagram is larger, they are taken out first.
        max_product: values of the product that small fields are merged into, 65,535 at most; fields that do not fit are
            looked up one by one.
        shortest_segment: rules of one chain in a row, each of which ends the walk through it, from which on they are
            looked up by candidates or a cross product of their own.

    Raises:
        CompileError: no such structure.
    """

    structure: Structure | None = None
    max_table_bytes: int = 64 << 20
    max_words: int = 4_000_000
    max_work: int = 4_000_000
    max_product: int = (1 << 16) - 1
    small_words: int = 1 << 19
    small_work: int = 4_000_000
    shortest_segment: int = 64

    def __post_init__(self) -> None:
        if self.structure is not None and self.structure not in STRUCTURES:
            raise CompileError(f"there is no structure {self.structure!r}: say one of {', '.join(STRUCTURES)}")

    @property
    def shortest(self) -> int | None:
        """Rules of the shortest segment, None where none may be taken."""
        if self.structure in ("diagram", "linear"):
            return None
        return 1 if self.structure in ("candidates", "cross-product") else self.shortest_segment
