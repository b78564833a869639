"""28.0.1 to 28.1: all but the user's chain is in DOCKER-FORWARD; DOCKER-CT and DOCKER-BRIDGE replace the ipset."""

from __future__ import annotations

from fastpath.docker.layouts import v28_0_0
from fastpath.docker.layouts.closed import ClosedLayout
from fastpath.docker.layouts.common import ESTABLISHED
from fastpath.docker.layouts.v18_05 import STAGE_1, STAGE_2
from fastpath.docker.plan import Segment


class Rules(v28_0_0.Rules):
    """The layout of 28.0.1."""

    outgoing = "DOCKER-FORWARD"
    ingress_chain = "DOCKER-FORWARD"
    isolation: tuple[str, ...] = (STAGE_1, STAGE_2)

    def start(self) -> None:
        ClosedLayout.start(self)
        self.chains.make("filter", "DOCKER", "DOCKER-FORWARD", "DOCKER-BRIDGE", "DOCKER-CT", "DOCKER-USER")
        self.chains.make("filter", *self.isolation)
        self.user_chain()
        self.chains.tail("filter", "FORWARD", "-j DOCKER-USER")
        self.chains.tail("filter", "FORWARD", "-j DOCKER-FORWARD")
        for chain in ("DOCKER-CT", self.isolation[0], "DOCKER-BRIDGE"):
            self.chains.tail("filter", "DOCKER-FORWARD", f"-j {chain}")

    def user_chain(self) -> None:
        """What DOCKER-USER holds from the start: to 28.2.1 a RETURN, behind which a rule that is appended is dead."""
        if not self.engine.since(28, 2, 2):
            self.chains.tail("filter", "DOCKER-USER", "-j RETURN")

    def arrange(self) -> None:
        """Nothing moves any more."""

    def into_bridge(self, net: Segment, br: str) -> None:
        self.chains.tail("filter", "DOCKER-CT", f"-o {br} {ESTABLISHED}")
        self.chains.tail("filter", "DOCKER-BRIDGE", f"-o {br} -j DOCKER")
