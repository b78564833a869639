"""The error of everything in this room."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastpath.errors import FastpathError


@dataclass(frozen=True, slots=True)
class Subject:
    """What of a topology an error is about: a ``network`` or ``container`` by name, and which of its fields."""

    kind: str
    name: str
    field: str = ""
    value: object = None


class TopologyError(FastpathError):
    """A topology that Docker would refuse, or a file that cannot be read as one.

    The message starts with where it is (the file and the path inside it, as far as there are any), then says what is
    wrong and what would be right. ``subject`` is what it is about, from which readers of files find the path.
    """

    subject: Subject | None = None


@contextmanager
def about(kind: str, name: str, field: str = "", value: object = None) -> Iterator[None]:
    """Errors inside are about this, unless something inside knows better."""
    try:
        yield
    except TopologyError as error:
        error.subject = error.subject or Subject(kind, name, field, value)
        raise
