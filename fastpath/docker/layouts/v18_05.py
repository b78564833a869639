"""18.05 to 27: isolation in two stages, two rules a network instead of two a pair.

STAGE-1 sends what leaves a bridge for elsewhere to STAGE-2, which drops what goes into another bridge.
"""

from __future__ import annotations

from fastpath.docker.layouts import v1_5
from fastpath.docker.layouts.common import internal_drops
from fastpath.docker.plan import Segment

STAGE_1, STAGE_2 = "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2"


class Rules(v1_5.Rules):
    """The layout of 18.05."""

    skip_dnat = True

    def start(self) -> None:
        super().start()
        self.chains.make("filter", STAGE_1, STAGE_2, "DOCKER-USER")
        for chain in (STAGE_1, STAGE_2, "DOCKER-USER"):
            self.chains.tail("filter", chain, "-j RETURN")
        self.arrange()

    def arrange(self) -> None:
        self.chains.top("filter", "FORWARD", f"-j {STAGE_1}")
        if self.plan.daemon.swarm is not None:
            self.chains.top("filter", "FORWARD", "-j DOCKER-INGRESS")
        self.chains.top("filter", "FORWARD", "-j DOCKER-USER")

    def isolate(self, net: Segment, br: str) -> None:
        if net.internal:
            for rule in internal_drops(net, br):
                self.chains.head("filter", STAGE_1, rule)
            return
        self.chains.head("filter", STAGE_1, f"-i {br} ! -o {br} -j {STAGE_2}")
        self.chains.head("filter", STAGE_2, f"-o {br} -j DROP")
