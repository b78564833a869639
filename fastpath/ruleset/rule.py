"""Reads one rule specification: the words after ``-A CHAIN``.

    spec    := item*
    item    := ``!``? option            option := short | ``--name`` word* | ``--name=word``
    short   := -s -d -i -o -p -f -m -j -g -c -4 -6 -v with their long forms

Long names may be shortened as long as they stay unambiguous. ``!`` may also stand after the option, as iptables 1.2
printed it. ``-m`` and ``-j`` make their options known; where several know an option, the last one named gets it, and
``-p tcp`` makes those of ``-m tcp`` known without naming it.

Invariant: a rule that is returned prints as iptables-save prints it, and no option is ever dropped silently. Safe
direction: what cannot be understood is an error, or a match or target with ``known`` False where that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

from fastpath.ruleset.addresses import ValueFault, parse_network
from fastpath.ruleset.kinds import interface_name, parse_protocol
from fastpath.ruleset.model import BUILTIN_CHAINS, Match, Negatable, Network, Option, Rule, Target
from fastpath.ruleset.names import PROTOCOLS
from fastpath.ruleset.options import (
    IMPLICIT_MATCHES,
    MATCH_ALIASES,
    VERDICTS,
    Extension,
    OptionSpec,
    did_you_mean,
    matches,
    other_family,
    targets,
)

Unknown: TypeAlias = Literal["error", "undecided"]
_Given: TypeAlias = tuple[str, bool, tuple[str, ...]]

_NO_DECLARED_HOOK = {"in": frozenset(("OUTPUT", "POSTROUTING")), "out": frozenset(("PREROUTING", "INPUT"))}
_CACHE = 1 << 16


class RuleFault(Exception):
    """A rule that cannot be read: `message`, and the words `first` to `last` (inclusive) that it is about."""

    def __init__(self, message: str, first: int, last: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.first = first
        self.last = first if last is None else last


class _OptionFault(Exception):
    """A fault of the option at `index` of a match or target, or of the whole where it is -1."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.message = message
        self.index = index


class _Loaded:
    """A match or target while its options are being collected."""

    __slots__ = ("at", "extension", "given", "known", "name", "places", "unknown")

    def __init__(self, extension: Extension | None, name: str, at: int) -> None:
        self.extension = extension
        self.name = name
        self.at = at
        self.given: list[_Given] = []
        self.places: list[tuple[int, int]] = []
        self.known = extension is not None
        self.unknown: list[Option] = []


class RuleReader:
    """Reads rules of one table and family.

    Args:
        table: the table's name.
        family: 4 or 6.
        unknown: what to do with unknown matches, targets and options.
        chains: user chains of the table, None where they are not known yet.
    """

    def __init__(
        self, table: str, *, family: int = 4, unknown: Unknown = "error", chains: Collection[str] | None = None
    ) -> None:
        self.table = table
        self.family = family
        self.undecided = unknown == "undecided"
        self.chains = chains
        self.matches = matches(family)
        self.targets = targets(family)
        self.builtin_chains = BUILTIN_CHAINS.get(table, ())

    def read(self, words: Sequence[str], chain: str, *, raw: str = "", line: int = 0) -> list[Rule]:
        """The rules that a specification stands for: one for each pair of its source and destination addresses.

        Args:
            words: the specification's words.
            chain: the chain that the rule goes into.
            raw, line: kept in the rule.

        Raises:
            RuleFault: iptables would refuse it.
        """
        return _Reading(self, words, chain, raw, line).rules()


