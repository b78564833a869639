"""Policy files: TOML, one ``[[test]]`` for each statement about a host.

    name = "edge"                                # optional: the suite's name, else the file's
    assume = {limit = "no-match"}                # optional: undecided matches, by module or "table chain number"

    [[test]]
    name = "the database is not reachable from outside"
    expect = "none"                              # blocked | reaches | none | some | same
    where = "iif == eth0"                        # which packets (fastpath.analysis.query.text has the language)
    want = "reached and post_dst in network backend and post_dport == 5432"
    scope = "new"                                # optional: new | plain | any, what `where` leaves open

    [[test]]
    name = "the new rules change nothing for the shop"
    expect = "same"
    before = "hosts/yesterday"                   # for same: the host to compare with, relative to this file
    where = "dst in network shop"
    by = ["verdict", "egress", "nat"]            # optional: what has to be the same

``blocked`` and ``reaches`` are about every packet that ``where`` describes; with ``reaches``, ``want`` says where they
must end up. ``none`` and ``some`` ask whether packets exist whose fate is as ``want`` says. ``assume`` may stand in a
test too.

Safe direction: a key, value or condition that is not understood is an error with its line; no statement is passed over.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from fastpath.analysis.query.conditions import EVERYTHING, Condition
from fastpath.analysis.query.text import parse_condition
from fastpath.errors import ParseError
from fastpath.ruleset.load import read_text

EXPECTATIONS = ("blocked", "reaches", "none", "some", "same")
SCOPES = ("new", "plain", "any")
BY = ("verdict", "egress", "nat", "rule")
_TOP = ("name", "assume", "test")
_TEST = ("name", "expect", "where", "want", "scope", "before", "by", "assume")


@dataclass(frozen=True, slots=True)
class Statement:
    """One test of a policy.

    Attributes:
        name: unique in its file.
        expect: one of :data:`EXPECTATIONS`.
        where: which packets.
        want: what becomes of them; None where only the verdict counts.
        scope: one of :data:`SCOPES`, None for the default of `expect`.
        before: folder or file of the host to compare with (``same``).
        by: what has to be the same (``same``).
        assume: undecided matches, by module or rule.
        line: where it stands in the file.
    """

    name: str
    expect: str
    where: Condition
    want: Condition | None = None
    scope: str | None = None
    before: Path | None = None
    by: tuple[str, ...] = ("verdict", "egress", "nat")
    assume: Mapping[str, str] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy file."""

    name: str
    statements: tuple[Statement, ...]
    source: str


def load_policy(path: str | Path) -> Policy:
    """The policy in a file.

    Raises:
        FastpathError: the file cannot be read.
        ParseError: it is no policy; the message names the line and the key.
    """
    return _Reader(Path(path), read_text(path)).policy()


