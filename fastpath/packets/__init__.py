"""Packets as columns, one packet, results, synthesis, and their files."""

from __future__ import annotations

from fastpath.packets.batch import PacketBatch
from fastpath.packets.packet import Packet
from fastpath.packets.result import Differences, Fate, Result, RuleCounter, Summary
from fastpath.packets.schema import Flag, Hook, State, Verdict
from fastpath.packets.totals import Totals

__all__ = [
    "Differences", "Fate", "Flag", "Hook", "Packet", "PacketBatch", "Result", "RuleCounter", "State", "Summary",
    "Totals", "Verdict",
]
