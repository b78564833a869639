"""Sets of packets, exactly: header spaces, set algebra, and what hosts do to all packets at once."""

from __future__ import annotations

from fastpath.symbolic.hostsets import Fate, HostSets, Rewrite
from fastpath.symbolic.regions import Region
from fastpath.symbolic.space import HeaderSpace, PacketSet

__all__ = ["Fate", "HeaderSpace", "HostSets", "PacketSet", "Region", "Rewrite"]
