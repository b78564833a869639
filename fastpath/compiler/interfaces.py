"""Interface names as small integers.

A compiled host knows the interfaces of the host and of its rules, the empty name (a hook where there is no such
interface), one representative for every wildcard (``br-+``: names nobody listed that it would match) and one for all
other names. So every name that packets may bring has an id, and every id has a name to test patterns on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fastpath.compiler.fields import Values
from fastpath.packets.schema import LOCAL

NONE = 0
"""Id of "no interface"."""


def matches(pattern: str, name: str) -> bool:
    """Whether an interface test of iptables holds: a trailing ``+`` is a wildcard, and ``+`` alone matches all."""
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


@dataclass(frozen=True, slots=True)
class InterfaceTable:
    """Ids of interface names: ``names[id]``, with the wildcard prefixes and the rest at the end.

    Attributes:
        names: id -> a name; ids from ``known`` on are representatives and no real interfaces.
        known: number of ids that stand for one real name each.
        prefixes: wildcard prefixes, aligned with ``names[known:-1]``.
    """

    names: tuple[str, ...]
    known: int
    prefixes: tuple[str, ...]
    _ids: dict[str, int] = field(default_factory=dict, compare=False)
    _found: dict[tuple[str, bool], Values] = field(default_factory=dict, compare=False)

    @classmethod
    def build(cls, names: Iterable[str], patterns: Iterable[str]) -> InterfaceTable:
        """The table of the given real names and of everything the patterns (with or without ``+``) speak of."""
        patterns = list(patterns)
        real = dict.fromkeys(["", LOCAL, "lo", *names, *(p for p in patterns if not p.endswith("+"))])
        prefixes = sorted({p[:-1] for p in patterns if p.endswith("+") and p != "+"})
        stand_ins = [p + "\0" for p in prefixes]
        table = (*real, *stand_ins, "\0")
        return cls(table, len(real), tuple(prefixes), {n: i for i, n in enumerate(real)})

    def id(self, name: str) -> int:
        """The id of any name: its own, or that of the longest wildcard that it falls under, or that of the rest."""
        found = self._ids.get(name)
        if found is not None:
            return found
        best = max((p for p in self.prefixes if name.startswith(p)), key=len, default=None)
        return len(self.names) - 1 if best is None else self.known + self.prefixes.index(best)

    def matching(self, pattern: str, negated: bool = False) -> Values:
        """The ids whose names a pattern matches, or does not."""
        found = self._found.get((pattern, negated))
        if found is None:
            ids = (i for i, name in enumerate(self.names) if matches(pattern, name) != negated)
            found = self._found[pattern, negated] = Values.single(*ids)
        return found
