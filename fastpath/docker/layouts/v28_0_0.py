"""28.0.0: an ipset of all bridges' subnets stands for the rules per bridge; it lasted one release."""

from __future__ import annotations

from fastpath.docker.layouts.closed import ClosedLayout
from fastpath.docker.layouts.common import ESTABLISHED, internal_drops
from fastpath.docker.layouts.v18_05 import STAGE_1, STAGE_2
from fastpath.docker.plan import Segment

BRIDGES_SET = "docker-ext-bridges-v4"
_INTO_BRIDGES = f"-m set --match-set {BRIDGES_SET} dst"


class Rules(ClosedLayout):
    """The layout of 28.0.0."""

    skip_dnat = True
    outgoing = "FORWARD"

    def start(self) -> None:
        super().start()
        self.chains.make("filter", "DOCKER", STAGE_1, STAGE_2, "DOCKER-USER")
        self.chains.tail("filter", "DOCKER-USER", "-j RETURN")
        for rule in ("-j DOCKER-USER", f"{_INTO_BRIDGES} {ESTABLISHED}", f"-j {STAGE_1}", f"{_INTO_BRIDGES} -j DOCKER"):
            self.chains.tail("filter", "FORWARD", rule)

    def arrange(self) -> None:
        if self.plan.daemon.swarm is not None:
            self.chains.top("filter", "FORWARD", "-j DOCKER-INGRESS")
        self.chains.top("filter", "FORWARD", "-j DOCKER-USER")

    def isolate(self, net: Segment, br: str) -> None:
        if net.mode == "routed":
            self.chains.head("filter", STAGE_1, f"-o {br} -j RETURN")
            self.chains.head("filter", STAGE_1, f"-i {br} {ESTABLISHED}")
        self.chains.tail("filter", STAGE_1, f"-i {br} ! -o {br} -j {STAGE_2}")
        self.chains.head("filter", STAGE_2, f"-o {br} -j DROP")

    def isolate_internal(self, net: Segment, br: str) -> None:
        for rule in internal_drops(net, br):
            self.chains.head("filter", STAGE_1, rule)
