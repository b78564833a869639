"""Conditions as text, for the shell and for policy files.

    condition := all ("or" all)*
    all       := one ("and" one)*
    one       := "not" one | "(" condition ")" | word | test
    word      := "any" | "reached" | "blocked" | "undecided"
    test      := FIELD ("==" | "!=" | "<" | "<=" | ">" | ">=") value
               | FIELD ["not"] "in" (value | "{" value ("," value)* "}")
               | FIELD ("has" | "lacks") FLAGS
    value     := NUMBER | NUMBER-NUMBER | NUMBER/MASK            ports, marks, lengths ...
               | ADDRESS | ADDRESS-ADDRESS | ADDRESS/LENGTH
               | "network" NAME | "container" NAME               of Docker, where the host folder knows them; of an
                                                                 interface field, a network's bridge
               | NAME                                            protocol, interface (br-+ for any such), state, verdict
               | FLAG("|"FLAG)*                                  SYN|ACK, NONE
               | "TABLE CHAIN NUMBER"                            a rule, in quotes; number 0 is the policy

``=`` is read as ``==``. A NAME that holds blanks or signs of the grammar stands in double quotes, inside which a
backslash takes the next character as it is. Fields and their values are listed in ``fields.py``:

    src in 10.0.0.0/8 and dport in {80,443} and not iif == eth0
    proto == tcp and tcp_flags has SYN and dst in network backend
    verdict == DROP and rule == "filter DOCKER-USER 1"
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, NoReturn

from fastpath.analysis.query.conditions import EVERYTHING, All, Any, Comparison, Condition, Not
from fastpath.analysis.query.fields import FIELDS, RESERVED, WORDS, Field
from fastpath.errors import ParseError, QueryError

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([(){},])|(==|!=|<=|>=|=|<|>)|([^\s(){},=!<>"]+)', re.DOTALL)
_COMPARISONS = ("==", "=", "!=", "<", "<=", ">", ">=")
MAX_DEPTH = 100
"""How deep parentheses may nest."""


class Token(NamedTuple):
    """A word or sign with the columns it came from; ``kind`` is ``word``, ``quoted``, ``sign`` or ``end``."""

    kind: str
    text: str
    start: int
    end: int


def parse_condition(text: str, *, source: str = "<condition>") -> Condition:
    """The condition that a text states.

    Args:
        text: the condition, on one line or several.
        source: what to call it in errors.

    Raises:
        ParseError: it cannot be read; the word that is wrong is marked.
    """
    return _Reader(text, source).whole()


def as_condition(given: Condition | str) -> Condition:
    """A condition as it is, or read from text."""
    if isinstance(given, Condition):
        return given
    if isinstance(given, str):
        return parse_condition(given)
    raise QueryError(f"{given!r} is no condition; give text such as 'dport == 80', or fp.field.dport == 80")


class _Reader:
    """Reads one text by recursive descent."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.tokens = list(self._split())
        self.at = 0
        self.depth = 0

    def _split(self) -> list[Token]:
        found: list[Token] = []
        at = 0
        while True:
            while at < len(self.text) and self.text[at].isspace():
                at += 1
            if at == len(self.text):
                return [*found, Token("end", "", at, at)]
            match = _TOKEN.match(self.text, at)
            if match is None:
                what = 'the quotation mark is not closed: add the missing "' if self.text[at] == '"' else (
                    f"{self.text[at]!r} is not understood here")
                self.fail(what, Token("sign", "", at, len(self.text) if self.text[at] == '"' else at + 1))
            quoted, bracket, sign, word = match.groups()
            if quoted is not None:
                found.append(Token("quoted", re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL), at, match.end()))
            else:
                kind = "word" if word is not None else "sign"
                found.append(Token(kind, word or bracket or sign, at, match.end()))
            at = match.end()

    def fail(self, message: str, token: Token) -> NoReturn:
        """Raises an error that marks a token, in its own line of the text."""
        first = self.text.rfind("\n", 0, token.start) + 1
        last = self.text.find("\n", token.start)
        line = self.text[first:last if last >= 0 else len(self.text)]
        number = self.text.count("\n", 0, token.start) + 1
        raise ParseError(message, source=self.source, line=number, text=line or " ", start=token.start - first,
                         end=max(token.end, token.start + 1) - first)

    @property
    def now(self) -> Token:
        """The token to read next."""
        return self.tokens[self.at]

    def take(self) -> Token:
        """Goes past the next token."""
        token = self.now
        if token.kind != "end":
            self.at += 1
        return token

    def is_word(self, *words: str) -> bool:
        """Whether the next token is one of these words or signs."""
        return self.now.kind in ("word", "sign") and self.now.text in words

    def whole(self) -> Condition:
        """The text from beginning to end."""
        if self.now.kind == "end":
            self.fail("the condition is empty; say 'any' for every packet", self.now)
        found = self.condition()
        if self.now.kind != "end":
            self.fail(f"{self.now.text!r} is one word too many; join comparisons with 'and' or 'or'", self.now)
        return found

    def condition(self) -> Condition:
        """Alternatives."""
        parts = [self.all()]
        while self.is_word("or"):
            self.take()
            parts.append(self.all())
        return parts[0] if len(parts) == 1 else _flat(Any, parts)

    def all(self) -> Condition:
        """Conditions that must all hold."""
        parts = [self.one()]
        while self.is_word("and"):
            self.take()
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else _flat(All, parts)

    def one(self) -> Condition:
        """A negation, a group, a word or a comparison."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"conditions nest deeper than {MAX_DEPTH} levels", self.now)
        try:
            if self.is_word("not"):
                self.take()
                return ~self.one()
            if self.is_word("("):
                opening = self.take()
                found = self.condition()
                if not self.is_word(")"):
                    self.fail("this parenthesis is not closed: add the missing )", opening)
                self.take()
                return found
            return self.test()
        finally:
            self.depth -= 1

    def test(self) -> Condition:
        """A word of its own, or a field with what is asked of it."""
        token = self.take()
        if token.kind == "word" and token.text == "any":
            return EVERYTHING
        if token.kind == "word" and token.text in WORDS:
            return WORDS[token.text]
        if token.kind != "word" or token.text not in FIELDS:
            what = f"{token.text!r} is no field" if token.kind != "end" else "a condition is missing here"
            self.fail(f"{what}; the fields are {', '.join(FIELDS)}", token)
        field = Field(token.text)
        negated = self.is_word("not")
        if negated:
            self.take()
        sign = self.take()
        if sign.kind in ("word", "sign") and sign.text == "in":
            found = self.members(field)
            return Not(found) if negated else found
        if negated:
            self.fail(f"after '{field.name} not' comes 'in'", sign)
        if sign.kind == "sign" and sign.text in _COMPARISONS:
            return self.compared(field, sign)
        if sign.kind == "word" and sign.text in ("has", "lacks"):
            value = self.take()
            return self.checked(value, partial(getattr(field, sign.text), self.text_of(value)))
        self.fail(f"after {field.name!r} comes ==, !=, <, <=, >, >=, in, not in, has or lacks", sign)

    def checked(self, token: Token, make: Callable[[], Condition]) -> Condition:
        """What `make` gives; its complaint about the value is shown at the token."""
        try:
            return make()
        except QueryError as error:
            self.fail(str(error), token)

    def compared(self, field: Field, sign: Token) -> Condition:
        """A comparison with one value."""
        first = self.now
        value = self.value(field)
        token = Token("word", value, first.start, self.tokens[self.at - 1].end)

        def make() -> Condition:
            match sign.text:
                case "==" | "=":
                    return field == value
                case "!=":
                    return field != value
                case "<":
                    return field < value
                case "<=":
                    return field <= value
                case ">":
                    return field > value
            return field >= value

        return self.checked(token, make)

    def members(self, field: Field) -> Condition:
        """``in`` with one value or several."""
        several = self.is_word("{")
        opening = self.take() if several else self.now
        found: list[Condition] = []
        while True:
            first = self.now
            value = self.value(field)
            token = Token("word", value, first.start, self.tokens[self.at - 1].end)
            found.append(self.checked(token, partial(field.isin, [value])))
            if not several:
                return found[0]
            if self.is_word(","):
                self.take()
            elif self.is_word("}"):
                self.take()
                items = dict.fromkeys(i for c in found for t in c.tests() for i in t.items)
                return Comparison(field.name, tuple(items))
            else:
                if self.now.kind == "end":
                    self.fail("this set is not closed: add the missing }", opening)
                self.fail("values of a set are separated by commas", self.now)

    def value(self, field: Field) -> str:
        """One value as text, with the words that belong to it."""
        token = self.take()
        text = self.text_of(token)
        if token.kind == "word" and text in ("network", "container"):
            name = self.take()
            if name.kind == "end" or name.kind == "sign":
                self.fail(f"after {text!r} comes its name", name)
            return f"{text} {name.text}"
        if token.kind == "word" and text in RESERVED:
            self.fail(f"a value of {field.name} is missing before {text!r} (a name that is also a word of the language "
                      "stands in double quotes)", token)
        return text

    def text_of(self, token: Token) -> str:
        """The text of a value."""
        if token.kind in ("end", "sign"):
            self.fail("a value is missing here", token)
        return token.text


def _flat(kind: type[All] | type[Any], parts: list[Condition]) -> Condition:
    found: list[Condition] = []
    for part in parts:
        found += part.parts if isinstance(part, kind) else [part]
    return kind(tuple(found))
