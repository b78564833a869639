"""The program of passes that the bulk kernel runs for a batch.

It depends on the tables and on what the batch is like: columns with one value for all packets are looked up here, once;
small tables are composed, so that a pass reads raw column values. Each module adds the passes of one kind.
"""

from fastpath.engine.program.passes import UnsuitableError
from fastpath.engine.program.results import DTYPES, Program

__all__ = ["DTYPES", "Program", "UnsuitableError"]
