"""The one exception tree of fastpath.

Every error that a user can cause is a :class:`FastpathError`; it says what is wrong, where, and what
would be right. A :class:`ParseError` shows the file, the line, the line itself and a ``~~~^`` marker.
"""

from __future__ import annotations


class FastpathError(Exception):
    """Base of every error that fastpath raises on purpose."""


class ParseError(FastpathError):
    """A text that cannot be read as what it claims to be.

    Attributes:
        message: what is wrong and what would be right, one sentence.
        source: file name, or ``<string>``.
        line: 1-based line number, 0 where there is none.
        text: the line itself, without its newline.
        start, end: 0-based columns of the offending part, ``end`` exclusive.
    """

    def __init__(
        self,
        message: str,
        *,
        source: str = "<string>",
        line: int = 0,
        text: str = "",
        start: int = 0,
        end: int | None = None,
    ) -> None:
        self.message = message
        self.source = source
        self.line = line
        self.text = text
        self.start = min(start, len(text))
        self.end = min(len(text), max(self.start, end if end is not None else len(text)))
        super().__init__(message)

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}: " if self.line else f"{self.source}: "
        if not self.text:
            return where + self.message
        width = max(1, self.end - self.start)
        shown = self.text.replace("\t", " ")
        return f"{where}{self.message}\n    {shown}\n    {' ' * self.start}{'~' * (width - 1)}^"


class EditError(FastpathError):
    """An iptables command that iptables itself would refuse (no such chain, rule number too big, a loop ...)."""


class HostError(FastpathError):
    """A host folder or a running machine that cannot be read as a host."""


class PacketError(FastpathError):
    """Packet columns that are unknown, of the wrong type, out of range or of different lengths."""


class AbsentColumnError(PacketError, AttributeError):
    """A result column, or the counters, of a result that was asked for without them."""


class CompileError(FastpathError):
    """A host that cannot be compiled, or a saved engine that cannot be loaded."""


class QueryError(FastpathError):
    """A condition or a policy that makes no sense: no such field, value, network, container or interface."""


class UnavailableError(FastpathError):
    """Something this machine lacks: rights, namespaces, programs, devices. The message names it."""