class _Reading:
    """The state of reading one specification."""

    __slots__ = (
        "chain",
        "counters",
        "destination",
        "fragment",
        "goto",
        "in_interface",
        "line",
        "loaded",
        "other_family",
        "out_interface",
        "protocol",
        "raw",
        "reader",
        "seen",
        "source",
        "target",
        "words",
    )

    def __init__(self, reader: RuleReader, words: Sequence[str], chain: str, raw: str, line: int) -> None:
        self.reader = reader
        self.words = words
        self.chain = chain
        self.raw = raw
        self.line = line
        self.source: tuple[Negatable | None, ...] = _ANYWHERE
        self.destination: tuple[Negatable | None, ...] = _ANYWHERE
        self.in_interface: Negatable | None = None
        self.out_interface: Negatable | None = None
        self.protocol: Negatable | None = None
        self.fragment: bool | None = None
        self.counters = (0, 0)
        self.loaded: list[_Loaded] = []
        self.target: _Loaded | None = None
        self.goto = False
        self.other_family = False
        self.seen: dict[str, int] = {}

    # --- the walk over the words -------------------------------------------------------------------------------

    def rules(self) -> list[Rule]:
        words = self.words
        at, end, negated = 0, len(words), False
        while at < end:
            word = words[at]
            builtin = _BUILTIN.get(word)
            if builtin is not None:
                at = builtin(self, at, negated)
                negated = False
            elif word == "!":
                if negated:
                    raise RuleFault("'!' stands here twice: remove one", at)
                negated = True
                at += 1
            else:
                at = self.other_option(at, negated)
                negated = False
        if negated:
            raise RuleFault("'!' needs an option after it", end - 1)
        return self.finish()

    def other_option(self, at: int, negated: bool) -> int:
        """An option of a match or target, or a builtin one that is shortened or written ``--name=value``."""
        word = self.words[at]
        if not word.startswith("--") or len(word) < 3:
            return self.unknown_option(at, negated)
        name = word[2:]
        found = self.find(name)
        if found is not None:
            return self.extension_option(at, negated, *found)
        name, equals, value = name.partition("=")
        if equals:
            self.words = [*self.words[:at], f"--{name}", value, *self.words[at + 1 :]]
            try:
                builtin = _BUILTIN.get(f"--{name}")
                next_at = builtin(self, at, negated) if builtin else self.other_option(at, negated)
                if next_at == at + 1:
                    raise RuleFault(f"--{name} takes no value", at)
            except RuleFault as fault:
                raise RuleFault(fault.message, min(fault.first, at), min(fault.last, at)) from None
            self.words = [*self.words[:at], word, *self.words[at + 2 :]]
            for loaded in self.loaded:
                if loaded.places and loaded.places[-1][0] == at:
                    loaded.places[-1] = (at, next_at - 2)
            return next_at - 1
        return self.shortened(at, negated, name)

    def shortened(self, at: int, negated: bool, name: str) -> int:
        if self.loaded and self.loaded[-1].extension is None:
            return self.unknown_option(at, negated)
        long_names = [n for n in _BUILTIN if n.startswith(f"--{name}")]
        builtins = {_BUILTIN[n]: n for n in long_names}
        found: dict[tuple[str, str], str] = {}
        for loaded in (*self.loaded, *self.implicit()):
            if loaded.extension is not None:
                for long_name, spec in loaded.extension.by_name.items():
                    if long_name.startswith(name):
                        found[loaded.name, spec.name] = long_name
        if len(builtins) + len(found) > 1:
            candidates = sorted({*builtins.values(), *(f"--{n}" for n in found.values())})
            raise RuleFault(f"--{name} is ambiguous: {' or '.join(candidates)}", at)
        if builtins:
            return next(iter(builtins))(self, at, negated)
        if found:
            full = self.find(next(iter(found.values())))
            if full is not None:
                return self.extension_option(at, negated, *full)
        return self.unknown_option(at, negated)

    def implicit(self) -> tuple[_Loaded, ...]:
        """The match that the protocol brings along, where it is not loaded yet."""
        if self.protocol is None or self.protocol.negated or not isinstance(self.protocol.value, int):
            return ()
        extension = self.reader.matches.get(IMPLICIT_MATCHES.get(self.protocol.value, ""))
        if extension is None or any(loaded.extension is extension for loaded in self.loaded):
            return ()
        return (_Loaded(extension, extension.name, 0),)

    def find(self, name: str) -> tuple[_Loaded, OptionSpec] | None:
        """Who takes the option called `name`: the last match or target that was named, else the protocol's match."""
        for loaded in reversed(self.loaded):
            if loaded.extension is None:
                return None
            spec = loaded.extension.by_name.get(name)
            if spec is not None:
                return loaded, spec
        for loaded in self.implicit():
            assert loaded.extension is not None
            spec = loaded.extension.by_name.get(name)
            if spec is not None:
                self.loaded.append(loaded)
                return loaded, spec
        return None

    def extension_option(self, at: int, negated: bool, loaded: _Loaded, spec: OptionSpec) -> int:
        words, first = self.words, at
        if spec.words and not negated and at + 1 < len(words) and words[at + 1] == "!" and spec.negatable:
            negated = True
            at += 1
        if negated and not spec.negatable:
            raise RuleFault(f"--{spec.name} cannot be negated: remove the '!'", first)
        count = spec.words
        if spec.optional and (at + 1 >= len(words) or words[at + 1][:1] in ("-", "!")):
            count = 0
        value = tuple(words[at + 1 : at + 1 + count])
        if len(value) < count:
            needed = "a value" if count == 1 else f"{count} values"
            raise RuleFault(f"--{spec.name} needs {needed}", first)
        loaded.given.append((spec.name, negated, value))
        loaded.places.append((first, at + count))
        return at + count + 1

    def unknown_option(self, at: int, negated: bool) -> int:
        words = self.words
        word = words[at]
        if not word.startswith("-") or len(word) < 2:
            raise RuleFault(f"'{word}' belongs to no option", at)
        if not self.reader.undecided or not self.loaded or not _is_option(word):
            raise RuleFault(self.unknown_message(word), at)
        last = at
        while last + 1 < len(words) and words[last + 1] != "!" and not _is_option(words[last + 1]):
            last += 1
        value = tuple(words[at + 1 : last + 1])
        owner = self.loaded[-1]
        owner.known = False
        owner.unknown.append(Option(word[2:], " ".join(value) if value else None, negated, value))
        return last + 1

    def unknown_message(self, word: str) -> str:
        name = word.lstrip("-")
        holders = [m.name for m in self.reader.matches.values() if name in m.by_name]
        by_protocol = {module: number for number, module in IMPLICIT_MATCHES.items()}
        protocols = [PROTOCOLS[by_protocol[m]] for m in holders if m in by_protocol]
        if protocols:
            return f"{word} needs -p {' or -p '.join(protocols)} before it"
        if holders:
            return f"{word} needs -m {' or -m '.join(holders[:3])} before it"
        holders = [t.name for t in self.reader.targets.values() if name in t.by_name]
        if holders:
            return f"{word} needs -j {' or -j '.join(holders[:3])} before it"
        known = {n.lstrip("-") for n in _BUILTIN if n.startswith("--")}
        for loaded in (*self.loaded, *self.implicit()):
            known |= loaded.extension.by_name.keys() if loaded.extension else set()
        near = did_you_mean(name, sorted(known)).replace("'", "'--", 1) if word.startswith("--") else ""
        return f"unknown option '{word}'{near}"

    # --- builtin options ---------------------------------------------------------------------------------------

    def argument(self, at: int, negated: bool, key: str) -> tuple[str, int, bool]:
        """The value of a builtin option, its place, and whether ``!`` stands before or after the option."""
        if self.seen.setdefault(key, at) != at:
            raise RuleFault(f"'{self.words[at]}' is given twice", at)
        words = self.words
        value_at = at + 1
        if value_at < len(words) and words[value_at] == "!" and not negated:
            negated = True
            value_at += 1
        if value_at >= len(words):
            raise RuleFault(f"'{words[at]}' needs a value", at)
        return words[value_at], value_at, negated

    def addresses(self, at: int, negated: bool, key: str) -> tuple[tuple[Negatable | None, ...], int]:
        word, value_at, negated = self.argument(at, negated, key)
        try:
            return _addresses(word, self.reader.family, negated), value_at + 1
        except ValueFault as fault:
            raise RuleFault(str(fault), value_at) from None

    def read_source(self, at: int, negated: bool) -> int:
        self.source, at = self.addresses(at, negated, "source")
        return at

    def read_destination(self, at: int, negated: bool) -> int:
        self.destination, at = self.addresses(at, negated, "destination")
        return at

    def interface(self, at: int, negated: bool, key: str) -> tuple[Negatable | None, int]:
        word, value_at, negated = self.argument(at, negated, key)
        if self.chain in self.reader.builtin_chains and self.chain in _NO_DECLARED_HOOK[key]:
            raise RuleFault(
                f"'{self.words[at]}' has no meaning in {self.chain}: packets have no such interface there", at
            )
        try:
            name = interface_name(word)
        except ValueFault as fault:
            raise RuleFault(str(fault), value_at) from None
        return (None if name == "+" and not negated else Negatable(name, negated)), value_at + 1

    def read_in_interface(self, at: int, negated: bool) -> int:
        self.in_interface, at = self.interface(at, negated, "in")
        return at

    def read_out_interface(self, at: int, negated: bool) -> int:
        self.out_interface, at = self.interface(at, negated, "out")
        return at

    def read_protocol(self, at: int, negated: bool) -> int:
        word, value_at, negated = self.argument(at, negated, "protocol")
        try:
            self.protocol = _protocol(word, negated)
        except ValueFault as fault:
            raise RuleFault(str(fault), value_at) from None
        return value_at + 1

    def read_fragment(self, at: int, negated: bool) -> int:
        if self.reader.family == 6:
            raise RuleFault("-f is for IPv4: use -m frag", at)
        if self.fragment is not None:
            raise RuleFault("'-f' is given twice", at)
        self.fragment = not negated
        return at + 1

    def read_counters(self, at: int, negated: bool) -> int:
        if self.seen.setdefault("counters", at) != at:
            raise RuleFault(f"'{self.words[at]}' is given twice", at)
        given = self.words[at + 1 : at + 3]
        if negated or len(given) < 2:
            raise RuleFault("-c needs a packet count and a byte count", at)
        try:
            self.counters = (parse_count(given[0]), parse_count(given[1]))
        except ValueFault as fault:
            raise RuleFault(str(fault), at + 1, at + 2) from None
        return at + 3

    def read_match(self, at: int, negated: bool) -> int:
        if negated:
            raise RuleFault("'!' cannot stand before -m: put it before the match's option", at - 1)
        if at + 1 >= len(self.words):
            raise RuleFault("'-m' needs the name of a match", at)
        word = self.words[at + 1]
        name = MATCH_ALIASES.get(word, word) if self.reader.family == 6 else word
        extension = self.reader.matches.get(name)
        if extension is None:
            self.allow_unknown(name, at + 1, "match", self.reader.matches)
        self.loaded.append(_Loaded(extension, name, at))
        return at + 2

    def allow_unknown(self, name: str, at: int, kind: Literal["match", "target"], known: Collection[str]) -> None:
        if other_family(kind, name, self.reader.family):
            family = "IPv6" if self.reader.family == 4 else "IPv4"
            raise RuleFault(f"the {kind} '{name}' is only for {family}", at)
        if not self.reader.undecided:
            raise RuleFault(f"unknown {kind} '{name}'{did_you_mean(name, known)}", at)
        if not name or name.startswith(("-", "!")):
            raise RuleFault(f"'{name}' cannot be the name of a {kind}", at)

    def read_jump(self, at: int, negated: bool) -> int:
        return self.read_target(at, negated, goto=False)

    def read_goto(self, at: int, negated: bool) -> int:
        return self.read_target(at, negated, goto=True)

    def read_target(self, at: int, negated: bool, *, goto: bool) -> int:
        word = self.words[at]
        if negated:
            raise RuleFault(f"'!' cannot stand before {word}", at - 1)
        if self.target is not None:
            raise RuleFault("a rule has one target: -j or -g is given twice", at)
        if at + 1 >= len(self.words):
            raise RuleFault(f"'{word}' needs a target or a chain", at)
        name = self.words[at + 1]
        reader = self.reader
        extension = reader.targets.get(name)
        if goto and (extension is not None or name in VERDICTS):
            raise RuleFault(f"-g leads to a chain, and '{name}' is a target: use -j {name}", at + 1)
        if name == "DROP" and reader.table == "nat":
            raise RuleFault("the nat table does not filter: drop the packet in filter, mangle or raw", at + 1)
        if name in reader.builtin_chains:
            raise RuleFault(f"'{name}' is a builtin chain: only user chains can be jumped to", at + 1)
        self.target = _Loaded(extension, name, at)
        self.goto = goto
        if extension is not None:
            self.loaded.append(self.target)
        elif name in VERDICTS or reader.chains is None or name in reader.chains:
            if reader.chains is None and name not in VERDICTS:
                check_chain_name(name, at + 1)
            self.target.known = True
        elif goto and not reader.undecided:
            raise RuleFault(f"no chain '{name}'{did_you_mean(name, reader.chains)}", at + 1)
        else:
            known = {*reader.chains, *VERDICTS, *reader.targets}
            if not reader.undecided and not other_family("target", name, reader.family):
                raise RuleFault(f"no chain or target '{name}'{did_you_mean(name, known)}", at + 1)
            self.allow_unknown(name, at + 1, "target", known)
            self.loaded.append(self.target)
        return at + 2

    def read_own_family(self, at: int, negated: bool) -> int:
        return at + 1

    def read_ipv4(self, at: int, negated: bool) -> int:
        self.other_family = self.reader.family != 4
        return len(self.words) if self.other_family else at + 1

    def read_ipv6(self, at: int, negated: bool) -> int:
        self.other_family = self.reader.family != 6
        return len(self.words) if self.other_family else at + 1

    # --- putting the rule together -----------------------------------------------------------------------------

    def finish(self) -> list[Rule]:
        if self.other_family:
            return []
        found: list[Match] = []
        target: Target | None = None
        for loaded in self.loaded:
            options = self.options(loaded)
            if loaded is self.target:
                target = Target(loaded.name, options, self.goto, loaded.known)
            elif loaded.known:
                found.append(_match(loaded.name, options))
            else:
                found.append(Match(loaded.name, options, False))
        if target is None and self.target is not None:
            target = _plain_target(self.target.name, self.goto)
        packets, byte_count = self.counters
        return [
            Rule(
                source,
                destination,
                self.in_interface,
                self.out_interface,
                self.protocol,
                self.fragment,
                tuple(found),
                target,
                packets,
                byte_count,
                self.raw,
                self.line,
            )
            for source in self.source
            for destination in self.destination
        ]

    def options(self, loaded: _Loaded) -> tuple[Option, ...]:
        """The finished options of a match or target."""
        extension = loaded.extension
        if extension is None:
            return tuple(loaded.unknown)
        try:
            options = _options(extension, self.reader.family, tuple(loaded.given), bool(loaded.unknown))
        except _OptionFault as fault:
            if fault.index < 0:
                raise RuleFault(fault.message, loaded.at, min(loaded.at + 1, len(self.words) - 1)) from None
            raise RuleFault(fault.message, *loaded.places[fault.index]) from None
        self.check_protocol(loaded, extension, options)
        return (*options, *loaded.unknown)

    def check_protocol(self, loaded: _Loaded, extension: Extension, options: tuple[Option, ...]) -> None:
        needed, what = extension.protocols, loaded.name
        if needed is None:
            if extension.protocols_by is None:
                return
            needed = extension.protocols_by(options)
            if needed is None:
                return
            what += " with such options"
        protocol = self.protocol
        if protocol is None or protocol.negated or protocol.value not in needed:
            few = len(needed) < 10
            wanted = " or ".join(f"-p {PROTOCOLS[p]}" for p in sorted(needed)) if few else "-p PROTOCOL"
            raise RuleFault(f"{what} needs {wanted} in the rule", loaded.at, min(loaded.at + 1, len(self.words) - 1))


