"""What an iptables ruleset is: frozen dataclasses, and nothing that reads, prints or evaluates them.

``Ruleset`` holds tables, a table holds chains in their printed order, a chain holds rules. A rule's
builtin tests (addresses, interfaces, protocol, fragment) are fields; every ``-m`` is a :class:`Match`
and the ``-j``/``-g`` a :class:`Target`, both with parsed options. The type of each option's value is
listed in ``ruleset/options.py``; a name that is not in that table never gets here unless the reader was
told ``unknown="undecided"``, and then ``known`` is False.

Invariant: two rulesets are equal when iptables would print them alike, counters aside (``packets``,
``bytes``, ``raw`` and ``line`` do not take part in comparisons).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

BUILTIN_CHAINS: dict[str, tuple[str, ...]] = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
"""Builtin chains of each table (iptables(8), TABLES)."""


@dataclass(frozen=True, slots=True)
class Network:
    """An address and a mask, as in ``-s 10.0.0.0/8``; the mask need not be contiguous.

    Attributes:
        family: 4 or 6.
        address, mask: integers of 32 or 128 bits; bits of ``address`` outside the mask are zero.
    """

    family: int
    address: int
    mask: int


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Addresses ``first`` to ``last``, both inclusive, as integers."""

    family: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class PortRange:
    """Numbers ``first`` to ``last``, both inclusive: ports, lengths, ids. ``first > last`` is an empty range."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Masked:
    """``value/mask``: marks, TOS, TCP flags. A test holds where ``field & mask == value``."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class IcmpType:
    """ICMP type and inclusive code range; type 255 is ``any``."""

    type: int
    code_first: int
    code_last: int


@dataclass(frozen=True, slots=True)
class SetReference:
    """``--match-set NAME src,dst``: the ipset's name and which side of the packet each of its dimensions reads."""

    name: str
    directions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NatRange:
    """What ``--to-destination`` and ``--to-source`` take: inclusive address and port ranges, either may be absent.

    ``port_base`` is the ``/base`` of a shifted range (``:1000-2000/3000``), else None.
    """

    address: AddressRange | None
    ports: PortRange | None
    port_base: int | None = None


Value: TypeAlias = (
    None
    | int
    | str
    | Network
    | AddressRange
    | PortRange
    | Masked
    | IcmpType
    | SetReference
    | NatRange
    | frozenset[str]
    | tuple[PortRange, ...]
    | tuple[str, ...]
)
"""The parsed value of an option; None for a flag such as ``--random``."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a match or a target.

    Attributes:
        name: canonical long name without dashes, the one iptables-save prints (``dport``, ``ctstate``).
        value: parsed value, of the type that the option table states for it.
        negated: True for ``! --name``.
        text: the argument as iptables-save prints it, unquoted; one string per word.
    """

    name: str
    value: Value = None
    negated: bool = False
    text: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """One ``-m MODULE`` with its options, in printed order. ``known`` is False for a module or option
    that the option table lacks: such a match is undecided, never skipped."""

    module: str
    options: tuple[Option, ...] = ()
    known: bool = True

    def get(self, name: str) -> Option | None:
        """The option called `name`, or None."""
        return next((o for o in self.options if o.name == name), None)


@dataclass(frozen=True, slots=True)
class Target:
    """``-j NAME`` or ``-g NAME`` with options. ``name`` is a verdict, an extension, or a user chain's name."""

    name: str
    options: tuple[Option, ...] = ()
    goto: bool = False
    known: bool = True

    def get(self, name: str) -> Option | None:
        """The option called `name`, or None."""
        return next((o for o in self.options if o.name == name), None)


@dataclass(frozen=True, slots=True)
class Negatable:
    """A builtin test: ``value`` with ``negated`` True for ``!``.

    ``value`` is a :class:`Network` for addresses, a protocol number (int), or an interface name (str; a
    trailing ``+`` is the wildcard that matches every name with that prefix).
    """

    value: Network | int | str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. None means "not tested"; ``fragment`` is True for ``-f`` and False for ``! -f``."""

    source: Negatable | None = None
    destination: Negatable | None = None
    in_interface: Negatable | None = None
    out_interface: Negatable | None = None
    protocol: Negatable | None = None
    fragment: bool | None = None
    matches: tuple[Match, ...] = ()
    target: Target | None = None
    packets: int = field(default=0, compare=False)
    bytes: int = field(default=0, compare=False)
    raw: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        from fastpath.ruleset.printer import format_rule

        return format_rule(self)


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain. ``policy`` is ``ACCEPT`` or ``DROP`` for a builtin chain and None for a user's."""

    name: str
    policy: str | None = None
    rules: tuple[Rule, ...] = ()
    packets: int = field(default=0, compare=False)
    bytes: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its chains in printed order."""

    name: str
    chains: tuple[Chain, ...] = ()

    def chain(self, name: str) -> Chain | None:
        """The chain called `name`, or None."""
        return next((c for c in self.chains if c.name == name), None)


@dataclass(frozen=True, slots=True)
class RuleRef:
    """One countable thing of a ruleset: a rule, or a builtin chain's policy (``number`` 0).

    ``id`` is its place in :meth:`Ruleset.refs`, the id that every result's ``rule`` column uses.
    """

    id: int
    table: str
    chain: str
    number: int
    text: str

    def __str__(self) -> str:
        what = "policy" if self.number == 0 else f"rule {self.number}"
        return f"{self.table} {self.chain} {what}: {self.text}"


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All tables of one address family, in printed order.

    Attributes:
        tables: tables, each name at most once.
        family: 4 (iptables) or 6 (ip6tables).
        source: file the rules came from, for messages.
    """

    tables: tuple[Table, ...] = ()
    family: int = 4
    source: str = field(default="<string>", compare=False)

    def table(self, name: str) -> Table | None:
        """The table called `name`, or None."""
        return next((t for t in self.tables if t.name == name), None)

    def refs(self) -> tuple[RuleRef, ...]:
        """Every rule and policy with its id: tables and chains in printed order, a builtin chain's policy
        (number 0) before its rules (numbers from 1). ``refs()[i].id == i``."""
        return tuple(self._refs())

    def _refs(self) -> Iterator[RuleRef]:
        n = 0
        for table in self.tables:
            for chain in table.chains:
                if chain.policy is not None:
                    yield RuleRef(n, table.name, chain.name, 0, f"-P {chain.name} {chain.policy}")
                    n += 1
                for number, rule in enumerate(chain.rules, 1):
                    yield RuleRef(n, table.name, chain.name, number, f"-A {chain.name} {rule}".rstrip())
                    n += 1

    def __str__(self) -> str:
        from fastpath.ruleset.printer import format_ruleset

        return format_ruleset(self)

    def edit(self, *commands: str) -> Ruleset:
        """The ruleset after iptables commands such as ``"-I DOCKER-USER 1 -i eth0 -j DROP"``, applied in order.

        Raises:
            ParseError: a command that cannot be read.
            EditError: a command that iptables would refuse.
        """
        from fastpath.ruleset.edit import apply

        result = self
        for command in commands:
            result = apply(result, command)
        return result
