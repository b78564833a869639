"""iptables commands as edits: a ruleset and one command line give a new ruleset.

    command := prefix* item*          prefix := ``sudo`` sudo-flag* | a path that ends in ``iptables``
    item    := action | setting | a word of the rule specification (see rule.py)
    action  := -A CHAIN | -I CHAIN [N] | -R CHAIN N | -D CHAIN [N] | -C CHAIN | -N CHAIN | -X [CHAIN] | -F [CHAIN]
             | -Z [CHAIN [N]] | -P CHAIN POLICY | -E OLD NEW | -L [CHAIN [N]] | -S [CHAIN [N]] | -h | -V
    setting := -t TABLE | -w [SECONDS] | -W [MICROSECONDS] | -M COMMAND | -v | -n | -x | --line-numbers | -4 | -6

Words are read as getopt_long(3) does it for iptables: in any order, short options joined (``-vnL``, ``-tnat``), long
ones shortened while unambiguous or written ``--table=nat``; an option's value may begin with a dash. ``-L``, ``-S``,
``-h`` and ``-V`` change nothing. Chains that iptables keeps sorted (user chains, by name) are kept sorted here.

Invariants: what comes back differs from what was given only as the command says, and every jump in it leads to a chain
that exists, without loops. A command that is refused changes nothing, since rulesets are immutable. Safe direction:
what iptables would refuse is refused: :class:`~fastpath.errors.ParseError` for what cannot be read,
:class:`~fastpath.errors.EditError` for what does not fit the rules as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from fastpath.errors import EditError, ParseError
from fastpath.ruleset.check import find_problem
from fastpath.ruleset.model import BUILTIN_CHAINS, Chain, Rule, Ruleset, Table
from fastpath.ruleset.options import IMPLICIT_MATCHES, Extension, did_you_mean, matches, targets
from fastpath.ruleset.parse import parse_rule
from fastpath.ruleset.rule import RuleFault, Unknown, check_chain_name
from fastpath.ruleset.tokens import Word, shell_words

PROGRAMS: dict[str, int] = {
    f"{name}{backend}": family
    for name, family in (("iptables", 4), ("ip6tables", 6))
    for backend in ("", "-legacy", "-nft")
}
"""Programs whose command lines are edits, with their address family."""

TABLE_ORDER = ("mangle", "security", "raw", "filter", "nat")
"""Where a new table goes: the order in which iptables-save (nft) prints tables."""

_SUDO_FLAGS = frozenset(("-n", "-E", "-H", "-S", "-k", "-b", "--"))


@dataclass(frozen=True, slots=True)
class _Short:
    """What a short option of iptables stands for. ``values`` is how many words must follow; ``optional`` words may."""

    long: str
    values: int = 0
    optional: int = 0


_ACTIONS: dict[str, _Short] = {
    "A": _Short("append", 1),
    "C": _Short("check", 1),
    "D": _Short("delete", 1, 1),
    "E": _Short("rename-chain", 2),
    "F": _Short("flush", 0, 1),
    "I": _Short("insert", 1, 1),
    "L": _Short("list", 0, 2),
    "N": _Short("new-chain", 1),
    "P": _Short("policy", 2),
    "R": _Short("replace", 2),
    "S": _Short("list-rules", 0, 2),
    "V": _Short("version"),
    "X": _Short("delete-chain", 0, 1),
    "Z": _Short("zero", 0, 2),
    "h": _Short("help"),
}
_SETTINGS: dict[str, _Short] = {
    "4": _Short("ipv4"),
    "6": _Short("ipv6"),
    "M": _Short("modprobe", 1),
    "W": _Short("wait-interval", 0, 1),
    "n": _Short("numeric"),
    "t": _Short("table", 1),
    "v": _Short("verbose"),
    "w": _Short("wait", 0, 1),
    "x": _Short("exact"),
}
_OF_RULE: dict[str, _Short] = {
    "c": _Short("set-counters", 2),
    "d": _Short("destination", 1),
    "f": _Short("fragment"),
    "g": _Short("goto", 1),
    "i": _Short("in-interface", 1),
    "j": _Short("jump", 1),
    "m": _Short("match", 1),
    "o": _Short("out-interface", 1),
    "p": _Short("protocol", 1),
    "s": _Short("source", 1),
}
_SHORT = {**_ACTIONS, **_SETTINGS, **_OF_RULE}
_LONG: dict[str, str] = {short.long: letter for letter, short in _SHORT.items()} | {
    "new": "N", "rename": "E", "line-numbers": "0", "proto": "p", "dst": "d", "src": "s", "fragments": "f",
}
_WITH_RULE = frozenset("ACDIR")
_LISTING = frozenset("LSVh")


@dataclass(slots=True)
class _Command:
    """A command line taken apart: the action's letter and words, the table, and the rule's words."""

    text: str
    action: str = ""
    words: list[Word] = field(default_factory=list)
    table: str = "filter"
    rule: list[Word] = field(default_factory=list)
    at: Word = Word("", 0, 0)
    zero: bool = False


class _Refused(Exception):
    """A command that iptables would refuse; turned into an EditError where the command's text is known."""