_ANYWHERE: tuple[Negatable | None, ...] = (None,)

_BUILTIN: dict[str, Callable[[_Reading, int, bool], int]] = {
    name: reader
    for names, reader in (
        (("-s", "--source", "--src"), _Reading.read_source),
        (("-d", "--destination", "--dst"), _Reading.read_destination),
        (("-i", "--in-interface"), _Reading.read_in_interface),
        (("-o", "--out-interface"), _Reading.read_out_interface),
        (("-p", "--protocol"), _Reading.read_protocol),
        (("-f", "--fragment", "--fragments"), _Reading.read_fragment),
        (("-m", "--match"), _Reading.read_match),
        (("-j", "--jump"), _Reading.read_jump),
        (("-g", "--goto"), _Reading.read_goto),
        (("-c", "--set-counters"), _Reading.read_counters),
        (("-4", "--ipv4"), _Reading.read_ipv4),
        (("-6", "--ipv6"), _Reading.read_ipv6),
        (("-v", "--verbose"), _Reading.read_own_family),
    )
    for name in names
}


def check_chain_name(name: str, at: int) -> None:
    """iptables' rules for the name of a user chain.

    Raises:
        RuleFault: empty, too long, with a wrong first character, or the name of a target.
    """
    if not name or len(name.encode("utf-8", "surrogatepass")) > 28:
        raise RuleFault(f"the chain name '{name}' needs 1 to 28 characters", at)
    if name[0] in "-!" or any(c in ' \t"' or not c.isprintable() for c in name):
        raise RuleFault(f"the chain name '{name}' may not start with - or ! nor contain blanks or quotes", at)
    if name in VERDICTS or name in targets(4) or name in targets(6):
        raise RuleFault(f"'{name}' is the name of a target: call the chain something else", at)


