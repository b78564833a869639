"""The error of everything in this room."""

from __future__ import annotations

from fastpath.errors import FastpathError


class TopologyError(FastpathError):
    """A topology that Docker would refuse, or a file that cannot be read as one.

    The message starts with where it is (the file and the path inside it, as far as there are any), then says what is
    wrong and what would be right.
    """
