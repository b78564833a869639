"""Words of a rule line, with the columns they stand in.

Two grammars, because two programs split these lines. A line of a save file is split by iptables-restore:

    line    := gap? (word gap)* word?        gap    := one or more of space, tab
    word    := (bare | quoted)+              bare   := any characters but space, tab, ``"``
    quoted  := ``"`` (char | escape)* ``"``  escape := backslash and any one character, which stands for itself

so a single quote or a backslash outside double quotes is an ordinary character. A command line is split
as a POSIX shell does it, without expansions: single quotes take everything literally, double quotes know
the escapes of ``\\`` ``"`` ``$`` and the backquote, a backslash outside quotes escapes one character, and a
``#`` that begins a word starts a comment. Adjacent pieces form one word in both.

Safe direction: an unclosed quote is an error in both, although iptables-restore takes the rest of the line.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from fastpath.errors import ParseError


class Word(NamedTuple):
    """One word: its ``text`` with quotes and escapes resolved, and the columns ``start:end`` it came from."""

    text: str
    start: int
    end: int


_BARE = re.compile(r"[^ \t]+")
_SAVE_WORD = re.compile(r'(?:[^ \t"]+|"(?:[^"\\]|\\.)*")+', re.DOTALL)
_SAVE_PIECE = re.compile(r'([^ \t"]+)|"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def save_words(line: str, *, source: str = "<string>", number: int = 0) -> list[Word]:
    """Words of a line that iptables-save printed.

    Raises:
        ParseError: a double quote that is never closed.
    """
    if '"' not in line:
        return [Word(m.group(), m.start(), m.end()) for m in _BARE.finditer(line)]
    words: list[Word] = []
    at = 0
    while True:
        while at < len(line) and line[at] in " \t":
            at += 1
        if at == len(line):
            return words
        found = _SAVE_WORD.match(line, at)
        end = found.end() if found else at
        if found is None or (end < len(line) and line[end] == '"'):
            raise ParseError(
                'a double quote is not closed: add the missing "', source=source, line=number, text=line, start=end
            )
        pieces = (bare or _ESCAPE.sub(r"\1", quoted) for bare, quoted in _SAVE_PIECE.findall(found.group()))
        words.append(Word("".join(pieces), at, end))
        at = end


def save_texts(line: str) -> list[str]:
    """The texts of :func:`save_words` alone, much faster where the line has no quotes."""
    if '"' not in line:
        return _BARE.findall(line)
    return [w.text for w in save_words(line)]


def shell_words(line: str, *, source: str = "<string>", number: int = 0) -> list[Word]:
    """Words of a command line as a POSIX shell splits them; a trailing comment is left out.

    Raises:
        ParseError: a quote that is never closed, or a backslash at the very end.
    """

    def unclosed(what: str, start: int) -> ParseError:
        return ParseError(what, source=source, line=number, text=line, start=start)

    words: list[Word] = []
    at, length = 0, len(line)
    while at < length:
        if line[at] in " \t\r\n":
            at += 1
            continue
        if line[at] == "#":
            break
        start = at
        text: list[str] = []
        while at < length and line[at] not in " \t\r\n":
            char = line[at]
            if char == "'":
                close = line.find("'", at + 1)
                if close < 0:
                    raise unclosed("a single quote is not closed: add the missing '", at)
                text.append(line[at + 1 : close])
                at = close + 1
            elif char == '"':
                opening = at
                at += 1
                while at < length and line[at] != '"':
                    if line[at] == "\\" and at + 1 < length and line[at + 1] in '\\"$`':
                        at += 1
                    text.append(line[at])
                    at += 1
                if at >= length:
                    raise unclosed('a double quote is not closed: add the missing "', opening)
                at += 1
            elif char == "\\":
                if at + 1 >= length:
                    raise unclosed("a backslash ends the line and escapes nothing: remove it", at)
                text.append(line[at + 1])
                at += 2
            else:
                text.append(char)
                at += 1
        words.append(Word("".join(text), start, at))
    return words
