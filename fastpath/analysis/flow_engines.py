"""What evaluating connections of a host takes: the compiled whole way, and its two halves around nat.

The first half is what a packet meets before nat at the hook where its destination is rewritten (``raw`` and ``mangle``
there), the second everything else. Rules keep their ids: a half says which of the whole's each of its own is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastpath.host.model import Host
from fastpath.packets.schema import Hook
from fastpath.ruleset.model import Chain, Rule, Ruleset, Table

if TYPE_CHECKING:
    from fastpath.engine import Engine

Array = npt.NDArray[Any]
HALVED = ("raw", "mangle")
"""Tables that a packet meets before nat."""


class Limits:
    """What two halves cannot show of a host's rules, because no result column holds it.

    Attributes:
        every: no connection can be done in batches: rules set connection marks, or exempt packets from tracking.
        halved: no packet can be halved: rules of the first half change the type of service or TTL.
        translated: no connection with NAT can be done: rules ask for tuples that a rewritten packet does not show.
        local: none of the host's own packets can be halved: OUTPUT's rules behind nat look at the egress interface of
            the first look-up.
    """

    def __init__(self, ruleset: Ruleset) -> None:
        targets = {(t.name, r.target.name) for t in ruleset.tables for c in t.chains for r in c.rules if r.target}
        notrack = any(r.target is not None and (r.target.name == "NOTRACK" or (
            r.target.name == "CT" and r.target.get("notrack") is not None))
            for t in ruleset.tables for c in t.chains for r in c.rules)
        options = {o.name for t in ruleset.tables for c in t.chains for r in c.rules for m in r.matches
                   if m.module == "conntrack" for o in m.options}
        names = {name for _, name in targets}
        self.every = notrack or bool(names & {"CONNMARK", "CONNSECMARK"})
        self.halved = bool({name for table, name in targets if table in HALVED}
                           & {"TOS", "DSCP", "ECN", "TTL", "HL", "TPROXY"})
        self.translated = bool(options & {
            "ctorigsrc", "ctorigsrcport", "ctreplsrc", "ctrepldst", "ctreplsrcport", "ctrepldstport"})
        self.local = any(rule.out_interface is not None or _reads_egress(rule) for table in ("filter", "security")
                         for rule in _reachable(ruleset.table(table), "OUTPUT"))


def _reads_egress(rule: Rule) -> bool:
    return any(m.module == "physdev" or (m.module == "addrtype" and m.get("limit-iface-out") is not None) or
               m.module == "set" for m in rule.matches)


def _reachable(table: Table | None, start: str) -> Iterable[Rule]:
    """The rules that a walk from a builtin chain can come to."""
    pending, seen = [start], set()
    while table is not None and pending:
        name = pending.pop()
        chain = table.chain(name)
        if chain is None or name in seen:
            continue
        seen.add(name)
        yield from chain.rules
        pending += [rule.target.name for rule in chain.rules if rule.target is not None]


@dataclass(frozen=True, slots=True)
class Part:
    """An engine of a part of the rules, and its rule ids (and -1 behind them) as those of the whole."""

    engine: Engine
    ids: Array

    @property
    def unsure(self) -> bool:
        """Whether some packet may end undecided."""
        from fastpath.engine.undecided import may_end_undecided

        ways = [way for way in (self.engine.routed, self.engine.given) if way is not None]
        return any(may_end_undecided(way) for way in ways)


class FlowEngines:
    """What evaluating connections of one host takes, compiled when it is first needed and kept: the whole way, and for
    the hook where destinations are rewritten what is before it and what is not. :func:`evaluate_flows` takes it as its
    `engine`, to be asked more than once.

    Args:
        host: rules and surroundings.
        engine: the compiled host, where there is one already; its assumptions are then these.
        assume: as :func:`fastpath.compile` takes it.
    """

    def __init__(
        self, host: Host, engine: Engine | None = None, assume: Mapping[str | int, str] | None = None
    ) -> None:
        self.host = host
        if assume is None and engine is not None:
            assume = engine.assume
        self.assume = dict(assume or {})
        self.refs = host.ruleset.refs()
        self._ids = {(r.table, r.chain, r.number): r.id for r in self.refs}
        self._whole = engine
        self._halves: dict[Hook, tuple[Part, Part] | None] = {}

    @property
    def ready(self) -> bool:
        """Whether the whole way is compiled."""
        return self._whole is not None or "whole" in self.__dict__

    @cached_property
    def whole(self) -> Part:
        """The whole way."""
        engine = self._whole or _compiled(self.host, self.assume)
        return Part(engine, np.append(np.arange(len(self.refs)), -1))

    def halves(self, hook: Hook) -> tuple[Part, Part] | None:
        """Before nat at `hook`, and from there on; None where nothing that matters stands before it."""
        if hook not in self._halves:
            chains = [chain for name in HALVED if (table := self.host.ruleset.table(name)) is not None
                      if (chain := table.chain(hook.name)) is not None]
            plain = all(not chain.rules and chain.policy != "DROP" for chain in chains)
            self._halves[hook] = None if plain else (self._part(hook, before=True), self._part(hook, before=False))
        return self._halves[hook]

    def _part(self, hook: Hook, *, before: bool) -> Part:
        def kept(table: Table, chain: Chain) -> bool:
            early = table.name in HALVED and chain.name == hook.name
            return chain.policy is None or early == before

        tables = tuple(
            replace(table, chains=tuple(chain for chain in table.chains if kept(table, chain)))
            for table in self.host.ruleset.tables if not before or table.name in HALVED)
        part = self.host.with_ruleset(replace(self.host.ruleset, tables=tables))
        refs = part.ruleset.refs()
        ids = [self._ids[r.table, r.chain, r.number] for r in refs]
        back = {whole: mine for mine, whole in enumerate(ids)}
        assume = {key if isinstance(key, str) else back.get(key, -1): how for key, how in self.assume.items()}
        assume.pop(-1, None)
        return Part(_compiled(part, assume), np.array([*ids, -1], np.int64))


def _compiled(host: Host, assume: Mapping[str | int, str]) -> Engine:
    """A host compiled; numba is loaded only now, as a few connections need none of this."""
    from fastpath.engine import compile as compile_host

    return compile_host(host, assume=assume)
