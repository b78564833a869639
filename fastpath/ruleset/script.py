"""Reads shell scripts that consist of iptables commands.

    script  := line*                       line := prompt? list comment?
    list    := command (op command)*       op   := ``;`` | ``&&`` | ``||``
    command := iptables command | harmless command | nothing
    prompt  := ``$ `` | ``[user@host dir]# `` | ``user@host:dir# `` at the beginning of a line

A backslash at the end of a line joins the next one. ``&&`` and ``||`` work as in the shell, so that
``iptables -C X ... || iptables -A X ...`` and ``iptables -N X || true`` do what they say: a command that iptables would
refuse fails, and what fails without a ``||`` behind it is an error. Output may be redirected.

This is no shell. Variables, substitutions, pipes, loops and functions are refused: a rule that they would make cannot
be known here. Commands that change no rules of the ruleset's family are passed over: those in :data:`HARMLESS`,
assignments, and those of the other address family (``ip6tables`` beside IPv4 rules). ``exit`` ends the script. Every
other program is an error that names it. Safe direction: refuse; nothing that could change a rule is passed over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from fastpath.errors import EditError, ParseError
from fastpath.ruleset.edit import apply, program_family, without_sudo
from fastpath.ruleset.load import read_text
from fastpath.ruleset.model import Ruleset
from fastpath.ruleset.rule import Unknown
from fastpath.ruleset.tokens import Word, shell_words

HARMLESS = frozenset(
    ": cd echo export ip6tables-save iptables-save logger modprobe printf readonly set shopt sleep sysctl true umask "
    "unset".split()
)
"""Programs that leave the rules alone and do not fail. (``sysctl`` changes the host, not its rules.)"""

_PROMPT = re.compile(r"\s*(?:\$|\[[^\[\]#$]*\]\s?[#$]|[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:[^\s#$]*\s?[#$])\s+(?=\S)")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_REDIRECTION = re.compile(r"(?:&>>?|\d*>>?)(?:&\d|[ \t]*[^\s;&|<>()]+)")
_KEYWORDS = frozenset(
    "if then else elif fi for while until do done case esac function select time in { } ! [ [[ test".split()
)


@dataclass(frozen=True, slots=True)
class _Part:
    """One command of a list: the operator before it, and the columns where it stands."""

    operator: str
    start: int
    end: int


def load_script(path: str | os.PathLike[str], ruleset: Ruleset | None = None, *, unknown: Unknown = "error") -> Ruleset:
    """The ruleset after the iptables commands of a file.

    Args:
        path: the script, UTF-8 text.
        ruleset: the rules it starts from; None: none at all (IPv4).
        unknown: ``error`` refuses unknown matches, targets and options; ``undecided`` keeps them.

    Raises:
        FastpathError: the file cannot be read.
        ParseError: a line that cannot be read, or does what only a shell can do.
        EditError: a command that iptables would refuse. All name file and line.
    """
    return parse_script(read_text(path), source=str(path), ruleset=ruleset, unknown=unknown)


def parse_script(
    text: str, *, source: str = "<string>", ruleset: Ruleset | None = None, unknown: Unknown = "error"
) -> Ruleset:
    """The ruleset after the iptables commands of a text; see :func:`load_script`.

    Raises:
        ParseError: a line that cannot be read.
        EditError: a command that iptables would refuse.
    """
    result = ruleset if ruleset is not None else Ruleset(source=source)
    for number, line in _lines(text, source):
        run = _Line(line, number, source, unknown)
        result = run.apply(result)
        if run.exited:
            break
    return result


def _lines(text: str, source: str) -> Iterator[tuple[int, str]]:
    """Whole lines with the number of their first one; lines that a backslash continues are joined."""
    joined, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not joined:
            first = number
        whole = joined + line
        backslashes = len(whole) - len(whole.rstrip("\\"))
        if backslashes % 2 and _comment(whole) is None:
            joined = whole[:-1] or " "
            continue
        yield first, whole
        joined = ""
    if joined:
        raise ParseError("a backslash continues the last line: remove it", source=source, line=first, text=joined)


def _unquoted(line: str) -> Iterator[tuple[int, str, bool]]:
    """Characters outside single quotes: index, character, and whether double quotes are around it."""
    at, double = 0, False
    while at < len(line):
        char = line[at]
        if char == "\\":
            at += 2
            continue
        if char == "'" and not double:
            close = line.find("'", at + 1)
            if close < 0:
                return  # the tokenizer reports the open quote
            at = close
        elif char == '"':
            double = not double
        else:
            yield at, char, double
        at += 1


def _comment(line: str) -> int | None:
    """Where a comment begins, or None."""
    for at, char, double in _unquoted(line):
        if char == "#" and not double and (at == 0 or line[at - 1] in " \t;&|"):
            return at
    return None


class _Line:
    """One line of a script."""

    def __init__(self, line: str, number: int, source: str, unknown: Unknown) -> None:
        prompt = _PROMPT.match(line)
        self.start = prompt.end() if prompt else 0
        self.line = line
        self.number = number
        self.source = source
        self.unknown = unknown
        self.exited = False

    def error(self, message: str, start: int, end: int | None = None) -> NoReturn:
        raise ParseError(message, source=self.source, line=self.number, text=self.line, start=start, end=end)

    def apply(self, ruleset: Ruleset) -> Ruleset:
        """Runs the line's commands one after the other, as ``&&`` and ``||`` say."""
        failure: EditError | None = None
        for part in self.parts():
            if part.operator == ";" and failure is not None:
                raise failure
            if (part.operator == "&&" and failure is not None) or (part.operator == "||" and failure is None):
                self.check(ruleset, part)
                continue
            if part.operator in (";", "||"):
                failure = None
            try:
                ruleset = self.command(ruleset, part)
            except EditError as refused:
                failure = refused
            if self.exited:
                break
        if failure is not None:
            raise failure
        return ruleset

    def check(self, ruleset: Ruleset, part: _Part) -> None:
        """A command that is not run must be readable all the same."""
        with suppress(EditError):
            self.command(ruleset, part)
        self.exited = False

    def parts(self) -> list[_Part]:
        """The line's commands. What only a shell can do is refused here."""
        line = self.line
        end = _comment(line[self.start :])
        stop = len(line) if end is None else self.start + end
        parts: list[_Part] = []
        begin, operator, skip = self.start, ";", self.start
        for offset, char, double in _unquoted(line[self.start : stop]):
            at = self.start + offset
            if char in "$`":
                self.error("variables and substitutions are not expanded: write the value itself", at, at + 1)
            if double or at < skip:
                continue
            redirection = _REDIRECTION.match(line, at)
            if redirection is not None and (char in ">&" or line[at - 1] in " \t"):
                skip = redirection.end()
                continue
            found = ";" if char == ";" else line[at : at + 2] if line[at : at + 2] in ("&&", "||") else ""
            if found:
                parts.append(_Part(operator, begin, at))
                operator, begin, skip = found, at + len(found), at + len(found)
            elif char in "|&<>()":
                self.error(f"'{char}': pipes, input, background jobs and groups are beyond this reader", at, at + 1)
        if begin < stop or operator != ";":
            parts.append(_Part(operator, begin, stop))
        filled = [p for p in parts if line[p.start : p.end].strip()]
        if len(filled) < len(parts) and any(p.operator != ";" for p in parts):
            self.error("a command is missing beside && or ||", parts[-1].start)
        return filled

    def command(self, ruleset: Ruleset, part: _Part) -> Ruleset:
        """The ruleset after one command."""
        words = self.words(part)
        rest = without_sudo(words)
        while rest and _ASSIGNMENT.match(rest[0].text):
            del rest[0]
        if not rest:
            return ruleset
        family = program_family(rest[0].text)
        if family == ruleset.family:
            return apply(ruleset, rest, unknown=self.unknown, source=self.source, line=self.number, text=self.line)
        name = rest[0].text.rpartition("/")[2]
        if family is not None or name in HARMLESS:
            return ruleset
        if name == "exit":
            self.exited = True
            return ruleset
        if name == "false":
            raise EditError(f"{self.source}:{self.number}: false\n    {self.line.strip()}")
        start, end = rest[0].start, rest[0].end
        if name in _KEYWORDS:
            self.error(f"'{name}': loops, conditions and functions are beyond this reader", start, end)
        if words and words[0].text.startswith("-"):
            self.error(f"'{words[0].text}' stands alone: begin the line with iptables", start, end)
        self.error(f"'{name}' is not iptables, and whether it changes the rules is not known here", start, end)

    def words(self, part: _Part) -> list[Word]:
        """The words of one command, redirections left out; columns are those of the line."""
        text = list(self.line[: part.end])
        text[: part.start] = " " * part.start
        for offset, char, double in _unquoted(self.line[part.start : part.end]):
            at = part.start + offset
            found = None if double else _REDIRECTION.match(self.line, at, part.end)
            if found is not None and text[at] != " " and (char in ">&" or self.line[at - 1] in " \t"):
                text[at : found.end()] = " " * (found.end() - at)
        try:
            return shell_words("".join(text), source=self.source, number=self.number)
        except ParseError as error:
            self.error(error.message, error.start, error.end)