def apply(
    ruleset: Ruleset,
    command: str | Sequence[Word],
    *,
    unknown: Unknown = "error",
    source: str = "<command>",
    line: int = 0,
    text: str | None = None,
) -> Ruleset:
    """The ruleset after one iptables command.

    Args:
        ruleset: the rules to change.
        command: a command line such as ``iptables -t nat -I PREROUTING 1 -i eth0 -j ACCEPT`` (the program's name may
            be left out), or its words.
        unknown: ``error`` refuses matches, targets and options that are not known; ``undecided`` keeps them.
        source, line: file name and line number for messages and for the rules that the command makes.
        text: the whole line that the columns of `command`'s words point into, where words are given.

    Returns:
        A new ruleset; the same one where the command changes nothing (``-L``, ``-S``, ``-C``).

    Raises:
        ParseError: the command cannot be read.
        EditError: iptables would refuse it: no such chain, chain not empty, rule number too big, a loop, ...
    """
    if isinstance(command, str):
        text = command
        words = shell_words(command, source=source, number=line)
    else:
        words = list(command)
        text = " ".join(w.text for w in words) if text is None else text
    parsed = _Reader(words, text, ruleset.family, source, line).read()
    try:
        return _Editor(ruleset, parsed, unknown, source, line).run()
    except _Refused as refused:
        where = f"{source}:{line}: " if line else ""
        raise EditError(f"{where}{refused}\n    {text.strip()}") from None


def program_family(word: str) -> int | None:
    """The address family of an iptables program's name or path, or None for another program."""
    return PROGRAMS.get(word.rpartition("/")[2])


def without_sudo(words: Sequence[Word]) -> list[Word]:
    """The words behind a leading ``sudo`` and its flags without values."""
    rest = list(words)
    while rest and rest[0].text.rpartition("/")[2] == "sudo":
        del rest[0]
        while rest and rest[0].text in _SUDO_FLAGS:
            del rest[0]
    return rest


