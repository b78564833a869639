"""Checks that need a whole ruleset: where jumps lead, loops, and what the kernel takes in which table and hook.

The first problem in printed order is reported, as a :class:`Problem` (for a reader that knows the line) or as an
EditError. Safe direction: what the kernel would refuse is refused here; what passes here need not load everywhere,
since kernels differ in the extensions they have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastpath.errors import EditError
from fastpath.ruleset.model import BUILTIN_CHAINS, Chain, Rule, Ruleset, Table
from fastpath.ruleset.options import VERDICTS, Extension, did_you_mean, matches, targets


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one rule.

    Attributes:
        message: what is wrong and what would be right.
        table, chain, number, rule: where; numbers start at 1.
        word: the word of the rule that the message is about.
    """

    message: str
    table: str
    chain: str
    number: int
    rule: Rule
    word: str


def check_ruleset(ruleset: Ruleset) -> None:
    """iptables' and the kernel's checks of a whole ruleset.

    Raises:
        EditError: a jump to a missing or builtin chain, a loop of jumps, or a match or target in a table or hook
            that the kernel does not let it be in. The message names table, chain and rule.
    """
    problem = find_problem(ruleset)
    if problem is not None:
        p = problem
        raise EditError(f"{p.table} {p.chain} rule {p.number} ({p.rule}): {p.message}")


def find_problem(ruleset: Ruleset) -> Problem | None:
    """The first rule that iptables or the kernel would refuse, or None."""
    for table in ruleset.tables:
        problem = _jumps(table, ruleset.family) or _loop(table) or _places(table, ruleset.family)
        if problem is not None:
            return problem
    return None


def _rules(table: Table) -> Iterator[tuple[Chain, int, Rule]]:
    for chain in table.chains:
        for number, rule in enumerate(chain.rules, 1):
            yield chain, number, rule


def _jumps(table: Table, family: int) -> Problem | None:
    """Every target is a verdict, an extension or a user chain of the table."""
    chains = {c.name for c in table.chains}
    builtin = BUILTIN_CHAINS.get(table.name, ())
    plain = (VERDICTS | targets(family).keys()) - chains
    user = chains.difference(builtin)
    for chain, number, rule in _rules(table):
        target = rule.target
        if target is None or not target.known:
            continue
        name = target.name
        if name in user or (name in plain and not target.goto):
            continue
        if name in plain:
            message = f"-g leads to a chain, and '{name}' is a target: use -j {name}"
        elif name in builtin:
            message = f"'{name}' is a builtin chain: only user chains can be jumped to"
        else:
            message = f"no chain or target '{name}'" + did_you_mean(name, user | VERDICTS | targets(family).keys())
        return Problem(message, table.name, chain.name, number, rule, name)
    return None


def _edges(table: Table) -> dict[str, dict[str, tuple[int, Rule]]]:
    """For every chain the chains that it leads to, with the first rule that does."""
    user = {c.name for c in table.chains if c.name not in BUILTIN_CHAINS.get(table.name, ())}
    edges: dict[str, dict[str, tuple[int, Rule]]] = {}
    for chain in table.chains:
        out: dict[str, tuple[int, Rule]] = {}
        edges[chain.name] = out
        for number, rule in enumerate(chain.rules, 1):
            if rule.target is not None and rule.target.name in user:
                out.setdefault(rule.target.name, (number, rule))
    return edges


def _loop(table: Table) -> Problem | None:
    """No chain leads back to itself. Depth-first without recursion: chains may be thousands deep."""
    edges = _edges(table)
    done: set[str] = set()
    for start in edges:
        if start in done:
            continue
        path = {start: iter(edges[start].items())}
        while path:
            here = next(reversed(path))
            step = next(path[here], None)
            if step is None:
                del path[here]
                done.add(here)
                continue
            there, (number, rule) = step
            if there in path:
                chain = [*path][[*path].index(there) :]
                message = f"a loop of jumps: {' -> '.join([*chain, there])}"
                return Problem(message, table.name, here, number, rule, there)
            if there not in done:
                path[there] = iter(edges[there].items())
    return None


def hooks_of_chains(table: Table) -> dict[str, frozenset[str]]:
    """For every chain of a table without loops, the builtin chains that lead to it, itself included."""
    edges = _edges(table)
    reached: dict[str, set[str]] = {name: set() for name in edges}
    for hook in BUILTIN_CHAINS.get(table.name, ()):
        if hook not in edges:
            continue
        waiting = [hook]
        while waiting:
            here = waiting.pop()
            if hook not in reached[here]:
                reached[here].add(hook)
                waiting += edges[here]
    return {name: frozenset(hooks) for name, hooks in reached.items()}


def _restricted(extensions: dict[str, Extension]) -> dict[str, Extension]:
    return {
        name: x
        for name, x in extensions.items()
        if x.tables is not None
        or x.hooks is not None
        or x.hooks_by is not None
        or any(o.hooks is not None for o in x.options)
    }


def _places(table: Table, family: int) -> Problem | None:
    """Matches and targets stand in tables and hooks that take them."""
    some_matches, some_targets = _restricted(matches(family)), _restricted(targets(family))
    hooks: dict[str, frozenset[str]] | None = None
    for chain, number, rule in _rules(table):
        parts = []
        target = rule.target
        if target is not None and target.name in some_targets and target.known:
            parts.append((target.name, target.options, some_targets[target.name]))
        for match in rule.matches:
            if match.module in some_matches and match.known:
                parts.append((match.module, match.options, some_matches[match.module]))
        for name, options, extension in parts:
            hooks = hooks if hooks is not None else hooks_of_chains(table)
            message = _misplaced(name, extension, table.name, hooks[chain.name])
            if message is None and extension.hooks_by is not None:
                allowed = extension.hooks_by(options)
                if allowed is not None:
                    message = _wrong_hook(f"{name} with such options", allowed, hooks[chain.name])
            word = name
            for option in options:
                spec = extension.by_name.get(option.name)
                if message is None and spec is not None and spec.hooks is not None:
                    message = _wrong_hook(f"--{option.name}", spec.hooks, hooks[chain.name])
                    word = f"--{option.name}"
            if message is not None:
                return Problem(message, table.name, chain.name, number, rule, word)
    return None


def _misplaced(name: str, extension: Extension, table: str, hooks: frozenset[str]) -> str | None:
    if extension.tables is not None and table not in extension.tables:
        return f"{name} is only for the table {' or '.join(sorted(extension.tables))}, not {table}"
    return _wrong_hook(name, extension.hooks, hooks) if extension.hooks is not None else None


def _wrong_hook(name: str, allowed: frozenset[str], hooks: frozenset[str]) -> str | None:
    wrong = sorted(hooks - allowed)
    return f"{name} works in {', '.join(sorted(allowed))}; {wrong[0]} leads to it here" if wrong else None
