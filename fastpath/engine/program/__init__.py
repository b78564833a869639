"""The program of passes that the bulk kernel runs for a batch.

It depends on the tables and on what the batch is like: columns with one value for all packets are looked up here, once;
small tables are composed, so that a pass reads raw column values. Each module adds the passes of one kind; what comes
out is remembered for the next batch of the same kind (:func:`program_for`).
"""

from fastpath.engine.program.ready import Ready, program_for
from fastpath.engine.program.results import DTYPES

__all__ = ["DTYPES", "Ready", "program_for"]
