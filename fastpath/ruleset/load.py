"""Reads a ruleset from a file."""

from __future__ import annotations

import os
from pathlib import Path

from fastpath.errors import FastpathError, ParseError
from fastpath.ruleset.model import Ruleset
from fastpath.ruleset.parse import parse_ruleset
from fastpath.ruleset.rule import Unknown


def load_ruleset(path: str | os.PathLike[str], *, family: int = 4, unknown: Unknown = "error") -> Ruleset:
    """The ruleset of a file that iptables-save (or ip6tables-save, with `family` 6) printed.

    Args:
        path: the file, as UTF-8 text.
        family: 4 or 6.
        unknown: ``error`` refuses unknown matches, targets and options; ``undecided`` keeps them as undecided.

    Raises:
        FastpathError: the file cannot be read.
        ParseError: the file is not text, or iptables-restore would refuse it.
    """
    return parse_ruleset(read_text(path), source=str(path), family=family, unknown=unknown)


def read_text(path: str | os.PathLike[str]) -> str:
    """A whole text file in UTF-8.

    Raises:
        FastpathError: missing, a folder, or not readable.
        ParseError: not UTF-8 text.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FastpathError(f"{path}: cannot be read: {reason}") from None
    if content.startswith(b"\x1f\x8b"):
        raise ParseError("this is a gzip file: unpack it first", source=str(path))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = content[error.start]
        raise ParseError(f"byte 0x{wrong:02x} is not UTF-8 text", source=str(path), line=line) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ParseError("a zero byte: this is not a text file", source=str(path), line=line)
    return text