class _Reader:
    """Takes a command line apart."""

    def __init__(self, words: Sequence[Word], text: str, family: int, source: str, line: int) -> None:
        self.words = list(words)
        self.family = family
        self.source = source
        self.line = line
        self.command = _Command(text)
        self.loaded: list[Extension] = []

    def error(self, message: str, word: Word | None = None) -> NoReturn:
        start, end = (word.start, word.end) if word else (0, None)
        raise ParseError(message, source=self.source, line=self.line, text=self.command.text, start=start, end=end)

    def read(self) -> _Command:
        self.words = without_sudo(self.words)
        if self.words and (family := program_family(self.words[0].text)) is not None:
            if family != self.family:
                self.error(f"this command is for IPv{family}, the rules are for IPv{self.family}", self.words[0])
            del self.words[0]
        while self.words:
            self.option(self.words.pop(0))
        command = self.command
        if not command.action:
            self.error("no command: one of -A -C -D -E -F -I -L -N -P -R -S -X -Z is needed")
        if command.table not in BUILTIN_CHAINS:
            self.error(f"no table '{command.table}': the tables are {', '.join(BUILTIN_CHAINS)}", command.at)
        if command.rule and not self.takes_rule():
            what = _ACTIONS[command.action].long
            self.error(f"'{command.rule[0].text}' does not go with --{what}", command.rule[0])
        return command

    def takes_rule(self) -> bool:
        action, words, rule = self.command.action, self.command.words, self.command.rule
        if action == "P":
            return rule[0].text in ("-c", "--set-counters") and len(rule) == 3
        return action in _WITH_RULE and not (action == "D" and len(words) > 1)

    # --- words --------------------------------------------------------------------------------------------------

    def option(self, word: Word) -> None:
        text = word.text
        if text.startswith("--") and len(text) > 2:
            self.long(word)
        elif text.startswith("-") and len(text) > 1 and text != "--":
            self.short(word)
        else:
            self.command.rule.append(word)

    def short(self, word: Word) -> None:
        """``-A``, ``-vnL``, ``-tnat``: letters up to the first that takes a value, which the rest of the word is."""
        letters = word.text[1:]
        for at, letter in enumerate(letters):
            known = _SHORT.get(letter)
            if known is None:
                if at == 0:
                    self.command.rule.append(word)  # not an option of iptables itself: let the rule's reader say so
                    return
                self.error(f"unknown option '-{letter}' in '{word.text}'", word)
            start = word.start + 1 + at
            here = Word(f"-{letter}", start, start + 1) if len(letters) > 1 else word
            rest = letters[at + 1 :]
            if rest and (known.values or known.optional):
                self.words.insert(0, Word(rest, start + 1, word.end))
                self.take(letter, here, attached=True)
                return
            self.take(letter, here)

    def long(self, word: Word) -> None:
        name, equals, value = word.text[2:].partition("=")
        spec = self.extension_option(name)
        if spec is not None and not equals:
            self.command.rule.append(word)
            taken = self.words[:spec]
            self.command.rule += taken
            del self.words[: len(taken)]
            return
        letter = _LONG.get(name) if spec is None else None
        if letter is None and spec is None:
            letter = self.shortened(name, word)
        if letter is None:
            self.command.rule.append(word)
            return
        if equals:
            known = _SHORT.get(letter)
            if known is None or not (known.values or known.optional):
                self.error(f"--{name} takes no value", word)
            start = word.start + 3 + len(name)
            self.words.insert(0, Word(value, min(start, word.end), word.end))
        self.take(letter, word, attached=bool(equals))

    def extension_option(self, name: str) -> int | None:
        """How many words the option `name` of a match or target named so far takes at least; None where none has it."""
        for extension in reversed(self.loaded):
            spec = extension.by_name.get(name)
            if spec is not None:
                return 0 if spec.optional else spec.words
        return None

    def shortened(self, name: str, word: Word) -> str | None:
        """The letter of the only option that begins with `name`; None where it is an extension's, or nobody's."""
        own = {letter for long, letter in _LONG.items() if long.startswith(name)}
        others = {n for x in self.loaded for n in x.by_name if n.startswith(name)}
        if len(own) == 1 and not others:
            return next(iter(own))
        if own - _OF_RULE.keys() and len(own) + len(others) > 1:
            names = sorted({long for long in _LONG if long.startswith(name)} | others)
            self.error(f"--{name} is ambiguous: --{' or --'.join(names)}", word)
        return None

    def take(self, letter: str, word: Word, *, attached: bool = False) -> None:
        """Takes one option and its values from the words."""
        command = self.command
        if letter in _OF_RULE:
            self.rule_option(letter, word)
            return
        if command.rule and command.rule[-1].text == "!":
            self.error(f"'!' cannot stand before {word.text}", command.rule[-1])
        known = _SHORT.get(letter, _Short("line-numbers"))
        values = [self.value(word, attached and n == 0) for n in range(known.values)]
        while len(values) < known.values + known.optional and (attached and not values or self.has_value()):
            values.append(self.words.pop(0))
        if letter in _ACTIONS:
            self.action(letter, word, values)
        elif letter == "t":
            command.table, command.at = values[0].text, values[0]
        elif letter in "wW" and values and not (values[0].text.isascii() and values[0].text.isdigit()):
            self.error(f"{word.text} takes a number, not '{values[0].text}'", values[0])
        elif letter in "46" and int(letter) != self.family:
            self.error(f"{word.text} makes this a command for IPv{letter}; the rules are for IPv{self.family}", word)

    def has_value(self) -> bool:
        return bool(self.words) and self.words[0].text[:1] not in ("-", "!")

    def value(self, word: Word, attached: bool) -> Word:
        """A required value; a word that begins with a dash is one too, as for getopt."""
        if not self.words or (not attached and self.words[0].text == "!"):
            self.error(f"{word.text} needs a value", word)
        return self.words.pop(0)

    def rule_option(self, letter: str, word: Word) -> None:
        """An option of the rule specification goes through; its value goes along and is not read as an option."""
        rule = self.command.rule
        plain = word.text[1:] == letter or word.text[2:] in _LONG
        rule.append(word if plain else Word(f"--{_OF_RULE[letter].long}", word.start, word.end))
        if letter != "f" and self.words and self.words[0].text == "!":
            rule.append(self.words.pop(0))
        for _ in range(_OF_RULE[letter].values):
            if self.words:
                rule.append(self.words.pop(0))
        self.load(letter, rule[-1].text)

    def load(self, letter: str, name: str) -> None:
        """Notes the match or target that an option makes known, for the options that it brings along."""
        extension = None
        if letter == "m":
            extension = matches(self.family).get(name)
        elif letter == "j":
            extension = targets(self.family).get(name)
        elif letter == "p":
            by_name = {"ipv6-icmp": "icmp6", "icmpv6": "icmp6"}
            module = IMPLICIT_MATCHES.get(int(name)) if name.isascii() and name.isdigit() and len(name) < 4 else None
            extension = matches(self.family).get(module or by_name.get(name.lower(), name.lower()))
        if extension is not None:
            self.loaded.append(extension)

    def action(self, letter: str, word: Word, values: list[Word]) -> None:
        command = self.command
        if letter == "Z" and command.action in ("L", "S"):
            command.zero = True
            command.words = values or command.words
            return
        if letter in "LS" and command.action == "Z":
            command.zero = True
            command.action = letter
            command.words = values or command.words
            return
        if command.action and not (letter in _LISTING and command.action in _LISTING):
            self.error(f"{word.text} after --{_ACTIONS[command.action].long}: a command line has one command", word)
        command.action, command.words = letter, values
        if letter == "A" or letter in "DIC":
            self.chain_word(word, values[0])

    def chain_word(self, option: Word, word: Word) -> None:
        if word.text[:1] in ("-", "!") or not word.text:
            self.error(f"{option.text} needs a chain, not '{word.text}'", word)


