"""What a condition leaves open: which packets a question is about.

A header has more columns than anybody names in a condition. ``any`` leaves them all open. ``new`` is about packets as a
network delivers them that belong to no known flow: no mark, no connection, while flags, fragments, TTL, lengths and
the rest may be anything. ``plain`` is about ordinary first packets: every column that the condition does not name,
beside interface, addresses, protocol and ports, has the schema's default (SYN, TTL 64, a whole packet ...), as
``fp.Packet.make`` and ``fastpath trace`` have it.

A column that the condition names is as the condition says, whatever the scope; naming ``ctstate`` frees ``state``.
"""

from __future__ import annotations

from fastpath.analysis.query.conditions import All, Comparison, Condition, Span
from fastpath.errors import QueryError
from fastpath.packets.schema import PACKET_COLUMNS

OPEN = ("iif", "src", "dst", "proto", "sport", "dport", "oif")
"""Columns that no scope settles."""

OF_A_FLOW = ("state", "mark", "connmark", "ctdir", "ctstatus", "ctorigdst", "ctorigdstport")
"""Columns that are 0 on a packet that the network delivers and that belongs to no known flow."""

SCOPES = {
    "any": "any packets at all",
    "new": "packets of no known flow",
    "plain": "ordinary first packets (SYN, TTL 64, unfragmented ...)",
}
"""Every scope, in words."""


def in_scope(condition: Condition, scope: str) -> Condition:
    """The condition with what the scope settles added.

    Raises:
        QueryError: an unknown scope.
    """
    if scope not in SCOPES:
        raise QueryError(f"there is no scope {scope!r}; the scopes are {', '.join(SCOPES)}")
    defaults = {c.name: c.default or 0 for c in PACKET_COLUMNS}
    pinned = [Comparison(name, (Span(defaults[name], defaults[name]),)) for name in settled(condition, scope)]
    return All((condition, *pinned)) if pinned else condition


def settled(condition: Condition, scope: str) -> tuple[str, ...]:
    """The columns to which the scope gives their defaults, because the condition does not name them."""
    named = condition.fields()
    if "ctstate" in named:
        named |= {"state"}
    names = (c.name for c in PACKET_COLUMNS if scope == "plain" and c.name not in OPEN)
    return tuple(n for n in (names if scope == "plain" else OF_A_FLOW if scope == "new" else ()) if n not in named)