def parse_count(text: str) -> int:
    """A packet or byte count of 64 bits. Raises ValueFault."""
    if text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 1 << 64:
        return int(text)
    raise ValueFault(f"'{text}' is not a count from 0 to 2**64-1")


def _is_option(word: str) -> bool:
    return word in _BUILTIN or (word.startswith("--") and len(word) > 2)


@lru_cache(_CACHE)
def _addresses(word: str, family: int, negated: bool) -> tuple[Negatable | None, ...]:
    texts = word.split(",")
    if negated and len(texts) > 1:
        raise ValueFault("'!' does not go with several addresses: write one rule for each")
    everything = Network(family, 0, 0)
    networks = [parse_network(t, family) for t in texts]
    return tuple(Negatable(n, negated) if negated or n != everything else None for n in networks)


@lru_cache(1024)
def _protocol(word: str, negated: bool) -> Negatable | None:
    number = parse_protocol(word)
    if number == 0 and negated:
        raise ValueFault("'! -p all' would match nothing")
    return Negatable(number, negated) if number else None


@lru_cache(4096)
def _plain_target(name: str, goto: bool) -> Target:
    return Target(name, (), goto)


def _match(name: str, options: tuple[Option, ...]) -> Match:
    return Match(name, options)


@lru_cache(_CACHE)
def _options(extension: Extension, family: int, given: tuple[_Given, ...], partial: bool) -> tuple[Option, ...]:
    """The options of an extension, checked, completed and in printed order.

    Args:
        extension: whose options.
        family: 4 or 6.
        given: name, negation and words of each option as written.
        partial: options unknown here came too: what is required may be among them.
    """
    options: list[Option] = []
    seen: set[str] = set()
    for index, (name, negated, words) in enumerate(given):
        spec = extension.by_name[name]
        stored = spec.stored
        if name == "next" and not extension.ordered:
            seen.difference_update(("reqid", "spi", "proto", "mode", "tunnel-src", "tunnel-dst"))
        elif stored in seen:
            raise _OptionFault(f"--{stored} is given twice", index)
        seen.add(stored)
        try:
            value, text = spec.kind(words, family) if words or not spec.optional else (None, ())
        except ValueFault as fault:
            raise _OptionFault(f"--{name}: {fault}", index) from None
        options.append(Option(stored, value, negated, text))
    for group in extension.exclusive:
        both = [name for name in group if name in seen]
        if len(both) > 1:
            raise _OptionFault(f"--{both[0]} and --{both[1]} do not go together", len(given) - 1)
    if not partial:
        for first, second in extension.requires:
            if first in seen and second not in seen:
                raise _OptionFault(f"--{first} needs --{second}", -1)
        for group in extension.required:
            if not seen.intersection(group):
                shown = " or ".join(f"--{name}" for name in group[:4]) + (" ..." if len(group) > 4 else "")
                raise _OptionFault(f"{extension.name} needs {shown}", -1)
        if extension.finish is not None:
            try:
                options = extension.finish(options, family)
            except ValueFault as fault:
                raise _OptionFault(f"{extension.name}: {fault}", -1) from None
    if extension.ordered:
        options.sort(key=lambda option: extension.position[option.name])
    return tuple(options)