class _Editor:
    """Carries a command out on a ruleset."""

    def __init__(self, ruleset: Ruleset, command: _Command, unknown: Unknown, source: str, line: int) -> None:
        self.ruleset = ruleset
        self.command = command
        self.unknown = unknown
        self.source = source
        self.line = line
        found = ruleset.table(command.table)
        self.table = _completed(found or Table(command.table))
        self.builtin = BUILTIN_CHAINS[command.table]

    def run(self) -> Ruleset:
        if self.command.zero:
            return self.zero()
        if self.command.action in _LISTING:
            return self.ruleset
        return _RUN[self.command.action](self)

    # --- rules --------------------------------------------------------------------------------------------------

    def append(self) -> Ruleset:
        chain = self.chain(self.name())
        rules = self.rules()
        return self.with_rules(chain, (*chain.rules, *rules), rules)

    def insert(self) -> Ruleset:
        chain = self.chain(self.name())
        number = self.number(1) if len(self.command.words) > 1 else 1
        if number > len(chain.rules) + 1:
            last = len(chain.rules) + 1
            raise _Refused(f"cannot insert as rule {number}: {_count(chain)}, so {last} is the last place")
        rules = self.rules()
        before, after = chain.rules[: number - 1], chain.rules[number - 1 :]
        return self.with_rules(chain, (*before, *reversed(rules), *after), rules)

    def replace(self) -> Ruleset:
        chain = self.chain(self.name())
        at = self.existing(chain, self.number(1))
        rules = self.rules()
        if len(rules) != 1:
            raise _Refused("a replacement is one rule: name at most one source and one destination address")
        return self.with_rules(chain, (*chain.rules[:at], *rules, *chain.rules[at + 1 :]), rules)

    def delete(self) -> Ruleset:
        chain = self.chain(self.name())
        left = list(chain.rules)
        if len(self.command.words) > 1:
            del left[self.existing(chain, self.number(1))]
        else:
            for rule in self.rules():
                del left[self.equal(left, rule, chain)]
        return self.with_chain(replace(chain, rules=tuple(left)))

    def check(self) -> Ruleset:
        chain = self.chain(self.name())
        for rule in self.rules():
            self.equal(chain.rules, rule, chain)
        return self.ruleset

    def rules(self) -> list[Rule]:
        """The rules that the command's specification stands for."""
        text = self.command.text
        user = [c.name for c in self.table.chains if c.name not in self.builtin]
        rules = parse_rule(
            self.command.rule, table=self.table.name, chain=self.command.words[0].text, chains=user,
            family=self.ruleset.family, unknown=self.unknown, source=self.source, line=self.line, text=text,
        )
        return [replace(r, raw=text, line=self.line) for r in rules]

    def equal(self, rules: Sequence[Rule], rule: Rule, chain: Chain) -> int:
        for at, other in enumerate(rules):
            if other == rule:
                return at
        raise _Refused(f"no rule of {chain.name} is '{rule}': a rule is found by its whole specification")

    def existing(self, chain: Chain, number: int) -> int:
        """The index of rule `number`."""
        if number > len(chain.rules):
            raise _Refused(f"rule number {number} is too big: {_count(chain)}")
        return number - 1

    # --- chains -------------------------------------------------------------------------------------------------

    def new(self) -> Ruleset:
        name = self.name()
        if self.table.chain(name) is not None:
            raise _Refused(f"chain {name} exists already in {self.table.name}")
        self.check_name(self.command.words[0])
        return self.with_table(_with_user_chain(self.table, Chain(name)))

    def delete_chain(self) -> Ruleset:
        if self.command.words:
            doomed = [self.user_chain(self.name(), "deleted")]
        else:
            doomed = [c for c in self.table.chains if c.name not in self.builtin]
        for chain in doomed:
            if chain.rules:
                raise _Refused(f"{_count(chain)} and cannot be deleted: empty it with -F {chain.name} first")
            numbered = ((c, n, r) for c in self.table.chains for n, r in enumerate(c.rules, 1))
            users = [f"{c.name} {n}" for c, n, r in numbered if _leads(r, chain.name)]
            if users:
                raise _Refused(f"chain {chain.name} is still jumped to by rule {', '.join(users[:3])}")
        names = {c.name for c in doomed}
        return self.with_table(replace(self.table, chains=tuple(c for c in self.table.chains if c.name not in names)))

    def rename(self) -> Ruleset:
        old = self.user_chain(self.name(), "renamed")
        name = self.command.words[1].text
        if self.table.chain(name) is not None:
            raise _Refused(f"chain {name} exists already in {self.table.name}")
        self.check_name(self.command.words[1])
        others = tuple(c for c in self.table.chains if c is not old)
        table = _with_user_chain(replace(self.table, chains=others), replace(old, name=name))
        chains = (replace(c, rules=tuple(_renamed(r, old.name, name) for r in c.rules)) for c in table.chains)
        return self.with_table(replace(table, chains=tuple(chains)))

    def flush(self) -> Ruleset:
        if self.command.words:
            return self.with_chain(replace(self.chain(self.name()), rules=()))
        return self.with_table(replace(self.table, chains=tuple(replace(c, rules=()) for c in self.table.chains)))

    def zero(self) -> Ruleset:
        if not self.command.words:
            return self.with_table(replace(self.table, chains=tuple(_zeroed(c) for c in self.table.chains)))
        chain = self.chain(self.name())
        if len(self.command.words) == 1:
            return self.with_chain(_zeroed(chain))
        at = self.existing(chain, self.number(1))
        rules = (replace(r, packets=0, bytes=0) if n == at else r for n, r in enumerate(chain.rules))
        return self.with_chain(replace(chain, rules=tuple(rules)))

    def policy(self) -> Ruleset:
        chain = self.chain(self.name())
        policy = self.command.words[1].text
        if chain.name not in self.builtin:
            raise _Refused(f"{chain.name} is a user chain and has no policy: end it with a rule instead")
        if policy not in ("ACCEPT", "DROP"):
            raise _Refused(f"'{policy}' is no policy: ACCEPT or DROP is")
        if policy == "DROP" and self.table.name == "nat":
            raise _Refused("the nat table does not filter: its policies stay ACCEPT")
        packets, count = self.policy_counters()
        return self.with_chain(replace(chain, policy=policy, packets=packets, bytes=count))

    def policy_counters(self) -> tuple[int, int]:
        words = self.command.rule
        if not words:
            return 0, 0
        rule = parse_rule(words, table=self.table.name, chain="", chains=(), family=self.ruleset.family,
                          source=self.source, line=self.line, text=self.command.text)[0]
        return rule.packets, rule.bytes

    # --- names and numbers --------------------------------------------------------------------------------------

    def name(self) -> str:
        return self.command.words[0].text

    def chain(self, name: str) -> Chain:
        found = self.table.chain(name)
        if found is None:
            near = did_you_mean(name, [c.name for c in self.table.chains])
            raise _Refused(f"no chain {name} in {self.table.name}{near}")
        return found

    def user_chain(self, name: str, what: str) -> Chain:
        chain = self.chain(name)
        if name in self.builtin:
            raise _Refused(f"{name} is a builtin chain and cannot be {what}")
        return chain

    def number(self, index: int) -> int:
        word = self.command.words[index]
        if word.text.isascii() and word.text.isdigit() and len(word.text) < 10 and int(word.text) > 0:
            return int(word.text)
        self.error(f"'{word.text}' is no rule number: numbers start at 1", word)

    def check_name(self, word: Word) -> None:
        try:
            check_chain_name(word.text, 0)
        except RuleFault as fault:
            self.error(fault.message, word)

    def error(self, message: str, word: Word) -> NoReturn:
        raise ParseError(message, source=self.source, line=self.line, text=self.command.text,
                         start=word.start, end=word.end)

    # --- results ------------------------------------------------------------------------------------------------

    def with_rules(self, chain: Chain, rules: Iterable[Rule], new: Sequence[Rule]) -> Ruleset:
        """The ruleset with other rules in `chain`, after the kernel's checks of the `new` ones."""
        changed = replace(chain, rules=tuple(rules))
        result = self.with_chain(changed)
        table = result.table(self.table.name)
        assert table is not None
        if any(r.target is not None and table.chain(r.target.name) is not None for r in new):
            tested = table
        else:  # a rule that does not jump changes nothing for the others: check it alone, where the jumps lead to it
            names = {c.name for c in table.chains}
            chains = (replace(c, rules=(*(r for r in c.rules if r.target is not None and r.target.name in names),
                                        *(new if c.name == chain.name else ()))) for c in table.chains)
            tested = replace(table, chains=tuple(chains))
        problem = find_problem(Ruleset((tested,), self.ruleset.family))
        if problem is not None:
            raise _Refused(problem.message)
        return result

    def with_chain(self, chain: Chain) -> Ruleset:
        chains = tuple(chain if c.name == chain.name else c for c in self.table.chains)
        return self.with_table(replace(self.table, chains=chains))

    def with_table(self, table: Table) -> Ruleset:
        tables = list(self.ruleset.tables)
        for at, other in enumerate(tables):
            if other.name == table.name:
                tables[at] = table
                return replace(self.ruleset, tables=tuple(tables))
        rank = TABLE_ORDER.index(table.name)
        later = [at for at, t in enumerate(tables) if t.name in TABLE_ORDER and TABLE_ORDER.index(t.name) > rank]
        tables.insert(later[0] if later else len(tables), table)
        return replace(self.ruleset, tables=tuple(tables))


