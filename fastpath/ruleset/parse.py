"""Reads what iptables-save prints.

    file    := (table | comment | blank)*
    table   := ``*NAME`` (chain | rule | comment | blank)* ``COMMIT``
    chain   := ``:NAME POLICY`` counters?      POLICY   := ACCEPT | DROP | ``-``
    rule    := counters? ``-A CHAIN`` spec     counters := ``[PACKETS:BYTES]``
    comment := ``#`` ...                       spec     := see rule.py

Tables come in any order, each at most once; a chain may be declared after a rule that jumps to it, and a builtin chain
with rules need not be declared. Of several policies of a builtin chain the last one holds.
Invariant: ``parse_ruleset(str(ruleset)) == ruleset`` for every ruleset it returns.
Safe direction: whatever iptables-restore would refuse is refused, with file, line and column.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from fastpath.errors import ParseError
from fastpath.ruleset.addresses import ValueFault
from fastpath.ruleset.check import find_problem
from fastpath.ruleset.model import BUILTIN_CHAINS, Chain, Rule, Ruleset, Table
from fastpath.ruleset.options import did_you_mean
from fastpath.ruleset.rule import RuleFault, RuleReader, Unknown, check_chain_name, parse_count
from fastpath.ruleset.tokens import Word, save_texts, save_words

__all__ = ["Unknown", "parse_rule", "parse_ruleset"]

_COUNTERS = re.compile(r"\[([0-9]{1,20}):([0-9]{1,20})\]\Z", re.ASCII)


def parse_ruleset(text: str, *, source: str = "<string>", family: int = 4, unknown: Unknown = "error") -> Ruleset:
    """The ruleset that a save file describes.

    Args:
        text: the file's text.
        source: file name for messages.
        family: 4 for iptables-save, 6 for ip6tables-save.
        unknown: ``error`` refuses unknown matches, targets and options; ``undecided`` keeps them with
            ``known`` False, so that every answer that depends on them is undecided.

    Raises:
        ParseError: iptables-restore would refuse the file; the error shows the line and the words.
    """
    if family not in (4, 6):
        raise ValueError(f"family is 4 or 6, not {family!r}")
    if unknown not in ("error", "undecided"):
        raise ValueError(f"unknown is 'error' or 'undecided', not {unknown!r}")
    return _File(text, source, family, unknown).read()


def parse_rule(
    words: Sequence[Word],
    *,
    table: str,
    chain: str,
    chains: Collection[str] | None = None,
    family: int = 4,
    unknown: Unknown = "error",
    source: str = "<string>",
    line: int = 0,
    text: str = "",
) -> list[Rule]:
    """The rules that a rule specification (the words after ``-A CHAIN``) stands for.

    Args:
        words: the words, with their columns in `text`.
        table, chain: where the rule goes; what a builtin chain excludes is refused.
        chains: the table's user chains. None takes every name that is no target as a chain;
            ``check_ruleset`` then finds jumps to nowhere.
        family: 4 or 6.
        unknown: as for :func:`parse_ruleset`.
        source, line, text: file name, line number and whole line, for messages.

    Returns:
        One rule, or several in iptables' order where ``-s`` or ``-d`` lists addresses, or none where the
        specification is marked as the other family's (``-6``).

    Raises:
        ParseError: iptables would refuse the specification.
    """
    for w in words:
        if "\n" in w.text or "\0" in w.text:
            message = "a line break or a zero byte cannot be part of a rule"
            raise ParseError(message, source=source, line=line, text=text, start=w.start, end=w.end)
    reader = RuleReader(table, family=family, unknown=unknown, chains=chains)
    try:
        return reader.read([w.text for w in words], chain, raw=text, line=line)
    except RuleFault as fault:
        raise _error(fault, words, 0, source=source, line=line, text=text) from None


def _error(fault: RuleFault, words: Sequence[Word], skip: int, *, source: str, line: int, text: str) -> ParseError:
    if not words:
        return ParseError(fault.message, source=source, line=line, text=text)
    first = words[min(fault.first + skip, len(words) - 1)]
    last = words[min(fault.last + skip, len(words) - 1)]
    return ParseError(fault.message, source=source, line=line, text=text, start=first.start, end=last.end)


class _ChainLines:
    """A chain while its table is being read."""

    __slots__ = ("bytes", "packets", "policy", "rules")

    def __init__(self, policy: str | None, packets: int = 0, byte_count: int = 0) -> None:
        self.policy = policy
        self.packets = packets
        self.bytes = byte_count
        self.rules: list[Rule] = []


class _File:
    """A save file being read, line by line; ``number`` and ``line`` are where it stands."""

    def __init__(self, text: str, source: str, family: int, unknown: Unknown) -> None:
        self.lines = text.split("\n")
        self.source = source
        self.family = family
        self.unknown: Unknown = unknown
        self.number = 0
        self.line = ""

    def read(self) -> Ruleset:
        tables: list[Table] = []
        waiting = self.stripped()
        for number, line in waiting:
            self.number, self.line = number, line
            name = line[1:].strip(" \t")
            if line[0] != "*":
                raise self.error("a table must begin here, with a line such as *filter")
            if name not in BUILTIN_CHAINS:
                raise self.error(
                    f"unknown table '{name}': {', '.join(BUILTIN_CHAINS)}{did_you_mean(name, BUILTIN_CHAINS)}"
                )
            if any(t.name == name for t in tables):
                raise self.error(f"the table {name} comes twice, and the second would replace the first")
            body: list[tuple[int, str]] = []
            for number, line in waiting:
                if line == "COMMIT":
                    break
                if line[0] == "*":
                    raise self.error(f"the table {name} has no COMMIT line before the next table begins")
                body.append((number, line))
            else:
                raise self.error(f"the table {name} has no COMMIT line")
            tables.append(self.table(name, body))
        ruleset = Ruleset(tuple(tables), self.family, self.source)
        self.check(ruleset)
        return ruleset

    def stripped(self) -> Iterator[tuple[int, str]]:
        """Number and text of every line that says something."""
        for number, line in enumerate(self.lines, 1):
            line = line.strip(" \t\r")
            if line and line[0] != "#":
                yield number, line

    def error(self, message: str, start: int = 0, end: int | None = None) -> ParseError:
        return ParseError(message, source=self.source, line=self.number, text=self.line, start=start, end=end)

    def table(self, name: str, body: list[tuple[int, str]]) -> Table:
        chains: dict[str, _ChainLines] = {}
        rules: list[tuple[int, str]] = []
        for number, line in body:
            if line[0] == ":":
                self.number, self.line = number, line
                self.chain(name, chains)
            else:
                rules.append((number, line))
        builtin = BUILTIN_CHAINS[name]
        reader = RuleReader(
            name, family=self.family, unknown=self.unknown, chains=frozenset(c for c in chains if c not in builtin)
        )
        for number, line in rules:
            self.number, self.line = number, line
            self.rule(name, reader, chains)
        return Table(name, tuple(Chain(n, c.policy, tuple(c.rules), c.packets, c.bytes) for n, c in chains.items()))

    def chain(self, table: str, chains: dict[str, _ChainLines]) -> None:
        words = save_words(self.line[1:], source=self.source, number=self.number)
        words = [Word(w.text, w.start + 1, w.end + 1) for w in words]
        if len(words) not in (2, 3):
            raise self.error("a chain is declared as :NAME POLICY [PACKETS:BYTES]")
        name, policy = words[0].text, words[1].text
        counts = (0, 0)
        if len(words) == 3:
            counts = self.counters(words[2].text, words[2].start, words[2].end)
        if name in BUILTIN_CHAINS[table]:
            if policy not in ("ACCEPT", "DROP", "-"):
                raise self.error(
                    f"the policy of a builtin chain is ACCEPT or DROP, not '{policy}'", words[1].start, words[1].end
                )
            declared = _ChainLines("ACCEPT" if policy == "-" else policy, *counts)
        else:
            try:
                check_chain_name(name, 0)
            except RuleFault as fault:
                raise self.error(fault.message, words[0].start, words[0].end) from None
            if policy != "-":
                raise self.error(
                    f"'{name}' is a user chain in {table} and has no policy: write '-', not '{policy}'",
                    words[1].start,
                    words[1].end,
                )
            if name in chains:
                raise self.error(f"the chain '{name}' is declared twice", words[0].start, words[0].end)
            declared = _ChainLines(None, *counts)
        chains[name] = declared

    def counters(self, text: str, start: int, end: int) -> tuple[int, int]:
        found = _COUNTERS.match(text)
        try:
            if found:
                return parse_count(found.group(1)), parse_count(found.group(2))
        except ValueFault:
            pass
        raise self.error("counters are written [PACKETS:BYTES], both below 2**64", start, end)

    def rule(self, table: str, reader: RuleReader, chains: dict[str, _ChainLines]) -> None:
        try:
            words = save_texts(self.line)
        except ParseError:
            save_words(self.line, source=self.source, number=self.number)
            raise
        skip, counts = 0, None
        if words[0][0:1] == "[":
            counts = self.counters(words[0], 0, len(words[0]))
            skip = 1
        if len(words) < skip + 2 or words[skip] not in ("-A", "--append"):
            raise self.error(
                "a rule line is '-A CHAIN ...'; other iptables commands belong into a script", *self.columns(skip, skip)
            )
        name = words[skip + 1]
        chain = chains.get(name)
        if chain is None:
            if name not in BUILTIN_CHAINS[table]:
                raise self.error(
                    f"no chain '{name}' in {table}: declare it with ':{name} - [0:0]'{did_you_mean(name, chains)}",
                    *self.columns(skip + 1, skip + 1),
                )
            chain = chains[name] = _ChainLines("ACCEPT")
        skip += 2
        try:
            rules = reader.read(words[skip:], name, raw=self.line, line=self.number)
        except RuleFault as fault:
            raise self.error(fault.message, *self.columns(fault.first + skip, fault.last + skip)) from None
        if counts is not None and counts != (0, 0):
            rules = [replace(r, packets=counts[0], bytes=counts[1]) for r in rules]
        chain.rules += rules

    def columns(self, first: int, last: int) -> tuple[int, int]:
        """Columns of the line's words `first` to `last`; the end of the line where there are fewer."""
        words = save_words(self.line, source=self.source, number=self.number)
        start = words[first].start if first < len(words) else len(self.line)
        end = words[last].end if last < len(words) else len(self.line)
        return start, end

    def check(self, ruleset: Ruleset) -> None:
        problem = find_problem(ruleset)
        if problem is None:
            return
        self.number, self.line = problem.rule.line, problem.rule.raw
        places = [n for n, w in enumerate(save_words(self.line)) if w.text == problem.word]
        raise self.error(problem.message, *(self.columns(places[-1], places[-1]) if places else (0, None)))
