"""The matrix as text and as an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastpath.errors import FastpathError

if TYPE_CHECKING:
    import pyarrow as pa

    from fastpath.docker.reach.matrix import Reachability

LEGEND = ("yes: reached; nat: reached through NAT; proxy: through the userland proxy; -: not reached; "
          "?: undecided; NAME:* any other port")


def as_text(matrix: Reachability, columns: Sequence[int] | None = None, rows: Sequence[int] | None = None) -> str:
    """One line a target, one column a source.

    Args:
        matrix: the matrix.
        columns: targets to show, by default all.
        rows: sources to show, by default all.
    """
    rows = range(len(matrix.sources)) if rows is None else rows
    columns = range(len(matrix.targets)) if columns is None else columns
    head = ["", *(matrix.sources[row].name for row in rows)]
    lines = [head] + [[matrix.targets[c].name, *(matrix.mark(row, c) for row in rows)] for c in columns]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [f"Docker {matrix.engine}: who (across) reaches what (down)"]
    text += ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, LEGEND])


def write_matrix(matrix: Reachability, path: Path) -> None:
    """Writes the matrix with its reasons as HTML, CSV, Parquet or an Arrow file, as the name ends.

    Raises:
        FastpathError: another ending, or a file that cannot be written.
    """
    end = path.suffix.lower()
    try:
        if end == ".html":
            matrix.to_html(path)
            return
        table = matrix.to_arrow()
        if end == ".csv":
            from pyarrow import csv

            csv.write_csv(table, path)
        elif end == ".parquet":
            from pyarrow import parquet

            parquet.write_table(table, path)
        elif end == ".arrow":
            from pyarrow import feather

            feather.write_feather(table, str(path), compression="uncompressed")
        else:
            raise FastpathError(f"{path}: a matrix is written as .html, .csv, .parquet or .arrow")
    except OSError as error:
        raise FastpathError(f"{path} cannot be written: {error.strerror or error}") from None


def as_arrow(matrix: Reachability) -> pa.Table:
    """See :meth:`Reachability.to_arrow`."""
    import pyarrow as pa

    from fastpath.docker.reach.matrix import MAYBE, YES, How

    sources, targets = len(matrix.sources), len(matrix.targets)
    cells = [(row, column) for row in range(sources) for column in range(targets)]

    def repeated(values: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(np.tile(np.arange(targets, dtype=np.int32), sources)), values)

    reach = matrix.reach.ravel()
    hows = [how.name.lower() for how in How]
    return pa.table({
        "source": pa.DictionaryArray.from_arrays(
            pa.array(np.repeat(np.arange(sources, dtype=np.int32), targets)), [s.name for s in matrix.sources]),
        "target": repeated([t.name for t in matrix.targets]),
        "kind": repeated([t.kind for t in matrix.targets]),
        "container": repeated([t.container for t in matrix.targets]),
        "protocol": repeated([t.protocol for t in matrix.targets]),
        "port": np.tile(np.array([t.port for t in matrix.targets], np.uint16), sources),
        "reach": pa.array(reach == YES, mask=reach == MAYBE),
        "how": pa.DictionaryArray.from_arrays(pa.array(matrix.how.ravel().astype(np.int8)), hows),
        "reason": pa.array([matrix.reason(row, column) for row, column in cells], pa.string()),
    })