_RUN: dict[str, Callable[[_Editor], Ruleset]] = {
    "A": _Editor.append,
    "C": _Editor.check,
    "D": _Editor.delete,
    "E": _Editor.rename,
    "F": _Editor.flush,
    "I": _Editor.insert,
    "N": _Editor.new,
    "P": _Editor.policy,
    "R": _Editor.replace,
    "X": _Editor.delete_chain,
    "Z": _Editor.zero,
}


def _completed(table: Table) -> Table:
    """The table with every builtin chain; a missing one has policy ACCEPT, as in the kernel."""
    builtin = BUILTIN_CHAINS[table.name]
    missing = [name for name in builtin if table.chain(name) is None]
    if not missing:
        return table
    chains = list(table.chains)
    for name in missing:
        earlier = builtin[: builtin.index(name)]
        at = max((n + 1 for n, c in enumerate(chains) if c.name in earlier), default=0)
        chains.insert(at, Chain(name, "ACCEPT"))
    return replace(table, chains=tuple(chains))


def _with_user_chain(table: Table, chain: Chain) -> Table:
    """The table with one more user chain, before the first whose name sorts behind its own."""
    chains = list(table.chains)
    later = [n for n, c in enumerate(chains) if c.policy is None and c.name.encode() > chain.name.encode()]
    chains.insert(later[0] if later else len(chains), chain)
    return replace(table, chains=tuple(chains))


def _leads(rule: Rule, chain: str) -> bool:
    return rule.target is not None and rule.target.name == chain


def _renamed(rule: Rule, old: str, new: str) -> Rule:
    if rule.target is None or rule.target.name != old:
        return rule
    return replace(rule, target=replace(rule.target, name=new), raw="")


def _zeroed(chain: Chain) -> Chain:
    return replace(chain, packets=0, bytes=0, rules=tuple(replace(r, packets=0, bytes=0) for r in chain.rules))


def _count(chain: Chain) -> str:
    n = len(chain.rules)
    return f"{chain.name} has {'1 rule' if n == 1 else f'{n} rules'}"
