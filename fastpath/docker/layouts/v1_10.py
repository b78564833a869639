"""1.10 to 17.05: DOCKER-ISOLATION, the first rule of FORWARD, drops between each pair of bridges."""

from __future__ import annotations

from fastpath.docker.layouts import v1_5
from fastpath.docker.layouts.common import internal_drops
from fastpath.docker.plan import Segment


class Rules(v1_5.Rules):
    """The layout of 1.10."""

    skip_dnat = True

    def start(self) -> None:
        super().start()
        self.chains.make("filter", "DOCKER-ISOLATION")
        self.chains.tail("filter", "DOCKER-ISOLATION", "-j RETURN")
        self.arrange()

    def arrange(self) -> None:
        self.chains.top("filter", "FORWARD", "-j DOCKER-ISOLATION")
        if self.plan.daemon.swarm is not None:
            self.chains.top("filter", "FORWARD", "-j DOCKER-INGRESS")

    def isolate(self, net: Segment, br: str) -> None:
        if net.internal:
            for rule in internal_drops(net, br):
                self.chains.head("filter", "DOCKER-ISOLATION", rule)
            return
        for other in self.created:
            if not other.internal:
                self.chains.head("filter", "DOCKER-ISOLATION", f"-i {br} -o {other.bridge} -j DROP")
                self.chains.head("filter", "DOCKER-ISOLATION", f"-i {other.bridge} -o {br} -j DROP")
