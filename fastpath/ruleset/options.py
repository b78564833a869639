"""What the option table is made of, and how to look things up in it.

The table itself is data: matches in ``match_table.py``, targets in ``target_table.py``. One entry says how an option
is written, read, checked and printed; parser, printer and documentation all go by it, so there is no second place
to change. The order of an extension's options is the order in which iptables-save prints them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, TypeAlias

from fastpath.ruleset.kinds import Kind, flag
from fastpath.ruleset.model import Option

Quoting: TypeAlias = Literal["plain", "auto", "always"]
"""``plain``: quoted only where it could not be read back; ``auto``: quoted unless made of letters, digits, ``-`` and
``_``; ``always``: quoted."""


@dataclass(frozen=True, slots=True, eq=False)
class OptionSpec:
    """One option of an extension.

    Attributes:
        name: long name without dashes.
        kind: reader of the value.
        aliases: other accepted long names.
        negatable: ``!`` may stand before it.
        words: how many words the value takes.
        canonical: the option that it is stored and printed as, where that is another one (``set-mark``).
        quoting: how its words are printed.
        hooks: hooks in which iptables accepts it, None for all.
        optional: the value may be left out.
    """

    name: str
    kind: Kind = flag
    aliases: tuple[str, ...] = ()
    negatable: bool = False
    words: int = 1
    canonical: str = ""
    quoting: Quoting = "plain"
    hooks: frozenset[str] | None = None
    optional: bool = False

    @property
    def stored(self) -> str:
        """The name that the option has in an :class:`Option`."""
        return self.canonical or self.name


Finish: TypeAlias = Callable[[list[Option], int], list[Option]]
"""Last word on an extension's options, given the family: adds what iptables-save prints without being asked, drops
what it does not print. Raises ValueFault."""


@dataclass(frozen=True, slots=True, eq=False)
class Extension:
    """A match or a target.

    Attributes:
        name: as after ``-m`` or ``-j``.
        options: its options in printed order.
        families: address families that have it.
        protocols: the rule must have ``-p`` with one of these, not negated; None: no condition.
        protocols_by: the same, depending on the options given.
        tables, hooks: where the kernel accepts it, None for everywhere.
        hooks_by: hooks that take it, depending on the options given.
        required: groups of option names; of each group at least one must be given.
        exclusive: groups of option names; of each group at most one may be given.
        requires: pairs of option names; the first needs the second.
        finish: completes the options.
        ordered: options are printed in the table's order; else as they were written.
        since: first iptables version that has it, where that is later than 1.4.0.
    """

    name: str
    options: tuple[OptionSpec, ...] = ()
    families: frozenset[int] = frozenset((4, 6))
    protocols: frozenset[int] | None = None
    tables: frozenset[str] | None = None
    hooks: frozenset[str] | None = None
    required: tuple[tuple[str, ...], ...] = ()
    exclusive: tuple[tuple[str, ...], ...] = ()
    requires: tuple[tuple[str, str], ...] = ()
    hooks_by: Callable[[Iterable[Option]], frozenset[str] | None] | None = None
    finish: Finish | None = None
    protocols_by: Callable[[Iterable[Option]], frozenset[int] | None] | None = None
    ordered: bool = True
    since: str = ""
    by_name: dict[str, OptionSpec] = field(init=False, compare=False, repr=False)
    position: dict[str, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        names = {n: spec for spec in self.options for n in (spec.name, *spec.aliases)}
        object.__setattr__(self, "by_name", names)
        object.__setattr__(self, "position", {spec.name: n for n, spec in enumerate(self.options)})


VERDICTS = frozenset(("ACCEPT", "DROP", "RETURN", "QUEUE"))
"""Targets that take no options and are no extensions."""

MATCH_ALIASES = {"icmpv6": "icmp6", "ipv6-icmp": "icmp6", "ipv6-mh": "mh"}
"""Other names of matches."""

IMPLICIT_MATCHES: dict[int, str] = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    50: "esp",
    51: "ah",
    58: "icmp6",
    108: "ipcomp",
    132: "sctp",
    135: "mh",
}
"""The match that ``-p`` loads by itself once one of its options is used, by protocol number."""


@cache
def matches(family: int) -> dict[str, Extension]:
    """Every match of a family by name."""
    from fastpath.ruleset.match_table import MATCHES

    return {m.name: m for m in MATCHES if family in m.families}


@cache
def targets(family: int) -> dict[str, Extension]:
    """Every target extension of a family by name."""
    from fastpath.ruleset.target_table import TARGETS

    return {t.name: t for t in TARGETS if family in t.families}


def other_family(kind: Literal["match", "target"], name: str, family: int) -> bool:
    """Whether the other address family has this match or target."""
    return name in (matches if kind == "match" else targets)(10 - family)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``, did you mean 'x'?`` where a known name is near, else an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean '{near[0]}'?" if near else ""