class _Reader:
    """Reads one file, with line numbers that the TOML library does not tell."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.lines = text.splitlines()
        self.text = text
        self.headers = [n for n, line in enumerate(self.lines, 1) if re.match(r"\s*\[\[\s*test\s*\]\]", line)]

    def policy(self) -> Policy:
        try:
            data = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"^(.*) \(at line (\d+), column (\d+)\)$", str(error))
            if found is None:
                self.fail(f"not TOML: {error}", len(self.lines))
            self.fail(f"not TOML: {found[1]}", int(found[2]), int(found[3]) - 1)
        for key in data:
            if key not in _TOP:
                self.fail(f"unknown key {key!r}; a policy has {', '.join(_TOP)}", self.line_of(key, 0))
        tests = data.get("test", [])
        if not isinstance(tests, list) or not all(isinstance(t, dict) for t in tests):
            self.fail("tests are written as [[test]]", self.line_of("test", 0))
        if not tests:
            self.fail("there is no test; each begins with a line [[test]]", 0)
        assume = self.assume(data, 0)
        statements: list[Statement] = []
        for number, test in enumerate(tests, 1):
            statement = self.statement(test, number, assume)
            if any(s.name == statement.name for s in statements):
                self.fail(f"there are two tests called {statement.name!r}", self.line_of("name", number))
            statements.append(statement)
        return Policy(self.string(data, "name", 0) or self.path.stem, tuple(statements), str(self.path))

    # ------------------------------------------------------------------------------------------------ places

    def fail(self, message: str, line: int, start: int = 0, end: int | None = None) -> NoReturn:
        """Raises an error that shows a line of the file."""
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        if start == 0 and end is None:
            start = len(text) - len(text.lstrip())
        raise ParseError(message, source=str(self.path), line=line, text=text, start=start, end=end)

    def line_of(self, key: str, test: int) -> int:
        """The line of a key in test number `test` (0: in front of all tests), else that of the test itself."""
        first = self.headers[test - 1] if 0 < test <= len(self.headers) else 0
        behind = [h for h in self.headers if h > first]
        last = behind[0] - 1 if behind else len(self.lines)
        pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[]=.]""")
        for number in range(first + 1, last + 1):
            if pattern.match(self.lines[number - 1]):
                return number
        return first

    # ------------------------------------------------------------------------------------------------ values

    def string(self, data: Mapping[str, Any], key: str, test: int) -> str | None:
        """A text, or None where the key is missing."""
        value = data.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            self.fail(f"{key} is {value!r}; it should be text", self.line_of(key, test))
        return value

    def one_of(self, data: Mapping[str, Any], key: str, words: tuple[str, ...], test: int) -> str | None:
        """A word of a list."""
        value = self.string(data, key, test)
        if value is not None and value not in words:
            self.fail(f"{key} is {value!r}; it should be one of {', '.join(words)}", self.line_of(key, test))
        return value

    def assume(self, data: Mapping[str, Any], test: int) -> dict[str, str]:
        """What undecided matches are taken for."""
        value = data.get("assume", {})
        if not isinstance(value, dict) or not all(how in ("match", "no-match") for how in value.values()):
            self.fail(f"assume is {value!r}; it should give modules or rules 'match' or 'no-match', as in "
                      "{limit = \"no-match\"}", self.line_of("assume", test))
        return value

    def condition(self, data: Mapping[str, Any], key: str, test: int) -> Condition | None:
        """A condition; its errors are shown in the file's own line where it stands on one."""
        text = self.string(data, key, test)
        if text is None:
            return None
        line = self.line_of(key, test)
        try:
            return parse_condition(text, source=f"{self.path}: test {test}, {key}")
        except ParseError as error:
            at = self.lines[line - 1].find(text) if line else -1
            if at < 0:
                raise
            self.fail(error.message, line, at + error.start, at + error.end)

    def statement(self, test: Mapping[str, Any], number: int, assume: Mapping[str, str]) -> Statement:
        for key in test:
            if key not in _TEST:
                self.fail(f"unknown key {key!r}; a test has {', '.join(_TEST)}", self.line_of(key, number))
        line = self.headers[number - 1] if number <= len(self.headers) else 0
        name = self.string(test, "name", number)
        expect = self.one_of(test, "expect", EXPECTATIONS, number)
        where, want = self.condition(test, "where", number), self.condition(test, "want", number)
        if name is None or expect is None:
            self.fail(f"test {number} has no {'name' if name is None else 'expect'}", line)
        if where is None and expect != "same":
            self.fail(f"test {number} has no where; give a condition such as 'iif == eth0', or 'any'", line)
        if (want is None) != (expect not in ("none", "some")) and expect != "reaches":
            what = "needs want" if want is None else "takes no want"
            self.fail(f"expect = {expect!r} {what}", self.line_of("expect", number))
        before = self.string(test, "before", number)
        if (before is None) != (expect != "same"):
            what = "needs before, the host to compare with" if before is None else "takes no before"
            self.fail(f"expect = {expect!r} {what}", self.line_of("expect", number))
        by = test.get("by", ["verdict", "egress", "nat"])
        if "by" in test and (expect != "same" or not isinstance(by, list) or not by or any(b not in BY for b in by)):
            self.fail(f"by is {by!r}; it should be a list of {', '.join(BY)}, and goes with expect = 'same'",
                      self.line_of("by", number))
        return Statement(
            name, expect, where if where is not None else EVERYTHING, want, self.one_of(test, "scope", SCOPES, number),
            self.path.parent / before if before is not None else None, tuple(by),
            {**assume, **self.assume(test, number)}, line)
