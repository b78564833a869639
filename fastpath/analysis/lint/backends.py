"""iptables-legacy and iptables-nft both in use: a packet has to pass both, and each shows only its own rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fastpath.analysis.lint.context import Context
from fastpath.analysis.lint.model import Finding, Kind, Severity
from fastpath.analysis.query.fields import REACHED
from fastpath.packets.schema import Verdict
from fastpath.ruleset.model import Ruleset
from fastpath.ruleset.parse import parse_ruleset
from fastpath.symbolic import HeaderSpace, HostSets

TWO = Kind(
    "two-backends", "Rules of iptables-legacy and of nftables at the same time",
    "The kernel walks the rules of iptables-legacy and those of nftables, to which iptables-nft belongs, one after the "
    "other; a packet must pass both, while iptables-save shows those of one. What is said about these rules alone may "
    "therefore not hold for the machine.", Severity.WARNING)

OTHER_FILES = ("iptables-legacy-save.txt", "iptables-nft-save.txt")
NFT_FILE = "nft-ruleset.txt"
"""Files of a host folder that may hold the other back end's rules."""

_WARNING = re.compile(r"^# Warning: (iptables-legacy|iptables-nft|iptables) tables present", re.MULTILINE)
_NFT_TABLE = re.compile(r"^table (\w+) (\S+) \{", re.MULTILINE)
_IPTABLES_TABLES = ("raw", "mangle", "nat", "filter", "security")


def find(context: Context) -> Iterator[Finding]:
    """Signs that the rules at hand are not all there are."""
    if context.other is not None and _has_rules(context.other):
        yield _compared(context, context.other, "the other back end")
        return
    if _WARNING.search(context.save_text):
        yield context.finding(
            TWO, "iptables-save warns that the other back end has tables too; they are not in this file.",
            suggestion="look at iptables-legacy-save and iptables-nft-save, and move the rules into one of them")
    folder = Path(context.host.source) if context.host.source else None
    if folder is None or not folder.is_dir():
        return
    mine = "nft" if "(nf_tables)" in context.save_text.partition("\n")[0] else "legacy"
    for name in OTHER_FILES:
        path = folder / name
        if path.is_file() and mine not in name:
            other = parse_ruleset(path.read_text(encoding="utf-8"), source=str(path), unknown="undecided")
            if _has_rules(other):
                yield _compared(context, other, name)
    path = folder / NFT_FILE
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        tables = [f"{family} {name}" for family, name in _NFT_TABLE.findall(text)
                  if family in ("ip", "inet") and not (mine == "nft" and family == "ip" and name in _IPTABLES_TABLES)]
        if tables and re.search(r"\b(drop|reject|accept|dnat|snat|masquerade|jump)\b", text):
            yield context.finding(
                TWO, f"nftables has tables that these rules do not show: {', '.join(tables)}. Packets walk them too.",
                suggestion="look at `nft list ruleset`; keep the rules of a machine in one of the two")


def _has_rules(ruleset: Ruleset) -> bool:
    return any(chain.rules or chain.policy == "DROP" for table in ruleset.tables for chain in table.chains)


def _compared(context: Context, other: Ruleset, name: str) -> Finding:
    """The finding, with a packet that the one lets through and the other stops where there is one.

    Packets that either translates, and rules that set marks, are left out: the other's rules would see them changed.
    """
    count = sum(len(chain.rules) for table in other.tables for chain in table.chains)
    message = f"Both back ends have rules: {name} holds {count} more, and a packet must pass both."
    keep = "keep the rules of a machine in one back end"
    if _marks(context.host.ruleset) or _marks(other):
        return context.finding(TWO, message, suggestion=keep)
    host = context.host.with_ruleset(other)
    space = HeaderSpace.of(context.host, host)
    fates = [HostSets(space, h, assume=context.assume).fates(("verdict", "nat", "rule")) for h in (context.host, host)]
    passed, stopped = space.nothing, space.nothing
    for (verdict, nat, _), packets in fates[0].items():
        if verdict in REACHED and str(nat) == "unchanged":
            passed = passed | packets
    for (verdict, nat, rule), packets in fates[1].items():
        if verdict in (Verdict.DROP, Verdict.REJECT) and rule >= 0 and str(nat) == "unchanged":
            stopped = stopped | packets
    if passed & stopped:
        return context.finding(
            TWO, message + " What these rules let through, the others stop in part.", severity=Severity.ERROR,
            witness=(passed & stopped).witness(), witness_note="passes here and is stopped there", suggestion=keep)
    return context.finding(TWO, message, suggestion=keep)


def _marks(ruleset: Ruleset) -> bool:
    targets = (r.target.name for t in ruleset.tables for c in t.chains for r in c.rules if r.target is not None)
    return any(name in ("MARK", "CONNMARK") for name in targets)
