"""29: each network's own DROP in DOCKER keeps the others out; DOCKER-INTERNAL is all that is left of isolation."""

from __future__ import annotations

from fastpath.docker.layouts import v28_2
from fastpath.docker.layouts.common import internal_drops
from fastpath.docker.plan import Segment


class Rules(v28_2.Rules):
    """The layout of 29."""

    skip_dnat = False
    isolation = ("DOCKER-INTERNAL",)

    def isolate(self, net: Segment, br: str) -> None:
        """DOCKER's DROP does it."""

    def isolate_internal(self, net: Segment, br: str) -> None:
        for rule in internal_drops(net, br):
            self.chains.head("filter", "DOCKER-INTERNAL", rule)
