"""Prints rules and rulesets as iptables-save 1.8 does; iptables-restore accepts the result.

Reading what is printed here gives an equal ruleset. Options are printed from ``Option.text``, which the reader has
already brought into iptables' form; only the quoting is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from fastpath.ruleset.addresses import format_network
from fastpath.ruleset.model import Match, Negatable, Network, Option, Rule, Ruleset, Target
from fastpath.ruleset.names import PROTOCOLS
from fastpath.ruleset.options import Extension, Quoting, matches, targets

_SAFE = re.compile(r"[-_0-9A-Za-z]+\Z", re.ASCII)
_UNSAFE_PLAIN = re.compile(r'[\s"]')
_ESCAPED = {quoting: re.compile(p) for quoting, p in (("plain", r'["\\]'), ("always", r'["\\]'), ("auto", r"[\"'\\]"))}


def quote(text: str, quoting: Quoting = "plain") -> str:
    """One word as iptables-save prints it, in double quotes where `quoting` asks for them."""
    if quoting == "plain":
        bare = bool(text) and not _UNSAFE_PLAIN.search(text)
    else:
        bare = quoting == "auto" and bool(_SAFE.match(text))
    return text if bare else '"' + _ESCAPED[quoting].sub(r"\\\g<0>", text) + '"'


def format_rule(rule: Rule) -> str:
    """A rule's specification: what follows ``-A CHAIN`` in a save file; empty for a rule without tests and target."""
    return " ".join(_rule_words(rule))


def format_ruleset(ruleset: Ruleset, *, counters: bool = False) -> str:
    """A whole save file.

    Args:
        ruleset: what to print.
        counters: print the counts of chains and rules, as ``iptables-save -c`` does; else chains show zeros.
    """
    return "".join(f"{line}\n" for line in _lines(ruleset, counters))


def _lines(ruleset: Ruleset, counters: bool) -> Iterator[str]:
    for table in ruleset.tables:
        yield f"*{table.name}"
        for chain in table.chains:
            count = f"{chain.packets}:{chain.bytes}" if counters else "0:0"
            yield f":{chain.name} {chain.policy or '-'} [{count}]"
        for chain in table.chains:
            for rule in chain.rules:
                prefix = f"[{rule.packets}:{rule.bytes}] " if counters else ""
                yield f"{prefix}-A {chain.name} {format_rule(rule)}".rstrip(" ")
        yield "COMMIT"


def _rule_words(rule: Rule) -> Iterator[str]:
    yield from _test("-s", rule.source)
    yield from _test("-d", rule.destination)
    yield from _test("-i", rule.in_interface)
    yield from _test("-o", rule.out_interface)
    yield from _test("-p", rule.protocol)
    if rule.fragment is not None:
        yield "-f" if rule.fragment else "! -f"
    for match in rule.matches:
        yield "-m"
        yield quote(match.module)
        yield from _options(match, _MATCH_EXTENSIONS.get(match.module, ()))
    if rule.target is not None:
        yield "-g" if rule.target.goto else "-j"
        yield quote(rule.target.name)
        yield from _options(rule.target, _TARGET_EXTENSIONS.get(rule.target.name, ()))


def _test(letter: str, test: Negatable | None) -> Iterator[str]:
    if test is None:
        return
    if test.negated:
        yield "!"
    yield letter
    if isinstance(test.value, Network):
        yield format_network(test.value)
    elif isinstance(test.value, int):
        yield PROTOCOLS.get(test.value, str(test.value))
    else:
        yield quote(test.value)


def _extensions(kind: dict[str, Extension], other: dict[str, Extension]) -> dict[str, tuple[Extension, ...]]:
    return {name: tuple(x[name] for x in (kind, other) if name in x) for name in kind.keys() | other.keys()}


_MATCH_EXTENSIONS = _extensions(matches(4), matches(6))
_TARGET_EXTENSIONS = _extensions(targets(4), targets(6))


def _options(owner: Match | Target, extensions: Iterable[Extension]) -> Iterator[str]:
    for option in owner.options:
        if option.negated:
            yield "!"
        yield f"--{option.name}" if owner.known else quote(f"--{option.name}")
        quoting = _quoting(option, extensions)
        for word in option.text:
            yield quote(word, quoting)


def _quoting(option: Option, extensions: Iterable[Extension]) -> Quoting:
    for extension in extensions:
        spec = extension.by_name.get(option.name)
        if spec is not None:
            return spec.quoting
    return "plain"
