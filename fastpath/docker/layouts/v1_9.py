"""1.9: several networks, kept apart by two DROP rules in FORWARD for each pair of them, by subnet."""

from __future__ import annotations

from fastpath.docker.layouts import v1_5
from fastpath.docker.plan import Segment


class Rules(v1_5.Rules):
    """The layout of 1.9."""

    def isolate(self, net: Segment, br: str) -> None:
        for other in self.created:
            self.chains.head("filter", "FORWARD", f"-s {net.text} -d {other.text} -j DROP")
            self.chains.head("filter", "FORWARD", f"-s {other.text} -d {net.text} -j DROP")
